"""How clear a unit is: how well an eye that does not know the net tells the unit's strongest patches from its weakest.

After the machine interpretability score of Zimmermann, Klindt & Brendel (NeurIPS 2024), who made the task of Borowski et al. 2021
(arXiv:2010.12606) automatic: two patches are shown, one that excites the unit and one that does not, beside other strong and other
weak patches; which of the two is the exciting one? The score is the mean probability of the right answer: 0.5 for a unit without a
theme.

What differs from the paper: patches of a receptive field in place of whole pictures; LPIPS (AlexNet) in place of DreamSim; every
patch is asked about once with each of the other side, while the remaining ones explain; the slope of the answer's probability is
one over the spread that the same difference has for patches drawn at random.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Bounds
from torch import Tensor

from impasto.errors import BadImage, BadInput, BadRecipe
from impasto.files import sha256, write_whole
from impasto.images.images import to_pillow
from impasto.lens.beside import OfIndex, another_number, read_beside
from impasto.lens.collection import read_again
from impasto.lens.index import INDEX, MANIFEST, Array, Index, choose_units, read_index, read_rows
from impasto.lens.module import AnyNet, visit
from impasto.lens.patches import Patch, patch_at, patches_of, read_each
from impasto.lens.view import apply_view, view_of
from impasto.nets.nets import INPUTS, Net, build_net, features
from impasto.weights import load_weights

FILE = "clarity.json"
CLEAREST, SOME = "clearest", 6
EACH = 9  # patches on either side
POOL = 144  # patches drawn at random, among which each unit's weakest are found
SIDE = 64  # pixels to which a patch is scaled: the size that LPIPS was trained on
SHUFFLED = 400  # sets of random patches, for the slope and the score that chance reaches
BATCH = 64
Share = Annotated[float, Bounds(ge=0, le=1)]
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")


@dataclass(frozen=True)
class Clarity:
    """Each unit's score with a 95 % interval, None where it never fires; `chance` is above 19 of 20 scores of random patches."""

    score: list[float | None]
    low: list[float | None]
    high: list[float | None]
    chance: float


@dataclass(frozen=True)
class Eye:
    """LPIPS as an embedding: the squared distance of two embedded pictures is their LPIPS (Zhang et al. 2018, arXiv:1801.03924)."""

    net: Net
    heads: Mapping[str, Tensor]

    @classmethod
    def load(cls) -> "Eye":
        """AlexNet with LPIPS' weights, version 0.1."""
        return cls(build_net("alexnet", load_weights("alexnet").tensors, INPUTS["torchvision"]), load_weights("lpips").tensors)

    @torch.no_grad()
    def embed(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, D)."""
        parts = []
        for layer, a in features(self.net, pictures, LAYERS).items():
            unit = a / (a.square().sum(1, keepdim=True).sqrt() + 1e-10)
            parts.append((unit * self.heads[f"{layer}.head"].sqrt() / (a.shape[2] * a.shape[3]) ** 0.5).flatten(1))
        return torch.cat(parts, 1)

    def embed_crops(self, crops: Array) -> Tensor:
        """(N, SIDE, SIDE, 3) of bytes -> (N, D)."""
        pictures = torch.from_numpy(crops).permute(0, 3, 1, 2) / 255
        return torch.cat([self.embed(some) for some in torch.split(pictures, BATCH)])


# The task


def answers(strong: Tensor, weak: Tensor) -> Tensor:
    """Embedded patches (m, D), (n, D) -> (m, n): for strong i and weak j, how much nearer i than j is to the other strong patches.

    Nearer means: the mean distance to the other weak patches less that to the other strong ones.
    """
    within, beside, across = (_distances(one, two) for one, two in ((strong, strong), (weak, weak), (strong, weak)))
    m, n = across.shape
    of_strong = (across.sum(1, keepdim=True) - across) / (n - 1) - within.sum(1, keepdim=True) / (m - 1)
    of_weak = beside.sum(0) / (n - 1) - (across.sum(0) - across) / (m - 1)
    return of_strong - of_weak


def _distances(one: Tensor, two: Tensor) -> Tensor:
    """Squared distances (m, n) in float64, 0 where the patches are the same."""
    one, two = one.double(), two.double()
    return (one.square().sum(1)[:, None] + two.square().sum(1) - 2 * one @ two.T).clamp(min=0)


def as_far_apart(points: Tensor) -> Tensor:
    """(N, D) -> (N, at most N), float64: points with the same distances, by a rotation."""
    rotated: Tensor = torch.linalg.qr(points.double().T, mode="r").R.T
    return rotated


def interval(strong: Tensor, weak: Tensor, slope: float, counts: Tensor) -> tuple[float, float, float]:
    """The score of embedded patches (m, D), (n, D) and its 95 % interval, by the jackknife: the score without each patch in turn.

    `counts` (m, n) says which questions have an answer; of the others half count as right.
    """

    def score(one: Tensor, two: Tensor) -> Tensor:
        probability = (slope * answers(strong[one], weak[two])).sigmoid()
        return torch.where(counts[one][:, two], probability, 0.5).mean()

    (m, n), variance = counts.shape, torch.zeros(()).double()
    every, each = torch.arange(m), torch.arange(n)
    for left_out in (
        [score(every[every != i], each) for i in range(m)],
        [score(every, each[each != j]) for j in range(n)],
    ):
        variance += (len(left_out) - 1) * torch.stack(left_out).var(correction=0)
    mean = score(every, each)
    low, high = (float((mean + sign * 1.96 * variance.sqrt()).clamp(0, 1)) for sign in (-1, 1))
    return float(mean), low, high


def chance_of(pool: Tensor, seed: int) -> tuple[float, float]:
    """The slope of the answers, and the score that one in 20 draws of random patches exceeds; `pool` is (P, D)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randperm(len(pool), generator=generator)[: 2 * EACH] for _ in range(SHUFFLED)]
    found = torch.stack([answers(pool[places[:EACH]], pool[places[EACH:]]) for places in drawn])
    slope = 1 / max(float(found.std()), 1e-12)
    return slope, float((slope * found).sigmoid().mean((1, 2)).quantile(0.95))


