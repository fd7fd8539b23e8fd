"""A style edit: changes to a style before painting, as gains and weights of units, pairs and directions, layer by layer.

A style edit is a TOML file, see docs/style.md. Gains change the target, the Gram matrix that the result should have; weights say
how important a part of it is. losses.edited_gram and losses.entry_weights are the formulas.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, field_validator

Gain = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
FROZEN = ConfigDict(frozen=True, extra="forbid")


def _gain_alone(value: Any) -> Any:
    """0.5 -> {"gain": 0.5}; anything else passes."""
    return {"gain": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


class PartEdit(BaseModel):
    """The gain of a unit or a pair, and its weight (0: ignore it)."""

    model_config = FROZEN

    gain: Gain = 1.0
    weight: Weight = 1.0


class DirectionEdit(BaseModel):
    """The gain along a direction in the space of units, given by its largest components {unit: component}."""

    model_config = FROZEN

    gain: Gain = 1.0
    units: dict[int, FiniteFloat] = Field(min_length=1)

    @field_validator("units", mode="before")
    @classmethod
    def _numbered(cls, value: Any) -> Any:
        return _named(value, _unit)

    @field_validator("units")
    @classmethod
    def _some(cls, value: dict[int, float]) -> dict[int, float]:
        if not any(value.values()):
            raise ValueError("the components of a direction are all 0")
        return value


Part = Annotated[PartEdit, BeforeValidator(_gain_alone)]


class LayerEdit(BaseModel):
    """Changes to a layer: a gain or weight of all of it; units; pairs, as "17&203"; directions.

    `paintings` are the shares of the style pictures in this layer, in place of the recipe's style_weights.
    """

    model_config = FROZEN

    gain: Gain = 1.0
    weight: Weight = 1.0
    paintings: tuple[Weight, ...] = ()
    units: dict[int, Part] = {}
    pairs: dict[str, Part] = {}
    directions: tuple[DirectionEdit, ...] = ()

    @field_validator("units", mode="before")
    @classmethod
    def _numbered(cls, value: Any) -> Any:
        return _named(value, _unit)

    @field_validator("pairs", mode="before")
    @classmethod
    def _paired(cls, value: Any) -> Any:
        return _named(value, lambda text: "{}&{}".format(*pair_of(text)))

    @field_validator("paintings")
    @classmethod
    def _some(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if value and not sum(value):
            raise ValueError("the shares of the paintings are all 0")
        return value

    def largest_unit(self) -> int:
        """The highest unit number in the edit; -1 if there is none."""
        paired = [unit for key in self.pairs for unit in pair_of(key)]
        along = [unit for direction in self.directions for unit in direction.units]
        return max([*self.units, *paired, *along], default=-1)


def fields_at(place: Sequence[str | int]) -> Iterable[str]:
    """The fields that are allowed at a position in an edit, as ("conv3_1", "units", 17)."""
    parts: dict[str, type[BaseModel]] = {"units": PartEdit, "pairs": PartEdit, "directions": DirectionEdit}
    model = LayerEdit if len(place) == 1 else parts[str(place[1])]
    return model.model_fields


def pair_of(text: str) -> tuple[int, int]:
    """ "17 & 203, waves with foam" -> (17, 203), the smaller first. Raises ValueError."""
    found = re.match(r"\s*(\d{1,6})\b[^&]*&\s*(\d{1,6})\b", text)
    if not found or int(found[1]) == int(found[2]):
        raise ValueError(f"{text!r} must begin with two units, as 17 & 203")
    first, second = sorted((int(found[1]), int(found[2])))
    return first, second


def _unit(text: str) -> int:
    """ "17 dark blue, rising" -> 17. Raises ValueError."""
    found = re.match(r"\s*(\d{1,6})\b", str(text))
    if not found:
        raise ValueError(f"{text!r} must begin with the unit's number, as 17")
    return int(found[1])


def _named(value: Any, number: Any) -> Any:
    """The dict with bare numbers as keys; any other value passes. Raises ValueError for a number that is named twice."""
    if not isinstance(value, dict):
        return value
    found: dict[Any, Any] = {}
    for name, part in value.items():
        key = number(name)
        if key in found:
            raise ValueError(f"{key} is named twice")
        found[key] = part
    return found
