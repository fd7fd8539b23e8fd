"""The frame: sides that meet are a torus in every cost, shapes are kept, style pictures turn; against pictures tiled by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from impasto.errors import BadImage, BadRecipe
from impasto.images.images import resize
from impasto.nets.nets import INPUTS, NETS, ConvShape, Net, assemble, features
from impasto.objective.distances import laplacian_cost, patches_cost
from impasto.objective.framing import (
    cropped,
    finished_size,
    framed,
    made_periodic,
    painted_size,
    style_at,
    style_size,
    torus_size,
    turned,
    turned_size,
)
from impasto.objective.losses import total_variation
from impasto.objective.masks import Masks
from impasto.objective.objective import costs_of, make_cost
from impasto.objective.targets import make_targets
from impasto.objective.tiles import Tiling, area_read, split_net
from impasto.recipe.recipe import Recipe, make_recipe
from impasto.transfer.canvas import soften
from impasto.transfer.descent import Step
from impasto.transfer.memory_plan import Plan
from impasto.transfer.transfer import Execution, check_fit, finished, painted_scales, stylize
from tests.conftest import picture, tiny_net

AXES = {"x": (False, True), "y": (True, False), "both": (True, True)}
ALL = {"conv1_1": 1.0, "conv1_2:pre": 0.5, "pool1": 1.0, "conv2_1": 2.0, "conv3_1": 0.3}
LAYERS = {"style_layers": ALL, "content_layers": {"conv2_1": 1.0, "conv3_1:pre": 1.0}}
COSTS = {"style_costs": "gram,w2,patches,histogram,cross", "content_costs": "features,laplacian", "tv": 2.0}


def knobs(seamless: str = "both", **more) -> Recipe:
    return make_recipe(**{**LAYERS, "size": 64, "coarsest": 64, "seamless": seamless, **more})


def on_torus(net: Net, axes: tuple[bool, bool]) -> Net:
    return replace(net, wraps=axes)


def random_alexnet() -> Net:
    generator, weights = torch.Generator().manual_seed(1), {}
    for x in NETS["alexnet"]:
        if isinstance(x, ConvShape):
            shape = (x.channels, x.channels_in, x.size, x.size)
            weights[f"{x.name}.weight"] = torch.randn(shape, generator=generator).double() / (x.channels_in * x.size**2) ** 0.5
            weights[f"{x.name}.bias"] = 0.1 * torch.randn(x.channels, generator=generator).double()
    return assemble("alexnet", NETS["alexnet"], weights, INPUTS["torchvision"])


def tiled(image: torch.Tensor, axes: tuple[bool, bool]) -> torch.Tensor:
    """Three times along each axis that wraps."""
    return image.repeat(1, 1, *(3 if wraps else 1 for wraps in axes))


def middle(a: torch.Tensor, axes: tuple[bool, bool]) -> torch.Tensor:
    height, width = (n // 3 if wraps else 0 for n, wraps in zip(a.shape[-2:], axes, strict=True))
    return a[..., height : a.shape[-2] - height, width : a.shape[-1] - width]


def unclosed(torus: torch.Tensor, axes: tuple[bool, bool] = (True, True)) -> torch.Tensor:
    """A picture that is closed to this one, of 64 pixels a side."""
    for dim, wraps in zip((2, 3), axes, strict=True):
        torus = torch.cat([torus, torus.narrow(dim, 0, 9)], dim) if wraps else torus
    return torus


# Sides that meet


@pytest.mark.parametrize("padding", ["zeros", "replicate", "reflect"])
@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_a_net_that_wraps_sees_the_picture_tiled(axes, padding):
    net, image = tiny_net(padding, torch.float64), picture(24, 32).double()
    found = features(on_torus(net, axes), image, ALL)
    for layer, a in features(net, tiled(image, axes), ALL).items():
        torch.testing.assert_close(found[layer], middle(a, axes))


@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_strides_and_overlapping_pools_wrap_too(axes):
    """AlexNet's shape: a first layer of stride 4, pools of 3 by 2. The second of the tiles is that of the torus."""
    net, image = random_alexnet(), picture(192, 224).double()
    layers = ("conv1", "pool1", "conv2", "conv5")
    found = features(on_torus(net, axes), image, layers)
    for layer, a in features(net, tiled(image, axes), layers).items():
        (height, width), (down, across) = found[layer].shape[-2:], axes
        second = a[..., height * down : height * (1 + down), width * across : width * (1 + across)]
        torch.testing.assert_close(second, found[layer])


