"""`impasto lens`: build objects, loop, print. torch is loaded by the commands, not by their help."""

import json as json_
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from impasto.cli.options import (
    MAIN,
    OWN,
    Count,
    Flag,
    Json,
    ManyOptions,
    Names,
    Output,
    Quiet,
    Side,
    Verbose,
    WeightsFile,
    WeightsInput,
    Whole,
    check_weights_input,
    names_of,
    shown_as,
)
from impasto.cli.progress import Bar, saved_on_interrupt, show_pictures, show_steps
from impasto.errors import BadRecipe, CannotWrite, ImpastoError
from impasto.files import check_exists, check_writable
from impasto.messages import say, show
from impasto.pictures import photograph_folder
from impasto.recipe.recipe import NetName
from impasto.workers import shard_of, threads_of

if TYPE_CHECKING:
    from torch import Tensor

    from impasto.lens.dream import Objective
    from impasto.lens.index import Index
    from impasto.lens.scan import Part
    from impasto.nets.nets import Net

lens_app = App(name="lens", help="What the units of a network respond to: patches, projections, sheets.", group_parameters=OWN)

ChosenNet = Annotated[NetName, Parameter(help="The network.")]
Seed = Annotated[int, Parameter(validator=Number(gte=0), help="Random seed: of the choice of units, or of the controls.")]
Units = Annotated[str, Parameter(help="Number of units, all, or a list as 3,17 (17, for one).")]
Clearest = Annotated[str, Parameter(help="As 6, all, 3,17 or clearest:6, which have the highest clarity.")]
Interior = Annotated[
    bool | None,
    Parameter(negative="--everywhere", help="Rank only positions without padding, or all. [default: --interior if there are any]"),
]
Rule = Annotated[Literal["deconv", "guided", "gradient"], Parameter(help="Rule for a ReLU on the way back.")]
Pooling = Annotated[Literal["sum", "overwrite", "max"], Parameter(help="Rule where two pools share a switch.")]
Resized = Annotated[Side, Parameter(help="Resize the shorter side of a picture to so many pixels.")]
Fit = Annotated[Literal["center", "whole"], Parameter(help="Use the square in the centre of a picture, or the whole picture.")]
Scan = Annotated[Path, Parameter(help="The folder of a scan. Its pictures must not have moved.")]
Figure = Annotated[Path, Parameter(name=["--output", "-o"], group=MAIN, help="The figure: .png, .webp, .tif or .jpg.")]
DEMO_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")  # on the page of the demo; every second has a sheet
PARTS_EACH = 4  # parts of a scan for each worker: so all end at about the same time, and one that dies repeats little


def scan(
    *pictures: Path,
    output: Output,
    net: ChosenNet = "alexnet",
    layers: Names = "",
    k: Count = 9,
    per_image: Count = 1,
    size: Resized = 224,
    fit: Fit = "center",
    resume: Flag = False,
    shards: Annotated[int | None, Parameter(validator=Number(gte=1, lte=99_999))] = None,
    weights: WeightsFile = None,
    weights_input: WeightsInput = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    many: ManyOptions | None = None,
) -> None:
    """Run PICTURES through a network and record, for every unit, the patches that activate it most. Prints the path of the atlas.

    After Ctrl-C or a crash the same command with --resume loses at most half a minute, and ends with the same bytes.

    Example: impasto lens scan photos -o atlas

    Parameters
    ----------
    pictures
        Folders, tar files of pictures, lists of paths (.txt), or single pictures. [default: the 279 bundled photographs]
    output
        The atlas: a folder for the index and its manifest. It holds no pixels.
    layers
        Its layers, as conv1,conv5 or conv4:pre (before the ReLU). [default: all convolutions]
    k
        Patches per unit.
    per_image
        Maximum number of patches from one picture; they are half a receptive field or more apart.
    resume
        Continue the scan in the output folder, in as many parts as it was started with.
    shards
        Scan in so many parts, which are merged at the end. [default: several for each worker with --ray, else 1]
    """
    pictures = pictures or (photograph_folder(),)
    check_exists(*pictures)
    many = many or ManyOptions()
    part = shard_of(many.shard, os.environ)
    check_weights_input(weights, weights_input)
    task = {"kind": "scan", "folder": os.getcwd(), "places": list(map(str, pictures)), "threads": threads_of(many)}
    task |= {"net": net, "weights": weights and str(weights), "weights_input": weights_input}
    task |= {"setup": [names_of(layers), k, per_image, size, fit]}
    try:
        _scan(task, output, part, shards, many, resume, quiet)
    except KeyboardInterrupt:
        say("stopped: --resume continues from the last checkpoint")
        raise
    show(output)


