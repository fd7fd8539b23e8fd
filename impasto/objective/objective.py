"""J of a picture by a recipe: alpha J_content(C, G) + beta J_style(S, G) (Gatys, Ecker & Bethge 2015, arXiv:1508.06576)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from impasto.images.images import resize, size_of
from impasto.nets.kernels import widest
from impasto.nets.nets import Net, channels, map_size
from impasto.objective.color_transfer import as_compared, recolored_inputs
from impasto.objective.distances import laplacian_cost, self_similarity_cost
from impasto.objective.framing import periodic_net, torus_size
from impasto.objective.losses import Cost, content_cost, entry_weights, total_cost, total_variation
from impasto.objective.masks import NO_MASKS, Masks, place_weights
from impasto.objective.style_costs import COSTS, costs_by_layer, similarity, unit
from impasto.objective.targets import PlaceWeights, Targets, layer_weights, make_targets, readings_of, style_sums
from impasto.objective.tiles import Area, Sum, Tiling, add_up, tiled_costs
from impasto.recipe.recipe import Recipe

ZERO_MAP = 1e-12  # least sum of squares of a map to divide by
Values = dict[str, Tensor]


def make_cost(targets: Targets, recipe: Recipe, net: Net, tiling: Tiling | None = None) -> Cost:
    """J of a picture: {"total", "content", "style", "style conv1_1", ..., "tv" where it has a weight}.

    "content" and "style" are J_content and J_style, their layers weighted, without alpha and beta; "style <layer>" is the
    layer's unweighted cost; "style_cost <cost>" is the contribution of each cost to J_style where several are chosen. Several style
    pictures count by style_weights, scaled to sum to 1; parts of the picture by their weights and areas. A tiling changes time and
    memory, not the result.
    """
    net = periodic_net(net, recipe)
    costs = costs_by_layer(recipe, net)
    weights = [layer_weights(costs, net, targets.size, targets.style_mask(part)) for part in targets.parts]
    alpha = recipe.alpha_at(max(targets.size))
    content, style = _content(targets, recipe, net), _style(targets, weights, recipe, net)
    sums = _content_sums(targets, recipe, net) | style_sums(costs, weights)

    def costs_from(found: Values) -> Values:
        J_content, (J_style, by_layer) = content(found), style(found)
        total = total_cost(J_content, J_style, alpha, recipe.beta)
        return {"total": total, "content": J_content, "style": J_style, **by_layer}

    edge_cost = _laplacian(targets, recipe, net) if recipe.content_costs.get("laplacian") else None

    def cost(image: Tensor) -> Values:
        costs = costs_from(add_up(net, image, sums)) if tiling is None else tiled_costs(net, image, sums, costs_from, tiling)
        if edge_cost is not None:
            edges = edge_cost(image)
            costs["content"], costs["total"] = costs["content"] + edges, costs["total"] + alpha * edges
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
    """The costs of a painting (1, 3, H, W), as stylize reports them at its size; a seamless one may be resized by some pixels.

    The other pictures and the masks are as they were read. With a `folder`, large tensors are kept in files there.
    """
    content, styles = recolored_inputs(content, styles, recipe, alphas, masks)
    image = as_compared(resize(image, torus_size(size_of(image), recipe), recipe.wraps, folder), recipe)
    device = net.convs[0].weight.device
    image, content, styles = image.to(device), content.to(device), [style.to(device) for style in styles]
    content = resize(content, size_of(image), recipe.wraps, folder)
    cost = make_cost(make_targets(content, styles, recipe, net, tiling, masks), recipe, net, tiling)
    with torch.no_grad():
        return {name: float(value) for name, value in cost(image).items()}


# Style


def _style(
    targets: Targets, weights: Sequence[PlaceWeights], recipe: Recipe, net: Net
) -> Callable[[Values], tuple[Tensor, Values]]:
    """A function of the sums: J_style, and the cost of each layer and of each chosen cost."""
    chosen = costs_by_layer(recipe, net)
    entries = {layer: _entry_weights(layer, recipe, net) for layer in chosen}
    scale = {"paper": 1.0, "mean": 4.0}[recipe.style_norm]
    units = {
        (layer, cost): scale * recipe.style_costs[cost] * unit(net, cost, layer) for layer, its in chosen.items() for cost in its
    }

    def style(found: Values) -> tuple[Tensor, Values]:
        terms: dict[tuple[str, str], Tensor] = {}
        for n, (part, its) in enumerate(zip(targets.parts, targets.styles, strict=True)):
            readings = readings_of(found, net, targets.size, weights[n], n, entries) if its else {}
            for layer, cost in units if its else ():
                costs = [COSTS[cost].cost(target[cost], readings[layer]) for target in its[layer]]
                term = part.style_weight * part.area * units[layer, cost] * _weighted(part.shares(recipe, layer), costs)
                terms[layer, cost] = terms[layer, cost] + term if (layer, cost) in terms else term
        zero = net.convs[0].weight.new_zeros((), dtype=torch.float32)
        by_layer = {layer: _total([term for (at, _), term in terms.items() if at == layer], zero) for layer in chosen}
        J_style = _total([recipe.style_layers[layer] * cost for layer, cost in by_layer.items()], zero)
        return J_style, {f"style {layer}": cost for layer, cost in by_layer.items()} | _by_cost(terms, recipe)

    return style


def _by_cost(terms: Mapping[tuple[str, str], Tensor], recipe: Recipe) -> Values:
    """{"style_cost w2": its contribution to J_style} if several costs are chosen."""
    names = dict.fromkeys(cost for _, cost in terms)
    if len(names) < 2:
        return {}
    weighted = {
        name: [recipe.style_layers[layer] * term for (layer, cost), term in terms.items() if cost == name] for name in names
    }
    return {f"style_cost {name}": torch.stack(its).sum() for name, its in weighted.items()}


def _entry_weights(layer: str, recipe: Recipe, net: Net) -> Tensor | None:
    """(C, C): the style edit's weights of the entries of a layer's Gram matrix; None without an edit."""
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


def _content(targets: Targets, recipe: Recipe, net: Net) -> Callable[[Values], Tensor]:
    """J_content as a function of the sums."""
    constants = {layer: _content_constant(a_C, recipe) for layer, a_C in targets.content.items()}
    features, relations = (recipe.content_costs.get(cost, 0.0) for cost in ("features", "self-similarity"))  # their weights
    similarities = {layer: similarity(a_C) for layer, a_C in targets.content.items() if relations}
    scales = {layer: _mean_scale(targets.content[layer], recipe) * unit(net, "self-similarity", layer) for layer in similarities}

    def content(found: Values) -> Tensor:
        terms = []
        for layer, weight in recipe.content_layers.items():
            if features:
                terms.append(weight * (features * constants[layer] * found[f"content {layer}"]))
            if relations:
                cost = self_similarity_cost(similarities[layer], similarity(found[f"map {layer}"]))
                terms.append(weight * relations * scales[layer] * cost)
        return _total(terms, net.convs[0].weight.new_zeros((), dtype=torch.float32))

    return content


def _laplacian(targets: Targets, recipe: Recipe, net: Net) -> Callable[[Tensor], Tensor]:
    """The cost of a picture's edges, in the unit of the cost "features" of the content layers."""
    scale = recipe.content_costs["laplacian"] * sum(
        weight * _mean_scale(targets.content[layer], recipe) * unit(net, "laplacian", layer)
        for layer, weight in recipe.content_layers.items()
    )
    assert targets.picture is not None  # make_targets keeps it for this cost
    picture, weights = targets.picture, targets.content_weights()
    return lambda image: scale * laplacian_cost(picture, image, weights, recipe.wraps)


