"""The papers' algorithm on a tiny net: what is compared, what is reported, what the size does."""

import gc
import math
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from impasto.errors import BadImage, BadRecipe
from impasto.images.images import resize
from impasto.nets.nets import features
from impasto.objective import objective
from impasto.objective.losses import content_cost, style_cost, style_layer_cost, total_variation
from impasto.objective.masks import Masks
from impasto.objective.objective import costs_of, make_cost
from impasto.objective.targets import make_targets
from impasto.recipe.recipe import PRESETS, Recipe, make_recipe
from impasto.transfer import transfer
from impasto.transfer.descent import Step
from impasto.transfer.transfer import Extras, check_fit, finished, first_image, stylize
from tests.conftest import picture, tiny_net

LAYERS = {"style_layers": {"conv1_1": 0.5, "conv2_1": 2.0}, "content_layers": {"conv2_1": 1.0}}
CONTENT, STYLE = picture(24, 32), picture(40, 30, 1)


def recipe(preset: str = "course", **knobs) -> Recipe:
    return make_recipe(preset, **{**LAYERS, "size": 48, "coarsest": 24, "steps": 6, "fine_steps": 4, "init_noise": 0, **knobs})


def paint(**knobs) -> list[Step]:
    return list(stylize(CONTENT, [STYLE], recipe(**knobs), tiny_net()))


def test_the_costs_are_the_public_functions(net):
    """J by make_cost against the course's formulas spelled out with whole activations."""
    r = recipe(tv=3.0)
    image, style = picture(24, 32, 7), resize(STYLE, (32, 24))
    costs = make_cost(make_targets(CONTENT, [STYLE], r, net), r, net)(image)
    a_C, a_S, a_G = (features(net, x, ["conv1_1", "conv2_1"]) for x in (CONTENT, style, image))
    torch.testing.assert_close(costs["content"], content_cost(a_C["conv2_1"], a_G["conv2_1"]))
    torch.testing.assert_close(costs["style"], style_cost(a_S, a_G, r.style_layers))
    torch.testing.assert_close(costs["style conv1_1"], style_layer_cost(a_S["conv1_1"], a_G["conv1_1"]))
    torch.testing.assert_close(costs["total"], 10 * costs["content"] + 40 * costs["style"] + 3 * total_variation(image))


def test_norms_are_what_they_say(net):
    """The mean of squares is 4 times the course's, for content and style alike; the paper's content is half the sum."""
    image = picture(24, 32, 7)
    costs = {
        norm: make_cost(make_targets(CONTENT, [STYLE], r, net), r, net)(image)
        for norm, r in {
            "course": recipe(content_norm="course", style_norm="paper"),
            "mean": recipe(content_norm="mean", style_norm="mean"),
            "paper": recipe(content_norm="paper", style_norm="paper"),
        }.items()
    }
    torch.testing.assert_close(costs["mean"]["content"], 4 * costs["course"]["content"])
    torch.testing.assert_close(costs["mean"]["style"], 4 * costs["course"]["style"])
    a_C, a_G = (features(net, x, ["conv2_1"])["conv2_1"] for x in (CONTENT, image))
    torch.testing.assert_close(costs["paper"]["content"], 0.5 * (a_C - a_G).square().sum())
    torch.testing.assert_close(costs["paper"]["style"], costs["course"]["style"])


def test_several_styles_count_by_their_weights(net):
    other, image = picture(30, 30, 3), picture(24, 32, 7)

    def style(styles, **knobs):
        r = recipe(**knobs)
        return make_cost(make_targets(CONTENT, styles, r, net), r, net)(image)["style"]

    one, two = style([STYLE]), style([other])
    torch.testing.assert_close(style([STYLE, other], style_weights="3,1"), 0.75 * one + 0.25 * two)
    torch.testing.assert_close(style([STYLE, other]), (one + two) / 2)


def test_style_scale_scales_the_style_picture(net):
    r = recipe(style_scale=0.5)
    gram = make_targets(CONTENT, [STYLE], r, net).styles[0]["conv1_1"][0]["gram"]
    a = features(net, resize(STYLE, (16, 12)), ["conv1_1"])["conv1_1"].flatten(2)
    torch.testing.assert_close(gram, a @ a.mT / (16 * 12))


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam", "gd"])
@pytest.mark.parametrize("init", ["content", "noise"])
def test_the_cost_goes_down_and_pixels_stay_in_range(optimizer, init):
    steps = paint(optimizer=optimizer, init=init, lr={"lbfgs": 1, "adam": 0.02, "gd": 0.02}[optimizer], steps=15, coarsest=48)
    assert steps[-1].costs["total"] < steps[0].costs["total"]
    assert all(step.image.min() >= 0 and step.image.max() <= 1 for step in steps)


