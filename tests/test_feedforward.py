"""Pictures in one pass: the net against an independent one, bands, parts and mixtures; styles learned and read back."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from impasto.errors import BadInput, BadRecipe, BadWeights, NoRoom
from impasto.feedforward import learn as learning
from impasto.feedforward import net as layers
from impasto.feedforward.apply import InstantPainter
from impasto.feedforward.learn import LATTICE, lattice_cost, learn_style, random_square, style_cost_of
from impasto.feedforward.net import NUMBERS, STARTS, STYLED, Style, Transformer, first_weights, plain_numbers
from impasto.feedforward.styles import (
    PLAIN,
    TrainedNet,
    bundled,
    hash_of,
    learned_path,
    mixture,
    numbers_of,
    read_learned,
    read_net,
    save_learned,
    statistics_of,
)
from impasto.images.images import quantize, read_picture, resize
from impasto.images.pixels import smooth_color
from impasto.objective.masks import NO_MASKS, Masks
from impasto.pictures import picture_path
from impasto.recipe.recipe import changed_recipe, make_recipe
from impasto.transfer import painting, transfer
from impasto.transfer.painting import Painting
from tests.conftest import damaged, picture, tiny_net

WEIGHTS = first_weights(7)


def numbers(seed: int, spread: float = 0.3) -> torch.Tensor:
    return plain_numbers() + spread * torch.randn(2, NUMBERS, generator=torch.Generator().manual_seed(seed))


def whole(its: torch.Tensor) -> Style:
    return Style(((None, its),))


TRAINED = TrainedNet(
    WEIGHTS,
    "a digest",
    {PLAIN: numbers(0), "print": numbers(1), "oil": numbers(2)},
    {name: statistics_of(picture(64, 64, seed), WEIGHTS, numbers(0)) for seed, name in enumerate((PLAIN, "print", "oil"))},
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Learned styles lie in a folder of the test's."""
    monkeypatch.setenv("IMPASTO_STYLES", str(tmp_path / "styles"))


# The net


