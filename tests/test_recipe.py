"""Knobs, presets, bounds: what is allowed is kept, what is not is said in one line."""

import json
import os
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impasto.errors import BadRecipe
from impasto.nets.nets import NETS
from impasto.recipe.recipe import (
    CONTENT_LAYER,
    MOST_REGIONS,
    PRESETS,
    QUALITIES,
    STYLE_LAYERS,
    Recipe,
    changed_recipe,
    checked_recipe,
    make_recipe,
)


def test_every_knob_has_its_help():
    assert all(field.description for field in Recipe.model_fields.values())


@pytest.mark.parametrize("preset", PRESETS)
def test_a_recipe_survives_json(preset):
    recipe = make_recipe(preset)
    assert recipe.preset == preset
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_presets_layers_exist_in_every_net(preset, name):
    recipe = make_recipe(preset, net=name)
    channels = {x.name: x.channels for x in NETS[name] if hasattr(x, "channels")}
    assert {*recipe.style_layers, *recipe.content_layers} <= channels.keys()
    assert STYLE_LAYERS[name].items() <= channels.items() and CONTENT_LAYER[name] in channels


def test_recipe_and_nets_name_the_same_nets():
    assert {*Recipe.model_fields["net"].annotation.__args__} == {*NETS} == {*STYLE_LAYERS} == {*CONTENT_LAYER}


def test_gatys_has_the_authors_weights():
    recipe = make_recipe("gatys")
    assert recipe.style_layers == {
        "conv1_1": 1e3 / 64**2,
        "conv2_1": 1e3 / 128**2,
        "conv3_1": 1e3 / 256**2,
        "conv4_1": 1e3 / 512**2,
        "conv5_1": 1e3 / 512**2,
    }
    assert (recipe.alpha, recipe.beta, recipe.content_layers, recipe.init) == (1, 1, {"conv4_2": 1.0}, "content")
    assert recipe.scales() == [(512, 500)] and make_recipe("gatys", size=800).scales() == [(512, 500), (800, 200)]


def test_course_has_the_courses_weights():
    recipe = make_recipe("course")
    assert (recipe.alpha, recipe.beta, set(recipe.style_layers.values())) == (10, 40, {0.2})
    assert len(recipe.style_layers) == 5


def test_textbook_is_noise_of_100_and_plain_descent():
    recipe = make_recipe("textbook")
    assert (recipe.size, recipe.init, recipe.optimizer) == (100, "noise", "gd")


def test_gatys2015_is_the_papers():
    recipe = make_recipe("gatys2015")
    assert recipe.normalize_net and recipe.pooling == "avg" and recipe.alpha / recipe.beta == pytest.approx(1e-3)
    assert (recipe.content_norm, recipe.style_norm, set(recipe.style_layers.values())) == ("paper", "paper", {0.2})


@given(size=st.integers(16, 16384), coarsest=st.integers(16, 16384))
def test_scales_grow_from_the_coarsest_by_at_most_two(size, coarsest):
    scales = make_recipe(size=size, coarsest=coarsest).scales()
    sides = [side for side, _ in scales]
    assert sides[0] == min(size, coarsest) and sides[-1] == size
    assert all(a < b <= 2 * a + 1 for a, b in pairwise(sides))


def test_steps_fall_evenly_from_coarse_to_fine():
    assert make_recipe(size=1024, coarsest=128, steps=80, fine_steps=10).scales() == [(128, 80), (256, 40), (512, 20), (1024, 10)]


def test_quality_multiplies_the_presets_steps_and_what_is_given_wins():
    draft, standard, fine = (make_recipe(quality=quality) for quality in ("draft", "standard", "fine"))
    assert standard == make_recipe() and draft.fine_steps < standard.fine_steps < fine.fine_steps
    work = [sum(steps * side**2 for side, steps in recipe.scales()) for recipe in (draft, standard, fine)]
    assert 4 * work[0] < work[1] and 2 * work[1] < work[2]
    assert make_recipe(quality="draft", steps=33).steps == 33
    assert make_recipe("gatys", quality="fine").steps == 750 and make_recipe("gatys", quality="draft").fine_steps == 20
    with pytest.raises(BadRecipe, match="quality"):
        make_recipe(quality="sketch")


def test_larger_sizes_share_their_coarse_scales():
    sides = [[side for side, _ in make_recipe(size=size, coarsest=256).scales()] for size in (256, 512, 1024)]
    assert sides == [[256], [256, 512], [256, 512, 1024]]