@pytest.mark.parametrize("size", [(24, 32), (8, 40)], ids=str)
@pytest.mark.parametrize("tiling", [Tiling((), 16), Tiling((), 7), Tiling(("pool1",), 16), Tiling(("pool1", "pool2"), 12)], ids=str)
@pytest.mark.parametrize("seamless", AXES)
def test_tiles_that_wrap_are_the_whole(seamless, tiling, size):
    net, recipe = tiny_net("replicate", torch.float64), knobs(seamless, tv=2.0)
    image, content, style = picture(*size, 3).double(), picture(*size).double(), picture(20, 30, 1).double()
    found = []
    for how in (None, tiling):
        x = image.clone().requires_grad_()
        costs = make_cost(make_targets(content, [style], recipe, net, how), recipe, net, how)(x)
        found.append((costs, torch.autograd.grad(costs["total"], x)[0]))
    (whole, gradient), (in_tiles, other) = found
    for name in whole:
        torch.testing.assert_close(in_tiles[name], whole[name], rtol=1e-10, atol=0)
    torch.testing.assert_close(other, gradient, rtol=1e-8, atol=1e-12 * float(gradient.abs().max()))


@pytest.mark.parametrize("tiling", [Tiling((), 40), Tiling(("pool1", "pool2"), 50)], ids=str)
def test_tiles_of_strides_and_overlapping_pools_wrap_too(tiling):
    net, recipe = random_alexnet(), make_recipe(net="alexnet", seamless="both")
    image, content, style = (picture(96, 112, seed).double() for seed in range(3))
    found = []
    for how in (None, tiling):
        x = image.clone().requires_grad_()
        costs = make_cost(make_targets(content, [style], recipe, net, how), recipe, net, how)(x)
        found.append(torch.autograd.grad(costs["total"], x)[0])
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-12 * float(found[0].abs().max()))


@pytest.mark.parametrize("tiling", [None, Tiling(("pool1",), 20)], ids=str)
@pytest.mark.parametrize("seamless", AXES)
def test_rolling_a_seamless_picture_changes_no_cost_and_rolls_the_gradient(seamless, tiling):
    """By a multiple of every stride: where a torus begins is nobody's business."""
    net, recipe = tiny_net(dtype=torch.float64), knobs(seamless, **COSTS)
    style = picture(40, 30, 1).double()
    shift = tuple(16 * wraps for wraps in recipe.wraps)
    found = []
    for by in ((0, 0), shift):
        image, content = (picture(48, 64, seed).double().roll(by, (2, 3)) for seed in (3, 0))
        x = image.requires_grad_()
        costs = make_cost(make_targets(content, [style], recipe, net, tiling), recipe, net, tiling)(x)
        found.append((costs, torch.autograd.grad(costs["total"], x)[0]))
    (costs, gradient), (rolled, other) = found
    assert costs.keys() == rolled.keys()
    for name in costs:
        torch.testing.assert_close(rolled[name], costs[name], rtol=1e-9, atol=0)
    torch.testing.assert_close(other, gradient.roll(shift, (2, 3)), rtol=1e-7, atol=1e-11 * float(gradient.abs().max()))


def test_a_picture_with_edges_does_change_when_it_is_rolled():
    """The test of the test above."""
    net, recipe = tiny_net(dtype=torch.float64), knobs("none", **COSTS)
    image, content, style = (picture(48, 64, seed).double() for seed in (3, 0, 1))
    cost = make_cost(make_targets(content, [style], recipe, net), recipe, net)
    rolled = make_cost(make_targets(content.roll(16, 3), [style], recipe, net), recipe, net)
    for name in ("total", "content", "style", "tv"):
        assert float(rolled(image.roll(16, 3))[name]) != pytest.approx(float(cost(image)[name]), rel=1e-6)


