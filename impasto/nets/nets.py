"""VGG-19, VGG-16 and AlexNet with the papers' layer names: a straight line of named layers, and a walk along it.

`conv4_2` is the rectified map, as in the papers (`relu4_2` is accepted as its name); the map before the ReLU is `conv4_2:pre`.
VGG: Simonyan & Zisserman 2014 (arXiv:1409.1556). AlexNet: Krizhevsky 2014, the one-tower variant (arXiv:1404.5997).
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.errors import BadImage, BadRecipe
from impasto.images.images import EDGES, Wraps, check_image
from impasto.nets.kernels import Averaged, Pooled, Rectified, flip, wrapped


@dataclass(frozen=True)
class ConvShape:
    """A convolution without its weights: the drawing of the net."""

    name: str
    channels_in: int
    channels: int
    size: int = 3
    stride: int = 1
    padding: int = 1


@dataclass(frozen=True)
class Conv:
    """A convolution and its ReLU. `weight` is (out, in, k, k), `bias` (out,)."""

    name: str
    weight: Tensor
    bias: Tensor
    stride: int
    padding: int

    @property
    def keeps_size(self) -> bool:
        """Whether the map that comes out is as high and wide as the one that goes in."""
        return self.stride == 1 and 2 * self.padding + 1 == self.weight.shape[-1]

    @cached_property
    def flipped(self) -> Tensor:
        """(in, out, k, k): what the gradient to the input is convolved with."""
        return flip(self.weight)


@dataclass(frozen=True)
class Pool:
    """A pooling. `gain` multiplies what comes out."""

    name: str
    size: int = 2
    stride: int = 2
    kind: str = "max"
    gain: float = 1.0


@dataclass(frozen=True)
class Input:
    """How weights want their pixels. It belongs to the weights, not to the net: x = (scale * image[channels] - mean) / std."""

    channels: tuple[int, int, int]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


INPUTS = {
    "caffe": Input((2, 1, 0), 255.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    "torchvision": Input((0, 1, 2), 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

# What average pooling is multiplied by, pool by pool, so that its mean stays that of max pooling. Measured on the bundled pictures
# at 384 px; the mean of four rectified values is about half their maximum, less far apart where maps are smooth.
AVERAGE_GAINS = {
    "vgg19": (1.37, 1.67, 1.29, 2.02, 1.82),
    "vgg16": (1.75, 1.68, 1.87, 1.83, 1.85),
    "alexnet": (3.24, 2.13, 2.23),
}
PADDINGS = {"zeros": "constant", "replicate": "replicate", "reflect": "reflect"}


@dataclass(frozen=True)
class Net:
    """Named layers in order. `padding` says what lies beyond the picture's edge: `zeros` (the papers'), `replicate`, `reflect`.

    An axis that `wraps` has no edge: the picture goes on at its other side. There a layer leaves one place of as many as its
    stride, so that a picture whose side is a multiple of the deepest layer's stride is a torus in every layer.
    """

    name: str
    layers: tuple[Conv | Pool, ...]
    input: Input
    padding: str = "zeros"
    wraps: Wraps = EDGES

    @property
    def convs(self) -> tuple[Conv, ...]:
        """The convolutions, in order."""
        return tuple(layer for layer in self.layers if isinstance(layer, Conv))


def vgg(convs_per_block: tuple[int, ...]) -> tuple[ConvShape | Pool, ...]:
    """Blocks of 3x3 convolutions, each block closed by a 2x2 pool."""
    line: list[ConvShape | Pool] = []
    channels_in = 3
    for block, (convs, channels) in enumerate(zip(convs_per_block, (64, 128, 256, 512, 512), strict=True), 1):
        for n in range(1, convs + 1):
            line.append(ConvShape(f"conv{block}_{n}", channels_in, channels))
            channels_in = channels
        line.append(Pool(f"pool{block}"))
    return tuple(line)


NETS: dict[str, tuple[ConvShape | Pool, ...]] = {
    "vgg19": vgg((2, 2, 4, 4, 4)),
    "vgg16": vgg((2, 2, 3, 3, 3)),
    "alexnet": (
        ConvShape("conv1", 3, 64, size=11, stride=4, padding=2),
        Pool("pool1", size=3),
        ConvShape("conv2", 64, 192, size=5, padding=2),
        Pool("pool2", size=3),
        ConvShape("conv3", 192, 384),
        ConvShape("conv4", 384, 256),
        ConvShape("conv5", 256, 256),
        Pool("pool5", size=3),
    ),
}


def weight_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """{"conv1_1.weight": (64, 3, 3, 3), "conv1_1.bias": (64,), ...}: what the weights of a net are, in order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for x in NETS[name]:
        if isinstance(x, ConvShape):
            shapes[f"{x.name}.weight"] = (x.channels, x.channels_in, x.size, x.size)
            shapes[f"{x.name}.bias"] = (x.channels,)
    return shapes


