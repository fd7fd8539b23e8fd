"""Whose colours a painting has, before and after, in all of it and in its regions: by the statistics of the result."""

import numpy as np
import pytest
import torch

from impasto.errors import BadRecipe
from impasto.images.images import quantize, read_picture, resize, to_pillow
from impasto.objective.color import MAPS, SPACES, grey, keep_color, luminance, match_color, moments
from impasto.objective.color_transfer import as_compared, recolored, recolored_inputs
from impasto.objective.masks import Masks, read_masks, shares
from impasto.objective.objective import costs_of
from impasto.objective.targets import make_targets
from impasto.recipe.recipe import PROTECTED, Recipe, make_recipe
from impasto.transfer.descent import Step
from impasto.transfer.transfer import Extras, finished, paint, stylize
from tests.conftest import picture, tiny_net
from tests.test_color import mask, muted
from tests.test_hires import p3

LAYERS = {"style_layers": {"conv1_1": 0.5, "conv2_1": 2.0}, "content_layers": {"conv2_1": 1.0}}
CONTENT, STYLE = picture(24, 32), picture(40, 30, 1)
RULES = ["luminance", *MAPS, "histogram"]


def recipe(**knobs) -> Recipe:
    return make_recipe("course", **{**LAYERS, "size": 48, "coarsest": 24, "steps": 6, "fine_steps": 4, "init_noise": 0, **knobs})


def painted(**knobs) -> list[Step]:
    return list(stylize(CONTENT, [STYLE], recipe(**knobs), tiny_net()))


# In all of it


def test_style_keeps_all_as_it_is():
    content, styles = recolored_inputs(CONTENT, [STYLE], recipe())
    assert content is CONTENT and styles[0] is STYLE and recolored(STYLE, CONTENT, recipe()) is STYLE


@pytest.mark.parametrize("how", [*MAPS, "histogram"])
def test_before_the_style_pictures_are_recoloured_and_after_the_painting_is(how):
    before, after = (recipe(color=how, color_when=when) for when in ("before", "after"))
    content, (style,) = recolored_inputs(CONTENT, [STYLE], before)
    assert content is CONTENT and torch.equal(style, match_color(STYLE, CONTENT, how))
    assert recolored(STYLE, CONTENT, before) is STYLE and recolored_inputs(CONTENT, [STYLE], after)[1][0] is STYLE
    assert torch.equal(recolored(STYLE, CONTENT, after), match_color(STYLE, resize(CONTENT, (40, 30)), how))


@pytest.mark.parametrize("space", SPACES)
def test_luminance_before_compares_grey_pictures_and_brings_the_chroma_back(space):
    r = recipe(color="luminance", color_space=space)
    content, (style,) = recolored_inputs(CONTENT, [STYLE], r)
    for it, own in ((content, CONTENT), (style, STYLE)):
        torch.testing.assert_close(it, it.mean(1, keepdim=True).expand_as(it), atol=1e-6, rtol=0)
        assert it.shape == own.shape
    torch.testing.assert_close(luminance(content, space), luminance(CONTENT, space), atol=1e-5 * SPACES[space].white, rtol=0)
    _, (unmatched,) = recolored_inputs(CONTENT, [STYLE], recipe(color="luminance", color_space=space, match_light=False))
    torch.testing.assert_close(unmatched, grey(luminance(STYLE, space), space))
    G = painted(color="luminance", color_space=space)[-1].image
    kept = recolored(G, CONTENT, r)
    torch.testing.assert_close(luminance(kept, space), luminance(G, space), atol=1e-4 * SPACES[space].white, rtol=0)


def test_colours_change_what_is_painted_before_and_not_what_is_painted_after():
    plain = painted()[-1].image
    for rule in RULES:
        assert not torch.equal(painted(color=rule, color_when="before")[-1].image, plain), rule
        assert torch.equal(painted(color=rule, color_when="after")[-1].image, plain), rule


@pytest.mark.parametrize("rule", [*MAPS, "histogram"])
def test_a_painting_recoloured_after_has_the_photographs_statistics(rule):
    r = recipe(color=rule, color_when="after")
    saved = finished(painted(color=rule, color_when="after")[-1].image, CONTENT, r)
    wanted = resize(CONTENT, (36, 48))
    (mean, covariance), (to_mean, to_covariance) = moments(saved), moments(wanted)
    torch.testing.assert_close(mean, to_mean, atol=0.01, rtol=0)
    torch.testing.assert_close(covariance.diagonal(), to_covariance.diagonal(), atol=0.002, rtol=0.1)


