"""Gatys, Ecker & Bethge 2015 (arXiv:1508.06576): paint the content picture C in the manner of the style pictures S.

J(G) = alpha J_content(C, G) + beta J_style(S, G), minimised over the pixels of G, from coarse scales to fine ones.
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
from impasto.errors import BadImage, BadInput, BadRecipe, ImpastoWarning
from impasto.feedforward.apply import InstantPainter, check_instant
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
from impasto.nets.nets import (
    INPUTS,
    NETS,
    Compute,
    Net,
    build_net,
    canonical,
    channels,
    for_small_maps,
    layer_name,
    lengths,
    net_to,
    normalized,
)
from impasto.objective.color_transfer import as_compared, luminance_cost, recolored, recolored_inputs
from impasto.objective.framing import cropped_styles, finished_size, framed, painted_size, style_at, style_size
from impasto.objective.losses import Cost, temporal_cost
from impasto.objective.masks import NO_MASKS, Masks, busyness, product, read_masks
from impasto.objective.objective import make_cost
from impasto.objective.style_costs import COSTS, costs_by_layer
from impasto.objective.targets import make_targets, parts_of, style_side
from impasto.pictures import CALIBRATION, picture_path
from impasto.recipe.recipe import Recipe, Scales, make_recipe
from impasto.transfer.analogy import borrowed_band, finest_band
from impasto.transfer.canvas import PIXELS, Canvas, soft_color, white_noise
from impasto.transfer.checkpoint import on_disk
from impasto.transfer.descent import Optimizer, State, Step, begin, descend, moved
from impasto.transfer.memory_plan import Plan, instant_plan, make_plan
from impasto.weights import SOURCES, Loaded, load_weights

CALIBRATION_SIZE = 256
ENTRY = 3  # evaluations before the first step of a scale: targets of C and S, cost of the start
WORTHWHILE = 5  # least steps for which a scale is begun under a time limit
MARGIN = 1.5  # most time of a step relative to the one before
SAVING_A_PIXEL = 2e-6  # seconds


@dataclass(frozen=True)
class Ties:
    """The temporal cost of a video frame: it compares G with warped neighbour frames.

    `pictures` are pairs (w, c): a warped frame (1, 3, H, W) and the weight (1, 1, H, W) of each of its pixels. `weight` is that of
    the temporal cost in J.
    """

    weight: float
    pictures: tuple[tuple[Tensor, Tensor], ...]

    def like(self, image: Tensor, recipe: Recipe) -> "Ties":
        """The ties at the size and on the device of this picture, grey where only luminance is compared."""
        size = size_of(image)
        scaled = ((as_compared(resize(w, size), recipe), resize(c, size)) for w, c in self.pictures)
        return Ties(self.weight, tuple((w.to(image), c.to(image)) for w, c in scaled))


@dataclass(frozen=True)
class Extras:
    """Optional inputs of stylize; pictures and masks as they were read.

    `start` is the picture that G starts from with init="picture". `masks` are those of the recipe's regions; without them they are
    read from the recipe's files. `alphas` are the alpha channels (1, 1, H, W) of the content picture and of each style picture.
    """

    start: Tensor | None = None
    masks: Masks | None = None
    alphas: Sequence[Tensor | None] | None = None
    ties: Ties | None = None


@dataclass(frozen=True)
class Execution:
    """How stylize computes: one plan for each scale (plan_scales; without plans, the picture as a whole), and a time limit.

    `folder` is for the files of plans on disk; `cache` holds results that several paintings share; `seconds` is the time limit,
    which the scales share; `painter` is that of an instant picture, where it is known already.
    """

    plans: Sequence[Plan] | None = None
    folder: Path | None = None
    cache: Cache | None = None
    seconds: float | None = None
    painter: InstantPainter | None = None


def tied_cost(cost: Cost, ties: Ties) -> Cost:
    """The cost with the term "temporal", the sum over the ties, which have the size of the picture."""

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
    """Paint from paths or Pillow images to a finished Pillow image: `paint("cat.jpg", "monet.jpg", size=512).save("out.png")`.

    `knobs` are fields of the recipe. The result has 8 bits a channel, the most that a Pillow image can hold, in sRGB or, with
    `keep_profile`, in the colour profile of the content picture. Raises BadImage for pictures and BadRecipe for knobs that cannot
    be painted.
    """
    recipe = make_recipe(preset, **knobs)
    styles = [styles] if isinstance(styles, str | Path | Image.Image) else styles
    picture, paintings = read_picture(content), cropped_styles([read_picture(style) for style in styles], recipe)
    alphas = [it.alpha for it in (picture, *paintings)]
    net = None if recipe.is_instant else make_net(recipe)
    steps = stylize(picture.image, [it.image for it in paintings], recipe, net, Extras(alphas=alphas))
    image = finished(deque(steps, maxlen=1).pop().image, picture.image, recipe, alpha=picture.alpha)
    pixels = to_pillow(image, alpha_at(picture.alpha, image, recipe))
    profile = usable_profile(picture) if keep_profile else None
    return pixels if profile is None else in_profile(pixels, profile)


def instant(
    content: str | Path | Image.Image, styles: str | Path | Image.Image | Sequence[str | Path | Image.Image], **knobs: Any
) -> Image.Image:
    """A painting in one pass of the instant net: `instant("cat.jpg", "monet.jpg", size=1024, beta=5)`. As paint."""
    return paint(content, styles, quality="instant", **knobs)


def make_net(recipe: Recipe, loaded: Loaded | None = None, place: Compute | None = None, cache: Cache | None = None) -> Net:
    """The recipe's net on the CPU or on `place`, with its own weights or the given ones. Raises BadRecipe for unknown layers."""
    loaded = loaded or load_weights(recipe.net)
    key = ("net", recipe.net, recipe.pooling, recipe.padding, recipe.normalize_net, place)
    net = (cache or Cache()).get_or_make(key, (loaded,), functools.partial(_built, recipe, loaded, place))
    for layer in (*recipe.content_layers, *recipe.style_layers):
        layer_name(net, layer)
    for it in (recipe, *(recipe.at(i) for i in recipe.changes)):
        check_edit(it, net)
    read = {cost for costs in costs_by_layer(recipe, net).values() for cost in costs}
    if recipe.has_style and (unread := [cost for cost, weight in recipe.style_costs.items() if weight and cost not in read]):
        raise BadRecipe(f"the style cost {', '.join(unread)} reads none of the style layers {', '.join(recipe.style_layers)}")
    if recipe.preset == "impasto" and loaded.input != SOURCES[recipe.net].input:
        message = f"the preset impasto was tuned for {SOURCES[recipe.net].input} weights of {recipe.net}, these are {loaded.input}"
        warnings.warn(f"{message}: set --content-layers and --style-layers", ImpastoWarning, stacklevel=2)
    return net


