"""What differs between the paintings of a sheet or a batch: a knob and its values, pictures, or a ratio."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impasto.errors import BadRecipe
from impasto.recipe.recipe import Recipe, make_recipe


@dataclass(frozen=True)
class Label:
    """The label of a row or a column: a text, and perhaps a picture."""

    text: str
    picture: Path | None = None


# For each row or column: its label, and the knobs it changes, with "content", "styles" and "ratio".
Axis = list[tuple[Label, dict[str, Any]]]


def axis(words: Sequence[str]) -> Axis:
    """A knob's name and its values -> a label and the changed knobs for each value; no words -> one entry without changes."""
    if not words:
        return [(Label(""), {})]
    name, values = words[0].replace("-", "_"), words[1:]
    if not values:
        raise BadRecipe(f"{words[0]} has no values: give some, as {words[0]} 1 2 3")
    if name in OTHER_AXES:
        return [OTHER_AXES[name](value) for value in values]
    if name not in Recipe.model_fields:
        raise BadRecipe(f"there is no {words[0]}, there are {', '.join((*OTHER_AXES, *Recipe.model_fields))}")
    return [(Label(f"{name} = {value}"), {name: value}) for value in values]


def _ratio(value: str) -> tuple[Label, dict[str, Any]]:
    """1/15, 0.07 or 1e-3 as a number."""
    above, _, below = value.partition("/")
    try:
        ratio = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        ratio = 0.0
    if not 0 < ratio < math.inf:
        raise BadRecipe(f"ratio is {value!r}, must be a number above 0, as 1/15 or 1e-3")
    return Label(f"alpha/beta = {value}"), {"ratio": ratio}


OTHER_AXES: dict[str, Callable[[str], tuple[Label, dict[str, Any]]]] = {
    "contents": lambda value: (Label(Path(value).stem, Path(value)), {"content": Path(value)}),
    "styles": lambda value: (Label(Path(value).stem, Path(value)), {"styles": (Path(value),)}),
    "ratio": _ratio,
}


def recipe_at(knobs: Mapping[str, Any], ratio: float | None = None) -> Recipe:
    """The recipe of one painting; a ratio, alpha over beta, sets beta. Raises BadRecipe."""
    recipe = make_recipe(**knobs)
    return recipe if ratio is None else make_recipe(**{**knobs, "beta": recipe.alpha / ratio})
