"""What the commands share: options of one form, and what is said during the work, on stderr, so that stdout carries the result."""

import contextlib
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

if TYPE_CHECKING:
    from impasto.descent import Step

PLAIN_SECONDS = 10.0
Scales = list[tuple[int, int]]
Flag = Annotated[bool, Parameter(negative=())]
Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative=(), help="no progress")]
Verbose = Annotated[bool, Parameter(name=["--verbose", "-v"], negative=(), help="show the recipe, and where an error arose")]
WeightsFile = Annotated[Path | None, Parameter(help="Weights of the net from this file (.safetensors, or .pth of tensors only).")]
WeightsInput = Annotated[
    Literal["caffe", "torchvision"] | None,
    Parameter(help="How the weights of that file want their pixels, where it does not tell."),
]


def watch(steps: Iterator["Step"], scales: Scales, quiet: bool, shown: str = "total") -> None:
    """Go to the end, showing steps, one of their costs and the time left: a bar on a terminal, else a line now and then."""
    console = Console(stderr=True)
    if quiet:
        for _ in steps:
            pass
    elif console.is_terminal:
        _bar(steps, scales, console, shown)
    else:
        said = float("-inf")
        for step in steps:
            if time.monotonic() - said >= PLAIN_SECONDS or step.i == step.of:
                said = time.monotonic()
                say(_line(step, scales, shown))


def watch_frames(steps: Iterator[Any], quiet: bool) -> None:
    """The same for the FrameSteps of a video; the time left is told once a frame has been painted."""
    console, begun, already, said = Console(stderr=True), time.monotonic(), None, float("-inf")
    with Progress(BarColumn(), TextColumn("{task.description}"), console=console, transient=True, disable=quiet) as progress:
        task = progress.add_task("reading the frames")
        for it in steps:
            already = it.done if already is None else already
            a_frame = (time.monotonic() - begun) / (it.done - already) if it.done > already else None
            left = "" if a_frame is None else f", {timedelta(seconds=round(a_frame * (it.of - it.done)))} left"
            line = f"frame {it.name} ({it.done + 1}/{it.of}), step {it.step.i}/{it.step.of}, J = {it.step.costs['total']:.4g}{left}"
            progress.update(task, total=it.of, completed=it.done + it.step.i / it.step.of, description=line)
            if not (quiet or console.is_terminal) and time.monotonic() - said >= PLAIN_SECONDS:
                said = time.monotonic()
                say(line)


def _bar(steps: Iterator["Step"], scales: Scales, console: Console, shown: str) -> None:
    with Progress(BarColumn(), TextColumn("{task.description}"), console=console, transient=True) as progress:
        task = progress.add_task("preparing", total=_work(scales, 0))
        for step in steps:
            done = _work(scales, 0) - _work(scales, step.i)
            progress.update(task, completed=done, description=_line(step, scales, shown))


def _line(step: "Step", scales: Scales, shown: str) -> str:
    cost = f"{'J' if shown == 'total' else shown} = {step.costs[shown]:.4g}"
    return f"{step.scale} px, step {step.i}/{step.of}, {cost}, {timedelta(seconds=round(time_left(step, scales)))} left"


def time_left(step: "Step", scales: Scales) -> float:
    """Seconds, should every pixel take as long as it did in this step."""
    return step.seconds / step.scale**2 * _work(scales, step.i)


def _work(scales: Scales, i: int) -> float:
    """What is left to do after step i, in steps times pixels."""
    work = 0.0
    for side, steps in scales:
        done = min(i, steps)
        work, i = work + (steps - done) * side**2, i - done
    return work


def say(line: str) -> None:
    """A line on stderr."""
    with contextlib.suppress(OSError):  # a closed terminal or a full log must not end a painting
        print(line, file=sys.stderr, flush=True)
