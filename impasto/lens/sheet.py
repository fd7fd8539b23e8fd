"""The figure of Zeiler & Fergus 2013 (figure 2): each unit's nine strongest patches beside their nine projections.

A patch is cropped from the original picture at the unit's receptive field; parts outside the net's input are hatched. A projection
is drawn around mid grey, which is 0, and scaled by its 99th percentile, either each by its own or all nine of a unit by the same:
scaled by the maximum nearly all of it would be grey. Faint lines are raised by a power below 1. Where a field is drawn smaller than
it is, its colours are muted: those of neighbouring pixels alternate there, and would mix to a speckle.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from impasto.errors import BadRecipe
from impasto.images.drawing import FAINT, GAP, INK, OUTSIDE, PAPER, SMALL, TEXT, captioned, font, in_grid, page_of
from impasto.images.images import read_picture, to_pillow
from impasto.lens.clarity import chosen_units, read_clarity
from impasto.lens.deconv import AnyRecord, controls, filters_of, project, record
from impasto.lens.index import Array, Index, Setup, check_net, find_layer, read_index
from impasto.lens.module import AnyNet, field_in
from impasto.lens.patches import Patch, patches_of, places_of, ranks_interior, read_each
from impasto.lens.view import apply_view, view_of
from impasto.lens.words import caption, read_words
from impasto.nets.geometry import Box

SIDE, CELL, THIN, BETWEEN = 3, 88, 2, 40  # a block is SIDE x SIDE cells; CELL, THIN, BETWEEN in pixels
SHOWN = SIDE * SIDE  # patches in a block
MUTED, POWER = 0.4, 0.8  # share of the colour that is kept in large fields; power of the values of a projection
BLOCK = SIDE * CELL + (SIDE - 1) * THIN
HATCH = (205, 200, 190)
NAMES = {"alexnet": "AlexNet", "vgg16": "VGG-16", "vgg19": "VGG-19"}
SCALES = ("patch", "block")


@dataclass(frozen=True)
class Cell:
    """A patch's pixels and its signed projection (h, w, 3), both of the part of the field that lies in the net's input."""

    patch: Patch
    pixels: Image.Image
    projection: Array


def sheet(
    folder: Path,
    net: AnyNet,
    layer: str,
    units: str = "6",
    *,
    seed: int = 0,
    interior: bool | None = None,
    rule: str = "guided",
    pooling: str = "sum",
    scale: str = "patch",
) -> Image.Image:
    """The figure of a layer in the atlas `folder`; its pictures are read again.

    `units` is a number of units, drawn by `seed`, "all", a list like "3,17", or "clearest" ("clearest:9"). Pictures that are
    missing or have changed leave empty cells and a warning. Raises BadInput when none is left, BadRecipe for an unknown layer, unit
    or option.
    """
    index = read_index(folder)
    layer = find_layer(index, layer)
    check_net(index.setup, net)
    if scale not in SCALES:
        raise BadRecipe(f"scale is {scale!r}, must be one of {', '.join(SCALES)}")
    chosen = chosen_units(folder, index, layer, units, seed)
    patches = patches_of(folder, index, layer, chosen, interior)
    cells = cells_of(net, layer, {unit: found[:SHOWN] for unit, found in patches.items()}, rule, pooling)
    filters = filters_of(net, layer)
    drawn = None if filters is None else filters.permute(0, 2, 3, 1).float().numpy()
    blocks = {unit: _blocks(cells[unit], scale, None if drawn is None else drawn[unit]) for unit in chosen}
    some = f"{len(chosen)} of {index.setup.layers[layer].units} units"
    how = f"{some}, drawn with seed {seed}" if units.strip().isdecimal() else some
    how = f"the {len(chosen)} clearest of {index.setup.layers[layer].units} units" if units.startswith("clearest") else how
    legend = _legend(index.setup, index.pictures, ranked_at(index.setup, layer, interior), rule, pooling, scale)
    return _page(blocks, index, layer, how, _known(folder, index, layer, chosen), legend)


def _known(folder: Path, index: Index, layer: str, units: Sequence[int]) -> dict[int, str]:
    """What is known of these units, in words: largest value, share of pictures in which they fire, clarity, what patches show."""
    clarity, words = read_clarity(folder, index).get(layer), read_words(folder, index).get(layer)
    known = {}
    for unit in units:
        score, word = clarity and clarity.score[unit], words and words[unit]
        parts = [activity(index, layer, unit), "" if score is None else f"clarity {score:.2f}", caption(word) if word else ""]
        known[unit] = ", ".join(filter(None, parts))
    return known


# From the index to pixels


def cells_of(
    net: AnyNet, layer: str, patches: Mapping[int, Sequence[Patch]], rule: str, pooling: str
) -> dict[int, list[Cell | None]]:
    """The cells of each unit; each picture is read and run once. None where the picture is missing or the unit inactive."""
    cells: dict[int, list[Cell | None]] = {unit: [None] * len(found) for unit, found in patches.items()}
    for picture, places in read_each(patches):
        way, shown = record(net, apply_view(picture, places[0][2].view), layer), to_pillow(picture)
        for unit, n, patch in places:
            if patch.value > 0:
                cells[unit][n] = cell_of(patch, shown, project(way, unit, patch.y, patch.x, rule, pooling)[0])
    return cells


def crops_of(patches: Mapping[int, Sequence[Patch]]) -> dict[int, list[tuple[Patch, Image.Image] | None]]:
    """Each unit's patches with their pixels, for block. None where the picture is missing."""
    cells: dict[int, list[tuple[Patch, Image.Image] | None]] = {unit: [None] * len(found) for unit, found in patches.items()}
    for picture, places in read_each(patches):
        pixels = to_pillow(picture)
        for unit, n, patch in places:
            cells[unit][n] = patch, crop(patch, pixels)
    return cells