@pytest.mark.parametrize("seamless", AXES)
def test_a_style_picture_is_a_torus_too(net, seamless):
    """Where it begins does not matter: a torus that is closed by cutting off what was doubled, and the same rolled."""
    recipe, torus = knobs(seamless), resize(picture(16, 16, 1), (64, 64), (True, True))
    grams = []
    for by in ((0, 0), (16 * recipe.wraps[0], 32 * recipe.wraps[1])):
        style = unclosed(torus.roll(by, (2, 3)), recipe.wraps)
        assert style_size(style, max(style.shape[-2:]), recipe) == (64, 64)
        grams.append(make_targets(picture(*style.shape[-2:]), [style], recipe, net).styles[0])
    for layer, targets in grams[0].items():
        torch.testing.assert_close(targets[0]["gram"], grams[1][layer][0]["gram"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_terms_of_pixels_and_patches_count_the_seam_once(axes):
    """A picture tiled three times, its middle counted alone: rolled to where the seam is inside, without the edges' own terms."""
    image, content = picture(48, 48, 1).double(), picture(48, 48, 2).double()
    rolled, moved = (x.roll((16, 16), (2, 3)) for x in (image, content))
    steps = [image - image.roll(1, dim) for dim in (2, 3)]
    inner = [step if wraps else step.narrow(dim, 1, 47) for step, dim, wraps in zip(steps, (2, 3), axes, strict=True)]
    expected = sum(step.square().sum() for step in inner) / image.numel()
    torch.testing.assert_close(total_variation(image, axes), expected)
    torch.testing.assert_close(
        laplacian_cost(moved, rolled, None, (True, True)), laplacian_cost(content, image, None, (True, True))
    )
    patches = torch.randn(5, 27, generator=torch.Generator().manual_seed(0)).double()
    whole = patches_cost(patches, image, None, axes)
    p = torch.full((48, 48), 1 / 48**2, dtype=torch.float64)
    torch.testing.assert_close(patches_cost(patches, image, p, axes), whole)
    around = tiled(image, axes)
    window = tuple(slice(47, 97) if wraps else slice(0, 48) for wraps in axes)
    torch.testing.assert_close(patches_cost(patches, around[..., window[0], window[1]]), whole)


@pytest.mark.parametrize("size", [(12, 20), (37, 50), (96, 128)], ids=str)
@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_a_resized_torus_is_the_resized_picture_tiled(axes, size):
    image = picture(24, 40)
    larger = tuple(n * (3 if wraps else 1) for n, wraps in zip(size, axes, strict=True))
    torch.testing.assert_close(resize(image, size, axes), middle(resize(tiled(image, axes), larger), axes), atol=2e-6, rtol=0)


@pytest.mark.parametrize("falloff", [0.5, 1.0])
@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_softening_a_torus_is_symmetric_positive_and_knows_no_seam(axes, falloff):
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(1, 2, 6, 7, generator=generator).double() for _ in range(2))
    soft = soften(a, falloff, axes)
    assert float((a * soften(b, falloff, axes)).sum()) == pytest.approx(float((soft * b).sum()), rel=1e-6)
    assert (a * soft).sum() > 0
    shift = tuple(2 * wraps for wraps in axes)
    torch.testing.assert_close(soften(a.roll(shift, (2, 3)), falloff, axes), soft.roll(shift, (2, 3)))


def test_softening_a_torus_divides_a_wave_by_its_frequency():
    wave = torch.from_numpy(np.cos(2 * np.pi * 3 * np.arange(12) / 12)).expand(1, 1, 8, 12)
    torch.testing.assert_close(soften(wave, 1.0, (False, True)), wave / (3 / 12))


@pytest.mark.parametrize("dim", [-2, -1])
def test_a_closed_photograph_goes_on_at_its_other_side(dim):
    """A ramp from dark to light: the step between its ends is spread over half of what fades. The rest stays."""
    ramp = torch.linspace(0, 1, 64).view(1, 1, 1, 64).expand(1, 3, 32, 64)
    image = ramp if dim == -1 else ramp.mT
    found = made_periodic(image, (dim == -2, dim == -1))
    assert found.shape[dim] == 56
    steps = (found - found.roll(1, dim)).abs()
    assert float(steps.max()) < 1.5 / 4 + 1 / 63
    assert torch.equal(found.narrow(dim, 8, 48), image.narrow(dim, 8, 48))


def test_what_is_periodic_already_stays_so_where_nothing_fades():
    """A photograph whose last eighth is its first is closed by cutting that off."""
    torus = picture(40, 56)
    torch.testing.assert_close(made_periodic(torch.cat([torus, torus[..., :8]], -1), (False, True)), torus)


# The size of the painting


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (97, 613)], ids=str)
@pytest.mark.parametrize("shape", ["", "2:1", "1:1", "640x480", "1:2.39"])
@pytest.mark.parametrize("seamless", ["none", *AXES])
def test_sizes_are_those_asked_for(size, shape, seamless):
    recipe, image = make_recipe(size=500, shape=shape, seamless=seamless), picture(*size)
    wanted, at = finished_size(image, 500, recipe), painted_size(image, 500, recipe)
    assert max(wanted) == 500
    for n, whole, wraps in zip(at, wanted, recipe.wraps, strict=True):
        assert (n % 16 == 0 and abs(n - whole) <= 8) if wraps else n == whole
    shown = framed(image, recipe)
    assert shown.shape[-1] / shown.shape[-2] == pytest.approx(
        wanted[1] / wanted[0], rel=2 / min(shown.shape[-2:]) + 2 / min(wanted)
    )
    if shape:
        width, height = (float(n) for n in shape.replace("x", ":").split(":"))
        assert wanted[1] / wanted[0] == pytest.approx(width / height, rel=2 / min(wanted))