def test_texts_of_the_command_line_are_understood():
    recipe = make_recipe(style_layers="conv1_1=0.5, conv3_1", style_weights="2,1")
    assert recipe.style_layers == {"conv1_1": 0.5, "conv3_1": 1.0} and recipe.style_weights == (2.0, 1.0)


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"size": 3}, "size is 3: .*16"),
        ({"size": 512.5}, "size is 512.5"),
        ({"beta": -1}, "beta is -1: .*0"),
        ({"beta": float("nan")}, "beta is nan"),
        ({"pooling": "l2"}, "pooling is 'l2': .*'max' or 'avg'"),
        ({"brush": 1}, "no knob 'brush', the knobs are preset, quality, size"),
        ({"style_layers": "conv1_1=-1"}, "style_layers.conv1_1 is '-1'"),
        ({"style_layers": "conv1_1=x"}, "style_layers.conv1_1 is 'x'"),
        ({"alpha": 0, "beta": 0}, "nothing to minimise"),
        ({"style_weights": "0,0"}, "all 0"),
        ({"preset": "monet"}, "preset is 'monet', must be one of impasto, gatys"),
        ({"preset": 3}, "preset is 3"),
        ({"style_layers": "..conv9_1"}, "style_layers is '..conv9_1', must go from one of conv1_1, .* to another"),
        ({"style_layers": "conv3_1..conv1_1"}, "style_layers is 'conv3_1..conv1_1', must go from one"),
        ({"preset": "inversion", "style_layers": "..conv1_1"}, "style_layers is '..conv1_1'"),
        ({"net": ["vgg19"]}, "net is \\['vgg19'\\]"),
        ({"preset": "absent.toml"}, "cannot read the recipe absent.toml"),
    ],
)
def test_a_wrong_recipe_gives_a_one_line_error(knobs, said):
    with pytest.raises(BadRecipe, match=said) as error:
        make_recipe(**knobs)
    assert "\n" not in str(error.value)


def test_a_toml_file_starts_from_a_name(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text(f'preset = "{own}"')
    with pytest.raises(BadRecipe, match="starts from one"):
        make_recipe(str(own))


def test_a_toml_file_is_a_preset_of_ones_own(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('preset = "course"\nsize = 300\nstyle_layers = { conv2_1 = 0.5 }\n')
    recipe = make_recipe(str(own), seed=7)
    assert (recipe.preset, recipe.size, recipe.alpha, recipe.seed, recipe.style_layers) == ("course", 300, 10, 7, {"conv2_1": 0.5})


def test_layers_up_to_one_have_the_presets_weights_and_fewer_count_for_more():
    """1/n of n layers, as in the paper."""
    assert make_recipe("course", style_layers="conv1_1..conv3_1").style_layers == pytest.approx(
        {"conv1_1": 1 / 3, "conv2_1": 1 / 3, "conv3_1": 1 / 3}
    )
    whole = make_recipe().style_layers
    assert make_recipe(style_layers="..").style_layers == make_recipe(style_layers="conv1_1..conv5_1").style_layers == whole
    assert make_recipe(style_layers="conv4_1..").style_layers["conv5_1"] == pytest.approx(2.5 * whole["conv5_1"])
    assert list(make_recipe(net="alexnet", style_layers="..conv2").style_layers) == ["conv1", "conv2"]


@pytest.mark.parametrize("net", NETS)
def test_a_texture_has_no_content_and_an_inversion_no_style(net):
    texture, inversion = (make_recipe(preset, net=net) for preset in ("texture", "inversion"))
    assert (texture.has_style, texture.has_content) == (True, False) and texture.content_layers == {}
    assert (inversion.has_style, inversion.has_content) == (False, True) and inversion.style_layers == {}
    assert texture.init == inversion.init == "noise" and len(inversion.scales()) == 1


@pytest.mark.parametrize("preset", PRESETS)
def test_another_quality_of_a_recipe_is_that_recipe_made_in_it(preset):
    """Whether it is asked for at once, or of a record: steps that nobody set are those of the quality."""
    for before, after in product(QUALITIES, QUALITIES):
        record = checked_recipe(json.loads(make_recipe(preset, quality=before, seed=3).model_dump_json()))
        assert changed_recipe(record, {"quality": after}) == make_recipe(preset, quality=after, seed=3)
    own = make_recipe(preset, quality="draft", fine_steps=7)
    assert changed_recipe(own, {"quality": "fine"}) == make_recipe(preset, quality="fine", fine_steps=7)


def test_a_recipe_from_anywhere_opens_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for knob in ("style_edit", "regions", "changes"):
        for text in (str(tmp_path / "fifo"), "/dev/zero", "edit.toml", ""):
            with pytest.raises(BadRecipe, match=f"{knob} is .*must be a table"):
                checked_recipe({**dict(make_recipe()), knob: text})
    with pytest.raises(BadRecipe, match=r"style_edit is .*must be a table"):
        checked_recipe({**dict(make_recipe()), "changes": {3: {"style_edit": str(tmp_path / "fifo")}}})
    with pytest.raises(BadRecipe, match="it is a pipe"):  # whoever gives a path is told of it
        make_recipe(regions=str(tmp_path / "fifo"))


def test_a_file_of_changes_may_name_a_file_of_edits_beside_it(tmp_path):
    (tmp_path / "edit.toml").write_text("[conv1_1]\ngain = 0.5\n")
    (tmp_path / "changes.toml").write_text('[3]\nstyle_edit = "edit.toml"\n')
    assert make_recipe(changes=tmp_path / "changes.toml").at(3).style_edit["conv1_1"].gain == 0.5


def test_more_regions_than_there_is_memory_for_are_refused_in_a_plain_line():
    regions = {str(n): {"mask": "light"} for n in range(MOST_REGIONS + 1)}
    with pytest.raises(BadRecipe, match=f"regions has more than {MOST_REGIONS} entries, the limit"):
        make_recipe(regions=regions)
