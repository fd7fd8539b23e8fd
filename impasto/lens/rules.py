"""Backward rules at ReLUs and max pools for projections onto the pixels; docs/lens.md has their sources.

Where pooling windows overlap, several can have the same switch. The paper does not say what to do then: `sum` adds them, as the
derivative does (our default); `overwrite` takes the last window (as max-unpooling layers do); `max` the largest value.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from impasto.errors import BadRecipe

# At a ReLU: from the signal on its way back and whether the ReLU was open.
RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "deconv": lambda signal, is_open: F.relu(signal),
    "guided": lambda signal, is_open: F.relu(signal) * is_open,
    "gradient": lambda signal, is_open: signal * is_open,
}
POOLINGS = ("sum", "overwrite", "max")


def check_rules(rule: str, pooling: str) -> None:
    """Raise BadRecipe for an unknown rule or pooling."""
    if rule not in RULES or pooling not in POOLINGS:
        raise BadRecipe(f"rule is {rule!r} and pooling {pooling!r}, must be of {', '.join(RULES)} and of {', '.join(POOLINGS)}")


def unpool(signal: Tensor, switches: Tensor, shape: torch.Size, pooling: str = "sum") -> Tensor:
    """(B, C, h, w) -> `shape` (B, C, H, W): each value at the position of its window's maximum, zero elsewhere; see POOLINGS.

    The switches are those of each of the batch, or one for all.
    """
    values, places = signal.flatten(2), switches.flatten(2).expand(len(signal), -1, -1)
    ground = signal.new_zeros(*shape[:2], shape[2] * shape[3])
    if pooling == "overwrite":  # scatter with equal positions has no defined order: first find the last window of each
        window = torch.arange(places.shape[2]).expand_as(places)
        last = torch.full_like(ground, -1, dtype=torch.long).scatter_reduce_(2, places, window, "amax")
        ground = torch.where(last >= 0, values.gather(2, last.clamp(min=0)), ground)
    elif pooling == "max":
        ground.scatter_reduce_(2, places, values, "amax", include_self=False)
    else:
        ground.scatter_add_(2, places, values)
    return ground.view(shape)


# The same through autograd, for nets with branches


@dataclass
class ChosenRules:
    """The rules of the backward pass. They are read there, so that one forward pass serves all rules."""

    rule: str = "gradient"
    pooling: str = "sum"


class _Rectified(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, chosen: ChosenRules) -> Tensor:
        ctx.chosen = chosen
        ctx.save_for_backward(x > 0)
        return x.clamp(min=0)  # not relu, which UnruledOps counts

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        return RULES[ctx.chosen.rule](signals[0], *ctx.saved_tensors), None


class _Pooled(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, chosen: ChosenRules, window: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        pooled, switches = F.max_pool2d(x, *window, return_indices=True)
        ctx.chosen, ctx.shape = chosen, x.shape
        ctx.save_for_backward(switches)
        ctx.mark_non_differentiable(switches)
        return pooled, switches

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        (switches,) = ctx.saved_tensors
        return unpool(signals[0], switches, ctx.shape, ctx.chosen.pooling), None, None


RELUS = (F.relu, torch.relu, Tensor.relu)
RELUS_IN_PLACE = (F.relu_, torch.relu_, Tensor.relu_)
POOLS = (F.max_pool2d, torch.max_pool2d)
POOLS_WITH_INDICES = (F.max_pool2d_with_indices,)


class RuledBackward(TorchFunctionMode):
    """While active, every ReLU and max pool (module, function or method, in place or not) has the rules as its backward."""

    def __init__(self, chosen: ChosenRules) -> None:
        super().__init__()
        self.chosen, self.pools = chosen, 0
        self.rectified: dict[int, tuple[Tensor, int, Tensor]] = {}  # of each ReLU: its output, the output's version, its input

    def before(self, a: Tensor) -> Tensor:
        """The input of the ReLU whose output is `a`; `a` itself if there is none or it was written to since."""
        given, version, taken = self.rectified.get(id(a), (a, -1, a))
        return taken if version == given._version else a.clone()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in RELUS or func in RELUS_IN_PLACE:
            return self._rectify(*args, **kwargs | ({"inplace": True} if func in RELUS_IN_PLACE else {}))
        if func in POOLS or func in POOLS_WITH_INDICES:
            return self._pool(*args, **{"return_indices": func in POOLS_WITH_INDICES} | kwargs)
        return func(*args, **kwargs)

    def _rectify(self, input: Tensor, inplace: bool = False) -> Tensor:
        taken = input.clone()
        a: Tensor = _Rectified.apply(taken, self.chosen)  # type: ignore[no-untyped-call]
        a = input.copy_(a) if inplace else a
        self.rectified[id(a)] = a, a._version, taken
        return a

    def _pool(
        self,
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        self.pools += 1
        window = (kernel_size, stride or None, padding, dilation, ceil_mode)
        both = _Pooled.apply(input, self.chosen, window)  # type: ignore[no-untyped-call]
        return both if return_indices else both[0]


class UnruledOps(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts, below autograd, the ReLUs that no rule reaches (in scripted code, for example) and all max pools."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.relus = self.pools = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.relus += func.overloadpacket in (torch.ops.aten.relu, torch.ops.aten.relu_)
        self.pools += func.overloadpacket is torch.ops.aten.max_pool2d_with_indices
        return func(*args, **(kwargs or {}))
