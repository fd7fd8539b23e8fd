"""A style shown: what page, object and edit file say is what style.py found, and the file changes nothing until it is changed."""

import base64
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from impasto.errors import BadRecipe, CannotWrite
from impasto.files import read_toml
from impasto.lens.index import make_setup
from impasto.lens.scan import scan
from impasto.lens.style import page
from impasto.lens.style.reading import cross, division, photograph_values, place_map, read_style
from impasto.lens.style.words import color_name, described, whereabouts
from impasto.recipe.recipe import make_recipe
from tests.conftest import picture, save, tiny_net

LAYERS = ["conv1_1", "conv2_1"]
NET = tiny_net()


def make_style_page(folder: Path, name: str = "</script><b>0</b>.png", atlas: bool = True) -> Path:
    """The page of a small painting whose name would be markup, with a scan of four pictures."""
    folder.mkdir(exist_ok=True)
    for n in range(4):
        (folder / "set").mkdir(exist_ok=True)
        save(folder / "set" / f"{n}.png", picture(36, 44, 20 + n))
    for _ in scan([folder / "set"], NET, make_setup(NET, ["conv1_1"], size=32), folder / "scan"):
        pass
    image = picture(48, 64, 3)
    painting = page.StylePicture(image, name, "0" * 64, NET, "max")
    styles = list(read_style(image, NET, LAYERS, photograph_values([picture(48, 64, 9)], NET, LAYERS, 64)))
    divided = division(image, styles, NET)
    reading = page.Reading(painting, styles, divided, "two photographs", 64)
    assert page.write_page(folder / "page", reading, folder / "scan" if atlas else None)
    (folder / "said.json").write_text(json.dumps(page.to_json(reading)))
    return folder / "page"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_style_page(tmp_path_factory.mktemp("style"))


def layer(made: Path, n: int) -> dict:
    text = (made / f"parts/{n:02}.js").read_text()
    lines = re.fullmatch(rf"arrived\({n}, Object.assign\(\n(.*)\)\);\n", text, re.DOTALL)[1]
    return {key: value for part in json.loads(f"[{lines}]") for key, value in part.items()}


def kept_map(made: Path, n: int, unit: int, about: dict) -> np.ndarray:
    text = re.fullmatch(rf'mapped\({n}, {unit}, "(.*)"\);\n', (made / f"parts/{n:02}-map-{unit}.js").read_text())[1]
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<f4").reshape(about["height"], about["width"])


def test_the_maps_of_the_page_sum_to_the_entries_that_it_tells(made):
    for n in range(2):
        about = layer(made, n)
        for pair, told in about["pairs"].items():
            i, j = map(int, pair.split("&"))
            product = kept_map(made, n, i, about).astype(float) * kept_map(made, n, j, about).astype(float)
            assert product.sum() == pytest.approx(told["value"] * about["height"] * about["width"], rel=1e-6)


def test_every_file_that_the_page_names_is_there(made):
    for n in range(2):
        about = layer(made, n)
        listed = {
            *about["byValue"],
            *about["byLift"],
            *(unit for pairs in about["lists"].values() for pair in pairs for unit in pair),
        }
        assert {int(unit) for unit in about["units"]} == listed
        for unit, told in about["units"].items():
            names = [
                f"{n:02}-own-{unit}.webp",
                f"{n:02}-where-{unit}-{unit}.webp",
                f"{n:02}-map-{unit}.js",
                *[told["nine"]] * bool(told["nine"]),
            ]
            assert all((made / "parts" / name).is_file() for name in names) and (told["nine"] is not None) == (n == 0)
        for pairs in about["lists"].values():
            assert all((made / f"parts/{n:02}-{kind}-{i}-{j}.webp").is_file() for i, j in pairs for kind in ("where", "own"))
        assert all((made / f"parts/{n:02}-direction-{k}.webp").is_file() for k in range(len(about["directions"])))


def test_the_object_has_every_unit_the_largest_first(made):
    said = json.loads((made.parent / "said.json").read_text())
    assert (said["net"], said["size"], [it["layer"] for it in said["layers"]]) == ("tiny", 64, LAYERS)
    maps = next(iter(read_style(picture(48, 64, 3), NET, ["conv2_1"], {"conv2_1": torch.ones(6)}))).maps
    gram = cross(maps, maps) / maps[0].numel()
    told = said["layers"][1]
    assert sorted(it["unit"] for it in told["units"]) == list(range(6))
    assert [it["value"] for it in told["units"]] == sorted((float(v) for v in gram.diagonal()), reverse=True)
    for pair in told["pairs"]:
        assert pair["value"] == pytest.approx(float(gram[pair["i"], pair["j"]]), rel=1e-12)
        assert pair["value"] * maps[0].numel() == pytest.approx(float(place_map(maps, pair["i"], pair["j"]).sum()), rel=1e-9)
    assert [it["value"] for it in told["pairs"]] == sorted((it["value"] for it in told["pairs"]), reverse=True)
    assert all(it["correlation"] > it["chance"] for it in told["together"]) and 0 < told["directions"][0]["share"] <= 1


