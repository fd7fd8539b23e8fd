"""The transformation net: a photograph to a painting in one pass; the style is in the scales and shifts of its normalisations.

Johnson, Alahi & Fei-Fei 2016 (arXiv:1603.08155) with the conditional instance normalisation of Dumoulin, Shlens & Kudlur 2017
(arXiv:1610.07629): a style is `numbers` (2, NUMBERS), a scale gamma and a shift beta for each normalised channel. Three things
differ from the papers, for speed on CPUs: the body works at an eighth of the size, where a stroke fits into what a place sees;
the maps on the way down are added on the way up, with scales of their own; colour is smoothed at the finest detail, as in a
descent.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.images.pixels import EDGES, SmoothColor, Wraps, size_of
from impasto.nets.kernels import WINOGRAD_PLACES, has_winograd

WIDTHS = (32, 64, 88)  # channels at a half, a quarter and an eighth of the size
FULL = 24  # channels at full size
BODY, MIDDLE = 4, 2  # residual blocks at an eighth and at a quarter of the size
STRIDE = 8  # the sides of the net's picture are multiples of it
EPSILON = 1e-5
# Of an even and an odd row of a map that is doubled: how a kernel's rows weigh the rows above, at and below its place.
INTERPOLATED = (((0.75, 0.25, 0), (0.25, 0.75, 0), (0, 0.75, 0.25)), ((0.25, 0.75, 0), (0, 0.75, 0.25), (0, 0.25, 0.75)))
BAND = 2**22  # most values of a map at full size that are computed at once


@dataclass(frozen=True)
class Layer:
    """A convolution with reflection padding: `stride` 2 halves the size, 0.5 doubles it before the convolution (`doubling`)."""

    name: str
    inputs: int
    outputs: int
    kernel: int = 3
    stride: float = 1


def _layers() -> tuple[Layer, ...]:
    half, quarter, eighth = WIDTHS
    down = [Layer("down1", 3, half, 7, 2), Layer("down2", half, quarter, 3, 2), Layer("down3", quarter, eighth, 3, 2)]
    body = [Layer(f"body{n}{part}", eighth, eighth) for n in range(BODY) for part in "ab"]
    middle = [Layer(f"middle{n}{part}", quarter, quarter) for n in range(MIDDLE) for part in "ab"]
    up = [Layer("up1", eighth, quarter, 3, 0.5), *middle, Layer("up2", quarter, half, 3, 0.5), Layer("up3", half, FULL, 3, 0.5)]
    return (*down, *body, *up, Layer("out", FULL, 3, 5))


LAYERS = _layers()
STRIDES = {layer.name: layer.stride for layer in LAYERS}
# The channels that have numbers of a style: of every layer but the last, and of the two maps that are added again.
STYLED = {layer.name: layer.outputs for layer in LAYERS[:-1]} | {"again1": WIDTHS[0], "again2": WIDTHS[1]}
STARTS = dict(zip(STYLED, accumulate(STYLED.values(), initial=0), strict=False))
NUMBERS = sum(STYLED.values())


def shapes() -> dict[str, tuple[int, ...]]:
    """Name -> shape of each tensor of the net's weights."""
    kernels = {layer.name: (layer.outputs, layer.inputs, layer.kernel, layer.kernel) for layer in LAYERS}
    return {**kernels, "out.bias": (3,)}


