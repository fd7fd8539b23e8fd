"""Costs by a recipe on a tiny net: every kind of them, over parts of a picture, whole and in tiles, against sums spelled out."""

import numpy as np
import pytest
import torch

from impasto.errors import BadRecipe
from impasto.nets.nets import features
from impasto.objective.masks import Masks, place_weights
from impasto.objective.objective import costs_of, make_cost
from impasto.objective.style_costs import COSTS, costs_by_layer, map_cost_memory, unit
from impasto.objective.targets import make_targets
from impasto.objective.tiles import Tiling
from impasto.recipe.recipe import CONTENT_COSTS, STYLE_COSTS, make_recipe
from impasto.transfer.transfer import make_net, stylize
from tests.conftest import picture, tiny_net

LAYERS = {"style_layers": {"conv1_1": 0.5, "conv2_1": 2.0, "conv3_1": 1.0}, "content_layers": {"conv2_1": 1.0}}
CONTENT, STYLE, OTHER, IMAGE = picture(48, 64), picture(40, 64, 1), picture(64, 44, 2), picture(48, 64, 3)
KNOBS = {**LAYERS, "size": 64, "coarsest": 64, "steps": 4, "detail": 0.0, "strokes": 0.0}


def soft_half() -> torch.Tensor:
    return torch.linspace(1, 0, 64).expand(1, 1, 48, 64).contiguous()


def halves() -> Masks:
    return Masks({"left": soft_half(), "right": 1 - soft_half()}, {}, {})


def everywhere(**style: torch.Tensor) -> Masks:
    return Masks({"all": torch.ones(1, 1, 48, 64)}, style, {})


REGIONS = {
    "left": {"mask": "dark", "style": 1, "style_weight": 2.0, "content_weight": 0.5},
    "right": {"mask": "rest", "style": 2, "content_weight": 3.0},
}


def value_and_gradient(recipe, tiling=None, masks=None, styles=(STYLE,), net=None):
    net = net or tiny_net(dtype=torch.float64)
    content, pictures = CONTENT.double(), [style.double() for style in styles]
    targets = make_targets(content, pictures, recipe, net, tiling, masks or Masks({}, {}, {}))
    x = IMAGE.double().requires_grad_()
    costs = make_cost(targets, recipe, net, tiling)(x)
    return costs, torch.autograd.grad(costs["total"], x)[0]


@pytest.mark.parametrize("tiling", [Tiling((), 16), Tiling(("pool1",), 20), Tiling(("pool1", "pool2"), 33)], ids=str)
@pytest.mark.parametrize("regions", [False, True], ids=["everywhere", "regions"])
@pytest.mark.parametrize("cost", STYLE_COSTS)
def test_every_style_cost_is_in_tiles_what_it_is_on_the_whole(cost, regions, tiling):
    recipe = make_recipe(**KNOBS, style_costs={cost: 1.0}, regions=REGIONS if regions else {})
    masks = halves() if regions else None
    (whole, gradient), (tiled, other) = (value_and_gradient(recipe, t, masks, (STYLE, OTHER)) for t in (None, tiling))
    assert whole.keys() == tiled.keys() and whole["style"].detach() > 0
    for name in whole:
        torch.testing.assert_close(tiled[name], whole[name], rtol=1e-8, atol=0)
    torch.testing.assert_close(other, gradient, rtol=1e-6, atol=1e-8 * float(gradient.abs().max()))


@pytest.mark.parametrize("cost", CONTENT_COSTS)
def test_every_content_cost_is_in_tiles_what_it_is_on_the_whole(cost):
    recipe = make_recipe(**KNOBS, content_costs={cost: 1.0}, regions=REGIONS)
    (whole, gradient), (tiled, other) = (value_and_gradient(recipe, t, halves(), (STYLE, OTHER)) for t in (None, Tiling((), 20)))
    assert whole["content"].detach() > 0
    torch.testing.assert_close(tiled["total"], whole["total"], rtol=1e-8, atol=0)
    torch.testing.assert_close(other, gradient, rtol=1e-6, atol=1e-8 * float(gradient.abs().max()))


