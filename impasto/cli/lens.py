"""`impasto lens`: build objects, loop, print. torch is loaded by the commands, not by their help."""

import json as json_
import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from impasto.cli.progress import PLAIN_SECONDS, Flag, Quiet, Verbose, WeightsFile, WeightsInput, WorkersAsked, watch
from impasto.errors import BadRecipe, CannotWrite, ImpastoError
from impasto.files import check_exists, check_writable
from impasto.messages import say, show
from impasto.workers import WorkerOptions, shard_of, threads_of

if TYPE_CHECKING:
    from impasto.lens.dream import Objective
    from impasto.lens.index import Index
    from impasto.lens.scan import Part
    from impasto.lens.scan import Progress as Scanned
    from impasto.nets.nets import Net

lens_app = App(name="lens", help="What the units of a net look for: patches, projections, sheets.")

Output = Annotated[Path, Parameter(name=["--output", "-o"])]
Whole = Annotated[int, Parameter(validator=Number(gte=0))]
Count = Annotated[int, Parameter(validator=Number(gte=1))]
NetName = Literal["alexnet", "vgg16", "vgg19"]
Rule = Literal["deconv", "guided", "gradient"]
Pooling = Literal["sum", "overwrite", "max"]
Fit = Literal["center", "whole"]
A_WORKER = 4  # parts of a scan: what one that dies has done since its checkpoint is done again, and all end at about one time


@lens_app.command
def scan(
    *pictures: Path,
    output: Output,
    net: NetName = "alexnet",
    layers: str = "",
    k: Count = 9,
    per_image: Count = 1,
    size: Annotated[int, Parameter(validator=Number(gte=16, lte=4096))] = 224,
    fit: Fit = "center",
    resume: Flag = False,
    shards: Annotated[int | None, Parameter(validator=Number(gte=1, lte=99_999))] = None,
    shard: str = "1/1",
    weights: WeightsFile = None,
    weights_input: WeightsInput = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    crew: WorkersAsked | None = None,
) -> None:
    """Pass PICTURES through a net and keep, for every unit, the patches that excite it most. Prints the atlas's path.

    Ctrl-C or a crash loses at most half a minute: the same command with --resume goes on and ends with the same bytes.

    Parameters
    ----------
    pictures
        Folders, tar shards (pictures in them, nothing else is read), lists of paths, or single pictures.
    output
        The atlas: a folder for the index and its manifest. No pixels are kept in it.
    net
        The net whose units are asked.
    layers
        Its layers, as conv1,conv5 or conv4:pre (before the ReLU); all convolutions unless given.
    k
        Patches a unit.
    per_image
        Most patches of one picture, apart from one another by half a receptive field.
    size
        What a picture's shorter side is brought to.
    fit
        Look at the square in the middle of a picture, or at the whole of it.
    resume
        Continue the scan in the output folder, if there is one, in as many parts as it was begun in.
    shards
        Scan in so many parts, each with an index until all are merged: several for each worker with --ray, else 1, unless given.
    shard
        Scan this part alone, as 2/5, from its checkpoint; auto takes it from Slurm, torchrun or Kubernetes. The last merges all.
    """
    check_exists(*pictures)

    crew, part = crew or WorkersAsked(), shard_of(shard, os.environ)
    if weights_input and weights is None:
        raise BadRecipe("--weights-input says how the pixels of --weights FILE are meant: give that file too")
    named = [name for name in layers.replace(" ", "").split(",") if name]
    asked = {"kind": "scan", "folder": os.getcwd(), "places": list(map(str, pictures)), "threads": threads_of(crew)}
    asked |= {"net": net, "weights": weights and str(weights), "weights_input": weights_input}
    asked |= {"setup": [named, k, per_image, size, fit]}
    try:
        _scan(asked, output, part, shards, crew, resume, quiet)
    except KeyboardInterrupt:
        say("stopped: --resume goes on from the last checkpoint")
        raise
    show(output)