# From a scan


def clarity_of(folder: Path, net: AnyNet, layers: Sequence[str] = (), seed: int = 0) -> Iterator[tuple[str, Clarity]]:
    """(layer, its Clarity), layer by layer, of the atlas in `folder`, by default of all; the pictures are read again.

    Raises BadInput where the scan has fewer pictures, or fewer patches of a unit, than the task needs.
    """
    index, eye = read_index(folder), Eye.load()
    check_can_measure(index, "clarity needs")
    pool = draw_pool(folder, index, net, layers or [*index.layers], seed)
    for layer, (patches, values) in pool.items():
        yield layer, _layer_clarity(folder, index, layer, patches, values, eye, seed)


def can_measure(index: Index) -> bool:
    """Whether the scan has pictures and patches enough."""
    return index.pictures >= 2 * EACH and index.setup.k >= EACH


def check_can_measure(index: Index, what: str) -> None:
    """Raise BadInput where not; `what` begins the sentence, as "clarity needs"."""
    if not can_measure(index):
        has = f"this one has {index.pictures} with --k {index.setup.k}"
        raise BadInput(f"{what} a scan of {2 * EACH} pictures or more with --k {EACH} or more: {has}")


def _layer_clarity(folder: Path, index: Index, layer: str, patches: Sequence[Patch], values: Array, eye: Eye, seed: int) -> Clarity:
    ranks, drawn = crops_of({0: patches})[0]
    random_ones, values = eye.embed_crops(drawn), values[ranks]
    slope, chance = chance_of(random_ones, seed)
    strongest = {
        unit: its[:EACH]
        for unit, its in patches_of(folder, index, layer, range(values.shape[1])).items()
        if its and its[0].value > 0
    }
    rows: list[tuple[float | None, ...]] = [(None, None, None)] * values.shape[1]
    for unit, (ranks, crops) in crops_of(strongest).items():
        weakest = torch.from_numpy(np.argsort(values[:, unit], kind="stable")[:EACH].copy())
        is_above = np.array([strongest[unit][n].value for n in ranks])[:, None] > values[weakest, unit]
        both = as_far_apart(torch.cat([eye.embed_crops(crops), random_ones[weakest]]))
        rows[unit] = interval(both[: len(crops)], both[len(crops) :], slope, torch.from_numpy(is_above))
    score, low, high = (list(column) for column in zip(*rows, strict=True))
    return Clarity(score, low, high, chance)


def draw_pool(folder: Path, index: Index, net: AnyNet, layers: Sequence[str], seed: int) -> dict[str, tuple[list[Patch], Array]]:
    """{layer: (patches at random places of POOL random pictures, the activations of all units there (P, C))}.

    Places are those that patches are ranked at. Pictures come in a random order, so that equal activations favour none; those that
    are missing are left out. Raises BadInput where too few are left.
    """
    rng, rows = random.Random(f"clarity {seed}"), [row for row in read_rows(folder / MANIFEST) if row.skipped is None]
    patches: dict[str, list[Patch]] = {layer: [] for layer in layers}
    values: dict[str, list[Array]] = {layer: [] for layer in layers}
    for row in rng.choices(rows, k=POOL):
        try:
            picture = read_again(row).image
        except BadImage:
            continue
        image = apply_view(picture, view_of((row.height, row.width), index.setup.size, index.setup.fit))
        for layer, (y, x, here) in _some_places(index, net, image, layers, rng).items():
            values[layer].append(here)
            patches[layer].append(patch_at(index.setup, index.setup.layers[layer].field, 0.0, row, y, x))
    if any(len(found) < 2 * EACH for found in patches.values()):
        raise BadInput("too few of the scanned pictures can be read: have they moved?")
    return {layer: (patches[layer], np.stack(values[layer])) for layer in layers}


