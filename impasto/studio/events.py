"""What happens in the studio, told to every open page as server-sent events; a page that was away is told what it missed."""

import asyncio
import contextlib
import json
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

KEPT = 2000  # events; a page that missed more fetches everything again
QUIET_SECONDS = 15.0  # without an event a comment is sent, so that a connection that is gone is noticed


class Events:
    """The last events, with a number each. `run` tells this run of the studio from the last."""

    def __init__(self) -> None:
        self.run = secrets.token_hex(4)
        self.kept: deque[tuple[int, str]] = deque(maxlen=KEPT)
        self.last = 0
        self.happened = asyncio.Event()  # a new one for each event: no stream holds a lock as its page goes
        self.closed = False

    def tell(self, name: str, data: dict[str, Any]) -> None:
        """To all pages."""
        self.last += 1
        self.kept.append((self.last, _event(name, data, f"{self.run}-{self.last}")))
        self._wake()

    def close(self) -> None:
        """End every stream, or the server would wait for them."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        self.happened.set()
        self.happened = asyncio.Event()

    async def since(self, seen: str, hello: dict[str, Any]) -> AsyncIterator[str]:
        """The stream of a page that has seen up to this id ("" for none): first `hello`, then what comes."""
        yield "retry: 1000\n" + _event("hello", {"run": self.run, **hello}, seen or f"{self.run}-{self.last}")
        at = self._position(seen)
        if at is None:
            yield _event("reload", {}, f"{self.run}-{self.last}")
            at = self.last
        while not self.closed:
            happened = self.happened
            for number, event in [it for it in self.kept if it[0] > at]:
                at = number
                yield event
            if at == self.last and not self.closed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(happened.wait(), QUIET_SECONDS)
                if at == self.last:
                    yield ": still here\n\n"

    def _position(self, seen: str) -> int | None:
        """The number of the event seen last; None where what followed it is no longer known."""
        if not seen:
            return self.last
        run, _, number = seen.partition("-")
        if run != self.run or not re.fullmatch("[0-9]{1,15}", number):
            return None
        oldest = self.kept[0][0] if self.kept else self.last + 1
        return int(number) if oldest - 1 <= int(number) <= self.last else None


def _event(name: str, data: dict[str, Any], id: str) -> str:
    return f"id: {id}\nevent: {name}\ndata: {json.dumps(data, allow_nan=False)}\n\n"