def test_painting_goes_from_coarse_to_fine():
    steps = paint(optimizer="lbfgs")
    assert [step.scale for step in steps] == [24] * 6 + [48] * 4
    assert [step.i for step in steps] == list(range(1, 11)) and {step.of for step in steps} == {10}
    assert steps[-1].image.shape == (1, 3, 36, 48)
    assert {step.scale for step in paint(coarsest=48)} == {48}


@pytest.mark.slow
def test_scaled_pictures_are_let_go_while_a_scale_is_painted(monkeypatch, net):
    made = []

    def remembered(*what, **how):
        scaled = resize(*what, **how)
        made.append(weakref.ref(scaled))
        return scaled

    monkeypatch.setattr(transfer, "resize", remembered)
    for step in stylize(CONTENT, [STYLE], recipe(detail=0.5, strokes=0.5, optimizer="lbfgs"), net):
        gc.collect()
        assert made and not [ref for ref in made if ref() is not None], step.i


def test_the_reported_cost_is_that_of_the_picture(net):
    """In range all along: what the last step reports is what its picture costs, and 8 bits change it little."""
    last = paint(optimizer="lbfgs")[-1]
    costs = costs_of(last.image, CONTENT, [STYLE], recipe(), net)
    assert costs == pytest.approx(last.costs, rel=1e-5)
    saved = costs_of(finished(last.image, CONTENT, recipe()), CONTENT, [STYLE], recipe(), net)
    assert saved["total"] == pytest.approx(last.costs["total"], rel=0.05)