@pytest.mark.parametrize("cost", STYLE_COSTS)
def test_the_gradient_of_every_style_cost_is_the_finite_difference(cost):
    recipe = make_recipe(**KNOBS, style_costs={cost: 1.0, "gram": 0.1}, alpha=0.0, regions=REGIONS)
    net = tiny_net(dtype=torch.float64)
    targets = make_targets(CONTENT.double(), [STYLE.double(), OTHER.double()], recipe, net, None, halves())
    cost_of = make_cost(targets, recipe, net)
    x, way = IMAGE.double().requires_grad_(), torch.randn(IMAGE.shape, generator=torch.Generator().manual_seed(1)).double()
    (gradient,) = torch.autograd.grad(cost_of(x)["total"], x)
    step = 1e-8  # below which hardly any two places change their order
    with torch.no_grad():
        ahead, behind = (float(cost_of(x + sign * step * way)["total"]) for sign in (1, -1))
    assert float((gradient * way).sum()) == pytest.approx((ahead - behind) / (2 * step), rel=1e-4)


def test_a_guided_style_cost_is_the_sum_over_regions_spelled_out():
    recipe = make_recipe(**KNOBS, regions=REGIONS, style_norm="paper")
    net = tiny_net(dtype=torch.float64)
    costs, _ = value_and_gradient(recipe, None, halves(), (STYLE, OTHER), net)
    for layer, n in (("conv1_1", 4), ("conv2_1", 6), ("conv3_1", 7)):
        a_G, *a_S = (features(net, x.double(), [layer])[layer][0].numpy() for x in (IMAGE, STYLE, OTHER))
        expected = 0.0
        for mask, a, counts in ((soft_half(), a_S[0], 2.0), (1 - soft_half(), a_S[1], 1.0)):
            p = place_weights(mask.double(), a_G.shape[1:]).numpy()
            G, A = np.einsum("hw,ihw,jhw->ij", p, a_G, a_G), np.einsum("ihw,jhw->ij", a, a) / a[0].size
            expected += counts * float(mask.mean()) * ((G - A) ** 2).sum() / (4 * n**2)
        assert costs[f"style {layer}"].item() == pytest.approx(expected, rel=1e-6)


def test_content_counts_where_its_weight_says():
    recipe = make_recipe(**KNOBS, regions=REGIONS, beta=0.0)
    net = tiny_net(dtype=torch.float64)
    costs, _ = value_and_gradient(recipe, None, halves(), (STYLE, OTHER), net)
    a_C, a_G = (features(net, x.double(), ["conv2_1"])["conv2_1"] for x in (CONTENT, IMAGE))
    weights = torch.nn.functional.adaptive_avg_pool2d((0.5 * soft_half() + 3 * (1 - soft_half())).double(), a_C.shape[-2:])
    assert costs["content"].item() == pytest.approx(float((weights * (a_C - a_G).square()).mean()), rel=1e-6)


def test_a_region_without_style_does_not_feel_the_painting():
    """Far from the seam the gradient of the style cost is nothing."""
    hard = torch.zeros(1, 1, 48, 64)
    hard[..., :16] = 1
    masks = Masks({"left": hard, "right": 1 - hard}, {}, {})
    regions = {"left": {"mask": "dark"}, "right": {"mask": "rest", "style_weight": 0.0}}
    _, gradient = value_and_gradient(make_recipe(**KNOBS, regions=regions, alpha=0.0), None, masks)
    assert gradient[..., 40:].abs().max() == 0 < gradient[..., :16].abs().min()


def test_one_region_everywhere_is_no_region():
    recipe = make_recipe(**KNOBS)
    whole = make_recipe(**KNOBS, regions={"all": {"mask": "dark"}})
    (plain, gradient), (one, other) = (
        value_and_gradient(recipe),
        value_and_gradient(whole, None, Masks({"all": torch.ones(1, 1, 48, 64)}, {}, {})),
    )
    for name in plain:
        torch.testing.assert_close(one[name], plain[name], rtol=1e-6, atol=0)
    torch.testing.assert_close(other, gradient, rtol=1e-5, atol=1e-7 * float(gradient.abs().max()))


