"""The start, the bounds and the softening operator."""

import numpy as np
import pytest
import torch

from impasto.canvas import movable, project, soften, start
from tests.conftest import picture


def test_noise_is_white_and_seeded():
    content = picture(64, 64)
    noise = start(content, "noise", 0, seed=3)
    torch.testing.assert_close(noise, start(content, "noise", 0, seed=3), rtol=0, atol=0)
    assert not torch.equal(noise, start(content, "noise", 0, seed=4))
    assert 0 <= noise.min() < 0.01 and 0.99 < noise.max() <= 1 and abs(noise.mean() - 0.5) < 0.02


def test_a_share_of_noise_is_mixed_in():
    content = picture(8, 8)
    mixed = start(content, "content", 0.6, seed=3)
    torch.testing.assert_close(mixed, 0.4 * content + 0.6 * start(content, "noise", 0, seed=3))
    torch.testing.assert_close(start(content, "content", 0, seed=3), content)
    given = picture(8, 8, 5)
    torch.testing.assert_close(start(content, "picture", 0, seed=3, picture=given), given)


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
