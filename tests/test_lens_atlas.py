"""The atlas's page: every unit is there, its cells are its patches, and nothing in it leads to a network."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from impasto.errors import BadInput, BadRecipe, CannotWrite, ImpastoWarning, NoRoom
from impasto.files import sha256
from impasto.images.images import read_picture, to_pillow, write_picture
from impasto.lens.atlas import KINDS, ROWS, SHOWN, histogram, make_atlas, missing_dreams, units_of
from impasto.lens.deconv import project, record
from impasto.lens.dream import Objective, join_pictures
from impasto.lens.index import EDGES, make_setup, read_index
from impasto.lens.patches import top
from impasto.lens.scan import scan
from impasto.lens.sheet import CELL, cell_of, place_in_cell, scale_limit, shown
from impasto.lens.view import apply_view
from tests.conftest import kill_at, picture, room_for, save, tiny_net
from tests.test_cli import check_one_line

pytestmark = pytest.mark.slow

NET = tiny_net()
NET.layers[3].bias[4] = -100.0  # unit 4 of conv2_1 never fires
NAMES = ["</script><b>0</b>.png", "a\u2028\"'\\${x}.png", *(f"{n:02}.png" for n in range(2, 11))]


def make_page(folder: Path) -> tuple[Path, Path]:
    """A scan of eleven pictures, two with names that would be markup or code, and its page."""
    pictures = folder / "set" / "onerror=alert(1)"
    pictures.mkdir(parents=True)
    colors = torch.rand(11, 1, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    for n, name in enumerate(NAMES):
        save(pictures / name.replace("/", "\u2215"), 0.5 * picture(32, 44, n) + 0.5 * colors[n])
    for _ in scan([folder / "set"], NET, make_setup(NET, ["conv1_1", "conv2_1", "conv3_1:pre"], size=32), folder / "scan"):
        pass
    for _ in make_atlas(folder / "scan", NET, folder / "page", everywhere=True):
        pass
    return folder / "scan", folder / "page"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    return make_page(tmp_path_factory.mktemp("atlas"))


def about(page: Path) -> dict:
    return json.loads(re.fullmatch(r"const ATLAS = (\{.*\});\n", (page / "parts/atlas.js").read_text(), re.DOTALL)[1])


def layer(page: Path, n: int) -> list[dict]:
    return json.loads(
        "[" + re.fullmatch(rf"arrived\({n}, \[\n(.*)\]\);\n", (page / f"parts/{n:02}.js").read_text(), re.DOTALL)[1] + "]"
    )


def test_every_unit_of_every_layer_has_a_line_with_its_numbers(made):
    scanned, page = made
    index = read_index(scanned)
    assert [(it["name"], it["units"]) for it in about(page)["layers"]] == [("conv1_1", 4), ("conv2_1", 6), ("conv3_1:pre", 7)]
    for n, (name, units) in enumerate(index.layers.items()):
        lines = layer(page, n)
        assert [line["fired"] for line in lines] == units.fired.tolist() and [
            line["padded"] for line in lines
        ] == units.padded.tolist()
        assert [line["largest"] for line in lines] == pytest.approx(units.everywhere.value[:, 0].tolist(), rel=1e-4)
        assert all(sum(line["bins"]) == 11 for line in lines)
        for unit, line in enumerate(lines):
            assert said(page, line, range(len(line["patches"])), SHOWN) == found(scanned, name, unit, False)
            columns = [patch[0] for patch in line["patches"]]
            assert said(page, line, [columns.index(it) for it in line["interior"]], 99) == found(scanned, name, unit, True)


def said(page: Path, line: dict, places, below: int) -> list[tuple]:
    patches = [line["patches"][n] for n in places]
    names = about(page)["names"]
    return [(names[it[3]], *it[4:6], bool(it[10]), pytest.approx(it[6:10], abs=0.06)) for it in patches if it[0] < below]


def found(scanned: Path, name: str, unit: int, interior: bool) -> list[tuple]:
    patches = [it for it in top(scanned, name, unit, interior) if it.value > 0][:SHOWN]
    return [(it.row.source.name, it.y, it.x, it.touches_padding, list(it.box)) for it in patches]


def test_a_cell_of_a_sprite_is_the_patch_that_is_cut_there_and_its_projection(made):
    """WebP loses a little; where the net saw nothing the cell is transparent."""
    scanned, page = made
    index = read_index(scanned)
    checked = 0
    for n, name in enumerate(index.layers):
        for unit, it in enumerate(units_of(scanned, index, name, True)):
            for column, patch in it.patches.items():
                image = read_picture(patch.row.source.path).image
                way = record(NET, apply_view(image, patch.view), name)
                cell = cell_of(patch, to_pillow(image), project(way, unit, patch.y, patch.x, "guided")[0])
                projection = shown(cell.projection, scale_limit(cell.projection))
                left, above, right, below = place_in_cell(patch)
                for kind, expected in enumerate((cell.pixels, projection), 2 * (column // SHOWN)):
                    seen = in_sprite(page, n, unit, kind, column % SHOWN)
                    assert np.abs(seen[above:below, left:right, :3] - np.asarray(expected).astype(float)).mean() < 12
                    outside = np.ones((CELL, CELL), bool)
                    outside[above:below, left:right] = False
                    assert (seen[outside][:, 3] == 0).all() and (seen[~outside][:, 3] == 255).all()
                    checked += 1
    assert checked > 200


def in_sprite(page: Path, n: int, unit: int, kind: int, column: int) -> np.ndarray:
    """(CELL, CELL, 4)."""
    sprite = Image.open(page / "parts" / f"{n:02}-{unit // ROWS:03}-{KINDS[kind]}.webp").convert("RGBA")
    x, y = column * CELL, unit % ROWS * CELL
    return np.asarray(sprite.crop((x, y, x + CELL, y + CELL))).astype(float)


def test_units_go_into_as_many_sprites_as_they_need(made, tmp_path, monkeypatch):
    """Cells do not depend on how many units a sprite holds."""
    scanned, page = made
    monkeypatch.setattr("impasto.lens.atlas.ROWS", 2)
    for _ in make_atlas(scanned, NET, tmp_path / "page", everywhere=True):
        pass
    names = sorted(path.name for path in (tmp_path / "page/parts").glob("01-*-patches.webp"))
    assert [name for name in names if "interior" not in name] == [f"01-{n:03}-patches.webp" for n in range(3)]
    part = Image.open(tmp_path / "page/parts/01-001-projections.webp").convert("RGBA")
    all_of = Image.open(page / "parts/01-000-projections.webp").convert("RGBA").crop((0, 2 * CELL, SHOWN * CELL, 4 * CELL))
    assert np.abs(np.asarray(part).astype(float) - np.asarray(all_of)).mean() < 3


def test_a_dead_unit_is_there_with_nothing_to_draw(made):
    line = layer(made[1], 1)[4]
    assert line["fired"] == 0 and line["patches"] == [] == line["interior"] and line["bins"][0] == 11 and line["like"] is None
    assert all(line["patches"] for n, line in enumerate(layer(made[1], 1)) if n != 4)


def test_no_written_file_names_an_address_in_a_network_or_a_folder_of_this_machine(made):
    written = [path for path in made[1].rglob("*") if path.suffix in {".html", ".js", ".css"}]
    assert len(written) == 7
    for path in written:
        assert not re.search(r"https?:|//[a-z]|wss?:|@import|data:", path.read_text(), re.IGNORECASE)
        assert str(made[1].parent) not in path.read_text()


def test_names_of_pictures_stay_text(made):
    """Scripts are ASCII and parse as JSON whatever the names are, and the page never makes markup of text."""
    names = about(made[1])["names"]
    assert any("</script><b>" in name.replace("\u2215", "/") for name in names) and any("\u2028" in name for name in names)
    assert (made[1] / "parts/atlas.js").read_bytes().isascii()
    script, page = (made[1] / "parts/page.js").read_text(), (made[1] / "index.html").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", script)
    assert not re.search(r"\son\w+=|<style|style=|javascript:", page) and "default-src 'none'" in page
    assert re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL) == ["", ""]


def test_what_the_page_names_is_there(made):
    page = (made[1] / "index.html").read_text()
    for name in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert (made[1] / name).is_file()
    ids = set(re.findall(r'id="([^"]+)"', page))
    assert set(re.findall(r'\$\("([^"]+)"\)', (made[1] / "parts/page.js").read_text())) <= ids


def test_a_run_that_was_stopped_leaves_a_page_that_says_so(made, tmp_path):
    shutil.copytree(made[1], tmp_path / "page")
    steps = make_atlas(made[0], NET, tmp_path / "page", everywhere=True)
    next(steps)
    steps.close()
    assert "is not finished" in (tmp_path / "page/index.html").read_text() and not list((tmp_path / "page/parts").glob("*-*"))
    list(make_atlas(made[0], NET, tmp_path / "page", everywhere=True))
    assert bytes_of(tmp_path / "page") == bytes_of(made[1])


@pytest.mark.parametrize("size", [100, 2000, 20_000], ids="{} bytes".format)
def test_a_full_disk_gives_an_error_and_leaves_no_page_that_looks_whole(made, tmp_path, size):
    """Full from the start, at the sprites' cells, and at the scripts with the data."""
    page = tmp_path / "page"
    with pytest.raises(NoRoom, match=r"no room on the disk for .*page"), room_for(size):
        list(make_atlas(made[0], NET, page, everywhere=True))
    assert not (page / "index.html").exists() or "is not finished" in (page / "index.html").read_text() or about(page)["coming"]
    assert not list(page.rglob(".impasto*"))
    list(make_atlas(made[0], NET, page, everywhere=True))
    assert bytes_of(page) == bytes_of(made[1])


