"""What the network has learned: each unit's patches and projections (Zeiler & Fergus 2013), and styles. Importing it does nothing.

Functions named like their modules are imported from those: `from impasto.lens.scan import scan`, `sheet`, `dream`.
"""

from impasto.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Objective": "dream",
        "check_field": "crops",
        "check_layer": "crops",
        "compare": "comparison",
        "controls": "deconv",
        "differences": "style.difference",
        "layer_statistics": "index",
        "make_atlas": "atlas",
        "make_setup": "index",
        "merge": "index",
        "module_net": "module",
        "place_map": "style.reading",
        "project": "deconv",
        "read_index": "index",
        "read_style": "style.reading",
        "record": "deconv",
        "top": "patches",
        "unit_statistics": "index",
    },
)
