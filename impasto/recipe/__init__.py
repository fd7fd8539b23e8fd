"""What to paint: the recipe with all its knobs, checked; regions, style edits, and axes of several paintings."""

from impasto.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, {"PRESETS": "recipe", "Recipe": "recipe", "make_recipe": "recipe"})
