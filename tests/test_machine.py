"""What the machine tells of its memory, and that settling is for the program alone."""

import subprocess
import sys

import pytest
import torch

from impasto.machine import free_memory, peak_memory_mb, used_memory

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@linux
def test_memory_that_is_taken_is_seen():
    before = used_memory()
    held = torch.ones(40_000_000)
    assert before is not None and 140e6 < used_memory() - before < 220e6
    assert peak_memory_mb() * 1e6 >= used_memory() - 4e6 > held.nbytes
    assert 0 < free_memory() < 1e14


@linux
def test_a_settled_process_keeps_its_maps():
    """Page faults of the last of many equal allocations: none to speak of, where an unsettled process has one a page."""
    code = """if 1:
        import sys
        from impasto.machine import settle
        if sys.argv[1] == "settled":
            assert settle()
        import resource, torch
        for _ in range(20):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones(32_000_000)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"""
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", code, mode], capture_output=True, text=True, check=True).stdout)
        for mode in ("settled", "unsettled")
    }
    assert faults["settled"] < 100 < faults["unsettled"]
