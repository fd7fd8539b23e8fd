"""J of a picture by a recipe: what G is compared with, and the cost (Gatys, Ecker & Bethge 2015, arXiv:1508.06576).

J(G) = alpha J_content(C, G) + beta J_style(S, G). Costs are functions of sums over places, so that tiles.py can take them apart.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor

from impasto.descent import Cost
from impasto.edit import LayerEdit, pair_of
from impasto.errors import ImpastoWarning
from impasto.images import resize, scaled_size
from impasto.losses import content_cost, edited_gram, entry_weights, gram_cost, gram_matrix, total_cost, total_variation
from impasto.nets import Net, channels, features, map_size
from impasto.recipe import Recipe
from impasto.tiles import Sum, Tiling, add_up, tiled_cost

MISSED, BELOW = 0.1, 0.01  # of what a style edit asks of a pair, and of a target below 0, by its norm: from here on it is told
SILENT = 1e-12  # sum of squares of a map that is taken for silent


@dataclass(frozen=True)
class Targets:
    """What G is compared with at one size: {layer: (1, C, h, w)} of C, {layer: [(1, C, C) of each S]}."""

    content: dict[str, Tensor]
    grams: dict[str, list[Tensor]]


def make_targets(content: Tensor, styles: Sequence[Tensor], recipe: Recipe, net: Net, tiling: Tiling | None = None) -> Targets:
    """The activations and Gram matrices that G is compared with, for a content picture already at its size."""
    side = style_side(max(content.shape[-2:]), recipe)
    with torch.no_grad():
        grams = [mean_grams(resize(style, scaled_size(style, side)), recipe.style_layers, net, tiling) for style in styles]
        activations = activations_of(content, recipe.content_layers, net, tiling)
    return Targets(activations, {layer: [_edited(gram[layer], layer, recipe) for gram in grams] for layer in recipe.style_layers})


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


def mean_grams(image: Tensor, layers: Iterable[str], net: Net, tiling: Tiling | None) -> dict[str, Tensor]:
    """(1, 3, H, W) -> {layer: (1, C, C)}."""
    sums = {layer: Sum(layer, lambda a, _: gram_matrix(a)) for layer in layers}
    found = add_up(net, image, sums, tiling) if sums else {}
    return {layer: gram / prod(map_size(net, layer, size_of(image))) for layer, gram in found.items()}


def activations_of(image: Tensor, layers: Iterable[str], net: Net, tiling: Tiling | None) -> dict[str, Tensor]:
    """(1, 3, H, W) -> {layer: (1, C, h, w)}, gathered from the tiles."""
    if tiling is None:
        return features(net, image, layers)
    maps: dict[str, Tensor] = {}

    def gather(layer: str, a: Tensor, where: tuple[slice, slice]) -> Tensor:
        if layer not in maps:
            maps[layer] = a.new_empty(*a.shape[:2], *map_size(net, layer, size_of(image)))
        maps[layer][..., where[0], where[1]] = a
        return a.new_zeros(())

    sums = {layer: Sum(layer, partial(gather, layer)) for layer in layers}
    if sums:
        add_up(net, image, sums, tiling)
    return maps


def make_cost(targets: Targets, recipe: Recipe, net: Net, tiling: Tiling | None = None) -> Cost:
    """J of a picture: {"total", "content", "style", "style conv1_1", ..., "tv" where it has a weight}.

    "content" and "style" are J_content and J_style, their layers weighted, without alpha and beta; "style <layer>" is the
    layer's unweighted cost. Several styles count by style_weights, which are made to sum to 1. A tiling changes what it takes, not
    what it is.
    """
    shares = {layer: style_shares(recipe, len(grams), layer) for layer, grams in targets.grams.items()}
    weights = {layer: _weights_in(layer, recipe, net) for layer in targets.grams}
    constants = {layer: _content_constant(targets.content[layer], recipe) for layer in recipe.content_layers}
    scale = {"paper": 1.0, "mean": 4.0}[recipe.style_norm]
    sums = {f"style {layer}": Sum(layer, lambda a, _: gram_matrix(a)) for layer in recipe.style_layers}
    sums |= {f"content {layer}": Sum(layer, partial(_square_error, targets.content[layer])) for layer in recipe.content_layers}

    def costs_from(found: dict[str, Tensor], image: Tensor) -> dict[str, Tensor]:
        by_layer = {}
        for layer, grams in targets.grams.items():
            gram = found[f"style {layer}"] / prod(map_size(net, layer, size_of(image)))
            by_layer[layer] = scale * _weighted(shares[layer], [gram_cost(A, gram, weights[layer]) for A in grams], image)
        contents = [constant * found[f"content {layer}"] for layer, constant in constants.items()]
        J_content = _weighted(recipe.content_layers.values(), contents, image)
        J_style = _weighted(recipe.style_layers.values(), list(by_layer.values()), image)
        total = total_cost(J_content, J_style, recipe.alpha, recipe.beta)
        return {"total": total, "content": J_content, "style": J_style, **{f"style {layer}": c for layer, c in by_layer.items()}}

    def cost(image: Tensor) -> dict[str, Tensor]:
        costs = tiled_cost(net, sums, partial(costs_from, image=image), tiling)(image)
        if recipe.tv:
            costs["tv"] = total_variation(image)
            costs["total"] = costs["total"] + recipe.tv * costs["tv"]
        return costs

    return cost


def _weights_in(layer: str, recipe: Recipe, net: Net) -> Tensor | None:
    """What the style edit says the entries of a layer's Gram matrix weigh, None where it says nothing."""
    edit = recipe.style_edit.get(layer)
    return None if edit is None else entry_weights(edit, channels(net, layer)).to(net.convs[0].weight)


