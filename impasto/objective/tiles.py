"""The sums that costs are functions of, over a whole picture or a tile at a time: pictures larger than memory, exactly.

Costs are functions of sums over places (Gram matrices, squared differences). For tiles the net is cut at some of its pools into
segments, each computed a tile at a time. The forward pass collects the sums and stores the map at each cut. The backward pass goes
from the deepest segment up: it computes every tile again, with gradients, and adds the tile's gradient to that of its input.
A tile reads its own places and the rest of their receptive fields, so nothing is left out or counted twice.

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
from impasto.nets.nets import Conv, Net, Pool, layer_name, lengths, preprocess, walk, walk_layers, window

Area = tuple[slice, slice]  # rows and columns of a map
EVERYWHERE: Area = (slice(None), slice(None))


@dataclass(frozen=True)
class Sum:
    """A sum over the places of a layer: `of` takes activations (B, C, h, w) and the area of the layer's map that they cover.

    Without `of` it is the map itself, assembled from its tiles.
    """

    layer: str
    of: Callable[[Tensor, Area], Tensor] | None

    def part(self, a: Tensor, area: Area) -> Tensor:
        """What an area of the map, with activations (B, C, h, w), contributes."""
        return a if self.of is None else self.of(a, area)


@dataclass(frozen=True)
class Tiling:
    """The net is cut behind these pools; the tiles of its first segment have sides of about `side` pixels, deeper ones larger."""

    cuts: tuple[str, ...] = ()
    side: int = 512


def add_up(net: Net, image: Tensor, sums: Mapping[str, Sum], tiling: Tiling | None = None) -> dict[str, Tensor]:
    """(B, 3, H, W) in [0, 1] -> the sums by name. Without a tiling they have a graph for gradients, with one they have none."""
    if tiling is not None:
        with torch.no_grad():
            return _forwards(_segments(net, sums, image, tiling), image, sums)[0]
    found: dict[str, Tensor] = {}
    names = _names_by_layer(net, sums)
    for layer, a in walk(net, image, frozenset(names)):  # (layer name, activations (B, C, h, w)), from the shallowest
        own = a.view_as(a).to(image.dtype)  # so that gradients of this layer's sums add up before that of the next layer
        found |= {name: sums[name].part(own, EVERYWHERE) for name in names.pop(layer, ())}
        if not names:
            break
    return found


def tiled_costs(
    net: Net, image: Tensor, sums: Mapping[str, Sum], cost: Callable[[dict[str, Tensor]], dict[str, Tensor]], tiling: Tiling
) -> dict[str, Tensor]:
    """cost(add_up(net, image, sums)) in tiles: named scalars, "total" among them. Only "total" has a gradient."""
    segments = _segments(net, sums, image, tiling)
    with torch.no_grad():
        found, maps = _forwards(segments, image, sums)
    if not torch.is_grad_enabled():
        return cost(found)
    costs = cost({name: value.requires_grad_() for name, value in found.items()})
    upstream = dict(zip(found, torch.autograd.grad(costs["total"], list(found.values())), strict=True))
    gradient = _backwards(segments, maps, sums, upstream)
    costs = {name: value.detach() for name, value in costs.items()}
    return {**costs, "total": _KnownGradient.apply(image, costs["total"], gradient)}  # type: ignore[no-untyped-call]


def _names_by_layer(net: Net, sums: Mapping[str, Sum]) -> dict[str, list[str]]:
    """{layer: the names of its sums}."""
    names: dict[str, list[str]] = {}
    for name, it in sums.items():
        names.setdefault(layer_name(net, it.layer), []).append(name)
    return names


class _KnownGradient(torch.autograd.Function):
    """A value whose gradient was computed before."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad * ctx.saved_tensors[0], None, None


