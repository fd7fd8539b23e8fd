"""What G is compared with: the parts of the picture, the statistics of the style pictures in each, the content's activations.

Costs are functions of sums over places and of maps, so that tiles.py can compute them in tiles; style_costs.py says what each cost
reads.
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
from impasto.objective.framing import framed, periodic_net, style_at
from impasto.objective.losses import edited_gram, gram_matrix
from impasto.objective.masks import FAINT, NO_MASKS, Masks, busyness, place_weights, product, shares
from impasto.objective.style_costs import COSTS, Reading, costs_by_layer
from impasto.objective.tiles import Area, Sum, Tiling, add_up
from impasto.recipe.edit import LayerEdit, pair_of
from impasto.recipe.recipe import Recipe

PlaceWeights = dict[str, Tensor | None]  # {layer: (h, w) that sum to 1}; None where all places count alike
STYLE_KNOBS = {"style_layers", "style_costs", "style_edit", "style_rotation", "padding", "seamless"}  # that style targets depend on
# A style edit warns when a pair misses its target by this share, and when this share of a target's norm is negative.
MISSED, NEGATIVE = 0.1, 0.01


def _gram_sum(p: Tensor | None, a: Tensor, area: Area) -> Tensor:
    return gram_matrix(a) if p is None else weighted_gram(a, p[area])  # (1, C, h, w) -> (1, C, C)


def _sum(p: Tensor | None, a: Tensor, area: Area) -> Tensor:
    return (a if p is None else a * p[area]).sum((2, 3))  # (1, C, h, w) -> (1, C)


def _square_sum(p: Tensor | None, a: Tensor, area: Area) -> Tensor:
    return _sum(p, a.square(), area)


# Statistics of a layer that are sums over its places.
OVER_PLACES: dict[str, Callable[[Tensor | None, Tensor, Area], Tensor]] = {
    "gram": _gram_sum,
    "mean": _sum,
    "square": _square_sum,
}


@dataclass(frozen=True)
class Part:
    """A part of the picture with its own style and weights; its mask (1, 1, H, W) is None for the whole picture.

    `styles` are (number of the style picture, mask of that picture or None).
    """

    mask: Tensor | None
    style_weight: float
    content_weight: float
    styles: tuple[tuple[int, Tensor | None], ...]

    @cached_property
    def area(self) -> float:
        """Its share of the picture."""
        return 1.0 if self.mask is None else float(self.mask.mean())

    def shares(self, recipe: Recipe, layer: str = "") -> list[float]:
        """The weights of its style pictures, which sum to 1; a style edit can have its own for a layer."""
        return style_shares(recipe, len(self.styles), layer) if len(self.styles) > 1 else [1.0]


@dataclass(frozen=True)
class Targets:
    """What G is compared with at one scale.

    `content` is {layer: (1, C, h, w)}, the activations of the content picture; `styles` has for each part
    {layer: [{cost: target} for each of its style pictures]}; `size` is (H, W) of the content picture, and `picture` the content
    picture itself if a cost compares pixels; `busy` (1, 1, H, W) is the weight of the style at each pixel, None for 1 everywhere.
    """

    content: dict[str, Tensor]
    parts: tuple[Part, ...]
    styles: tuple[dict[str, list[dict[str, Any]]], ...]
    size: tuple[int, int]
    picture: Tensor | None
    busy: Tensor | None = None

    def content_weights(self) -> Tensor | None:
        """(1, 1, H, W): the weight of the content at each pixel; None for 1 everywhere."""
        weights = [part.content_weight * part.mask for part in self.parts if part.mask is not None]
        return reduce(torch.add, weights) if weights else None

    def style_mask(self, part: Part) -> Tensor | None:
        """(1, 1, H, W): the weight of the part's style at each pixel; None for 1 everywhere."""
        return product(part.mask, self.busy)