def build_net(name: str, weights: Mapping[str, Tensor], input: Input, pooling: str = "max", padding: str = "zeros") -> Net:
    """The net `name` with these weights: {"conv1_1.weight": (out, in, k, k), "conv1_1.bias": (out,), ...}.

    Average pooling is rescaled by AVERAGE_GAINS, so that activations, and with them the meaning of all weights, keep their scale.
    """
    net = assemble(name, NETS[name], weights, input, padding)
    return average_pooled(net, AVERAGE_GAINS[name]) if pooling == "avg" else net


def assemble(
    name: str, shape: Sequence[ConvShape | Pool], weights: Mapping[str, Tensor], input: Input, padding: str = "zeros"
) -> Net:
    """A net of any straight shape, its weights hung into the drawing."""

    def hang(x: ConvShape | Pool) -> Conv | Pool:
        if isinstance(x, Pool):
            return x
        return Conv(x.name, weights[f"{x.name}.weight"], weights[f"{x.name}.bias"], x.stride, x.padding)

    return Net(name, tuple(hang(x) for x in shape), input, padding)


def average_pooled(net: Net, gains: Iterable[float]) -> Net:
    """The same net with average pooling, the paper's choice ("slightly more appealing results"), each pool with its gain."""
    gain = iter(gains)
    return replace(net, layers=tuple(replace(x, kind="avg", gain=next(gain)) if isinstance(x, Pool) else x for x in net.layers))


@dataclass(frozen=True)
class Compute:
    """The device that a net runs on and the precision of its convolutions. Gram matrices and costs are always float32."""

    device: str = "cpu"
    precision: str = "float32"


PRECISIONS = {"cpu": ("float32", "bf16"), "cuda": ("tf32", "float32", "bf16"), "mps": ("float32",)}  # the default first