def _scan(
    asked: dict[str, Any], folder: Path, part: "Part", shards: int | None, crew: WorkerOptions, resume: bool, quiet: bool
) -> None:
    """In so many parts as was asked for, or as it was begun in."""
    from impasto.cluster import workers
    from impasto.lens.index import INDEX
    from impasto.lens.scan import WHOLE, begin_shards, merge_shards, scan_shards, shards_begun

    begun = shards_begun(folder) if resume or part != WHOLE else None
    if part != WHOLE and begun == 1 and (folder / INDEX).exists():  # merged already: what is new is looked at
        _scan_whole(asked, folder, True, quiet)
        return
    if part != WHOLE and begun not in (None, part[1]):
        raise BadRecipe(f"--shard is of {part[1]} parts, the scan in {folder} was begun in {begun}")
    with workers(crew, asked["threads"]) as them:
        of = part[1] if part != WHOLE else begun or shards or (1 if crew.ray is None else A_WORKER * len(them))
        if of == 1 and crew.ray is None:
            _scan_whole(asked, folder, resume, quiet)
            return
        begin_shards(folder, of, resume or part != WHOLE)
        parts = [(n, of) for n in range(of)] if part == WHOLE else [part]
        with closing(scan_shards(asked, folder, parts, them)) as steps:
            _watch(steps, quiet)
    if of > 1 and not merge_shards(folder, of):
        say("this part is scanned; the last to be scanned merges them")


def _scan_whole(asked: dict[str, Any], folder: Path, resume: bool, quiet: bool) -> None:
    """In this process."""
    import torch

    from impasto.lens.index import make_setup
    from impasto.lens.scan import scan as scan_pictures
    from impasto.weights import load_net

    torch.set_num_threads(asked["threads"])
    built = load_net(asked["net"], asked["weights"] and Path(asked["weights"]), asked["weights_input"])
    places = [Path(place) for place in asked["places"]]
    _watch(scan_pictures(places, built, make_setup(built, *asked["setup"]), folder, resume), quiet)


@lens_app.command
def top(atlas: Path, /, *, layer: str, unit: Whole, interior: Flag = False, json: Flag = False) -> None:
    """Print a unit's patches, the strongest first: value, picture, place in the layer's map, box in the original picture's pixels.

    Parameters
    ----------
    atlas
        The folder of a scan.
    layer
        conv5, or conv5:pre where that was scanned.
    unit
        The unit's number, from 0.
    interior
        Rank the places that see no padding.
    json
        Print one JSON object.
    """
    from impasto.lens.patches import top as top_patches

    patches = [patch.to_json() for patch in top_patches(atlas, layer, unit, interior)]
    if json:
        show(json_.dumps({"patches": patches}))
        return
    for patch in patches:
        box = " ".join(f"{side:7.1f}" for side in patch["box"] or ()) or "unknown"
        padding = "sees padding" if patch["touches_padding"] else ""
        show(f"{patch['value']:10.4f}  y {patch['y']:3} x {patch['x']:3}  box {box}  {patch['picture']}  {padding}".rstrip())


