"""What is to be painted: every knob of a painting, once, checked; regions, style edits, and what varies over several paintings."""

from impasto.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {"PRESETS": "recipe", "Recipe": "recipe", "make_recipe": "recipe"},
)
