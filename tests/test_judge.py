"""LPIPS and style distance: identities on a tiny scale, order on real pictures."""

import pytest
import torch

from bench.judge import judge_net, lpips, style_distance
from impasto.images.images import read_picture, resize, scaled_size
from impasto.pictures import picture_path
from impasto.weights import load_weights

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def judge():
    return judge_net(), load_weights("lpips").tensors


def real(name: str) -> torch.Tensor:
    image = read_picture(picture_path(name)).image
    return resize(image, scaled_size(image, 160))


def test_a_picture_is_no_distance_from_itself(judge):
    cat = real("cat")
    assert lpips(cat, cat, *judge) == 0 and style_distance(cat, cat, judge[0]) == pytest.approx(0, abs=1e-5)


def test_lpips_is_symmetric_and_grows_with_the_noise(judge):
    cat = real("cat")
    noise = torch.randn(cat.shape, generator=torch.Generator().manual_seed(0))
    noisy = [(cat + amount * noise).clamp(0, 1) for amount in (0.02, 0.1, 0.3)]
    distances = [lpips(cat, x, *judge) for x in noisy]
    assert distances == sorted(distances) and distances[0] > 0 and distances[2] < 2
    assert lpips(noisy[1], cat, *judge) == pytest.approx(distances[1], rel=1e-5)


def test_lpips_is_its_formula(judge):
    """Unit-length channels, squared differences, one weight a channel, mean over places, sum over layers: in float64, by loops."""
    from bench.judge import LAYERS
    from impasto.nets.nets import features

    net, heads = judge
    one, two = real("cat")[..., :64, :64], real("astronaut")[..., :64, :64]
    total = 0.0
    for layer in LAYERS:
        a, b = (features(net, x, [layer])[layer][0].double() for x in (one, two))
        for y in range(a.shape[1]):
            for x in range(a.shape[2]):
                difference = a[:, y, x] / (a[:, y, x].norm() + 1e-10) - b[:, y, x] / (b[:, y, x].norm() + 1e-10)
                total += (heads[f"{layer}.head"].flatten().double() @ difference.square()).item() / (a.shape[1] * a.shape[2])
    assert lpips(one, two, *judge) == pytest.approx(total, rel=1e-5)


def test_style_distance_forgets_places_and_knows_textures(judge):
    wave, moulin = real("hokusai-great-wave"), real("renoir-moulin")
    assert style_distance(wave.flip(3), wave, judge[0]) < 0.5 * style_distance(moulin, wave, judge[0])
    assert lpips(wave.flip(3), wave, *judge) > 0.2
