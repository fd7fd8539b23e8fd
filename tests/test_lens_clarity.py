"""Clarity: the task against a plain reading of it, chance, units whose score is known, and the file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.judge import judge_net, lpips
from impasto.errors import BadInput, BadRecipe, ImpastoWarning
from impasto.lens import clarity as clarities
from impasto.lens.clarity import (
    FILE,
    Clarity,
    Eye,
    answers,
    as_far_apart,
    chance_of,
    chosen_units,
    clarity_of,
    clearest,
    crops_of,
    draw_pool,
    interval,
    read_clarity,
    with_clarity,
    write_clarity,
)
from impasto.lens.index import layer_statistics, make_setup, read_index, unit_statistics
from impasto.lens.module import ModuleNet, module_net
from impasto.lens.patches import top
from impasto.lens.scan import scan
from impasto.nets.nets import Input
from impasto.weights import load_weights
from tests.conftest import damaged, picture, save

PLAIN = Input((0, 1, 2), 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def points(count: int, seed: int, at: float = 0.0) -> Tensor:
    return at + torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)).double()


# The task


def answers_one_by_one(strong: Tensor, weak: Tensor) -> Tensor:
    """answers, a question at a time, with the other patches written out."""

    def distance(one: Tensor, others: list[Tensor]) -> float:
        return sum(float((one - other).square().sum()) for other in others) / len(others)

    found = torch.empty(len(strong), len(weak)).double()
    for i, exciting in enumerate(strong):
        for j, dull in enumerate(weak):
            strong_ones = [it for n, it in enumerate(strong) if n != i]
            weak_ones = [it for n, it in enumerate(weak) if n != j]
            found[i, j] = distance(exciting, weak_ones) - distance(exciting, strong_ones)
            found[i, j] -= distance(dull, weak_ones) - distance(dull, strong_ones)
    return found


def test_the_task_is_that_of_a_plain_reading_of_it():
    strong, weak = points(4, 0), points(6, 1, 0.7)
    torch.testing.assert_close(answers(strong, weak), answers_one_by_one(strong, weak))


def test_few_numbers_are_as_far_apart_as_many():
    many = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)).double()
    few = as_far_apart(many)
    assert few.shape == (6, 6)
    torch.testing.assert_close(torch.cdist(few, few), torch.cdist(many, many))


def test_the_task_does_not_care_which_side_is_called_strong():
    strong, weak = points(4, 0), points(6, 1, 0.7)
    torch.testing.assert_close(answers(strong, weak), answers(weak, strong).T)


def test_patches_drawn_from_one_pool_score_a_half_and_patches_apart_score_one():
    slope, chance = chance_of(points(60, 2), seed=0)
    scores = [float((slope * answers(points(9, 10 + n), points(9, 500 + n))).sigmoid().mean()) for n in range(200)]
    assert np.mean(scores) == pytest.approx(0.5, abs=0.02)
    assert 0.9 < np.mean(np.array(scores) < chance) < 0.99
    assert float((slope * answers(points(9, 3), points(9, 4, 5.0))).sigmoid().mean()) > 0.999


def test_the_interval_is_as_wide_as_scores_vary():
    """1.96 standard deviations of the scores of many draws, on either side."""
    slope, _ = chance_of(points(60, 2), seed=0)
    every = torch.ones(9, 9, dtype=torch.bool)
    found = [interval(points(9, 1000 + n), points(9, 2000 + n, 0.5), slope, every) for n in range(100)]
    scores, lows, highs = map(np.array, zip(*found, strict=True))
    assert (lows <= scores).all() and (scores <= highs).all()
    assert np.mean(highs - lows) / (2 * 1.96 * scores.std()) == pytest.approx(1, abs=0.3)


@pytest.mark.weights
def test_embedded_pictures_are_as_far_apart_as_lpips_says():
    one, two, eye = picture(64, 64, 1), picture(64, 64, 2), Eye.load()
    embedded = eye.embed(torch.cat([one, two]))
    expected = lpips(one, two, judge_net(), load_weights("lpips").tensors)
    assert float((embedded[0] - embedded[1]).square().sum()) == pytest.approx(expected, rel=1e-4)


# Units whose score is known


class SeesColor:
    """An eye that sees nothing but the mean colour."""

    def embed_crops(self, crops: np.ndarray) -> Tensor:
        return torch.from_numpy(crops).double().mean((1, 2)) / 255


def net_of(units: list[tuple[tuple[float, float, float], float]]) -> ModuleNet:
    """A convolution of 1 x 1: a unit for each (weights of red, green and blue, bias), rectified."""
    conv = nn.Conv2d(3, len(units), 1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([weights for weights, _ in units])[..., None, None])
        conv.bias.copy_(torch.tensor([bias for _, bias in units]))
    return module_net(nn.Sequential(conv, nn.ReLU()), PLAIN, size=16, name="colors")


NET = net_of([((1, 0, 0), 0), ((0, 0, 0), 1), ((0, 0, 0), -1), ((0, 1, -1), 0)])  # red; constant; silent; green, not blue


def colored_scan(tmp_path: Path) -> Path:
    """A scan of forty pictures of 16 pixels, each of one random colour."""
    colors = torch.rand(40, 1, 3, 1, 1, generator=torch.Generator().manual_seed(3))
    (tmp_path / "set").mkdir()
    for n in range(40):
        save(tmp_path / "set" / f"{n:02}.png", colors[n].expand(1, 3, 16, 16))
    for _ in scan([tmp_path / "set"], NET, make_setup(NET, ["1"], size=16), tmp_path / "atlas"):
        pass
    return tmp_path / "atlas"


@pytest.fixture
def atlas(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(clarities.Eye, "load", SeesColor)
    return colored_scan(tmp_path)


def test_a_colour_is_clear_a_constant_unit_is_chance_and_a_silent_one_has_no_score(atlas):
    ((layer, found),) = clarity_of(atlas, NET)
    red, constant, silent, green = found.score
    assert layer == "1" and red > 0.9 and green > 0.9 and constant == 0.5 and silent is None
    assert found.chance < 0.8 and found.low[0] > found.chance and found.low[2] is found.high[2] is None
    assert clearest(found)[-1] == 1 and set(clearest(found)) == {0, 1, 3}


def test_one_seed_gives_one_clarity(atlas):
    one, again, other = (next(clarity_of(atlas, NET, seed=seed)) for seed in (1, 1, 2))
    assert one == again != other


def test_pictures_that_have_moved_are_an_error(atlas):
    for path in (atlas.parent / "set").iterdir():
        path.rename(path.with_suffix(".gone"))
    with pytest.raises(BadInput, match="have they moved"):
        next(clarity_of(atlas, NET))


def test_a_scan_of_few_pictures_is_an_error(tmp_path, atlas):
    for _ in scan([atlas.parent / "set" / "01.png"], NET, make_setup(NET, ["1"], size=16), tmp_path / "small"):
        pass
    with pytest.raises(BadInput, match="18 pictures or more"):
        next(clarity_of(tmp_path / "small", NET))


def test_crops_are_in_the_order_of_their_patches_also_where_a_picture_comes_twice_or_is_gone(atlas):
    """Each is the plain colour of its picture."""
    patches, values = draw_pool(atlas, read_index(atlas), NET, ["1"], 0)["1"]
    assert len({it.row.sha256 for it in patches}) < len(patches)
    Path(patches[3].row.source.path).unlink()
    with pytest.warns(ImpastoWarning, match="empty"):
        ranks, crops = crops_of({7: patches})[7]
    assert ranks == [n for n, it in enumerate(patches) if it.row.sha256 != patches[3].row.sha256]
    np.testing.assert_allclose(crops.mean((1, 2))[:, 0] / 255, values[ranks, 0], atol=0.01)  # unit 0 is the red of its place


@pytest.mark.filterwarnings("ignore::impasto.errors.ImpastoWarning")
def test_a_picture_that_is_gone_costs_no_more_than_its_patches(atlas):
    before = next(clarity_of(atlas, NET))[1].score[0]
    Path(top(atlas, "1", 0)[2].row.source.path).unlink()
    assert next(clarity_of(atlas, NET))[1].score[0] == pytest.approx(before, abs=0.1)


# The file


@pytest.fixture
def known(atlas) -> Clarity:
    found = Clarity([0.9, 0.5, None, 0.95], [0.8, 0.4, None, 0.9], [1.0, 0.6, None, 0.99], 0.7)
    write_clarity(atlas, {"1": found})
    return found


def test_what_is_written_is_read_and_shown(atlas, known):
    index = read_index(atlas)
    assert read_clarity(atlas, index) == {"1": known}
    rows = with_clarity(atlas, index, "1", unit_statistics(index, "1"))
    assert [row["clarity"] for row in rows] == known.score and rows[3]["clarity_low"] == 0.9
    assert with_clarity(atlas, index, None, layer_statistics(index))[0]["clarity"] == 0.9


def test_the_clearest_units_are_chosen(atlas, known):
    index = read_index(atlas)
    assert chosen_units(atlas, index, "1", "clearest", 0) == [3, 0, 1]
    assert chosen_units(atlas, index, "1", "clearest:2", 0) == [3, 0] and chosen_units(atlas, index, "1", "2,", 0) == [2]
    for wrong in ("clearest:0", "clearest:x", "clear"):
        with pytest.raises(BadRecipe):
            chosen_units(atlas, index, "1", wrong, 0)


def test_without_scores_no_unit_is_the_clearest(atlas):
    index = read_index(atlas)
    assert read_clarity(atlas, index) == {} and "clarity" not in with_clarity(atlas, index, "1", unit_statistics(index, "1"))[0]
    with pytest.raises(BadInput, match="impasto lens clarity"):
        chosen_units(atlas, index, "1", "clearest", 0)


def test_scores_of_another_scan_are_not_used(atlas, known):
    for _ in scan([atlas.parent / "set" / f"{n:02}.png" for n in range(30)], NET, make_setup(NET, ["1"], size=16), atlas):
        pass
    assert read_clarity(atlas, read_index(atlas)) == {}


def test_a_file_for_another_number_of_units_is_an_error(atlas, known):
    about = json.loads((atlas / FILE).read_text())
    about["layers"]["1"]["low"].pop()
    (atlas / FILE).write_text(json.dumps(about))
    with pytest.raises(BadInput, match="another number of units"):
        read_clarity(atlas, read_index(atlas))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_file_is_an_error_or_no_score(data):
    """Whatever stands in it: scores in [0, 1], none, or an error of ours."""
    whole = json.dumps({"index": "0" * 64, "layers": {"1": {"score": [0.5], "low": [0.4], "high": [0.6], "chance": 0.7}}}).encode()
    try:
        found = clarities.ClarityFile.model_validate_json(damaged(data, whole))
    except ValueError:
        return
    assert all(0 <= score <= 1 for layer in found.layers.values() for score in layer.score if score is not None)
