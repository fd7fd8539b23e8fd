"""A style report: an HTML page that opens from disk, a JSON object, and a style edit to start from.

The page contains the float32 maps of all units that it lists. At every position it shows the two activations and their product,
and sums the products to G_ij.
"""

import base64
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from impasto.errors import BadRecipe
from impasto.files import write_whole
from impasto.images.images import read_picture, resize, to_pillow, write_small
from impasto.lens.collection import Row, Source
from impasto.lens.index import Index, check_net, read_index
from impasto.lens.pages import PARTS, begin, check_free, finish, short, write_script
from impasto.lens.patches import Patch, patches_of, strongest_apart
from impasto.lens.sheet import NAMES, SHOWN, block, crop, crops_of
from impasto.lens.style.reading import (
    LayerStyle,
    Pair,
    by_lift,
    by_value,
    clustered,
    direction_map,
    division,
    pairs_apart,
    pairs_by_value,
    pairs_together,
    place_map,
    read_style,
    reference_values,
    resize_to,
    style_layers,
)
from impasto.lens.style.words import described, whereabouts
from impasto.lens.view import View
from impasto.nets.geometry import Field, field_of
from impasto.nets.nets import Net

UNITS, PAIRS, LISTED = 8, 8, 50  # on the page, of each ranking; in JSON
WIDE = 300  # pixels: width of the pictures of where something is active
VEIL = 0.92  # opacity of the cover over inactive parts of the picture
PALE = 0.93  # its grey level
MADE_BY, EDIT = "style read", "style-edit.toml"
COMPONENTS = 16  # units of a direction that are listed
FIXED = {"page.css": f"{PARTS}/page.css", "style.css": f"{PARTS}/style.css", "style.js": f"{PARTS}/style.js"}
FIXED |= {"style.html": "index.html"}
RANKINGS: dict[str, Callable[[LayerStyle, int], list[Pair]]] = {
    "value": pairs_by_value,
    "together": pairs_together,
    "apart": pairs_apart,
}


