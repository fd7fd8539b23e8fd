"""A style that is changed: the targets stay Gram matrices, the nearest one is nearest, the weights have exact gradients."""

import itertools

import pytest
import torch

from impasto.errors import BadRecipe
from impasto.objective.losses import edited_gram, entry_weights, gram_cost, mean_gram, nearest_gram, scaled_gram, stretched_gram
from impasto.objective.objective import costs_of, make_cost
from impasto.objective.targets import make_targets
from impasto.objective.tiles import Tiling
from impasto.recipe.edit import LayerEdit, pair_of
from impasto.recipe.recipe import checked_recipe, make_recipe
from impasto.transfer.transfer import check_edit, check_fit
from tests.conftest import picture, tiny_net

KNOBS = {"content_layers": {"conv2_1": 1.0}, "style_layers": {"conv1_1": 0.5, "conv2_1": 0.5}, "size": 48}


def activations(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).relu()


def is_gram(matrix: torch.Tensor) -> bool:
    return bool(torch.linalg.eigvalsh(matrix).min() > -1e-9 * matrix.norm() and matrix.min() >= 0)


def test_gains_are_those_of_the_activations():
    a, gains = activations(1, 4, 6, 5), torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(scaled_gram(mean_gram(a), gains), mean_gram(gains.view(1, 4, 1, 1) * a))
    edit = LayerEdit(gain=2, units={"1": 0, "2": {"gain": 0.5}})
    changed = mean_gram(torch.tensor([2.0, 0.0, 1.0, 2.0]).view(1, 4, 1, 1) * a)
    torch.testing.assert_close(edited_gram(mean_gram(a), edit), changed)


def test_a_direction_is_stretched_and_what_is_at_right_angles_to_it_is_not():
    a, v, w = activations(1, 3, 6, 5), torch.tensor([1.0, 2.0, 0.0]).double(), torch.tensor([2.0, -1.0, 5.0]).double()
    gram = mean_gram(a)
    changed = stretched_gram(gram, v, 3.0)
    torch.testing.assert_close(v @ changed[0] @ v, 9 * v @ gram[0] @ v)
    torch.testing.assert_close(w @ changed[0] @ w, w @ gram[0] @ w)
    torch.testing.assert_close(edited_gram(gram, LayerEdit(directions=({"gain": 3, "units": {"0": 1, "1": 2}},))), changed)


def test_along_an_eigenvector_the_gain_is_squared_on_its_eigenvalue():
    gram = mean_gram(activations(1, 5, 9, 9))[0]
    values, vectors = torch.linalg.eigh(gram)
    changed = stretched_gram(gram[None], vectors[:, 3], 0.5)[0]
    values[3] *= 0.25
    torch.testing.assert_close(torch.linalg.eigvalsh(changed), values.sort().values)


def test_a_gram_matrix_is_its_own_nearest():
    gram = mean_gram(activations(1, 6, 9, 9))[0]
    torch.testing.assert_close(nearest_gram(gram), gram, rtol=1e-6, atol=1e-9)


def test_the_nearest_gram_matrix_of_two_units_is_the_one_found_by_search():
    asked = torch.tensor([[1.0, 3.0], [3.0, 2.0]], dtype=torch.float64)
    found = nearest_gram(asked)
    best = min(
        (float((p - 1) ** 2 + (r - 2) ** 2 + 2 * (min(3.0, (p * r) ** 0.5) - 3) ** 2), p, r)
        for p, r in itertools.product(torch.linspace(1, 4, 301).tolist(), repeat=2)
    )
    assert is_gram(found) and float((found - asked).square().sum()) == pytest.approx(best[0], abs=1e-3)
    torch.testing.assert_close(found.diagonal(), torch.tensor(best[1:], dtype=torch.float64), atol=0.02, rtol=0)


def test_no_gram_matrix_near_the_nearest_one_is_nearer():
    asked = mean_gram(activations(1, 5, 4, 4))[0] + torch.randn(5, 5, generator=torch.Generator().manual_seed(1)).double()
    asked = (asked + asked.mT) / 2
    found = nearest_gram(asked)
    assert is_gram(found)
    for seed in range(200):  # the way to any other Gram matrix leads away: <asked - found, other - found> <= 0
        other = mean_gram((1 + seed % 3) * activations(1, 5, 3, 3, seed=seed))[0]
        assert float(((asked - found) * (other - found)).sum()) <= 1e-5 * float(asked.norm() * (other - found).norm())