def first_weights(seed: int) -> dict[str, Tensor]:
    """Random weights to learn from (He et al. 2015, arXiv:1502.01852)."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes().items():
        fan = shape[1] * shape[2] * shape[3] if len(shape) == 4 else 1
        found[name] = torch.randn(shape, generator=generator) * (2 / fan) ** 0.5 if len(shape) == 4 else torch.zeros(shape)
    return found


def plain_numbers() -> Tensor:
    """(2, NUMBERS): scales of 1 and shifts of 0."""
    return torch.stack([torch.ones(NUMBERS), torch.zeros(NUMBERS)])


@dataclass(frozen=True)
class Style:
    """Numbers (2, NUMBERS) for the whole picture, or for each of its parts: (mask (1, 1, H, W), numbers), masks that sum to 1."""

    parts: tuple[tuple[Tensor | None, Tensor], ...]

    def at(self, name: str, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Scales and shifts of a layer whose maps have this size (h, w): two (C, 1, 1), with masks two (1, C, h, w)."""
        start = STARTS[name]
        found = []
        for mask, numbers in self.parts:
            its = numbers[:, start : start + STYLED[name], None, None]
            found.append(its if mask is None else its[:, None] * F.adaptive_avg_pool2d(mask, size))
        gamma, beta = sum(found[1:], start=found[0])
        return gamma, beta

    def rows(self, first: int, last: int) -> "Style":
        """The style of these rows of the picture."""
        return Style(tuple((None if mask is None else mask[..., first:last, :], numbers) for mask, numbers in self.parts))


