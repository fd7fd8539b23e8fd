"""Pictures as tensors (1, C, H, W) in [0, 1]: checks, sizes, resizing, quantisation, and as 8-bit Pillow images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, pi, sin
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from impasto.disk import BAND, DiskTensor, empty, file_of, folder_of, loaded, nameless, plain, release, to_disk
from impasto.errors import BadImage

MIN_SIDE = 16
REACH = 2  # pixels to either side that smooth_color reads
LOBES = 3  # support of LANCZOS, in pixels of the smaller picture
Wraps = tuple[bool, bool]  # (rows, columns): whether the picture is periodic along that axis
EDGES: Wraps = (False, False)


@dataclass(frozen=True)
class Picture:
    """`image` (1, 3, H, W), sRGB in [0, 1]; `alpha` (1, 1, H, W) or None; the SHA-256 of the file (without one, of the pixels).

    `profile` is the file's ICC profile; `image` is already converted from it to sRGB.
    """

    image: Tensor
    alpha: Tensor | None
    sha256: str
    profile: bytes | None = None


def check_image(image: Any) -> None:
    """Raise BadImage for anything but a float tensor (B, 3, H, W)."""
    if not isinstance(image, Tensor):
        raise BadImage(f"a picture is a tensor (B, 3, H, W) in [0, 1], got {type(image).__name__}: read_picture(...).image is one")
    if image.dim() != 4 or image.shape[1] != 3 or not image.is_floating_point():
        advice = ": image[None] adds the batch" if image.dim() == 3 and image.shape[0] == 3 else ""
        raise BadImage(f"a picture is a tensor (B, 3, H, W) in [0, 1], got {tuple(image.shape)} of {image.dtype}{advice}")


def size_of(image: Tensor) -> tuple[int, int]:
    """(H, W)."""
    return image.shape[-2], image.shape[-1]


def are_alike(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (H, W) have the same aspect ratio, up to rounding to whole pixels."""
    return abs(size[0] * other[1] - size[1] * other[0]) <= 1.5 * max(*size, *other)


def scaled_size(image: Tensor, longer: int) -> tuple[int, int]:
    """(H, W) for a longer side of `longer` pixels, with the same aspect ratio."""
    height, width = image.shape[-2:]
    scale = longer / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize(image: Tensor, size: tuple[int, int], wraps: Wraps = EDGES, where: Path | Tensor | None = None) -> Tensor:
    """(1, C, H, W) in [0, 1] -> (1, C, *size) by Pillow's LANCZOS on floats, clamped to [0, 1].

    On an axis that wraps, the filter continues at the opposite side. The result lies on disk in the folder `where`, or
    where that tensor lies, in memory or on disk; without either where the picture lies. The values are the same.
    """
    folder = folder_of(where) if isinstance(where, Tensor) else where
    if size_of(image) == size:
        return to_disk(image, folder) if folder else image if where is None else loaded(image)
    if (folder or is_on_disk(image)) and not any(wraps):
        shape = 1, image.shape[1], *size
        found = empty(shape, folder) if folder else image.new_empty(shape) if where is None else torch.empty(shape)
        return _resized_in_bands(image, found)
    height, width = image.shape[-2:]
    y, x = (ceil(LOBES * max(1, n / m)) if wrap else 0 for n, m, wrap in zip((height, width), size, wraps, strict=True))
    padded = (np.pad(channel, ((y, y), (x, x)), "wrap") if y or x else channel for channel in image[0].cpu().numpy())
    across = (_resampled(channel, size[1], len(channel), (x, 0, x + width, len(channel))) for channel in padded)
    channels = [_resampled(channel, size[1], size[0], (0, y, size[1], y + height)) for channel in across]
    return torch.from_numpy(np.stack(channels)).unsqueeze(0).clamp_(0, 1).to(image)


