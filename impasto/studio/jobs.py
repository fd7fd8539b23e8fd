"""The queue: one job at a time, each in a process of its own, so that what happens to it happens to nothing else.

A job's states: queued -> running -> finished or failed; paused and cancelled by hand; unfinished where the studio or the machine
stopped under it. Whatever is not finished can be resumed, from its checkpoint.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import sqlite3
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from impasto.errors import BadInput, BadRecipe, ImpastoError, one_line
from impasto.machine import python_module
from impasto.studio.decode import end
from impasto.studio.events import Events
from impasto.studio.job_request import (
    Asked,
    AtlasAsked,
    GridAsked,
    PaintingAsked,
    StyleAsked,
    check_change,
    knobs_of,
    pictures_needed,
    pictures_of,
    read_asked,
    recipe_of,
    words_of_axis,
)
from impasto.studio.store import About, Store, has_links, now, open_within

WORKER = python_module("impasto.studio.worker")
RESUMABLE = ("paused", "cancelled", "failed", "unfinished")
KILL_SECONDS = 30.0  # a step of a large picture takes long
AGAIN_SECONDS = 5.0  # until it is tried again to write how a job ended
LINE = 2**22  # bytes of one line that a worker says
BRIEF = ("id", "state", "step", "preview", "error", "warnings", "picture", "changes")
MOST_WARNINGS = 20
MOST_NAME = 120  # letters


class WrongState(BadRecipe):
    """What is asked of a job cannot be done in the state that it is in."""


class Missing(BadInput):
    """There is no such picture or job."""


class Jobs:
    """The jobs of a store, and the process that works on one of them."""

    def __init__(self, store: Store, events: Events) -> None:
        self.store, self.events = store, events
        self.steps: dict[str, About] = {}  # of running jobs and those that ran: {step, preview}
        self.process: asyncio.subprocess.Process | None = None
        self.running: str | None = None
        self.ending = ""  # what the running job is to become, where it was told to stop
        self.wake = asyncio.Event()
        self.is_closing = False
        for about in store.all("jobs"):
            if about["state"] == "running":
                store.save("jobs", {**about, "state": "unfinished"})

    # What a page asks

    def submit(self, value: Any) -> About:
        """A new job, last in the queue. Raises BadRecipe, Missing."""
        asked = read_asked(value)
        for id in pictures_of(asked):
            self.picture(id)
        if isinstance(asked, StyleAsked) and asked.job:
            self.output_of(self.job(asked.job))
        name = self._name(asked)
        id, _ = self.store.new("jobs")
        about: About = {"id": id, "kind": asked.kind, "name": name, "created": now(), "queued": now(), "state": "queued"}
        about |= {"asked": asked.model_dump(mode="json"), "file": f"{slug(name)}.png", "pictures": sorted(self._names(asked))}
        about |= {"error": None, "warnings": [], "step": None, "preview": 0, "result": None}
        about |= {"changes": about["asked"].get("changes", {})}
        return self._save(about)

    def pause(self, id: str) -> About:
        """Stop where it is, with a checkpoint."""
        about = self.job(id)
        if about["state"] == "queued":
            return self._save({**about, "state": "paused"})
        self._tell_running(about, "paused")
        return self.shown(about)

    def resume(self, id: str) -> About:
        """Back into the queue, to go on from its checkpoint."""
        about = self.job(id)
        if about["state"] not in RESUMABLE:
            raise WrongState(f"it is {about['state']}: there is nothing to resume")
        return self._save({**about, "state": "queued", "queued": now(), "error": None})

    def cancel(self, id: str) -> About:
        """Stop, as pause does, and out of the way."""
        about = self.job(id)
        if about["state"] == "running":
            self._tell_running(about, "cancelled")
            return self.shown(about)
        if about["state"] in ("finished", "cancelled"):
            raise WrongState(f"it is {about['state']}: there is nothing to cancel")
        return self._save({**about, "state": "cancelled"})

    def change(self, id: str, knobs: Any) -> About:
        """Other knobs from the next step on, of a painting that runs or is paused."""
        about = self.job(id)
        asked = read_asked(about["asked"])
        if not isinstance(asked, PaintingAsked) or isinstance(asked, GridAsked) or not isinstance(knobs, dict):
            raise BadRecipe("only a painting's knobs can be changed on the way")
        i = reached(self.store.path("jobs", id))
        if not i or about["state"] == "finished":
            raise WrongState(f"it is {about['state']}: " + ("paint it again" if i else "it has not begun, ask for a new one"))
        check_change(asked, knobs, i, about["changes"])
        if about["state"] == "running":
            self._order(json.dumps({"change": knobs}))
            return self.shown(about)
        return self._save({**about, "changes": changed(about["changes"], i, knobs)})

    def remove(self, id: str) -> None:
        """A job and all that it made."""
        if self.job(id)["state"] == "running":
            raise WrongState("it is running: cancel it first")
        self.store.remove("jobs", id)
        self.steps.pop(id, None)
        self.events.tell("gone", {"id": id})

    def job(self, id: str) -> About:
        """What is kept of a job. Raises Missing."""
        about = self.store.get("jobs", id)
        if about is None:
            raise Missing("there is no such job")
        return about

    def picture(self, id: str) -> About:
        """What is kept of a picture. Raises Missing."""
        about = self.store.get("pictures", id)
        if about is None:
            raise Missing("there is no such picture")
        return about

    def path_of_picture(self, id: str) -> Path:
        """Its file. Raises Missing where that is a link."""
        path = self.store.path("pictures", id) / str(self.picture(id)["file"])
        if has_links(path):
            raise Missing(f"the picture {self.picture(id)['name']} is not in the studio's folder any more")
        return path

    def output_of(self, about: About) -> Path:
        """The picture that a job made, finished or so far. Raises Missing."""
        if (path := self._output_of(about)) is None:
            raise Missing("there is no picture of it yet")
        return path

    def _output_of(self, about: About) -> Path | None:
        """Finished, else so far."""
        path = self.store.path("jobs", about["id"]) / about["file"]
        return next((it for it in (path, path.with_stem(f"{path.stem}-so-far")) if it.is_file() and not has_links(it)), None)

    def uses(self, picture: str) -> bool:
        """Whether a job that is not finished needs the picture."""
        return any(picture in pictures_needed(about["asked"]) for about in self.store.all("jobs") if about["state"] != "finished")

    def shown(self, about: About) -> About:
        """A job as pages know it."""
        about = about | self.steps.get(about["id"], {}) | {"ending": self.ending if about["id"] == self.running else ""}
        hidden = ("file", "queued")
        return {name: value for name, value in about.items() if name not in hidden} | {
            "picture": self._output_of(about) is not None
        }

    # The work

    async def work(self) -> None:
        """Do what is queued, one after the other, until close()."""
        while not self.is_closing:
            self.wake.clear()
            queued = [about for about in self.store.all("jobs") if about["state"] == "queued"]
            if not queued:
                await self.wake.wait()
                continue
            about = min(queued, key=lambda it: (it["queued"], it["created"]))
            try:
                await self._do(about)
            except Exception as error:  # whatever it is, the next job is done
                if not isinstance(error, ImpastoError | OSError):
                    traceback.print_exc()
                await self._fail(about["id"], one_line(str(error) or type(error).__name__))

    def close(self) -> None:
        """Let work() leave the running job with its checkpoint, and end."""
        self.is_closing = True
        self.wake.set()
        if self.running:
            self._tell_running(self.job(self.running), "unfinished")

    async def _do(self, about: About) -> None:
        asked = await asyncio.to_thread(_asked_of, about)
        about = self.job(about["id"])
        if about["state"] != "queued":  # meanwhile
            return
        work = self._work_of(about, asked)
        if link := next((it for it in Path(work["folder"]).rglob("*") if it.is_symlink()), None):
            raise BadInput(f"{link} is a link, through which would be written: remove it")
        folder = self.store.path("jobs", about["id"])
        self.running, self.ending = about["id"], ""
        try:
            self._save({**about, "state": "running"})
            with open(folder / "worker.log", "wb") as log:
                self.process = await asyncio.create_subprocess_exec(
                    *WORKER, stdin=-1, stdout=-1, stderr=log, limit=LINE, start_new_session=True
                )
            self._order(json.dumps(work))
            if self.ending:  # it was told to stop before there was a process
                self._stop()
            said = await self._listen(about["id"])
            status = await self.process.wait()
        finally:
            if self.process is not None:
                end(self.process)
            self.process, self.running = None, None
        self._ended(about["id"], said, status)

    async def _listen(self, id: str) -> About:
        """What the worker says, until it ends; its last word."""
        assert self.process is not None and self.process.stdout is not None
        last: About = {}
        async for line in self.process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if "ended" in said:
                last = said
            elif "step" in said:
                self.steps[id] = {"step": said["step"], "preview": said.get("preview", 0)}
                self._tell(id)
            elif "warning" in said:
                about = self.job(id)
                self._save({**about, "warnings": [*about["warnings"], said["warning"]][-MOST_WARNINGS:]})
            elif "changed" in said:
                about, it = self.job(id), said["changed"]
                self._save({**about, "changes": changed(about["changes"], it["i"], it["knobs"])})
        return last

    def _ended(self, id: str, said: About, status: int) -> None:
        about = self.job(id)
        if said.get("ended") == "finished":
            self._end({**about, "result": said["result"], "error": None}, "finished", None)
        elif said.get("ended") == "failed":
            self._end(about, "failed", said["error"])
        elif self.ending:
            self._end(about, self.ending, None)
        else:
            self._end(about, "failed", why_it_died(status))

    def _end(self, about: About, state: str, error: str | None) -> None:
        self._save({**about, **self.steps.get(about["id"], {}), "state": state, "error": error})

    async def _fail(self, id: str, error: str) -> None:
        """End it as failed, as soon as that can be written: a disk may be full."""
        while not self.is_closing:
            try:
                return self._end(self.job(id), "failed", error)
            except Missing:
                return None
            except (ImpastoError, OSError, sqlite3.Error):
                await asyncio.sleep(AGAIN_SECONDS)

    def _order(self, line: str) -> None:
        if self.process is None or self.process.stdin is None:
            raise WrongState("it is just beginning: try again")
        with contextlib.suppress(ConnectionError, RuntimeError):  # it has ended already, which is told by its end
            self.process.stdin.write(line.encode() + b"\n")

    def _tell_running(self, about: About, becomes: str) -> None:
        """Let the running job stop at its next step, with a checkpoint."""
        if about["id"] != self.running:
            raise WrongState(f"it is {about['state']}, not running")
        self.ending = becomes
        if self.process is not None:
            self._stop()

    def _stop(self) -> None:
        """Let the process stop at its next step; it is killed where it does not."""
        self._order("pause")
        assert self.process is not None
        asyncio.get_running_loop().call_later(KILL_SECONDS, end, self.process)

    def _save(self, about: About) -> About:
        self.store.save("jobs", about)
        self.wake.set()
        shown = self.shown(about)
        self.events.tell("job", shown)
        return shown

    def _tell(self, id: str) -> None:
        shown = self.shown(self.job(id))
        self.events.tell("job", {name: shown[name] for name in BRIEF})

    # From what is asked to what a worker takes

    def _work_of(self, about: About, asked: Asked) -> dict[str, Any]:
        folder = self.store.path("jobs", about["id"])
        work: dict[str, Any] = {"kind": asked.kind, "folder": str(folder), "output": str(folder / about["file"])}
        if isinstance(asked, StyleAsked):
            path = self.path_of_picture(asked.picture) if asked.picture else self.output_of(self.job(str(asked.job)))
            return work | {"net": asked.net, "size": asked.size, "picture": str(path), "painting": self._painting_read(asked)}
        if isinstance(asked, AtlasAsked):
            ids = asked.pictures or [it["id"] for it in self.store.all("pictures") if not it["mask"]]
            return work | {"net": asked.net, "pictures": [str(self.path_of_picture(id)) for id in ids]}
        return work | self._painting_of(asked)

    def _painting_of(self, asked: PaintingAsked) -> dict[str, Any]:
        styles = [str(self.path_of_picture(id)) for id in asked.styles]
        content = str(self.path_of_picture(asked.content)) if asked.content else next(iter(styles), None)
        start = asked.start and str(self.path_of_picture(asked.start))
        axes: dict[str, list[str]] = {}
        if isinstance(asked, GridAsked):
            axes = {name: words_of_axis(getattr(asked, name), self.path_of_picture) for name in ("rows", "columns")}
            brought = {words[0] for words in axes.values() if words}
            content, styles = None if "contents" in brought else content, [] if "styles" in brought else styles
        knobs = knobs_of(asked, self.path_of_picture)
        return {"content": content, "styles": styles, "start": start, "knobs": knobs, **axes}

    def _names(self, asked: Asked) -> Iterator[str]:
        for id in pictures_of(asked):
            yield str(self.picture(id)["name"])

    def _name(self, asked: Asked) -> str:
        """What a job is called: as it was asked, else after its pictures."""
        if asked.name:
            return asked.name
        if isinstance(asked, AtlasAsked):
            return f"Atlas of {asked.net}"
        if isinstance(asked, StyleAsked):
            return f"Style of {self._painting_read(asked)}"
        return self._name_of_painting(asked)

    def _painting_read(self, asked: StyleAsked) -> str:
        return str((self.picture(asked.picture) if asked.picture else self.job(str(asked.job)))["name"])

    def _name_of_painting(self, asked: PaintingAsked) -> str:
        """ "cat in mosaic and wave": the pictures that it is painted from, and not those that its recipe has no use for."""
        recipe = recipe_of(asked.model_copy(update={"changes": {}}))
        content = self._stem(asked.content) if asked.content and recipe.has_content else ""
        styles = " and ".join(self._stem(id) for id in asked.styles) if recipe.has_style else ""
        name = f"{content} in {styles}" if content and styles else content or styles or asked.kind
        axes = [words[0] for words in (asked.rows, asked.columns) if words] if isinstance(asked, GridAsked) else []
        return f"{name[:MOST_NAME]}{', ' if axes else ''}{' by '.join(axes)}"

    def _stem(self, picture: str) -> str:
        return Path(self.picture(picture)["name"]).stem


def _asked_of(about: About) -> Asked:
    """What was asked, with what has been changed since; checked again, for its file may have been changed too. Raises BadRecipe."""
    return read_asked(about["asked"] | ({"changes": about["changes"]} if about["changes"] else {}))


def reached(folder: Path) -> int:
    """The last step that a worker did there, whether the studio lived to hear of it or not; 0 before the first."""
    with contextlib.suppress(OSError), open_within(folder, "curve.jsonl") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1000))
        for row in reversed(file.read().splitlines()):
            with contextlib.suppress(ValueError, TypeError):  # the last may be half written, the first is cut
                return int(json.loads(row)[0])
    return 0


def changed(changes: About, i: int, knobs: About) -> About:
    """The changes of a recipe with one more."""
    return {**changes, str(i): {**changes.get(str(i), {}), **knobs}}


def slug(name: str) -> str:
    """A file name of letters, digits and dashes, that no system objects to."""
    return re.sub(r"[^\w]+", "-", name, flags=re.ASCII).strip("-_")[:80].lower() or "picture"


def why_it_died(status: int) -> str:
    """In words, of a worker that ended without a last word."""
    if os.name == "posix" and status == -signal.SIGKILL:
        return "the process that painted was killed: memory may have run out. Resume goes on from the last checkpoint"
    if status < 0:
        return f"the process that painted crashed ({signal.Signals(-status).name}). Resume goes on from the last checkpoint"
    return f"the process that painted ended with exit code {status}, worker.log in its folder says more"
