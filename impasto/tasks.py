"""Runs tasks one after the other: `python -m impasto.tasks`, or an actor on a cluster.

Nets and the targets of paintings stay in memory from one task to the next. The bytes of a result depend on the number of threads,
so the task names it: the result is the same wherever the task runs.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from impasto.cache import Cache
from impasto.errors import BadInput, BadRecipe, ImpastoError
from impasto.machine import own_stdout, settle
from impasto.messages import show_warnings
from impasto.workers import Event, Task

if TYPE_CHECKING:
    from impasto.video.video import Video

CACHED = 48  # weights, nets, style pictures, and a target for each of these at each scale


def run_task(task: Task, cache: Cache) -> Iterator[Event]:
    """The steps of a task, then its report or its error."""
    try:
        _enter(task["folder"])
        yield from RUNNERS[task["kind"]](task, cache)
    except ImpastoError as error:
        yield {"error": str(error), "is_final": isinstance(error, BadInput | BadRecipe)}
    except Exception as error:
        traceback.print_exc()
        yield {"error": f"{type(error).__name__}: {error}", "is_final": False}


def _enter(folder: str) -> None:
    """Change to the folder where the command was given: the task's paths start there."""
    try:
        os.chdir(folder)
    except OSError as error:
        why = f"a worker cannot open the folder {folder} ({error.strerror})"
        raise BadInput(f"{why}; every worker needs it at the same path") from error


def paint(task: Task, cache: Cache) -> Iterator[Event]:
    """One painting, from its checkpoint where there is one."""
    import torch

    from impasto.nets.nets import choose_compute
    from impasto.recipe.recipe import checked_recipe, work_left
    from impasto.transfer.painting import Painting

    options = task["options"]
    torch.set_num_threads(options["threads"])
    styles, recipe = [Path(style) for style in task["styles"]], checked_recipe(task["recipe"])
    how: dict[str, Any] = {"place": choose_compute(options["device"], "auto"), "max_memory": options["max_memory"], "cache": cache}
    painting = Painting(Path(task["content"]), styles, Path(task["output"]), recipe, **how)
    for step in painting.steps(resume=options["resume"]):
        part = 1 - work_left(painting.scales, step.i) / work_left(painting.scales, 0)
        yield {"step": {"i": step.i, "of": step.of, "scale": step.scale, "total": step.costs.get("total"), "part": part}}
    yield {"report": painting.report()}


def scan_part(task: Task, cache: Cache) -> Iterator[Event]:
    """A part of a scan, from its checkpoint where there is one."""
    import torch

    from impasto.lens.collection import row_to_json
    from impasto.lens.index import make_setup
    from impasto.lens.scan import scan
    from impasto.nets.nets import INPUTS, build_net
    from impasto.weights import load_weights

    torch.set_num_threads(task["threads"])
    weights = task["net"], task["weights"] and Path(task["weights"]), task["weights_input"]
    loaded = cache.get_or_make(("weights", *weights), (), lambda: load_weights(*weights))
    net = cache.get_or_make("net", (loaded,), lambda: build_net(task["net"], loaded.tensors, INPUTS[loaded.input]))
    setup, places = make_setup(net, *task["setup"]), [Path(place) for place in task["places"]]
    number, of = task["part"]
    for it in scan(places, net, setup, Path(task["output"]), resume=True, part=(number, of)):
        yield {"step": {"row": row_to_json(it.row), "done": it.done, "of": it.of}}
    yield {"report": {}}


def paint_scene(task: Task, cache: Cache) -> Iterator[Event]:
    """The missing frames of one scene of a video."""
    whole = {name: value for name, value in task.items() if name != "first"}
    video = cache.get_or_make(("video", json.dumps(whole)), (), lambda: join_video(whole))
    for it in video.paint_scene(task["first"]):
        yield {"step": {"i": it.done + it.step.i / it.step.of, "of": it.of, "scale": it.step.scale}}
    yield {"report": {}}


def join_video(task: Task) -> "Video":
    """The video that another process has started."""
    from impasto.nets.nets import choose_compute
    from impasto.recipe.recipe import checked_recipe
    from impasto.video.video import Motion, Video

    motion = Motion(**{**task["motion"], "long_term": tuple(task["motion"]["long_term"])})
    options: dict[str, Any] = {"rate": task["rate"], "max_memory": task["max_memory"], "weights_input": task["weights_input"]}
    options |= {"weights": task["weights"] and Path(task["weights"]), "place": choose_compute(task["device"], "auto")}
    styles, recipe = [Path(style) for style in task["styles"]], checked_recipe(task["recipe"])
    video = Video(Path(task["source"]), styles, Path(task["output"]), recipe, motion, **options)
    video.join()
    return video


RUNNERS: dict[str, Callable[[Task, Cache], Iterator[Event]]] = {"painting": paint, "scan": scan_part, "scene": paint_scene}


def main() -> None:
    """Read tasks from stdin and write their events to stdout, each a line of JSON."""
    settle()
    show_warnings()
    out, cache, tasks = own_stdout(), Cache(CACHED), SimpleQueue[Task]()
    Thread(target=_listen, args=(tasks,), daemon=True).start()
    while True:
        for event in run_task(tasks.get(), cache):
            print(json.dumps(event), file=out, flush=True)


def _listen(tasks: SimpleQueue[Task]) -> None:
    """Queue tasks as they come. When stdin closes, the caller is gone: end at once, the running task has its checkpoint."""
    for line in sys.stdin:
        tasks.put(json.loads(line))
    os._exit(0)


if __name__ == "__main__":
    main()
