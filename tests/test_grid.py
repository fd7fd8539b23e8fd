"""Grids of paintings, with a tiny net: what is painted, what is painted once, what is drawn where."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from impasto import grid as module
from impasto.batch import LOCKS, Result
from impasto.errors import BadImage, BadRecipe, ImpastoError
from impasto.grid import FIGURES, Grid, Sheet, cell_at, make_figure, make_grid, name_of
from impasto.images.images import read_picture, read_record
from impasto.objective import tiles
from impasto.recipe.axes import Label, axis
from impasto.recipe.recipe import make_recipe
from impasto.transfer.painting import Painting
from tests.conftest import check_one_line, paint_with_the_tiny_net, picture, save
from tests.fake_workers import FakeWorker

pytestmark = pytest.mark.slow  # workers, killed runs, whole commands
KNOBS = {"size": 32, "coarsest": 24, "steps": 4, "fine_steps": 3, "style_layers": "conv1_1", "content_layers": "conv2_1"}
OPTIONS = [word for name, value in KNOBS.items() for word in (f"--{name.replace('_', '-')}", value)]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The tiny net, and a checkpoint after every step."""
    paint_with_the_tiny_net(monkeypatch)


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """Counts how often the net looks at a picture."""
    count = [0]

    def counted(*args, walk=tiles.walk, **named):
        count[0] += 1
        return walk(*args, **named)

    monkeypatch.setattr(tiles, "walk", counted)
    return count


def go(_place: tuple[int, int], work: Painting, resume: bool = False) -> None:
    for _ in work.steps(resume=resume):
        pass


def painted(grid: Grid, output: Path) -> Sheet:
    sheet = Sheet(grid, output)
    sheet.paint(go)
    sheet.write()
    return sheet


def betas(files, *values: str) -> Grid:
    return make_grid(files[:2], ["beta", *values], [], KNOBS)


# What is to be painted


def test_regions_with_their_colours_are_shared(files):
    regions = {"sky": {"mask": "light", "color": "monge"}}
    grid = make_grid(files[:2], ["color-when", "before", "after"], [], {**KNOBS, "regions": regions})
    assert [cell.recipe.regions["sky"].color for cell in grid.cells.values()] == ["monge", "monge"]
    assert len({name_of(cell) for cell in grid.cells.values()}) == 2


def test_two_knobs_are_crossed_and_the_rest_is_shared(files):
    grid = make_grid(files[:2], ["beta", "5", "15"], ["style-scale", "0.5", "1", "2"], KNOBS)
    assert list(grid.cells) == [(r, c) for r in (1, 2) for c in (1, 2, 3)]
    cell = grid.cells[2, 1]
    assert (cell.recipe.beta, cell.recipe.style_scale, cell.recipe.size) == (15, 0.5, 32)
    assert (cell.content, cell.styles) == (files[0], (files[1],))
    assert [label.text for label in grid.columns] == ["style_scale = 0.5", "style_scale = 1", "style_scale = 2"]


@pytest.mark.parametrize("ratio", ["1/15", "0.07", "1e-3"])
def test_a_ratio_is_alpha_over_beta(files, ratio):
    recipe = make_grid(files[:2], ["ratio", ratio], [], {"preset": "course"}).cells[1, 1].recipe
    assert recipe.alpha == 10 and recipe.alpha / recipe.beta == pytest.approx(float(Fraction(ratio)))


def test_pictures_are_axes_too(files):
    grid = make_grid([], ["contents", files[0], files[1]], ["styles", files[1], files[0]], KNOBS)
    assert (grid.cells[1, 2].content, grid.cells[1, 2].styles) == (files[0], (files[0],))
    assert grid.rows[1].picture == files[1] and grid.rows[1].text == "style"
    assert make_grid(files[1:2], ["contents", files[0]], [], KNOBS).cells[1, 1].styles == (files[1],)


def test_any_knob_is_an_axis_layers_and_presets_among_them(files):
    grid = make_grid(files[:2], ["style_layers", "..conv1_1", "conv2_1..conv3_1"], ["preset", "gatys", "course"], {})
    assert grid.cells[2, 2].recipe.style_layers == pytest.approx({"conv2_1": 0.5, "conv3_1": 0.5})
    assert grid.cells[1, 1].recipe.style_layers.keys() == {"conv1_1"} and grid.cells[1, 1].recipe.preset == "gatys"


