"""The studio's HTTP API, for this machine only; docs/studio.md lists it.

Every answer is JSON or a file of the studio's folder, named by an id. Every request has passed guard.Guard.
"""

import asyncio
import contextlib
import json
import os
import tempfile
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import wraps
from importlib.metadata import version
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import IO, Any

from PIL import Image
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from impasto.errors import BadImage, BadInput, BadRecipe, CannotWrite, ImpastoError, NoRoom
from impasto.files import FULL, sha256, text_of, write_whole
from impasto.pictures import picture_path
from impasto.recipe.regions import is_made
from impasto.studio.client import MOST_UPLOADED
from impasto.studio.decode import SMALL, Decoder
from impasto.studio.events import Events
from impasto.studio.form import form
from impasto.studio.job_request import InstantRequest, is_plain, read_request
from impasto.studio.jobs import Jobs, Missing, WrongState, slug
from impasto.studio.live import Live, Superseded
from impasto.studio.openapi import openapi
from impasto.studio.store import UPLOAD, About, Store, now, open_within

MOST_JSON = 1_000_000
MOST_STREAMS = 48
MOST_RECORD = 100_000
MOST_CURVE = 100_000_000
MOST_ATLAS = 100_000_000
CONVERSION_SECONDS = 600.0  # for a result in another format
FORM = "send the bytes of the picture as the body, not a form: curl --data-binary @cat.jpg"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".webp": "image/webp",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".svg": "image/svg+xml",
}
KEEP = {"cache-control": "private, max-age=86400"}


class TooLarge(BadInput):
    """The request is too large."""


STATUS: dict[type[ImpastoError], int] = {
    WrongState: 409,
    Missing: 404,
    TooLarge: 413,
    BadImage: 415,
    NoRoom: 507,
    CannotWrite: 507,
    BadRecipe: 400,
    BadInput: 404,
    ImpastoError: 400,
}
PAGE = files("impasto.studio") / "page"
Handler = Callable[[Request], Awaitable[Response]]