KILLED = """
import sys, time
from pathlib import Path
from impasto.lens.atlas import make_atlas
from tests.test_lens_atlas import NET
for step in make_atlas(Path(sys.argv[1]), NET, Path(sys.argv[2]), everywhere=True):
    print(step.done, flush=True)
    time.sleep(0.05)
"""


def test_a_killed_process_leaves_a_page_that_says_so_and_the_next_makes_it_whole(made, tmp_path):
    kill_at(b"5", KILLED, made[0], tmp_path / "page")
    assert "is not finished" in (tmp_path / "page/index.html").read_text()
    (tmp_path / "page/.impasto-killed.part").write_text("what a kill while a file is written leaves")
    list(make_atlas(made[0], NET, tmp_path / "page", everywhere=True))
    assert bytes_of(tmp_path / "page") == bytes_of(made[1])


def bytes_of(page: Path) -> dict[str, str]:
    return {str(path.relative_to(page)): sha256(path) for path in page.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["clarity.json", "words.json"])
def test_an_older_page_outlives_a_damaged_file_beside_the_scan(made, tmp_path, name):
    shutil.copytree(made[0], tmp_path / "scan")
    shutil.copytree(made[1], tmp_path / "page")
    (tmp_path / "scan" / name).write_text("{")
    with pytest.raises(BadInput, match=f"{name} cannot be read"):
        next(make_atlas(tmp_path / "scan", NET, tmp_path / "page"))
    assert bytes_of(tmp_path / "page") == bytes_of(made[1])


