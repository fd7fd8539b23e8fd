"""The start, the bounds, the softening operator, and pictures made of waves."""

import numpy as np
import pytest
import torch

from impasto.disk import plain, to_disk
from impasto.images import pixels
from impasto.images.images import read_picture, resize
from impasto.images.pixels import smooth_color
from impasto.machine import can_map_files
from impasto.pictures import CALIBRATION, picture_path
from impasto.transfer.canvas import (
    COLOR_AXES,
    color_axes,
    fourier,
    fourier_noise,
    movable,
    phases,
    project,
    soft_color,
    soften,
    spectrum,
    white_noise,
)
from impasto.transfer.descent import Optimizer, begin, descend
from tests.conftest import picture

SIZES = [(8, 8), (9, 7), (12, 9), (5, 16)]
AXES = torch.tensor(COLOR_AXES, dtype=torch.float64)


@pytest.mark.parametrize("width", [1.0, 0.2])
def test_noise_is_white_and_seeded(width):
    noise = white_noise((1, 3, 64, 64), width, seed=3)
    assert torch.equal(noise, white_noise((1, 3, 64, 64), width, seed=3))
    assert not torch.equal(noise, white_noise((1, 3, 64, 64), width, seed=4))
    assert 0.98 * width < noise.max() - noise.min() <= width and abs(noise.mean() - 0.5) < 0.02
    assert noise.var().item() == pytest.approx(width**2 / 12, rel=0.05)
    neighbours = torch.stack([noise[..., 1:].flatten(), noise[..., :-1].flatten()])
    assert abs(torch.corrcoef(neighbours)[0, 1]) < 0.05


def test_pixels_at_a_bound_move_inwards_only():
    x = torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0])
    gradient = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0])
    assert movable(x, gradient).tolist() == [False, True, True, True, False]
    assert project(torch.tensor([-1.0, 0.5, 2.0])).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("falloff", [0.0, 0.75, 2.0])
def test_softening_is_symmetric_and_positive(falloff):
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(1, 2, 6, 7, generator=generator) for _ in range(2))
    assert (a * soften(b, falloff)).sum().item() == pytest.approx((soften(a, falloff) * b).sum().item(), rel=1e-4)
    assert (a * soften(a, falloff)).sum() > 0


def test_softening_divides_a_cosine_by_its_frequency():
    """A DCT-II basis picture of 3 half waves over 12 pixels: 3 / 24 cycles a pixel."""
    wave = np.cos(np.pi * 3 * (np.arange(12) + 0.5) / 12)
    image = torch.from_numpy(wave).float().expand(1, 1, 8, 12)
    torch.testing.assert_close(soften(image, 1.0), image / (3 / 24), rtol=1e-4, atol=1e-4)


# Soft colour


