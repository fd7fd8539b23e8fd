"""Guide masks: the regions of a picture, from files or made from the picture itself, and the weights they give a layer's places.

Masks are (1, 1, H, W) in [0, 1]. Guides after Gatys et al. 2017, "Controlling Perceptual Factors" (arXiv:1611.07865, section 4).
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy  # each part of it loads when it is first used: they take half a second
import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.errors import BadImage, BadRecipe, ImpastoWarning
from impasto.images.images import Picture, are_alike, read_picture, resize, scaled_size, size_of
from impasto.objective.color import YIQ, luminance
from impasto.recipe.recipe import PROTECTED, Recipe
from impasto.recipe.regions import FILE, is_made

SIDE = 256  # longer side at which k-means clusters a picture's colours
BUSY = 0.08  # standard deviation of the light in a neighbourhood from which on it is not calm at all
FAINT_MASK = 0.25  # a mask darker than this everywhere is probably a mistake, such as values 0 and 1 of 255
FAINT = 1e-3  # share of the picture's area: smaller regions are taken for mistakes


@dataclass(frozen=True)
class Masks:
    """By region: the mask of the photograph, the mask of its style picture if it has one, and the SHA-256 of mask files.

    `recolored` has the numbers of the style pictures that are recoloured for a region alone, which follow the given ones.
    """

    content: Mapping[str, Tensor]
    style: Mapping[str, Tensor]
    hashes: Mapping[str, str]
    recolored: Mapping[str, Sequence[int]] = field(default_factory=dict)


NO_MASKS = Masks({}, {}, {})


def read_masks(recipe: Recipe, content: Tensor, styles: Sequence[Tensor]) -> Masks:
    """The masks of the recipe's regions for these pictures. Raises BadImage, BadRecipe for one that is missing or empty."""
    hashes: dict[str, str] = {}
    found, style, recolored, count = content_masks(recipe, content, hashes), {}, {}, len(styles)
    for name, region in recipe.regions.items():
        numbers = region.style_numbers(len(styles))
        if region.style_mask and len(numbers) > 1:
            raise BadRecipe(
                f"the region {name} has a style_mask, so it needs style, the number of its style picture from 1 to {len(styles)}"
            )
        if region.style_mask:
            style[name] = _mask(f"{name}, style", region.style_mask, styles[numbers[0]], region.feather, hashes)
        if region.color and {recipe.before(region.color), recipe.before(recipe.color)} != {"style"}:
            recolored[name] = range(count, count + len(numbers))
            count += len(numbers)
    return Masks(found, style, hashes, recolored)


def content_masks(recipe: Recipe, content: Tensor, hashes: dict[str, str] | None = None) -> dict[str, Tensor]:
    """{region: mask (1, 1, H, W) of the photograph}; the SHA-256 of mask files are added to `hashes`."""
    hashes = {} if hashes is None else hashes
    regions = recipe.all_regions()
    found = {name: _mask(name, it.mask, content, it.feather, hashes) for name, it in regions.items() if it.mask != "rest"}
    if PROTECTED in found:  # it takes precedence over every region
        others = {name: mask * (1 - found[PROTECTED]) for name, mask in found.items() if name != PROTECTED}
        found = {**others, PROTECTED: found[PROTECTED]}
    return {**found, **_rest(recipe, found, content)}


def _rest(recipe: Recipe, found: Mapping[str, Tensor], content: Tensor) -> dict[str, Tensor]:
    names = [name for name, region in recipe.all_regions().items() if region.mask == "rest"]
    if len(names) > 1:
        raise BadRecipe(f'the regions {" and ".join(names)} both have the mask "rest": only one can')
    rest = (1 - sum(found.values(), content.new_zeros(1, 1, *content.shape[-2:]))).clamp(0, 1)
    return dict.fromkeys(names, rest)


def _mask(name: str, mask: str, picture: Tensor, feather: float, hashes: dict[str, str]) -> Tensor:
    if mask == FILE:
        raise BadRecipe(f"the record does not contain the mask file of the region {name}: give the file of regions again")
    if is_made(mask):
        found = make_mask(mask, picture, feather)
    else:
        read, hashes[name] = read_mask(Path(mask), size_of(picture))
        found = soften(read, feather)
    if float(found.mean()) < FAINT:
        raise BadImage(f"the mask of the region {name} is black everywhere, so the region is empty")
    return found


def read_mask(path: Path, size: tuple[int, int]) -> tuple[Tensor, str]:
    """A picture file, white inside the region -> its mask resized to (H, W), and the file's SHA-256.

    Raises BadImage for a mask with another aspect ratio than the picture's, which was made for another picture.
    """
    picture = read_picture(path, keep_hidden=True)
    height, width = picture.image.shape[-2:]
    if not are_alike((height, width), size):
        raise BadImage(f"the mask {path} has {width} x {height} pixels, its picture {size[1]} x {size[0]}: the shapes differ")
    mask = mask_of(picture)
    if 0 < (brightest := float(mask.max())) < FAINT_MASK:
        message = f"the brightest value of the mask {path} is {brightest * 255:.3g} of 255; a region is where its mask is white"
        warnings.warn(message, ImpastoWarning, stacklevel=2)
    return resize(mask, size), picture.sha256


