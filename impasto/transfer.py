"""Gatys, Ecker & Bethge 2015 (arXiv:1508.06576): paint the content picture C in the manner of the style pictures S.

J(G) = alpha J_content(C, G) + beta J_style(S, G), minimised over the pixels of G, coarse to fine.
"""

import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from impasto import canvas
from impasto.analogy import borrowed_band, finest_band
from impasto.descent import Cost, Optimizer, State, Step, begin, descend, moved
from impasto.edit import LayerEdit, pair_of
from impasto.errors import BadImage, BadRecipe, ImpastoWarning
from impasto.images import MIN_SIDE, quantize, read_picture, resize, scaled_size, to_pillow
from impasto.losses import (
    content_cost,
    edited_gram,
    entry_weights,
    gram_cost,
    gram_matrix,
    temporal_cost,
    total_cost,
    total_variation,
)
from impasto.machine import give_back
from impasto.nets import INPUTS, Net, Place, build_net, channels, features, layer_name, map_size, normalized, put
from impasto.pictures import CALIBRATION, picture_path
from impasto.plan import Plan, make_plan
from impasto.recipe import Recipe, make_recipe
from impasto.tiles import Sum, Tiling, add_up, tiled_cost
from impasto.weights import SOURCES, Loaded, load_weights

CALIBRATION_SIZE = 256
ENTRY = 3  # evaluations that a new scale takes before its first step: targets of C and S, the start
WORTHWHILE = 5  # a scale with less time than for so many steps is not begun
MARGIN = 1.5  # a step may be so much longer than the last
SAVING_A_PIXEL = 2e-6
MISSED, BELOW = 0.1, 0.01  # of what a style edit asks of a pair, and of a target below 0, by its norm: from here on it is told
SILENT = 1e-12  # sum of squares of a map that is taken for silent


@dataclass(frozen=True)
class Targets:
    """What G is compared with at one size: {layer: (1, C, h, w)} of C, {layer: [(1, C, C) of each S]}."""

    content: dict[str, Tensor]
    grams: dict[str, list[Tensor]]


@dataclass(frozen=True)
class Ties:
    """What else G is to be like, as the pictures (1, 3, H, W), each pixel by its weight c (1, 1, H, W); J gains `weight` of it."""

    weight: float
    pictures: tuple[tuple[Tensor, Tensor], ...]

    def like(self, image: Tensor) -> "Ties":
        """At the size and on the device of this picture."""
        return Ties(
            self.weight, tuple((resize(w, _size(image)).to(image), resize(c, _size(image)).to(image)) for w, c in self.pictures)
        )


def paint(
    content: str | Path | Image.Image, styles: Sequence[str | Path | Image.Image], preset: str = "impasto", **knobs: Any
) -> Image.Image:
    """From paths or Pillow images to the finished picture: `paint("cat.jpg", ["wave.jpg"], size=512).save("out.png")`."""
    recipe = make_recipe(preset, **knobs)
    picture = read_picture(content)
    steps = stylize(picture.image, [read_picture(style).image for style in styles], recipe, make_net(recipe))
    last = deque(steps, maxlen=1).pop()
    alpha = None if picture.alpha is None else resize(picture.alpha, _size(last.image))
    return to_pillow(last.image, alpha)


def make_net(recipe: Recipe, loaded: Loaded | None = None, place: Place | None = None) -> Net:
    """The recipe's net, with the given weights or its own, on the CPU unless `place` says. Raises BadRecipe for unknown layers."""
    loaded = loaded or load_weights(recipe.net)
    net = build_net(recipe.net, loaded.tensors, INPUTS[loaded.input], recipe.pooling, recipe.padding)
    for layer in (*recipe.content_layers, *recipe.style_layers):
        layer_name(net, layer)
    check_edit(recipe, net)
    if recipe.preset == "impasto" and loaded.input != SOURCES[recipe.net].input:
        said = f"preset impasto is made for {SOURCES[recipe.net].input} weights of {recipe.net}, these are {loaded.input}"
        warnings.warn(f"{said}: set --content-layers and --style-layers", ImpastoWarning, stacklevel=2)
    if recipe.normalize_net:
        calibration = [read_picture(picture_path(name)).image for name in CALIBRATION]
        net = normalized(net, [resize(image, scaled_size(image, CALIBRATION_SIZE)) for image in calibration])
    return net if place is None else put(net, place)


def check_edit(recipe: Recipe, net: Net) -> None:
    """Raise BadRecipe where the style edit names a unit that its layer has not, or a layer before its ReLU."""
    for layer, edit in recipe.style_edit.items():
        if layer.endswith(":pre"):
            raise BadRecipe(f"the style edit changes {layer}: a style is edited behind the ReLU, where nothing is below 0")
        if edit.largest_unit() >= (count := channels(net, layer)):
            raise BadRecipe(f"the style edit changes unit {edit.largest_unit()} of {layer}, which has the units 0 to {count - 1}")


