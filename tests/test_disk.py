"""Tensors in files: the same as in memory, held a band at a time, gone with the tensor; paintings on them."""

import gc
import json
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from impasto import disk
from impasto.disk import DiskTensor, empty, file_of, loaded, mapped, release, to_disk
from impasto.errors import CannotWrite, ImpastoWarning, NoRoom
from impasto.images import pixels, reading
from impasto.images.images import read_picture, read_record, resize, tiles_of, write_picture
from impasto.machine import can_map_files
from impasto.objective import color as color_module
from impasto.objective.color import MAPS, moments
from impasto.objective.color_transfer import recolored
from impasto.objective.losses import total_variation
from impasto.objective.masks import Masks, place_weights
from impasto.objective.objective import make_cost
from impasto.objective.targets import Targets, make_targets, parts_of
from impasto.objective.tiles import Sum, Tiling, add_up
from impasto.recipe.recipe import make_recipe
from impasto.transfer import canvas as canvas_module
from impasto.transfer import painting as module
from impasto.transfer.analogy import borrowed_band, finest_band
from impasto.transfer.canvas import soften
from impasto.transfer.checkpoint import checkpoint_path, disk_folder, previous
from impasto.transfer.descent import Step
from impasto.transfer.memory_plan import Plan, fits_on_disk, make_plan
from impasto.transfer.painting import Painting
from impasto.transfer.transfer import Execution, finished, painted_scales, stylize
from tests.conftest import kill_at, paint_with_the_tiny_net, picture, room_for, tiny_net
from tests.forks import Forked

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not can_map_files(), reason="files are mapped on Linux alone")]

