"""The same cost and the same gradient, a tile at a time: pictures larger than memory, exactly.

The costs are functions of sums over places (Gram matrices, squared differences). The net is cut at some of its pools into segments,
each segment walked a tile at a time. First the sums are collected, storing the map at each cut; then, from the deepest segment up,
every tile is walked again with gradients, and what its part of the sums and of the map at the cut owes to its input is added there.
A tile reads as much of its surroundings as its places see (their receptive field), and nothing is left out or counted twice.

One segment alone is the tiling of Gatys et al. 2017's successors (SPST, Galerne et al. 2023) at half their overlap, since gradients
are added up where tiles overlap; one tile alone is checkpointing (Chen et al. 2016, arXiv:1604.06174).
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import accumulate, pairwise, product
from math import prod
from operator import mul
from typing import Any

import torch
from torch import Tensor

from impasto.disk import DiskTensor, loaded
from impasto.images.images import EDGES, Wraps, size_of
from impasto.machine import give_back
from impasto.nets.nets import Conv, Net, Pool, layer_name, lengths, preprocess, walk_layers, window


@dataclass(frozen=True)
class Sum:
    """A sum over a layer's places: `of` takes activations (B, C, h, w) and where in the layer's map they are, (rows, columns).

    Without `of` it is the map itself, put together of its tiles.
    """

    layer: str
    of: Callable[[Tensor, tuple[slice, slice]], Tensor] | None


@dataclass(frozen=True)
class Tiling:
    """The net cut behind these pools; its first segment in tiles with sides of about `side` pixels, deeper ones in larger tiles."""

    cuts: tuple[str, ...] = ()
    side: int = 512


def add_up(net: Net, image: Tensor, sums: Mapping[str, Sum], tiling: Tiling | None) -> dict[str, Tensor]:
    """(B, 3, H, W) in [0, 1] -> the sums by name. Without a tiling with a graph for gradients, else without."""
    if tiling is None:
        return _whole(net, image, sums)
    with torch.no_grad():
        return _forwards(_segments(net, sums, image, tiling), image, sums)[0]


def _whole(net: Net, image: Tensor, sums: Mapping[str, Sum]) -> dict[str, Tensor]:
    """As one tile, with a graph."""
    (segment,) = _segments(net, sums, image, Tiling((), max(image.shape[-2:])))
    (tile,) = segment.tiles
    return _parts(segment, tile, image, sums)[0]


def tiled_cost(
    net: Net,
    sums: Mapping[str, Sum],
    cost: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    tiling: Tiling | None,
) -> Callable[[Tensor], dict[str, Tensor]]:
    """The cost of a picture, given as a function of its sums: named scalars, "total" among them. Only "total" has a gradient."""

    if tiling is None:
        return lambda image: cost(_whole(net, image, sums))

    def tiled(image: Tensor) -> dict[str, Tensor]:
        segments = _segments(net, sums, image, tiling)
        with torch.no_grad():
            found, maps = _forwards(segments, image, sums)
        found = {name: value.requires_grad_(torch.is_grad_enabled()) for name, value in found.items()}
        costs = cost(found)
        if torch.is_grad_enabled():
            owed = dict(zip(found, torch.autograd.grad(costs["total"], list(found.values())), strict=True))
            gradient = _backwards(segments, maps, sums, owed)
            costs = {name: value.detach() for name, value in costs.items()}
            costs["total"] = _Given.apply(image, costs["total"], gradient)  # type: ignore[no-untyped-call]
        return costs

    return tiled


class _Given(torch.autograd.Function):
    """A value whose gradient is known already."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad * ctx.saved_tensors[0], None, None


@dataclass(frozen=True)
class _Segment:
    """Layers between two cuts. `wants` is {layer: names of its sums}; `shape` (C, h, w) is of the map of the `last` layer."""

    walk: Callable[[Tensor], Iterator[tuple[str, Tensor]]]
    wants: dict[str, list[str]]
    tiles: list["_Tile"]
    shape: tuple[int, int, int]
    last: str

    @cached_property
    def layer_of(self) -> dict[str, str]:
        """{name of a sum: its layer}."""
        return {name: layer for layer, names in self.wants.items() for name in names}


