"""Files are written whole or not at all."""

import errno
import os

import pytest

from impasto.errors import CannotWrite, NoRoom
from impasto.files import check_writable, sha256, write_whole


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
