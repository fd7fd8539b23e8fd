"""What a hostile page, program or file could try on a studio: each is refused, and the studio goes on.

docs/studio.md lists the attacks and faults.
"""

import asyncio
import contextlib
import ctypes
import io
import json
import ntpath
import os
import socket
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image, PngImagePlugin

pytest.importorskip("starlette", reason="the studio is not tried: the extra studio is not installed")

import uvicorn

from impasto.errors import BadImage
from impasto.images import images
from impasto.studio import serve
from impasto.studio.decode import Decoder, confine, decode
from impasto.studio.guard import hosts_of, refusal
from impasto.studio.store import Store, open_within
from tests.studios import Answer, Running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def studio(tmp_path_factory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("studio"))
    yield running
    said = running.stop()
    assert "Traceback" not in said, said


NUMBERS = count()
RUN = "import sys; sys.argv[0] = 'impasto'; from impasto.cli.app import main; sys.exit(main())"


def png(size: tuple[int, int] = (40, 30), **options) -> bytes:
    """A picture like no other: one that is there already would not be decoded."""
    picture = Image.linear_gradient("L").convert("RGB").resize(size)
    picture.putpixel((0, 0), (next(NUMBERS) % 256, 7, 7))
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def upload(studio: Running, data: bytes, name: str = "a.png", **headers: str) -> Answer:
    return studio.ask("POST", f"/api/pictures?name={quote(name)}", data, **headers)


def files_in(studio: Running) -> set[Path]:
    return {path for path in studio.folder.rglob("*") if path.is_file() and not path.name.startswith("studio.")}


def cookie_of(studio: Running) -> dict[str, str]:
    entry = studio.raw("GET", studio.address().split(studio.host)[1])
    assert entry.status == 303 and entry.headers["location"] == "/"
    return {"Cookie": entry.headers["set-cookie"].split(";")[0]}


def wait_for_a_new_address(studio: Running, count: int) -> None:
    for _ in range(100):
        if len(studio.lines) > count:
            return
        time.sleep(0.05)
    raise AssertionError("no new address was printed")


def test_the_token_is_good_once_and_the_next_is_printed(studio):
    count, first = len(studio.lines), studio.lines[-1].split(studio.host)[1]
    entry = studio.raw("GET", first)
    said = entry.headers["set-cookie"].lower()
    assert entry.status == 303 and "httponly" in said and "samesite=strict" in said and f"impasto-{studio.port}=" in said
    assert "max-age=2592000" in said  # 30 days
    wait_for_a_new_address(studio, count)
    assert studio.raw("GET", first).status == 401
    assert studio.raw("GET", "/", cookie_of(studio)).status == 200


@pytest.mark.parametrize("other", ['prefs={"a": [1, 2]}', "a b/c=d", "=", "\xe9=\xe9", "x=;;;"])
def test_cookies_of_other_programs_on_this_machine_do_not_lock_the_studio(studio, other):
    own = cookie_of(studio)["Cookie"]
    assert studio.raw("GET", "/api/jobs", {"Cookie": f"{other}; {own}"}).status == 200
    assert studio.raw("GET", "/api/jobs", {"Cookie": f"{other}; {own}x"}).status == 401


def test_every_answer_keeps_a_browser_within_the_studio(studio):
    for answer in (studio.raw("GET", "/"), studio.raw("GET", "/x", {"Host": "evil.example"}), studio.ask("GET", "/api/jobs")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert not any(name.startswith("access-control") for name in answer.headers)
        assert "server" not in answer.headers


def test_a_cross_site_multipart_upload_writes_nothing(studio):
    before, body = (
        files_in(studio),
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n' + png() + b"\r\n--x--",
    )
    kind = {"Content-Type": "multipart/form-data; boundary=x", **cookie_of(studio)}
    for evil in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {}):
        assert studio.raw("POST", "/api/pictures?name=a.png", {**kind, **evil}, body).status == 403
    assert files_in(studio) == before


def test_origin_null_is_refused(studio):
    assert studio.ask("POST", "/api/jobs", {}, Origin="null").status == 403
    assert studio.ask("GET", "/api/jobs", Origin="null").status == 403