def test_seamless_and_turned_styles_are_axes(files):
    grid = make_grid(files[:2], ["seamless", "none", "both"], ["style-rotation", "0", "90"], KNOBS)
    assert (grid.cells[2, 2].recipe.seamless, grid.cells[2, 2].recipe.style_rotation) == ("both", 90)
    assert len({name_of(cell) for cell in grid.cells.values()}) == 4


def test_one_knob_is_on_one_axis(files):
    with pytest.raises(BadRecipe, match="on both axes"):
        make_grid(files[:2], ["style-scale", "1"], ["style_scale", "2"], {})


def test_a_texture_needs_one_picture_and_an_inversion_no_style(files):
    grid = make_grid(files[:1], ["preset", "texture", "inversion"], [], {})
    assert [cell.styles for cell in grid.cells.values()] == [(files[0],), ()]


@pytest.mark.parametrize(
    ("rows", "pictures", "said"),
    [
        ([], 2, "nothing to compare"),
        (["beta"], 2, "beta has no values"),
        (["brush", "1"], 2, "there is no brush, there are contents, styles, ratio, preset"),
        (["beta", "-1"], 2, "beta is '-1'"),
        (["ratio", "0"], 2, "ratio is '0'"),
        (["ratio", "x/3"], 2, "ratio is 'x/3'"),
        (["style_layers", "..conv9_1"], 2, "must go from one of conv1_1"),
        (["content_layers", "conv1_1", "conv9"], 2, "vgg19 has no layer 'conv9'"),
        (["net", "alexnet", "vgg16"], 2, "alexnet has no layer 'conv4_2'"),
        (["styles", "a.jpg"], 2, "styles are given twice"),
        (["beta", "1"], 0, "no content picture"),
    ],
)
def test_a_wrong_grid_is_an_error_before_anything_is_painted(files, rows, pictures, said):
    with pytest.raises(BadRecipe, match=said):
        make_grid(files[:pictures], rows, [], {"content_layers": "conv4_2"} if rows[:1] == ["net"] else {})


@pytest.mark.parametrize("net", ["vgg19", "vgg16", "alexnet"])
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_of_every_net(name, net, files):
    grid = make_figure(name, files[:2], {"net": net})
    assert len(grid.columns) == (4 if name == "style-layers" else 5)
    assert len(grid.cells) == len(grid.rows) * len(grid.columns)


def test_figure_1_reconstructs_content_and_style(files):
    grid = make_figure("reconstructions", files[:2], {})
    content, style = grid.cells[1, 3], grid.cells[2, 3]
    assert (content.content, content.styles, content.recipe.content_layers) == (files[0], (), {"conv3_1": 1.0})
    assert (style.content, style.styles) == (files[1], (files[1],))
    assert list(style.recipe.style_layers) == ["conv1_1", "conv2_1", "conv3_1"]
    assert all(cell.recipe.init == "noise" and len(cell.recipe.scales()) == 1 for cell in grid.cells.values())


def test_figure_3_is_layers_against_the_ratio_from_noise(files):
    cells = make_figure("style-layers", files[:2], {}).cells
    assert [len(cells[row, 1].recipe.style_layers) for row in range(1, 6)] == [1, 2, 3, 4, 5]
    ratios = [cells[1, column].recipe.alpha / cells[1, column].recipe.beta for column in range(1, 5)]
    assert ratios == sorted(ratios) and all(cell.recipe.init == "noise" for cell in cells.values())


def test_the_content_layer_moves_and_the_rest_stays(files):
    cells = make_figure("content-layers", files[:2], {"content_norm": "mean"}).cells
    assert [list(cells[2, column].recipe.content_layers) for column in (1, 5)] == [["conv1_2"], ["conv5_2"]]
    assert {cell.recipe.content_norm for cell in cells.values()} == {"relative"}
    assert len({str(cells[1, column].recipe.style_layers) for column in range(1, 6)}) == 1


def test_a_figure_takes_two_pictures(files):
    with pytest.raises(BadRecipe, match="got 1 pictures"):
        make_figure("style-layers", files[:1], {})


