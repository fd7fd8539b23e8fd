"""Masks: from files, from the picture, and what the places of a layer weigh for them."""

import numpy as np
import pytest
import torch
from PIL import Image

from impasto.errors import BadImage, BadRecipe, ImpastoWarning
from impasto.images.images import read_picture
from impasto.objective.color import luminance
from impasto.objective.masks import (
    FAINT,
    busyness,
    calmness,
    color_parts,
    made_mask,
    make_mask,
    mask_of,
    place_weights,
    read_mask,
    read_masks,
    shares,
    soften,
    threshold,
)
from impasto.recipe.recipe import PROTECTED, checked_recipe, make_recipe
from tests.conftest import picture

CONTENT, STYLE = picture(24, 32), picture(40, 30, 1)


def left_half(height: int = 24, width: int = 32) -> torch.Tensor:
    mask = torch.zeros(1, 1, height, width)
    mask[..., : width // 2] = 1
    return mask


def write(path, mask: torch.Tensor):
    Image.fromarray((mask[0, 0] * 255).byte().numpy()).save(path)
    return str(path)


def test_places_weigh_by_the_area_of_the_mask_in_them():
    mask = torch.rand(1, 1, 8, 12, generator=torch.Generator().manual_seed(0))
    weights = place_weights(mask, (4, 3))
    expected = mask.view(4, 2, 3, 4).mean((1, 3))
    torch.testing.assert_close(weights, expected / expected.sum())
    assert float(weights.sum()) == pytest.approx(1)


def test_a_mask_is_read_by_its_light_and_its_alpha_and_brought_to_size(tmp_path):
    mask, sha = read_mask(tmp_path / write(tmp_path / "m.png", left_half(48, 64)), (24, 32))
    torch.testing.assert_close(mask[..., [0, 5, 25, 31]], torch.tensor([1.0, 1, 0, 0]).expand(1, 1, 24, 4), atol=0.01, rtol=0)
    assert len(sha) == 64
    clear = np.full((24, 32, 4), 255, np.uint8)
    clear[:, 16:, 3] = 0
    Image.fromarray(clear).save(tmp_path / "alpha.png")
    assert torch.equal(read_mask(tmp_path / "alpha.png", (24, 32))[0], left_half())


def test_a_mask_of_another_shape_is_refused(tmp_path):
    with pytest.raises(BadImage, match="32 x 24 pixels, its picture 24 x 32: the shapes differ"):
        read_mask(tmp_path / write(tmp_path / "m.png", left_half()), (32, 24))
    read_mask(tmp_path / write(tmp_path / "m.png", left_half(47, 64)), (24, 32))  # rounded by an editor


def test_otsus_threshold_parts_two_levels():
    grey = torch.cat([torch.full((1, 1, 4, 6), 0.2), torch.full((1, 1, 4, 3), 0.7)], 3) + 0.02 * torch.rand(1, 1, 4, 9)
    assert float(grey[..., :6].max()) <= threshold(grey) <= 0.7
    assert torch.equal(made_mask("light", grey.expand(1, 3, 4, 9)), 1 - made_mask("dark", grey.expand(1, 3, 4, 9)))


def test_clusters_are_the_planted_colours_the_darkest_first():
    colors = torch.tensor([[0.9, 0.9, 0.1], [0.1, 0.1, 0.2], [0.2, 0.6, 0.3]])
    planted = torch.tensor([0, 1, 2, 1, 0, 2, 2, 0])
    image = colors[planted].T.view(1, 3, 1, 8).expand(1, 3, 5, 8) + 0.01 * torch.rand(1, 3, 5, 8)
    found = color_parts(image, 3)[0, 0]
    assert torch.equal(found, torch.tensor([2, 0, 1])[planted].expand(5, 8))
    assert torch.equal(made_mask("k-means 3 of 3", image), (planted == 0).expand(1, 1, 5, 8).float())
    order = [float(luminance(image, "yiq")[0, 0][found == n].mean()) for n in range(3)]
    assert order == sorted(order)


def test_a_made_mask_has_the_pictures_size_and_soft_edges():
    mask = make_mask("light", picture(400, 300), 0.02)
    assert mask.shape == (1, 1, 400, 300) and 0 < float(((mask > 0.1) & (mask < 0.9)).float().mean()) < 0.5
    for wrong in ("rest", "sky.png"):
        with pytest.raises(BadRecipe, match="must be light, dark or one part by colour"):
            make_mask(wrong, CONTENT, 0)


@pytest.mark.parametrize("mask", ["k-means 0 of 3", "k-means 4 of 3", "k-means 1 of 1", "k-means 1 of 99"])
def test_parts_that_there_are_not_are_refused(mask):
    with pytest.raises(BadRecipe, match="one part of 2 to 16"):
        made_mask(mask, CONTENT)


def test_a_feathered_edge_is_soft_and_keeps_the_area():
    mask = soften(left_half(), 0.1)
    row = mask[0, 0, 12]
    assert (row.diff() <= 1e-6).all() and row[0] > 0.99 and row[-1] < 0.01 and 0.2 < row[15] < 0.8
    assert float(mask.mean()) == pytest.approx(0.5, abs=1e-3)
    assert torch.equal(soften(left_half(), 0), left_half())


def test_where_masks_overlap_they_share():
    found = shares({"a": left_half(), "b": torch.ones(1, 1, 24, 32), "c": 0.25 * left_half()})
    total = sum(found.values())
    torch.testing.assert_close(total, torch.ones(1, 1, 24, 32))
    torch.testing.assert_close(found["a"][..., :16], torch.full((1, 1, 24, 16), 1 / 2.25))
    few = {"a": 0.3 * left_half()}
    assert torch.equal(shares(few)["a"], few["a"])


def test_the_rest_is_what_is_left_and_protection_comes_first(tmp_path):
    face = torch.zeros(1, 1, 24, 32)
    face[..., 8:16, 8:24] = 1
    regions = {"sea": {"mask": write(tmp_path / "sea.png", left_half()), "feather": 0}, "sky": {"mask": "rest"}}
    recipe = make_recipe(regions=regions, protect=write(tmp_path / "face.png", face))
    masks = read_masks(recipe, CONTENT, [STYLE]).content
    assert set(masks) == {"sea", "sky", PROTECTED}
    torch.testing.assert_close(sum(masks.values()), torch.ones(1, 1, 24, 32))
    assert float(masks[PROTECTED][0, 0, 12, 16]) > 0.95
    assert float(masks["sea"][0, 0, 12, 12]) < 0.05 < float(masks["sea"][0, 0, 2, 2])


def test_two_rests_an_empty_mask_and_a_missing_one_give_errors(tmp_path):
    with pytest.raises(BadRecipe, match="the regions a and b both have the mask"):
        read_masks(make_recipe(regions={"a": {"mask": "rest"}, "b": {"mask": "rest"}}), CONTENT, [STYLE])
    black = write(tmp_path / "black.png", torch.zeros(1, 1, 24, 32))
    with pytest.raises(BadImage, match="region sky is black everywhere"):
        read_masks(make_recipe(regions={"sky": {"mask": black}}), CONTENT, [STYLE])
    with pytest.raises(BadImage, match=r"none\.png"):
        read_masks(make_recipe(protect=str(tmp_path / "none.png")), CONTENT, [STYLE])
    assert FAINT < 0.01


def test_a_part_of_a_painting_asks_for_the_painting():
    recipe = make_recipe(regions={"sky": {"mask": "light", "style_mask": "dark"}})
    assert set(read_masks(recipe, CONTENT, [STYLE]).style) == {"sky"}
    with pytest.raises(BadRecipe, match="sky has a style_mask, so it needs style, the number of its style picture from 1 to 2"):
        read_masks(recipe, CONTENT, [STYLE, STYLE])


def test_the_record_names_no_file_and_asks_for_it_again(tmp_path):
    mask = write(tmp_path / "sky.png", left_half())
    recipe = make_recipe(regions={"sky": {"mask": mask}, "land": {"mask": "dark"}}, protect=mask)
    record = recipe.model_dump(mode="json")
    assert str(tmp_path) not in str(record) and record["regions"]["land"]["mask"] == "dark"
    assert read_masks(recipe, CONTENT, [STYLE]).hashes.keys() == {"sky", PROTECTED}
    with pytest.raises(BadRecipe, match="does not contain the mask file of the region sky: give the file of regions again"):
        read_masks(checked_recipe({**record, "protect": ""}), CONTENT, [STYLE])


def test_masks_in_a_file_of_regions_lie_beside_it(tmp_path):
    write(tmp_path / "sky.png", left_half())
    (tmp_path / "r.toml").write_text('[sky]\nmask = "sky.png"\nstyle_mask = "light"\n[land]\nmask = "rest"\n')
    recipe = make_recipe(regions=str(tmp_path / "r.toml"))
    assert recipe.mask_files() == {"sky": tmp_path / "sky.png"}
    masks = read_masks(recipe, CONTENT, [STYLE])
    assert set(masks.content) == {"sky", "land"} and set(masks.style) == {"sky"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[sky]\n", "regions.sky.mask"),
        ('[sky]\nmask = "x.png"\nstyle = 0\n', "regions.sky.style"),
        ('[sky]\nmask = "x.png"\ncolour = 1\n', "colour"),
        ('[sky]\nmask = "x.png"\ncolor = "sepia"\n', "regions.sky.color is 'sepia'"),
        ("sky = 3\n", "regions.sky"),
        ("[sky\n", "cannot read the regions"),
        ('[protected]\nmask = "dark"\n', "cannot be called protected"),
    ],
)
def test_a_wrong_file_of_regions_gives_an_error(tmp_path, text, said):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(BadRecipe, match=said):
        make_recipe(regions=str(tmp_path / "r.toml"))


