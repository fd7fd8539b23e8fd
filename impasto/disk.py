"""Tensors in files: a picture, its gradient and what an optimiser remembers may be larger than memory (Linux).

A tensor is on disk as another is on a GPU: it says so itself, and what is made from it lies where it lies. It is a file mapped into
memory, worked upon a band at a time, and after each band its pages are let go: the process holds a band, the system as much of the
file as it has room for. What is true of tensors in memory stays true: where nothing is on disk, these functions do nothing but
call what they are given.
"""

import contextlib
import ctypes
import os
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from impasto.files import cannot_write
from impasto.machine import libc

BAND = 2**21  # elements at a time
SUFFIX = ".map"
COLORS = 3
MADV_RANDOM, MADV_DONTNEED = 1, 4


def is_possible() -> bool:
    """Whether this system maps files as it is done here."""
    return sys.platform == "linux"


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
    return torch.from_file(str(file), shared=True, size=prod(shape), dtype=dtype).view(*shape)


def new_empty(x: Tensor, shape: Sequence[int]) -> Tensor:
    """x.new_empty(shape), where x lies; on disk it is zeros, without a name if x has none."""
    return _beside(x, shape) if file_of(x) else x.new_empty(*shape)


def new_zeros(x: Tensor, shape: Sequence[int]) -> Tensor:
    """x.new_zeros(shape), where x lies."""
    return _beside(x, shape) if file_of(x) else x.new_zeros(*shape)


def _beside(x: Tensor, shape: Sequence[int]) -> Tensor:
    file = file_of(x)
    assert file is not None
    return (empty if file.exists() else nameless)(shape, file.parent, x.dtype)


def put(x: Tensor, folder: Path) -> Tensor:
    """The tensor in a file of the folder, where it may be already."""
    if (file := file_of(x)) and file.parent == folder and file.exists():
        return x
    found = empty(x.shape, folder, x.dtype)
    for there, here in bands(found, x):
        there.copy_(here)
    return found


def release(*tensors: Tensor) -> None:
    """Let go of the pages of those on disk: what was written there stays, what is read comes back."""
    for x in tensors:
        if file_of(x):
            _advise(x, MADV_DONTNEED)


def bands(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same part of each of the tensors, which have one shape, one part after the other: flat pieces where one is on disk."""
    if not any(map(file_of, tensors)):
        yield tensors
        return
    for parts in zip(*(torch.split(x.detach().reshape(-1), BAND) for x in tensors), strict=True):
        yield parts
        release(*tensors)


def strips(*images: Tensor) -> Iterator[slice]:
    """Which rows of pictures (B, C, H, W) of one size are worked upon at a time: all of them where none is on disk.

    A quarter of BAND, since colours are computed in float64, with much beside them.
    """
    height, width = images[0].shape[-2:]
    count = max(1, BAND // (4 * COLORS * width)) if any(map(file_of, images)) else height
    for at in range(0, height, count):
        yield slice(at, min(height, at + count))
        release(*images)


def over(change: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """change(*tensors), which treats every element by itself, where the first of them that is on disk lies."""
    lying = next(filter(file_of, tensors), None)
    if lying is None:
        return change(*tensors)
    found = new_empty(lying, tensors[0].shape)
    for *parts, mine in bands(*tensors, found):
        mine.copy_(change(*parts))
    return found


def over_rows(change: Callable[..., Tensor], *images: Tensor) -> Tensor:
    """change(*images), which treats every row by itself, where the first of them that is on disk lies.

    Pictures (B, C, H, W) are of one size, and may differ in channels.
    """
    lying, found = next(filter(file_of, images), None), None
    if lying is None:
        return change(*images)
    for rows in strips(*images):
        band = change(*(image[..., rows, :] for image in images))
        found = new_empty(lying, (*band.shape[:2], *lying.shape[-2:])) if found is None else found
        found[..., rows, :] = band
        release(found)
    assert found is not None  # a picture has rows
    return found


def summed(change: Callable[..., Tensor], *tensors: Tensor) -> float:
    """The sum over all elements of change(*tensors), which treats every element by itself; float64, on Apple's GPUs float32."""
    wide = torch.float32 if tensors[0].device.type == "mps" else torch.float64
    return sum(float(change(*parts).sum(dtype=wide)) for parts in bands(*tensors))


def total(x: Tensor) -> Tensor:
    """x.sum(); of one on disk in bands."""
    return x.new_tensor(summed(lambda part: part, x)) if file_of(x) else x.sum()


def mean(x: Tensor) -> Tensor:
    """x.mean(); of one on disk in bands."""
    return total(x) / x.numel() if file_of(x) else x.mean()


def _advise(x: Tensor, advice: int) -> None:
    storage, c = x.untyped_storage(), libc()
    assert c is not None  # is_possible
    c.madvise(ctypes.c_void_p(storage.data_ptr()), ctypes.c_size_t(storage.nbytes()), advice)


def _unlink(name: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name)