def cell_of(patch: Patch, picture: Image.Image, projection: Tensor) -> Cell:
    """The crops of a patch from its picture and from its unit's projection (3, h, w), in the size in which they are drawn."""
    (x0, y0, x1, y1), size = patch.view.clip(patch.frame), _size_in_cell(patch)
    channels = [
        Image.fromarray(channel.float().numpy()).resize(size, Image.Resampling.BICUBIC) for channel in projection[:, y0:y1, x0:x1]
    ]
    signed = np.stack([np.asarray(channel) for channel in channels], 2)
    grey = signed.mean(2, keepdims=True)
    kept = MUTED if patch.frame[2] - patch.frame[0] > CELL else 1.0
    return Cell(patch, crop(patch, picture), grey + kept * (signed - grey))


def crop(patch: Patch, picture: Image.Image) -> Image.Image:
    """The patch cropped from its picture and resized to be drawn; only what lies in the net's input."""
    return patch.cut_from(picture, _size_in_cell(patch))


def place_in_cell(patch: Patch) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in a cell of the part of the field that lies in the net's input."""
    (x0, y0, x1, _), clipped = patch.frame, patch.view.clip(patch.frame)
    left, top, right, bottom = (round(CELL * (at - start) / (x1 - x0)) for at, start in zip(clipped, (x0, y0, x0, y0), strict=True))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _size_in_cell(patch: Patch) -> tuple[int, int]:
    left, top, right, bottom = place_in_cell(patch)
    return right - left, bottom - top


def around_grey(signed: Array, largest: float) -> Image.Image:
    """(h, w, 3), signed -> a picture with 0 at mid grey and -largest to largest over the whole range, clipped."""
    return Image.fromarray(np.rint(127.5 + 127.5 * signed / (largest or 1.0)).clip(0, 255).astype(np.uint8))


def shown(signed: Array, limit: float) -> Image.Image:
    """A projection (h, w, 3) as a picture: around_grey of its values to the power POWER, those of `limit` the strongest."""
    scaled = signed / (limit or 1.0)
    return around_grey(np.sign(scaled) * np.abs(scaled) ** POWER, 1.0)


# Drawing