@dataclass(frozen=True)
class _Tile:
    """What a tile reads of the segment's input; by layer which places are its own, in the layer's map and in what it computes.

    Where the picture wraps, a tile reads beyond its edges.
    """

    crop: tuple[slice, slice]
    own: dict[str, tuple[slice, slice]]
    local: dict[str, tuple[slice, slice]]


def _at(x: Tensor, where: tuple[slice, slice]) -> Tensor:
    return x[..., where[0], where[1]]


_Piece = tuple[tuple[slice, slice], tuple[slice, slice]]


def _pieces(crop: tuple[slice, slice], size: tuple[int, int]) -> list[_Piece]:
    """A crop that may reach beyond a picture that wraps, in pieces: each as it lies in the picture (H, W) and in the crop."""

    def along(part: slice, length: int) -> Iterator[tuple[slice, slice]]:
        at = part.start
        while at < part.stop:
            first = at % length
            count = min(length - first, part.stop - at)
            yield slice(first, first + count), slice(at - part.start, at - part.start + count)
            at += count

    rows, columns = map(along, crop, size)
    return [((row[0], column[0]), (row[1], column[1])) for row, column in product(rows, columns)]


def _read(x: Tensor, crop: tuple[slice, slice]) -> Tensor:
    """What a tile reads, in memory; without a copy where it is one piece and lies there."""
    pieces = _pieces(crop, size_of(x))
    if len(pieces) == 1:
        return loaded(_at(x, pieces[0][0]))
    tile = x.new_empty(*x.shape[:-2], *(part.stop - part.start for part in crop))
    for there, here in pieces:
        _at(tile, here).copy_(_at(x, there))
    return tile


def _forwards(segments: Sequence[_Segment], image: Tensor, sums: Mapping[str, Sum]) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The sums, and the input of each segment."""
    found: dict[str, Tensor] = {}
    maps = [image]
    for segment in segments:
        behind = image.new_empty(0) if segment is segments[-1] else image.new_empty(image.shape[0], *segment.shape)
        for tile in segment.tiles:
            parts, mine = _parts(segment, tile, _read(maps[-1], tile.crop), sums)
            for name, part in parts.items():
                if sums[name].of is None:
                    if name not in found:
                        found[name] = _map_of(segment, name, part, image)
                    _at(found[name], tile.own[segment.layer_of[name]]).copy_(part)
                else:
                    found[name] = found[name] + part.double() if name in found else part.double()  # of thousands of tiles
            if behind.numel():
                _at(behind, tile.own[segment.last]).copy_(mine)
        _tidy(image)
        maps.append(behind)
    return {name: value.to(image.dtype) for name, value in found.items()}, maps[:-1]


def _map_of(segment: _Segment, name: str, part: Tensor, image: Tensor) -> Tensor:
    """Room for the map of this name, of which this is a part, where the picture lies."""
    rows, columns = (max(tile.own[segment.layer_of[name]][axis].stop for tile in segment.tiles) for axis in (0, 1))
    return image.new_empty(*part.shape[:2], rows, columns)


def _backwards(segments: Sequence[_Segment], maps: list[Tensor], sums: Mapping[str, Sum], owed: Mapping[str, Tensor]) -> Tensor:
    """The gradient at the first of the maps, which are used up; `owed` are the gradients at the sums."""
    behind = maps[0].new_empty(0)
    for segment in reversed(segments):
        before = maps.pop()
        gradient = torch.zeros_like(before)
        for tile in segment.tiles:
            crop = _read(before, tile.crop).detach().requires_grad_()
            parts, mine = _parts(segment, tile, crop, sums)
            outputs = list(parts.values())
            upstream = [owed[name] if sums[name].of else _at(owed[name], tile.own[segment.layer_of[name]]) for name in parts]
            if behind.numel():
                outputs, upstream = [*outputs, mine], [*upstream, _at(behind, tile.own[segment.last])]
            (owing,) = torch.autograd.grad(outputs, crop, upstream)
            for there, here in _pieces(tile.crop, size_of(gradient)):
                _at(gradient, there).add_(_at(owing, here))
            del parts, mine, outputs, upstream, crop, owing
        behind = gradient
        _tidy(behind)
    return behind


def _tidy(image: Tensor) -> None:
    """Of a picture on disk: give back what the last segment's tiles have left, whose sizes are not those of the next."""
    if isinstance(image, DiskTensor):
        give_back()


