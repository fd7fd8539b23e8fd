"""What a hand does: one piece of work after the other, `python -m impasto.tasks` or an actor on a cluster.

Nets, and what paintings are compared with, are kept from one to the next. The bytes depend on the number of threads, so the work
says how many: they are the same wherever it is done.
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
from impasto.workers import Said, Work

if TYPE_CHECKING:
    from impasto.video.video import Video

CACHED = 48  # weights, nets, style pictures, and of each a target a scale


def done(work: Work, cache: Cache) -> Iterator[Said]:
    """The steps of one piece of work, then its report or its error."""
    try:
        _go_to(work["folder"])
        yield from DOERS[work["kind"]](work, cache)
    except ImpastoError as error:
        yield {"error": str(error), "is_final": isinstance(error, BadInput | BadRecipe)}
    except Exception as error:
        traceback.print_exc()
        yield {"error": f"{type(error).__name__}: {error}", "is_final": False}


def _go_to(folder: str) -> None:
    """To where the command was given, since paths are from there."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise BadInput(f"a worker has not the folder {folder} ({error.strerror}): all must share it") from error


def paint(work: Work, cache: Cache) -> Iterator[Said]:
    """One painting, from its checkpoint where there is one."""
    import torch

    from impasto.nets.nets import choose_compute
    from impasto.recipe.recipe import checked_recipe, work_left
    from impasto.transfer.painting import Painting

    how = work["how"]
    torch.set_num_threads(how["threads"])
    styles, recipe = [Path(style) for style in work["styles"]], checked_recipe(work["recipe"])
    place = choose_compute(how["device"], "auto")
    options: dict[str, Any] = {"place": place, "max_memory": how["max_memory"], "cache": cache}
    painting = Painting(Path(work["content"]), styles, Path(work["output"]), recipe, **options)
    for step in painting.steps(resume=how["resume"]):
        part = 1 - work_left(painting.scales, step.i) / work_left(painting.scales, 0)
        yield {"step": {"i": step.i, "of": step.of, "scale": step.scale, "total": step.costs["total"], "part": part}}
    yield {"report": painting.report()}


def look(work: Work, cache: Cache) -> Iterator[Said]:
    """A part of a scan, from its checkpoint where there is one."""
    import torch

    from impasto.lens.collection import row_to_json
    from impasto.lens.index import make_setup
    from impasto.lens.scan import scan
    from impasto.nets.nets import INPUTS, build_net
    from impasto.weights import load_weights

    torch.set_num_threads(work["threads"])
    name, file = work["net"], work["weights"] and Path(work["weights"])
    of_weights = name, file, work["weights_input"]
    loaded = cache.get_or_make(("weights", *of_weights), (), lambda: load_weights(*of_weights))
    net = cache.get_or_make("net", (loaded,), lambda: build_net(name, loaded.tensors, INPUTS[loaded.input]))
    setup, places = make_setup(net, *work["setup"]), [Path(place) for place in work["places"]]
    number, of = work["part"]
    for it in scan(places, net, setup, Path(work["output"]), resume=True, part=(number, of)):
        yield {"step": {"row": row_to_json(it.row), "done": it.done, "of": it.of}}
    yield {"report": {}}


def paint_scene(work: Work, cache: Cache) -> Iterator[Said]:
    """The frames of one scene that are not there yet."""
    asked = {name: value for name, value in work.items() if name != "first"}
    video = cache.get_or_make(("video", json.dumps(asked)), (), lambda: joined_video(asked))
    for it in video.paint_scene(work["first"]):
        yield {"step": {"i": it.done + it.step.i / it.step.of, "of": it.of, "scale": it.step.scale}}
    yield {"report": {}}


def joined_video(asked: Work) -> "Video":
    """The video that another process has begun."""
    from impasto.nets.nets import choose_compute
    from impasto.recipe.recipe import checked_recipe
    from impasto.video.video import Motion, Video

    motion = Motion(**{**asked["motion"], "long_term": tuple(asked["motion"]["long_term"])})
    options: dict[str, Any] = {"rate": asked["rate"], "max_memory": asked["max_memory"], "weights_input": asked["weights_input"]}
    options |= {"weights": asked["weights"] and Path(asked["weights"]), "place": choose_compute(asked["device"], "auto")}
    styles, recipe = [Path(style) for style in asked["styles"]], checked_recipe(asked["recipe"])
    video = Video(Path(asked["source"]), styles, Path(asked["output"]), recipe, motion, **options)
    video.join()
    return video


DOERS: dict[str, Callable[[Work, Cache], Iterator[Said]]] = {"painting": paint, "scan": look, "scene": paint_scene}


def main() -> None:
    """Works from stdin, a line of JSON each; what is said of them goes to stdout, also a line each."""
    settle()
    show_warnings()
    saying, cache, works = own_stdout(), Cache(CACHED), SimpleQueue[Work]()
    Thread(target=_listen, args=(works,), daemon=True).start()
    while True:
        for said in done(works.get(), cache):
            print(json.dumps(said), file=saying, flush=True)


def _listen(works: SimpleQueue[Work]) -> None:
    """Take works as they come. When whoever gives them is gone so is this process: what it was doing has its checkpoint."""
    for line in sys.stdin:
        works.put(json.loads(line))
    os._exit(0)


if __name__ == "__main__":
    main()
