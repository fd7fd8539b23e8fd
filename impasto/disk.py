"""Tensors in files: a picture, its gradient and what an optimiser remembers may be larger than memory (Linux).

A tensor on disk is a DiskTensor, as one on a GPU is a CUDA tensor: formulas need not know. It is a file mapped into memory. What
works element by element, and sums, run over it a band at a time; after each band its pages are let go, so that the process holds a
band, and the system as much of the file as it has room for. Results that are large lie beside it, small ones in memory. Whatever
else torch can do runs in memory.
"""

import contextlib
import ctypes
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from impasto.files import cannot_write
from impasto.machine import libc

aten = torch.ops.aten

BAND = 2**21  # elements at a time; what has no more is kept in memory
SUFFIX = ".map"
COLORS = 3
MADV_RANDOM, MADV_DONTNEED = 1, 4


class DiskTensor(Tensor):
    """A tensor whose elements lie in a file."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def numpy(self, **options: Any) -> Any:
        """The elements as they lie in the file."""
        return plain(self).numpy(**options)

    def __repr__(self, **_options: Any) -> str:  # type: ignore[override]
        return f"DiskTensor({tuple(self.shape)}, {self.dtype}, {file_of(self)})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """One operation, on the tensors among its arguments."""
        kwargs = kwargs or {}
        try:
            return _operation(func)(func, args, kwargs)
        finally:
            release(*_tensors(args, kwargs))


def _operation(func: Any) -> Callable[[Any, Any, Any], Any]:
    """How this operation is done on disk."""
    if func in SPECIAL:
        return SPECIAL[func]
    if func.is_view:
        return _view
    if torch.Tag.pointwise in func.tags:
        return _in_place if func._schema.is_mutable else _element_wise
    return _in_memory


def _tensors(args: Any, kwargs: Any) -> list[Tensor]:
    return [it for it in tree_leaves((args, kwargs)) if isinstance(it, Tensor)]


def plain(x: Any) -> Any:
    """The same elements as an ordinary tensor, which torch treats as one in memory. Anything else comes back as it is."""
    if not isinstance(x, DiskTensor):
        return x
    return torch.empty(0, dtype=x.dtype).set_(x.untyped_storage(), x.storage_offset(), x.size(), x.stride())


def loaded(x: Tensor) -> Tensor:
    """A copy in memory of a tensor on disk; one in memory as it is."""
    if not isinstance(x, DiskTensor):
        return x
    found = plain(x).clone()
    release(x)
    return found  # type: ignore[no-any-return]


def _view(func: Any, args: Any, kwargs: Any) -> Any:
    found = func(*tree_map(plain, args), **tree_map(plain, kwargs))
    return tree_map(lambda it: Tensor._make_subclass(DiskTensor, it) if isinstance(it, Tensor) else it, found)


def _in_memory(func: Any, args: Any, kwargs: Any) -> Any:
    """The operation on what lies in the files, all at once; what it changes is changed there."""
    found = func(*tree_map(plain, args), **tree_map(plain, kwargs))
    return args[0] if func._schema.is_mutable else found


def _element_wise(func: Any, args: Any, kwargs: Any) -> Tensor:
    """Into a new tensor: in memory where it is small, or computed with one in memory that is as large."""
    tensors = _tensors(args, kwargs)
    shape = torch.broadcast_shapes(*(it.shape for it in tensors))  # type: ignore[no-untyped-call]
    source = next(it for it in tensors if isinstance(it, DiskTensor))
    if prod(shape) <= BAND or any(_is_held(it, prod(shape)) for it in tensors):
        return _in_memory(func, args, kwargs)  # type: ignore[no-any-return]
    found: Tensor | None = None
    for part in _parts(shape, tensors):
        band = func(*tree_map(part, args), **tree_map(part, kwargs))
        found = _beside(source, shape, band.dtype) if found is None else found
        part(found).copy_(band)
        release(found)
    assert found is not None  # it has elements
    return found


def _is_held(x: Tensor, count: int) -> bool:
    """Whether it holds so many elements in memory."""
    return not isinstance(x, DiskTensor) and x.untyped_storage().nbytes() >= count * x.itemsize


def _in_place(func: Any, args: Any, kwargs: Any) -> Tensor:
    changed: Tensor = args[0]
    for part in _parts(changed.shape, _tensors(args, kwargs)):
        func(*tree_map(part, args), **tree_map(part, kwargs))
    return changed


def _parts(shape: Sequence[int], tensors: Sequence[Tensor], in_rows: bool = False) -> Iterator[Callable[[Any], Any]]:
    """For each band a function from any tensor that broadcasts to `shape` to its part, an ordinary tensor.

    Bands are flat pieces if all tensors have this shape and one order of elements, else rows. After each band the pages of the
    tensors are released.
    """
    if not in_rows and all(it.shape == shape and it.is_contiguous() for it in tensors if it.dim()):
        parts = [partial(_piece, at=at) for at in range(0, prod(shape), BAND)]
    else:
        axis = -2 if len(shape) > 1 else -1
        count = max(1, BAND * shape[axis] // max(1, prod(shape)))
        parts = [partial(_rows, axis=axis, at=at, count=min(count, shape[axis] - at)) for at in range(0, shape[axis], count)]
    for part in parts:
        yield part
        release(*tensors)


def _piece(it: Any, at: int) -> Any:
    return plain(it).view(-1)[at : at + BAND] if isinstance(it, Tensor) and it.dim() else plain(it)


def _rows(it: Any, axis: int, at: int, count: int) -> Any:
    is_long = isinstance(it, Tensor) and it.dim() >= -axis and it.shape[axis] > 1
    return plain(it).narrow(axis, at, count) if is_long else plain(it)


def _total(func: Any, args: Any, kwargs: Any) -> Any:
    """sum() and mean(), added up in float64."""
    x: Tensor = args[0]
    found = sum(part(x).sum(dtype=torch.float64) for part in _parts(x.shape, [x])) / (x.numel() if func is aten.mean.default else 1)
    return torch.as_tensor(found, dtype=kwargs.get("dtype") or x.dtype)


def _extreme(func: Any, args: Any, _kwargs: Any) -> Any:
    """max(), min(), all() and any()."""
    x: Tensor = args[0]
    return func(torch.stack([func(part(x)) for part in _parts(x.shape, [x])]))


def _over_axes(func: Any, args: Any, kwargs: Any) -> Tensor:
    """sum and mean along axes of (B, C, H, W): of its rows added up in float64, of others the rows lie where the picture lies."""
    x, axes, keeps = args[0], [it % args[0].dim() for it in args[1] or range(args[0].dim())], args[2:3] == (True,)
    if x.numel() <= BAND or x.dim() != 4:
        return _in_memory(func, args, kwargs)  # type: ignore[no-any-return]
    if 2 in axes:
        count = prod(x.shape[axis] for axis in axes) if func is aten.mean.dim else 1
        total: Tensor = sum(part(x).double().sum(axes, keepdim=keeps) for part in _parts(x.shape, [x], in_rows=True))
        return (total / count).to(kwargs.get("dtype") or x.dtype)
    shape = [1 if axis in axes else length for axis, length in enumerate(x.shape)]
    found = _made(aten.new_empty.default, (x, shape), kwargs)
    for part in _parts(x.shape, [x], in_rows=True):
        part(found).copy_(func(part(x), axes, True, **kwargs))
        release(found)
    return found if keeps else found.squeeze(axes)


def _made(func: Any, args: Any, kwargs: Any) -> Tensor:
    """A new tensor of a shape, or like another: zeros, ones, or anything."""
    x, shape = args[0], args[1] if func in (aten.new_empty.default, aten.new_zeros.default) else args[0].shape
    if prod(shape) <= BAND:
        return _in_memory(func, args, kwargs)  # type: ignore[no-any-return]
    found = _beside(x, shape, kwargs.get("dtype") or x.dtype)
    return found.fill_(1) if func is aten.ones_like.default else found


def _slice_backward(_func: Any, args: Any, _kwargs: Any) -> Tensor:
    """The gradient at what a slice was taken from: zeros outside it."""
    grad, shape, axis, start, end, step = args
    found: Tensor = _made(aten.new_zeros.default, (grad, shape), {})
    aten.slice.Tensor(found, axis, start, end, step).copy_(grad)
    return found


def _pooled(func: Any, args: Any, kwargs: Any) -> Tensor:
    """adaptive_avg_pool2d, a row at a time."""
    x, (rows, columns) = args
    if x.numel() <= BAND:
        return _in_memory(func, args, kwargs)  # type: ignore[no-any-return]
    height, found = x.shape[-2], _made(aten.new_empty.default, (x, (*x.shape[:-2], rows, columns)), {})
    for row in range(rows):
        read = plain(x)[..., row * height // rows : -(-(row + 1) * height // rows), :]
        plain(found)[..., row : row + 1, :] = func(read, (1, columns))
        release(x, found)
    return found


SPECIAL: dict[Any, Callable[[Any, Any, Any], Any]] = {
    aten.detach.default: _view,
    aten._to_copy.default: _element_wise,
    aten.rsub.Tensor: _element_wise,
    aten.copy_.default: _in_place,
    aten.fill_.Scalar: _in_place,
    aten.fill_.Tensor: _in_place,
    aten.zero_.default: _in_place,
    aten.sum.default: _total,
    aten.mean.default: _total,
    aten.max.default: _extreme,
    aten.min.default: _extreme,
    aten.all.default: _extreme,
    aten.any.default: _extreme,
    aten.sum.dim_IntList: _over_axes,
    aten.mean.dim: _over_axes,
    aten.slice_backward.default: _slice_backward,
    aten._adaptive_avg_pool2d.default: _pooled,
    **dict.fromkeys((aten.new_empty.default, aten.new_zeros.default), _made),
    **dict.fromkeys((aten.empty_like.default, aten.zeros_like.default, aten.ones_like.default), _made),
}


# Files


def file_of(x: Tensor) -> Path | None:
    """The file that a tensor lies in; None of one in memory."""
    name = x.untyped_storage().filename
    return None if name is None else Path(name)


def folder_of(x: Tensor) -> Path | None:
    """The folder of its file; None of a tensor in memory."""
    file = file_of(x)
    return None if file is None else file.parent


def empty(shape: Sequence[int], folder: Path, dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros in a new file of the folder, which goes with the tensor. Raises NoRoom when the disk is full.

    The room is taken at once, since a mapped page that finds none ends the process.
    """
    nbytes = prod(shape) * dtype.itemsize
    try:
        descriptor, name = tempfile.mkstemp(dir=folder, suffix=SUFFIX)
        with contextlib.closing(os.fdopen(descriptor, "wb")):
            try:
                os.posix_fallocate(descriptor, 0, nbytes)
            except OSError:
                os.unlink(name)
                raise
    except OSError as error:
        raise cannot_write(folder, error) from error
    tensor = mapped(Path(name), shape, dtype)
    if len(shape) == 4 and shape[1] > COLORS:  # a map, read in tiles: pages that come in company would be most of it
        _advise(tensor, MADV_RANDOM)
    weakref.finalize(tensor, _unlink, name)
    return tensor