def test_a_pair_is_changed_as_far_as_activations_can():
    gram = mean_gram(activations(1, 4, 30, 30))
    less = edited_gram(gram, LayerEdit(pairs={"0 & 2": 0.7}))
    assert float(less[0, 0, 2]) == pytest.approx(0.7 * float(gram[0, 0, 2]), rel=1e-6)  # within reach
    more = edited_gram(gram, LayerEdit(pairs={"0 & 2": 20}))
    assert is_gram(more[0]) and 1.5 * float(gram[0, 0, 2]) < float(more[0, 0, 2]) < 15 * float(gram[0, 0, 2])


def test_weights_are_of_units_pairs_and_the_layer():
    edit = LayerEdit(weight=0.5, units={"1": {"weight": 4}, "2": {"weight": 0}}, pairs={"0&1": {"weight": 3}})
    weights = entry_weights(edit, 4)
    assert weights[1, 1] == 2 and weights[0, 1] == weights[1, 0] == 0.5 * 2 * 3 and weights[0, 0] == 0.5
    assert (weights[2] == 0).all() and (weights[:, 2] == 0).all()


def test_edited_costs_have_exact_gradients():
    edit = LayerEdit(gain=1.3, units={"0": {"gain": 2, "weight": 0.2}}, pairs={"0&1": {"gain": 3, "weight": 2}})
    target, weights = edited_gram(mean_gram(activations(1, 3, 2, 5, seed=9)), edit), entry_weights(edit, 3)
    assert torch.autograd.gradcheck(lambda a: gram_cost(target, mean_gram(a), weights), activations(1, 3, 4, 5).requires_grad_())


def recipe_with(**layers):
    return make_recipe(**KNOBS, style_edit=layers)


def cost_under(recipe, tiling=None):
    net = tiny_net(dtype=torch.float64)
    content, styles = picture(40, 48).double(), [picture(44, 48, 1).double(), picture(48, 40, 2).double()]
    return make_cost(make_targets(content, styles, recipe, net, tiling), recipe, net, tiling)


EDIT = {
    "conv1_1": {"gain": 1.2, "units": {"1 blue": 0.5}, "paintings": [1, 0]},
    "conv2_1": {"pairs": {"0 & 3 weave": {"gain": 1.1, "weight": 2}}, "units": {"2": {"weight": 0}}, "paintings": [1, 3]},
}


def test_an_edit_that_changes_nothing_changes_nothing():
    image = picture(40, 48, 5).double()
    plain, neutral = (
        cost_under(recipe_with())(image),
        cost_under(recipe_with(conv1_1={"units": {"0": 1}, "pairs": {"0&1": 1}}))(image),
    )
    assert float(plain["total"]) == pytest.approx(float(neutral["total"]), rel=1e-12)


def test_in_tiles_the_edited_cost_and_gradient_are_the_same():
    recipe, image = recipe_with(**EDIT), picture(40, 48, 5).double()
    found = []
    for tiling in (None, Tiling(("pool1",), 16)):
        x = image.clone().requires_grad_()
        total = cost_under(recipe, tiling)(x)["total"]
        found.append((total.item(), torch.autograd.grad(total, x)[0]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-9)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-6, atol=1e-12)


def test_two_paintings_are_mixed_by_layer():
    net, content = tiny_net(), picture(40, 48)
    styles = [picture(44, 48, 1), picture(48, 40, 2)]
    mixed = recipe_with(conv1_1={"paintings": [1, 0]}, conv2_1={"paintings": [0, 1]})
    costs = costs_of(content, content, styles, mixed, net)
    for n, layer in enumerate(("conv1_1", "conv2_1")):
        alone = costs_of(content, content, [styles[n]], recipe_with(), net)
        assert costs[f"style {layer}"] == pytest.approx(alone[f"style {layer}"], rel=1e-5)