class Independent(nn.Module):
    """The net as torch's own layers write it."""

    def __init__(self, weights, its):
        super().__init__()
        self.weights, self.its = weights, its

    def conv(self, name, x, stride=1):
        weight = self.weights[name]
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], stride, bias=False)
        conv.weight = nn.Parameter(weight)
        return nn.Sequential(nn.ReflectionPad2d(weight.shape[2] // 2), conv)(x)

    def doubled(self, name, x):
        """The map continues beyond its edge with the values there."""
        larger = nn.Sequential(nn.ReplicationPad2d(1), nn.Upsample(scale_factor=2, mode="bilinear"))
        weight = self.weights[name]
        return nn.functional.conv2d(larger(x)[..., 1:-1, 1:-1], weight)

    def norm(self, name, x):
        norm = nn.InstanceNorm2d(STYLED[name], affine=True)
        start = STARTS[name]
        norm.weight, norm.bias = (nn.Parameter(it[start : start + STYLED[name]]) for it in self.its)
        return norm(x)

    def residual(self, name, x):
        inner = nn.functional.relu(self.norm(f"{name}a", self.conv(f"{name}a", x)))
        return x + self.norm(f"{name}b", self.conv(f"{name}b", inner))

    def forward(self, x):
        relu = nn.functional.relu
        half = self.conv("down1", 2 * x - 1, 2)
        quarter = self.conv("down2", relu(self.norm("down1", half)), 2)
        x = relu(self.norm("down3", self.conv("down3", relu(self.norm("down2", quarter)), 2)))
        for n in range(4):
            x = self.residual(f"body{n}", x)
        x = relu(self.norm("up1", self.doubled("up1", x)) + self.norm("again2", quarter))
        for n in range(2):
            x = self.residual(f"middle{n}", x)
        x = relu(self.norm("up2", self.doubled("up2", x)) + self.norm("again1", half))
        gamma, beta = self.its[:, STARTS["up3"] :][:, :24, None, None]
        x = self.conv("out", relu(gamma * self.doubled("up3", x) + beta))
        return smooth_color(torch.sigmoid(x + self.weights["out.bias"][:, None, None]))


def test_the_net_is_the_one_that_torchs_layers_make():
    image, its = picture(40, 56), numbers(1)
    with torch.no_grad():
        torch.testing.assert_close(Transformer(WEIGHTS).paint(image, whole(its)), Independent(WEIGHTS, its)(image))


def test_any_size_is_painted_and_the_values_are_colors():
    for height, width in ((16, 16), (33, 47), (64, 17)):
        painted = Transformer(WEIGHTS).paint(picture(height, width), whole(numbers(1)))
        assert painted.shape == (1, 3, height, width) and painted.min() >= 0 and painted.max() <= 1


@pytest.mark.parametrize("rows", [8, 11, 20])
def test_a_picture_in_bands_is_the_whole_one(monkeypatch, rows):
    image, style = picture(93, 75), whole(numbers(1))
    masks = torch.rand(1, 1, 96, 80, generator=torch.Generator().manual_seed(1))
    parts = Style(((masks, numbers(1)), (1 - masks, numbers(2))))
    expected = [Transformer(WEIGHTS).paint(image, it) for it in (style, parts)]
    monkeypatch.setattr(layers, "BAND", rows * layers.FULL * 80)
    for found, it in zip((Transformer(WEIGHTS).paint(image, it) for it in (style, parts)), expected, strict=True):
        torch.testing.assert_close(found, it, atol=1e-5, rtol=0)


def test_parts_with_the_same_numbers_are_the_whole():
    image, its = picture(40, 48), numbers(1)
    mask = torch.rand(1, 1, 40, 48, generator=torch.Generator().manual_seed(1))
    found = Transformer(WEIGHTS).paint(image, Style(((mask, its), (1 - mask, its))))
    torch.testing.assert_close(found, Transformer(WEIGHTS).paint(image, whole(its)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("wraps", [(True, False), (False, True), (True, True)])
def test_a_periodic_picture_moves_with_the_photograph(wraps):
    image, style, painter = picture(48, 64), whole(numbers(1)), Transformer(WEIGHTS, wraps)
    shift = tuple(16 * wrap for wrap in wraps)
    moved = painter.paint(image.roll(shift, (-2, -1)), style)
    torch.testing.assert_close(moved, painter.paint(image, style).roll(shift, (-2, -1)), atol=1e-5, rtol=0)


def test_statistics_of_the_frame_before_steady_the_next():
    """The same frame again is the same; a darker one is painted less as it would be alone, the more of the statistics stays."""
    image, style = picture(40, 48), whole(numbers(1))
    alone = [Transformer(WEIGHTS).paint(it, style) for it in (image, 0.5 * image)]
    painter = Transformer(WEIGHTS, inertia=0.8)
    first, again, darker = (painter.paint(it, style) for it in (image, image, 0.5 * image))
    torch.testing.assert_close(first, alone[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(again, first, atol=1e-5, rtol=0)
    little = Transformer(WEIGHTS, inertia=0.2)
    little.paint(image, style)
    assert (darker - alone[1]).abs().mean() > 1.5 * (little.paint(0.5 * image, style) - alone[1]).abs().mean() > 0


# Styles of a recipe


def painted(recipe, styles, masks=NO_MASKS, image=None):
    return InstantPainter(styles, recipe, TRAINED).paint(picture(40, 48) if image is None else image, masks)


def test_strength_goes_from_the_photograph_to_the_style():
    image, style = picture(40, 48), picture(64, 64, 1)
    full = make_recipe().beta
    its = {share: make_recipe(quality="instant", beta=share * full) for share in (0, 0.5, 1, 3)}
    found = {share: InstantPainter([style], recipe, TRAINED).parts(image, NO_MASKS)[0].numbers for share, recipe in its.items()}
    known = numbers_of(style, TRAINED).numbers
    torch.testing.assert_close(found[0], TRAINED.numbers[PLAIN])
    torch.testing.assert_close(found[1], known)
    torch.testing.assert_close(found[3], known)
    torch.testing.assert_close(found[0.5], (TRAINED.numbers[PLAIN] + known) / 2)
    pictures = {share: painted(recipe, [style]) for share, recipe in its.items()}
    assert torch.equal(pictures[0], image) and torch.equal(pictures[1], pictures[3])
    torch.testing.assert_close(pictures[0.5], Transformer(WEIGHTS).paint(image, whole(found[0.5])))


def test_a_style_mixed_with_itself_is_itself_and_two_mix_by_their_weights():
    one, other = picture(64, 64, 1), picture(64, 64, 2)
    alone = painted(make_recipe(quality="instant"), [one])
    torch.testing.assert_close(painted(make_recipe(quality="instant", style_weights=(2, 1)), [one, one]), alone)
    recipe = make_recipe(quality="instant", style_weights=(3, 1))
    its = InstantPainter([one, other], recipe, TRAINED).parts(picture(40, 48), NO_MASKS)[0].numbers
    torch.testing.assert_close(its, 0.75 * numbers_of(one, TRAINED).numbers + 0.25 * numbers_of(other, TRAINED).numbers)


def test_a_region_without_style_is_the_photograph():
    recipe = make_recipe(quality="instant", regions={"left": {"mask": "dark", "style_weight": 0}})
    mask = torch.zeros(1, 1, 40, 48)
    mask[..., :20] = 1
    found = painted(recipe, [picture(64, 64, 1)], Masks({"left": mask}, {}, {}))
    assert torch.equal(found[..., :20], picture(40, 48)[..., :20]) and not torch.equal(found[..., 20:], picture(40, 48)[..., 20:])


def test_calm_leaves_an_even_photograph_as_it_is():
    even = torch.full((1, 3, 40, 48), 0.5)
    assert torch.equal(painted(make_recipe(quality="instant", calm=1), [picture(64, 64, 1)], image=even), even)


@pytest.mark.parametrize(
    "knobs",
    [
        {"preset": "gatys"},
        {"style_layers": "conv1_1..conv3_1"},
        {"style_scale": 2.0},
        {"tv": 1.0},
        {"net": "vgg16"},
        {"steps": 7},
        {"color": "cholesky", "color_when": "before"},
        {"init": "noise"},
    ],
    ids=str,
)
def test_what_an_instant_picture_does_not_follow_is_said(knobs):
    with pytest.raises(BadRecipe, match="quality instant"):
        next(transfer.stylize(picture(40, 48), [picture(40, 40)], make_recipe(**knobs, quality="instant"), None))


def test_another_quality_takes_back_what_instant_implied():
    recipe = make_recipe(quality="instant", seed=3)
    assert changed_recipe(recipe, {"quality": "draft"}) == make_recipe(quality="draft", seed=3)
    assert changed_recipe(make_recipe(seed=3), {"quality": "instant"}) == recipe


def test_a_mixture_of_what_is_known():
    known = {name: torch.randn(30, generator=torch.Generator().manual_seed(n)) for n, name in enumerate("abcd")}
    assert mixture(known["b"], known) == pytest.approx({"b": 1}, abs=0.01)
    assert mixture(0.3 * known["a"] + 0.7 * known["d"], known) == pytest.approx({"a": 0.3, "d": 0.7}, abs=0.01)
    far = mixture(-known["a"], known)
    assert sum(far.values()) == pytest.approx(1, abs=0.04) and min(far.values()) > 0


# Learning


@pytest.fixture
def tiny_costs(monkeypatch):
    """Costs of the tiny net, and small squares."""
    recipe = make_recipe(
        size=48, coarsest=16384, content_layers={"conv3_1": 1.0}, style_layers={"conv1_1": 100.0, "conv2_1": 100.0}
    )
    monkeypatch.setattr(learning, "learning_recipe", lambda side: recipe.model_copy(update={"size": side}))
    monkeypatch.setattr(learning, "SQUARE", 48)


@pytest.mark.usefixtures("tiny_costs")
def test_learning_lowers_the_cost_on_photographs_that_were_not_learned_from():
    style, net = picture(64, 64, 5), tiny_net()
    photographs, others = [picture(64, 80, seed) for seed in (10, 11)], [picture(48, 48, seed) for seed in (20, 21, 22)]
    lessons = list(learn_style(style, photographs, net, TRAINED, steps=25))
    cost = style_cost_of(style, net)

    def mean(its):
        return sum(float(cost(Transformer(WEIGHTS).paint(it, whole(its)), it)["total"]) for it in others)

    assert mean(lessons[-1].numbers) < 0.7 * mean(numbers_of(style, TRAINED).numbers)
    assert [it.i for it in lessons] == [*range(1, 26)] and all(it.of == 25 for it in lessons)


@pytest.mark.usefixtures("tiny_costs")
def test_one_seed_learns_one_style():
    first, same, other = (
        [*learn_style(picture(64, 64, 5), [picture(64, 80)], tiny_net(), TRAINED, 3, seed)][-1].numbers for seed in (1, 1, 2)
    )
    assert torch.equal(first, same) and not torch.equal(first, other)


@pytest.mark.usefixtures("tiny_costs")
def test_a_photograph_of_one_color_spoils_nothing():
    lessons = list(learn_style(picture(64, 64, 5), [torch.full((1, 3, 64, 80), 0.5)], tiny_net(), TRAINED, 3))
    assert bool(torch.isfinite(lessons[-1].numbers).all())


def test_learning_needs_photographs():
    with pytest.raises(BadInput, match="photograph"):
        next(learn_style(picture(64, 64), [], tiny_net(), TRAINED))


def lines_by_numpy(image: torch.Tensor) -> float:
    """lattice_cost of (3, H, W), a row, a frequency and a neighbour at a time."""
    found = []
    for rows in (image.numpy(), image.mT.numpy()):
        side = rows.shape[-1]
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(side) / side)

        def power(channel, n, side=side, window=window):
            wave = np.exp(-2j * np.pi * n * np.arange(side) / side)
            return np.mean([abs(np.sum((row - row.mean()) * window * wave)) ** 2 for row in channel])

        for channel in rows:
            for n in range(side // 8, side // 2 + 1, side // 8):
                beside = np.mean([power(channel, n + sign * far) for far in (3, 4, 5, 6, 7) for sign in (-1, 1)])
                found.append(max(0.0, np.log(power(channel, n) / beside)))
    return float(np.mean(found))


def test_the_lattice_cost_is_that_of_a_plain_reading_of_it():
    image = picture(64, 96, 3).double()
    assert float(lattice_cost(image)) == pytest.approx(lines_by_numpy(image[0]), rel=1e-6)


@pytest.mark.parametrize(("period", "lines"), [(2, 1), (4, 2), (8, 4)])
def test_a_lattice_costs_and_noise_does_not(period, lines):
    """Bright lines over noise at `lines` of the four frequencies, across alone: the mean has that share of their logarithm."""
    noise = 0.5 + 1e-2 * torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)).double()
    assert float(lattice_cost(noise)) < 0.05
    woven = noise.clone()
    woven[..., ::period] += 10
    cost = float(lattice_cost(woven))
    assert cost == pytest.approx(lines / 4 / 2 * np.log(power_of(period) / 1e-4), rel=0.1)


def power_of(period: int) -> float:
    """Power at a line over a row's mean square of white noise with variance 1, for pulses of 10 every so many of 256 pixels.

    The transform is there 10 / period times the window's sum, side / 2; white noise has its variance times the window's energy,
    3/8 of the side.
    """
    return (10 / period * 128) ** 2 / (3 / 8 * 256)


def test_the_lattice_cost_has_the_gradient_of_its_values():
    image = picture(64, 64, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lattice_cost, image, fast_mode=True)


@pytest.mark.usefixtures("tiny_costs")
def test_the_cost_of_a_style_counts_the_lattice():
    painting, recipe = picture(48, 48, 6), learning.learning_recipe(48)
    found = style_cost_of(picture(64, 64, 5), tiny_net())(painting, picture(48, 48, 7))
    costs = {name: float(value) for name, value in found.items()}
    expected = recipe.alpha_at(48) * costs["content"] + recipe.beta * costs["style"] + LATTICE * float(lattice_cost(painting))
    assert costs["total"] == pytest.approx(expected, rel=1e-5) and costs["lattice"] > 0


def test_squares_lie_in_the_photograph():
    """Of a ramp from left to right, a square is a ramp too, or its mirror image."""
    ramp = torch.linspace(0, 1, 90).expand(1, 3, 70, 90)
    for seed in range(20):
        square = random_square(ramp, 24, random.Random(seed))
        steps = square[0, 0, 12, 1:] - square[0, 0, 12, :-1]
        assert square.shape == (1, 3, 24, 24) and (bool((steps > 0).all()) or bool((steps < 0).all()))


# Files


def test_a_learned_style_is_found_by_the_pixels_of_its_picture():
    style, its = picture(50, 60), numbers(9)
    assert read_learned(learned_path(style), TRAINED) is None and numbers_of(style, TRAINED).shares
    path = save_learned(style, its, TRAINED)
    found = numbers_of(quantize(style), TRAINED)
    assert path.is_file() and not found.shares and not found.guess and torch.equal(found.numbers, its)
    assert hash_of(style) != hash_of(style.flip(-1)) and hash_of(style) != hash_of(style.transpose(-1, -2))
    assert numbers_of(style.flip(-1), TRAINED).shares


def test_a_style_learned_for_another_net_is_not_used():
    style = picture(50, 60)
    save_learned(style, numbers(9), TRAINED)
    other = TrainedNet(WEIGHTS, "another digest", TRAINED.numbers, TRAINED.statistics)
    assert numbers_of(style, other).shares


@pytest.mark.parametrize(
    "its", [torch.ones(2, 5), torch.ones(3, NUMBERS), torch.full((2, NUMBERS), torch.nan), torch.full((2, NUMBERS), 1e9)]
)
def test_numbers_that_no_style_has_are_an_error(its):
    style = picture(50, 60)
    path = save_learned(style, its, TRAINED)
    with pytest.raises(BadInput, match="style"):
        read_learned(path, TRAINED)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_an_error_or_a_style(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("learned") / "style.safetensors"
    path.write_bytes(damaged(data, save({TRAINED.digest: numbers(1)})))
    try:
        found = read_learned(path, TRAINED)
    except BadInput as error:
        assert "\n" not in str(error)
    else:
        assert found is None or (found.shape == (2, NUMBERS) and bool(torch.isfinite(found).all()))


def test_a_file_that_is_too_large_is_an_error(tmp_path):
    path = tmp_path / "style.safetensors"
    path.write_bytes(b" " * 2_000_000)
    with pytest.raises(BadInput, match="learn again"):
        read_learned(path, TRAINED)


def test_the_file_of_a_net_is_checked(tmp_path):
    path = tmp_path / "net.safetensors"
    for data in (b"", b"nonsense", save({"weights/down1": torch.ones(3)})):
        path.write_bytes(data)
        with pytest.raises(BadWeights, match="net"):
            read_net(path)


def test_the_bundled_net_is_small_and_knows_a_dozen_styles():
    assert bundled().digest and len(bundled().numbers) > 12 and PLAIN in bundled().numbers
    assert set(bundled().statistics) == set(bundled().numbers) - {PLAIN}
    for name in ("hokusai-great-wave", "van-gogh-auvers", "mosaic"):
        known = numbers_of(read_picture(picture_path(name)).image, bundled())
        assert max(known.shares, key=known.shares.__getitem__) == name and known.guess == ""


# Paintings


@pytest.fixture
def no_costs(monkeypatch):
    """Whoever loads the weights of a net of costs fails."""

    def fail(*_):
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr(painting, "load_weights", fail)
    monkeypatch.setattr(transfer, "load_weights", fail)


@pytest.mark.usefixtures("no_costs")
def test_an_instant_painting_needs_no_other_net_and_is_the_library_s(files):
    content, style, output = files
    made = Painting(content, [style], output, make_recipe(quality="instant", size=64))
    (step,) = made.steps()
    assert step.costs == {} and made.is_finished() and list(made.steps(resume=True)) == []
    image = read_picture(output).image
    assert torch.equal(image, quantize(read_picture(transfer.instant(content, style, size=64)).image))
    scaled = resize(read_picture(content).image, (48, 64))
    expected = InstantPainter([read_picture(style).image], make_recipe()).paint(scaled)
    torch.testing.assert_close(image, expected, atol=1 / 255, rtol=0)


def test_a_painting_is_made_again_after_its_style_was_learned(files):
    content, style, output = files
    recipe = make_recipe(quality="instant", size=64)
    guessed = Painting(content, [style], output, recipe)
    (note,) = guessed.style_notes()
    assert f"impasto learn {style}" in note and "%" in note
    list(guessed.steps())
    before = output.read_bytes()
    save_learned(read_picture(style).image, numbers(9), bundled())
    again = Painting(content, [style], output, recipe)
    assert not again.is_finished() and [*again.style_notes()] == []
    list(again.steps(resume=True))
    assert again.is_finished() and output.read_bytes() != before


def test_a_picture_that_does_not_fit_into_memory_is_an_error(files):
    content, style, output = files
    with pytest.raises(NoRoom, match="MB of memory"):
        Painting(content, [style], output, make_recipe(quality="instant", size=8192), max_memory=1e9)


def check_quiet(result):
    assert result.returncode == 0 and not result.stderr and len(result.stdout.splitlines()) == 1


@pytest.mark.weights
def test_the_command_learns_a_style_and_paints_in_it(impasto, files, tmp_path):
    content, style, output = files
    check_quiet(impasto("learn", style, content, "--steps", 2, "--preview", tmp_path / "preview.png", "--quiet"))
    assert read_picture(tmp_path / "preview.png").image.shape == (1, 3, 30, 40)
    assert numbers_of(read_picture(style).image, bundled()).shares == {}
    check_quiet(impasto("transfer", content, style, "-o", output, "--quality", "instant", "--size", 48, "--quiet"))
    first = output.read_bytes()
    check_quiet(impasto("transfer", content, style, "-o", tmp_path / "again.png", "--like", output, "--quiet"))
    assert (tmp_path / "again.png").read_bytes() == first


@pytest.mark.weights
def test_a_descent_can_start_from_the_instant_picture(files):
    image, style = picture(40, 56), picture(48, 48, 1)
    recipe = make_recipe(size=56, coarsest=16384, steps=1, init="instant")
    first = next(transfer.stylize(image, [style], recipe, transfer.make_net(recipe))).image
    start = InstantPainter([style], recipe).paint(image)
    plain = next(transfer.stylize(image, [style], recipe.model_copy(update={"init": "content"}), transfer.make_net(recipe))).image
    assert (first - start).abs().mean() < 0.5 * (first - plain).abs().mean()
    grey = next(transfer.stylize(image, [style], recipe.model_copy(update={"color": "luminance"}), transfer.make_net(recipe))).image
    torch.testing.assert_close(grey[:, 0], grey[:, 2], atol=1e-4, rtol=0)


@pytest.mark.weights
def test_a_descent_from_an_instant_picture_records_what_that_was_painted_with(files):
    content, style, output = files
    recipe = make_recipe(size=32, coarsest=16384, steps=1, init="instant")
    list(Painting(content, [style], output, recipe).steps())
    save_learned(read_picture(style).image, numbers(9), bundled())
    assert not Painting(content, [style], output, recipe).is_finished()
