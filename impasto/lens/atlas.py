"""A scan as an HTML page that opens from disk: every unit's patches, projections and numbers, without a server or a network.

The data are scripts, one for each layer (see pages.py); the pictures are sprites of sixteen units each, which the page loads when
they become visible. The page is made layer by layer, and can be looked at as soon as it has the first.
"""

import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import repeat
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from impasto.errors import BadImage, BadInput, BadRecipe, ImpastoWarning
from impasto.files import cannot_write, entries, make_folder
from impasto.images.images import read_picture, read_record, to_pillow, write_picture, write_small
from impasto.lens.clarity import Clarity, clearest, read_clarity
from impasto.lens.collection import Row, read_again
from impasto.lens.deconv import Record, cosine, filters_of, project_all, records
from impasto.lens.dream import Objective, join_pictures, objective_value, split_pictures
from impasto.lens.index import Array, Index, Setup, check_net, check_unit, find_layer, read_index, unit_statistics
from impasto.lens.pages import PARTS, begin, finish, short, write_script
from impasto.lens.patches import Patch, patches_of, places_of
from impasto.lens.rules import check_rules
from impasto.lens.scan import Progress
from impasto.lens.sheet import CELL, NAMES, SHOWN, SIDE, Cell, around_grey, cell_of, place_in_cell, scale_limit, shown
from impasto.lens.view import apply_view
from impasto.lens.words import Word, caption, read_words
from impasto.nets.nets import Net, canonical, features

ROWS = 16  # units in a sprite
TOGETHER = 16  # units of one position that are projected at once: more take memory and gain nothing
KINDS = ("patches", "projections", "interior-patches", "interior-projections")
FIXED = {"page.css": f"{PARTS}/page.css", "page.js": f"{PARTS}/page.js", "index.html": "index.html"}
MADE_BY = "lens atlas"
MOST_DREAMS = 64  # in one file


@dataclass(frozen=True)
class Unit:
    """A unit's patches by column of the sprites: from 0 the one ranking or that of all positions, from SHOWN those of the interior
    ranking that are not in it.

    `interior` has the columns of the interior ranking, in its order. Patches with value 0 are left out.
    """

    patches: dict[int, Patch]
    interior: list[int]


@dataclass(frozen=True)
class Known:
    """What is known of units beside the scan; the dreams as the page's data of {(layer, unit)}."""

    clarity: Mapping[str, Clarity]
    words: Mapping[str, Sequence[Word | None]]
    dreams: Mapping[tuple[str, int], list[dict[str, Any]]]


@dataclass(frozen=True)
class UnitDream:
    """The result of `lens dream` for a unit, or for its channel if the objective is `everywhere`: `images` (B, 3, n, n)."""

    objective: Objective
    steps: int
    images: Tensor


def make_atlas(
    folder: Path,
    net: Net,
    output: Path,
    *,
    rule: str = "guided",
    pooling: str = "sum",
    dreams: Path | None = None,
    everywhere: bool = False,
) -> Iterator[Progress]:
    """Write the scan in `folder` as a page, `output`/index.html; yields after each picture of each layer, which is read again.

    Units have the patches whose fields see no padding, in layers with such positions; with `everywhere` those at all, too.
    The row of a picture that is missing or has changed is `skipped` with the reason, and its cells stay empty. `dreams` is a folder
    of results of `lens dream`: those of this net's units are shown. Raises BadInput when no picture is left, BadRecipe for another
    net, CannotWrite where `output` holds anything but an older atlas.
    """
    check_rules(rule, pooling)
    index = read_index(folder)
    check_net(index.setup, net)
    found = list(_read_dreams(dreams, index.setup)) if dreams else []
    units = {layer: units_of(folder, index, layer, everywhere) for layer in index.layers}
    clarity, words = read_clarity(folder, index), read_words(folder, index)
    parts = begin(output, MADE_BY)  # after all that may be damaged was read: an older page is gone now
    known = Known(clarity, words, _write_dreams(parts, net, found))
    _write_filters(parts, net)
    about = _about(index, net) | {"rule": rule, "pooling": pooling, "everywhere": everywhere}
    rows = list(dict.fromkeys(row for of_layer in units.values() for row in _by_picture(of_layer)))
    yield from _numbered(
        _draw_pages(output, net, index, units, rows, known, about), sum(len(_by_picture(it)) for it in units.values())
    )


