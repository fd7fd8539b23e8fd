"""The server process of the studio, for this machine only."""

import asyncio
import contextlib
import errno
import html
import json
import re
import socket
import sys
import warnings
import webbrowser
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from impasto.errors import BadInput, CannotWrite, ImpastoError, ImpastoWarning
from impasto.files import read_whole
from impasto.studio.app import Studio, make_app
from impasto.studio.client import STUDIO_FILE, Client
from impasto.studio.guard import Guard, Keys
from impasto.studio.store import InUse, Store, write_private

HOST, PORT = "127.0.0.1", 8765
ADDRESS = re.compile(r"http://127\.0\.0\.1:[0-9]{1,5}/\?token=[\w-]+")
SHUTDOWN_SECONDS = 5
BROWSE = "open-studio.html"  # in the folder: sends a browser to the newest address
MOST_CONNECTIONS = 500  # fewer where a process may open few files
BACKLOG = 32  # connections that wait to be accepted
IDLE_SECONDS = 15.0  # that a connection may go without a whole request
LEAST = 100_000  # bytes of a body that must come in that time


class _BoundedProtocol(H11Protocol):
    """HTTP with a limit of idle time and of connections, which uvicorn does not have."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.came, self.timer = 0, self.loop.call_later(IDLE_SECONDS, self._check, LEAST)
        alive = [it for it in self.connections if isinstance(it, _BoundedProtocol) and not it.transport.is_closing()]
        if len(alive) > most_connections():  # close the one that idled longest, so that nobody is locked out
            idle = [it for it in alive if it is not self and it.is_idle()]
            min(idle, key=lambda it: (it.has_begun(), it.timer.when()), default=self).transport.abort()

    def is_idle(self) -> bool:
        """Whether no whole request has arrived."""
        return self.conn.their_state is h11.IDLE or self.has_begun()

    def has_begun(self) -> bool:
        """Whether the body of a request is arriving."""
        return self.conn.their_state is h11.SEND_BODY

    def data_received(self, data: bytes) -> None:
        before = self.conn.their_state
        super().data_received(data)
        self.came += len(data)
        if self.conn.their_state is not before:
            self._restart_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._restart_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self.timer.cancel()
        super().connection_lost(exc)

    def _restart_timer(self) -> None:
        self.timer.cancel()
        self.timer = self.loop.call_later(IDLE_SECONDS, self._check, self.came + LEAST)

    def _check(self, least: int) -> None:
        """Close the connection if no request, or not enough of its body, has arrived."""
        if self.is_idle() and not (self.has_begun() and self.came >= least):
            self.transport.abort()
        else:
            self._restart_timer()


def most_connections() -> int:
    """How many connections leave enough open files for the answers."""
    try:
        import resource
    except ImportError:
        return MOST_CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if files == resource.RLIM_INFINITY else max(8, min(MOST_CONNECTIONS, (files - 64) // 2))


def _ignore_too_many_files(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Ignore the error of too many open files, which passes by itself."""
    error = context.get("exception")
    if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
        loop.default_exception_handler(context)


class _Server(uvicorn.Server):
    """Ends the streams of events at shutdown, since they never end by themselves."""

    def __init__(self, config: uvicorn.Config, studio: Studio) -> None:
        super().__init__(config)
        self.studio = studio

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.studio.events.close()
        await super().shutdown(sockets)


def serve(folder: Path, port: int | None, browse: bool, atlases: Sequence[Path] = ()) -> None:
    """Serve the folder until Ctrl-C. Prints the address, and a new one whenever the last has been used.

    If a studio serves the folder already, that one is opened.
    """
    try:
        store = Store(folder)
    except InUse:
        if not _open_running(folder.resolve(), browse):
            raise
        if port is not None or atlases:
            warnings.warn("a studio already runs for this folder: --port and --atlas have no effect", ImpastoWarning, stacklevel=2)
        return
    with contextlib.closing(store):
        _serve(store, listen(port), browse, found_atlases(atlases))


def _serve(store: Store, listening: socket.socket, browse: bool, atlases: dict[str, Path]) -> None:
    port, studio_file, page = listening.getsockname()[1], store.folder / STUDIO_FILE, store.folder / BROWSE

    def announce(token: str) -> None:
        address = f"http://{HOST}:{port}"
        about = {"address": address, "key": keys.key, "open": f"{address}/?token={token}"}
        page.unlink(missing_ok=True)
        with contextlib.suppress(ImpastoError):  # on a full disk: the printed address still works
            write_private(studio_file, json.dumps(about).encode())
        print(about["open"], flush=True)

    keys, studio = Keys(store.secret(), port, announce), Studio(store, atlases)

    @contextlib.asynccontextmanager
    async def alive(app: Starlette) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_exception_handler(_ignore_too_many_files)
        async with studio.alive(app):
            try:
                announce(keys.token)
                if browse:
                    _browse(store.folder, f"http://{HOST}:{port}/?token={keys.token}")
                yield
            finally:
                for path in (studio_file, page):
                    path.unlink(missing_ok=True)

    app = make_app(studio)
    app.router.lifespan_context = alive
    options: dict[str, Any] = {"log_level": "error", "access_log": False, "server_header": False, "proxy_headers": False}
    options |= {"ws": "none", "timeout_graceful_shutdown": SHUTDOWN_SECONDS, "http": _BoundedProtocol, "backlog": BACKLOG}
    options["timeout_keep_alive"] = int(IDLE_SECONDS)
    config = uvicorn.Config(Guard(app, keys, port), **options)
    with contextlib.suppress(KeyboardInterrupt):
        _Server(config, studio).run(sockets=[listening])


def _open_running(folder: Path, browse: bool) -> bool:
    """Print and open the newest address of the studio that serves the folder. Returns whether it answers."""
    try:
        found = json.loads(read_whole(folder / STUDIO_FILE, 100_000))
        address = str(found["open"])
        Client(address=found["address"], key=found["key"]).about()
    except (ImpastoError, OSError, ValueError, KeyError, TypeError):
        return False
    if not ADDRESS.fullmatch(address):
        return False
    print(address, flush=True)
    if browse:
        _browse(folder, address)
    return True


def _browse(folder: Path, address: str) -> None:
    """Open the address in the browser through a private file, since everyone can see command lines."""
    page = folder / BROWSE
    head = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={html.escape(address)}">'
    with contextlib.suppress(ImpastoError):  # on a full disk: the address has been printed
        write_private(page, f'{head}<a href="{html.escape(address)}">Open the studio</a>'.encode())
        webbrowser.open(page.as_uri())


def listen(port: int | None) -> socket.socket:
    """A socket on the loopback address: at this port, by default at PORT or any free one. Raises CannotWrite."""
    for number in [port] if port is not None else [PORT, 0]:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if sys.platform != "win32":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, number))
            listening.listen(128)
            return listening
        except OSError as error:
            listening.close()
            why = error
    raise CannotWrite(f"cannot listen on port {port}: {why.strerror}. Name another with --port, or none")


def found_atlases(folders: Sequence[Path]) -> dict[str, Path]:
    """{id: folder} of pages by lens atlas. Raises BadInput for any other folder."""
    for folder in folders:
        if not (folder / "index.html").is_file() or not (folder / "parts" / "atlas.js").is_file():
            raise BadInput(f"{folder} is not a page by lens atlas: make one with impasto lens atlas SCAN -o {folder}")
    names = [re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-") or "atlas" for folder in folders]
    return {f"{name}-{n}": folder.resolve() for n, (name, folder) in enumerate(zip(names, folders, strict=True), 1)}
