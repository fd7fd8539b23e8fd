"""The whole of it with the real VGG-19 on the bundled pictures, small: what a painter and a paper would ask of it."""

import pytest
import torch
from PIL import Image

from bench.judge import judge_net, lpips, style_distance
from impasto.images.images import read_picture, resize, scaled_size
from impasto.nets.nets import features
from impasto.pictures import CALIBRATION, picture_path
from impasto.recipe.recipe import make_recipe
from impasto.transfer.transfer import CALIBRATION_SIZE, finished, first_image, make_net, paint, stylize
from impasto.weights import load_weights

pytestmark = pytest.mark.weights


def bundled(name: str) -> torch.Tensor:
    return read_picture(picture_path(name)).image


def painted(style: str, size: int) -> torch.Tensor:
    """The cat by the default preset, from 96 px up, in few steps."""
    recipe = make_recipe(size=size, coarsest=96, steps=20, fine_steps=10)
    steps = list(stylize(bundled("cat"), [bundled(style)], recipe, make_net(recipe)))
    return finished(steps[-1].image, bundled("cat"), recipe)


@pytest.fixture(scope="module")
def wave() -> torch.Tensor:
    return painted("hokusai-great-wave", 96)


@torch.no_grad()
def test_a_painting_moves_to_the_style_and_keeps_the_content(wave):
    """Judged by AlexNet, which was not asked while painting."""
    judge, heads = judge_net(), load_weights("lpips").tensors
    pictures = {name: resize(bundled(name), (64, 96)) for name in CALIBRATION}
    style = pictures.pop("hokusai-great-wave")
    assert style_distance(wave, style, judge) < 0.6 * style_distance(pictures["cat"], style, judge)
    distances = {name: lpips(wave, other, judge, heads) for name, other in pictures.items()}
    assert min(distances, key=distances.__getitem__) == "cat"
    assert wave.min() >= 0 and wave.max() <= 1


def test_a_recipe_means_the_same_at_every_size(wave):
    """The painting of twice the size, scaled down, is nearer to this one than a painting by another hand."""
    judge, heads = judge_net(), load_weights("lpips").tensors
    size = (wave.shape[-2], wave.shape[-1])
    same = lpips(resize(painted("hokusai-great-wave", 192), size), wave, judge, heads)
    other = lpips(painted("renoir-moulin", 96), wave, judge, heads)
    assert same < 0.75 * other


@torch.no_grad()
def test_the_2015_net_has_mean_activation_one():
    net = make_net(make_recipe("gatys2015"))
    images = [resize(bundled(n), scaled_size(bundled(n), CALIBRATION_SIZE)) for n in CALIBRATION]
    layers = ["conv1_1", "conv3_1", "conv4_2", "conv5_1"]
    maps = [features(net, image, layers) for image in images]
    for layer in layers:
        mean = torch.cat([a[layer].flatten(2) for a in maps], 2).mean((0, 2))
        active = mean > 0
        assert active.float().mean() > 0.95
        torch.testing.assert_close(mean[active], torch.ones_like(mean[active]), rtol=2e-3, atol=2e-3)


def test_textbook_descent_converges_at_its_step_and_not_at_one():
    def costs(**knobs) -> list[float]:
        recipe = make_recipe("textbook", steps=6, **knobs)
        return [s.costs["total"] for s in stylize(bundled("cat"), [bundled("hokusai-great-wave")], recipe, make_net(recipe))]

    converging, diverging = costs(), costs(lr=1.0)
    assert converging == sorted(converging, reverse=True)
    assert diverging[-1] > 10 * converging[0]


def test_the_one_liner_paints_pillow_images_and_paths():
    cat = Image.open(picture_path("cat")).convert("RGBA")
    cat.putalpha(128)
    out = paint(cat, [picture_path("renoir-moulin")], net="alexnet", size=80, coarsest=80, steps=3)
    assert out.size == (80, 53) and out.mode == "RGBA" and set(out.getchannel("A").tobytes()) == {128}


def test_the_deeper_the_layer_the_less_of_the_pixels_comes_back():
    """And in both cases more than the noise knew."""
    cat, lost = resize(bundled("cat"), (32, 48)), {}
    for layer in ("conv1_1", "conv5_1"):
        recipe = make_recipe("inversion", size=48, content_layers=layer, steps=30)
        *_, last = stylize(cat, [], recipe, make_net(recipe))
        lost[layer] = float((last.image - cat).square().mean())
    assert lost["conv1_1"] < 0.2 * lost["conv5_1"]
    assert lost["conv5_1"] < float((first_image(cat, recipe) - cat).square().mean())
    assert lost["conv1_1"] < 0.002


def seams(image: torch.Tensor) -> list[tuple[float, float]]:
    """Along each axis the mean step across the seam, and the largest mean step between neighbours inside the picture."""
    found = []
    for dim, other in ((2, 3), (3, 2)):
        steps = (image - image.roll(1, dim)).abs().mean((1, other))[0]
        found.append((float(steps[0]), float(steps[1:].max())))
    return found


@pytest.mark.parametrize("knobs", [{}, {"preset": "texture"}], ids=["painting", "texture"])
def test_a_seamless_picture_has_no_step_at_its_seam_and_another_has(knobs):
    def painted(seamless: str) -> torch.Tensor:
        recipe = make_recipe(**knobs, seamless=seamless, size=64, coarsest=64, steps=12)
        *_, last = stylize(bundled("astronaut"), [bundled("van-gogh-auvers")], recipe, make_net(recipe))
        return finished(last.image, bundled("astronaut"), recipe)

    assert all(across < inside for across, inside in seams(painted("both")))
    (_, rows), (_, columns) = zip(seams(painted("none")), seams(painted("x")), strict=True)
    assert rows[0] > rows[1] and columns[0] < columns[1]