def test_a_cookie_does_not_excuse_the_origin(studio):
    evil = {**cookie_of(studio), "X-Impasto": "1"}
    for origin in (
        "http://evil.example",
        f"http://{studio.host}.evil.example",
        f"https://{studio.host}",
        f"http://{studio.host}:80",
        "",
    ):
        assert studio.raw("POST", "/api/jobs", {**evil, "Origin": origin}, b"{}").status == 403
    assert studio.raw("POST", "/api/jobs", {**evil, "Origin": f"http://{studio.host}"}, b"{}").status == 400


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "127.0.0.1.", "localhost.:{port}", "127.0.0.1", "127.0.0.1:1", "[::1", "[::ffff:127.0.0.1]:{port}", ""),
        *("LOCALHOST.EVIL:{port}", "0.0.0.0:{port}", "127.1:{port}", "2130706433:{port}", "127.0.0.1:{port}@evil.example"),
        "\xe9vil:{port}",
    ],
)
def test_another_host_is_another_studio(studio, host):
    named = host.format(port=studio.port)
    assert studio.raw("GET", "/", {"Host": named}).status in (400, 421)
    assert studio.ask("GET", "/api/jobs", Host=named).status in (400, 421)


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LocalHost:{port}", "[::1]:{port}"])
def test_this_machine_is_let_in_by_all_its_names(studio, host):
    assert studio.ask("GET", "/api/jobs", Host=host.format(port=studio.port)).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
@pytest.mark.parametrize(
    "path", ["/", "/api/jobs", "/api/pictures/0000000000000000", "/api/jobs/0000000000000000/cancel", "/nothing"]
)
def test_no_unsafe_method_is_forgotten(studio, method, path):
    assert studio.raw(method, path, cookie_of(studio)).status == 403


def test_who_it_says_it_is_makes_no_difference(studio):
    for agent in ("curl/8.0", "Mozilla/5.0", "", "python-requests"):
        assert studio.raw("GET", "/api/jobs", {"User-Agent": agent}).status == 401
        assert studio.raw("POST", "/api/jobs", {"User-Agent": agent, "X-Impasto": "1"}, b"{}").status == 401


def test_nothing_is_done_without_the_token_and_nothing_listens_but_this_machine(studio):
    for method, path in (
        ("GET", "/api/jobs"),
        ("GET", "/page/app.js"),
        ("GET", "/api/events"),
        ("POST", "/api/jobs"),
        ("GET", "/pages/a/b/c"),
    ):
        assert (
            studio.raw(
                method, path, {"X-Impasto": "1", "Authorization": "Bearer wrong", "Cookie": f"impasto-{studio.port}=wrong"}
            ).status
            == 401
        )
    listening = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    ours = {it[1] for it in listening if it[3] == "0A" and int(it[1].rsplit(":", 1)[1], 16) == studio.port}
    assert ours == {f"0100007F:{studio.port:04X}"}


def test_no_stream_for_another_origin_and_no_web_socket(studio):
    assert studio.ask("GET", "/api/events", Origin="http://evil.example").status == 403
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==",
    }
    assert studio.ask("GET", "/api/jobs", **upgrade).status != 101


EVIL_IDS = [
    "..",
    "../..",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e",
    "%2fetc%2fpasswd",
    "0000000000000000%00",
    "0" * 15,
    "G" * 16,
    "0" * 4000,
    "%",
]


@pytest.mark.parametrize("id", EVIL_IDS)
def test_an_id_is_no_path(studio, id):
    for path in (
        f"/api/pictures/{id}/image",
        f"/api/jobs/{id}",
        f"/api/jobs/{id}/image",
        f"/pages/style/{id}/index.html",
        f"/page/{id}",
    ):
        assert studio.ask("GET", path).status in (400, 404), path
    for method, path in (("DELETE", f"/api/pictures/{id}"), ("DELETE", f"/api/jobs/{id}"), ("POST", f"/api/jobs/{id}/cancel")):
        assert studio.ask(method, path).status in (400, 404, 405), path


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "//etc/passwd", "a//etc/passwd", "parts/../../x", "./app.js", "a\0b", "", "parts/"]
)
def test_an_absolute_part_does_not_leave_the_folder(tmp_path, studio, name):
    (tmp_path / "page").mkdir()
    (tmp_path / "x").write_text("secret")
    with pytest.raises(FileNotFoundError):
        open_within(tmp_path / "page", name)
    assert studio.ask("GET", f"/page/{quote(name)}").status in (404, 307)


