"""Two styles compared: where a picture differs from a style picture, by layer, unit, pair and position; numbers, text, figure."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from impasto.errors import BadImage, BadRecipe, ImpastoWarning
from impasto.images.drawing import GAP, captioned, in_grid, page_of
from impasto.images.images import Picture, read_picture, read_record, resize, size_of, to_pillow
from impasto.lens.style.difference import Difference, differences, style_cost_of, targets_of
from impasto.lens.style.page import StylePicture
from impasto.lens.style.reading import resize_to
from impasto.nets.geometry import field_of
from impasto.nets.nets import Net, features
from impasto.objective.framing import cropped_styles, periodic_net, style_at, torus_size
from impasto.recipe.recipe import Recipe, make_recipe
from impasto.transfer.painting import recipe_of

LISTED = 8  # units and pairs of a layer
TILE = 300  # pixels: width of a map in the figure
AWAY, TOWARDS = (176, 70, 18), (24, 90, 150)


def recipe_for(generated: Path | None, net: str, size: int) -> Recipe:
    """The recipe in a generated picture; the default recipe with this net and size where there is none."""
    try:
        recipe = None if generated is None else recipe_of(generated)
    except BadImage:
        recipe = None
    return make_recipe(net=net, size=size) if recipe is None else _decomposable(recipe.at_last(), generated)


def _decomposable(recipe: Recipe, generated: Path | None) -> Recipe:
    """The recipe, if its style cost can be decomposed: between Gram matrices of the whole picture. Raises BadRecipe."""
    other = [cost for cost, weight in recipe.style_costs.items() if weight and cost != "gram"]
    if other or recipe.all_regions():
        what = f"the style cost {', '.join(other)}" if other else "regions"
        raise BadRecipe(f"{generated} was painted with {what}: only a Gram cost of the whole picture can be decomposed")
    if recipe.calm and generated is not None:
        why = f"{generated.name} was painted with calm {recipe.calm:g}, but here calm places count like all others"
        warnings.warn(why, ImpastoWarning, stacklevel=3)
    if recipe.color != "style" and generated is not None:
        why = f"{generated.name} was painted in the photograph's colours, which count as a difference in style"
        warnings.warn(why, ImpastoWarning, stacklevel=3)
    return recipe


def check_painted_from(generated: Path, painting: Picture, painting_name: str) -> None:
    """Warn if a generated picture was made from another style picture, or from several."""
    try:
        inputs = read_record(generated).get("inputs")
    except BadImage:
        return
    styles = inputs.get("styles") if isinstance(inputs, dict) else None
    if isinstance(styles, list) and styles != [painting.sha256]:
        others = "from others too" if painting.sha256 in styles else "from other paintings"
        why = f"{generated.name} was painted {others}: it is compared with {painting_name} alone"
        warnings.warn(why, ImpastoWarning, stacklevel=2)


def compare(painting: Path, other: Path, generated: Path | None, recipe: Recipe, net: Net) -> tuple[dict[str, Any], Image.Image]:
    """How `other`, and `generated` if there is one, differ from a style picture: the numbers for JSON, and the figure.

    The style picture is scaled and framed as the recipe says. `other` has the recipe's size. `generated` keeps its size (a seamless
    one the nearest possible), so its J_style is the one that transfer reports if calm is 0.
    """
    read = read_picture(painting)
    pictures = {"other": resize_to(read_picture(other).image, recipe.size, net, recipe.style_layers)}
    side = recipe.size
    if generated is not None:
        check_painted_from(generated, read, painting.name)
        picture = read_picture(generated, keep_hidden=True).image
        pictures["generated"] = resize(picture, torus_size(size_of(picture), recipe), recipe.wraps)
        side = max(pictures["generated"].shape[-2:])
    (cropped,) = cropped_styles([read], recipe)
    image = style_at(cropped.image, round(side * recipe.style_scale), recipe)
    nets = {"other": net, "generated": periodic_net(net, recipe)}
    targets = targets_of(image, recipe, nets["generated"])
    found = {name: differences(targets, picture, recipe, nets[name]) for name, picture in pictures.items()}
    named = _Names(StylePicture(image, painting.name, read.sha256, net, recipe.pooling))
    about: dict[str, Any] = {"net": net.name, "pooling": recipe.pooling, "size": side, "painting": painting.name}
    for name, path in (("other", other), ("generated", generated)):
        if path is not None:
            about[name] = {"picture": path.name, "style": style_cost_of(found[name]), "layers": _layers(found[name], named)}
    if generated is not None:
        for layer, ours, theirs in zip(about["generated"]["layers"], found["generated"], found["other"], strict=True):
            layer["remains"] = ours.cost / theirs.cost if theirs.cost else None
    last = "generated" if generated is not None else "other"
    return about, figure(found[last], pictures[last], about[last]["picture"], painting.name)


class _Names:
    """Descriptions of units by their patches in the style picture, computed when first needed; its maps are cached by layer."""

    def __init__(self, painting: StylePicture) -> None:
        self.painting, self.maps, self.names = painting, dict[str, Tensor](), dict[tuple[str, int], str]()

    @torch.no_grad()
    def of(self, layer: str, unit: int) -> str:
        if layer not in self.maps:
            self.maps[layer] = features(self.painting.net, self.painting.image, [layer])[layer][0]
        if (layer, unit) not in self.names:
            own, field = self.maps[layer][[unit]], field_of(self.painting.net.layers, layer)
            (patches,) = self.painting.patches(own, field)
            self.names[layer, unit] = self.painting.described(patches, own[0].square())
        return self.names[layer, unit]


def _layers(found: Sequence[Difference], names: _Names) -> list[dict[str, Any]]:
    total = style_cost_of(found)
    return [_layer(it, it.weight * it.cost / total if total else 0.0, names) for it in found]


def _layer(it: Difference, share: float, names: _Names) -> dict[str, Any]:
    """A layer's cost, weight and share of J_style, and its decomposition: the listed parts and the rest sum to the cost."""
    largest = it.units.argsort(descending=True)[:LISTED].tolist()
    units = [_part(it, {"unit": n, "name": names.of(it.layer, n)}, float(it.units[n]), n, n) for n in largest]
    upper = torch.triu(2 * it.pairs, 1) + it.pairs.diagonal().diag()
    best = upper.flatten().argsort(descending=True)[:LISTED].tolist()
    places = [(n // len(upper), n % len(upper)) for n in best]
    pairs = [_part(it, {"i": i, "j": j}, float(upper[i, j]), i, j) for i, j in places]
    signed = {"towards": float(it.places.clamp(max=0).sum()), "away": float(it.places.clamp(min=0).sum())}
    about = {"layer": it.layer, "cost": it.cost, "weight": it.weight, "share": share, "units": units, "pairs": pairs}
    rest = {"units_rest": it.cost - sum(u["cost"] for u in units), "pairs_rest": it.cost - sum(p["cost"] for p in pairs)}
    return about | rest | {"places": signed}


def _part(it: Difference, about: dict[str, Any], cost: float, i: int, j: int) -> dict[str, Any]:
    return about | {"cost": cost, "share": cost / it.cost if it.cost else 0.0, "excess": float(it.excess[i, j])}


def summary_lines(about: Mapping[str, Any]) -> list[str]:
    """The lines that the command prints."""
    lines = []
    for name in ("other", "generated"):
        if name in about:
            found = about[name]
            equal = "" if found["style"] else ": the styles are equal"
            lines += [f"{found['picture']} against {about['painting']}: style cost {found['style']:.4g}{equal}"]
            lines += [line for layer in found["layers"] if layer["cost"] for line in _layer_lines(layer)]
    return lines


def _layer_lines(layer: Mapping[str, Any]) -> list[str]:
    remains = layer.get("remains")
    left = "" if remains is None else f"; {_percent(remains)} of the original difference remains"
    lines = [f"  {layer['layer']}: {_percent(layer['share'])} of the style cost{left}"]
    for unit in [it for it in layer["units"] if it["cost"]][:3]:
        much = "too much" if unit["excess"] > 0 else "too little"
        lines.append(f"    {much} of unit {unit['unit']}, {unit['name']}: {_percent(unit['share'])} of the layer's")
    pair = next((it for it in layer["pairs"] if it["i"] != it["j"] and it["cost"]), None)
    if pair:
        often = "too often" if pair["excess"] > 0 else "too rarely"
        lines.append(f"    {often} units {pair['i']} and {pair['j']} together: {_percent(pair['share'])} of the layer's")
    return lines


def _percent(share: float) -> str:
    """Whole per cent; below 10 % two digits."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


# The figure


def figure(found: Sequence[Difference], image: Tensor, name: str, painting: str) -> Image.Image:
    """The signed map of each layer over the picture: orange where it increases the style cost, blue where it reduces it."""
    total = style_cost_of(found) or 1.0
    tiles = {f"{it.layer}: {_percent(it.weight * it.cost / total)} of the style cost": _tile(it, image) for it in found}
    subtitle = f"{name} against {painting}: orange increases the style cost, blue reduces it"
    return page_of(in_grid(captioned(tiles), min(3, len(tiles)), GAP), "Style difference", subtitle)


def _tile(it: Difference, image: Tensor) -> Image.Image:
    """The picture in grey, tinted by the map at the layer's resolution; the scale ends at the 99th percentile."""
    height = max(1, round(TILE * image.shape[-2] / image.shape[-1]))
    top = float(it.places.abs().flatten().sort().values[int(0.99 * (it.places.numel() - 1))]) or 1.0
    signed = torch.nn.functional.interpolate((it.places / top).clamp(-1, 1)[None, None].float(), (height, TILE), mode="nearest")
    grey = 0.25 + 0.7 * resize(image, (height, TILE)).mean(1, keepdim=True)
    away, towards = (torch.tensor(color).view(1, 3, 1, 1) / 255 for color in (AWAY, TOWARDS))
    tint = torch.where(signed > 0, away, towards)
    return to_pillow(torch.lerp(grey.expand(1, 3, height, TILE), tint, 0.85 * signed.abs().sqrt()))
