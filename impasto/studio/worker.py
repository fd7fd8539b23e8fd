"""A job in a process of its own: `python -m impasto.studio.worker`. The first line of stdin is the job, as JSON.

Orders follow, one per line: "pause", or {"change": {knob: value}}. The end of stdin, when the studio is gone, is a pause too.
Events go to stdout as lines of JSON; what libraries print goes to the job's worker.log. After a pause the job continues from its
checkpoint to the same picture. After a job that `waits` the process waits for the next, which then need not load torch again.
"""

import json
import os
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
from impasto.machine import own_stdout, peak_memory_mb, settle
from impasto.recipe.recipe import time_left

PREVIEW_SECONDS = 0.8
PREVIEW, SMALL = 720, 360  # pixels of the longer side
THE_END = ""  # of stdin, among its lines
MOST_WAITING = 1000.0  # MB: a process that has used more memory ends, and does not wait for the next job
Work = Mapping[str, Any]


class Paused(Exception):
    """The studio has paused the job."""


class Orders:
    """The orders of the studio, which a thread reads from stdin."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self.queue.put(line.strip())
        self.queue.put(THE_END)

    def next_work(self) -> Work | None:
        """The next job, once it is there; None at the end of stdin. Orders for a job that has ended meanwhile are skipped."""
        while (line := self.queue.get()) != THE_END:
            if line != "pause" and "kind" in (work := json.loads(line)):
                return dict(work)
        return None

    def take(self) -> Iterator[dict[str, Any]]:
        """The changes that have arrived. Raises Paused."""
        while not self.queue.empty():
            order = self.queue.get()
            if order == THE_END:
                self.queue.put(THE_END)
            if order in ("pause", THE_END):
                raise Paused
            yield json.loads(order)["change"]


class Reporter:
    """Sends events to the studio as lines of `out`: the numbers of each step, and a preview now and then."""

    def __init__(self, folder: Path, out: TextIO) -> None:
        self.folder, self.out, self.preview_id, self.preview_time = folder, out, 0, float("-inf")

    def send(self, **event: Any) -> None:
        """Send an event. Raises Paused if the studio is gone."""
        try:
            print(json.dumps(event, allow_nan=False), file=self.out, flush=True)
        except BrokenPipeError:
            raise Paused from None

    def warn(self, message: Warning | str) -> None:
        """Send a warning of Impasto; those of libraries are left out."""
        if isinstance(message, ImpastoWarning):
            self.send(warning=one_line(str(message)))

    def step(self, painting: Any, step: Any, sheet: "SheetProgress | None" = None) -> None:
        """Send a step, with a preview if the last one is old."""
        if time.monotonic() - self.preview_time >= PREVIEW_SECONDS or step.i == step.of:
            self._preview(painting, step)
        costs = {name: step.costs.get(name) for name in ("total", "content", "style")}
        left = time_left(painting.scales, step.i, step.scale, step.seconds)
        line = {"i": step.i, "of": step.of, "scale": step.scale, **costs, "left": left, "message": None}
        line |= {} if sheet is None else sheet.about(left)
        with open(self.folder / "curve.jsonl", "a", encoding="ascii") as file:
            file.write(json.dumps([step.i, *costs.values(), step.scale]) + "\n")
        self.send(step=line, preview=self.preview_id)

    def _preview(self, painting: Any, step: Any) -> None:
        from impasto.images.images import to_pillow, write_small

        shown = to_pillow(painting.shown(step))
        shown.thumbnail((PREVIEW, PREVIEW))
        write_small(self.folder / "preview.webp", shown)
        self.preview_id, self.preview_time = time.time_ns() // 1_000_000, time.monotonic()


class SheetProgress:
    """The place of one painting among the cells of a sheet."""

    def __init__(self, name: str, done: int, cells: int) -> None:
        self.name, self.done, self.cells, self.begun = name, done, cells, time.monotonic()

    def about(self, left: float | None) -> dict[str, Any]:
        """Fields of a step: the seconds left for the whole sheet if every painting takes as long as this one, which has `left`."""
        others = self.cells - self.done - 1
        whole = None if left is None else left + others * (time.monotonic() - self.begun + left)
        return {"left": whole, "message": f"{self.name}: {self.done + 1} of {self.cells}", "cells": [self.done, self.cells]}


def paint(work: Work, orders: Orders, reporter: Reporter) -> dict[str, Any]:
    """One painting, from its checkpoint where there is one. Returns the result for the studio."""
    from impasto.recipe.recipe import make_recipe
    from impasto.transfer.painting import Painting

    recipe, start = make_recipe(**work["knobs"]), work["start"] and Path(work["start"])
    painting = Painting(Path(work["content"]), _paths(work["styles"]), Path(work["output"]), recipe, start=start)
    go_through(painting, orders, reporter)
    report = painting.report()
    return {key: report[key] for key in ("width", "height", "seconds", "costs", "recipe", "peak_memory_mb")}


def go_through(painting: Any, orders: Orders, reporter: Reporter, sheet: SheetProgress | None = None) -> None:
    """Go through all steps and make changes as they arrive. A pause saves checkpoint and unfinished picture. Raises Paused."""
    try:
        for step in painting.steps(resume=True):
            reporter.step(painting, step, sheet)
            for knobs in orders.take():
                try:
                    painting.change(knobs)
                except BadRecipe as error:  # the studio cannot check everything, as the number of units of a layer
                    reporter.send(warning=f"the change was not made: {error}")
                else:
                    reporter.send(changed={"i": step.i, "knobs": knobs})
    except Paused:
        painting.set_aside()
        raise


def paint_grid(work: Work, orders: Orders, reporter: Reporter) -> dict[str, Any]:
    """Paint all cells, then the sheet."""
    from impasto.grid import Sheet, make_grid

    knobs = work["knobs"]
    grid = make_grid(_paths([it for it in (work["content"], *work["styles"]) if it]), work["rows"], work["columns"], knobs)
    sheet = Sheet(grid, Path(work["output"]), reporter.folder / "cells")

    def one(spot: tuple[int, int], painting: Any) -> None:
        go_through(painting, orders, reporter, SheetProgress(sheet.name_of(spot), len(sheet.found), len(grid.cells)))

    sheet.paint(one)
    sheet.write()
    report = sheet.report()
    cells = [{key: cell[key] for key in ("row", "column", "recipe", "error")} for cell in report["cells"]]
    return {"rows": report["rows"], "columns": report["columns"], "cells": cells}


def read_style(work: Work, _orders: Orders, reporter: Reporter) -> dict[str, Any]:
    """Read a style and make its page."""
    from impasto.lens.style.page import read_painting, write_page
    from impasto.weights import load_net

    path, net = Path(work["picture"]), load_net(work["net"])
    reporter.send(step=_message("reading the style"))
    reading = read_painting(path, net, [], work["size"], "max")
    reading = replace(reading, painting=replace(reading.painting, name=work["painting"]))
    reporter.send(step=_message("drawing the page"))
    write_page(reporter.folder / "page", reading)
    _small(path, reporter.folder)
    units = {style.layer: style.gram.shape[-1] for style in reading.styles}
    return {"painting": work["painting"], "net": work["net"], "units": units}


def learn(work: Work, orders: Orders, reporter: Reporter) -> dict[str, Any]:
    """Learn a style; the picture of the job is the first photograph in it. After a pause it begins anew."""
    from impasto.images.images import quantize, write_picture
    from impasto.transfer.learning import Learning

    learning = Learning(Path(work["picture"]), _paths(work["photographs"]), steps=work["steps"])
    for lesson in learning.steps():
        reporter.step(learning, lesson)
        list(orders.take())
    write_picture(Path(work["output"]), quantize(learning.shown(lesson)))
    return {"steps": lesson.of}


def make_atlas(work: Work, orders: Orders, reporter: Reporter) -> dict[str, Any]:
    """A scan, from its checkpoint where there is one, how clear its units are, and its page."""
    from impasto.lens.atlas import make_atlas as draw_atlas
    from impasto.lens.clarity import can_measure, clarity_of, write_clarity
    from impasto.lens.index import make_setup, read_index
    from impasto.lens.scan import count_pictures, scan
    from impasto.weights import load_net

    net, places = load_net(work["net"]), _paths(work["pictures"])
    setup, folder = make_setup(net, per_image=3 if count_pictures(places) < 30 else 1), reporter.folder / "scan"
    follow(scan(places, net, setup, folder, resume=True), orders, reporter, "pictures scanned")
    index, found = read_index(folder), {}
    if can_measure(index):
        for n, (layer, clarity) in enumerate(clarity_of(folder, net), 1):
            found[layer] = clarity
            _send(n, len(setup.layers), orders, reporter, "layers measured")
        write_clarity(folder, found)
    follow(draw_atlas(folder, net, reporter.folder / "page"), orders, reporter, "pictures drawn")
    units = {name: layer.units for name, layer in setup.layers.items()}
    return {"net": work["net"], "units": units, "pictures": index.pictures}


def follow(progress: Any, orders: Orders, reporter: Reporter, done: str) -> None:
    """Go through the pictures and send each as a step. Raises Paused."""
    for it in progress:
        _send(it.done, it.of, orders, reporter, done)


def _send(i: int, of: int, orders: Orders, reporter: Reporter, what: str) -> None:
    reporter.send(step={**_message(f"{i} of {of} {what}"), "i": i, "of": of})
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


RUNNERS: dict[str, Callable[[Work, Orders, Reporter], dict[str, Any]]] = {
    "painting": paint,
    "instant": paint,
    "grid": paint_grid,
    "style": read_style,
    "atlas": make_atlas,
    "learn": learn,
}


def main() -> None:
    """Do the jobs that come, one after the other, as long as they say to wait for the next."""
    settle()
    orders, out = Orders(), own_stdout()
    orders.listen()
    warnings.simplefilter("always", ImpastoWarning)
    while work := orders.next_work():
        do(work, orders, Reporter(Path(work["folder"]), out))
        if not work["waits"] or (peak_memory_mb() or 0) > MOST_WAITING:
            return


def do(work: Work, orders: Orders, reporter: Reporter) -> None:
    """Do a job. The last event says how it ended."""
    warnings.showwarning = lambda message, *_: reporter.warn(message)
    with open(reporter.folder / "worker.log", "ab") as log:
        os.dup2(log.fileno(), 2)
    try:
        with FileLock(reporter.folder / "worker.lock"):  # a worker of a killed studio may still be at its last step
            reporter.send(**_ended(work, orders, reporter))
    except Paused:  # the studio is gone
        return


def _ended(work: Work, orders: Orders, reporter: Reporter) -> dict[str, Any]:
    """Do the job; the event of its end."""
    try:
        result = RUNNERS[work["kind"]](work, orders, reporter)
        _small_output(work, reporter)
        return {"ended": "finished", "result": result}
    except Paused:
        _small_output(work, reporter)
        return {"ended": "paused"}
    except ImpastoError as error:
        return {"ended": "failed", "error": str(error)}
    except Exception as error:
        traceback.print_exc()
        return {"ended": "failed", "error": _in_words(error)}


def _small_output(work: Work, reporter: Reporter) -> None:
    if Path(work["output"]).exists():
        _small(Path(work["output"]), reporter.folder)


def _in_words(error: Exception) -> str:
    from impasto.transfer.painting import is_out_of_memory

    return "out of memory: try a smaller size" if is_out_of_memory(error) else one_line(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