LAYERS = {"style_layers": {"conv1_1": 1.0, "conv3_1": 1.0}, "content_layers": {"conv2_1": 1.0}, "beta": 1.0}
KNOBS = {"size": 96, "coarsest": 48, "steps": 4, "fine_steps": 6, **LAYERS}
CUTS = Tiling(("pool1",), 32)
SHORT = {"steps": 2, "fine_steps": 3}  # where a painting is compared with another, not resumed


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Bands so narrow that small pictures have many."""
    for it in (disk, pixels, canvas_module):
        monkeypatch.setattr(it, "BAND", 4000)
    monkeypatch.setattr(color_module, "BAND", 400)


# Tensors


def test_a_tensor_says_where_it_lies_and_so_do_its_views(tmp_path):
    x = to_disk(picture(20, 30), tmp_path)
    assert file_of(x).parent == tmp_path == disk.folder_of(x[0, 1:, 3:7].detach())
    assert file_of(torch.zeros(3)) is None
    torch.testing.assert_close(x, picture(20, 30), rtol=0, atol=0)


def test_large_results_lie_beside_it_and_small_ones_in_memory(tmp_path):
    x = to_disk(picture(60, 70), tmp_path)
    for made in (-x, 0 + x, x.new_zeros(2, 5000), torch.zeros_like(x), x.mean(1, keepdim=True), resize(x, (50, 90))):
        assert file_of(made).parent == tmp_path
    for made in (x.sum(), x[..., :9, :] + 1, x.new_zeros(2, 5), x + picture(60, 70, 1), resize(x, (7, 9))):
        assert file_of(made) is None and not isinstance(made, DiskTensor)


def test_what_is_made_from_a_file_without_a_name_has_none(tmp_path):
    x = disk.nameless((1, 3, 60, 70), tmp_path)
    x.copy_(picture(60, 70))
    for made in (-x, x.new_zeros(2, 5000), resize(x, (50, 90))):
        assert file_of(made).parent == tmp_path
    assert not [*tmp_path.iterdir()] and torch.equal(to_disk(x, tmp_path), picture(60, 70))
    assert torch.equal(-x, -picture(60, 70))


OPERATIONS = {
    "one step": lambda x, y: (x - 0.3 * y).clamp(0, 1),
    "lerp": lambda x, y: torch.lerp(x, y, 0.3),
    "bools": lambda x, y: ~(((x <= 0.1) & (y > 0)) | (x > 0.9)),
    "where": lambda x, y: torch.where(y > 0.5, x, x.mean((2, 3), keepdim=True)),
    "float64": lambda x, y: (x.double() * y).pow(2),
    "channels": lambda x, y: x.mean(1, keepdim=True).expand_as(x) * y + x.sum(1, keepdim=True),
    "broadcast": lambda x, y: x * torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1) + y[:, :1],
    "neighbours": lambda x, y: x[..., 1:, :] - y[..., :-1, :],
    "in place": lambda x, y: x.clone().mul_(2).addcmul_(x, y, value=-0.5).lerp_(y, 0.25),
    "into a part": lambda x, y: x.clone().narrow(2, 3, 40).copy_(y[..., 5:45, :]),
    "zeros and ones": lambda x, y: torch.zeros_like(x) + torch.ones_like(y),
    "pooled": lambda x, y: torch.nn.functional.adaptive_avg_pool2d(x, (50, 77)),
    "pooled small": lambda x, y: torch.nn.functional.adaptive_avg_pool2d(y, (5, 7)),
    "sum": lambda x, y: (x * y).sum(),
    "mean": lambda x, y: (x * y).mean(),
    "means of channels": lambda x, y: (x - y).mean((2, 3)),
    "largest": lambda x, y: (x - y).abs().max(),
    "smallest": lambda x, y: (x - y).min(),
    "all": lambda x, y: x.isfinite().all(),
    "any": lambda x, y: (x > y + 0.99).any(),
    "pieces": lambda x, y: torch.cat([a * b for a, b in zip(x.flatten().split(999), y.flatten().split(999), strict=True)]),
    "picked": lambda x, y: x[0][:, torch.arange(9), torch.arange(9)] + y[0, :, 3, :9],
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_on_disk_is_the_one_in_memory(tmp_path, name):
    x, y = picture(61, 83), picture(61, 83, 1)
    wanted, found = (OPERATIONS[name](*its) for its in ((x, y), (to_disk(x, tmp_path), to_disk(y, tmp_path))))
    torch.testing.assert_close(loaded(found), wanted, rtol=1e-6, atol=1e-6)
    assert found.dtype == wanted.dtype and isinstance(found, DiskTensor) == (wanted.numel() > disk.BAND and name != "pieces")


@pytest.mark.parametrize("name", ["one step", "channels", "neighbours", "broadcast", "sum"])
def test_gradients_through_tensors_on_disk_are_those_in_memory(tmp_path, name):
    found = []
    for here in (lambda it: it, lambda it: to_disk(it, tmp_path)):
        x, y = here(picture(61, 83)).requires_grad_(), here(picture(61, 83, 1))
        found.append(torch.autograd.grad(OPERATIONS[name](x, y).square().sum(), x)[0])
    assert isinstance(found[1], DiskTensor)
    torch.testing.assert_close(loaded(found[1]), found[0], rtol=1e-5, atol=1e-6 * float(found[0].abs().max()))


def test_a_file_goes_with_the_last_view_of_its_tensor(tmp_path):
    x = to_disk(picture(20, 30), tmp_path)
    view = x[..., 3:5]
    del x
    gc.collect()
    torch.testing.assert_close(view, picture(20, 30)[..., 3:5], rtol=0, atol=0)
    assert [*tmp_path.iterdir()] == [file_of(view)]
    del view
    gc.collect()
    assert not [*tmp_path.iterdir()]


def test_pages_that_are_let_go_keep_what_was_written(tmp_path):
    x = empty((100_000,), tmp_path)
    x[77] = 5.0
    release(x)
    assert x[77] == 5.0 and mapped(file_of(x), (100_000,))[77] == 5.0


def test_a_full_disk_gives_an_error_when_the_file_is_made(tmp_path):
    with room_for(10_000), pytest.raises(NoRoom, match="no room on the disk"):
        empty((1000, 1000), tmp_path)
    assert not [*tmp_path.iterdir()]


def test_the_room_of_a_file_is_taken_when_it_is_made(tmp_path):
    x = empty((1000, 1000), tmp_path)
    assert file_of(x).stat().st_blocks * 512 >= x.nbytes  # of a file with holes a page could be refused later, by a signal


def test_sums_are_those_of_float64(tmp_path):
    a, b = picture(60, 70), picture(60, 70, 1)
    exact = float((a.double() * b.double()).sum())
    assert float((to_disk(a, tmp_path) * to_disk(b, tmp_path)).sum(dtype=torch.float64)) == pytest.approx(exact, rel=1e-7)


@pytest.mark.parametrize("size", [(262, 154), (97, 55), (131, 77), (300, 77), (131, 200), (16, 33)], ids=str)
def test_a_picture_on_disk_is_resized_to_the_same_bytes(tmp_path, size):
    image = picture(131, 77)
    for found in (resize(to_disk(image, tmp_path), size), resize(image, size, where=tmp_path)):
        assert torch.equal(found, resize(image, size)) and (file_of(found) or found.numel() <= disk.BAND)
    for image in (to_disk(picture(131, 77), tmp_path), picture(131, 77)):
        found = resize(image, size, where=torch.empty(0))
        assert torch.equal(found, resize(picture(131, 77), size)) and not file_of(found)


def levels(channels: int, white: int = 255) -> np.ndarray:
    return (np.random.default_rng(0).random((83, 90, channels)) * (white + 0.99)).astype(np.uint8 if white == 255 else np.uint16)


def turned() -> Image.Image:
    made = Image.fromarray(levels(3))
    made.getexif()[ExifTags.Base.Orientation] = 6
    return made


KINDS = {
    "rgb.png": lambda: Image.fromarray(levels(3)),
    "photo.jpg": lambda: Image.fromarray(levels(3)),
    "turned.jpg": turned,
    "turned.tif": turned,
    "alpha.png": lambda: Image.fromarray(np.where(levels(4) > 200, 0, levels(4)).astype(np.uint8)),
    "grey-alpha.png": lambda: Image.fromarray(levels(2), "LA"),
    "grey.png": lambda: Image.fromarray(levels(1)[..., 0]),
    "grey16.png": lambda: Image.fromarray(levels(1, 65535)[..., 0]),
    "palette.gif": lambda: Image.fromarray(levels(3)).quantize(32),
    "inks.jpg": lambda: Image.fromarray(levels(4), "CMYK"),
    "bilevel.tif": lambda: Image.fromarray(levels(1)[..., 0]).convert("1"),
}


def saved_as(kind: str, folder: Path) -> Path:
    made, path = KINDS[kind](), folder / kind
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() if made.mode == "RGB" else None
    made.save(path, exif=made.getexif(), icc_profile=profile)
    return path


@pytest.mark.parametrize("keep_hidden", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_read_onto_the_disk_as_into_memory(tmp_path, kind, keep_hidden):
    path, place = saved_as(kind, tmp_path), tmp_path / "place"
    place.mkdir()
    wanted, found = (read_picture(path, keep_hidden, folder) for folder in (None, place))
    assert file_of(found.image).parent == place and not [*place.iterdir()]  # without a name
    torch.testing.assert_close(found.image, wanted.image, rtol=0, atol=1e-6 if wanted.alpha is not None else 0)  # the mean
    assert (found.sha256, found.profile) == (wanted.sha256, wanted.profile)
    if wanted.alpha is not None:
        assert torch.equal(found.alpha, wanted.alpha)


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_are_read_onto_the_disk_as_into_memory(tmp_path, channels):
    pytest.importorskip("pyvips")
    image, alpha = picture(83, 90), picture(83, 90, 1)[:, :1] if channels == 4 else None
    write_picture(tmp_path / "deep.png", image, alpha, bits=16)
    wanted, found = (read_picture(tmp_path / "deep.png", True, folder) for folder in (None, tmp_path))
    assert file_of(found.image) and torch.equal(found.image, wanted.image)
    torch.testing.assert_close(wanted.image, image, rtol=0, atol=0.51 / 65535)
    assert alpha is None or torch.equal(found.alpha, wanted.alpha)


@pytest.mark.parametrize("falloff", [0.0, 0.5, 1.0])
def test_a_picture_on_disk_is_softened_alike(tmp_path, falloff):
    x = picture(61, 83) - 0.5
    wanted = soften(x, falloff)
    torch.testing.assert_close(soften(to_disk(x, tmp_path), falloff), wanted, rtol=0, atol=2e-6 * float(wanted.abs().max()))


def test_detail_by_analogy_is_the_same_on_disk(tmp_path):
    x, painting = picture(30, 41), picture(70, 66, 1)
    on_disk = borrowed_band(to_disk(x, tmp_path), (60, 82), [(to_disk(painting, tmp_path), (35, 33))])
    torch.testing.assert_close(on_disk, borrowed_band(x, (60, 82), [(painting, (35, 33))]), rtol=0, atol=3e-7)
    assert file_of(on_disk)
    assert file_of(finest_band(to_disk(painting, tmp_path), (35, 33)))


# Sums and costs


def test_the_gram_matrix_of_thousands_of_tiles_is_that_of_float64(tmp_path):
    """Against brute force: every place's outer product, in float64."""
    image = picture(160, 160)
    sums = {"gram": Sum("conv1_1", lambda a, _: a.flatten(2) @ a.flatten(2).mT)}
    found = add_up(tiny_net(), to_disk(image, tmp_path), sums, Tiling((), 4))["gram"]
    a = add_up(tiny_net(dtype=torch.float64), image.double(), {"map": Sum("conv1_1", None)}, Tiling((), 160))["map"]
    brute = sum(torch.outer(place, place) for place in a[0].flatten(1).T)
    torch.testing.assert_close(found[0].double(), brute, rtol=3e-7, atol=3e-7 * float(brute.max()))


