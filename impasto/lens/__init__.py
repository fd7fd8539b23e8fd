"""What the network has learned: each unit's patches and projections (Zeiler & Fergus 2013), and styles. Importing it does nothing.

Functions named like their modules are imported from those: `from impasto.lens.scan import scan`, `sheet`, `dream`.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Objective": "dream",
    "check_field": "crops",
    "check_layer": "crops",
    "compare": "comparison",
    "controls": "deconv",
    "differences": "difference",
    "layer_statistics": "index",
    "make_atlas": "atlas",
    "make_setup": "index",
    "merge": "index",
    "module_net": "module",
    "place_map": "style",
    "project": "deconv",
    "read_index": "index",
    "read_style": "style",
    "record": "deconv",
    "top": "patches",
    "unit_statistics": "index",
}
__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'impasto.lens' has no attribute {name!r}")
    return getattr(import_module(f"impasto.lens.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
