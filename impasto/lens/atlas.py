"""A scan as a page that opens from disk: every unit's patches, projections and numbers in a folder, without a server or a network.

A browser lets a page from disk load scripts, style sheets and images, but not data. So the data are small scripts, one a layer,
and the pictures are sprites, sixteen units each, that are loaded when they come into view. Each picture is read once, whatever
the number of layers. Until all is written the page says that it is not finished.
"""

import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from impasto.errors import BadImage, BadInput, BadRecipe, ImpastoWarning
from impasto.files import cannot_write, entries, make_folder
from impasto.images.images import read_picture, read_record, to_pillow, write_picture, write_small
from impasto.lens.collection import Row, read_again
from impasto.lens.deconv import Record, cosine, filters_of, project, records
from impasto.lens.dream import Objective, excitement, hung, taken
from impasto.lens.index import Array, Index, Setup, check_net, check_unit, find_layer, read_index, unit_statistics
from impasto.lens.pages import PARTS, begin, finish, short, write_script
from impasto.lens.patches import Patch, patches_of
from impasto.lens.rules import check_rules
from impasto.lens.scan import Progress
from impasto.lens.sheet import CELL, NAMES, SIDE, Cell, cell_of, on_grey, place_in_cell, reach
from impasto.lens.view import bring
from impasto.nets.nets import Net, canonical, features

SHOWN, ROWS = SIDE * SIDE, 16  # patches of a unit in one ranking; units in a sprite
KINDS = ("patches", "projections", "interior-patches", "interior-projections")
FIXED = {"page.css": f"{PARTS}/page.css", "page.js": f"{PARTS}/page.js", "index.html": "index.html"}
MADE_BY = "lens atlas"
MOST_DREAMS = 64  # in one file


@dataclass(frozen=True)
class Unit:
    """A unit's patches by column: from 0 those of the ranking everywhere, from SHOWN on those that only the interior one has.

    `interior` are the columns of the interior ranking, in its order. Patches of value 0 are left out: nothing was found there.
    """

    patches: dict[int, Patch]
    interior: list[int]


@dataclass(frozen=True)
class Dreamt:
    """What `lens dream` painted for a unit, or for its channel where the objective is `everywhere`: `images` (B, 3, n, n)."""

    objective: Objective
    steps: int
    images: Tensor


def make_atlas(
    folder: Path, net: Net, output: Path, *, rule: str = "deconv", pooling: str = "sum", dreams: Path | None = None
) -> Iterator[Progress]:
    """Make of the scan in `folder` a page, `output`/index.html; yields after each picture, which is read again from where it was.

    A picture that is gone or has changed comes with the reason as `skipped`, and its places stay empty. `dreams` is a folder with
    what `lens dream` painted: those of units of this net are shown. Raises BadInput when no picture is left, BadRecipe for
    another net, CannotWrite where `output` holds anything but an older atlas.
    """
    check_rules(rule, pooling)
    index = read_index(folder)
    check_net(index.setup, net)
    found = list(_dreams_in(dreams, index.setup)) if dreams else []
    units = {layer: units_of(folder, index, layer) for layer in index.layers}
    begin(output, MADE_BY)
    try:
        with tempfile.TemporaryFile(dir=output / PARTS) as file:
            cells = Cells(file, {layer: len(of_layer) for layer, of_layer in units.items()})
            yield from _draw(net, units, cells, rule, pooling)
            for n, layer in enumerate(units):
                _write_sprites(output / PARTS, n, layer, units[layer], cells)
    except OSError as error:
        raise cannot_write(output, error) from error
    about = _about(index, net) | {"rule": rule, "pooling": pooling}
    _write_data(output / PARTS, index, units, cells, about, _write_dreams(output / PARTS, net, found))
    _write_filters(output / PARTS, net)
    finish(output, FIXED)


def units_of(folder: Path, index: Index, layer: str) -> list[Unit]:
    """What is shown of a layer's units."""
    numbers = range(index.setup.layers[layer].units)
    everywhere, interior = (patches_of(folder, index, layer, numbers, inside) for inside in (False, True))
    return [_unit(_loud(everywhere[n]), _loud(interior[n])) for n in numbers]


def _loud(patches: Sequence[Patch]) -> list[Patch]:
    return [patch for patch in patches[:SHOWN] if patch.value > 0]


