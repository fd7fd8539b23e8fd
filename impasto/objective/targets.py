"""What a picture is compared with: its parts, the paintings' statistics in each of them, the photograph's activations.

Costs are functions of sums over places and of maps, so that tiles.py can take them apart; style_costs.py says what each cost reads.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from math import prod
from typing import Any

import torch
from torch import Tensor

from impasto.cache import Cache
from impasto.errors import ImpastoWarning
from impasto.images.images import resize, size_of
from impasto.nets.nets import Net, map_size
from impasto.objective.distances import weighted_gram
from impasto.objective.framing import framed, style_at, wrapping
from impasto.objective.losses import edited_gram, gram_matrix
from impasto.objective.masks import FAINT, NO_MASKS, Masks, place_weights, shares
from impasto.objective.style_costs import HOW, Reading, wants_of
from impasto.objective.tiles import Sum, Tiling, add_up
from impasto.recipe.edit import LayerEdit, pair_of
from impasto.recipe.recipe import Recipe

Places = dict[str, Tensor | None]
STYLE_KNOBS = {"style_layers", "style_costs", "style_edit", "style_rotation", "padding", "seamless"}  # that style targets depend on
MISSED, BELOW = 0.1, 0.01  # of what a style edit asks of a pair, and of a target below 0, by its norm: from here on it is told


def _gram_sum(p: Tensor | None, a: Tensor, at: tuple[slice, slice]) -> Tensor:
    return gram_matrix(a) if p is None else weighted_gram(a, p[at])


def _sum(p: Tensor | None, a: Tensor, at: tuple[slice, slice]) -> Tensor:
    return (a if p is None else a * p[at]).sum((2, 3))


def _square_sum(p: Tensor | None, a: Tensor, at: tuple[slice, slice]) -> Tensor:
    return _sum(p, a.square(), at)


# What is read of a layer and adds up over its places.
OVER_PLACES: dict[str, Callable[[Tensor | None, Tensor, tuple[slice, slice]], Tensor]] = {
    "gram": _gram_sum,
    "mean": _sum,
    "square": _square_sum,
}


@dataclass(frozen=True)
class Part:
    """A part of the picture that is painted in its own way: `where` (1, 1, H, W), None everywhere, and what its costs count.

    `paintings` are (number of the style picture, its mask or None).
    """

    where: Tensor | None
    style_weight: float
    content_weight: float
    paintings: tuple[tuple[int, Tensor | None], ...]

    @cached_property
    def area(self) -> float:
        """Its share of the picture."""
        return 1.0 if self.where is None else float(self.where.mean())

    def shares(self, recipe: Recipe, layer: str = "") -> list[float]:
        """The weights of its paintings, in this layer where the style edit says so; they sum to 1."""
        return style_shares(recipe, len(self.paintings), layer) if len(self.paintings) > 1 else [1.0]


@dataclass(frozen=True)
class Targets:
    """What G is compared with at one size.

    `content` is {layer: (1, C, h, w)} of C, `styles` of each part {layer: [{cost: target} of each of its paintings]}; `size` (H, W)
    is C's, `picture` C itself where a cost wants it.
    """

    content: dict[str, Tensor]
    parts: tuple[Part, ...]
    styles: tuple[dict[str, list[dict[str, Any]]], ...]
    size: tuple[int, int]
    picture: Tensor | None

    def content_weights(self) -> Tensor | None:
        """(1, 1, H, W): how much content counts where, None for 1 everywhere."""
        weights = [part.content_weight * part.where for part in self.parts if part.where is not None]
        return reduce(torch.add, weights) if weights else None


def parts_of(content: Tensor, styles: int, recipe: Recipe, masks: Masks) -> tuple[Part, ...]:
    """The parts of a content picture at its size: the regions, and what is left of it; where regions overlap they share.

    `styles` counts the paintings behind the given ones too. Masks are as they were read.
    """
    given = styles - sum(map(len, masks.matched.values()))
    everything = tuple((n, None) for n in range(given))
    if not masks.content:
        return (Part(None, 1.0, 1.0, everything),)
    size = size_of(content)
    brought = {name: resize(framed(mask, recipe), size, recipe.wraps, content) for name, mask in masks.content.items()}
    where = shares({name: mask.to(content) for name, mask in brought.items()})
    parts = []
    for name, region in recipe.all_regions().items():
        paintings = tuple((n, masks.style.get(name)) for n in masks.matched.get(name, region.paintings(given)))
        parts.append(Part(where[name], region.style_weight, region.content_weight, paintings))
    rest = (1 - sum(where.values(), content.new_zeros(()))).clamp(min=0)
    left = Part(rest, 1.0, 1.0, everything)
    return (*parts, left) if left.area > FAINT else tuple(parts)


def make_targets(
    content: Tensor,
    styles: Sequence[Tensor],
    recipe: Recipe,
    net: Net,
    tiling: Tiling | None = None,
    masks: Masks = NO_MASKS,
    cache: Cache | None = None,
) -> Targets:
    """What G is compared with, for a content picture already framed and at its size; style pictures and masks are as read.

    What a painting before this one compared with of the same style picture is in the `cache`, unless it is as large as maps.
    """
    seeing = wrapping(net, recipe)
    side = style_side(max(content.shape[-2:]), recipe)
    cache = cache if cache and not _reads_maps(recipe, net) else Cache()
    key = (side, tiling, recipe.model_dump_json(include=STYLE_KNOBS))
    with torch.no_grad():
        parts = parts_of(content, len(styles), recipe, masks)
        found = {}
        for n, mask in dict.fromkeys(painting for part in parts for painting in part.paintings if part.style_weight):
            where = None if mask is None else style_at(mask, side, recipe, content).to(content)
            style = partial(style_at, styles[n], side, recipe, content)
            make = partial(_style_targets, style, recipe, seeing, tiling, where)
            found[n, mask] = cache.get_or_make((*key, n, mask is None), (styles[n], mask, net), make)
        activations = activations_of(content, recipe.content_layers, seeing, tiling)

    def of(part: Part) -> dict[str, list[dict[str, Any]]]:
        layers = recipe.style_layers if part.style_weight and part.paintings else ()
        return {layer: [found[painting][layer] for painting in part.paintings] for layer in layers}

    original = content if recipe.content_costs.get("laplacian") else None
    return Targets(activations, parts, tuple(of(part) for part in parts), size_of(content), original)


def _reads_maps(recipe: Recipe, net: Net) -> bool:
    return any({"map", "before"} & set(HOW[cost].reads) for costs in wants_of(recipe, net).values() for cost in costs)


def _style_targets(
    brought: Callable[[], Tensor], recipe: Recipe, net: Net, tiling: Tiling | None, where: Tensor | None
) -> dict[str, dict[str, Any]]:
    """{layer: {cost: target}} of a painting, as it is brought to its size, or of the part of it under the mask."""
    style = brought()
    size = size_of(style)
    wants = wants_of(recipe, net)
    places = places_of(wants, net, size, where)
    sums = style_sums(wants, [places])
    readings = readings_of(add_up(net, style, sums, tiling) if sums else {}, net, size, places, 0)
    targets = {layer: {cost: HOW[cost].target(it) for cost in wants[layer]} for layer, it in readings.items()}
    for layer, by_cost in targets.items():
        if "gram" in by_cost:
            by_cost["gram"] = _edited(by_cost["gram"], layer, recipe)
    return targets


def places_of(wants: Iterable[str], net: Net, size: tuple[int, int], where: Tensor | None) -> Places:
    """{style layer: what each place of its map weighs for a part of a picture of this size}; None for all alike."""
    return {layer: None if where is None else place_weights(where, map_size(net, layer, size)) for layer in wants}


def style_sums(wants: Mapping[str, list[str]], parts: Sequence[Places]) -> dict[str, Sum]:
    """The sums that the costs need, of each part; maps are of the whole."""
    sums: dict[str, Sum] = {}
    for before, layer in zip([None, *wants], wants, strict=False):
        reads = {read for cost in wants[layer] for read in HOW[cost].reads}
        for n, places in enumerate(parts):
            over_places = {read: partial(of, places[layer]) for read, of in OVER_PLACES.items() if read in reads}
            sums |= {f"{read} {layer} {n}": Sum(layer, of) for read, of in over_places.items()}
        maps = {"map": layer, "before": before}
        sums |= {f"map {its}": Sum(its, None) for read, its in maps.items() if read in reads and its}
    return sums


def readings_of(
    found: Mapping[str, Tensor],
    net: Net,
    size: tuple[int, int],
    places: Places,
    n: int,
    weights: Mapping[str, Tensor | None] | None = None,
) -> dict[str, Reading]:
    """{layer: what the costs read of it} for part n, out of the sums."""
    readings = {}
    for before, (layer, p) in zip([None, *places], places.items(), strict=False):
        count = prod(map_size(net, layer, size)) if p is None else 1
        means = {read: found[key] / count for read in OVER_PLACES if (key := f"{read} {layer} {n}") in found}
        maps = {"map": found.get(f"map {layer}"), "before": found.get(f"map {before}"), "p": p}
        readings[layer] = Reading(**means, **maps, weights=None if weights is None else weights[layer], wraps=net.wraps)
    return readings


def _edited(gram: Tensor, layer: str, recipe: Recipe) -> Tensor:
    """The target as the style edit wants it; what rectified activations cannot reach of it is told."""
    edit = recipe.style_edit.get(layer)
    if edit is None:
        return gram
    target = edited_gram(gram, edit)
    for pair, asked, reached in reach(gram, target, edit):
        said = f"{layer}: the pair {pair} is to be {asked:.3g} times what it is, {reached:.3g} times is what can be reached"
        warnings.warn(said, ImpastoWarning, stacklevel=2)
    if (below := float(target.clamp(max=0).norm() / target.norm())) > BELOW:
        said = f"{layer}: {100 * below:.2g} % of the edited style is below 0, which rectified activations cannot reach"
        warnings.warn(said, ImpastoWarning, stacklevel=2)
    return target


def reach(gram: Tensor, target: Tensor, edit: LayerEdit) -> Iterator[tuple[str, float, float]]:
    """Of the edit's pairs that miss by a tenth what was asked: the pair, how many times what it was, how many times is reached."""
    asked = edited_gram(gram, edit.model_copy(update={"pairs": {}}))
    for pair, part in edit.pairs.items():
        i, j = pair_of(pair)
        was, is_, wanted = (float(it[0, i, j]) for it in (gram, target, part.gain * asked))
        if was and abs(is_ - wanted) > MISSED * wanted:
            yield pair, wanted / was, is_ / was


def activations_of(image: Tensor, layers: Iterable[str], net: Net, tiling: Tiling | None) -> dict[str, Tensor]:
    """(1, 3, H, W) -> {layer: (1, C, h, w)}, gathered from the tiles."""
    sums = {layer: Sum(layer, None) for layer in layers}
    return add_up(net, image, sums, tiling) if sums else {}


def style_shares(recipe: Recipe, styles: int, layer: str = "") -> list[float]:
    """The weight of each style picture, in this layer where the style edit says so; they sum to 1."""
    edit = recipe.style_edit.get(layer)
    weights = (edit and edit.paintings) or recipe.style_weights or (1.0,) * styles
    return [weight / sum(weights) for weight in weights]


def style_side(side: int, recipe: Recipe) -> int:
    """The longer side of a style picture beside a painting of this longer side."""
    return round(side * recipe.style_scale)
