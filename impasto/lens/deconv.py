"""What in a picture a unit answered to, drawn back onto its pixels, by named rules.

deconv    Zeiler & Fergus 2013 (arXiv:1311.2901, section 2.1): unpool to the switches, rectify what comes back, filter transposed.
guided    Springenberg et al. 2014 (arXiv:1412.6806): the same, and closed where the ReLU was closed.
gradient  Simonyan et al. 2013 (arXiv:1312.6034): the derivative of the unit by the pixels.

The three differ in what they do at a ReLU and in nothing else. The last step is that of the preprocessing, so a projection is in
the picture's channels, signed, and 0 is nothing. A straight net is walked back here; through a module of branches autograd finds
the way, with the rules put in the place of every ReLU and max pool.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

from impasto.errors import BadRecipe
from impasto.lens.module import AnyNet, ModuleNet, as_map, name_of, pixels_of, shuffled_module, watched
from impasto.lens.rules import RULES, Chosen, Missed, Ruled, check_rules, unpool
from impasto.nets.kernels import is_winograd, same_convolution
from impasto.nets.nets import Conv, Input, Net, Pool, convolve, layer_name, preprocess, rectified, window


@dataclass(frozen=True)
class Passed:
    """A layer that a picture went through: the shape of what went in; where the ReLU was open, or the switches of the pool."""

    layer: Conv | Pool
    shape: torch.Size
    kept: Tensor


@dataclass(frozen=True)
class Record:
    """A picture's way up to a layer, all that a projection needs to go back; `a` (C, h, w) is the map there."""

    net: Net
    layer: str
    passed: tuple[Passed, ...]
    a: Tensor


@dataclass(frozen=True)
class ModuleRecord:
    """The same of a module: autograd's graph from the `pixels` to `start` (1, C, h, w), which is `a` or what its own ReLU took."""

    net: ModuleNet
    layer: str
    chosen: Chosen
    pixels: Tensor
    start: Tensor
    a: Tensor


AnyRecord = Record | ModuleRecord


def record(net: AnyNet, image: Tensor, layer: str) -> AnyRecord:
    """Put a picture (1, 3, H, W) through the net up to a layer.

    Raises BadRecipe for a layer that the net has not; for a straight net that pools by means or pads with anything but zeros; and
    for a module with ReLUs or max pools that cannot be reached (scripted code), or whose layer has no way back.
    """
    return _record_module(net, image, layer) if isinstance(net, ModuleNet) else next(records(net, image, [layer]))


@torch.no_grad()
def records(net: Net, image: Tensor, layers: Iterable[str]) -> Iterator[Record]:
    """The picture's way up to each of these layers of a straight net, in the net's order, in one pass; see record."""
    left = {layer_name(net, layer) for layer in layers}
    if net.padding != "zeros" or any(isinstance(x, Pool) and x.kind != "max" for x in net.layers):
        raise BadRecipe("projections are defined for nets with max pooling and zeros beyond the edge")
    a = preprocess(image, net.input)
    passed: list[Passed] = []
    for x in net.layers:
        if not left:
            return
        shape = a.shape
        if isinstance(x, Pool):
            a, kept = F.max_pool2d(a, x.size, x.stride, return_indices=True)  # of equal places the first
        else:
            if f"{x.name}:pre" in left:
                left.remove(f"{x.name}:pre")
                before = convolve(a, x, net.padding)
                yield Record(net, f"{x.name}:pre", (*passed, Passed(x, shape, before > 0)), before[0])
            a = rectified(a, x, net.padding)
            kept = a > 0
        passed.append(Passed(x, shape, kept))
        if x.name in left:
            left.remove(x.name)
            yield Record(net, x.name, tuple(passed), a[0])


