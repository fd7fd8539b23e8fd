"""What can be asked of the studio, checked at the door; and the same as a worker takes it, with paths in the place of ids.

Nothing here loads torch, and no path comes from what is asked: pictures and masks are named by their ids.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from impasto.errors import BadRecipe
from impasto.recipe.axes import axis, recipe_at
from impasto.recipe.recipe import CHANGEABLE, PRESETS, Recipe, make_recipe
from impasto.recipe.regions import is_made

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Name = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Word = Annotated[str, Field(max_length=500)]
Words = Annotated[tuple[Word, ...], Field(max_length=17)]
NetName = Literal["vgg19", "vgg16", "alexnet"]
READS_FILES = ("regions", "protect")  # knobs that have fields of their own here, since as knobs they name files
PICTURES = (("contents",), ("styles",))  # how an axis of pictures begins
MOST_CHANGES = 1000  # of a painting on the way
MOST_RECIPES = 10_000  # of all cells of a grid with all changes: each is checked
PathOf = Callable[[str], Path]  # of a picture's id


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = ""


class PaintingAsked(_Asked):
    """A painting: its pictures by id, the knobs that differ from the preset's, masks by id or as they are made.

    `changes` are knobs that change on the way, {step: {knob: value}}: those of a painting that is painted again.
    """

    kind: Literal["painting"]
    content: Id | None = None
    styles: Annotated[tuple[Id, ...], Field(max_length=16)] = ()
    start: Id | None = None
    preset: str = "impasto"
    knobs: dict[str, Any] = {}
    regions: Annotated[dict[Name, dict[str, Any]], Field(max_length=32)] = {}
    protect: str = ""
    changes: Annotated[dict[Annotated[int, Field(ge=1)], dict[str, Any]], Field(max_length=MOST_CHANGES)] = {}


class GridAsked(PaintingAsked):
    """Paintings side by side: a knob and its values down, another one across."""

    kind: Literal["grid"]  # type: ignore[assignment]
    rows: Words = ()
    columns: Words = ()


class StyleAsked(_Asked):
    """The style of a picture, or of a painting by its job, read."""

    kind: Literal["style"]
    picture: Id | None = None
    job: Id | None = None
    net: NetName = "vgg19"
    size: Annotated[int, Field(ge=64, le=2048)] = 512


class AtlasAsked(_Asked):
    """A scan of pictures, all of the studio's unless named, and the page of all units."""

    kind: Literal["atlas"]
    net: NetName = "alexnet"
    pictures: Annotated[tuple[Id, ...], Field(max_length=10_000)] = ()


def is_plain(value: Any, depth: int = 20) -> bool:
    """Whether it can be written anywhere: text that is UTF-8, numbers that are finite, nothing deep within another."""
    if isinstance(value, dict):
        return depth > 0 and all(is_plain(part, depth - 1) for item in value.items() for part in item)
    if isinstance(value, list):
        return depth > 0 and all(is_plain(part, depth - 1) for part in value)
    if isinstance(value, str):
        return not re.search("[\ud800-\udfff]", value)
    return not isinstance(value, float) or math.isfinite(value)


Asked = PaintingAsked | GridAsked | StyleAsked | AtlasAsked
_CHECKED: TypeAdapter[Asked] = TypeAdapter(Annotated[Asked, Field(discriminator="kind")])


def read_asked(value: Any) -> Asked:
    """From JSON; what has been read passes. Raises BadRecipe with one line for the first thing wrong."""
    if isinstance(value, _Asked):
        return cast(Asked, value)
    try:
        asked = _CHECKED.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadRecipe(f"{'.'.join(map(str, first['loc'])) or 'what is asked'}: {first['msg']}") from error
    if isinstance(asked, PaintingAsked):
        _check_painting(asked)
    if isinstance(asked, StyleAsked) and (asked.picture is None) == (asked.job is None):
        raise BadRecipe("the style of one thing is read: give a picture or a job")
    return asked


def _check_painting(asked: PaintingAsked) -> None:
    recipe = recipe_of(asked)
    for knobs in asked.changes.values():
        _check_style_weights(asked, knobs)
    if asked.content is None and (recipe.has_content or not asked.styles):
        raise BadRecipe("there is no photograph to paint")
    if isinstance(asked, GridAsked):
        brought = {words[0].replace("-", "_") for words in (asked.rows, asked.columns) if words}
        _check_axes(asked)
    else:
        brought = set()
    if recipe.has_style and not asked.styles and "styles" not in brought:
        raise BadRecipe("there is no painting to paint it like")