@dataclass(frozen=True)
class _Segment:
    """Layers between two cuts. `names` is {layer: names of its sums}; `shape` (C, h, w) is that of the map of the `last` layer."""

    walk: Callable[[Tensor], Iterator[tuple[str, Tensor]]]
    names: dict[str, list[str]]
    tiles: list["_Tile"]
    shape: tuple[int, int, int]
    last: str

    @cached_property
    def layer_of(self) -> dict[str, str]:
        """{name of a sum: its layer}."""
        return {name: layer for layer, names in self.names.items() for name in names}


@dataclass(frozen=True)
class _Tile:
    """`crop` is the area of the segment's input that a tile reads; where the picture wraps, it reaches beyond the edges.

    By layer, `own` are the places that only this tile counts, in the layer's map, and `local` the same in the tile's activations.
    """

    crop: Area
    own: dict[str, Area]
    local: dict[str, Area]


def _at(x: Tensor, area: Area) -> Tensor:
    return x[..., area[0], area[1]]


def _pieces(crop: Area, size: tuple[int, int]) -> list[tuple[Area, Area]]:
    """A crop that may reach beyond a picture (H, W) that wraps, in pieces: the area of each in the picture and in the crop."""

    def along(part: slice, length: int) -> Iterator[tuple[slice, slice]]:
        at = part.start
        while at < part.stop:
            first = at % length
            count = min(length - first, part.stop - at)
            yield slice(first, first + count), slice(at - part.start, at - part.start + count)
            at += count

    rows, columns = map(along, crop, size)
    return [((row[0], column[0]), (row[1], column[1])) for row, column in product(rows, columns)]


def _read(x: Tensor, crop: Area) -> Tensor:
    """The crop in memory; without a copy where it is one piece and x lies in memory."""
    pieces = _pieces(crop, size_of(x))
    if len(pieces) == 1:
        return loaded(_at(x, pieces[0][0]))
    tile = x.new_empty(*x.shape[:-2], *(part.stop - part.start for part in crop))
    for in_picture, in_tile in pieces:
        _at(tile, in_tile).copy_(_at(x, in_picture))
    return tile


def _forwards(segments: Sequence[_Segment], image: Tensor, sums: Mapping[str, Sum]) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The sums, and the input (B, C, h, w) of each segment."""
    found: dict[str, Tensor] = {}
    maps = [image]
    for segment in segments:
        after = image.new_empty(0) if segment is segments[-1] else image.new_empty(image.shape[0], *segment.shape)
        for tile in segment.tiles:
            parts, last = _parts(segment, tile, _read(maps[-1], tile.crop), sums)
            for name, part in parts.items():
                if sums[name].of is None:
                    if name not in found:
                        found[name] = _empty_map(segment, name, part, image)
                    _at(found[name], tile.own[segment.layer_of[name]]).copy_(part)
                else:  # float64, since there may be thousands of tiles
                    found[name] = found[name] + part.double() if name in found else part.double()
            if after.numel():
                _at(after, tile.own[segment.last]).copy_(last)
        _give_back(image)
        maps.append(after)
    return {name: value.to(image.dtype) for name, value in found.items()}, maps[:-1]


def _empty_map(segment: _Segment, name: str, part: Tensor, image: Tensor) -> Tensor:
    """Room for the whole map that this is a part of, on disk if the picture is."""
    rows, columns = (max(tile.own[segment.layer_of[name]][axis].stop for tile in segment.tiles) for axis in (0, 1))
    return image.new_empty(*part.shape[:2], rows, columns)


def _backwards(segments: Sequence[_Segment], maps: list[Tensor], sums: Mapping[str, Sum], upstream: Mapping[str, Tensor]) -> Tensor:
    """The gradient to the first of the maps, by `upstream`, the gradients to the sums. The list of maps is emptied on the way."""
    gradient_after = maps[0].new_empty(0)
    for segment in reversed(segments):
        before = maps.pop()
        gradient = torch.zeros_like(before)
        for tile in segment.tiles:
            crop = _read(before, tile.crop).detach().requires_grad_()
            parts, last = _parts(segment, tile, crop, sums)
            outputs = list(parts.values())
            grads = [upstream[name] if sums[name].of else _at(upstream[name], tile.own[segment.layer_of[name]]) for name in parts]
            if gradient_after.numel():
                outputs, grads = [*outputs, last], [*grads, _at(gradient_after, tile.own[segment.last])]
            (to_crop,) = torch.autograd.grad(outputs, crop, grads)
            for in_picture, in_tile in _pieces(tile.crop, size_of(gradient)):
                _at(gradient, in_picture).add_(_at(to_crop, in_tile))
            del parts, last, outputs, grads, crop, to_crop
        gradient_after = gradient
        _give_back(gradient_after)
    return gradient_after


def _give_back(image: Tensor) -> None:
    """For a picture on disk: return the memory of the last segment's tiles, whose sizes do not suit the next."""
    if isinstance(image, DiskTensor):
        give_back()