@torch.no_grad()
def _some_places(
    index: Index, net: AnyNet, image: Tensor, layers: Sequence[str], rng: random.Random
) -> dict[str, tuple[int, int, Array]]:
    """{layer: a random position (y, x) of its map, and the activations there (C,)}."""
    found = {}

    def receive(layer: str, a: Tensor) -> None:
        field = index.setup.layers[layer].field
        size = image.shape[-2], image.shape[-1]
        inside = (
            [range(*field.interior(length).indices(count)) for length, count in zip(size, a.shape[2:], strict=True)]
            if field
            else []
        )
        y, x = (rng.choice(it) for it in (inside if all(inside) and inside else map(range, a.shape[2:])))
        found[layer] = y, x, a[0, :, y, x].float().numpy().copy()

    visit(net, image, layers, receive)
    return found


def crops_of(patches: Mapping[int, Sequence[Patch]]) -> dict[int, tuple[list[int], Array]]:
    """Of each unit's patches those whose pictures can be read: their ranks, in order, and their pixels (n, SIDE, SIDE, 3)."""
    found: dict[int, dict[int, Array]] = {unit: {} for unit in patches}
    for picture, places in read_each(patches):
        pixels = to_pillow(picture)
        for unit, rank, patch in places:
            found[unit][rank] = np.asarray(patch.cut_from(pixels, (SIDE, SIDE)))
    return {unit: (sorted(crops), np.stack([crops[n] for n in sorted(crops)])) for unit, crops in found.items() if len(crops) > 1}


# On disk


class _LayerJson(BaseModel):
    """A layer in the file."""

    model_config = ConfigDict(strict=True, extra="forbid")

    score: list[Share | None]
    low: list[Share | None]
    high: list[Share | None]
    chance: Share


class ClarityFile(OfIndex):
    """The clarity of layers."""

    layers: dict[str, _LayerJson]


def write_clarity(folder: Path, found: Mapping[str, Clarity]) -> None:
    """Keep the clarity of layers beside the index of the scan."""
    about = {"index": sha256(folder / INDEX), "layers": {layer: asdict(clarity) for layer, clarity in found.items()}}
    write_whole(folder / FILE, lambda file: file.write(json.dumps(about).encode()))


def read_clarity(folder: Path, index: Index) -> dict[str, Clarity]:
    """{layer: its clarity}, as far as it was computed for this index. Raises BadInput for a damaged file."""
    read = read_beside(folder, FILE, ClarityFile, "clarity")
    found = {layer: Clarity(**dict(it)) for layer, it in (read.layers if read else {}).items() if layer in index.layers}
    for layer, it in found.items():
        if {len(it.score), len(it.low), len(it.high)} != {index.setup.layers[layer].units}:
            raise BadInput(another_number(folder / FILE, layer, "clarity"))
    return found


def with_clarity(folder: Path, index: Index, layer: str | None, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Statistics of layers, or of a layer's units, with what is known of their clarity; of a layer it is the median."""
    known = read_clarity(folder, index)
    if layer is None:
        scores = {name: [score for score in it.score if score is not None] for name, it in known.items()}
        return [row | ({"clarity": median(scores[row["layer"]])} if scores.get(row["layer"]) else {}) for row in rows]
    if layer not in known:
        return rows
    it = known[layer]
    columns = zip(rows, it.score, it.low, it.high, strict=True)
    return [row | {"clarity": score, "clarity_low": low, "clarity_high": high} for row, score, low, high in columns]


def clearest(clarity: Clarity) -> list[int]:
    """The units that have a score, the highest first."""
    return [unit for _, unit in sorted((-score, unit) for unit, score in enumerate(clarity.score) if score is not None)]


def chosen_units(folder: Path, index: Index, layer: str, units: str, seed: int) -> list[int]:
    """choose_units, and "clearest" or "clearest:9": so many with the highest scores. Raises BadRecipe, BadInput."""
    name, _, count = units.replace(" ", "").partition(":")
    if name != CLEAREST:
        return choose_units(units, index.setup.layers[layer].units, f"{layer} {seed}")
    if count and not (count.isdecimal() and int(count)):
        raise BadRecipe(f"units is {units!r}: after clearest: comes a number, as clearest:9")
    clarity = read_clarity(folder, index).get(layer)
    if clarity is None:
        raise BadInput(f"the clarity of {layer} is not known yet: impasto lens clarity {folder}")
    return clearest(clarity)[: int(count or SOME)]
