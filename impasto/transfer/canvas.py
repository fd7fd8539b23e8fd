"""The parameters that are optimised: the pixels of a picture, bounded to [0, 1], or its Fourier coefficients.

Either way the picture is in [0, 1] at every step, so that the saved picture is the optimised one. Fourier coefficients after Olah,
Mordvintsev & Schubert 2017, "Feature Visualization" (Distill, doi:10.23915/distill.00007): each step then moves large shapes and
grain alike, and colours along decorrelated axes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # each part of it loads when it is first used: they take half a second
import torch
from torch import Tensor

from impasto.disk import BAND, DiskTensor, plain, release
from impasto.images.pixels import SmoothColor


def white_noise(shape: Sequence[int], width: float, seed: int) -> Tensor:
    """Independent uniform noise from 0.5 - width / 2 to 0.5 + width / 2."""
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + width * (torch.rand(shape, generator=generator) - 0.5)


@dataclass(frozen=True)
class Canvas:
    """A parametrisation: `image` turns x into a picture (B, 3, H, W) in [0, 1]; every value of x stays in [low, high].

    `size` is the picture's (H, W); without it that of x.
    """

    image: Callable[[Tensor], Tensor]
    low: float
    high: float
    size: tuple[int, int] | None = None


PIXELS = Canvas(lambda x: x, 0.0, 1.0)


def soft_color(wraps: tuple[bool, bool] = (False, False)) -> Canvas:
    """Pixels whose colour, but not light, is smooth at the finest detail: x is the picture before it is smoothed.

    As eyes and JPEG have it. Without it the descent leaves coloured specks, which no cost minds. `wraps` are the periodic axes.
    """
    return Canvas(lambda x: SmoothColor.apply(x, wraps).clamp(0, 1), 0.0, 1.0)  # type: ignore[no-untyped-call]


def project(x: Tensor, canvas: Canvas = PIXELS) -> Tensor:
    """The nearest x within the canvas' bounds."""
    return x.clamp(canvas.low, canvas.high)


def movable(x: Tensor, gradient: Tensor, canvas: Canvas = PIXELS) -> Tensor:
    """Where a descent can move x: not at a bound that the negative gradient points across."""
    return ~(((x <= canvas.low) & (gradient > 0)) | ((x >= canvas.high) & (gradient < 0)))


