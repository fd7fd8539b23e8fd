"""The studio from Python: the jobs of the page, with the same requests. Does not need the extra `studio`.

studio = Client()                      # the studio that runs on this machine
job = studio.paint("cat.jpg", ["wave.jpg"], size=256)
studio.wait(job["id"], print)
studio.download(job["id"], "cat-wave.png")
"""

import contextlib
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from impasto.errors import BadImage, BadInput, BadRecipe, CannotWrite, ImpastoError
from impasto.files import read_whole, reason, write_whole

MOST_UPLOADED = 100_000_000
STUDIO_FILE = "studio.json"  # in the folder: address and key of the studio that runs, and the newest address for a browser
ENDED = ("finished", "failed", "cancelled", "paused", "unfinished")
Job = dict[str, Any]


class Refused(ImpastoError):
    """The studio refused a request: its message, and the HTTP `status`."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """A studio on this machine, found by its folder, or by `address` (http://127.0.0.1:8765) and `key`."""

    def __init__(self, folder: str | Path | None = None, *, address: str = "", key: str = "") -> None:
        if not address:
            place = default_folder() if folder is None else Path(folder)
            try:
                found = json.loads(read_whole(place / STUDIO_FILE, 100_000))
                address, key = found["address"], found["key"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise BadInput(f"no studio runs for the folder {place}: start one with impasto studio --folder") from error
        self.address, self._key = str(address).rstrip("/"), key
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine: no proxy

    def upload(self, path: str | Path, mask: bool = False) -> dict[str, Any]:
        """Upload a picture file. Returns its description, with its "id". Raises BadImage if it cannot be read."""
        path = Path(path)
        query = urllib.parse.urlencode({"name": path.name, **({"mask": "1"} if mask else {})}, errors="replace")
        try:
            data = read_whole(path, MOST_UPLOADED)
        except OSError as error:
            raise BadImage(f"cannot read {path}: {reason(error)}") from error
        return dict(self._ask("POST", f"/api/pictures?{query}", data))

    def about(self) -> dict[str, Any]:
        """The studio's version and folder."""
        return dict(self._ask("GET", "/api/about"))

    def pictures(self) -> list[dict[str, Any]]:
        """All pictures, newest first."""
        return list(self._ask("GET", "/api/pictures")["pictures"])

    def submit(self, **request: Any) -> Job:
        """Submit any job: kind, content, styles, preset, knobs, ... with pictures by their ids (docs/studio.md)."""
        return dict(self._ask("POST", "/api/jobs", _json(request)))

    def paint(self, content: str | Path, styles: Sequence[str | Path], preset: str = "impasto", **knobs: Any) -> Job:
        """Upload the pictures and queue a painting."""
        ids = [self.upload(path)["id"] for path in (content, *styles)]
        return self.submit(kind="painting", content=ids[0], styles=ids[1:], preset=preset, knobs=knobs)

    def jobs(self, search: str = "") -> list[Job]:
        """All jobs with all the words of `search`, newest first."""
        return list(self._ask("GET", f"/api/jobs?{urllib.parse.urlencode({'search': search}, errors='replace')}")["jobs"])

    def job(self, id: str) -> Job:
        """One job."""
        return dict(self._ask("GET", f"/api/jobs/{_quoted(id)}"))

    def pause(self, id: str) -> Job:
        """Stop it with a checkpoint."""
        return dict(self._ask("POST", f"/api/jobs/{_quoted(id)}/pause", b""))

    def resume(self, id: str) -> Job:
        """Continue from the checkpoint."""
        return dict(self._ask("POST", f"/api/jobs/{_quoted(id)}/resume", b""))

    def cancel(self, id: str) -> Job:
        """Stop it and take it out of the queue; resume() still continues it."""
        return dict(self._ask("POST", f"/api/jobs/{_quoted(id)}/cancel", b""))

    def change(self, id: str, **knobs: Any) -> Job:
        """Change weights from its next step on."""
        return dict(self._ask("POST", f"/api/jobs/{_quoted(id)}/change", _json({"knobs": knobs})))

    def remove(self, id: str) -> None:
        """Remove a job and its files."""
        self._ask("DELETE", f"/api/jobs/{_quoted(id)}")

    def wait(self, id: str, each: Callable[[Job], object] = lambda job: None) -> Job:
        """Wait until it ends; `each` is called with the job at every event. Raises Refused if it failed or is removed."""
        with contextlib.closing(self.events()) as events:
            next(events, None)  # from here on no event is missed
            job = self.job(id)
            while job["state"] not in ENDED:
                name, event = next(events, ("over", {}))
                if name == "over":
                    raise BadInput(f"the studio at {self.address} has ended")
                if name == "gone" and event["id"] == id:
                    raise Refused("the job was removed", 404)
                if name == "job" and event["id"] == id:
                    job |= event
                    each(job)
        if job["state"] == "failed":
            raise Refused(job["error"], 200)
        return self.job(id)

    def events(self) -> Generator[tuple[str, dict[str, Any]], None, None]:
        """The events of the studio: ("job", ...), ("picture", ...), ("gone", ...); first ("hello", ...)."""
        with self._open("GET", "/api/events") as answer, self._errors():
            name = ""
            for raw in answer:
                line = raw.decode().rstrip("\n")
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield name, json.loads(line.removeprefix("data: "))

    def download(self, id: str, path: str | Path) -> Path:
        """Save the result, with its recipe inside, to a file."""
        with self._open("GET", f"/api/jobs/{_quoted(id)}/download") as answer, self._errors():
            data = answer.read()
        try:
            write_whole(Path(path), lambda file: file.write(data))
        except ValueError as error:  # not a valid file name
            raise CannotWrite(f"cannot write {path}: {error}") from error
        return Path(path)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        with self._open(method, path, body) as answer, self._errors():
            data = answer.read()
            return json.loads(data) if data else None

    def _open(self, method: str, path: str, body: bytes | None = None) -> Any:
        headers = {"Authorization": f"Bearer {self._key}", "X-Impasto": "1", "Content-Type": "application/octet-stream"}
        with self._errors():
            request = urllib.request.Request(self.address + path, data=body, headers=headers, method=method)
            return self._opener.open(request)

    @contextlib.contextmanager
    def _errors(self) -> Generator[None, None, None]:
        """Errors of the connection and of the studio as errors of Impasto."""
        try:
            yield
        except urllib.error.HTTPError as error:
            raise Refused(_message(error), error.code) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            why = getattr(error, "reason", error)
            raise BadInput(f"the studio at {self.address} does not answer: {reason(why)}") from error


def default_folder() -> Path:
    """The default folder of a studio: Impasto in the pictures folder of this system."""
    return platformdirs.user_pictures_path() / "Impasto"


def _json(value: Any) -> bytes:
    """Raises BadRecipe for values that JSON cannot carry."""
    try:
        return json.dumps(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRecipe(f"this request cannot be sent: {error}") from error


def _quoted(id: str) -> str:
    return urllib.parse.quote(str(id), safe="", errors="replace")


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"])
    except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException):
        return f"the studio answered {error.code}"