class Studio:
    """The store, its jobs, and the handlers of requests."""

    def __init__(self, store: Store, atlases: Mapping[str, Path]) -> None:
        self.store, self.events = store, Events()
        self.jobs = Jobs(store, self.events)
        self.atlases = dict(atlases)
        self.decoder, self.taking = Decoder(), asyncio.Lock()
        self.instant, self.converter = Live(), Live(CONVERSION_SECONDS)
        self.streams = 0

    # Pictures

    async def pictures(self, _request: Request) -> Response:
        """All pictures but the masks, newest first, the bundled ones last."""
        found = [about for about in self.store.all("pictures") if not about["mask"]]
        ids = self._ids()
        return JSONResponse({"pictures": [self._picture(about, ids) for about in sorted(found, key=lambda it: it["bundled"])]})

    async def upload(self, request: Request) -> Response:
        """Upload a picture, whose bytes are the body."""
        name = _clean(request.query_params.get("name", "")) or "picture.png"
        sent = request.headers.get("content-type", "")
        if sent.startswith("multipart/"):
            raise BadImage(FORM)
        with tempfile.TemporaryDirectory(dir=self.store.folder, prefix=UPLOAD) as folder:
            came = Path(folder) / "came"
            with open(came, "wb") as file:
                async for part in _limited(request, MOST_UPLOADED):
                    file.write(part)
            try:
                about = await self.take(came, name, request.query_params.get("mask") == "1")
            except BadImage as error:  # curl calls every body a form
                raise BadImage(f"{error}. {FORM}") if sent.startswith("application/x-www-form") else error from error
        self.events.send("picture", shown := self._picture(about, self._ids()))
        return JSONResponse(shown, 201)

    async def take(self, source: Path, name: str, mask: bool) -> About:
        """Decode a picture into the store, if it is not there yet. Raises BadImage."""
        digest = await asyncio.to_thread(sha256, source)
        async with self.taking:  # else a picture sent twice at once would be stored twice
            for about in self.store.all("pictures"):
                if digest in about["hashes"] and about["mask"] == mask:
                    return about
            return await self._decoded(source, name, mask, digest)

    async def _decoded(self, source: Path, name: str, mask: bool, digest: str) -> About:
        id, folder = self.store.new("pictures")
        try:
            decoded = await self.decoder.decode(source, folder, name, "mask" if mask else "picture")
            file = f"{slug(Path(name).stem)}.png"
            (folder / "picture.png").rename(folder / file)
            hashes = [digest, await asyncio.to_thread(sha256, folder / file)]
            record = _checked_record(decoded["record"])
            about = _about(id, name, decoded["width"], decoded["height"], file, hashes) | {"mask": mask, "record": record}
            self.store.save("pictures", about)
            return about
        except BaseException:
            self.store.remove("pictures", id)
            raise

    def bundle(self) -> None:
        """Add the bundled pictures to a new folder. Those that the user has deleted are not added again."""
        listed = self.store.folder / "bundled.txt"
        had = listed.read_text("utf-8").splitlines() if listed.exists() else []
        new = [path for path in sorted(picture_path("cat").parent.glob("*.jpg")) if path.name not in had]
        for path in new:
            id, folder = self.store.new("pictures")
            write_whole(folder / path.name, lambda file, path=path: file.write(path.read_bytes()))  # type: ignore[misc]
            with Image.open(path) as opened:
                about = _about(id, path.name, *opened.size, path.name, [sha256(path)]) | {"bundled": True}
                opened.thumbnail((SMALL, SMALL))
                opened.save(folder / "small.webp", quality=75)
            self.store.save("pictures", about)
        if new:
            names = "\n".join([*had, *(path.name for path in new)])
            write_whole(listed, lambda file: file.write(names.encode()))

    async def picture_file(self, request: Request) -> Response:
        """A picture or its thumbnail."""
        about = self.jobs.picture(request.path_params["id"])
        name = "small.webp" if request.path_params["what"] == "small" else about["file"]
        return _file(lambda: self.store.open("pictures", about["id"], name), name, headers=KEEP)

    async def remove_picture(self, request: Request) -> Response:
        """Remove a picture that no unfinished job needs."""
        id = self.jobs.picture(request.path_params["id"])["id"]
        if self.jobs.uses(id):
            raise WrongState("an unfinished job needs it")
        self.store.remove("pictures", id)
        self.events.send("gone", {"id": id})
        return Response(status_code=204)

    def _ids(self) -> dict[str, str]:
        """{hash: id} of the pictures; of equal ones the newest."""
        return {digest: it["id"] for it in reversed(self.store.all("pictures")) for digest in it["hashes"]}

    def _picture(self, about: About, ids: Mapping[str, str]) -> About:
        """A picture as the API shows it; for a result of Impasto with the pictures that it was painted from."""
        shown = {name: about[name] for name in ("id", "name", "created", "width", "height", "bundled", "mask")}
        return shown | {"record": about["record"] and _origins(about["record"], ids)}

    # Jobs

    async def list_jobs(self, request: Request) -> Response:
        """The jobs that match the search, newest first."""
        kind = request.query_params.get("kind")
        found = self.store.all("jobs", request.query_params.get("search", ""))
        return JSONResponse({"jobs": [self.jobs.shown(about) for about in found if kind in (None, about["kind"])]})

    async def new_job(self, request: Request) -> Response:
        """Submit a job."""
        job_request = await asyncio.to_thread(read_request, await _json(request))  # a grid's recipes are many
        return JSONResponse(self.jobs.submit(job_request), 201)

    async def one_job(self, request: Request) -> Response:
        """One job."""
        return JSONResponse(self.jobs.shown(self.jobs.job(request.path_params["id"])))

    async def act(self, request: Request) -> Response:
        """Pause, resume or cancel a job."""
        act = {"pause": self.jobs.pause, "resume": self.jobs.resume, "cancel": self.jobs.cancel}[request.path_params["act"]]
        return JSONResponse(act(request.path_params["id"]))

    async def change(self, request: Request) -> Response:
        """Change knobs of a running or paused painting."""
        body = await _json(request)
        knobs = body.get("knobs") if isinstance(body, dict) else None
        return JSONResponse(self.jobs.change(request.path_params["id"], knobs))

    async def in_format(self, request: Request) -> Response:
        """The result of a job as PNG or JPEG, with its recipe inside, or with ?recipe=0 without."""
        about, format = self.jobs.job(request.path_params["id"]), request.path_params["format"]
        if format not in ("png", "jpg"):
            raise Missing("there is nothing at this address")
        painting = self.jobs.output_of(about)
        with tempfile.TemporaryDirectory(dir=self.store.folder, prefix=UPLOAD) as folder:
            to = Path(folder) / f"{slug(about['name'])}.{format}"
            keep = request.query_params.get("recipe", "1") != "0"
            await self.converter.paint({"painting": str(painting), "to": str(to), "recipe": keep}, False)
            made = await asyncio.to_thread(to.read_bytes)
        return Response(made, media_type=TYPES[to.suffix], headers={"content-disposition": f'attachment; filename="{to.name}"'})

    async def label(self, request: Request) -> Response:
        """Give a job another name, or a star: {"name": ..., "starred": ...}."""
        return JSONResponse(self.jobs.label(request.path_params["id"], await _object(request)))

    async def zipped(self, request: Request) -> Response:
        """The results of several jobs in one archive: ?id=...&id=..."""
        found = [self.jobs.job(id) for id in dict.fromkeys(request.query_params.getlist("id"))]
        if not found:
            raise BadRecipe("name the jobs, as ?id=0123456789abcdef")
        results = [(about["name"], self.jobs.output_of(about)) for about in found]
        file = tempfile.NamedTemporaryFile(dir=self.store.folder, prefix=UPLOAD)  # noqa: SIM115  _Opened closes it
        await asyncio.to_thread(_zip, results, file)
        return _Opened(file, media_type="application/zip", filename="impasto.zip")

    async def remove_job(self, request: Request) -> Response:
        """Remove a job and its files."""
        self.jobs.remove(request.path_params["id"])
        return Response(status_code=204)

    async def curve(self, request: Request) -> Response:
        """The costs of every step; if a step was repeated after a crash, its last costs."""
        id, found = self.jobs.job(request.path_params["id"])["id"], dict[int, list[Any]]()
        lines: list[bytes] = []
        with contextlib.suppress(OSError), self.store.open("jobs", id, "curve.jsonl") as file:
            lines = file.read(MOST_CURVE).splitlines()
        for line in lines:
            with contextlib.suppress(ValueError, IndexError, TypeError):  # the last line may be half written
                row = json.loads(line)
                found = {i: kept for i, kept in found.items() if i < row[0]} if row[0] in found else found
                found[row[0]] = row
        return JSONResponse({"curve": [found[i] for i in sorted(found)]})

    async def job_file(self, request: Request) -> Response:
        """The result of a job, finished or not; its preview; its thumbnail; the result as a download."""
        about, what = self.jobs.job(request.path_params["id"]), request.path_params["what"]
        name = f"{what}.webp" if what in ("preview", "small") else self.jobs.output_of(about).name
        save_as = f"{slug(about['name'])}{Path(name).suffix}" if what == "download" else None
        return _file(lambda: self.store.open("jobs", about["id"], name), name, save_as)

    # While the user chooses

    async def live(self, request: Request) -> Response:
        """An instant picture, {"picture": WebP in base64, "guessed": [...]}; the body is a request for a job of kind instant.

        Or {"picture": null, "why"}: a form that is not finished yet is no error.
        """
        is_stage = request.query_params.get("for", "stage") == "stage"
        try:
            job_request = read_request({**await _object(request), "kind": "instant"})
            assert isinstance(job_request, InstantRequest)
            return JSONResponse(await self.instant.paint(self.jobs.live_work(job_request), is_stage))
        except Superseded:
            return JSONResponse({"picture": None, "superseded": True})
        except (BadRecipe, BadImage) as error:
            return JSONResponse({"picture": None, "why": str(error)})

    async def mask(self, request: Request) -> Response:
        """A mask made of a picture, {"picture": WebP in base64}; the body is {"picture": id, "mask": "light" or another}."""
        body = await _object(request)
        path, mask = self.jobs.path_of_picture(str(body.get("picture"))), body.get("mask")
        if not isinstance(mask, str) or mask == "rest" or not is_made(mask):
            raise BadRecipe("mask must be light, dark or a part by colour, as k-means 1 of 3")
        return JSONResponse(await self.instant.paint({"content": str(path), "mask": mask}, False))

    async def start_live(self, _request: Request) -> Response:
        """Have the process of instant pictures ready."""
        await self.instant.start()
        return Response(status_code=204)

    # The lens

    async def lens(self, _request: Request) -> Response:
        """The pages of units and styles."""
        atlases: list[About] = [
            {"id": name, "name": path.name, **about_atlas(path), "url": f"/pages/atlas/{name}/index.html"}
            for name, path in self.atlases.items()
        ]
        for about in self.store.all("jobs"):
            if about["kind"] == "atlas" and about["state"] == "finished":
                atlases.append(_shown_page("atlas", about))
        styles = [_shown_page("style", it) for it in self.store.all("jobs") if it["kind"] == "style" and it["state"] == "finished"]
        return JSONResponse({"atlases": atlases, "styles": styles})

    async def lens_page(self, request: Request) -> Response:
        """A file of such a page, never one outside its folder."""
        id, name = request.path_params["id"], request.path_params["path"]
        if id in self.atlases:
            return _file(lambda: open_within(self.atlases[id], name), name)
        id = self.jobs.job(id)["id"]
        return _file(lambda: self.store.open("jobs", id, f"page/{name}"), name)

    # The rest

    async def stream(self, request: Request) -> Response:
        """The stream of events."""
        if self.streams >= MOST_STREAMS:
            return JSONResponse({"error": "too many pages are open"}, 503)
        seen = request.headers.get("last-event-id", "")
        hello = {"version": version("impasto"), "folder": str(self.store.folder)}
        return _Stream(self, self.events.since(seen, hello))

    async def about(self, _request: Request) -> Response:
        """The version and the folder of the studio."""
        return JSONResponse({"version": version("impasto"), "folder": str(self.store.folder)})

    async def document(self, _request: Request) -> Response:
        """This API as an OpenAPI document."""
        return JSONResponse(openapi(self.routes()))

    def routes(self) -> list[Route]:
        """Every address and its handler."""

        def route(path: str, handler: Handler, *methods: str) -> Route:
            return Route(path, handler, methods=list(methods) or ["GET"])

        return [
            route("/", page),
            route("/page/{path:path}", page),
            route("/favicon.ico", nothing),
            route("/api/about", self.about),
            route("/api/openapi.json", self.document),
            route("/api/recipe", recipe),
            route("/api/events", self.stream),
            route("/api/pictures", self.pictures),
            route("/api/pictures", self.upload, "POST"),
            route("/api/pictures/{id}", self.remove_picture, "DELETE"),
            route("/api/pictures/{id}/{what:str}", one_of(self.picture_file, "image", "small")),
            route("/api/jobs", self.list_jobs),
            route("/api/jobs", self.new_job, "POST"),
            route("/api/jobs/{id}", self.one_job),
            route("/api/jobs/{id}", self.remove_job, "DELETE"),
            route("/api/jobs/{id}/as/{format}", self.in_format),
            route("/api/jobs/{id}/change", self.change, "POST"),
            route("/api/jobs/{id}/label", self.label, "POST"),
            route("/api/zip", self.zipped),
            route("/api/jobs/{id}/curve", self.curve),
            route("/api/jobs/{id}/{act}", one_of(self.act, "pause", "resume", "cancel"), "POST"),
            route("/api/jobs/{id}/{what}", one_of(self.job_file, "preview", "small", "image", "download")),
            route("/api/live", self.live, "POST"),
            route("/api/live/mask", self.mask, "POST"),
            route("/api/live/start", self.start_live, "POST"),
            route("/api/lens", self.lens),
            route("/pages/{kind}/{id}/{path:path}", self.lens_page),
        ]

    @contextlib.asynccontextmanager
    async def alive(self, _app: Starlette) -> AsyncIterator[None]:
        """Run the queue while the server runs."""
        self.bundle()
        work = asyncio.create_task(self.jobs.work())
        yield
        self.jobs.close()
        await work
        self.decoder.close()
        self.instant.close()
        self.converter.close()
        self.store.close()


