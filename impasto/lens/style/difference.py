"""Where two styles differ: the style cost between them, decomposed exactly into layers, units, pairs and positions.

E_l = sum_ij W_ij D_ij^2 / (4 n_C^2) with D = G/M - A, where A is the target and W the weights of a style edit, 1 without one
(Gatys et al. 2015, eq. 4). With w = W D, over the positions p of the generated picture: E_l = sum_p [a_p^T w a_p - <w, A>] /
(4 n_C^2 M), a signed map. Positive positions increase the cost, negative ones reduce it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from impasto.lens.style.reading import cross
from impasto.nets.nets import Net, features
from impasto.objective.losses import edited_gram, entry_weights
from impasto.recipe.recipe import Recipe


@dataclass(frozen=True)
class Difference:
    """A layer's style cost, decomposed: `pairs` (C, C) and `places` (h, w) each sum to `cost`; `excess` (C, C) is D = G/M - A.

    `weight` is the layer's weight in J_style: lambda_l, times 4 where the recipe takes means.
    """

    layer: str
    cost: float
    weight: float
    excess: Tensor
    pairs: Tensor
    places: Tensor

    @property
    def units(self) -> Tensor:
        """(C,): each unit's part of the cost, half of every pair that contains it; sums to `cost`."""
        return self.pairs.sum(1)


def difference(layer: str, target: Tensor, maps: Tensor, weights: Tensor | None = None, weight: float = 1.0) -> Difference:
    """The target A (C, C) and the maps (C, h, w) of the generated picture -> the decomposed cost between them, in float64."""
    n_C, places = len(maps), maps[0].numel()
    excess = cross(maps, maps) / places - target.double()
    weighted = excess if weights is None else weights.double() * excess
    pairs = weighted * excess / (4 * n_C**2)
    return Difference(layer, float(pairs.sum()), weight, excess, pairs, _signed(maps, weighted, target) / (4 * n_C**2 * places))


def _signed(maps: Tensor, weighted: Tensor, target: Tensor) -> Tensor:
    """(h, w): a_p^T w a_p - <w, A>, computed row by row."""
    rows = [torch.einsum("cx,cd,dx->x", a.double(), weighted, a.double()) for a in maps.unbind(1)]
    return torch.stack(rows) - (weighted * target.double()).sum()


@torch.no_grad()
def targets_of(painting: Tensor, recipe: Recipe, net: Net) -> dict[str, Tensor]:
    """The style picture (1, 3, H, W) at its final size -> {layer: target A (C, C)}: G / M with the recipe's style edit."""
    found = {}
    for layer, a in features(net, painting, recipe.style_layers).items():
        gram = cross(a[0], a[0])[None] / a[0, 0].numel()
        edit = recipe.style_edit.get(layer)
        found[layer] = (gram if edit is None else edited_gram(gram, edit))[0]
    return found


@torch.no_grad()
def differences(targets: Mapping[str, Tensor], image: Tensor, recipe: Recipe, net: Net) -> list[Difference]:
    """The style cost of a picture (1, 3, H, W), decomposed layer by layer; the sum of weight * cost is J_style."""
    scale = {"paper": 1.0, "mean": 4.0}[recipe.style_norm]
    found = []
    for layer, a in features(net, image, targets).items():
        edit = recipe.style_edit.get(layer)
        weights = None if edit is None else entry_weights(edit, len(a[0]))
        found.append(difference(layer, targets[layer], a[0], weights, scale * recipe.style_layers[layer]))
    return found


def style_cost_of(found: Sequence[Difference]) -> float:
    """J_style: the weighted sum of the layers' costs."""
    return sum(it.weight * it.cost for it in found)
