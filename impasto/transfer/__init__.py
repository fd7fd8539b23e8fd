"""Minimising J over the pixels of G, coarse to fine: the optimisers, memory, checkpoints, and a painting on disk."""

from impasto.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Execution": "transfer",
        "Extras": "transfer",
        "Painting": "painting",
        "finished": "transfer",
        "make_net": "transfer",
        "paint": "transfer",
        "stylize": "transfer",
    },
)