def stylize(
    content: Tensor,
    styles: Sequence[Tensor],
    recipe: Recipe,
    net: Net,
    *,
    picture: Tensor | None = None,
    resume: State | None = None,
    seconds: float | None = None,
    plans: Sequence[Plan] | None = None,
    ties: Ties | None = None,
) -> Iterator[Step]:
    """Steps from the start to the finished painting. Pictures are (1, 3, H, W) in [0, 1] of any size.

    `picture` is what G starts as with init="picture"; `resume` the state of an earlier Step; `seconds` how long it may take, of
    which each scale gets its share; `plans` how each of painted_scales is computed (plan_scales), whole unless given; `ties` adds
    the temporal cost of a video.
    Raises BadImage for pictures too small to paint, BadRecipe for knobs that do not fit them.
    """
    check_fit(content, styles, recipe, picture)
    scales = painted_scales(content, recipe)
    clock = _Clock(scales, seconds)
    device = net.convs[0].weight.device
    content, styles = content.to(device), [style.to(device) for style in styles]
    picture = None if picture is None else picture.to(device)
    total, until, state = sum(steps for _, steps in scales), 0, None if resume is None else moved(resume, device)
    for index, (side, steps) in enumerate(scales):
        until += steps
        plan = plans[index] if plans else Plan(None, recipe.history)
        optimizer = Optimizer(recipe.optimizer, recipe.lr, plan.history, recipe.falloff)
        if state is not None and state.i >= until:
            continue
        give_back()  # the last scale's maps, whose places suit this one's badly
        scaled = resize(content, scaled_size(content, side))
        cost = make_cost(
            make_targets(scaled, styles, recipe, net, plan.tiling), recipe, net, plan.tiling, ties and ties.like(scaled)
        )
        if state is None:
            state = begin(first_image(scaled, recipe, picture), cost)
        elif state.x.shape != scaled.shape:
            i = until - steps
            state = begin(refined(state.x, scaled, styles, recipe), cost, i, state.cut or state.i < i)
        del scaled  # a large one would count in the peak
        for step in descend(cost, state, until, total, optimizer):
            state = step.state
            yield step
            if clock.is_over(index, step):
                break
        if clock.is_up:
            return


def painted_scales(content: Tensor, recipe: Recipe) -> list[tuple[int, int]]:
    """(longer side, steps) of each scale; those on which a narrow picture would be shorter than MIN_SIDE are left out."""
    scales = recipe.scales()
    fitting = [(side, steps) for side, steps in scales if min(scaled_size(content, side)) >= MIN_SIDE]
    return [(fitting[0][0], scales[0][1]), *fitting[1:]] if fitting else []


def refined(x: Tensor, content: Tensor, styles: Sequence[Tensor], recipe: Recipe) -> Tensor:
    """The picture so far at the size of the content picture, with detail that the coarser scale could not hold.

    So much of the content's finest band as `detail` says, and of the paintings', where they look like the picture, as `strokes`
    says: the descent bends both to what fits, where it would take long to make them out of nothing.
    """
    larger = resize(x, _size(content))
    if recipe.detail:
        larger = larger + recipe.detail * finest_band(content, _size(x))
    if recipe.strokes and styles:
        sides = [_style_side(max(image.shape[-2:]), recipe) for image in (content, x)]
        shown = [style for style, share in zip(styles, style_shares(recipe, len(styles)), strict=True) if share]
        scaled = [(resize(style, scaled_size(style, sides[0])), scaled_size(style, sides[1])) for style in shown]
        larger = larger + recipe.strokes * borrowed_band(x, _size(content), scaled)
    return larger


def plan_scales(content: Tensor, styles: Sequence[Tensor], recipe: Recipe, net: Net, held: float, budget: float) -> list[Plan]:
    """The fastest way to compute each of painted_scales in `budget` bytes, of which the process has `held`. Raises NoRoom."""

    def plan(side: int) -> Plan:
        largest = max((prod(scaled_size(style, _style_side(side, recipe))) for style in styles), default=0)
        return make_plan(net, recipe, scaled_size(content, side), largest, held, budget)

    return [plan(side) for side, _ in painted_scales(content, recipe)]


def check_fit(content: Tensor, styles: Sequence[Tensor], recipe: Recipe, picture: Tensor | None) -> None:
    """Raise what would go wrong later: sides too short to paint, as many style weights as styles, a start that is missing."""
    if recipe.has_style and not styles:
        raise BadRecipe("there is no style picture")
    if recipe.style_weights and len(recipe.style_weights) != len(styles):
        raise BadRecipe(f"style_weights has {len(recipe.style_weights)} numbers for {len(styles)} style pictures")
    for layer, edit in recipe.style_edit.items():
        if edit.paintings and len(edit.paintings) != len(styles):
            raise BadRecipe(
                f"the style edit has {len(edit.paintings)} paintings in {layer}, there are {len(styles)} style pictures"
            )
    if (recipe.init == "picture") != (picture is not None):
        raise BadRecipe("init is picture exactly when there is a picture to start from (--init-image)")
    side = next(iter(painted_scales(content, recipe)), (recipe.size, 0))[0]
    for name, image, longer in (("content", content, side), *(("style", style, _style_side(side, recipe)) for style in styles)):
        height, width = scaled_size(image, longer)
        if min(height, width) < MIN_SIDE:
            was = f"{image.shape[-1]} x {image.shape[-2]}"
            raise BadImage(f"the {name} picture ({was}) would be {width} x {height} when painted, shorter than {MIN_SIDE} pixels")