def _parts(segment: _Segment, tile: _Tile, x: Tensor, sums: Mapping[str, Sum]) -> tuple[dict[str, Tensor], Tensor]:
    """The tile's part of the sums, and of the map of the segment's last layer."""
    parts: dict[str, Tensor] = {}
    for layer, a in segment.walk(x):
        if layer in segment.names or layer == segment.last:
            own = _at(a, tile.local[layer]).to(x.dtype)
            parts |= {name: sums[name].part(own, tile.own[layer]) for name in segment.names.get(layer, ())}
    return parts, own


def _segments(net: Net, sums: Mapping[str, Sum], image: Tensor, tiling: Tiling) -> list[_Segment]:
    """The net cut into segments, down to the deepest layer that has a sum, for a picture of this size."""
    names = _names_by_layer(net, sums)
    parts = split_net(net, names, tiling.cuts)
    segments, size = [], size_of(image)
    for n, (part, side) in enumerate(zip(parts, sides(parts, tiling.side), strict=True)):
        own_names = {layer: its for layer, its in names.items() if any(layer.removesuffix(":pre") == x.name for x in part)}
        read = {*own_names, part[-1].name}
        rows, columns = (_spans(part, read, length, side, wraps) for length, wraps in zip(size, net.wraps, strict=True))
        tiles = [_Tile(*map(_both, row, column)) for row, column in product(rows, columns)]
        wraps = net.wraps[0] and len(rows) == 1, net.wraps[1] and len(columns) == 1  # other tiles read across the edge themselves
        size = size_after(part, size, net.wraps)
        channels = next(layer.weight.shape[0] for layer in reversed(part) if isinstance(layer, Conv))
        walk_part = partial(_walk_part, replace(net, wraps=wraps), part, frozenset(own_names), is_first=n == 0)
        segments.append(_Segment(walk_part, own_names, tiles, (channels, *size), part[-1].name))
    return segments


def _walk_part(
    net: Net, layers: Sequence[Conv | Pool], pre: Container[str], x: Tensor, is_first: bool
) -> Iterator[tuple[str, Tensor]]:
    return walk_layers(layers, preprocess(x, net.input) if is_first else x, net.padding, pre, net.wraps)


def size_after(layers: Sequence[Conv | Pool], size: tuple[int, int], wraps: Wraps) -> tuple[int, int]:
    """(H, W) of the picture -> (h, w) of the map of the last of these layers."""
    rows, columns = (lengths(layers, length, wrap)[-1] for length, wrap in zip(size, wraps, strict=True))
    return rows, columns


def split_net(net: Net, layers: Iterable[str], cuts: Container[str]) -> list[list[Conv | Pool]]:
    """The net down to the deepest of the layers, split behind the pools named in `cuts`."""
    names = {layer_name(net, layer).removesuffix(":pre") for layer in layers}
    deepest = max(i for i, layer in enumerate(net.layers) if layer.name in names)
    parts: list[list[Conv | Pool]] = [[]]
    for i, layer in enumerate(net.layers[: deepest + 1]):
        parts[-1].append(layer)
        if layer.name in cuts and i < deepest:
            parts.append([])
    return parts