def _parts(segment: _Segment, tile: _Tile, x: Tensor, sums: Mapping[str, Sum]) -> tuple[dict[str, Tensor], Tensor]:
    """The tile's part of the sums, and of the map behind the segment."""
    parts: dict[str, Tensor] = {}
    for layer, a in segment.walk(x):
        if layer in segment.wants or layer == segment.last:
            mine = _at(a, tile.local[layer]).to(x.dtype)
            for name in segment.wants.get(layer, ()):
                of = sums[name].of
                parts[name] = mine if of is None else of(mine, tile.own[layer])
    return parts, mine


def _segments(net: Net, sums: Mapping[str, Sum], image: Tensor, tiling: Tiling) -> list[_Segment]:
    """The net cut into segments, down to the deepest layer wanted, for a picture of this size."""
    names = {key: layer_name(net, s.layer) for key, s in sums.items()}
    parts = cut(net, {s.layer for s in sums.values()}, tiling.cuts)
    segments, size = [], size_of(image)
    for n, (part, side) in enumerate(zip(parts, sides(parts, tiling.side), strict=True)):
        wants: dict[str, list[str]] = {}
        for key, name in names.items():
            if any(name.removesuffix(":pre") == layer.name for layer in part):
                wants.setdefault(name, []).append(key)
        seen = {*wants, part[-1].name}
        rows, columns = (_stretches(part, seen, length, side, wraps) for length, wraps in zip(size, net.wraps, strict=True))
        tiles = [_Tile(*map(_both, row, column)) for row, column in product(rows, columns)]
        wraps = net.wraps[0] and len(rows) == 1, net.wraps[1] and len(columns) == 1  # others read what lies beyond the edge
        size = size_behind(part, size, net.wraps)
        channels = next(layer.weight.shape[0] for layer in reversed(part) if isinstance(layer, Conv))
        walk = partial(_walk, replace(net, wraps=wraps), part, frozenset(wants), is_first=n == 0)
        segments.append(_Segment(walk, wants, tiles, (channels, *size), part[-1].name))
    return segments


def _walk(net: Net, layers: Sequence[Conv | Pool], pre: Container[str], x: Tensor, is_first: bool) -> Iterator[tuple[str, Tensor]]:
    return walk_layers(layers, preprocess(x, net.input) if is_first else x, net.padding, pre, net.wraps)


def size_behind(layers: Sequence[Conv | Pool], size: tuple[int, int], wraps: Wraps) -> tuple[int, int]:
    """(H, W) of the map behind these layers."""
    rows, columns = (lengths(layers, length, wrap)[-1] for length, wrap in zip(size, wraps, strict=True))
    return rows, columns


def cut(net: Net, layers: Iterable[str], cuts: Container[str]) -> list[list[Conv | Pool]]:
    """The net down to the deepest of the layers, parted behind the pools named in `cuts`."""
    wanted = {layer_name(net, layer).removesuffix(":pre") for layer in layers}
    deepest = max(i for i, layer in enumerate(net.layers) if layer.name in wanted)
    parts: list[list[Conv | Pool]] = [[]]
    for i, layer in enumerate(net.layers[: deepest + 1]):
        parts[-1].append(layer)
        if layer.name in cuts and i < deepest:
            parts.append([])
    return parts


