"""What the machine tells of its memory, and that settling is for the program alone."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from impasto.machine import SETTINGS, free_memory, give_back, peak_memory_mb, settle, used_memory

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@linux
def test_memory_that_is_taken_is_seen():
    before = used_memory()
    held = torch.ones(40_000_000)
    assert before is not None and 140e6 < used_memory() - before < 220e6
    assert peak_memory_mb() * 1e6 >= used_memory() - 4e6 > held.nbytes
    assert 0 < free_memory() < 1e14


@linux
@pytest.mark.slow
def test_a_settled_process_asks_for_large_pages():
    """Page faults of an allocation of 128 MB: one a page of 4 kB, or one a page of 2 MB where the kernel has such."""
    code = """if 1:
        import sys
        from impasto.machine import settle
        if sys.argv[1] == "settled":
            settle()
        import resource, torch
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(32_000_000)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"""
    bare = {name: value for name, value in os.environ.items() if name not in SETTINGS}

    def count(mode: str) -> int:
        return int(subprocess.run([sys.executable, "-c", code, mode], capture_output=True, text=True, check=True, env=bare).stdout)

    faults = {mode: count(mode) for mode in ("settled", "unsettled")}
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    has_large = pages.exists() and "[madvise]" in pages.read_text()
    assert faults["settled"] < 0.5 * faults["unsettled"] or not has_large


def test_settings_of_the_users_own_stay(monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    settle()
    assert os.environ["GOMP_SPINCOUNT"] == "7" and os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc keeps what was freed")
def test_freed_memory_is_given_back():
    """Many blocks too small to be mapped one by one, freed but for the last, which holds the heap's end in place."""
    blocks = [b"x" * 100_000 for _ in range(1000)]
    full, last = used_memory(), blocks[-1]
    blocks.clear()
    give_back()
    assert used_memory() < full - 50e6 and last


def test_what_a_library_prints_does_not_come_between_our_lines():
    """By print, by the file descriptor and by a process that it starts."""
    code = """if 1:
        import os, subprocess
        from impasto.machine import own_stdout
        print("before")
        out = own_stdout()
        print("stray", flush=True)
        os.write(1, b"stray\\n")
        subprocess.run(["echo", "stray"])
        print("ours", file=out)"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["before", "ours"] and ran.stderr.split() == ["stray"] * 3


HOLES = """
import sys, torch
from impasto.machine import limit_fragmentation, used_memory
limit_fragmentation(sys.argv[1] == "tight")
before, kept = used_memory(), []
for n in range(40):  # pieces of 12 MB, each below a small one that stays
    piece = torch.zeros(3_000_000)
    kept.append(torch.zeros(20_000))
    kept.append(piece) if n % 8 == 0 else None
del piece
pieces = [torch.zeros(2_000_000 + 100_000 * n) for n in range(20)]
del pieces
print(used_memory() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
@pytest.mark.slow
def test_where_memory_is_tight_what_is_freed_goes_back():
    """What stays: five pieces of 12 MB and small ones."""
    done = subprocess.run([sys.executable, "-c", HOLES, "tight"], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 5 * 12e6 + 40 * 80e3 + 20e6