def point(height: int = 15, width: int = 17) -> torch.Tensor:
    """A red point in the dark, in the middle."""
    x = torch.zeros(1, 3, height, width, dtype=torch.float64)
    x[0, 0, height // 2, width // 2] = 1
    return x


def test_smooth_colour_blurs_colour_and_leaves_light():
    x = torch.rand(1, 3, 12, 18, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    smooth = smooth_color(x)
    torch.testing.assert_close(smooth.mean(1), x.mean(1))
    torch.testing.assert_close(smooth_color(x.mean(1, keepdim=True).expand_as(x)), x.mean(1, keepdim=True).expand_as(x))
    taps = torch.tensor([1, 4, 6, 4, 1], dtype=torch.float64) / 16
    spread = torch.zeros(15, 17, dtype=torch.float64)
    spread[5:10, 6:11] = torch.outer(taps, taps)
    share = torch.tensor([2 / 3, -1 / 3, -1 / 3], dtype=torch.float64).view(1, 3, 1, 1)  # of the point, less its grey
    torch.testing.assert_close(smooth_color(point()), point().mean(1, keepdim=True) + share * spread)


@pytest.mark.parametrize("wraps", [(False, False), (True, False), (True, True)])
def test_smooth_colour_is_symmetric_and_moves_with_a_periodic_picture(wraps):
    generator = torch.Generator().manual_seed(4)
    a, b = (torch.rand(1, 3, 9, 7, dtype=torch.float64, generator=generator) for _ in range(2))
    torch.testing.assert_close((smooth_color(a, wraps) * b).sum(), (a * smooth_color(b, wraps)).sum())
    for dim, wrap in zip((-2, -1), wraps, strict=True):
        assert not wrap or torch.equal(smooth_color(a.roll(3, dim), wraps), smooth_color(a, wraps).roll(3, dim))
    inside = (0.2 + 0.6 * a).requires_grad_()
    assert torch.autograd.gradcheck(soft_color(wraps).image, inside)
    assert soft_color(wraps).image(a.round()).min() >= 0 and soft_color(wraps).image(a.round()).max() <= 1


def test_smooth_colour_of_a_picture_on_disk_is_the_same(tmp_path, monkeypatch):
    if not can_map_files():
        pytest.skip("files are mapped on Linux alone")
    x = torch.rand(1, 3, 40, 30, generator=torch.Generator().manual_seed(5))
    monkeypatch.setattr(pixels, "BAND", 3 * 30 * 7)
    for wraps in ((False, False), (True, True)):
        assert torch.equal(plain(smooth_color(to_disk(x, tmp_path), wraps)), smooth_color(x, wraps))


def flat(image: torch.Tensor) -> torch.Tensor:
    """The waves of a picture along the axes of colour: what is left when sigmoid and colours are taken back."""
    return torch.einsum("cr,brhw->bchw", AXES.inverse(), image.double().logit())


def drawn(size: tuple[int, int], pictures: int = 4000) -> torch.Tensor:
    """The waves of standard normal x."""
    return flat(fourier(*size, limit=10.0).image(fourier_noise((pictures, 3, *size), 1.0, seed=1).double()))


@pytest.mark.parametrize("size", SIZES)
def test_every_picture_is_a_sum_of_waves(size):
    """Back from a picture to coefficients by numpy's transform; the canvas makes the same picture of them."""
    image = 0.02 + 0.96 * picture(*size).double()
    unit = flat(fourier(*size, limit=100.0).image(torch.zeros(1, 3, size[0], size[1] // 2 + 1, 2)))
    assert unit.abs().max() < 1e-6
    found, canvas = np.fft.rfft2(flat(image).numpy(), norm="ortho"), fourier(*size, limit=1e6)
    one = torch.ones(1, 3, size[0], size[1] // 2 + 1, 2, dtype=torch.float64)
    one[..., 1] = 0
    response = np.fft.rfft2(flat(canvas.image(1e-3 * one)).numpy(), norm="ortho").real / 1e-3
    x = torch.view_as_real(torch.from_numpy(found / response))
    torch.testing.assert_close(canvas.image(x), image, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_standard_normal_waves_have_variance_one_on_every_axis_of_colour(size):
    torch.testing.assert_close(drawn(size).square().mean((0, 2, 3)), torch.ones(3).double(), rtol=0.05, atol=0)


@pytest.mark.parametrize("size", [(8, 8), (9, 9)])
def test_the_power_of_waves_falls_with_the_square_of_their_frequency(size):
    """In every direction alike: columns that the transform takes for real ones count in full."""
    power = torch.fft.rfft2(drawn(size), norm="ortho").abs().square().mean((0, 1))
    f = torch.hypot(torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])).clamp(min=1 / max(size))
    level = power * f.square()
    torch.testing.assert_close(level / level.mean(), torch.ones_like(level), rtol=0.06, atol=0)


def test_waves_beyond_the_limit_count_as_at_the_limit():
    x, canvas = fourier_noise((2, 3, 6, 7), 0.5, seed=2), fourier(6, 7, limit=0.6)
    torch.testing.assert_close(canvas.image(8 * x), canvas.image(5 * x))
    assert not torch.allclose(canvas.image(0.5 * x), canvas.image(x))


@pytest.mark.parametrize("limit", [0.1, 10.0])
def test_the_gradient_through_waves_is_right(limit):
    x = fourier_noise((2, 3, 5, 4), 1.0, seed=3).double().requires_grad_()
    assert torch.autograd.gradcheck(fourier(5, 4, limit).image, x)


def turns(size: tuple[int, int], pictures: int = 2, seed: int = 1) -> torch.Tensor:
    """Random phases."""
    shape = (pictures, 3, size[0], size[1] // 2 + 1)
    return 7 * torch.rand(shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("size", SIZES)
def test_pictures_of_phases_have_the_magnitudes_and_the_mean_that_they_were_given(size):
    """Columns that mirror themselves too: there the phases of a picture are opposite in pairs."""
    magnitudes, mean = spectrum([0.02 + 0.96 * picture(*size, seed).double() for seed in (1, 2)])
    waves = flat(phases(magnitudes, mean, size[1]).image(turns(size)))
    torch.testing.assert_close(waves.mean((2, 3)), mean.expand(2, 3))
    found = torch.fft.rfft2(waves - mean.view(3, 1, 1), norm="ortho")
    torch.testing.assert_close(found.abs(), magnitudes.expand_as(found))
    assert not torch.allclose(waves[0], waves[1])


def test_the_gradient_through_phases_is_right():
    magnitudes, mean = spectrum([0.02 + 0.96 * picture(5, 4).double()])
    assert torch.autograd.gradcheck(phases(magnitudes, mean, 4).image, turns((5, 4)).requires_grad_())


def test_a_spectrum_has_the_power_of_its_pictures():
    """Of white noise it is flat and the mean square of the magnitudes is the variance, in spite of the window."""
    noise = torch.randn(400, 3, 16, 16, generator=torch.Generator().manual_seed(2)).double()
    pictures = torch.einsum("rc,bchw->brhw", AXES, 0.3 * noise + 0.1).sigmoid()
    magnitudes, mean = spectrum(pictures[:, None])
    torch.testing.assert_close(mean, torch.full((3,), 0.1).double(), atol=0.01, rtol=0)
    inner = magnitudes[:, 2:-1, 2:-1]  # a magnitude is Rayleigh: its mean is sqrt(pi) / 2 of its root mean square
    torch.testing.assert_close(inner.mean(), torch.tensor(0.3 * np.pi**0.5 / 2).double(), rtol=0.02, atol=0)
    assert inner.std() / inner.mean() < 0.06 and (magnitudes[:, 0, 0] == 0).all()


def test_the_step_between_opposite_edges_does_not_count():
    """A ramp to the right jumps back at the edge; without a window the jump is a line through all frequencies."""
    ramp = torch.linspace(0.2, 0.8, 32).double().expand(1, 3, 32, 32)
    magnitudes, _ = spectrum([ramp])
    plain = torch.fft.rfft2(flat(ramp), norm="ortho").abs()[0]
    assert (magnitudes[0, 0, 8:] < 0.02 * plain[0, 0, 8:]).all()


def test_the_axes_of_colour_are_those_of_the_bundled_pictures():
    found = color_axes(read_picture(picture_path(name)).image for name in CALIBRATION)
    torch.testing.assert_close(AXES, found, atol=6e-5, rtol=0)


def test_axes_of_colour_make_the_covariance_of_the_colours():
    images = [picture(20, 30), picture(12, 12, 1)]
    A = color_axes(images)
    covariance = sum(np.cov(image[0].flatten(1).numpy()) for image in images) / 2
    torch.testing.assert_close(A @ A.T, torch.from_numpy(3 * covariance / np.trace(covariance)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(A.T @ A, torch.diag((A.T @ A).diag()), atol=1e-9, rtol=0)


@pytest.mark.parametrize("optimizer", [Optimizer("adam", lr=0.05), Optimizer("lbfgs")])
def test_waves_can_become_a_photograph(optimizer):
    photo = resize(read_picture(picture_path("cat")).image, (31, 44))
    cost = lambda image: {"total": (image - photo).square().sum()}  # noqa: E731
    start = begin(fourier_noise(photo.shape, 0.1, seed=4), cost, canvas=fourier(31, 44, limit=10.0))
    last = list(descend(cost, start, 200, 200, optimizer))[-1]
    assert (last.image - photo).square().mean() < 1e-3 and last.scale == 44
    assert start.costs["total"] > 100 * last.costs["total"] > 0
