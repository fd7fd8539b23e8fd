"""Commands that paint many pictures, in this process or with workers: grid, batch, video."""

import json as json_
import os
from collections.abc import Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from impasto.cli.options import (
    COMMON,
    Count,
    Flag,
    Given,
    ManyOptions,
    Output,
    PaintOptions,
    RunOptions,
    WeightsFile,
    WeightsInput,
    Words,
    given,
    memory_of,
    numbers_of,
    option,
    recipe_from,
)
from impasto.cli.paint import paint, prepare
from impasto.cli.progress import TaskBar, show_frames, show_steps
from impasto.errors import BadRecipe
from impasto.files import check_exists
from impasto.images.formats import check_pictures
from impasto.messages import say, show
from impasto.workers import shard_of, threads_of

if TYPE_CHECKING:
    from impasto.batch import Batch
    from impasto.grid import Sheet
    from impasto.transfer.painting import Painting
    from impasto.video.video import Video

Part = tuple[int, int]
Resume = Annotated[bool, option("Continue unfinished work.", COMMON, show_default=False)]


def grid(
    *pictures: Path,
    output: Output,
    rows: Words = None,
    columns: Words = None,
    figure: Literal["reconstructions", "style-layers", "content-layers"] | None = None,
    cell: Annotated[str | None, Parameter(name="--paint")] = None,
    cells: Path | None = None,
    resume: Resume = False,
    options: RunOptions | None = None,
    many: ManyOptions | None = None,
    knobs: Given = None,
) -> None:
    """Compare one or two knobs on one sheet of small paintings.

    Prints the path of the sheet. The paintings are files in a folder beside it; finished ones are not painted again. After Ctrl-C
    the sheet shows the cells so far, and the same command with --resume continues. Quality is draft and size 256 by default.

    Example: impasto grid cat.jpg van-gogh-auvers.jpg --rows beta 3 10 30 --columns style-scale 0.5 1 2 -o sheet.png

    Parameters
    ----------
    pictures
        The photograph, then one or more style pictures; before --rows and --columns, which take all words up to the next option.
    output
        The file of the sheet, or with --paint of the painting: .png, .webp, .tif (lossless) or .jpg.
    rows
        A knob and its values; or ratio (alpha/beta) and values, contents and photographs, styles and style pictures.
    columns
        The same for the columns.
    figure
        Draw a figure of the papers (docs/papers.md) from a photograph and a painting, in place of rows and columns.
    cell
        Paint only the cell 2,3 (row, column), by default with quality fine and the preset's size.
    cells
        The folder of the paintings. [default: named after the sheet]
    """
    check_pictures(*pictures)
    from impasto.grid import DRAFT, Sheet, cell_at, make_figure, make_grid

    options, many = options or RunOptions(), many or ManyOptions()
    chosen = {**({"quality": "fine"} if cell else DRAFT), **given(knobs)}
    if figure and (rows or columns):
        raise BadRecipe("--figure has its own rows and columns: give one or the other")
    made = make_figure(figure, pictures, chosen) if figure else make_grid(pictures, rows or [], columns or [], chosen)
    if cell:
        one = cell_at(made, cell)
        alone = PaintOptions(options.device, options.json, options.quiet, max_memory=options.max_memory, resume=resume)
        paint(prepare(one.content, one.styles, output, one.recipe, alone), alone)
        return
    sheet, part = Sheet(made, output, cells), shard_of(many.shard, os.environ)
    how = _how(options, many, resume)
    try:
        if many.ray is None and part == (0, 1):
            _paint_cells(sheet, options.quiet, how)
        else:
            _distribute_cells(sheet, many, part, options.quiet, how)
    except KeyboardInterrupt:
        sheet.write()
        say(f"stopped: {output} shows the cells so far, --resume continues")
        raise
    sheet.write()
    show(json_.dumps(sheet.report()) if options.json else output)
    sheet.check()


def _how(options: RunOptions, many: ManyOptions, resume: bool) -> dict[str, Any]:
    """The options of painting_task."""
    memory = memory_of(options.max_memory)
    return {"device": options.device, "max_memory": memory, "resume": resume, "threads": threads_of(many)}