def _draw_pages(
    output: Path,
    net: Net,
    index: Index,
    units: Mapping[str, Sequence[Unit]],
    rows: Sequence[Row],
    known: Known,
    about: dict[str, Any],
) -> Iterator[Row]:
    """Draw layer by layer; after each the page shows what there is."""
    read: set[Row] = set()
    for n, (layer, of_layer) in enumerate(units.items()):
        try:
            with tempfile.TemporaryFile(dir=output / PARTS) as file:
                cells = Cells(file)
                yield from _draw(net, layer, of_layer, cells, about["rule"], about["pooling"])
                _write_sprites(output / PARTS, n, of_layer, cells)
        except OSError as error:
            raise cannot_write(output, error) from error
        _write_layer(output / PARTS, n, _numbers(index, layer, known), of_layer, rows, cells)
        layers = [*units]
        so_far: dict[str, Any] = {"layers": [_layer_about(index.setup, name, known.clarity.get(name)) for name in layers[: n + 1]]}
        so_far |= {"coming": layers[n + 1 :], "strip": _strip(known.clarity, layers[: n + 1])}
        names = {"clarity": bool(known.clarity), "names": [row.source.name for row in rows]}
        read |= cells.read
        if read or not rows:
            write_script(output / PARTS / "atlas.js", "const ATLAS = ", [about | so_far | names], ";")
            finish(output, FIXED)
    if rows and not read:
        raise BadInput(f"none of the {len(rows)} scanned pictures can be read: have they moved?")


def _numbered(drawn: Iterator[Row], of: int) -> Iterator[Progress]:
    """The progress after each picture; a reason to skip one is said once."""
    said: set[str] = set()
    for done, row in enumerate(drawn, 1):
        yield Progress(replace(row, skipped=None) if row.skipped in said else row, done, of)
        said |= {row.skipped} if row.skipped else set()


def units_of(folder: Path, index: Index, layer: str, everywhere: bool) -> list[Unit]:
    """The units of a layer, with the patches that the page shows."""
    numbers = range(index.setup.layers[layer].units)
    interior = patches_of(folder, index, layer, numbers, True)
    ranked = patches_of(folder, index, layer, numbers, False) if everywhere or not places_of(index.setup, layer)[0] else interior
    return [_unit(_active(ranked[n]), _active(interior[n])) for n in numbers]


def _active(patches: Sequence[Patch]) -> list[Patch]:
    return [patch for patch in patches[:SHOWN] if patch.value > 0]


def _unit(everywhere: Sequence[Patch], interior: Sequence[Patch]) -> Unit:
    columns = {patch: n for n, patch in enumerate(everywhere)}
    added = [patch for patch in interior if patch not in columns]
    columns |= {patch: SHOWN + n for n, patch in enumerate(added)}
    return Unit({column: patch for patch, column in columns.items()}, [columns[patch] for patch in interior])


# From the pictures to cells


