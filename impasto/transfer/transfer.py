"""Gatys, Ecker & Bethge 2015 (arXiv:1508.06576): paint the content picture C in the manner of the style pictures S.

J(G) = alpha J_content(C, G) + beta J_style(S, G), minimised over the pixels of G, coarse to fine.
"""

import functools
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from impasto.cache import Cache
from impasto.errors import BadImage, BadRecipe, ImpastoWarning
from impasto.images.images import (
    MIN_SIDE,
    check_image,
    in_profile,
    quantize,
    read_picture,
    resize,
    scaled_size,
    size_of,
    to_pillow,
    usable_profile,
)
from impasto.machine import give_back, limit_fragmentation
from impasto.nets.nets import INPUTS, NETS, Compute, Net, build_net, canonical, channels, layer_name, lengths, net_to, normalized
from impasto.objective.color_transfer import compared_with, cost_of_light, recolored, seen
from impasto.objective.framing import finished_size, framed, painted_size, style_at, style_size
from impasto.objective.losses import Cost, temporal_cost
from impasto.objective.masks import NO_MASKS, Masks, read_masks
from impasto.objective.objective import make_cost
from impasto.objective.style_costs import HOW, wants_of
from impasto.objective.targets import make_targets, parts_of, style_side
from impasto.pictures import CALIBRATION, picture_path
from impasto.recipe.recipe import Recipe, Scales, make_recipe
from impasto.transfer import canvas
from impasto.transfer.analogy import borrowed_band, finest_band
from impasto.transfer.checkpoint import on_disk
from impasto.transfer.descent import Optimizer, State, Step, begin, descend, moved
from impasto.transfer.memory_plan import Plan, make_plan
from impasto.weights import SOURCES, Loaded, load_weights

CALIBRATION_SIZE = 256
ENTRY = 3  # evaluations that a new scale takes before its first step: targets of C and S, the start
WORTHWHILE = 5  # a scale with less time than for so many steps is not begun
MARGIN = 1.5  # a step may be so much longer than the last
SAVING_A_PIXEL = 2e-6


@dataclass(frozen=True)
class Ties:
    """What else G is to be like, as the pictures (1, 3, H, W), each pixel by its weight c (1, 1, H, W); J gains `weight` of it."""

    weight: float
    pictures: tuple[tuple[Tensor, Tensor], ...]

    def like(self, image: Tensor, recipe: Recipe) -> "Ties":
        """At the size and on the device of this picture, and what of them the recipe compares."""
        size = size_of(image)
        scaled = ((seen(resize(w, size), recipe), resize(c, size)) for w, c in self.pictures)
        return Ties(self.weight, tuple((w.to(image), c.to(image)) for w, c in scaled))


def tied_cost(cost: Cost, ties: Ties) -> Cost:
    """The cost and "temporal", the sum over the ties, of one size with the picture."""

    def tied(image: Tensor) -> dict[str, Tensor]:
        costs = cost(image)
        temporal = torch.stack([temporal_cost(image, w, c) for w, c in ties.pictures]).sum()
        return {**costs, "total": costs["total"] + ties.weight * temporal, "temporal": temporal}

    return tied


def paint(
    content: str | Path | Image.Image,
    styles: str | Path | Image.Image | Sequence[str | Path | Image.Image],
    preset: str = "impasto",
    *,
    keep_profile: bool = False,
    **knobs: Any,
) -> Image.Image:
    """From paths or Pillow images to the finished picture: `paint("cat.jpg", ["wave.jpg"], size=512).save("out.png")`.

    One style picture needs no list. 8 bits a channel, the most that a Pillow image has; sRGB, or with `keep_profile` in the
    content picture's profile. Raises BadImage, BadRecipe for what cannot be painted.
    """
    recipe = make_recipe(preset, **knobs)
    styles = [styles] if isinstance(styles, str | Path | Image.Image) else styles
    picture, paintings = read_picture(content), [read_picture(style) for style in styles]
    alphas = [it.alpha for it in (picture, *paintings)]
    steps = stylize(picture.image, [it.image for it in paintings], recipe, make_net(recipe), alphas=alphas)
    image = finished(deque(steps, maxlen=1).pop().image, picture.image, recipe, alpha=picture.alpha)
    pixels = to_pillow(image, alpha_at(picture.alpha, image, recipe))
    profile = usable_profile(picture) if keep_profile else None
    return pixels if profile is None else in_profile(pixels, profile)


