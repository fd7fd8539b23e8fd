"""Workers run one task after the other and may die: a process of this machine, or an actor on a Ray cluster (cluster.py).

A task is a mapping that JSON can carry; tasks.py runs it. While it runs, a worker sends events, mappings too: STARTED, steps,
then one result, {"report": ...} or {"error": ..., "is_final": ...}.
"""

import contextlib
import json
import os
import subprocess
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread, Timer
from typing import Any, Protocol, TypeVar

from impasto.errors import BadRecipe, ImpastoError
from impasto.machine import python_module
from impasto.recipe.recipe import Recipe
from impasto.recipe.regions import WITH_PATHS

COMMAND = python_module("impasto.tasks")
TRIES = 2
TIMEOUT = 3600.0  # seconds without an event, after which a task counts as hanging
STARTED = {"started": True}
Task = Mapping[str, Any]
Event = dict[str, Any]
T = TypeVar("T")
E = TypeVar("E")


@dataclass(frozen=True)
class WorkerOptions:
    """Who runs the tasks: this process or, with `ray`, workers that may be on many machines.

    `ray` is [] for a private Ray, else the address of a cluster. For each worker: its `threads`, its share of GPUs, and for how
    many seconds it may send no event. None picks a value that fits the machines.
    """

    ray: list[str] | None = None
    workers: int | None = None
    threads: int | None = None
    gpus_each: float | None = None
    timeout: float | None = None


def threads_of(options: WorkerOptions) -> int:
    """Threads of each worker; the default is the number that torch uses in this process."""
    from torch import get_num_threads

    return options.threads or get_num_threads()


def painting_task(content: Path, styles: Sequence[Path], output: Path, recipe: Recipe, options: Mapping[str, Any]) -> Task:
    """One painting. `options` may hold device, threads, max_memory (bytes) and resume; the defaults are those of this process."""
    from torch import get_num_threads

    pictures = {"content": str(content), "styles": [str(style) for style in styles], "output": str(output)}
    every = {"device": "auto", "threads": get_num_threads(), "max_memory": None, "resume": True, **options}
    return {"kind": "painting", "folder": os.getcwd(), **pictures, "recipe": recipe_for_task(recipe), "options": every}


def recipe_for_task(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON, which checked_recipe reads: unlike a record it holds the paths of the masks."""
    return recipe.model_dump(mode="json", context=WITH_PATHS)


class WorkerDied(ImpastoError):
    """The worker stopped before its task ended."""


class Worker(Protocol):
    """Runs one task at a time; `timeout` is how many seconds it may send no event."""

    timeout: float

    def run(self, task: Task) -> Iterator[Event]:
        """STARTED, the steps, then the report or the error. Raises WorkerDied; the next task starts a new worker."""

    def kill(self) -> None:
        """End the running task: run() raises WorkerDied. Safe from any thread."""

    def close(self) -> None:
        """Stop for good; the running task keeps its checkpoint. Safe from any thread."""


class LocalWorker:
    """A process of this machine. The first task starts it, and the next one after it has died."""

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.timeout, self.closed = timeout, False

    def run(self, task: Task) -> Iterator[Event]:
        """See Worker."""
        process = self.process = self.process or subprocess.Popen(COMMAND, stdin=-1, stdout=-1, text=True)
        if self.closed:
            process.kill()
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead, which reading its stdout shows
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
        yield STARTED
        for line in process.stdout:
            event = json.loads(line)
            yield event
            if "step" not in event:
                return
        status, self.process = process.wait(), None
        raise WorkerDied(f"the worker stopped ({'killed: memory may have run out' if status == -9 else f'exit code {status}'})")

    def kill(self) -> None:
        """See Worker."""
        if (process := self.process) is not None:
            process.kill()

    def close(self) -> None:
        """See Worker."""
        self.closed = True
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def with_retries(task: Task, worker: Worker, tries: int = TRIES) -> Iterator[Event]:
    """The steps of all tries, then the result with the number of `tries`. A final error is not tried again."""
    for n in range(1, tries + 1):
        try:
            for event in with_timeout(task, worker):
                if "step" in event:
                    yield event
        except WorkerDied as died:
            event = {"error": str(died), "is_final": False}
        if n == tries or "report" in event or event["is_final"]:
            yield {**event, "tries": n}
            return


def with_timeout(task: Task, worker: Worker) -> Iterator[Event]:
    """The events of a task, which may wait to start. Kills the worker after its timeout without an event. Raises WorkerDied."""
    events, hung = worker.run(task), []

    def kill() -> None:
        hung.append(task)
        worker.kill()

    event = next(events, None)
    while event is not None:
        yield event
        timer = Timer(worker.timeout, kill)
        timer.start()
        try:
            event = next(events, None)
        except WorkerDied as died:
            why = f"no progress for {worker.timeout:g} s, so the worker was stopped"
            raise WorkerDied(why) if hung else died from None
        finally:
            timer.cancel()


def distribute(tasks: Iterable[T], workers: Sequence[Worker], run: Callable[[T, Worker], Iterator[E]]) -> Iterator[tuple[T, E]]:
    """The events of run(task, worker) for all tasks, as they come: whichever worker is free takes the next task.

    However it ends, all workers are closed. An exception of `run` is raised here.
    """
    waiting, events = deque(tasks), SimpleQueue[tuple[T, E] | BaseException | None]()

    def work(worker: Worker) -> None:
        try:
            for task in _taken(waiting):
                for event in run(task, worker):
                    events.put((task, event))
            events.put(None)
        except BaseException as error:
            events.put(error)
        finally:
            worker.close()

    threads = [Thread(target=work, args=(worker,), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        busy = len(threads)
        while busy:
            event = events.get()
            if isinstance(event, BaseException):
                raise event
            if event is None:
                busy -= 1
            else:
                yield event
    finally:
        waiting.clear()
        for worker in workers:
            worker.close()
        for thread in threads:
            thread.join()


def _taken(waiting: deque[T]) -> Iterator[T]:
    """One task after the other, until none waits. Several threads share the deque."""
    with contextlib.suppress(IndexError):
        while True:
            yield waiting.popleft()


def shard_of(text: str, environment: Mapping[str, str]) -> tuple[int, int]:
    """ "2/5" -> (1, 5): the number of a part, from 0, and how many there are; "auto" asks the scheduler. Raises BadRecipe."""
    if text == "auto":
        for rank, of in RANKS:
            if rank in environment and of in environment:
                return _checked(environment[rank], environment[of], 0, f"{rank}/{of}")
        raise BadRecipe(f"--shard auto finds none of {', '.join(f'{rank} and {of}' for rank, of in RANKS)} in the environment")
    part, _, count = text.partition("/")
    return _checked(part, count, 1, "--shard")


RANKS = (
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    ("RANK", "WORLD_SIZE"),
    ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"),
)


def _checked(part: str, count: str, first: int, what: str) -> tuple[int, int]:
    if not (part.isdecimal() and count.isdecimal() and 0 <= int(part) - first < int(count)):
        raise BadRecipe(f"{what} is {part}/{count}, must be a part and the number of parts, as 1/4 to 4/4")
    return int(part) - first, int(count)
