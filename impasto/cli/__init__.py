"""The commands."""

from impasto.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, {"main": "app"})
