"""Parts of a picture that are painted each in its own way: what a file says of them, and of what is to be spared.

A file of regions is TOML, a table a region; docs/regions.md explains it. masks.py makes the masks.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from impasto.errors import BadRecipe

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rule = Literal["style", "luminance", "cholesky", "pca", "monge", "histogram"]  # whose colours, and how they are kept
MADE = re.compile(r"light|dark|rest|k-means [0-9]{1,3} of [0-9]{1,3}")  # masks that are made, not read
FILE = "a file"  # what the record says of a mask that was read: paths are nobody's business, its hash is recorded


def is_made(mask: str) -> bool:
    """Whether a mask is made from the picture: light, dark, k-means 1 of 3, or the rest."""
    return bool(MADE.fullmatch(mask))


MaskName = Annotated[str, PlainSerializer(lambda mask: mask if not mask or is_made(mask) else FILE)]


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


def read_regions(value: Any) -> Any:
    """The path of a TOML file -> what is in it, with its masks' paths made whole; anything else passes. Raises BadRecipe."""
    if not isinstance(value, str | Path):
        return value
    try:
        found = tomllib.loads(Path(value).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadRecipe(f"cannot read the regions {value}: {error}") from error
    return {name: _whole_paths(region, Path(value).parent) for name, region in found.items()}


def _whole_paths(region: Any, folder: Path) -> Any:
    if not isinstance(region, dict):
        return region
    named = {key: mask for key in ("mask", "style_mask") if isinstance(mask := region.get(key), str) and mask}
    return region | {key: mask if is_made(mask) else str(folder / mask) for key, mask in named.items()}


Regions = Annotated[dict[str, Region], BeforeValidator(read_regions)]
