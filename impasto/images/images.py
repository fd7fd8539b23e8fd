"""Reading, writing and resizing pictures: the functions of this package that the others use."""

from impasto.images.formats import check_ending
from impasto.images.opening import MAX_BYTES, MAX_PIXELS, read_bytes
from impasto.images.pixels import (
    EDGES,
    MIN_SIDE,
    Picture,
    Wraps,
    are_alike,
    check_image,
    quantize,
    resize,
    scaled_size,
    size_of,
    to_pillow,
)
from impasto.images.profiles import in_profile, usable_profile
from impasto.images.reading import declared_size, decode, read_deep_zoom, read_picture
from impasto.images.records import RECORD, beside, read_beside, read_record, tiles_of, write_beside
from impasto.images.writing import check_format, small_file, write_picture, write_small

__all__ = [
    "EDGES",
    "MAX_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "RECORD",
    "Picture",
    "Wraps",
    "are_alike",
    "beside",
    "check_ending",
    "check_format",
    "check_image",
    "declared_size",
    "decode",
    "in_profile",
    "quantize",
    "read_beside",
    "read_bytes",
    "read_deep_zoom",
    "read_picture",
    "read_record",
    "resize",
    "scaled_size",
    "size_of",
    "small_file",
    "tiles_of",
    "to_pillow",
    "usable_profile",
    "write_beside",
    "write_picture",
    "write_small",
]