def nameless(shape: Sequence[int], folder: Path, dtype: torch.dtype = torch.float32) -> Tensor:
    """The same of a file whose name is gone at once: it goes with the process, however that ends."""
    found = empty(shape, folder, dtype)
    _unlink(str(file_of(found)))
    return found


def mapped(file: Path, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """The tensor that lies in a file, which stays."""
    elements = torch.from_file(str(file), shared=True, size=prod(shape), dtype=dtype)
    return Tensor._make_subclass(DiskTensor, elements.view(*shape))


def _beside(x: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Zeros in the folder that x lies in; without a name if x has none."""
    file = file_of(x)
    assert file is not None
    return (empty if file.exists() else nameless)(shape, file.parent, dtype)


def to_disk(x: Tensor, folder: Path) -> Tensor:
    """The tensor in a file of the folder, where it may be already."""
    if (file := file_of(x)) and file.parent == folder and file.exists():
        return x
    return empty(x.shape, folder, x.dtype).copy_(x)


def release(*tensors: Tensor) -> None:
    """Let go of the pages of those on disk: what was written there stays, what is read comes back."""
    for x in tensors:
        if isinstance(x, DiskTensor):
            _advise(x, MADV_DONTNEED)


def _advise(x: Tensor, advice: int) -> None:
    storage, c = x.untyped_storage(), libc()
    assert c is not None  # can_map_files
    c.madvise(ctypes.c_void_p(storage.data_ptr()), ctypes.c_size_t(storage.nbytes()), advice)


def _unlink(name: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name)