def test_a_cell_is_found_by_row_and_column(files):
    grid = betas(files, "5", "15")
    assert cell_at(grid, "2, 1") is grid.cells[2, 1]
    for wrong in ("3,1", "2", "a,b", "0,0"):
        with pytest.raises(BadRecipe, match="2 rows and 1 columns"):
            cell_at(grid, wrong)


# Painting it


def test_what_is_painted_is_what_transfer_paints(files):
    sheet = painted(betas(files, "5"), files[2])
    alone = Painting(files[0], [files[1]], files[2].with_name("alone.png"), make_recipe(**KNOBS, beta=5.0))
    go((1, 1), alone)
    assert sheet.found[1, 1].read_bytes() == alone.output.read_bytes()


def test_a_cell_is_painted_once(files, passes):
    painted(betas(files, "5", "15"), files[2])
    two = passes[0]
    painted(betas(files, "5", "15"), files[2])
    assert two > 0 and passes[0] == two, "the second sheet looks at nothing"
    painted(betas(files, "15", "5", "50"), files[2])
    three = passes[0]
    painted(betas(files, "50"), files[2].with_name("alone.png"))
    assert passes[0] - three == three - two, "of the third sheet one cell is new"


def test_another_picture_or_knob_is_another_painting(files):
    names = {name_of(cell) for cell in betas(files, "5", "15").cells.values()}
    save(files[0], picture(30, 40, 9))
    names |= {name_of(cell) for cell in betas(files, "5", "15").cells.values()}
    assert len(names) == 4


@pytest.mark.parametrize("at", [1, 4, 6])
def test_a_killed_grid_goes_on_to_the_same_bytes(files, at):
    """kill -9 in the second cell: the first is not painted again, the second goes on from its checkpoint."""
    whole = painted(betas(files, "5", "15"), files[2].with_name("whole.png"))
    sheet, steps = Sheet(betas(files, "5", "15"), files[2]), []

    def killed(place, work):
        for step in work.steps():
            if place == (2, 1) and step.i == at:
                raise SystemExit
        work.seconds = 0

    def resumed(_place, work):
        steps.extend(step.i for step in work.steps(resume=True))

    with pytest.raises(SystemExit):
        sheet.paint(killed)
    again = Sheet(betas(files, "5", "15"), files[2])
    again.paint(resumed)
    again.write()
    assert steps == list(range(at + 1, 8))
    assert [p.read_bytes() for p in again.found.values()] == [p.read_bytes() for p in whole.found.values()]
    assert files[2].read_bytes() == whole.output.read_bytes()
    assert not list(again.folder.glob("*.checkpoint*"))


def test_a_bad_cell_does_not_lose_the_others(files):
    bad = files[0].with_name("bad.jpg")
    bad.write_text("no picture")
    sheet = painted(make_grid(files[:1], ["styles", bad, files[1]], [], KNOBS), files[2])
    assert isinstance(sheet.found[1, 1], BadImage) and isinstance(sheet.found[2, 1], Path)
    assert [cell["error"] is None for cell in sheet.report()["cells"]] == [False, True]
    with pytest.raises(ImpastoError, match=r"1 of 2 cells failed, row 1, column 1 first: .*no picture") as error:
        sheet.check()
    assert error.value.exit_code == 3


def test_where_all_fail_the_first_says_why(files):
    sheet = Sheet(make_grid([Path("absent.jpg"), files[1]], ["beta", "5", "15"], [], KNOBS), files[2])
    sheet.paint(go)
    with pytest.raises(BadImage, match=r"absent\.jpg"):
        sheet.write()
    assert not files[2].exists()


# Painted by workers


def shared(grid: Grid, output: Path, *workers: FakeWorker, part=(0, 1)) -> Sheet:
    sheet = Sheet(grid, output)
    assert all(isinstance(event, Result) or "step" in event for _, event in sheet.distribute(workers, {}, part))
    sheet.write()
    return sheet


def test_workers_paint_what_is_painted_here_whichever_dies(files):
    grid = betas(files, "5", "15", "50")
    whole = painted(grid, files[2].with_name("whole.png"))
    sheet = shared(grid, files[2], FakeWorker(2), FakeWorker())
    assert [path.read_bytes() for path in sheet.found.values()] == [path.read_bytes() for path in whole.found.values()]
    assert files[2].read_bytes() == whole.output.read_bytes()