def choose_compute(device: str = "auto", precision: str = "auto") -> Compute:
    """The requested device and precision; "auto" is the fastest device and its default precision.

    mps is never chosen automatically: it has no float64, which the optimiser needs for its sums. Raises BadRecipe.
    """
    present = {"cuda": torch.cuda.is_available(), "cpu": True, "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = next(name for name, is_here in present.items() if is_here)
    if not present.get(device):
        raise BadRecipe(f"device {device!r} is not available; available: {', '.join(name for name in present if present[name])}")
    precision = PRECISIONS[device][0] if precision == "auto" else precision
    if precision not in PRECISIONS[device]:
        raise BadRecipe(f"precision is {precision!r}, must be one of {', '.join(PRECISIONS[device])} on {device}")
    return Compute(device, precision)


def net_to(net: Net, compute: Compute) -> Net:
    """The net on this device and in this precision. On a GPU its weights are channels_last, the fastest layout for its kernels."""
    torch.backends.cudnn.allow_tf32 = compute.precision == "tf32"
    dtype = torch.bfloat16 if compute.precision == "bf16" else torch.float32
    layout = torch.channels_last if compute.device == "cuda" else torch.contiguous_format

    def hang(x: Conv | Pool) -> Conv | Pool:
        if isinstance(x, Pool):
            return x
        return replace(x, weight=x.weight.to(compute.device, dtype, memory_format=layout), bias=x.bias.to(compute.device, dtype))

    return replace(net, layers=tuple(hang(x) for x in net.layers))


def preprocess(image: Tensor, input: Input) -> Tensor:
    """(B, 3, H, W) in [0, 1] sRGB -> what the first convolution wants."""
    mean, std = (image.new_tensor(values).view(1, 3, 1, 1) for values in (input.mean, input.std))
    return (image[:, input.channels] * input.scale - mean) / std


def walk(net: Net, image: Tensor, pre: Container[str] = ()) -> Iterator[tuple[str, Tensor]]:
    """(B, 3, H, W) in [0, 1] -> (layer name, activations) along the net; maps before the ReLU only for the names in `pre`."""
    yield from walk_layers(net.layers, preprocess(image, net.input), net.padding, pre, net.wraps)


def walk_layers(
    layers: Iterable[Conv | Pool], x: Tensor, padding: str, pre: Container[str] = (), wraps: Wraps = EDGES
) -> Iterator[tuple[str, Tensor]]:
    """(B, C, H, W), what the first of these layers takes -> (layer name, activations) along them; see walk."""
    for layer in layers:
        if isinstance(layer, Pool):
            x = pool(x, layer, wraps)
        elif f"{layer.name}:pre" in pre:
            x = convolve(x, layer, padding, wraps)
            yield f"{layer.name}:pre", x
            x = F.relu(x)  # not in place: the map just handed out would change
        else:
            x = rectified(x, layer, padding, wraps)
        yield layer.name, x


def window(layer: Conv | ConvShape | Pool) -> tuple[int, int, int]:
    """(size, stride, padding): place o behind the layer sees `size` places before it, from o stride - padding on."""
    size = layer.weight.shape[-1] if isinstance(layer, Conv) else layer.size
    return size, layer.stride, 0 if isinstance(layer, Pool) else layer.padding


def features(net: Net, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
    """(B, 3, H, W) in [0, 1] -> {name as asked: (B, C, h, w)}. Walks no further than the deepest layer asked for.

    Raises BadRecipe for a layer that the net does not have, BadImage for what is no picture, or one too small to reach it.
    """
    check_image(image)
    if isinstance(layers, str):
        raise BadRecipe(f"layers is {layers!r}, must be a list of names: [{layers!r}]")
    names = {layer: layer_name(net, layer) for layer in layers}
    wanted, found = set(names.values()), {}
    for name, a in walk(net, image, wanted):
        if name in wanted:
            found[name] = a
        if len(found) == len(wanted):
            break
    return {asked: found[name].to(image.dtype) for asked, name in names.items()}


def lengths(layers: Iterable[Conv | ConvShape | Pool], length: int, wraps: bool = False) -> list[int]:
    """How long one axis is before the first of the layers and behind each."""
    found = [length]
    for layer in layers:
        size, stride, padding = window(layer)
        found.append(found[-1] // stride if wraps else (found[-1] + 2 * padding - size) // stride + 1)
    return found


def map_size(net: Net, layer: str, size: Sequence[int]) -> tuple[int, int]:
    """(h, w) of the layer's map of a picture of this size (H, W)."""
    names = [x.name for x in net.layers]
    down_to = net.layers[: names.index(layer_name(net, layer).removesuffix(":pre")) + 1]
    rows, columns = (lengths(down_to, side, wraps)[-1] for side, wraps in zip(size, net.wraps, strict=True))
    return rows, columns


def channels(net: Net, layer: str) -> int:
    """How many channels the layer's map has: a pooling those of the convolution before it."""
    found, name = 3, layer_name(net, layer).removesuffix(":pre")
    for x in net.layers:
        found = x.weight.shape[0] if isinstance(x, Conv) else found
        if x.name == name:
            break
    return found


def layer_name(net: Net, layer: str) -> str:
    """The one name of a layer: `relu4_2` -> `conv4_2`. Raises BadRecipe, naming the net's layers."""
    return name_among(net.layers, layer, net.name)


def name_among(layers: Iterable[Conv | ConvShape | Pool], layer: str, net: str) -> str:
    """layer_name in the drawing of a net, which has no weights yet."""
    name, known = canonical(layer), [x.name for x in layers]
    if name.removesuffix(":pre") not in known or (name.endswith(":pre") and name.startswith("pool")):
        raise BadRecipe(f"{net} has no layer {layer!r}, its layers are {', '.join(known)}")
    return name


def canonical(layer: str) -> str:
    """`relu4_2` -> `conv4_2`, which is the rectified map; every other name is as it should be."""
    return layer.replace("relu", "conv", 1) if layer.startswith("relu") else layer


def rectified(x: Tensor, layer: Conv, padding: str, wraps: Wraps = EDGES) -> Tensor:
    """One convolution and its ReLU, in the precision of the weights."""
    x = x.to(layer.weight.dtype)
    if padding != "zeros" or not layer.keeps_size:
        return F.relu_(convolve(x, layer, padding, wraps))
    x = wrapped(x, wraps, layer.padding, layer.padding)
    y: Tensor = Rectified.apply(x, layer.weight, layer.bias, layer.flipped)  # type: ignore[no-untyped-call]
    if not any(wraps):
        return y
    rows, columns = (slice(layer.padding, -layer.padding or None) if wrap else slice(None) for wrap in wraps)
    return y[..., rows, columns]  # without the frame, which saw zeros


def convolve(x: Tensor, layer: Conv, padding: str, wraps: Wraps = EDGES) -> Tensor:
    """One convolution, before its ReLU."""
    size, stride, before = window(layer)
    x = wrapped(x.to(layer.weight.dtype), wraps, before, size - stride - before)
    rows, columns = (0 if wrap else before for wrap in wraps)
    if padding == "zeros" or not (rows or columns):
        return F.conv2d(x, layer.weight, layer.bias, stride, (rows, columns))
    room = min(before, min(x.shape[-2:]) - 1) if padding == "reflect" else before
    x = F.pad(x, [room if columns else 0] * 2 + [room if rows else 0] * 2, PADDINGS[padding])
    return F.conv2d(x, layer.weight, layer.bias, stride, (max(0, rows - room), max(0, columns - room)))


def pool(x: Tensor, layer: Pool, wraps: Wraps = EDGES) -> Tensor:
    """One pooling. Raises BadImage when the map is smaller than the pool."""
    x = wrapped(x, wraps, 0, layer.size - layer.stride)
    if min(x.shape[-2:]) < layer.size:
        raise BadImage(f"the picture is too small: at {layer.name} {x.shape[-1]} x {x.shape[-2]} places are left of it")
    if layer.size == layer.stride == 2 and x.device.type == "cpu":
        return Pooled.apply(x) if layer.kind == "max" else Averaged.apply(x, layer.gain)  # type: ignore[no-untyped-call, no-any-return]
    if layer.kind == "avg":
        return F.avg_pool2d(x, layer.size, layer.stride) * layer.gain
    return F.max_pool2d(x, layer.size, layer.stride)


@torch.no_grad()
def normalized(net: Net, images: Sequence[Tensor]) -> Net:
    """The net rescaled so that every channel's mean activation over these pictures and all places is 1 (the paper, "Methods").

    Each filter is divided by its channel's mean and the next layer multiplied by it: behind each ReLU nothing else changes.
    A channel that stays silent on all pictures keeps its scale.
    """
    maps = [preprocess(image, net.input) for image in images]
    before = torch.ones(3, device=maps[0].device)
    layers: list[Conv | Pool] = []
    for layer in net.layers:
        if isinstance(layer, Pool):
            maps = [pool(x, layer) for x in maps]
            layers.append(layer)
        else:
            rescaled, maps, before = _normalized_conv(layer, maps, before, net.padding)
            layers.append(rescaled)
    return replace(net, layers=tuple(layers))


def _normalized_conv(layer: Conv, maps: list[Tensor], before: Tensor, padding: str) -> tuple[Conv, list[Tensor], Tensor]:
    """The layer, its maps and its channels' means: (out,). The maps that go in and out are those of the rescaled net."""
    layer = replace(layer, weight=layer.weight * before.view(1, -1, 1, 1))
    maps = [F.relu_(convolve(x, layer, padding)) for x in maps]
    mean = torch.cat([x.flatten(2) for x in maps], 2).mean((0, 2))
    mean = torch.where(mean > 0, mean, 1.0)
    layer = replace(layer, weight=layer.weight / mean.view(-1, 1, 1, 1), bias=layer.bias / mean)
    return layer, [x / mean.view(1, -1, 1, 1) for x in maps], mean
