"""Requests for jobs, checked as they arrive, and the same for a worker, with paths in place of ids.

Nothing here loads torch, and no path comes from a request: pictures and masks are named by their ids.
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
from impasto.recipe.recipe import CHANGEABLE, LEARNING_STEPS, PRESETS, NetName, Recipe, make_recipe
from impasto.recipe.regions import is_made

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Name = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Word = Annotated[str, Field(max_length=500)]
Words = Annotated[tuple[Word, ...], Field(max_length=17)]
READS_FILES = ("regions", "protect")  # knobs that are fields of a request, since as knobs they name files
PICTURES = (("contents",), ("styles",))  # first words of an axis of pictures
MOST_CHANGES = 1000  # of one painting
MOST_RECIPES = 10_000  # of a grid, cells times changes: each is checked
PathOf = Callable[[str], Path]  # of a picture's id


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = ""


class PaintingRequest(_Request):
    """A painting: its pictures by id, the knobs that differ from the preset, masks by id or by how they are made.

    `changes` are knobs that change while painting, {step: {knob: value}}, where an earlier painting is repeated.
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


class GridRequest(PaintingRequest):
    """Paintings side by side: a knob and its values down, another one across."""

    kind: Literal["grid"]  # type: ignore[assignment]
    rows: Words = ()
    columns: Words = ()


class InstantRequest(PaintingRequest):
    """A painting in one pass, whose process waits for the next job. Its quality is instant, which therefore need not be said."""

    kind: Literal["instant"]  # type: ignore[assignment]


class StyleRequest(_Request):
    """Read the style of a picture, or of the result of a job."""

    kind: Literal["style"]
    picture: Id | None = None
    job: Id | None = None
    net: NetName = "vgg19"
    size: Annotated[int, Field(ge=64, le=2048)] = 512


class AtlasRequest(_Request):
    """Scan pictures (default: the bundled photographs and all of the studio) and make the page of all units."""

    kind: Literal["atlas"]
    net: NetName = "alexnet"
    pictures: Annotated[tuple[Id, ...], Field(max_length=10_000)] = ()


class LearnRequest(_Request):
    """Learn the style of a picture for quality instant, from photographs (default: the bundled ones)."""

    kind: Literal["learn"]
    picture: Id
    photographs: Annotated[tuple[Id, ...], Field(max_length=16)] = ()
    steps: Annotated[int, Field(ge=1, le=10_000)] = LEARNING_STEPS


def is_plain(value: Any, depth: int = 20) -> bool:
    """Whether it can be stored as JSON: text in UTF-8, finite numbers, no deep nesting."""
    if isinstance(value, dict):
        return depth > 0 and all(is_plain(part, depth - 1) for item in value.items() for part in item)
    if isinstance(value, list):
        return depth > 0 and all(is_plain(part, depth - 1) for part in value)
    if isinstance(value, str):
        return not re.search("[\ud800-\udfff]", value)
    return not isinstance(value, float) or math.isfinite(value)