def test_parts_of_a_grid_are_painted_once_and_the_last_draws_all(files, passes):
    grid = betas(files, "5", "15", "50")
    first = shared(grid, files[2], FakeWorker(), part=(0, 2))
    assert set(first.found) == {(1, 1), (3, 1)}
    last = shared(grid, files[2], FakeWorker(), part=(1, 2))
    count = passes[0]
    assert list(last.found) == [(1, 1), (2, 1), (3, 1)] and shared(grid, files[2], FakeWorker()).found == last.found
    assert passes[0] == count
    assert files[2].read_bytes() == painted(grid, files[2].with_name("whole.png")).output.read_bytes()


def test_who_stops_listening_has_the_cells_so_far(files):
    sheet = Sheet(betas(files, "5", "15"), files[2])
    events = sheet.distribute([FakeWorker()], {})
    assert next(spot for spot, event in events if isinstance(event, Result)) == (1, 1)
    events.close()
    assert (1, 1) in sheet.found


def test_a_cell_that_workers_cannot_paint_does_not_lose_the_others(files):
    sheet = shared(make_grid(files[:1], ["styles", Path("absent.jpg"), files[1]], [], KNOBS), files[2], FakeWorker())
    assert isinstance(sheet.found[1, 1], ImpastoError) and isinstance(sheet.found[2, 1], Path)
    with pytest.raises(ImpastoError, match=r"1 of 2 cells failed, row 1, column 1 first: .*absent\.jpg"):
        sheet.check()


def test_a_cell_that_another_process_paints_is_left_to_it(files):
    sheet = Sheet(betas(files, "5", "15"), files[2])
    with FileLock(sheet.folder / LOCKS / f"{name_of(sheet.grid.cells[1, 1])}.png"):
        assert {spot for spot, event in sheet.distribute([FakeWorker()], {}) if not isinstance(event, Result)} == {(2, 1)}
    assert list(sheet.found) == [(2, 1)]


# Drawing it


def test_every_painting_is_drawn_in_its_row_and_column(files):
    """As large as it was painted; found by looking for its pixels on the sheet."""
    sheet = painted(make_grid(files[:2], ["beta", "5", "5000"], ["seed", "1", "2"], {**KNOBS, "init": "noise"}), files[2])
    page = read_picture(files[2]).image[0]
    corners = {}
    for place, path in sheet.found.items():
        windows = page.unfold(1, 24, 1).unfold(2, 32, 1)
        found = (windows == read_picture(path).image[0][:, None, None]).all(dim=(0, 3, 4)).nonzero()
        assert len(found) == 1
        corners[place] = tuple(found[0].tolist())
    assert corners[1, 1][0] == corners[1, 2][0] < corners[2, 1][0] == corners[2, 2][0]
    assert corners[1, 1][1] == corners[2, 1][1] < corners[1, 2][1] == corners[2, 2][1]


def test_the_sheet_carries_its_recipes_and_no_path(files):
    painted(betas(files, "5", "15"), files[2])
    record = read_record(files[2])["grid"]
    assert record["rows"] == ["beta = 5", "beta = 15"] and [cell["recipe"]["beta"] for cell in record["cells"]] == [5, 15]
    assert str(files[0].parent) not in json.dumps(record)


@pytest.mark.parametrize("why", ["a-very-long-name-of-a-picture.jpg is damaged: image file is truncated", None])
def test_why_a_small_cell_is_missing_is_not_cut_off(why):
    drawn = np.asarray(module._missing(why, (32, 24)).convert("L")).astype(int)
    edge = np.concatenate([drawn[:3].ravel(), drawn[-3:].ravel(), drawn[:, :3].ravel(), drawn[:, -3:].ravel()])
    assert np.ptp(edge) == 0 < np.ptp(drawn)
    assert module._missing(why, (300, 200)).size == (300, 200)


def test_labels_show_pictures_and_stay_on_the_page(files):
    drawn = module._label(axis(["styles", str(files[1])])[0][0], 60)
    assert drawn.height > 60 and read_picture(drawn).image.mean() < 0.95
    long = module._label(Label("a label of very many words that has to be broken"), 60)
    assert long.width <= 100 and torch.tensor(long.size).min() > 10