def test_the_costs_are_those_of_the_saved_picture():
    """Before: what the descent ended with, but for rounding. After: those of a picture whose colours the descent did not choose."""
    net = tiny_net()
    for rule in RULES:
        r = recipe(color=rule, color_when="before")
        last = painted(color=rule, color_when="before")[-1]
        costs = costs_of(finished(last.image, CONTENT, r), CONTENT, [STYLE], r, net)
        assert costs["total"] == pytest.approx(last.costs["total"], rel=0.05), rule
        r = recipe(color=rule, color_when="after")
        saved = finished(painted()[-1].image, CONTENT, r)
        assert costs_of(saved, CONTENT, [STYLE], r, net) == costs_of(saved, CONTENT, [STYLE], recipe(), net)


@pytest.mark.parametrize("space", SPACES)
def test_luminance_before_costs_the_light_of_the_saved_picture(space):
    r, net = recipe(color="luminance", color_space=space), tiny_net()
    last = painted(color="luminance", color_space=space)[-1]
    torch.testing.assert_close(last.image, last.image[:, :1].expand_as(last.image), atol=1e-5, rtol=0)
    saved = finished(last.image, CONTENT, r)
    content, styles = recolored_inputs(CONTENT, [STYLE], r)
    costs = costs_of(saved, CONTENT, [STYLE], r, net)
    assert costs == costs_of(as_compared(saved, r), content, styles, recipe(), net)
    assert costs["total"] == pytest.approx(last.costs["total"], rel=0.05)


def test_what_does_not_show_has_no_colours():
    """Hidden places of content and style hold anything; what is compared and shown stays the same."""
    w, style_w = mask(24, 32).round(), mask(40, 30).round()
    junk = torch.where(w > 0, CONTENT, torch.rand(1, 3, 24, 32))
    style_junk = torch.where(style_w > 0, STYLE, torch.rand(1, 3, 40, 30))
    for rule in [*MAPS, "histogram"]:
        clean, dirty = (
            recolored_inputs(c, [s], recipe(color=rule), [w, style_w])[1][0][..., 15:]
            for c, s in ((CONTENT, STYLE), (junk, style_junk))
        )
        torch.testing.assert_close(clean, dirty, atol=1e-6, rtol=0)
        after = recipe(color=rule, color_when="after")
        clean, dirty = (recolored(it, it_2, after, w)[..., 16:] for it, it_2 in ((CONTENT, CONTENT), (junk, junk)))
        torch.testing.assert_close(clean, dirty, atol=1e-6, rtol=0)


def test_a_texture_can_be_matched_and_has_no_photograph_for_its_chroma():
    with pytest.raises(BadRecipe, match="no photograph to take colours from"):
        make_recipe("texture", color="luminance")
    r = make_recipe("texture", color="monge", color_when="after", style_layers={"conv1_1": 1.0}, size=40, coarsest=40, steps=3)
    alpha = mask(40, 30)
    *_, last = stylize(STYLE, [STYLE], r, tiny_net(), Extras(alphas=[alpha, alpha]))
    found = moments(recolored(last.image, STYLE, r, alpha))
    torch.testing.assert_close(found[0], moments(resize(STYLE, (40, 30)), alpha)[0], atol=0.02, rtol=0)


def test_paint_has_the_knobs_and_keeps_a_profile(monkeypatch):
    """As painted and recoloured by hand; the Pillow image carries the photograph's profile when asked to."""
    monkeypatch.setattr("impasto.transfer.transfer.make_net", lambda _: tiny_net())
    photo, style = to_pillow(CONTENT), to_pillow(STYLE)
    photo.putalpha(200)
    photo.info["icc_profile"] = p3()
    knobs = {**LAYERS, "size": 32, "coarsest": 32, "steps": 3, "color": "luminance", "color_when": "after"}
    with_profile = paint(photo, [style], "course", keep_profile=True, **knobs)
    plain = paint(photo, [style], "course", **knobs)
    read = read_picture(photo)
    *_, last = stylize(read.image, [quantize(STYLE)], make_recipe("course", **knobs), tiny_net())
    expected = to_pillow(finished(last.image, read.image, make_recipe("course", **knobs)), read.alpha)
    assert np.array_equal(plain, expected) and plain.mode == "RGBA" and "icc_profile" not in plain.info
    assert with_profile.info["icc_profile"] == p3() and not np.array_equal(with_profile, plain)
    off = 255 * (read_picture(with_profile).image - read_picture(plain).image).abs().flatten()
    assert off.quantile(0.99) < 2.5 and off.mean() < 0.5, "near black 8 bits of another gamut are coarser"