def _blocks(cells: Sequence[Cell | None], scale: str, own_filter: Array | None) -> list[Image.Image]:
    """The blocks of a unit: its filter if it is in the first layer, its patches, its projections."""
    signed = [cell.projection for cell in cells if cell]
    together = scale_limit(*signed) if signed else 0.0

    def projected(cell: Cell) -> Image.Image:
        return shown(cell.projection, together if scale == "block" else scale_limit(cell.projection))

    blocks = [
        block([(cell.patch, cell.pixels) if cell else None for cell in cells]),
        block([(cell.patch, projected(cell)) if cell else None for cell in cells]),
    ]
    if own_filter is not None:
        weights = around_grey(own_filter, np.abs(own_filter).max())
        blocks.insert(0, weights.resize((BLOCK, BLOCK), Image.Resampling.NEAREST))
    return blocks


def scale_limit(*signed: Array) -> float:
    """The 99th percentile of the absolute values."""
    return float(np.quantile(np.abs(np.concatenate([values.ravel() for values in signed])), 0.99))


def block(cells: Sequence[tuple[Patch, Image.Image] | None]) -> Image.Image:
    """A patch's cell for each (patch, picture to draw), three in a row."""
    drawn = [_cell(*cell) if cell else _empty() for cell in cells]
    return in_grid([*drawn, *[_empty()] * (SHOWN - len(cells))], SIDE, THIN)


def _empty() -> Image.Image:
    return Image.new("RGB", (CELL, CELL), OUTSIDE)


def _cell(patch: Patch, drawn: Image.Image) -> Image.Image:
    page = _hatched().copy()
    page.paste(drawn, place_in_cell(patch)[:2])
    return page


@cache
def _hatched() -> Image.Image:
    """A cell of diagonal lines, for what lies outside the net's input."""
    y, x = np.indices((CELL, CELL))
    return Image.fromarray(np.where((x + y)[..., None] % 8 < 1, HATCH, OUTSIDE).astype(np.uint8))


def _page(
    blocks: Mapping[int, Sequence[Image.Image]], index: Index, layer: str, how: str, known: Mapping[int, str], legend: str
) -> Image.Image:
    """Units in rows under a title and above the legend: up to two beside each other, of more than eight about as many as rows."""
    units = [_unit(parts, unit, known[unit]) for unit, parts in blocks.items()]
    body = in_grid(units, min(2, len(units)) if len(units) <= 8 else math.ceil(math.sqrt(len(units))), BETWEEN, BETWEEN - 12)
    sides = "patches left, projections right" if len(next(iter(blocks.values()))) == 2 else "filter, patches, projections"
    return page_of(body, net_title(index.setup.net, layer), f"{how}: {sides}", legend)


def net_title(net: str, layer: str) -> str:
    """A net's name as its paper writes it, and the layer."""
    return f"{NAMES.get(net, net)} {layer}"


