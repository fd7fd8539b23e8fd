"""Commands that paint one picture: transfer, texture, invert; a mask, and the demo."""

import json as json_
import shutil
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from impasto.cli.lens import demo_lens
from impasto.cli.options import (
    START,
    Given,
    Output,
    PaintOptions,
    Quiet,
    check_weights_input,
    given,
    memory_of,
    option,
    recipe_from,
)
from impasto.cli.progress import saved_on_interrupt, step_progress
from impasto.errors import BadImage, BadRecipe, CannotWrite
from impasto.files import check_writable, make_folder, write_whole
from impasto.images.formats import check_ending, check_pictures
from impasto.messages import say, show
from impasto.recipe.recipe import LEARNING_STEPS, Recipe, changed_recipe

if TYPE_CHECKING:
    from impasto.transfer.painting import Painting

BEGUN = time.monotonic()
PREVIEW_SECONDS = 10.0
DEMO = (("cat", "hokusai-great-wave", "standard"), ("astronaut", "van-gogh-auvers", "draft"))  # the quality that each ends in


def transfer(
    content: Path,
    /,
    *styles: Path,
    init_image: Annotated[Path | None, option("Start from this picture (--init picture).", START)] = None,
    options: PaintOptions | None = None,
    knobs: Given = None,
) -> None:
    """Paint the photograph CONTENT in the style of the paintings STYLES.

    Prints the path of the result. Ctrl-C saves the unfinished picture and a checkpoint; the same command with --resume continues.

    Example: impasto transfer cat.jpg hokusai-great-wave.jpg -o painted.png --size 1024

    Parameters
    ----------
    content
        The photograph, or any picture: it decides what the result shows.
    styles
        One or more pictures: they decide how it is painted.
    """
    options = options or PaintOptions()
    recipe = recipe_from(given(knobs), options.like, init_image)
    output = options.output or _unused(f"{content.stem}-{styles[0].stem if styles else 'painted'}.png")
    paint(prepare(content, styles, output, recipe, options, init_image), options)


def texture(painting: Path, /, *, layers: str | None = None, options: PaintOptions | None = None, knobs: Given = None) -> None:
    """Generate a texture: the style of PAINTING without a content, from noise (preset texture).

    Prints the path of the result. Ctrl-C saves the unfinished picture and a checkpoint; the same command with --resume continues.

    Example: impasto texture hokusai-great-wave.jpg -o waves.png --seamless both

    Parameters
    ----------
    painting
        The style picture.
    layers
        Layers of the style: conv1_1..conv3_1 (with the preset's weights) or conv2_1=1,conv3_1=0.5. [default: all five]
    """
    options = options or PaintOptions()
    recipe = recipe_from(_with("style_layers", layers, given(knobs)), options.like, preset="texture")
    output = options.output or _unused(f"{painting.stem}-texture.png")
    paint(prepare(painting, (painting,), output, recipe, options), options)


def invert(picture: Path, /, *, layer: str | None = None, options: PaintOptions | None = None, knobs: Given = None) -> None:
    """Reconstruct PICTURE from the activations of one layer, from noise (preset inversion).

    Prints the path of the result. Ctrl-C saves the unfinished picture and a checkpoint; the same command with --resume continues.

    Example: impasto invert cat.jpg --layer conv3_1 -o inverted.png

    Parameters
    ----------
    picture
        The picture to reconstruct.
    layer
        The layer: conv3_1 (after its ReLU), conv3_1:pre (before it) or pool3. [default: conv4_2; in alexnet conv4]
    """
    options = options or PaintOptions()
    recipe = recipe_from(_with("content_layers", layer, given(knobs)), options.like, preset="inversion")
    output = options.output or _unused(f"{picture.stem}-inverted.png")
    paint(prepare(picture, (), output, recipe, options), options)


def learn(
    painting: Path,
    /,
    *photographs: Path,
    steps: Annotated[int, Parameter(validator=Number(gte=1, lte=100_000))] = LEARNING_STEPS,
    seed: int = 0,
    preview: Path | None = None,
    quiet: Quiet = False,
) -> None:
    """Learn the style of PAINTING for instant pictures: afterwards transfer with --quality instant paints in it.

    Takes a few minutes. Prints the path of what was learned, some kilobytes, which is found by the painting's pixels.

    Example: impasto learn hokusai-great-wave.jpg --preview learning.png

    Parameters
    ----------
    painting
        The style picture.
    photographs
        Photographs to learn from, such as yours. [default: the bundled ones]
    steps
        How many squares of photographs to paint; more is better and takes longer.
    seed
        Random seed: one seed learns the same numbers.
    preview
        Write the first photograph, painted with what is learned so far, to this picture every ten seconds.
    quiet
        Show no progress.
    """
    check_pictures(painting, *photographs)
    if preview is not None:
        check_ending(preview)
        check_writable(preview)
    from impasto.images.images import quantize, write_picture
    from impasto.transfer.learning import Learning

    learning, shown = Learning(painting, photographs, steps=steps, seed=seed), time.monotonic()
    with step_progress(learning.scales, quiet) as show_step:
        for lesson in learning.steps():
            show_step(lesson)
            if preview is not None and (time.monotonic() - shown > PREVIEW_SECONDS or lesson.i == lesson.of):
                write_picture(preview, quantize(learning.shown(lesson)))
                shown = time.monotonic()
    show(learning.path)


