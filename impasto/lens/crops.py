"""A patch is cropped and run through the net again, which proves that its receptive field is right.

Where the field contains no padding, two ways are exact. `exact`: the field alone, through the net without padding, gives a map of
1 x 1. `aligned`: a crop whose windows align with those of the whole picture (it begins `Field.left` pixels before the field) gives
the value in the net as it is; the field alone would be out of step. Where the field contains padding, or is unknown, the whole
picture is run (`whole`), since padding is added to maps, not to pixels. Modules with branches have no `exact`: without padding the
branches would differ in size.
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
from impasto.lens.view import apply_view
from impasto.nets.geometry import Field, field_of
from impasto.nets.nets import Net, map_convs


@dataclass(frozen=True)
class Recomputed:
    """A patch's value computed again: `way` is whole, aligned or exact, `error` the distance to the patch's value."""

    way: str
    value: float
    error: float


def without_padding(net: Net) -> Net:
    """The net without padding: all receptive fields lie in the picture."""
    return map_convs(net, lambda x: replace(x, padding=0))


def values_at(net: AnyNet, image: Tensor, layer: str, y: int, x: int) -> Tensor:
    """(C,): the activations of a layer at position (y, x), for a picture (1, 3, H, W)."""
    found: list[Tensor] = []
    visit(net, image, {layer}, lambda _, a: found.append(a[0, :, y, x].clone()))
    return found[0]


def whole(net: AnyNet, image: Tensor, layer: str, unit: int, y: int, x: int) -> float:
    """The unit's activation at position (y, x), for a picture (1, 3, H, W)."""
    return float(values_at(net, image, layer, y, x)[unit])


def aligned(net: AnyNet, image: Tensor, layer: str, unit: int, y: int, x: int) -> float:
    """The same from a crop whose windows align with the picture's, for a field without padding."""
    field, (height, width) = _known(net, layer), image.shape[-2:]
    x0, y0, x1, y1 = field.box(y, x)
    left, top = x0 - field.left, y0 - field.left
    right, bottom = x1 + (width - x1) % field.stride, y1 + (height - y1) % field.stride
    return whole(net, image[..., top:bottom, left:right], layer, unit, y - top // field.stride, x - left // field.stride)


def exact(net: Net, image: Tensor, layer: str, unit: int, y: int, x: int) -> float:
    """The same from the field alone through the net without padding, for a field without padding."""
    x0, y0, x1, y1 = field_of(net.layers, layer).box(y, x)
    return whole(without_padding(net), image[..., y0:y1, x0:x1], layer, unit, 0, 0)


@torch.no_grad()
def check(net: AnyNet, image: Tensor, layer: str, unit: int, patch: Patch) -> list[Recomputed]:
    """Compute a patch's value again in every way that applies; `image` (1, 3, H, W) is the net's input."""
    place = layer, unit, patch.y, patch.x
    if patch.touches_padding is not False:
        values = {"whole": whole(net, image, *place)}
    else:
        values = {"aligned": aligned(net, image, *place)}
        if isinstance(net, Net):
            values["exact"] = exact(net, image, *place)
    return [Recomputed(way, value, abs(value - patch.value)) for way, value in values.items()]


def check_layer(
    folder: Path, index: Index, net: AnyNet, layer: str, units: str = "9", seed: int = 0, interior: bool = False
) -> Iterator[tuple[int, Patch, list[Recomputed]]]:
    """(unit, patch, its recomputed values) for patches in the atlas `folder`, picture by picture, from the original pictures.

    `units` as in choose_units. Raises BadRecipe for another net, BadImage for a picture that is gone or has changed.
    """
    check_net(index.setup, net)
    chosen = choose_units(units, index.setup.layers[layer].units, f"{layer} {seed}")
    for row, places in by_picture(patches_of(folder, index, layer, chosen, interior)).items():
        image = apply_view(read_again(row).image, places[0][2].view)
        for unit, _, patch in places:
            yield unit, patch, check(net, image, layer, unit, patch)


# The receptive field, measured


@dataclass(frozen=True)
class FieldEffect:
    """The largest change of a layer's activations at one position after noise replaced pixels `outside` its field or at an edge."""

    outside: float
    left: float
    top: float
    right: float
    bottom: float


@torch.no_grad()
def check_field(net: AnyNet, image: Tensor, layer: str, y: int, x: int, seed: int = 0) -> FieldEffect:
    """Measure the receptive field of position (y, x) in a picture (1, 3, H, W), with noise drawn by `seed`.

    `outside` must be exactly 0. At an edge, 0 means only that these units do not depend on these pixels here. An edge beyond the
    picture is 0. Raises BadRecipe where the field is unknown.
    """
    x0, y0, x1, y1 = _known(net, layer).box(y, x)
    at_y, at_x = torch.arange(image.shape[-2])[:, None], torch.arange(image.shape[-1])
    inside = (y0 <= at_y) & (at_y < y1) & (x0 <= at_x) & (at_x < x1)
    edges = (at_x == x0, at_y == y0, at_x == x1 - 1, at_y == y1 - 1)
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(seed), dtype=image.dtype)
    before = values_at(net, image, layer, y, x)
    masks = [~inside, *(inside & edge for edge in edges)]
    moved = [values_at(net, torch.where(mask, noise, image), layer, y, x) - before for mask in masks]
    return FieldEffect(*(float(it.abs().max()) for it in moved))


def _known(net: AnyNet, layer: str) -> Field:
    field = field_in(net, layer)
    if field is None:
        raise BadRecipe(f"the receptive field of {layer} is unknown")
    return field
