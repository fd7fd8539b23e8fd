"""The costs to choose from: what each reads of a layer, its target from the style picture, and its formula; all in one unit.

A constant brings every cost to the unit of "gram" (content costs to that of "features"): the ratio of the medians of both at the
start of the descent, photograph against style picture, over pairs of bundled pictures (typical.json). So equal weights have equal
effects.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import prod
from typing import Any

from torch import Tensor

from impasto.images.images import EDGES, Wraps
from impasto.nets.geometry import field_of
from impasto.nets.nets import Conv, Net, channels, layer_name, map_size
from impasto.objective.distances import (
    covariance,
    cross_cost,
    cross_gram,
    directions,
    gaussian_cost,
    moments_cost,
    normal,
    patches_cost,
    patches_of,
    self_similarity,
    sort_places,
    thinned,
    transport_cost,
)
from impasto.objective.losses import gram_cost
from impasto.recipe.recipe import CONTENT_COSTS, Recipe

PATCHES = 2048  # the most patches of a style picture to search
PLACES = 1024  # the most places to compare similarities between
MAP_BYTES = {"sliced": 32, "histogram": 32, "patches": 120, "cross": 8}  # memory for each activation of a map (measured)
COARSE = 4  # least stride in pixels of layers to search patches in: finer ones have too many


@dataclass(frozen=True)
class Reading:
    """What a cost may read of a layer: means over the places of a part of a picture, or the map itself.

    `gram` is (1, C, C), `mean` and `square` (1, C); `map` is (1, C, h, w), `before` the map of the style layer before; `p` (h, w)
    has the weight of each place, None for equal weights. Fields that no cost reads are None. `weights` (C, C) are those of a style
    edit; `wraps` are the axes on which the map is periodic.
    """

    gram: Tensor | None = None
    mean: Tensor | None = None
    square: Tensor | None = None
    map: Tensor | None = None
    before: Tensor | None = None
    p: Tensor | None = None
    weights: Tensor | None = None
    wraps: Wraps = EDGES


@dataclass(frozen=True)
class StyleCost:
    """`reads` are fields of a Reading; `target` takes the style picture's Reading; `cost` takes that target and G's Reading.

    `least` is the shortest side of a map that the cost can read.
    """

    reads: tuple[str, ...]
    target: Callable[[Any], Any]
    cost: Callable[[Any, Any], Tensor]
    least: int = 1


def _covariance(it: Any) -> Tensor:
    return covariance(it.mean, it.gram)


def _projected(it: Any) -> Tensor:
    """The map along random directions, the same at every step, since L-BFGS needs one function."""
    rows: Tensor = directions(it.map.shape[1], 0).to(it.map) @ it.map[0].flatten(1)  # (C, C) @ (C, h w) -> (C, h w)
    return rows


def _channels(it: Any) -> Tensor:
    rows: Tensor = it.map[0].flatten(1)  # (1, C, h, w) -> (C, h w)
    return rows


def _flat(p: Tensor | None) -> Tensor | None:
    return None if p is None else p.flatten()


def _transport(rows: Callable[[Any], Tensor]) -> StyleCost:
    return StyleCost(
        ("map",), lambda it: sort_places(rows(it), _flat(it.p)), lambda target, it: transport_cost(target, rows(it), _flat(it.p))
    )


def _some_patches(it: Any) -> Tensor:
    """(N, 9 C): patches of the style picture; for a part of it, those in the middle of the part."""
    if it.p is None:
        return thinned(patches_of(it.map), PATCHES)
    inner = it.p[1:-1, 1:-1].flatten()
    return thinned(patches_of(it.map)[inner >= inner.max() / 2], PATCHES)


def _cross(it: Any) -> Tensor:
    return cross_gram(it.before, it.map, it.p)


COSTS: dict[str, StyleCost] = {
    "gram": StyleCost(("gram",), lambda it: it.gram, lambda target, it: gram_cost(target, it.gram, it.weights)),
    "covariance": StyleCost(("gram", "mean"), _covariance, lambda target, it: gram_cost(target, _covariance(it))),
    "moments": StyleCost(
        ("mean", "square"),
        lambda it: (it.mean, it.square),
        lambda target, it: moments_cost(target[0], target[1], it.mean, it.square),
    ),
    "w2": StyleCost(
        ("gram", "mean"),
        lambda it: normal(it.mean, _covariance(it)),
        lambda target, it: gaussian_cost(target, it.mean, _covariance(it)),
    ),
    "sliced": _transport(_projected),
    "histogram": _transport(_channels),
    "patches": StyleCost(("map",), _some_patches, lambda target, it: patches_cost(target, it.map, it.p, it.wraps), 3),
    "cross": StyleCost(("map", "before"), _cross, lambda target, it: cross_cost(target, _cross(it))),
}


@cache
def _typical() -> dict[str, dict[str, dict[str, float]]]:
    return json.loads((files("impasto.objective") / "typical.json").read_text())  # type: ignore[no-any-return]


def unit(net: Net, cost: str, layer: str) -> float:
    """The factor that brings a cost of this layer to the unit of "gram" or, for content costs, of "features".

    A pool has that of the convolution before it. For nets that are not in typical.json it is 1.
    """
    base = "features" if cost in CONTENT_COSTS else "gram"
    if cost == base or net.name not in _typical():
        return 1.0
    names = [x.name for x in net.layers]
    down_to = net.layers[: names.index(layer_name(net, layer).removesuffix(":pre")) + 1]
    conv = next(x.name for x in reversed(down_to) if isinstance(x, Conv))
    known = _typical()[net.name]
    return known[base][conv] / known[cost][conv]


def similarity(a: Tensor) -> Tensor:
    """(1, C, h, w) -> (K, K): self_similarity of K places on a regular grid."""
    step = max(1, round((a.shape[2] * a.shape[3] / PLACES) ** 0.5))
    return self_similarity(a[0, :, step // 2 :: step, step // 2 :: step].flatten(1))


def costs_by_layer(recipe: Recipe, net: Net) -> dict[str, list[str]]:
    """{style layer: the costs that read it}, from the shallowest layer.

    "patches" reads layers with a stride of COARSE or more, "cross" those with a style layer before them.
    """
    names = [x.name for x in net.layers]
    layers = sorted(recipe.style_layers, key=lambda layer: names.index(layer_name(net, layer).removesuffix(":pre")))

    coarse = [layer for layer in layers if field_of(net.layers, layer_name(net, layer)).stride >= COARSE]
    read = {"patches": coarse, "cross": layers[1:]}
    chosen = [cost for cost, weight in recipe.style_costs.items() if weight]
    return {layer: [cost for cost in chosen if layer in read.get(cost, layers)] for layer in layers}


def map_cost_memory(recipe: Recipe, net: Net, size: tuple[int, int]) -> float:
    """Bytes that costs of whole maps hold, beside the maps, until the backward pass; size (H, W) is that of the picture."""
    return sum(
        MAP_BYTES.get(cost, 0) * channels(net, layer) * prod(map_size(net, layer, size))
        for layer, costs in costs_by_layer(recipe, net).items()
        for cost in costs
    )