@pytest.mark.parametrize(
    "name", ["..\\x", "C:\\windows\\win.ini", "c:win.ini", "\\\\host\\share\\x", "/windows/win.ini", "parts\\..\\..\\x"]
)
def test_a_windows_path_is_none_either(tmp_path, name):
    page = tmp_path / "page"
    page.mkdir()
    if "/" not in name:  # here it is a name like any other
        (page / name).write_text("x")
    with pytest.raises(FileNotFoundError):
        open_within(page, name)
    assert ntpath.isabs(name) or ntpath.splitdrive(name)[0] or ".." in name or name.startswith("/")


def test_what_is_no_ordinary_file_in_the_folder_is_not_opened(tmp_path):
    page = tmp_path / "page"
    (page / "parts").mkdir(parents=True)
    (tmp_path / "secret.js").write_text("secret")
    (page / "link.js").symlink_to(tmp_path / "secret.js")
    (page / "folder").symlink_to(tmp_path)
    (page / "zero.js").symlink_to("/dev/zero")
    os.mkfifo(page / "pipe.js")
    (page / "parts" / "own.js").write_text("own")
    (page / "here").symlink_to("parts")
    for name in ("link.js", "folder/secret.js", "zero.js", "pipe.js", "parts", "here/own.js", "parts/own.js/x", "none.js"):
        with pytest.raises(OSError):
            open_within(page, name)
    (tmp_path / "top").symlink_to(page)
    for folder in (page, tmp_path / "top"):
        with open_within(folder, "parts/own.js") as file:
            assert file.read() == b"own"


