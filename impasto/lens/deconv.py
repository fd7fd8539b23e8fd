"""Projections: the part of a picture that activated a unit, by a backward pass to the pixels.

deconv    Zeiler & Fergus 2013 (arXiv:1311.2901, section 2.1): unpool to the switches, ReLU of the signal, transposed filters.
guided    Springenberg et al. 2014 (arXiv:1412.6806): the same, and 0 where the forward ReLU was closed.
gradient  Simonyan et al. 2013 (arXiv:1312.6034): the derivative of the unit by the pixels.

They differ only at ReLUs. The last step is the adjoint of the preprocessing, so a projection has the picture's channels and is
signed. A Net is traversed backward here; for a module with branches autograd does it, with the rules as backward functions of all
ReLUs and max pools.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

from impasto.errors import BadRecipe
from impasto.lens.module import AnyNet, ModuleNet, as_map, name_of, pixels_of, shuffled_module, watched
from impasto.lens.rules import RULES, ChosenRules, RuledBackward, UnruledOps, check_rules, unpool
from impasto.nets.kernels import is_winograd, same_convolution
from impasto.nets.nets import Conv, Input, Net, Pool, convolve, layer_name, map_convs, preprocess, rectified, window


@dataclass(frozen=True)
class Passed:
    """A layer of the forward pass: the shape of its input, and where the ReLU was open or the switches of the pool (`kept`)."""

    layer: Conv | Pool
    shape: torch.Size
    kept: Tensor


@dataclass(frozen=True)
class Record:
    """The forward pass of a picture up to a layer, with all that a projection needs; `a` (C, h, w) is the layer's map."""

    net: Net
    layer: str
    passed: tuple[Passed, ...]
    a: Tensor


@dataclass(frozen=True)
class ModuleRecord:
    """The same for a module: autograd's graph from `pixels` to `start` (1, C, h, w), which is `a` or the input of its ReLU."""

    net: ModuleNet
    layer: str
    chosen: ChosenRules
    pixels: Tensor
    start: Tensor
    a: Tensor


AnyRecord = Record | ModuleRecord


def record(net: AnyNet, image: Tensor, layer: str) -> AnyRecord:
    """Run a picture (1, 3, H, W) through the net up to a layer, for projections.

    Raises BadRecipe for an unknown layer; for a Net with average pooling or other than zero padding; for a module with ReLUs or max
    pools in scripted code, where the rules do not apply, or whose layer has no gradient.
    """
    return _record_module(net, image, layer) if isinstance(net, ModuleNet) else next(records(net, image, [layer]))


@torch.no_grad()
def records(net: Net, image: Tensor, layers: Iterable[str]) -> Iterator[Record]:
    """The records of several layers of a Net, in the net's order, in one pass; see record."""
    left = {layer_name(net, layer) for layer in layers}
    if net.padding != "zeros" or any(isinstance(x, Pool) and x.kind != "max" for x in net.layers):
        raise BadRecipe("projections need a net with max pooling and zero padding")
    a = preprocess(image, net.input)
    passed: list[Passed] = []
    for x in net.layers:
        if not left:
            return
        shape = a.shape
        if isinstance(x, Pool):
            a, kept = F.max_pool2d(a, x.size, x.stride, return_indices=True)  # ties go to the first
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
    chosen, pixels = ChosenRules(), image.detach().clone().requires_grad_()
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def receive(name: str, _: object, a: Tensor) -> None:
        if name == layer:
            found[name] = as_map(a).detach().clone(), as_map(ruled.before(a))

    name_of(net, layer)
    with watched(net.module, receive), UnruledOps() as unruled, RuledBackward(chosen) as ruled:
        net.module(pixels_of(net, pixels))
    if unruled.relus or unruled.pools != ruled.pools:
        raise BadRecipe(f"{net.name} has ReLUs or max pools in scripted code, where projection rules do not apply")
    a, start = found[layer]
    if not start.requires_grad:
        raise BadRecipe(f"{layer} of {net.name} has no gradient, so it cannot be projected")
    return ModuleRecord(net, layer, chosen, pixels, start, a[0])