@dataclass
class Transformer:
    """The net with its weights {name: tensor of shapes()}.

    `wraps` are the periodic axes (rows, columns), whose sides must be multiples of STRIDE. With `inertia` above 0 the mean and
    variance of each map are that share those of the frame before, so that a video does not pump.
    """

    weights: Mapping[str, Tensor]
    wraps: Wraps = EDGES
    inertia: float = 0.0
    before: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def paint(self, image: Tensor, style: Style) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same shape. Large pictures are computed in bands of rows where maps are largest."""
        height, width = image.shape[-2:]
        first, second, third = self.first_maps(image, style).values()
        x = self._styled("down3", third, style).relu_()
        for n in range(BODY):
            x = self._block(f"body{n}", x, style)
        x = (self._styled("up1", self._convolved("up1", x), style) + self._styled("again2", second, style)).relu_()
        for n in range(MIDDLE):
            x = self._block(f"middle{n}", x, style)
        x = (self._styled("up2", self._convolved("up2", x), style) + self._styled("again1", first, style)).relu_()
        return SmoothColor.apply(self._out(x, style)[..., :height, :width], self.wraps).clamp(0, 1)  # type: ignore[no-untyped-call, no-any-return]

    def first_maps(self, image: Tensor, style: Style) -> dict[str, Tensor]:
        """{layer: maps} of the layers on the way down, before they are normalised."""
        first = self._down1(2 * whole_strides(image) - 1)
        second = self._convolved("down2", self._styled("down1", first, style).relu_())
        third = self._convolved("down3", self._styled("down2", second, style).relu_())
        return {"down1": first, "down2": second, "down3": third}

    def _convolved(self, name: str, x: Tensor, edges: tuple[bool, bool] = (True, True)) -> Tensor:
        return convolution(x, self.weights[name], STRIDES[name], self.wraps, edges)

    def _styled(self, name: str, x: Tensor, style: Style) -> Tensor:
        """Each map with mean 0 and variance 1, then the style's scales and shifts."""
        gamma, beta = style.at(name, size_of(x))
        if not self.inertia:
            return torch.addcmul(beta, F.instance_norm(x, eps=EPSILON), gamma)
        variance, mean = torch.var_mean(x, (-2, -1), keepdim=True, correction=0)
        if name in self.before:
            mean, variance = (now.lerp(was, self.inertia) for now, was in zip((mean, variance), self.before[name], strict=True))
        self.before[name] = mean, variance
        return torch.addcmul(beta, (x - mean) * (variance + EPSILON).rsqrt(), gamma)

    def _block(self, name: str, x: Tensor, style: Style) -> Tensor:
        inner = self._styled(f"{name}a", self._convolved(f"{name}a", x), style).relu_()
        return x + self._styled(f"{name}b", self._convolved(f"{name}b", inner), style)

    def _bands(self, height: int, width: int) -> Iterator[tuple[int, int]]:
        """(first, last + 1) of bands of rows so that a map of this width at full size has at most BAND values in each.

        Of a picture with periodic rows all at once: a band would need those of the other side.
        """
        count = height if self.wraps[0] else max(8, BAND // (FULL * width))
        return ((first, min(height, first + count)) for first in range(0, height, count))

    def _down1(self, x: Tensor) -> Tensor:
        """The first layer, in bands."""
        reach, bands = 3, []
        for first, last in self._bands(x.shape[-2] // 2, x.shape[-1]):
            above, below = max(0, 2 * first - reach), min(x.shape[-2], 2 * last + reach - 1)
            bands.append(self._convolved("down1", x[..., above:below, :], (first == 0, 2 * last == x.shape[-2])))
        return torch.cat(bands, -2) if len(bands) > 1 else bands[0]

    def _out(self, x: Tensor, style: Style) -> Tensor:
        """The layers at full size, in bands. They are not normalised, so that a band needs no statistics of the others."""
        height, reach, bands = x.shape[-2], 2, []
        for first, last in self._bands(height, 2 * x.shape[-1]):
            above, below = max(0, first - reach), min(height, last + reach)
            edges = above == 0, below == height
            inner = self._convolved("up3", x[..., above:below, :], edges)
            start = 0 if edges[0] else 2 * above + 2
            gamma, beta = style.rows(start, start + inner.shape[-2]).at("up3", size_of(inner))
            found = (
                self._convolved("out", torch.addcmul(beta, inner, gamma).relu_(), edges) + self.weights["out.bias"][:, None, None]
            )
            start = 0 if edges[0] else start + 2
            bands.append(found[..., 2 * first - start : 2 * last - start, :].sigmoid())
        return torch.cat(bands, -2) if len(bands) > 1 else bands[0]


def convolution(x: Tensor, weight: Tensor, stride: float, wraps: Wraps = EDGES, edges: tuple[bool, bool] = (True, True)) -> Tensor:
    """A convolution with reflection padding, circular on periodic axes; with stride 0.5 of the map at twice its size (`doubling`).

    `edges` says whether the first and the last row are the picture's; elsewhere nothing is padded.
    """
    doubles = stride == 0.5
    margin, otherwise = weight.shape[-1] // 2, "replicate" if doubles else "reflect"
    rows, columns = ("circular" if wrap else otherwise for wrap in wraps)
    top, bottom = (margin * edge for edge in edges)
    across = (margin, margin, top, bottom) if rows == columns else (margin, margin, 0, 0)
    x = F.pad(x, across, mode=columns)
    x = x if rows == columns else F.pad(x, (0, 0, top, bottom), mode=rows)
    if doubles:
        return F.pixel_shuffle(_convolve(x, doubling(weight)), 2)
    return _convolve(x, weight, int(stride))


def doubling(weight: Tensor) -> Tensor:
    """(out, C, 3, 3) -> (4 out, C, 3, 3): of the convolution of a map that is doubled by bilinear interpolation first.

    Its four channels for each of the weight's are the four pixels that each place becomes, as pixel_shuffle takes them. The nearest
    value in place of interpolation would leave a lattice (Odena, Dumoulin & Olah 2016, "Deconvolution and checkerboard artifacts").
    """
    halves = weight.new_tensor(INTERPOLATED)
    return torch.einsum("akm,bln,oikl->oabimn", halves, halves, weight).flatten(0, 2)


def _convolve(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """Without padding; by NNPACK where that is faster and nothing is learned."""
    large = x.shape[-2] * x.shape[-1] >= WINOGRAD_PLACES and x.device.type == "cpu" and x.dtype == torch.float32
    if stride == 1 and large and not torch.is_grad_enabled() and has_winograd():
        return torch._nnpack_spatial_convolution(x, weight, None, 0)
    return F.conv2d(x, weight, stride=stride)


def whole_strides(image: Tensor) -> Tensor:
    """The picture with mirrored rows and columns behind it, up to multiples of STRIDE."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % STRIDE, 0, -height % STRIDE), mode="reflect")