def test_a_folder_with_anything_else_is_left_alone(made, tmp_path):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(CannotWrite, match="holds something other than a page of lens atlas"):
        next(make_atlas(made[0], NET, tmp_path))
    assert (tmp_path / "index.html").read_text() == "mine"
    with pytest.raises(CannotWrite, match="holds something other"):
        next(make_atlas(made[0], NET, made[0]))


def test_pictures_that_are_gone_or_changed_are_named_and_their_places_stay_empty(made, tmp_path):
    (tmp_path / "set").mkdir()
    for n in range(3):
        save(tmp_path / "set" / f"{n}.png", picture(32, 32, n))
    for _ in scan([tmp_path / "set"], NET, make_setup(NET, ["conv1_1"], size=32), tmp_path / "scan"):
        pass
    (tmp_path / "set/0.png").unlink()
    save(tmp_path / "set/1.png", picture(32, 32, 9))
    reasons = [step.row.skipped for step in make_atlas(tmp_path / "scan", NET, tmp_path / "page") if step.row.skipped]
    assert (
        len(reasons) == 2 and any("0.png" in it for it in reasons) and any("1.png" in it and "has changed" in it for it in reasons)
    )
    names = about(tmp_path / "page")["names"]
    for line in layer(tmp_path / "page", 0):
        assert line["patches"] and all(bool(it[1]) == (names[it[3]] == "2.png") for it in line["patches"])
    (tmp_path / "set/2.png").unlink()
    with pytest.raises(BadInput, match="none of the 3 scanned pictures can be read"):
        list(make_atlas(tmp_path / "scan", NET, tmp_path / "page"))
    assert "is not finished" in (tmp_path / "page/index.html").read_text()