@pytest.mark.parametrize("tiling", [Tiling((), 16), Tiling(("pool1",), 16), Tiling(("pool1", "pool2"), 12)], ids=str)
def test_costs_and_gradient_are_the_whole_pictures(tmp_path, tiling):
    recipe, net = make_recipe(**KNOBS), tiny_net()
    image, content, style = picture(61, 83, 3), picture(61, 83), picture(40, 30, 1)
    found = []
    for here, t in ((lambda x: x, None), (lambda x: to_disk(x, tmp_path), tiling)):
        targets = make_targets(here(content), [style], recipe, net, t)
        x = here(image).detach().requires_grad_()
        J = make_cost(targets, recipe, net, t)(x)["total"]
        found.append((J.item(), torch.autograd.grad(J, x)[0]))
    (J, gradient), (other_J, other) = found
    assert file_of(other) and not file_of(gradient)
    assert other_J == pytest.approx(J, rel=1e-6)
    torch.testing.assert_close(other, gradient, rtol=1e-4, atol=1e-6 * float(gradient.abs().max()))


@pytest.mark.parametrize(("optimizer", "lr", "tolerance"), [("lbfgs", 1.0, 1e-4), ("adam", 0.02, 0), ("gd", 0.1, 0)])
def test_a_painting_on_disk_is_the_one_in_memory(tmp_path, optimizer, lr, tolerance):
    """Adam and plain descent to the same bytes; L-BFGS, whose sums come in another order, to rounding."""
    recipe = make_recipe(**{**KNOBS, "optimizer": optimizer, "lr": lr})
    found = []
    for on_disk in (False, True):
        plans = [Plan(None, 10), Plan(CUTS, 10, on_disk=on_disk)]
        found.append([*stylize(picture(60, 80), [picture(50, 70, 1)], recipe, tiny_net(), execution=Execution(plans, tmp_path))])
    for step, other in zip(*found, strict=True):
        assert other.costs["total"] == pytest.approx(step.costs["total"], rel=tolerance)
        torch.testing.assert_close(other.image, step.image, rtol=0, atol=tolerance)
    state = found[1][-1].state
    lying = [state.x, state.gradient, *(x for kept in state.memory.values() for x in kept if x.dim())]
    assert all(file_of(x) for x in lying) and not file_of(found[0][-1].state.x)


