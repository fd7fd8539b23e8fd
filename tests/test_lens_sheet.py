"""Sheets: what stands where, what is grey, what is hatched, and who is named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from impasto.errors import BadInput, BadRecipe, ImpastoWarning, NoRoom
from impasto.images.drawing import GAP, INK, MARGIN, OUTSIDE, write_figure
from impasto.images.images import read_record
from impasto.lens import sheet as sheets
from impasto.lens.deconv import filters_of
from impasto.lens.index import choose_units, make_setup
from impasto.lens.patches import top
from impasto.lens.scan import scan
from impasto.lens.sheet import BLOCK, CELL, THIN, around_grey, project_picture, sheet
from impasto.lens.view import view_of
from impasto.nets.geometry import field_of
from tests.conftest import picture, room_for, save, tiny_net

NET = tiny_net()


def scanned_colors(folder: Path, count: int) -> Path:
    """A scan of so many pictures of 32 pixels, each around a colour of its own."""
    (folder / "set").mkdir()
    colors = torch.rand(count, 1, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    for n in range(count):
        save(folder / "set" / f"{n:02}.png", 0.5 * picture(32, 32, n) + 0.5 * colors[n])
    for _ in scan([folder / "set"], NET, make_setup(NET, size=32), folder / "atlas"):
        pass
    return folder / "atlas"


@pytest.fixture
def atlas(tmp_path) -> Path:
    return scanned_colors(tmp_path, 11)


def top_of(page: Image.Image) -> int:
    """Where the blocks of the first row of units begin: where 40 pixels on end are not paper, as no text is."""
    column = np.asarray(page)[:, MARGIN + CELL // 2]
    runs = [y for y in range(len(column) - CELL) if (column[y : y + 40] != 255).any(1).all()]
    return runs[0]


def cell(page: Image.Image, block: int, n: int, unit: int = 0) -> np.ndarray:
    """(CELL, CELL, 3): the n-th cell of a block of the first unit."""
    assert unit == 0
    x, y = MARGIN + block * (BLOCK + GAP) + n % 3 * (CELL + THIN), top_of(page) + n // 3 * (CELL + THIN)
    return np.asarray(page)[y : y + CELL, x : x + CELL]


def test_patches_stand_in_their_order_cut_at_their_boxes(atlas, tmp_path):
    page = sheet(atlas, NET, "conv2_1", "2,", interior=True)
    for n, patch in enumerate(top(atlas, "conv2_1", 2, interior=True)):
        seen = Image.open(tmp_path / "set" / patch.row.source.name)
        expected = seen.resize((CELL, CELL), Image.Resampling.LANCZOS, patch.box)
        assert np.abs(cell(page, 0, n).astype(int) - np.asarray(expected).astype(int)).max() <= 1


def test_what_the_net_did_not_see_is_hatched_in_both_blocks(atlas):
    page = sheet(atlas, NET, "conv3_1", "1,", interior=False)
    patches = top(atlas, "conv3_1", 1, interior=False)
    assert any(patch.touches_padding for patch in patches)
    hatch = np.asarray(sheets._hatched())
    for n, patch in enumerate(patches):
        if patch.value <= 0:
            continue
        left, above, right, below = sheets.place_in_cell(patch)
        outside = np.ones((CELL, CELL), bool)
        outside[above:below, left:right] = False
        for block in (0, 1):
            assert (cell(page, block, n)[outside] == hatch[outside]).all()
        assert bool(outside.any()) == patch.touches_padding


def test_the_first_layer_has_its_filter_and_nine_projections_like_it(atlas):
    """Smooth enlarging aside, each projection is the filter: their correlation is nearly 1."""
    page = sheet(atlas, NET, "conv1_1", "0,", interior=True)
    own = filters_of(NET, "conv1_1")[0].permute(1, 2, 0).numpy()
    expected = around_grey(own, np.abs(own).max()).resize((BLOCK, BLOCK), Image.Resampling.NEAREST)
    top_row = top_of(page)
    shown = np.asarray(page)[top_row : top_row + BLOCK, MARGIN : MARGIN + BLOCK]
    np.testing.assert_array_equal(shown, np.asarray(expected))
    small = np.asarray(expected.resize((CELL, CELL))).astype(float).ravel()
    for n in range(9):
        assert np.corrcoef(small, cell(page, 2, n).astype(float).ravel())[0, 1] > 0.8


def test_zero_is_mid_grey_and_signs_go_both_ways():
    signed = np.zeros((2, 3, 3), np.float32)
    signed[0, 0], signed[1, 2] = 2.0, -2.0
    shown = np.asarray(around_grey(signed, 2.0))
    assert (shown[0, 0] == 255).all() and (shown[1, 2] == 0).all() and np.isin(shown[0, 1:], (127, 128)).all()
    assert np.isin(np.asarray(around_grey(0 * signed, 0.0)), (127, 128)).all()


def test_scaled_alike_the_stronger_has_the_more_contrast(atlas):
    """In the first layer projections are the filter times the value."""
    alone, alike = (sheet(atlas, NET, "conv1_1", "1,", interior=True, scale=scale) for scale in ("patch", "block"))
    values = [patch.value for patch in top(atlas, "conv1_1", 1, interior=True)]
    spread = [cell(alike, 2, n).astype(float).std() for n in range(9)]
    assert np.corrcoef(values, spread)[0, 1] > 0.99
    assert np.ptp([cell(alone, 2, n).astype(float).std() for n in range(9)]) < 1.0


def test_a_seed_draws_the_same_units_and_another_others(atlas):
    one, again, other = (np.asarray(sheet(atlas, NET, "conv3_1", "3", seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_units_are_a_number_all_or_a_list():
    assert choose_units("all", 5, "") == [0, 1, 2, 3, 4] and choose_units("9", 5, "") == [0, 1, 2, 3, 4]
    assert choose_units("3, 1", 5, "") == [3, 1] and choose_units("4,", 5, "") == [4]
    drawn = choose_units("4", 100, "conv1 0")
    assert len(set(drawn)) == 4 and drawn == sorted(drawn) == choose_units("4", 100, "conv1 0") != choose_units("4", 100, "conv2 0")
    for text in ("0", "", "5,", "-1,", "a", "1;2", ","):
        with pytest.raises(BadRecipe, match="must be a number of units, all, or a list like 3,17 of units 0 to 4"):
            choose_units(text, 5, "")


def test_pictures_that_are_gone_are_named_and_leave_their_places_empty(atlas, tmp_path):
    first = top(atlas, "conv1_2", 0)[0].row.source
    Path(first.path).unlink()
    with pytest.warns(ImpastoWarning, match=first.name):
        page = sheet(atlas, NET, "conv1_2", "0,")
    assert (cell(page, 0, 0) == OUTSIDE).all() and not (cell(page, 0, 1) == OUTSIDE).all()
    for path in (tmp_path / "set").iterdir():
        save(path, picture(32, 32, 77))
    with pytest.raises(BadInput, match="none of the 9 scanned pictures can be read"):
        sheet(atlas, NET, "conv1_2", "0,")


def test_a_full_disk_gives_an_error_and_leaves_the_old_figure(atlas, tmp_path):
    figure = sheet(atlas, NET, "conv1_2", "0,")
    (tmp_path / "sheet.png").write_bytes(b"old")
    with pytest.raises(NoRoom, match=r"no room on the disk for .*sheet.png"), room_for(1000):
        write_figure(tmp_path / "sheet.png", figure, {})
    assert (tmp_path / "sheet.png").read_bytes() == b"old" and not list(tmp_path.glob(".impasto*"))


def test_another_net_draws_no_sheet(atlas):
    with pytest.raises(BadRecipe, match="was made with another weights and input"):
        other = tiny_net(input="caffe")
        other.layers[0].weight.mul_(2)
        sheet(atlas, other, "conv1_2")
    with pytest.raises(BadRecipe, match="scale is 'page', must be one of patch, block"):
        sheet(atlas, NET, "conv1_2", scale="page")


def test_fewer_than_nine_patches_leave_places_empty(tmp_path):
    (tmp_path / "set").mkdir()
    save(tmp_path / "set" / "one.png", picture(32, 32))
    for _ in scan([tmp_path / "set"], NET, make_setup(NET, size=32, k=4), tmp_path / "atlas"):
        pass
    page = sheet(tmp_path / "atlas", NET, "conv1_2", "0,")
    assert all((cell(page, 0, n) == OUTSIDE).all() for n in range(1, 9))


def test_a_page_of_all_units_has_a_place_for_each(atlas):
    page = sheet(atlas, NET, "conv3_1", "all")
    assert page.width == 2 * MARGIN + 2 * (2 * BLOCK + GAP) + sheets.BETWEEN  # seven units in two columns


def test_a_figure_says_what_it_shows(atlas, tmp_path):
    write_figure(tmp_path / "page.png", sheet(atlas, NET, "conv3_1", "2"), {"lens": {"layer": "conv3_1"}})
    assert read_record(tmp_path / "page.png")["lens"] == {"layer": "conv3_1"}


def test_one_unit_in_one_picture_at_its_strongest_or_a_given_place(tmp_path):
    path = save(tmp_path / "one.png", picture(40, 48))
    figure, about = project_picture(path, NET, "relu2_1", 1, size=32)
    assert about["layer"] == "conv2_1" and about["value"] > 0 and figure.width == 2 * MARGIN + 4 * 32 + 3 * GAP
    assert [sorted(control) for control in about["controls"]] == [["cosine", "name"]] * 2
    y, x = about["y"], about["x"]
    x0, y0, x1, y1 = view_of((40, 48), 32, "center").clip(field_of(NET.layers, "conv2_1").box(y, x))
    left, upper = MARGIN, figure.height - MARGIN - 32  # of the net's input on the figure
    assert {figure.getpixel(at) for at in ((left + x0, upper + y0), (left + x1 - 1, upper + y1 - 1))} == {INK}
    assert project_picture(path, NET, "conv2_1", 1, (y, x), size=32)[1] == about
    with pytest.raises(BadRecipe, match="place is 16,0, the map of conv2_1 is 16 x 16"):
        project_picture(path, NET, "conv2_1", 1, (16, 0), size=32)
    with pytest.raises(BadRecipe, match="unit is 6, conv2_1 has the units 0 to 5"):
        project_picture(path, NET, "conv2_1", 6, size=32)