def _built(recipe: Recipe, loaded: Loaded, place: Compute | None) -> Net:
    net = build_net(recipe.net, loaded.tensors, INPUTS[loaded.input], recipe.pooling, recipe.padding)
    if recipe.normalize_net:
        calibration = [read_picture(picture_path(name)).image for name in CALIBRATION]
        net = normalized(net, [resize(image, scaled_size(image, CALIBRATION_SIZE)) for image in calibration])
    return net if place is None else net_to(net, place)


def check_edit(recipe: Recipe, net: Net) -> None:
    """Raise BadRecipe where the style edit names a unit that the layer does not have, or a layer before its ReLU."""
    for layer, edit in recipe.style_edit.items():
        if layer.endswith(":pre"):
            raise BadRecipe(f"the style edit changes {layer}: only layers after their ReLU, never negative, can be edited")
        if edit.largest_unit() >= (count := channels(net, layer)):
            raise BadRecipe(f"the style edit changes unit {edit.largest_unit()} of {layer}, which has the units 0 to {count - 1}")


def stylize(
    content: Tensor,
    styles: Sequence[Tensor],
    recipe: Recipe,
    net: Net | None,
    extras: Extras = Extras(),
    execution: Execution = Execution(),
    resume: State | None = None,
) -> Iterator[Step]:
    """Steps from the start to the finished painting. Pictures are (1, 3, H, W) in [0, 1] of any size, as they were read.

    `resume` is the state of an earlier Step, from which the same painting continues. `net` may be None for quality instant, whose
    one step has no costs. Raises BadImage for pictures that are too small to paint, BadRecipe for knobs that do not fit them.
    """
    check_fit(content, styles, recipe, extras.start)
    masks = read_masks(recipe, content, styles) if extras.masks is None else extras.masks
    painter = execution.painter or InstantPainter.needed_by(recipe, styles)
    if painter and recipe.is_instant:
        yield instant_step(content, painter, masks)
        return
    if net is None:
        raise BadInput("a descent needs a net: make_net(recipe) is one")
    scales, stages = painted_scales(content, styles, recipe), _stages(content, styles, recipe, execution.plans)
    clock = _Clock(scales, execution.seconds)
    device = net.convs[0].weight.device
    content, styles = recolored_inputs(content, styles, recipe, extras.alphas, masks)
    content, styles = content.to(device), [style.to(device) for style in styles]
    start = None if extras.start is None else as_compared(framed(extras.start, recipe), recipe).to(device)
    state = None if resume is None else moved(resume, device)
    for stage in stages:
        if stage.scale <= clock.over or (state is not None and state.i >= stage.last):
            continue
        give_back()  # the maps of the last scale leave gaps that do not fit this one's
        limit_fragmentation(stage.plan.tiling is not None)
        canvas = canvas_of(recipe, stage.size == stages[-1].size)
        now, tiling, folder = recipe.at(stage.first), stage.plan.tiling, execution.folder if stage.plan.on_disk else None
        scaled = resize(content, stage.size, recipe.wraps, folder or net.convs[0].weight)
        targets = make_targets(scaled, styles, now, net, tiling, masks, execution.cache)
        fast = for_small_maps(net, stage.size) if tiling is None else net
        cost = _tied(make_cost(targets, now, fast, tiling), extras.ties, scaled, recipe)
        if state is None:
            start = as_compared(painter.paint(scaled, masks), recipe) if painter else start
            state = begin(first_image(scaled, recipe, start), cost, canvas=canvas)
        elif state.x.shape != scaled.shape:
            larger = refined(state.image, scaled, styles, now, masks)
            state = begin(larger, cost, stage.first, state.truncated or state.i < stage.first, canvas)
        elif state.i == stage.first:
            state = begin(state.x, cost, stage.first, state.truncated, canvas)  # the memory of L-BFGS belongs to the cost before
        state = on_disk(state, folder) if folder else state
        del scaled, targets  # a large picture would count in the peak
        optimizer = Optimizer(recipe.optimizer, recipe.lr, stage.plan.history, recipe.falloff, recipe.wraps)
        for step in descend(cost, state, stage.last, stages[-1].last, optimizer):
            state = step.state
            yield step
            if clock.is_over(stage.scale, step):
                break
        del cost, fast, optimizer  # their weights and maps would count in the next scale's peak


