"""The machine: settings of the process before it starts, and how much memory is free and used."""

import ctypes
import os
import sys
from functools import cache
from pathlib import Path
from typing import TextIO

M_MMAP_THRESHOLD = -3  # a parameter of mallopt in glibc
SETTINGS = {"THP_MEM_ALLOC_ENABLE": "1", "GOMP_SPINCOUNT": "10000"}


def settle() -> None:
    """Set environment variables that make painting faster. Call it before torch is loaded, in programs, not in the library.

    Torch then asks for large pages (Linux): it allocates maps of 64 MB at every step, which the system zeroes page by page. Idle
    OpenMP threads spin less, since they take the cores that NNPACK's threads need. Variables that are set already stay.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def own_stdout() -> TextIO:
    """The present stdout, for the caller only, line-buffered. From now on everything else that is printed goes to stderr."""
    sys.stdout.flush()
    own = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return own


def python_module(name: str) -> tuple[str, ...]:
    """The command that runs a module of Impasto. Unlike python -m it imports no file from the current folder, as queue.py."""
    home = str(Path(__file__).parents[1])  # last on the path, since Impasto may lie beside the user's files
    run = f"import runpy, sys; sys.path.append({home!r}); runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    return sys.executable, "-P", "-c", run


def free_memory() -> int | None:
    """Bytes that are free for this process, in the system and its control group; None if neither is known."""
    left = [value for value in (_meminfo("MemAvailable"), _left_in_cgroup()) if value is not None]
    return min(left, default=None)


def used_memory() -> int | None:
    """Resident bytes of this process; None if the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


@cache
def libc() -> ctypes.CDLL | None:
    """The C library of this process on Linux; None elsewhere, and where it cannot be loaded."""
    try:
        return ctypes.CDLL(None) if sys.platform == "linux" else None
    except (OSError, TypeError):
        return None


def can_map_files() -> bool:
    """Whether this system can keep tensors in mapped files (impasto/disk.py)."""
    return libc() is not None and hasattr(os, "posix_fallocate")


def give_back() -> None:
    """Return freed memory to the system, which glibc does not do by itself. Does nothing without glibc."""
    if trim := getattr(libc(), "malloc_trim", None):
        trim(0)


def limit_fragmentation(is_tight: bool) -> None:
    """If memory is tight, have glibc return freed pieces from 4 MB on at once; else it holds pieces of up to 32 MB.

    Tiles of several sizes leave holes between the pieces: 200 MB at 1024 px. Does nothing without glibc.
    """
    if mallopt := getattr(libc(), "mallopt", None):
        mallopt(M_MMAP_THRESHOLD, (4 if is_tight else 32) * 2**20)


def peak_memory_mb() -> float | None:
    """Peak resident memory of this process in MB; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def _meminfo(name: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _left_in_cgroup() -> int | None:
    """Bytes left in the control group (v2) of a container; None without one."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, current = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - current)
