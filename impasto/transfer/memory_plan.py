"""Fitting a painting into memory: what each way to compute it takes, and the fastest that fits.

Everything is predicted from shapes: the maps that a walk keeps for its way back, what the kernels need beside them, the pictures
that the optimiser holds. docs/performance.md compares the predictions with measured peaks.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from math import inf, prod
from typing import Any

from pydantic import TypeAdapter

from impasto.errors import BadRecipe, NoRoom
from impasto.images.images import Wraps
from impasto.machine import free_memory, used_memory
from impasto.nets.nets import Conv, Net, Pool, channels, map_size, window
from impasto.objective.framing import periodic_net
from impasto.objective.style_costs import COSTS, costs_by_layer, map_cost_memory
from impasto.objective.tiles import Tiling, area_read, split_net
from impasto.recipe.recipe import Recipe

FLOAT = 4
LIMIT = "IMPASTO_MAX_MEMORY"  # in the environment
PICTURES = {
    "lbfgs": 5,
    "adam": 7,
    "gd": 4,
}  # at once, beside what L-BFGS remembers: x and gradient of two points, direction, moments
SLACK = 150e6  # the kernels' own buffers, weights as Winograd's convolution transforms them, what malloc cannot join
HOLES = 250e6  # what tiles of several sizes leave between them, whatever the picture's size (measured at 1024 and 2048 px)
SPARE = 0.1  # of the free memory, left alone unless --max-memory says otherwise
SIDES = (2048, 1448, 1024, 724, 512, 362, 256, 181, 128)
FRAMES = 2  # maps more at a time where a picture wraps: put into its frame, and taken out (measured at 512 px)
BANDS = 200e6  # of pictures on disk, while the optimiser works upon them, or one is made as large as another
COPIES_ON_DISK = 8  # pictures more: those compared with, at their size, what is left of the last step, what checkpoints hold
COPIES = 1.5  # a tile's own places are copied out of what it computes
AGAIN = 1.5  # with a tiling everything is walked forwards twice
MB = 1e6


@dataclass(frozen=True)
class Plan:
    """How one scale is computed: whole (None) or tiled, with so many L-BFGS steps remembered; `peak` is the bytes predicted.

    With `on_disk` everything that grows with the picture lies in files, which take `disk` bytes.
    """

    tiling: Tiling | None
    history: int
    peak: float = 0.0
    on_disk: bool = False
    disk: float = 0.0

    @property
    def way(self) -> str:
        """In words."""
        if self.tiling is None:
            return "whole"
        return f"in tiles of {self.tiling.side} cut at {len(self.tiling.cuts)} pools{', on disk' if self.on_disk else ''}"

    def __str__(self) -> str:
        return f"{self.way}, {self.peak / MB:.0f} MB{f' and {self.disk / MB:.0f} MB of disk' if self.on_disk else ''}"


def written(plan: Plan) -> dict[str, Any]:
    """What of a plan the bytes of a painting depend on, for its record."""
    found = {"tiling": plan.tiling and asdict(plan.tiling), "history": plan.history}
    return {**found, "on_disk": True} if plan.on_disk else found


def read_plan(record: dict[str, Any]) -> Plan:
    """A plan as it was written. Raises ValueError for what is none."""
    return TypeAdapter(Plan).validate_python(record)


def is_plan_for(plan: Plan, net: Net, recipe: Recipe) -> bool:
    """Whether a plan that was read back can be carried out."""
    (whole,) = split_net(net, {*recipe.content_layers, *recipe.style_layers}, ())
    tiling, pools = plan.tiling or Tiling((), 1), [layer.name for layer in whole if isinstance(layer, Pool)]
    fits = tiling.side > 0 and list(tiling.cuts) == [name for name in pools if name in tiling.cuts]
    return fits and plan.history > 0 and (not plan.on_disk or (plan.tiling is not None and fits_on_disk(recipe, net)))


def held_memory(net: Net) -> float:
    """Bytes that the process holds before it paints with this net, and the kernels' share: what no plan can change."""
    return (used_memory() or 0) + sum(conv.weight.nbytes for conv in net.convs) + SLACK


def default_budget() -> float:
    """Bytes that the whole process may hold: $IMPASTO_MAX_MEMORY, else what it has, and what is free less a margin.

    Endless where no one tells. Raises BadRecipe for a variable that is no number.
    """
    if limit := os.environ.get(LIMIT):
        if not limit.isdecimal():
            raise BadRecipe(f"{LIMIT} is {limit!r}, must be a number of bytes")
        return float(limit)
    used, free = used_memory(), free_memory()
    return inf if used is None or free is None else used + (1 - SPARE) * free