# What else a recipe may ask for: the same, and held a band at a time

ASKED = [
    {"tv": 3.0, "calm": 0.5},
    {"color": "luminance"},
    {"color": "luminance", "color_space": "oklab", "color_when": "after"},
    {"color": "monge", "color_when": "after"},
    {"color": "luminance", "color_space": "lab", "tv": 3.0, "match_light": False},
    {
        "regions": {"sky": {"mask": "light", "style": 1, "style_mask": "dark", "content_weight": 2.0}},
        "protect": "k-means 1 of 3",
        "calm": 0.5,
    },
    {
        "regions": {"sky": {"mask": "light", "style_weight": 0.5, "color": "pca"}, "rest": {"mask": "rest", "color": "luminance"}},
        "color_when": "after",
        "style_costs": {"w2": 1.0, "moments": 1.0},
        "tv": 3.0,
    },
]


class Largest(TorchDispatchMode):
    """Of the tensors made in memory the most bytes."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        sizes = [x.untyped_storage().nbytes() for x in tree_leaves(made) if isinstance(x, torch.Tensor) and not file_of(x)]
        self.most = max(self.most, *sizes, 0)
        return made


@pytest.mark.parametrize("shape", [(1, 3, 61, 83), (1, 3, 5, 3000), (1, 3, 1, 9), (1, 3, 9, 1)], ids=str)
def test_total_variation_on_disk_is_that_of_float64(tmp_path, shape):
    """Its gradient comes on top of that of another cost, here the sum."""
    exact = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    value = total_variation(exact)
    (gradient,) = torch.autograd.grad(5 * value + exact.sum(), exact)
    x = to_disk(exact.detach().float(), tmp_path).requires_grad_()
    found = total_variation(x)
    (other,) = torch.autograd.grad(5 * found + x.sum(), x)
    assert found.item() == pytest.approx(value.item(), rel=1e-6) and (file_of(other) or other.numel() <= disk.BAND)
    torch.testing.assert_close(other.double(), gradient, rtol=1e-6, atol=1e-7)


def painted(folder: Path, on_disk: bool, side: int = 96, tiling: Tiling = CUTS, **knobs) -> tuple[Step, torch.Tensor]:
    """The last step of a painting at two scales, and the picture as it is saved."""
    short = {"steps": 1, "fine_steps": 2, "optimizer": "gd", "lr": 0.1}
    recipe = make_recipe(**{**KNOBS, "size": side, "coarsest": side // 2, **short, **knobs})
    content = picture(60, 80)
    plans = [Plan(tiling, 10, on_disk=on_disk) for _ in painted_scales(content, [], recipe)]
    *_, step = stylize(content, [picture(50, 70, 1)], recipe, tiny_net(), execution=Execution(plans, folder))
    return step, finished(step.state.image, content, recipe)


@pytest.mark.parametrize("knobs", ASKED, ids=str)
def test_what_a_recipe_asks_for_is_painted_on_disk_as_in_memory(tmp_path, knobs):
    (step, saved), (other, other_saved) = (painted(tmp_path, on_disk, **knobs) for on_disk in (False, True))
    assert other.costs == pytest.approx(step.costs, rel=1e-5)
    torch.testing.assert_close(other.image, step.image, rtol=0, atol=1e-4)
    torch.testing.assert_close(other_saved, saved, rtol=0, atol=1.01 / 255)
    assert file_of(other.state.x).exists() and file_of(other.state.gradient).exists()  # a checkpoint gives them a second name
    assert file_of(other_saved) and bool(((other_saved - saved).abs() > 1e-6).float().mean() < 0.01)


@pytest.mark.parametrize("knobs", ASKED[-3:], ids=str)
def test_no_tensor_in_memory_grows_with_the_picture(tmp_path, monkeypatch, knobs):
    """A map of one channel has 173 kB at 240 x 180 pixels, a photograph as it was read up to 115 kB."""
    monkeypatch.setattr("impasto.transfer.analogy.MOST", 2**8)
    monkeypatch.setattr("impasto.transfer.analogy.AT_ONCE", 8)
    monkeypatch.setattr("impasto.objective.masks.SIDE", 64)
    for it in (disk, pixels, canvas_module):
        monkeypatch.setattr(it, "BAND", 8000)
    monkeypatch.setattr(color_module, "BAND", 2000)
    with Largest() as made:
        painted(tmp_path, True, 240, Tiling(("pool1",), 48), fine_steps=1, init="content", init_noise=0.0, **knobs)
    assert made.most < 120e3


@pytest.mark.parametrize("weights", [None, picture(61, 83, 2)[:, :1], torch.zeros(1, 1, 61, 83)], ids=["all", "some", "none"])
def test_moments_on_disk_are_those_in_memory(tmp_path, weights):
    image = picture(61, 83)
    lying = None if weights is None else to_disk(weights, tmp_path)
    for found, wanted in zip(moments(to_disk(image, tmp_path), lying), moments(image, weights), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rule", ["luminance", *MAPS])
def test_what_shows_of_a_photograph_counts_on_disk_as_in_memory(tmp_path, rule):
    image, content, alpha = picture(61, 83), picture(50, 68, 1), picture(50, 68, 2)[:, :1].round()
    recipe = make_recipe(**{**KNOBS, "color": rule, "color_when": "after"})
    found = recolored(to_disk(image, tmp_path), content, recipe, alpha)
    torch.testing.assert_close(found, recolored(image, content, recipe, alpha), rtol=0, atol=1e-6)
    assert file_of(found)


@pytest.mark.parametrize("size", [(61, 83), (30, 41), (7, 10)], ids=str)
def test_places_on_disk_weigh_what_they_weigh_in_memory(tmp_path, size):
    mask = picture(61, 83)[:, :1]
    found = place_weights(to_disk(mask, tmp_path), size)
    torch.testing.assert_close(loaded(found), place_weights(mask, size), rtol=1e-5, atol=0)
    assert bool(file_of(found)) == (size == (61, 83))


def test_parts_on_disk_are_those_in_memory(tmp_path):
    """Where regions overlap, where they leave something, and what content counts in all of them."""
    recipe = make_recipe(**KNOBS, regions={name: {"mask": "light", "content_weight": n} for n, name in enumerate("abc")})
    masks = Masks({name: picture(30, 40, n)[:, :1] - n / 4 for n, name in enumerate("abc")}, {}, {})
    content, lying = picture(61, 83), to_disk(picture(61, 83), tmp_path)
    parts, others = (parts_of(it, 1, recipe, masks) for it in (content, lying))
    assert [part.area for part in others] == pytest.approx([part.area for part in parts], rel=1e-6) and len(parts) == 4
    weights, other = (Targets({}, its, (), (61, 83), None).content_weights() for its in (parts, others))
    for one, on_disk in [*((part.mask, it.mask) for part, it in zip(parts, others, strict=True)), (weights, other)]:
        torch.testing.assert_close(on_disk, one, rtol=0, atol=1e-6)
        assert file_of(on_disk)


# Plans


def planned(side: int, budget: float, disk_room: float, **knobs) -> Plan:
    recipe = make_recipe(**{**KNOBS, "size": side, **knobs})
    return make_plan(tiny_net(), recipe, (side, side), side * side, 1e6, budget, disk_room)


def test_the_disk_comes_before_a_shorter_history_and_after_memory():
    assert not planned(512, 1e12, 1e12).on_disk
    assert planned(8192, 1e9, 1e12).on_disk and planned(8192, 1e9, 1e12).history == 10
    with pytest.raises(NoRoom, match=r"or free .* MB of disk"):
        planned(8192, 1e9, 1e6)
    with pytest.raises(NoRoom, match=r"raise --max-memory$"):
        planned(8192, 1e9, 0.0)


def test_on_disk_a_larger_picture_takes_disk_and_hardly_memory():
    small, large = planned(4096, 1e9, 1e12), planned(16384, 1e9, 1e12)
    assert large.disk > 15 * small.disk and large.peak <= 1e9
    assert "on disk" in str(large) and "MB of disk" in str(large)


@pytest.mark.parametrize(
    "knobs",
    [
        {"seamless": "x"},
        {"color": "histogram", "color_when": "after"},
        {"regions": {"sky": {"mask": "light", "color": "histogram"}}, "color_when": "after"},
        {"style_costs": {"histogram": 1.0}},
        {"content_costs": {"features": 1.0, "laplacian": 1.0}},
    ],
    ids=str,
)
def test_what_needs_the_whole_picture_is_not_planned_on_disk(knobs):
    assert fits_on_disk(make_recipe(**KNOBS), tiny_net())
    assert fits_on_disk(make_recipe(**{**KNOBS, "style_costs": {"w2": 1.0}, "color": "monge"}), tiny_net())
    assert all(fits_on_disk(make_recipe(**{**KNOBS, **asked}), tiny_net()) for asked in ASKED)
    assert not fits_on_disk(make_recipe(**{**KNOBS, **knobs}), tiny_net())


# Paintings


@pytest.fixture
def on_disk(monkeypatch):
    """The tiny net, the finest scale on disk, a checkpoint after every step."""
    paint_with_the_tiny_net(monkeypatch)
    monkeypatch.setattr(module, "plan_scales", lambda *_: [Plan(None, 10), Plan(CUTS, 10, on_disk=True, disk=1e6)])


def made(files, output: Path | None = None, **knobs) -> Painting:
    content, style, given = files
    return Painting(content, [style], output or given, make_recipe(**{**KNOBS, **knobs}))


def begun(files, i: int, **knobs) -> Generator[Step, None, None]:
    """A painting after its step i, with what is to come."""
    steps = made(files, **knobs).steps()
    next(step for step in steps if step.i == i)
    return steps


def finish(painting: Painting, **options) -> bytes:
    for _ in painting.steps(**options):
        pass
    return painting.output.read_bytes()


@pytest.mark.usefixtures("on_disk")
def test_a_finished_painting_leaves_no_files_and_says_how_it_was_made(files):
    finish(made(files, **SHORT))
    assert sorted(p.name for p in files[2].parent.iterdir()) == ["out.png", "photo.png", "style.png"]
    record = read_record(files[2])
    assert record["ended"] == "finished" and [plan.get("on_disk", False) for plan in record["plans"]] == [False, True]
    assert made(files, **SHORT).is_finished()


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize("knobs", [{}, *ASKED[-3:-1]], ids=str)
def test_the_report_costs_the_saved_picture(files, knobs):
    painting = made(files, **SHORT, **knobs)
    finish(painting)
    assert painting.report()["costs"]["total"] == pytest.approx(painting.state.costs["total"], rel=0.05)
    assert sorted(p.name for p in files[2].parent.iterdir()) == ["out.png", "photo.png", "style.png"]


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize("knobs", [{}, {"shape": "1:1"}, {"init": "noise", "style_rotation": 30.0}, {"tv": 0.1}], ids=str)
def test_pictures_that_lie_on_disk_are_painted_to_the_same_bytes(files, monkeypatch, knobs):
    wanted = finish(made(files, **SHORT, **knobs))
    monkeypatch.setattr(module, "PICTURE_SHARE", 0.0)
    files[2].unlink()
    painting = made(files, **SHORT, **knobs)
    assert all(file_of(it.image) for it in (painting.content, *painting.styles))
    assert finish(painting) == wanted and painting.report()["costs"]
    assert sorted(p.name for p in files[2].parent.iterdir()) == ["out.png", "photo.png", "style.png"]


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize("color", ["luminance", "cholesky", "monge"])
def test_pictures_that_lie_on_disk_are_painted_in_the_same_colors(files, monkeypatch, color):
    """To rounding: means and covariances are added up by other parts."""
    finish(made(files, **SHORT, color=color))
    wanted = read_picture(files[2]).image
    monkeypatch.setattr(module, "PICTURE_SHARE", 0.0)
    files[2].unlink()
    painting = made(files, **SHORT, color=color)
    steps = painting.steps()
    next(steps)
    assert {p.name for p in files[2].parent.iterdir()} <= {"out.png.checkpoint", "out.png.disk", "photo.png", "style.png"}
    for _ in steps:
        pass
    torch.testing.assert_close(read_picture(files[2]).image, wanted, rtol=0, atol=1.01 / 255)


KILLED = """
import sys
from pathlib import Path
import pytest
from impasto.transfer import painting as module
from impasto import disk
from impasto.images import pixels
from impasto.transfer import canvas
from impasto.transfer.memory_plan import Plan
from tests.conftest import paint_with_the_tiny_net
from tests.test_disk import CUTS, made

