"""J(G) and its gradient: content and style costs, what they compare with, masks and colours, and the same a tile at a time."""

from impasto.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "content_cost": "losses",
        "costs_of": "objective",
        "gram_matrix": "losses",
        "make_cost": "objective",
        "style_cost": "losses",
        "style_layer_cost": "losses",
        "total_cost": "losses",
    },
)