def instant_step(content: Tensor, painter: InstantPainter, masks: Masks = NO_MASKS) -> Step:
    """The one step of quality instant, which evaluates no costs; the content picture and masks are as they were read."""
    recipe = painter.recipe
    begun = time.monotonic()
    image = painter.paint(resize(framed(content, recipe), painted_size(content, recipe.size, recipe)), masks)
    state = State(image, image.new_zeros(()).expand_as(image), {}, 1)
    return Step(1, 1, recipe.size, {}, time.monotonic() - begun, state)


@dataclass(frozen=True)
class _Stage:
    """The steps from `first` to `last` of one scale, by its number, between which the recipe does not change; size is (H, W)."""

    scale: int
    size: tuple[int, int]
    plan: Plan
    first: int
    last: int


def _stages(content: Tensor, styles: Sequence[Tensor], recipe: Recipe, plans: Sequence[Plan] | None) -> list[_Stage]:
    stages: list[_Stage] = []
    for index, (side, steps) in enumerate(painted_scales(content, styles, recipe)):
        begin = stages[-1].last if stages else 0
        ends = [*(i for i in sorted(recipe.changes) if begin < i < begin + steps), begin + steps]
        plan = plans[index] if plans else Plan(None, recipe.history)
        size = painted_size(content, side, recipe)
        stages += [_Stage(index, size, plan, first, last) for first, last in pairwise((begin, *ends))]
    return stages


def _tied(cost: Cost, ties: Ties | None, scaled: Tensor, recipe: Recipe) -> Cost:
    """The cost with its ties, of the luminance if only that is painted."""
    cost = cost if ties is None else tied_cost(cost, ties.like(scaled, recipe))
    return functools.partial(luminance_cost, cost) if recipe.paints_light else cost


def canvas_of(recipe: Recipe, is_finest: bool) -> Canvas:
    """The parameters that a scale is painted with: pixels; with clean_color, at the finest scale, pixels of soft colour."""
    return soft_color(recipe.wraps) if is_finest and recipe.clean_color and not recipe.paints_light else PIXELS


def painted_scales(content: Tensor, styles: Sequence[Tensor], recipe: Recipe) -> Scales:
    """(longer side, steps) of each scale, without scales at which a narrow picture would be too small to paint."""
    scales = recipe.scales()
    fitting = [(side, steps) for side, steps in scales if not _too_small(content, styles, side, recipe)]
    return [(fitting[0][0], scales[0][1]), *fitting[1:]] if fitting else []