def test_each_picture_is_read_once_a_layer(made, tmp_path, monkeypatch):
    from impasto.lens import atlas

    read, read_again = [], atlas.read_again
    monkeypatch.setattr(atlas, "read_again", lambda row: read.append(row) or read_again(row))
    steps = list(make_atlas(made[0], NET, tmp_path / "page"))
    assert len(read) == len(steps) == steps[-1].of and max(map(read.count, read)) == 3
    assert [step.done for step in steps] == list(range(1, len(steps) + 1))


def test_the_page_can_be_looked_at_when_it_has_a_layer(made, tmp_path):
    """It names the layers to come; what it has is what the finished page has."""
    page, coming = tmp_path / "page", []
    for _ in make_atlas(made[0], NET, page, everywhere=True):
        if (page / "parts/atlas.js").exists() and about(page)["coming"] not in coming:
            coming.append(about(page)["coming"])
            made_so_far = len(about(page)["layers"])
            assert [layer(page, n) for n in range(made_so_far)] == [layer(made[1], n) for n in range(made_so_far)]
            assert bytes_of(page).items() >= {
                (name, it) for name, it in bytes_of(made[1]).items() if name.endswith("0-000-patches.webp")
            }
    assert coming == [["conv2_1", "conv3_1:pre"], ["conv3_1:pre"]] and about(page)["coming"] == []


def test_one_ranking_is_that_without_padding_where_a_layer_has_such_positions(tmp_path):
    (tmp_path / "set").mkdir()
    for n in range(4):
        save(tmp_path / "set" / f"{n}.png", picture(16, 16, n))
    for _ in scan([tmp_path / "set"], NET, make_setup(NET, ["conv1_1", "conv3_1"], size=16), tmp_path / "scan"):
        pass
    page, index = tmp_path / "page", read_index(tmp_path / "scan")
    list(make_atlas(tmp_path / "scan", NET, page))
    assert [bool(it["inside"]) for it in about(page)["layers"]] == [True, False] and not list((page / "parts").glob("*interior*"))
    for n, (name, inside) in enumerate(zip(index.layers, (True, False), strict=True)):
        for unit, line in enumerate(layer(page, n)):
            assert said(page, line, range(len(line["patches"])), SHOWN) == found(tmp_path / "scan", name, unit, inside)
            assert all(column < SHOWN for column, *_ in line["patches"])
            assert line["interior"] == ([it[0] for it in line["patches"]] if inside else [])


