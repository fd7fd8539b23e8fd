"""Scans side by side: planted units whose strongest patches, places and orders are known."""

import itertools
import json
import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import kendalltau
from torch import nn

from impasto.errors import BadRecipe
from impasto.images.drawing import GAP, MARGIN, SMALL, TITLE, font
from impasto.images.images import read_record
from impasto.lens.comparison import CAPTION, HEAD, LABEL, Overlap, compare, overlap_text, rank_correlation
from impasto.lens.index import make_setup
from impasto.lens.module import module_net
from impasto.lens.patches import top
from impasto.lens.scan import scan
from impasto.lens.sheet import BLOCK, CELL
from impasto.nets.nets import INPUTS
from tests.conftest import check_one_line, save, tiny_net

RED, GREEN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


@pytest.fixture
def pictures(tmp_path):
    """Six black pictures, the red of a pixel rising from one to the next, the green of another falling."""
    (tmp_path / "set").mkdir()
    for n in range(6):
        image = torch.zeros(1, 3, 16, 16)
        image[0, 0, n, 2], image[0, 1, 9, n] = (n + 1) / 10, (6 - n) / 10
        save(tmp_path / "set" / f"{n}.png", image)
    return tmp_path / "set"


def looks_for(*colors, size: int = 1) -> nn.Module:
    """A module whose units are, at each place, so much of a picture's red, green and blue there."""
    conv = nn.Conv2d(3, len(colors), size, padding=size // 2)
    mean, std = (torch.tensor(values) for values in (INPUTS["torchvision"].mean, INPUTS["torchvision"].std))
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[:, :, size // 2, size // 2] = torch.tensor(colors) * std
        conv.bias.copy_((torch.tensor(colors) * mean).sum(1))
    return nn.Sequential(conv)


def scanned(module: nn.Module, pictures, folder, **options):
    net = module_net(module, size=16)
    for _ in scan([pictures], net, make_setup(net, ["0"], **{"size": 16} | options), folder):
        pass
    return folder


def common(about, atlas, unit):
    return next(it["in_common"] for it in about if it["atlas"] == str(atlas) and it["unit"] == unit)


def test_planted_units_have_in_common_what_was_planted(pictures, tmp_path):
    """Unit 0 grows and keeps its order, then turns from red to green; unit 1 never changes."""
    turns = [(RED, GREEN), ((3.0, 0.0, 0.0), GREEN), (GREEN, GREEN)]
    atlases = [scanned(looks_for(*colors), pictures, tmp_path / f"step-{n}") for n, colors in enumerate(turns)]
    figure, about = compare(atlases, ["0"], "all")
    assert [it["in_common"] for it in about[:2]] == [None, None] and [it["patches"] for it in about] == [6] * 6
    assert common(about, atlases[1], 0) == {"pictures": 6, "of_pictures": 6, "places": 6, "of_patches": 6, "order": 1.0}
    assert common(about, atlases[2], 0) == {"pictures": 6, "of_pictures": 6, "places": 0, "of_patches": 6, "order": -1.0}
    assert (
        common(about, atlases[1], 1)
        == common(about, atlases[2], 1)
        == {"pictures": 6, "of_pictures": 6, "places": 6, "of_patches": 6, "order": 1.0}
    )
    assert figure.width == 2 * MARGIN + LABEL + 2 * BLOCK + GAP


def test_short_lists_with_nothing_in_common(pictures, tmp_path):
    atlases = [scanned(looks_for(color), pictures, tmp_path / name, k=2) for name, color in (("red", RED), ("green", GREEN))]
    _, about = compare(atlases, ["0"], "0,")
    assert common(about, atlases[1], 0) == {
        "pictures": 0,
        "of_pictures": 2,
        "places": 0,
        "of_patches": 2,
        "order": pytest.approx(-2 / 3),
    }


def test_several_patches_of_a_picture_are_one_picture_and_several_places(pictures, tmp_path):
    image = torch.zeros(1, 3, 16, 16)
    image[0, 0, 3, 3], image[0, 0, 3, 12], image[0, 1, 12, 12] = 0.9, 0.8, 0.7
    (tmp_path / "one").mkdir()
    save(tmp_path / "one" / "spots.png", image)
    colors = {"red": RED, "both": (1.0, 1.0, 0.0)}
    atlases = [scanned(looks_for(color), tmp_path / "one", tmp_path / name, k=2, per_image=2) for name, color in colors.items()]
    _, about = compare(atlases, ["0"], "0,")
    assert common(about, atlases[1], 0) == {"pictures": 1, "of_pictures": 1, "places": 2, "of_patches": 2, "order": None}


def test_nets_with_other_fields_have_no_places_in_common(pictures, tmp_path):
    atlases = [scanned(looks_for(RED, size=size), pictures, tmp_path / f"size-{size}") for size in (1, 3)]
    _, about = compare(atlases, ["0", "0"], "0,", interior=False)
    assert common(about, atlases[1], 0) == {"pictures": 6, "of_pictures": 6, "places": None, "of_patches": 6, "order": 1.0}


def test_scans_of_other_pictures_have_no_order(pictures, tmp_path):
    one = scanned(looks_for(RED), pictures, tmp_path / "one")
    shutil.copytree(pictures, tmp_path / "fewer", ignore=shutil.ignore_patterns("0.png"))
    _, about = compare([one, scanned(looks_for(RED), tmp_path / "fewer", tmp_path / "other")], ["0"], "0,")
    assert common(about, tmp_path / "other", 0) == {"pictures": 5, "of_pictures": 6, "places": 5, "of_patches": 6, "order": None}


def test_a_silent_unit_has_nothing_in_common_with_itself(pictures, tmp_path):
    """Its patches would be the first pictures of the set, whatever they show."""
    atlases = [scanned(looks_for((0.0, 0.0, 0.0)), pictures, tmp_path / name) for name in ("a", "b")]
    _, about = compare(atlases, ["0"], "0,")
    assert common(about, atlases[1], 0) == {"pictures": 0, "of_pictures": 0, "places": 0, "of_patches": 0, "order": None}


def test_each_row_shows_its_own_patches(pictures, tmp_path):
    atlases = [scanned(looks_for(color, size=3), pictures, tmp_path / name) for name, color in (("red", RED), ("green", GREEN))]
    page = np.asarray(compare(atlases, ["0"], "0,")[0]).astype(int)
    for n, atlas in enumerate(atlases):
        patch = top(atlas, "0", 0)[1]
        assert not patch.touches_padding
        y = MARGIN + TITLE + 20 + HEAD + n * (CAPTION + BLOCK + GAP) + CAPTION
        x = MARGIN + LABEL + CELL + 2
        seen = Image.open(patch.row.source.path).resize((CELL, CELL), Image.Resampling.LANCZOS, patch.box)
        assert np.abs(page[y : y + CELL, x : x + CELL] - np.asarray(seen)).max() <= 1


def test_the_rank_correlation_of_whole_orders_is_kendalls():
    for seed in range(5):
        one = [str(n) for n in range(9)]
        other = random.Random(seed).sample(one, 9)
        assert rank_correlation(one, other) == pytest.approx(kendalltau(range(9), [other.index(key) for key in one]).statistic)


def test_the_rank_correlation_of_top_lists_is_that_of_fagin_kumar_and_sivakumar():
    """Their four cases, counted one by one: 1 - 2 K / pairs with penalty 1/2 where one list says nothing."""

    def penalty(one, other, i, j):
        both = [i in it and j in it for it in (one, other)]
        if all(both):
            return float((one.index(i) < one.index(j)) != (other.index(i) < other.index(j)))
        if any(both):
            whole, part = (one, other) if both[0] else (other, one)
            if i not in part and j not in part:
                return 0.5
            first = min((i, j), key=whole.index)
            return float(first not in part)
        return 1.0

    for seed in range(20):
        draw = random.Random(seed)
        one, other = (draw.sample("abcdefgh", 4) for _ in range(2))
        pairs = list(itertools.combinations(sorted({*one, *other}), 2))
        expected = 1 - 2 * sum(penalty(one, other, *pair) for pair in pairs) / len(pairs)
        assert rank_correlation(one, other) == pytest.approx(expected)


def test_what_does_not_fit_together_gives_an_error(pictures, tmp_path):
    one = scanned(looks_for(RED), pictures, tmp_path / "one")
    with pytest.raises(BadRecipe, match="there are 1 scans and 1 layers: give at least two scans"):
        compare([one], ["0"])
    with pytest.raises(BadRecipe, match="there are 3 scans and 2 layers"):
        compare([one, one, one], ["0", "0"])
    with pytest.raises(BadRecipe, match="layer 'conv1' was not scanned, these were: 0"):
        compare([one, one], ["0", "conv1"])
    with pytest.raises(BadRecipe, match="of units 0 to 0"):
        compare([one, scanned(looks_for(RED, GREEN), pictures, tmp_path / "two")], ["0"], "1,")


def test_the_command_draws_two_nets_and_says_what_they_share(impasto, pictures, tmp_path):
    own = scanned(looks_for(RED, GREEN), pictures, tmp_path / "own")
    net = tiny_net()
    for _ in scan([pictures], net, make_setup(net, ["conv1_1"], size=16), tmp_path / "tiny"):
        pass
    out = tmp_path / "rows.png"
    ran = impasto("lens", "compare", own, tmp_path / "tiny", "--layer", "0,conv1_1", "--units", "0,1", "-o", out, "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert [(it["net"], it["layer"], it["unit"]) for it in told["scans"]] == [
        ("Sequential", "0", 0),
        ("Sequential", "0", 1),
        ("tiny", "conv1_1", 0),
        ("tiny", "conv1_1", 1),
    ]
    assert read_record(out)["lens"] == {"scans": told["scans"]}
    ran = impasto("lens", "compare", own, tmp_path / "tiny", "--layer", "0,conv1_1", "--units", "2", "-o", out)
    assert ran.stdout.strip() == str(out)
    check_one_line(impasto("lens", "sheet", own, "--layer", "0", "-o", out), 2, "Sequential is not a built-in net: use your module")
    check_one_line(impasto("lens", "compare", own, "--layer", "0", "-o", out), 2, "give at least two scans")


def test_the_caption_is_no_wider_than_its_block():
    """With the longest numbers that nine patches can have."""
    text = overlap_text(Overlap(9, 9, 9, 9, -0.55))
    assert font(SMALL).getlength(text) <= BLOCK
