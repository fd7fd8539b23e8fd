"""Words for units: what most of a unit's nine patches show, by a classifier that knows the classes of ImageNet.

The classifier (nets/classifier.py) sees each patch alone, enlarged. Classes belong to groups, and groups to larger ones (dog,
canine, carnivore, mammal, animal: WordNet's). A patch shows a group where the probabilities of its classes sum to SURE or more. Of
all classes and groups, a unit's word is the one that would be the greatest surprise if its patches were drawn at random; it has
none where nothing is shown by MOST of them, or where chance would find as great a surprise in one unit of 20.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import scipy  # each part of it loads when it is first used: they take half a second
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Bounds
from torch import Tensor

from impasto.errors import BadInput
from impasto.files import sha256, write_whole
from impasto.images.images import to_pillow
from impasto.lens.beside import OfIndex, another_number, read_beside
from impasto.lens.clarity import EACH, check_can_measure, draw_pool
from impasto.lens.index import INDEX, Array, Index
from impasto.lens.module import AnyNet
from impasto.lens.patches import Patch, patches_of, read_each
from impasto.nets.classifier import CLASSES, class_probabilities
from impasto.weights import CLASSIFIER, load_weights

FILE = "words.json"
SIDE = 160  # pixels that a patch is scaled to
BATCH = 32
SURE, MOST = 0.5, 4
SMALLEST = 64  # pixels of a field whose patches are named unless asked for: in smaller ones the classifier sees little but colour
DRAWN = 400  # sets of random patches, for the surprise that chance finds


@dataclass(frozen=True)
class Word:
    """A class or group of ImageNet, shown by `count` of `of` patches."""

    text: str
    count: int
    of: int


# Classes and groups


@cache
def things() -> tuple[list[str], Array]:
    """The names of all classes and groups, and which class (row) belongs to which of them (column)."""
    lines = [line for line in (files("impasto.lens") / "classes.tsv").read_text().splitlines() if not line.startswith("#")]
    names, above = map(list, zip(*(line.split("\t") for line in lines if line), strict=True))
    groups = {name: n for n, name in enumerate(names) if n >= CLASSES}
    belongs = np.zeros((CLASSES, len(names)), bool)
    for n in range(CLASSES):
        it: int | None = n
        while it is not None:
            belongs[n, it] = True
            it = groups.get(above[it])
    return names, belongs


# The task


def shown_things(probabilities: Array) -> Array:
    """(N, CLASSES) -> (N, things), bool: what each patch shows."""
    found: Array = probabilities @ things()[1] >= SURE
    return found


def surprise(counts: Array, of: int, rates: Array) -> Array:
    """Minus the logarithm of the chance that so many or more of `of` patches show a thing that random ones show at this rate."""
    found: Array = -scipy.stats.binom.logsf(counts - 1, of, rates)
    return found


def rates_of(drawn: Array) -> Array:
    """(P, things), bool -> (things,): how often patches drawn at random show each; half a patch for what none shows."""
    found: Array = (drawn.sum(0) + 0.5) / (len(drawn) + 1)
    return found


def limit_of(drawn: Array, seed: int) -> float:
    """The surprise that one in 20 sets of EACH random patches exceeds."""
    rng = np.random.default_rng(seed)
    sets = (drawn[rng.choice(len(drawn), EACH, replace=False)] for _ in range(DRAWN))
    rates = rates_of(drawn)
    return float(np.quantile([_most_surprising(it, rates)[1] for it in sets], 0.95))


def word_of(shown: Array, rates: Array, limit: float) -> Word | None:
    """(n, things), bool: what a unit's patches show -> its word."""
    thing, found = _most_surprising(shown, rates)
    return Word(things()[0][thing], int(shown[:, thing].sum()), len(shown)) if found > limit else None


def _most_surprising(shown: Array, rates: Array) -> tuple[int, float]:
    counts = shown.sum(0)
    found = np.where(counts >= MOST, surprise(counts, len(shown), rates), 0.0)
    thing = int(found.argmax())
    return thing, float(found[thing])


# From a scan


def layers_to_name(index: Index) -> list[str]:
    """The layers whose fields are large enough to show a thing. Raises BadInput where there is none."""
    found = [name for name, layer in index.setup.layers.items() if layer.field is None or layer.field.size >= SMALLEST]
    if not found:
        small = f"the receptive fields of these layers are smaller than {SMALLEST} pixels, too small to show a thing"
        raise BadInput(f"{small}: name layers with --layer")
    return found


