"""What is said during the work."""

import re

import pytest

from impasto.cli import progress as console
from impasto.cli.progress import Together


def step(i: float) -> dict[str, float]:
    return {"i": i, "of": 4, "scale": 96}


def test_several_works_are_told_of_in_one_line(capsys, monkeypatch):
    monkeypatch.setattr(console, "PLAIN_SECONDS", 0.0)
    with Together(3, quiet=False) as bar:
        bar.follow("a", step(1))
        bar.follow("b", step(2.25))
        bar.ended("a", "out/a: finished")
        bar.follow("b", step(4))
    said = capsys.readouterr()
    assert said.out == "out/a: finished\n"
    lines = [re.sub(r", \S+ left", "", line) for line in said.err.splitlines()]
    assert lines == [
        "0 of 3 done, 1 at work; a: step 1/4 at 96 px",
        "0 of 3 done, 2 at work; b: step 2.2/4 at 96 px",
        "2 of 3 done, 0 at work; b: step 4/4 at 96 px",
    ]


@pytest.mark.parametrize("quiet", [True, False])
def test_lines_come_now_and_then_and_not_where_it_is_quiet(capsys, quiet):
    with Together(1, quiet) as bar:
        for i in range(5):
            bar.follow("a", step(i))
    assert len(capsys.readouterr().err.splitlines()) == (0 if quiet else 1)


def test_time_left_counts_the_work_and_not_the_steps(capsys, monkeypatch):
    """Half of the steps done in 10 s were a tenth of the work: 90 s are left."""
    now = iter([0.0, 0.0, 10.0])
    monkeypatch.setattr(console, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    with Together(1, quiet=False) as bar:
        bar.follow("a", {**step(0), "part": 0.0})
        bar.follow("a", {**step(2), "part": 0.1})
    assert "0:01:30 left" in capsys.readouterr().err
