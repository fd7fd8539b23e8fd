"""The tiled cost and gradient against the whole picture's: exact in float64 on random nets, to 1e-4 on the real ones."""

from dataclasses import replace

import pytest
import torch

from impasto.images.images import read_picture, resize
from impasto.nets.nets import INPUTS, NETS, Conv, ConvShape, Net, Pool, assemble, average_pooled
from impasto.objective.objective import make_cost
from impasto.objective.targets import activations_of, make_targets
from impasto.objective.tiles import Sum, Tiling, add_up, split_net
from impasto.pictures import picture_path
from impasto.recipe.recipe import make_recipe
from impasto.transfer.transfer import make_net
from tests.conftest import TINY, picture, tiny_net

pytestmark = pytest.mark.slow

ALL = {"conv1_1": 1.0, "conv1_2:pre": 0.5, "pool1": 1.0, "conv2_1": 2.0, "conv3_1": 0.3}
WHOLE = make_recipe(style_layers=ALL, content_layers={"conv2_1": 1.0, "conv3_1:pre": 1.0, "conv1_2": 0.1}, tv=2.0, size=64)
SIZES = [(32, 32), (33, 47), (17, 61)]
POOLS = ("pool1", "pool2", "pool3", "pool4")
TILINGS = [Tiling(), Tiling((), 16), Tiling((), 7), Tiling(("pool1",), 16), Tiling(("pool1", "pool2"), 12), Tiling(("pool2",), 9)]


def both(net: Net, image: torch.Tensor, recipe, tiling: Tiling, content: torch.Tensor, style: torch.Tensor):
    """(costs, gradient) of the whole picture and of the tiled one."""
    found = []
    for t in (None, tiling):
        cost = make_cost(make_targets(content, [style], recipe, net, t), recipe, net, t)
        x = image.clone().requires_grad_()
        costs = cost(x)
        found.append((costs, torch.autograd.grad(costs["total"], x)[0]))
    return found