def _too_small(content: Tensor, styles: Sequence[Tensor], side: int, recipe: Recipe) -> str | None:
    """An error message if a picture would have too short a side in a painting of this longer side; else None."""
    size, least = painted_size(content, side, recipe), max(MIN_SIDE, _least_side(recipe))
    longer = style_side(max(size), recipe)
    sizes = [("style", style, style_size(style, longer, recipe)) for style in styles if recipe.has_style]
    for name, image, (height, width) in (("content", content, size), *sizes):
        if min(height, width) < least:
            larger = "--size or --style-scale" if name == "style" else "--size"
            message = f"the {name} picture ({image.shape[-1]} x {image.shape[-2]}) would be {width} x {height} when painted"
            return f"{message}, these layers and costs need sides of {least} pixels: raise {larger}, or crop it"
    return None


def refined(x: Tensor, content: Tensor, styles: Sequence[Tensor], recipe: Recipe, masks: Masks = NO_MASKS) -> Tensor:
    """G enlarged to the size of the content picture, with detail that the coarser scale could not hold.

    The recipe's `detail` is the share of the content's finest frequency band to add, `strokes` that of the style pictures', taken
    from where they look like G. The descent adapts both; it would take many more steps to create them. The content picture is
    framed and scaled, style pictures and masks are as they were read.
    """
    larger = resize(x, size_of(content), recipe.wraps, content)
    if recipe.detail:
        larger = larger + recipe.detail * finest_band(content, size_of(x), recipe.wraps)
    if recipe.strokes and styles:
        sides = [style_side(max(image.shape[-2:]), recipe) for image in (content, x)]
        scaled = [(style_at(style, sides[0], recipe, content), style_size(style, sides[1], recipe)) for style in styles]
        busy = busyness(content, recipe)
        band_of = functools.cache(lambda numbers: borrowed_band(x, size_of(content), [scaled[n] for n in numbers], recipe.wraps))
        for part in parts_of(content, len(styles), recipe, masks):
            weighted = zip(part.styles, part.shares(recipe), strict=True)
            numbers = tuple(n for (n, _), share in weighted if share and part.style_weight)
            if numbers:
                mask = product(part.mask, busy)
                band = band_of(numbers) if mask is None else mask * band_of(numbers)
                larger = larger + recipe.strokes * min(part.style_weight, 1) * band
    return larger


def plan_scales(
    content: Tensor, styles: Sequence[Tensor], recipe: Recipe, net: Net | None, held: float, budget: float, disk: float = 0.0
) -> list[Plan]:
    """The fastest way to compute each of painted_scales within `budget` bytes of memory, of which `held` are in use already.

    `net` is None for quality instant; `disk` are the bytes available for files. A GPU always computes the picture as a whole.
    Raises NoRoom.
    """

    def plan(side: int) -> Plan:
        if net is None:
            return instant_plan(painted_size(content, side, recipe), held, budget)
        if net.convs[0].weight.device.type != "cpu":
            return Plan(None, recipe.history)
        size = painted_size(content, side, recipe)
        largest = max((prod(style_size(style, style_side(max(size), recipe), recipe)) for style in styles), default=0)
        return make_plan(net, recipe, size, largest, held, budget, disk)

    return [plan(side) for side, _ in painted_scales(content, styles, recipe)]


def check_fit(content: Tensor, styles: Sequence[Tensor], recipe: Recipe, picture: Tensor | None) -> None:
    """Raise BadImage or BadRecipe for errors that would come later: short sides, wrong numbers of weights, a missing start."""
    for image in (content, *styles, *([] if picture is None else [picture])):
        check_image(image)
    if recipe.has_style and not styles:
        raise BadRecipe("there is no style picture")
    for name, region in recipe.regions.items():
        if region.style and region.style > len(styles):
            raise BadRecipe(f"the region {name} has style = {region.style}, but the number of style pictures is {len(styles)}")
    if recipe.style_weights and len(recipe.style_weights) != len(styles):
        raise BadRecipe(f"style_weights has {len(recipe.style_weights)} numbers for {len(styles)} style pictures")
    for layer, edit in recipe.style_edit.items():
        if edit.paintings and len(edit.paintings) != len(styles):
            counts = f"{len(edit.paintings)} shares for {layer}, but the number of style pictures is {len(styles)}"
            raise BadRecipe(f"the style edit has {counts}")
    if recipe.is_instant:
        check_instant(recipe)
    if (recipe.init == "picture") != (picture is not None):
        raise BadRecipe("--init picture and --init-image need each other")
    if not painted_scales(content, styles, recipe):
        raise BadImage(_too_small(content, styles, recipe.size, recipe))