def words_of(
    folder: Path, index: Index, net: AnyNet, layers: Sequence[str], seed: int = 0
) -> Iterator[tuple[str, list[Word | None]]]:
    """(layer, the word of each of its units), layer by layer, of the atlas in `folder`; the pictures are read again.

    Raises BadInput where the scan has fewer pictures or patches than clarity needs, or too few of them can be read.
    """
    check_can_measure(index, "words need")
    weights = load_weights(CLASSIFIER).tensors
    pools = draw_pool(folder, index, net, layers, seed)
    for layer, (drawn, _) in pools.items():
        units = patches_of(folder, index, layer, range(index.setup.layers[layer].units))
        strongest = [[patch for patch in units[n][:EACH] if patch.value > 0] for n in range(len(units))]
        shown = shown_by([*drawn, *(patch for its in strongest for patch in its)], weights)
        random_ones = np.stack([shown[place_of(patch)] for patch in drawn if place_of(patch) in shown])
        rates, limit = rates_of(random_ones), limit_of(random_ones, seed)
        readable = [[shown[place_of(patch)] for patch in its if place_of(patch) in shown] for its in strongest]
        yield layer, [word_of(np.stack(its), rates, limit) if its else None for its in readable]


Place = tuple[Any, int, int]


def place_of(patch: Patch) -> Place:
    """What tells patches of one layer apart; those of many units are the same."""
    return patch.row, patch.y, patch.x


def shown_by(patches: Sequence[Patch], weights: Mapping[str, Tensor]) -> dict[Place, Array]:
    """{place: (things,), bool} of the patches whose pictures can be read."""
    distinct = list({place_of(patch): patch for patch in patches}.values())
    found: dict[Place, Array] = {}
    waiting: list[tuple[Place, Array]] = []
    for picture, places in read_each({0: distinct}):
        pixels = to_pillow(picture)
        for _, _, patch in places:
            waiting.append((place_of(patch), np.asarray(patch.cut_from(pixels, (SIDE, SIDE), Image.Resampling.BICUBIC))))
        while len(waiting) >= BATCH:
            found |= _classified(waiting[:BATCH], weights)
            del waiting[:BATCH]
    return found | (_classified(waiting, weights) if waiting else {})


def _classified(crops: Sequence[tuple[Place, Array]], weights: Mapping[str, Tensor]) -> dict[Place, Array]:
    pictures = torch.from_numpy(np.stack([crop for _, crop in crops])).permute(0, 3, 1, 2) / 255  # channels last: twice as fast
    return dict(zip((place for place, _ in crops), shown_things(class_probabilities(pictures, weights).numpy()), strict=True))


# On disk


class _WordJson(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    text: Annotated[str, Bounds(min_length=1, max_length=100)]
    count: Annotated[int, Bounds(ge=1, le=EACH)]
    of: Annotated[int, Bounds(ge=1, le=EACH)]


class WordsFile(OfIndex):
    """The words of layers."""

    layers: dict[str, list[_WordJson | None]]


def caption(word: Word) -> str:
    """As "dog 7 of 9"."""
    return f"{word.text} {word.count} of {word.of}"


def with_words(folder: Path, index: Index, layer: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Statistics of a layer's units, with what is known of their words; None where nothing is shared."""
    known = read_words(folder, index).get(layer)
    if known is None:
        return rows
    return [row | {"word": word and word.text, "word_count": word and word.count} for row, word in zip(rows, known, strict=True)]


def write_words(folder: Path, found: Mapping[str, Sequence[Word | None]]) -> None:
    """Keep the words of layers beside the index of the scan."""
    layers = {layer: [it and {"text": it.text, "count": it.count, "of": it.of} for it in words] for layer, words in found.items()}
    about = {"index": sha256(folder / INDEX), "layers": layers}
    write_whole(folder / FILE, lambda file: file.write(json.dumps(about).encode()))


def read_words(folder: Path, index: Index) -> dict[str, list[Word | None]]:
    """{layer: the word of each unit}, as far as they were found for this index. Raises BadInput for a damaged file."""
    read = read_beside(folder, FILE, WordsFile, "words")
    layers = {layer: it for layer, it in read.layers.items() if layer in index.layers} if read else {}
    for layer, it in layers.items():
        if len(it) != index.setup.layers[layer].units:
            raise BadInput(another_number(folder / FILE, layer, "words"))
    return {layer: [None if word is None else Word(word.text, word.count, word.of) for word in it] for layer, it in layers.items()}
