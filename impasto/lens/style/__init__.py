"""Styles analysed: the Gram matrix decomposed into units, pairs, directions and positions; two styles compared."""

from impasto.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "differences": "difference",
        "pairs_together": "reading",
        "photograph_values": "reading",
        "photographs": "reading",
        "place_map": "reading",
        "read_style": "reading",
    },
)
