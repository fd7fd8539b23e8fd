"""Processes that need not wait for torch: forked from one that has loaded it, and that never computes."""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SERVER = """
import json, os, sys, traceback
import hypothesis, numpy, PIL.Image, pydantic, pytest, safetensors.torch, scipy.ndimage, torch

def run(asked):
    try:
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.dup2(os.open(asked["output"], os.O_WRONLY), 1)
        sys.argv = ["-c", *asked["arguments"]]
        exec(compile(asked["code"], "-c", "exec"), {"__name__": "__main__"})
        status = 0
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)

for line in sys.stdin:
    asked = json.loads(line)
    if "wait" in asked:
        print(os.waitpid(asked["wait"], 0)[1], flush=True)
    elif child := os.fork():
        print(child, flush=True)
    else:
        run(asked)
"""


@cache
def server() -> subprocess.Popen:
    """One for this run of the tests; it ends when its stdin is closed."""
    root = Path(__file__).parent.parent
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdin=-1, stdout=-1, text=True, cwd=root)
    assert process.stdin is not None
    atexit.register(process.stdin.close)
    return process


def ask(**what: object) -> int:
    process = server()
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(what) + "\n")
    process.stdin.flush()
    return int(process.stdout.readline())


class Forked:
    """A script in a process of its own, which starts in the folder of the package with this environment; `stdout` is its text."""

    def __init__(self, code: str, *arguments: object) -> None:
        with tempfile.TemporaryDirectory() as folder:
            os.mkfifo(output := f"{folder}/output")
            words = [str(word) for word in arguments]
            self.pid = ask(code=code, arguments=words, output=output, environment=dict(os.environ))
            self.stdout = open(output, encoding="utf-8")  # noqa: SIM115, which wait() closes

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code, or minus the number of the signal that killed it."""
        with self.stdout:
            self.stdout.read()
        return os.waitstatus_to_exitcode(ask(wait=self.pid))