def style_shares(recipe: Recipe, styles: int, layer: str = "") -> list[float]:
    """The weight of each style picture, in this layer where the style edit says so; they sum to 1."""
    edit = recipe.style_edit.get(layer)
    weights = (edit and edit.paintings) or recipe.style_weights or (1.0,) * styles
    return [weight / sum(weights) for weight in weights]


def costs_of(
    image: Tensor, content: Tensor, styles: Sequence[Tensor], recipe: Recipe, net: Net, tiling: Tiling | None = None
) -> dict[str, float]:
    """The costs of a painting (1, 3, H, W), as stylize reports them at its size."""
    device = net.convs[0].weight.device
    image, content, styles = image.to(device), content.to(device), [style.to(device) for style in styles]
    cost = make_cost(make_targets(resize(content, size_of(image)), styles, recipe, net, tiling), recipe, net, tiling)
    with torch.no_grad():
        return {name: float(value) for name, value in cost(image).items()}


def _weighted(weights: Iterable[float], costs: Sequence[Tensor], image: Tensor) -> Tensor:
    """The weighted sum; 0 of no costs."""
    return torch.stack([weight * cost for weight, cost in zip(weights, costs, strict=True)]).sum() if costs else image.new_zeros(())


def _square_error(a_C: Tensor, a_G: Tensor, where: tuple[slice, slice]) -> Tensor:
    """The sum over these places of (a_C - a_G)^2."""
    return content_cost(a_C[..., where[0], where[1]], a_G, 1.0)


def _content_constant(a_C: Tensor, recipe: Recipe) -> float:
    """What the sum of squares is multiplied by; relative is that of Mahendran & Vedaldi 2015, where a black map costs 1."""
    if recipe.content_norm == "relative":
        return 1 / max(float(a_C.square().sum()), SILENT)
    return {"course": 1 / (4 * a_C.numel()), "paper": 0.5, "mean": 1 / a_C.numel()}[recipe.content_norm]


def style_side(side: int, recipe: Recipe) -> int:
    """The longer side of a style picture beside a painting of this longer side."""
    return round(side * recipe.style_scale)


def size_of(image: Tensor) -> tuple[int, int]:
    """(H, W)."""
    return image.shape[-2], image.shape[-1]
