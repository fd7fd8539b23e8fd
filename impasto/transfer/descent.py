"""The one optimisation loop: descend on the pixels of a picture, or on other parameters of it (its canvas), a Step at a time.

A cost is any function of (B, 3, H, W) in [0, 1] that returns named scalars, "total" among them. Pixels stay in [0, 1].
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial, reduce

import torch
from torch import Tensor

from impasto.errors import ImpastoError
from impasto.nets.kernels import widest
from impasto.objective.losses import Cost
from impasto.transfer.canvas import PIXELS, Canvas, movable, project, soften

FIRST_MOVE = 0.05  # the most that a pixel moves in the first step of L-BFGS, before any curvature is known
SUFFICIENT = 1e-4  # Armijo's constant (Nocedal & Wright 2006, eq. 3.4)
TRIALS = 12
BETAS, EPSILON = (0.9, 0.99), 1e-8
PIECE = 2**21  # elements to multiply at a time


@dataclass(frozen=True)
class State:
    """All that the rest of a descent depends on.

    `x` are the parameters, (1, 3, H, W) where they are pixels, with the gradient and the costs there; `i` steps are done; `memory`
    is the optimiser's; `truncated` says that a time limit has left out steps; `canvas` turns x into a picture.
    """

    x: Tensor
    gradient: Tensor
    costs: dict[str, float]
    i: int = 0
    memory: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)
    truncated: bool = False
    canvas: Canvas = PIXELS

    @property
    def image(self) -> Tensor:
        """The picture (B, 3, H, W) in [0, 1]."""
        return self.canvas.image(self.x.detach())


def can_resume(state: State, optimizer: str) -> bool:
    """Whether a state that was read from a file is complete and belongs to this optimiser."""
    shape, pairs = state.x.shape, len(state.memory.get("s", ()))
    expected = {"lbfgs": {"s": [shape] * pairs, "y": [shape] * pairs}, "adam": {"moments": [shape, shape, ()]}, "gd": {}}
    found = {name: [tensor.shape for tensor in its] for name, its in state.memory.items()}
    return state.gradient.shape == shape and "total" in state.costs and found in ({}, expected[optimizer])


def moved(state: State, device: torch.device) -> State:
    """The state on this device."""
    memory = {name: tuple(tensor.to(device) for tensor in tensors) for name, tensors in state.memory.items()}
    return replace(state, x=state.x.to(device), gradient=state.gradient.to(device), memory=memory)


@dataclass(frozen=True)
class Step:
    """One step of the optimiser, number i of `of`, on a picture with the longer side `scale`; `costs` are those of `image`."""

    i: int
    of: int
    scale: int
    costs: dict[str, float]
    seconds: float
    state: State

    @property
    def image(self) -> Tensor:
        """The picture (B, 3, H, W), a new tensor each time."""
        return self.state.image.clone()


def begin(x: Tensor, cost: Cost, i: int = 0, truncated: bool = False, canvas: Canvas = PIXELS) -> State:
    """The state before step i + 1, from a picture (1, 3, H, W) or the canvas' other parameters."""
    x = project(x.detach().clone(), canvas)
    costs, gradient = evaluate(cost, x, canvas)
    return State(x, gradient, costs, i, truncated=truncated, canvas=canvas)


@dataclass(frozen=True)
class Optimizer:
    """`name` is one of OPTIMIZERS, `lr` its step size. L-BFGS remembers `history` steps and starts from 1 / f^falloff (soften).

    `wraps` are the axes (rows, columns) on which the picture is periodic.
    """

    name: str = "lbfgs"
    lr: float = 1.0
    history: int = 10
    falloff: float = 0.0
    wraps: tuple[bool, bool] = (False, False)


def descend(cost: Cost, state: State, until: int, of: int, optimizer: Optimizer) -> Iterator[Step]:
    """The steps state.i + 1 to `until`; fewer if no direction leads further down.

    From the state of any Step the descent continues to the same picture. Raises ImpastoError if cost or gradient are not finite.
    """
    take = OPTIMIZERS[optimizer.name]
    while state.i < until:
        begun = time.monotonic()
        after = take(cost, state, optimizer)
        i = until if after is state else state.i + 1
        state = replace(after, i=i)
        yield Step(i, of, max(state.canvas.size or state.x.shape[-2:]), state.costs, time.monotonic() - begun, state)


def evaluate(cost: Cost, x: Tensor, canvas: Canvas) -> tuple[dict[str, float], Tensor]:
    """The costs of the picture with parameters x, and the gradient of their total to x."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        costs = cost(canvas.image(x))
        (gradient,) = torch.autograd.grad(costs["total"], x)
    values = {name: float(value.detach()) for name, value in costs.items()}
    if not (math.isfinite(values["total"]) and bool(gradient.isfinite().all())):
        raise ImpastoError(f"the cost or its gradient is not finite (J = {values['total']}): lower the weights or lr")
    return values, gradient


def gradient_descent(cost: Cost, state: State, optimizer: Optimizer) -> State:
    """G := G - lr dJ/dG, clipped to the canvas' bounds: the textbook form."""
    x = project(state.x - optimizer.lr * state.gradient, state.canvas)
    costs, gradient = evaluate(cost, x, state.canvas)
    return replace(state, x=x, gradient=gradient, costs=costs)