@torch.enable_grad()
def _record_module(net: ModuleNet, image: Tensor, layer: str) -> ModuleRecord:
    chosen, pixels = Chosen(), image.detach().clone().requires_grad_()
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def see(name: str, _: object, a: Tensor) -> None:
        if name == layer:
            found[name] = as_map(a).detach().clone(), as_map(ruled.before(a))

    name_of(net, layer)
    with watched(net.module, see), Missed() as missed, Ruled(chosen) as ruled:
        net.module(pixels_of(net, pixels))
    if missed.relus or missed.pools != ruled.pools:
        raise BadRecipe(f"{net.name} has ReLUs or max pools in scripted code, where no rule reaches them")
    a, start = found[layer]
    if not start.requires_grad:
        raise BadRecipe(f"there is no way back from {layer} of {net.name}: it runs without gradients")
    return ModuleRecord(net, layer, chosen, pixels, start, a[0])


def project(
    way: AnyRecord, unit: int, y: int, x: int, rule: str = "deconv", pooling: str = "sum", start: float | None = None
) -> Tensor:
    """(1, 3, H, W): what the unit at place (y, x) draws onto the pixels, all other activations of the layer set to zero.

    It starts at the unit's own value unless `start` is given. Rule gradient with start 1 is the derivative by the pixels.
    Raises BadRecipe for an unknown rule or pooling, and for a unit without a value above 0 to start at.
    """
    check_rules(rule, pooling)
    value = float(way.a[unit, y, x])
    if start is None and value <= 0:
        raise BadRecipe(f"unit {unit} of {way.layer} is {value:g} at y {y}, x {x}: a silent unit draws nothing")
    start = value if start is None else start
    if isinstance(way, ModuleRecord):
        return _back_through(way, unit, y, x, start, rule, pooling)
    return _back(way, unit, y, x, start, rule, pooling)


@torch.no_grad()
def _back(way: Record, unit: int, y: int, x: int, start: float, rule: str, pooling: str) -> Tensor:
    """A layer at a time: what is not zero of a map, a window of it that begins at (y, x)."""
    signal = way.a.new_zeros(1, len(way.a), 1, 1)
    signal[0, unit] = start
    for n, passed in enumerate(reversed(way.passed)):
        if n and isinstance(passed.layer, Conv):  # the first is the unit's own ReLU, which lets pass what it let pass before
            signal = RULES[rule](signal, passed.kept[..., y : y + signal.shape[2], x : x + signal.shape[3]])
        signal, y, x = back(signal, y, x, passed, pooling)
    pixels = signal.new_zeros(1, 3, *way.passed[0].shape[-2:])
    pixels[..., y : y + signal.shape[2], x : x + signal.shape[3]] = to_pixels(signal, way.net.input)
    return pixels


