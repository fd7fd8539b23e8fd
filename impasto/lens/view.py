"""How a picture is brought to the net, and the way back from the net's pixels to the picture's own."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from impasto.errors import BadImage
from impasto.images.images import resize

LONGEST = 16  # times the shorter side; beyond, a strip of a picture would fill the memory


@dataclass(frozen=True)
class View:
    """A `picture` (H, W) is resized to `resized` (H, W); of that the net sees `seen` (h, w) pixels from `start` (y, x) on."""

    picture: tuple[int, int]
    resized: tuple[int, int]
    start: tuple[int, int]
    seen: tuple[int, int]

    def in_picture(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) in pixels of the net's input -> the same in pixels of the picture, not clipped."""
        (y, x), down, across = self.start, self.picture[0] / self.resized[0], self.picture[1] / self.resized[1]
        return (box[0] + x) * across, (box[1] + y) * down, (box[2] + x) * across, (box[3] + y) * down

    def clip(self, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """The part of a box that the net sees, in pixels of its input."""
        return max(0, box[0]), max(0, box[1]), min(self.seen[1], box[2]), min(self.seen[0], box[3])


def center(resized: tuple[int, int], side: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Of a resized picture (H, W) the square in the middle: where it starts and its size."""
    return ((resized[0] - side) // 2, (resized[1] - side) // 2), (side, side)


def whole(resized: tuple[int, int], _: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """All of a resized picture."""
    return (0, 0), resized


FITS: dict[str, Callable[[tuple[int, int], int], tuple[tuple[int, int], tuple[int, int]]]] = {"center": center, "whole": whole}


def view_of(picture: tuple[int, int], side: int, fit: str) -> View:
    """How a picture (H, W) is seen: its shorter side becomes `side`, then `fit` says what of it. Raises BadImage for a strip."""
    shorter, longer = min(picture), max(picture)
    if longer > LONGEST * shorter:
        raise BadImage(f"is {picture[1]} x {picture[0]}: one side may be {LONGEST} times as long as the other at most")
    resized = tuple(side if length == shorter else round(length * side / shorter) for length in picture)
    height, width = resized
    return View(picture, (height, width), *FITS[fit]((height, width), side))


def bring(image: Tensor, view: View) -> Tensor:
    """(1, 3, H, W) -> what the net sees of it, (1, 3, h, w), by Pillow's LANCZOS on floats."""
    (y, x), (height, width) = view.start, view.seen
    return resize(image, view.resized)[..., y : y + height, x : x + width].contiguous()
