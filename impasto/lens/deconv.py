"""What in a picture a unit answered to, drawn back onto its pixels, by named rules.

deconv    Zeiler & Fergus 2013 (arXiv:1311.2901, section 2.1): unpool to the switches, rectify what comes back, filter transposed.
guided    Springenberg et al. 2014 (arXiv:1412.6806): the same, and closed where the ReLU was closed.
gradient  Simonyan et al. 2013 (arXiv:1312.6034): the derivative of the unit by the pixels.

The three differ in what they do at a ReLU and in nothing else. Where pools overlap, one switch can be that of several windows; the
paper does not say what then. `sum` is the derivative's way and ours, `overwrite` lets the last window win (as max-unpooling layers
do), `max` the strongest. Nothing is divided out. The last step is that of the preprocessing, so a projection is in the picture's
channels, signed, and 0 is nothing.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

from impasto.errors import BadRecipe
from impasto.nets import Conv, Input, Net, Pool, convolve, layer_name, preprocess, rectified, window

# At a ReLU: what comes back, and where the ReLU was open.
RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "deconv": lambda signal, is_open: F.relu(signal),
    "guided": lambda signal, is_open: F.relu(signal) * is_open,
    "gradient": lambda signal, is_open: signal * is_open,
}
POOLINGS = ("sum", "overwrite", "max")


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


@torch.no_grad()
def record(net: Net, image: Tensor, layer: str) -> Record:
    """Put a picture (1, 3, H, W) through the net up to a layer.

    Raises BadRecipe for a layer that the net has not, and for a net that pools by means or pads with anything but zeros.
    """
    name = layer_name(net, layer)
    if net.padding != "zeros" or any(isinstance(x, Pool) and x.kind != "max" for x in net.layers):
        raise BadRecipe("projections are defined for nets with max pooling and zeros beyond the edge")
    a, passed = preprocess(image, net.input), []
    for x in net.layers:
        shape = a.shape
        if isinstance(x, Pool):
            a, kept = F.max_pool2d(a, x.size, x.stride, return_indices=True)  # of equal places the first
        else:
            a = convolve(a, x, net.padding) if f"{x.name}:pre" == name else rectified(a, x, net.padding)
            kept = a > 0
        passed.append(Passed(x, shape, kept))
        if x.name == name.removesuffix(":pre"):
            break
    return Record(net, name, tuple(passed), a[0])


@torch.no_grad()
def project(
    way: Record, unit: int, y: int, x: int, rule: str = "deconv", pooling: str = "sum", start: float | None = None
) -> Tensor:
    """(1, 3, H, W): what the unit at place (y, x) draws onto the pixels, all other activations of the layer set to zero.

    It starts at the unit's own value unless `start` is given. Rule gradient with start 1 is the derivative by the pixels.
    Raises BadRecipe for an unknown rule or pooling, and for a unit without a value above 0 to start at.
    """
    if rule not in RULES or pooling not in POOLINGS:
        raise BadRecipe(f"rule is {rule!r} and pooling {pooling!r}, must be of {', '.join(RULES)} and of {', '.join(POOLINGS)}")
    value = float(way.a[unit, y, x])
    if start is None and value <= 0:
        raise BadRecipe(f"unit {unit} of {way.layer} is {value:g} at y {y}, x {x}: a silent unit draws nothing")
    signal = way.a.new_zeros(1, len(way.a), 1, 1)  # what is not zero of a map, a window of it that begins at (y, x)
    signal[0, unit] = value if start is None else start
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
    signal = filtered(signal, replace(layer, padding=0), torch.Size((*passed.shape[:2], *size)))
    y, x = y * layer.stride - layer.padding, x * layer.stride - layer.padding
    return signal[..., max(0, -y) : height - y, max(0, -x) : width - x], max(0, y), max(0, x)


def reached(places: int, layer: Conv | Pool) -> int:
    """How long a stretch of what went in so many places in a row see."""
    size, stride, _ = window(layer)
    return (places - 1) * stride + size


def unpool(signal: Tensor, switches: Tensor, shape: torch.Size, pooling: str = "sum") -> Tensor:
    """(B, C, h, w) -> `shape` (B, C, H, W): each value to the place of its window's maximum, zero elsewhere; see POOLINGS."""
    values, places = signal.flatten(2), switches.flatten(2)
    ground = signal.new_zeros(*shape[:2], shape[2] * shape[3])
    if pooling == "overwrite":  # scattering with equal places has no order of its own: first find each place's last window
        window = torch.arange(places.shape[2]).expand_as(places)
        last = torch.full_like(ground, -1, dtype=torch.long).scatter_reduce_(2, places, window, "amax")
        ground = torch.where(last >= 0, values.gather(2, last.clamp(min=0)), ground)
    elif pooling == "max":
        ground.scatter_reduce_(2, places, values, "amax", include_self=False)
    else:
        ground.scatter_add_(2, places, values)
    return ground.view(shape)


