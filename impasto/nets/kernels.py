"""Convolution with ReLU, 2x2 pooling and Gram matrix, each by the fastest kernel for the layer, the size and the device.

The results are torch's, up to float32 rounding; bench/LOG.md has the measurements behind the rules. Weights get no gradient:
only the picture is optimised. Winograd's convolution: Lavin & Gray 2016 (arXiv:1509.09308), as NNPACK has it, which transforms the
weights in each call, and, where the weights are larger than the maps, our own with weights that stay transformed.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WINOGRAD_CHANNELS, WINOGRAD_PLACES = 32, 768  # below these, transforming the weights costs more time than it saves
KEPT_CHANNELS, KEPT_PLACES = 256, range(192, 2049)  # where transformed weights are worth keeping

# F(4x4, 3x3): 4 x 4 results of a 6 x 6 tile (Lavin & Gray 2016, 4.3): Y = A^T [(G g G^T) * (B^T d B)] A
TILE, STEP = 6, 4
B = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1.0],
    ]
).T
G = torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24.0]]) / 24
A = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1.0]]).T


def widest(x: Tensor) -> torch.dtype:
    """The type to add up in: float64, on Apple's GPUs, which have none, float32."""
    return torch.float32 if x.device.type == "mps" else torch.float64


@cache
def has_winograd() -> bool:
    """Whether this torch and this processor have NNPACK. The call also initialises it."""
    return hasattr(torch, "_nnpack_spatial_convolution") and bool(getattr(torch, "_nnpack_available", lambda: False)())


def is_winograd(x: Tensor, weight: Tensor) -> bool:
    """Whether a 3x3 convolution of stride 1 and padding 1 is faster by Winograd: a fixed rule, so that results are reproducible."""
    fits = x.device.type == "cpu" and x.dtype == torch.float32 and weight.shape[2:] == (3, 3)
    worth = min(weight.shape[:2]) >= WINOGRAD_CHANNELS and x.shape[-2] * x.shape[-1] >= WINOGRAD_PLACES
    return fits and worth and has_winograd()