def _paint_cells(sheet: "Sheet", quiet: bool, how: Mapping[str, Any]) -> None:
    """In this process, one after the other."""
    import torch

    from impasto.nets.nets import choose_compute

    torch.set_num_threads(how["threads"])

    def paint_one(spot: tuple[int, int], painting: "Painting") -> None:
        if not quiet:
            say(f"{sheet.name_of(spot)} ({len(sheet.found) + 1} of {len(sheet.grid.cells)})")
        try:
            show_steps(painting.steps(resume=how["resume"]), painting.scales, quiet)
        except KeyboardInterrupt:
            painting.set_aside()
            raise

    sheet.paint(paint_one, place=choose_compute(how["device"], "auto"), max_memory=how["max_memory"])


def _distribute_cells(sheet: "Sheet", many: ManyOptions, part: Part, quiet: bool, how: Mapping[str, Any]) -> None:
    from impasto.batch import Result
    from impasto.cluster import workers

    of = len(list(sheet.grid.cells)[part[0] :: part[1]])
    with workers(many, how["threads"]) as them, TaskBar(of, quiet) as bar, closing(sheet.distribute(them, how, part)) as events:
        for spot, event in events:
            name = f"{sheet.name_of(spot)} ({spot[0]},{spot[1]})"
            bar.end(name) if isinstance(event, Result) else bar.step(name, event["step"])


def batch(
    contents: Path | None = None,
    styles: Path | None = None,
    /,
    *,
    output: Output,
    vary: Words = None,
    jobs: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    tries: Annotated[int, Parameter(validator=Number(gte=1, lte=10))] = 2,
    resume: bool = True,
    dry_run: Flag = False,
    options: RunOptions | None = None,
    many: ManyOptions | None = None,
    knobs: Given = None,
) -> None:
    """Paint many pictures: all CONTENTS in all STYLES, or the jobs of a file.

    Prints a line for each finished painting, then a page that shows all of them. Finished paintings are not painted again, and
    unfinished ones continue. A job that fails is tried again; if it fails for good, the others are painted and the exit code is 3.

    Example: impasto batch photos paintings -o painted --vary beta 3 10 30

    Parameters
    ----------
    contents
        Photographs: a folder, a list of paths in a .txt file, or one picture.
    styles
        Style pictures, in the same way.
    output
        The folder for the paintings, index.html and contact sheets.
    vary
        A knob and its values: beta 3 10 30.
    jobs
        A file of jobs (.toml, .jsonl, .csv) in place of CONTENTS and STYLES, or - for lines of JSON on standard input.
    tries
        How often a job is tried.
    resume
        Continue unfinished paintings.
    dry_run
        Print what would be painted, and an estimate of the time on this machine.
    """
    if (jobs is None) == (contents is None or styles is None) or (jobs and contents):
        raise BadRecipe("give contents and styles, or --jobs FILE")
    check_exists(*(Path(place) for place in (contents, styles, jobs) if place not in (None, "-")))
    from impasto.batch import Batch, crossed, pictures_in, read_jobs

    options, many, chosen = options or RunOptions(), many or ManyOptions(), given(knobs)
    part = shard_of(many.shard, os.environ)
    if jobs is None:
        found = crossed(pictures_in(contents), pictures_in(styles), [vary] if vary else [], chosen)  # type: ignore[arg-type]
    else:
        found = read_jobs(jobs, chosen)
    painted = Batch(found, output, tries=tries, options=_how(options, many, resume))
    if dry_run:
        _estimate(painted, part, options.json)
        return
    _paint_jobs(painted, part, many, options)
    painted.check()


def _estimate(painted: "Batch", part: Part, json: bool) -> None:
    """Print the jobs that are left, and how long they take here, from the time of one step."""
    from impasto.batch import estimated, measured

    mine = painted.jobs[part[0] :: part[1]]
    left = [job for job in mine if not painted.is_finished(job)]
    seconds = estimated(left, measured(left)) if left else 0.0
    for job in left:
        show(json_.dumps({"output": job.output, "state": "to do"}) if json else job.output)
    total = f"{len(left)} of {len(mine)} to paint, about {timedelta(seconds=round(seconds))}"
    show(json_.dumps({"to_do": len(left), "of": len(mine), "seconds": round(seconds, 1)}) if json else total)


