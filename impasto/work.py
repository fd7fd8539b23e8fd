"""What a hand does: one piece of work after the other, `python -m impasto.work` or an actor on a cluster.

Nets, and what paintings are compared with, are kept from one to the next. The bytes depend on the number of threads, so the work
says how many: they are the same wherever it is done.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from impasto.errors import BadInput, BadRecipe, ImpastoError
from impasto.hand import Said, Work
from impasto.kept import Kept
from impasto.machine import settle

KEPT = 48  # weights, nets, style pictures, and of each a target a scale


def done(work: Work, kept: Kept) -> Iterator[Said]:
    """The steps of one piece of work, then its report or its error."""
    try:
        _go_to(work["folder"])
        yield from DOERS[work["kind"]](work, kept)
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


def paint(work: Work, kept: Kept) -> Iterator[Said]:
    """One painting, from its checkpoint where there is one."""
    import torch

    from impasto.nets import choose_place
    from impasto.painting import Painting
    from impasto.recipe import checked_recipe

    how = work["how"]
    torch.set_num_threads(how["threads"])
    styles, recipe = [Path(style) for style in work["styles"]], checked_recipe(work["recipe"])
    place = choose_place(how["device"], "auto")
    options = {"place": place, "max_memory": how["max_memory"], "kept": kept}
    painting = Painting(Path(work["content"]), styles, Path(work["output"]), recipe, **options)
    for step in painting.steps(resume=how["resume"]):
        yield {"step": {"i": step.i, "of": step.of, "scale": step.scale, "total": step.costs["total"]}}
    yield {"report": painting.report()}


DOERS: dict[str, Callable[[Work, Kept], Iterator[Said]]] = {"painting": paint}


def main() -> None:
    """Works from stdin, a line of JSON each."""
    settle()
    kept = Kept(KEPT)
    for line in sys.stdin:
        for said in done(json.loads(line), kept):
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