def filtered(signal: Tensor, layer: Conv, shape: torch.Size) -> Tensor:
    """(B, out, h, w) -> `shape` (B, in, H, W): through the filters the other way, without bias: the adjoint of the convolution."""
    if layer.stride > 1:  # torch has no fast kernel for it: AlexNet's first layer takes 36 ms there, 1 ms as a product
        columns = layer.weight.flatten(1).T @ signal.flatten(2)
        return F.fold(columns, tuple(shape[-2:]), layer.weight.shape[-1], padding=layer.padding, stride=layer.stride)
    before: Tensor = conv2d_input(shape, layer.weight, signal, layer.stride, layer.padding)  # type: ignore[no-untyped-call]
    return before


def to_pixels(signal: Tensor, input: Input) -> Tensor:
    """(B, 3, H, W) at the first convolution -> the same in the picture's channels and range: the adjoint of preprocess."""
    pixels = torch.empty_like(signal)
    pixels[:, list(input.channels)] = signal * input.scale / signal.new_tensor(input.std).view(1, 3, 1, 1)
    return pixels


def filters_of(net: Net) -> Tensor:
    """(C, 3, k, k): the filters of the first convolution as they look for the picture's own colours."""
    return to_pixels(net.convs[0].weight, net.input)


# How much of it is the unit's?


@dataclass(frozen=True)
class Control:
    """A projection (1, 3, H, W) that does not know the unit, and its cosine to the unit's own: near 1 neither knows it."""

    name: str
    projection: Tensor
    cosine: float


def controls(
    way: Record, image: Tensor, unit: int, y: int, x: int, seed: int, rule: str = "deconv", pooling: str = "sum"
) -> list[Control]:
    """The same switches with another unit, drawn by `seed`; and the same unit of a net with shuffled weights (Adebayo et al. 2018).

    Both start at 1, since the other unit may be silent there; a projection's shape does not depend on the start.
    """
    own = project(way, unit, y, x, rule, pooling)
    other = random.Random(seed).choice([n for n in range(len(way.a)) if n != unit])
    ways = {f"unit {other}": (way, other), "shuffled weights": (record(shuffled(way.net, seed), image, way.layer), unit)}
    found = {name: project(record, n, y, x, rule, pooling, 1.0) for name, (record, n) in ways.items()}
    return [Control(name, projection, cosine(own, projection)) for name, projection in found.items()]


def shuffled(net: Net, seed: int) -> Net:
    """The net with the weights of each layer in another order: as large, and meaning nothing."""
    generator = torch.Generator().manual_seed(seed)

    def shuffle(x: Tensor) -> Tensor:
        return x.flatten()[torch.randperm(x.numel(), generator=generator)].view_as(x)

    layers = (replace(x, weight=shuffle(x.weight), bias=shuffle(x.bias)) if isinstance(x, Conv) else x for x in net.layers)
    return replace(net, layers=tuple(layers))


def cosine(one: Tensor, other: Tensor) -> float:
    """Between two projections; 0 where one of them is nothing."""
    return float(F.cosine_similarity(one.flatten(), other.flatten(), dim=0))