@pytest.mark.parametrize("tiling", TILINGS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("padding", ["zeros", "replicate", "reflect"])
def test_tiles_are_the_whole_in_float64(size, tiling, padding):
    net = tiny_net(padding, torch.float64)
    image, content = picture(*size, 3).double(), picture(*size).double()
    (whole, gradient), (tiled, other) = both(net, image, WHOLE, tiling, content, picture(40, 30, 1).double())
    assert whole.keys() == tiled.keys()
    for name in whole:
        torch.testing.assert_close(tiled[name], whole[name], rtol=1e-10, atol=0)
    torch.testing.assert_close(other, gradient, rtol=1e-8, atol=1e-12 * float(gradient.abs().max()))


@pytest.mark.parametrize("tiling", [Tiling((), 40), Tiling(("pool1",), 24), Tiling(("pool1", "pool2"), 50)], ids=str)
@pytest.mark.parametrize("size", [(97, 130), (128, 71)], ids=str)
def test_strides_and_overlapping_pools_are_tiled_exactly_too(size, tiling):
    """AlexNet's shape with an eighth of its channels and random weights: 11x11 with stride 4, pools that overlap."""
    generator = torch.Generator().manual_seed(1)
    weights = {}
    thin = [
        replace(x, channels_in=max(3, x.channels_in // 8), channels=x.channels // 8) if isinstance(x, ConvShape) else x
        for x in NETS["alexnet"]
    ]
    for x in thin:
        if isinstance(x, ConvShape):
            fan_in = x.channels_in * x.size**2
            weights[f"{x.name}.weight"] = (
                torch.randn(x.channels, x.channels_in, x.size, x.size, generator=generator).double() / fan_in**0.5
            )
            weights[f"{x.name}.bias"] = 0.1 * torch.randn(x.channels, generator=generator).double()
    net = assemble("alexnet", thin, weights, INPUTS["torchvision"])
    recipe = make_recipe(net="alexnet")
    image, content = picture(*size, 3).double(), picture(*size).double()
    (whole, gradient), (tiled, other) = both(net, image, recipe, tiling, content, picture(90, 100, 1).double())
    torch.testing.assert_close(tiled["total"], whole["total"], rtol=1e-10, atol=0)
    torch.testing.assert_close(other, gradient, rtol=1e-8, atol=1e-12 * float(gradient.abs().max()))


def test_average_pooling_is_tiled_exactly_too():
    net = average_pooled(tiny_net(dtype=torch.float64), (1.5, 1.7))
    image = picture(33, 47, 3).double()
    (_, gradient), (_, other) = both(
        net, image, WHOLE, Tiling(("pool1",), 10), picture(33, 47).double(), picture(40, 30, 1).double()
    )
    torch.testing.assert_close(other, gradient, rtol=1e-8, atol=1e-12 * float(gradient.abs().max()))


def test_every_place_is_counted_once():
    """The sum of ones over a layer is its number of places, whatever the tiling."""
    net, image = tiny_net(), picture(37, 53)
    sums = {layer: Sum(layer, lambda a, _: torch.ones_like(a[:, :1]).sum()) for layer in ("conv1_1", "pool1", "conv2_1", "conv3_1")}
    for tiling in TILINGS:
        counts = add_up(net, image, sums, tiling)
        assert {name: float(count) for name, count in counts.items()} == {
            "conv1_1": 37 * 53,
            "pool1": 18 * 26,
            "conv2_1": 18 * 26,
            "conv3_1": 9 * 13,
        }


def test_a_tile_gets_its_place_in_the_picture():
    net, image = tiny_net(dtype=torch.float64), picture(37, 53).double()
    whole = activations_of(image, ["conv2_1", "conv1_2:pre"], net, None)
    for tiling in TILINGS:
        gathered = activations_of(image, ["conv2_1", "conv1_2:pre"], net, tiling)
        for layer, a in whole.items():
            torch.testing.assert_close(gathered[layer], a)


def test_a_wrong_overlap_would_be_noticed(monkeypatch):
    """The test of the tests: reading one pixel too few at each seam changes the cost."""
    import impasto.objective.tiles as tiles

    right = tiles._spans

    def narrow(*args):
        *inner, last = right(*args)
        return [(slice(crop.start, crop.stop - 2), own, local) for crop, own, local in inner] + [last]

    image = picture(64, 64, 3).double()
    monkeypatch.setattr(tiles, "_spans", narrow)
    (whole, _), (tiled, _) = both(tiny_net(dtype=torch.float64), image, WHOLE, Tiling((), 16), image.flip(2), image.flip(3))
    assert tiled["total"].item() != pytest.approx(whole["total"].item(), rel=1e-6)


def test_the_tiled_gradient_is_the_finite_difference():
    net = tiny_net(dtype=torch.float64)
    content, style = picture(20, 24).double(), picture(18, 22, 1).double()
    recipe = make_recipe(style_layers={"conv1_1": 1.0, "conv2_1": 1.0}, content_layers={"conv2_1": 1.0})
    tiling = Tiling(("pool1",), 8)
    cost = make_cost(make_targets(content, [style], recipe, net, tiling), recipe, net, tiling)
    x = picture(20, 24, 3).double().requires_grad_()
    (gradient,) = torch.autograd.grad(cost(x)["total"], x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        ahead, behind = (float(cost(x + step * direction)["total"]) for step in (1e-6, -1e-6))
    assert (ahead - behind) / 2e-6 == pytest.approx(float((gradient * direction).sum()), rel=1e-5)


def test_cuts_part_the_net_and_lose_no_layer():
    net = tiny_net()
    parts = split_net(net, ["conv3_1"], ("pool1", "pool2"))
    assert [layer.name for part in parts for layer in part] == [x.name for x in TINY]
    assert [part[-1].name for part in parts] == ["pool1", "pool2", "conv3_1"]
    assert all(isinstance(part[0], Conv) and isinstance(part[-1], Conv | Pool) for part in parts)


@pytest.mark.weights
@pytest.mark.parametrize(
    ("name", "tiling", "winograd", "bound"),
    [
        ("vgg19", Tiling((), 96), False, 1e-4),
        ("vgg19", Tiling(POOLS, 64), False, 1e-4),
        ("vgg19", Tiling(POOLS, 64), True, 1e-2),
        ("vgg16", Tiling(("pool2",), 80), False, 1e-4),
        ("vgg16", Tiling(("pool2",), 80), True, 1e-2),
        *(("alexnet", tiling, False, 1e-4) for tiling in (Tiling((), 96), Tiling(POOLS, 64), Tiling(("pool2",), 80))),
        ("alexnet", Tiling((), 96), True, 1e-2),
    ],
    ids=str,
)
def test_tiles_are_the_whole_on_real_nets(name, tiling, winograd, bound, monkeypatch):
    """All costs of the default, odd sides. By Winograd small tiles have other kernels than large ones, which rounds otherwise."""
    if not winograd:
        monkeypatch.setattr("impasto.nets.kernels.is_winograd", lambda *_: False)
    recipe = make_recipe(net=name, tv=1.0)
    net = make_net(recipe)
    cat, wave = (read_picture(picture_path(n)).image for n in ("cat", "hokusai-great-wave"))
    content, image = resize(cat, (99, 131)), resize(wave, (99, 131))
    (whole, gradient), (tiled, other) = both(net, 0.5 * image + 0.5 * content, recipe, tiling, content, wave[..., :101, :117])
    for key in whole:
        assert tiled[key].item() == pytest.approx(whole[key].item(), rel=1e-4), key
    assert (other - gradient).norm() < bound * gradient.norm()
