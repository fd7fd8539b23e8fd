"""Margins and frames around a painting: found where they were put, and nowhere else."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from impasto.errors import BadRecipe
from impasto.images.images import read_picture
from impasto.images.pixels import Picture
from impasto.images.trim import picture_box
from impasto.objective.framing import crop_picture, style_crops
from impasto.pictures import picture_path
from impasto.recipe.recipe import make_recipe
from impasto.transfer.painting import Painting, recipe_of
from tests.conftest import paint_with_the_tiny_net, picture, save

PAINTINGS = ("hokusai-great-wave", "van-gogh-auvers", "cat", "astronaut")


def painting(name: str = "van-gogh-auvers") -> np.ndarray:
    """(H, W, 3) in [0, 1]."""
    return read_picture(picture_path(name)).image[0].permute(1, 2, 0).numpy()


def box_of(x: np.ndarray) -> tuple[int, int, int, int]:
    return picture_box(torch.from_numpy(np.ascontiguousarray(x)).permute(2, 0, 1)[None].float())


def with_margin(
    x: np.ndarray, widths: tuple[int, int, int, int], color: tuple[float, float, float], grain: float = 0.01
) -> np.ndarray:
    """The painting with margins: left, top, right, bottom."""
    left, top, right, bottom = widths
    page = np.ones((x.shape[0] + top + bottom, x.shape[1] + left + right, 3), np.float32) * np.array(color, np.float32)
    page += grain * np.random.default_rng(0).standard_normal(page.shape, np.float32)
    page[top : top + x.shape[0], left : left + x.shape[1]] = x
    return page.clip(0, 1)


def assert_inside(found: tuple[int, int, int, int], widths: tuple[int, int, int, int], size: tuple[int, int]) -> None:
    """None of the margin is left, and at most 1.5 % of the painting is lost at a side."""
    (height, width), slack = size, 0.015 * max(size)
    left, top, *_ = widths
    wanted = left, top, left + width, top + height
    for n, (edge, exact) in enumerate(zip(found, wanted, strict=True)):
        inward = (edge - exact) * (1 if n < 2 else -1)
        assert 0 <= inward <= slack, (found, wanted)


@pytest.mark.parametrize("name", PAINTINGS)
def test_pictures_without_margins_stay_whole(name):
    x = painting(name)
    assert box_of(x) == (0, 0, x.shape[1], x.shape[0])


@pytest.mark.parametrize("name", PAINTINGS)
@pytest.mark.parametrize(
    ("widths", "color"),
    [
        ((30, 30, 30, 30), (0, 0, 0)),  # a scan border
        ((60, 40, 60, 90), (0.93, 0.91, 0.86)),  # a mat
        ((0, 25, 0, 25), (0.4, 0.2, 0.1)),  # bars above and below
        ((0, 0, 0, 50), (1, 1, 1)),  # a caption strip
    ],
)
def test_margins_are_left_out(name, widths, color):
    x = painting(name)
    assert_inside(box_of(with_margin(x, widths, color)), widths, x.shape[:2])


def test_a_frame_within_a_wall_is_left_out():
    x = painting()
    framed = x
    for width, color in ((12, (0.2, 0.12, 0.05)), (25, (0.75, 0.6, 0.25)), (6, (0.15, 0.1, 0.05))):  # gilt between dark mouldings
        framed = with_margin(framed, (width,) * 4, color, grain=0.03)
    assert_inside(box_of(framed), (43, 43, 43, 43), x.shape[:2])
    on_a_wall = with_margin(framed, (50, 60, 50, 40), (0.6, 0.65, 0.6))
    assert_inside(box_of(on_a_wall), (93, 103, 93, 83), x.shape[:2])


def test_a_caption_with_letters_is_left_out():
    x = painting()
    page = Image.fromarray((with_margin(x, (20, 20, 20, 70), (1, 1, 1), grain=0) * 255).astype(np.uint8))
    ImageDraw.Draw(page).text((40, page.height - 45), "Vincent van Gogh, Auvers, 1890", fill=(0, 0, 0))
    assert_inside(box_of(np.asarray(page) / 255), (20, 20, 20, 70), x.shape[:2])


def test_flat_colours_are_not_taken_for_margins():
    """A poster with a plain sky and a plain ground, another with one colour, and noise."""
    poster = np.ones((300, 400, 3)) * np.array([0.5, 0.7, 0.9])
    poster[200:] = (0.3, 0.5, 0.2)
    poster[60:240, 150:250] = (0.8, 0.2, 0.1)
    for x in (poster, np.full((100, 100, 3), 0.3), np.random.default_rng(1).random((120, 160, 3))):
        assert box_of(x) == (0, 0, x.shape[1], x.shape[0])


# In a painting

SMALL = {"size": 40, "coarsest": 40, "steps": 3, "style_layers": {"conv1_1": 1.0}, "content_layers": {"conv2_1": 1.0}}


def tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).permute(2, 0, 1)[None].float()


@pytest.fixture
def files(tmp_path, monkeypatch):
    paint_with_the_tiny_net(monkeypatch)
    scan = with_margin(painting()[:200, :240], (20, 20, 20, 40), (0, 0, 0), grain=0)
    return save(tmp_path / "photo.png", picture(30, 40)), save(tmp_path / "scan.png", tensor(scan)), tmp_path / "out.png"


def finish(content, style, output, **knobs) -> Painting:
    work = Painting(content, [style], output, make_recipe(**SMALL, **knobs))
    for _ in work.steps():
        pass
    return work


def test_a_scan_is_painted_with_as_its_crop_is_and_says_so(files, tmp_path):
    content, scan, output = files
    auto = finish(*files)
    ((_, (left, top, right, bottom)),) = auto.crops
    (line,) = auto.style_notes()
    assert f"{scan}: using the part {left},{top},{right},{bottom}" in line and "--style-crop none" in line
    with Image.open(scan) as opened:
        opened.crop((left, top, right, bottom)).save(tmp_path / "cropped.png")
    cropped = finish(content, tmp_path / "cropped.png", tmp_path / "other.png")
    assert [*cropped.style_notes()] == [] and torch.equal(read_picture(output).image, read_picture(cropped.output).image)
    boxed = finish(content, scan, tmp_path / "boxed.png", style_crop=f"{left},{top},{right},{bottom}")
    assert torch.equal(read_picture(boxed.output).image, read_picture(output).image)
    assert [*boxed.style_notes()] == []  # whoever gives a box knows it
    kept = finish(content, scan, tmp_path / "kept.png", style_crop="none")
    assert not torch.equal(read_picture(kept.output).image, read_picture(output).image)


def test_an_older_record_keeps_the_margins(files):
    recipe = recipe_of(finish(*files).output)
    assert recipe.style_crop == "auto"
    older = {name: value for name, value in recipe.model_dump(mode="json").items() if name != "style_crop"}
    assert type(recipe).model_validate(older).style_crop == "none"


def test_crops_of_several_style_pictures():
    one, two = picture(40, 50), tensor(with_margin(painting()[:200, :240], (20, 20, 20, 40), (0, 0, 0)))
    both = style_crops([one, two], make_recipe(style_crop="1,2,30,40; auto"))
    assert both[0] == (1, 2, 30, 40) and both[1] == picture_box(two) != (0, 0, 280, 260)
    read = Picture(one, one[:, :1], "sha")
    cropped = crop_picture(read, both[0])
    assert torch.equal(cropped.image, one[..., 2:40, 1:30]) and torch.equal(cropped.alpha, one[:, :1, 2:40, 1:30])
    assert crop_picture(read, None) is read and style_crops([one], make_recipe()) == [None]
    region = {"sky": {"mask": "light", "style": 2, "style_mask": "dark"}}
    assert style_crops([one, two], make_recipe(regions=region))[1] is None  # its mask is of all of it
    for crop, regions, message in (
        ("1,2,30,40", region, "style_mask and a style_crop"),
        ("0,0,51,40", {}, "style picture 1 has 50 x 40 pixels"),
        ("auto;auto;auto", {}, "3 parts for 2 style pictures"),
    ):
        with pytest.raises(BadRecipe, match=message):
            style_crops([one, two], make_recipe(style_crop=crop, regions=regions))


@pytest.mark.parametrize("crop", ["", "all", "1,2,3", "9,0,3,4", "0,0,0,0", "-1,0,3,4", "auto,", "1,2,3,4;x"])
def test_a_wrong_crop_is_an_error(crop):
    with pytest.raises(BadRecipe, match="style_crop"):
        make_recipe(style_crop=crop)