def mask_of(picture: Picture) -> Tensor:
    """(1, 1, H, W): the luminance of a picture; transparent pixels are black."""
    grey = luminance(picture.image, "yiq")
    return grey if picture.alpha is None else grey * picture.alpha


def make_mask(how: str, picture: Tensor, feather: float) -> Tensor:
    """A mask of the picture's size made from it, with soft edges; made_mask says how. Raises BadRecipe."""
    if not is_made(how) or how == "rest":
        raise BadRecipe(f"the mask is {how!r}, must be light, dark or one part by colour, as k-means 1 of 3")
    return soften(resize(made_mask(how, picture), size_of(picture)), feather)


def made_mask(how: str, image: Tensor) -> Tensor:
    """ "light", "dark" or "k-means 1 of 3" (1 is the darkest) -> where that is in the picture, small. Raises BadRecipe."""
    small = resize(image, scaled_size(image, min(SIDE, max(image.shape[-2:]))))
    if how in ("light", "dark"):
        grey = luminance(small, "yiq")
        light = (grey > threshold(grey)).to(grey)
        return light if how == "light" else 1 - light
    which, parts = (int(word) for word in how.replace("k-means", "").split("of"))
    if not 2 <= parts <= 16 or not 1 <= which <= parts:
        raise BadRecipe(f"the mask is {how!r}, must be one part of 2 to 16, as k-means 1 of 3")
    return (color_parts(small, parts) == which - 1).to(small)


def threshold(grey: Tensor) -> float:
    """The level between dark and light that parts their means most (Otsu 1979)."""
    counts, edges = np.histogram(grey.cpu().numpy(), 256, (0, 1))
    below = counts.cumsum()
    sums = (counts * (edges[:-1] + edges[1:]) / 2).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * (below[-1] - below) * (sums / below - (sums[-1] - sums) / (below[-1] - below)) ** 2
    return float(edges[1:][np.nanargmax(np.nan_to_num(between, nan=-1.0))])


def color_parts(image: Tensor, parts: int) -> Tensor:
    """(1, 3, H, W) -> (1, 1, H, W): the number of each pixel's cluster by k-means of its colours, the darkest first; seeded."""
    pixels = image[0].flatten(1).T.cpu().double().numpy()
    centres, labels = scipy.cluster.vq.kmeans2(pixels, parts, minit="++", seed=0, iter=30)
    rank = np.argsort(np.argsort(centres @ np.array(YIQ[0])))
    return torch.from_numpy(rank[labels].reshape(1, 1, *image.shape[-2:])).to(image.device)


def busyness(content: Tensor, recipe: Recipe) -> Tensor | None:
    """(1, 1, H, W): the weight of the style at each pixel of a scaled content picture, by the knob calm; None for 1."""
    return 1 - recipe.calm * calmness(content) if recipe.calm else None


def calmness(image: Tensor) -> Tensor:
    """(1, 3, H, W) -> (1, 1, H, W): 1 where the light around a pixel is even, falling to 0 where it varies by BUSY or more.

    Around means a square of a fifteenth of the longer side; its standard deviation, again averaged over such squares.
    """
    grey = luminance(resize(image, scaled_size(image, min(SIDE, max(size_of(image))))), "yiq")[0, 0].double().cpu().numpy()
    width = max(3, round(max(grey.shape) / 15))
    mean, square = (scipy.ndimage.uniform_filter(it, width) for it in (grey, grey**2))
    deviation = scipy.ndimage.uniform_filter(np.sqrt(np.maximum(square - mean**2, 0)), width)
    calm = torch.from_numpy(np.clip(1 - deviation / BUSY, 0, 1))[None, None]
    return resize(calm.to(image), size_of(image), where=image)


def soften(mask: Tensor, feather: float) -> Tensor:
    """The mask with edges `feather` of its longer side wide."""
    sigma = feather * max(mask.shape[-2:]) / 2
    if not sigma:
        return mask
    return torch.from_numpy(scipy.ndimage.gaussian_filter(mask[0, 0].cpu().numpy(), sigma))[None, None].to(mask)


def shares(masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The masks divided by their sum where they overlap, so that they sum to 1 at most everywhere."""
    added = sum(masks.values(), torch.zeros(())).clamp(min=1)
    return {name: mask / added for name, mask in masks.items()}


def product(mask: Tensor | None, other: Tensor | None) -> Tensor | None:
    """The product of two masks, where None is 1 everywhere."""
    return mask if other is None else other if mask is None else mask * other


def place_weights(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, 1, H, W) -> (h, w) that sum to 1: the weight of each place of a layer's map, the area of the mask inside it.

    The paper's T^2, which has mean 1. Here T is the root of the mask, so that the guided Gram matrices of regions that cover the
    picture, weighted by their areas, add up to that of the whole picture.
    """
    pooled = F.adaptive_avg_pool2d(mask, size)[0, 0]
    return pooled / pooled.sum().clamp(min=1e-12)