def sides(parts: Sequence[Sequence[Conv | Pool]], side: int) -> list[int]:
    """The sides of each part's tiles, in places of its last map: a tile of any part takes as much work as one of the first part."""
    strides = list(accumulate((prod(window(layer)[1] for layer in part) for part in parts), mul))
    heaviness = [_floats(part) / before**2 for part, before in zip(parts, [1, *strides], strict=False)]
    return [max(1, round(side * (heaviness[0] / heavy) ** 0.5 / stride)) for heavy, stride in zip(heaviness, strides, strict=True)]


def area_read(
    parts: Sequence[Sequence[Conv | Pool]], size: tuple[int, int], tiling: Tiling, wraps: Wraps = EDGES
) -> Iterator[tuple[tuple[int, int], tuple[int, int], int, int]]:
    """For each part: the sizes (H, W) of its input and its last map, the places that all its tiles read, and the largest tile."""
    for part, side in zip(parts, sides(parts, tiling.side), strict=True):
        read = {layer.name for layer in part}
        spans = (_spans(part, read, length, side, wrap) for length, wrap in zip(size, wraps, strict=True))
        rows, columns = ([crop.stop - crop.start for crop, *_ in its] for its in spans)
        after = size_after(part, size, wraps)
        yield size, after, sum(rows) * sum(columns), max(rows) * max(columns)
        size = after


def _floats(layers: Sequence[Conv | Pool]) -> float:
    """Activations in all layers, for each place of the part's input."""
    floats, places = 0.0, 1.0
    for layer in layers:
        places /= window(layer)[1] ** 2
        floats += layer.weight.shape[0] * places if isinstance(layer, Conv) else 0.0
    return floats


_Span = tuple[slice, dict[str, slice], dict[str, slice]]


def _spans(layers: Sequence[Conv | Pool], read: Container[str], length: int, side: int, wraps: bool = False) -> list[_Span]:
    """Tiles in one dimension: one axis of a segment's input cut into spans with about `side` places each in the last map.

    Each place belongs to one span. A span reads the receptive fields of its own places in the layers to `read`, which on an axis
    that wraps may reach beyond the ends; a single span reads exactly the axis.
    """
    long, strides = lengths(layers, length, wraps), list(accumulate((window(layer)[1] for layer in layers), mul, initial=1))
    count, total = -(-long[-1] // side), strides[-1]
    bounds = [round(i * long[-1] / count) for i in range(count + 1)]
    beyond = wraps and count > 1
    spans = []
    for begin, end in pairwise(bounds):
        own = [
            (begin * (total // stride), here if end == long[-1] else end * (total // stride))
            for here, stride in zip(long, strides, strict=True)
        ]
        first, last = own[-1]
        for i in reversed(range(len(layers))):
            if layers[i].name in read or f"{layers[i].name}:pre" in read:
                first, last = min(first, own[i + 1][0]), max(last, own[i + 1][1])
            size, stride, padding = window(layers[i])
            first, last = first * stride - padding, (last - 1) * stride - padding + size
            first, last = (first, last) if beyond else (max(0, first), min(long[i], last))
        first = first // total * total  # a multiple of all strides, so that pooling windows start here
        at = {layer.name: (own[i], first // strides[i]) for i, layer in enumerate(layers, 1)}
        at |= {f"{name}:pre": where for name, where in at.items()}
        spans.append(
            (
                slice(first, last),
                {name: slice(*where) for name, (where, _) in at.items()},
                {name: slice(where[0] - shift, where[1] - shift) for name, (where, shift) in at.items()},
            )
        )
    return spans


def _both(row: Any, column: Any) -> Any:
    """Two slices, or two dicts of slices, as one of pairs."""
    return {name: (row[name], column[name]) for name in row} if isinstance(row, dict) else (row, column)
