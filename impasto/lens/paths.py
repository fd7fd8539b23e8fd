"""Do dreams tell the truth? Whether a dream takes the same path through the net as the natural patches that excite its unit.

After the sanity check of Geirhos et al. 2024, "Don't trust your eyes" (arXiv:2306.04719): a picture optimised for a unit can excite
it by other units of the layers before than photographs do; then it does not show what the unit responds to in photographs. How
alike two paths are is, layer by layer, the rank correlation of the mean activations of all units. A dream that tells the truth is
as like the unit's patches as they are like one another; one that does not, is no more like them than patches drawn at random.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy  # each part of it loads when it is first used: they take half a second
import torch
from torch import Tensor

from impasto.errors import BadInput
from impasto.lens.clarity import EACH, draw_pool
from impasto.lens.index import Array, Index
from impasto.lens.patches import Patch, patches_of, read_each
from impasto.lens.view import apply_view
from impasto.nets.nets import Net, features


@dataclass(frozen=True)
class Likeness:
    """In one layer: the mean rank correlations of the unit's own patches with one another, with the dreams, with patches drawn at
    random, and with those of another unit."""

    own: float
    dream: float
    random: float
    other: float


def paths(folder: Path, index: Index, net: Net, layer: str, unit: int, dreams: Tensor, seed: int = 0) -> dict[str, Likeness]:
    """{scanned layer up to the dream's: Likeness} of dreams (B, 3, n, n) of a unit, from the patches of the atlas in `folder`.

    The other unit is the one half the layer further on. Raises BadInput for a unit with fewer than two patches.
    """
    count, names = index.setup.layers[layer].units, [*index.layers]
    layers = names[: names.index(layer) + 1]
    other = (unit + count // 2) % count
    found = {n: [it for it in its if it.value > 0][:EACH] for n, its in patches_of(folder, index, layer, [unit, other]).items()}
    if len(found[unit]) < 2:
        raise BadInput(f"unit {unit} of {layer} has fewer than two patches in this scan: there is no path to compare with")
    pool, _ = draw_pool(folder, index, net, [layer], seed)[layer]
    groups = {"own": found[unit], "other": found[other], "random": pool}
    activity = {name: _activities(net, inputs_of(patches), layers) for name, patches in groups.items()}
    activity["dream"] = _activities(net, [dream[None] for dream in dreams], layers)
    return {name: _likeness({group: its[name] for group, its in activity.items()}) for name in layers}


def inputs_of(patches: Sequence[Patch]) -> list[Tensor]:
    """The part of the net's input in each patch's field (1, 3, n, n)."""
    found = []
    for picture, places in read_each({0: patches}):
        for _, _, patch in places:
            x0, y0, x1, y1 = patch.view.clip(patch.frame)
            found.append(apply_view(picture, patch.view)[..., y0:y1, x0:x1].contiguous())
    return found


@torch.no_grad()
def _activities(net: Net, pictures: Sequence[Tensor], layers: Sequence[str]) -> dict[str, Array]:
    """{layer: (pictures, units): the mean activation of each unit}"""
    means = [{name: a.mean((2, 3))[0].double().numpy() for name, a in features(net, it, layers).items()} for it in pictures]
    return {name: np.stack([it[name] for it in means]) if means else np.zeros((0, 1)) for name in layers}


def _likeness(activity: Mapping[str, Array]) -> Likeness:
    own = rank_correlations(activity["own"], activity["own"])
    among = own[~np.eye(len(own), dtype=bool)].mean()
    others = (float(rank_correlations(activity["own"], activity[name]).mean()) for name in ("dream", "random", "other"))
    return Likeness(float(among), *others)


def rank_correlations(one: Array, two: Array) -> Array:
    """(m, C), (n, C) -> (m, n): Spearman's, ties by their mean rank; 0 where all values are equal."""
    ranks = [scipy.stats.rankdata(it, axis=1) for it in (one, two)]
    centred = [it - it.mean(1, keepdims=True) for it in ranks]
    unit = [it / np.maximum(np.linalg.norm(it, axis=1, keepdims=True), 1e-12) for it in centred]
    found: Array = unit[0] @ unit[1].T
    return found


def in_words(found: Mapping[str, Likeness]) -> list[str]:
    """A line for each layer."""
    return [
        f"{name}: the dream is {it.dream:.2f} like the unit's patches, they are {it.own:.2f} like one another; "
        f"random ones {it.random:.2f}, another unit's {it.other:.2f}"
        for name, it in found.items()
    ]
