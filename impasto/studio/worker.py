"""A job in a process of its own: `python -m impasto.studio.worker`. What to do comes as JSON on the first line of stdin.

Orders follow, a line each: "pause", or {"change": {knob: value}}; the end of stdin, when the studio is gone, is a pause too. What
happens goes out as lines of JSON, on a stdout that no library has. Pausing leaves a checkpoint, from which the same job goes on to
the same picture.
"""

import contextlib
import json
import queue
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock

from impasto.errors import BadRecipe, ImpastoError, ImpastoWarning, one_line
from impasto.machine import own_stdout, settle
from impasto.recipe.recipe import time_left

PREVIEW_SECONDS = 0.8
PREVIEW, SMALL = 720, 360  # pixels of the longer side
Work = Mapping[str, Any]


class Paused(Exception):
    """The job was told to stop here."""


class Orders:
    """What the studio wants of the job, read as it comes."""

    def __init__(self) -> None:
        self.came: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen(self) -> None:
        """From now on, in a thread: reading waits."""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self.came.put(line.strip())
        self.came.put("pause")

    def take(self) -> Iterator[dict[str, Any]]:
        """The changes that were asked for. Raises Paused."""
        while not self.came.empty():
            order = self.came.get()
            if order == "pause":
                raise Paused
            yield json.loads(order)["change"]


class Telling:
    """Tells the studio, on lines of `out`, of the steps of a painting: numbers at each, a picture now and then."""

    def __init__(self, folder: Path, out: TextIO) -> None:
        self.folder, self.out, self.previews, self.told = folder, out, 0, float("-inf")

    def say(self, **what: Any) -> None:
        """A line to the studio. Raises Paused where it is gone."""
        try:
            print(json.dumps(what, allow_nan=False), file=self.out, flush=True)
        except BrokenPipeError:
            raise Paused from None

    def warn(self, message: Warning | str) -> None:
        """A warning of ours; those of libraries are nothing to the studio."""
        if isinstance(message, ImpastoWarning):
            self.say(warning=one_line(str(message)))

    def step(self, painting: Any, step: Any, sheet: "OfSheet | None" = None) -> None:
        """One step."""
        if time.monotonic() - self.told >= PREVIEW_SECONDS or step.i == step.of:
            self._preview(painting, step)
        costs = {name: step.costs.get(name) for name in ("total", "content", "style")}
        left = time_left(painting.scales, step.i, step.scale, step.seconds)
        line = {"i": step.i, "of": step.of, "scale": step.scale, **costs, "left": left, "message": None}
        line |= {} if sheet is None else sheet.told(left)
        with open(self.folder / "curve.jsonl", "a", encoding="ascii") as file:
            file.write(json.dumps([step.i, *costs.values(), step.scale]) + "\n")
        self.say(step=line, preview=self.previews)

    def _preview(self, painting: Any, step: Any) -> None:
        from impasto.images.images import to_pillow, write_small

        shown = to_pillow(painting.shown(step))
        shown.thumbnail((PREVIEW, PREVIEW))
        write_small(self.folder / "preview.webp", shown)
        self.previews, self.told = time.time_ns() // 1_000_000, time.monotonic()


class OfSheet:
    """One painting of a sheet that has so many, some of them done."""

    def __init__(self, name: str, done: int, cells: int) -> None:
        self.name, self.done, self.cells, self.begun = name, done, cells, time.monotonic()

    def told(self, left: float | None) -> dict[str, Any]:
        """Of the whole sheet: the seconds left if the others take as long as this one, of which so many are left."""
        others = self.cells - self.done - 1
        whole = None if left is None else left + others * (time.monotonic() - self.begun + left)
        return {"left": whole, "message": f"{self.name}: {self.done + 1} of {self.cells}", "cells": [self.done, self.cells]}


def paint(work: Work, orders: Orders, telling: Telling) -> dict[str, Any]:
    """One painting, from its checkpoint where there is one; what is told of it."""
    from impasto.recipe.recipe import make_recipe
    from impasto.transfer.painting import Painting

    recipe, start = make_recipe(**work["knobs"]), work["start"] and Path(work["start"])
    painting = Painting(Path(work["content"]), _paths(work["styles"]), Path(work["output"]), recipe, start=start)
    go_through(painting, orders, telling)
    report = painting.report()
    return {key: report[key] for key in ("width", "height", "seconds", "costs", "recipe", "peak_memory_mb")}


def go_through(painting: Any, orders: Orders, telling: Telling, sheet: OfSheet | None = None) -> None:
    """All steps; changes are made where they come. A pause leaves a checkpoint and the picture so far. Raises Paused."""
    try:
        for step in painting.steps(resume=True):
            telling.step(painting, step, sheet)
            for knobs in orders.take():
                try:
                    painting.change(knobs)
                except BadRecipe as error:  # the studio cannot know all: a unit that its layer has not
                    telling.say(warning=f"painted on unchanged: {error}")
                else:
                    telling.say(changed={"i": step.i, "knobs": knobs})
    except Paused:
        painting.set_aside()
        raise