def test_an_unknown_rule_is_one_line():
    for knob in ("color", "color_when", "color_space"):
        with pytest.raises(BadRecipe, match=f"{knob} is 'sepia'"):
            make_recipe(**{knob: "sepia"})


# In regions


LEFT, PHOTO, PAINTING = torch.zeros(1, 1, 24, 32), muted(24, 32, 2), muted(24, 32, 3)
LEFT[..., :14] = 1
SOFT = torch.cat([torch.ones(1, 1, 24, 10), torch.linspace(1, 0, 8).expand(1, 1, 24, 8), torch.zeros(1, 1, 24, 14)], 3)


def in_left(rule: str | None, **knobs) -> Recipe:
    return recipe(regions={"left": {"mask": "dark", "color": rule}}, **{"color_when": "after", **knobs})


def masks(left: torch.Tensor = LEFT, **others: torch.Tensor) -> Masks:
    return Masks({"left": left, **others}, {}, {})


@pytest.mark.parametrize("how", MAPS)
def test_a_region_recoloured_after_has_the_photographs_statistics_under_its_mask_and_nothing_else_moves(how):
    found = recolored(PAINTING, PHOTO, in_left(how), masks=masks())
    torch.testing.assert_close(moments(found, LEFT), moments(PHOTO, LEFT), atol=1e-6, rtol=1e-3)
    assert torch.equal(found[..., 14:], PAINTING[..., 14:])
    soft = recolored(PAINTING, PHOTO, in_left(how), masks=masks(SOFT))
    assert torch.equal(soft[..., 18:], PAINTING[..., 18:])
    changed = match_color(PAINTING, PHOTO, how, SOFT, SOFT)
    torch.testing.assert_close(soft, torch.lerp(PAINTING, changed, SOFT), atol=1e-6, rtol=0)


@pytest.mark.parametrize("when", ["before", "after"])
def test_luminance_in_a_region_takes_its_chroma_from_the_photograph_and_its_lights_mean_and_deviation(when):
    found = recolored(PAINTING, PHOTO, in_left("luminance", color_when=when), masks=masks())
    there = SPACES["yiq"].there
    torch.testing.assert_close(there(found)[:, 1:, :, :14], there(PHOTO)[:, 1:, :, :14], atol=1e-3, rtol=0)
    torch.testing.assert_close(moments(there(found)[:, :1], LEFT), moments(there(PHOTO)[:, :1], LEFT), atol=1e-5, rtol=1e-2)
    assert torch.equal(found[..., 14:], PAINTING[..., 14:])


def test_where_regions_overlap_their_colours_share():
    rules = {"left": {"mask": "dark", "color": "pca"}, "all": {"mask": "light", "color": "luminance"}}
    r, everywhere = recipe(regions=rules, color_when="after"), torch.ones_like(SOFT)
    where = shares({"left": SOFT, "all": everywhere})
    found = recolored(PAINTING, PHOTO, r, masks=masks(SOFT, all=everywhere))
    by_pca = match_color(PAINTING, PHOTO, "pca", where["left"], where["left"])
    by_light = keep_color(PAINTING, PHOTO, "yiq", matched=True, weights=where["all"])
    torch.testing.assert_close(found, where["left"] * by_pca + where["all"] * by_light, atol=1e-6, rtol=0)


