"""The start, the bounds and the softening operator."""

import numpy as np
import pytest
import torch

from impasto.canvas import movable, project, soften, white_noise


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