def _check_axes(asked: GridAsked) -> None:
    if not asked.rows and not asked.columns:
        raise BadRecipe("there is nothing to compare: give rows or columns")
    for words in (asked.rows, asked.columns):
        name = words[0].replace("-", "_") if words else ""
        if name in (*READS_FILES, "style_edit", "changes"):
            raise BadRecipe(f"{words[0]} cannot be on an axis here")
        if name == "preset" and (unknown := [value for value in words[1:] if value not in PRESETS]):
            raise BadRecipe(f"there is no preset {unknown[0]}, there are {', '.join(PRESETS)}")
        if name in ("contents", "styles") and not all(re.fullmatch(r"[0-9a-f]{16}", value) for value in words[1:]):
            raise BadRecipe(f"{name} on an axis are pictures of the studio, by id")
    knobs, cells = knobs_of(asked, Path), list(product(axis(asked.rows), axis(asked.columns)))
    if len(cells) * len(asked.changes) > MOST_RECIPES:
        raise BadRecipe(f"a grid of {len(cells)} paintings can have at most {MOST_RECIPES // len(cells)} changes on the way")
    for (_, down), (_, across) in cells:
        cell = {name: value for name, value in (knobs | down | across).items() if name not in ("content", "styles")}
        ratio = cell.pop("ratio", None)
        recipe_at(cell, ratio)


def pictures_of(asked: Asked) -> Iterator[str]:
    """The ids of the pictures that it needs."""
    if isinstance(asked, StyleAsked):
        yield from filter(None, [asked.picture])
    elif isinstance(asked, AtlasAsked):
        yield from asked.pictures
    else:
        yield from filter(None, [asked.content, *asked.styles, asked.start])
        named = [asked.protect, *(region.get(key, "") for region in asked.regions.values() for key in ("mask", "style_mask"))]
        yield from (mask for mask in named if isinstance(mask, str) and mask and not is_made(mask))
        axes = (asked.rows, asked.columns) if isinstance(asked, GridAsked) else ()
        yield from (value for words in axes if words[:1] in PICTURES for value in words[1:])


def pictures_needed(value: Any) -> set[str]:
    """The ids of the pictures that a job kept as JSON needs, without checking it all again; none where it could not begin."""
    try:
        return set(pictures_of(_CHECKED.validate_python(value)))
    except ValidationError:
        return set()


def recipe_of(asked: PaintingAsked) -> Recipe:
    """Its recipe, as far as it can be told without the pictures. Raises BadRecipe."""
    return make_recipe(**knobs_of(asked, Path))


def knobs_of(asked: PaintingAsked, path_of: PathOf) -> dict[str, Any]:
    """What make_recipe takes, with the masks' paths. Raises BadRecipe for a knob that would name a file."""
    if asked.preset not in PRESETS:
        raise BadRecipe(f"there is no preset {asked.preset}, there are {', '.join(PRESETS)}")
    for name in ("preset", *READS_FILES, "changes"):
        if name in asked.knobs:
            raise BadRecipe(f"{name} is no knob here: it has a place of its own")
    for knobs in (asked.knobs, *asked.changes.values()):
        if not isinstance(knobs.get("style_edit", {}), dict):
            raise BadRecipe("style_edit is a table of layers here")
    knobs = {"preset": asked.preset, **asked.knobs}
    if asked.start:
        knobs.setdefault("init", "picture")
    if asked.regions:
        knobs["regions"] = {name: _placed(region, path_of) for name, region in asked.regions.items()}
    if asked.protect:
        knobs["protect"] = _mask(asked.protect, path_of)
    return knobs | ({"changes": asked.changes} if asked.changes else {})


def _placed(region: Mapping[str, Any], path_of: PathOf) -> dict[str, Any]:
    masks = {key: _mask(region[key], path_of) for key in ("mask", "style_mask") if region.get(key)}
    return {**region, **masks}


def _mask(mask: Any, path_of: PathOf) -> str:
    if isinstance(mask, str) and is_made(mask):
        return mask
    if not isinstance(mask, str) or not re.fullmatch(r"[0-9a-f]{16}", mask):
        raise BadRecipe("a mask is the id of a picture, or light, dark, rest or k-means 1 of 3")
    return str(path_of(mask))


def words_of_axis(words: Sequence[str], path_of: PathOf) -> list[str]:
    """An axis with the paths of its pictures."""
    return [*words[:1], *(str(path_of(value)) if tuple(words[:1]) in PICTURES else value for value in words[1:])]


def check_change(asked: PaintingAsked, knobs: Mapping[str, Any], i: int, before: Mapping[str, Any]) -> None:
    """Raise BadRecipe for knobs that cannot be changed on the way, or not to that after what has been changed before."""
    if not knobs or not set(knobs) <= set(CHANGEABLE):
        raise BadRecipe(f"on the way these can be changed: {', '.join(CHANGEABLE)}")
    changes = {int(step): its for step, its in before.items()}
    if len(changes) >= MOST_CHANGES:
        raise BadRecipe(f"a painting can be changed {MOST_CHANGES} times")
    recipe_of(asked.model_copy(update={"changes": {**changes, i: {**changes.get(i, {}), **knobs}}}))
    _check_style_weights(asked, knobs)


def _check_style_weights(asked: PaintingAsked, knobs: Mapping[str, Any]) -> None:
    if (weights := knobs.get("style_weights")) and isinstance(weights, list) and len(weights) != len(asked.styles):
        raise BadRecipe(f"style_weights has {len(weights)} numbers for {len(asked.styles)} style pictures")
