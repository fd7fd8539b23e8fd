"""Scans compared: the same units over the checkpoints of a training (Zeiler & Fergus 2013, figure 4), or in two nets.

The figure has a row for each scan and a column for each unit. Each row is compared with the row above: how many of the strongest
patches are of the same pictures, how many at the same positions, and the rank correlation of the pictures. That is Kendall's tau of
two top-k lists (Fagin, Kumar & Sivakumar 2003, doi:10.1137/S0895480102412856, with p = 1/2): a picture in a list ranks before all
that are not in it; two that are not in it are not ordered.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise, repeat, zip_longest
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from impasto.errors import BadRecipe
from impasto.images.drawing import GAP, INK, LEADING, PAPER, SMALL, TEXT, font, in_grid, page_of, wrapped, write_lines
from impasto.lens.index import MANIFEST, Index, choose_units, find_layer, read_index, read_rows
from impasto.lens.patches import Patch, patches_of
from impasto.lens.sheet import BLOCK, SHOWN, activity, block, crops_of, net_title

LABEL, HEAD, CAPTION = 190, 34, 48  # pixels: width of the column of names, height of the row of units, height of the captions


@dataclass(frozen=True)
class Overlap:
    """The overlap of two lists of patches: common `pictures` and `places` (positions in them), of the numbers in the longer list.

    `order` is the rank correlation: 1 for equal lists, about -1/2 for disjoint ones, -1 for a reversed one. `places` is None for
    layers with different fields or views, `order` for scans of different pictures.
    """

    pictures: int
    of_pictures: int
    places: int | None
    of_patches: int
    order: float | None


@dataclass(frozen=True)
class Scan:
    """A row of the figure: an atlas, its index, the layer, and the patches in which each unit fires."""

    folder: Path
    index: Index
    layer: str
    patches: dict[int, list[Patch]]

    @property
    def name(self) -> str:
        """The label of the row."""
        return self.folder.resolve().name


def compare(
    folders: Sequence[Path], layers: Sequence[str], units: str = "4", seed: int = 0, interior: bool | None = None
) -> tuple[Image.Image, list[dict[str, Any]]]:
    """The figure of the same units in several atlases, and the numbers for JSON.

    `layers` is one layer for all, or one for each atlas. `units` as for a sheet, among those that all have. Raises BadRecipe for
    fewer than two atlases or another number of layers.
    """
    scans = read_scans(folders, layers, units, seed, interior)
    common = [{unit: overlap(one, other, unit) for unit in one.patches} for one, other in pairwise(scans)]
    about = [
        {"atlas": str(scan.folder), "net": scan.index.setup.net, "layer": scan.layer, "unit": unit, "patches": len(patches)}
        | {"in_common": asdict(above[unit]) if above else None}
        for scan, above in zip(scans, [None, *common], strict=True)
        for unit, patches in scan.patches.items()
    ]
    return _page(scans, common), about


def read_scans(folders: Sequence[Path], layers: Sequence[str], units: str, seed: int, interior: bool | None) -> list[Scan]:
    """The rows with the chosen units. Patches with value 0 do not count: their pictures are arbitrary."""
    if len(folders) < 2 or len(layers) not in (1, len(folders)):
        raise BadRecipe(
            f"there are {len(folders)} scans and {len(layers)} layers: give at least two scans, and one layer or one for each"
        )
    indices = [read_index(folder) for folder in folders]
    named = [
        find_layer(index, layer) for index, layer in zip(indices, layers if len(layers) > 1 else repeat(layers[0]), strict=False)
    ]
    fewest = min(index.setup.layers[layer].units for index, layer in zip(indices, named, strict=True))
    chosen = choose_units(units, fewest, f"{named[0]} {seed}")
    scans = []
    for folder, index, layer in zip(folders, indices, named, strict=True):
        found = patches_of(folder, index, layer, chosen, interior)
        firing = {unit: [patch for patch in patches if patch.value > 0] for unit, patches in found.items()}
        scans.append(Scan(folder, index, layer, firing))
    return scans


# Overlap


def overlap(one: Scan, other: Scan, unit: int) -> Overlap:
    """The overlap of a unit's patches in two scans."""
    ours, theirs = one.patches[unit], other.patches[unit]
    keys = [list(dict.fromkeys(patch.row.sha256 for patch in patches)) for patches in (ours, theirs)]
    places: int | None = None
    if _same_places(one, other):
        places = len({(p.row.sha256, p.y, p.x) for p in ours} & {(p.row.sha256, p.y, p.x) for p in theirs})
    order = rank_correlation(*keys) if _same_pictures(one.folder, other.folder) else None
    return Overlap(len({*keys[0]} & {*keys[1]}), max(map(len, keys)), places, max(len(ours), len(theirs)), order)