def test_a_shape_is_cut_out_of_the_middle():
    image = torch.arange(10.0).expand(1, 1, 6, 10)
    assert cropped(image, 6, 4)[0, 0, 0].tolist() == [3, 4, 5, 6]
    assert cropped(image, 1, 5).shape[-2:] == (2, 10)
    assert torch.equal(framed(image, make_recipe()), image)


def test_a_texture_has_any_shape_and_its_own_where_its_sides_meet():
    painting = picture(60, 90)
    assert finished_size(painting, 256, make_recipe("texture", shape="4:1")) == (64, 256)
    assert finished_size(painting, 90, make_recipe("texture", seamless="x")) == (60, 90)
    assert finished_size(painting, 90, make_recipe(seamless="x")) != (60, 90)


@pytest.mark.parametrize(
    ("more", "stride"),
    [
        ({}, 16),
        ({"style_layers": "..conv3_1"}, 8),
        ({"style_layers": "..conv2_1", "content_layers": "conv2_2"}, 2),
        ({"style_layers": "..conv2_1", "content_layers": "conv2_2", "content_costs": "laplacian"}, 16),
        ({"net": "alexnet"}, 16),
    ],
)
def test_sides_that_meet_are_multiples_of_the_deepest_stride(more, stride):
    height, width = torus_size((1000, 1003), make_recipe(seamless="y", **more))
    assert height == round(1000 / stride) * stride and width == 1003


@pytest.mark.parametrize("shape", ["3", "0:1", "1:0", "a:b", "1:2:3", "-1:2", "16/9", "1:x"])
def test_a_wrong_shape_gives_a_one_line_error(shape):
    with pytest.raises(BadRecipe, match=f"shape is '{shape}': must be width:height, as 16:9 or 1024x512"):
        make_recipe(shape=shape)


def test_a_shape_too_narrow_to_paint_is_refused():
    with pytest.raises(BadImage, match="would be 500 x 5 when painted, these layers and costs need sides of 16 pixels"):
        check_fit(picture(50, 60), [picture(50, 60)], make_recipe(size=500, shape="100:1"), None)


# Style pictures


@pytest.mark.parametrize("quarters", [-4, -3, -1, 0, 1, 2, 3, 4])
def test_quarter_turns_are_exact(quarters):
    image = picture(20, 33)
    found = turned(image, 90.0 * quarters)
    assert torch.equal(found, image.rot90(quarters, (2, 3)))
    assert turned_size((20, 33), 90.0 * quarters) == tuple(found.shape[-2:])


@pytest.mark.parametrize("degrees", [-200, -45, 5, 30, 45, 60, 100, 359])
@pytest.mark.parametrize("size", [(60, 60), (60, 100), (30, 100)], ids=str)
def test_a_turned_picture_has_no_empty_corners_and_could_not_be_larger(size, degrees):
    """White stays white to the corners; a rectangle a little larger about the same middle would reach beyond the picture."""
    assert float(turned(torch.ones(1, 3, *size), degrees).min()) == 1
    (height, width), (h, w) = size, turned_size(size, degrees)
    a = math.radians(degrees)
    c, s = abs(math.cos(a)), abs(math.sin(a))
    assert w * c + h * s <= width + 1e-9 and w * s + h * c <= height + 1e-9

    def area(along: np.ndarray) -> np.ndarray:
        """Of the widest rectangle of so many rows that fits."""
        across = np.minimum((width - along * s) / max(c, 1e-9), (height - along * c) / max(s, 1e-9))
        return along * np.maximum(across, 0)

    assert w * h >= area(np.linspace(0, sum(size), 4001)).max() - 1e-6


def test_a_picture_turns_counter_clockwise_by_so_many_degrees():
    """Waves that run to the right, turned by 30 degrees, run to the right and up."""
    ramp = (0.5 + 0.4 * torch.sin(torch.arange(200) / 4)).expand(1, 3, 200, 200)
    found = turned(ramp, 30)[0, 0]
    h, w = found.shape
    y, x = torch.meshgrid(torch.arange(h) - (h - 1) / 2, torch.arange(w) - (w - 1) / 2, indexing="ij")
    along = math.cos(math.radians(30)) * x - math.sin(math.radians(30)) * y
    expected = 0.5 + 0.4 * torch.sin((99.5 + along) / 4)
    torch.testing.assert_close(found[2:-2, 2:-2], expected[2:-2, 2:-2], atol=0.01, rtol=0)