def parts_of(content: Tensor, styles: int, recipe: Recipe, masks: Masks) -> tuple[Part, ...]:
    """The parts of a scaled content picture: the regions, which share the pixels where they overlap, and the rest.

    `styles` counts all style pictures, recoloured ones for regions included (recolored_inputs). Masks are as they were read.
    """
    given = styles - sum(map(len, masks.recolored.values()))
    all_styles = tuple((n, None) for n in range(given))
    if not masks.content:
        return (Part(None, 1.0, 1.0, all_styles),)
    size = size_of(content)
    scaled = {name: resize(framed(mask, recipe), size, recipe.wraps, content) for name, mask in masks.content.items()}
    mask_of = shares({name: mask.to(content) for name, mask in scaled.items()})
    parts = []
    for name, region in recipe.all_regions().items():
        its_styles = tuple((n, masks.style.get(name)) for n in masks.recolored.get(name, region.style_numbers(given)))
        parts.append(Part(mask_of[name], region.style_weight, region.content_weight, its_styles))
    rest = Part((1 - sum(mask_of.values(), content.new_zeros(()))).clamp(min=0), 1.0, 1.0, all_styles)
    return (*parts, rest) if rest.area > FAINT else tuple(parts)


def make_targets(
    content: Tensor,
    styles: Sequence[Tensor],
    recipe: Recipe,
    net: Net,
    tiling: Tiling | None = None,
    masks: Masks = NO_MASKS,
    cache: Cache | None = None,
) -> Targets:
    """The targets for a content picture that is already framed and scaled; style pictures and masks are as they were read.

    The `cache` holds the style targets of earlier paintings, unless a cost reads whole maps.
    """
    periodic = periodic_net(net, recipe)
    side = style_side(max(content.shape[-2:]), recipe)
    cache = cache if cache and not _reads_maps(recipe, net) else Cache()
    key = (side, tiling, recipe.model_dump_json(include=STYLE_KNOBS))
    with torch.no_grad():
        parts = parts_of(content, len(styles), recipe, masks)
        found = {}
        for n, mask in dict.fromkeys(style for part in parts for style in part.styles if part.style_weight):
            scaled_mask = None if mask is None else style_at(mask, side, recipe, content).to(content)
            scaled_style = partial(style_at, styles[n], side, recipe, content)
            make = partial(_style_targets, scaled_style, recipe, periodic, tiling, scaled_mask)
            found[n, mask] = cache.get_or_make((*key, n, mask is None), (styles[n], mask, net), make)
        activations = activations_of(content, recipe.content_layers, periodic, tiling)

    def targets_of(part: Part) -> dict[str, list[dict[str, Any]]]:
        layers = recipe.style_layers if part.style_weight and part.styles else ()
        return {layer: [found[style][layer] for style in part.styles] for layer in layers}

    picture = content if recipe.content_costs.get("laplacian") else None
    styled = tuple(map(targets_of, parts))
    return Targets(activations, parts, styled, size_of(content), picture, busyness(content, recipe))


def _reads_maps(recipe: Recipe, net: Net) -> bool:
    return any({"map", "before"} & set(COSTS[cost].reads) for costs in costs_by_layer(recipe, net).values() for cost in costs)


def _style_targets(
    scaled_style: Callable[[], Tensor], recipe: Recipe, net: Net, tiling: Tiling | None, mask: Tensor | None
) -> dict[str, dict[str, Any]]:
    """{layer: {cost: target}} of a scaled style picture, or of the part of it under the mask (1, 1, H, W)."""
    style = scaled_style()  # (1, 3, H, W)
    size = size_of(style)
    costs = costs_by_layer(recipe, net)
    weights = layer_weights(costs, net, size, mask)
    sums = style_sums(costs, [weights])
    readings = readings_of(add_up(net, style, sums, tiling) if sums else {}, net, size, weights, 0)
    targets = {layer: {cost: COSTS[cost].target(it) for cost in costs[layer]} for layer, it in readings.items()}
    for layer, by_cost in targets.items():
        if "gram" in by_cost:
            by_cost["gram"] = _edited(by_cost["gram"], layer, recipe)
    return targets


def layer_weights(layers: Iterable[str], net: Net, size: tuple[int, int], mask: Tensor | None) -> PlaceWeights:
    """{layer: the weight (h, w) of each place of its map} by the mask (1, 1, H, W) of a picture of this size (H, W)."""
    return {layer: None if mask is None else place_weights(mask, map_size(net, layer, size)) for layer in layers}