@functools.cache
def _least_side_of(net: str, layers: frozenset[str], least: int) -> int:
    """The shortest side of a picture for which each of these layers has a map with sides of at least `least`."""
    names = [layer.name for layer in NETS[net]]
    downs = [NETS[net][: names.index(layer) + 1] for layer in layers if layer in names]
    return next(side for side in range(1, 10_000) if all(_reaches(lengths(down, side), least) for down in downs))


def _reaches(maps: Sequence[int], least: int) -> bool:
    return min(maps) > 0 and maps[-1] >= least


def _least_side(recipe: Recipe) -> int:
    """The shortest side of a picture for which every layer in the recipe has a map as large as its costs need."""
    style, content = (
        frozenset(canonical(layer).removesuffix(":pre") for layer in its) for its in (recipe.style_layers, recipe.content_layers)
    )
    least = max((COSTS[cost].least for cost, weight in recipe.style_costs.items() if weight), default=1)
    return max(_least_side_of(recipe.net, style, least), _least_side_of(recipe.net, content, 1))


def first_image(content: Tensor, recipe: Recipe, picture: Tensor | None = None) -> Tensor:
    """The start of the descent at the size of `content`: noise, the content or a given picture, mixed with a share of noise."""
    start = content if picture is None else resize(picture, size_of(content), recipe.wraps, content)
    share = 1.0 if recipe.init == "noise" else recipe.init_noise
    if not share:
        return start
    noise = white_noise(content.shape, recipe.noise_width, recipe.seed).to(content)
    return start.clone().lerp_(noise, share)


def finished(
    image: Tensor, content: Tensor, recipe: Recipe, bits: int = 8, alpha: Tensor | None = None, masks: Masks | None = None
) -> Tensor:
    """A Step's image as it is saved: in the recipe's size and colours, quantised to 8 or 16 bits.

    `content` and its `alpha` channel are as they were read; without `masks` those of the recipe's regions are made here.
    """
    image = resize(image, finished_size(content, recipe.size, recipe), recipe.wraps)
    return quantize(recolored(image, content, recipe, alpha, masks), bits)


def alpha_at(alpha: Tensor | None, image: Tensor, recipe: Recipe) -> Tensor | None:
    """The alpha channel (1, 1, H, W) of a painting, from that of its content picture, as it was read."""
    return None if alpha is None else resize(framed(alpha, recipe), size_of(image), recipe.wraps, image)


class _Clock:
    """Divides a time limit among the scales that fit into it, by their work; `over` is the last scale whose time has run out."""

    def __init__(self, scales: Scales, seconds: float | None) -> None:
        self.begun, self.seconds, self.scales = time.monotonic(), seconds, scales
        self.over = -1

    def is_over(self, index: int, step: Step) -> bool:
        """Whether the time of this scale has run out after this step."""
        if self._has_run_out(index, step):
            self.over = max(self.over, index)
        return self.over >= index

    def _has_run_out(self, index: int, step: Step) -> bool:
        if self.seconds is None:
            return False
        a_pixel = step.seconds / self.scales[index][0] ** 2
        spent, usable = time.monotonic() - self.begun, self.seconds - self._saving()
        reach = self._reach(index, a_pixel, usable)
        is_last_step = step.i == sum(steps for _, steps in self.scales[: index + 1])
        if index < reach:
            work = [steps * side**2 for side, steps in self.scales[: reach + 1]]
            return is_last_step or spent >= usable * sum(work[: index + 1]) / sum(work)
        if spent + MARGIN * step.seconds > usable or (is_last_step and index + 1 < len(self.scales)):
            self.over = len(self.scales)  # no time for any other scale
        return self.over >= index

    def _reach(self, index: int, a_pixel: float, usable: float) -> int:
        """The finest scale for which there is time: to enter it and take WORTHWHILE steps there and at each scale before it."""
        needed = 0.0
        for finer in range(index + 1, len(self.scales)):
            needed += (ENTRY + WORTHWHILE) * a_pixel * self.scales[finer][0] ** 2
            if time.monotonic() - self.begun + needed > usable:
                return finer - 1
        return len(self.scales) - 1

    def _saving(self) -> float:
        """Seconds to resize, encode and write the picture."""
        return 0.3 + SAVING_A_PIXEL * self.scales[-1][0] ** 2