def _unit(parts: Sequence[Image.Image], unit: int, known: str) -> Image.Image:
    """A unit's blocks in a row, under its number and what is known of it."""
    row = in_grid(parts, len(parts), GAP)
    page = Image.new("RGB", (row.width, row.height + 28), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((0, 0), f"unit {unit}", INK, font(TEXT))
    draw.text((row.width, 1), known, FAINT, font(SMALL), anchor="ra")
    page.paste(row, (0, 28))
    return page


def activity(index: Index, layer: str, unit: int) -> str:
    """A unit's largest value and the share of pictures in which it fires."""
    units = index.layers[layer]
    share = int(units.fired[unit]) / max(1, index.pictures)
    largest = float(units.everywhere.value[unit, 0])
    shown = f"{largest:.0f}" if largest >= 100 else f"{largest:.3g}"
    return f"maximum {shown}, active in {share:.0%}" if share else "never active"


def ranked_at(setup: Setup, layer: str, interior: bool | None) -> str:
    """Where patches are ranked, in words."""
    inside, every = places_of(setup, layer)
    if not ranks_interior(setup, layer, interior):
        return "at all positions"
    if setup.fit == "whole" or not inside:
        return "at positions whose fields see no padding"
    return f"at the {len(inside) ** 2} of {len(every) ** 2} positions whose fields see no padding"


def _legend(setup: Setup, pictures: int, ranked: str, rule: str, pooling: str, scale: str) -> str:
    """How to read the page, and by which rules it was drawn."""
    most = "one from each picture" if setup.per_image == 1 else f"at most {setup.per_image} from each picture"
    by = "each" if scale == "patch" else "all nine of a unit together"
    return (
        f"The nine strongest patches in {pictures} pictures, {ranked}, {most}, in reading order. "
        f"Hatched: outside the net's input. Empty: the unit is not active. "
        f"Projections by rule {rule}; where pooling windows share a switch: {pooling}. "
        f"Grey is 0; {by} scaled by the 99th percentile, to the power {POWER}. Fields wider than {CELL} pixels: muted colours."
    )


# One unit in one picture


def project_picture(
    path: Path,
    net: AnyNet,
    layer: str,
    unit: int,
    place: tuple[int, int] | None = None,
    rule: str = "guided",
    pooling: str = "sum",
    seed: int = 0,
    size: int = 224,
    fit: str = "center",
) -> tuple[Image.Image, dict[str, Any]]:
    """A picture, a unit's projection and two controls side by side; and the numbers, for JSON.

    `place` is the position (y, x) in the layer's map, by default that of the unit's maximum. Raises BadRecipe for an unknown layer
    or unit, a position outside the map, or one where the unit is inactive.
    """
    picture = read_picture(path)
    height, width = picture.image.shape[-2:]
    view = view_of((height, width), size, fit)
    image = apply_view(picture.image, view)
    way = record(net, image, layer)
    y, x = _found(way, unit, place)
    field = field_in(net, way.layer)
    own = project(way, unit, y, x, rule, pooling)
    against = controls(way, image, unit, y, x, seed, rule, pooling)
    about = {"net": net.name, "layer": way.layer, "unit": unit, "value": float(way.a[unit, y, x]), "y": y, "x": x}
    about |= {"box": list(view.in_picture(field.box(y, x))) if field else None}
    about |= {"touches_padding": field.touches_padding(y, x, view.size) if field else None}
    about |= {"rule": rule, "pooling": pooling, "controls": [{"name": it.name, "cosine": it.cosine} for it in against]}
    framed = _with_frame(to_pillow(image), view.clip(field.box(y, x)) if field else None)
    panels = {"frame: receptive field" if field else "the net's input": framed, f"unit {unit}": _projection_picture(own)}
    panels |= {f"{it.name}, cosine {it.cosine:.2f}": _projection_picture(it.projection) for it in against}
    title = f"{net_title(net.name, way.layer)}, unit {unit}, {rule}"
    return page_of(in_grid(captioned(panels), len(panels), GAP), title), about


def _found(way: AnyRecord, unit: int, place: tuple[int, int] | None) -> tuple[int, int]:
    """The given position, or that of the unit's maximum. Raises BadRecipe outside the map."""
    count, height, width = way.a.shape
    if not 0 <= unit < count:
        raise BadRecipe(f"unit is {unit}, {way.layer} has the units 0 to {count - 1}")
    y, x = divmod(int(way.a[unit].argmax()), width) if place is None else place
    if not (0 <= y < height and 0 <= x < width):
        raise BadRecipe(f"place is {y},{x}, the map of {way.layer} is {height} x {width}, from 0,0 on")
    return y, x


def _with_frame(picture: Image.Image, box: Box | None) -> Image.Image:
    """A frame around the receptive field, dark and light, so that it is visible on any picture."""
    if box:
        x0, y0, x1, y1 = box
        draw = ImageDraw.Draw(picture)
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=INK)
        if min(x1 - x0, y1 - y0) > 2:
            draw.rectangle((x0 + 1, y0 + 1, x1 - 2, y1 - 2), outline=PAPER)
    return picture


def _projection_picture(projection: Tensor) -> Image.Image:
    """A projection (1, 3, H, W) as a picture."""
    signed = projection[0].permute(1, 2, 0).float().numpy()
    return shown(signed, scale_limit(signed[np.abs(signed).max(2) > 0]))
