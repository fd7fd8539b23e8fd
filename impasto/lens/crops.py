"""A patch cut out and put through the net again: the receipt that its box is right.

Two ways are exact for a place that sees no padding. The field alone, through the net without its padding, gives a map of one place.
A crop that begins where the whole picture's windows begin (`Field.left` pixels earlier) gives the value at its own place in the net
as it is; the field alone does not, since its windows would be out of step. A place that sees padding has no crop: zeros are put
into maps, not into pixels, so the whole picture is run. So it is where the field is unknown. A module of branches has only the
second way, since without padding its branches would not meet.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from impasto.errors import BadRecipe
from impasto.lens.collection import read_again
from impasto.lens.index import Index, check_net, choose_units
from impasto.lens.module import AnyNet, field_in, visit
from impasto.lens.patches import Patch, by_picture, patches_of
from impasto.lens.view import bring
from impasto.nets.geometry import Field, field_of
from impasto.nets.nets import Conv, Net


@dataclass(frozen=True)
class Receipt:
    """A patch's value again: `way` is whole, aligned or exact, `error` how far `value` is from the patch's."""

    way: str
    value: float
    error: float


def without_padding(net: Net) -> Net:
    """The net whose every map is as much smaller as its convolutions are wide: what its places see lies in the picture."""
    return replace(net, layers=tuple(replace(x, padding=0) if isinstance(x, Conv) else x for x in net.layers))


def values_at(net: AnyNet, image: Tensor, layer: str, y: int, x: int) -> Tensor:
    """(C,): what the units of a layer are at place (y, x) of their maps of a picture (1, 3, H, W)."""
    found: list[Tensor] = []
    visit(net, image, {layer}, lambda _, a: found.append(a[0, :, y, x].clone()))
    return found[0]


def whole(net: AnyNet, image: Tensor, layer: str, unit: int, y: int, x: int) -> float:
    """The unit's value at place (y, x) of its map of a picture (1, 3, H, W)."""
    return float(values_at(net, image, layer, y, x)[unit])


def aligned(net: AnyNet, image: Tensor, layer: str, unit: int, y: int, x: int) -> float:
    """The same from a crop in step with the picture's windows at both ends, for a place that sees no padding."""
    field, (height, width) = _known(net, layer), image.shape[-2:]
    x0, y0, x1, y1 = field.box(y, x)
    left, top = x0 - field.left, y0 - field.left
    right, bottom = x1 + (width - x1) % field.stride, y1 + (height - y1) % field.stride
    return whole(net, image[..., top:bottom, left:right], layer, unit, y - top // field.stride, x - left // field.stride)


def exact(net: Net, image: Tensor, layer: str, unit: int, y: int, x: int) -> float:
    """The same from the field alone, for a place that sees no padding."""
    x0, y0, x1, y1 = field_of(net.layers, layer).box(y, x)
    return whole(without_padding(net), image[..., y0:y1, x0:x1], layer, unit, 0, 0)


@torch.no_grad()
def check(net: AnyNet, image: Tensor, layer: str, unit: int, patch: Patch) -> list[Receipt]:
    """Run a patch again in every way there is for it; `image` (1, 3, H, W) is what the net saw of the picture."""
    place = layer, unit, patch.y, patch.x
    if patch.touches_padding is not False:
        values = {"whole": whole(net, image, *place)}
    else:
        values = {"aligned": aligned(net, image, *place)}
        if isinstance(net, Net):
            values["exact"] = exact(net, image, *place)
    return [Receipt(way, value, abs(value - patch.value)) for way, value in values.items()]


def check_layer(
    folder: Path, index: Index, net: AnyNet, layer: str, units: str = "9", seed: int = 0, interior: bool = False
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


# Is the field right?


@dataclass(frozen=True)
class Moved:
    """By how much a layer's units change at a place when noise replaces all pixels `outside` its field, or one edge of it."""

    outside: float
    left: float
    top: float
    right: float
    bottom: float


@torch.no_grad()
def check_field(net: AnyNet, image: Tensor, layer: str, y: int, x: int, seed: int = 0) -> Moved:
    """Hold a layer's field to the net itself, at one place in one picture (1, 3, H, W), by noise drawn by `seed`.

    Outside it must be 0, bit for bit. At an edge 0 means only that these units, here, do not mind these pixels. An edge that lies
    beyond the picture is 0. Raises BadRecipe where the field is unknown.
    """
    x0, y0, x1, y1 = _known(net, layer).box(y, x)
    at_y, at_x = torch.arange(image.shape[-2])[:, None], torch.arange(image.shape[-1])
    inside = (y0 <= at_y) & (at_y < y1) & (x0 <= at_x) & (at_x < x1)
    edges = (at_x == x0, at_y == y0, at_x == x1 - 1, at_y == y1 - 1)
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(seed), dtype=image.dtype)
    before = values_at(net, image, layer, y, x)
    masks = [~inside, *(inside & edge for edge in edges)]
    moved = [values_at(net, torch.where(mask, noise, image), layer, y, x) - before for mask in masks]
    return Moved(*(float(it.abs().max()) for it in moved))


def _known(net: AnyNet, layer: str) -> Field:
    field = field_in(net, layer)
    if field is None:
        raise BadRecipe(f"what a place of {layer} sees is unknown")
    return field