def test_one_seed_one_picture():
    one, again, other = (paint(init="noise", seed=seed)[-1].image for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize("at", [3, 6, 8])
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam", "gd"])
def test_a_run_continues_to_the_same_picture(at, optimizer):
    knobs = {"optimizer": optimizer, "lr": {"lbfgs": 1, "adam": 0.02, "gd": 0.02}[optimizer]}
    whole = paint(**knobs)
    rest = list(stylize(CONTENT, [STYLE], recipe(**knobs), tiny_net(), resume=whole[at - 1].state))
    assert [step.i for step in rest] == list(range(at + 1, 11))
    assert torch.equal(rest[-1].image, whole[-1].image)


def test_a_given_picture_is_the_start(net):
    given = picture(12, 16, 9)
    first = next(
        stylize(CONTENT, [STYLE], recipe(init="picture", coarsest=48, optimizer="gd", lr=1e-12), net, extras=Extras(given))
    )
    torch.testing.assert_close(first.image, resize(given, (36, 48)), atol=1e-6, rtol=0)


def test_a_share_of_noise_is_mixed_into_the_start():
    noise = first_image(CONTENT, recipe(init="noise", noise_width=0.2))
    torch.testing.assert_close(first_image(CONTENT, recipe(init_noise=0.6, noise_width=0.2)), 0.4 * CONTENT + 0.6 * noise)
    assert torch.equal(first_image(CONTENT, recipe()), CONTENT) and noise.min() >= 0.4


@pytest.mark.parametrize(
    ("content", "knobs", "error", "said"),
    [
        (torch.zeros(1, 3, 2000, 3), {"size": 512}, BadImage, "content picture .3 x 2000. would be"),
        (CONTENT, {"style_scale": 0.1, "size": 64, "coarsest": 64}, BadImage, "style picture"),
        (CONTENT, {"style_weights": "1,2"}, BadRecipe, "2 numbers for 1 style"),
        (CONTENT, {"init": "picture"}, BadRecipe, "--init-image"),
    ],
)
def test_what_does_not_fit_is_an_error_before_the_work(content, knobs, error, said):
    with pytest.raises(error, match=said):
        check_fit(content, [STYLE], recipe(**{"coarsest": 32, **knobs}), None)


def test_no_style_gives_an_error():
    with pytest.raises(BadRecipe, match="no style"):
        check_fit(CONTENT, [], recipe(), None)


def test_a_time_budget_gives_each_scale_its_share(monkeypatch):
    """On a clock that takes a second a step at 16 px and four at 32: 30 s are left to the fine scale, and kept to."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    fine = transfer._Clock([(16, 100), (32, 50)], 60)
    seen = []
    for index, scale, seconds in ((0, 16, 1.0), (1, 32, 4.0)):
        for i in range(100):
            clock[0] += seconds
            seen.append(scale)
            if fine.is_over(index, Step(i, 150, scale, {}, seconds, None)):  # type: ignore[arg-type]
                break
    assert seen.count(16) == 20 and 50 < clock[0] < 60 and fine.over == 2
    assert seen.count(32) >= 5


def test_a_scale_that_time_does_not_suffice_for_is_not_begun(monkeypatch):
    """A second a step at 16 px, 4 at 32, 16 at 64: in 60 s the two coarse scales share the time, the fine one is left."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    fine, seen, i = transfer._Clock([(16, 80), (32, 40), (64, 40)], 60), [], 0
    for index, (scale, seconds) in enumerate(((16, 1.0), (32, 4.0), (64, 16.0))):
        for _ in range(40):
            clock[0] += seconds
            i += 1
            seen.append(scale)
            if fine.is_over(index, Step(i, 160, scale, {}, seconds, None)):  # type: ignore[arg-type]
                break
        if fine.over == 3:
            break
    assert set(seen) == {16, 32} and seen.count(32) >= 5 and 45 < clock[0] < 60


def test_a_narrow_picture_skips_the_scales_it_is_too_narrow_for():
    narrow = torch.zeros(1, 3, 25, 800)
    knobs = {"size": 512, "coarsest": 128, "steps": 40, "fine_steps": 10}
    assert transfer.painted_scales(narrow, [CONTENT], make_recipe(**knobs)) == [(512, 40)]
    assert transfer.painted_scales(CONTENT, [narrow], make_recipe(**knobs)) == [(512, 40)]  # of paintings too
    assert transfer.painted_scales(CONTENT, [CONTENT], make_recipe(**knobs)) == [(128, 40), (256, 20), (512, 10)]


@pytest.mark.parametrize("turned", [False, True])
def test_patches_are_compared_where_there_is_one(turned, net):
    """A map of 3 x 3 places at least: coarser scales are left out, whichever picture is the narrow one."""
    narrow = picture(40, 200)
    content, styles = (CONTENT, [narrow]) if turned else (narrow, [CONTENT])
    knobs = {
        "style_costs": {"patches": 1.0},
        "style_layers": {"conv3_1": 1.0},
        "size": 80,
        "coarsest": 20,
        "steps": 1,
        "fine_steps": 1,
    }
    (step,) = stylize(content, styles, recipe(**knobs), net)
    assert step.scale == 80 and math.isfinite(step.costs["total"])
    with pytest.raises(BadImage, match=r"would be 40 x 8 when painted, .* need sides of 16 pixels: raise --size"):
        next(stylize(content, styles, recipe(**{**knobs, "size": 40}), net))


def test_detail_is_what_the_coarser_scale_could_not_hold():
    """Of the content picture itself, made coarse: with detail 1 the picture comes back, with 0 what enlarging gives."""
    coarse = resize(CONTENT, (12, 16))
    larger = resize(coarse, (24, 32))
    for detail in (1.0, 0.0, 0.5):
        refined = transfer.refined(coarse, CONTENT, [STYLE], make_recipe(detail=detail, strokes=0.0))
        torch.testing.assert_close(refined, torch.lerp(larger, CONTENT, detail))


def test_regions_painted_like_the_same_pictures_are_compared_with_them_once(monkeypatch):
    """And each has its share of the detail: together, here all of it, since their masks part the picture."""
    counted, real = [], transfer.borrowed_band
    monkeypatch.setattr(transfer, "borrowed_band", lambda *given: counted.append(given) or real(*given))
    coarse, left = resize(CONTENT, (12, 16)), torch.zeros(1, 1, 24, 32)
    left[..., :13] = 1
    knobs = {"detail": 0.0, "strokes": 1.0, "regions": {"sky": {"mask": "light"}}}
    masks = Masks({"sky": left}, {}, {})
    refined = transfer.refined(coarse, CONTENT, [CONTENT], make_recipe(**knobs), masks)
    torch.testing.assert_close(refined, CONTENT)
    assert len(counted) == 1


def test_strokes_bring_the_detail_of_the_paintings_that_count():
    """The content itself as a painting gives its own detail back; one with weight 0 gives nothing."""
    coarse, knobs = resize(CONTENT, (12, 16)), {"detail": 0.0, "strokes": 1.0, "style_weights": "1,0"}
    refined = transfer.refined(coarse, CONTENT, [CONTENT, STYLE], make_recipe(**knobs))
    torch.testing.assert_close(refined, CONTENT)


def test_without_a_budget_the_clock_never_ends():
    step = Step(1, 2, 16, {}, 1e9, None)  # type: ignore[arg-type]
    assert not transfer._Clock([(16, 5)], None).is_over(0, step)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_lowers_its_cost(preset, net):
    """With its own optimiser and norms, on layers that the tiny net has."""
    lr = {"lr": 0.02} if make_recipe(preset).optimizer == "gd" else {}  # a tiny net's gradients are tiny
    layers = {**LAYERS, "style_layers": {"conv1_1": 0.5, "conv3_1": 2.0}}
    r = make_recipe(preset, **layers, size=32, coarsest=32, steps=10, normalize_net=False, **lr)
    steps = list(stylize(CONTENT, [STYLE], r, net))
    assert steps[-1].costs["total"] < steps[0].costs["total"]


def test_relative_is_the_share_of_the_layers_own_squares(net):
    """Mahendran & Vedaldi 2015: a silent map costs 1, in any layer of any net; against sums in float64."""
    r = recipe("inversion")
    cost = make_cost(make_targets(CONTENT, [], r, net), r, net)
    image = picture(24, 32, 7)
    a_C, a_G = (features(net, x, ["conv2_1"])["conv2_1"].double() for x in (CONTENT, image))
    assert float(cost(image)["content"]) == pytest.approx(float((a_C - a_G).square().sum() / a_C.square().sum()), rel=1e-5)
    silent = objective._content_constant(a_C, r) * content_cost(a_C, torch.zeros_like(a_C), 1.0)
    assert float(silent) == pytest.approx(1)
    assert cost(CONTENT)["content"] == 0


def test_an_inversion_comes_back_and_asks_for_no_style(net):
    r = make_recipe("inversion", size=32, content_layers="conv1_1", steps=60, tv=0.0)
    step = list(stylize(CONTENT, [], r, net))[-1]
    assert step.costs["content"] < 0.02 and step.costs["style"] == 0
    assert (step.image - CONTENT).abs().mean() < 0.5 * (first_image(CONTENT, r) - CONTENT).abs().mean()
    assert costs_of(step.image, CONTENT, [], r, net) == pytest.approx(step.costs, rel=1e-5)


def test_a_texture_knows_of_the_content_nothing_but_its_shape(net):
    r = make_recipe("texture", size=48, coarsest=24, steps=5, fine_steps=3, style_layers="conv1_1=1,conv2_1=1")
    one, other = (list(stylize(content, [STYLE], r, net))[-1] for content in (CONTENT, picture(24, 32, 8)))
    assert torch.equal(one.image, other.image) and one.costs["content"] == 0


def test_where_the_style_counts_there_is_one(net):
    check_fit(CONTENT, [], recipe("inversion"), None)
    with pytest.raises(BadRecipe, match="no style picture"):
        check_fit(CONTENT, [], recipe(), None)
    strokes = make_recipe("inversion", size=48, coarsest=24, steps=2, fine_steps=1, strokes=0.5, content_layers="conv1_1")
    assert len(list(stylize(CONTENT, [], strokes, net))) == 3


def test_a_picture_too_small_for_the_deepest_layer_is_refused_before_the_work():
    knobs = {"net": "alexnet", "size": 64, "coarsest": 64, "style_scale": 0.6, "style_rotation": 30.0}
    with pytest.raises(BadImage, match="these layers and costs need sides of 31 pixels: raise --size"):
        check_fit(picture(64, 64), [picture(64, 64)], make_recipe(**knobs), None)
    check_fit(picture(64, 64), [picture(64, 64)], make_recipe(**{**knobs, "style_scale": 1.0}), None)
    check_fit(picture(16, 16), [picture(16, 16)], make_recipe(size=16), None)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda net: features(net, torch.rand(3, 64, 64), ["conv1_1"]),
            r"got \(3, 64, 64\) of .*: image\[None\] adds the batch",
        ),
        (lambda net: features(net, np.zeros((1, 3, 8, 8)), ["conv1_1"]), "got ndarray: read_picture"),
        (lambda net: features(net, torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ["conv1_1"]), "of torch.uint8"),
        (lambda net: features(net, CONTENT, "conv1_1"), r"layers is 'conv1_1', must be a list of names: \['conv1_1'\]"),
        (lambda net: next(stylize(CONTENT, STYLE, recipe(), net)), r"got \(3, 40, 30\)"),
        (lambda net: next(stylize(CONTENT[0], [STYLE], recipe(), net)), r"got \(3, 24, 32\)"),
        (lambda net: transfer.paint(np.zeros((8, 8, 3), np.uint8), "b.jpg"), "got ndarray: PIL.Image.fromarray makes one"),
        (lambda net: transfer.paint("a.jpg", "b.jpg"), "cannot read a.jpg: No such file"),
    ],
)
def test_what_is_no_picture_gives_a_one_line_error(net, call, said):
    with pytest.raises((BadImage, BadRecipe), match=said):
        call(net)


def test_one_style_picture_needs_no_list(monkeypatch, files):
    monkeypatch.setattr(transfer, "make_net", lambda *_: tiny_net())
    knobs = {**LAYERS, "size": 24, "coarsest": 24, "steps": 2}
    pictures = [transfer.paint(files[0], style, **knobs) for style in ([files[1]], files[1], str(files[1]), Image.open(files[1]))]
    assert len({picture.tobytes() for picture in pictures}) == 1