def same_convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(B, C, H, W) and (out, C, k, k) -> (B, out, H, W): stride 1, zero padding, k odd."""
    if is_winograd(x, weight):
        return torch._nnpack_spatial_convolution(x, weight, bias, 1)
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


def is_worth_keeping(weight: Tensor, places: int) -> bool:
    """Whether a 3x3 convolution of stride 1 on maps of so many places is fastest with transformed weights that are kept."""
    fits = weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.shape[2:] == (3, 3)
    return fits and min(weight.shape[:2]) >= KEPT_CHANNELS and places in KEPT_PLACES


def transformed(weight: Tensor) -> Tensor:
    """(out, C, 3, 3) -> (36, out, C): G g G^T of each pair of channels."""
    return (torch.kron(G, G) @ weight.reshape(-1, 9).T).view(TILE**2, *weight.shape[:2])


def flip_transformed(weight: Tensor) -> Tensor:
    """transformed(flip(weight)), without a copy of the weights."""
    return (torch.kron(G, G).flip(1) @ weight.reshape(-1, 9).T).view(TILE**2, *weight.shape[:2]).mT


def small_convolution(x: Tensor, kept: Tensor, bias: Tensor | None) -> Tensor:
    """same_convolution with `kept` = transformed(weight), for maps that are small beside the weights."""
    batch, channels, height, width = x.shape
    down, across = -(-height // STEP), -(-width // STEP)
    x = F.pad(x, (1, STEP * across - width + 1, 1, STEP * down - height + 1))
    tiles = x.unfold(2, TILE, STEP).unfold(3, TILE, STEP).permute(4, 5, 1, 0, 2, 3)  # (6, 6, C, B, down, across)
    d = torch.kron(B, B).T @ tiles.reshape(TILE**2, -1)
    m = torch.bmm(kept, d.view(TILE**2, channels, -1))
    y = torch.kron(A, A).T @ m.view(TILE**2, -1)
    y = y.view(STEP, STEP, -1, batch, down, across).permute(3, 2, 4, 0, 5, 1)  # (B, out, down, 4, across, 4)
    y = y.reshape(batch, -1, STEP * down, STEP * across)[..., :height, :width]
    return y.contiguous() if bias is None else y + bias[:, None, None]


def flip(weight: Tensor) -> Tensor:
    """(out, C, k, k) -> (C, out, k, k): the weight of the convolution that gives the gradient to the input, for stride 1."""
    return weight.transpose(0, 1).flip(2, 3).contiguous()


class Rectified(torch.autograd.Function):
    """max(0, convolve(x)), the ReLU in place; `back` is the gradient of convolve: convolve's own with flipped weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, convolve: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, C, H, W) -> (B, out, H, W)."""
        y = convolve(x).relu_()
        ctx.save_for_backward(y)
        ctx.back = back
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient to x; weights get none."""
        (y,) = ctx.saved_tensors
        return ctx.back(torch.ops.aten.threshold_backward(grad, y, 0)), None, None


class Wrapped(torch.autograd.Function):
    """Circular padding by `frame` positions: (left, right, above, below)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, frame: tuple[int, int, int, int]) -> Tensor:
        """(B, C, H, W) -> (B, C, above + H + below, left + W + right)."""
        ctx.frame, ctx.size = frame, x.shape[-2:]
        return F.pad(x, frame, "circular")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The gradient of each padded position is added to the position that it copies."""
        (left, right, above, below), (height, width) = ctx.frame, ctx.size
        columns = grad[..., left : left + width].clone()
        columns[..., width - left :] += grad[..., :left]
        columns[..., :right] += grad[..., left + width :]
        rows = columns[..., above : above + height, :]
        rows[..., height - above :, :] += columns[..., :above, :]
        rows[..., :below, :] += columns[..., above + height :, :]
        return rows, None


def wrapped(x: Tensor, wraps: tuple[bool, bool], before: int, behind: int) -> Tensor:
    """(B, C, H, W) with circular padding, `before` and `behind` each axis that wraps: (rows, columns)."""
    rows, columns = wraps
    frame = (before * columns, behind * columns, before * rows, behind * rows)
    return Wrapped.apply(x, frame) if any(frame) else x  # type: ignore[no-untyped-call]


class Pooled(torch.autograd.Function):
    """2x2 max pooling; ties go to the first. A last odd row or column is dropped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H // 2, W // 2)."""
        ctx.shape, ctx.odd = x.shape, x.shape[-2] % 2 or x.shape[-1] % 2
        x = x[..., : x.shape[-2] // 2 * 2, : x.shape[-1] // 2 * 2]
        left, right = x[..., 0::2], x[..., 1::2]
        rows = torch.maximum(left, right)
        upper, lower = rows[..., 0::2, :], rows[..., 1::2, :]
        ctx.save_for_backward(right > left, lower > upper)
        return torch.maximum(upper, lower)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """The gradient goes to the position of each maximum."""
        is_right, is_lower = ctx.saved_tensors
        rows, x = grad.new_empty(is_right.shape), grad.new_zeros(ctx.shape) if ctx.odd else grad.new_empty(ctx.shape)
        torch.mul(grad, is_lower, out=rows[..., 1::2, :])
        torch.mul(grad, ~is_lower, out=rows[..., 0::2, :])
        even = x[..., : is_right.shape[-2], : 2 * is_right.shape[-1]]
        torch.mul(rows, is_right, out=even[..., 1::2])
        torch.mul(rows, ~is_right, out=even[..., 0::2])
        return x


class Averaged(torch.autograd.Function):
    """2x2 average pooling times a gain. A last odd row or column is dropped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: float) -> Tensor:
        """(B, C, H, W) -> (B, C, H // 2, W // 2)."""
        ctx.shape, ctx.odd, ctx.share = x.shape, x.shape[-2] % 2 or x.shape[-1] % 2, gain / 4
        x = x[..., : x.shape[-2] // 2 * 2, : x.shape[-1] // 2 * 2]
        rows = x[..., 0::2, :] + x[..., 1::2, :]
        return torch.add(rows[..., 0::2], rows[..., 1::2]).mul_(ctx.share)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Each of the four positions gets the same share."""
        height, width = grad.shape[-2:]
        grad = grad * ctx.share
        rows, x = grad.new_empty(*grad.shape[:-1], 2 * width), grad.new_zeros(ctx.shape) if ctx.odd else grad.new_empty(ctx.shape)
        rows[..., 0::2], rows[..., 1::2] = grad, grad
        x[..., 0 : 2 * height : 2, : 2 * width], x[..., 1 : 2 * height : 2, : 2 * width] = rows, rows
        return x, None


class Gram(torch.autograd.Function):
    """x x^T of each picture. Its gradient takes one product; autograd would take two and a transposition."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """(B, C, M) -> (B, C, C)."""
        ctx.save_for_backward(x)
        return x @ x.mT

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """(g + g^T) x."""
        (x,) = ctx.saved_tensors
        gradient: Tensor = (grad + grad.mT) @ x
        return gradient