@dataclass(frozen=True)
class StylePicture:
    """The style picture: `image` (1, 3, H, W), its file name and hash, the net that reads it, and the net's pooling."""

    image: Tensor
    name: str
    sha256: str
    net: Net
    pooling: str

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.image.shape[-2], self.image.shape[-1]

    def patches(self, maps: Tensor, field: Field) -> list[list[Patch]]:
        """The style picture's strongest patches for each map (N, h, w): at most nine, at least half a field apart."""
        values, places = strongest_apart(maps.float().numpy(), SHOWN, (field.size - 1) // (2 * field.stride))
        row, view = Row(Source(self.name, self.name), self.sha256, *self.size), View(self.size, self.size, (0, 0), self.size)

        def patch(value: float, y: int, x: int) -> Patch:
            box = field.box(y, x)
            return Patch(value, row, y, x, box, box, field.touches_padding(y, x, self.size), view)

        return [
            [patch(value, *place) for value, place in zip(ours.tolist(), there.tolist(), strict=True) if value > 0]
            for ours, there in zip(values, places, strict=True)
        ]

    def described(self, patches: Iterable[Patch], where: Tensor) -> str:
        """A description of patches, and where most of a map (h, w) is."""
        boxes = [patch.view.clip(patch.frame) for patch in patches]
        return f"{described([self.image[0, :, y0:y1, x0:x1] for x0, y0, x1, y1 in boxes])}, {whereabouts(where)}"


@dataclass(frozen=True)
class Reading:
    """A style picture read with a longer side of `size`: its layers, their division (`left`), the source of the lifts."""

    painting: StylePicture
    styles: list[LayerStyle]
    left: dict[str, dict[str, float]]
    photographs: str
    size: int


def read_painting(path: Path, net: Net, layers: Sequence[str], size: int, pooling: str, against: Path | None = None) -> Reading:
    """Read the style of a picture file; lifts are relative to the pictures in `against` or the bundled photographs.

    Raises BadImage, BadInput where `against` has no picture, BadRecipe for unknown layers.
    """
    names, picture = style_layers(net, layers), read_picture(path)
    image = resize_to(picture.image, size, net, names)
    styles = list(read_style(image, net, names, reference_values(against, net, names, size)))
    photographs = "the bundled photographs" if against is None else f"the pictures in {against.name}"
    painting = StylePicture(image, path.name, picture.sha256, net, pooling)
    return Reading(painting, styles, division(image, styles, net), photographs, size)


class Shown:
    """A layer on the page: the listed units and pairs, with descriptions and patches."""

    def __init__(self, style: LayerStyle, painting: StylePicture) -> None:
        self.style, self.painting = style, painting
        self.field = field_of(painting.net.layers, style.layer)
        self.by_value, self.by_lift = by_value(style, UNITS), by_lift(style, UNITS)
        self.pairs = {name: ranking(style, PAIRS) for name, ranking in RANKINGS.items()}
        paired = {unit for pairs in self.pairs.values() for pair in pairs for unit in pair}
        self.units = sorted({*self.by_value, *self.by_lift, *paired})

    @cached_property
    def own(self) -> dict[int, list[Patch]]:
        """The style picture's patches of each unit."""
        return dict(zip(self.units, self.painting.patches(self.style.maps[self.units], self.field), strict=True))

    @cached_property
    def names(self) -> dict[int, str]:
        """A description of each unit's patches."""
        return {
            unit: self.painting.described(patches, place_map(self.style.maps, unit, unit)) for unit, patches in self.own.items()
        }

    def share(self, unit: int) -> float:
        """The unit's share of the sum of the diagonal."""
        return float(self.style.values[unit]) / self.style.total

    def lift(self, unit: int) -> float | None:
        """The unit's value over that in photographs; None where that is 0."""
        lift = float(self.style.lift[unit])
        return short(lift) if np.isfinite(lift) else None


# As JSON


def to_json(reading: Reading) -> dict[str, Any]:
    """All units of each layer and the first pairs of each ranking; values are G_ij / (n_H n_W), the largest first."""
    painting = reading.painting
    about = {"painting": painting.name, "net": painting.net.name, "pooling": painting.pooling, "size": reading.size}
    return about | {"layers": [_layer_to_json(style, reading.left[style.layer]) for style in reading.styles]}


def _layer_to_json(style: LayerStyle, left: Mapping[str, float]) -> dict[str, Any]:
    lift = [value if np.isfinite(value) else None for value in style.lift.tolist()]
    units = [{"unit": n, "value": float(style.values[n]), "lift": lift[n]} for n in by_value(style, len(lift))]
    pairs = {name: [_pair_to_json(style, *pair) for pair in ranking(style, LISTED)] for name, ranking in RANKINGS.items()}
    about = {"layer": style.layer, "places": list(style.maps.shape[1:]), "units": units, "pairs": pairs["value"]}
    directions = [
        {"share": float(strength) / style.total, "units": _components(style, n)} for n, strength in enumerate(style.strengths)
    ]
    return about | {"together": pairs["together"], "apart": pairs["apart"], "directions": directions, "left": dict(left)}


def _pair_to_json(style: LayerStyle, i: int, j: int) -> dict[str, Any]:
    numbers = {"value": style.gram, "correlation": style.correlation, "chance": style.chance}
    return {"i": i, "j": j} | {name: float(matrix[i, j]) for name, matrix in numbers.items()}


def _components(style: LayerStyle, n: int, count: int = COMPONENTS) -> list[dict[str, Any]]:
    """The largest components of direction n."""
    direction = style.directions[:, n]
    largest = direction.abs().argsort(descending=True)[:count].tolist()
    return [{"unit": unit, "component": float(direction[unit])} for unit in largest]


# As a page


def write_page(output: Path, reading: Reading, atlas: Path | None = None) -> bool:
    """Write the page, `output`/index.html with its parts, and a style edit if there is none yet; whether it was written.

    `atlas` is a scan whose patches show what the units respond to. Raises BadRecipe for a scan of another net, CannotWrite where
    the folder holds anything else.
    """
    painting = reading.painting
    index = check_page(output, painting.net, atlas)
    parts, shown = begin(output, MADE_BY), [Shown(style, painting) for style in reading.styles]
    write_small(parts / "painting.webp", to_pillow(painting.image))
    for n, layer in enumerate(shown):
        found = _write_nines(parts, n, layer, atlas, index) if atlas and index else {}
        _write_layer(parts, n, layer, found)
    write_script(parts / "data.js", "const STYLE = ", [_about(reading, shown)], ";")
    finish(output, FIXED)
    return write_edit(output / EDIT, edit_text(shown, painting))


def _about(reading: Reading, shown: Sequence[Shown]) -> dict[str, Any]:
    """The page's data about the whole style picture."""
    painting = reading.painting
    about = {"painting": painting.name, "height": painting.size[0], "width": painting.size[1], "photographs": reading.photographs}
    about |= {"net": NAMES.get(painting.net.name, painting.net.name), "pooling": painting.pooling, "version": version("impasto")}
    layers = [{"name": it.style.layer, "size": it.field.size, **reading.left[it.style.layer]} for it in shown]
    return about | {"layers": layers}


def check_page(output: Path, net: Net, atlas: Path | None) -> Index | None:
    """Raise at once what write_page would raise after minutes of reading; returns the atlas's index."""
    check_free(output, MADE_BY)
    if atlas is None:
        return None
    index = read_index(atlas)
    if index.setup.net != net.name:
        raise BadRecipe(f"{atlas} is a scan of {index.setup.net}, but the style is read by {net.name}: add --net {index.setup.net}")
    check_net(index.setup, net)
    return index


def _write_nines(parts: Path, n: int, shown: Shown, folder: Path, index: Index) -> dict[int, str]:
    """Write the scan's strongest patches of each unit; returns {unit: file}, empty where the layer was not scanned."""
    layer = shown.style.layer
    if layer not in index.layers:
        return {}
    patches = {
        unit: [it for it in found[:SHOWN] if it.value > 0] for unit, found in patches_of(folder, index, layer, shown.units).items()
    }
    for unit, found in crops_of(patches).items():
        write_small(parts / f"{n:02}-nine-{unit}.webp", block(found))
    return {unit: f"{n:02}-nine-{unit}.webp" for unit in patches}


def _write_layer(parts: Path, n: int, shown: Shown, nines: Mapping[int, str]) -> None:
    style, painting, pixels = shown.style, shown.painting, to_pillow(shown.painting.image)
    for unit in shown.units:
        write_small(parts / f"{n:02}-own-{unit}.webp", _block(shown.own[unit], pixels))
        write_small(parts / f"{n:02}-where-{unit}-{unit}.webp", spotlight(painting.image, place_map(style.maps, unit, unit)))
        packed_map = packed(style.maps[unit].numpy().astype("<f4"))
        write_script(parts / f"{n:02}-map-{unit}.js", f'mapped({n}, {unit}, "{packed_map}"', [], ");")
    pairs = sorted({pair for found in shown.pairs.values() for pair in found})
    for i, j in pairs:
        product = place_map(style.maps, i, j)
        (patches,) = painting.patches(product[None], shown.field)
        write_small(parts / f"{n:02}-where-{i}-{j}.webp", spotlight(painting.image, product))
        write_small(parts / f"{n:02}-own-{i}-{j}.webp", _block(patches, pixels))
    lines = [_numbers(shown), {"units": {unit: _unit(shown, unit, nines) for unit in shown.units}}]
    lines += [{"pairs": {f"{i}&{j}": _pair_to_json(style, i, j) for i, j in pairs}}, {"directions": _directions(parts, n, shown)}]
    write_script(parts / f"{n:02}.js", f"arrived({n}, Object.assign(\n", [*lines, _matrices(style)], "));")


def _block(patches: Sequence[Patch], pixels: Image.Image) -> Image.Image:
    return block([(patch, crop(patch, pixels)) for patch in patches])


def _numbers(shown: Shown) -> dict[str, Any]:
    style, field = shown.style, shown.field
    about = {"channels": len(style.maps), "height": style.maps.shape[1], "width": style.maps.shape[2]}
    about |= {"size": field.size, "stride": field.stride, "padding": field.padding}
    return about | {"byValue": shown.by_value, "byLift": shown.by_lift, "lists": {name: list(p) for name, p in shown.pairs.items()}}


def _unit(shown: Shown, unit: int, nines: Mapping[int, str]) -> dict[str, Any]:
    found = {"name": shown.names[unit], "value": float(shown.style.values[unit]), "share": short(shown.share(unit))}
    return found | {"lift": shown.lift(unit), "patches": len(shown.own[unit]), "nine": nines.get(unit)}


def _directions(parts: Path, n: int, shown: Shown) -> list[dict[str, Any]]:
    """Each leading direction, where it is active, and a description of the style picture there."""
    style, painting, found = shown.style, shown.painting, []
    maps = torch.stack([direction_map(style.maps, direction) for direction in style.directions.mT])
    for k, patches in enumerate(painting.patches(maps, shown.field)):
        write_small(parts / f"{n:02}-direction-{k}.webp", spotlight(painting.image, maps[k]))
        write_small(parts / f"{n:02}-direction-{k}-own.webp", _block(patches, to_pillow(painting.image)))
        about = {"name": painting.described(patches, maps[k]), "share": short(float(style.strengths[k]) / style.total)}
        found.append(about | {"units": [[it["unit"], short(it["component"])] for it in _components(style, k, 6)]})
    return found


def _matrices(style: LayerStyle) -> dict[str, Any]:
    """Both matrices in clustered order, a byte an entry: the logarithm of G / M, correlations from -1 to 1."""
    order = clustered(style.correlation)
    gram, correlated = style.gram[order][:, order], style.correlation[order][:, order]
    largest = float(gram.max()) or 1.0
    positive = gram[gram > 0].sort().values
    least = max(float(positive[len(positive) // 50]), 1e-6 * largest) if len(positive) else largest
    shade = ((gram.clamp(min=least) / least).log() / max(np.log(largest / least), 1e-9) * 255).round()
    found = {"order": order, "least": short(least), "largest": short(largest), "gram": packed(shade.numpy().astype(np.uint8))}
    return found | {"correlation": packed((correlated * 127).round().numpy().astype(np.int8))}


def packed(values: np.ndarray[Any, Any]) -> str:
    """The bytes of an array, compressed by zlib, in base64."""
    return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode("ascii")


def spotlight(image: Tensor, map: Tensor) -> Image.Image:
    """(1, 3, H, W) and (h, w), not negative -> the picture, WIDE pixels wide, pale where the map is small."""
    height = max(1, round(WIDE * image.shape[-2] / image.shape[-1]))
    top = float(torch.quantile(map.double().flatten()[:: max(1, map.numel() // 10**6)], 0.99)) or float(map.max()) or 1.0
    lit = resize((map[None, None] / top).clamp(0, 1).float(), (height, WIDE)).sqrt()
    small = resize(image, (height, WIDE))
    grey = VEIL * PALE + (1 - VEIL) * small.mean(1, keepdim=True)
    return to_pillow(lit * small + (1 - lit) * grey)


# As a style edit


def edit_text(shown: Sequence[Shown], painting: StylePicture) -> str:
    """A style edit that changes nothing: the most relevant units, pairs and directions, described, each with gain 1."""
    return "\n".join([EDIT_HEAD.format(name=painting.name.encode("ascii", "replace").decode()), *map(_layer_edit, shown)])


EDIT_HEAD = """# A style edit for {name}. With these numbers it changes nothing.
#
#   impasto transfer PHOTOGRAPH PAINTING --style-edit THIS-FILE
#
# gain multiplies the activity in the result: 2 is more of it, 0.5 less, 0 none.
# weight is its importance in the style cost: 0 means it does not matter. Both: {{ gain = 2, weight = 0.5 }}.
# A single number is a gain. In names only the numbers of the units count. You can delete lines.
# With two style pictures, paintings = [1, 0] in a layer uses only the first for that layer.
"""


def _layer_edit(shown: Shown) -> str:
    name, style = shown.style.layer, shown.style
    lines = [
        f"[{name}]  # receptive field {shown.field.size} x {shown.field.size} pixels",
        "gain = 1.0",
        "weight = 1.0",
        "",
        f"[{name}.units]",
    ]
    for unit in dict.fromkeys([*shown.by_value[:6], *shown.by_lift[:6]]):
        lift = shown.lift(unit)
        note = f"{100 * shown.share(unit):.1f} % of the layer" + ("" if lift is None else f", lift {lift:.2g}")
        lines.append(f'"{unit} {shown.names[unit]}" = 1.0  # {note}')
    lines += ["", f"[{name}.pairs]"]
    for i, j in dict.fromkeys([*shown.pairs["together"][:3], *shown.pairs["apart"][:3]]):
        note = f"correlation {float(style.correlation[i, j]):.2f}, by chance {float(style.chance[i, j]):.2f}"
        lines.append(f'"{i} & {j} {shown.names[i]}; {shown.names[j]}" = 1.0  # {note}')
    for n, strength in enumerate(style.strengths.tolist()):
        note = f"style direction {n + 1}, {100 * strength / style.total:.0f} % of the layer"
        components = ", ".join(f"{it['unit']} = {it['component']:.4f}" for it in _components(style, n))
        lines += ["", f"[[{name}.directions]]  # {note}", "gain = 1.0", f"units = {{ {components} }}"]
    return "\n".join([*lines, ""])


def write_edit(path: Path, text: str) -> bool:
    """Write the file if there is none yet: the user may have edited an older one. Returns whether it was written."""
    if path.exists():
        return False
    write_whole(path, lambda file: file.write(text.encode("ascii")))
    return True