# From the command line


def test_the_command_paints_prints_and_repeats(impasto, files, passes):
    args = ["grid", *files[:2], "-o", files[2], *OPTIONS, "--rows", "beta", 5, 15]
    first = impasto(*args)
    assert (first.returncode, first.stdout) == (0, f"{files[2]}\n") and "beta = 15 (2 of 2)" in first.stderr
    count = passes[0]
    report = json.loads(impasto(*args, "--json", "-q").stdout)
    assert passes[0] == count and [cell["recipe"]["beta"] for cell in report["cells"]] == [5, 15]
    assert all(Path(cell["output"]).exists() for cell in report["cells"])


def test_drafts_are_the_default_and_one_is_painted_fine(impasto, files):
    layers = ["--style-layers", "conv1_1", "--content-layers", "conv2_1", "--steps", 2, "--fine-steps", 1]
    args = ["grid", *files[:2], *layers, "--rows", "beta", 5, 15]
    report = json.loads(impasto(*args, "-o", files[2], "--json").stdout)
    assert {(cell["recipe"]["quality"], cell["recipe"]["size"]) for cell in report["cells"]} == {("draft", 256)}
    fine = files[2].with_name("fine.png")
    assert impasto(*args, "-o", fine, "--paint", "2,1", "--size", 64).stdout == f"{fine}\n"
    recipe = read_record(fine)["recipe"]
    assert (recipe["quality"], recipe["beta"], recipe["size"]) == ("fine", 15, 64)


def test_some_failed_is_exit_3_with_the_sheet(impasto, files):
    result = impasto("grid", files[0], "-o", files[2], *OPTIONS, "-q", "--columns", "styles", files[1], "absent.jpg")
    assert (result.returncode, result.stdout) == (3, f"{files[2]}\n") and "1 of 2 cells failed" in result.stderr
    assert files[2].exists() and len(result.stderr.strip().splitlines()) == 1


def test_ctrl_c_leaves_the_sheet_so_far(impasto, files, monkeypatch):
    whole = files[2].with_name("whole.png")
    args = ["grid", *files[:2], *OPTIONS, "--rows", "beta", 5, 15]
    assert impasto(*args, "-o", whole).returncode == 0
    steps = Painting.steps

    def interrupted(self, **options):
        for step in steps(self, **options):
            yield step
            if self.recipe.beta == 15 and step.i == 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Painting, "steps", interrupted)
        result = impasto(*args, "-o", files[2])
    assert (result.returncode, result.stdout) == (130, "") and "--resume" in result.stderr
    assert len(read_record(files[2])["grid"]["cells"]) == 1
    assert impasto(*args, "-o", files[2], "--resume").returncode == 0
    assert files[2].read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--rows", "brush", 1], 2, "there is no brush"),
        (["--rows", "beta", "x"], 2, "beta is 'x'"),
        ([], 2, "nothing to compare"),
        (["--rows", "beta", 1, "--figure", "style-layers"], 2, "give one or the other"),
        (["--rows", "beta", 1, "--paint", "3,3"], 2, "the cell is '3,3'"),
        (["--rows", "beta", 1, "--max-memory", "some"], 2, "a size like"),
    ],
)
def test_wrong_words_are_one_line_and_exit_2(impasto, files, args, code, said):
    check_one_line(impasto("grid", *files[:2], "-o", files[2], *args), code, said)


def test_a_sheet_that_cannot_be_written_is_exit_1(impasto, files):
    for output in (files[2].parent / "absent" / "out.png", files[2].with_suffix(".gif")):
        check_one_line(impasto("grid", *files[:2], "-o", output, "--rows", "beta", 1), 1, "cannot write")


def test_a_sheet_spares_the_pictures_it_is_painted_from(impasto, files):
    before = files[1].read_bytes()
    check_one_line(impasto("grid", files[0], "-o", files[1], "--rows", "styles", files[1]), 1, "one of the pictures to paint from")
    assert files[1].read_bytes() == before


def test_no_picture_at_all_is_exit_5(impasto, files):
    check_one_line(impasto("grid", "absent.jpg", files[1], "-o", files[2], "-q", "--rows", "beta", 1), 5, "absent.jpg")