@pytest.mark.parametrize("rule", RULES)
def test_a_region_has_the_recipes_colours_unless_it_says_its_own(rule):
    whole = recolored(PAINTING, PHOTO, recipe(color=rule, color_when="after"))
    assert torch.equal(recolored(PAINTING, PHOTO, in_left(None), masks=masks()), PAINTING)
    assert torch.equal(recolored(PAINTING, PHOTO, in_left(None, color=rule), masks=masks()), whole)
    found = recolored(PAINTING, PHOTO, in_left("style", color=rule), masks=masks())
    torch.testing.assert_close(found[..., :14], PAINTING[..., :14])
    torch.testing.assert_close(moments(found, 1 - LEFT)[0], moments(PHOTO, 1 - LEFT)[0], atol=2e-3, rtol=0)


@pytest.mark.parametrize("rule", ["luminance", "monge", "histogram"])
def test_what_is_protected_keeps_the_photographs_colours_whatever_comes_after(rule):
    r = recipe(color=rule, color_when="after", protect="dark")
    found = recolored(PAINTING, PHOTO, r, masks=Masks({PROTECTED: LEFT}, {}, {}))
    kept = keep_color(PAINTING, PHOTO, "yiq", matched=True, weights=LEFT)
    torch.testing.assert_close(found[..., :14], kept[..., :14])
    torch.testing.assert_close(moments(found, 1 - LEFT)[0], moments(PHOTO, 1 - LEFT)[0], atol=2e-3, rtol=0)
    plain = recipe(protect="dark", color_when="after")
    assert recolored(PAINTING, PHOTO, plain, masks=Masks({PROTECTED: LEFT}, {}, {})) is PAINTING


@pytest.mark.parametrize("how", MAPS)
def test_before_a_regions_painting_has_the_photographs_statistics_under_its_mask(how):
    style_mask = mask(40, 30)
    r = recipe(color_when="before", regions={"left": {"mask": "dark", "style": 2, "style_mask": "dark", "color": how}})
    content, styles = recolored_inputs(
        PHOTO, [STYLE, muted(40, 30, 5)], r, masks=Masks({"left": SOFT}, {"left": style_mask}, {}, {"left": (2,)})
    )
    assert content is PHOTO and styles[0] is STYLE and len(styles) == 3
    torch.testing.assert_close(moments(styles[2], style_mask), moments(PHOTO, SOFT), atol=1e-5, rtol=1e-3)


def test_a_region_is_painted_from_its_own_colours_and_the_rest_from_the_paintings():
    net, both = tiny_net(), [STYLE, muted(40, 30, 5)]
    r = recipe(color_when="before", regions={"left": {"mask": "k-means 1 of 2", "color": "monge"}})
    found = read_masks(r, CONTENT, both)
    content, styles = recolored_inputs(CONTENT, both, r, masks=found)
    targets = make_targets(content, styles, r, net, masks=found)
    for part, its in ((0, styles[2:]), (1, both)):
        expected = make_targets(CONTENT, its, recipe(), net).styles[0]["conv1_1"]
        for got, wanted in zip(targets.styles[part]["conv1_1"], expected, strict=True):
            torch.testing.assert_close(got["gram"], wanted["gram"])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("rule", ["monge", "histogram"])
def test_a_region_that_is_everything_is_painted_as_all_of_it_is(when, rule, tmp_path):
    to_pillow(torch.ones(1, 3, 24, 32)).save(tmp_path / "all.png")
    region = {"mask": str(tmp_path / "all.png"), "feather": 0}
    found = []
    for knobs in ({"color": rule, "regions": {"all": region}}, {"regions": {"all": {**region, "color": rule}}}):
        r = recipe(color_when=when, **knobs)
        *_, last = stylize(CONTENT, [STYLE], r, tiny_net())
        found.append(finished(last.image, CONTENT, r))
    torch.testing.assert_close(*found, atol=1.01 / 255, rtol=0)
    assert not torch.equal(found[0], finished(painted()[-1].image, CONTENT, recipe()))


def test_what_cannot_be_is_one_line():
    with pytest.raises(
        BadRecipe, match="region left has color monge, which color=luminance allows only after painting: color_when"
    ):
        in_left("monge", color="luminance", color_when="before")
    in_left("monge", color="luminance")
    in_left("luminance", color="luminance", color_when="before")
    with pytest.raises(BadRecipe, match="region left has color luminance, and without a content cost"):
        make_recipe("texture", regions={"left": {"mask": "dark", "color": "luminance"}})
