"""Sets of photographs from a server on this machine that cuts, lies and fails; archives with members that would go elsewhere."""

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from impasto.errors import BadInput, NoRoom
from impasto.lens import photos
from impasto.lens.collection import find_pictures
from impasto.lens.photos import SETS, PhotoSet, bring, download, members, path_inside, unpack
from tests.conftest import check_one_line, damaged, room_for


def jpeg(seed: int) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((40, 30), 20 + seed).convert("RGB").save(file, "JPEG")
    return file.getvalue()


def tgz(named: dict[str, bytes], mode: str = "w:gz") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for name, data in named.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def zipped(named: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name, data in named.items():
            opened.writestr(name, data)
    return file.getvalue()


PHOTOS = {f"set/{kind}/{n}.jpg": jpeg(n) for n, kind in enumerate(("cat", "cat", "dog"))}


class Server:
    """Serves `data`; `cut` ends the first connections after so many bytes, `status` refuses, `ranges` False ignores Range."""

    def __init__(self, data: bytes) -> None:
        self.data, self.cut, self.status, self.ranges, self.tag = data, [], 200, True, '"one"'
        self.asked: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_port}/set.tgz"

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        asked = to.headers.get("Range")
        self.asked.append(asked)
        if self.status != 200:
            to.send_error(self.status)
            return
        start = 0
        if asked and self.ranges and to.headers.get("If-Range") == self.tag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(self.data) > 0:
            to.send_error(416)
            return
        to.send_response(206 if start else 200)
        to.send_header("Content-Length", str(len(self.data) - start))
        to.send_header("ETag", self.tag)
        to.end_headers()
        end = start + self.cut.pop(0) if self.cut else len(self.data)
        to.wfile.write(self.data[start:end])
        to.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    it = Server(tgz(PHOTOS))
    yield it
    it.http.shutdown()
    it.http.server_close()


def run(steps) -> Path:
    *_, last = steps
    return last


def check_photos(folder: Path) -> None:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == PHOTOS and len(list(find_pictures([folder]))) == 3


# Downloads


def test_a_set_at_an_address_is_brought_once(server, tmp_path):
    assert run(bring(server.address, tmp_path)) == tmp_path / "set"
    check_photos(tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert list(bring(server.address, tmp_path)) == [tmp_path / "set"] and len(server.asked) == 1


def test_a_download_that_is_cut_continues_by_itself(server, tmp_path):
    third = len(server.data) // 3
    server.cut = [third, third]
    check_photos(run(bring(server.address, tmp_path)))
    assert server.asked == [None, f"bytes={third}-", f"bytes={2 * third}-"]


def test_a_download_continues_in_a_later_run(server, tmp_path):
    server.cut = [100, 0, 0, 0]
    with pytest.raises(BadInput, match="the same command continues"):
        run(bring(server.address, tmp_path))
    assert (tmp_path / "set.tgz.part").read_bytes() == server.data[:100]
    check_photos(run(bring(server.address, tmp_path)))
    assert server.asked[-1] == "bytes=100-" and [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("change", ["tag", "ranges"])
def test_a_file_that_has_changed_is_downloaded_from_the_beginning(server, tmp_path, change):
    server.cut = [100, 0, 0, 0]
    with pytest.raises(BadInput):
        run(bring(server.address, tmp_path))
    if change == "tag":
        server.tag, server.data = '"two"', tgz({**PHOTOS, "set/more.jpg": jpeg(9)})
    else:
        server.ranges = False
    assert (run(bring(server.address, tmp_path)) / "set" / "cat" / "0.jpg").read_bytes() == PHOTOS["set/cat/0.jpg"]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server, tmp_path):
    (tmp_path / "set.tgz.part").write_bytes(b"x" * (len(server.data) + 1))
    (tmp_path / "set.tgz.part.tag").write_text(server.tag)
    check_photos(run(bring(server.address, tmp_path)))


@pytest.mark.parametrize("status", [404, 403, 503])
def test_an_address_without_the_set_is_an_error(server, tmp_path, status):
    server.status = status
    with pytest.raises(BadInput, match=str(status)):
        run(bring(server.address, tmp_path))


def test_no_server_is_an_error(tmp_path):
    with pytest.raises(BadInput, match="cannot be downloaded"):
        run(bring("http://127.0.0.1:9/set.tgz", tmp_path))


def test_a_known_set_must_have_its_checksum(server, tmp_path, monkeypatch):
    monkeypatch.setitem(SETS, "small", PhotoSet(server.address, hashlib.md5(server.data).hexdigest(), "ours"))
    monkeypatch.setitem(SETS, "other", PhotoSet(server.address, "0" * 32, "ours"))
    with pytest.raises(BadInput, match="another file than expected"):
        run(bring("other", tmp_path))
    assert list(tmp_path.glob("*.part")) == [] and list(tmp_path.glob("*.tgz")) == []
    check_photos(run(bring("small", tmp_path)))


def test_a_full_disk_is_an_error_before_and_while_downloading(server, tmp_path, monkeypatch):
    with pytest.raises(NoRoom), room_for(100):
        list(download(server.address, tmp_path / "set.tgz", None))
    monkeypatch.setattr(photos, "check_room", lambda *_: (_ for _ in ()).throw(NoRoom("no room")))
    with pytest.raises(NoRoom):
        run(bring(server.address, tmp_path))


# Archives


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("set.tgz", tgz(PHOTOS)),
        ("set.tar.gz", tgz(PHOTOS)),
        ("set.tar", tgz(PHOTOS, "w")),
        ("set.zip", zipped(PHOTOS)),
        ("set.zip", zipped({"inner/set.tar.gz": tgz(PHOTOS), "inner/notes.tar.gz": tgz({"a.mat": b"1"}), "readme.txt": b"2"})),
    ],
)
def test_pictures_of_each_kind_of_archive_are_unpacked(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    check_photos(run(bring(str(tmp_path / name), tmp_path / "out")))
    assert (tmp_path / name).exists()  # a file of the user's stays


EVIL = {
    name: jpeg(1)
    for name in ("../up.jpg", "/abs.jpg", "a/../../up.jpg", "C:/x.jpg", "a\\..\\x.jpg", ".hid.jpg", "a/.b/x.jpg", "x.py")
}


@pytest.mark.parametrize("make", [tgz, zipped])
def test_members_that_would_go_elsewhere_are_left_out(tmp_path, make):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "evil.zip").write_bytes(make({**EVIL, "good/1.jpg": jpeg(2)}))
    target = run(bring(str(tmp_path / "in" / "evil.zip"), tmp_path / "in"))
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"in/evil.zip", "in/evil/good/1.jpg"}
    assert target == tmp_path / "in" / "evil"


