"""The frame of a painting: its aspect ratio, its periodic axes if it is seamless, and the rotation of style pictures.

stylize, costs_of and similar functions take pictures as they were read, and frame them once, when they resize them: the photograph,
its alpha channel, its masks and a start picture by `framed`, style pictures and their masks by `style_at`.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import cos, pi, radians, sin
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from impasto.errors import BadRecipe
from impasto.images.images import Picture, Wraps, resize, scaled_size, size_of
from impasto.images.trim import Box, picture_box
from impasto.nets.geometry import field_of
from impasto.nets.nets import NETS, Net, name_among
from impasto.recipe.recipe import Recipe

FADE = 1 / 8  # share of a side over which a picture is blended with its opposite side
LAPLACIAN = 16  # side in pixels of the coarser squares that the content cost "laplacian" compares

Given = TypeVar("Given", Tensor, Tensor | None)


# The painting


def framed(image: Given, recipe: Recipe) -> Given:
    """(1, C, H, W) as it was read -> cropped to the recipe's aspect ratio about its middle, and made periodic if seamless.

    None stays None.
    """
    if image is None:
        return image
    rows, columns = recipe.wraps
    if recipe.proportions:
        height, width = recipe.proportions
        image = cropped(image, height / (1 - FADE * rows), width / (1 - FADE * columns))
    return made_periodic(image, recipe.wraps)


def cropped(image: Tensor, height: float, width: float) -> Tensor:
    """The largest part about the middle with the aspect ratio height : width."""
    H, W = size_of(image)
    h, w = min(H, max(1, round(W * height / width))), min(W, max(1, round(H * width / height)))
    y, x = (H - h) // 2, (W - w) // 2
    return image[..., y : y + h, x : x + w]


def made_periodic(image: Tensor, wraps: Wraps) -> Tensor:
    """The picture made periodic on these axes: its last rows (columns) are blended into its first and cut off."""
    for dim, wrap in ((-2, wraps[0]), (-1, wraps[1])):
        image = _periodic(image, dim) if wrap else image
    return image


def _periodic(image: Tensor, dim: int) -> Tensor:
    length, other = (image.shape[it] for it in (dim, -3 - dim))
    fade = round(FADE * length)
    ramp = _ramp(fade, other).to(image)
    ramp = ramp if dim == -2 else ramp.T
    begin, end = image.narrow(dim, 0, fade), image.narrow(dim, length - fade, fade)
    return torch.cat([torch.lerp(end, begin, ramp), image.narrow(dim, fade, length - 2 * fade)], dim)


def _ramp(fade: int, side: int) -> Tensor:
    """(fade, side): from 0 to 1 within half of `fade`, along a wavy line, since the eye would find a straight one."""
    t, s = ((torch.arange(n) + 0.5) / n for n in (fade, side))
    wander = (torch.sin(2 * pi * 3 * s) + torch.sin(2 * pi * 7 * s + 2)) / 8  # at most a quarter of the way
    u = (2 * (t[:, None] - 0.5 - wander) + 0.5).clamp(0, 1)
    return u * u * (3 - 2 * u)


def painted_size(content: Tensor, longer: int, recipe: Recipe) -> tuple[int, int]:
    """(H, W) at which a content picture, given as it was read, is painted with a longer side of `longer`."""
    return torus_size(finished_size(content, longer, recipe), recipe)


def finished_size(content: Tensor, longer: int, recipe: Recipe) -> tuple[int, int]:
    """(H, W) of the finished painting: in the recipe's shape, or that of the framed content picture, or a texture's own."""
    if recipe.proportions:
        height, width = recipe.proportions
    elif recipe.has_content:
        height, width = (n - wraps * round(FADE * n) for n, wraps in zip(size_of(content), recipe.wraps, strict=True))
    else:
        height, width = size_of(content)
    scale = longer / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def torus_size(size: tuple[int, int], recipe: Recipe) -> tuple[int, int]:
    """The nearest size (H, W) that is a multiple of the deepest layer's stride on periodic axes, as a torus needs."""
    if not any(recipe.wraps):
        return size
    layers = NETS[recipe.net]
    strides = [field_of(layers, name_among(layers, it, recipe.net)).stride for it in (*recipe.content_layers, *recipe.style_layers)]
    stride = max(*strides, LAPLACIAN if recipe.content_costs.get("laplacian") else 1)
    height, width = (max(1, round(n / stride)) * stride if wraps else n for n, wraps in zip(size, recipe.wraps, strict=True))
    return height, width


def periodic_net(net: Net, recipe: Recipe) -> Net:
    """The net with periodic padding on the recipe's periodic axes."""
    return replace(net, wraps=recipe.wraps)


# Style pictures


def style_crops(styles: Sequence[Tensor], recipe: Recipe) -> list[Box | None]:
    """The part (left, top, right, bottom) of each style picture, as it was read, that `style_crop` keeps; None for all of it.

    A style picture for which a region has a mask is not cropped by auto, since the mask belongs to all of it. Raises BadRecipe.
    """
    crops = asked_crops(recipe, len(styles))
    masked = {n for region in recipe.regions.values() if region.style_mask for n in region.style_numbers(len(styles))}
    return [_style_crop(style, crop, n, n in masked) for n, (style, crop) in enumerate(zip(styles, crops, strict=True))]


