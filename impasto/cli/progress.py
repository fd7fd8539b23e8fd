"""Progress on stderr, so that stdout carries only the result: a bar on a terminal, else a line now and then."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from rich import progress
from rich.console import Console

from impasto.errors import printable
from impasto.messages import say, show
from impasto.recipe.recipe import Scales, work_left

if TYPE_CHECKING:
    from impasto.feedforward.learn import Lesson
    from impasto.lens.scan import Progress as Scanned
    from impasto.transfer.descent import Step
    from impasto.video.video import FrameStep

PLAIN_SECONDS = 10.0  # between two lines where stderr is no terminal


class Bar:
    """Shows how much is done, in any unit, a text, and the time left. Nothing if `quiet`."""

    def __init__(self, quiet: bool, text: str = "preparing") -> None:
        console = Console(stderr=True)
        has_bar, self.has_lines = not quiet and console.is_terminal, not quiet and not console.is_terminal
        columns = progress.BarColumn(), progress.TextColumn("{task.description}", markup=False)  # file names are no markup
        self.bar = progress.Progress(*columns, console=console, transient=True, disable=not has_bar, redirect_stdout=False)
        self.task, self.printed = self.bar.add_task(text, total=None), float("-inf")
        self.first: tuple[float, float] | None = None  # when the first update came, and what was done by then

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, done: float, of: float, text: str, is_last: bool = False) -> None:
        """So much is done `of` the whole, 0 if unknown; `is_last` prints the line even if the last one is recent."""
        now = time.monotonic()
        begun, before = self.first = self.first or (now, done)
        if of >= done > before:
            text += f", {timedelta(seconds=round((now - begun) / (done - before) * (of - done)))} left"
        self.bar.update(self.task, total=of or None, completed=done, description=printable(text))
        if self.has_lines and (is_last or now - self.printed >= PLAIN_SECONDS):
            self.printed = now
            say(text)

    def show(self, line: str) -> None:
        """A line of the result on stdout, above the bar."""
        self.bar.stop()
        show(line)
        self.bar.start()


@contextmanager
def step_progress(scales: Scales, quiet: bool, cost: str = "total") -> Iterator[Callable[["Step | Lesson"], None]]:
    """A function that shows the progress of the steps of a painting or a dream, and one of their costs."""
    whole = work_left(scales, 0)
    with Bar(quiet) as bar:

        def show_step(step: "Step | Lesson") -> None:
            text = f"{step.scale} px, step {step.i}/{step.of}{_cost(step, cost)}"
            bar.update(whole - work_left(scales, step.i), whole, text, step.i == step.of)

        yield show_step


def _cost(step: "Step | Lesson", name: str = "total") -> str:
    """ ", J = 1.23"; empty for an instant picture, which has no costs."""
    return f", {'J' if name == 'total' else name} = {step.costs[name]:.4g}" if name in step.costs else ""


def show_steps(steps: Iterator["Step"], scales: Scales, quiet: bool, cost: str = "total") -> None:
    """Run all steps and show their progress."""
    with step_progress(scales, quiet, cost) as show_step:
        for step in steps:
            show_step(step)


def show_frames(steps: Iterator["FrameStep"], quiet: bool) -> None:
    """Go through the steps of a video."""
    with Bar(quiet, "reading the frames") as bar:
        for it in steps:
            text = f"frame {it.name} ({it.done + 1}/{it.of}), step {it.step.i}/{it.step.of}{_cost(it.step)}"
            bar.update(it.done + it.step.i / it.step.of, it.of, text)


def show_pictures(steps: Iterator["Scanned"], quiet: bool, done: str = "scanned") -> None:
    """Go through the pictures of a scan or an atlas. Pictures that cannot be used are named even if `quiet`."""
    begun, skipped = time.monotonic(), 0
    with Bar(quiet) as bar:
        for step in steps:
            if step.row.skipped:
                skipped += 1
                say(f"skipped: {step.row.skipped}")
            bar.update(step.done, step.of, f"{step.done} of {step.of} pictures")
    if not quiet:
        say(f"{done} in {timedelta(seconds=round(time.monotonic() - begun))}, {skipped} skipped")


class TaskBar(Bar):
    """One bar for several tasks that run at once, `of` in all."""

    def __init__(self, of: int, quiet: bool) -> None:
        super().__init__(quiet)
        self.of, self.parts = of, dict[str, float]()

    def step(self, name: str, step: Mapping[str, Any]) -> None:
        """A task is at step `i` of `of` at a `scale`; `part` is how much of its work is done, where steps differ in length."""
        self.parts[name] = step.get("part", step["i"] / step["of"])
        ended = sum(it >= 1 for it in self.parts.values())
        at = f"{name}: step {round(step['i'], 1)}/{step['of']} at {step['scale']} px"
        self.update(sum(self.parts.values()), self.of, f"{ended} of {self.of} done, {len(self.parts) - ended} running; {at}")

    def end(self, name: str, line: str | None = None) -> None:
        """A task has ended; a line of the result goes to stdout."""
        self.parts[name] = 1.0
        self.bar.update(self.task, total=self.of, completed=sum(self.parts.values()))
        if line is not None:
            self.show(line)


@contextmanager
def saved_on_interrupt(painting: Any, advice: str = ", --resume continues") -> Iterator[None]:
    """On Ctrl-C the unfinished picture is saved."""
    try:
        yield
    except KeyboardInterrupt:
        path = painting.set_aside()
        say(f"stopped: {path} is the unfinished picture{advice}" if path else "stopped before the first step")
        raise