class Cells:
    """The drawn cells of a layer, on disk, since they are drawn picture by picture and collected sprite by sprite.

    Also the pictures that could be `read`, and `likeness`: {unit: (another unit, the cosine between their projections)}.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.lock = file, threading.Lock()
        self.read: set[Row] = set()
        self.likeness: dict[int, tuple[int, float]] = {}

    def store(self, unit: int, column: int, cell: Cell) -> None:
        """Store a patch and its projection."""
        projection = shown(cell.projection, scale_limit(cell.projection))
        for kind, pixels in enumerate((cell.pixels, projection), 2 * (column // SHOWN)):
            with self.lock:
                self.file.seek(_start(unit // ROWS, kind) + _bytes((unit % ROWS) * SHOWN + column % SHOWN))
                self.file.write(_filled(cell.patch, pixels))

    def load(self, group: int, kind: int) -> Array:
        """(ROWS, SHOWN, CELL, CELL, 3): all cells of a sprite; black where nothing was drawn."""
        self.file.seek(_start(group, kind))
        data = self.file.read(_bytes(ROWS * SHOWN)).ljust(_bytes(ROWS * SHOWN), b"\0")
        return np.frombuffer(data, np.uint8).reshape(ROWS, SHOWN, CELL, CELL, 3)


def _start(group: int, kind: int) -> int:
    return _bytes((group * len(KINDS) + kind) * ROWS * SHOWN)


def _bytes(cells: int) -> int:
    return cells * CELL * CELL * 3


def _filled(patch: Patch, pixels: Image.Image) -> bytes:
    """The bytes of a cell. Its edge pixels are repeated outside the picture, where it becomes transparent: no dark fringe."""
    left, top, right, bottom = place_in_cell(patch)
    return np.pad(np.asarray(pixels), ((top, CELL - bottom), (left, CELL - right), (0, 0)), mode="edge").tobytes()


def _draw(net: Net, layer: str, units: Sequence[Unit], cells: Cells, rule: str, pooling: str) -> Iterator[Row]:
    """Draw the patches and projections of a layer, picture by picture."""
    pictures = _by_picture(units)

    def draw(item: tuple[Row, Sequence[tuple[int, int, Patch]]]) -> Row:
        row, places = item
        try:
            image = read_again(row).image
        except BadImage as error:
            return replace(row, skipped=str(error))
        (way,) = records(net, apply_view(image, places[0][2].view), [layer])
        _draw_places(way, to_pillow(image), places, cells, rule, pooling)
        cells.read.add(row)
        return row

    yield from _in_threads(draw, pictures.items())


def _in_threads(work: Callable[[Any], Row], items: Iterable[Any]) -> Iterator[Row]:
    """The results of the work in the order of the items, by as many threads as torch would use for one.

    The windows of projections are so small that torch gains nothing from a second thread.
    """
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(count)
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(count)


def _by_picture(units: Sequence[Unit]) -> dict[Row, list[tuple[int, int, Patch]]]:
    """{picture: (unit, column, patch) of all its patches in a layer}"""
    found: dict[Row, list[tuple[int, int, Patch]]] = {}
    for n, unit in enumerate(units):
        for column, patch in unit.patches.items():
            found.setdefault(patch.row, []).append((n, column, patch))
    return found


def _draw_places(
    way: Record, shown: Image.Image, places: Sequence[tuple[int, int, Patch]], cells: Cells, rule: str, pooling: str
) -> None:
    """Draw the patches at these places of a picture. A unit's strongest is compared with another unit's projection there."""
    by_place: dict[tuple[int, int], list[tuple[int, int, Patch]]] = {}
    for unit, column, patch in places:
        by_place.setdefault((patch.y, patch.x), []).append((unit, column, patch))
    some = ((place, its[n : n + TOGETHER]) for place, its in by_place.items() for n in range(0, len(its), TOGETHER))
    for (y, x), here in some:
        first = [unit for unit, column, _ in here if column == 0 and len(way.a) > 1]
        others = [(unit + len(way.a) // 2) % len(way.a) for unit in first]
        starts = [*(patch.value for *_, patch in here), *[1.0] * len(others)]
        own = project_all(way, [*(unit for unit, *_ in here), *others], y, x, starts, rule, pooling)
        projections = {unit: projection for (unit, *_), projection in zip(here, own, strict=False)}
        for unit, column, patch in here:
            cells.store(unit, column, cell_of(patch, shown, projections[unit]))
        for unit, other, theirs in zip(first, others, own[len(here) :], strict=True):
            cells.likeness[unit] = other, cosine(projections[unit], theirs)


# From cells to files


def _write_sprites(folder: Path, number: int, units: Sequence[Unit], cells: Cells) -> None:
    for first in range(0, len(units), ROWS):
        group = units[first : first + ROWS]
        for kind, name in enumerate(KINDS):
            drawn = [
                (n, column % SHOWN, patch)
                for n, unit in enumerate(group)
                for column, patch in unit.patches.items()
                if column // SHOWN == kind // 2 and patch.row in cells.read
            ]
            if drawn:
                pixels = cells.load(first // ROWS, kind)[: len(group)]
                write_small(folder / f"{number:02}-{first // ROWS:03}-{name}.webp", _sprite(pixels, drawn))


def _sprite(cells: Array, drawn: Sequence[tuple[int, int, Patch]]) -> Image.Image:
    """Cells (rows, SHOWN, CELL, CELL, 3) in a grid, transparent where nothing is drawn."""
    alpha = np.zeros((*cells.shape[:-1], 1), np.uint8)
    for row, column, patch in drawn:
        left, top, right, bottom = place_in_cell(patch)
        alpha[row, column, top:bottom, left:right] = 255
    grid = np.concatenate([cells, alpha], 4).transpose(0, 2, 1, 3, 4)
    return Image.fromarray(grid.reshape(len(cells) * CELL, SHOWN * CELL, 4))


def _write_filters(folder: Path, net: Net) -> None:
    """Write the filters of the first layer below one another, each scaled by its own maximum."""
    filters = filters_of(net, net.layers[0].name)
    assert filters is not None  # the first layer reads the pixels
    drawn = np.concatenate([np.asarray(around_grey(it, np.abs(it).max())) for it in filters.permute(0, 2, 3, 1).float().numpy()])
    write_picture(folder / "filters.png", torch.from_numpy(drawn / np.float32(255)).permute(2, 0, 1)[None])


def _about(index: Index, net: Net) -> dict[str, Any]:
    """The page's data about the whole scan."""
    setup = index.setup
    about: dict[str, Any] = {"version": version("impasto"), "net": NAMES.get(setup.net, setup.net), "filters": net.layers[0].name}
    about |= {"pictures": index.pictures, "skipped": index.rows - index.pictures}
    return about | {"size": setup.size, "fit": setup.fit, "perImage": setup.per_image, "cell": CELL, "rows": ROWS, "side": SIDE}