class _Stream(StreamingResponse):
    """A stream of events, counted until its connection closes."""

    def __init__(self, studio: Studio, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self.studio = studio

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.studio.streams += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.studio.streams -= 1


def make_app(studio: Studio) -> Starlette:
    """The application without the guard."""
    handlers: dict[Any, Any] = dict.fromkeys((ImpastoError, OSError, ClientDisconnect), _failed)
    return Starlette(routes=studio.routes(), exception_handlers={**handlers, 404: _no_such, 405: _no_such}, lifespan=studio.alive)


async def page(request: Request) -> Response:
    """A file of the studio's own page."""
    name = request.path_params.get("path", "index.html")
    return _file(lambda: open_within(Path(str(PAGE)), name), name)


async def nothing(_request: Request) -> Response:
    """The icon that browsers request by themselves."""
    return Response(status_code=204)


async def recipe(_request: Request) -> Response:
    """The fields and presets of the form."""
    return JSONResponse(form())


def one_of(handler: Handler, *words: str) -> Handler:
    """The handler for addresses that end in one of these words; others are 404."""

    @wraps(handler)
    async def handle(request: Request) -> Response:
        if {request.path_params.get("what"), request.path_params.get("act")}.isdisjoint(words):
            raise Missing("there is nothing at this address")
        return await handler(request)

    return handle


def about_atlas(folder: Path) -> About:
    """{net, units: {layer: number}} of a page by lens atlas, from its script; empty if the script has another form."""
    try:
        with open_within(folder, "parts/atlas.js") as file:
            text = text_of(file.read(MOST_ATLAS))
        about = json.loads(text.removeprefix("const ATLAS = ").rstrip().removesuffix(";"))
        net = about["net"].lower().replace("-", "")  # VGG-19 -> vgg19
        units = {str(layer["name"]): int(layer["units"]) for layer in about["layers"]}
        return {"net": net, "units": units}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {"net": None, "units": {}}


def _shown_page(kind: str, about: About) -> About:
    shown = {"id": about["id"], "name": about["name"], "url": f"/pages/{kind}/{about['id']}/index.html"}
    return shown | {name: about["result"][name] for name in ("net", "units")}


def _about(id: str, name: str, width: int, height: int, file: str, hashes: list[str]) -> About:
    about: About = {"id": id, "name": name, "created": now(), "width": width, "height": height, "file": file}
    return about | {"mask": False, "bundled": False, "record": None, "hashes": hashes}


def _origins(record: About, ids: Mapping[str, str]) -> About:
    content, styles = ids.get(record["content"]), [ids.get(style) for style in record["styles"]]
    missing = [] if content or not record["content"] else ["the photograph"]
    missing += [f"style {n}" if len(styles) > 1 else "the style" for n, style in enumerate(styles, 1) if style is None]
    masks = {name: ids.get(digest) for name, digest in record.get("masks", {}).items()}
    missing += [f"the mask of {name}" for name, id in masks.items() if id is None]
    return {"recipe": record["recipe"], "content": content, "styles": styles, "masks": masks, "missing": missing}


class _Opened(FileResponse):
    """A file that is already open, since its name may point elsewhere by now."""

    def __init__(self, file: IO[bytes], **options: Any) -> None:
        again = f"/dev/fd/{file.fileno()}"
        super().__init__(again if os.path.exists(again) else file.name, stat_result=os.fstat(file.fileno()), **options)
        self.file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.file:
            await super().__call__(scope, receive, send)


def _file(opened: Callable[[], IO[bytes]], name: str, save_as: str | None = None, headers: Any = None) -> Response:
    """The answer with an opened file, if its suffix is served. Raises Missing if it does not exist."""
    type = TYPES.get(Path(name).suffix)
    if type is None:
        raise Missing("there is nothing to show")
    try:
        return _Opened(opened(), media_type=type, filename=save_as, headers=headers)
    except OSError as error:
        raise Missing("there is nothing to show yet") from error


def _zip(results: Sequence[tuple[str, Path]], file: IO[bytes]) -> None:
    """Write the files into an archive, under their jobs' names; equal names get a number."""
    used: set[str] = set()
    with zipfile.ZipFile(file, "w") as archive:  # pictures are compressed already
        for name, path in results:
            base = slug(name)
            names = (f"{base}{'' if n == 1 else f'-{n}'}{path.suffix}" for n in count(1))
            used.add(chosen := next(it for it in names if it not in used))
            archive.write(path, chosen)
    file.flush()
    file.seek(0)  # where a system opens it again at the place that it is at


def _clean(name: str) -> str:
    """A picture's name for display: the last part of a path, without control characters, not too long."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(letter for letter in last if letter.isprintable())[:120].strip()


def _checked_record(record: Any) -> About | None:
    """The recipe and the pictures' hashes of a file's record; None if it has another form or is too large."""
    if not isinstance(record, dict) or not isinstance(record.get("recipe"), dict) or not is_plain(record):
        return None
    if len(json.dumps(record)) > MOST_RECORD:
        return None
    inputs = record.get("inputs")
    inputs = inputs if isinstance(inputs, dict) else {}
    styles = inputs.get("styles")
    styles = [style for style in styles if isinstance(style, str)][:16] if isinstance(styles, list) else []
    content, masks = inputs.get("content"), inputs.get("masks")
    masks = {name: it for name, it in masks.items() if isinstance(it, str)} if isinstance(masks, dict) else {}
    return {"recipe": record["recipe"], "content": content if isinstance(content, str) else None, "styles": styles, "masks": masks}


async def _limited(request: Request, most: int) -> AsyncIterator[bytes]:
    """The parts of the body, `most` bytes in all. Raises TooLarge."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > most:
        raise TooLarge(f"at most {most // 10**6} MB are accepted")
    came = 0
    async for part in request.stream():
        came += len(part)
        if came > most:
            raise TooLarge(f"at most {most // 10**6} MB are accepted")
        yield part


async def _json(request: Request) -> Any:
    """Raises BadRecipe, TooLarge."""
    body = b"".join([part async for part in _limited(request, MOST_JSON)])
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRecipe("the body is not JSON") from None
    if not is_plain(found):
        raise BadRecipe("the JSON nests too deep, or has numbers that are not finite or text that is not UTF-8")
    return found


async def _object(request: Request) -> dict[str, Any]:
    """Raises BadRecipe, TooLarge."""
    found = await _json(request)
    if not isinstance(found, dict):
        raise BadRecipe("the body is not an object of JSON")
    return found


async def _failed(_request: Request, error: Exception) -> Response:
    """An error as a JSON answer."""
    if isinstance(error, OSError):
        why = "there is no room left on its disk" if error.errno in FULL else error.strerror or error
        return JSONResponse({"error": f"the studio's folder cannot be written: {why}"}, 507)
    status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), 400)
    return JSONResponse({"error": str(error)}, status)


async def _no_such(_request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "there is nothing at this address"}, getattr(error, "status_code", 404))
