"""Detail by analogy: against the painting itself, and against a search by hand in float64."""

import pytest
import torch

from impasto.images.images import resize
from impasto.transfer import analogy
from impasto.transfer.analogy import BLOCK, PATCH, borrowed_band, finest_band


def noise(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed))


def test_finest_band_is_what_the_coarse_picture_cannot_hold():
    fine = noise(32, 48)
    coarse = resize(fine, (16, 24))
    torch.testing.assert_close(resize(coarse, (32, 48)) + finest_band(fine, (16, 24)), fine)


@pytest.mark.parametrize(("fine", "coarse"), [((32, 48), (16, 24)), ((33, 47), (17, 24)), ((45, 64), (32, 45))])
def test_a_picture_that_is_the_painting_gets_the_paintings_detail_back(fine, coarse):
    painting = noise(*fine)
    band = borrowed_band(resize(painting, coarse), fine, [(painting, coarse)])
    torch.testing.assert_close(band, finest_band(painting, coarse))


def test_each_block_comes_from_the_painting_it_looks_like():
    left, right = noise(32, 64), noise(32, 64, seed=1)
    both = torch.cat([left[..., :32], right[..., 32:]], 3)
    band = borrowed_band(resize(both, (16, 32)), (32, 64), [(left, (16, 32)), (right, (16, 32))])
    seam = 2 * PATCH + BLOCK
    torch.testing.assert_close(band[..., : 32 - seam], finest_band(left, (16, 32))[..., : 32 - seam])
    torch.testing.assert_close(band[..., 32 + seam :], finest_band(right, (16, 32))[..., 32 + seam :])


@pytest.mark.parametrize("most", [2**16, 40])
def test_every_block_is_copied_from_the_nearest_patch(most, monkeypatch):
    """By hand, in float64; with few places allowed only those on a lattice count."""
    monkeypatch.setattr(analogy, "MOST", most)
    x, painting, coarse = noise(10, 14, seed=2), noise(24, 16, seed=3), (12, 8)
    every = 1 if most > 100 else 2
    small, source = resize(painting, coarse).double(), finest_band(painting, coarse)
    band = borrowed_band(x, (20, 28), [(painting, coarse)])
    for top in range(0, 20, BLOCK):
        for side in range(0, 28, BLOCK):
            here = patch(x.double(), (top + BLOCK // 2) // 2, (side + BLOCK // 2) // 2)
            places = [(y, x) for y in range(0, 12, every) for x in range(0, 8, every)]
            y, x_ = min(places, key=lambda at: float((patch(small, *at) - here).square().sum()))
            rows = [min(max(2 * y + i - BLOCK // 2, 0), 23) for i in range(BLOCK)]
            columns = [min(max(2 * x_ + i - BLOCK // 2, 0), 15) for i in range(BLOCK)]
            torch.testing.assert_close(band[..., top : top + BLOCK, side : side + BLOCK], source[..., rows, :][..., columns])


def patch(x: torch.Tensor, row: int, column: int) -> torch.Tensor:
    around = range(-(PATCH // 2), PATCH // 2 + 1)
    rows = [min(max(row + i, 0), x.shape[-2] - 1) for i in around]
    columns = [min(max(column + i, 0), x.shape[-1] - 1) for i in around]
    return x[..., rows, :][..., columns]