@lens_app.command
def units(atlas: Path, /, *, layer: str | None = None, json: Flag = False) -> None:
    """Print what is known of layers or, with --layer, of a layer's units: how often they fire, how strongly, where.

    A unit fires in a picture where its largest value is above 0; one that never does is dead on these pictures.

    Parameters
    ----------
    atlas
        The folder of a scan.
    layer
        Print its units, a line each.
    json
        Print one JSON object.
    """
    from impasto.lens.index import find_layer, layer_statistics, read_index, unit_statistics

    index = read_index(atlas)
    rows = unit_statistics(index, find_layer(index, layer)) if layer else layer_statistics(index)
    if json:
        show(json_.dumps({"pictures": index.pictures, "units" if layer else "layers": rows}))
        return
    for row in rows:
        said = {name: "unknown" if value is None else value for name, value in row.items()}
        show("  ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in said.items()))


@lens_app.command
def merge(*atlases: Path, output: Output) -> None:
    """Make of the scans of several parts of a set the scan of all: the same bytes, in whatever order. Prints the atlas's path.

    Parameters
    ----------
    atlases
        The folders of scans with one net, one size, one k and the same layers; no picture may be in two of them.
    output
        The folder of the scan of all.
    """
    from impasto.lens.index import merge as merge_atlases

    if not atlases:
        raise BadRecipe("there is nothing to merge: name the folders of scans")
    merge_atlases(atlases, output)
    show(output)


@lens_app.command
def check(
    atlas: Path,
    /,
    *,
    layer: str | None = None,
    units: str = "9",
    seed: Whole = 0,
    interior: Flag = False,
    weights: WeightsFile = None,
    weights_input: WeightsInput = None,
    json: Flag = False,
) -> None:
    """Cut patches out of their pictures, run them through the net again and print how far their values are from the scan's.

    A patch that sees no padding is run alone, in two exact ways; one that does is run with its whole picture. Fails where an error
    is larger than 1e-4 of the layer's largest value.

    Parameters
    ----------
    atlas
        The folder of a scan; its pictures must still be where they were.
    layer
        All layers of the scan unless given.
    units
        So many units of each layer, all, or a list as 3,17.
    seed
        Draws the units.
    interior
        Check the patches that see no padding.
    json
        Print every patch with its receipts, as one JSON object.
    """
    from impasto.lens.crops import check_layer
    from impasto.lens.index import find_layer, read_index
    from impasto.weights import load_net

    index = read_index(atlas)
    net, rows, wrong = load_net(index.setup.net, weights, weights_input), [], 0
    for name in [find_layer(index, layer)] if layer else index.layers:
        found = list(check_layer(atlas, index, net, name, units, seed, interior))
        rows += [{"layer": name, "unit": n, **patch.to_json(), "receipts": list(map(asdict, them))} for n, patch, them in found]
        largest, worst = (
            float(index.layers[name].everywhere.value.max()),
            max((r.error for *_, them in found for r in them), default=0.0),
        )
        wrong += worst > 1e-4 * largest
        if not json:
            show(f"{name}: {len(found)} patches, largest error {worst:.1e}, largest value {largest:.4g}")
    if json:
        show(json_.dumps({"patches": rows}))
    if wrong:
        raise ImpastoError(f"in {wrong} layers values do not come again: were other weights or another size used?")


@lens_app.command
def project(
    picture: Path,
    /,
    *,
    layer: str,
    unit: Whole,
    output: Output,
    place: str | None = None,
    net: NetName = "alexnet",
    rule: Rule = "deconv",
    pooling: Pooling = "sum",
    seed: Whole = 0,
    size: Annotated[int, Parameter(validator=Number(gte=16, lte=4096))] = 224,
    fit: Fit = "center",
    weights: WeightsFile = None,
    weights_input: WeightsInput = None,
    json: Flag = False,
) -> None:
    """Draw what in PICTURE a unit answers to, beside two controls that do not know the unit. Prints the path of the figure.

    The controls: the same switches with another unit, and the same unit of a net with shuffled weights. Where the cosine to a
    control is near 1, the drawing says little about the unit.

    Parameters
    ----------
    picture
        The photograph.
    layer
        The unit's layer, as conv5.
    unit
        Its number, from 0.
    output
        The figure: .png, .webp, .tif or .jpg.
    place
        The unit's place in the layer's map, as 6,11 (y, x); the one where it is strongest unless given.
    net
        The net.
    rule
        What is done at a ReLU on the way back.
    pooling
        What is done where two pools have one switch.
    seed
        Draws the controls.
    size
        What the picture's shorter side is brought to.
    fit
        Look at the square in the middle of the picture, or at the whole of it.
    json
        Print one JSON object about the projection in place of the path.
    """
    from impasto.images.drawing import write_figure
    from impasto.images.images import check_format
    from impasto.lens.sheet import project_picture
    from impasto.weights import load_net

    check_format(output)
    check_writable(output)
    built = load_net(net, weights, weights_input)
    figure, about = project_picture(picture, built, layer, unit, _place(place), rule, pooling, seed, size, fit)
    write_figure(output, figure, {"lens": about})
    for control in about["controls"]:
        say(f"cosine to {control['name']}: {control['cosine']:.2f}")
    show(json_.dumps({"output": str(output), **about}) if json else output)


@lens_app.command
def sheet(
    atlas: Path,
    /,
    *,
    layer: str,
    output: Output,
    units: str = "9",
    seed: Whole = 0,
    interior: Flag = False,
    rule: Rule = "deconv",
    pooling: Pooling = "sum",
    scale: Literal["patch", "block"] = "patch",
    weights: WeightsFile = None,
    weights_input: WeightsInput = None,
) -> None:
    """Draw the papers' figure: of each unit nine patches beside nine projections, in the first layer its filter too.

    Prints the path of the figure.

    Parameters
    ----------
    atlas
        The folder of a scan; its pictures must still be where they were.
    layer
        The layer, as conv3.
    output
        The figure: .png, .webp, .tif or .jpg.
    units
        So many units, all, or a list as 3,17 (17, for one).
    seed
        Draws the units.
    interior
        Show the patches that see no padding.
    rule
        What is done at a ReLU on the way back.
    pooling
        What is done where two pools have one switch.
    scale
        Scale each projection by itself, or the nine of a unit alike.
    """
    from impasto.images.drawing import write_figure
    from impasto.images.images import check_format
    from impasto.lens.index import read_index
    from impasto.lens.sheet import sheet as draw_sheet
    from impasto.weights import load_net

    check_format(output)
    check_writable(output)
    net = load_net(read_index(atlas).setup.net, weights, weights_input)
    options: dict[str, Any] = {"seed": seed, "interior": interior, "rule": rule, "pooling": pooling, "scale": scale}
    figure = draw_sheet(atlas, net, layer, units, **options)
    write_figure(output, figure, {"lens": {"layer": layer, "units": units, **options}})
    show(output)


@lens_app.command
def atlas(
    atlas: Path,
    /,
    *,
    output: Output,
    dreams: Path | None = None,
    dream: str = "",
    dream_steps: Annotated[int, Parameter(validator=Number(gte=1, lte=1_000_000))] = 64,
    rule: Rule = "deconv",
    pooling: Pooling = "sum",
    weights: WeightsFile = None,
    weights_input: WeightsInput = None,
    quiet: Quiet = False,
) -> None:
    """Make of a scan a page that opens from disk: all its units, with patches, projections and numbers. Prints the page's path.

    The page needs no network and no server. Every unit has an address, as index.html#conv4/137.

    Parameters
    ----------
    atlas
        The folder of a scan; its pictures must still be where they were.
    output
        The folder of the page: a new one, or that of an older page, which is replaced.
    dreams
        A folder with pictures by lens dream: those of units of this net are shown with their units.
    dream
        Units to dream of first, as conv5/17,conv5/40, or all of a layer, as conv5. What is in the folder of dreams is not dreamt
        again, so a run that was stopped goes on.
    dream_steps
        Optimiser steps of each new dream: few, for a first look; lens dream takes 256.
    rule
        What is done at a ReLU on the way back.
    pooling
        What is done where two pools have one switch.
    """
    from impasto.lens.atlas import MADE_BY, make_atlas
    from impasto.lens.index import read_index
    from impasto.lens.pages import check_free
    from impasto.weights import load_net

    index = read_index(atlas)
    net = load_net(index.setup.net, weights, weights_input)
    if dream:
        check_free(output, MADE_BY)
        _dream_of(index, net, dream, dreams, dream_steps, quiet)
    _watch(make_atlas(atlas, net, output, rule=rule, pooling=pooling, dreams=dreams), quiet, "drawn")
    show(output / "index.html")


@lens_app.command
def compare(
    *atlases: Path,
    layer: str,
    output: Output,
    units: str = "4",
    seed: Whole = 0,
    interior: Flag = False,
    json: Flag = False,
) -> None:
    """Draw the same units of several scans below one another: over the checkpoints of a training, or of two nets.

    Prints the path of the figure. Of each scan it says what its patches have in common with those of the scan before it: of how
    many the picture is the same, of how many the place too, and the rank correlation of the pictures.

    Parameters
    ----------
    atlases
        The folders of scans, two or more; their pictures must still be where they were.
    layer
        The layer, as conv3; or one for each scan, as conv3,conv3_1.
    output
        The figure: .png, .webp, .tif or .jpg.
    units
        So many units, all, or a list as 3,17 (17, for one).
    seed
        Draws the units.
    interior
        Show the patches that see no padding.
    json
        Print one JSON object about the units in place of the path.
    """
    from impasto.images.drawing import write_figure
    from impasto.images.images import check_format
    from impasto.lens.comparison import compare as draw_rows

    check_format(output)
    check_writable(output)
    figure, about = draw_rows(atlases, layer.replace(" ", "").split(","), units, seed, interior)
    write_figure(output, figure, {"lens": {"scans": about}})
    show(json_.dumps({"output": str(output), "scans": about}) if json else output)


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
    from impasto.weights import load_net

    objective = _objective(layer, unit, pair, channel)
    check_writable(output)
    dreaming = Dream(load_net(net), objective, output, size=size, steps=steps, pictures=diversity, seed=seed)
    try:
        watch(dreaming.steps(), [(dreaming.size, steps)], quiet, "activation")
    except KeyboardInterrupt:
        path = dreaming.set_aside()
        say(f"stopped: {path} is the picture so far" if path else "stopped before the first step")
        raise
    report = dreaming.report()
    if not quiet or not report["excited"]:
        say(f"{output}: {told(report)}")
    show(json_.dumps(report) if json else output)


def demo_sheets(folder: Path, quiet: bool) -> Iterator[Path]:
    """A scan of the bundled pictures with AlexNet, and a sheet a layer. They are eight: a unit has up to three patches of each."""
    from impasto.images.drawing import write_figure
    from impasto.lens.index import make_setup
    from impasto.lens.scan import scan as scan_pictures
    from impasto.lens.sheet import sheet as draw_sheet
    from impasto.pictures import picture_path
    from impasto.weights import load_net

    net, atlas = load_net("alexnet"), folder / "atlas"
    _watch(scan_pictures([picture_path("cat").parent], net, make_setup(net, per_image=3), atlas), quiet)
    for layer in ("conv1", "conv2", "conv3", "conv4", "conv5"):
        output = folder / f"alexnet-{layer}.png"
        write_figure(output, draw_sheet(atlas, net, layer), {"lens": {"layer": layer}})
        yield output


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


def _dream_of(index: "Index", net: "Net", asked: str, folder: Path | None, steps: int, quiet: bool) -> None:
    """Dream of the units asked for that are not in the folder yet, a file each."""
    from impasto.lens.atlas import undreamt
    from impasto.lens.dream import Dream
    from impasto.lens.index import check_net

    if folder is None:
        raise BadRecipe("--dream needs --dreams FOLDER, where dreams are kept")
    check_net(index.setup, net)
    left = undreamt(index, folder, asked)
    for n, objective in enumerate(left, 1):
        path = folder / f"{net.name}-{objective.layer.replace(':', '-')}-{objective.channels[0]}.png"
        if path.exists():
            raise CannotWrite(f"{path} is no dream of this unit: move it away, or name another folder with --dreams")
        dreaming = Dream(net, objective, path, steps=steps)
        if not quiet:
            say(f"dream {n} of {len(left)}: {path.name}")
        watch(dreaming.steps(), [(dreaming.size, steps)], quiet, "activation")


def _place(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.replace(" ", "").split(",")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise BadRecipe(f"--place is {text!r}, must be y,x as 6,11")
    return int(parts[0]), int(parts[1])


def _watch(steps: Iterator["Scanned"], quiet: bool, done: str = "scanned") -> None:
    """Go through the pictures to the end: a bar on a terminal, else a line now and then. What cannot be used is always named."""
    console, begun, first, shown, skipped = Console(stderr=True), time.monotonic(), 0, 0.0, 0
    bar = Progress(
        BarColumn(), TextColumn("{task.description}"), console=console, transient=True, disable=quiet or not console.is_terminal
    )
    with bar:
        task = bar.add_task("")
        for step in steps:
            first, now = first or step.done, time.monotonic()
            if step.row.skipped:
                skipped += 1
                say(f"skipped: {step.row.skipped}")
            left = (now - begun) / (step.done - first + 1) * (step.of - step.done)
            line = f"{step.done} of {step.of} pictures, {timedelta(seconds=round(left))} left"
            bar.update(task, total=step.of, completed=step.done, description=line)
            if not quiet and not console.is_terminal and now - shown >= PLAIN_SECONDS:
                shown = now
                say(line)
    if not quiet:
        say(f"{done} in {timedelta(seconds=round(time.monotonic() - begun))}, {skipped} skipped")
