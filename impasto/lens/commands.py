"""The commands of the lens: build objects, loop, print. stdout carries the result and nothing else."""

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from impasto.console import Quiet, say, watch
from impasto.errors import BadRecipe

if TYPE_CHECKING:
    from impasto.lens.dream import Objective

lens_app = App(name="lens", help="What each unit of a net looks for.")

NetName = Literal["vgg19", "vgg16", "alexnet"]


@lens_app.command
def dream(
    *,
    layer: str,
    unit: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    pair: str | None = None,
    channel: Annotated[bool, Parameter(negative=())] = False,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    net: NetName = "alexnet",
    size: Annotated[int | None, Parameter(validator=Number(lte=4096))] = None,
    steps: Annotated[int, Parameter(validator=Number(gte=1, lte=1_000_000))] = 256,
    diversity: Annotated[int, Parameter(validator=Number(gte=1, lte=64))] = 1,
    seed: Annotated[int, Parameter(validator=Number(gte=0, lt=2**63))] = 0,
    json: Annotated[bool, Parameter(negative=())] = False,
    quiet: Quiet = False,
) -> None:
    """Paint, from noise, what excites a unit, a channel or a pair most.

    Prints the path of the picture; what was reached is said beside it: the activation of the saved picture, of the best of the
    bundled pictures, and of noise. Ctrl-C saves the picture so far.

    Parameters
    ----------
    layer
        The layer, as conv4_2 (behind its ReLU), conv4_2:pre (before it) or pool4.
    unit
        The unit: the channel of this number, at the centre of the layer's map.
    pair
        In place of a unit, two that are to be excited at once, as 17,23; as 17,-23 the first without the second.
    channel
        Excite all places of the map, not the one at its centre: a texture in place of a thing.
    output
        The file to write: .png, .webp, .tif (lossless) or .jpg.
    net
        The net.
    size
        Side of the picture in pixels; unless given, what a unit sees of a picture, and 224 for a channel.
    steps
        Optimiser steps.
    diversity
        Paint so many pictures at once that differ from one another, side by side.
    seed
        Seed of the noise, and of how the net is shown the picture.
    json
        Print one JSON object about the dream instead of its path.
    """
    from impasto.lens.dream import Dream, told

    dreaming = Dream(net, _objective(layer, unit, pair, channel), output, size=size, steps=steps, pictures=diversity, seed=seed)
    try:
        watch(dreaming.steps(), [(dreaming.size, steps)], quiet, "activation")
    except KeyboardInterrupt:
        path = dreaming.set_aside()
        say(f"stopped: {path} is the picture so far" if path else "stopped before the first step")
        raise
    report = dreaming.report()
    if not quiet or not report["excited"]:
        say(f"{output}: {told(report)}")
    print(json_.dumps(report) if json else output)


def _objective(layer: str, unit: int | None, pair: str | None, everywhere: bool) -> "Objective":
    """What --unit or --pair ask for: 17,23 both, 17,-23 the one against the other."""
    from impasto.lens.dream import Objective

    if unit is not None and pair is None:
        return Objective(layer, (unit,), (), everywhere)
    if pair is None or unit is not None:
        raise BadRecipe("give either --unit 17 or --pair 17,23")
    first, _, second = pair.replace(" ", "").partition(",")
    other = second.removeprefix("-")
    if not (first.isdecimal() and other.isdecimal()) or int(first) == int(other):
        raise BadRecipe(f"--pair is {pair!r}, must be two channels as 17,23, or 17,-23 for the first without the second")
    if second.startswith("-"):
        return Objective(layer, (int(first),), (int(other),), everywhere)
    return Objective(layer, (int(first), int(other)), (), everywhere)
