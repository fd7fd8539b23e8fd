"""The machine: what the program asks of it before it begins, and how much memory there is and was used."""

import ctypes
import os
import sys
from functools import cache
from pathlib import Path
from typing import TextIO

M_MMAP_THRESHOLD = -3  # of mallopt, in glibc's malloc.h
SETTINGS = {"THP_MEM_ALLOC_ENABLE": "1", "GOMP_SPINCOUNT": "10000"}


def settle() -> None:
    """Make this process a good place to paint in. To be called before torch is loaded; for the program to decide, not the library.

    Two things cost more than the arithmetic between them. A map of 64 MB that comes from the system at every step is zeroed page by
    page: torch is told to ask for large pages (Linux). And OpenMP's idle threads spin on the cores that NNPACK's threads need: they
    spin less. A setting that is there already stays.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def own_stdout() -> TextIO:
    """Where stdout went so far, for the caller alone, a line at a time; what anything else prints goes to stderr from now on."""
    sys.stdout.flush()
    own = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return own


def python_module(name: str) -> tuple[str, ...]:
    """The command that runs a module of ours: never one beside the user's pictures, a queue.py say, as python -m alone would."""
    home = str(Path(__file__).parents[1])  # Impasto may have been found beside the user's files itself
    run = f"import runpy, sys; sys.path.append({home!r}); runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    return sys.executable, "-P", "-c", run


def free_memory() -> int | None:
    """Bytes that this process may still take: what the system or its control group has left; None where neither tells."""
    left = [value for value in (_meminfo("MemAvailable"), _left_in_cgroup()) if value is not None]
    return min(left, default=None)


def used_memory() -> int | None:
    """Bytes that this process holds now (resident); None where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


@cache
def libc() -> ctypes.CDLL | None:
    """The C library of this process on Linux; None elsewhere."""
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def give_back() -> None:
    """Hand memory that was freed back to the system, which glibc keeps otherwise. Elsewhere nothing happens."""
    if trim := getattr(libc(), "malloc_trim", None):
        trim(0)


def limit_fragmentation(is_tight: bool) -> None:
    """Where memory is tight, have glibc hand back at once what is freed from 4 MB on; else it keeps pieces of up to 32 MB.

    Tiles of several sizes leave holes between those that it keeps: 200 MB at 1024 px. Elsewhere nothing happens.
    """
    if mallopt := getattr(libc(), "mallopt", None):
        mallopt(M_MMAP_THRESHOLD, (4 if is_tight else 32) * 2**20)


def peak_memory_mb() -> float | None:
    """The most memory this process has held, in MB; None on Windows, which does not tell."""
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
    """Control group v2, as containers have it."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, current = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - current)
