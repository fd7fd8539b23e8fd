"""The planner: what is predicted grows as it must, and what is chosen fits and is the fastest. Peaks are measured in bench."""

import re

import pytest

from impasto.errors import NoRoom
from impasto.objective.tiles import Tiling
from impasto.recipe.recipe import make_recipe
from impasto.transfer.memory_plan import make_plan, read_plan, written
from tests.conftest import tiny_net

RECIPE = make_recipe(style_layers={"conv1_1": 1, "conv3_1": 1}, content_layers={"conv2_1": 1})
NET = tiny_net()


def plan(side: int, budget: float, recipe=RECIPE, held: float = 1e6):
    return make_plan(NET, recipe, (side, side), side * side, held, budget)


def test_what_fits_whole_is_not_tiled():
    assert plan(512, 1e12).tiling is None and plan(512, 1e12).history == RECIPE.history


@pytest.mark.usefixtures("no_holes")
def test_less_memory_means_tiles_then_a_shorter_history_then_no():
    whole = plan(1024, 1e12).peak
    tiled = plan(1024, 0.8 * whole)
    assert isinstance(tiled.tiling, Tiling) and tiled.history == RECIPE.history and tiled.peak <= 0.8 * whole
    short = next(p for share in range(60, 0, -1) if (p := plan(1024, share / 100 * whole)).history < RECIPE.history)
    assert short.history >= 1 and short.tiling is not None
    with pytest.raises(NoRoom, match="1024 x 1024 pixels need") as refused:
        plan(1024, 2e6)
    needed = float(re.search(r"need (\d+) MB", str(refused.value))[1]) * 1e6
    assert plan(1024, needed + 1e6).history == 1
    with pytest.raises(NoRoom):
        plan(1024, needed - 1e6)


def test_the_plan_always_fits_and_more_memory_is_never_slower_to_use():
    peaks = [plan(2048, budget * 1e6).peak for budget in range(1000, 4000, 250)]
    assert all(peak <= budget * 1e6 for peak, budget in zip(peaks, range(1000, 4000, 250), strict=True))


def test_only_lbfgs_has_a_history_to_shorten():
    adam = RECIPE.model_copy(update={"optimizer": "adam"})
    assert plan(512, 1e12, adam).peak < plan(512, 1e12).peak
    with pytest.raises(NoRoom):
        plan(1024, 60e6, adam)


@pytest.mark.parametrize("budget", [1e12, 700e6])
def test_sides_that_meet_take_more_memory_and_not_much(budget):
    seamless = RECIPE.model_copy(update={"seamless": "both"})
    edged, wrapped = plan(1024, budget), plan(1024, budget, seamless)
    assert edged.way == wrapped.way and edged.peak < wrapped.peak < 1.5 * edged.peak


def test_a_plan_is_read_as_it_was_written():
    for budget in (1e12, 700e6):
        made = plan(1024, budget)
        again = read_plan(written(made))
        assert (again.tiling, again.history) == (made.tiling, made.history)