def test_links_and_devices_are_left_out(tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, kind in (("link.jpg", tarfile.SYMTYPE), ("hard.jpg", tarfile.LNKTYPE), ("pipe.jpg", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    (tmp_path / "links.tgz").write_bytes(file.getvalue())
    with pytest.raises(BadInput, match="no pictures"):
        run(bring(str(tmp_path / "links.tgz"), tmp_path))


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "MOST_MEMBER", 2_000_000)
    (tmp_path / "bomb.zip").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        for n in range(40):
            opened.writestr(f"{n}.jpg", bytes(1_500_000))
    with pytest.raises(BadInput, match="times its size"):
        run(unpack(tmp_path / "bomb.zip", tmp_path / "bomb"))
    assert not (tmp_path / "bomb").exists()


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from([tgz(PHOTOS), zipped(PHOTOS), tgz(PHOTOS, "w")]))
def test_a_damaged_archive_is_an_error_or_has_fewer_pictures(tmp_path_factory, data, whole):
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "set.tgz").write_bytes(damaged(data, whole))
    try:
        run(unpack(folder / "set.tgz", folder / "set"))
    except BadInput:
        assert not (folder / "set").exists()
    assert all(path.is_relative_to(folder) for path in folder.rglob("*"))


def test_an_unpacking_that_was_killed_begins_again(tmp_path):
    (tmp_path / "set.tgz").write_bytes(tgz(PHOTOS))
    (tmp_path / "set.part").mkdir()
    (tmp_path / "set.part" / "half.jpg").write_bytes(b"half")
    run(unpack(tmp_path / "set.tgz", tmp_path / "set"))
    check_photos(tmp_path / "set")


def test_names_stay_inside():
    assert path_inside("a/b/c.JPG") == Path("a/b/c.JPG") and path_inside("a/b/c.txt") is None
    assert all(path_inside(name) is None for name in EVIL) and path_inside("a" * 300 + ".jpg") is None
    assert path_inside("") is None and path_inside("a/\0.jpg") is None


def test_members_of_other_files_are_none(tmp_path):
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(BadInput):
        run(unpack(tmp_path / "text.zip", tmp_path / "text"))
    with pytest.raises(tarfile.TarError):
        list(members(tmp_path / "text.zip"))


# The command


def test_the_command_says_where_and_what_is_wrong(impasto, server, tmp_path, monkeypatch):
    monkeypatch.setitem(SETS, "small", PhotoSet(server.address, None, "free to use"))
    done = impasto("lens", "photos", "small", "-o", tmp_path / "photos")
    assert done.stdout.strip() == str(tmp_path / "photos" / "set") and "free to use" in done.stderr
    check_photos(tmp_path / "photos" / "set")
    assert impasto("lens", "photos", tmp_path / "photos", "-o", tmp_path, "-q").stdout.strip() == str(tmp_path / "photos")
    check_one_line(impasto("lens", "photos", "-o", tmp_path), 2, "nothing to bring")
    check_one_line(impasto("lens", "photos", "nothing", "-o", tmp_path, "-q"), 5, "there is no nothing")
    check_one_line(impasto("lens", "photos", "http://127.0.0.1/a.exe", "-o", tmp_path, "-q"), 5, "is no archive")
