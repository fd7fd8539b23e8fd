"""The studio's queue with workers of a few lines: what is told to them at the wrong moment, and what they do wrong."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the studio is not tried: the extra studio is not installed")

from impasto.errors import NoRoom
from impasto.studio import jobs
from impasto.studio.events import Events
from impasto.studio.jobs import Jobs
from impasto.studio.store import Store

pytestmark = pytest.mark.slow

OBEYS = """
import json, sys
work = json.loads(sys.stdin.readline())
for line in sys.stdin:
    if line.strip() == "pause":
        print('{"ended": "paused"}', flush=True)
        break
"""
SAYS = "import sys, time; sys.stdin.readline(); sys.stdout.write(%r); sys.stdout.flush(); time.sleep(600)"


ANSWERS = """
import json, os, sys
for line in sys.stdin:
    if "kind" in line:
        print(json.dumps({"ended": "finished", "result": os.getpid()}), flush=True)
"""


def tried(folder: Path, monkeypatch, worker: str, scene: Callable[[Jobs, str], Awaitable[None]], kind: str = "painting") -> None:
    """The scene with a queue that works, and a painting in it."""
    monkeypatch.setattr(jobs, "WORKER", (sys.executable, "-c", worker))
    monkeypatch.setattr(jobs, "KILL_SECONDS", 1.0)

    async def play() -> None:
        store = Store(folder)
        queue = Jobs(store, Events())
        picture, _ = store.new("pictures")
        about = {"id": picture, "created": 1, "name": "cat.png", "file": "cat.png", "width": 9, "height": 9}
        store.save("pictures", {**about, "mask": False, "bundled": False, "hashes": [], "record": None})
        id = queue.submit({"kind": kind, "content": picture, "styles": [picture]})["id"]
        work = asyncio.create_task(queue.work())
        await scene(queue, id)
        queue.close()
        await work
        store.close()

    asyncio.run(asyncio.wait_for(play(), 60))


async def until(queue: Jobs, id: str, state: str) -> None:
    while queue.job(id)["state"] != state:
        await asyncio.sleep(0)


@pytest.mark.parametrize(("order", "state"), [("pause", "paused"), ("cancel", "cancelled")])
def test_a_job_can_be_stopped_before_its_process_is_there(tmp_path, monkeypatch, order, state):
    async def scene(queue: Jobs, id: str) -> None:
        await until(queue, id, "running")
        assert queue.process is None
        getattr(queue, order)(id)
        await until(queue, id, state)

    tried(tmp_path, monkeypatch, OBEYS, scene)


def test_a_studio_that_ends_as_a_job_begins_does_not_wait_for_its_painting(tmp_path, monkeypatch):
    async def scene(queue: Jobs, id: str) -> None:
        await until(queue, id, "running")
        assert queue.process is None

    tried(tmp_path, monkeypatch, OBEYS, scene)
    store = Store(tmp_path)
    assert [it["state"] for it in store.all("jobs")] == ["unfinished"]
    store.close()


def test_a_worker_that_cannot_be_heard_does_not_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "LINE", 1000)

    async def scene(queue: Jobs, id: str) -> None:
        while queue.process is None:
            await asyncio.sleep(0)
        process = queue.process
        await until(queue, id, "failed")
        assert await process.wait() == -9

    tried(tmp_path, monkeypatch, SAYS % ("x" * 5000), scene)


def test_a_job_whose_end_cannot_be_written_is_ended_later_and_the_next_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "RETRY_SECONDS", 0.05)

    async def scene(queue: Jobs, id: str) -> None:
        await until(queue, id, "running")
        save, refused = queue.store.save, []

        def full(kind: str, about: dict) -> None:
            if len(refused) < 3:
                refused.append(about)
                raise NoRoom("no room on the disk")
            save(kind, about)

        monkeypatch.setattr(queue.store, "save", full)
        await until(queue, id, "failed")
        assert len(refused) == 3 and queue.running is None
        queue.resume(id)
        await until(queue, id, "running")

    tried(tmp_path, monkeypatch, SAYS % '{"warning": "hear"}\n', scene)


async def again(queue: Jobs, id: str, kind: str = "instant") -> int:
    """The process that does a job like this one, once it has."""
    id = queue.submit(queue.job(id)["asked"] | {"kind": kind})["id"]
    await until(queue, id, "finished")
    return int(queue.job(id)["result"])


def test_after_an_instant_picture_the_process_waits_for_the_next_job_and_is_replaced_if_it_dies(tmp_path, monkeypatch):
    async def scene(queue: Jobs, id: str) -> None:
        await until(queue, id, "finished")
        first = queue.job(id)["result"]
        assert await again(queue, id) == await again(queue, id) == first
        assert queue.waiting is not None and queue.process is None
        queue.waiting.kill()  # the queue may not know yet that it is dead
        second = await again(queue, id)
        assert second != first
        queue.waiting.kill()
        await queue.waiting.wait()
        assert await again(queue, id) not in (first, second)

    tried(tmp_path, monkeypatch, ANSWERS, scene, "instant")


def test_a_process_that_waits_for_long_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "IDLE_SECONDS", 0.1)

    async def scene(queue: Jobs, id: str) -> None:
        await until(queue, id, "finished")
        assert queue.waiting is not None and await queue.waiting.wait() == -9
        assert await again(queue, id) != queue.job(id)["result"]

    tried(tmp_path, monkeypatch, ANSWERS, scene, "instant")


def test_a_process_that_was_told_to_stop_and_did_its_job_is_not_killed_in_the_next(tmp_path, monkeypatch):
    """What is sent to a job that has just ended must not end the next."""

    async def scene(queue: Jobs, id: str) -> None:
        monkeypatch.setattr(jobs, "KILL_SECONDS", 0.2)
        await until(queue, id, "running")
        queue.pause(id)
        await until(queue, id, "finished")
        process = queue.waiting
        await asyncio.sleep(0.5)
        assert process is not None and process.returncode is None and await again(queue, id) == process.pid

    tried(tmp_path, monkeypatch, ANSWERS, scene, "instant")


def test_an_instant_picture_that_nobody_can_paint_fails_and_is_not_tried_again(tmp_path, monkeypatch):
    async def scene(queue: Jobs, id: str) -> None:
        await until(queue, id, "failed")
        assert queue.waiting is None

    tried(tmp_path, monkeypatch, "import sys; sys.stdin.readline()", scene, "instant")