def test_a_region_is_pulled_as_hard_as_a_picture_of_its_own():
    """However small it is: on a picture of repeated stripes the pull on a pixel does not know the region's area."""
    net = tiny_net(dtype=torch.float64)
    recipe = make_recipe(**KNOBS, alpha=0.0, regions={"small": {"mask": "dark"}, "rest": {"mask": "rest", "style_weight": 0.0}})
    x = picture(48, 16, 3).double().repeat(1, 1, 1, 4).requires_grad_()
    pulls = []
    for width in (32, 48, 64):
        mask = torch.zeros(1, 1, 48, 64)
        mask[..., :width] = 1
        targets = make_targets(
            CONTENT.double(), [STYLE.double()], recipe, net, None, Masks({"small": mask, "rest": 1 - mask}, {}, {})
        )
        (gradient,) = torch.autograd.grad(make_cost(targets, recipe, net)(x)["total"], x)
        pulls.append(float(gradient[..., :16].square().mean().sqrt()))
    assert max(pulls) < 1.1 * min(pulls)


def test_a_paintings_mask_leaves_the_rest_of_the_painting_out():
    net = tiny_net(dtype=torch.float64)
    mask = torch.zeros(1, 1, 40, 64)
    mask[..., 36:] = 1
    recipe = make_recipe(**KNOBS, regions={"all": {"mask": "dark", "style": 1, "style_mask": "light"}})
    changed = STYLE.double().clone()
    changed[..., :24] = OTHER.double()[..., :40, :24]
    grams = [
        make_targets(CONTENT.double(), [style], recipe, net, None, everywhere(all=mask)).styles[0]["conv3_1"][0]["gram"]
        for style in (STYLE.double(), changed)
    ]
    assert torch.equal(*grams)


@pytest.mark.parametrize("cost", STYLE_COSTS)
def test_every_style_cost_is_brought_down(cost):
    net = tiny_net()
    recipe = make_recipe(**KNOBS, style_costs={cost: 1.0}, alpha=0.0, init="noise")
    seen = [step.costs for step in stylize(CONTENT, [STYLE], recipe, net)]
    assert seen[-1]["style"] < seen[0]["style"]


def test_several_costs_add_up_and_are_reported():
    one, two, both = (
        costs_of(IMAGE, CONTENT, [STYLE], make_recipe(**KNOBS, style_costs=costs), tiny_net())
        for costs in ("gram", "w2", "gram=2,w2=0.5")
    )
    assert both["style"] == pytest.approx(2 * one["style"] + 0.5 * two["style"], rel=1e-5)
    assert both["style_cost gram"] == pytest.approx(2 * one["style"], rel=1e-5)
    assert both["style_cost gram"] + both["style_cost w2"] == pytest.approx(both["style"], rel=1e-5)
    assert "style_cost gram" not in one


def test_wrong_costs_give_an_error():
    for knobs, said in (
        ({"style_costs": "gramm"}, "style_costs has gramm, there are gram, covariance"),
        ({"style_costs": "gram=0"}, "style_costs are all 0"),
        ({"content_costs": "edges"}, "content_costs has edges"),
        ({"style_costs": "w2", "style_edit": {"conv1_1": {"gain": 2}}}, "style_edit needs gram among the style_costs"),
    ):
        with pytest.raises(BadRecipe, match=said):
            make_recipe(**knobs)


def test_patches_are_those_of_coarse_layers_and_cross_needs_a_layer_before():
    layers = {"conv3_1": 1.0, "conv1_1": 1.0, "conv2_1:pre": 1.0}
    recipe = make_recipe(style_layers=layers, style_costs="gram,patches,cross,sliced=0")
    wanted = {"conv1_1": ["gram"], "conv2_1:pre": ["gram", "cross"], "conv3_1": ["gram", "patches", "cross"]}
    assert costs_by_layer(recipe, tiny_net()) == wanted and list(costs_by_layer(recipe, tiny_net())) == list(wanted)


