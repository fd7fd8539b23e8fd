"""`python -m bench.typical` writes typical.json of the style costs: what each cost is between a photograph and a painting.

Medians over all pairs of a bundled photograph and a bundled painting at SIDE pixels, of every convolution of every net.
style_costs.py brings costs to one unit by them.
"""

import json
import statistics
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from impasto.images.images import read_picture, resize
from impasto.nets.geometry import field_of
from impasto.nets.nets import INPUTS, Net, build_net, features
from impasto.objective.distances import laplacian_cost, self_similarity_cost
from impasto.objective.losses import mean_gram
from impasto.objective.style_costs import COARSE, COSTS, Reading, similarity
from impasto.pictures import picture_path
from impasto.recipe.recipe import STYLE_LAYERS
from impasto.weights import load_weights

SIDE = 256
PHOTOGRAPHS = ("cat", "astronaut")
PAINTINGS = ("hokusai-great-wave", "van-gogh-auvers", "arcimboldo-spring", "renoir-moulin", "mosaic", "hubble-deep-field")


def reading(maps: Mapping[str, Tensor], layer: str, before: str | None) -> Reading:
    """All that a cost may read of a layer."""
    a = maps[layer]
    return Reading(mean_gram(a), a.mean((2, 3)), a.square().mean((2, 3)), a, None if before is None else maps[before])


def costs_between(painting: Mapping[str, Tensor], photograph: Mapping[str, Tensor], net: Net) -> Iterator[tuple[str, str, float]]:
    """(cost, layer, what it is) of two pictures, given by their maps and themselves, as "image"."""
    layers = [conv.name for conv in net.convs]
    own = list(STYLE_LAYERS[net.name])
    preceding = {layer: before for before, layer in (*pairwise(layers), *pairwise(own))}
    for layer in layers:
        target, found = (reading(maps, layer, preceding.get(layer)) for maps in (painting, photograph))
        for cost, how in COSTS.items():
            if (cost == "cross" and layer not in preceding) or (cost == "patches" and field_of(net.layers, layer).stride < COARSE):
                continue
            yield cost, layer, float(how.cost(how.target(target), found))
        yield "features", layer, float((photograph[layer] - painting[layer]).square().mean())
        yield "self-similarity", layer, float(self_similarity_cost(similarity(photograph[layer]), similarity(painting[layer])))
        yield "laplacian", layer, float(laplacian_cost(photograph["image"], painting["image"]))


def square(image: Tensor) -> Tensor:
    """The middle of a picture, SIDE x SIDE."""
    side = min(image.shape[-2:])
    top, left = ((length - side) // 2 for length in image.shape[-2:])
    return resize(image[..., top : top + side, left : left + side], (SIDE, SIDE))


@torch.no_grad()
def typical(name: str) -> dict[str, dict[str, float]]:
    """{cost: {layer: median}} of a net."""
    loaded = load_weights(name)
    net = build_net(name, loaded.tensors, INPUTS[loaded.input], "avg")
    images = {it: square(read_picture(picture_path(it)).image) for it in (*PHOTOGRAPHS, *PAINTINGS)}
    maps = {it: {"image": image, **features(net, image, [conv.name for conv in net.convs])} for it, image in images.items()}
    found: dict[str, dict[str, list[float]]] = {}
    for photograph in PHOTOGRAPHS:
        for painting in PAINTINGS:
            for cost, layer, value in costs_between(maps[painting], maps[photograph], net):
                found.setdefault(cost, {}).setdefault(layer, []).append(value)
    return {cost: {layer: float(f"{statistics.median(its):.3g}") for layer, its in by.items()} for cost, by in found.items()}


if __name__ == "__main__":
    path = Path(__file__).parent.parent / "impasto" / "objective" / "typical.json"
    path.write_text(json.dumps({name: typical(name) for name in STYLE_LAYERS}, indent=1) + "\n")