def test_a_histogram_counts_every_picture_in_its_half_octave():
    bins = np.zeros((1, len(EDGES) + 1), np.int32)
    values = np.float32([-1, 0, 1e-9, 2**-12, 2**-11.4, 1.0, 1.1, 1e9])
    np.add.at(bins[0], np.searchsorted(EDGES, values), 1)
    silent, *octaves = histogram(bins)[0]
    assert silent == 2 and len(octaves) == 56 and sum(octaves) == 6
    assert octaves[0] == 2 and octaves[1] == 1 and octaves[23] == 1 and octaves[24] == 1 and octaves[-1] == 1  # 1 is an upper edge


def test_the_likeness_is_that_of_another_units_projection(made):
    """In the first layer a projection is the filter, so their cosine is that of the filters."""
    from impasto.lens.deconv import filters_of

    filters = filters_of(NET, NET.layers[0].name).flatten(1)
    for unit, line in enumerate(layer(made[1], 0)):
        other, cosine = line["like"]
        assert other != unit
        if not line["patches"][0][10]:  # it sees no padding, which would cut the filter
            assert cosine == pytest.approx(float(torch.cosine_similarity(filters[unit], filters[other], dim=0)), abs=1e-5)


def dream_record(**changes) -> dict:
    about = {"net": "tiny", "layer": "relu2_1", "channels": [3], "against": [], "everywhere": False, "size": 20, "steps": 7}
    about |= {"pictures": 2, "seed": 0} | changes
    return {"dream": about, "weights": {"sha256": make_setup(NET).weights, "input": "torchvision"}}


def test_dreams_hang_beside_their_units_and_others_are_named(made, tmp_path):
    folder, images = tmp_path / "dreams", torch.cat([picture(20, 20, n) for n in (1, 2)])
    folder.mkdir()
    write_picture(folder / "a.png", join_pictures(images), record=dream_record())
    write_picture(folder / "b.png", join_pictures(images), record=dream_record(net="alexnet"))
    write_picture(folder / "c.png", join_pictures(images), record=dream_record(channels=[3, 4]))
    write_picture(folder / "d.png", join_pictures(images), record=dream_record(size=10**6))
    write_picture(folder / "e.png", join_pictures(images), record={"dream": []})
    (folder / "f.txt").write_text("no picture")
    with pytest.warns(ImpastoWarning) as warned:
        list(make_atlas(made[0], NET, tmp_path / "page", dreams=folder))
    said = "\n".join(str(it.message) for it in warned)
    assert [line.split()[0] for line in said.splitlines()] == ["b.png", "c.png", "d.png", "e.png", "f.txt"]
    [dream] = layer(tmp_path / "page", 1)[3]["dreams"]
    assert dream["steps"] == 7 and len(dream["reached"]) == 2 and not dream["channel"]
    shown = read_picture(tmp_path / "page/parts" / dream["file"]).image
    torch.testing.assert_close(shown, join_pictures(images), atol=0.003, rtol=0)
    assert not any(line["dreams"] for n, line in enumerate(layer(tmp_path / "page", 1)) if n != 3)
    with pytest.raises(BadInput, match="there is no folder"):
        list(make_atlas(made[0], NET, tmp_path / "other", dreams=tmp_path / "none"))


def test_units_that_have_a_dream_are_not_dreamt_again(made, tmp_path):
    index, folder = read_index(made[0]), tmp_path / "dreams"
    assert missing_dreams(index, folder, "conv2_1/3, relu2_1/3,conv3_1:pre/0") == [unit("conv2_1", 3), unit("conv3_1:pre", 0)]
    assert (
        missing_dreams(index, folder, "conv1_1") == [unit("conv1_1", n) for n in range(4)]
        and missing_dreams(index, folder, "") == []
    )
    (folder / "notes.txt").write_text("no dream")
    write_picture(folder / "other.png", join_pictures(torch.cat([picture(20, 20, n) for n in (1, 2)])), record=dream_record())
    assert missing_dreams(index, folder, "conv2_1/3,conv2_1/2") == [unit("conv2_1", 2)]
    for asked, said in (("conv9/1", "was not scanned"), ("conv2_1/6", "has the units 0 to 5"), ("conv2_1/x", "is not a unit")):
        with pytest.raises(BadRecipe, match=said):
            missing_dreams(index, folder, asked)


