"""A style taken apart: sums over places, planted textures, chance, and the cost divided among pairs and places."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from impasto.errors import BadImage, BadInput, BadRecipe
from impasto.images.images import read_picture
from impasto.lens.style import reading as style
from impasto.lens.style.difference import difference
from impasto.lens.style.reading import (
    LayerStyle,
    by_lift,
    by_value,
    chance,
    clustered,
    correlation,
    cross,
    direction_map,
    division,
    leading_directions,
    moves,
    pairs_apart,
    pairs_by_value,
    pairs_together,
    photograph_values,
    photographs,
    place_map,
    read_style,
    reference_values,
    style_layers,
)
from impasto.nets.nets import INPUTS, ConvShape, assemble, features
from impasto.objective.losses import entry_weights, gram_cost, mean_gram
from impasto.recipe.edit import LayerEdit
from tests.conftest import picture, save, tiny_net


def activations(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).relu()


def read(image: torch.Tensor, net, layers=("conv1_1", "conv2_1"), reference=None) -> list[LayerStyle]:
    return list(read_style(image, net, layers, reference or photograph_values([picture(40, 48, 7)], net, layers, 48)))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(style, "BLOCK", 7)


def test_the_gram_matrix_is_an_einsum_in_float64(small_blocks):
    a = activations(5, 6, 7)
    expected = np.einsum("ihw,jhw->ij", a.double().numpy(), a.double().numpy())
    np.testing.assert_allclose(cross(a, a).numpy(), expected, rtol=1e-14)


def test_what_the_places_add_sums_to_the_entry():
    a = activations(5, 40, 30)
    gram = cross(a, a)
    for i, j in ((0, 1), (2, 2), (4, 3)):
        assert float(place_map(a, i, j).sum()) == pytest.approx(float(gram[i, j]), rel=1e-12)


def test_what_the_places_add_along_a_direction_sums_to_its_eigenvalue():
    a = activations(6, 20, 30)
    strengths, directions = leading_directions(cross(a, a), 6)
    for n in range(6):
        assert float(direction_map(a, directions[:, n]).sum()) == pytest.approx(float(strengths[n]), rel=1e-9)
    torch.testing.assert_close((directions * strengths) @ directions.mT, cross(a, a))
    assert (directions.gather(0, directions.abs().argmax(0)[None]) > 0).all() and (strengths.diff() <= 0).all()


def test_permuting_the_places_changes_nothing_but_the_chance():
    a = activations(5, 12, 10)
    shuffled = a.flatten(1)[:, torch.randperm(120, generator=torch.Generator().manual_seed(1))].view_as(a)
    torch.testing.assert_close(cross(a, a), cross(shuffled, shuffled), rtol=1e-12, atol=0)
    torch.testing.assert_close(correlation(a), correlation(shuffled))


def test_the_correlation_is_numpys():
    a = activations(5, 12, 10)
    np.testing.assert_allclose(correlation(a).numpy(), np.corrcoef(a.flatten(1).double().numpy()), atol=1e-12)


def test_a_unit_that_is_the_same_everywhere_correlates_with_nothing():
    a = activations(3, 8, 9)
    a[1] = 0.3
    a[2] = 0
    assert (correlation(a)[1:] == 0).all() and (chance(a)[1:] == 0).all()


def test_chance_is_the_largest_correlation_of_moved_maps():
    a = activations(4, 11, 9)
    found = torch.zeros(4, 4, dtype=torch.float64)
    for dy, dx in moves(11, 9, 5):
        moved = np.roll(a.numpy(), (dy, dx), (1, 2))
        both = np.corrcoef(np.concatenate([a.flatten(1).numpy(), moved.reshape(4, -1)]).astype(np.float64))[:4, 4:]
        found = torch.maximum(found, torch.from_numpy(np.maximum(abs(both), abs(both.T))))
    torch.testing.assert_close(chance(a, 5).double(), found, atol=1e-6, rtol=0)


def test_shifts_keep_away_from_where_they_began():
    assert all(0.19 <= dy / 50 <= 0.81 and 0 <= dx <= 60 for dy, dx in moves(50, 60, 19)) and len(set(moves(50, 60, 19))) == 19


def test_independent_maps_stay_within_chance_and_bound_ones_do_not():
    a = activations(6, 60, 60)
    a[5] = (a[0] + 0.2 * a[4]) * 2
    beyond = (correlation(a) > 1.5 * chance(a)).triu(1).nonzero().tolist()
    assert beyond == [[0, 5], [4, 5]]


def stamped(*at: tuple[int, int], noise: float = 0.02) -> torch.Tensor:
    """Grey with stamps: at (x, kind), kind 0 a bright upright line, 1 a red square."""
    image = 0.5 + noise * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for y in (10, 30, 50):
        for x, kind in at:
            if kind == 0:
                image[..., y - 4 : y + 5, x] = 1.0
            else:
                image[:, 0, y - 2 : y + 3, x - 2 : x + 3] = 1.0
    return image.clamp(0, 1)


@pytest.fixture
def stamps():
    """A net of three filters: an upright line in green, a square that is redder than green, an edge."""
    weight = torch.zeros(3, 3, 5, 5)
    weight[0, 1, :, 2], weight[0, 1, :, 1], weight[0, 1, :, 3] = 1.0, -0.5, -0.5
    weight[1, 0], weight[1, 1] = 0.2, -0.2
    weight[2, :, 0], weight[2, :, 4] = 0.1, -0.1
    weights = {"conv1_1.weight": weight, "conv1_1.bias": torch.full((3,), -0.5)}
    return assemble("stamps", (ConvShape("conv1_1", 3, 3, size=5, padding=2),), weights, INPUTS["torchvision"])


def test_planted_textures_light_their_units_and_their_pair(stamps):
    reference = {"conv1_1": torch.ones(3, dtype=torch.float64)}
    nearby, far = (read(stamped(*at), stamps, ["conv1_1"], reference)[0] for at in ([(20, 0), (21, 1)], [(10, 0), (40, 1)]))
    for found in (nearby, far):
        assert set(by_value(found, 2)) == {0, 1}
    assert pairs_by_value(nearby, 1) == [(0, 1)] and pairs_together(nearby, 9)[0] == (0, 1)
    assert float(nearby.gram[0, 1]) > 20 * float(far.gram[0, 1]) and (0, 1) not in pairs_together(far, 9)
    lit = place_map(nearby.maps, 0, 1)
    assert float(lit[:, 16:26].sum()) == pytest.approx(float(lit.sum())) and float(lit[8:13].sum()) > 0.2 * float(lit.sum())


def test_textures_that_exclude_each_other_avoid_each_other():
    a = torch.zeros(2, 40, 40)
    stripes = (torch.arange(40) // 4 % 2).bool()
    a[0, :, stripes], a[1, :, ~stripes] = 1.0, 1.0
    a += 0.3 * activations(2, 40, 40)
    gram = cross(a, a) / 1600
    strengths, directions = leading_directions(gram, 2)
    found = LayerStyle("conv1_1", a, gram, correlation(a), 0.3 * chance(a).double(), gram.diagonal(), strengths, directions)
    assert pairs_apart(found, 5) == [(0, 1)] and pairs_together(found, 5) == []


def test_the_lift_is_over_photographs_and_ranks_what_is_noticed():
    net = tiny_net()
    reference = photograph_values([picture(40, 48, 3), picture(48, 30, 4)], net, ["conv2_1"], 40)
    maps = [
        features(net, style.resize_to(picture(*size), 40, net, []), ["conv2_1"])["conv2_1"] for size in ((40, 48, 3), (48, 30, 4))
    ]
    expected = torch.stack([mean_gram(a.double())[0].diagonal() for a in maps]).mean(0)
    torch.testing.assert_close(reference["conv2_1"], expected)
    (found,) = read(picture(40, 40, 9), net, ["conv2_1"], reference)
    torch.testing.assert_close(found.lift, found.values / expected)
    ranked = by_lift(found, 6)
    assert ranked == sorted(ranked, key=lambda n: -float(found.lift[n])) and all(found.lift[n] > 1 for n in ranked)


def test_the_bundled_photographs_are_looked_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("IMPASTO_CACHE", str(tmp_path))
    first = reference_values(None, tiny_net(), ["conv1_1"], 48)
    assert len(list(tmp_path.glob("photographs-*.safetensors"))) == 1
    monkeypatch.setattr(style, "photograph_values", None)
    torch.testing.assert_close(reference_values(None, tiny_net(), ["conv1_1"], 48), first)
    monkeypatch.undo()


def damaged(path: Path, how: str) -> None:
    data, values = bytearray(path.read_bytes()), safetensors.torch.load_file(path)
    data[-3] ^= 1
    others = {"NaN": {name: value * float("nan") for name, value in values.items()}, "names": {"a": torch.zeros(2)}, "none": {}}
    path.write_bytes(data if how == "a bit" else b"" if how == "empty" else safetensors.torch.save(others[how]))


@pytest.mark.parametrize("how", ["a bit", "empty", "NaN", "names", "none"])
def test_what_was_stored_of_the_photographs_is_made_anew_where_it_has_changed(monkeypatch, tmp_path, how):
    monkeypatch.setenv("IMPASTO_CACHE", str(tmp_path))
    first = reference_values(None, tiny_net(), ["conv1_1"], 48)
    (kept,) = tmp_path.glob("photographs-*.safetensors")
    damaged(kept, how)
    for _ in range(2):
        torch.testing.assert_close(reference_values(None, tiny_net(), ["conv1_1"], 48), first)
        monkeypatch.setattr("impasto.lens.style.reading.photographs", lambda _: pytest.fail("it has not been mended"))


def test_a_folder_of_photographs_takes_the_place_of_the_bundled_ones(tmp_path):
    shown = save(tmp_path / "one.png", picture(40, 48, 3))
    given = reference_values(tmp_path, tiny_net(), ["conv2_1"], 40)
    torch.testing.assert_close(given, photograph_values([read_picture(shown).image], tiny_net(), ["conv2_1"], 40))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadInput, match="no picture"):
        list(photographs(empty))


def test_clustering_brings_together_what_occurs_together():
    a = activations(6, 30, 30)
    a[4], a[5] = a[0] + 0.1 * a[4], a[1] + 0.1 * a[5]
    order = clustered(correlation(a))
    assert sorted(order) == list(range(6)) and all(abs(order.index(i) - order.index(i + 4)) == 1 for i in (0, 1))


def test_grey_pictures_lose_nothing_in_grey_and_soft_ones_nothing_when_soft():
    net = tiny_net()
    grey = picture(32, 40).mean(1, keepdim=True).expand(1, 3, 32, 40).contiguous()
    assert division(grey, read(grey, net), net)["conv1_1"]["tones"] == pytest.approx(1, abs=1e-6)
    colored = picture(32, 40)
    found = division(colored, read(colored, net), net)["conv1_1"]
    assert found["tones"] < 1 and found["colors"] < 1


def test_a_style_is_read_behind_the_relu_of_layers_that_there_are(net):
    assert style_layers(net, ["relu1_1", "conv2_1", "conv1_1"]) == ["conv1_1", "conv2_1"]
    with pytest.raises(BadRecipe, match="after the ReLU: use conv2_1"):
        style_layers(net, ["conv2_1:pre"])
    with pytest.raises(BadRecipe, match="no layer 'conv9'"):
        style_layers(net, ["conv9"])
    with pytest.raises(BadImage, match="too small"):
        style.resize_to(picture(8, 40), 40, net, ["conv1_1"])


# Where two styles differ


def test_the_budget_over_pairs_units_and_places_sums_to_the_style_cost():
    a, target = activations(6, 9, 11), mean_gram(activations(1, 6, 8, 7, seed=1).double())[0]
    found = difference("conv1_1", target, a)
    expected = float(gram_cost(target[None], mean_gram(a.double()[None])))
    for sums in (found.cost, float(found.pairs.sum()), float(found.units.sum()), float(found.places.sum())):
        assert sums == pytest.approx(expected, rel=1e-12)
    assert (found.pairs >= 0).all() and (found.places < 0).any() and (found.places > 0).any()


def test_the_budget_with_weights_sums_too():
    edit = LayerEdit(weight=0.5, units={"1": {"weight": 0}, "2": {"weight": 3}}, pairs={"0&4": {"weight": 7}})
    a, target = activations(6, 9, 11), mean_gram(activations(1, 6, 8, 7, seed=1).double())[0]
    weights = entry_weights(edit, 6)
    found = difference("conv1_1", target, a, weights)
    expected = float(gram_cost(target[None], mean_gram(a.double()[None]), weights))
    assert (found.pairs[1] == 0).all()
    for sums in (found.cost, float(found.units.sum()), float(found.places.sum())):
        assert sums == pytest.approx(expected, rel=1e-12)


def test_a_place_that_brings_the_picture_away_is_positive():
    a = torch.zeros(2, 1, 4)
    a[0, 0, :2], a[1, 0, 2:] = 1.0, 1.0
    target = torch.tensor([[0.5, 0.0], [0.0, 0.0]])
    found = difference("conv1_1", target, a)  # unit 1 is too much, unit 0 is as it should be
    assert (found.places[0, 2:] > 0).all() and float(found.excess[1, 1]) == 0.5 and float(found.excess[0, 0]) == 0
    torch.testing.assert_close(found.places[0, :2], torch.zeros(2, dtype=torch.float64))