def _scan(
    task: dict[str, Any], folder: Path, part: "Part", shards: int | None, many: ManyOptions, resume: bool, quiet: bool
) -> None:
    """In as many parts as requested, or as the scan was started with."""
    from impasto.cluster import workers
    from impasto.lens.index import INDEX
    from impasto.lens.scan import WHOLE, begin_shards, merge_shards, scan_shards, shards_begun

    begun = shards_begun(folder) if resume or part != WHOLE else None
    if part != WHOLE and begun == 1 and (folder / INDEX).exists():  # merged already: only new pictures are scanned
        _scan_whole(task, folder, True, quiet)
        return
    if part != WHOLE and begun not in (None, part[1]):
        raise BadRecipe(f"--shard divides into {part[1]} parts, but the scan in {folder} was started with {begun}")
    with workers(many, task["threads"]) as them:
        of = part[1] if part != WHOLE else begun or shards or (1 if many.ray is None else PARTS_EACH * len(them))
        if of == 1 and many.ray is None:
            _scan_whole(task, folder, resume, quiet)
            return
        begin_shards(folder, of, resume or part != WHOLE)
        parts = [(n, of) for n in range(of)] if part == WHOLE else [part]
        with closing(scan_shards(task, folder, parts, them)) as steps:
            show_pictures(steps, quiet)
    if of > 1 and not merge_shards(folder, of):
        say("this part is scanned; the last part to be scanned merges all")


def _scan_whole(task: dict[str, Any], folder: Path, resume: bool, quiet: bool) -> None:
    """In this process."""
    import torch

    from impasto.lens.index import make_setup
    from impasto.lens.scan import scan as scan_pictures
    from impasto.weights import load_net

    torch.set_num_threads(task["threads"])
    built = load_net(task["net"], task["weights"] and Path(task["weights"]), task["weights_input"])
    places = [Path(place) for place in task["places"]]
    show_pictures(scan_pictures(places, built, make_setup(built, *task["setup"]), folder, resume), quiet)


