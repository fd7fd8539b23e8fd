"""J of a picture by a recipe: alpha J_content(C, G) + beta J_style(S, G) (Gatys, Ecker & Bethge 2015, arXiv:1508.06576)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from impasto.images.images import resize, size_of
from impasto.nets.kernels import widest
from impasto.nets.nets import Net, channels, map_size
from impasto.objective.color_transfer import compared_with, seen
from impasto.objective.distances import laplacian_cost, self_similarity_cost
from impasto.objective.framing import torus_size, wrapping
from impasto.objective.losses import Cost, content_cost, entry_weights, total_cost, total_variation
from impasto.objective.masks import NO_MASKS, Masks, place_weights
from impasto.objective.style_costs import HOW, similarity, unit, wants_of
from impasto.objective.targets import Places, Targets, make_targets, places_of, readings_of, style_sums
from impasto.objective.tiles import Sum, Tiling, tiled_cost
from impasto.recipe.recipe import Recipe

SILENT = 1e-12  # sum of squares of a map that is taken for silent
Found = dict[str, Tensor]


def make_cost(targets: Targets, recipe: Recipe, net: Net, tiling: Tiling | None = None) -> Cost:
    """J of a picture: {"total", "content", "style", "style conv1_1", ..., "tv" where it has a weight}.

    "content" and "style" are J_content and J_style, their layers weighted, without alpha and beta; "style <layer>" is the
    layer's unweighted cost, "style_cost <cost>", where several are chosen, what each counts in J_style. Several styles count by
    style_weights, which are made to sum to 1; parts of the picture by their weights and areas. A tiling changes what it takes,
    not what it is.
    """
    net = wrapping(net, recipe)
    wants = wants_of(recipe, net)
    places = [places_of(wants, net, targets.size, part.where) for part in targets.parts]
    content, style = _content(targets, recipe, net), _style(targets, places, recipe, net)
    sums = _content_sums(targets, recipe, net) | style_sums(wants, places)

    def costs_from(found: Found) -> Found:
        J_content, (J_style, by_layer) = content(found), style(found)
        total = total_cost(J_content, J_style, recipe.alpha, recipe.beta)
        return {"total": total, "content": J_content, "style": J_style, **by_layer}

    compared = tiled_cost(net, sums, costs_from, tiling)
    of_edges = _laplacian(targets, recipe, net) if recipe.content_costs.get("laplacian") else None

    def cost(image: Tensor) -> Found:
        costs = compared(image)
        if of_edges is not None:
            edges = of_edges(image)
            costs["content"], costs["total"] = costs["content"] + edges, costs["total"] + recipe.alpha * edges
        if recipe.tv:
            costs["tv"] = total_variation(image, recipe.wraps)
            costs["total"] = costs["total"] + recipe.tv * costs["tv"]
        return costs

    return cost


def costs_of(
    image: Tensor,
    content: Tensor,
    styles: Sequence[Tensor],
    recipe: Recipe,
    net: Net,
    tiling: Tiling | None = None,
    masks: Masks = NO_MASKS,
    alphas: Sequence[Tensor | None] | None = None,
    folder: Path | None = None,
) -> dict[str, float]:
    """The costs of a painting (1, 3, H, W), as stylize reports them at its size, or the nearest at which its sides can meet.

    The other pictures and the masks are as they were read. With a `folder` what grows with the picture is put there.
    """
    content, styles = compared_with(content, styles, recipe, alphas, masks)
    image = seen(resize(image, torus_size(size_of(image), recipe), recipe.wraps, folder), recipe)
    device = net.convs[0].weight.device
    image, content, styles = image.to(device), content.to(device), [style.to(device) for style in styles]
    content = resize(content, size_of(image), recipe.wraps, folder)
    cost = make_cost(make_targets(content, styles, recipe, net, tiling, masks), recipe, net, tiling)
    with torch.no_grad():
        return {name: float(value) for name, value in cost(image).items()}


# Style


def _style(targets: Targets, places: Sequence[Places], recipe: Recipe, net: Net) -> Callable[[Found], tuple[Tensor, Found]]:
    """J_style out of the sums, with its layers' costs and, where there are several, its kinds'."""
    wants = wants_of(recipe, net)
    weights = {layer: _entry_weights(layer, recipe, net) for layer in wants}
    scale = {"paper": 1.0, "mean": 4.0}[recipe.style_norm]
    units = {
        (layer, cost): scale * recipe.style_costs[cost] * unit(net, cost, layer) for layer, its in wants.items() for cost in its
    }

    def style(found: Found) -> tuple[Tensor, Found]:
        terms: dict[tuple[str, str], Tensor] = {}
        for n, (part, its) in enumerate(zip(targets.parts, targets.styles, strict=True)):
            readings = readings_of(found, net, targets.size, places[n], n, weights) if its else {}
            for layer, cost in units if its else ():
                costs = [HOW[cost].cost(target[cost], readings[layer]) for target in its[layer]]
                term = part.style_weight * part.area * units[layer, cost] * _weighted(part.shares(recipe, layer), costs)
                terms[layer, cost] = terms[layer, cost] + term if (layer, cost) in terms else term
        nothing = net.convs[0].weight.new_zeros((), dtype=torch.float32)
        by_layer = {layer: _total([term for (at, _), term in terms.items() if at == layer], nothing) for layer in wants}
        J_style = _total([recipe.style_layers[layer] * cost for layer, cost in by_layer.items()], nothing)
        return J_style, {f"style {layer}": cost for layer, cost in by_layer.items()} | _by_kind(terms, recipe)

    return style


def _by_kind(terms: Mapping[tuple[str, str], Tensor], recipe: Recipe) -> Found:
    """{"style_cost w2": what it counts in J_style}, where there is more than one."""
    kinds = dict.fromkeys(cost for _, cost in terms)
    if len(kinds) < 2:
        return {}
    counted = {kind: [recipe.style_layers[layer] * term for (layer, cost), term in terms.items() if cost == kind] for kind in kinds}
    return {f"style_cost {kind}": torch.stack(its).sum() for kind, its in counted.items()}


def _entry_weights(layer: str, recipe: Recipe, net: Net) -> Tensor | None:
    """What the style edit says the entries of a layer's Gram matrix weigh, None where it says nothing."""
    edit = recipe.style_edit.get(layer)
    return None if edit is None else entry_weights(edit, channels(net, layer)).to(net.convs[0].weight)