def _content_weights(targets: Targets, layer: str, net: Net) -> Tensor | None:
    """(h, w): the weight of the content in each place of a layer; None for 1 everywhere."""
    weights = targets.content_weights()
    if weights is None:
        return None
    size = map_size(net, layer, targets.size)
    return place_weights(weights, size) * (weights.mean() * size[0] * size[1])


def _square_error(a_C: Tensor, weights: Tensor | None, a_G: Tensor, area: Area) -> Tensor:
    """The weighted sum of (a_C - a_G)^2 over an area of the map: a_C is the whole map, a_G (1, C, h, w) only that area."""
    a_C = a_C[..., area[0], area[1]]
    return content_cost(a_C, a_G, 1.0) if weights is None else (weights[area] * (a_C - a_G).square()).sum()


def _content_constant(a_C: Tensor, recipe: Recipe) -> float:
    """The factor of the sum of squares; "relative" is that of Mahendran & Vedaldi 2015, by which a map of zeros costs 1."""
    if recipe.content_norm == "relative":
        return 1 / max(float(a_C.square().sum(dtype=widest(a_C))), ZERO_MAP)
    return {"course": 1 / (4 * a_C.numel()), "paper": 0.5, "mean": 1 / a_C.numel()}[recipe.content_norm]


def _mean_scale(a_C: Tensor, recipe: Recipe) -> float:
    """The factor of a mean of squares."""
    return _content_constant(a_C, recipe) * a_C.numel()


def _weighted(weights: Iterable[float], costs: Sequence[Tensor]) -> Tensor:
    return torch.stack([weight * cost for weight, cost in zip(weights, costs, strict=True)]).sum()


def _total(terms: Sequence[Tensor], zero: Tensor) -> Tensor:
    return torch.stack(list(terms)).sum() if terms else zero