def style_sums(costs: Mapping[str, list[str]], parts: Sequence[PlaceWeights]) -> dict[str, Sum]:
    """The sums that these costs of each layer read, for each part; maps are those of the whole picture."""
    sums: dict[str, Sum] = {}
    for before, layer in zip([None, *costs], costs, strict=False):
        reads = {read for cost in costs[layer] for read in COSTS[cost].reads}
        for n, weights in enumerate(parts):
            over_places = {read: partial(of, weights[layer]) for read, of in OVER_PLACES.items() if read in reads}
            sums |= {f"{read} {layer} {n}": Sum(layer, of) for read, of in over_places.items()}
        maps = {"map": layer, "before": before}
        sums |= {f"map {its}": Sum(its, None) for read, its in maps.items() if read in reads and its}
    return sums


def readings_of(
    found: Mapping[str, Tensor],
    net: Net,
    size: tuple[int, int],
    place_weights: PlaceWeights,
    n: int,
    entry_weights: Mapping[str, Tensor | None] | None = None,
) -> dict[str, Reading]:
    """{layer: what the costs read of it} for part n of a picture of this size (H, W), from the sums found."""
    readings = {}
    for before, (layer, p) in zip([None, *place_weights], place_weights.items(), strict=False):
        count = prod(map_size(net, layer, size)) if p is None else 1  # p sums to 1
        means = {read: found[key] / count for read in OVER_PLACES if (key := f"{read} {layer} {n}") in found}
        maps = {"map": found.get(f"map {layer}"), "before": found.get(f"map {before}"), "p": p}
        weights = None if entry_weights is None else entry_weights[layer]
        readings[layer] = Reading(**means, **maps, weights=weights, wraps=net.wraps)
    return readings


def _edited(gram: Tensor, layer: str, recipe: Recipe) -> Tensor:
    """(1, C, C) as the style edit changes it; warns of entries that activations, which are never negative, cannot reach."""
    edit = recipe.style_edit.get(layer)
    if edit is None:
        return gram
    target = edited_gram(gram, edit)
    for pair, requested, reached in missed_pairs(gram, target, edit):
        message = f"the pair {pair} should become {requested:.3g} times as strong, but {reached:.3g} times is the nearest possible"
        warnings.warn(f"{layer}: {message}", ImpastoWarning, stacklevel=2)
    if (negative := float(target.clamp(max=0).norm() / target.norm())) > NEGATIVE:
        message = f"{layer}: {100 * negative:.2g} % of the edited style is negative, which activations after a ReLU cannot reach"
        warnings.warn(message, ImpastoWarning, stacklevel=2)
    return target


def missed_pairs(gram: Tensor, target: Tensor, edit: LayerEdit) -> Iterator[tuple[str, float, float]]:
    """The edit's pairs that cannot be reached: the pair, its requested factor and the factor that can be reached."""
    requested = edited_gram(gram, edit.model_copy(update={"pairs": {}}))
    for pair, part in edit.pairs.items():
        i, j = pair_of(pair)
        before, after, wanted = (float(it[0, i, j]) for it in (gram, target, part.gain * requested))
        if before and abs(after - wanted) > MISSED * wanted:
            yield pair, wanted / before, after / before


def activations_of(image: Tensor, layers: Iterable[str], net: Net, tiling: Tiling | None) -> dict[str, Tensor]:
    """(1, 3, H, W) -> {layer: (1, C, h, w)}, assembled from tiles where there is a tiling."""
    sums = {layer: Sum(layer, None) for layer in layers}
    return add_up(net, image, sums, tiling) if sums else {}


def style_shares(recipe: Recipe, styles: int, layer: str = "") -> list[float]:
    """The weight of each style picture; they sum to 1. A style edit can have its own for a layer."""
    edit = recipe.style_edit.get(layer)
    weights = (edit and edit.paintings) or recipe.style_weights or (1.0,) * styles
    return [weight / sum(weights) for weight in weights]


def style_side(side: int, recipe: Recipe) -> int:
    """The longer side of a style picture beside a painting of this longer side."""
    return round(side * recipe.style_scale)