def first_image(content: Tensor, recipe: Recipe, picture: Tensor | None = None) -> Tensor:
    """What G starts as, at the size of `content`: noise, the content or a given picture, with a share of noise mixed in."""
    noise = canvas.white_noise(content.shape, recipe.noise_width, recipe.seed).to(content)
    if recipe.init == "noise":
        return noise
    return torch.lerp(content if picture is None else resize(picture, _size(content)), noise, recipe.init_noise)


def make_targets(content: Tensor, styles: Sequence[Tensor], recipe: Recipe, net: Net, tiling: Tiling | None = None) -> Targets:
    """The activations and Gram matrices that G is compared with, for a content picture already at its size."""
    side = _style_side(max(content.shape[-2:]), recipe)
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
    return {layer: gram / prod(map_size(net, layer, _size(image))) for layer, gram in found.items()}


def activations_of(image: Tensor, layers: Iterable[str], net: Net, tiling: Tiling | None) -> dict[str, Tensor]:
    """(1, 3, H, W) -> {layer: (1, C, h, w)}, gathered from the tiles."""
    if tiling is None:
        return features(net, image, layers)
    maps: dict[str, Tensor] = {}

    def gather(layer: str, a: Tensor, where: tuple[slice, slice]) -> Tensor:
        if layer not in maps:
            maps[layer] = a.new_empty(*a.shape[:2], *map_size(net, layer, _size(image)))
        maps[layer][..., where[0], where[1]] = a
        return a.new_zeros(())

    sums = {layer: Sum(layer, partial(gather, layer)) for layer in layers}
    if sums:
        add_up(net, image, sums, tiling)
    return maps


def make_cost(targets: Targets, recipe: Recipe, net: Net, tiling: Tiling | None = None, ties: Ties | None = None) -> Cost:
    """J of a picture: {"total", "content", "style", "style conv1_1", ..., "tv" where it has a weight, "temporal" with ties}.

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
            gram = found[f"style {layer}"] / prod(map_size(net, layer, _size(image)))
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
        if ties:
            costs["temporal"] = torch.stack([temporal_cost(image, w, c) for w, c in ties.pictures]).sum()
            costs["total"] = costs["total"] + ties.weight * costs["temporal"]
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
    cost = make_cost(make_targets(resize(content, _size(image)), styles, recipe, net, tiling), recipe, net, tiling)
    with torch.no_grad():
        return {name: float(value) for name, value in cost(image).items()}


def finished(image: Tensor, content: Tensor, recipe: Recipe) -> Tensor:
    """A Step's image as it is saved: at the size asked for, in 256 levels."""
    return quantize(resize(image, scaled_size(content, recipe.size)))


class _Clock:
    """Shares the time among the scales that it suffices for, by their work, and knows when the next step would be too late."""

    def __init__(self, scales: list[tuple[int, int]], seconds: float | None) -> None:
        self.begun, self.seconds, self.scales = time.monotonic(), seconds, scales
        self.is_up = False

    def is_over(self, index: int, step: Step) -> bool:
        """Whether the scale's time is over after this step."""
        if self.seconds is None:
            return False
        a_pixel = step.seconds / self.scales[index][0] ** 2
        spent, usable = time.monotonic() - self.begun, self.seconds - self._saving()
        reach = self._reach(index, a_pixel, usable)
        is_last_step = step.i == sum(steps for _, steps in self.scales[: index + 1])
        if index < reach:
            work = [steps * side**2 for side, steps in self.scales[: reach + 1]]
            return is_last_step or spent >= usable * sum(work[: index + 1]) / sum(work)
        self.is_up = spent + MARGIN * step.seconds > usable or (is_last_step and index + 1 < len(self.scales))
        return self.is_up

    def _reach(self, index: int, a_pixel: float, usable: float) -> int:
        """The finest scale that there is time to enter and do WORTHWHILE steps of, beside as many on those before it."""
        needed = 0.0
        for finer in range(index + 1, len(self.scales)):
            needed += (ENTRY + WORTHWHILE) * a_pixel * self.scales[finer][0] ** 2
            if time.monotonic() - self.begun + needed > usable:
                return finer - 1
        return len(self.scales) - 1

    def _saving(self) -> float:
        """Seconds to resize, encode and write the picture."""
        return 0.3 + SAVING_A_PIXEL * self.scales[-1][0] ** 2


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


def _style_side(side: int, recipe: Recipe) -> int:
    return round(side * recipe.style_scale)


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[-2], image.shape[-1]