@pytest.mark.weights
def test_a_cost_that_reads_no_layer_is_an_error_before_the_work():
    with pytest.raises(BadRecipe, match="style cost patches reads none of the style layers conv1_1"):
        make_net(make_recipe(style_costs="gram,patches", style_layers="conv1_1"))


def test_costs_of_whole_maps_keep_memory_that_is_planned():
    layers = {"conv1_1": 1.0, "conv3_1": 1.0}
    kept = {cost: map_cost_memory(make_recipe(style_layers=layers, style_costs=cost), tiny_net(), (48, 64)) for cost in STYLE_COSTS}
    assert kept["gram"] == kept["w2"] == 0
    assert kept["sliced"] == 32 * (4 * 48 * 64 + 7 * 12 * 16) and kept["patches"] == 120 * 7 * 12 * 16


def test_every_style_cost_of_the_recipe_is_computed():
    assert tuple(COSTS) == STYLE_COSTS


def test_a_net_that_was_not_measured_has_no_units():
    assert {unit(tiny_net(), cost, "conv1_1") for cost in (*COSTS, *CONTENT_COSTS)} == {1.0}


def test_composition_raises_the_weight_of_the_content_at_coarse_scales():
    knobs = {**KNOBS, "alpha": 3.0}
    for size, weights in ((2048, [3, 3, 12, 48]), (512, [3, 3, 12, 48]), (256, [3, 3, 3, 12]), (64, [3, 3, 3, 3])):
        recipe = make_recipe(**{**knobs, "size": size}, composition=0.5)
        assert [recipe.alpha_at(side) for side in (2048, 512, 256, 128)] == weights
    costs, _ = value_and_gradient(make_recipe(**{**knobs, "size": 512}, composition=0.5))  # 64 pixels: 8^2 times
    plain, _ = value_and_gradient(make_recipe(**knobs, composition=0.0))
    content, both = costs["content"].item(), [its["total"].item() for its in (costs, plain)]
    assert content == plain["content"].item() and both[0] - both[1] == pytest.approx(3 * 63 * content)


def test_the_style_counts_less_where_the_photograph_is_calm():
    photograph = CONTENT.double()
    photograph[..., :48] = 0.5
    recipe, net = make_recipe(**KNOBS, alpha=0.0, calm=1.0), tiny_net(dtype=torch.float64)
    targets = make_targets(photograph, [STYLE.double()], recipe, net)
    x = IMAGE.double().requires_grad_()
    (gradient,) = torch.autograd.grad(make_cost(targets, recipe, net)(x)["total"], x)
    assert float(gradient[..., :24].abs().max()) == 0 < float(gradient[..., 60:].abs().min())
    masks = Masks({"busy": targets.busy, "rest": 1 - targets.busy}, {}, {})
    region = make_recipe(**KNOBS, alpha=0.0, regions={"busy": {"mask": "dark"}, "rest": {"mask": "rest", "style_weight": 0}})
    guided = make_cost(make_targets(photograph, [STYLE.double()], region, net, None, masks), region, net)(x)
    ours = make_cost(targets, recipe, net)(x)
    assert ours["style"].item() * float(targets.busy.mean()) == pytest.approx(guided["style"].item(), rel=1e-9)


@pytest.mark.parametrize("tiling", [Tiling((), 16), Tiling(("pool1", "pool2"), 33)], ids=str)
def test_calm_and_regions_together_are_in_tiles_what_they_are_on_the_whole(tiling):
    recipe = make_recipe(**KNOBS, regions=REGIONS, calm=0.6, composition=0.3)
    (whole, gradient), (tiled, other) = (value_and_gradient(recipe, t, halves(), (STYLE, OTHER)) for t in (None, tiling))
    for name in whole:
        torch.testing.assert_close(tiled[name], whole[name], rtol=1e-8, atol=0)
    torch.testing.assert_close(other, gradient, rtol=1e-6, atol=1e-8 * float(gradient.abs().max()))