@lens_app.command
def top(atlas: Path, /, *, layer: str, unit: Whole, interior: Interior = None, json: Json = False) -> None:
    """Print the patches of a unit, the strongest first: activation, picture, position in the map, box in pixels of the picture.

    Example: impasto lens top atlas --layer conv5 --unit 17

    Parameters
    ----------
    atlas
        The folder of a scan.
    layer
        conv5, or conv5:pre if that was scanned.
    unit
        The unit's number, from 0.
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
def units(atlas: Path, /, *, layer: str | None = None, clearest: Flag = False, json: Json = False) -> None:
    """Print statistics of the layers or, with --layer, of its units: how often they fire, how strongly, where, how clear they are.

    A unit fires in a picture if its largest activation is above 0; a unit that never fires is dead on these pictures. lens clarity
    adds the clarity, lens words what most of its patches show.

    Example: impasto lens units atlas --layer conv5

    Parameters
    ----------
    atlas
        The folder of a scan.
    layer
        Print the units of this layer, one per line.
    clearest
        The clearest units first.
    """
    from impasto.lens.clarity import with_clarity
    from impasto.lens.index import find_layer, layer_statistics, read_index, unit_statistics
    from impasto.lens.words import with_words

    index = read_index(atlas)
    if clearest and not layer:
        raise BadRecipe("--clearest sorts units: add --layer")
    name = find_layer(index, layer) if layer else None
    rows = with_clarity(atlas, index, name, unit_statistics(index, name) if name else layer_statistics(index))
    rows = with_words(atlas, index, name, rows) if name else rows
    if clearest:
        rows.sort(key=lambda row: -(row.get("clarity") or 0.0))
    if json:
        show(json_.dumps({"pictures": index.pictures, "units" if layer else "layers": rows}))
        return
    for row in rows:
        known = {name: "unknown" if value is None else value for name, value in row.items()}
        show("  ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in known.items()))


def photos(*sets: str, output: Output, quiet: Quiet = False) -> None:
    """Bring sets of photographs for lens scan: imagenette, caltech101, or an archive (.zip, .tgz, .tar). Prints their folders.

    An archive may be at an address, as https://example.org/photos.zip, or a file. Only its pictures are unpacked. A download that
    was cut off continues with the same command; what is there already is not brought again.

    Example: impasto lens photos caltech101 -o photos

    Parameters
    ----------
    sets
        imagenette, caltech101, addresses or files of archives, folders.
    output
        The folder in which each set gets a folder of its own.
    """
    from impasto.lens.photos import SETS, bring

    if not sets:
        raise BadRecipe(f"nothing to bring: name {', '.join(SETS)}, an address or an archive")
    for name in sets:
        if name in SETS and not quiet:
            say(f"{name}: {SETS[name].licence}")
        with Bar(quiet, f"connecting for {name}") as bar:
            for it in bring(name, output):
                if isinstance(it, Path):
                    found = it
                else:
                    bar.update(it.done, it.of, f"{name}: {it}")
        show(found)


@lens_app.command
def clarity(
    atlas: Scan,
    /,
    *,
    layer: Names = "",
    seed: Annotated[int, Parameter(validator=Number(gte=0), help="Random seed, of the patches drawn at random.")] = 0,
    weights: WeightsFile = None,
    weights_input: WeightsInput = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure how clear each unit is: how well an eye tells its strongest patches from its weakest. Prints each layer's median.

    0.5 is a unit without a theme, 1 a clear one; docs/lens.md says what is measured. The scores stay with the scan: lens sheet
    --units clearest, lens units and the page by lens atlas use them.

    Example: impasto lens clarity atlas

    Parameters
    ----------
    layer
        The layers, as conv4,conv5. [default: all]
    """
    from impasto.lens.clarity import read_clarity
    from impasto.lens.index import find_layer, read_index

    index = read_index(atlas)
    layers = [find_layer(index, name) for name in names_of(layer)] or [*index.layers]
    _measure_clarity(atlas, layers, weights, weights_input, seed, quiet)
    found = {name: it for name, it in read_clarity(atlas, index).items() if name in layers}
    if json:
        show(json_.dumps({"layers": {name: asdict(it) for name, it in found.items()}}))
        return
    for name, it in found.items():
        scores = [score for score in it.score if score is not None]
        above = sum(score > it.chance for score in scores) / max(1, len(scores))
        middle = f"{median(scores):.2f}" if scores else "unknown"
        show(f"{name}  median {middle}  units {len(scores)}  above chance ({it.chance:.2f}) {above:.0%}")


def _measure_clarity(
    atlas: Path, layers: Sequence[str], weights: Path | None, weights_input: str | None, seed: int, quiet: bool
) -> None:
    """Measure these layers and keep their scores beside those of others."""
    from impasto.lens.clarity import clarity_of, read_clarity, write_clarity
    from impasto.lens.index import read_index
    from impasto.weights import load_net

    index = read_index(atlas)
    net, known = load_net(index.setup.net, weights, weights_input), read_clarity(atlas, index)
    with Bar(quiet, "drawing patches at random") as bar:
        for n, (name, it) in enumerate(clarity_of(atlas, net, layers, seed), 1):
            known[name] = it
            write_clarity(atlas, known)
            bar.update(n, len(layers), f"{name} measured", n == len(layers))