disk.BAND = pixels.BAND = canvas.BAND = 4000
paint_with_the_tiny_net(pytest.MonkeyPatch())
module.plan_scales = lambda *_: [Plan(None, 10), Plan(CUTS, 10, on_disk=True, disk=1e6)]
for step in made(tuple(map(Path, sys.argv[1:])), optimizer="lbfgs").steps():
    print(step.i, flush=True)
"""


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize(("optimizer", "is_killed"), [("lbfgs", True), ("adam", False)])
def test_a_painting_that_was_killed_or_left_resumes_to_the_same_bytes(files, optimizer, is_killed):
    whole = finish(made(files, optimizer=optimizer))
    files[2].unlink()
    if is_killed:
        kill_at(b"7", KILLED, *files)
    else:
        begun(files, 7, optimizer=optimizer).close()
    folder = disk_folder(checkpoint_path(files[2]))
    assert [*folder.glob("*.held")]
    painting = made(files, optimizer=optimizer)
    rest = [step.i for step in painting.steps(resume=True)]
    assert rest[0] in (7, 8, 9) and rest[-1] == 10  # the kill comes when the checkpoint is written, or some steps on
    assert files[2].read_bytes() == whole
    assert not folder.exists() and not checkpoint_path(files[2]).exists()


@pytest.mark.usefixtures("on_disk")
def test_files_that_no_generation_holds_do_not_stay(files):
    steps = begun(files, 9)
    folder = disk_folder(checkpoint_path(files[2]))
    held = [*folder.glob("*.held")]
    assert 4 < len(held) <= 2 * 2 + 2 * 5  # x and gradient of two generations, s and y of five steps of the finest scale
    (folder / "left.map").write_bytes(b"left by a killed process")
    steps.close()
    rest = [step.i for step in made(files).steps(resume=True)]
    assert rest == [10] and not folder.exists()


@pytest.mark.usefixtures("on_disk")
def test_a_damaged_file_costs_one_step(files):
    begun(files, 9).close()
    newest = {name for name, *_ in _files(checkpoint_path(files[2]))}
    older = {name for name, *_ in _files(previous(checkpoint_path(files[2])))}
    damaged = disk_folder(checkpoint_path(files[2])) / min(newest - older)
    with open(damaged, "rb+") as file:
        file.write(b"damaged")
    with pytest.warns(ImpastoWarning, match="is damaged and not used"):
        rest = [step.i for step in made(files).steps(resume=True)]
    assert rest == [9, 10]


def _files(path: Path) -> list:
    whole = path.read_bytes()
    begin = whole.index(b'{"__metadata__"')
    header, _ = json.JSONDecoder().raw_decode(whole[begin:].decode("latin-1"))
    return [*json.loads(header["__metadata__"]["files"]).values()]


@pytest.mark.usefixtures("on_disk")
def test_starting_over_gives_up_the_files_too(files):
    begun(files, 9).close()
    with pytest.warns(ImpastoWarning, match="use --resume to continue it"):
        again = made(files).steps()
        next(again)
    assert not [*disk_folder(checkpoint_path(files[2])).glob("*.held")]


@pytest.mark.usefixtures("on_disk")
def test_out_of_memory_goes_on_on_disk(files, monkeypatch):
    unhurt, real = finish(made(files)) and read_picture(files[2]).image, module.stylize
    ways = [[Plan(None, 10), Plan(None, 10)], [Plan(None, 10), Plan(CUTS, 10, on_disk=True, disk=1e6)]]
    monkeypatch.setattr(module, "plan_scales", lambda *_: ways.pop(0))
    painting = made(files)

    def failing(*args):
        execution = args[5]
        for step in real(*args):
            if step.i == 7 and not execution.plans[1].on_disk:
                raise MemoryError
            yield step

    monkeypatch.setattr(module, "stylize", failing)
    with pytest.warns(ImpastoWarning, match=r"continuing in tiles .* on disk"):
        assert [step.i for step in painting.steps()] == [*range(1, 11)]
    torch.testing.assert_close(read_picture(files[2]).image, unhurt, atol=0.02, rtol=0)


# Files


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.jpg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_picture_on_disk_is_written_to_the_same_pixels(tmp_path, name, bits):
    if bits == 16 and name not in ("a.png", "a.tif"):
        return
    image, alpha, record = picture(61, 83), picture(61, 83, 2)[:, :1], {"recipe": {"a": "ü -- b"}}
    alpha = None if name == "a.jpg" else alpha
    write_picture(tmp_path / f"memory-{name}", image, alpha, record, bits)
    write_picture(tmp_path / name, to_disk(image, tmp_path), alpha, record, bits)
    one, other = (read_picture(tmp_path / it, keep_hidden=True) for it in (f"memory-{name}", name))
    assert torch.equal(one.image, other.image)
    assert alpha is None or torch.equal(one.alpha, other.alpha)
    assert read_record(tmp_path / name) == record


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_deep_zoom_has_the_picture_in_tiles_and_the_record(tmp_path, where):
    image, record = picture(300, 517), {"recipe": {"a": "ü -- b --> c"}}
    path = tmp_path / "out.dzi"
    for _ in range(2):  # written over an older one too
        write_picture(path, image if where == "memory" else to_disk(image, tmp_path), None, record)
    gc.collect()
    assert read_record(path) == record
    levels = sorted(int(level.name) for level in tiles_of(path).iterdir() if level.name.isdigit())
    assert levels == [*range(levels[-1] + 1)]
    tiles = {tile.name: np.asarray(Image.open(tile)) for tile in (tiles_of(path) / str(levels[-1])).glob("*.png")}
    assert {*tiles} == {f"{x}_{y}.png" for x in range(3) for y in range(2)}
    rows = [np.concatenate([tiles[f"{x}_{y}.png"] for x in range(3)], 1) for y in range(2)]
    whole = np.concatenate(rows, 0)
    assert np.array_equal(whole, (image[0] * 255).round().byte().permute(1, 2, 0).numpy())
    assert torch.equal(reading.read_deep_zoom(path), torch.from_numpy(whole / np.float32(255)).permute(2, 0, 1)[None])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.dzi", "out_files"]


def test_deep_zoom_spares_a_folder_of_something_else(tmp_path):
    (tmp_path / "out_files").mkdir()
    with pytest.raises(CannotWrite, match="belongs to something else"):
        write_picture(tmp_path / "out.dzi", picture(20, 20))


@pytest.mark.usefixtures("on_disk")
def test_a_painting_in_deep_zoom_is_known_when_it_is_finished(files):
    output = files[2].with_suffix(".dzi")
    painting = made(files, output)
    finish(painting)
    assert made(files, output).is_finished() and [*made(files, output).steps(resume=True)] == []
    assert painting.report()["costs"]["total"] == pytest.approx(painting.state.costs["total"], rel=0.05)


# Memory

GROWN = """
import sys, torch
from pathlib import Path
from impasto.transfer.memory_plan import Plan
from impasto.recipe.recipe import make_recipe
from impasto.objective.tiles import Tiling
from impasto.transfer.transfer import Execution, stylize
from impasto import disk
from impasto.transfer import canvas
from impasto.images import pixels
from tests.conftest import picture, tiny_net
from tests.test_disk import LAYERS

torch.set_num_threads(1)
disk.BAND = pixels.BAND = canvas.BAND = 2**16

def held():
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024

plans = [Plan(Tiling(("pool1",), 128), 10, on_disk=sys.argv[2] == "disk")]
for side in map(int, sys.argv[3:]):
    recipe, most = make_recipe(size=side, coarsest=16384, steps=2, **LAYERS), 0
    steps = stylize(picture(200, 200), [picture(200, 200, 1)], recipe, tiny_net(), execution=Execution(plans, Path(sys.argv[1])))
    for step in steps:
        most = max(most, held())
    print(most)
"""


def growth(folder: Path, where: str, side: int) -> float:
    """How much more memory a painting of this side takes than one of half of it, in pictures of this side."""
    process = Forked(GROWN, folder, where, side // 2, side)
    printed = process.stdout.read()
    assert process.wait() == 0
    small, large = map(int, printed.split())
    return (large - small) / (3 * 4 * side**2)


def test_memory_does_not_grow_with_the_picture(tmp_path):
    """Anonymous memory after each step: at 4 times the pixels less than one picture more, where in memory it is many."""
    assert growth(tmp_path, "disk", 1024) < 1 and growth(tmp_path, "memory", 256) > 5