def make_plan(
    net: Net, recipe: Recipe, size: tuple[int, int], style_places: int, held: float, budget: float, disk: float = 0.0
) -> Plan:
    """The fastest way for a picture of this size (H, W) that stays within `budget` bytes of the process, `held` of them taken.

    `style_places` are the pixels of the largest style picture, `disk` the bytes there are for files, which are used where memory
    does not suffice. L-BFGS forgets earlier only where nothing else helps. Raises NoRoom with what is needed at least.
    """
    least, net = inf, periodic_net(net, recipe)
    for history in _histories(recipe):
        plans = [*_plans(net, recipe, size, style_places, history)]
        filed = [*_plans_on_disk(net, recipe, size, history)] if fits_on_disk(recipe, net) else []
        for ways in (plans, [(work, plan) for work, plan in filed if plan.disk <= disk]):
            found = [(work, replace(plan, peak=plan.peak + held)) for work, plan in ways]
            if fitting := [(work, plan) for work, plan in found if plan.peak <= budget]:
                return min(fitting, key=lambda found: found[0])[1]
            least = min(least, *(plan.peak for _, plan in found), inf)
    said = f"{size[1]} x {size[0]} pixels need {least / MB:.0f} MB of memory, {budget / MB:.0f} MB are allowed: lower --size"
    too_large = [plan.disk for _, plan in filed if plan.peak + held <= budget]
    raise NoRoom(f"{said}, or free {min(too_large) / MB:.0f} MB of disk" if too_large and disk else said)


def fits_on_disk(recipe: Recipe, net: Net) -> bool:
    """Whether nothing that the recipe asks for needs all of a large picture at once."""
    costs = {cost for costs in costs_by_layer(recipe, net).values() for cost in costs}
    in_parts = {"gram", "mean", "square"}.issuperset(read for cost in costs for read in COSTS[cost].reads)
    plain = not (any(recipe.wraps) or "histogram" in _rules_after(recipe))
    return in_parts and plain and {cost for cost, weight in recipe.content_costs.items() if weight} <= {"features"}


def _rules_after(recipe: Recipe) -> set[str]:
    """The rules by which colours come in when the painting is done, in all of it or in a region."""
    rules = [recipe.color, *(region.color or recipe.color for region in recipe.all_regions().values())]
    return {rule for rule in rules if recipe.comes_after(rule)}


def _histories(recipe: Recipe) -> list[int]:
    """The recipe's, then half of it and so on, where L-BFGS remembers at all."""
    history, found = recipe.history, [recipe.history]
    while recipe.optimizer == "lbfgs" and history > 1:
        history //= 2
        found.append(history)
    return found


