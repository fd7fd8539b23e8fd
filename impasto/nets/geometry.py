"""Receptive fields by arithmetic (Araujo, Norris & Sim 2019, doi:10.23915/distill.00021).

All lengths are in pixels of the net's input. A field that reaches beyond the picture contains padding of one layer or more.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from impasto.nets.nets import Conv, ConvShape, Pool, window

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Field:
    """The receptive field of position u is u * stride - padding to u * stride - padding + size - 1, on either axis."""

    size: int
    stride: int
    padding: int

    def box(self, y: int, x: int) -> Box:
        """(x0, y0, x1, y1): the receptive field of position (y, x), not clipped; x1 and y1 are exclusive."""
        x0, y0 = x * self.stride - self.padding, y * self.stride - self.padding
        return x0, y0, x0 + self.size, y0 + self.size

    def interior(self, length: int) -> slice:
        """The positions on an axis of `length` pixels whose fields contain no padding; maybe an empty slice."""
        first, last = -(-self.padding // self.stride), (length + self.padding - self.size) // self.stride
        return slice(first, max(first, last + 1))

    def touches_padding(self, y: int, x: int, size: tuple[int, int]) -> bool:
        """Whether the field of position (y, x) contains padding, in a picture of size (H, W)."""
        return any(not inside.start <= u < inside.stop for u, inside in zip((y, x), map(self.interior, size), strict=True))

    @property
    def left(self) -> int:
        """Pixels by which a crop must begin before the field for its windows to align with those of the whole picture."""
        return -self.padding % self.stride


def fields(layers: Iterable[Conv | ConvShape | Pool]) -> dict[str, Field]:
    """{layer: its field} of a net or an architecture; `conv5:pre` has the field of `conv5`."""
    found, field = {}, Field(1, 1, 0)
    for layer in layers:
        field = step(field, *window(layer))
        found[layer.name] = field
    return found


def step(field: Field, size: int, stride: int, padding: int) -> Field:
    """The field after a layer whose windows have this size, stride and padding."""
    return Field(field.size + (size - 1) * field.stride, field.stride * stride, field.padding + padding * field.stride)


def field_of(layers: Iterable[Conv | ConvShape | Pool], layer: str) -> Field:
    """The field of one layer, with or without `:pre`."""
    return fields(layers)[layer.removesuffix(":pre")]
