"""Reading a style: the Gram matrix of a layer decomposed into units, pairs, directions and positions.

G_ij = sum_p a_ip a_jp over the positions p of a layer's map (Gatys, Ecker & Bethge 2015, arXiv:1508.06576, eq. 3), so a position
adds the product of two activations. Values are G_ij / M with M = n_H n_W positions, after the ReLU, summed in float64.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from impasto.errors import BadImage, BadInput, BadRecipe, ImpastoError
from impasto.files import make_folder, sha256, write_whole
from impasto.images.images import MIN_SIDE, read_picture, resize, scaled_size
from impasto.lens.collection import find_pictures, grouped_by_name, read_pictures
from impasto.lens.module import weights_of
from impasto.nets.nets import Net, Pool, features, layer_name, map_size
from impasto.objective.losses import gram_cost
from impasto.pictures import PHOTOGRAPHS, picture_path
from impasto.recipe.recipe import STYLE_LAYERS
from impasto.weights import cache_path, digest

BLOCK = 2**16  # positions that are converted to float64 at a time
SHIFTS = 19  # a correlation beyond that of all of them has p <= 0.05
DIRECTIONS = 4
NOTICED = 0.1  # share of the layer's mean value: weaker units are left out of rankings by ratios
SOFT = 16  # pixels of the longer side of the blurred version
Pair = tuple[int, int]


@dataclass(frozen=True)
class LayerStyle:
    """The style of a layer with C units and (h, w) positions.

    `maps` (C, h, w); `gram` (C, C) is G / M; `correlation` (C, C) Pearson's, 0 for a constant unit;
    `chance` (C, C) the largest |correlation| of the two maps shifted against each other; `reference` (C,) the mean
    G_ii / M of photographs; `strengths` (K,) and `directions` (C, K) are the leading eigenvalues and eigenvectors of `gram`.
    """

    layer: str
    maps: Tensor
    gram: Tensor
    correlation: Tensor
    chance: Tensor
    reference: Tensor
    strengths: Tensor
    directions: Tensor

    @property
    def values(self) -> Tensor:
        """(C,): G_ii / M."""
        return self.gram.diagonal()

    @property
    def total(self) -> float:
        """The sum of the diagonal; 1 if it is 0, so that shares of it are 0."""
        return float(self.values.sum()) or 1.0

    @property
    def lift(self) -> Tensor:
        """(C,): a unit's value over that in photographs; inf or nan where that is 0."""
        return self.values / self.reference


# The mathematics


def cross(a: Tensor, b: Tensor) -> Tensor:
    """(C, h, w) twice -> (C, C), float64: the sum over positions of a_p b_p^T. cross(a, a) is the Gram matrix."""
    pairs = zip(torch.split(a.flatten(1), BLOCK, 1), torch.split(b.flatten(1), BLOCK, 1), strict=True)
    return torch.stack([x.double() @ y.double().mT for x, y in pairs]).sum(0)


def place_map(a: Tensor, i: int, j: int) -> Tensor:
    """(C, h, w) -> (h, w), float64: what each position adds to G_ij; sums to G_ij."""
    return a[i].double() * a[j].double()


def direction_map(a: Tensor, direction: Tensor) -> Tensor:
    """(C, h, w) and (C,) -> (h, w), float64: (v^T a_p)^2; sums to v^T G v, for an eigenvector its eigenvalue."""
    return torch.einsum("c,chw->hw", direction.double(), a.double()).square()


def correlation(a: Tensor) -> Tensor:
    """(C, h, w) -> (C, C), float64: Pearson's correlation over positions; 0 for constant units."""
    x = standardized(a.double())
    return cross(x, x).clamp(-1, 1)


def standardized(a: Tensor) -> Tensor:
    """(C, h, w) -> the same with mean 0 and sum of squares 1 over positions; all 0 for constant units."""
    centred = a - a.mean((1, 2), keepdim=True)
    length = centred.square().sum((1, 2), keepdim=True).sqrt()
    flat = length <= 1e-6 * a.square().sum((1, 2), keepdim=True).sqrt()
    return torch.where(flat, 0.0, centred / length)


def cross_diagonal(a: Tensor) -> Tensor:
    """(C, h, w) -> (C,), float64: the sums of squares over positions, the diagonal of the Gram matrix."""
    return torch.stack([x.double().square().sum(1) for x in torch.split(a.flatten(1), BLOCK, 1)]).sum(0)


def chance(a: Tensor, shifts: int = SHIFTS) -> Tensor:
    """(C, h, w) -> (C, C): the largest |correlation| of each unit with each other one shifted, over `shifts` circular shifts.

    A shifted map keeps its values and texture but is unrelated to the other, so its correlation is chance. The shifts are a
    low-discrepancy sequence (Roberts 2018), at least a fifth of the height.
    """
    x = standardized(a)
    largest = x.new_zeros(len(x), len(x))
    for move in moves(a.shape[1], a.shape[2], shifts):
        largest = torch.maximum(largest, (x.flatten(1) @ x.roll(move, (1, 2)).flatten(1).mT).abs())
    return torch.maximum(largest, largest.mT)