def _resampled(channel: np.ndarray, width: int, height: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """Along one axis at a time: with both, Pillow's order of the two depends on its version and on the sizes."""
    return np.asarray(Image.fromarray(channel).resize((width, height), Image.Resampling.LANCZOS, box))


def _resized_in_bands(image: Tensor, found: Tensor) -> Tensor:
    """resize into `found`, a band of rows at a time, to the same bytes: across by Pillow, then down by its arithmetic.

    Pillow itself cannot do the second step: it rounds the box of a band to float32, which changes the weights.
    """
    height, width = size_of(found)
    taps = _taps(image.shape[-2], height)
    count = max(1, BAND // max(width, image.shape[-1]))
    for begin in range(0, height, count):
        here = taps[begin : begin + count]
        first, last = here[0][0], here[-1][0] + len(here[-1][1])
        for channel, mine in zip(plain(image)[0], plain(found)[0], strict=True):
            rows = np.ascontiguousarray(channel[first:last].numpy())
            across = _resampled(rows, width, len(rows), (0, 0, rows.shape[1], len(rows))).astype(np.float64)
            down = np.stack([_mixed(across[at - first :], weights) for at, weights in here])
            mine[begin : begin + count] = torch.from_numpy(down.astype(np.float32)).clamp_(0, 1)
        release(image, found)
    return found


def _mixed(rows: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """The weighted sum of the first rows, in Pillow's order of additions."""
    found = np.zeros(rows.shape[1])
    for row, weight in zip(rows, weights, strict=False):
        found += row * weight
    return found


def _taps(length: int, to: int) -> list[tuple[int, list[float]]]:
    """The filter taps of each output position of an axis resized to `to`: the first input position and the weights from there."""
    if length == to:
        return [(at, [1.0]) for at in range(length)]
    scale = length / to
    wide = max(1.0, scale)
    found = []
    for at in range(to):
        middle = (at + 0.5) * scale
        first, last = max(0, int(middle - LOBES * wide + 0.5)), min(length, int(middle + LOBES * wide + 0.5))
        weights = [_lanczos((n - middle + 0.5) * (1 / wide)) for n in range(first, last)]
        total = sum(weights)
        found.append((first, [weight / total for weight in weights]))
    return found


def _lanczos(t: float) -> float:
    return _sinc(t) * _sinc(t / LOBES) if -LOBES <= t < LOBES else 0.0


def _sinc(t: float) -> float:
    return sin(pi * t) / (pi * t) if t else 1.0


class SmoothColor(torch.autograd.Function):
    """smooth_color, which is its own transpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, wraps: Wraps) -> Tensor:
        """(B, 3, H, W) -> the same shape."""
        ctx.wraps = wraps
        return smooth_color(x, wraps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The gradient to x."""
        return smooth_color(grad, ctx.wraps), None


def smooth_color(x: Tensor, wraps: tuple[bool, bool] = (False, False)) -> Tensor:
    """(B, 3, H, W) -> the same shape: the difference from the mean of the channels blurred by (1, 4, 6, 4, 1) / 16.

    Mirrored at the edges, or periodic: a symmetric operator. A picture on disk is computed in bands of rows.
    """
    height, width = x.shape[-2:]
    count = max(1, BAND // (3 * width)) if isinstance(x, DiskTensor) else height
    columns = _around(0, width, width, wraps[1]).to(x.device)
    found = torch.empty_like(x)
    for at in range(0, height, count):
        last = min(height, at + count)
        band = plain(x)[..., _around(at, last, height, wraps[0]).to(x.device), :]
        grey = band.mean(-3, keepdim=True)
        color = _blurred(_blurred(band - grey, -2)[..., columns], -1)
        plain(found)[..., at:last, :] = color + grey[..., REACH:-REACH, :]
        release(x, found)
    return found


def _around(first: int, last: int, length: int, wraps: bool) -> Tensor:
    """The positions first - REACH to last + REACH - 1 of an axis: beyond its ends mirrored, or those of the other side."""
    at = torch.arange(first - REACH, last + REACH)
    if wraps:
        return at % length
    return torch.where(at < 0, -1 - at, torch.where(at >= length, 2 * length - 1 - at, at)).clamp(0, length - 1)


def _blurred(x: Tensor, axis: int) -> Tensor:
    """(1, 4, 6, 4, 1) / 16 along an axis, which becomes shorter by 2 REACH."""
    first, second, middle, fourth, last = (x.narrow(axis, n, x.shape[axis] - 2 * REACH) for n in range(2 * REACH + 1))
    return (first + last).add_(second + fourth, alpha=4).add_(middle, alpha=6).div_(16)


def quantize(image: Tensor, bits: int = 8) -> Tensor:
    """Rounded to the levels of a file with 8 or 16 bits a channel."""
    levels = float(2**bits - 1)
    return (image * levels).round() / levels


def to_pillow(image: Tensor, alpha: Tensor | None = None) -> Image.Image:
    """(1, 3, H, W), and alpha (1, 1, H, W) if there is one -> an 8-bit RGB or RGBA picture."""
    if is_on_disk(image):
        return _to_pillow_from_disk(image, alpha)
    layers = image if alpha is None else torch.cat([image, alpha], 1)
    pixels = (layers[0].detach() * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().contiguous().numpy()
    return Image.fromarray(pixels)


def _to_pillow_from_disk(image: Tensor, alpha: Tensor | None) -> Image.Image:
    """to_pillow, a band of rows at a time."""
    found = Image.new("RGB" if alpha is None else "RGBA", (image.shape[-1], image.shape[-2]))
    count = max(1, BAND // image.shape[-1])
    for at in range(0, image.shape[-2], count):
        rows = slice(at, at + count)
        found.paste(to_pillow(loaded(image[..., rows, :]), None if alpha is None else loaded(alpha[..., rows, :])), (0, at))
    return found


def from_bands(size: tuple[int, int, int], white: int, rows: Callable[[int, int], np.ndarray], folder: Path | None) -> Tensor:
    """A tensor (1, *size), `size` (C, H, W), in [0, 1] from bands of rows (h, W, C) in 0 to `white`: `rows` takes first and end.

    With a `folder` it lies on disk there, in an unnamed file. All rows at once would take three times the memory.
    """
    found = torch.empty(1, *size) if folder is None else nameless((1, *size), folder)
    count = max(1, BAND // size[2])
    for at in range(0, size[1], count):
        pixels = rows(at, min(at + count, size[1])).astype(np.float32) / white
        found[0, :, at : at + count] = torch.from_numpy(pixels).permute(2, 0, 1)
    return found


def is_on_disk(image: Tensor) -> bool:
    """Whether the values lie in a mapped file."""
    return file_of(image) is not None


def to_levels(layers: Tensor, bits: int) -> np.ndarray:
    """(C, H, W) in [0, 1] -> (H, W, C), uint8 or uint16."""
    levels: np.ndarray = (layers.detach() * (2**bits - 1)).round().permute(1, 2, 0).cpu().contiguous().numpy()
    exact: np.ndarray = levels.astype(np.uint8 if bits == 8 else np.uint16)
    return exact


def levels_in_file(layers: list[Tensor], bits: int) -> tuple[Tensor, Path]:
    """to_levels of channels (H, W) on disk, as bytes (H, W * C * bits / 8) in a file beside theirs, which goes with the tensor."""
    (height, width), folder = layers[0].shape, folder_of(layers[0])
    assert folder is not None
    found = empty((height, width * len(layers) * bits // 8), folder, torch.uint8)
    count = max(1, BAND // width)
    for at in range(0, height, count):
        levels = to_levels(torch.stack([loaded(layer[at : at + count]) for layer in layers]), bits)
        found[at : at + count] = torch.from_numpy(levels.reshape(len(levels), -1).view(np.uint8))
    file = file_of(found)
    assert file is not None
    return found, file
