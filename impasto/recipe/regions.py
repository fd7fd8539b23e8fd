"""Regions of a picture with their own style, weights and colours.

A file of regions is TOML with one table per region, see docs/regions.md. objective/masks.py makes the masks.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, SerializationInfo

from impasto.files import path_in

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# The colours of the style, or a way to keep those of the photograph.
Rule = Literal["style", "luminance", "cholesky", "pca", "monge", "histogram"]
MADE = re.compile(r"light|dark|rest|k-means [0-9]{1,3} of [0-9]{1,3}")  # masks made from the picture
FILE = "a file"  # in a record, for the private path of a mask; its hash is recorded too


def is_made(mask: str) -> bool:
    """Whether a mask is made from the picture: light, dark, k-means 1 of 3, or rest."""
    return bool(MADE.fullmatch(mask))


WITH_PATHS = {"paths": True}  # the context to dump a recipe for another process, which needs the masks


def _dumped(mask: str, info: SerializationInfo) -> str:
    return mask if not mask or is_made(mask) or (info.context or {}).get("paths") else FILE


MaskName = Annotated[str, PlainSerializer(_dumped)]


class Region(BaseModel):
    """A region of the photograph.

    `mask` and `style_mask` are files, white inside the region, or made from the picture. `style` is the number of a style picture,
    from 1 (None: all). `color` None is the recipe's. `feather` is the width of the soft edge of the masks, as a fraction of the
    longer side.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mask: MaskName
    style: Annotated[int, Field(ge=1)] | None = None
    style_mask: MaskName = ""
    style_weight: Weight = 1.0
    content_weight: Weight = 1.0
    color: Rule | None = None
    feather: Annotated[float, Field(ge=0, le=0.5)] = 0.01

    def style_numbers(self, styles: int) -> tuple[int, ...]:
        """The numbers of its style pictures, from 0, if there are `styles` in all."""
        return tuple(range(styles)) if self.style is None else (self.style - 1,)


def in_folder(regions: Any, folder: Path) -> Any:
    """The regions in a file of this folder, with whole paths of their masks; a value that is no table passes."""
    if not isinstance(regions, dict):
        return regions
    return {name: _placed(region, folder) for name, region in regions.items()}


def _placed(region: Any, folder: Path) -> Any:
    if not isinstance(region, dict):
        return region
    return region | {key: mask_in(folder, region[key]) for key in ("mask", "style_mask") if key in region}


def mask_in(folder: Path, mask: Any) -> Any:
    """The whole path of a mask that a file of this folder names; a made mask, or a value that is no text, passes."""
    return mask if not isinstance(mask, str) or mask in ("", FILE) or is_made(mask) else str(path_in(folder, mask))