def make_net(recipe: Recipe, loaded: Loaded | None = None, place: Compute | None = None, cache: Cache | None = None) -> Net:
    """The recipe's net, with the given weights or its own, on the CPU unless `place` says. Raises BadRecipe for unknown layers."""
    loaded = loaded or load_weights(recipe.net)
    key = ("net", recipe.net, recipe.pooling, recipe.padding, recipe.normalize_net, place)
    net = (cache or Cache()).get_or_make(key, (loaded,), functools.partial(_built, recipe, loaded, place))
    for layer in (*recipe.content_layers, *recipe.style_layers):
        layer_name(net, layer)
    for it in (recipe, *(recipe.at(i) for i in recipe.changes)):
        check_edit(it, net)
    read = {cost for costs in wants_of(recipe, net).values() for cost in costs}
    if recipe.has_style and (unread := [cost for cost, weight in recipe.style_costs.items() if weight and cost not in read]):
        raise BadRecipe(f"the style cost {', '.join(unread)} reads none of the style layers {', '.join(recipe.style_layers)}")
    if recipe.preset == "impasto" and loaded.input != SOURCES[recipe.net].input:
        said = f"preset impasto is made for {SOURCES[recipe.net].input} weights of {recipe.net}, these are {loaded.input}"
        warnings.warn(f"{said}: set --content-layers and --style-layers", ImpastoWarning, stacklevel=2)
    return net


def _built(recipe: Recipe, loaded: Loaded, place: Compute | None) -> Net:
    net = build_net(recipe.net, loaded.tensors, INPUTS[loaded.input], recipe.pooling, recipe.padding)
    if recipe.normalize_net:
        calibration = [read_picture(picture_path(name)).image for name in CALIBRATION]
        net = normalized(net, [resize(image, scaled_size(image, CALIBRATION_SIZE)) for image in calibration])
    return net if place is None else net_to(net, place)


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
    masks: Masks | None = None,
    alphas: Sequence[Tensor | None] | None = None,
    ties: Ties | None = None,
    cache: Cache | None = None,
    folder: Path | None = None,
) -> Iterator[Step]:
    """Steps from the start to the finished painting. Pictures are (1, 3, H, W) in [0, 1] of any size, as they were read.

    `picture` is what G starts as with init="picture"; `resume` the state of an earlier Step; `seconds` how long it may take, of
    which each scale gets its share; `plans` how each of painted_scales is computed (plan_scales), whole unless given; `masks`
    those of the recipe's regions, read unless given; `alphas` what shows of the content picture and of each style picture, for
    the recipe's colours; `ties` add the temporal cost of a video; `cache` has what earlier paintings have computed; `folder` is
    where the files of plans on disk go.
    Raises BadImage for pictures too small to paint, BadRecipe for knobs that do not fit them.
    """
    check_fit(content, styles, recipe, picture)
    masks = read_masks(recipe, content, styles) if masks is None else masks
    scales = painted_scales(content, styles, recipe)
    clock = _Clock(scales, seconds)
    sizes = [painted_size(content, side, recipe) for side, _ in scales]
    content, styles = compared_with(content, styles, recipe, alphas, masks)
    picture = None if picture is None else seen(framed(picture, recipe), recipe)
    device = net.convs[0].weight.device
    content, styles = content.to(device), [style.to(device) for style in styles]
    picture = None if picture is None else picture.to(device)
    total, until, state = sum(steps for _, steps in scales), 0, None if resume is None else moved(resume, device)
    for index, (size, (_, steps)) in enumerate(zip(sizes, scales, strict=True)):
        begun, until = until, until + steps
        plan = plans[index] if plans else Plan(None, recipe.history)
        optimizer = Optimizer(recipe.optimizer, recipe.lr, plan.history, recipe.falloff, recipe.wraps)
        is_over = False
        for first, last in pairwise((begun, *(i for i in sorted(recipe.changes) if begun < i < until), until)):
            if is_over or (state is not None and state.i >= last):
                continue
            give_back()  # the last scale's maps, whose places suit this one's badly
            limit_fragmentation(plan.tiling is not None)
            lying = folder if plan.on_disk else None
            now, scaled = recipe.at(first), resize(content, size, recipe.wraps, lying or net.convs[0].weight)
            cost = make_cost(make_targets(scaled, styles, now, net, plan.tiling, masks, cache), now, net, plan.tiling)
            cost = cost if ties is None else tied_cost(cost, ties.like(scaled, recipe))
            if recipe.paints_light:
                cost = functools.partial(cost_of_light, cost)
            if state is None:
                state = begin(first_image(scaled, recipe, picture), cost)
            elif state.x.shape != scaled.shape:
                state = begin(refined(state.x, scaled, styles, now, masks), cost, begun, state.cut or state.i < begun)
            elif state.i == first:
                state = begin(state.x, cost, first, state.cut)  # what L-BFGS remembers is of another cost
            state = on_disk(state, lying) if lying else state
            del scaled  # a large one would count in the peak
            for step in descend(cost, state, last, total, optimizer):
                state = step.state
                yield step
                if is_over := clock.is_over(index, step):
                    break
        if clock.is_up:
            return