def sides(parts: Sequence[Sequence[Conv | Pool]], side: int) -> list[int]:
    """The sides of the tiles, in places of the map behind each part: a tile of any part is as much work as one of the first."""
    strides = list(accumulate((prod(window(layer)[1] for layer in part) for part in parts), mul))
    heaviness = [_floats(part) / before**2 for part, before in zip(parts, [1, *strides], strict=False)]
    return [max(1, round(side * (heaviness[0] / heavy) ** 0.5 / stride)) for heavy, stride in zip(heaviness, strides, strict=True)]


def area_read(
    parts: Sequence[Sequence[Conv | Pool]], size: tuple[int, int], tiling: Tiling, wraps: Wraps = EDGES
) -> Iterator[tuple[tuple[int, int], tuple[int, int], int, int]]:
    """Of each part: the sizes (H, W) before and behind it, the places that its tiles read in all, and those of the largest tile."""
    for part, side in zip(parts, sides(parts, tiling.side), strict=True):
        seen = {layer.name for layer in part}
        stretches = (_stretches(part, seen, length, side, wrap) for length, wrap in zip(size, wraps, strict=True))
        rows, columns = ([crop.stop - crop.start for crop, *_ in its] for its in stretches)
        behind = size_behind(part, size, wraps)
        yield size, behind, sum(rows) * sum(columns), max(rows) * max(columns)
        size = behind


def _floats(layers: Sequence[Conv | Pool]) -> float:
    """Activations kept, a place of the part's input."""
    floats, places = 0.0, 1.0
    for layer in layers:
        places /= window(layer)[1] ** 2
        floats += layer.weight.shape[0] * places if isinstance(layer, Conv) else 0.0
    return floats


_Stretch = tuple[slice, dict[str, slice], dict[str, slice]]


def _stretches(layers: Sequence[Conv | Pool], seen: Container[str], length: int, side: int, wraps: bool = False) -> list[_Stretch]:
    """One axis of a segment's input cut so that each stretch has about `side` places behind it: a _Tile in one dimension.

    A place belongs to one stretch. What the stretch reads is what its own places see, from the deepest layer up. On an axis that
    wraps that may lie beyond its ends; a stretch alone reads the axis and no more.
    """
    long, strides = lengths(layers, length, wraps), list(accumulate((window(layer)[1] for layer in layers), mul, initial=1))
    count, total = -(-long[-1] // side), strides[-1]
    bounds = [round(i * long[-1] / count) for i in range(count + 1)]
    beyond = wraps and count > 1
    stretches = []
    for begin, end in pairwise(bounds):
        own = [
            (begin * (total // stride), here if end == long[-1] else end * (total // stride))
            for here, stride in zip(long, strides, strict=True)
        ]
        first, last = own[-1]
        for i in reversed(range(len(layers))):
            if layers[i].name in seen or f"{layers[i].name}:pre" in seen:
                first, last = min(first, own[i + 1][0]), max(last, own[i + 1][1])
            size, stride, padding = window(layers[i])
            first, last = first * stride - padding, (last - 1) * stride - padding + size
            first, last = (first, last) if beyond else (max(0, first), min(long[i], last))
        first = first // total * total  # where every pooling in between begins a window
        at = {layer.name: (own[i], first // strides[i]) for i, layer in enumerate(layers, 1)}
        at |= {f"{name}:pre": where for name, where in at.items()}
        stretches.append(
            (
                slice(first, last),
                {name: slice(*where) for name, (where, _) in at.items()},
                {name: slice(where[0] - shift, where[1] - shift) for name, (where, shift) in at.items()},
            )
        )
    return stretches


def _both(row: Any, column: Any) -> Any:
    """Two slices, or two dicts of slices, as one of pairs."""
    return {name: (row[name], column[name]) for name in row} if isinstance(row, dict) else (row, column)
