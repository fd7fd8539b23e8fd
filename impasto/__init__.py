"""Impasto paints a photograph in the manner of a painting. Importing it does nothing; torch is loaded when first needed."""

from importlib import import_module
from typing import Any

_HOME = {
    "BadImage": "errors",
    "BadInput": "errors",
    "BadRecipe": "errors",
    "BadWeights": "errors",
    "CannotWrite": "errors",
    "ImpastoError": "errors",
    "ImpastoWarning": "errors",
    "NoRoom": "errors",
    "NoWeights": "errors",
    "Objective": "lens.dream",
    "PRESETS": "recipe",
    "Painting": "painting",
    "Recipe": "recipe",
    "Step": "descent",
    "content_cost": "losses",
    "costs_of": "objective",
    "dream": "lens.dream",
    "features": "nets",
    "finished": "transfer",
    "gram_matrix": "losses",
    "load_weights": "weights",
    "make_net": "transfer",
    "make_recipe": "recipe",
    "paint": "transfer",
    "read_picture": "images",
    "style_cost": "losses",
    "style_layer_cost": "losses",
    "stylize": "transfer",
    "total_cost": "losses",
    "total_variation": "losses",
    "unroll": "losses",
    "write_picture": "images",
}
__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'impasto' has no attribute {name!r}")
    return getattr(import_module(f"impasto.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
