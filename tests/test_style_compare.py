"""Two styles compared: what remains sums to the cost that transfer reports, by its recipe, and too little is told from too much."""

from pathlib import Path

import numpy as np
import pytest

from impasto.errors import BadRecipe, ImpastoWarning
from impasto.images.images import read_picture, to_pillow, write_picture
from impasto.lens.style.compare import compare, recipe_for, summary_lines
from impasto.objective.objective import costs_of
from impasto.recipe.recipe import make_recipe
from tests.conftest import picture, save, tiny_net

KNOBS = {"content_layers": {"conv2_1": 1.0}, "style_layers": {"conv1_1": 0.3, "conv2_1": 2.0}, "size": 48, "style_scale": 1.25}
EDIT = {"conv2_1": {"gain": 1.5, "units": {"2": {"weight": 0.0}, "0": 2}}}


@pytest.fixture
def pictures(tmp_path) -> tuple[Path, Path, Path]:
    """A painting, a photograph, and what was painted of it."""
    return tuple(save(tmp_path / f"{name}.png", picture(*size)) for name, size in SIZES.items())


SIZES = {"painting": (50, 60, 1), "photo": (36, 48, 2), "painted": (36, 48, 3)}


FRAMED = {"seamless": "x", "style_rotation": 30.0, "size": 50}
CASES = [{"style_norm": norm, "style_edit": edit} for norm in ("mean", "paper") for edit in ({}, EDIT)]


@pytest.mark.parametrize("knobs", [*CASES, FRAMED], ids=["mean", "mean edited", "paper", "paper edited", "framed"])
def test_the_budget_sums_to_the_cost_that_transfer_reports(pictures, knobs):
    painting, photo, painted = pictures
    recipe, net = make_recipe(**{**KNOBS, **knobs}), tiny_net()
    about, _ = compare(painting, photo, painted, recipe, net)
    image, content, style = (read_picture(path).image for path in (painted, photo, painting))
    costs = costs_of(image, content, [style], recipe, net)
    assert about["generated"]["style"] == pytest.approx(costs["style"], rel=1e-5)
    total = 0.0
    for layer in about["generated"]["layers"]:
        for parts, rest in (("units", "units_rest"), ("pairs", "pairs_rest")):
            assert sum(it["cost"] for it in layer[parts]) + layer[rest] == pytest.approx(layer["cost"], rel=1e-12)
        assert layer["places"]["towards"] + layer["places"]["away"] == pytest.approx(layer["cost"], rel=1e-9)
        assert layer["places"]["towards"] <= 0 <= layer["places"]["away"]
        total += layer["weight"] * layer["cost"]
    assert total == pytest.approx(about["generated"]["style"], rel=1e-12)
    assert sum(layer["share"] for layer in about["generated"]["layers"]) == pytest.approx(1)


def test_a_painting_does_not_differ_from_itself(pictures):
    recipe = make_recipe(**{**KNOBS, "style_scale": 1.0})
    about, figure = compare(pictures[0], pictures[0], None, recipe, tiny_net())
    assert about["other"]["style"] == 0 and figure.width > 300 and "generated" not in about
    assert summary_lines(about) == ["painting.png against painting.png: style cost 0: the styles are equal"]


def test_the_summary_names_units_with_too_little_and_too_much(pictures, tmp_path):
    dark = tmp_path / "dark.png"
    to_pillow(0.3 * picture(50, 60, 1)).save(dark)
    recipe = make_recipe(**{**KNOBS, "style_scale": 1.0})
    net = tiny_net()
    about, _ = compare(pictures[0], dark, None, recipe, net)
    grams = {it["layer"]: it for it in about["other"]["layers"]}
    assert all(pair["cost"] >= 0 for layer in grams.values() for pair in layer["pairs"])
    said = "\n".join(summary_lines(about))
    assert "dark.png against painting.png: style cost" in said and "conv1_1" in said
    for unit in grams["conv1_1"]["units"][:3]:
        assert ("too much" if unit["excess"] > 0 else "too little") + f" of unit {unit['unit']}" in said


def test_the_recipe_is_that_of_the_picture_where_it_carries_one(tmp_path):
    recipe, file = make_recipe(size=64, seed=7), tmp_path / "painted.png"
    write_picture(file, picture(40, 64), record={"recipe": recipe.model_dump(mode="json")})
    assert recipe_for(file, "alexnet", 100) == recipe
    assert recipe_for(save(tmp_path / "plain.png", picture(40, 64)), "alexnet", 100) == make_recipe(net="alexnet", size=100)


def test_a_picture_painted_from_another_painting_gives_a_warning(pictures, tmp_path):
    painting, photo, _ = pictures
    file = tmp_path / "other.png"
    for styles, said in ((["0"], "from other paintings"), ([read_picture(painting).sha256, "0"], "from others too")):
        write_picture(file, picture(36, 48), record={"inputs": {"styles": styles}})
        with pytest.warns(ImpastoWarning, match=said):
            compare(painting, photo, file, make_recipe(**KNOBS), tiny_net())


def test_the_figure_is_orange_where_places_lead_away(pictures):
    _, figure = compare(pictures[0], pictures[1], pictures[2], make_recipe(**KNOBS), tiny_net())
    pixels = np.asarray(figure).astype(float)
    leaning = pixels[..., 0] - pixels[..., 2]
    assert (leaning > 40).any() and (leaning < -40).any()


@pytest.mark.parametrize(
    ("knobs", "said"),
    [({"style_costs": "gram,w2"}, "the style cost w2"), ({"regions": {"sky": {"mask": "light"}}}, "regions")],
)
def test_only_a_gram_cost_of_the_whole_picture_can_be_taken_apart(tmp_path, knobs, said):
    file = tmp_path / "painted.png"
    write_picture(file, picture(40, 64), record={"recipe": make_recipe(**knobs).model_dump(mode="json")})
    with pytest.raises(BadRecipe, match=f"painted with {said}: only a Gram cost"):
        recipe_for(file, "vgg19", 100)


def test_a_note_says_that_the_photographs_colours_count_as_a_difference(tmp_path):
    recipe = make_recipe(color="monge")
    write_picture(tmp_path / "a.png", picture(40, 64), record={"recipe": recipe.model_dump(mode="json")})
    with pytest.warns(ImpastoWarning, match=r"a\.png was painted in the photograph's colours"):
        assert recipe_for(tmp_path / "a.png", "vgg19", 100) == recipe
