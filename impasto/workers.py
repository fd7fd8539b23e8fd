"""Whoever does one piece of work after the other, and may die: a process of this machine, or an actor on a cluster (cluster.py).

Work is a mapping that JSON can carry; work.py has what is done with it. What is said of it are mappings too: that it has
begun, steps on the way, then {"report": ...}, or {"error": ..., "is_final": ...}.
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
PATIENCE = 3600.0  # seconds without a word, after which work is taken to hang
BEGUN = {"begun": True}
Work = Mapping[str, Any]
Said = dict[str, Any]
T = TypeVar("T")
Event = TypeVar("Event")


@dataclass(frozen=True)
class Crew:
    """Who does the work: this process or, with `ray`, workers that may be on many machines.

    `ray` is [] for a Ray of its own, else the address of a cluster. Of each worker: its `threads`, its share of GPUs, and for how
    many seconds it may say nothing. What is None is settled by what there is.
    """

    ray: list[str] | None = None
    workers: int | None = None
    threads: int | None = None
    gpus_each: float | None = None
    timeout: float | None = None


def threads_of(crew: Crew) -> int:
    """Threads of whoever does the work, here or elsewhere: those of torch here unless others are asked for."""
    from torch import get_num_threads

    return crew.threads or get_num_threads()


def painting_work(content: Path, styles: Sequence[Path], output: Path, recipe: Recipe, how: Mapping[str, Any]) -> Work:
    """One painting; `how` may say device, threads (as many as here unless given), max_memory in bytes, and no resume."""
    pictures = {"content": str(content), "styles": [str(style) for style in styles], "output": str(output)}
    return {"kind": "painting", "folder": os.getcwd(), **pictures, "recipe": recipe_for_work(recipe), "how": settled(how)}


def recipe_for_work(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON carries it to another process, which checked_recipe reads: unlike a record with the masks' paths."""
    return recipe.model_dump(mode="json", context=WITH_PATHS)


def settled(how: Mapping[str, Any]) -> dict[str, Any]:
    """How a worker is to do its work, with nothing left to where it does it."""
    from torch import get_num_threads

    return {"device": "auto", "threads": get_num_threads(), "max_memory": None, "resume": True, **how}


class Died(ImpastoError):
    """Whoever did the work is gone."""


class Hand(Protocol):
    """Does one piece of work at a time; `patience` is how many seconds it may say nothing of it."""

    patience: float

    def do(self, work: Work) -> Iterator[Said]:
        """BEGUN, its steps, then its report or error. Raises Died; the next work finds another in the place of the dead."""

    def drop(self) -> None:
        """End what is being done, which dies of it. From any thread."""

    def close(self) -> None:
        """Stop, for good; what was being done has its checkpoint. From any thread."""


class LocalHand:
    """A process of this machine; it is started when first needed, and anew after it has died."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.patience, self.closed = patience, False

    def do(self, work: Work) -> Iterator[Said]:
        """See Hand."""
        process = self.process = self.process or subprocess.Popen(COMMAND, stdin=-1, stdout=-1, text=True)
        if self.closed:
            process.kill()
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead, as the next line tells
            process.stdin.write(json.dumps(work) + "\n")
            process.stdin.flush()
        yield BEGUN
        for line in process.stdout:
            said = json.loads(line)
            yield said
            if "step" not in said:
                return
        status, self.process = process.wait(), None
        raise Died(f"the process that did it died ({_cause(status)})")

    def drop(self) -> None:
        """See Hand."""
        if (process := self.process) is not None:
            process.kill()

    def close(self) -> None:
        """See Hand."""
        self.closed = True
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _cause(status: int) -> str:
    return "killed: memory may have run out" if status == -9 else f"exit code {status}"


def tried(work: Work, hand: Hand, tries: int = TRIES) -> Iterator[Said]:
    """The steps of as many tries as it takes, then the last word, with the number of `tries`; a final error is not tried again."""
    for n in range(1, tries + 1):
        try:
            for said in heard(hand, work):
                if "step" in said:
                    yield said
        except Died as died:
            said = {"error": str(died), "is_final": False}
        if n == tries or "report" in said or said["is_final"]:
            yield {**said, "tries": n}
            return


def heard(hand: Hand, work: Work) -> Iterator[Said]:
    """What the hand says of the work, which it may wait to begin; raises Died, and drops it, after its patience without a word."""
    words, hung = hand.do(work), []

    def drop() -> None:
        hung.append(work)
        hand.drop()

    said = next(words, None)
    while said is not None:
        yield said
        timer = Timer(hand.patience, drop)
        timer.start()
        try:
            said = next(words, None)
        except Died as died:
            raise Died(f"nothing was heard of it for {hand.patience:g} s") if hung else died from None
        finally:
            timer.cancel()


def shared_out(works: Iterable[T], hands: Sequence[Hand], do: Callable[[T, Hand], Iterator[Event]]) -> Iterator[tuple[T, Event]]:
    """The events of do(work, hand) of all works as they come: whichever hand is free takes the next work.

    In the end, and whatever ends it, the hands are closed. What `do` raises is raised here.
    """
    left, came = deque(works), SimpleQueue[tuple[T, Event] | BaseException | None]()

    def go(hand: Hand) -> None:
        try:
            for work in _taken(left):
                for event in do(work, hand):
                    came.put((work, event))
            came.put(None)
        except BaseException as error:
            came.put(error)
        finally:
            hand.close()

    threads = [Thread(target=go, args=(hand,), daemon=True) for hand in hands]
    for thread in threads:
        thread.start()
    try:
        at_work = len(threads)
        while at_work:
            event = came.get()
            if isinstance(event, BaseException):
                raise event
            if event is None:
                at_work -= 1
            else:
                yield event
    finally:
        left.clear()
        for hand in hands:
            hand.close()
        for thread in threads:
            thread.join()


def _taken(left: deque[T]) -> Iterator[T]:
    """One after the other, until others have taken the rest."""
    while True:
        try:
            work = left.popleft()
        except IndexError:
            return
        yield work


def shard_of(text: str, environment: Mapping[str, str]) -> tuple[int, int]:
    """ "2/5" -> (1, 5): which part of how many, from 0; "auto" reads what a scheduler has set. Raises BadRecipe."""
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
        raise BadRecipe(f"{what} is {part}/{count}, must be one part of so many, as 1/4 to 4/4")
    return int(part) - first, int(count)
