"""Fitting a painting into memory: the memory and work of each way to compute it, and the fastest way that fits.

Everything is predicted from shapes: the maps that the forward pass keeps for the backward pass, the buffers of the kernels, and the
pictures that the optimiser holds. docs/performance.md compares the predictions with measured peaks.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from math import inf, prod
from typing import Any

from pydantic import TypeAdapter

from impasto.errors import BadRecipe, NoRoom
from impasto.feedforward.apply import instant_memory
from impasto.images.images import Wraps
from impasto.machine import free_memory, used_memory
from impasto.nets.nets import Conv, Net, Pool, channels, for_small_maps, map_size, window
from impasto.objective.framing import periodic_net
from impasto.objective.style_costs import COSTS, costs_by_layer, map_cost_memory
from impasto.objective.tiles import Tiling, area_read, split_net
from impasto.recipe.recipe import Recipe

FLOAT = 4
LIMIT = "IMPASTO_MAX_MEMORY"  # environment variable
PICTURES = {
    "lbfgs": 5,
    "adam": 7,
    "gd": 4,
}  # pictures held at a time, without the history of L-BFGS: x and gradient of two points, direction, moments
SLACK = 150e6  # bytes of the kernels' buffers, Winograd's transformed weights, and memory that malloc cannot merge
HOLES = 250e6  # bytes lost to fragmentation by tiles of several sizes, at any picture size (measured at 1024 and 2048 px)
SPARE = 0.1  # share of the free memory to leave unused without --max-memory
SIDES = (2048, 1448, 1024, 724, 512, 362, 256, 181, 128)
FRAMES = 2  # extra maps for a periodic picture: padded and cropped copies (measured at 512 px)
BANDS = 200e6  # bytes of the bands of pictures on disk that the optimiser and resize hold in memory
COPIES_ON_DISK = 8  # extra pictures on disk: scaled content and styles, the last step, two checkpoints
KEPT = 12  # bytes of transformed weights, there and back, and of their making, for each of the weights' own (for_small_maps)
COPIES = 1.5  # factor for copying the tile's own places out of its maps
AGAIN = 1.5  # factor of the work in tiles, where the forward pass is computed twice
MB = 1e6


@dataclass(frozen=True)
class Plan:
    """How one scale is computed: whole (tiling None) or in tiles; L-BFGS remembers `history` steps; `peak` is in bytes, predicted.

    With `on_disk` everything that grows with the picture is kept in files, of `disk` bytes.
    """

    tiling: Tiling | None
    history: int
    peak: float = 0.0
    on_disk: bool = False
    disk: float = 0.0

    @property
    def way(self) -> str:
        """A description for users."""
        if self.tiling is None:
            return "whole"
        return f"in tiles of {self.tiling.side} cut at {len(self.tiling.cuts)} pools{', on disk' if self.on_disk else ''}"

    def __str__(self) -> str:
        return f"{self.way}, {self.peak / MB:.0f} MB{f' and {self.disk / MB:.0f} MB of disk' if self.on_disk else ''}"


def written(plan: Plan) -> dict[str, Any]:
    """The fields of a plan that the bytes of a painting depend on, for its record."""
    found = {"tiling": plan.tiling and asdict(plan.tiling), "history": plan.history}
    return {**found, "on_disk": True} if plan.on_disk else found


def read_plan(record: dict[str, Any]) -> Plan:
    """The plan in a record. Raises ValueError if it is not one."""
    return TypeAdapter(Plan).validate_python(record)


def is_plan_for(plan: Plan, net: Net, recipe: Recipe) -> bool:
    """Whether a plan from a record can be carried out for this recipe."""
    (whole,) = split_net(net, {*recipe.content_layers, *recipe.style_layers}, ())
    tiling, pools = plan.tiling or Tiling((), 1), [layer.name for layer in whole if isinstance(layer, Pool)]
    fits = tiling.side > 0 and list(tiling.cuts) == [name for name in pools if name in tiling.cuts]
    return fits and plan.history > 0 and (not plan.on_disk or (plan.tiling is not None and fits_on_disk(recipe, net)))


def held_memory(net: Net | None) -> float:
    """Bytes that no plan can change: the process before it paints, the weights, and the kernels' buffers."""
    return (used_memory() or 0) + sum(conv.weight.nbytes for conv in (net.convs if net else ())) + SLACK