def test_the_edit_to_start_from_names_what_was_shown_and_changes_nothing(made):
    file = made / page.EDIT
    recipe = make_recipe(content_layers={}, alpha=0, style_layers=dict.fromkeys(LAYERS, 1.0), style_edit=str(file))
    for edit in recipe.style_edit.values():
        assert edit.gain == edit.weight == 1 and edit.units and edit.directions
        assert all(part.gain == part.weight == 1 for part in (*edit.units.values(), *edit.pairs.values()))
        assert all(direction.gain == 1 for direction in edit.directions)
    names = [name for it in read_toml(file, "style edit").values() for name in it["units"]]
    assert all(re.match(r"\d+ \w+.*, \w+", name) for name in names)


def test_an_edit_changed_by_hand_stays(made):
    file = made / page.EDIT
    before = file.read_text()
    assert not page.write_edit(file, "other") and file.read_text() == before


def test_a_page_takes_over_no_folder_of_yours_and_no_other_nets_scan(tmp_path):
    save(tmp_path / "mine.png", picture(20, 20))
    with pytest.raises(CannotWrite, match="something other than a page of style read"):
        page.write_page(tmp_path, empty_reading(tiny_net()))
    for _ in scan([tmp_path], NET, make_setup(NET, ["conv1_1"], size=16), tmp_path / "scan"):
        pass
    other = tiny_net()
    other.convs[0].weight.mul_(2)
    with pytest.raises(BadRecipe, match="another weights"):
        page.write_page(tmp_path / "new", empty_reading(other), tmp_path / "scan")


def empty_reading(net) -> page.Reading:
    return page.Reading(page.StylePicture(picture(48, 64), "a", "0", net, "max"), [], {}, "", 64)


def test_a_spotlight_shows_the_painting_where_the_map_is():
    image, where = picture(60, 90), torch.zeros(6, 9)
    where[:, :4] = 1
    shown = np.asarray(page.spotlight(image, where)).astype(float) / 255
    painting = image[0].permute(1, 2, 0).numpy()
    assert np.abs(shown[:, :100].mean((0, 1)) - painting[:, :30].mean((0, 1))).max() < 0.03
    assert np.ptp(shown[:, 220:], axis=2).max() < 0.02 and shown[:, 220:].mean() > 0.85


def test_a_flat_picture_has_a_page_too(tmp_path):
    image, silent = torch.full((1, 3, 40, 40), 0.4), tiny_net()
    for conv in silent.convs:
        conv.bias.fill_(-100.0)
    for net in (NET, silent):
        painting = page.StylePicture(image, "flat.png", "0", net, "max")
        styles = list(read_style(image, net, LAYERS, photograph_values([picture(48, 64, 9)], net, LAYERS, 40)))
        reading = page.Reading(painting, styles, division(image, styles, net), "one photograph", 40)
        assert page.write_page(tmp_path / str(net is NET), reading)
        json.dumps(page.to_json(reading), allow_nan=False)


# Words


def flat(*color: int) -> torch.Tensor:
    return (torch.tensor(color) / 255).view(3, 1, 1).expand(3, 12, 12)


def lines(down: int, across: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    return (0.5 + 0.4 * torch.sin((down * y + across * x) * 0.8)).expand(3, 16, 16)


def test_colours_are_called_what_a_person_calls_them():
    for name, color in (
        ("orange", (230, 125, 40)),
        ("dark blue", (25, 42, 90)),
        ("white", (250, 250, 250)),
        ("green", (70, 150, 60)),
    ):
        assert color_name(torch.tensor(color) / 255) == name
    assert described([flat(30, 45, 85)]) == "dark blue, smooth"
    halves = torch.cat([flat(30, 45, 85), flat(236, 222, 190)], 2)
    assert described([halves]) == "dark blue on cream, broad upright lines" and described([]) == "no patch"


def test_the_description_says_how_broad_lines_are():
    y = torch.arange(24.0)[:, None].expand(3, 24, 24)
    for wavelength, said in ((5, "fine level lines"), (11, ", level lines"), (40, "broad level lines")):
        assert said in described([0.5 + 0.4 * torch.sin(2 * torch.pi * y / wavelength)])


@pytest.mark.parametrize(("slope", "said"), [((1, 0), "level"), ((0, 1), "upright"), ((1, 1), "rising"), ((-1, 1), "falling")])
def test_the_description_names_the_direction_of_lines_as_one_sees_them(slope, said):
    """Along y + x = constant lines rise to the right, as y counts down."""
    assert described([lines(*slope)]).endswith(f"{said} lines")


def test_noise_has_no_direction():
    noise = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert described([noise]).endswith("mottled")


def test_the_description_says_where_something_is():
    for said, rows, columns in (
        ("upper left", (0, 5), (0, 5)),
        ("lower", (14, 20), (0, 20)),
        ("middle", (8, 12), (8, 12)),
        ("right", (0, 20), (15, 20)),
    ):
        where = torch.zeros(20, 20)
        where[slice(*rows), slice(*columns)] = 1.0
        assert whereabouts(where) == said
    assert whereabouts(torch.ones(7, 9)) == "all over" and whereabouts(torch.zeros(7, 9)) == "upper left"
