"""The patches that excite each unit most, over a set of pictures (Zeiler & Fergus 2013, arXiv:1311.2901, section 4.1).

One forward pass a picture computes all layers; only what enters a ranking is kept. By default a picture has one patch, as in most
versions of the figure (the paper does not say); `per_image` allows several that lie apart.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from impasto.errors import BadImage, BadInput, ImpastoWarning
from impasto.lens.collection import Row, read_again
from impasto.lens.index import EDGES, Array, Index, Ranking, Setup, Units, check_unit, find_layer, read_index, rows_at
from impasto.lens.module import AnyNet, visit
from impasto.lens.view import View, view_of
from impasto.nets.geometry import Box, Field

Entries = tuple[Array, Array, Array]  # rows of the rankings (n,), values (n, per_image), positions (n, per_image, 2)


@dataclass(frozen=True)
class Patch:
    """Position (y, x) of a unit's map of a picture, and the unit's activation `value` there.

    `field` is its receptive field in the net's input, `box` the same in pixels of the original picture; both (x0, y0, x1, y1), not
    clipped. `touches_padding` says whether the field contains padding. All three are None where the field is unknown.
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
        """The square in the net's input that is drawn: the field or, where that is unknown, a square around the whole input."""
        height, width = self.view.size
        side = max(height, width)
        x0, y0 = (width - side) // 2, (height - side) // 2
        return self.field or (x0, y0, x0 + side, y0 + side)

    def cut_from(
        self, picture: Image.Image, size: tuple[int, int], how: Image.Resampling = Image.Resampling.LANCZOS
    ) -> Image.Image:
        """The patch in its picture, scaled to (width, height); only what lies in the net's input."""
        return picture.resize(size, how, self.view.in_picture(self.view.clip(self.frame)))

    def to_json(self) -> dict[str, Any]:
        """The JSON that the command line prints."""
        place = {"value": self.value, "picture": self.row.source.name, "y": self.y, "x": self.x}
        return place | {"box": self.box and list(self.box), "touches_padding": self.touches_padding}


# Ranking a picture


@torch.no_grad()
def rank_picture(index: Index, net: AnyNet, image: Tensor, number: int) -> None:
    """Add a picture (1, 3, H, W) to the rankings and counts; `number` is its row, larger than all before.

    Raises BadInput for activations that are not finite: then the weights are damaged.
    """
    peaks: dict[str, tuple[Array, ...]] = {}
    entries: list[Entries] = []
    size = image.shape[-2], image.shape[-1]

    def receive(name: str, a: Tensor) -> None:
        peaks[name], found = _rank_layer(index, name, a[0].float().numpy(), size)
        entries.extend(found)

    visit(net, image, index.layers, receive)
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


def _rank_layer(index: Index, name: str, a: Array, size: tuple[int, int]) -> tuple[tuple[Array, ...], list[Entries]]:
    """From a layer's map (C, h, w): the maximum of each unit, its y, x, whether its field has no padding; and ranking entries.

    The entries are all that may enter the rankings, except the maxima when a picture has one patch.
    """
    units, field, count = index.layers[name], index.setup.layers[name].field, index.setup.per_image
    rows, columns = _interior(field, size)
    # Where the field is unknown two patches of a picture cannot be told apart.
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
    """The units whose maximum can still enter; a tie with the last of the ranking comes after it."""
    return np.flatnonzero(value > ranking.value[:, -1])


def _enter(rankings: Ranking, entries: Sequence[Entries], number: int) -> None:
    units, value, places = (np.concatenate(column) for column in zip(*entries, strict=True))
    enters = value[:, 0] > rankings.value[units, -1]
    units, value, places = units[enters], value[enters], places[enters]
    where = np.concatenate([np.full((*value.shape, 1), number, np.int32), places], 2, dtype=np.int32)
    where[value == -np.inf] = -1
    value, where = (np.concatenate(both, 1) for both in ((rankings.value[units], value), (rankings.where[units], where)))
    # A stable sort by value gives the total order, since the picture comes after all before it.
    order = np.argsort(-value, 1, kind="stable")[:, : rankings.value.shape[1]]
    rows = np.arange(len(units))[:, None]
    rankings.value[units], rankings.where[units] = value[rows, order], where[rows, order]


def strongest(a: Array) -> tuple[Array, Array, Array]:
    """(C, h, w) -> value, y, x (C,): the maximum of each map; ties go to the first position."""
    flat = a.reshape(len(a), a.shape[1] * a.shape[2])
    place = flat.argmax(1)
    value: Array = flat[np.arange(len(a)), place] + 0.0  # -0 becomes 0, so that equal results have equal bytes
    return value, place // a.shape[2], place % a.shape[2]