def instant_plan(size: tuple[int, int], held: float, budget: float) -> Plan:
    """The plan of quality instant for a picture of this size (H, W). Raises NoRoom."""
    if (peak := held + instant_memory(size)) > budget:
        needed = f"{size[1]} x {size[0]} pixels need {peak / MB:.0f} MB of memory, {budget / MB:.0f} MB are allowed"
        raise NoRoom(f"{needed}: lower --size or raise --max-memory")
    return Plan(None, 1, peak)


def default_budget() -> float:
    """Bytes that the whole process may hold: $IMPASTO_MAX_MEMORY, else its present memory and most of the free memory.

    Infinite if the system does not report its memory. Raises BadRecipe for a variable that is not a number.
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
    """The fastest plan for a picture of this size (H, W) within `budget` bytes of the process, of which `held` are in use already.

    `style_places` is the number of pixels of the largest style picture, `disk` the bytes available for files, which are used only
    if memory does not suffice. The history of L-BFGS is shortened only if nothing else helps. Raises NoRoom, with the least memory
    that is needed.
    """
    least, net = inf, periodic_net(net, recipe)
    for history in _histories(recipe):
        plans = [*_plans(net, recipe, size, style_places, history)]
        filed = [*_plans_on_disk(net, recipe, size, history)] if fits_on_disk(recipe, net) else []
        for ways in (plans, [(work, plan) for work, plan in filed if plan.disk <= disk]):
            found = [(work, replace(plan, peak=plan.peak + held)) for work, plan in ways]
            if fitting := [(work, plan) for work, plan in found if plan.peak <= budget]:
                return min(fitting, key=lambda found: (found[1].tiling is not None, found[0]))[1]  # whole where that fits
            least = min(least, *(plan.peak for _, plan in found), inf)
    needed = f"{size[1]} x {size[0]} pixels need {least / MB:.0f} MB of memory, {budget / MB:.0f} MB are allowed"
    message = f"{needed}: lower --size or raise --max-memory"
    too_large = [plan.disk for _, plan in filed if plan.peak + held <= budget]
    raise NoRoom(f"{message}, or free {min(too_large) / MB:.0f} MB of disk" if too_large and disk else message)


def fits_on_disk(recipe: Recipe, net: Net) -> bool:
    """Whether nothing in the recipe needs a whole large picture in memory at once."""
    costs = {cost for costs in costs_by_layer(recipe, net).values() for cost in costs}
    in_parts = {"gram", "mean", "square"}.issuperset(read for cost in costs for read in COSTS[cost].reads)
    plain = not (any(recipe.wraps) or "histogram" in _rules_after(recipe))
    return in_parts and plain and {cost for cost, weight in recipe.content_costs.items() if weight} <= {"features"}


def _rules_after(recipe: Recipe) -> set[str]:
    """The colour rules that apply after painting, to the whole picture or to a region."""
    rules = [recipe.color, *(region.color or recipe.color for region in recipe.all_regions().values())]
    return {rule for rule in rules if recipe.comes_after(rule)}


def _histories(recipe: Recipe) -> list[int]:
    """The recipe's history, then half of it and so on down to 1; for other optimisers only the recipe's."""
    history, found = recipe.history, [recipe.history]
    while recipe.optimizer == "lbfgs" and history > 1:
        history //= 2
        found.append(history)
    return found


def _plans(net: Net, recipe: Recipe, size: tuple[int, int], style_places: int, history: int) -> Iterator[tuple[float, Plan]]:
    """Every plan in memory with its work, in multiply-adds."""
    layers = {*recipe.content_layers, *recipe.style_layers}
    kept = _pictures(recipe, size, history) + _targets(net, recipe, size)
    (whole,) = split_net(net, layers, ())
    larger = max(size[0] * size[1], style_places // 2)  # style targets need the forward pass alone
    kept_weights = _kept_weights(net, whole, size)
    yield _work(whole, *size), Plan(None, history, kept + kept_weights + _walking(whole, larger, any(net.wraps)))
    pools = [layer.name for layer in whole if isinstance(layer, Pool)]
    for first, side in product(range(len(pools) + 1), SIDES):
        tiling = Tiling(tuple(pools[first:]), side)
        if side >= max(size) and first == len(pools):
            continue
        work, most = _tiled(split_net(net, layers, tiling.cuts), size, tiling, net.wraps)
        yield work, Plan(tiling, history, kept + most + HOLES)


def _kept_weights(net: Net, layers: Sequence[Conv | Pool], size: tuple[int, int]) -> float:
    """Bytes of the transformed weights of those layers whose maps are small."""
    names = {layer.name for layer in layers}
    return sum(KEPT * conv.weight.nbytes for conv in for_small_maps(net, size).convs if conv.keeps and conv.name in names)


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
    """Every plan on disk with its work: in memory are a tile, the rows of the maps that contain it, and some bands."""
    layers = {*recipe.content_layers, *recipe.style_layers}
    (whole,) = split_net(net, layers, ())
    pools = [layer.name for layer in whole if isinstance(layer, Pool)]
    pictures = _pictures(recipe, size, history) + COPIES_ON_DISK * 3 * FLOAT * prod(size) + _optional(recipe, net, size)
    for first, side in product(range(len(pools) + 1), SIDES):
        tiling = Tiling(tuple(pools[first:]), side)
        work, most, maps = _tiled_on_disk(split_net(net, layers, tiling.cuts), size, tiling)
        yield work, Plan(tiling, history, most + BANDS + HOLES, True, pictures + _targets(net, recipe, size) + maps)


def _optional(recipe: Recipe, net: Net, size: tuple[int, int]) -> float:
    """Extra bytes on disk for knobs of the recipe.

    The gradient of the total variation; for colour rules after painting, the photograph and G (or G's luminance and its gradient);
    for regions and calm, a band of detail, the masks and a copy of them, and the weights of each layer's places.
    """
    pixels, regions = prod(size), len(recipe.all_regions()) + bool(recipe.calm)
    pictures = bool(recipe.tv) + 2 * bool(_rules_after(recipe)) + bool(regions) + recipe.clean_color
    masks = 2 * (regions + 1) * pixels + (regions + 1) * sum(prod(map_size(net, layer, size)) for layer in recipe.style_layers)
    weights = 2 * pixels + sum(prod(map_size(net, layer, size)) for layer in recipe.content_layers)
    return FLOAT * (3 * pictures * pixels + bool(regions) * (masks + weights))


def _tiled_on_disk(parts: Sequence[Sequence[Conv | Pool]], size: tuple[int, int], tiling: Tiling) -> tuple[float, float, float]:
    """Work of a tiling, the most bytes of a tile and the rows that contain it, and the bytes of the maps and gradients."""
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
    smoothed = 3 * recipe.clean_color  # the picture, its gradient, and what they are computed from
    return (PICTURES[recipe.optimizer] + remembered + smoothed) * 3 * FLOAT * prod(size)


def _targets(net: Net, recipe: Recipe, size: tuple[int, int]) -> float:
    """Bytes of the content picture's activations and of costs of whole maps."""
    return map_cost_memory(recipe, net, size) + sum(
        FLOAT * channels(net, layer) * prod(map_size(net, layer, size)) for layer in recipe.content_layers
    )


def _walking(layers: Sequence[Conv | Pool], places: float, wraps: bool) -> float:
    """The most bytes at a time in the forward and backward pass, for an input of so many places.

    A convolution keeps its map and a pooling two masks; the backward pass of each layer needs three maps more. Winograd's
    convolution transforms its maps into 8x8 tiles for 6x6 places each, in a buffer that is never freed.
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
    """Multiply-adds of the forward pass."""
    places, total = float(height * width), 0.0
    for layer in layers:
        places /= window(layer)[1] ** 2
        total += layer.weight.numel() * places if isinstance(layer, Conv) else 0.0
    return total


def _channels_before(layers: Sequence[Conv | Pool]) -> int:
    return next(layer.weight.shape[1] for layer in layers if isinstance(layer, Conv))


def _channels(layers: Sequence[Conv | Pool]) -> int:
    return next(layer.weight.shape[0] for layer in reversed(layers) if isinstance(layer, Conv))
