"""`impasto style`: build objects, loop, print. torch is loaded by the commands, not by their help."""

import json as json_
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from impasto.cli.lens import NetName, Output
from impasto.cli.progress import Flag, Quiet, WeightsFile, WeightsInput
from impasto.images.formats import check_pictures
from impasto.messages import say, show

style_app = App(name="style", help="What a style is made of: units, pairs and places; where two styles differ.")

Size = Annotated[int, Parameter(validator=Number(gte=16, lte=4096))]
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
    layers: str = "",
    size: Size = 512,
    pooling: PoolingName = "max",
    weights: WeightsFile = None,
    weights_input: WeightsInput = None,
    json: Flag = False,
    quiet: Quiet = False,
) -> None:
    """Take the style of PAINTING apart: what it is made of, layer by layer, and where that is. Prints the page's path.

    The folder holds the page, which opens from disk, and style-edit.toml, which `transfer --style-edit` takes: change its numbers.

    Parameters
    ----------
    painting
        The painting.
    output
        The folder of the page: a new one, or that of an older page, which is replaced. A style-edit.toml in it stays.
    atlas
        A scan by the same net (lens scan): its patches show what each unit looks for.
    against
        Photographs (a folder, tar, list or picture) that lifts are over, in place of the bundled ones.
    net
        The net.
    layers
        Its layers, as conv1_1,conv3_1; the five style layers unless given.
    size
        The painting's longer side.
    pooling
        How the net pools: max as in the papers and in a scan, avg as the default recipe of transfer.
    json
        Print one JSON object in place of the path.
    """
    check_pictures(painting)
    from impasto.lens.style.page import EDIT, check_page, read_painting, to_json, write_page
    from impasto.weights import load_net

    built = load_net(net, weights, weights_input, pooling)
    check_page(output, built, atlas)
    if not quiet:
        say(f"reading {painting} at {size} pixels")
    reading = read_painting(painting, built, [name for name in layers.replace(" ", "").split(",") if name], size, pooling, against)
    if not write_page(output, reading, atlas):
        say(f"{output / EDIT} was there and stays as it is")
    show(json_.dumps(to_json(reading)) if json else output / "index.html")


@style_app.command(name="compare")
def compare_styles(
    painting: Path,
    other: Path,
    /,
    *,
    generated: Path | None = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    net: NetName = "vgg19",
    size: Size = 512,
    weights: WeightsFile = None,
    weights_input: WeightsInput = None,
    json: Flag = False,
) -> None:
    """Where the style of OTHER differs from that of PAINTING, by layer, unit and pair; of a generated picture, what remains of it.

    Costs are counted as transfer does, by the recipe that the generated picture carries, else by the default one.

    Parameters
    ----------
    painting
        The painting whose style it is.
    other
        Another painting, or the photograph that was painted.
    generated
        A picture painted in its style: its style cost is divided among layers, units, pairs and places.
    output
        A figure of the places: .png, .webp, .tif or .jpg.
    net
        The net, unless the generated picture says it.
    size
        Longer side, unless the generated picture says it.
    json
        Print one JSON object in place of the lines.
    """
    check_pictures(painting, other, *([generated] if generated else []))
    from impasto.files import check_writable
    from impasto.images.drawing import write_figure
    from impasto.images.images import check_format
    from impasto.lens.style.compare import compare, recipe_for, summary_lines
    from impasto.transfer.transfer import make_net
    from impasto.weights import load_weights

    if output is not None:
        check_format(output)
        check_writable(output)
    recipe = recipe_for(generated, net, size)
    built = make_net(recipe, load_weights(recipe.net, weights, weights_input))
    about, figure = compare(painting, other, generated, recipe, built)
    if output is not None:
        write_figure(output, figure, {"lens": {"compared": about}})
    for line in [json_.dumps(about)] if json else summary_lines(about):
        show(line)
