"""The progress that commands show."""

import re

import pytest

from impasto.cli import progress
from impasto.cli.progress import TaskBar


def step(i: float) -> dict[str, float]:
    return {"i": i, "of": 4, "scale": 96}


def test_several_tasks_share_one_line(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    with TaskBar(3, quiet=False) as bar:
        bar.step("a", step(1))
        bar.step("b", step(2.25))
        bar.end("a", "out/a: finished")
        bar.step("b", step(4))
    printed = capsys.readouterr()
    assert printed.out == "out/a: finished\n"
    lines = [re.sub(r", \S+ left", "", line) for line in printed.err.splitlines()]
    assert lines == [
        "0 of 3 done, 1 running; a: step 1/4 at 96 px",
        "0 of 3 done, 2 running; b: step 2.2/4 at 96 px",
        "2 of 3 done, 0 running; b: step 4/4 at 96 px",
    ]


@pytest.mark.parametrize("quiet", [True, False])
def test_lines_come_now_and_then_and_not_if_quiet(capsys, quiet):
    with TaskBar(1, quiet) as bar:
        for i in range(5):
            bar.step("a", step(i))
    assert len(capsys.readouterr().err.splitlines()) == (0 if quiet else 1)


def test_time_left_counts_the_work_and_not_the_steps(capsys, monkeypatch):
    """Half of the steps done in 10 s were a tenth of the work: 90 s are left."""
    now = iter([0.0, 10.0])
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with TaskBar(1, quiet=False) as bar:
        bar.step("a", {**step(0), "part": 0.0})
        bar.step("a", {**step(2), "part": 0.1})
    assert "0:01:30 left" in capsys.readouterr().err