def painted_scales(content: Tensor, styles: Sequence[Tensor], recipe: Recipe) -> Scales:
    """(longer side, steps) of each scale; those at which a narrow picture would be too small to paint are left out."""
    scales = recipe.scales()
    fitting = [(side, steps) for side, steps in scales if not _too_small(content, styles, side, recipe)]
    return [(fitting[0][0], scales[0][1]), *fitting[1:]] if fitting else []


def _too_small(content: Tensor, styles: Sequence[Tensor], side: int, recipe: Recipe) -> str | None:
    """What is wrong where a picture would have too short a side in a painting of this longer side; None where none has."""
    size, least = painted_size(content, side, recipe), max(MIN_SIDE, _least_side(recipe))
    longer = style_side(max(size), recipe)
    sizes = [("style", style, style_size(style, longer, recipe)) for style in styles if recipe.has_style]
    for name, image, (height, width) in (("content", content, size), *sizes):
        if min(height, width) < least:
            larger = "--size or --style-scale" if name == "style" else "--size"
            said = f"the {name} picture ({image.shape[-1]} x {image.shape[-2]}) would be {width} x {height} when painted"
            return f"{said}, these layers and costs need sides of {least} pixels: raise {larger}, or crop it"
    return None


def refined(x: Tensor, content: Tensor, styles: Sequence[Tensor], recipe: Recipe, masks: Masks = NO_MASKS) -> Tensor:
    """The picture so far at the size of the content picture, with detail that the coarser scale could not hold.

    So much of the content's finest band as `detail` says, and of the paintings', where they look like the picture, as `strokes`
    says: the descent bends both to what fits, where it would take long to make them out of nothing. The content picture is framed
    and at its size, style pictures and masks are as they were read.
    """
    larger = resize(x, size_of(content), recipe.wraps, content)
    if recipe.detail:
        larger = larger + recipe.detail * finest_band(content, size_of(x), recipe.wraps)
    if recipe.strokes and styles:
        sides = [style_side(max(image.shape[-2:]), recipe) for image in (content, x)]
        scaled = [(style_at(style, sides[0], recipe, content), style_size(style, sides[1], recipe)) for style in styles]
        borrowed = functools.cache(lambda shown: borrowed_band(x, size_of(content), [scaled[n] for n in shown], recipe.wraps))
        for part in parts_of(content, len(styles), recipe, masks):
            its = zip(part.paintings, part.shares(recipe), strict=True)
            shown = tuple(n for (n, _), share in its if share and part.style_weight)
            if shown:
                band = borrowed(shown) if part.where is None else part.where * borrowed(shown)
                larger = larger + recipe.strokes * min(part.style_weight, 1) * band
    return larger


def plan_scales(
    content: Tensor, styles: Sequence[Tensor], recipe: Recipe, net: Net, held: float, budget: float, disk: float = 0.0
) -> list[Plan]:
    """The fastest way to compute each of painted_scales in `budget` bytes, of which the process has `held`; whole on a GPU.

    `disk` are the bytes that files may take. Raises NoRoom.
    """

    def plan(side: int) -> Plan:
        if net.convs[0].weight.device.type != "cpu":
            return Plan(None, recipe.history)
        size = painted_size(content, side, recipe)
        largest = max((prod(style_size(style, style_side(max(size), recipe), recipe)) for style in styles), default=0)
        return make_plan(net, recipe, size, largest, held, budget, disk)

    return [plan(side) for side, _ in painted_scales(content, styles, recipe)]