def back(signal: Tensor, y: int, x: int, passed: Passed, pooling: str) -> tuple[Tensor, int, int]:
    """A window of a layer's map, at (y, x), to what it reaches of the map that went in: again a window and where it begins.

    A unit reaches no more than its field, and outside the window all is zero.
    """
    layer, (height, width) = passed.layer, passed.shape[-2:]
    if isinstance(layer, Pool):  # as wide as other windows go that may have the same switch
        lap, (rows, columns) = (layer.size - 1) // layer.stride, passed.kept.shape[-2:]
        top, bottom = max(0, y - lap), min(rows, y + signal.shape[2] + lap)
        left, right = max(0, x - lap), min(columns, x + signal.shape[3] + lap)
        signal = F.pad(signal, (x - left, right - x - signal.shape[3], y - top, bottom - y - signal.shape[2]))
        y, x = top * layer.stride, left * layer.stride
        size = (min(height - y, reached(bottom - top, layer)), min(width - x, reached(right - left, layer)))
        places = passed.kept[..., top:bottom, left:right]
        places = (places // width - y) * size[1] + places % width - x
        return unpool(signal, places, torch.Size((*passed.shape[:2], *size)), pooling), y, x
    size = reached(signal.shape[2], layer), reached(signal.shape[3], layer)
    signal = filtered(signal, layer, torch.Size((*passed.shape[:2], *size)), padding=0)
    y, x = y * layer.stride - layer.padding, x * layer.stride - layer.padding
    return signal[..., max(0, -y) : height - y, max(0, -x) : width - x], max(0, y), max(0, x)


def reached(places: int, layer: Conv | Pool) -> int:
    """How long a stretch of what went in so many places in a row see."""
    size, stride, _ = window(layer)
    return (places - 1) * stride + size


def _back_through(way: ModuleRecord, unit: int, y: int, x: int, start: float, rule: str, pooling: str) -> Tensor:
    """By autograd, whose steps at ReLUs and pools follow the rules."""
    signal = torch.zeros_like(way.a)[None]
    signal[0, unit, y, x] = start
    way.chosen.rule, way.chosen.pooling = rule, pooling
    return torch.autograd.grad(way.start, way.pixels, signal.to(way.start), retain_graph=True)[0]


def filtered(signal: Tensor, layer: Conv, shape: torch.Size, padding: int) -> Tensor:
    """(B, out, h, w) -> `shape` (B, in, H, W): through the filters the other way, without bias: the adjoint of the convolution.

    `padding` is 0 for a window of a map: what it brings back beyond the map is cut off later.
    """
    if layer.stride > 1:  # torch has no fast kernel for it: AlexNet's first layer takes 36 ms there, 1 ms as a product
        columns = layer.weight.flatten(1).T @ signal.flatten(2)
        return F.fold(columns, tuple(shape[-2:]), layer.weight.shape[-1], padding=padding, stride=layer.stride)
    around = F.pad(signal, (layer.weight.shape[-1] // 2,) * 4)
    if padding == 0 and is_winograd(around, layer.weight):
        return same_convolution(around, layer.flipped, None)
    before: Tensor = conv2d_input(shape, layer.weight, signal, 1, padding)  # type: ignore[no-untyped-call]
    return before


def to_pixels(signal: Tensor, input: Input) -> Tensor:
    """(B, 3, H, W) at the first convolution -> the same in the picture's channels and range: the adjoint of preprocess."""
    pixels = torch.empty_like(signal)
    pixels[:, list(input.channels)] = signal * input.scale / signal.new_tensor(input.std).view(1, 3, 1, 1)
    return pixels


def filters_of(net: AnyNet, layer: str) -> Tensor | None:
    """(C, 3, k, k): the filters of a layer that reads the pixels, as they look for the picture's own colours; None of another."""
    if isinstance(net, ModuleNet):
        filters = net.known[layer].filters
    else:
        filters = net.convs[0].weight if layer.removesuffix(":pre") == net.layers[0].name else None
    return None if filters is None else to_pixels(filters, net.input)


# How much of it is the unit's?


@dataclass(frozen=True)
class Control:
    """A projection (1, 3, H, W) that does not know the unit, and its cosine to the unit's own: near 1 neither knows it."""

    name: str
    projection: Tensor
    cosine: float


def controls(
    way: AnyRecord, image: Tensor, unit: int, y: int, x: int, seed: int, rule: str = "deconv", pooling: str = "sum"
) -> list[Control]:
    """The same switches with another unit, drawn by `seed`; and the same unit of a net with shuffled weights (Adebayo et al. 2018).

    Both start at 1, since the other unit may be silent there; a projection's shape does not depend on the start.
    """
    own = project(way, unit, y, x, rule, pooling)
    other = random.Random(seed).choice([n for n in range(len(way.a)) if n != unit])
    ways = {f"unit {other}": (way, other), "shuffled weights": (record(shuffled(way.net, seed), image, way.layer), unit)}
    found = {name: project(record, n, y, x, rule, pooling, 1.0) for name, (record, n) in ways.items()}
    return [Control(name, projection, cosine(own, projection)) for name, projection in found.items()]


def shuffled(net: AnyNet, seed: int) -> AnyNet:
    """The net with the weights of each layer in another order: as large, and meaning nothing."""
    generator = torch.Generator().manual_seed(seed)

    def shuffle(x: Tensor) -> Tensor:
        return x.flatten()[torch.randperm(x.numel(), generator=generator)].view_as(x)

    if isinstance(net, ModuleNet):
        return shuffled_module(net, shuffle)
    layers = (replace(x, weight=shuffle(x.weight), bias=shuffle(x.bias)) if isinstance(x, Conv) else x for x in net.layers)
    return replace(net, layers=tuple(layers))


def cosine(one: Tensor, other: Tensor) -> float:
    """Between two projections; 0 where one of them is nothing."""
    return float(F.cosine_similarity(one.flatten(), other.flatten(), dim=0))