def test_an_edit_is_part_of_the_recipe_and_comes_back_out_of_its_record():
    recipe = recipe_with(**EDIT)
    again = checked_recipe(recipe.model_dump(mode="json"))
    assert again == recipe and list(recipe.style_edit["conv2_1"].pairs) == ["0&3"] and 1 in recipe.style_edit["conv1_1"].units


def test_an_edit_is_read_from_a_file_with_names(tmp_path):
    file = tmp_path / "edit.toml"
    file.write_text('[conv1_1.units]\n"3 orange, rising" = 0.5\n[conv2_1]\nweight = 2\n')
    recipe = make_recipe(**KNOBS, style_edit=str(file))
    assert recipe.style_edit["conv1_1"].units[3].gain == 0.5 and recipe.style_edit["conv2_1"].weight == 2
    with pytest.raises(BadRecipe, match="cannot read the style edit"):
        make_recipe(style_edit=tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ({"conv9": {}}, "style_edit changes conv9, the style layers are conv1_1, conv2_1"),
        ({"conv1_1": {"units": {"0": -1}}}, "style_edit.conv1_1.units.0.gain is -1"),
        ({"conv1_1": {"units": {"blue": 1}}}, "must begin with the unit's number"),
        ({"conv1_1": {"units": {"1 blue": 1, "1 red": 1}}}, "1 is named twice"),
        ({"conv1_1": {"pairs": {"1 & 1": 1}}}, "must begin with two units"),
        ({"conv1_1": {"gian": 1}}, "no 'gian' in style_edit.conv1_1, the fields are gain, weight, paintings, units, pairs,"),
        ({"conv1_1": {"units": {"0": {"gian": 1}}}}, "no 'gian' in style_edit.conv1_1.units.0, the fields are gain, weight"),
        ({"conv1_1": 2}, "style_edit.conv1_1 is 2: must be a table"),
        ({"conv1_1": {"directions": [{"gain": 2}]}}, "style_edit.conv1_1.directions.0.units is missing"),
        ({"conv1_1": {"directions": [{"gain": 2, "units": {"0": 0}}]}}, "components of a direction are all 0"),
        ({"conv1_1": {"directions": [{"gain": 2, "units": {"0": float("inf")}}]}}, "should be a finite number"),
        ({"conv1_1": {"paintings": [0, 0]}}, "all 0"),
    ],
)
def test_edits_that_cannot_be_are_refused_by_name(layers, said):
    with pytest.raises(BadRecipe) as error:
        recipe_with(**layers)
    assert said in str(error.value)


def test_units_and_paintings_that_there_are_not_are_refused():
    with pytest.raises(BadRecipe, match="unit 6 of conv2_1, which has the units 0 to 5"):
        check_edit(recipe_with(conv2_1={"pairs": {"2&6": 2}}), tiny_net())
    before = make_recipe(**{**KNOBS, "style_layers": {"conv2_1:pre": 1.0}}, style_edit={"conv2_1:pre": {"gain": 2}})
    with pytest.raises(BadRecipe, match="edited behind the ReLU"):
        check_edit(before, tiny_net())
    with pytest.raises(BadRecipe, match="shares of 2 paintings in conv1_1, the style pictures are 1"):
        check_fit(picture(40, 48), [picture(40, 48)], recipe_with(conv1_1={"paintings": [1, 1]}), None)


def test_a_pair_out_of_reach_gives_a_warning():
    recipe = recipe_with(conv2_1={"pairs": {"0&3": 50}})
    with pytest.warns(UserWarning, match=r"conv2_1: the pair 0&3 .* reached"):
        make_targets(picture(40, 48), [picture(44, 48, 1)], recipe, tiny_net())


def test_a_direction_that_asks_for_less_than_nothing_gives_a_warning():
    recipe = recipe_with(conv2_1={"directions": [{"gain": 0, "units": {"0": 1, "1": 1, "2": -1, "3": 1}}]})
    with pytest.warns(UserWarning, match=r"conv2_1: .* % of the edited style is below 0"):
        make_targets(picture(40, 48), [picture(44, 48, 1)], recipe, tiny_net())


def test_pairs_are_named_the_smaller_first():
    assert pair_of(" 20 &3: foam") == (3, 20)
