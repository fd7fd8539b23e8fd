"""`impasto lens` from outside, with the real AlexNet at a small size."""

import json
import subprocess
import sys
import tarfile

import pytest

from impasto.images.images import read_picture, read_record
from impasto.lens.view import view_of
from impasto.nets.geometry import field_of
from impasto.nets.nets import NETS
from impasto.pictures import photograph_folder
from tests.conftest import picture, save
from tests.test_cli import check_one_line, process

pytestmark = pytest.mark.weights
SMALL = ["--size", "96", "--layers", "conv1,relu5,conv3:pre"]


@pytest.fixture
def pictures(tmp_path):
    """Ten, in two folders, of several shapes; and one that is none."""
    for n in range(10):
        folder = tmp_path / "set" / "ab"[n % 2]
        folder.mkdir(parents=True, exist_ok=True)
        save(folder / f"{n}.png", picture(100 + 9 * n, 120, n))
    (tmp_path / "set" / "a" / "bad.png").write_bytes(b"none")
    return tmp_path / "set"


@pytest.fixture
def atlas(impasto, pictures, tmp_path):
    done = impasto("lens", "scan", pictures, "-o", tmp_path / "atlas", *SMALL, "-q")
    assert done.returncode == 0 and done.stdout.strip() == str(tmp_path / "atlas")
    assert done.stderr.splitlines() == [done.stderr.strip()] and "skipped: a/bad.png" in done.stderr
    return tmp_path / "atlas"


@pytest.mark.parametrize("interior", [False, True])
def test_top_prints_boxes_in_original_pixels(impasto, atlas, pictures, interior):
    """Each box again from the layer's field, the crop's offset and the resize."""
    said = json.loads(impasto("lens", "top", atlas, "--layer", "conv1", "--unit", 17, "--json", *["--interior"] * interior).stdout)
    assert list(said) == ["patches"] and len(said["patches"]) == 9
    field = field_of(NETS["alexnet"], "conv1")
    values = [patch["value"] for patch in said["patches"]]
    assert values == sorted(values, reverse=True) and len({patch["picture"] for patch in said["patches"]}) == 9
    for patch in said["patches"]:
        assert list(patch) == ["value", "picture", "y", "x", "box", "touches_padding"]
        height, width = read_picture(pictures / patch["picture"]).image.shape[-2:]
        resized_height, resized_width = view_of((height, width), 96, "center").resized
        assert min(resized_height, resized_width) == 96
        x0 = (patch["x"] * 4 - 2 + (resized_width - 96) // 2) * width / resized_width
        y0 = (patch["y"] * 4 - 2 + (resized_height - 96) // 2) * height / resized_height
        expected = [x0, y0, x0 + 11 * width / resized_width, y0 + 11 * height / resized_height]
        assert patch["box"] == pytest.approx(expected)
        assert patch["touches_padding"] == field.touches_padding(patch["y"], patch["x"], (96, 96))
        assert not (interior and patch["touches_padding"])


def test_a_layer_is_called_by_its_papers_names(impasto, atlas):
    one, other, third = (
        impasto("lens", "top", atlas, "--layer", layer, "--unit", 3, "--json").stdout for layer in ("conv5", "relu5", "conv3:pre")
    )
    assert one == other != third
    check_one_line(impasto("lens", "top", atlas, "--layer", "conv4", "--unit", 3), 2, "these were: conv1, conv3:pre, conv5")
    check_one_line(impasto("lens", "top", atlas, "--layer", "conv5", "--unit", 256), 2, "conv5 has the units 0 to 255")


def test_without_json_a_line_is_printed_for_each(impasto, atlas):
    assert len(impasto("lens", "top", atlas, "--layer", "conv5", "--unit", 3).stdout.splitlines()) == 9
    assert [line.split()[1] for line in impasto("lens", "units", atlas).stdout.splitlines()] == ["conv1", "conv3:pre", "conv5"]
    assert len(impasto("lens", "units", atlas, "--layer", "conv5").stdout.splitlines()) == 256


def test_units_tells_how_often_they_fire_and_which_are_dead(impasto, atlas):
    said = json.loads(impasto("lens", "units", atlas, "--json").stdout)
    units = json.loads(impasto("lens", "units", atlas, "--layer", "conv5", "--json").stdout)
    assert said["pictures"] == units["pictures"] == 10 and len(units["units"]) == 256
    assert said["layers"][2]["dead"] == sum(unit["fires"] == 0 for unit in units["units"])
    for unit in units["units"]:
        assert 0 <= unit["q50"] <= unit["q90"] <= unit["q99"] <= unit["largest"] and 0 <= unit["sees_padding"] <= 1


def test_values_come_again_from_the_pictures_themselves(impasto, atlas, pictures):
    done = impasto("lens", "check", atlas, "--units", "3", "--json", "--interior", "--layer", "conv1")
    patches = json.loads(done.stdout)["patches"]
    assert done.returncode == 0 and len(patches) == 27
    assert all({receipt["way"] for receipt in patch["receipts"]} == {"aligned", "exact"} for patch in patches)
    assert impasto("lens", "check", atlas, "--units", "2").returncode == 0
    save(pictures / "a" / "0.png", picture(100, 120, 55))
    check_one_line(impasto("lens", "check", atlas, "--units", "20", "--json"), 5, "a/0.png")


def test_scans_of_shards_merge_to_one_scan(impasto, pictures, tmp_path):
    for part in "ab":
        with tarfile.open(tmp_path / f"{part}.tar", "w") as tar:
            tar.add(pictures / part, part)
        impasto("lens", "scan", tmp_path / f"{part}.tar", "-o", tmp_path / part, *SMALL)
    impasto("lens", "scan", tmp_path / "b.tar", tmp_path / "a.tar", "-o", tmp_path / "both", *SMALL)
    done = impasto("lens", "merge", tmp_path / "b", tmp_path / "a", "-o", tmp_path / "merged")
    assert done.returncode == 0 and done.stdout.strip() == str(tmp_path / "merged")
    for name in ("index.safetensors", "manifest.jsonl"):
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "both" / name).read_bytes()
    check_one_line(impasto("lens", "merge", tmp_path / "a", tmp_path / "a", "-o", tmp_path / "x"), 5, "in two of the scans")
    check_one_line(impasto("lens", "merge", "-o", tmp_path / "x"), 2, "nothing to merge")


def test_a_scan_is_refused_in_one_line_where_it_cannot_be(impasto, pictures, atlas, tmp_path):
    check_one_line(impasto("lens", "scan", tmp_path / "nowhere", "-o", tmp_path / "x"), 5, "No such file")
    check_one_line(impasto("lens", "scan", pictures, "-o", tmp_path / "x", "--layers", "fc6"), 2, "its layers are conv1, pool1")
    check_one_line(impasto("lens", "scan", pictures, "-o", tmp_path / "x", "--size", "20"), 2, "too small, the map of")
    check_one_line(impasto("lens", "scan", pictures, "-o", atlas, "--resume"), 2, "a scan with other layers, size")
    check_one_line(impasto("lens", "top", tmp_path / "x", "--layer", "conv1", "--unit", 0), 5, "there is no finished scan in")
    assert impasto("lens", "scan", pictures, "-o", tmp_path / "x", "--k", "0").returncode == 2
    (tmp_path / "file").touch()
    check_one_line(impasto("lens", "scan", pictures, "-o", tmp_path / "file" / "x"), 1, "cannot make the folder")


def test_a_sheet_and_a_projection_are_written_and_say_what_they_show(impasto, atlas, pictures, tmp_path):
    sheet = impasto("lens", "sheet", atlas, "--layer", "conv5", "--units", "2", "--seed", "4", "-o", tmp_path / "sheet.png")
    assert sheet.stdout.strip() == str(tmp_path / "sheet.png") and not sheet.stderr
    assert read_record(tmp_path / "sheet.png")["lens"]["seed"] == 4
    args = [
        "lens",
        "project",
        pictures / "b" / "1.png",
        "--layer",
        "conv2",
        "--unit",
        "5",
        "--size",
        "96",
        "-o",
        tmp_path / "one.png",
    ]
    said = impasto(*args, "--json", "--rule", "guided")
    about = json.loads(said.stdout)
    assert about["rule"] == "guided" and about["layer"] == "conv2" and read_picture(tmp_path / "one.png").image.shape[1] == 3
    assert [f"{control['cosine']:.2f}" in said.stderr for control in about["controls"]] == [True, True]
    check_one_line(impasto(*args, "--place", "here"), 2, "must be y,x as 6,11")
    check_one_line(impasto(*args, "--place", "99,0"), 2, "the map of conv2 is")
    check_one_line(impasto(*args[:-1], tmp_path / "one.pdf"), 1, "the name must end in one of")


def test_help_does_not_load_torch():
    code = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); "
    code += "from impasto.cli.lens import lens_app; lens_app(['scan', '--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False" and "--per-image" in done.stdout


