"""Margins of a scanned or photographed painting: a mat, a scan border, a caption strip, a frame. Left in, they would be painted.

A margin is a strip of nearly one colour along a side that ends in a straight edge. A frame is a rectangle of straight edges
parallel to all four sides.
"""

import numpy as np
from torch import Tensor

from impasto.images.pixels import resize, scaled_size, size_of

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, as Pillow has it

SIDE = 512  # longer side at which margins are looked for
DEEPEST = 0.3  # share of a side that a margin or a frame can take
NEAR = 0.09  # distance of two colours (largest difference of a channel) that count as one
UNIFORM, ABRUPT = 0.93, 0.7  # least share of a margin's pixels of its colour; of the next line's pixels of other colours
EDGE, STRAIGHT = 0.08, 0.9  # least step across a frame's inner edge; least share of the side along which there is one
LEAST = 3  # pixels at SIDE: thinner margins are left


def picture_box(image: Tensor) -> Box:
    """(1, 3, H, W) -> the part without margins and frame; the whole picture where there are none."""
    height, width = size_of(image)
    small = resize(image, scaled_size(image, min(SIDE, max(height, width))))[0].permute(1, 2, 0).numpy()
    box = _without_frame(small, _without_margins(small, (0, 0, small.shape[1], small.shape[0])))
    if box == (0, 0, small.shape[1], small.shape[0]):
        return 0, 0, width, height
    scale = (width / small.shape[1], height / small.shape[0]) * 2
    inward = [n + 1 if i < 2 else n - 1 for i, n in enumerate(box)]  # past the blurred edge
    kept = [n if edge in (0, *small.shape[:2]) else cut for n, cut, edge in zip(box, inward, box, strict=True)]
    left, top, right, bottom = (round(n * s) for n, s in zip(kept, scale, strict=True))
    return left, top, min(right, width), min(bottom, height)


def _without_margins(x: np.ndarray, box: Box) -> Box:
    """The box less its margins; again, since a mat can lie inside a scan border."""
    left, top, right, bottom = box
    sides = _sides(x[top:bottom, left:right])
    depths, colors = zip(*map(_margin, sides), strict=True)
    chosen = [depth if _belongs(n, depths, colors) else 0 for n, depth in enumerate(depths)]
    if not any(chosen):
        return box
    if sum(map(bool, chosen)) > 1:  # the painting can be of the margin's colour at another side
        color, usual = colors[int(np.argmax(chosen))], int(np.median([depth for depth in chosen if depth]))
        chosen = [depth or min(usual, _lines_of(color, side)) for depth, side in zip(chosen, sides, strict=True)]
    above, below, before, after = chosen
    return _without_margins(x, (left + before, top + above, right - after, bottom - below))


def _sides(x: np.ndarray) -> list[np.ndarray]:
    """The picture (lines, pixels, 3) as seen from above, below, the left and the right."""
    return [x, x[::-1], x.swapaxes(0, 1), x.swapaxes(0, 1)[::-1]]


def _margin(x: np.ndarray) -> tuple[int, np.ndarray]:
    """How many lines the margin at the beginning has, 0 for none, and its colour."""
    color = np.median(x[:LEAST].reshape(-1, 3), 0)
    others = (np.abs(x - color).max(-1) > NEAR).mean(1)  # (lines,): share of pixels of another colour
    lines = int(DEEPEST * len(x))
    ends = np.flatnonzero(others[:lines] > ABRUPT)
    depth = int(ends[0]) if len(ends) else 0
    while depth and others[depth - 1] > 1 - UNIFORM:  # the blurred edge itself
        depth -= 1
    is_uniform = depth >= LEAST and others[:depth].mean() <= 1 - UNIFORM and len(ends) and ends[0] - depth <= LEAST
    return (depth if is_uniform else 0), color


def _lines_of(color: np.ndarray, x: np.ndarray) -> int:
    """How many lines at the beginning are of this colour."""
    is_other = (np.abs(x - color).max(-1) > NEAR).mean(1) > 1 - UNIFORM
    return int(np.argmax(is_other)) if is_other.any() else len(x)


def _belongs(n: int, depths: tuple[int, ...], colors: tuple[np.ndarray, ...]) -> bool:
    """Whether a strip is a margin: another side has one of its colour, or it is white or black, as caption strips are."""
    alike = [m for m in range(4) if m != n and depths[m] and np.abs(colors[n] - colors[m]).max() < NEAR]
    return bool(depths[n]) and (bool(alike) or colors[n].min() > 1 - NEAR or colors[n].max() < NEAR)


def _without_frame(x: np.ndarray, box: Box) -> Box:
    """The box inside the innermost rectangle of straight edges on all four sides, if there is one."""
    left, top, right, bottom = box
    inside = x[top:bottom, left:right]
    depths = [_inner_edge(side) for side in _sides(inside)]
    if not all(depths):
        return box
    above, below, before, after = depths
    return left + before, top + above, right - after, bottom - below


def _inner_edge(x: np.ndarray) -> int:
    """The line behind the innermost straight edge parallel to the side; 0 for none."""
    lines = int(DEEPEST / 2 * len(x))
    middle = x[:, len(x[0]) // 6 : -len(x[0]) // 6 or None]  # past the frame's other sides
    step = middle[2 : lines + 2] - middle[:lines]  # over two lines, since edges are blurred
    is_straight = (np.abs(step).max(-1) > EDGE).mean(1) > STRAIGHT
    is_one_way = (np.abs(step.mean(1)) > np.abs(step).mean(1) / 2).any(-1)  # all lighter, or all darker: noise goes both ways
    found = np.flatnonzero(is_straight & is_one_way)
    return int(found[-1]) + 2 if len(found) else 0
