"""A cache of what several paintings share: weights, nets, style pictures, style targets."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Cache:
    """Holds the last `most` results; with 0 it holds nothing."""

    def __init__(self, most: int = 0) -> None:
        self.most = most
        self.found: OrderedDict[Hashable, tuple[tuple[Any, ...], Any]] = OrderedDict()

    def get_or_make(self, key: Hashable, of: Sequence[Any], make: Callable[[], T]) -> T:
        """The cached result for this key, if the objects `of` are identical (`is`) to those it was made from; else `make()`."""
        if not self.most:
            return make()
        of, (objects, value) = tuple(of), self.found.get(key, ((), None))
        if key not in self.found or len(objects) != len(of) or any(a is not b for a, b in zip(objects, of, strict=True)):
            value = make()
        self.found[key] = (of, value)
        self.found.move_to_end(key)
        while len(self.found) > self.most:
            self.found.popitem(last=False)
        result: T = value
        return result
