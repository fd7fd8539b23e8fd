"""Sets of pictures: folders, lists and shards give the same names in the same order, and what is bad is said by name."""

import io
import os
import tarfile
from pathlib import Path
from random import Random

import pytest

from impasto.errors import BadImage, BadInput
from impasto.lens.collection import (
    Source,
    find_pictures,
    grouped_by_name,
    read,
    read_again,
    read_pictures,
    row_from_json,
    row_to_json,
)
from tests.conftest import picture, save

NAMES = ["a/1.png", "a/2.png", "a-b.png", "b/c/1.png", "z.png"]


@pytest.fixture
def folder(tmp_path) -> Path:
    for n, name in enumerate(NAMES):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / "set" / name, picture(20, 24, n))
    (tmp_path / "set" / "notes.txt").write_text("no picture")
    (tmp_path / "set" / ".hidden.png").write_bytes(b"")
    return tmp_path / "set"


def tar_of(path: Path, folder: Path, names: list[str]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in names:
            tar.add(folder / name, name)
        tar.add(folder / "notes.txt", "a/1.cls")
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return path


def names_in(*places: Path) -> list[str]:
    return [source.name for source in find_pictures(places)]


def test_a_folder_is_walked_in_the_order_of_names_folder_by_folder(folder):
    assert names_in(folder) == sorted(NAMES, key=lambda name: name.split("/"))


def test_a_list_a_shard_and_single_files_name_the_same_pictures(folder, tmp_path):
    listed = tmp_path / "set" / "list.txt"
    listed.write_text("\n".join(reversed(NAMES)) + "\n\n")
    assert names_in(listed) == names_in(folder)
    shard = tar_of(tmp_path / "shard.tar", folder, list(reversed(NAMES)))
    assert names_in(shard) == [f"shard.tar/{name}" for name in names_in(folder)]
    assert names_in(folder / "z.png", folder / "a" / "1.png") == ["1.png", "z.png"]


def test_members_of_a_shard_are_the_files_and_links_are_none(folder, tmp_path):
    shard = tar_of(tmp_path / "shard.tar", folder, NAMES)
    for source in find_pictures([shard]):
        assert read(source) == (folder / source.name.removeprefix("shard.tar/")).read_bytes()


def test_a_folder_may_hold_shards_and_a_link_to_itself(folder, tmp_path):
    tar_of(folder / "c.tar", folder, ["z.png"])
    os.symlink(folder, folder / "again")
    assert names_in(folder) == ["a/1.png", "a/2.png", "a-b.png", "b/c/1.png", "c.tar/z.png", "z.png"]


def test_several_places_are_one_set_in_one_order(folder):
    assert names_in(folder / "b", folder / "a") == ["1.png", "2.png", "c/1.png"]


def test_the_same_name_comes_together_by_its_bytes_and_the_same_bytes_once(folder, tmp_path):
    save(folder / "b" / "1.png", picture(20, 24, 9))
    twice = [folder / "a", folder / "b", folder / "a"]
    groups = [list(read_pictures(sources)) for sources in grouped_by_name(find_pictures(twice))]
    rows = [[row.sha256 for row, _ in group] for group in groups]
    assert [len(group) for group in rows] == [2, 1, 1] and rows[0] == sorted(rows[0])
    other_way = [[row.sha256 for row, _ in read_pictures(sources)] for sources in grouped_by_name(find_pictures(twice[::-1]))]
    assert other_way == rows


def test_what_cannot_be_read_is_a_row_that_says_why(folder, tmp_path):
    (folder / "bad.jpg").write_bytes(b"\xff\xd8 not a picture")
    listed = tmp_path / "set" / "list.txt"
    listed.write_text("bad.jpg\ngone.png\nz.png")
    rows = [row for sources in grouped_by_name(find_pictures([listed])) for row, _ in read_pictures(sources)]
    assert "bad.jpg" in rows[0].skipped and "gone.png" in rows[1].skipped and rows[2].skipped is None
    assert (rows[2].height, rows[2].width) == (20, 24)


def test_a_shard_that_ends_early_gives_an_error_with_the_members_name(folder, tmp_path):
    shard = tar_of(tmp_path / "shard.tar", folder, ["z.png"])
    (source,) = find_pictures([shard])
    shard.write_bytes(shard.read_bytes()[: source.offset + 10])
    with pytest.raises(BadImage, match=r"shard\.tar/z\.png is truncated"):
        read(source)


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08\0\0\0", b"\xff\xfe\xfa"], ids=["gzip", "no text"])
def test_a_place_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "set.tgz").write_bytes(content)
    with pytest.raises(BadInput, match=r"set\.tgz is no folder, tar or picture"):
        names_in(tmp_path / "set.tgz")
    (tmp_path / "set.tar").write_bytes(content)
    with pytest.raises(BadInput, match="cannot be read as an uncompressed tar"):
        names_in(tmp_path / "set.tar")
    with pytest.raises(BadInput, match="there is no folder, tar, list or picture"):
        names_in(tmp_path / "nowhere")