class Label(BaseModel):
    """What a user calls a job, and whether it has a star."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: Annotated[Name, Field(min_length=1)] | None = None
    starred: bool | None = None


def read_label(value: Any) -> dict[str, Any]:
    """The parts of a label that are given. Raises BadRecipe with the first error."""
    try:
        return Label.model_validate(value).model_dump(exclude_none=True)
    except ValidationError as error:
        raise BadRecipe(_first(error)) from error


JobRequest = PaintingRequest | GridRequest | InstantRequest | StyleRequest | AtlasRequest | LearnRequest
_CHECKED: TypeAdapter[JobRequest] = TypeAdapter(Annotated[JobRequest, Field(discriminator="kind")])


def read_request(value: Any) -> JobRequest:
    """Read a request from JSON; one that has been read already passes. Raises BadRecipe with the first error."""
    if isinstance(value, _Request):
        return cast(JobRequest, value)
    try:
        request = _CHECKED.validate_python(value)
    except ValidationError as error:
        raise BadRecipe(_first(error)) from error
    if isinstance(request, PaintingRequest):
        _check_painting(request)
    if isinstance(request, StyleRequest) and (request.picture is None) == (request.job is None):
        raise BadRecipe("give either a picture or a job to read the style of")
    return request


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'request'}: {first['msg']}"


def _check_painting(request: PaintingRequest) -> None:
    recipe = recipe_of(request)
    for knobs in request.changes.values():
        _check_style_weights(request, knobs)
    if request.content is None and (recipe.has_content or not request.styles):
        raise BadRecipe("there is no photograph to paint")
    if isinstance(request, GridRequest):
        on_axes = {words[0].replace("-", "_") for words in (request.rows, request.columns) if words}
        _check_axes(request)
    else:
        on_axes = set()
    if recipe.has_style and not request.styles and "styles" not in on_axes:
        raise BadRecipe("there is no style picture")


def _check_axes(request: GridRequest) -> None:
    if not request.rows and not request.columns:
        raise BadRecipe("nothing to compare: give rows or columns")
    for words in (request.rows, request.columns):
        name = words[0].replace("-", "_") if words else ""
        if name in (*READS_FILES, "style_edit", "changes"):
            raise BadRecipe(f"{words[0]} cannot be on an axis here")
        if name == "preset" and (unknown := [value for value in words[1:] if value not in PRESETS]):
            raise BadRecipe(f"there is no preset {unknown[0]}, there are {', '.join(PRESETS)}")
        if name in ("contents", "styles") and not all(re.fullmatch(r"[0-9a-f]{16}", value) for value in words[1:]):
            raise BadRecipe(f"{name} on an axis must be ids of pictures of the studio")
    knobs, cells = knobs_of(request, Path), list(product(axis(request.rows), axis(request.columns)))
    if len(cells) * len(request.changes) > MOST_RECIPES:
        raise BadRecipe(f"a grid of {len(cells)} paintings can have at most {MOST_RECIPES // len(cells)} changes")
    for (_, down), (_, across) in cells:
        cell = {name: value for name, value in (knobs | down | across).items() if name not in ("content", "styles")}
        ratio = cell.pop("ratio", None)
        recipe_at(cell, ratio)


def pictures_of(request: JobRequest) -> Iterator[str]:
    """The ids of the pictures that a request needs."""
    if isinstance(request, StyleRequest):
        yield from filter(None, [request.picture])
    elif isinstance(request, AtlasRequest):
        yield from request.pictures
    elif isinstance(request, LearnRequest):
        yield from (request.picture, *request.photographs)
    else:
        yield from filter(None, [request.content, *request.styles, request.start])
        named = [request.protect, *(region.get(key, "") for region in request.regions.values() for key in ("mask", "style_mask"))]
        yield from (mask for mask in named if isinstance(mask, str) and mask and not is_made(mask))
        axes = (request.rows, request.columns) if isinstance(request, GridRequest) else ()
        yield from (value for words in axes if words[:1] in PICTURES for value in words[1:])


def pictures_needed(value: Any) -> set[str]:
    """The ids of the pictures that a stored request needs; none if the request is invalid."""
    try:
        return set(pictures_of(_CHECKED.validate_python(value)))
    except ValidationError:
        return set()


def recipe_of(request: PaintingRequest) -> Recipe:
    """The recipe of a request, checked as far as possible without the pictures. Raises BadRecipe."""
    return make_recipe(**knobs_of(request, Path))


def knobs_of(request: PaintingRequest, path_of: PathOf) -> dict[str, Any]:
    """The arguments of make_recipe, with the paths of the masks. Raises BadRecipe for a knob that would name a file."""
    if request.preset not in PRESETS:
        raise BadRecipe(f"there is no preset {request.preset}, there are {', '.join(PRESETS)}")
    for name in ("preset", *READS_FILES, "changes"):
        if name in request.knobs:
            raise BadRecipe(f"{name} is not a knob here: it is a field of the request")
    for knobs in (request.knobs, *request.changes.values()):
        if not isinstance(knobs.get("style_edit", {}), dict):
            raise BadRecipe("style_edit must be a table of layers here")
    knobs = {"preset": request.preset, **request.knobs}
    if isinstance(request, InstantRequest) and knobs.setdefault("quality", "instant") != "instant":
        raise BadRecipe(f"a job of kind instant has quality instant, not {knobs['quality']}")
    if request.start:
        knobs.setdefault("init", "picture")
    if request.regions:
        knobs["regions"] = {name: _placed(region, path_of) for name, region in request.regions.items()}
    if request.protect:
        knobs["protect"] = _mask(request.protect, path_of)
    return knobs | ({"changes": request.changes} if request.changes else {})


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


def check_change(request: PaintingRequest, knobs: Mapping[str, Any], i: int, before: Mapping[str, Any]) -> None:
    """Raise BadRecipe for knobs that cannot change while painting, or for values that do not fit the earlier changes."""
    if not knobs or not set(knobs) <= set(CHANGEABLE):
        raise BadRecipe(f"while painting only these can be changed: {', '.join(CHANGEABLE)}")
    changes = {int(step): earlier for step, earlier in before.items()}
    if len(changes) >= MOST_CHANGES:
        raise BadRecipe(f"a painting can be changed {MOST_CHANGES} times")
    recipe_of(request.model_copy(update={"changes": {**changes, i: {**changes.get(i, {}), **knobs}}}))
    _check_style_weights(request, knobs)


def _check_style_weights(request: PaintingRequest, knobs: Mapping[str, Any]) -> None:
    if (weights := knobs.get("style_weights")) and isinstance(weights, list) and len(weights) != len(request.styles):
        raise BadRecipe(f"style_weights has {len(weights)} numbers for {len(request.styles)} style pictures")
