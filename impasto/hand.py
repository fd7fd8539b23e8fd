"""A process that paints one job after the other: `python -m impasto.hand`. It may die; who asked it starts another.

Nets, and what paintings are compared with, are kept from job to job.
"""

import contextlib
import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from impasto.errors import BadInput, BadRecipe, ImpastoError
from impasto.kept import Kept
from impasto.machine import settle

COMMAND = [sys.executable, "-m", "impasto.hand"]
Work = Mapping[str, Any]
KEPT = 48  # weights, nets, style pictures, and of each a target a scale


class Died(ImpastoError):
    """The process that painted is gone."""


class Hand:
    """The process, on the side of who asks; it is started when first needed, and anew after it has died."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def do(self, work: Work, tell: Callable[[Mapping[str, Any]], object]) -> dict[str, Any]:
        """One job; `tell` hears of its steps. {"report": ...}, or {"error": ..., "is_final": ...}. Raises Died."""
        process = self.process = self.process or _started()
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead, as the next line tells
            process.stdin.write(json.dumps(work) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            said = json.loads(line)
            if "step" not in said:
                return dict(said)
            tell(said["step"])
        status, self.process = process.wait(), None
        raise Died(f"the process that painted it died ({_cause(status)})")

    def close(self) -> None:
        """End the process; what it was painting has its checkpoint."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _started() -> "subprocess.Popen[str]":
    return subprocess.Popen(COMMAND, stdin=-1, stdout=-1, text=True)


def _cause(status: int) -> str:
    return "killed: memory may have run out" if status == -9 else f"exit code {status}"


def main() -> None:
    """Jobs from stdin, a line of JSON each."""
    settle()
    kept = Kept(KEPT)
    for line in sys.stdin:
        try:
            said: dict[str, Any] = {"report": paint(json.loads(line), kept)}
        except ImpastoError as error:
            said = {"error": str(error), "is_final": isinstance(error, BadInput | BadRecipe)}
        except Exception as error:
            traceback.print_exc()
            said = {"error": f"{type(error).__name__}: {error}", "is_final": False}
        print(json.dumps(said), flush=True)


def paint(work: Work, kept: Kept) -> dict[str, Any]:
    """One painting, from its checkpoint where there is one; its report."""
    from impasto.nets import choose_place
    from impasto.painting import Painting
    from impasto.recipe import make_recipe

    how = work["how"]
    place = choose_place(how.get("device", "auto"), "auto")
    options: dict[str, Any] = {"place": place, "max_memory": how.get("max_memory"), "kept": kept}
    styles, recipe = [Path(style) for style in work["styles"]], make_recipe(**work["knobs"])
    painting = Painting(Path(work["content"]), styles, Path(work["output"]), recipe, **options)
    for step in painting.steps(resume=how.get("resume", True)):
        told = {"i": step.i, "of": step.of, "scale": step.scale, "total": step.costs["total"]}
        print(json.dumps({"step": told}), flush=True)
    return painting.report()


if __name__ == "__main__":
    main()
