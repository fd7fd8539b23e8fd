"""Preprocessing: a picture is resized and cropped for the net; boxes in the net's input are mapped back to the picture."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from impasto.errors import BadImage
from impasto.images.images import resize

LONGEST = 16  # times the shorter side: a longer strip would fill the memory


@dataclass(frozen=True)
class View:
    """A `picture` (H, W) is resized to `resized` (H, W) and cropped to `size` (h, w) at `start` (y, x): the net's input."""

    picture: tuple[int, int]
    resized: tuple[int, int]
    start: tuple[int, int]
    size: tuple[int, int]

    def in_picture(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) in the net's input -> the same box in pixels of the picture, not clipped."""
        (y, x), down, across = self.start, self.picture[0] / self.resized[0], self.picture[1] / self.resized[1]
        return (box[0] + x) * across, (box[1] + y) * down, (box[2] + x) * across, (box[3] + y) * down

    def clip(self, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """The part of a box that lies in the net's input."""
        return max(0, box[0]), max(0, box[1]), min(self.size[1], box[2]), min(self.size[0], box[3])


# From a resized picture (H, W) and its shorter side to the start and the size of the crop.
FITS: dict[str, Callable[[tuple[int, int], int], tuple[tuple[int, int], tuple[int, int]]]] = {
    "center": lambda resized, side: (((resized[0] - side) // 2, (resized[1] - side) // 2), (side, side)),
    "whole": lambda resized, side: ((0, 0), resized),
}


def view_of(picture: tuple[int, int], side: int, fit: str) -> View:
    """The view of a picture (H, W): its shorter side becomes `side`, then it is cropped by `fit`. Raises BadImage for a strip."""
    shorter, longer = min(picture), max(picture)
    if longer > LONGEST * shorter:
        raise BadImage(f"is {picture[1]} x {picture[0]}: one side may be at most {LONGEST} times as long as the other")
    resized = tuple(side if length == shorter else round(length * side / shorter) for length in picture)
    height, width = resized
    return View(picture, (height, width), *FITS[fit]((height, width), side))


def apply_view(image: Tensor, view: View) -> Tensor:
    """(1, 3, H, W) -> the net's input (1, 3, h, w), by Pillow's LANCZOS on floats."""
    (y, x), (height, width) = view.start, view.size
    return resize(image, view.resized)[..., y : y + height, x : x + width].contiguous()
