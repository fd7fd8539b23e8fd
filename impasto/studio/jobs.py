"""The queue: one job at a time, in a process of its own, so that a crash ends nothing else. After an instant picture the process
waits for the next job, which then begins at once; a process that dies while it waits is replaced unnoticed.

States of a job: queued -> running -> finished or failed; paused or cancelled by the user; unfinished if the studio or the machine
stopped meanwhile. Every job that is not finished can be resumed, from its checkpoint.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from impasto.errors import BadInput, BadRecipe, ImpastoError, one_line
from impasto.machine import python_module
from impasto.pictures import photograph_folder
from impasto.studio.decode import end
from impasto.studio.events import Events
from impasto.studio.job_request import (
    AtlasRequest,
    GridRequest,
    InstantRequest,
    JobRequest,
    LearnRequest,
    PaintingRequest,
    StyleRequest,
    check_change,
    knobs_of,
    pictures_needed,
    pictures_of,
    read_label,
    read_request,
    recipe_of,
    words_of_axis,
)
from impasto.studio.live import side_of
from impasto.studio.store import About, Store, has_links, now, open_within

WORKER = python_module("impasto.studio.worker")
RESUMABLE = ("paused", "cancelled", "failed", "unfinished")
KILL_SECONDS = 30.0  # a step of a large picture takes long
IDLE_SECONDS = 900.0  # that a process waits for the next job
RETRY_SECONDS = 5.0  # until the end of a job is written again
LINE = 2**22  # bytes of one line from a worker
BRIEF = ("id", "state", "step", "preview", "error", "warnings", "picture", "changes")
MOST_WARNINGS = 20
MOST_NAME = 120  # letters


class WrongState(BadRecipe):
    """The job cannot do this in its present state."""


class Missing(BadInput):
    """There is no such picture or job."""


class Jobs:
    """The jobs of a store, and the process that works on one of them."""

    def __init__(self, store: Store, events: Events) -> None:
        self.store, self.events = store, events
        self.steps: dict[str, About] = {}  # of running jobs and those that ran: {step, preview}
        self.process: asyncio.subprocess.Process | None = None  # that does the running job
        self.waiting: asyncio.subprocess.Process | None = None  # that has done one and can do the next
        self.timers: dict[str, asyncio.TimerHandle] = {}  # to kill them
        self.running: str | None = None
        self.ending = ""  # the next state of the running job, if it has to stop
        self.wake = asyncio.Event()
        self.is_closing = False
        for about in store.all("jobs"):
            if about["state"] == "running":
                store.save("jobs", {**about, "state": "unfinished"})

    # Requests

    def submit(self, value: Any) -> About:
        """A new job, last in the queue. Raises BadRecipe, Missing."""
        request = read_request(value)
        for id in pictures_of(request):
            self.picture(id)
        if isinstance(request, StyleRequest) and request.job:
            self.output_of(self.job(request.job))
        name = self._name(request)
        id, _ = self.store.new("jobs")
        about: About = {"id": id, "kind": request.kind, "name": name, "created": now(), "queued": now(), "state": "queued"}
        pictures = sorted(str(self.picture(id)["name"]) for id in pictures_of(request))
        about |= {"asked": request.model_dump(mode="json"), "file": f"{slug(name)}.png", "pictures": pictures}
        about |= {"error": None, "warnings": [], "step": None, "preview": 0, "result": None}
        about |= {"changes": about["asked"].get("changes", {})}
        return self._save(about)

    def pause(self, id: str) -> About:
        """Stop after the present step, with a checkpoint."""
        about = self.job(id)
        if about["state"] == "queued":
            return self._save({**about, "state": "paused"})
        self._stop_running(about, "paused")
        return self.shown(about)

    def resume(self, id: str) -> About:
        """Put it back into the queue, to continue from its checkpoint."""
        about = self.job(id)
        if about["state"] not in RESUMABLE:
            raise WrongState(f"it is {about['state']}: there is nothing to resume")
        return self._save({**about, "state": "queued", "queued": now(), "error": None})

    def cancel(self, id: str) -> About:
        """Stop, as pause does, and leave the queue."""
        about = self.job(id)
        if about["state"] == "running":
            self._stop_running(about, "cancelled")
            return self.shown(about)
        if about["state"] in ("finished", "cancelled"):
            raise WrongState(f"it is {about['state']}: there is nothing to cancel")
        return self._save({**about, "state": "cancelled"})

    def change(self, id: str, knobs: Any) -> About:
        """Change knobs of a painting from its next step on."""
        about = self.job(id)
        request = read_request(about["asked"])
        if not isinstance(request, PaintingRequest) or isinstance(request, GridRequest) or not isinstance(knobs, dict):
            raise BadRecipe("only the knobs of a painting can be changed while it is painted")
        i = reached(self.store.path("jobs", id))
        if not i or about["state"] == "finished":
            raise WrongState(f"it is {about['state']}: " + ("paint it again" if i else "it has not started, so request a new one"))
        check_change(request, knobs, i, about["changes"])
        if about["state"] == "running":
            self._order(json.dumps({"change": knobs}))
            return self.shown(about)
        return self._save({**about, "changes": changed(about["changes"], i, knobs)})

    def label(self, id: str, label: Mapping[str, Any]) -> About:
        """Give a job another name, or a star. Raises BadRecipe."""
        checked = read_label(label)
        return self._save({**self.job(id), **checked})

    def remove(self, id: str) -> None:
        """Remove a job and its files."""
        if self.job(id)["state"] == "running":
            raise WrongState("it is running: cancel it first")
        self.store.remove("jobs", id)
        self.steps.pop(id, None)
        self.events.send("gone", {"id": id})

    def job(self, id: str) -> About:
        """The about.json of a job. Raises Missing."""
        return self._about("jobs", id)

    def picture(self, id: str) -> About:
        """The about.json of a picture. Raises Missing."""
        return self._about("pictures", id)

    def _about(self, kind: str, id: str) -> About:
        if (about := self.store.get(kind, id)) is None:
            raise Missing(f"there is no such {kind.removesuffix('s')}")
        return about

    def path_of_picture(self, id: str) -> Path:
        """The file of a picture. Raises Missing if it is a link."""
        path = self.store.path("pictures", id) / str(self.picture(id)["file"])
        if has_links(path):
            raise Missing(f"the picture {self.picture(id)['name']} is not in the studio's folder any more")
        return path

    def output_of(self, about: About) -> Path:
        """The result of a job, finished or unfinished. Raises Missing."""
        if (path := self._output_of(about)) is None:
            raise Missing("it has no picture yet")
        return path

    def _output_of(self, about: About) -> Path | None:
        """The finished picture, else the unfinished one."""
        path = self.store.path("jobs", about["id"]) / about["file"]
        return next((it for it in (path, path.with_stem(f"{path.stem}-so-far")) if it.is_file() and not has_links(it)), None)

    def uses(self, picture: str) -> bool:
        """Whether a job that is not finished needs the picture."""
        return any(picture in pictures_needed(about["asked"]) for about in self.store.all("jobs") if about["state"] != "finished")

    def shown(self, about: About) -> About:
        """A job as the JSON API shows it."""
        about = about | self.steps.get(about["id"], {}) | {"ending": self.ending if about["id"] == self.running else ""}
        about |= {"picture": self._output_of(about) is not None, "starred": about.get("starred", False)}
        return {name: value for name, value in about.items() if name not in ("file", "queued")}

    # The queue

    async def work(self) -> None:
        """Run the queued jobs, one after the other, until close()."""
        while not self.is_closing:
            self.wake.clear()
            queued = [about for about in self.store.all("jobs") if about["state"] == "queued"]
            if not queued:
                await self.wake.wait()
                continue
            about = min(queued, key=lambda it: (it["queued"], it["created"]))
            try:
                await self._do(about)
            except Exception as error:  # whatever it is, the next job must run
                if not isinstance(error, ImpastoError | OSError):
                    traceback.print_exc()
                await self._fail(about["id"], one_line(str(error) or type(error).__name__))
        if self.waiting is not None:
            end(self.waiting)
            await self.waiting.wait()

    def close(self) -> None:
        """End work(); the running job stops with a checkpoint."""
        self.is_closing = True
        self.wake.set()
        if self.running:
            self._stop_running(self.job(self.running), "unfinished")

    async def _do(self, about: About) -> None:
        changes = {"changes": about["changes"]} if about["changes"] else {}
        request = await asyncio.to_thread(read_request, about["asked"] | changes)  # again: the file may have been edited
        about = self.job(about["id"])
        if about["state"] != "queued":  # it was paused or removed meanwhile
            return
        work = self._work_of(about, request)
        if link := next((it for it in Path(work["folder"]).rglob("*") if it.is_symlink()), None):
            raise BadInput(f"{link} is a link, and the job would write through it: remove it")
        self.running, self.ending = about["id"], ""
        try:
            self._save({**about, "state": "running"})
            last, status = await self._worked(about["id"], work)
        finally:
            self._cancel("stop")
            if self.process is not None:
                end(self.process)
            self.process, self.running = None, None
        self._ended(about["id"], last, status)

    async def _worked(self, id: str, work: dict[str, Any]) -> tuple[About, int]:
        """How the work ended, and the exit code. Done by the process that waits, or by a new one, also where that one is gone."""
        while True:
            old, self.waiting = self.waiting, None
            self._cancel("idle")
            self.process = await self._new_process(id) if old is None or old.returncode is not None else old
            self._order(json.dumps(work))
            if self.ending:  # it had to stop before there was a process
                self._stop()
            last = await self._listen(id)
            if last and work["waits"]:
                self.waiting, self.process = self.process, None
                self._kill_in(IDLE_SECONDS, "idle", self.waiting)
                return last, 0
            status = await self.process.wait()
            if last or self.process is not old or self.ending:
                return last, status

    async def _new_process(self, id: str) -> asyncio.subprocess.Process:
        with open(self.store.path("jobs", id) / "worker.log", "wb") as log:
            return await asyncio.create_subprocess_exec(
                *WORKER, stdin=-1, stdout=-1, stderr=log, limit=LINE, start_new_session=True
            )

    def _kill_in(self, seconds: float, name: str, process: asyncio.subprocess.Process) -> None:
        self.timers[name] = asyncio.get_running_loop().call_later(seconds, end, process)

    def _cancel(self, name: str) -> None:
        if name in self.timers:
            self.timers.pop(name).cancel()

    async def _listen(self, id: str) -> About:
        """Handle the lines of the worker until the job ends, or the process. Returns how the job ended; {} if it did not say."""
        assert self.process is not None and self.process.stdout is not None
        async for line in self.process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if "ended" in event:
                return dict(event)
            if "step" in event:
                self.steps[id] = {"step": event["step"], "preview": event.get("preview", 0)}
                shown = self.shown(self.job(id))
                self.events.send("job", {name: shown[name] for name in BRIEF})
            elif "warning" in event:
                about = self.job(id)
                self._save({**about, "warnings": [*about["warnings"], event["warning"]][-MOST_WARNINGS:]})
            elif "changed" in event:
                about, it = self.job(id), event["changed"]
                self._save({**about, "changes": changed(about["changes"], it["i"], it["knobs"])})
        return {}

    def _ended(self, id: str, last: About, status: int) -> None:
        about = self.job(id)
        if last.get("ended") == "finished":
            self._end({**about, "result": last["result"], "error": None}, "finished", None)
        elif last.get("ended") == "failed":
            self._end(about, "failed", last["error"])
        elif self.ending:
            self._end(about, self.ending, None)
        else:
            self._end(about, "failed", why_it_died(status))

    def _end(self, about: About, state: str, error: str | None) -> None:
        self._save({**about, **self.steps.get(about["id"], {}), "state": state, "error": error})

    async def _fail(self, id: str, error: str) -> None:
        """Mark a job as failed. A disk may be full: try until it can be written."""
        while not self.is_closing:
            try:
                return self._end(self.job(id), "failed", error)
            except Missing:
                return None
            except (ImpastoError, OSError):
                await asyncio.sleep(RETRY_SECONDS)

    def _order(self, line: str) -> None:
        if self.process is None or self.process.stdin is None:
            raise WrongState("it is just starting: try again")
        with contextlib.suppress(ConnectionError, RuntimeError):  # it has ended already, as _listen will see
            self.process.stdin.write(line.encode() + b"\n")

    def _stop_running(self, about: About, becomes: str) -> None:
        """Stop the running job after its present step, with a checkpoint."""
        if about["id"] != self.running:
            raise WrongState(f"it is {about['state']}, not running")
        self.ending = becomes
        if self.process is not None:
            self._stop()

    def _stop(self) -> None:
        """Stop the process after its present step, or kill it after KILL_SECONDS."""
        self._order("pause")
        assert self.process is not None
        self._kill_in(KILL_SECONDS, "stop", self.process)

    def _save(self, about: About) -> About:
        self.store.save("jobs", about)
        self.wake.set()
        shown = self.shown(about)
        self.events.send("job", shown)
        return shown

    # From a request to the line for a worker

    def _work_of(self, about: About, request: JobRequest) -> dict[str, Any]:
        folder = self.store.path("jobs", about["id"])
        work: dict[str, Any] = {"kind": request.kind, "folder": str(folder), "output": str(folder / about["file"])}
        work["waits"] = isinstance(request, InstantRequest)
        if isinstance(request, StyleRequest):
            path = self.path_of_picture(request.picture) if request.picture else self.output_of(self.job(str(request.job)))
            return work | {"net": request.net, "size": request.size, "picture": str(path), "painting": self._painting_read(request)}
        if isinstance(request, AtlasRequest):
            ids = request.pictures or [it["id"] for it in self.store.all("pictures") if not it["mask"]]
            bundled = [] if request.pictures else [str(photograph_folder())]
            return work | {"net": request.net, "pictures": bundled + [str(self.path_of_picture(id)) for id in ids]}
        if isinstance(request, LearnRequest):
            photographs = [str(self.path_of_picture(id)) for id in request.photographs]
            picture = str(self.path_of_picture(request.picture))
            return work | {"picture": picture, "photographs": photographs, "steps": request.steps}
        return work | self._painting_of(request)

    def live_work(self, request: InstantRequest) -> dict[str, Any]:
        """The work for a picture that is painted at once and not kept. Raises BadRecipe, Missing."""
        for id in pictures_of(request):
            self.path_of_picture(id)
        return self._painting_of(request) | {"size": side_of(request)}

    def _painting_of(self, request: PaintingRequest) -> dict[str, Any]:
        styles = [str(self.path_of_picture(id)) for id in request.styles]
        content = str(self.path_of_picture(request.content)) if request.content else next(iter(styles), None)
        start = request.start and str(self.path_of_picture(request.start))
        axes: dict[str, list[str]] = {}
        if isinstance(request, GridRequest):
            axes = {name: words_of_axis(getattr(request, name), self.path_of_picture) for name in ("rows", "columns")}
            on_axes = {words[0] for words in axes.values() if words}
            content, styles = None if "contents" in on_axes else content, [] if "styles" in on_axes else styles
        knobs = knobs_of(request, self.path_of_picture)
        return {"content": content, "styles": styles, "start": start, "knobs": knobs, **axes}

    def _name(self, request: JobRequest) -> str:
        """The name of a job: the one in the request, else after its pictures."""
        if request.name:
            return request.name
        if isinstance(request, AtlasRequest):
            return f"Atlas of {request.net}"
        if isinstance(request, StyleRequest):
            return f"Style of {self._painting_read(request)}"
        if isinstance(request, LearnRequest):
            return f"Learning {self._stem(request.picture)}"
        return self._name_of_painting(request)

    def _painting_read(self, request: StyleRequest) -> str:
        return str((self.picture(request.picture) if request.picture else self.job(str(request.job)))["name"])

    def _name_of_painting(self, request: PaintingRequest) -> str:
        """ "cat in mosaic and wave": the pictures that its recipe uses."""
        recipe = recipe_of(request.model_copy(update={"changes": {}}))
        content = self._stem(request.content) if request.content and recipe.has_content else ""
        styles = " and ".join(self._stem(id) for id in request.styles) if recipe.has_style else ""
        name = f"{content} in {styles}" if content and styles else content or styles or request.kind
        axes = [words[0] for words in (request.rows, request.columns) if words] if isinstance(request, GridRequest) else []
        return f"{name[:MOST_NAME]}{', ' if axes else ''}{' by '.join(axes)}"

    def _stem(self, picture: str) -> str:
        return Path(self.picture(picture)["name"]).stem


def reached(folder: Path) -> int:
    """The last step that a worker recorded in a job's folder; 0 before the first."""
    with contextlib.suppress(OSError), open_within(folder, "curve.jsonl") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1000))
        for row in reversed(file.read().splitlines()):
            with contextlib.suppress(ValueError, TypeError):  # the last line may be half written, the first incomplete
                return int(json.loads(row)[0])
    return 0


def changed(changes: About, i: int, knobs: About) -> About:
    """The changes of a recipe with one more."""
    return {**changes, str(i): {**changes.get(str(i), {}), **knobs}}


def slug(name: str) -> str:
    """A file name of letters, digits and dashes, valid on every system."""
    return re.sub(r"[^\w]+", "-", name, flags=re.ASCII).strip("-_")[:80].lower() or "picture"


def why_it_died(status: int) -> str:
    """Why a worker ended without a result, in words."""
    if os.name == "posix" and status == -signal.SIGKILL:
        return "the process was killed: memory may have run out. Resume continues from the last checkpoint"
    if status < 0:
        return f"the process crashed ({signal.Signals(-status).name}). Resume continues from the last checkpoint"
    return f"the process ended with exit code {status}: see worker.log in its folder"
