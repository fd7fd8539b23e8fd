"""Files are written whole or not at all."""

import errno
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from impasto.errors import BadInput, BadRecipe, CannotWrite, ImpastoWarning, NoRoom, one_line
from impasto.files import (
    HALF,
    check_writable,
    entries,
    open_file,
    path_in,
    pictures_of,
    read_list,
    read_text,
    read_toml,
    read_whole,
    reason,
    sha256,
    temporary_folder,
    text_of,
    write_whole,
)
from tests.conftest import kill_at


def test_only_ordinary_files_are_opened_and_nothing_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path, said in (
            (tmp_path / "fifo", "a pipe"),
            (tmp_path / "socket", "a socket"),
            (tmp_path, "a folder"),
            (Path("/dev/zero"), "a device"),
            (Path("https://example.org/cat.jpg"), "an address"),
            (Path("a\0b"), "not a valid file name"),
            (tmp_path / "none", "No such file"),
        ):
            with pytest.raises(OSError) as raised:
                open_file(path)
            assert said in reason(raised.value)


def test_a_link_to_itself_and_a_file_too_large_are_errors_of_the_system(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match="symbolic links"):
        open_file(tmp_path / "loop")
    (tmp_path / "a").write_bytes(b"abc")
    assert read_whole(tmp_path / "a", 3) == b"abc"
    with pytest.raises(OSError, match="larger than"):
        read_whole(tmp_path / "a", 2)


@given(some.text())
def test_text_is_the_same_however_it_was_encoded(text):
    expected = (
        text.encode("utf-8", "surrogatepass")
        .decode("utf-8", "replace")
        .replace("\r\n", "\n")
        .replace("\r", "\n")
        .lstrip("\ufeff\0")
    )
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        assert text_of(expected.encode(encoding)) == expected
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        assert text_of(f"# {expected}".encode(encoding)) == f"# {expected}"


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "mac-roman"])
def test_text_in_an_older_encoding_is_refused_with_the_way_out(encoding):
    with pytest.raises(ValueError, match=r"it is not text in UTF-8 \(byte 5 is 0x..\): save it as UTF-8"):
        text_of("photö.jpg".encode(encoding))


def test_a_list_has_a_path_a_line_with_or_without_quotes(tmp_path):
    (tmp_path / "a.txt").write_text("# mine\n\n\"a b.jpg\"\n 'c.jpg' \nd'.jpg\ne\u2028f\x0cg.jpg\n\"\n", "utf-8")
    assert read_list(tmp_path / "a.txt") == ["a b.jpg", "c.jpg", "d'.jpg", "e\u2028f\x0cg.jpg", '"']


def test_toml_with_a_mark_and_windows_line_ends_is_read(tmp_path):
    (tmp_path / "a.toml").write_bytes("\ufeffbeta = 30\r\n[a]\r\nb = 1  \r\n".encode())
    assert read_toml(tmp_path / "a.toml", "recipe") == {"beta": 30, "a": {"b": 1}}
    (tmp_path / "a.toml").write_text("x = [")
    with pytest.raises(BadRecipe, match=r"cannot read the recipe .*a\.toml"):
        read_toml(tmp_path / "a.toml", "recipe")
    (tmp_path / "a.toml").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="save it as UTF-8"):
        read_text(tmp_path / "a.toml")


def test_hidden_files_and_those_of_systems_are_no_entries(tmp_path):
    for name in ("b.jpg", "a.jpg", "._a.jpg", ".hidden", "Thumbs.db", "DESKTOP.INI"):
        (tmp_path / name).touch()
    assert entries(tmp_path) == ["a.jpg", "b.jpg"]


def test_files_of_a_folder_that_are_no_pictures_give_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr("impasto.files.PICTURE_SUFFIXES", (".jpg",))  # as without the extra heic
    for name in ("a.jpg", "b.HEIC", "c.heic", "notes", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "d.jpg").mkdir()
    with pytest.warns(ImpastoWarning, match="ignored in .*: 2 .heic, 1 folder, 1 without a suffix; HEIC needs the extra heic"):
        assert pictures_of(tmp_path) == [tmp_path / "a.jpg"]
    assert pictures_of(tmp_path, warns=False) == [tmp_path / "a.jpg"]


def test_a_path_is_from_the_folder_the_root_or_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert [str(path_in(Path("in"), text)) for text in ("a", "/a", "~/a", "~no-such-user/a")] == [
        "in/a",
        "/a",
        "/home/me/a",
        "in/~no-such-user/a",
    ]
    for text in ("a\0b", "\ud800", "https://example.org/cat.jpg", "file:///cat.jpg"):
        with pytest.raises(BadInput, match="is not a valid path"):
            path_in(Path("in"), text)


@given(some.text(max_size=5000))
def test_a_message_is_one_printable_line_of_bounded_length(text):
    line = one_line(text)
    assert line.isprintable() and len(line) <= 12 * 2000
    assert line == text or not text.isprintable() or len(text) > 2000


def test_a_file_is_written_and_nothing_is_left_beside_it(tmp_path):
    write_whole(tmp_path / "a", lambda file: file.write(b"abc"))
    assert (tmp_path / "a").read_bytes() == b"abc" and os.listdir(tmp_path) == ["a"]


def test_sha256_is_the_published_one(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("number", "raised"), [(errno.ENOSPC, NoRoom), (errno.EDQUOT, NoRoom), (errno.EFBIG, NoRoom), (errno.EIO, CannotWrite)]
)
def test_a_failing_write_leaves_the_old_file_and_no_litter(tmp_path, number, raised):
    (tmp_path / "a").write_bytes(b"old")

    def write(file):
        file.write(b"half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(raised):
        write_whole(tmp_path / "a", write)
    assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


@pytest.mark.slow
def test_what_a_killed_process_left_of_a_file_goes_when_it_is_written_again(tmp_path):
    kill_at(
        b"half",
        "import sys, time; from pathlib import Path; from impasto.files import *\n"
        "def write(file): file.write(b'half'); file.flush(); print('half', flush=True); time.sleep(100)\n"
        "with temporary_folder(Path(sys.argv[1])): write_whole(Path(sys.argv[1]), write)",
        tmp_path / "a",
    )
    assert sorted(path.is_dir() for path in tmp_path.glob(HALF)) == [False, True]
    check_writable(tmp_path / "b")
    assert len(os.listdir(tmp_path)) == 2
    check_writable(tmp_path / "a")
    assert not os.listdir(tmp_path)


def test_what_is_being_written_stays_whoever_asks(tmp_path):
    def write(file):
        check_writable(tmp_path / "a")
        file.write(b"new")

    with temporary_folder(tmp_path / "a") as folder:
        write_whole(tmp_path / "a", write)
        assert folder.is_dir()
    assert (tmp_path / "a").read_bytes() == b"new" and os.listdir(tmp_path) == ["a"]


def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    def write(file):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a", write)
    assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_whole(tmp_path / "link", lambda file: file.write(b"new"))
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"new"


def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path):
    (tmp_path / "plain").touch()
    write_whole(tmp_path / "ours", lambda file: None)
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["no/such/folder/a.png", "file/a.png", "folder", "n" * 300 + ".png"])
def test_an_output_that_cannot_be_written_is_known_beforehand(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(CannotWrite):
        check_writable(tmp_path / name)