def adam(cost: Cost, state: State, optimizer: Optimizer) -> State:
    """Kingma & Ba 2014 (arXiv:1412.6980, algorithm 1), clipped to the canvas' bounds after each step."""
    mean, square, count = state.memory.get("moments") or _no_moments(state.x)
    count = count + 1
    mean = torch.lerp(state.gradient, mean, BETAS[0])
    square = torch.lerp(state.gradient.square(), square, BETAS[1])
    corrected, spread = mean / (1 - BETAS[0] ** float(count)), (square / (1 - BETAS[1] ** float(count))).sqrt()
    x = project(state.x - optimizer.lr * corrected / (spread + EPSILON), state.canvas)
    costs, gradient = evaluate(cost, x, state.canvas)
    return replace(state, x=x, gradient=gradient, costs=costs, memory={"moments": (mean, square, count)})


def _no_moments(x: Tensor) -> tuple[Tensor, ...]:
    zeros = torch.zeros_like(x)
    return zeros, zeros, torch.zeros(())


def lbfgs(cost: Cost, state: State, optimizer: Optimizer) -> State:
    """L-BFGS (Nocedal & Wright 2006, algorithm 7.4) on the pixels that are free to move, along a path projected to the bounds.

    Pixels at a bound that the negative gradient points across stay (Bertsekas 1982, projected Newton). A step that does not go down
    far enough is shortened until it does. Returns the same state if there is no way down.
    """
    direction = _direction(state, partial(soften, falloff=optimizer.falloff, wraps=optimizer.wraps))
    after = _search(cost, state, direction, optimizer.lr)
    if after is None:
        return lbfgs(cost, replace(state, memory={}), optimizer) if state.memory else state
    s, y = after.x - state.x, after.gradient - state.gradient
    memory = state.memory
    if _dot(s, y) > 1e-10 * _dot(y, y) > 0:
        memory = {name: (*memory.get(name, ()), new)[-optimizer.history :] for name, new in (("s", s), ("y", y))}
    return replace(after, memory=memory)


OPTIMIZERS: dict[str, Callable[[Cost, State, Optimizer], State]] = {"lbfgs": lbfgs, "adam": adam, "gd": gradient_descent}


def _direction(state: State, first: Callable[[Tensor], Tensor]) -> Tensor:
    """Minus the inverse Hessian times the gradient, both of the free pixels: the two-loop recursion.

    `first` is the first approximation of the inverse Hessian.
    """
    free = movable(state.x, state.gradient, state.canvas).to(state.x.dtype)
    q = state.gradient * free  # 0 where a pixel is not free, so that s and y need no mask in products with q
    pairs = zip(state.memory.get("s", ()), state.memory.get("y", ()), strict=True)
    curved = [(s, y, sy) for s, y in pairs if (sy := _dot(s, free, y)) > 1e-10 * _dot(y, free, y) > 0]
    if not curved:
        q = first(q).mul_(free)
        return q.mul_(-FIRST_MOVE / max(float(q.abs().max()), 1e-30))
    shares = []
    for s, y, sy in reversed(curved):
        shares.append(_dot(s, q) / sy)
        q.addcmul_(y, free, value=-shares[-1])
    s, y, sy = curved[-1]
    y = y * free
    q = first(q).mul_(free).mul_(sy / _dot(y, first(y)))
    for (s, y, sy), share in zip(curved, reversed(shares), strict=True):
        q.addcmul_(s, free, value=share - _dot(y, q) / sy)
    return q.mul_(-1)


def _search(cost: Cost, state: State, direction: Tensor, t: float) -> State | None:
    """The first point along the projected path with a sufficient decrease; None if there is none within TRIALS."""
    J = state.costs["total"]
    for _ in range(TRIALS):
        x = project(state.x + t * direction, state.canvas)
        slope = _dot(state.gradient, x - state.x)
        if slope >= 0:
            return None
        costs, gradient = evaluate(cost, x, state.canvas)
        rise = costs["total"] - J
        if rise <= SUFFICIENT * slope:
            return replace(state, x=x, gradient=gradient, costs=costs)
        t *= min(0.5, max(0.1, -slope / (2 * (rise - slope))))  # the minimum of the parabola through both values and the slope
    return None


def _dot(*factors: Tensor) -> float:
    """The sum over all elements of the product of the factors, in float64."""
    pieces = zip(*(torch.split(x.reshape(-1), PIECE) for x in factors), strict=True)
    return sum(float(reduce(torch.mul, parts).sum(dtype=widest(factors[0]))) for parts in pieces)