def _unit(everywhere: Sequence[Patch], interior: Sequence[Patch]) -> Unit:
    columns = {patch: n for n, patch in enumerate(everywhere)}
    added = [patch for patch in interior if patch not in columns]
    columns |= {patch: SHOWN + n for n, patch in enumerate(added)}
    return Unit({column: patch for patch, column in columns.items()}, [columns[patch] for patch in interior])


# From the pictures to cells


class Cells:
    """What is drawn, on its way into sprites: on disk, since pictures come in one order and sprites in another.

    Also which pictures were `read`, and `likeness`: of (layer, unit) another unit and the cosine between their projections.
    """

    def __init__(self, file: IO[bytes], units: Mapping[str, int]) -> None:
        self.file, self.first, last = file, {}, 0
        self.read: set[Row] = set()
        self.likeness: dict[tuple[str, int], tuple[int, float]] = {}
        for layer, count in units.items():
            self.first[layer] = last
            last += len(KINDS) * -(-count // ROWS)

    def put(self, layer: str, unit: int, column: int, cell: Cell) -> None:
        """Keep a patch and its projection."""
        projection = on_grey(cell.projection, reach(cell.projection))
        for kind, pixels in enumerate((cell.pixels, projection), 2 * (column // SHOWN)):
            self.file.seek(self._start(layer, unit // ROWS, kind) + _bytes((unit % ROWS) * SHOWN + column % SHOWN))
            self.file.write(_filled(cell.patch, pixels))

    def take(self, layer: str, group: int, kind: int) -> Array:
        """(ROWS, SHOWN, CELL, CELL, 3): all cells of a sprite; those that were not drawn are black."""
        self.file.seek(self._start(layer, group, kind))
        data = self.file.read(_bytes(ROWS * SHOWN)).ljust(_bytes(ROWS * SHOWN), b"\0")
        return np.frombuffer(data, np.uint8).reshape(ROWS, SHOWN, CELL, CELL, 3)

    def _start(self, layer: str, group: int, kind: int) -> int:
        return _bytes((self.first[layer] + group * len(KINDS) + kind) * ROWS * SHOWN)


def _bytes(cells: int) -> int:
    return cells * CELL * CELL * 3


def _filled(patch: Patch, pixels: Image.Image) -> bytes:
    """A cell whose pixels go on, beyond what the net saw, as they end: it will be transparent there, without a dark edge."""
    left, top, right, bottom = place_in_cell(patch)
    return np.pad(np.asarray(pixels), ((top, CELL - bottom), (left, CELL - right), (0, 0)), mode="edge").tobytes()


def _draw(net: Net, units: Mapping[str, Sequence[Unit]], cells: Cells, rule: str, pooling: str) -> Iterator[Progress]:
    """Every patch and its projection, picture by picture. Raises BadInput when none is left."""
    pictures, why = _by_picture(units), None
    for done, (row, layers) in enumerate(pictures.items(), 1):
        try:
            image = read_again(row).image
        except BadImage as error:
            why = str(error)
            yield Progress(replace(row, skipped=why), done, len(pictures))
            continue
        cells.read.add(row)
        shown, view = to_pillow(image), next(iter(layers.values()))[0][2].view
        for way in records(net, bring(image, view), layers):
            _draw_layer(way, shown, layers[way.layer], cells, rule, pooling)
        yield Progress(row, done, len(pictures))
    if why and not cells.read:
        raise BadInput(f"none of the {len(pictures)} pictures is where it was scanned: {why}")


def _by_picture(units: Mapping[str, Sequence[Unit]]) -> dict[Row, dict[str, list[tuple[int, int, Patch]]]]:
    """{picture: {layer: (unit, column, patch) of all its patches}}."""
    found: dict[Row, dict[str, list[tuple[int, int, Patch]]]] = {}
    for layer, of_layer in units.items():
        for n, unit in enumerate(of_layer):
            for column, patch in unit.patches.items():
                found.setdefault(patch.row, {}).setdefault(layer, []).append((n, column, patch))
    return found


def _draw_layer(
    way: Record, shown: Image.Image, places: Sequence[tuple[int, int, Patch]], cells: Cells, rule: str, pooling: str
) -> None:
    for unit, column, patch in places:
        own = project(way, unit, patch.y, patch.x, rule, pooling, patch.value)
        cells.put(way.layer, unit, column, cell_of(patch, shown, own[0]))
        if column == 0 and len(way.a) > 1:
            other = (unit + len(way.a) // 2) % len(way.a)
            its = project(way, other, patch.y, patch.x, rule, pooling, 1.0)
            cells.likeness[way.layer, unit] = other, cosine(own, its)


# From cells to files


def _write_sprites(folder: Path, number: int, layer: str, units: Sequence[Unit], cells: Cells) -> None:
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
                pixels = cells.take(layer, first // ROWS, kind)[: len(group)]
                write_small(folder / f"{number:02}-{first // ROWS:03}-{name}.webp", _sprite(pixels, drawn))


def _sprite(cells: Array, drawn: Sequence[tuple[int, int, Patch]]) -> Image.Image:
    """Cells (rows, SHOWN, CELL, CELL, 3) in a grid, transparent but where something is drawn."""
    alpha = np.zeros((*cells.shape[:-1], 1), np.uint8)
    for row, column, patch in drawn:
        left, top, right, bottom = place_in_cell(patch)
        alpha[row, column, top:bottom, left:right] = 255
    grid = np.concatenate([cells, alpha], 4).transpose(0, 2, 1, 3, 4)
    return Image.fromarray(grid.reshape(len(cells) * CELL, SHOWN * CELL, 4))


def _write_filters(folder: Path, net: Net) -> None:
    """Those of the first layer, one below the other, each scaled by itself."""
    filters = filters_of(net, net.layers[0].name)
    assert filters is not None  # the first layer reads the pixels
    drawn = np.concatenate([np.asarray(on_grey(it, np.abs(it).max())) for it in filters.permute(0, 2, 3, 1).float().numpy()])
    write_picture(folder / "filters.png", torch.from_numpy(drawn / np.float32(255)).permute(2, 0, 1)[None])


def _about(index: Index, net: Net) -> dict[str, Any]:
    """What the page says of the scan as a whole."""
    setup = index.setup
    about: dict[str, Any] = {"version": version("impasto"), "net": NAMES.get(setup.net, setup.net), "filters": net.layers[0].name}
    about["layers"] = [{"name": name, "units": it.units, "size": it.field and it.field.size} for name, it in setup.layers.items()]
    about |= {"pictures": index.pictures, "skipped": index.rows - index.pictures}
    return about | {"size": setup.size, "fit": setup.fit, "perImage": setup.per_image, "cell": CELL, "rows": ROWS, "side": SIDE}


def _write_data(
    folder: Path,
    index: Index,
    units: Mapping[str, Sequence[Unit]],
    cells: Cells,
    about: dict[str, Any],
    dreams: Mapping[tuple[str, int], list[dict[str, Any]]],
) -> None:
    """A script that says what the atlas is of, and one for each layer, with a line a unit."""
    rows = {row: n for n, row in enumerate(_by_picture(units))}
    write_script(folder / "atlas.js", "const ATLAS = ", [about | {"names": [row.source.name for row in rows]}], ";")
    for n, (layer, of_layer) in enumerate(units.items()):
        lines = _numbers(index, layer)
        for unit, (line, it) in enumerate(zip(lines, of_layer, strict=True)):
            line |= {"interior": it.interior, "like": cells.likeness.get((layer, unit)), "dreams": dreams.get((layer, unit), [])}
            line["patches"] = [_told(column, patch, rows, cells) for column, patch in it.patches.items()]
        write_script(folder / f"{n:02}.js", f"arrived({n}, [\n", lines, "]);")


def _numbers(index: Index, layer: str) -> list[dict[str, Any]]:
    """The statistics of a layer's units."""
    units = index.layers[layer]
    columns = zip(unit_statistics(index, layer), units.fired.tolist(), units.padded.tolist(), histogram(units.bins), strict=True)
    return [
        {key: short(about[key]) for key in ("q50", "q90", "q99", "largest")} | {"fired": fired, "padded": padded, "bins": bins}
        for about, fired, padded, bins in columns
    ]


def _told(column: int, patch: Patch, rows: Mapping[Row, int], cells: Cells) -> list[Any]:
    """A patch as the page reads it: column, whether it could be drawn, value, picture, y, x, its box, whether it sees padding."""
    box = [round(side, 1) for side in patch.view.in_picture(patch.frame)]
    drawn, padding = int(patch.row in cells.read), int(bool(patch.touches_padding))
    return [column, drawn, short(patch.value), rows[patch.row], patch.y, patch.x, *box, padding]


def histogram(bins: Array) -> list[list[int]]:
    """(C, len(EDGES) + 1) -> of each unit: in how many pictures it is silent, and in how many its maximum is in each half octave.

    The first of these, from 2^-12 on, also has what is weaker, the last what is stronger than 2^16.
    """
    octaves = bins[:, 2:-1].reshape(len(bins), -1, 4).sum(2)
    octaves[:, 0] += bins[:, 1]
    octaves[:, -1] += bins[:, -1]
    return [[silent, *loud] for silent, loud in zip(bins[:, 0].tolist(), octaves.tolist(), strict=True)]


# Dreams


def undreamt(index: Index, folder: Path, asked: str) -> list[Objective]:
    """The units that are asked for, as "conv5/17,conv4" (all of conv4), of which no dream is in the folder.

    Raises BadRecipe for a layer or unit that was not scanned.
    """
    wanted = dict.fromkeys(Objective(layer, (unit,)) for layer, unit in _addressed(index, asked))
    make_folder(folder)
    with warnings.catch_warnings():  # what is no dream is named when the page is made
        warnings.simplefilter("ignore", ImpastoWarning)
        dreamt = {it.objective for it in _dreams_in(folder, index.setup)}
    return [objective for objective in wanted if objective not in dreamt]


def _addressed(index: Index, asked: str) -> Iterator[tuple[str, int]]:
    for address in filter(None, asked.replace(" ", "").split(",")):
        name, slash, unit = address.partition("/")
        layer = find_layer(index, name)
        if slash and not unit.isdecimal():
            raise BadRecipe(f"{address!r} is no unit: name units as {layer}/17, or all of a layer as {layer}")
        numbers = [int(unit)] if slash else range(index.setup.layers[layer].units)
        for number in numbers:
            check_unit(index, layer, number)
            yield layer, number


def _dreams_in(folder: Path, setup: Setup) -> Iterator[Dreamt]:
    """The dreams of units of this net in a folder; what is none of them is named in a warning."""
    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder} with dreams")
    for path in (it for it in (folder / name for name in entries(folder)) if it.is_file()):
        try:
            yield _dreamt(path, read_record(path), setup)
        except BadImage as error:
            warnings.warn(f"{path.name} is passed over: {error}", ImpastoWarning, stacklevel=2)


def _dreamt(path: Path, said: dict[str, Any], setup: Setup) -> Dreamt:
    """Raises BadImage for a file that says of itself anything but that it is a dream of a unit of this net."""
    try:
        about, sheet = said["dream"], read_picture(path).image
        objective = Objective(canonical(str(about["layer"])), tuple(map(int, about["channels"])), (), bool(about["everywhere"]))
        images = taken(sheet, min(int(about["pictures"]), MOST_DREAMS), int(about["size"]))
        known = setup.layers.get(objective.layer)
        if about["net"] != setup.net or said["weights"]["sha256"] != setup.weights:
            raise BadImage("it is a dream of another net")
        if known is None or len(objective.channels) != 1 or about["against"] or not 0 <= objective.channels[0] < known.units:
            raise BadImage("it is a dream of something else than one unit of a layer that was scanned")
        if hung(images).shape != sheet.shape:
            raise BadImage("it has another size than it says")
        return Dreamt(objective, int(about["steps"]), images)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, RuntimeError) as error:
        raise BadImage("it is no dream") from error


@torch.no_grad()
def _write_dreams(folder: Path, net: Net, dreams: Sequence[Dreamt]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """The pictures, and what is told of each: {(layer, unit): dreams}. The net says how strong the unit is in them."""
    told: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for n, it in enumerate(dreams):
        layer, sheet = it.objective.layer, hung(it.images)
        reached = excitement(features(net, it.images, [layer])[layer], it.objective).tolist()
        write_picture(folder / f"dream-{n:03}.webp", sheet)
        about = {"file": f"dream-{n:03}.webp", "width": sheet.shape[-1], "height": sheet.shape[-2], "steps": it.steps}
        about |= {"channel": it.objective.everywhere, "reached": [short(value) for value in reached]}
        told.setdefault((layer, it.objective.channels[0]), []).append(about)
    return told
