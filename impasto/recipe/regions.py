"""Parts of a picture that are painted each in its own way: what a file says of them, and of what is to be spared.

A file of regions is TOML, a table a region; docs/regions.md explains it. masks.py makes the masks.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, SerializationInfo

from impasto.files import path_in

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rule = Literal["style", "luminance", "cholesky", "pca", "monge", "histogram"]  # whose colours, and how they are kept
MADE = re.compile(r"light|dark|rest|k-means [0-9]{1,3} of [0-9]{1,3}")  # masks that are made, not read
FILE = "a file"  # what the record says of a mask that was read: paths are nobody's business, its hash is recorded


def is_made(mask: str) -> bool:
    """Whether a mask is made from the picture: light, dark, k-means 1 of 3, or the rest."""
    return bool(MADE.fullmatch(mask))


WITH_PATHS = {"paths": True}  # the context to dump a recipe in for another process, which has to find the masks


def _dumped(mask: str, info: SerializationInfo) -> str:
    return mask if not mask or is_made(mask) or (info.context or {}).get("paths") else FILE


MaskName = Annotated[str, PlainSerializer(_dumped)]


class Region(BaseModel):
    """A part of the photograph: where it is, which painting it is painted like, how much style and content count, whose colours.

    `mask` and `style_mask` are files, white where the region is, or made from the picture. `style` is the painting's number, from
    1; all of them unless given. `color` is the recipe's unless given. `feather` is the width of the masks' soft edge over the
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

    def paintings(self, styles: int) -> tuple[int, ...]:
        """The numbers of its paintings among so many, from 0."""
        return tuple(range(styles)) if self.style is None else (self.style - 1,)


def in_folder(regions: Any, folder: Path) -> Any:
    """What a file of this folder says of regions, with the paths of its masks made whole; what is no table passes."""
    if not isinstance(regions, dict):
        return regions
    return {name: _placed(region, folder) for name, region in regions.items()}


def _placed(region: Any, folder: Path) -> Any:
    if not isinstance(region, dict):
        return region
    return region | {key: mask_in(folder, region[key]) for key in ("mask", "style_mask") if key in region}


def mask_in(folder: Path, mask: Any) -> Any:
    """The path of a mask that a file of this folder names; one that is made, or no text, passes."""
    return mask if not isinstance(mask, str) or mask in ("", FILE) or is_made(mask) else str(path_in(folder, mask))
