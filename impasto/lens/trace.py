"""The receptive fields of any module's layers, traced through one forward pass, operation by operation.

The trace is taken below autograd, where every net consists of the same few operations. Where branches of equal stride join, the
field is the smallest that contains theirs. Where positions have no box of their own (branches of different strides, means over the
whole map, flattened maps, operations that are not listed here), the field is unknown: None.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from impasto.nets.geometry import Field, step

NOTHING = Field(0, 0, 0)  # the field of weights and constants: they do not depend on the pixels
Traced = tuple[Tensor, Field | None]  # an operation's input and its field; None is unknown
Rule = Callable[[list[Traced], Sequence[Any], Tensor], Field | None]
aten = torch.ops.aten


class FieldTracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, it records the receptive field in `pixels` (B, C, H, W) of every tensor that is computed."""

    def __init__(self, pixels: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fields = WeakTensorKeyDictionary()
        self.fields[pixels] = Field(1, 1, 0)
        self.overwritten: list[Tensor] = []  # kept alive, so that no other tensor reuses their memory

    def of(self, tensor: Tensor) -> Field | None:
        """The field of a tensor: NOTHING where it does not depend on the pixels, None where it is unknown."""
        if tensor in self.fields:
            field: Field | None = self.fields[tensor]
            return field
        return None if any(_share_memory(tensor, other) for other in self.overwritten) else NOTHING

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        taken = [(it, self.of(it)) for it in tree_leaves((args, kwargs)) if isinstance(it, Tensor)]
        result = func(*args, **(kwargs or {}))
        inputs = [(it, field) for it, field in taken if field != NOTHING]
        if inputs:
            for output in (it for it in tree_leaves(result) if isinstance(it, Tensor)):
                self._set(output, RULES.get(func.overloadpacket, _unknown)(inputs, args, output), func._schema.is_mutable)
        return result

    def _set(self, output: Tensor, field: Field | None, is_mutable: bool) -> None:
        """A write changes all tensors that share the memory: the field of those with another field becomes unknown."""
        if is_mutable:
            self.overwritten.append(output)
            for other in list(self.fields):
                if other is not output and self.fields[other] != field and _share_memory(other, output):
                    self.fields[other] = None
        self.fields[output] = field


def _share_memory(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


# Operation by operation


def _unknown(inputs: list[Traced], args: Sequence[Any], output: Tensor) -> Field | None:
    return None


def _elementwise(inputs: list[Traced], args: Sequence[Any], output: Tensor) -> Field | None:
    """Elementwise on maps of one size: the smallest field that contains theirs."""
    fields = [field for _, field in inputs if field is not None]
    sizes = {tensor.shape[-2:] for tensor, _ in inputs} | {output.shape[-2:]}
    if len(fields) < len(inputs) or len(sizes) > 1 or len({field.stride for field in fields}) > 1:
        return None
    before, behind = max(field.padding for field in fields), max(field.size - field.padding for field in fields)
    return Field(before + behind, fields[0].stride, before)


def _concatenated(inputs: list[Traced], args: Sequence[Any], output: Tensor) -> Field | None:
    return _elementwise(inputs, args, output) if _argument(args, 1, 0) in (1, 1 - output.dim()) else None


def _convolved(inputs: list[Traced], args: Sequence[Any], output: Tensor) -> Field | None:
    (_, weight, _, stride, padding, dilation, transposed) = args[:7]
    if transposed or len(inputs) > 1 or inputs[0][0] is not args[0]:
        return None
    return _windows(inputs[0], weight.shape[2:], stride, padding, dilation)


def _pooled(inputs: list[Traced], args: Sequence[Any], output: Tensor) -> Field | None:
    size = args[1]
    return _windows(inputs[0], size, _argument(args, 2, []) or size, _argument(args, 3, 0), _argument(args, 4, 1))


def _averaged(inputs: list[Traced], args: Sequence[Any], output: Tensor) -> Field | None:
    size = args[1]
    return _windows(inputs[0], size, _argument(args, 2, []) or size, _argument(args, 3, 0), 1)


def _normalised(inputs: list[Traced], args: Sequence[Any], output: Tensor) -> Field | None:
    """Batch norm with stored statistics. With those of the batch every position depends on the whole map."""
    return None if args[5] else _elementwise(inputs, args, output)


def _padded(inputs: list[Traced], args: Sequence[Any], output: Tensor) -> Field | None:
    (tensor, field), pad = inputs[0], args[1]
    if field is None or tensor.dim() != 4 or len(pad) != 4 or pad[0] != pad[2] or min(pad) < 0:
        return None
    return Field(field.size, field.stride, field.padding + pad[0] * field.stride)


def _viewed(inputs: list[Traced], args: Sequence[Any], output: Tensor) -> Field | None:
    """Channels are split or reordered; positions stay."""
    (tensor, field), spatial = inputs[0], output.shape[-2:]
    return field if output.dim() > 2 and tensor.shape[-2:] == spatial else None


def _swapped(inputs: list[Traced], args: Sequence[Any], output: Tensor) -> Field | None:
    (tensor, field), axes = inputs[0], {axis % output.dim() for axis in args[1:3]}
    return field if tensor.dim() > 2 and max(axes) < tensor.dim() - 2 else None


def _split(inputs: list[Traced], args: Sequence[Any], output: Tensor) -> Field | None:
    """A split along the channels."""
    return _viewed(inputs, args, output) if _argument(args, 2, 0) % output.dim() == 1 else None


def _sliced(inputs: list[Traced], args: Sequence[Any], output: Tensor) -> Field | None:
    return _viewed(inputs, args, output) if _argument(args, 1, 0) % output.dim() < 2 else None


def _windows(inputs: Traced, *window: Any) -> Field | None:
    """Windows with the same size, stride, padding and dilation on both axes."""
    tensor, field = inputs
    numbers = [set(it) if isinstance(it, list | tuple | torch.Size) else {it} for it in window]
    if field is None or tensor.dim() != 4 or any(len(it) > 1 for it in numbers):
        return None
    size, stride, padding, dilation = (it.pop() for it in numbers)
    return step(field, (size - 1) * dilation + 1, stride, padding)


def _argument(args: Sequence[Any], n: int, default: Any) -> Any:
    return args[n] if len(args) > n else default


ELEMENTWISE = (
    *("relu", "leaky_relu", "elu", "gelu", "silu", "mish", "hardtanh", "hardswish", "hardsigmoid", "sigmoid", "tanh", "softplus"),
    *("clamp", "clamp_min", "threshold", "abs", "exp", "sqrt", "pow", "neg", "add", "sub", "mul", "div", "maximum", "minimum"),
    *("clone", "detach", "alias", "copy", "_to_copy"),
)
RULES: dict[Any, Rule] = {
    **{getattr(aten, it): _elementwise for name in ELEMENTWISE for it in (name, f"{name}_") if hasattr(aten, it)},
    aten.cat: _concatenated,
    aten.convolution: _convolved,
    aten.max_pool2d_with_indices: _pooled,
    aten.avg_pool2d: _averaged,
    aten.native_batch_norm: _normalised,
    aten._native_batch_norm_legit_no_training: _elementwise,
    aten.constant_pad_nd: _padded,
    aten.view: _viewed,
    aten._unsafe_view: _viewed,
    aten.transpose: _swapped,
    aten.split: _split,
    aten.slice: _sliced,
}
