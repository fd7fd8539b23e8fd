"""Paintings side by side on a sheet with labels: one or two knobs against each other, or a figure of the papers.

Every cell is a painting in a folder beside the sheet, named by a hash of its recipe and pictures, so no painting is made twice,
even for another sheet. "The paper" is Gatys, Ecker & Bethge 2015 (arXiv:1508.06576).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from os.path import realpath
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from impasto.batch import LOCKS, Batch, Job, Result
from impasto.errors import BadImage, BadRecipe, CannotWrite, ImpastoError, SomeFailed
from impasto.files import check_writable, make_folder, sha256
from impasto.images.drawing import GAP, INK, MARGIN, OUTSIDE, PAPER, SMALL, TEXT, font, wrapped, write_lines
from impasto.images.images import check_format, read_picture, read_record, to_pillow, write_picture
from impasto.nets.nets import NETS, name_among
from impasto.recipe.axes import Axis, Label, axis, recipe_at
from impasto.recipe.recipe import STYLE_LAYERS, Recipe
from impasto.transfer.painting import Painting
from impasto.workers import Event, Worker

ONE_SCALE = 16384  # a value of coarsest that leaves one scale
FROM_NOISE = {"draft": 50, "standard": 100, "fine": 200}  # steps at one scale
DRAFT = {"quality": "draft", "size": 256}
SHOWN, LABEL, LINE = 256, 128, SMALL + 6  # longer side of a picture on the sheet and in a label; height of a line of text

Spot = tuple[int, int]  # row and column, from 1


@dataclass(frozen=True)
class Cell:
    """One painting of a grid."""

    content: Path
    styles: tuple[Path, ...]
    recipe: Recipe


@dataclass(frozen=True)
class Grid:
    """Paintings in rows and columns."""

    title: str
    rows: tuple[Label, ...]
    columns: tuple[Label, ...]
    cells: dict[Spot, Cell]


# The cells


def make_grid(pictures: Sequence[Path], rows: Sequence[str], columns: Sequence[str], knobs: Mapping[str, Any]) -> Grid:
    """A knob and its values down, another one across, or one of them: ["beta", "5", "15"], ["style_layers", "..conv2_1", ".."].

    Beside the knobs of the recipe there are "ratio", alpha / beta, and "contents" and "styles", lists of pictures. The first of
    `pictures` is the content (if no axis has contents), the others are the styles. Raises BadRecipe.
    """
    if not rows and not columns:
        raise BadRecipe("nothing to compare: give --rows beta 3 10 30, --columns, or --figure")
    names = [words[0].replace("-", "_") for words in (rows, columns) if words]
    if len(set(names)) < len(names):
        raise BadRecipe(f"{names[0]} is on both axes: give two different ones")
    down, across = axis(rows), axis(columns)
    return crossed(" against ".join(names), down, across, {**_inputs(pictures, names), **knobs})


def crossed(title: str, rows: Axis, columns: Axis, base: Mapping[str, Any]) -> Grid:
    """Every row with every column."""
    spots = [(r, c) for r in range(1, len(rows) + 1) for c in range(1, len(columns) + 1)]
    cells = {(r, c): make_cell({**base, **rows[r - 1][1], **columns[c - 1][1]}) for r, c in spots}
    return Grid(title, tuple(label for label, _ in rows), tuple(label for label, _ in columns), cells)


def make_cell(knobs: dict[str, Any]) -> Cell:
    """A cell from its knobs, which include its pictures. Raises BadRecipe."""
    content, styles, ratio = (knobs.pop(name, None) for name in ("content", "styles", "ratio"))
    if content is None:
        raise BadRecipe("there is no content picture: name one first, or give --rows contents A.jpg B.jpg")
    recipe = recipe_at(knobs, ratio)
    for layer in (*recipe.content_layers, *recipe.style_layers):
        name_among(NETS[recipe.net], layer, recipe.net)
    if not styles and recipe.has_style and not recipe.has_content:
        styles = (content,)  # a texture
    return Cell(content, styles or (), recipe)


def _inputs(pictures: Sequence[Path], axes: Sequence[str]) -> dict[str, Any]:
    """The pictures that all cells have in common."""
    given = list(pictures)
    content = {} if "contents" in axes or not given else {"content": given.pop(0)}
    if "styles" in axes and given:
        raise BadRecipe(f"styles are given twice, {given[0]} and as an axis")
    return {**content, "styles": tuple(given)}


def cell_at(grid: Grid, text: str) -> Cell:
    """The cell at "row,column". Raises BadRecipe."""
    row, _, column = text.replace(" ", "").partition(",")
    spot = (int(row), int(column)) if row.isdecimal() and column.isdecimal() else (0, 0)
    if spot not in grid.cells:
        size = f"{len(grid.rows)} rows and {len(grid.columns)} columns"
        raise BadRecipe(f"the cell is {text!r}, must be a row and a column as 1,1; there are {size}")
    return grid.cells[spot]


# The papers' figures


def reconstructions(content: Path, style: Path, knobs: Mapping[str, Any]) -> Grid:
    """Figure 1 of the paper: reconstructions from noise at one scale, of the content of each layer and of the style up to it."""
    title = "What each layer knows: content and style reconstructed (Gatys, Ecker & Bethge 2015, figure 1)"
    rows = (Label("the content of this layer", content), Label("the style up to this layer", style))
    layers, steps = _style_layers(knobs), _steps(knobs)
    cells = {}
    for n, layer in enumerate(layers, 1):
        cells[1, n] = make_cell({"preset": "inversion", "content": content, "content_layers": layer, "steps": steps, **knobs})
        texture = {"preset": "texture", "content": style, "style_layers": f"..{layer}", "coarsest": ONE_SCALE, "steps": steps}
        cells[2, n] = make_cell({**texture, **knobs})
    return Grid(title, rows, tuple(map(Label, layers)), cells)


def style_layers(content: Path, style: Path, knobs: Mapping[str, Any]) -> Grid:
    """Figure 3 of the paper: style layers up to each one, against alpha / beta."""
    title = "Style up to a layer against alpha/beta (Gatys, Ecker & Bethge 2015, figure 3)"
    rows = [(Label(f"up to {layer}"), {"style_layers": f"..{layer}"}) for layer in _style_layers(knobs)]
    return crossed(title, rows, axis(["ratio", "1/100", "1/20", "1/4", "1"]), _from_noise(content, style, knobs))


def content_layers(content: Path, style: Path, knobs: Mapping[str, Any]) -> Grid:
    """Content layers from the shallowest to the deepest, relative to their own activations, against alpha / beta."""
    title = "The content layer, from shallow to deep, against alpha/beta"
    columns = [(Label(it), {"content_layers": it}) for it in (layer.replace("_1", "_2") for layer in _style_layers(knobs))]
    base = {**_from_noise(content, style, knobs), "content_norm": "relative"}
    return crossed(title, axis(["ratio", "1/4", "1"]), columns, base)


def _from_noise(content: Path, style: Path, knobs: Mapping[str, Any]) -> dict[str, Any]:
    """At one scale and without borrowed detail, so that the picture comes from the costs alone."""
    alone = {"init": "noise", "coarsest": ONE_SCALE, "steps": _steps(knobs), "detail": 0.0, "strokes": 0.0}
    return {"content": content, "styles": (style,), **alone, **knobs}


FIGURES = {"reconstructions": reconstructions, "style-layers": style_layers, "content-layers": content_layers}


def make_figure(name: str, pictures: Sequence[Path], knobs: Mapping[str, Any]) -> Grid:
    """A figure by its name in FIGURES, of a content and a style picture. Raises BadRecipe."""
    if len(pictures) != 2:
        raise BadRecipe(f"the figure {name} shows a content and a style picture, got {len(pictures)} pictures")
    content, style = pictures
    return FIGURES[name](content, style, knobs)


def _steps(knobs: Mapping[str, Any]) -> int:
    return FROM_NOISE.get(str(knobs.get("quality")), FROM_NOISE["standard"])


def _style_layers(knobs: Mapping[str, Any]) -> list[str]:
    return list(STYLE_LAYERS.get(str(knobs.get("net")), STYLE_LAYERS["vgg19"]))


# Painting


class Sheet:
    """A grid on disk: its paintings in `folder`, the sheet at `output`. Raises CannotWrite before the first is painted."""

    def __init__(self, grid: Grid, output: Path, folder: Path | None = None) -> None:
        check_format(output)
        check_writable(output)
        if any(realpath(output) == realpath(path) for cell in grid.cells.values() for path in (cell.content, *cell.styles)):
            raise CannotWrite(f"{output} is one of the pictures to paint from: name another file with -o")
        self.grid, self.output = grid, output
        self.folder = folder or output.with_name(f"{output.stem}-cells")
        make_folder(self.folder / LOCKS)
        self.found: dict[Spot, Path | ImpastoError] = {}

    def name_of(self, spot: Spot) -> str:
        """A cell in words: the labels of its row and its column."""
        labels = (self.grid.rows[spot[0] - 1].text, self.grid.columns[spot[1] - 1].text)
        return ", ".join(text for text in labels if text)

    def paint(self, paint_one: Callable[[Spot, Painting], None], **options: Any) -> None:
        """Call `paint_one` for each painting that is missing; it must go through the steps. `options` are those of Painting.

        One that fails does not end the others.
        """
        for spot, cell in self.grid.cells.items():
            try:
                path = self._path(cell)
                if not is_painted(path):
                    paint_one(spot, Painting(cell.content, cell.styles, path, cell.recipe, **options))
                self.found[spot] = path
            except ImpastoError as error:
                self.found[spot] = error

    def distribute(
        self, workers: Sequence[Worker], options: Mapping[str, Any], part: tuple[int, int] = (0, 1)
    ) -> Generator[tuple[Spot, Event | Result], None, None]:
        """Paint this part of the cells with workers; `options` are those of painting_task. The events of each cell as they come.

        Cells of other parts, and those that another process paints meanwhile, are on the sheet if they exist at the end.
        """
        jobs = {spot: self._job(spot) for spot in list(self.grid.cells)[part[0] :: part[1]]}
        spots, failed = {id(job): spot for spot, job in jobs.items()}, dict[Spot, ImpastoError]()
        try:
            for job, event in Batch(list(jobs.values()), self.folder, options=options).events(workers=workers):
                if isinstance(event, Result) and event.error:
                    failed[spots[id(job)]] = ImpastoError(event.error)
                yield spots[id(job)], event
        finally:
            self._find(failed)

    def _job(self, spot: Spot) -> Job:
        cell, name = self.grid.cells[spot], f"{spot[0]}-{spot[1]}.png"
        with suppress(BadImage):  # a picture that cannot be read: painting the cell says so
            name = self._path(cell).name
        return Job(cell.content, cell.styles, cell.recipe, name)

    def _find(self, failed: Mapping[Spot, ImpastoError]) -> None:
        """Note which cells exist, in the order of the grid."""
        self.found = {}
        for spot, cell in self.grid.cells.items():
            with suppress(BadImage):  # of another part: the process that paints it says so
                if spot in failed:
                    self.found[spot] = failed[spot]
                elif is_painted(path := self._path(cell)):
                    self.found[spot] = path

    def _path(self, cell: Cell) -> Path:
        return self.folder / f"{name_of(cell)}.png"

    def write(self) -> None:
        """Write the sheet with the cells painted so far. Raises the first error if no cell could be painted."""
        failed = [found for found in self.found.values() if isinstance(found, ImpastoError)]
        if len(failed) == len(self.grid.cells):
            raise failed[0]
        page = read_picture(draw(self.grid, self.found)).image
        write_picture(self.output, page, record={"grid": self._record(), "versions": {"impasto": version("impasto")}})

    def check(self) -> None:
        """Raise SomeFailed if a cell could not be painted."""
        failed = [(spot, found) for spot, found in self.found.items() if isinstance(found, ImpastoError)]
        if failed:
            (row, column), error = failed[0]
            raise SomeFailed(f"{len(failed)} of {len(self.grid.cells)} cells failed, row {row}, column {column} first: {error}")

    def report(self) -> dict[str, Any]:
        """What the sheet shows, with the path or the error of each painting, for JSON."""
        cells = []
        for record, found in zip(self._record()["cells"], self.found.values(), strict=True):
            failed = isinstance(found, ImpastoError)
            cells.append({**record, "output": None if failed else str(found), "error": str(found) if failed else None})
        return {"output": str(self.output), **self._record(), "cells": cells}

    def _record(self) -> dict[str, Any]:
        labels = {"rows": [label.text for label in self.grid.rows], "columns": [label.text for label in self.grid.columns]}
        cells = [{"row": r, "column": c, "recipe": self.grid.cells[r, c].recipe.model_dump(mode="json")} for r, c in self.found]
        return {"title": self.grid.title, **labels, "cells": cells}


def name_of(cell: Cell) -> str:
    """A hash of recipe, pictures and version. Raises BadImage for a picture that does not exist."""
    try:
        inputs = [sha256(path) for path in (cell.content, *cell.styles, *cell.recipe.mask_files().values())]
    except OSError as error:
        raise BadImage(f"cannot read {error.filename}: {error.strerror}") from error
    key = {"recipe": cell.recipe.model_dump(mode="json"), "inputs": inputs, "impasto": version("impasto")}
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def is_painted(path: Path) -> bool:
    """Whether the painting exists and is finished."""
    try:
        return read_record(path).get("ended") == "finished"
    except BadImage:
        return False


# Drawing


def draw(grid: Grid, found: Mapping[Spot, Path | ImpastoError]) -> Image.Image:
    """The sheet: title, labels, paintings, and for a missing painting the reason."""
    shown = {spot: _small(it, SHOWN) for spot, it in found.items() if isinstance(it, Path)}
    width, height = (max((picture.size[n] for picture in shown.values()), default=SHOWN) for n in (0, 1))
    table = {(0, n): _label(label, width) for n, label in enumerate(grid.columns, 1)}
    table |= {(n, 0): _label(label, LABEL) for n, label in enumerate(grid.rows, 1)}
    table |= {spot: shown.get(spot) or _missing(found.get(spot), (width, height)) for spot in grid.cells}
    body = _laid_out(table)
    head = wrapped(grid.title, TEXT, body.width)
    top = MARGIN + len(head) * (TEXT + 6) + GAP
    page = Image.new("RGB", (body.width + 2 * MARGIN, top + body.height + MARGIN), PAPER)
    write_lines(ImageDraw.Draw(page), MARGIN, MARGIN - 6, head, TEXT)
    page.paste(body, (MARGIN, top))
    return page


def _laid_out(table: Mapping[Spot, Image.Image]) -> Image.Image:
    """Pictures in rows and columns, each as high and wide as its largest picture; smaller ones are centred."""
    heights, widths = Counter[int](), Counter[int]()
    for (row, column), it in table.items():
        heights[row], widths[column] = max(heights[row], it.height), max(widths[column], it.width)
    tops, lefts = ([0, *accumulate(sizes[n] + GAP for n in range(len(sizes)))] for sizes in (heights, widths))
    page = Image.new("RGB", (lefts[-1] - GAP, tops[-1] - GAP), PAPER)
    for (row, column), it in table.items():
        page.paste(it, (lefts[column] + (widths[column] - it.width) // 2, tops[row] + (heights[row] - it.height) // 2))
    return page


def _small(path: Path, side: int) -> Image.Image:
    """The picture, scaled down to a longer side of at most `side` pixels."""
    picture = to_pillow(read_picture(path).image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def _label(label: Label, width: int) -> Image.Image:
    """A label drawn: its text, centred, below its picture if it has one."""
    lines = wrapped(label.text, SMALL, width) if label.text else []
    picture = _picture(label)
    high = 0 if picture is None else picture.height + GAP // 2
    wide = max([0 if picture is None else picture.width, *(round(font(SMALL).getlength(line)) for line in lines)])
    drawn = Image.new("RGB", (max(1, wide), max(1, high + len(lines) * LINE)), PAPER)
    if picture is not None:
        drawn.paste(picture, ((drawn.width - picture.width) // 2, 0))
    for n, line in enumerate(lines):
        ImageDraw.Draw(drawn).text((drawn.width / 2, high + n * LINE), line, INK, font(SMALL), anchor="ma")
    return drawn


def _picture(label: Label) -> Image.Image | None:
    """The picture of a label; None if it has none, or one that cannot be read: its cells say why."""
    try:
        return None if label.picture is None else _small(label.picture, LABEL)
    except BadImage:
        return None


def _missing(why: object, size: tuple[int, int]) -> Image.Image:
    """An empty cell with the reason in words, for which it may be larger than `size`."""
    lines = wrapped(str(why or "not painted yet"), SMALL, max(size[0], LABEL) - 2 * GAP)
    wide = max(size[0], *(round(font(SMALL).getlength(line)) + 2 * GAP for line in lines))
    drawn = Image.new("RGB", (wide, max(size[1], len(lines) * LINE + 2 * GAP)), OUTSIDE)
    write_lines(ImageDraw.Draw(drawn), GAP, GAP, lines, SMALL)
    return drawn
