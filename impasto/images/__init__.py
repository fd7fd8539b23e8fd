"""Pictures and files: formats, reading and writing, resizing, lettering."""

from impasto.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {"read_picture": "images", "read_record": "images", "resize": "images", "to_pillow": "images", "write_picture": "images"},
)
