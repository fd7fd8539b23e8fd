"""The studio from Python: the same jobs as its page has, over the same requests. Needs nothing but Python's own library.

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
DOOR = "studio.json"  # in the folder: address and key of the studio that runs, and the newest address for a browser
ENDED = ("finished", "failed", "cancelled", "paused", "unfinished")
Job = dict[str, Any]


class Refused(ImpastoError):
    """The studio said no: its sentence, and `status`, the number that came with it."""

    def __init__(self, said: str, status: int) -> None:
        super().__init__(said)
        self.status = status


class Client:
    """A studio on this machine, found by its folder, or by `address` (http://127.0.0.1:8765) and `key`."""

    def __init__(self, folder: str | Path | None = None, *, address: str = "", key: str = "") -> None:
        if not address:
            place = Path(folder) if folder is not None else platformdirs.user_pictures_path() / "Impasto"
            try:
                found = json.loads(read_whole(place / DOOR, 100_000))
                address, key = found["address"], found["key"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise BadInput(f"no studio runs for the folder {place}: start one with impasto studio --folder") from error
        self.address, self._key = str(address).rstrip("/"), key
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is this machine: no proxy

    def upload(self, path: str | Path, mask: bool = False) -> dict[str, Any]:
        """A picture file into the studio; what is known of it, "id" first of all. Raises BadImage where it cannot be read."""
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

    def submit(self, **asked: Any) -> Job:
        """Any job as the page asks for it: kind, content, styles, preset, knobs, ... with pictures by their ids."""
        return dict(self._ask("POST", "/api/jobs", _json(asked)))

    def paint(self, content: str | Path, styles: Sequence[str | Path], preset: str = "impasto", **knobs: Any) -> Job:
        """Upload the pictures and queue a painting."""
        ids = [self.upload(path)["id"] for path in (content, *styles)]
        return self.submit(kind="painting", content=ids[0], styles=ids[1:], preset=preset, knobs=knobs)

    def jobs(self, search: str = "") -> list[Job]:
        """All jobs, newest first; those that have all of the words."""
        return list(self._ask("GET", f"/api/jobs?{urllib.parse.urlencode({'search': search}, errors='replace')}")["jobs"])

    def job(self, id: str) -> Job:
        """One job."""
        return dict(self._ask("GET", f"/api/jobs/{_quoted(id)}"))

    def pause(self, id: str) -> Job:
        """Stop it with a checkpoint."""
        return dict(self._ask("POST", f"/api/jobs/{_quoted(id)}/pause", b""))

    def resume(self, id: str) -> Job:
        """Let it go on."""
        return dict(self._ask("POST", f"/api/jobs/{_quoted(id)}/resume", b""))

    def cancel(self, id: str) -> Job:
        """Stop it for good; resume() still goes on."""
        return dict(self._ask("POST", f"/api/jobs/{_quoted(id)}/cancel", b""))

    def change(self, id: str, **knobs: Any) -> Job:
        """Other weights from its next step on."""
        return dict(self._ask("POST", f"/api/jobs/{_quoted(id)}/change", _json({"knobs": knobs})))

    def remove(self, id: str) -> None:
        """A job and all that it made."""
        self._ask("DELETE", f"/api/jobs/{_quoted(id)}")

    def wait(self, id: str, each: Callable[[Job], object] = lambda job: None) -> Job:
        """Until it ends in any way; `each` is called with what is told on the way. Raises Refused where it failed or is removed."""
        with contextlib.closing(self.events()) as told:
            next(told, None)  # from here on nothing is missed
            job = self.job(id)
            while job["state"] not in ENDED:
                name, said = next(told, ("over", {}))
                if name == "over":
                    raise BadInput(f"the studio at {self.address} has ended")
                if name == "gone" and said["id"] == id:
                    raise Refused("the job was removed", 404)
                if name == "job" and said["id"] == id:
                    job |= said
                    each(job)
        if job["state"] == "failed":
            raise Refused(job["error"], 200)
        return self.job(id)

    def events(self) -> Generator[tuple[str, dict[str, Any]], None, None]:
        """What happens in the studio: ("job", ...), ("picture", ...), ("gone", ...); first ("hello", ...)."""
        with self._open("GET", "/api/events") as answer, self._errors():
            name = ""
            for raw in answer:
                line = raw.decode().rstrip("\n")
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield name, json.loads(line.removeprefix("data: "))

    def download(self, id: str, path: str | Path) -> Path:
        """The painting, with its recipe inside, to a file."""
        with self._open("GET", f"/api/jobs/{_quoted(id)}/download") as answer, self._errors():
            data = answer.read()
        try:
            write_whole(Path(path), lambda file: file.write(data))
        except ValueError as error:  # no file system can spell it
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
        """What can go wrong between here and the studio, as an error of ours."""
        try:
            yield
        except urllib.error.HTTPError as error:
            raise Refused(_said(error), error.code) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            why = getattr(error, "reason", error)
            raise BadInput(f"the studio at {self.address} does not answer: {reason(why)}") from error


def _json(value: Any) -> bytes:
    """Raises BadRecipe for what JSON has no word for."""
    try:
        return json.dumps(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRecipe(f"cannot be asked of the studio: {error}") from error


def _quoted(id: str) -> str:
    return urllib.parse.quote(str(id), safe="", errors="replace")


def _said(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"])
    except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException):
        return f"the studio answered {error.code}"
