"""Knobs changed while a picture is painted: recorded with their step, so that the same recipe paints the same picture again."""

import pytest

from impasto.errors import BadRecipe
from impasto.images.images import read_record
from impasto.recipe.recipe import make_recipe
from impasto.transfer.checkpoint import checkpoint_path
from impasto.transfer.painting import recipe_of
from impasto.transfer.transfer import stylize
from tests.conftest import picture, save, tiny_net
from tests.test_painting import KNOBS, finish, made, tiny  # noqa: F401  the tiny net for paintings on disk


@pytest.fixture
def files(tmp_path):
    return save(tmp_path / "photo.png", picture(30, 40)), save(tmp_path / "style.png", picture(36, 36, 1)), tmp_path / "out.png"


def steps_of(**knobs):
    return list(stylize(picture(30, 40), [picture(36, 36, 1)], make_recipe(**{**KNOBS, **knobs}), tiny_net()))


def test_up_to_its_step_a_change_changes_nothing_and_from_there_on_it_counts():
    plain, changed = steps_of(), steps_of(changes={7: {"beta": 30.0}})
    for a, b in zip(plain[:7], changed[:7], strict=True):
        assert a.image.equal(b.image) and a.costs == b.costs
    for step in changed[7:]:
        assert step.costs["total"] == pytest.approx(step.costs["content"] + 30 * step.costs["style"])
    assert not plain[-1].image.equal(changed[-1].image)


def test_a_change_where_the_scale_changes_is_a_descent_with_the_new_knobs_from_there():
    whole = steps_of(changes={5: {"beta": 30.0}})
    recipe = make_recipe(**{**KNOBS, "beta": 30.0})
    from_there = list(stylize(picture(30, 40), [picture(36, 36, 1)], recipe, tiny_net(), resume=whole[4].state))
    assert from_there[-1].image.equal(whole[-1].image)


def test_changing_on_the_way_paints_what_the_recorded_recipe_paints(files):
    painting = made(files)
    for step in painting.steps():
        if step.i in (2, 7):
            painting.change({"beta": 10.0 * step.i})
    recipe = recipe_of(files[2])
    assert recipe.changes == {2: {"beta": 20.0}, 7: {"beta": 70.0}}
    assert recipe.at_last().beta == 70 and recipe.beta == KNOBS["beta"]
    live = files[2].read_bytes()
    files[2].unlink()
    assert finish(made(files, changes=recipe.changes)) == live
    assert read_record(files[2])["recipe"]["changes"] == {"2": {"beta": 20.0}, "7": {"beta": 70.0}}


def test_the_report_counts_as_the_last_change_says(files):
    painting = made(files, changes={4: {"beta": 7.0, "tv": 0.5}})
    finish(painting)
    costs = painting.report()["costs"]
    assert costs["total"] == pytest.approx(costs["content"] + 7 * costs["style"] + 0.5 * costs["tv"])


@pytest.mark.parametrize(("change", "killed"), [(4, 4), (4, 6), (4, 9)])
def test_a_killed_run_with_a_change_resumes_to_the_same_bytes(files, change, killed):
    """Also where the last checkpoint was written before the change was made."""
    expected = finish(made(files, changes={change: {"beta": 9.0}}))
    files[2].unlink()
    painting = made(files) if killed == change else made(files, changes={change: {"beta": 9.0}})
    steps = painting.steps()
    for step in steps:
        if step.i == killed:
            checkpoint_path(files[2]).rename(files[2].with_name("kept"))
            break
    steps.close()
    files[2].with_name("kept").rename(checkpoint_path(files[2]))
    assert finish(made(files, changes={change: {"beta": 9.0}}), resume=True) == expected


def test_a_checkpoint_from_behind_another_change_is_not_used(files):
    steps = made(files, changes={2: {"beta": 9.0}}).steps()
    for step in steps:
        if step.i == 5:
            break
    steps.close()
    with pytest.raises(BadRecipe, match="changes differ"):
        finish(made(files, changes={2: {"beta": 8.0}}), resume=True)


def test_a_file_of_changes_is_read(tmp_path):
    (tmp_path / "changes.toml").write_text("[60]\nbeta = 30\n")
    assert make_recipe(changes=str(tmp_path / "changes.toml")).at(60).beta == 30


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({3: {"size": 64}}, "size"),
        ({0: {"beta": 2}}, "greater than or equal to 1"),
        ({3: {"beta": -2}}, "beta"),
        ({3: {"style_layers": {"conv1_1": 1.0}}}, "other layers"),
        ({3: {"alpha": 0, "beta": 0}}, "nothing to minimise"),
    ],
)
def test_a_change_that_is_not_possible_gives_a_one_line_error(changes, said):
    with pytest.raises(BadRecipe, match=said) as error:
        make_recipe(changes=changes)
    assert "\n" not in str(error.value)
