"""The networks: VGG-19, VGG-16 and AlexNet, their kernels, and receptive fields."""

from impasto.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    dict.fromkeys(("INPUTS", "NETS", "Net", "build_net", "features", "normalized", "preprocess"), "nets"),
)
