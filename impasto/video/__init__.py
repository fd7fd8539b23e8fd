"""A video painted frame by frame: frames in and out, the flow between them, the painting."""

from impasto.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, {"Motion": "video", "Video": "video"})