def strongest_apart(a: Array, count: int, reach: int) -> tuple[Array, Array]:
    """(C, h, w) -> values (C, count), positions (C, count, 2): non-maximum suppression, the strongest first.

    Positions within `reach` of a chosen one on both axes are suppressed. A scan's `reach` is half a field, so two patches of a
    picture share at most half of their area. Where no position is left the value is -inf.
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


# Reading the rankings


def patches_of(
    folder: Path, index: Index, layer: str, units: Iterable[int], interior: bool | None = None
) -> dict[int, list[Patch]]:
    """{unit: its patches, the strongest first} of the index in `folder`; at most k, fewer if there were fewer pictures.

    With `interior` only those at places whose fields hold no padding; None: where the layer has such places (ranks_interior).
    """
    ranking = index.layers[layer].interior if ranks_interior(index.setup, layer, interior) else index.layers[layer].everywhere
    found = {unit: _entries(ranking, unit) for unit in units}
    rows = rows_at(folder, [number for entries in found.values() for _, (number, _, _) in entries])
    field = index.setup.layers[layer].field
    return {
        unit: [patch_at(index.setup, field, value, rows[number], y, x) for value, (number, y, x) in entries]
        for unit, entries in found.items()
    }


def ranks_interior(setup: Setup, layer: str, interior: bool | None = None) -> bool:
    """Whether patches are ranked at places without padding: as asked, else wherever a square picture has some."""
    return interior if interior is not None else len(places_of(setup, layer)[0]) > 0


def places_of(setup: Setup, layer: str) -> tuple[range, range]:
    """On one axis of a picture as long as the scan's size: the positions of the layer without padding, and all of them."""
    field = setup.layers[layer].field
    if field is None:
        return range(0), range(0)
    inside = field.interior(setup.size)
    return range(inside.start, inside.stop), range((setup.size + 2 * field.padding - field.size) // field.stride + 1)


def _entries(ranking: Ranking, unit: int) -> list[tuple[float, tuple[int, int, int]]]:
    values, where = ranking.value[unit].tolist(), ranking.where[unit].tolist()
    return [(value, tuple(place)) for value, place in zip(values, where, strict=True) if place[0] >= 0]


def patch_at(setup: Setup, field: Field | None, value: float, row: Row, y: int, x: int) -> Patch:
    """The patch at a position of a map of the picture in this row."""
    view = view_of((row.height, row.width), setup.size, setup.fit)
    if field is None:
        return Patch(value, row, y, x, None, None, None, view)
    box = field.box(y, x)
    return Patch(value, row, y, x, box, view.in_picture(box), field.touches_padding(y, x, view.size), view)


def by_picture(patches: Mapping[int, Sequence[Patch]]) -> dict[Row, list[tuple[int, int, Patch]]]:
    """{picture: (unit, rank, patch) of all its patches}, so that each picture is read and run once."""
    found: dict[Row, list[tuple[int, int, Patch]]] = {}
    for unit, patches_of_unit in patches.items():
        for n, patch in enumerate(patches_of_unit):
            found.setdefault(patch.row, []).append((unit, n, patch))
    return found


def read_each(patches: Mapping[int, Sequence[Patch]]) -> Iterator[tuple[Tensor, list[tuple[int, int, Patch]]]]:
    """(picture (1, 3, H, W), its patches with unit and rank), each picture once; a warning for every missing one."""
    missing, pictures = [], by_picture(patches)
    for row, places in pictures.items():
        try:
            picture = read_again(row).image
        except BadImage as error:
            missing.append(str(error))
            continue
        yield picture, places
    if missing and len(missing) == len(pictures):
        raise BadInput(f"none of the {len(pictures)} scanned pictures can be read: {missing[0]}")
    for reason in missing:
        warnings.warn(f"a cell stays empty: {reason}", ImpastoWarning, stacklevel=2)


def top(folder: Path, layer: str, unit: int, interior: bool | None = None) -> list[Patch]:
    """The patches of one unit in the atlas `folder`, the strongest first; `interior` as in patches_of.

    Raises BadInput for a folder without an index, BadRecipe for a layer or unit that is not in it.
    """
    index = read_index(folder)
    layer = find_layer(index, layer)
    check_unit(index, layer, unit)
    return patches_of(folder, index, layer, [unit], interior)[unit]