def _same_places(one: Scan, other: Scan) -> bool:
    """Whether positions of the two layers are the same: equal fields and views."""
    fields = [scan.index.setup.layers[scan.layer].field for scan in (one, other)]
    views = {(scan.index.setup.size, scan.index.setup.fit) for scan in (one, other)}
    return fields[0] == fields[1] is not None and len(views) == 1


def _same_pictures(one: Path, other: Path) -> bool:
    rows = zip_longest(*(read_rows(folder / MANIFEST) for folder in (one, other)))
    return all(a and b and (a.key, a.skipped is None) == (b.key, b.skipped is None) for a, b in rows)


def rank_correlation(one: Sequence[str], other: Sequence[str]) -> float | None:
    """Kendall's tau of two top-k lists, each the strongest first; None with fewer than two items."""
    ranks = [{key: n for n, key in enumerate(keys)} for keys in (one, other)]
    pairs = list(combinations(dict.fromkeys([*one, *other]), 2))
    agreed = [_sign(ranks[0], *pair) * _sign(ranks[1], *pair) for pair in pairs]
    return sum(agreed) / len(pairs) if pairs else None


def _sign(rank: dict[str, int], one: str, other: str) -> int:
    """1 where `one` ranks first, -1 where `other` does, 0 where the list has neither."""
    a, b = rank.get(one, len(rank)), rank.get(other, len(rank))
    return (a < b) - (a > b)


# Drawing


def _page(scans: Sequence[Scan], common: Sequence[dict[int, Overlap]]) -> Image.Image:
    rows = in_grid([_row(scan, above) for scan, above in zip(scans, [{}, *common], strict=True)], 1, GAP)
    body = Image.new("RGB", (rows.width, HEAD + rows.height), PAPER)
    for n, unit in enumerate(scans[0].patches):
        ImageDraw.Draw(body).text((LABEL + n * (BLOCK + GAP), 0), f"unit {unit}", INK, font(TEXT))
    body.paste(rows, (0, HEAD))
    titles = dict.fromkeys(net_title(scan.index.setup.net, scan.layer) for scan in scans)
    return page_of(body, " and ".join(titles), legend=_legend(scans))


def _row(scan: Scan, common: dict[int, Overlap]) -> Image.Image:
    """One scan: its name, and for each unit the captions and the block of patches."""
    cells = crops_of({unit: patches[:SHOWN] for unit, patches in scan.patches.items()})
    page = Image.new("RGB", (LABEL + len(cells) * (BLOCK + GAP) - GAP, CAPTION + BLOCK), PAPER)
    draw = ImageDraw.Draw(page)
    write_lines(draw, 0, CAPTION, wrapped(scan.name, TEXT, LABEL - GAP), TEXT)
    net = wrapped(f"{scan.index.setup.net} {scan.layer}", SMALL, LABEL - GAP)
    write_lines(draw, 0, CAPTION + BLOCK - len(net) * (SMALL + LEADING), net, SMALL)
    for n, (unit, found) in enumerate(cells.items()):
        left = LABEL + n * (BLOCK + GAP)
        lines = [activity(scan.index, scan.layer, unit)] + ([overlap_text(common[unit])] if common else [])
        write_lines(draw, left, 2 + (2 - len(lines)) * (SMALL + LEADING), lines, SMALL)
        page.paste(block(found), (left, CAPTION))
    return page


def overlap_text(common: Overlap) -> str:
    """The caption above a block, no wider than it."""
    places = "" if common.places is None else f", {common.places}/{common.of_patches} positions"
    order = "" if common.order is None else f", order {common.order:.2f}"
    return f"{common.pictures}/{common.of_pictures} pictures{places}{order}"


def _legend(scans: Sequence[Scan]) -> str:
    counts = " and ".join(str(count) for count in dict.fromkeys(scan.index.pictures for scan in scans))
    return (
        f"The nine strongest patches of {counts} pictures, in reading order. Hatched: outside the net's input. Empty: the unit is "
        "not active. Second line: the overlap with the row above: common pictures, common positions, and their order, the rank "
        "correlation of the pictures (1: the same; about -0.5: no common pictures)."
    )
