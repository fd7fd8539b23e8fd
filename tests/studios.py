"""A studio in a process of its own, for tests: started, asked over plain HTTP, killed."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from impasto.pictures import picture_path
from impasto.studio.client import Client


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Running:
    """`impasto studio --no-browser` on a folder, at any free port unless one is named."""

    def __init__(self, folder: Path, *options: str, port: int = 0, python: Sequence[str] = ("-m", "impasto"), **how: Any) -> None:
        self.folder, self.lines, self.opened = folder, [], set()
        command = [
            sys.executable,
            *python,
            "studio",
            "--port",
            str(port),
            "--no-browser",
            "--folder",
            str(folder),
            *options,
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **how.pop("env", {})}
        self.process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=environment, **how)
        assert self.process.stdout is not None
        self.lines.append(self.process.stdout.readline().strip())
        if not self.lines[0]:
            raise AssertionError(self.process.communicate()[1])
        threading.Thread(target=self._read, daemon=True).start()
        self.port = int(self.lines[0].split(":")[2].split("/")[0])
        self.host = f"127.0.0.1:{self.port}"
        door = json.loads((folder / "studio.json").read_bytes())
        self.key, self.client = door["key"], Client(folder)

    def _read(self) -> None:
        with contextlib.suppress(ValueError):
            for line in self.process.stdout:  # type: ignore[union-attr]
                self.lines.append(line.strip())

    def raw(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Answer:
        """A request with these headers and no others, but for Host and Content-Length where they are not given."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Host": self.host, **(headers or {})}
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None and "Content-Length" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        found = Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        connection.close()
        return found

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """A request as the studio's own page or a program of its owner sends it; JSON unless the body is bytes."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        return self.raw(method, path, {"Authorization": f"Bearer {self.key}", "X-Impasto": "1", **headers}, data)

    def bundled(self, name: str) -> str:
        """The id of a bundled picture."""
        return next(it["id"] for it in self.client.pictures() if it["name"] == picture_path(name).name)

    def quick(self, **changed: Any) -> dict[str, Any]:
        """A painting to ask for that takes seconds: AlexNet, small."""
        knobs = {"net": "alexnet", "size": 64, "coarsest": 64, "steps": 5, **changed.pop("knobs", {})}
        asked = {"kind": "painting", "content": self.bundled("cat"), "styles": [self.bundled("mosaic")], "knobs": knobs}
        return {**asked, **changed}

    def slow(self) -> dict[str, Any]:
        """One that takes longer than any test."""
        return self.quick(knobs={"steps": 100_000})

    def submit(self, asked: dict[str, Any]) -> str:
        answer = self.ask("POST", "/api/jobs", asked)
        assert answer.status == 201, answer.body
        return str(answer.json()["id"])

    def job(self, id: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"/api/jobs/{id}").json())

    def address(self) -> str:
        """The newest address, which no browser has opened yet."""
        end = time.monotonic() + 10
        while self.lines[-1] in self.opened and time.monotonic() < end:
            time.sleep(0.05)
        self.opened.add(self.lines[-1])
        return self.lines[-1]

    def until(self, id: str, holds: Callable[[dict[str, Any]], bool], seconds: float = 120) -> dict[str, Any]:
        """The job, as soon as this holds of it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if holds(job := self.job(id)):
                return job
            time.sleep(0.1)
        raise AssertionError(f"in {seconds} s the job did not come so far: {job}")

    def ended(self, id: str, seconds: float = 120) -> dict[str, Any]:
        return self.until(id, lambda job: job["state"] not in ("queued", "running"), seconds)

    def painting(self, id: str) -> dict[str, Any]:
        """The job, once it has taken a step."""
        return self.until(id, lambda job: bool(job["step"] and job["step"]["i"]))

    def workers(self) -> list[int]:
        """The processes of running jobs."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if parent == self.process.pid and b"impasto.studio.worker" in (path / "cmdline").read_bytes():
                    found.append(int(path.name))
        return found

    def stop(self, how: signal.Signals = signal.SIGTERM) -> str:
        """End it, and what it has said on stderr; one that does not end is killed, and that is an error."""
        self.process.send_signal(how)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
        return str(self.process.stderr.read())  # type: ignore[union-attr]


# In place of the studio's worker: hands its streams to a process that has loaded torch, and ends as the worker there ends.
CALLER = """
import os, socket, sys
called = socket.socket(socket.AF_UNIX)
called.connect(sys.argv[1])
socket.send_fds(called, [b"x"], [0, 1, 2])
for stream in (0, 1, 2):
    os.close(stream)
status = int(called.recv(20))
if status < 0:
    os.kill(os.getpid(), -status)
os._exit(status)
"""

# That process, which never computes. For each caller a process of its own waits for the worker, and kills it when the
# caller is gone.
FORKING = """
import os, select, signal, socket, sys, traceback
from impasto.machine import settle
settle()
import impasto.lens.index, impasto.transfer.painting

def work(streams):
    os.setsid()
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
        os.close(stream)
    try:
        exec(sys.argv[2], {"__name__": "__main__"})
        status = 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)

place, waiting = socket.socket(socket.AF_UNIX), []
place.bind(sys.argv[1])
place.listen()
print("ready", flush=True)
while True:
    if sys.stdin in select.select([place, sys.stdin], [], [])[0]:  # the studio is gone
        break
    called = place.accept()[0]
    if child := os.fork():
        called.close()
        waiting = [it for it in (*waiting, child) if os.waitpid(it, os.WNOHANG) == (0, 0)]
        continue
    place.close()
    streams = socket.recv_fds(called, 1, 3)[1]
    if not (worker := os.fork()):
        called.close()
        work(streams)
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(worker)
    if ended not in select.select([ended, called], [], [])[0]:
        os.kill(worker, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    try:
        called.sendall(str(status).encode())
    except OSError:
        pass
    os._exit(0)
for child in waiting:
    os.waitpid(child, 0)
"""


@contextlib.contextmanager
def forking(worker: str) -> Iterator[str]:
    """The script of a studio whose workers run this script, and need not wait for torch: they are forked from one process."""
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/workers"
        command = [sys.executable, "-c", FORKING, place, worker]
        with subprocess.Popen(command, stdin=-1, stdout=-1, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
            assert process.stdin is not None and process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield f"""
import sys
from impasto.studio import jobs
jobs.WORKER = sys.executable, "-I", "-S", "-c", {CALLER!r}, {place!r}
from impasto.cli.app import main
sys.argv[0] = "impasto"
main()
"""
            process.stdin.close()