def moves(height: int, width: int, count: int) -> list[tuple[int, int]]:
    """(dy, dx) of each shift, in positions."""
    shares = [((0.5 + 0.7548776662 * n) % 1, (0.5 + 0.5698402910 * n) % 1) for n in range(1, count + 1)]
    return [(max(1, round(height * (0.2 + 0.6 * y))), round(width * x)) for y, x in shares]


def leading_directions(gram: Tensor, count: int = DIRECTIONS) -> tuple[Tensor, Tensor]:
    """(C, C) -> the largest eigenvalues (K,), falling, and their eigenvectors (C, K), the largest component of each positive."""
    values, vectors = torch.linalg.eigh(gram.double())
    values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
    largest = vectors.gather(0, vectors.abs().argmax(0)[None])
    return values.clamp(min=0), vectors * largest.sign()


def clustered(correlated: Tensor) -> list[int]:
    """(C, C) correlations -> the units in an order in which correlated ones are neighbours (average linkage)."""
    if len(correlated) < 3:
        return list(range(len(correlated)))
    distance = 1 - (correlated + correlated.mT) / 2
    distance.fill_diagonal_(0)
    order: list[int] = leaves_list(linkage(squareform(distance.numpy(), checks=False), "average")).tolist()
    return order


# A style picture


def style_layers(net: Net, layers: Sequence[str] = ()) -> list[str]:
    """The canonical names of the requested layers, by default the net's five. Raises BadRecipe for unknown or `:pre` layers."""
    if unrectified := [layer for layer in layers if layer.endswith(":pre")]:
        raise BadRecipe(f"a style is read after the ReLU: use {unrectified[0].removesuffix(':pre')}")
    return list(dict.fromkeys(layer_name(net, layer) for layer in layers or STYLE_LAYERS[net.name]))


def resize_to(image: Tensor, size: int, net: Net, layers: Iterable[str]) -> Tensor:
    """The picture resized to a longer side of `size` pixels. Raises BadImage if it is too small for a layer."""
    height, width = scaled_size(image, size)
    if min(height, width) < MIN_SIDE or any(min(map_size(net, layer, (height, width))) < 1 for layer in layers):
        raise BadImage(f"the picture is read at {width} x {height}, which is too small for these layers")
    return resize(image, (height, width))


@torch.no_grad()
def read_style(image: Tensor, net: Net, layers: Sequence[str], reference: dict[str, Tensor]) -> Iterator[LayerStyle]:
    """A picture (1, 3, H, W) -> the style of each layer; `reference` is {layer: (C,)}, see photograph_values."""
    for layer, a in features(net, image, layers).items():
        maps = a[0]
        gram = cross(maps, maps) / maps[0].numel()
        yield LayerStyle(layer, maps, gram, correlation(maps), chance(maps), reference[layer], *leading_directions(gram))


def reference_values(against: Path | None, net: Net, layers: Sequence[str], size: int) -> dict[str, Tensor]:
    """photograph_values of the pictures in a folder, or of the bundled photographs, whose values are cached."""
    if against is not None:
        return photograph_values(photographs(against), net, layers, size)
    hashes = [str(sha256(picture_path(name))) for name in PHOTOGRAPHS]
    pools = [(layer.kind, layer.gain) for layer in net.layers if isinstance(layer, Pool)]
    of_net = [net.name, digest(weights_of(net)), repr(net.input), net.padding, repr(pools)]
    about = [*of_net, repr(list(layers)), str(size), *hashes]
    cached = cache_path(net.name).with_name(f"photographs-{hashlib.sha256(' '.join(about).encode()).hexdigest()[:16]}.safetensors")
    if values := _read_cached(cached):
        return values
    values = photograph_values(photographs(None), net, layers, size)
    with contextlib.suppress(ImpastoError):  # without a writable cache they are computed every time
        make_folder(cached.parent)
        write_whole(cached, lambda file: file.write(safetensors.torch.save(values, {"sha256": digest(values)})))
    return values


def _read_cached(path: Path) -> dict[str, Tensor] | None:
    """The cached values; None where they are missing or damaged."""
    try:
        with safetensors.safe_open(path, "pt") as opened:
            values = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return values if (opened.metadata() or {}).get("sha256") == digest(values) else None
    except (safetensors.SafetensorError, OSError, TypeError, ValueError):
        return None


