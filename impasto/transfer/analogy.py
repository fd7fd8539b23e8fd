"""Fine detail for an enlarged picture, from places of the style pictures that look like it at the coarse scale.

Image Analogies (Hertzmann et al. 2001) in the manner of example-based super-resolution (Freeman, Jones & Pasztor 2002): each block
of the coarse picture is matched with the nearest patch of the style picture at the same coarse scale. The finest band of the style
picture's Laplacian pyramid (Burt & Adelson 1983), the detail that the coarse scale cannot hold, is copied from there.
"""

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor

from impasto.images.images import EDGES, Wraps, resize, size_of

BLOCK = 4  # side in pixels of the fine blocks that are copied; their seams vanish in the descent
PATCH = 5  # side in pixels of the coarse patches that are compared
MOST = 2**16  # the most patches of a style picture to compare; larger ones are sampled on a grid
AT_ONCE = 512  # patches to compare at a time


def finest_band(fine: Tensor, coarse: tuple[int, int], wraps: Wraps = EDGES) -> Tensor:
    """(1, 3, H, W) -> the same shape: the detail that is lost when the picture is resized to `coarse` (h, w)."""
    return fine - resize(resize(fine, coarse, wraps), size_of(fine), wraps, fine)


def borrowed_band(
    x: Tensor, size: tuple[int, int], paintings: Sequence[tuple[Tensor, tuple[int, int]]], wraps: Wraps = EDGES
) -> Tensor:
    """A finest band (1, 3, H, W) of this `size` for the coarse picture x (1, 3, h, w), copied from the style pictures `paintings`.

    `paintings` are pictures at the fine scale (1, 3, H', W'), each with its size (h', w') at the coarse scale. `wraps` are the axes
    on which all of them are periodic.
    """
    (rows, down), (columns, across) = (_middles(fine, coarse, x.device) for fine, coarse in zip(size, x.shape[-2:], strict=True))
    places = _grid(rows, columns)
    found = [_nearest(x, places, resize(painting, coarse, wraps), wraps) for painting, coarse in paintings]
    nearest = torch.stack([distance for distance, *_ in found]).argmin(0).view(len(rows), -1)
    band = paintings[0][0].new_zeros(1, 3, *size)
    for n, ((painting, coarse), (_, y, x_)) in enumerate(zip(paintings, found, strict=True)):
        factors = [fine / few for fine, few in zip(painting.shape[-2:], coarse, strict=True)]
        fine_y = (y.view_as(nearest) * factors[0] + down[:, None]).round().long()
        fine_x = (x_.view_as(nearest) * factors[1] + across).round().long()
        _copy(band, finest_band(painting, coarse, wraps), fine_y, fine_x, nearest == n, wraps)
    return band


def _middles(fine: int, coarse: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The coarse place of the middle of each block on an axis, and the distance of the middle from it in fine pixels."""
    middles = torch.arange(ceil(fine / BLOCK), device=device) * BLOCK + BLOCK // 2
    places = (middles * coarse / fine).long().clamp(max=coarse - 1)
    return places, middles - places * fine / coarse


def _grid(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return y.flatten(), x.flatten()


def _within(places: Tensor, length: int, wraps: bool) -> Tensor:
    """Places beyond the ends of an axis: on a periodic one those of the other side, else the last."""
    return places % length if wraps else places.clamp(0, length - 1)


def _patches(x: Tensor, rows: Tensor, columns: Tensor, wraps: Wraps) -> Tensor:
    """(1, 3, h, w) -> (N, 3 PATCH^2) around these places; the edge is repeated, or periodic."""
    around = torch.arange(PATCH, device=x.device) - PATCH // 2
    at = rows[:, None, None] + around[:, None], columns[:, None, None] + around
    y, x_ = map(_within, at, x.shape[-2:], wraps)
    return x[0][:, y, x_].transpose(0, 1).flatten(1)


def _nearest(picture: Tensor, places: tuple[Tensor, Tensor], painting: Tensor, wraps: Wraps) -> tuple[Tensor, Tensor, Tensor]:
    """For N places of a picture (rows, columns), the nearest patch of the style picture `painting`; pictures are (1, 3, h, w).

    Returns the squared distances and the rows and columns of the nearest patches, (N,) each.
    """
    height, width = painting.shape[-2:]
    every = ceil((height * width / MOST) ** 0.5)
    y, x = _grid(*(torch.arange(0, side, every, device=painting.device) for side in (height, width)))
    keys = _patches(painting, y, x, wraps)
    lengths = keys.square().sum(1)
    distances, nearest = [], []
    for rows, columns in zip(*(torch.split(it, AT_ONCE) for it in places), strict=True):
        wanted = _patches(picture, rows, columns, wraps)
        values, index = torch.min(torch.addmm(lengths, wanted, keys.T, alpha=-2), 1)
        distances.append(values + wanted.square().sum(1))
        nearest.append(index)
    return torch.cat(distances), y[torch.cat(nearest)], x[torch.cat(nearest)]


def _copy(band: Tensor, source: Tensor, y: Tensor, x: Tensor, is_chosen: Tensor, wraps: Wraps) -> None:
    """Copy blocks of the source around (y, x) into the band where `is_chosen` (rows, columns of blocks)."""
    across = torch.arange(band.shape[-1], device=band.device)
    block, down = across // BLOCK, torch.arange(BLOCK, device=band.device)[:, None] - BLOCK // 2
    for j, strip in enumerate(torch.split(band, BLOCK, -2)):
        rows = _within(y[j, block] + down[: strip.shape[-2]], source.shape[-2], wraps[0])
        columns = _within(x[j, block] + across % BLOCK - BLOCK // 2, source.shape[-1], wraps[1])
        strip.add_(source[..., rows, columns.expand_as(rows)] * is_chosen[j, block])