def unit(layer: str, n: int) -> Objective:
    return Objective(layer, (n,))


def test_another_net_or_rule_is_refused_before_anything_is_written(made, tmp_path):
    with pytest.raises(BadRecipe, match="another weights"):
        list(make_atlas(made[0], tiny_net(), tmp_path / "page"))
    with pytest.raises(BadRecipe, match="rule is 'magic'"):
        list(make_atlas(made[0], NET, tmp_path / "page", rule="magic"))
    assert not (tmp_path / "page").exists()


@pytest.mark.weights
def test_the_command_prints_the_page_and_names_what_is_gone(impasto, tmp_path):
    for n in range(3):
        (tmp_path / "set").mkdir(exist_ok=True)
        save(tmp_path / "set" / f"{n}.png", picture(70, 64, n))
    assert impasto("lens", "scan", tmp_path / "set", "-o", tmp_path / "scan", "--size", "64", "--layers", "conv1").returncode == 0
    (tmp_path / "set/1.png").unlink()
    done = impasto("lens", "atlas", tmp_path / "scan", "-o", tmp_path / "page", "-q")
    assert done.returncode == 0 and done.stdout.strip() == str(tmp_path / "page/index.html") and "1.png" in done.stderr
    assert len(layer(tmp_path / "page", 0)) == 64
    check_one_line(impasto("lens", "atlas", tmp_path / "nowhere", "-o", tmp_path / "page"), 5, "there is no finished scan")
    check_one_line(impasto("lens", "atlas", tmp_path / "scan", "-o", tmp_path / "set"), 1, "holds something other")


@pytest.mark.weights
def test_the_command_dreams_of_what_has_no_dream_and_goes_on_where_it_was_stopped(impasto, tmp_path):
    (tmp_path / "set").mkdir()
    save(tmp_path / "set/a.png", picture(64, 64))
    assert impasto("lens", "scan", tmp_path / "set", "-o", tmp_path / "scan", "--size", "64", "--layers", "conv1").returncode == 0
    make = ["lens", "atlas", tmp_path / "scan", "-o", tmp_path / "page", "--dreams", tmp_path / "dreams", "--dream-steps", "1"]
    assert impasto(*make, "--dream", "conv1/5").returncode == 0
    first = (tmp_path / "dreams/alexnet-conv1-5.png").read_bytes()
    done = impasto(*make, "--dream", "conv1/5,conv1/7")
    assert done.returncode == 0 and "dream 1 of 1: alexnet-conv1-7.png" in done.stderr
    assert (tmp_path / "dreams/alexnet-conv1-5.png").read_bytes() == first
    assert [n for n, line in enumerate(layer(tmp_path / "page", 0)) if line["dreams"]] == [5, 7]
    check_one_line(impasto(*make[:5], "--dream", "conv1/5"), 2, "--dream needs --dreams FOLDER")
    check_one_line(impasto(*make[:4], tmp_path / "set", *make[5:], "--dream", "conv1/9"), 1, "holds something other")
    check_one_line(impasto(*make[:5], "--dreams", tmp_path / "new", "--dream", "conv1/64"), 2, "has the units 0 to 63")
    assert sorted(it.name for it in tmp_path.iterdir()) == ["dreams", "page", "scan", "set"]
    (tmp_path / "dreams/alexnet-conv1-9.png").write_text("mine")
    check_one_line(impasto(*make, "--dream", "conv1/9"), 1, "is no dream of this unit: move it away")
    assert (tmp_path / "dreams/alexnet-conv1-9.png").read_text() == "mine"
