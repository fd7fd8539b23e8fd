"""A patch cut out and put through the net again: the receipt that its box is right.

Two ways are exact for a place that sees no padding. The field alone, through the net without its padding, gives a map of one place.
A crop that begins where the whole picture's windows begin (`Field.left` pixels earlier) gives the value at its own place in the net
as it is; the field alone does not, since its windows would be out of step. A place that sees padding has no crop: zeros are put
into maps, not into pixels, so the whole picture is run.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from impasto.geometry import field_of
from impasto.lens.collection import read_again
from impasto.lens.index import Index, check_net, choose_units
from impasto.lens.patches import Patch, by_picture, patches_of
from impasto.lens.view import bring
from impasto.nets import Conv, Net, features


@dataclass(frozen=True)
class Receipt:
    """A patch's value again: `way` is whole, aligned or exact, `error` how far `value` is from the patch's."""

    way: str
    value: float
    error: float


def without_padding(net: Net) -> Net:
    """The net whose every map is as much smaller as its convolutions are wide: what its places see lies in the picture."""
    return replace(net, layers=tuple(replace(x, padding=0) if isinstance(x, Conv) else x for x in net.layers))


def whole(net: Net, image: Tensor, layer: str, unit: int, y: int, x: int) -> float:
    """The unit's value at place (y, x) of its map of a picture (1, 3, H, W)."""
    return float(features(net, image, [layer])[layer][0, unit, y, x])


def aligned(net: Net, image: Tensor, layer: str, unit: int, y: int, x: int) -> float:
    """The same from a crop in step with the picture's windows, for a place that sees no padding."""
    field = field_of(net.layers, layer)
    x0, y0, x1, y1 = field.box(y, x)
    left, top = x0 - field.left, y0 - field.left
    return whole(net, image[..., top:y1, left:x1], layer, unit, y - top // field.stride, x - left // field.stride)


def exact(net: Net, image: Tensor, layer: str, unit: int, y: int, x: int) -> float:
    """The same from the field alone, for a place that sees no padding."""
    x0, y0, x1, y1 = field_of(net.layers, layer).box(y, x)
    return whole(without_padding(net), image[..., y0:y1, x0:x1], layer, unit, 0, 0)


WAYS: dict[str, Callable[[Net, Tensor, str, int, int, int], float]] = {"whole": whole, "aligned": aligned, "exact": exact}


@torch.no_grad()
def check(net: Net, image: Tensor, layer: str, unit: int, patch: Patch) -> list[Receipt]:
    """Run a patch again in every way there is for it; `image` (1, 3, H, W) is what the net saw of the picture."""
    ways = ("whole",) if patch.touches_padding else ("aligned", "exact")
    values = [WAYS[way](net, image, layer, unit, patch.y, patch.x) for way in ways]
    return [Receipt(way, value, abs(value - patch.value)) for way, value in zip(ways, values, strict=True)]


def check_layer(
    folder: Path, index: Index, net: Net, layer: str, units: str = "9", seed: int = 0, interior: bool = False
) -> Iterator[tuple[int, Patch, list[Receipt]]]:
    """(unit, patch, its receipts) of some units' patches in the atlas `folder`, picture by picture, from the pictures themselves.

    `units` as choose_units has it. Raises BadRecipe for another net, BadImage for a picture that is gone or has changed.
    """
    check_net(index.setup, net)
    chosen = choose_units(units, index.setup.layers[layer].units, f"{layer} {seed}")
    for row, places in by_picture(patches_of(folder, index, layer, chosen, interior)).items():
        image = bring(read_again(row).image, places[0][2].view)
        for unit, _, patch in places:
            yield unit, patch, check(net, image, layer, unit, patch)
