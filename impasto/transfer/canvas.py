"""What is optimised: the pixels of a picture, bounded to [0, 1] all along, or the waves that it is made of.

Either way the picture lies in [0, 1] at every step, so that the saved picture is the one that was optimised. Waves after Olah,
Mordvintsev & Schubert 2017, "Feature Visualization" (Distill, doi:10.23915/distill.00007): a step then moves large shapes and grain
alike, and colours along axes that natural pictures do not correlate.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
import torch
from torch import Tensor

from impasto.disk import BAND, DiskTensor, plain, release


def white_noise(shape: Sequence[int], width: float, seed: int) -> Tensor:
    """Uniform noise around grey, 0.5 - width / 2 to 0.5 + width / 2, each value on its own."""
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + width * (torch.rand(shape, generator=generator) - 0.5)


@dataclass(frozen=True)
class Canvas:
    """What x is: `image` makes a picture (B, 3, H, W) in [0, 1] of it, every value of x stays in [low, high]."""

    image: Callable[[Tensor], Tensor]
    low: float
    high: float


PIXELS = Canvas(lambda x: x, 0.0, 1.0)


def project(x: Tensor, canvas: Canvas = PIXELS) -> Tensor:
    """The nearest x that the canvas allows: every value cut to its bounds."""
    return x.clamp(canvas.low, canvas.high)


def movable(x: Tensor, gradient: Tensor, canvas: Canvas = PIXELS) -> Tensor:
    """Where a descent can move: not at a bound that the negative gradient points across."""
    return ~(((x <= canvas.low) & (gradient > 0)) | ((x >= canvas.high) & (gradient < 0)))


def soften(x: Tensor, falloff: float, wraps: tuple[bool, bool] = (False, False)) -> Tensor:
    """(B, C, H, W) with each frequency f, in cycles a pixel, divided by f^falloff: a symmetric, positive operator.

    The frequencies are those of a cosine transform (DCT-II), which knows no edge, on an axis that wraps those of Fourier's; the
    mean counts as the lowest but one.
    As the first inverse Hessian of L-BFGS it makes large shapes and flat colours move before grain does.
    """
    if not falloff:
        return x
    height, width = x.shape[-2:]
    rows, columns = (
        np.abs(np.fft.fftfreq(n)) if wrap else np.arange(n) / (2 * n) for n, wrap in zip((height, width), wraps, strict=True)
    )

    def gain(columns: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.maximum(np.hypot(rows[:, None], columns), 1 / max(height, width)).astype(np.float32) ** -falloff
        return found

    if isinstance(x, DiskTensor):
        return _softened_on_disk(x, lambda part: gain(columns[part]))
    waves = [axis for axis, wrap in zip((-2, -1), wraps, strict=True) if wrap]
    cosines = [axis for axis in (-2, -1) if axis not in waves]
    spectrum = scipy.fft.dctn(x.cpu().numpy(), axes=cosines, norm="ortho")
    if waves:
        spectrum = scipy.fft.ifftn(scipy.fft.fftn(spectrum, axes=waves) * gain(columns), axes=waves).real
    else:
        spectrum = spectrum * gain(columns)
    return torch.from_numpy(scipy.fft.idctn(spectrum, axes=cosines, norm="ortho")).to(x)


def _softened_on_disk(x: Tensor, gain: Callable[[slice], np.ndarray]) -> Tensor:
    """soften by cosines: across some rows at a time, down some columns there and back, then back across. `gain` is of columns."""
    (height, width), found = x.shape[-2:], torch.empty_like(x)
    lines, columns = _stretches(height, width), _stretches(width, height)
    for channel, mine in zip(plain(x)[0], plain(found)[0], strict=True):
        for rows in lines:
            mine[rows] = torch.from_numpy(scipy.fft.dct(channel[rows].numpy(), norm="ortho"))
            release(x, found)
        for part in columns:
            spectrum = scipy.fft.dct(_gathered(mine, lines, part, found), axis=0, norm="ortho") * gain(part)
            flat = torch.from_numpy(scipy.fft.idct(spectrum, axis=0, norm="ortho"))
            for rows in lines:
                mine[rows, part] = flat[rows]
                release(found)
        for rows in lines:
            mine[rows] = torch.from_numpy(scipy.fft.idct(mine[rows].numpy(), norm="ortho"))
            release(found)
    return found


def _stretches(length: int, other: int) -> list[slice]:
    """An axis cut so that a part of a map with this other side has about BAND elements."""
    count = max(1, BAND // other)
    return [slice(at, min(length, at + count)) for at in range(0, length, count)]


def _gathered(x: Tensor, lines: Sequence[slice], part: slice, of: Tensor) -> np.ndarray:
    """Columns of (H, W), a copy; the pages of the tensor that they are of are let go as they are read."""
    found = np.empty((x.shape[0], part.stop - part.start), np.float32)
    for rows in lines:
        found[rows] = x[rows, part].numpy()
        release(of)
    return found


# How much red, green and blue the three axes of colour carry, one column an axis: light, then two of hue. color_axes of the
# bundled pictures gives these numbers.
COLOR_AXES = ((1.0301, 0.3663, 0.0751), (0.9580, -0.0342, -0.1475), (0.8229, -0.4187, 0.0777))


def color_axes(images: Iterable[Tensor]) -> Tensor:
    """Pictures (1, 3, H, W) -> (3, 3), float64: A with A A^T the covariance of their colours, its mean variance made 1.

    Columns are the principal axes by falling variance, each scaled by its deviation, red positive: as much of each axis as
    pictures have. Every picture counts the same.
    """
    covariance = torch.stack([image.double().flatten(2)[0].cov() for image in images]).mean(0)
    variance, axes = torch.linalg.eigh(3 * covariance / covariance.trace())
    scaled: Tensor = (axes * variance.sqrt()).flip(1)
    return scaled * scaled[0].sign()


def waves(height: int, width: int, limit: float) -> Canvas:
    """Pictures as sums of waves: x (B, 3, height, width // 2 + 1, 2) are the coefficients of a real Fourier transform.

    A wave of f cycles a pixel counts as 1 / f, as in natural pictures (Field 1987), the mean as the lowest. Where x is standard
    normal each axis of colour has variance 1; COLOR_AXES make it red, green and blue, a sigmoid brings it to [0, 1]. The picture
    has no edge: its left side continues the right one, its top the bottom.

    An x longer than `limit` times the standard normal one counts as one of that length, so that no picture is less likely than
    that among pictures with these statistics. Differs from the source, where colours and grain grow with every step.
    """
    gain, axes = _gain(height, width), torch.tensor(COLOR_AXES, dtype=torch.float64)

    def image(x: Tensor) -> Tensor:
        length = x.square().mean((1, 2, 3, 4), keepdim=True).sqrt()
        x = x * (limit / length.clamp(min=limit))
        spectrum = torch.view_as_complex(x * gain.to(x).unsqueeze(-1))
        flat = torch.fft.irfft2(spectrum, s=(height, width), norm="ortho")
        picture: Tensor = torch.einsum("rc,bchw->brhw", axes.to(x), flat).sigmoid()
        return picture

    return Canvas(image, -torch.inf, torch.inf)


def _gain(height: int, width: int) -> Tensor:
    """(height, width // 2 + 1): what each coefficient is multiplied by.

    Columns without a mirror image are real after the transform, which drops half of their power: they get twice as much.
    """
    f = torch.hypot(torch.fft.fftfreq(height, dtype=torch.float64)[:, None], torch.fft.fftfreq(width, dtype=torch.float64))
    gain = 1 / f.clamp(min=1 / max(height, width))
    gain *= (height * width / (2 * gain.square().sum())).sqrt()
    gain = gain[:, : width // 2 + 1].clone()
    gain[:, 0] *= 2**0.5
    if width % 2 == 0:
        gain[:, -1] *= 2**0.5
    return gain


def ripples(shape: Sequence[int], contrast: float, seed: int) -> Tensor:
    """The x of seeded random waves for pictures (B, 3, H, W): grey but for deviations of about `contrast` before the sigmoid."""
    batch, colors, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    return contrast * torch.randn((batch, colors, height, width // 2 + 1, 2), generator=generator)