def project(
    way: AnyRecord, unit: int, y: int, x: int, rule: str = "deconv", pooling: str = "sum", start: float | None = None
) -> Tensor:
    """(1, 3, H, W): the projection of the unit at position (y, x) onto the pixels; all other activations of its layer are 0.

    The backward pass starts with `start`, by default the unit's activation. Rule gradient with start 1 is the derivative by the
    pixels. Raises BadRecipe for an unknown rule or pooling, and without `start` for a unit that is not above 0.
    """
    check_rules(rule, pooling)
    value = float(way.a[unit, y, x])
    if start is None and value <= 0:
        raise BadRecipe(f"unit {unit} of {way.layer} is {value:g} at y {y}, x {x}: an inactive unit has no projection")
    start = value if start is None else start
    if isinstance(way, ModuleRecord):
        signal = torch.zeros_like(way.a)[None]
        signal[0, unit, y, x] = start
        way.chosen.rule, way.chosen.pooling = rule, pooling  # autograd follows them at ReLUs and pools
        return torch.autograd.grad(way.start, way.pixels, signal.to(way.start), retain_graph=True)[0]
    return project_all(way, [unit], y, x, [start], rule, pooling)


@torch.no_grad()
def project_all(
    way: Record, units: Sequence[int], y: int, x: int, starts: Sequence[float], rule: str = "deconv", pooling: str = "sum"
) -> Tensor:
    """(B, 3, H, W): the projections of several units at one position; see project. Together they take half the time.

    Layer by layer; the signal is a window of the map, which begins at (y, x) and contains all that is not 0.
    """
    signal = way.a.new_zeros(len(units), len(way.a), 1, 1)
    signal[range(len(units)), units, 0, 0] = signal.new_tensor(starts)
    for n, passed in enumerate(reversed(way.passed)):
        if n and isinstance(passed.layer, Conv):  # not at the unit's own ReLU, which was open
            signal = RULES[rule](signal, passed.kept[..., y : y + signal.shape[2], x : x + signal.shape[3]])
        signal, y, x = back(signal, y, x, passed, pooling)
    pixels = signal.new_zeros(len(units), 3, *way.passed[0].shape[-2:])
    pixels[..., y : y + signal.shape[2], x : x + signal.shape[3]] = to_pixels(signal, way.net.input)
    return pixels