def _plans(net: Net, recipe: Recipe, size: tuple[int, int], style_places: int, history: int) -> Iterator[tuple[float, Plan]]:
    """Every way with its work, in multiply-adds."""
    layers = {*recipe.content_layers, *recipe.style_layers}
    kept = _pictures(recipe, size, history) + _targets(net, recipe, size)
    (whole,) = split_net(net, layers, ())
    larger = max(size[0] * size[1], style_places // 2)  # targets are walked forwards alone
    yield _work(whole, *size), Plan(None, history, kept + _walking(whole, larger, any(net.wraps)))
    pools = [layer.name for layer in whole if isinstance(layer, Pool)]
    for first, side in product(range(len(pools) + 1), SIDES):
        tiling = Tiling(tuple(pools[first:]), side)
        if side >= max(size) and first == len(pools):
            continue
        work, most = _tiled(split_net(net, layers, tiling.cuts), size, tiling, net.wraps)
        yield work, Plan(tiling, history, kept + most + HOLES)


def _tiled(parts: Sequence[Sequence[Conv | Pool]], size: tuple[int, int], tiling: Tiling, wraps: Wraps) -> tuple[float, float]:
    """Work of a tiling, and the most bytes that its maps, their gradients and one tile take at a time."""
    work, most, kept = 0.0, 0.0, 0.0
    for part, (here, behind, read, largest) in zip(parts, area_read(parts, size, tiling, wraps), strict=True):
        map_before = FLOAT * _channels_before(part) * prod(here)
        map_behind = FLOAT * _channels(part) * prod(behind)
        most = max(most, kept + 2 * map_before + map_behind + COPIES * _walking(part, largest, any(wraps)))
        kept += map_before
        work += AGAIN * _work(part, *here) * read / prod(here)
    return work, most


def _plans_on_disk(net: Net, recipe: Recipe, size: tuple[int, int], history: int) -> Iterator[tuple[float, Plan]]:
    """Every way that keeps in memory a tile, the rows of maps that it lies in, and some bands."""
    layers = {*recipe.content_layers, *recipe.style_layers}
    (whole,) = split_net(net, layers, ())
    pools = [layer.name for layer in whole if isinstance(layer, Pool)]
    pictures = _pictures(recipe, size, history) + COPIES_ON_DISK * 3 * FLOAT * prod(size) + _asked_for(recipe, net, size)
    for first, side in product(range(len(pools) + 1), SIDES):
        tiling = Tiling(tuple(pools[first:]), side)
        work, most, maps = _tiled_on_disk(split_net(net, layers, tiling.cuts), size, tiling)
        yield work, Plan(tiling, history, most + BANDS + HOLES, True, pictures + _targets(net, recipe, size) + maps)


def _asked_for(recipe: Recipe, net: Net, size: tuple[int, int]) -> float:
    """Bytes on disk more: a gradient with that of the total variation; G's light and the gradient to it, or the photograph and G on
    the way to its colours; of regions a band of detail, masks, twice while they are made, and what places weigh for them."""
    pixels, regions = prod(size), len(recipe.all_regions())
    pictures = bool(recipe.tv) + 2 * bool(_rules_after(recipe)) + bool(regions)
    masks = 2 * (regions + 1) * pixels + (regions + 1) * sum(prod(map_size(net, layer, size)) for layer in recipe.style_layers)
    weights = 2 * pixels + sum(prod(map_size(net, layer, size)) for layer in recipe.content_layers)
    return FLOAT * (3 * pictures * pixels + bool(regions) * (masks + weights))


def _tiled_on_disk(parts: Sequence[Sequence[Conv | Pool]], size: tuple[int, int], tiling: Tiling) -> tuple[float, float, float]:
    """Work of a tiling, the most bytes that a tile and the rows that it lies in take, and the bytes of the maps and gradients."""
    work, most, maps = 0.0, 0.0, 0.0
    for part, (here, behind, read, largest) in zip(parts, area_read(parts, size, tiling), strict=True):
        rows = min(here[0], largest**0.5) / here[0]
        before, after = FLOAT * _channels_before(part) * prod(here), FLOAT * _channels(part) * prod(behind)
        most = max(most, rows * (2 * before + after) + COPIES * _walking(part, largest, False))
        maps = maps + 2 * before
        work += AGAIN * _work(part, *here) * read / prod(here)
    return work, most, maps


def _pictures(recipe: Recipe, size: tuple[int, int], history: int) -> float:
    remembered = 2 * history if recipe.optimizer == "lbfgs" else 0
    return (PICTURES[recipe.optimizer] + remembered) * 3 * FLOAT * prod(size)


def _targets(net: Net, recipe: Recipe, size: tuple[int, int]) -> float:
    """The content picture's activations, and what costs of whole maps keep."""
    return map_cost_memory(recipe, net, size) + sum(
        FLOAT * channels(net, layer) * prod(map_size(net, layer, size)) for layer in recipe.content_layers
    )


def _walking(layers: Sequence[Conv | Pool], places: float, wraps: bool) -> float:
    """The most bytes at a time on the way there and back, from so many places of the input.

    A convolution keeps its map, a pooling two masks; the way back needs three maps more where it stands. Winograd's convolution has
    its maps in 8x8 tiles of which 6x6 count, in a buffer that it never gives back.
    """
    kept, most, buffer, before = 0.0, 0.0, 0.0, _channels_before(layers) * places
    for layer in layers:
        places /= window(layer)[1] ** 2
        if isinstance(layer, Conv):
            behind = layer.weight.shape[0] * places
            kept += FLOAT * behind
            buffer = max(buffer, FLOAT * 64 / 36 * (before + behind)) if layer.weight.shape[1] > 3 else buffer
        else:
            behind = before / window(layer)[1] ** 2
            kept += 0.75 * before
        most = max(most, kept + (3 + FRAMES * wraps) * FLOAT * max(before, behind))
        before = behind
    return most + buffer


def _work(layers: Iterable[Conv | Pool], height: int, width: int) -> float:
    """Multiply-adds of a walk forwards."""
    places, total = float(height * width), 0.0
    for layer in layers:
        places /= window(layer)[1] ** 2
        total += layer.weight.numel() * places if isinstance(layer, Conv) else 0.0
    return total


def _channels_before(layers: Sequence[Conv | Pool]) -> int:
    return next(layer.weight.shape[1] for layer in layers if isinstance(layer, Conv))


def _channels(layers: Sequence[Conv | Pool]) -> int:
    return next(layer.weight.shape[0] for layer in reversed(layers) if isinstance(layer, Conv))