def _layer_about(setup: Setup, name: str, clarity: Clarity | None) -> dict[str, Any]:
    """The page's data about a layer; `inside` are the positions without padding, of so many `places`; chance is that of clarity."""
    layer, (inside, every) = setup.layers[name], places_of(setup, name)
    about = {"name": name, "units": layer.units, "size": layer.field and layer.field.size}
    about |= {"inside": len(inside) ** 2, "places": len(every) ** 2}
    return about | {"chance": clarity.chance if clarity else 0}


def _strip(clarity: Mapping[str, Clarity], layers: Sequence[str]) -> list[tuple[int, int]]:
    """(layer, unit): the clearest unit of each layer whose clarity is known."""
    return [(n, clearest(clarity[name])[0]) for n, name in enumerate(layers) if name in clarity and clearest(clarity[name])]


def _write_layer(
    folder: Path, n: int, lines: list[dict[str, Any]], units: Sequence[Unit], rows: Sequence[Row], cells: Cells
) -> None:
    """Write the script of a layer, with a line for each unit."""
    numbers = {row: n for n, row in enumerate(rows)}
    for unit, (line, it) in enumerate(zip(lines, units, strict=True)):
        line |= {"interior": it.interior, "like": cells.likeness.get(unit)}
        line["patches"] = [_patch_to_json(column, patch, numbers, cells) for column, patch in it.patches.items()]
    write_script(folder / f"{n:02}.js", f"arrived({n}, [\n", lines, "]);")


def _numbers(index: Index, layer: str, known: Known) -> list[dict[str, Any]]:
    """What is known of a layer's units: statistics, [score, low, high] of the clarity or None, the word or None, dreams."""
    units, clarity, words = index.layers[layer], known.clarity.get(layer), known.words.get(layer)
    scores: Iterable[Any] = (
        zip(clarity.score, clarity.low, clarity.high, strict=True) if clarity else repeat((None,), len(units.fired))
    )
    counts = zip(units.fired.tolist(), units.padded.tolist(), histogram(units.bins), scores, words or repeat(None), strict=False)
    return [
        {key: short(about[key]) for key in ("q50", "q90", "q99", "largest")}
        | {"fired": fired, "padded": padded, "bins": bins, "clarity": None if None in score else [short(it) for it in score]}
        | {"word": word and caption(word), "dreams": known.dreams.get((layer, unit), [])}
        for unit, (about, (fired, padded, bins, score, word)) in enumerate(zip(unit_statistics(index, layer), counts, strict=True))
    ]


def _patch_to_json(column: int, patch: Patch, rows: Mapping[Row, int], cells: Cells) -> list[Any]:
    """A patch for the page: column, whether it was drawn, value, picture, y, x, its box, whether its field has padding."""
    box = [round(side, 1) for side in patch.view.in_picture(patch.frame)]
    drawn, padding = int(patch.row in cells.read), int(bool(patch.touches_padding))
    return [column, drawn, short(patch.value), rows[patch.row], patch.y, patch.x, *box, padding]