def test_a_row_survives_json_and_finds_its_picture_until_it_changes(folder, tmp_path):
    shard = tar_of(tmp_path / "shard.tar", folder, ["z.png"])
    for place in (folder / "z.png", shard):
        ((row, seen),) = read_pictures(list(find_pictures([place])))
        assert row_from_json(row_to_json(row)) == row
        assert read_again(row).image.equal(seen.image)
        data = bytearray(place.read_bytes())
        data[(row.source.offset or 0) + 50] ^= 1
        place.write_bytes(data)
        with pytest.raises(BadImage, match="has changed since it was scanned"):
            read_again(row)


def test_names_that_are_no_unicode_stay_the_same(tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("ä b.png\n")
    assert list(find_pictures([listed])) == [Source("ä b.png", str(tmp_path / "ä b.png"))]


def test_what_systems_leave_is_no_picture(folder):
    before = names_in(folder)
    (folder / "__MACOSX").mkdir()
    for name in ("._z.png", "Thumbs.db", "desktop.ini", "__MACOSX/z.png", "a/._1.png", ".DS_Store"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    assert names_in(folder) == before


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", " \r\n\r\n"])
def test_a_list_is_read_as_programs_write_it(folder, monkeypatch, encoding, end):
    listed = folder / "list.txt"
    text = end.join(["a/1.png", "# the rest", "~/z.png", '"ä.png"', ""])
    listed.write_bytes(text.encode(encoding))
    monkeypatch.setenv("HOME", str(folder / "b"))
    found = {source.name: source.path for source in find_pictures([listed])}
    assert found == {"a/1.png": str(folder / "a/1.png"), "~/z.png": str(folder / "b/z.png"), "ä.png": str(folder / "ä.png")}


def odd_tar(path: Path, folder: Path, pax: dict[str, str]) -> Path:
    """A good member, one with these headers, a good one."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, headers in (("a.png", {}), ("odd.png", pax), ("z.png", {})):
            member = tar.gettarinfo(folder / "z.png", name)
            member.pax_headers = headers
            with open(folder / "z.png", "rb") as file:
                tar.addfile(member, file)
    return path


ODD_MEMBERS = [
    {"size": "-5"},
    {"size": "-100000"},
    {"size": "9" * 15},
    {"size": "9" * 30},
    {"size": "nonsense"},
    {"size": "1e999"},
    {"path": "odd\0.png"},
    {"path": "../../odd.png"},
    {"mtime": "nan"},
    {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "-7"},
    {"GNU.sparse.map": "0,5,9999999999,7"},
    {"GNU.sparse.size": "77", "GNU.sparse.offset": "-3"},
    {"hdrcharset": "BINARY", "linkpath": "x" * 5000},
]


@pytest.mark.parametrize("pax", ODD_MEMBERS, ids=repr)
def test_an_odd_member_of_a_shard_costs_no_other(folder, tmp_path, pax):
    shard = odd_tar(tmp_path / "s.tar", folder, pax)
    rows = [row for sources in grouped_by_name(find_pictures([shard])) for row, _ in read_pictures(sources)]
    good = [row.source.name for row in rows if row.skipped is None]
    assert "s.tar/a.png" in good
    assert "s.tar/z.png" in good or any("damaged" in row.skipped for row in rows if row.skipped)


def test_what_follows_a_damaged_header_is_a_row_that_says_so(folder, tmp_path):
    shard = tar_of(tmp_path / "s.tar", folder, NAMES)
    names, data = names_in(shard), bytearray(shard.read_bytes())
    with tarfile.open(shard) as tar:
        data[tar.getmembers()[2].offset + 150] ^= 1  # its checksum
    shard.write_bytes(data)
    assert names_in(shard) == sorted([*names[:2], f"{names[1]} (what follows)"])
    assert [row.skipped is None for sources in grouped_by_name(find_pictures([shard])) for row, _ in read_pictures(sources)] == [
        True,
        True,
        False,
    ]


def test_a_damaged_shard_is_read_up_to_the_damage(folder, tmp_path):
    """Cut off, or with one byte changed, anywhere: an error of ours, or its pictures, or rows that say why not."""
    data, random = tar_of(tmp_path / "s.tar", folder, NAMES).read_bytes(), Random(0)
    for _ in range(60):
        at = random.randrange(len(data))
        changed = data[:at] if random.random() < 0.3 else data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]
        (tmp_path / "s.tar").write_bytes(changed)
        try:
            for sources in grouped_by_name(find_pictures([tmp_path / "s.tar"])):
                assert all(row.skipped or row.height == 20 for row, _ in read_pictures(sources))
        except BadInput:
            assert at < 2048  # where the first member is told of


def test_an_image_in_memory_is_no_archive_bomb(tmp_path):
    """A member that claims more bytes than a picture may have is refused before it is read."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("huge.png"))
    path = tmp_path / "x.tar"
    path.write_bytes(buffer.getvalue())
    (source,) = find_pictures([path])
    with pytest.raises(BadImage, match="larger than"):
        read(Source(source.name, source.path, source.offset, 10**12))