def test_a_scan_in_a_process_of_its_own_says_what_it_did(pictures, tmp_path):
    done = process("lens", "scan", pictures, "-o", tmp_path / "out", *SMALL)
    assert done.returncode == 0 and "scanned in" in done.stderr and ", 1 skipped" in done.stderr


def test_ctrl_c_is_130_and_says_how_to_go_on(impasto, pictures, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("impasto.lens.scan.scan", interrupted)
    stopped = impasto("lens", "scan", pictures, "-o", tmp_path / "out", *SMALL)
    assert stopped.returncode == 130 and "stopped: --resume continues" in stopped.stderr and not stopped.stdout


def test_units_get_clarity_and_words_that_stay_with_the_scan(impasto, tmp_path):
    photographs = sorted(photograph_folder().glob("*.jpg"))[:24]
    done = impasto("lens", "scan", *photographs, "-o", tmp_path / "atlas", "--size", "96", "--layers", "conv5", "-q")
    assert done.returncode == 0
    before = impasto("lens", "units", tmp_path / "atlas", "--layer", "conv5", "--json").stdout
    assert "word" not in json.loads(before)["units"][0]
    said = impasto("lens", "words", tmp_path / "atlas", "-q").stdout.splitlines()
    found = json.loads(impasto("lens", "words", tmp_path / "atlas", "--json", "-q").stdout)["layers"]["conv5"]
    named = {unit: word for unit, word in enumerate(found) if word}
    assert said[0] == f"conv5  {len(named)} of 256 units have a word"
    assert said[1:] == [f"conv5/{unit}  {word['text']} {word['count']} of {word['of']}" for unit, word in named.items()]
    units = json.loads(impasto("lens", "units", tmp_path / "atlas", "--layer", "conv5", "--json").stdout)["units"]
    assert [row["word"] for row in units] == [word and word["text"] for word in found]
