"""A hand in this process, whose nets a test has put in the place of the real ones."""

from collections.abc import Callable, Iterator
from contextlib import closing

from impasto.cache import Cache
from impasto.tasks import done
from impasto.workers import Died, Said, Work


def told(work: Work) -> Iterator[Said]:
    return done(work, Cache())


class Here:
    """Does the work, and dies once, after so many steps."""

    def __init__(self, dies_after: int | None = None, does: Callable[[Work], Iterator[Said]] = told) -> None:
        self.dies_after, self.does, self.closed, self.patience = dies_after, does, False, 60.0

    def do(self, work: Work) -> Iterator[Said]:
        with closing(self.does(work)) as said:
            for n, it in enumerate(said):
                if n == self.dies_after or self.closed:
                    self.dies_after = None
                    raise Died("killed")
                yield it

    def drop(self) -> None:
        raise AssertionError("it does not hang")

    def close(self) -> None:
        self.closed = True
