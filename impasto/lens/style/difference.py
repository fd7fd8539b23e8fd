"""Where two styles differ: the style cost between them, divided exactly among layers, units, pairs and places.

E_l = sum_ij W_ij D_ij^2 / (4 n_C^2) with D = G/M - A, A the target and W the weights of a style edit, 1 without (Gatys et al. 2015,
eq. 4). With w = W D, of the places p of the generated picture: E_l = sum_p [a_p^T w a_p - <w, A>] / (4 n_C^2 M), a map with a sign.
Where it is positive a place brings the picture away from the painting, where it is negative towards it.
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
    """What a layer's style cost is made of: `pairs` (C, C) and `places` (h, w) both sum to `cost`; `excess` (C, C) is D = G/M - A.

    `weight` is what the layer's cost counts in the style cost: lambda_l, times 4 where the recipe takes means.
    """

    layer: str
    cost: float
    weight: float
    excess: Tensor
    pairs: Tensor
    places: Tensor

    @property
    def units(self) -> Tensor:
        """(C,): each unit's share, half of every pair that it is in; sums to the cost."""
        return self.pairs.sum(1)


def difference(layer: str, target: Tensor, maps: Tensor, weights: Tensor | None = None, weight: float = 1.0) -> Difference:
    """A (C, C) and the maps (C, h, w) of the picture that is to have it -> the cost between them, taken apart, in float64."""
    n_C, places = len(maps), maps[0].numel()
    excess = cross(maps, maps) / places - target.double()
    weighted = excess if weights is None else weights.double() * excess
    pairs = weighted * excess / (4 * n_C**2)
    return Difference(layer, float(pairs.sum()), weight, excess, pairs, _signed(maps, weighted, target) / (4 * n_C**2 * places))


def _signed(maps: Tensor, weighted: Tensor, target: Tensor) -> Tensor:
    """(h, w): a_p^T w a_p - <w, A>, row by row of places."""
    rows = [torch.einsum("cx,cd,dx->x", a.double(), weighted, a.double()) for a in maps.unbind(1)]
    return torch.stack(rows) - (weighted * target.double()).sum()


@torch.no_grad()
def targets_of(painting: Tensor, recipe: Recipe, net: Net) -> dict[str, Tensor]:
    """(1, 3, H, W), at its size -> {layer: (C, C)}: what a picture by this recipe is to have, G / M with the edit."""
    found = {}
    for layer, a in features(net, painting, recipe.style_layers).items():
        gram = cross(a[0], a[0])[None] / a[0, 0].numel()
        edit = recipe.style_edit.get(layer)
        found[layer] = (gram if edit is None else edited_gram(gram, edit))[0]
    return found


@torch.no_grad()
def differences(targets: Mapping[str, Tensor], image: Tensor, recipe: Recipe, net: Net) -> list[Difference]:
    """The style cost of a picture (1, 3, H, W) under a recipe, taken apart layer by layer: sum of weight times cost is J_style."""
    scale = {"paper": 1.0, "mean": 4.0}[recipe.style_norm]
    found = []
    for layer, a in features(net, image, targets).items():
        edit = recipe.style_edit.get(layer)
        weights = None if edit is None else entry_weights(edit, len(a[0]))
        found.append(difference(layer, targets[layer], a[0], weights, scale * recipe.style_layers[layer]))
    return found


def style_of(found: Sequence[Difference]) -> float:
    """J_style: what the layers' costs count."""
    return sum(it.weight * it.cost for it in found)