def asked_crops(recipe: Recipe, count: int) -> list[str]:
    """The recipe's "none", "auto" or box of each of so many style pictures. Raises BadRecipe."""
    crops = [part.strip() for part in recipe.style_crop.split(";")]
    if len(crops) not in (1, count):
        raise BadRecipe(f"style_crop has {len(crops)} parts for {count} style pictures: one for each, or one for all")
    return crops * count if len(crops) == 1 else crops


def _style_crop(style: Tensor, crop: str, n: int, is_masked: bool) -> Box | None:
    if crop == "none" or (crop == "auto" and is_masked):
        return None
    height, width = size_of(style)
    if crop == "auto":
        box = picture_box(style)
        return None if box == (0, 0, width, height) else box
    left, top, right, bottom = map(int, crop.split(","))
    if is_masked:
        raise BadRecipe(f"style picture {n + 1} has a style_mask and a style_crop: crop the picture and its mask beforehand")
    if right > width or bottom > height:
        raise BadRecipe(f"style_crop is {crop}, style picture {n + 1} has {width} x {height} pixels")
    return left, top, right, bottom


def crop_picture(picture: Picture, box: Box | None) -> Picture:
    """The part of a picture in the box; without a box the picture itself."""
    if box is None:
        return picture
    left, top, right, bottom = box
    rows, columns = slice(top, bottom), slice(left, right)
    alpha = None if picture.alpha is None else picture.alpha[..., rows, columns]
    return replace(picture, image=picture.image[..., rows, columns], alpha=alpha)


def cropped_styles(pictures: Sequence[Picture], recipe: Recipe) -> list[Picture]:
    """The style pictures, as they were read, without what the recipe's `style_crop` leaves out."""
    crops = style_crops([picture.image for picture in pictures], recipe)
    return [crop_picture(picture, crop) for picture, crop in zip(pictures, crops, strict=True)]


def style_at(style: Tensor, longer: int, recipe: Recipe, where: Tensor | None = None) -> Tensor:
    """A style picture or its mask (1, C, H, W), as it was read -> rotated, made periodic, and scaled to this longer side.

    The style picture of a seamless painting is periodic too: the statistics of hard edges are out of reach of a periodic picture.
    The result lies where the tensor `where` lies, on disk or in memory.
    """
    periodic = made_periodic(turned(style, recipe.style_rotation), recipe.wraps)
    return resize(periodic, style_size(style, longer, recipe), recipe.wraps, where)


def style_size(style: Tensor, longer: int, recipe: Recipe) -> tuple[int, int]:
    """(H, W) of style_at."""
    sides = turned_size(scaled_size(style, longer), recipe.style_rotation)
    height, width = (max(1, round(n * (1 - FADE * wraps))) for n, wraps in zip(sides, recipe.wraps, strict=True))
    return torus_size((height, width), recipe)


def turned(image: Tensor, degrees: float) -> Tensor:
    """(1, C, H, W) rotated counter-clockwise and cropped to the largest upright part without empty corners.

    Rotations by multiples of 90 degrees are exact.
    """
    quarters = round(degrees / 90)
    image = image.rot90(quarters, (-2, -1)) if quarters % 4 else image
    return _turned(image, degrees - 90 * quarters) if degrees % 90 else image


def _turned(image: Tensor, degrees: float) -> Tensor:
    """turned, by at most 45 degrees."""
    (height, width), (h, w) = size_of(image), (max(1, int(n)) for n in turned_size(size_of(image), degrees))
    c, s = cos(radians(degrees)), sin(radians(degrees))
    left, top = width / 2 - (c * w - s * h) / 2, height / 2 - (s * w + c * h) / 2
    back = (c, -s, left, s, c, top)
    channels = [
        Image.fromarray(channel).transform((w, h), Image.Transform.AFFINE, back, Image.Resampling.BICUBIC)
        for channel in image[0].cpu().numpy()
    ]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels])).unsqueeze(0).clamp_(0, 1).to(image)


def turned_size(size: tuple[float, float], degrees: float) -> tuple[float, float]:
    """(H, W) of the largest upright rectangle inside a rotated one.

    Either all four of its corners touch the rotated rectangle's sides, or, in a narrow rectangle, two opposite corners touch its
    long sides.
    """
    quarters = round(degrees / 90)
    height, width = size[::-1] if quarters % 2 else size
    angle = abs(radians(degrees - 90 * quarters))
    c, s, short = cos(angle), sin(angle), min(height, width)
    if short <= 2 * s * c * max(height, width):
        along, across = short / (2 * s), short / (2 * c)
        return (across, along) if width >= height else (along, across)
    return (height * c - width * s) / (c * c - s * s), (width * c - height * s) / (c * c - s * s)