def photographs(against: Path | None) -> Iterator[Tensor]:
    """The pictures (1, 3, H, W) that a style is compared with: those in a folder, or the bundled photographs.

    Raises BadInput where none can be read.
    """
    if against is None:
        yield from (read_picture(picture_path(name)).image for name in PHOTOGRAPHS)
        return
    found = False
    for sources in grouped_by_name(find_pictures([against])):
        for _, picture in read_pictures(sources):
            if picture is not None:
                found = True
                yield picture.image
    if not found:
        raise BadInput(f"no picture in {against} can be read")


@torch.no_grad()
def photograph_values(pictures: Iterable[Tensor], net: Net, layers: Sequence[str], size: int) -> dict[str, Tensor]:
    """{layer: (C,)}: the mean of G_ii / M over pictures, each with a longer side of `size`."""
    found: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for picture in pictures:
        for layer, a in features(net, resize_to(picture, size, net, layers), layers).items():
            found[layer].append(cross_diagonal(a[0]) / a[0, 0].numel())
    return {layer: torch.stack(values).mean(0) for layer, values in found.items()}


# Rankings


def by_value(style: LayerStyle, count: int) -> list[int]:
    """The units with the largest G_ii."""
    return style.values.argsort(descending=True, stable=True)[:count].tolist()


def by_lift(style: LayerStyle, count: int) -> list[int]:
    """The units with the largest lift above 1, among those that are noticed."""
    lift = style.lift.masked_fill(~noticed(style), 0.0).nan_to_num(0.0)
    return [n for n in lift.argsort(descending=True, stable=True)[:count].tolist() if lift[n] > 1]


def noticed(style: LayerStyle) -> Tensor:
    """(C,): whether a unit's value is at least a tenth of the layer's mean."""
    return style.values >= NOTICED * style.values.mean()


def pairs_by_value(style: LayerStyle, count: int) -> list[Pair]:
    """The pairs of two units with the largest G_ij."""
    return _first(style.gram, torch.ones_like(style.gram, dtype=torch.bool), count)


def pairs_together(style: LayerStyle, count: int) -> list[Pair]:
    """The pairs of noticed units with the largest correlation, beyond chance."""
    return _first(style.correlation, (style.correlation > style.chance) & _both_noticed(style), count)


def pairs_apart(style: LayerStyle, count: int) -> list[Pair]:
    """The pairs of noticed units with the most negative correlation, beyond chance."""
    return _first(-style.correlation, (-style.correlation > style.chance) & _both_noticed(style), count)


def _both_noticed(style: LayerStyle) -> Tensor:
    return noticed(style)[:, None] & noticed(style)


def _first(score: Tensor, allowed: Tensor, count: int) -> list[Pair]:
    """The allowed pairs i < j, the highest scores first."""
    rows, columns = torch.triu_indices(len(score), len(score), 1)
    kept = allowed[rows, columns].nonzero()[:, 0]
    best = kept[score[rows, columns][kept].argsort(descending=True, stable=True)[:count]]
    return list(zip(rows[best].tolist(), columns[best].tolist(), strict=True))


# Texture and colour


@torch.no_grad()
def division(image: Tensor, styles: Sequence[LayerStyle], net: Net) -> dict[str, dict[str, float]]:
    """{layer: {"tones": ..., "colors": ...}}: the share of the style that remains in grey tones, and in blurred colours.

    1 - (style cost between the picture and that version) / (style cost between the picture and its mean colour); 1 for a picture of
    one colour. Below 0 the version is less like the picture than its mean colour is.
    """
    versions = {"wash": image.mean((2, 3), keepdim=True).expand_as(image), "tones": _tones(image), "colors": _soft(image)}
    layers = [style.layer for style in styles]
    costs: dict[str, dict[str, float]] = {layer: {} for layer in layers}
    for name, version in versions.items():
        found = features(net, version.contiguous(), layers)
        for style in styles:
            maps = found[style.layer][0]
            costs[style.layer][name] = float(gram_cost(style.gram[None], (cross(maps, maps) / maps[0].numel())[None]))
    return {
        layer: {name: 1 - cost[name] / cost["wash"] if cost["wash"] > 0 else 1.0 for name in ("tones", "colors")}
        for layer, cost in costs.items()
    }


def _tones(image: Tensor) -> Tensor:
    """In grey, with the same luma (weights of Rec. 709, on sRGB values)."""
    weights = image.new_tensor([0.2126, 0.7152, 0.0722]).view(1, 3, 1, 1)
    return (weights * image).sum(1, keepdim=True).expand_as(image)


def _soft(image: Tensor) -> Tensor:
    """Blurred: no texture finer than a sixteenth of the longer side."""
    small = torch.nn.functional.interpolate(image, scaled_size(image, SOFT), mode="area")
    return torch.nn.functional.interpolate(small, image.shape[-2:], mode="bicubic", align_corners=False).clamp(0, 1)