def back(signal: Tensor, y: int, x: int, passed: Passed, pooling: str) -> tuple[Tensor, int, int]:
    """A window of a layer's output, at (y, x) -> the window of its input that depends on it, and where that begins.

    Outside the windows the signal is 0.
    """
    layer, (height, width) = passed.layer, passed.shape[-2:]
    if isinstance(layer, Pool):  # wider by the windows that may have the same switch
        lap, (rows, columns) = (layer.size - 1) // layer.stride, passed.kept.shape[-2:]
        top, bottom = max(0, y - lap), min(rows, y + signal.shape[2] + lap)
        left, right = max(0, x - lap), min(columns, x + signal.shape[3] + lap)
        signal = F.pad(signal, (x - left, right - x - signal.shape[3], y - top, bottom - y - signal.shape[2]))
        y, x = top * layer.stride, left * layer.stride
        size = (min(height - y, input_length(bottom - top, layer)), min(width - x, input_length(right - left, layer)))
        places = passed.kept[..., top:bottom, left:right]
        places = (places // width - y) * size[1] + places % width - x
        return unpool(signal, places, torch.Size((len(signal), passed.shape[1], *size)), pooling), y, x
    size = input_length(signal.shape[2], layer), input_length(signal.shape[3], layer)
    signal = filtered(signal, layer, torch.Size((len(signal), passed.shape[1], *size)), padding=0)
    y, x = y * layer.stride - layer.padding, x * layer.stride - layer.padding
    return signal[..., max(0, -y) : height - y, max(0, -x) : width - x], max(0, y), max(0, x)


def input_length(places: int, layer: Conv | Pool) -> int:
    """The length of input that `places` adjacent output positions read."""
    size, stride, _ = window(layer)
    return (places - 1) * stride + size


def filtered(signal: Tensor, layer: Conv, shape: torch.Size, padding: int) -> Tensor:
    """(B, out, h, w) -> `shape` (B, in, H, W): the transposed convolution, without bias.

    `padding` is 0 for a window of a map, whose result is cropped to the map afterwards.
    """
    if layer.stride > 1:  # torch's own takes 36 ms for AlexNet's first layer, a matrix product 1 ms
        columns = layer.weight.flatten(1).T @ signal.flatten(2)
        return F.fold(columns, tuple(shape[-2:]), layer.weight.shape[-1], padding=padding, stride=layer.stride)
    around = F.pad(signal, (layer.weight.shape[-1] // 2,) * 4)
    if padding == 0 and is_winograd(around, layer.weight):
        return same_convolution(around, layer.flipped, None)
    before: Tensor = conv2d_input(shape, layer.weight, signal, 1, padding)  # type: ignore[no-untyped-call]
    return before


def to_pixels(signal: Tensor, input: Input) -> Tensor:
    """(B, 3, H, W) at the first convolution -> in the picture's channels and range: the adjoint of preprocess."""
    pixels = torch.empty_like(signal)
    pixels[:, list(input.channels)] = signal * input.scale / signal.new_tensor(input.std).view(1, 3, 1, 1)
    return pixels


def filters_of(net: AnyNet, layer: str) -> Tensor | None:
    """(C, 3, k, k): the filters of a layer that reads the pixels, in the picture's channels; None for other layers."""
    if isinstance(net, ModuleNet):
        filters = net.known[layer].filters
    else:
        filters = net.convs[0].weight if layer.removesuffix(":pre") == net.layers[0].name else None
    return None if filters is None else to_pixels(filters, net.input)


# Controls: does a projection depend on the unit?


@dataclass(frozen=True)
class Control:
    """A projection (1, 3, H, W) that does not depend on the unit, and its cosine to the unit's; near 1 neither depends on it."""

    name: str
    projection: Tensor
    cosine: float


def controls(
    way: AnyRecord, image: Tensor, unit: int, y: int, x: int, seed: int, rule: str = "deconv", pooling: str = "sum"
) -> list[Control]:
    """Another unit, drawn by `seed`, with the same switches; and the same unit with shuffled weights (Adebayo et al. 2018).

    Both start at 1, since the other unit may be inactive there; the cosine does not depend on the start.
    """
    own = project(way, unit, y, x, rule, pooling)
    other = random.Random(seed).choice([n for n in range(len(way.a)) if n != unit])
    ways = {f"unit {other}": (way, other), "shuffled weights": (record(shuffled(way.net, seed), image, way.layer), unit)}
    found = {name: project(record, n, y, x, rule, pooling, 1.0) for name, (record, n) in ways.items()}
    return [Control(name, projection, cosine(own, projection)) for name, projection in found.items()]


def shuffled(net: AnyNet, seed: int) -> AnyNet:
    """The net with the weights of each layer shuffled: random filters with the same values."""
    generator = torch.Generator().manual_seed(seed)

    def shuffle(x: Tensor) -> Tensor:
        return x.flatten()[torch.randperm(x.numel(), generator=generator)].view_as(x)

    if isinstance(net, ModuleNet):
        return shuffled_module(net, shuffle)
    return map_convs(net, lambda x: replace(x, weight=shuffle(x.weight), bias=shuffle(x.bias)))


def cosine(one: Tensor, other: Tensor) -> float:
    """The cosine similarity of two projections; 0 where one of them is 0."""
    return float(F.cosine_similarity(one.flatten(), other.flatten(), dim=0))
