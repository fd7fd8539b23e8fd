"""The patches that excite each unit most, over a set of pictures (Zeiler & Fergus 2013, arXiv:1311.2901, section 4.1).

One forward pass a picture, all layers in it; nothing of a picture is kept but what enters a ranking. One patch a picture by
default, as everyone draws the figure (the paper does not say); `per_image` allows more that lie apart.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from impasto.errors import BadInput
from impasto.lens.collection import Row
from impasto.lens.index import EDGES, Array, Index, Ranking, Setup, Units, check_unit, find_layer, read_index, rows_at
from impasto.lens.module import AnyNet, visit
from impasto.lens.view import View, view_of
from impasto.nets.geometry import Box, Field

Entries = tuple[Array, Array, Array]  # rows of the rankings (n,), with values (n, per_image) and places (n, per_image, 2)


@dataclass(frozen=True)
class Patch:
    """Place (y, x) of a unit's map of a picture, with the unit's value there.

    `field` is what the place sees in pixels of the net's input, `box` the same in pixels of the original picture; (x0, y0, x1, y1),
    not clipped, so that both can reach beyond what the net saw: then it `touches_padding`. All three are None where what the place
    sees is unknown.
    """

    value: float
    row: Row
    y: int
    x: int
    field: Box | None
    box: tuple[float, float, float, float] | None
    touches_padding: bool | None
    view: View

    @property
    def frame(self) -> Box:
        """The square that shows it, in pixels of the net's input: its field; a square around all that the net saw, if unknown."""
        height, width = self.view.seen
        side = max(height, width)
        x0, y0 = (width - side) // 2, (height - side) // 2
        return self.field or (x0, y0, x0 + side, y0 + side)

    def to_json(self) -> dict[str, Any]:
        """As the command line prints it."""
        place = {"value": self.value, "picture": self.row.source.name, "y": self.y, "x": self.x}
        return place | {"box": self.box and list(self.box), "touches_padding": self.touches_padding}


# Looking at a picture


@torch.no_grad()
def look(index: Index, net: AnyNet, image: Tensor, number: int) -> None:
    """Enter into the index what the picture (1, 3, H, W) excites; `number` is its row, larger than any before.

    Raises BadInput for activations that are not finite: the weights are not what they should be.
    """
    peaks: dict[str, tuple[Array, ...]] = {}
    entries: list[Entries] = []
    size = image.shape[-2], image.shape[-1]

    def see(name: str, a: Tensor) -> None:
        peaks[name], found = _see(index, name, a[0].float().numpy(), size)
        entries.extend(found)

    visit(net, image, index.layers, see)
    value, y, x, inside = (np.concatenate(column) for column in zip(*(peaks[name] for name in index.layers), strict=True))
    if not np.isfinite(value).all():
        name = next(name for name in index.layers if not np.isfinite(peaks[name][0]).all())
        raise BadInput(f"the activations of {name} are not finite: the weights of {index.setup.net} are damaged")
    if index.setup.per_image == 1:
        may_enter = _may_enter(index.units.everywhere, value)
        entries.append((may_enter, value[may_enter, None], np.stack([y[may_enter, None], x[may_enter, None]], 2)))
    _count(index.units, value, inside)
    _enter(index.rankings, entries, number)
    index.pictures += 1


def _see(index: Index, name: str, a: Array, size: tuple[int, int]) -> tuple[tuple[Array, ...], list[Entries]]:
    """Of a layer (C, h, w): of each unit the strongest value, its y, x and whether it saw no padding there; what the map must tell.

    That is what may enter the rankings, but for the strongest place of all.
    """
    units, field, count = index.layers[name], index.setup.layers[name].field, index.setup.per_image
    rows, columns = _interior(field, size)
    # Where a field is unknown one patch a picture is all that one can tell apart.
    reach = (field.size - 1) // (2 * field.stride) if field else max(a.shape[1:])
    value, y, x = strongest(a)
    inside = (rows.start <= y) & (y < rows.stop) & (columns.start <= x) & (x < columns.stop) if field else np.ones(len(a), bool)
    found = []
    if count > 1:
        may_enter = _may_enter(units.everywhere, value)
        found.append((may_enter + units.first, *strongest_apart(a[may_enter], count, reach)))
    if rows.stop > rows.start and columns.stop > columns.start:
        may_enter = _may_enter(units.interior, value)
        values, places = strongest_apart(a[may_enter, rows, columns], count, reach)
        origin = np.array([rows.start, columns.start], np.int32)
        found.append((may_enter + units.first + len(index.units.fired), values, places + origin))
    return (value, y, x, inside), found


@cache
def _interior(field: Field | None, size: tuple[int, int]) -> tuple[slice, slice]:
    rows, columns = (field.interior(length) if field else slice(0, 0) for length in size)
    return rows, columns


def _may_enter(ranking: Ranking, value: Array) -> Array:
    """The units whose maximum can still enter; one that equals the last of the ranking comes after it."""
    return np.flatnonzero(value > ranking.value[:, -1])