# Content


def _content_sums(targets: Targets, recipe: Recipe, net: Net) -> dict[str, Sum]:
    sums: dict[str, Sum] = {}
    for layer, a_C in targets.content.items():
        if recipe.content_costs.get("features"):
            sums[f"content {layer}"] = Sum(layer, partial(_square_error, a_C, _content_weights(targets, layer, net)))
        if recipe.content_costs.get("self-similarity"):
            sums[f"map {layer}"] = Sum(layer, None)
    return sums


def _content(targets: Targets, recipe: Recipe, net: Net) -> Callable[[Found], Tensor]:
    """J_content out of the sums."""
    constants = {layer: _content_constant(a_C, recipe) for layer, a_C in targets.content.items()}
    of_features, of_relations = (recipe.content_costs.get(cost, 0.0) for cost in ("features", "self-similarity"))
    relations = {layer: similarity(a_C) for layer, a_C in targets.content.items() if of_relations}
    scales = {layer: _mean_scale(targets.content[layer], recipe) * unit(net, "self-similarity", layer) for layer in relations}

    def content(found: Found) -> Tensor:
        terms = []
        for layer, weight in recipe.content_layers.items():
            if of_features:
                terms.append(weight * (of_features * constants[layer] * found[f"content {layer}"]))
            if of_relations:
                cost = self_similarity_cost(relations[layer], similarity(found[f"map {layer}"]))
                terms.append(weight * of_relations * scales[layer] * cost)
        return _total(terms, net.convs[0].weight.new_zeros((), dtype=torch.float32))

    return content


def _laplacian(targets: Targets, recipe: Recipe, net: Net) -> Callable[[Tensor], Tensor]:
    """The cost of a picture's edges in the units of the content layers' features."""
    scale = recipe.content_costs["laplacian"] * sum(
        weight * _mean_scale(targets.content[layer], recipe) * unit(net, "laplacian", layer)
        for layer, weight in recipe.content_layers.items()
    )
    assert targets.picture is not None  # kept for this cost
    picture, weights = targets.picture, targets.content_weights()
    return lambda image: scale * laplacian_cost(picture, image, weights, recipe.wraps)


def _content_weights(targets: Targets, layer: str, net: Net) -> Tensor | None:
    """(h, w): how much content counts in each place of a layer, 1 without regions."""
    weights = targets.content_weights()
    if weights is None:
        return None
    size = map_size(net, layer, targets.size)
    return place_weights(weights, size) * (weights.mean() * size[0] * size[1])


def _square_error(a_C: Tensor, weights: Tensor | None, a_G: Tensor, where: tuple[slice, slice]) -> Tensor:
    """The sum over these places of (a_C - a_G)^2, weighted."""
    theirs = a_C[..., where[0], where[1]]
    return content_cost(theirs, a_G, 1.0) if weights is None else (weights[where] * (theirs - a_G).square()).sum()


def _content_constant(a_C: Tensor, recipe: Recipe) -> float:
    """What the sum of squares is multiplied by; relative is that of Mahendran & Vedaldi 2015, where a black map costs 1."""
    if recipe.content_norm == "relative":
        return 1 / max(float(a_C.square().sum(dtype=widest(a_C))), SILENT)
    return {"course": 1 / (4 * a_C.numel()), "paper": 0.5, "mean": 1 / a_C.numel()}[recipe.content_norm]


def _mean_scale(a_C: Tensor, recipe: Recipe) -> float:
    """What a mean of squares is multiplied by."""
    return _content_constant(a_C, recipe) * a_C.numel()


def _weighted(weights: Iterable[float], costs: Sequence[Tensor]) -> Tensor:
    return torch.stack([weight * cost for weight, cost in zip(weights, costs, strict=True)]).sum()


def _total(terms: Sequence[Tensor], nothing: Tensor) -> Tensor:
    """Their sum; 0 of none."""
    return torch.stack(list(terms)).sum() if terms else nothing
