"""The loop on costs whose minimum is known, its bounds, and its exact continuation."""

import weakref
from itertools import pairwise

import numpy as np
import pytest
import scipy.optimize
import torch

from impasto.errors import ImpastoError
from impasto.transfer.canvas import Canvas
from impasto.transfer.descent import OPTIMIZERS, Optimizer, State, begin, descend
from tests.conftest import picture


def quadratic(target: torch.Tensor, curvature: torch.Tensor):
    """Half a weighted sum of squares around `target`: {"total": scalar}."""
    return lambda x: {"total": 0.5 * (curvature * (x - target).square()).sum()}


def run(cost, start: torch.Tensor, steps: int, optimizer: Optimizer) -> list:
    return list(descend(cost, begin(start, cost), steps, steps, optimizer))


CURVATURE = torch.linspace(1, 50, 75).view(1, 3, 5, 5)
SETTINGS = {"lbfgs": Optimizer("lbfgs"), "adam": Optimizer("adam", lr=0.01), "gd": Optimizer("gd", lr=0.02)}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_finds_the_minimum(name):
    target = picture(5, 5)
    last = run(quadratic(target, CURVATURE), picture(5, 5, 1), 400, SETTINGS[name])[-1]
    torch.testing.assert_close(last.image, target, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pixels_stay_in_range_and_reach_the_bounded_minimum(name):
    target = 3 * picture(5, 5) - 1
    assert target.min() < 0 and target.max() > 1
    steps = run(quadratic(target, CURVATURE), picture(5, 5, 1), 400, SETTINGS[name])
    assert all(step.image.min() >= 0 and step.image.max() <= 1 for step in steps)
    torch.testing.assert_close(steps[-1].image, target.clamp(0, 1), atol=2e-3, rtol=0)


@pytest.mark.parametrize("falloff", [0.0, 1.0])
def test_bounded_lbfgs_agrees_with_scipys(falloff):
    """A quartic with coupled pixels, against L-BFGS-B."""
    generator = torch.Generator().manual_seed(2)
    A = torch.randn(48, 48, generator=generator, dtype=torch.float64)
    b = 4 * torch.randn(48, generator=generator, dtype=torch.float64)

    def cost(x):
        r = A @ x.flatten().double() - b
        return {"total": (r.square().sum() + 0.1 * r.pow(4).sum()).float() if x.dtype == torch.float32 else r.square().sum()}

    def value(x):
        x = torch.from_numpy(x).requires_grad_()
        r = A @ x - b
        J = r.square().sum() + 0.1 * r.pow(4).sum()
        J.backward()
        return J.item(), x.grad.numpy()

    reference = scipy.optimize.minimize(value, np.full(48, 0.5), jac=True, method="L-BFGS-B", bounds=[(0, 1)] * 48)
    last = run(cost, torch.full((1, 3, 4, 4), 0.5), 500, Optimizer("lbfgs", falloff=falloff))[-1]
    assert last.costs["total"] == pytest.approx(reference.fun, rel=1e-3)


def test_lbfgs_never_goes_up():
    cost = lambda x: {"total": (x - 0.3).abs().pow(1.5).sum() + (8 * x).sin().sum()}  # noqa: E731
    J = [step.costs["total"] for step in run(cost, picture(6, 6), 60, Optimizer("lbfgs"))]
    assert all(later <= earlier + 1e-6 for earlier, later in pairwise(J))


def test_plain_descent_is_the_textbook_formula():
    """G := G - lr dJ/dG, by hand."""
    target, G = picture(5, 5), picture(5, 5, 1)
    cost = quadratic(target, CURVATURE)
    steps = run(cost, G, 3, Optimizer("gd", lr=0.01))
    for step in steps:
        G = G - 0.01 * CURVATURE * (G - target)
        torch.testing.assert_close(step.image, G)


def test_adam_is_torchs():
    """Against torch.optim.Adam, where no bound is touched."""
    target, G = 0.2 + 0.6 * picture(5, 5), 0.2 + 0.6 * picture(5, 5, 1)
    ours = run(quadratic(target, CURVATURE), G, 5, Optimizer("adam", lr=0.01))[-1].image
    x = G.clone().requires_grad_()
    theirs = torch.optim.Adam([x], lr=0.01, betas=(0.9, 0.99))
    for _ in range(5):
        theirs.zero_grad()
        quadratic(target, CURVATURE)(x)["total"].backward()
        theirs.step()
    torch.testing.assert_close(ours, x.detach(), atol=1e-5, rtol=0)


def test_the_costs_of_a_step_are_those_of_its_image():
    cost = quadratic(picture(5, 5), CURVATURE)
    for name in OPTIMIZERS:
        for step in run(cost, picture(5, 5, 1), 4, SETTINGS[name]):
            assert step.costs["total"] == cost(step.image)["total"].item()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_of_a_step_continues_to_the_same_picture(name):
    cost = quadratic(3 * picture(5, 5) - 1, CURVATURE)
    whole = run(cost, picture(5, 5, 1), 12, SETTINGS[name])
    rest = list(descend(cost, whole[4].state, 12, 12, SETTINGS[name]))
    assert [step.i for step in rest] == list(range(6, 13))
    assert torch.equal(rest[-1].image, whole[-1].image)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_canvas_without_bounds_has_none(name):
    """Twice the picture as x, unbounded: the descent passes 1 on its way to the minimum."""
    doubled = Canvas(lambda x: 0.5 * x, -torch.inf, torch.inf)
    cost = quadratic(picture(5, 5), 4 * CURVATURE)
    state = begin(torch.full((1, 3, 5, 5), -1.0), cost, canvas=doubled)
    last = list(descend(cost, state, 600, 600, SETTINGS[name]))[-1]
    torch.testing.assert_close(last.image, picture(5, 5), atol=5e-3, rtol=0)
    assert last.state.x.max() > 1


def test_a_steps_image_is_its_own():
    steps = run(quadratic(picture(5, 5), CURVATURE), picture(5, 5, 1), 3, Optimizer("gd", lr=0.01))
    steps[0].image.zero_()
    assert steps[0].state.x.abs().sum() > 0 and steps[1].image.abs().sum() > 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_descent_keeps_nothing_of_earlier_steps_but_what_lbfgs_remembers(name):
    cost, optimizer = quadratic(picture(8, 9, 1), torch.linspace(1, 30, 3 * 8 * 9).view(1, 3, 8, 9)), Optimizer(name, 0.01, 2)
    seen: list[weakref.ref] = []
    for step in descend(cost, begin(picture(8, 9), cost), 9, 9, optimizer):
        kept = [step.state.x, step.state.gradient, *(it for its in step.state.memory.values() for it in its)]
        seen += [weakref.ref(it) for it in kept if id(it) not in {id(ref()) for ref in seen}]
        alive = [ref for ref in seen if ref() is not None]
        assert len(alive) == len(kept)


def test_descent_ends_where_nothing_leads_down():
    target = picture(5, 5)
    cost = quadratic(target, CURVATURE)
    steps = run(cost, target, 50, Optimizer("lbfgs"))
    assert len(steps) == 1 and steps[0].i == 50 and torch.equal(steps[0].image, target)


def test_a_cost_that_is_not_finite_fails_loudly():
    with pytest.raises(ImpastoError, match="not finite"):
        begin(picture(5, 5), lambda x: {"total": (x.sum() - x.sum()).log()})
    assert isinstance(begin(picture(5, 5), quadratic(picture(5, 5), CURVATURE)), State)