@pytest.mark.parametrize("degrees", [0, 20, 90, -45])
def test_turning_leaves_the_strokes_as_large(degrees):
    """A pixel of a style picture is as large in the painting, however it is turned."""
    recipe, style = make_recipe(style_rotation=degrees), picture(120, 200)
    height, width = style_size(style, 100, recipe)
    assert style_at(style, 100, recipe).shape[-2:] == (height, width)
    expected = turned_size((120, 200), degrees)
    assert (height, width) == (pytest.approx(expected[0] / 2, abs=0.6), pytest.approx(expected[1] / 2, abs=0.6))


def test_a_style_and_its_mask_turn_alike(net):
    """What is painted like the right half of a painting is painted like the upper half of the painting turned."""
    style = picture(48, 48, 1)
    right = torch.zeros(1, 1, 48, 48)
    right[..., 24:] = 1
    found = []
    for degrees, image, mask in ((90, style, right), (0, style.rot90(1, (2, 3)), right.rot90(1, (2, 3)))):
        recipe = knobs("none", style_rotation=degrees, regions={"all": {"mask": "light", "style": 1}})
        masks = Masks({"all": torch.ones(1, 1, 48, 48)}, {"all": mask}, {})
        found.append(make_targets(picture(48, 48), [image], recipe, net, None, masks).styles[0]["conv2_1"][0]["gram"])
    torch.testing.assert_close(*found)


# All together


def painted(content: torch.Tensor, recipe: Recipe, net: Net, **more) -> Step:
    *_, last = stylize(content, [picture(40, 30, 1)], recipe, net, **more)
    return last


SCALES = {"size": 72, "coarsest": 36, "steps": 4, "fine_steps": 3, "detail": 0.6, "strokes": 0.8, "falloff": 0.5}


@pytest.mark.parametrize("more", [{}, {"shape": "2:1"}, {"style_rotation": 30.0}, {"color": "luminance"}], ids=str)
@pytest.mark.parametrize("seamless", ["none", *AXES])
def test_what_is_reported_is_what_the_picture_costs(net, seamless, more):
    recipe, content = knobs(seamless, **SCALES, **more), picture(50, 60)
    last = painted(content, recipe, net)
    assert tuple(last.image.shape[-2:]) == painted_size(content, 72, recipe)
    costs = costs_of(last.image, content, [picture(40, 30, 1)], recipe, net)
    assert costs["total"] == pytest.approx(last.costs["total"], rel=1e-4)
    shown = finished(last.image, content, recipe)
    assert tuple(shown.shape[-2:]) == finished_size(content, 72, recipe)


@pytest.mark.parametrize("tiling", [None, Tiling(("pool1",), 20)], ids=str)
def test_where_a_seamless_painting_begins_does_not_matter(net, tiling):
    """A photograph that is a torus, rolled: the same painting, rolled. Scales, borrowed detail, softening and all."""
    recipe = knobs("both", **SCALES).model_copy(update={"optimizer": "lbfgs", "size": 64, "coarsest": 32})
    torus = resize(picture(16, 16), (64, 64), (True, True))
    contents = [unclosed(x) for x in (torus, torus.roll((16, 32), (2, 3)))]
    plans = [Plan(tiling, recipe.history) for _ in painted_scales(torus, [], recipe)]
    one, other = (painted(content, recipe, net, execution=Execution(plans)).image for content in contents)
    assert float((one.roll((16, 32), (2, 3)) - other).abs().max()) < 0.02


def test_a_run_on_a_torus_continues_to_the_same_picture(net):
    recipe, content = knobs("both", **SCALES), picture(50, 60)
    steps = list(stylize(content, [picture(40, 30, 1)], recipe, net))
    for at in (2, 4, 5):
        rest = painted(content, recipe, net, resume=steps[at - 1].state)
        assert torch.equal(rest.image, steps[-1].image)


@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_the_plan_counts_what_tiles_read_beyond_the_edge(axes):
    parts, tiling = split_net(tiny_net(), ["conv3_1"], ("pool1",)), Tiling(("pool1",), 16)
    beyond, within = ([read for *_, read, _ in area_read(parts, (64, 96), tiling, wraps)] for wraps in (axes, (False, False)))
    assert all(more > less for more, less in zip(beyond, within, strict=True))
