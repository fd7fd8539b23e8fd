"""What a place of a layer sees: receptive fields by arithmetic (Araujo, Norris & Sim 2019, doi:10.23915/distill.00021).

All in pixels of the net's input. A field may reach beyond the picture: there the net sees padding, at one of its layers or more.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from impasto.nets.nets import Conv, ConvShape, Pool, window

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Field:
    """Place u of a layer sees the pixels from u stride - padding to u stride - padding + size - 1, on either axis."""

    size: int
    stride: int
    padding: int

    def box(self, y: int, x: int) -> Box:
        """(x0, y0, x1, y1) of what place (y, x) sees, not clipped; x1 and y1 are the first pixels beyond."""
        x0, y0 = x * self.stride - self.padding, y * self.stride - self.padding
        return x0, y0, x0 + self.size, y0 + self.size

    def interior(self, length: int) -> slice:
        """The places on an axis of `length` pixels that see no padding; an empty slice where there are none."""
        first, last = -(-self.padding // self.stride), (length + self.padding - self.size) // self.stride
        return slice(first, max(first, last + 1))

    def touches_padding(self, y: int, x: int, size: tuple[int, int]) -> bool:
        """Whether place (y, x) sees padding, at whatever layer, in a picture of size (H, W)."""
        return any(not inside.start <= u < inside.stop for u, inside in zip((y, x), map(self.interior, size), strict=True))

    @property
    def left(self) -> int:
        """By how many pixels a crop must begin earlier than the field to begin where the whole picture's windows do."""
        return -self.padding % self.stride


def fields(layers: Iterable[Conv | ConvShape | Pool]) -> dict[str, Field]:
    """{layer: its field} along a net or the drawing of one; `conv5:pre` sees what `conv5` sees."""
    found, seen = {}, Field(1, 1, 0)
    for layer in layers:
        seen = step(seen, *window(layer))
        found[layer.name] = seen
    return found


def step(seen: Field, size: int, stride: int, padding: int) -> Field:
    """The field behind windows of so many places before them."""
    return Field(seen.size + (size - 1) * seen.stride, seen.stride * stride, seen.padding + padding * seen.stride)


def field_of(layers: Iterable[Conv | ConvShape | Pool], layer: str) -> Field:
    """The field of one layer, `:pre` or not."""
    return fields(layers)[layer.removesuffix(":pre")]
