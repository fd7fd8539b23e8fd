"""The events of the studio, sent to every open page as server-sent events; a page that reconnects gets those it missed."""

import asyncio
import contextlib
import json
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

MOST_EVENTS = 2000  # in memory; a page that missed more fetches everything again
QUIET_SECONDS = 15.0  # after which a comment is sent, so that a closed connection is noticed


class Events:
    """The last events, numbered. `run` is different for each run of the studio."""

    def __init__(self) -> None:
        self.run = secrets.token_hex(4)
        self.recent: deque[tuple[int, str]] = deque(maxlen=MOST_EVENTS)
        self.last = 0
        self.arrived = asyncio.Event()  # a new object for each event, so that a stream which ends holds no lock
        self.closed = False

    def send(self, name: str, data: dict[str, Any]) -> None:
        """Send an event to all pages."""
        self.last += 1
        self.recent.append((self.last, _event(name, data, f"{self.run}-{self.last}")))
        self._wake()

    def close(self) -> None:
        """End all streams; the server would wait for them."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        self.arrived.set()
        self.arrived = asyncio.Event()

    async def since(self, seen: str, hello: dict[str, Any]) -> AsyncIterator[str]:
        """The stream of a page whose last event has this id ("" for none): `hello`, then the events as they come."""
        yield "retry: 1000\n" + _event("hello", {"run": self.run, **hello}, seen or f"{self.run}-{self.last}")
        at = self._position(seen)
        if at is None:
            yield _event("reload", {}, f"{self.run}-{self.last}")
            at = self.last
        while not self.closed:
            arrived = self.arrived
            for number, event in [it for it in self.recent if it[0] > at]:
                at = number
                yield event
            if at == self.last and not self.closed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(arrived.wait(), QUIET_SECONDS)
                if at == self.last:
                    yield ": still here\n\n"

    def _position(self, seen: str) -> int | None:
        """The number of the event with this id; None if events after it are lost."""
        if not seen:
            return self.last
        run, _, number = seen.partition("-")
        if run != self.run or not re.fullmatch("[0-9]{1,15}", number):
            return None
        oldest = self.recent[0][0] if self.recent else self.last + 1
        return int(number) if oldest - 1 <= int(number) <= self.last else None


def _event(name: str, data: dict[str, Any], id: str) -> str:
    return f"id: {id}\nevent: {name}\ndata: {json.dumps(data, allow_nan=False)}\n\n"