def check_fit(content: Tensor, styles: Sequence[Tensor], recipe: Recipe, picture: Tensor | None) -> None:
    """Raise what would go wrong later: sides too short to paint, as many style weights as styles, a start that is missing."""
    for image in (content, *styles, *([] if picture is None else [picture])):
        check_image(image)
    if recipe.has_style and not styles:
        raise BadRecipe("there is no style picture")
    for name, region in recipe.regions.items():
        if region.style and region.style > len(styles):
            raise BadRecipe(f"the region {name} is to be painted like style picture {region.style}, there are {len(styles)}")
    if recipe.style_weights and len(recipe.style_weights) != len(styles):
        raise BadRecipe(f"style_weights has {len(recipe.style_weights)} numbers for {len(styles)} style pictures")
    for layer, edit in recipe.style_edit.items():
        if edit.paintings and len(edit.paintings) != len(styles):
            counted = f"{len(edit.paintings)} paintings in {layer}, the style pictures are {len(styles)}"
            raise BadRecipe(f"the style edit has shares of {counted}")
    if (recipe.init == "picture") != (picture is not None):
        raise BadRecipe("init is picture exactly when there is a picture to start from (--init-image)")
    if not painted_scales(content, styles, recipe):
        raise BadImage(_too_small(content, styles, recipe.size, recipe))


@functools.cache
def _least_side_of(net: str, layers: frozenset[str], least: int) -> int:
    """The shortest side of a picture of which each of these layers of a net has a map with sides of `least`."""
    names = [layer.name for layer in NETS[net]]
    downs = [NETS[net][: names.index(layer) + 1] for layer in layers if layer in names]
    return next(side for side in range(1, 10_000) if all(_reaches(lengths(down, side), least) for down in downs))


def _reaches(maps: Sequence[int], least: int) -> bool:
    return min(maps) > 0 and maps[-1] >= least


def _least_side(recipe: Recipe) -> int:
    """The shortest side of which every layer that the recipe names has a map as large as its costs need."""
    style, content = (
        frozenset(canonical(layer).removesuffix(":pre") for layer in its) for its in (recipe.style_layers, recipe.content_layers)
    )
    least = max((HOW[cost].least for cost, weight in recipe.style_costs.items() if weight), default=1)
    return max(_least_side_of(recipe.net, style, least), _least_side_of(recipe.net, content, 1))


def first_image(content: Tensor, recipe: Recipe, picture: Tensor | None = None) -> Tensor:
    """What G starts as, at the size of `content`: noise, the content or a given picture, with a share of noise mixed in."""
    start = content if picture is None else resize(picture, size_of(content), recipe.wraps, content)
    share = 1.0 if recipe.init == "noise" else recipe.init_noise
    if not share:
        return start
    noise = canvas.white_noise(content.shape, recipe.noise_width, recipe.seed).to(content)
    return start.clone().lerp_(noise, share)


def finished(
    image: Tensor, content: Tensor, recipe: Recipe, bits: int = 8, alpha: Tensor | None = None, masks: Masks | None = None
) -> Tensor:
    """A Step's image as it is saved: at the size and in the colours asked for, in 256 levels or those of 16 bits.

    `alpha` is what shows of the content picture, `masks` are those of the recipe's regions, made unless given.
    """
    image = resize(image, finished_size(content, recipe.size, recipe), recipe.wraps)
    return quantize(recolored(image, content, recipe, alpha, masks), bits)


def alpha_at(alpha: Tensor | None, image: Tensor, recipe: Recipe) -> Tensor | None:
    """The alpha channel (1, 1, H, W) of a painting, from that of its content picture as it was read."""
    return None if alpha is None else resize(framed(alpha, recipe), size_of(image), recipe.wraps, image)


class _Clock:
    """Shares the time among the scales that it suffices for, by their work, and knows when the next step would be too late."""

    def __init__(self, scales: Scales, seconds: float | None) -> None:
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