def test_white_on_transparent_is_as_white_on_black(tmp_path):
    white = np.full((24, 32, 4), 255, np.uint8)
    white[:, 16:, 3] = 0
    Image.fromarray(white).save(tmp_path / "m.png")
    for keep_hidden in (False, True):
        assert torch.equal(mask_of(read_picture(tmp_path / "m.png", keep_hidden)), left_half())


def test_a_mask_of_ones_instead_of_white_gives_a_warning(tmp_path):
    Image.fromarray(left_half()[0, 0].byte().numpy()).save(tmp_path / "m.png")
    with pytest.warns(ImpastoWarning, match=r"the brightest value of the mask .*m\.png is 1 of 255"):
        read_mask(tmp_path / "m.png", (24, 32))
    recipe = make_recipe(regions={"sky": {"mask": write(tmp_path / "black.png", 0 * left_half())}})
    with pytest.raises(BadImage, match="black everywhere"):
        read_masks(recipe, CONTENT, [STYLE])


def half_noise(height: int, width: int) -> torch.Tensor:
    """Grey on the left, black and white noise on the right."""
    image = torch.full((1, 3, height, width), 0.5)
    image[..., width // 2 :] = torch.rand(1, 1, height, width - width // 2, generator=torch.Generator().manual_seed(0)).round()
    return image


@pytest.mark.parametrize("size", [(60, 90), (256, 384), (40, 300)], ids=str)
def test_a_picture_is_calm_where_its_light_is_even(size):
    height, width = size
    found, far = calmness(half_noise(height, width)), width // 6  # as far as two neighbourhoods reach
    assert found.shape == (1, 1, *size) and float(found.min()) >= 0 and float(found.max()) <= 1
    assert bool((found[..., : width // 2 - far] > 0.999).all()) and bool((found[..., width // 2 + far :] < 0.001).all())


def test_colour_alone_and_slow_changes_of_light_are_calm():
    slope = torch.linspace(0, 1, 300).expand(1, 3, 200, 300)
    assert float(calmness(slope).min()) > 0.7
    red, green = torch.zeros(1, 3, 60, 60), torch.zeros(1, 3, 60, 60)
    red[:, 0], green[:, 1] = 0.587, 0.299  # of one luminance
    stripes = torch.where(torch.arange(60) // 5 % 2 == 0, red, green)
    assert float(calmness(stripes).min()) > 0.99


def test_no_calm_is_no_mask():
    assert busyness(CONTENT, make_recipe(calm=0)) is None
    half = busyness(half_noise(60, 90), make_recipe(calm=0.5))
    assert half is not None and float(half.min()) == pytest.approx(0.5) and float(half.max()) == pytest.approx(1)
