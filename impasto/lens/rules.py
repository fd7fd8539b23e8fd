"""What is done at a ReLU and at a max pool on the way back to the pixels, by name; docs/lens.md has their sources.

Where pools overlap, one switch can be that of several windows. The paper does not say what then: `sum` is the derivative's way and
ours, `overwrite` lets the last window win (as max-unpooling layers do), `max` the strongest. Nothing is divided out.
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

# At a ReLU: what comes back, and where the ReLU was open.
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
    """(B, C, h, w) -> `shape` (B, C, H, W): each value to the place of its window's maximum, zero elsewhere; see POOLINGS."""
    values, places = signal.flatten(2), switches.flatten(2)
    ground = signal.new_zeros(*shape[:2], shape[2] * shape[3])
    if pooling == "overwrite":  # scattering with equal places has no order of its own: first find each place's last window
        window = torch.arange(places.shape[2]).expand_as(places)
        last = torch.full_like(ground, -1, dtype=torch.long).scatter_reduce_(2, places, window, "amax")
        ground = torch.where(last >= 0, values.gather(2, last.clamp(min=0)), ground)
    elif pooling == "max":
        ground.scatter_reduce_(2, places, values, "amax", include_self=False)
    else:
        ground.scatter_add_(2, places, values)
    return ground.view(shape)


# The same through autograd, for nets that are no straight line


@dataclass
class Chosen:
    """The rules that hold on the way back. They are asked for there, so that one pass forward serves them all."""

    rule: str = "gradient"
    pooling: str = "sum"


class _Rectified(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, chosen: Chosen) -> Tensor:
        ctx.chosen = chosen
        ctx.save_for_backward(x > 0)
        return x.clamp(min=0)  # not relu, by which _Missed knows what passed us by

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        return RULES[ctx.chosen.rule](signals[0], *ctx.saved_tensors), None


class _Pooled(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, chosen: Chosen, window: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
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


class Ruled(TorchFunctionMode):
    """While it lasts, every ReLU and max pool goes back by the rules, be it a module, a function or a method, in place or not."""

    def __init__(self, chosen: Chosen) -> None:
        super().__init__()
        self.chosen, self.pools = chosen, 0
        self.rectified: dict[int, tuple[Tensor, int, Tensor]] = {}  # what a ReLU gave, its version, and what it took

    def before(self, a: Tensor) -> Tensor:
        """What the ReLU took that gave the map `a`; `a` itself, if none did or it was written into since."""
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


class Missed(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts, below autograd, the ReLUs that no rule will reach (in scripted code, say) and all max pools."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.relus = self.pools = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.relus += func.overloadpacket in (torch.ops.aten.relu, torch.ops.aten.relu_)
        self.pools += func.overloadpacket is torch.ops.aten.max_pool2d_with_indices
        return func(*args, **(kwargs or {}))