def histogram(bins: Array) -> list[list[int]]:
    """(C, len(EDGES) + 1) -> for each unit the pictures in which it is inactive, then pictures by half octaves of its maximum.

    The first half octave, from 2^-12, includes smaller values, the last those above 2^16.
    """
    octaves = bins[:, 2:-1].reshape(len(bins), -1, 4).sum(2)
    octaves[:, 0] += bins[:, 1]
    octaves[:, -1] += bins[:, -1]
    return [[silent, *loud] for silent, loud in zip(bins[:, 0].tolist(), octaves.tolist(), strict=True)]


# Dreams


def missing_dreams(index: Index, folder: Path, addresses: str) -> list[Objective]:
    """The units in `addresses`, such as "conv5/17,conv4" (all units of conv4), that have no dream in the folder.

    Raises BadRecipe for a layer or unit that was not scanned.
    """
    wanted = dict.fromkeys(Objective(layer, (unit,)) for layer, unit in _addressed(index, addresses))
    make_folder(folder)
    with warnings.catch_warnings():  # make_atlas warns of other files
        warnings.simplefilter("ignore", ImpastoWarning)
        dreamt = {it.objective for it in _read_dreams(folder, index.setup)}
    return [objective for objective in wanted if objective not in dreamt]


def _addressed(index: Index, addresses: str) -> Iterator[tuple[str, int]]:
    for address in filter(None, addresses.replace(" ", "").split(",")):
        name, slash, unit = address.partition("/")
        layer = find_layer(index, name)
        if slash and not unit.isdecimal():
            raise BadRecipe(f"{address!r} is not a unit: write {layer}/17, or {layer} for all its units")
        numbers = [int(unit)] if slash else range(index.setup.layers[layer].units)
        for number in numbers:
            check_unit(index, layer, number)
            yield layer, number


def _read_dreams(folder: Path, setup: Setup) -> Iterator[UnitDream]:
    """The dreams of this net's units in a folder; warns of other files."""
    if not folder.is_dir():
        raise BadInput(f"there is no folder of dreams {folder}")
    for path in (it for it in (folder / name for name in entries(folder)) if it.is_file()):
        try:
            yield _read_dream(path, read_record(path), setup)
        except BadImage as error:
            warnings.warn(f"{path.name} is skipped: {error}", ImpastoWarning, stacklevel=2)


def _read_dream(path: Path, record: dict[str, Any], setup: Setup) -> UnitDream:
    """Raises BadImage for a file whose record is not that of a dream of a unit of this net."""
    try:
        about, sheet = record["dream"], read_picture(path).image
        objective = Objective(canonical(str(about["layer"])), tuple(map(int, about["channels"])), (), bool(about["everywhere"]))
        images = split_pictures(sheet, min(int(about["pictures"]), MOST_DREAMS), int(about["size"]))
        known = setup.layers.get(objective.layer)
        if about["net"] != setup.net or record["weights"]["sha256"] != setup.weights:
            raise BadImage("its dream is of another net")
        if known is None or len(objective.channels) != 1 or about["against"] or not 0 <= objective.channels[0] < known.units:
            raise BadImage("its dream is not of one unit of a scanned layer")
        if join_pictures(images).shape != sheet.shape:
            raise BadImage("its size is not that in its record")
        return UnitDream(objective, int(about["steps"]), images)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, RuntimeError) as error:
        raise BadImage("it is not a dream") from error


@torch.no_grad()
def _write_dreams(folder: Path, net: Net, dreams: Sequence[UnitDream]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Write the pictures; returns {(layer, unit): the page's data of its dreams}, with their activations."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for n, it in enumerate(dreams):
        layer, sheet = it.objective.layer, join_pictures(it.images)
        reached = objective_value(features(net, it.images, [layer])[layer], it.objective).tolist()
        write_picture(folder / f"dream-{n:03}.webp", sheet)
        about = {"file": f"dream-{n:03}.webp", "width": sheet.shape[-1], "height": sheet.shape[-2], "steps": it.steps}
        about |= {"channel": it.objective.everywhere, "reached": [short(value) for value in reached]}
        found.setdefault((layer, it.objective.channels[0]), []).append(about)
    return found
