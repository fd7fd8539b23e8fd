"""What the commands share: options of one form, and what is said during the work, on stderr, so that stdout carries the result."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from impasto.errors import printable
from impasto.messages import say, show
from impasto.recipe.recipe import Scales, time_left, work_left
from impasto.workers import WorkerOptions

if TYPE_CHECKING:
    from impasto.transfer.descent import Step

PLAIN_SECONDS = 10.0
COLUMNS = BarColumn(), TextColumn("{task.description}", markup=False)  # names of files are no markup
Flag = Annotated[bool, Parameter(negative=())]
Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative=(), help="no progress")]
Verbose = Annotated[bool, Parameter(name=["--verbose", "-v"], negative=(), help="show the recipe, and where an error arose")]
WeightsFile = Annotated[Path | None, Parameter(help="Weights of the net from this file (.safetensors, or .pth of tensors only).")]
WeightsInput = Annotated[
    Literal["caffe", "torchvision"] | None,
    Parameter(help="How the weights of that file want their pixels, where it does not tell."),
]


@Parameter(name="*")
@dataclass(frozen=True)
class WorkersAsked(WorkerOptions):
    """A crew as the command line asks for it."""

    ray: Annotated[
        list[str] | None,
        Parameter(
            consume_multiple=(0, 1),
            negative=(),
            help="Have workers do it, on the Ray cluster at this address (host:port, or auto); without one, on a Ray of its own.",
        ),
    ] = None
    workers: Annotated[
        int | None, Parameter(validator=Number(gte=1), help="How many, with --ray; unless given, as many as there is room for.")
    ] = None
    threads: Annotated[
        int | None,
        Parameter(validator=Number(gte=1), help="Threads of a worker; the bytes depend on them. Unless given, torch's own here."),
    ] = None
    gpus_each: Annotated[
        float | None,
        Parameter(validator=Number(gte=0), help="GPUs of a worker, 0.5 for half of one; unless given, 1 where there are any."),
    ] = None
    timeout: Annotated[
        float | None,
        Parameter(
            validator=Number(gt=0),
            help="Seconds without a word after which a worker's work is ended and tried again; an hour unless given.",
        ),
    ] = None


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
    with Progress(*COLUMNS, console=console, transient=True, disable=quiet) as progress:
        task = progress.add_task("reading the frames")
        for it in steps:
            already = it.done if already is None else already
            a_frame = (time.monotonic() - begun) / (it.done - already) if it.done > already else None
            left = "" if a_frame is None else f", {timedelta(seconds=round(a_frame * (it.of - it.done)))} left"
            line = f"frame {it.name} ({it.done + 1}/{it.of}), step {it.step.i}/{it.step.of}, J = {it.step.costs['total']:.4g}{left}"
            progress.update(task, total=it.of, completed=it.done + it.step.i / it.step.of, description=printable(line))
            if not (quiet or console.is_terminal) and time.monotonic() - said >= PLAIN_SECONDS:
                said = time.monotonic()
                say(line)


class Together:
    """Several works at once, each somewhere between 0 and 1: one bar of all on a terminal, else a line now and then."""

    def __init__(self, of: int, quiet: bool) -> None:
        console, self.of, self.begun, self.said = Console(stderr=True), of, time.monotonic(), 0.0
        has_bar, self.says_lines = not quiet and console.is_terminal, not quiet and not console.is_terminal
        self.bar = Progress(*COLUMNS, console=console, transient=True, disable=not has_bar, redirect_stdout=False)
        self.task, self.parts = self.bar.add_task("beginning", total=of), dict[str, float]()
        self.first: float | None = None  # what was done when the first came: it took no time

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def follow(self, name: str, step: Mapping[str, Any]) -> None:
        """The work of this name is at step `i` of so many at this `scale`: so far, `part`, where steps differ in length."""
        self.parts[name], now = step.get("part", step["i"] / step["of"]), time.monotonic()
        done, ended = sum(self.parts.values()), sum(it >= 1 for it in self.parts.values())
        self.first = done if self.first is None else self.first
        a_work = (now - self.begun) / (done - self.first) if done > self.first else None
        left = "" if a_work is None else f", {timedelta(seconds=round(a_work * (self.of - done)))} left"
        at = f"{name}: step {round(step['i'], 1)}/{step['of']} at {step['scale']} px"
        line = f"{ended} of {self.of} done, {len(self.parts) - ended} at work{left}; {at}"
        self.bar.update(self.task, total=self.of, completed=done, description=printable(line))
        if self.says_lines and now - self.said >= PLAIN_SECONDS:
            self.said = now
            say(line)

    def ended(self, name: str, line: str | None = None) -> None:
        """The work of this name is done; a line of the result goes to stdout, above the bar."""
        self.parts[name] = 1.0
        self.bar.update(self.task, completed=sum(self.parts.values()))
        if line is not None:
            self.bar.stop()
            show(line)
            self.bar.start()


def _bar(steps: Iterator["Step"], scales: Scales, console: Console, shown: str) -> None:
    with Progress(*COLUMNS, console=console, transient=True) as progress:
        task = progress.add_task("preparing", total=work_left(scales, 0))
        for step in steps:
            done = work_left(scales, 0) - work_left(scales, step.i)
            progress.update(task, completed=done, description=_line(step, scales, shown))


def _line(step: "Step", scales: Scales, shown: str) -> str:
    cost = f"{'J' if shown == 'total' else shown} = {step.costs[shown]:.4g}"
    left = timedelta(seconds=round(time_left(scales, step.i, step.scale, step.seconds)))
    return f"{step.scale} px, step {step.i}/{step.of}, {cost}, {left} left"
