"""VGG-19, VGG-16 and AlexNet as sequences of layers named as in the papers, and the forward pass through them.

`conv4_2` is the activation after the ReLU, as in the papers (`relu4_2` is another name for it); `conv4_2:pre` is the one before.
VGG: Simonyan & Zisserman 2014 (arXiv:1409.1556). AlexNet: Krizhevsky 2014, the one-tower variant (arXiv:1404.5997).
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.errors import BadImage, BadRecipe
from impasto.images.images import EDGES, Wraps, check_image
from impasto.nets.kernels import (
    Averaged,
    Pooled,
    Rectified,
    flip,
    flip_transformed,
    is_worth_keeping,
    same_convolution,
    small_convolution,
    transformed,
    wrapped,
)


@dataclass(frozen=True)
class ConvShape:
    """A convolution without weights: part of a net's architecture."""

    name: str
    channels_in: int
    channels: int
    size: int = 3
    stride: int = 1
    padding: int = 1


@dataclass(frozen=True)
class Conv:
    """A convolution and its ReLU. `weight` is (out, in, k, k), `bias` (out,).

    With `keeps` the weights stay transformed for small maps, which takes eight times their memory.
    """

    name: str
    weight: Tensor
    bias: Tensor
    stride: int
    padding: int
    keeps: bool = False

    @property
    def keeps_size(self) -> bool:
        """Whether output and input have the same height and width."""
        return self.stride == 1 and 2 * self.padding + 1 == self.weight.shape[-1]

    @cached_property
    def flipped(self) -> Tensor:
        """(in, out, k, k): the weight that the gradient is convolved with on its way to the input."""
        return flip(self.weight)

    @cached_property
    def kept(self) -> Tensor:
        """(36, out, in): transformed(weight)."""
        return transformed(self.weight)

    @cached_property
    def kept_flipped(self) -> Tensor:
        """(36, in, out): transformed(flip(weight))."""
        return flip_transformed(self.weight)

    def along(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W), where keeps_size, with zero padding, before the ReLU."""
        if self._is_small(x):
            return small_convolution(x, self.kept, self.bias)
        return same_convolution(x, self.weight, self.bias)

    def back(self, grad: Tensor) -> Tensor:
        """(B, out, H, W) -> (B, in, H, W): the gradient of `along`."""
        if self._is_small(grad):
            return small_convolution(grad, self.kept_flipped, None)
        return same_convolution(grad, self.flipped, None)

    def _is_small(self, x: Tensor) -> bool:
        return self.keeps and x.dtype == torch.float32 and is_worth_keeping(self.weight, x.shape[-2] * x.shape[-1])


@dataclass(frozen=True)
class Pool:
    """A pooling layer. Its output is multiplied by `gain`."""

    name: str
    size: int = 2
    stride: int = 2
    kind: str = "max"
    gain: float = 1.0


@dataclass(frozen=True)
class Input:
    """The input normalisation that the weights were trained with: x = (scale * image[channels] - mean) / std."""

    channels: tuple[int, int, int]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


INPUTS = {
    "caffe": Input((2, 1, 0), 255.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    "torchvision": Input((0, 1, 2), 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

# The gain of each average pool that keeps the mean of max pooling. Measured on the bundled pictures at 384 px. The mean of four
# activations is about half their maximum; the two are closer where maps are smooth.
AVERAGE_GAINS = {
    "vgg19": (1.37, 1.67, 1.29, 2.02, 1.82),
    "vgg16": (1.75, 1.68, 1.87, 1.83, 1.85),
    "alexnet": (3.24, 2.13, 2.23),
}
PADDINGS = {"zeros": "constant", "replicate": "replicate", "reflect": "reflect"}


@dataclass(frozen=True)
class Net:
    """Named layers in order. `padding` is the padding mode: `zeros` (as in the papers), `replicate`, `reflect`.

    On an axis that `wraps`, padding is circular and a layer of stride s makes H / s positions of H. So a picture whose side is a
    multiple of the deepest layer's stride is a torus in every layer.
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
    """Blocks of 3x3 convolutions, each followed by a 2x2 pool."""
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
    """{"conv1_1.weight": (64, 3, 3, 3), "conv1_1.bias": (64,), ...}: the weights of a net, in order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for x in NETS[name]:
        if isinstance(x, ConvShape):
            shapes[f"{x.name}.weight"] = (x.channels, x.channels_in, x.size, x.size)
            shapes[f"{x.name}.bias"] = (x.channels,)
    return shapes


def build_net(name: str, weights: Mapping[str, Tensor], input: Input, pooling: str = "max", padding: str = "zeros") -> Net:
    """The net `name` with these weights: {"conv1_1.weight": (out, in, k, k), "conv1_1.bias": (out,), ...}.

    Average pooling is scaled by AVERAGE_GAINS, so that activations and costs keep the scale that they have with max pooling.
    """
    net = assemble(name, NETS[name], weights, input, padding)
    return average_pooled(net, AVERAGE_GAINS[name]) if pooling == "avg" else net


def assemble(
    name: str, shape: Sequence[ConvShape | Pool], weights: Mapping[str, Tensor], input: Input, padding: str = "zeros"
) -> Net:
    """A net of any sequential architecture, with its weights."""
    layers = (
        x if isinstance(x, Pool) else Conv(x.name, weights[f"{x.name}.weight"], weights[f"{x.name}.bias"], x.stride, x.padding)
        for x in shape
    )
    return Net(name, tuple(layers), input, padding)


def map_convs(net: Net, change: Callable[[Conv], Conv]) -> Net:
    """The net with every convolution replaced by change(convolution)."""
    return replace(net, layers=tuple(change(x) if isinstance(x, Conv) else x for x in net.layers))


def average_pooled(net: Net, gains: Iterable[float]) -> Net:
    """The net with average pooling, one gain a pool (Gatys et al. 2015: "slightly more appealing results")."""
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
    return map_convs(
        net,
        lambda x: replace(
            x, weight=x.weight.to(compute.device, dtype, memory_format=layout), bias=x.bias.to(compute.device, dtype)
        ),
    )


def preprocess(image: Tensor, input: Input) -> Tensor:
    """(B, 3, H, W), sRGB in [0, 1] -> the normalised input of the first convolution, same shape."""
    mean, std = (image.new_tensor(values).view(1, 3, 1, 1) for values in (input.mean, input.std))
    return (image[:, input.channels] * input.scale - mean) / std


def walk(net: Net, image: Tensor, pre: Container[str] = ()) -> Iterator[tuple[str, Tensor]]:
    """(B, 3, H, W) in [0, 1] -> (layer, activations) of every layer in order; of maps before the ReLU only those named in `pre`."""
    return walk_layers(net.layers, preprocess(image, net.input), net.padding, pre, net.wraps)


def walk_layers(
    layers: Iterable[Conv | Pool], x: Tensor, padding: str, pre: Container[str] = (), wraps: Wraps = EDGES
) -> Iterator[tuple[str, Tensor]]:
    """(B, C, H, W), the input of the first of these layers -> (layer name, activations) of each; see walk."""
    for layer in layers:
        if isinstance(layer, Pool):
            x = pool(x, layer, wraps)
        elif f"{layer.name}:pre" in pre:
            x = convolve(x, layer, padding, wraps)
            yield f"{layer.name}:pre", x
            x = F.relu(x)  # not in place: it would change the map just yielded
        else:
            x = rectified(x, layer, padding, wraps)
        yield layer.name, x


def for_small_maps(net: Net, size: Sequence[int]) -> Net:
    """The net for many passes of pictures of this size (H, W): it keeps what makes convolutions on small maps faster."""

    def change(conv: Conv) -> Conv:
        is_small = is_worth_keeping(conv.weight, prod(map_size(net, conv.name, size)))
        return replace(conv, keeps=True) if is_small else conv

    return map_convs(net, change)


def window(layer: Conv | ConvShape | Pool) -> tuple[int, int, int]:
    """(size, stride, padding): output position o reads `size` input positions from o * stride - padding on."""
    size = layer.weight.shape[-1] if isinstance(layer, Conv) else layer.size
    return size, layer.stride, 0 if isinstance(layer, Pool) else layer.padding


def features(net: Net, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
    """(B, 3, H, W) in [0, 1] -> {layer: its activations (B, C, h, w)}, computed up to the deepest of these layers.

    Raises BadRecipe for a layer that the net does not have, BadImage for a wrong tensor or one too small for the layer.
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
    """The length of one axis before the first layer and after each."""
    found = [length]
    for layer in layers:
        size, stride, padding = window(layer)
        found.append(found[-1] // stride if wraps else (found[-1] + 2 * padding - size) // stride + 1)
    return found


def map_size(net: Net, layer: str, size: Sequence[int]) -> tuple[int, int]:
    """(h, w) of the layer's map for a picture of this size (H, W)."""
    names = [x.name for x in net.layers]
    down_to = net.layers[: names.index(layer_name(net, layer).removesuffix(":pre")) + 1]
    rows, columns = (lengths(down_to, side, wraps)[-1] for side, wraps in zip(size, net.wraps, strict=True))
    return rows, columns


def channels(net: Net, layer: str) -> int:
    """The number of channels of the layer's map; for a pool those of the convolution before it."""
    found, name = 3, layer_name(net, layer).removesuffix(":pre")
    for x in net.layers:
        found = x.weight.shape[0] if isinstance(x, Conv) else found
        if x.name == name:
            break
    return found


def layer_name(net: Net, layer: str) -> str:
    """The canonical name of a layer: `relu4_2` -> `conv4_2`. Raises BadRecipe, which lists the net's layers."""
    return name_among(net.layers, layer, net.name)


def name_among(layers: Iterable[Conv | ConvShape | Pool], layer: str, net: str) -> str:
    """layer_name for an architecture without weights."""
    name, known = canonical(layer), [x.name for x in layers]
    if name.removesuffix(":pre") not in known or (name.endswith(":pre") and name.startswith("pool")):
        raise BadRecipe(f"{net} has no layer {layer!r}, its layers are {', '.join(known)}")
    return name


def canonical(layer: str) -> str:
    """`relu4_2` -> `conv4_2`, the map after the ReLU; other names stay."""
    return layer.replace("relu", "conv", 1) if layer.startswith("relu") else layer


def rectified(x: Tensor, layer: Conv, padding: str, wraps: Wraps = EDGES) -> Tensor:
    """A convolution and its ReLU, in the precision of the weights."""
    x = x.to(layer.weight.dtype)
    if padding != "zeros" or not layer.keeps_size:
        return F.relu_(convolve(x, layer, padding, wraps))
    x = wrapped(x, wraps, layer.padding, layer.padding)
    y: Tensor = Rectified.apply(x, layer.along, layer.back)  # type: ignore[no-untyped-call]
    if not any(wraps):
        return y
    rows, columns = (slice(layer.padding, -layer.padding or None) if wrap else slice(None) for wrap in wraps)
    return y[..., rows, columns]  # without the border, which read the zero padding


def convolve(x: Tensor, layer: Conv, padding: str, wraps: Wraps = EDGES) -> Tensor:
    """A convolution, before its ReLU."""
    size, stride, before = window(layer)
    x = wrapped(x.to(layer.weight.dtype), wraps, before, size - stride - before)
    rows, columns = (0 if wrap else before for wrap in wraps)
    if padding == "zeros" or not (rows or columns):
        return F.conv2d(x, layer.weight, layer.bias, stride, (rows, columns))
    room = min(before, min(x.shape[-2:]) - 1) if padding == "reflect" else before
    x = F.pad(x, [room if columns else 0] * 2 + [room if rows else 0] * 2, PADDINGS[padding])
    return F.conv2d(x, layer.weight, layer.bias, stride, (max(0, rows - room), max(0, columns - room)))


def pool(x: Tensor, layer: Pool, wraps: Wraps = EDGES) -> Tensor:
    """A pooling. Raises BadImage for a map smaller than the window."""
    x = wrapped(x, wraps, 0, layer.size - layer.stride)
    if min(x.shape[-2:]) < layer.size:
        raise BadImage(f"the picture is too small: {layer.name} gets a map of {x.shape[-1]} x {x.shape[-2]}, less than its window")
    if layer.size == layer.stride == 2 and x.device.type == "cpu":
        return Pooled.apply(x) if layer.kind == "max" else Averaged.apply(x, layer.gain)  # type: ignore[no-untyped-call, no-any-return]
    if layer.kind == "avg":
        return F.avg_pool2d(x, layer.size, layer.stride) * layer.gain
    return F.max_pool2d(x, layer.size, layer.stride)


@torch.no_grad()
def normalized(net: Net, images: Sequence[Tensor]) -> Net:
    """The net rescaled so that every channel's mean activation over pictures and positions is 1 (Gatys et al. 2015, "Methods").

    Each filter is divided by its channel's mean and the next layer's weights are multiplied by it, so that the net computes the
    same up to these scales. A channel that is 0 on all pictures keeps its scale.
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
    """The rescaled layer, its maps and its channels' means (out,)."""
    layer = replace(layer, weight=layer.weight * before.view(1, -1, 1, 1))
    maps = [F.relu_(convolve(x, layer, padding)) for x in maps]
    mean = torch.cat([x.flatten(2) for x in maps], 2).mean((0, 2))
    mean = torch.where(mean > 0, mean, 1.0)
    layer = replace(layer, weight=layer.weight / mean.view(-1, 1, 1, 1), bias=layer.bias / mean)
    return layer, [x / mean.view(1, -1, 1, 1) for x in maps], mean
