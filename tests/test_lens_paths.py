"""Paths through the net: correlations against another implementation, and pictures whose path is known."""

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from impasto.errors import BadInput
from impasto.images.images import read_picture
from impasto.lens.index import make_setup, read_index
from impasto.lens.patches import top
from impasto.lens.paths import in_words, paths, rank_correlations
from impasto.lens.scan import scan
from impasto.lens.view import apply_view
from tests.test_lens_sheet import NET, scanned_colors


@pytest.fixture
def atlas(tmp_path) -> Path:
    return scanned_colors(tmp_path, 20)


def test_correlations_are_scipys_also_with_ties():
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 4, (3, 20)).astype(float), rng.random((4, 20))
    found = rank_correlations(one, two)
    expected = [[scipy.stats.spearmanr(a, b)[0] for b in two] for a in one]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (rank_correlations(np.ones((1, 5)), two[:, :5]) == 0).all()


def test_a_unit_s_own_patches_as_dreams_take_its_path(atlas):
    """Of nine patches, each is like itself by 1 and like the eight others by `own`."""
    patches = [it for it in top(atlas, "conv2_1", 2) if it.value > 0]
    crops = []
    for it in patches:
        x0, y0, x1, y1 = it.field
        crops.append(apply_view(read_picture(it.row.source.path).image, it.view)[..., y0:y1, x0:x1])
    found = paths(atlas, read_index(atlas), NET, "conv2_1", 2, torch.cat(crops))
    assert [*found] == ["conv1_1", "conv1_2", "conv2_1"]
    for it in found.values():
        assert it.dream == pytest.approx((8 * it.own + 1) / 9, abs=1e-6)
    assert len(in_words(found)) == 3


def test_patches_are_more_like_one_another_than_like_others(atlas):
    noise = torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(5))
    found = paths(atlas, read_index(atlas), NET, "conv2_1", 2, noise)["conv2_1"]
    assert found.own > found.random and found.own > found.dream


def test_a_scan_of_one_picture_has_no_path(atlas, tmp_path):
    for _ in scan([tmp_path / "set" / "01.png"], NET, make_setup(NET, size=32), tmp_path / "one"):
        pass
    with pytest.raises(BadInput, match="fewer than two patches"):
        paths(tmp_path / "one", read_index(tmp_path / "one"), NET, "conv2_1", 2, torch.rand(1, 3, 10, 10))