def replaced(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


def test_a_link_in_the_studios_folder_is_not_served(tmp_path):
    """A file that is a link, and a folder that is one; of pictures, of jobs and of pages, where a moment ago all was well."""
    secret = tmp_path / "secret"
    secret.mkdir()
    for name in ("small.webp", "index.html", "image.png", "cat.png", "preview.webp"):
        (secret / name).write_text("secret")
    (tmp_path / "atlas" / "parts").mkdir(parents=True)
    (tmp_path / "atlas" / "index.html").write_text("atlas")
    (tmp_path / "atlas" / "parts" / "atlas.js").write_text('const ATLAS = {"net": "AlexNet", "layers": []};')
    (tmp_path / "atlas" / "out.js").symlink_to(secret / "index.html")
    (tmp_path / "linked").symlink_to(tmp_path / "atlas")
    job, pages = "0123456789abcdef", {"created": 1, "queued": 1, "preview": 0, "step": None, "error": None}
    store = Store(tmp_path / "studio")
    told = {"id": job, "name": "cat", "kind": "painting", "state": "finished", "file": "cat.png", "asked": {}, "changes": {}}
    (store.folder / "jobs" / job / "page").mkdir(parents=True)
    store.save("jobs", {**told, **pages, "warnings": [], "result": None})
    store.close()
    for name in ("small.webp", "preview.webp", "cat.png", "page/index.html"):
        (store.folder / "jobs" / job / name).write_text("own")
    running = Running(tmp_path / "studio", "--atlas", str(tmp_path / "linked"))
    try:
        id = json.loads(upload(running, png()).body)["id"]
        folders = {f"/api/pictures/{id}": store.folder / "pictures" / id, f"/api/jobs/{job}": store.folder / "jobs" / job}
        files = {f"{at}/small": folder / "small.webp" for at, folder in folders.items()}
        files |= {f"/api/pictures/{id}/image": folders[f"/api/pictures/{id}"] / "a.png"}
        files |= {f"/api/jobs/{job}/{what}": folders[f"/api/jobs/{job}"] / "cat.png" for what in ("image", "download")}
        files |= {f"/api/jobs/{job}/preview": folders[f"/api/jobs/{job}"] / "preview.webp"}
        files |= {f"/pages/style/{job}/index.html": folders[f"/api/jobs/{job}"] / "page" / "index.html"}
        assert {running.ask("GET", address).status for address in files} == {200}
        assert running.ask("GET", "/pages/atlas/atlas-1/index.html").body == b"atlas"
        assert running.ask("GET", "/pages/atlas/atlas-1/out.js").status == 404
        for path in set(files.values()):
            replaced(path, secret / "small.webp")
        assert {running.ask("GET", address).status for address in files} == {404}
        for folder in folders.values():
            folder.rename(tmp_path / folder.name)
            folder.symlink_to(secret)
        assert {running.ask("GET", address).status for address in files} == {404}
    finally:
        assert "Traceback" not in running.stop()


def test_what_is_no_picture_is_refused_and_pictures_are_not_sniffed(studio):
    for evil in (
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<html><script>alert(1)</script>",
        b"%PDF-1.7",
        b"",
    ):
        before = files_in(studio)
        assert upload(studio, evil, "a.png").status == 415
        assert files_in(studio) == before
    picture = upload(studio, png()).json()
    shown = studio.ask("GET", f"/api/pictures/{picture['id']}/image")
    assert shown.headers["content-type"] == "image/png" and shown.headers["x-content-type-options"] == "nosniff"


def test_a_script_in_a_name_or_a_record_is_text(studio):
    evil = "<img src=x onerror=alert(1)>.png"
    info = PngImagePlugin.PngInfo()
    info.add_itxt(
        "impasto", '{"recipe": {"preset": "<script>alert(1)</script>"}, "inputs": {"content": "<b>", "styles": [1, "<i>"]}}'
    )
    answer = upload(studio, png(pnginfo=info), evil)
    assert answer.headers["content-type"] == "application/json" and answer.json()["name"] == evil
    assert answer.json()["record"]["recipe"]["preset"] == "<script>alert(1)</script>"
    refused = studio.ask("POST", "/api/jobs", studio.quick(preset="<script>alert(1)</script>"))
    assert refused.status == 400 and refused.headers["content-type"] == "application/json"


def test_nothing_fetches_an_address(studio):
    for evil in ("http://127.0.0.1:1/a.png", "file:///etc/passwd", "//evil.example/a.png"):
        assert studio.ask("POST", "/api/jobs", studio.quick(content=evil)).status == 400
        assert studio.ask("POST", "/api/jobs", studio.quick(protect=evil)).status == 400
    house = Path(open_within.__code__.co_filename).parent
    outgoing = ("urlopen", "urllib.request", "http.client", "import requests", "httpx", "open_connection")
    code = {path.name: path.read_text() for path in house.glob("*.py")}
    assert {name for name, text in code.items() if any(word in text for word in outgoing)} == {"client.py"}


def test_many_ranges_are_no_more_than_the_file(studio):
    path = f"/api/pictures/{upload(studio, png((900, 900))).json()['id']}/image"
    whole = studio.ask("GET", path).body
    assert studio.ask("GET", path, Range="bytes=10-19").body == whole[10:20]
    for ranges in (",".join(f"{3 * n}-{3 * n}" for n in range(2000)), ",".join(["0-"] * 2000)):
        answer = studio.ask("GET", path, Range=f"bytes={ranges}")
        assert answer.status == 200 and answer.body == whole  # so many are ignored


def test_more_than_is_taken_is_refused_while_it_comes(studio, monkeypatch):
    before = files_in(studio)
    assert upload(studio, b"x", **{"Content-Length": str(10**12)}).status == 413
    memory = int(Path(f"/proc/{studio.process.pid}/statm").read_text().split()[1])
    with socket.create_connection(("127.0.0.1", studio.port)) as flood:
        head = f"POST /api/pictures?name=a.png HTTP/1.1\r\nHost: {studio.host}\r\nX-Impasto: 1\r\n"
        head += f"Authorization: Bearer {studio.key}\r\n"
        flood.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        part = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        flood.settimeout(60)
        try:
            for _ in range(110):
                flood.sendall(part)
        except OSError:
            said = b"closed"
        else:
            said = flood.recv(4000)
    assert b" 413 " in said.split(b"\r\n")[0] or said == b"closed"
    assert int(Path(f"/proc/{studio.process.pid}/statm").read_text().split()[1]) - memory < 60_000_000 // 4096
    assert studio.ask("POST", "/api/jobs", b"[" * 900_000).status == 400
    assert studio.ask("POST", "/api/jobs", b'{"a": "' + b"x" * 2_000_000 + b'"}').status == 413
    assert files_in(studio) == before


@pytest.mark.parametrize(
    "knobs",
    [
        '{"style_layers": "\\ud800"}',
        '{"style_edit": {"conv1": {"units": {"3 \\ud800": 2}}}}',
        '{"beta": NaN}',
        '{"beta": 1e999}',
        f'{{"beta": {"[" * 900}1{"]" * 900}}}',
    ],
)
def test_what_cannot_be_written_is_refused_at_the_door(studio, knobs):
    before, asked = files_in(studio), studio.quick()
    body = json.dumps({**asked, "knobs": None}).replace("null", knobs).encode()
    answer = studio.ask("POST", "/api/jobs", body)
    assert answer.status == 400 and "nests too deep" in answer.json()["error"]
    assert files_in(studio) == before


@pytest.mark.parametrize("value", ['"\\ud800"', "NaN", "1e999", "[" * 900 + "]" * 900])
def test_a_picture_whose_record_cannot_be_written_comes_without_it(studio, value):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("impasto", f'{{"recipe": {{"beta": {value}}}}}')
    answer = upload(studio, png(pnginfo=info))
    assert answer.status == 201 and answer.json()["record"] is None


def test_a_thousand_idle_pages_are_bounded_and_given_free(studio):
    request = f"GET /api/events HTTP/1.1\r\nHost: {studio.host}\r\nAuthorization: Bearer {studio.key}\r\n\r\n".encode()
    idle = [socket.create_connection(("127.0.0.1", studio.port)) for _ in range(200)]
    for connection in idle:
        connection.sendall(request)
    statuses = [connection.recv(40).split(b" ")[1] for connection in idle]
    assert 0 < statuses.count(b"200") < 60 and statuses.count(b"503") == 200 - statuses.count(b"200")
    for connection in idle:
        connection.close()
    for _ in range(100):
        with socket.create_connection(("127.0.0.1", studio.port)) as again:
            again.sendall(request)
            if again.recv(40).split(b" ")[1] == b"200":
                return
        time.sleep(0.2)
    raise AssertionError("connections that are gone were not given free")


HALVES = [b"", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: ", b"POST /api/jobs HTTP/1.1\r\nHost: %s\r\nContent-Length: 9\r\n\r\nx"]


def test_connections_that_bring_no_request_lock_nobody_out(tmp_path):
    """Where a process may open 256 files: 400 connections with nothing, half a head, or a body that does not come; 400 bodies."""
    limit = f"import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)); {RUN}"
    studio = Running(tmp_path, python=("-c", limit))
    idle = []
    try:
        for halves in (HALVES, HALVES[-1:]):
            for _, half in zip(range(400), cycle(halves)):
                idle.append(socket.create_connection(("127.0.0.1", studio.port)))
                idle[-1].sendall(half.replace(b"%s", studio.host.encode()))
                if len(idle) % 50 == 0:
                    assert studio.ask("GET", "/api/pictures").status == 200
            assert upload(studio, png()).status == 201
            assert len(list(Path(f"/proc/{studio.process.pid}/fd").iterdir())) < 200
    finally:
        said = studio.stop()
        for connection in idle:
            connection.close()
    assert said == ""


def test_a_request_that_stalls_is_cut_off(monkeypatch):
    """In its head or in its body; one that comes whole, or is being answered, is not."""
    monkeypatch.setattr(serve, "IDLE_SECONDS", 0.3)

    async def answer(scope, receive, send) -> None:
        while (await receive()).get("more_body"):
            pass
        await asyncio.sleep(1)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def said(port: int, *parts: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.2)
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(reader.read(), 30)
        return b""

    async def scene() -> list[bytes]:
        listening = serve.listen(0)
        config = uvicorn.Config(answer, http=serve._BoundedProtocol, lifespan="off", log_level="error", timeout_keep_alive=1)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listening]))
        port, head = listening.getsockname()[1], b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
        stalled = [b"POST / H"], [b"P"] * 9, [head % 9, *[b"x"] * 8]
        whole = [head % 3, b"xyz"], [head % 900_000, *[b"x" * 100_000] * 9]
        found = await asyncio.gather(*(said(port, *parts) for parts in (*stalled, *whole)))
        server.should_exit = True
        await serving
        return found

    assert [found[:15] for found in asyncio.run(scene())] == [b"", b"", b"", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK"]


@pytest.mark.parametrize("evil", ["a\nb", "a\r\nSet-Cookie: x=y", "a\0b", "\x1b[2J"])
def test_control_characters_are_removed_or_refused(studio, evil):
    assert studio.ask("POST", "/api/jobs", studio.quick(name=evil)).status == 400
    answer = upload(studio, png(), f"{evil}.png")
    assert answer.status == 201 and answer.json()["name"].isprintable()
    download = studio.ask("GET", f"/api/pictures/{answer.json()['id']}/image")
    assert "set-cookie" not in download.headers


def test_no_request_reads_a_file_or_a_secret(studio):
    secret = studio.key.encode()
    for path in (
        "/studio.json",
        "/studio.key",
        "/page/../studio.json",
        "/api/about",
        "/api/recipe",
        "/api/pictures",
        "/api/jobs",
        "/api/lens",
    ):
        answer = studio.ask("GET", path)
        assert secret not in answer.body and b"/etc/" not in answer.body
    assert (studio.folder / "studio.key").stat().st_mode & 0o77 == 0 == (studio.folder / "studio.json").stat().st_mode & 0o77


@pytest.mark.parametrize(
    "knobs",
    [
        *({name: "/etc/passwd"} for name in ("style_edit", "regions", "protect", "changes", "weights", "output")),
        {"preset": "/x.toml"},
        {"changes": {"3": {"beta": 1}}},
    ],
)
def test_no_knob_names_a_file(studio, knobs):
    assert studio.ask("POST", "/api/jobs", studio.quick(knobs=knobs)).status == 400


def test_no_preset_region_or_axis_names_a_file(studio):
    asked = studio.quick()
    for evil in (
        {"preset": "/tmp/a.toml"},
        {"regions": {"a": {"mask": "/etc/passwd"}}},
        {"regions": {"a": {"mask": "light", "style_mask": "/x"}}},
    ):
        assert studio.ask("POST", "/api/jobs", {**asked, **evil}).status == 400
    for axis in (
        ["style-edit", "/x"],
        ["protect", "/x"],
        ["contents", "/x"],
        ["preset", "/x.toml"],
        ["regions", "/x"],
        ["changes", "/x"],
    ):
        assert studio.ask("POST", "/api/jobs", {**asked, "kind": "grid", "rows": axis}).status == 400


@pytest.mark.parametrize("evil", ["style_edit", "changes", "regions"])
def test_a_job_on_disk_that_names_a_file_is_not_done(tmp_path, evil):
    """A folder from a stranger: its about.json has a text where a table is due, a pipe for a file of knobs."""
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    store, asked = Store(tmp_path / "studio"), {"kind": "painting", "content": "a" * 16, "styles": ["a" * 16]}
    where = {"knobs": {"style_edit": str(pipe)}} if evil == "style_edit" else {evil: str(pipe) if evil == "regions" else {}}
    about = {"id": "b" * 16, "name": "x", "kind": "painting", "state": "queued", "file": "x.png", "created": 1, "queued": 1}
    about |= {"preview": 0, "step": None, "result": None, "error": None, "warnings": [], "asked": asked | where}
    (store.folder / "jobs" / about["id"]).mkdir()
    store.save("jobs", about | {"changes": {"3": {"style_edit": str(pipe)}} if evil == "changes" else {}})
    for id, name in (("c" * 16, "pipe"), ("d" * 16, "/dev/zero")):
        (store.folder / "jobs" / id).mkdir()
        if name == "pipe":
            os.mkfifo(store.folder / "jobs" / id / "about.json")
        else:
            (store.folder / "jobs" / id / "about.json").symlink_to(name)
    store.close()
    running = Running(tmp_path / "studio")
    job = running.ended(about["id"])
    assert job["state"] == "failed" and job["error"] and not running.workers()
    assert [it["id"] for it in running.client.jobs()] == [about["id"]]
    running.stop()


def test_a_job_reads_and_writes_through_no_link(tmp_path):
    """Neither the picture that it paints from nor its own file of messages."""
    victim = tmp_path / "victim"
    victim.write_bytes(png())
    before = victim.read_bytes()
    studio = Running(tmp_path / "studio")
    try:
        first, second, style = (json.loads(upload(studio, png()).body)["id"] for _ in range(3))
        slow = studio.submit(studio.slow())  # the others wait
        jobs = [studio.submit({"kind": "painting", "content": content, "styles": [style]}) for content in (first, second)]
        links = studio.folder / "pictures" / first / "a.png", studio.folder / "jobs" / jobs[1] / "worker.log"
        for link in links:
            link.unlink(missing_ok=True)
            link.symlink_to(victim)
        studio.ask("POST", f"/api/jobs/{slow}/cancel")
        for job in jobs:
            ended = studio.ended(job)
            assert ended["state"] == "failed"
            assert "not in the studio's folder" in ended["error"] or "is a link" in ended["error"]
        assert victim.read_bytes() == before and all(link.is_symlink() for link in links)
    finally:
        studio.stop()


PROGRAMS = ["queue.py", "json.py", "torch.py", "asyncio.py", "PIL.py", "impasto.py", "sitecustomize.py", "pydantic.py"]


@pytest.mark.weights
def test_a_program_beside_the_pictures_is_not_run(tmp_path):
    """By whatever process of the studio: it is started where the pictures are."""
    for name in PROGRAMS:
        (tmp_path / name).write_text("open('canary', 'w')\nraise SystemExit(9)")
    running = Running(tmp_path / "studio", python=("-P", "-c", RUN), cwd=tmp_path)
    upload(running, png())
    assert running.ended(running.submit(running.quick()))["state"] == "finished"
    running.stop()
    assert not (tmp_path / "canary").exists()


def test_weights_cannot_be_given(studio):
    for evil in ({"weights": "/tmp/evil.pth"}, {"weights_input": "caffe"}):
        assert studio.ask("POST", "/api/jobs", {**studio.quick(), **evil}).status == 400
    pickled = (
        b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94."
    )
    assert upload(studio, pickled, "evil.pth").status == 415


def bomb(side: int) -> bytes:
    """A PNG of side x side grey pixels, a few kilobytes long."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join([packer.compress(b"\0" * (side // 8 + 1)) for _ in range(side)]) + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


def test_a_bomb_is_refused_before_it_is_unpacked(studio):
    evil = bomb(30_000)
    assert len(evil) < 1_000_000
    answer = upload(studio, evil)
    assert answer.status == 415 and "million" in answer.json()["error"]
    assert upload(studio, bomb(9_000)).status == 415


def test_a_decoder_that_dies_takes_nothing_with_it(studio):
    """The process that waits for the next picture is killed: the picture after it is told, the one after that is read."""
    upload(studio, png())
    children = Path(f"/proc/{studio.process.pid}/task/{studio.process.pid}/children").read_text().split()
    decoders = [int(pid) for pid in children if b"impasto.studio.decode" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert decoders
    for pid in decoders:
        os.kill(pid, 9)
    time.sleep(0.3)
    assert upload(studio, png()).status in (201, 415)
    assert upload(studio, png()).status == 201


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux has these bounds")
def test_a_decoder_reads_writes_and_reaches_nothing_else(tmp_path):
    """In a fork, as a picture is decoded; where the kernel has no Landlock, or no network of one's own, that is not tried."""
    call = ctypes.CDLL(None).syscall
    has_rules = call(444, None, ctypes.c_size_t(0), 1) > 0
    mine, hers = tmp_path / "mine", tmp_path / "hers"
    for folder in (mine, hers):
        folder.mkdir()
        (folder / "a.png").write_bytes(b"x")
    found = {
        "reads": lambda: (hers / "a.png").read_bytes() == b"x",
        "lists": lambda: os.listdir(hers) != [],
        "writes": lambda: (hers / "b.png").write_bytes(b"x") > 0,
        "unlinks": lambda: (hers / "a.png").unlink() is None,
    }
    here, there = os.pipe()
    child = os.fork()
    if not child:
        confine(mine / "a.png", mine)
        could = [name for name, tried in found.items() if _works(tried)]
        own = (mine / "a.png").read_bytes() == b"x" and (mine / "b.png").write_bytes(b"y") == 1
        nets = [name for _, name in socket.if_nameindex()]
        os.write(there, json.dumps([could, own, nets]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(there)
    with open(here) as said:
        could, own, nets = json.load(said)
    assert own and nets in (["lo"], [name for _, name in socket.if_nameindex()])
    assert could == ([] if has_rules else list(found))


def _works(tried) -> bool:
    try:
        return tried()
    except OSError:
        return False


def test_the_picture_after_one_that_killed_the_decoder_is_read_at_once(tmp_path):
    (tmp_path / "a.png").write_bytes(png())

    async def scene() -> None:
        decoder = Decoder()
        asking = [tmp_path / "a.png", tmp_path, "a.png", "picture"]
        assert (await decoder.decode(*asking))["width"] == 40
        process = decoder.process
        os.kill(process.pid, 19)  # it hangs
        hanging = asyncio.create_task(decoder.decode(*asking))
        await asyncio.sleep(0.1)
        process.kill()
        with pytest.raises(BadImage):
            await hanging
        assert (await decoder.decode(*asking))["width"] == 40
        process = decoder.process
        decoder.close()
        await process.wait()

    asyncio.run(scene())


def test_a_picture_of_more_pixels_than_are_taken_is_not_unpacked(tmp_path, monkeypatch):
    """61 million, of which a file of a few kB tells; none of its pixels is touched."""
    Image.new("1", (7810, 7810)).save(tmp_path / "large.png")
    monkeypatch.setattr(images, "decode", lambda *_, **__: pytest.fail("it is unpacked"))
    with pytest.raises(BadImage, match="large has 7810 x 7810 pixels, the studio takes at most 60 million"):
        decode(tmp_path / "large.png", tmp_path, "large", "picture")


def test_a_polyglot_comes_out_as_a_picture_alone(studio):
    evil = png() + b"<html><script>alert(1)</script></html>PK\x03\x04"
    picture = upload(studio, evil, "a.html").json()
    shown = studio.ask("GET", f"/api/pictures/{picture['id']}/image")
    assert shown.headers["content-type"] == "image/png" and b"script" not in shown.body and shown.body.endswith(b"IEND\xaeB`\x82")


@pytest.mark.parametrize(
    "head", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xd7\xcd\xc6\x9a", b"SIMPLE  =                    T"]
)
def test_formats_that_hang_are_not_tried(studio, head):
    assert upload(studio, head + b"\0" * 1000, "a.eps").status == 415


def test_nothing_is_evaluated():
    house = Path(open_within.__code__.co_filename).parent
    code = "".join(path.read_text() for path in house.glob("*.py"))
    assert not any(word in code for word in (" eval(", " exec(", "ImageMath", "pickle", "shell=True", "os.system", "yaml"))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("1", "PNG"),
        ("L", "PNG"),
        ("P", "GIF"),
        ("LA", "PNG"),
        ("RGBA", "WEBP"),
        ("CMYK", "JPEG"),
        ("I;16", "PNG"),
        ("RGB", "BMP"),
        ("RGB", "TIFF"),
    ],
)
def test_unusual_pictures_come_out_right(studio, mode, kind):
    file = io.BytesIO()
    Image.new(mode, (20, 30), 1 if mode in ("1", "P") else None).save(file, kind)
    picture = upload(studio, file.getvalue(), f"a.{kind.lower()}").json()
    assert (picture["width"], picture["height"]) == (20, 30)


def test_impossible_pictures_give_a_one_line_error(studio):
    for evil in (b"", png()[:-30], png()[:60], b"\x89PNG\r\n\x1a\n" + b"\0" * 50):
        answer = upload(studio, evil)
        assert answer.status == 415 and "\n" not in answer.json()["error"]
    flat = upload(studio, png((1, 1)))
    assert flat.status == 201
    assert upload(studio, png((30, 20), exif=_turned())).json()["width"] == 20


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def test_names_of_any_kind_are_accepted(studio):
    for name in (
        "日本語.png",
        "a" * 300 + ".png",
        "  .png",
        "CON.png",
        "-rf.png",
        "%00.png",
        "a\udcff.png".encode("utf-8", "replace").decode(),
    ):
        answer = upload(studio, png(), name)
        assert answer.status == 201 and len(answer.json()["name"]) <= 120
        assert studio.ask("GET", f"/api/pictures/{answer.json()['id']}/image").status == 200


def test_the_guard_itself_refuses_two_hosts_and_two_origins():
    from starlette.datastructures import Headers

    twice = Headers(raw=[(b"host", b"127.0.0.1:9"), (b"host", b"evil.example")])
    assert refusal("GET", twice, hosts_of(9))[0] == 421
    origins = Headers(raw=[(b"host", b"127.0.0.1:9"), (b"origin", b"http://127.0.0.1:9"), (b"origin", b"http://evil.example")])
    assert refusal("GET", origins, hosts_of(9))[0] == 403
    assert refusal("GET", Headers(raw=[]), hosts_of(9))[0] == 421
