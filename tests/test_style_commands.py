"""`impasto style` and `--style-edit` from outside, with the real AlexNet at a small size."""

import json

import pytest

from impasto.images.images import read_picture, read_record, resize, scaled_size
from impasto.nets.nets import INPUTS, build_net, features
from impasto.objective.losses import mean_gram
from impasto.weights import load_weights
from tests.conftest import check_one_line, picture, save

pytestmark = pytest.mark.weights
SMALL = ["--net", "alexnet", "--size", "64", "--layers", "conv1,conv2", "-q"]
SMALL_READ = ["style", "read", *SMALL, "-o"]
TRANSFER = ["--net", "alexnet", "--size", "64", "--steps", "2", "--fine-steps", "2", "-q"]


@pytest.fixture
def painting(tmp_path):
    return save(tmp_path / "painting.png", picture(70, 90, 1))


@pytest.fixture
def photo(tmp_path):
    return save(tmp_path / "photo.png", picture(60, 80, 2))


@pytest.fixture
def read(impasto, painting, photo, tmp_path):
    done = impasto("style", "read", painting, "-o", tmp_path / "style", "--against", photo, *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_style_is_read_as_the_activations_are(read, painting, tmp_path):
    loaded = load_weights("alexnet")
    net = build_net("alexnet", loaded.tensors, INPUTS[loaded.input])
    image = read_picture(painting).image
    gram = mean_gram(features(net, resize(image, scaled_size(image, 64)), ["conv2"])["conv2"].double())[0]
    told = read["layers"][1]
    assert (read["net"], read["size"], told["layer"], len(told["units"])) == ("alexnet", 64, "conv2", 192)
    for it in told["units"]:
        assert it["value"] == pytest.approx(float(gram[it["unit"], it["unit"]]), rel=1e-6)
    for it in told["pairs"]:
        assert it["value"] == pytest.approx(float(gram[it["i"], it["j"]]), rel=1e-6)
    assert (tmp_path / "style/index.html").is_file() and (tmp_path / "style/style-edit.toml").is_file()


def test_the_edit_that_was_read_paints_and_lies_in_the_painting(impasto, read, painting, photo, tmp_path):
    file, out = tmp_path / "style/style-edit.toml", tmp_path / "out.png"
    file.write_text(file.read_text().replace("[conv1]", "[conv1]\npaintings = [1]").replace("gain = 1.0", "gain = 0.5", 1))
    knobs = [*TRANSFER, "--style-layers", "conv1=1,conv2=1", "--style-edit", file]
    done = impasto("transfer", photo, painting, "-o", out, *knobs)
    assert done.returncode == 0, done.stderr
    assert read_record(out)["recipe"]["style_edit"]["conv1"]["gain"] == 0.5
    again = tmp_path / "again.png"
    file.unlink()
    assert impasto("transfer", photo, painting, "-o", again, "--like", out, "-q").returncode == 0
    assert again.read_bytes() == out.read_bytes()


def test_what_remains_is_what_transfer_reports(impasto, painting, photo, tmp_path):
    out = tmp_path / "out.png"
    report = json.loads(impasto("transfer", photo, painting, "-o", out, *TRANSFER, "--calm", "0", "--json").stdout)
    done = impasto("style", "compare", painting, photo, "--generated", out, "-o", tmp_path / "figure.png", "--json")
    assert done.returncode == 0 and "calm" not in done.stderr, done.stderr
    about = json.loads(done.stdout)
    assert about["generated"]["style"] == pytest.approx(report["costs"]["style"], rel=1e-5)
    for layer in about["generated"]["layers"]:
        assert layer["cost"] * 4 == pytest.approx(report["costs"]["style_layers"][layer["layer"]], rel=1e-5)
    assert (tmp_path / "figure.png").is_file()


def test_what_calm_left_out_is_said(impasto, painting, photo, tmp_path):
    out = tmp_path / "out.png"
    impasto("transfer", photo, painting, "-o", out, *TRANSFER, "--calm", "0.5")
    done = impasto("style", "compare", painting, photo, "--generated", out, "-o", tmp_path / "figure.png")
    assert done.returncode == 0 and "out.png was painted with calm 0.5, but here" in done.stderr


def test_wrong_inputs_end_with_one_line_and_their_code(impasto, painting, photo, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"none")
    read = ["style", "read", "-o", tmp_path / "out", *SMALL]
    check_one_line(impasto(*read, bad), 5, "is no picture")
    check_one_line(impasto(*read, painting, "--against", tmp_path / "nowhere"), 5, "there is no folder")
    check_one_line(impasto(*read, painting, "--atlas", tmp_path), 5, "no finished scan")
    nowhere = ["style", "read", "-o", tmp_path / "out", "--net", "alexnet", "--layers", "conv9", "-q"]
    check_one_line(impasto(*nowhere, painting), 2, "no layer 'conv9'")
    check_one_line(impasto(*SMALL_READ, tmp_path, painting), 1, "something other than a page of style read")
    check_one_line(impasto(*SMALL_READ, painting, painting), 1, "is a file")
    check_one_line(impasto("style", "compare", painting, bad, "--net", "alexnet"), 5, "is no picture")
    check_one_line(impasto("style", "compare", painting, photo, "-o", tmp_path / "a.gif"), 1, "the name must end in")
    transfer = ["transfer", photo, painting, "-o", tmp_path / "x.png", *TRANSFER]
    check_one_line(impasto(*transfer, "--style-edit", tmp_path / "none.toml"), 2, "cannot read the style edit")
    edit = tmp_path / "edit.toml"
    edit.write_text("[conv1.units]\n64 = 2\n")
    check_one_line(impasto(*transfer, "--style-edit", edit), 2, "unit 64 of conv1, which has the units 0 to 63")