def soften(x: Tensor, falloff: float, wraps: tuple[bool, bool] = (False, False)) -> Tensor:
    """(B, C, H, W) with each frequency f, in cycles a pixel, divided by f^falloff: a symmetric, positive operator.

    The frequencies are those of a cosine transform (DCT-II), without a seam at the edge; on periodic axes those of a Fourier one;
    the mean counts as the lowest frequency above 0. As the first inverse Hessian of L-BFGS it moves large shapes and flat colours
    before grain.
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
    """soften by cosine transforms of bands: of rows, then of columns and back, then of rows back. `gain` takes columns."""
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
    """An axis cut into parts so that each, times the other side, has about BAND elements."""
    count = max(1, BAND // other)
    return [slice(at, min(length, at + count)) for at in range(0, length, count)]


def _gathered(x: Tensor, lines: Sequence[slice], part: slice, of: Tensor) -> np.ndarray:
    """A copy of some columns of x (H, W); the pages of the tensor `of` are released as they are read."""
    found = np.empty((x.shape[0], part.stop - part.start), np.float32)
    for rows in lines:
        found[rows] = x[rows, part].numpy()
        release(of)
    return found


# The result of color_axes for the bundled pictures: rows are red, green and blue, columns the three axes, luminance and two of hue.
COLOR_AXES = ((1.0301, 0.3663, 0.0751), (0.9580, -0.0342, -0.1475), (0.8229, -0.4187, 0.0777))


def color_axes(images: Iterable[Tensor]) -> Tensor:
    """Pictures (1, 3, H, W) -> A (3, 3), float64: A A^T is the covariance of their colours, scaled to a mean variance of 1.

    Columns are the principal axes by falling variance, each scaled by its standard deviation, with red positive. All pictures have
    equal weights.
    """
    covariance = torch.stack([image.double().flatten(2)[0].cov() for image in images]).mean(0)
    variance, axes = torch.linalg.eigh(3 * covariance / covariance.trace())
    scaled: Tensor = (axes * variance.sqrt()).flip(1)
    return scaled * scaled[0].sign()


def fourier(height: int, width: int, limit: float) -> Canvas:
    """Pictures by x (B, 3, height, width // 2 + 1, 2), the coefficients of a real Fourier transform.

    A frequency of f cycles a pixel is scaled by 1 / f, as in natural pictures (Field 1987), the mean as the lowest one. If x is
    standard normal, each colour axis has variance 1; COLOR_AXES converts the axes to red, green and blue, and a sigmoid maps these
    to [0, 1]. The picture is periodic on both axes.

    An x longer than `limit` times a standard normal one is scaled down to that length, which bounds how unlikely a picture can be
    among pictures with these statistics. This differs from the source, where colours and grain grow with every step.
    """
    gain, axes = _gain(height, width), torch.tensor(COLOR_AXES, dtype=torch.float64)

    def image(x: Tensor) -> Tensor:
        length = x.square().mean((1, 2, 3, 4), keepdim=True).sqrt()
        x = x * (limit / length.clamp(min=limit))
        spectrum = torch.view_as_complex(x * gain.to(x).unsqueeze(-1))
        flat = torch.fft.irfft2(spectrum, s=(height, width), norm="ortho")
        picture: Tensor = torch.einsum("rc,bchw->brhw", axes.to(x), flat).sigmoid()
        return picture

    return Canvas(image, -torch.inf, torch.inf, (height, width))


def coefficients(picture: Tensor) -> Tensor:
    """The x of fourier() that gives a picture (B, 3, H, W), the values of which are moved to at least 1 / 255 from 0 and 1."""
    height, width = picture.shape[-2:]
    x = torch.view_as_real(torch.fft.rfft2(_decorrelated(picture), norm="ortho")) / _gain(height, width).unsqueeze(-1)
    return x.to(picture)


def phases(magnitudes: Tensor, mean: Tensor, width: int) -> Canvas:
    """Pictures by x (B, 3, height, width // 2 + 1), the phases of a real Fourier transform whose magnitudes are fixed.

    Fel et al. 2023, "Unlocking Feature Visualization with MAgnitude Constrained Optimization" (arXiv:2306.06805). `magnitudes`
    (3, height, width // 2 + 1) and `mean` (3,), fixed as well, are those of spectrum(); colours and the sigmoid as in fourier().
    """
    size, axes = (magnitudes.shape[-2], width), torch.tensor(COLOR_AXES, dtype=torch.float64)

    def image(x: Tensor) -> Tensor:
        flat = torch.fft.irfft2(torch.polar(magnitudes.to(x).expand_as(x), _of_real(x, width)), s=size, norm="ortho")
        picture: Tensor = torch.einsum("rc,bchw->brhw", axes.to(x), flat + mean.to(x).view(3, 1, 1)).sigmoid()
        return picture

    return Canvas(image, -torch.inf, torch.inf, size)


def _of_real(x: Tensor, width: int) -> Tensor:
    """Phases (..., height, columns) that a real picture can have: opposite for k and -k in columns that mirror themselves."""
    columns = torch.arange(x.shape[-1])
    own_mirror = (columns == 0) | (2 * columns == width)
    return torch.where(own_mirror.to(x.device), (x - x.flip(-2).roll(1, -2)) / 2, x)


def spectrum(pictures: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Pictures (1, 3, H, W) of one size -> the mean magnitudes (3, H, W // 2 + 1) of their Fourier transforms, and the mean (3,).

    Both along COLOR_AXES before the sigmoid; the mean is not among the magnitudes. The pictures are seen through a Hann window, of
    power 1: else the step from one edge to the opposite one would count as a line through all frequencies.
    """
    magnitudes, means = zip(*map(_magnitudes, pictures), strict=True)
    return torch.stack(magnitudes).mean(0), torch.stack(means).mean(0)


def _magnitudes(picture: Tensor) -> tuple[Tensor, Tensor]:
    flat = _decorrelated(picture)[0]
    mean = flat.mean((1, 2))
    window = torch.outer(*(torch.hann_window(n, periodic=False, dtype=flat.dtype) for n in flat.shape[1:]))
    seen = (flat - mean.view(3, 1, 1)) * window / window.square().mean().sqrt()
    magnitudes = torch.fft.rfft2(seen, norm="ortho").abs()
    magnitudes[:, 0, 0] = 0
    return magnitudes, mean


def _decorrelated(picture: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> along COLOR_AXES before the sigmoid, float64; values are moved to at least 1 / 255 from 0 and 1."""
    return torch.einsum("cr,brhw->bchw", torch.tensor(COLOR_AXES, dtype=torch.float64).inverse(), picture.double().logit(1 / 255))


def length(x: Tensor) -> float:
    """The largest length of a picture's x, which fourier() limits: 1 for a standard normal one."""
    return float(x.square().mean((1, 2, 3, 4)).sqrt().max())


def _gain(height: int, width: int) -> Tensor:
    """(height, width // 2 + 1): the factor of each coefficient.

    Columns without a mirror image are real after the transform, which drops half of their power, so they get twice as much.
    """
    f = torch.hypot(torch.fft.fftfreq(height, dtype=torch.float64)[:, None], torch.fft.fftfreq(width, dtype=torch.float64))
    gain = 1 / f.clamp(min=1 / max(height, width))
    gain *= (height * width / (2 * gain.square().sum())).sqrt()
    gain = gain[:, : width // 2 + 1].clone()
    gain[:, 0] *= 2**0.5
    if width % 2 == 0:
        gain[:, -1] *= 2**0.5
    return gain


def fourier_noise(shape: Sequence[int], contrast: float, seed: int) -> Tensor:
    """Random Fourier coefficients for pictures (B, 3, H, W): grey with deviations of about `contrast` before the sigmoid."""
    batch, colors, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    return contrast * torch.randn((batch, colors, height, width // 2 + 1, 2), generator=generator)