def _paint_jobs(painted: "Batch", part: Part, many: ManyOptions, options: RunOptions) -> None:
    """Every job with its line, then the page, which is written after Ctrl-C too."""
    from impasto.batch import Result
    from impasto.cluster import workers

    of, threads = len(painted.jobs[part[0] :: part[1]]), painted.options["threads"]
    try:
        with workers(many, threads) as them, TaskBar(of, options.quiet) as bar, closing(painted.events(part, them)) as events:
            for job, event in events:
                if not isinstance(event, Result):
                    bar.step(job.output, event["step"])
                    continue
                line = f"{painted.folder / job.output}: {event.state}"
                bar.end(job.output, json_.dumps(event.to_json(painted.folder)) if options.json else line)
                if event.error:
                    say(f"{job.output}: {event.error}")
    finally:
        page = painted.write_index()
    show(json_.dumps({"index": str(page)}) if options.json else page)


def video(
    source: Path,
    /,
    *styles: Path,
    output: Output,
    temporal: Annotated[float, Parameter(validator=Number(gte=0))] = 100.0,
    long_term: str = "1,2,4",
    frame_steps: Count = 15,
    start: Literal["warp", "recipe"] = "warp",
    passes: Annotated[int, Parameter(validator=Number(gte=1, lte=20))] = 1,
    rate: Annotated[float, Parameter(validator=Number(gt=0, lte=1000))] = 25.0,
    resume: Resume = False,
    weights: WeightsFile = None,
    weights_input: WeightsInput = None,
    options: RunOptions | None = None,
    many: ManyOptions | None = None,
    knobs: Given = None,
) -> None:
    """Paint the video SOURCE, or a folder of frames, in the style of STYLES, without flicker (Ruder, Dosovitskiy & Brox 2016).

    Prints the path of the video. The knobs apply to the first frame of each scene; the other frames start from it. Painted frames
    stay in a folder beside the video until it is written: the same command with --resume continues at the first missing frame.

    Example: impasto video film.mp4 hokusai-great-wave.jpg -o painted.mp4 --size 384

    Parameters
    ----------
    source
        The video, or a folder of pictures in the order of their names.
    styles
        One or more style pictures.
    output
        The video to write (.mp4, .mov, .mkv; H.264, with the times and the audio of the source), or a folder for the frames.
    temporal
        Weight of the temporal cost, in units of the final cost of the scene's first frame.
    long_term
        Earlier frames to match, as offsets.
    frame_steps
        Optimiser steps of a frame, except the first of a scene.
    start
        warp: start each frame from the last painting, moved along the optical flow. recipe: start each frame afresh.
    passes
        Go through the video so many times, every second time backwards.
    rate
        Frames per second, if SOURCE is a folder.
    """
    check_exists(source)
    check_pictures(*styles)
    import torch

    from impasto.nets.nets import choose_compute
    from impasto.video.video import Motion, Video

    offsets = numbers_of("--long-term", long_term, int, "whole numbers, as 1,2,4")
    motion, recipe = Motion(temporal, tuple(offsets), passes, frame_steps, start), recipe_from(given(knobs))
    options, many = options or RunOptions(), many or ManyOptions()
    part = shard_of(many.shard, os.environ)
    torch.set_num_threads(threads_of(many))
    how: dict[str, Any] = {"weights": weights, "weights_input": weights_input, "max_memory": memory_of(options.max_memory)}
    painted = Video(source, styles, output, recipe, motion, rate=rate, place=choose_compute(options.device, "auto"), **how)
    try:
        if many.ray is None and part == (0, 1):
            show_frames(painted.steps(resume=resume), options.quiet)
        else:
            _distribute_scenes(painted, many, part, resume or part != (0, 1), options.quiet)
    except KeyboardInterrupt:
        say(f"stopped: the frames so far are in {painted.work}, --resume continues")
        raise
    if painted.is_finished():
        show(json_.dumps(painted.report()) if options.json else output)
    else:
        say("this part is painted; the last part to be painted writes the video")


def _distribute_scenes(painted: "Video", many: ManyOptions, part: Part, resume: bool, quiet: bool) -> None:
    from impasto.cluster import workers

    with (
        workers(many, threads_of(many)) as them,
        closing(painted.distribute(them, resume=resume, part=part)) as events,
        TaskBar(0, quiet) as bar,
    ):
        for name, event in events:
            bar.of = bar.of or len(painted.scenes()[part[0] :: part[1]])  # known once the first scene has started
            bar.step(f"scene {name}", event["step"]) if "step" in event else bar.end(f"scene {name}")