def paint_grid(work: Work, orders: Orders, telling: Telling) -> dict[str, Any]:
    """All cells, then the sheet."""
    from impasto.grid import Sheet, make_grid

    knobs = work["knobs"]
    grid = make_grid(_paths([it for it in (work["content"], *work["styles"]) if it]), work["rows"], work["columns"], knobs)
    sheet = Sheet(grid, Path(work["output"]), telling.folder / "cells")

    def one(spot: tuple[int, int], painting: Any) -> None:
        go_through(painting, orders, telling, OfSheet(sheet.name_of(spot), len(sheet.found), len(grid.cells)))

    sheet.paint(one)
    sheet.write()
    report = sheet.report()
    cells = [{key: cell[key] for key in ("row", "column", "recipe", "error")} for cell in report["cells"]]
    return {"rows": report["rows"], "columns": report["columns"], "cells": cells}


def read_style(work: Work, _orders: Orders, telling: Telling) -> dict[str, Any]:
    """A style as a page."""
    from impasto.lens.style.page import read_painting, write_page
    from impasto.weights import load_net

    path, net = Path(work["picture"]), load_net(work["net"])
    telling.say(step=_message("reading the style"))
    reading = read_painting(path, net, [], work["size"], "max")
    reading = replace(reading, painting=replace(reading.painting, name=work["painting"]))
    telling.say(step=_message("drawing the page"))
    write_page(telling.folder / "page", reading)
    _small(path, telling.folder)
    units = {style.layer: style.gram.shape[-1] for style in reading.styles}
    return {"painting": work["painting"], "net": work["net"], "units": units}


def make_atlas(work: Work, orders: Orders, telling: Telling) -> dict[str, Any]:
    """A scan, from its checkpoint where there is one, and its page."""
    from impasto.lens.atlas import make_atlas as draw_atlas
    from impasto.lens.index import make_setup
    from impasto.lens.scan import scan
    from impasto.weights import load_net

    net = load_net(work["net"])
    setup, folder = make_setup(net, per_image=3 if len(work["pictures"]) < 30 else 1), telling.folder / "scan"
    followed(scan(_paths(work["pictures"]), net, setup, folder, resume=True), orders, telling, "looked at")
    followed(draw_atlas(folder, net, telling.folder / "page"), orders, telling, "drawn")
    units = {name: layer.units for name, layer in setup.layers.items()}
    return {"net": work["net"], "units": units, "pictures": len(work["pictures"])}


def followed(progress: Any, orders: Orders, telling: Telling, done: str) -> None:
    """Pictures passed, told one by one. Raises Paused."""
    for it in progress:
        telling.say(step={**_message(f"{it.done} of {it.of} pictures {done}"), "i": it.done, "of": it.of})
        list(orders.take())


def _message(text: str) -> dict[str, Any]:
    return {"i": 0, "of": 0, "scale": None, "total": None, "content": None, "style": None, "left": None, "message": text}


def _small(path: Path, folder: Path) -> None:
    from impasto.images.images import read_picture, to_pillow, write_small

    picture = to_pillow(read_picture(path).image)
    picture.thumbnail((SMALL, SMALL))
    write_small(folder / "small.webp", picture)


def _paths(texts: list[str]) -> list[Path]:
    return [Path(text) for text in texts]


DOERS: dict[str, Callable[[Work, Orders, Telling], dict[str, Any]]] = {
    "painting": paint,
    "grid": paint_grid,
    "style": read_style,
    "atlas": make_atlas,
}


def main() -> None:
    """The job; how it ended is the last line."""
    settle()
    work = json.loads(sys.stdin.readline())
    orders, telling = Orders(), Telling(Path(work["folder"]), own_stdout())
    alone = FileLock(telling.folder / "worker.lock")  # that of a studio that was killed may be at its last step still
    alone.acquire()
    orders.listen()
    warnings.simplefilter("always", ImpastoWarning)
    warnings.showwarning = lambda message, *_: telling.warn(message)
    try:
        try:
            result = DOERS[work["kind"]](work, orders, telling)
            if Path(work["output"]).exists():
                _small(Path(work["output"]), telling.folder)
            telling.say(ended="finished", result=result)
        except ImpastoError as error:
            telling.say(ended="failed", error=str(error))
    except Paused:
        with contextlib.suppress(Paused):  # the studio is gone
            _leave(work, telling)
    except Exception as error:
        traceback.print_exc()
        telling.say(ended="failed", error=_in_words(error))


def _leave(work: Work, telling: Telling) -> None:
    if Path(work["output"]).exists():
        _small(Path(work["output"]), telling.folder)
    telling.say(ended="paused")


def _in_words(error: Exception) -> str:
    from impasto.transfer.painting import is_out_of_memory

    return "out of memory: try a smaller size" if is_out_of_memory(error) else one_line(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
