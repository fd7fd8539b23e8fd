"""A worker in this process, so that a test can replace the nets, have it die, and need not wait for a new process to load torch."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing

from impasto.cache import Cache
from impasto.tasks import run_task
from impasto.workers import Event, Task, WorkerDied


def run_here(task: Task) -> Iterator[Event]:
    """The events of a task, which goes through JSON as on its way to another process."""
    return run_task(json.loads(json.dumps(task)), Cache())


class FakeWorker:
    """Runs tasks, and dies once, after so many events of a task."""

    def __init__(self, dies_after: int | None = None, runs: Callable[[Task], Iterator[Event]] = run_here) -> None:
        self.dies_after, self.runs, self.closed, self.timeout = dies_after, runs, False, 60.0

    def run(self, task: Task) -> Iterator[Event]:
        with closing(self.runs(task)) as events:
            for n, event in enumerate(events):
                if n == self.dies_after or self.closed:
                    self.dies_after = None
                    raise WorkerDied("killed")
                yield event

    def kill(self) -> None:
        raise AssertionError("it does not hang")

    def close(self) -> None:
        self.closed = True
