"""The costs to choose from: what each reads of a layer, what it keeps of the painting, how it compares; all in one unit.

Every cost is brought to the unit of the Gram matrices' (features', for content) by a constant: the medians of both at the
start, the photograph against the painting, over pairs of bundled pictures (typical.json). So a weight means as much for one
as for another.
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

PATCHES = 2048  # of a painting that are searched at most
PLACES = 1024  # between which similarities are compared at most
KEPT = {"sliced": 32, "histogram": 32, "patches": 120, "cross": 8}  # bytes an activation, of costs that read whole maps (measured)
COARSE = 4  # pixels a place: patches of finer layers are too many to search


@dataclass(frozen=True)
class Reading:
    """What a cost may read of a layer: means over the places of a part of a picture, or the map itself.

    `gram` (1, C, C), `mean` and `square` (1, C); `map` (1, C, h, w), and of the style layer `before`; `p` (h, w) what each place
    weighs, None for all alike. What a cost does not ask for is None. `weights` (C, C) are those of a style edit; `wraps` says
    whether the map goes on at its other side.
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
    """`reads` are fields of a Reading; `target` is what is kept of the painting's; `cost` compares it with G's: a scalar.

    `least` is the shortest side of a map that it can be read of.
    """

    reads: tuple[str, ...]
    target: Callable[[Any], Any]
    cost: Callable[[Any, Any], Tensor]
    least: int = 1


def _covariance(it: Any) -> Tensor:
    return covariance(it.mean, it.gram)


def _turned(it: Any) -> Tensor:
    """(C, K): the map along random directions, the same at every step, since L-BFGS needs one function."""
    rows: Tensor = directions(it.map.shape[1], 0).to(it.map) @ it.map[0].flatten(1)
    return rows


def _own(it: Any) -> Tensor:
    rows: Tensor = it.map[0].flatten(1)
    return rows


def _flat(p: Tensor | None) -> Tensor | None:
    return None if p is None else p.flatten()


def _transport(rows: Callable[[Any], Tensor]) -> StyleCost:
    return StyleCost(
        ("map",), lambda it: sort_places(rows(it), _flat(it.p)), lambda target, it: transport_cost(target, rows(it), _flat(it.p))
    )


def _some_patches(it: Any) -> Tensor:
    """The painting's; of a part those in its middle."""
    if it.p is None:
        return thinned(patches_of(it.map), PATCHES)
    inner = it.p[1:-1, 1:-1].flatten()
    return thinned(patches_of(it.map)[inner >= inner.max() / 2], PATCHES)


def _cross(it: Any) -> Tensor:
    return cross_gram(it.before, it.map, it.p)


HOW: dict[str, StyleCost] = {
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
    "sliced": _transport(_turned),
    "histogram": _transport(_own),
    "patches": StyleCost(("map",), _some_patches, lambda target, it: patches_cost(target, it.map, it.p, it.wraps), 3),
    "cross": StyleCost(("map", "before"), _cross, lambda target, it: cross_cost(target, _cross(it))),
}


@cache
def _typical() -> dict[str, dict[str, dict[str, float]]]:
    return json.loads((files("impasto.objective") / "typical.json").read_text())  # type: ignore[no-any-return]


def unit(net: Net, cost: str, layer: str) -> float:
    """What a cost of this layer is multiplied by to be in the unit of "gram" or, of content, of "features".

    A pool has the unit of the convolution before it. A net whose costs were not measured has none: they count as they are.
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
    """(1, C, h, w) -> (K, K): self_similarity of places on a regular grid."""
    step = max(1, round((a.shape[2] * a.shape[3] / PLACES) ** 0.5))
    return self_similarity(a[0, :, step // 2 :: step, step // 2 :: step].flatten(1))


def wants_of(recipe: Recipe, net: Net) -> dict[str, list[str]]:
    """{style layer, from the shallowest: the costs that read it}.

    Patches are read where places are COARSE, cross where there is a layer before.
    """
    names = [x.name for x in net.layers]
    layers = sorted(recipe.style_layers, key=lambda layer: names.index(layer_name(net, layer).removesuffix(":pre")))

    coarse = [layer for layer in layers if field_of(net.layers, layer_name(net, layer)).stride >= COARSE]
    read = {"patches": coarse, "cross": layers[1:]}
    chosen = [cost for cost, weight in recipe.style_costs.items() if weight]
    return {layer: [cost for cost in chosen if layer in read.get(cost, layers)] for layer in layers}


def kept_memory(recipe: Recipe, net: Net, size: tuple[int, int]) -> float:
    """Bytes that costs of whole maps keep beside the maps until the way back, for a picture of this size (H, W)."""
    return sum(
        KEPT.get(cost, 0) * channels(net, layer) * prod(map_size(net, layer, size))
        for layer, costs in wants_of(recipe, net).items()
        for cost in costs
    )