def _enter(rankings: Ranking, entries: Sequence[Entries], number: int) -> None:
    units, value, places = (np.concatenate(column) for column in zip(*entries, strict=True))
    enters = value[:, 0] > rankings.value[units, -1]
    units, value, places = units[enters], value[enters], places[enters]
    where = np.concatenate([np.full((*value.shape, 1), number, np.int32), places], 2, dtype=np.int32)
    where[value == -np.inf] = -1
    value, where = (np.concatenate(both, 1) for both in ((rankings.value[units], value), (rankings.where[units], where)))
    # By value alone, as equals keep their places: it is the total order, since a picture comes after all before it.
    order = np.argsort(-value, 1, kind="stable")[:, : rankings.value.shape[1]]
    rows = np.arange(len(units))[:, None]
    rankings.value[units], rankings.where[units] = value[rows, order], where[rows, order]


def strongest(a: Array) -> tuple[Array, Array, Array]:
    """(C, h, w) -> value, y, x (C,): the strongest place of each map, of equal ones the first."""
    flat = a.reshape(len(a), a.shape[1] * a.shape[2])
    place = flat.argmax(1)
    value: Array = flat[np.arange(len(a)), place] + 0.0  # -0 becomes 0, which it equals, so that bytes repeat
    return value, place // a.shape[2], place % a.shape[2]


def strongest_apart(a: Array, count: int, reach: int) -> tuple[Array, Array]:
    """(C, h, w) -> values (C, count), places (C, count, 2): the strongest, then the strongest not near one before, and so on.

    Near is what lies within `reach` places on both axes. A scan's `reach` is half a field, so that two patches of a picture have at
    most half of their area in common. Where no place is left the value is -inf.
    """
    values, places = np.empty((len(a), count), np.float32), np.empty((len(a), count, 2), np.int32)
    for n in range(count):
        if n:
            a = np.where(_is_near(a, places[:, n - 1], reach), -np.inf, a)
        values[:, n], places[:, n, 0], places[:, n, 1] = strongest(a)
    return values, places


def _is_near(a: Array, place: Array, reach: int) -> Array:
    y, x = (np.abs(np.arange(length) - place[:, axis, None]) <= reach for axis, length in enumerate(a.shape[1:]))
    near: Array = y[:, :, None] & x[:, None, :]
    return near


def _count(units: Units, value: Array, inside: Array) -> None:
    fires = value > 0
    units.fired += fires
    units.padded += fires & ~inside
    units.bins[np.arange(len(value)), np.searchsorted(EDGES, value)] += 1


# What was found


def patches_of(folder: Path, index: Index, layer: str, units: Iterable[int], interior: bool = False) -> dict[int, list[Patch]]:
    """{unit: its patches, the strongest first}; of the index in `folder`, a layer named as in it. Fewer pictures give fewer."""
    ranking = index.layers[layer].interior if interior else index.layers[layer].everywhere
    found = {unit: _entries(ranking, unit) for unit in units}
    rows = rows_at(folder, [number for entries in found.values() for _, (number, _, _) in entries])
    field = index.setup.layers[layer].field
    return {
        unit: [_patch(index.setup, field, value, rows[number], y, x) for value, (number, y, x) in entries]
        for unit, entries in found.items()
    }


def _entries(ranking: Ranking, unit: int) -> list[tuple[float, tuple[int, int, int]]]:
    values, where = ranking.value[unit].tolist(), ranking.where[unit].tolist()
    return [(value, tuple(place)) for value, place in zip(values, where, strict=True) if place[0] >= 0]


def _patch(setup: Setup, field: Field | None, value: float, row: Row, y: int, x: int) -> Patch:
    view = view_of((row.height, row.width), setup.size, setup.fit)
    if field is None:
        return Patch(value, row, y, x, None, None, None, view)
    seen = field.box(y, x)
    return Patch(value, row, y, x, seen, view.in_picture(seen), field.touches_padding(y, x, view.seen), view)


def by_picture(patches: Mapping[int, Sequence[Patch]]) -> dict[Row, list[tuple[int, int, Patch]]]:
    """{picture: (unit, rank, patch) of all its patches}: so that each picture is read and run once."""
    found: dict[Row, list[tuple[int, int, Patch]]] = {}
    for unit, patches_of_unit in patches.items():
        for n, patch in enumerate(patches_of_unit):
            found.setdefault(patch.row, []).append((unit, n, patch))
    return found


def top(folder: Path, layer: str, unit: int, interior: bool = False) -> list[Patch]:
    """The patches of one unit in the atlas `folder`, the strongest first; `interior` for those that touch no padding.

    Raises BadInput for a folder without an index, BadRecipe for a layer or unit that is not in it.
    """
    index = read_index(folder)
    layer = find_layer(index, layer)
    check_unit(index, layer, unit)
    return patches_of(folder, index, layer, [unit], interior)[unit]
