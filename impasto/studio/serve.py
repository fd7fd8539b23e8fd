"""The studio as a process: on this machine alone, until it is told to stop."""

import contextlib
import json
import re
import socket
import sys
import webbrowser
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import platformdirs
import uvicorn
from starlette.applications import Starlette

from impasto.errors import BadInput, CannotWrite
from impasto.files import write_whole
from impasto.studio.app import Studio, make_app
from impasto.studio.client import DOOR
from impasto.studio.guard import Guard, Keys
from impasto.studio.store import Store

HOST, PORT = "127.0.0.1", 8765
SHUTDOWN_SECONDS = 5


class _Server(uvicorn.Server):
    """Ends the streams of events when it is to stop, since they never end by themselves."""

    def __init__(self, config: uvicorn.Config, studio: Studio) -> None:
        super().__init__(config)
        self.studio = studio

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.studio.events.close()
        await super().shutdown(sockets)


def default_folder() -> Path:
    """Where pictures are kept on this system."""
    return platformdirs.user_pictures_path() / "Impasto"


def serve(folder: Path, port: int | None, browse: bool, atlases: Sequence[Path] = ()) -> None:
    """Serve the folder until Ctrl-C. The address goes to stdout, a new one whenever the last has been used."""
    listening = listen(port)
    port = listening.getsockname()[1]
    store = Store(folder)

    def address(token: str) -> str:
        return f"http://{HOST}:{port}/?token={token}"

    def announce(token: str) -> None:
        print(address(token), flush=True)

    keys, studio = Keys(store.secret(), port, announce), Studio(store, found_atlases(atlases))

    @contextlib.asynccontextmanager
    async def alive(app: Starlette) -> AsyncIterator[None]:
        async with studio.alive(app):
            with _door(store.folder / DOOR, {"address": f"http://{HOST}:{port}", "key": keys.key}):
                announce(keys.token)
                if browse:
                    webbrowser.open(address(keys.token))
                yield

    app = make_app(studio)
    app.router.lifespan_context = alive
    options: dict[str, Any] = {"log_level": "warning", "access_log": False, "server_header": False, "proxy_headers": False}
    options |= {"ws": "none", "timeout_graceful_shutdown": SHUTDOWN_SECONDS, "timeout_keep_alive": 30}
    config = uvicorn.Config(Guard(app, keys, port), **options)
    with contextlib.suppress(KeyboardInterrupt):
        _Server(config, studio).run(sockets=[listening])


def listen(port: int | None) -> socket.socket:
    """A socket on the loopback address: at this port, else at the usual one or any that is free. Raises CannotWrite."""
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
    """{id: folder} of pages by lens atlas. Raises BadInput for what is none."""
    for folder in folders:
        if not (folder / "index.html").is_file() or not (folder / "parts" / "atlas.js").is_file():
            raise BadInput(f"{folder} is no page of lens atlas: make one with impasto lens atlas SCAN -o {folder}")
    names = [re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-") or "atlas" for folder in folders]
    return {f"{name}-{n}": folder.resolve() for n, (name, folder) in enumerate(zip(names, folders, strict=True), 1)}


@contextlib.contextmanager
def _door(path: Path, about: dict[str, str]) -> Any:
    write_whole(path, lambda file: file.write(b"{}"))
    path.chmod(0o600)
    write_whole(path, lambda file: file.write(json.dumps(about).encode()))  # keeps the mode
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