@lens_app.command
def words(
    atlas: Scan,
    /,
    *,
    layer: Names = "",
    seed: Annotated[int, Parameter(validator=Number(gte=0), help="Random seed, of the patches drawn at random.")] = 0,
    weights: WeightsFile = None,
    weights_input: WeightsInput = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find a word for each unit: what most of its nine patches show, as "dog 7 of 9". Prints the words.

    A classifier that knows the 1,000 classes of ImageNet looks at the patches (fetched once, 17 MB). Units whose patches share
    no more than chance would give them have no word. The words stay with the scan: sheets, lens units and the page by lens atlas
    show them.

    Example: impasto lens words atlas --layer conv5

    Parameters
    ----------
    layer
        The layers, as conv4,conv5. [default: those whose receptive field has a side of 64 pixels or more]
    """
    from impasto.lens.index import find_layer, read_index
    from impasto.lens.words import caption, layers_to_name, read_words, words_of, write_words
    from impasto.weights import load_net

    index = read_index(atlas)
    layers = [find_layer(index, name) for name in names_of(layer)] or layers_to_name(index)
    net, known = load_net(index.setup.net, weights, weights_input), read_words(atlas, index)
    with Bar(quiet, "drawing patches at random") as bar:
        for n, (name, found) in enumerate(words_of(atlas, index, net, layers, seed), 1):
            known[name] = found
            write_words(atlas, known)
            bar.update(n, len(layers), f"{name} named", n == len(layers))
    if json:
        show(json_.dumps({"layers": {name: [word and asdict(word) for word in known[name]] for name in layers}}))
        return
    for name in layers:
        named = {unit: word for unit, word in enumerate(known[name]) if word}
        show(f"{name}  {len(named)} of {len(known[name])} units have a word")
        for unit, word in named.items():
            show(f"{name}/{unit}  {caption(word)}")


def merge(*atlases: Path, output: Output) -> None:
    """Merge scans of parts of a set into the scan of the whole set, with the same bytes. Prints the path of the atlas.

    Example: impasto lens merge part1 part2 -o atlas

    Parameters
    ----------
    atlases
        The folders of the scans. They need the same network, size, k and layers, and no common picture.
    output
        The folder of the merged scan.
    """
    from impasto.lens.index import merge as merge_atlases

    if not atlases:
        raise BadRecipe("nothing to merge: name the folders of scans")
    merge_atlases(atlases, output)
    show(output)


@lens_app.command
def check(
    atlas: Scan,
    /,
    *,
    layer: str | None = None,
    units: Units = "9",
    seed: Seed = 0,
    interior: Flag = False,
    weights: WeightsFile = None,
    weights_input: WeightsInput = None,
    json: Json = False,
) -> None:
    """Crop patches from their pictures, run them through the network again and compare their activations with the scan's.

    A patch without padding runs alone, in two exact ways; one with padding runs with its whole picture. Fails if an error is larger
    than 1e-4 of the largest activation of the layer.

    Example: impasto lens check atlas --layer conv5

    Parameters
    ----------
    layer
        The layer. [default: all]
    interior
        Check only patches without padding.
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
        raise ImpastoError(f"in {wrong} layers the activations differ from the scan: does it use other weights or another size?")


@lens_app.command
def project(
    picture: Path,
    /,
    *,
    layer: str,
    unit: Whole,
    output: Figure,
    place: str | None = None,
    net: ChosenNet = "alexnet",
    rule: Rule = "guided",
    pooling: Pooling = "sum",
    seed: Seed = 0,
    size: Resized = 224,
    fit: Fit = "center",
    weights: WeightsFile = None,
    weights_input: WeightsInput = None,
    json: Json = False,
) -> None:
    """Project a unit back onto PICTURE, beside two controls. Prints the path of the figure.

    The controls are another unit with the same switches, and the same unit with shuffled weights. If the cosine to a control is
    near 1, the projection says little about the unit.

    Example: impasto lens project cat.jpg --layer conv5 --unit 17 -o projection.png

    Parameters
    ----------
    picture
        The photograph.
    layer
        The unit's layer, as conv5.
    unit
        Its number, from 0.
    place
        Position in the map of the layer, as 6,11 (y, x). [default: where the unit is strongest]
    """
    from impasto.images.drawing import check_figure, write_figure
    from impasto.lens.sheet import project_picture
    from impasto.weights import load_net

    check_figure(output)
    built = load_net(net, weights, weights_input)
    figure, about = project_picture(picture, built, layer, unit, _place(place), rule, pooling, seed, size, fit)
    write_figure(output, figure, {"lens": about})
    for control in about["controls"]:
        say(f"cosine to {control['name']}: {control['cosine']:.2f}")
    show(json_.dumps({"output": str(output), **about}) if json else output)


@lens_app.command
def sheet(
    atlas: Scan,
    /,
    *,
    layer: str,
    output: Figure,
    units: Clearest = "6",
    seed: Seed = 0,
    interior: Interior = None,
    rule: Rule = "guided",
    pooling: Pooling = "sum",
    scale: Literal["patch", "block"] = "patch",
    weights: WeightsFile = None,
    weights_input: WeightsInput = None,
) -> None:
    """Draw the papers' figure: nine patches and nine projections of each unit, and in the first layer its filter.

    Prints the path of the figure.

    Example: impasto lens sheet atlas --layer conv3 -o conv3.png

    Parameters
    ----------
    layer
        The layer, as conv3.
    scale
        Scale each projection by itself (patch), or the nine of a unit together (block).
    """
    from impasto.images.drawing import check_figure, write_figure
    from impasto.lens.clarity import CLEAREST, read_clarity
    from impasto.lens.index import find_layer, read_index
    from impasto.lens.sheet import sheet as draw_sheet
    from impasto.weights import load_net

    check_figure(output)
    index = read_index(atlas)
    net, name = load_net(index.setup.net, weights, weights_input), find_layer(index, layer)
    if units.startswith(CLEAREST) and name not in read_clarity(atlas, index):
        _measure_clarity(atlas, [name], weights, weights_input, 0, quiet=True)
    options: dict[str, Any] = {"seed": seed, "interior": interior, "rule": rule, "pooling": pooling, "scale": scale}
    figure = draw_sheet(atlas, net, layer, units, **options)
    write_figure(output, figure, {"lens": {"layer": layer, "units": units, **options}})
    show(output)


@lens_app.command
def atlas(
    atlas: Scan,
    /,
    *,
    output: Output,
    dreams: Path | None = None,
    dream: Names = "",
    dream_steps: Annotated[int, Parameter(validator=Number(gte=1, lte=1_000_000))] = 64,
    everywhere: Flag = False,
    rule: Rule = "guided",
    pooling: Pooling = "sum",
    weights: WeightsFile = None,
    weights_input: WeightsInput = None,
    quiet: Quiet = False,
) -> None:
    """Make a web page of a scan: all units with patches, projections and statistics. Prints the path of the page.

    The clarity of units is measured first where it is not known. The page opens from disk and needs no server; it can be
    opened once it has its first layer. Every unit has an address, as index.html#conv4/137.

    Example: impasto lens atlas atlas -o page

    Parameters
    ----------
    output
        The folder of the page: a new one, or one with an older page, which is replaced.
    dreams
        A folder of pictures by lens dream; they are shown with their units.
    dream
        Units to dream of first, as conv5/17,conv5/40, or all of a layer, as conv5. Dreams that are in the folder are not made
        again.
    dream_steps
        Optimiser steps of each new dream; lens dream takes 256.
    everywhere
        Show the patches at all positions, too; else only those whose fields see no padding, in layers with such positions.
    """
    from impasto.lens.atlas import MADE_BY, make_atlas
    from impasto.lens.clarity import can_measure, read_clarity
    from impasto.lens.index import read_index
    from impasto.lens.pages import check_free
    from impasto.weights import load_net

    index = read_index(atlas)
    net = load_net(index.setup.net, weights, weights_input)
    check_free(output, MADE_BY)
    if can_measure(index) and read_clarity(atlas, index).keys() != index.layers.keys():
        _measure_clarity(atlas, [*index.layers], weights, weights_input, 0, quiet)
    if dream:
        _dream_of(index, net, dream, dreams, dream_steps, quiet)
    show_pictures(make_atlas(atlas, net, output, rule=rule, pooling=pooling, dreams=dreams, everywhere=everywhere), quiet, "drawn")
    show(output / "index.html")


def compare(
    *atlases: Path, layer: str, output: Figure, units: Units = "4", seed: Seed = 0, interior: Interior = None, json: Json = False
) -> None:
    """Draw the same units of several scans below one another, as over the checkpoints of a training.

    Prints the path of the figure. Each scan is compared with the one before: how many patches have the same picture, how many the
    same position too, and the rank correlation of the pictures.

    Example: impasto lens compare atlas1 atlas2 --layer conv5 -o compare.png

    Parameters
    ----------
    atlases
        The folders of two or more scans. Their pictures must not have moved.
    layer
        The layer, as conv3; or one for each scan, as conv3,conv3_1.
    """
    from impasto.images.drawing import check_figure, write_figure
    from impasto.lens.comparison import compare as draw_rows

    check_figure(output)
    figure, about = draw_rows(atlases, layer.replace(" ", "").split(","), units, seed, interior)
    write_figure(output, figure, {"lens": {"scans": about}})
    show(json_.dumps({"output": str(output), "scans": about}) if json else output)


@lens_app.command
def dream(
    *,
    layer: str,
    unit: Whole | None = None,
    pair: str | None = None,
    channel: Flag = False,
    output: Output,
    net: ChosenNet = "alexnet",
    size: Annotated[int | None, Parameter(validator=Number(lte=4096))] = None,
    steps: Annotated[int, Parameter(validator=Number(gte=1, lte=1_000_000))] = 256,
    diversity: Annotated[int, Parameter(validator=Number(gte=1, lte=64))] = 1,
    seed: Annotated[int, Parameter(validator=Number(gte=0, lt=2**63))] = 0,
    prior: Literal["fourier", "maco"] = "fourier",
    start: str | None = None,
    nearness: Annotated[float, Parameter(validator=Number(gte=0))] = 3.0,
    atlas: Path | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Generate, from noise, a picture that activates a unit, a channel or a pair most.

    Prints the path of the picture, and on stderr three activations: of the picture, of the best bundled picture, and of noise.
    Ctrl-C saves the unfinished picture.

    Example: impasto lens dream --layer conv5 --unit 17 -o dream.png

    Parameters
    ----------
    layer
        The layer, as conv4_2 (after its ReLU), conv4_2:pre (before it) or pool4.
    unit
        The unit: the channel of this number, at the centre of the map.
    pair
        In place of --unit: 17,23 activates both, 17,-23 the first and not the second.
    channel
        Activate the whole map instead of its centre: this gives a texture.
    output
        The file to write: .png, .webp, .tif (lossless) or .jpg.
    size
        Side of the picture in pixels. [default: the receptive field of a unit; 224 for a channel]
    steps
        Optimiser steps.
    diversity
        Generate so many different pictures at once, side by side.
    seed
        Random seed of the noise and of the random shifts.
    prior
        What keeps the picture natural: fourier bounds its Fourier coefficients, maco gives it the magnitudes of photographs.
    start
        Start from the middle of this picture, or with --atlas from the unit's patch of this rank (1), and stay near it: what in
        it excites the unit becomes stronger. [default: noise]
    nearness
        How strongly it stays near the start; 0 lets it go anywhere.
    atlas
        A scan of the same network: says whether the dream of a unit takes the same path through the net as its patches.
    """
    from impasto.lens.dream import Dream, summary
    from impasto.weights import load_net

    objective = _objective(layer, unit, pair, channel)
    check_writable(output)
    if atlas and (unit is None or channel):
        raise BadRecipe("--atlas compares the dream of a --unit with its patches")
    built = load_net(net)
    index = _index_of(atlas, built, layer, unit) if atlas and unit is not None else None
    options: dict[str, Any] = {
        "size": size,
        "steps": steps,
        "pictures": diversity,
        "seed": seed,
        "prior": prior,
        "nearness": nearness,
    }
    dreaming = Dream(built, objective, output, start=_start(start, atlas, layer, unit), **options)
    with saved_on_interrupt(dreaming, ""):
        show_steps(dreaming.steps(), [(dreaming.size, steps)], quiet, "activation")
    report = dreaming.report()
    if not quiet or not report["excited"]:
        say(f"{output}: {summary(report)}")
    if atlas and index and unit is not None:
        from impasto.lens.index import find_layer
        from impasto.lens.paths import in_words, paths

        found = paths(atlas, index, built, find_layer(index, layer), unit, dreaming.pictures(), seed)
        report["path"] = {name: asdict(it) for name, it in found.items()}
        for line in [] if quiet else in_words(found):
            say(line)
    show(json_.dumps(report) if json else output)


def demo_lens(folder: Path, quiet: bool) -> Iterator[Path]:
    """Scan the bundled photographs with AlexNet, draw its clearest units of three layers, and make the page of all."""
    from impasto.images.drawing import write_figure
    from impasto.lens.atlas import make_atlas
    from impasto.lens.clarity import CLEAREST
    from impasto.lens.index import make_setup
    from impasto.lens.scan import scan as scan_pictures
    from impasto.lens.sheet import sheet as draw_sheet
    from impasto.weights import load_net

    net, atlas = load_net("alexnet"), folder / "atlas"
    show_pictures(scan_pictures([photograph_folder()], net, make_setup(net, DEMO_LAYERS), atlas), quiet)
    _measure_clarity(atlas, DEMO_LAYERS, None, None, 0, quiet)
    for layer in DEMO_LAYERS[::2]:
        output = folder / f"alexnet-{layer}.png"
        write_figure(output, draw_sheet(atlas, net, layer, CLEAREST), {"lens": {"layer": layer, "units": CLEAREST}})
        yield output
    show_pictures(make_atlas(atlas, net, folder / "units"), quiet, "drawn")
    yield folder / "units" / "index.html"


def _objective(layer: str, unit: int | None, pair: str | None, everywhere: bool) -> "Objective":
    """The objective of --unit or --pair: 17,23 activates both, 17,-23 the first and not the second."""
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


def _start(start: str | None, atlas: Path | None, layer: str, unit: int | None) -> "Tensor | None":
    """The picture that a dream starts from: the patch of a rank in an atlas, or a file."""
    if start is None:
        return None
    from impasto.images.images import read_picture
    from impasto.lens.patches import top
    from impasto.lens.paths import inputs_of

    if not start.isdecimal() or atlas is None or unit is None:
        return read_picture(Path(start)).image
    patches = top(atlas, layer, unit)
    if not 1 <= int(start) <= len(patches):
        raise BadRecipe(f"--start is {start}, unit {unit} of {layer} has the patches 1 to {len(patches)}")
    return inputs_of([patches[int(start) - 1]])[0]


def _index_of(atlas: Path, net: "Net", layer: str, unit: int) -> "Index":
    """The scan's index; raises BadRecipe where it is not of this net, or has no such layer or unit."""
    from impasto.lens.index import check_net, check_unit, find_layer, read_index

    index = read_index(atlas)
    check_net(index.setup, net)
    check_unit(index, find_layer(index, layer), unit)
    return index


def _dream_of(index: "Index", net: "Net", addresses: str, folder: Path | None, steps: int, quiet: bool) -> None:
    """Make the dreams that are missing in the folder, a file each."""
    from impasto.lens.atlas import missing_dreams
    from impasto.lens.dream import Dream
    from impasto.lens.index import check_net

    if folder is None:
        raise BadRecipe("--dream needs --dreams FOLDER, the folder for the dreams")
    check_net(index.setup, net)
    left = missing_dreams(index, folder, addresses)
    for n, objective in enumerate(left, 1):
        path = folder / f"{net.name}-{objective.layer.replace(':', '-')}-{objective.channels[0]}.png"
        if path.exists():
            raise CannotWrite(f"{path} is no dream of this unit: move it away, or name another folder with --dreams")
        dreaming = Dream(net, objective, path, steps=steps)
        if not quiet:
            say(f"dream {n} of {len(left)}: {path.name}")
        show_steps(dreaming.steps(), [(dreaming.size, steps)], quiet, "activation")


def _place(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.replace(" ", "").split(",")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise BadRecipe(f"--place is {text!r}, must be y,x as 6,11")
    return int(parts[0]), int(parts[1])


lens_app.command(scan, **shown_as("lens scan [PICTURES...] --output PATH"))
lens_app.command(photos, **shown_as("lens photos SETS... --output PATH"))
lens_app.command(merge, **shown_as("lens merge ATLASES... --output PATH"))
lens_app.command(compare, **shown_as("lens compare ATLASES... --layer NAME --output PATH"))
