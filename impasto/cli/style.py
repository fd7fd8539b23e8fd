"""`impasto style`: build objects, loop, print. torch is loaded by the commands, not by their help."""

import json as json_
from pathlib import Path
from typing import Literal

from cyclopts import App

from impasto.cli.options import OWN, Json, MaybeOutput, Names, Output, Quiet, Side, WeightsFile, WeightsInput, names_of
from impasto.images.formats import check_pictures
from impasto.messages import say, show
from impasto.recipe.recipe import NetName

style_app = App(name="style", help="Take a style apart into units, pairs and positions; compare two styles.", group_parameters=OWN)

PoolingName = Literal["max", "avg"]


@style_app.command
def read(
    painting: Path,
    /,
    *,
    output: Output,
    atlas: Path | None = None,
    against: Path | None = None,
    net: NetName = "vgg19",
    layers: Names = "",
    size: Side = 512,
    pooling: PoolingName = "max",
    weights: WeightsFile = None,
    weights_input: WeightsInput = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what the style of PAINTING consists of, layer by layer, on a web page. Prints the path of the page.

    The folder holds the page, which opens from disk, and style-edit.toml: change its numbers and give it to transfer --style-edit.

    Example: impasto style read hokusai-great-wave.jpg -o wave-style

    Parameters
    ----------
    painting
        The painting.
    output
        The folder of the page: a new one, or one with an older page, which is replaced. A style-edit.toml in it stays.
    atlas
        A scan of the same network (lens scan); its patches show what each unit responds to.
    against
        Photographs to compare with (a folder, tar, list or picture), in place of the bundled ones.
    net
        The network.
    layers
        Its layers, as conv1_1,conv3_1. [default: the five style layers]
    size
        Longer side of the painting, in pixels.
    pooling
        Pooling of the network: max as in the papers and in scans, avg as in the default recipe of transfer.
    """
    check_pictures(painting)
    from impasto.lens.style.page import EDIT, check_page, read_painting, to_json, write_page
    from impasto.weights import load_net

    built = load_net(net, weights, weights_input, pooling)
    check_page(output, built, atlas)
    if not quiet:
        say(f"reading {painting} at {size} pixels")
    reading = read_painting(painting, built, names_of(layers), size, pooling, against)
    if not write_page(output, reading, atlas):
        say(f"{output / EDIT} exists and is not changed")
    show(json_.dumps(to_json(reading)) if json else output / "index.html")


@style_app.command(name="compare")
def compare_styles(
    painting: Path,
    other: Path,
    /,
    *,
    generated: Path | None = None,
    output: MaybeOutput = None,
    net: NetName = "vgg19",
    size: Side = 512,
    weights: WeightsFile = None,
    weights_input: WeightsInput = None,
    json: Json = False,
) -> None:
    """Compare the style of OTHER with that of PAINTING, by layer, unit and pair; with --generated, what remains of the difference.

    Costs are those of transfer, with the recipe inside the generated picture, else with the default recipe.

    Example: impasto style compare hokusai-great-wave.jpg cat.jpg --generated cat-wave.png

    Parameters
    ----------
    painting
        The painting with the style.
    other
        Another painting, or the photograph that was painted.
    generated
        A result in this style: its style cost is divided among layers, units, pairs and positions.
    output
        Write a figure of the positions: .png, .webp, .tif or .jpg.
    net
        The network, if the generated picture has no recipe.
    size
        Longer side in pixels, if the generated picture has no recipe.
    """
    check_pictures(painting, other, *([generated] if generated else []))
    from impasto.images.drawing import check_figure, write_figure
    from impasto.lens.style.compare import compare, recipe_for, summary_lines
    from impasto.transfer.transfer import make_net
    from impasto.weights import load_weights

    if output is not None:
        check_figure(output)
    recipe = recipe_for(generated, net, size)
    built = make_net(recipe, load_weights(recipe.net, weights, weights_input))
    about, figure = compare(painting, other, generated, recipe, built)
    if output is not None:
        write_figure(output, figure, {"lens": {"compared": about}})
    for line in [json_.dumps(about)] if json else summary_lines(about):
        show(line)