def mask(picture: Path, how: str, /, *, output: Output, feather: float = 0.01) -> None:
    """Write a mask made from PICTURE: white inside, black outside. Edit it, or give it to a region or --protect.

    Example: impasto mask cat.jpg "k-means 1 of 3" -o mask.png

    Parameters
    ----------
    picture
        The picture.
    how
        light or dark; or "k-means 1 of 3", the darkest of three parts by colour.
    output
        The file to write: .png, .webp, .tif or .jpg.
    feather
        Width of the soft edge, as a fraction of the longer side.
    """
    check_pictures(picture)
    check_ending(output)
    from impasto.images.images import check_format, read_picture, write_picture
    from impasto.objective.masks import make_mask

    check_format(output)
    check_writable(output)
    write_picture(output, make_mask(how, read_picture(picture).image, feather).expand(1, 3, -1, -1))
    show(output)


def demo(folder: Path = Path("impasto-demo"), /, *, quiet: Quiet = False, knobs: Given = None) -> None:
    """Paint two bundled pictures into FOLDER, and show what AlexNet's units respond to in the bundled photographs.

    Drafts come first, then a finer painting over the first of them. Finished paintings in the folder stay; an unfinished one
    continues. At the end it says what to open.

    Example: impasto demo

    Parameters
    ----------
    folder
        The folder for paintings, sheets and the page of units.
    """
    from impasto.cache import Cache
    from impasto.pictures import picture_path
    from impasto.transfer.painting import Painting

    recipe, cache = recipe_from(given(knobs)), Cache()
    make_folder(folder)
    for content, style, wanted in DEMO:
        pictures, output = (picture_path(content), [picture_path(style)]), folder / f"{content}-{style}.png"
        best = wanted if recipe.quality == "standard" else recipe.quality
        for quality in dict.fromkeys(("draft", best)):
            painting = Painting(*pictures, output, changed_recipe(recipe, {"quality": quality}), cache=cache)
            if quality == best or not output.exists():
                paint(painting, PaintOptions(quiet=quiet, resume=True))
    for made in demo_lens(folder, quiet):
        show(made)
    if not quiet:
        content, style, _ = DEMO[0]
        say(f"Open {folder / f'{content}-{style}.png'}: a photograph in the manner of a painting,")
        say(f"     {folder / 'alexnet-conv5.png'}: what some units of a network have learned to see,")
        say(f"     {folder / 'units' / 'index.html'}: all its units, in your browser.")


def pictures(folder: Path = Path(), /) -> None:
    """Copy the bundled pictures into FOLDER: three photographs and five style pictures, public domain or CC0.

    A file of the same name in the folder stays as it is.

    Example: impasto pictures .

    Parameters
    ----------
    folder
        The folder for the pictures.
    """
    from impasto.pictures import picture_path

    make_folder(folder)
    for source in sorted(picture_path("cat").parent.glob("*.jpg")):
        if not (folder / source.name).exists():
            with open(source, "rb") as picture:
                write_whole(folder / source.name, partial(shutil.copyfileobj, picture))
        show(folder / source.name)


def prepare(
    content: Path, styles: tuple[Path, ...], output: Path, recipe: Recipe, options: PaintOptions, start: Path | None = None
) -> "Painting":
    """The painting of these files, checked; torch is imported only after the quick checks."""
    check_pictures(content, *styles, *([start] if start else []), *recipe.mask_files().values())
    check_ending(output)
    from impasto.nets.nets import choose_compute
    from impasto.transfer.painting import Painting

    check_weights_input(options.weights, options.weights_input)
    if options.verbose:
        say(json_.dumps(recipe.model_dump(), indent=1))
    how: dict[str, Any] = {"weights": options.weights, "weights_input": options.weights_input, "bits": options.bits}
    how |= {"place": choose_compute(options.device, options.precision), "max_memory": memory_of(options.max_memory)}
    return Painting(content, styles, output, recipe, start=start, keep_profile=options.keep_profile, **how)


def paint(painting: "Painting", options: PaintOptions) -> None:
    """Paint with progress and print the path of the result, or its report; on Ctrl-C save the unfinished picture."""
    seconds = _seconds_left(options.time_budget)
    if not options.quiet and not (options.resume and painting.is_finished()):
        for line in painting.style_notes():
            say(line)
        for (side, _), plan in zip(painting.scales, painting.plans, strict=True):
            say(f"{side} px: {plan}")
    with saved_on_interrupt(painting), step_progress(painting.scales, options.quiet) as show_step:
        for step in painting.steps(resume=options.resume, seconds=seconds, save_every=options.save_every):
            show_step(step)
    if not options.quiet:
        say(f"{painting.output}: {f'painted in {painting.seconds:.0f} s' if painting.seconds else 'was finished already'}")
    show(json_.dumps(painting.report()) if options.json else painting.output)


def _with(name: str, value: str | None, knobs: dict[str, Any]) -> dict[str, Any]:
    """The knobs with one that has a shorter option too."""
    if value is None:
        return knobs
    if name in knobs:
        raise BadRecipe(f"{name} is given twice: {value!r} and {knobs[name]!r}")
    return {**knobs, name: value}


def _unused(name: str) -> Path:
    """A path that the user did not type: it may replace a painting of Impasto, and no other file."""
    output = Path(name)
    if not output.exists():
        return output
    from impasto.images.images import read_record

    try:
        read_record(output)
    except BadImage as error:
        raise CannotWrite(f"{output} exists and is no painting of Impasto: name the output with -o") from error
    return output


def _seconds_left(budget: timedelta | None) -> float | None:
    if budget is not None and budget <= timedelta():
        raise BadRecipe(f"--time-budget is {budget}, must be more than nothing")
    return None if budget is None else budget.total_seconds() - (time.monotonic() - BEGUN)
