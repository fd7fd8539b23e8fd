"""Projections: the identities that hold exactly in float64, and those that must not hold."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from impasto.errors import BadRecipe
from impasto.lens.deconv import controls, cosine, filtered, filters_of, project, record, shuffled, to_pixels
from impasto.lens.rules import POOLINGS, RULES, unpool
from impasto.nets.geometry import field_of
from impasto.nets.nets import INPUTS, NETS, Conv, ConvShape, Net, Pool, assemble, average_pooled, features, preprocess
from tests.conftest import TINY, picture, tiny_net
from tests.test_nets import random_weights

LAYERS = ["conv1_1", "conv1_2", "pool1", "conv2_1", "conv2_1:pre", "pool2", "conv3_1"]
IMAGE = picture(24, 28).double()


def whole_maps(way, unit, y, x, rule, pooling):
    """The way back of project() over whole maps."""
    signal = torch.zeros_like(way.a)[None]
    signal[0, unit, y, x] = way.a[unit, y, x]
    for n, passed in enumerate(reversed(way.passed)):
        if isinstance(passed.layer, Pool):
            signal = unpool(signal, passed.kept, passed.shape, pooling)
        else:
            signal = filtered(RULES[rule](signal, passed.kept) if n else signal, passed.layer, passed.shape, passed.layer.padding)
    return to_pixels(signal, way.net.input)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_what_a_unit_cannot_reach_need_not_be_computed(rule, pooling):
    """Windows of the maps give what whole maps give, at the edges and in the middle, with pools that share switches."""
    for net, layer, image in ((overlapping(), "conv3", picture(95, 111).double()), (net64(), "conv3_1", IMAGE)):
        way = record(net, image, layer)
        height, width = way.a.shape[-2:]
        for y, x in ((0, 0), (height - 1, width - 1), (height // 2, width // 3)):
            unit = int(way.a[:, y, x].argmax())
            assert way.a[unit, y, x] > 0
            assert close(project(way, unit, y, x, rule, pooling), whole_maps(way, unit, y, x, rule, pooling))


def net64(input: str = "torchvision") -> Net:
    return tiny_net(dtype=torch.float64, input=input)


def opened(net: Net, weight=lambda w: w) -> Net:
    """With biases so large, and larger layer by layer, that every ReLU is open."""
    layers = [
        Conv(x.name, weight(x.weight), x.bias + 1e3 ** (n + 1), x.stride, x.padding) if isinstance(x, Conv) else x
        for n, x in enumerate(net.layers)
    ]
    return Net(net.name, tuple(layers), net.input)


def overlapping() -> Net:
    """AlexNet's shape with random weights: pools of 3 with stride 2."""
    weights = {name: tensor.double() for name, tensor in random_weights("alexnet").items()}
    return assemble("alexnet", NETS["alexnet"], weights, INPUTS["torchvision"])


def strongest(way) -> tuple[int, int, int]:
    unit, y, x = torch.unravel_index(way.a.argmax(), way.a.shape)
    return int(unit), int(y), int(x)


def all_open(way) -> bool:
    return all(bool(passed.kept.all()) for passed in way.passed if isinstance(passed.layer, Conv))


def close(one, other, tolerance=1e-12):
    return float((one - other).abs().max()) <= tolerance * max(1.0, float(one.abs().max()))


@pytest.mark.parametrize(
    "shape", [ConvShape("c", 3, 4, 3, 1, 1), ConvShape("c", 3, 4, 11, 4, 2), ConvShape("c", 3, 4, 5, 2, 0)], ids=str
)
def test_filtering_back_is_the_adjoint_of_the_convolution(shape):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, shape.size, shape.size, generator=generator, dtype=torch.float64)
    layer = Conv("c", weight, torch.zeros(4).double(), shape.stride, shape.padding)
    x = torch.randn(1, 3, 26, 31, generator=generator, dtype=torch.float64)
    there = F.conv2d(x, weight, None, shape.stride, shape.padding)
    y = torch.randn(there.shape, generator=generator, dtype=torch.float64)
    assert float((there * y).sum()) == pytest.approx(float((x * filtered(y, layer, x.shape, layer.padding)).sum()), rel=1e-12)


def test_wide_windows_go_back_by_the_fast_kernel_to_the_same():
    """In float32, where a 3x3 layer is large enough for it, and small ones beside it."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 32, 3, 3, generator=generator)
    layer = Conv("c", weight, torch.zeros(40), 1, 1)
    for side in (5, 30):
        y = torch.randn(1, 40, side, side, generator=generator)
        shape = torch.Size((1, 32, side + 2, side + 2))
        expected = filtered(y.double(), replace(layer, weight=weight.double()), shape, 0)
        assert (filtered(y, layer, shape, 0) - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("input", INPUTS)
def test_the_last_step_is_the_adjoint_of_preprocessing(input):
    x, y = picture(6, 5).double(), picture(6, 5, 1).double()
    linear = preprocess(x, INPUTS[input]) - preprocess(torch.zeros_like(x), INPUTS[input])
    assert float((linear * y).sum()) == pytest.approx(float((x * to_pixels(y, INPUTS[input])).sum()), rel=1e-12)


def test_without_a_relu_on_the_way_the_rules_agree():
    way = record(net64(), IMAGE, "conv1_1")
    unit, y, x = strongest(way)
    deconv, guided, gradient = (project(way, unit, y, x, rule) for rule in RULES)
    assert torch.equal(deconv, guided) and torch.equal(deconv, gradient)


def test_with_open_relus_and_no_negative_weight_the_rules_agree():
    way = record(opened(net64(), torch.abs), IMAGE, "conv3_1")
    deconv, guided, gradient = (project(way, 2, 1, 3, rule) for rule in RULES)
    assert all_open(way) and torch.equal(deconv, guided) and torch.equal(deconv, gradient) and deconv.abs().max() > 0


def test_with_open_relus_and_signed_weights_deconv_is_guided_and_not_the_gradient():
    """Must fail for the gradient: a deconvnet also clips what comes back."""
    way = record(opened(net64()), IMAGE, "conv3_1")
    deconv, guided, gradient = (project(way, 2, 1, 3, rule) for rule in RULES)
    assert all_open(way) and torch.equal(deconv, guided)
    assert (deconv - gradient).norm() > 0.1 * gradient.norm()


def test_on_an_ordinary_net_the_three_rules_are_three():
    way = record(net64(), IMAGE, "conv3_1")
    found = [project(way, *strongest(way), rule) for rule in RULES]
    assert all(not close(a, b, 1e-3) for a, b in zip(found, [*found[1:], found[0]], strict=True))


@pytest.mark.parametrize("input", INPUTS)
def test_a_unit_of_the_first_layer_draws_its_filter_at_its_field(input):
    net = net64(input)
    way = record(net, IMAGE, "conv1_1")
    filters = filters_of(net, "conv1_1")
    for unit, y, x in [(0, 5, 7), (3, 0, 0), (2, 23, 4)]:
        x0, y0, x1, y1 = field_of(net.layers, "conv1_1").box(y, x)
        pasted = torch.zeros(3, 26, 30, dtype=torch.float64)
        pasted[:, y0 + 1 : y1 + 1, x0 + 1 : x1 + 1] = 0.7 * filters[unit]
        assert close(project(way, unit, y, x, start=0.7)[0], pasted[:, 1:-1, 1:-1])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_projection_grows_with_its_start(rule, pooling):
    way = record(net64(), IMAGE, "conv3_1")
    unit, y, x = strongest(way)
    one = project(way, unit, y, x, rule, pooling, 1.0)
    assert close(project(way, unit, y, x, rule, pooling, 3.5), 3.5 * one)
    assert close(project(way, unit, y, x, rule, pooling), float(way.a[unit, y, x]) * one)


def test_a_negative_start_is_not_the_negative_projection():
    """Must fail: what a deconvnet clips depends on the sign."""
    way = record(net64(), IMAGE, "conv3_1")
    unit, y, x = strongest(way)
    one, minus = (project(way, unit, y, x, start=start) for start in (1.0, -1.0))
    assert (minus + one).norm() > 0.1 * one.norm()
    gradients = [project(way, unit, y, x, "gradient", start=start) for start in (1.0, -1.0)]
    assert close(gradients[0], -gradients[1])


@pytest.mark.parametrize("layer", LAYERS)
def test_the_gradient_is_autograds_and_the_finite_difference(layer):
    net = net64()
    way = record(net, IMAGE, layer)
    unit, y, x = strongest(way)
    found = project(way, unit, y, x, "gradient", start=1.0)
    pixels = IMAGE.clone().requires_grad_()
    value = features(net, pixels, [layer])[layer][0, unit, y, x]
    assert close(found, torch.autograd.grad(value, pixels)[0])
    direction = torch.randn(IMAGE.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        ahead, behind = (features(net, IMAGE + step * direction, [layer])[layer][0, unit, y, x] for step in (1e-6, -1e-6))
    assert float((ahead - behind) / 2e-6) == pytest.approx(float((found * direction).sum()), rel=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", LAYERS)
def test_nothing_is_drawn_outside_the_field(layer, rule, pooling):
    way = record(net64(), IMAGE, layer)
    for y, x in [(0, 0), (way.a.shape[1] // 2, way.a.shape[2] // 2), (way.a.shape[1] - 1, 0)]:
        x0, y0, x1, y1 = field_of(TINY, layer).box(y, x)
        drawn = project(way, 1, y, x, rule, pooling, 1.0)
        drawn[..., max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = 0
        assert not drawn.any()


@pytest.mark.parametrize("rule", RULES)
def test_where_pools_do_not_overlap_the_poolings_agree(rule):
    way = record(net64(), IMAGE, "conv3_1")
    unit, y, x = strongest(way)
    added, overwritten, largest = (project(way, unit, y, x, rule, pooling) for pooling in POOLINGS)
    assert torch.equal(added, overwritten) and torch.equal(added, largest)


def test_where_pools_overlap_the_poolings_differ():
    way = record(overlapping(), picture(128, 128).double(), "conv3")
    unit, y, x = strongest(way)
    added, overwritten, largest = (project(way, unit, y, x, "deconv", pooling) for pooling in POOLINGS)
    assert cosine(added, overwritten) < 0.99 and cosine(added, largest) < 0.999
    switches = way.passed[1].kept.flatten(2)[0]
    shared = sum(len(plane) - len(plane.unique()) for plane in switches) / switches.numel()
    assert 0.1 < shared < 0.6


def test_shared_switches_are_added_overwritten_by_the_last_or_the_largest():
    signal = torch.tensor([[[[1.0, 5.0], [-7.0, 2.0]]]])
    switches = torch.tensor([[[[4, 4], [4, 8]]]])
    found = {pooling: unpool(signal, switches, torch.Size((1, 1, 3, 3)), pooling).flatten().tolist() for pooling in POOLINGS}
    assert [found[pooling][4] for pooling in POOLINGS] == [-1.0, -7.0, 5.0]
    assert all(values[8] == 2.0 and sum(v != 0 for v in values) == 2 for values in found.values())


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_and_unpooling_undo_each_other(pooling):
    x = torch.rand(1, 3, 8, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pooled, switches = F.max_pool2d(x, 2, return_indices=True)
    back = unpool(pooled, switches, x.shape, pooling)
    assert torch.equal(back[back > 0], x[back > 0]) and (back > 0).sum() == pooled.numel()
    assert torch.equal(F.max_pool2d(back, 2), pooled)


def test_of_equal_places_the_first_has_the_switch():
    way = record(net64(), torch.full_like(IMAGE, 0.3), "pool1")
    inside = way.passed[-1].kept[0, 0, 3:-3, 3:-3]  # flat far from the edge: all four of a window are equal
    y, x = torch.meshgrid(torch.arange(3, 9), torch.arange(3, 11), indexing="ij")
    assert torch.equal(inside, 2 * y * 28 + 2 * x)


def test_a_silent_unit_is_refused():
    way = record(net64(), IMAGE, "conv3_1")
    unit, y, x = (int(n) for n in torch.nonzero(way.a == 0)[0])
    with pytest.raises(BadRecipe, match=f"unit {unit} of conv3_1 is 0 at y {y}, x {x}: an inactive unit has no projection"):
        project(way, unit, y, x)


def test_what_is_not_defined_is_refused():
    with pytest.raises(BadRecipe, match="max pooling and zero"):
        record(average_pooled(net64(), (1.0, 1.0)), IMAGE, "conv3_1")
    with pytest.raises(BadRecipe, match="max pooling and zero"):
        record(tiny_net("reflect", torch.float64), IMAGE, "conv3_1")
    with pytest.raises(BadRecipe, match="rule is 'backprop' and pooling 'sum', must be of deconv, guided, gradient and of sum"):
        project(record(net64(), IMAGE, "conv1_1"), 0, 1, 1, "backprop")


def test_the_map_before_the_relu_may_be_negative_and_its_way_is_the_same():
    before, behind = (record(net64(), IMAGE, layer) for layer in ("conv3_1:pre", "conv3_1"))
    assert before.a.min() < 0 and torch.equal(before.a.relu(), behind.a)
    assert torch.equal(project(before, *strongest(before)), project(behind, *strongest(behind)))


def test_controls_are_other_pictures_drawn_by_a_seed():
    net = net64()
    way = record(net, IMAGE, "conv3_1")
    unit, y, x = strongest(way)
    found, again, other = (controls(way, IMAGE, unit, y, x, seed) for seed in (3, 3, 4))
    assert [c.cosine for c in found] == [c.cosine for c in again] != [c.cosine for c in other]
    assert found[0].name != f"unit {unit}" and all(-1 <= c.cosine < 0.9999 for c in found)
    drawn = project(way, int(found[0].name.removeprefix("unit ")), y, x, start=1.0)
    assert torch.equal(found[0].projection, drawn)


def test_shuffled_weights_are_the_same_in_another_order():
    net = net64()
    for one, other in zip(net.convs, shuffled(net, 0).convs, strict=True):
        assert not torch.equal(one.weight, other.weight)
        assert torch.equal(one.weight.flatten().sort().values, other.weight.flatten().sort().values)


def test_a_net_with_a_pool_first_has_a_way_back():
    shape = (Pool("pool1"), ConvShape("conv1", 3, 2))
    weights = {"conv1.weight": torch.rand(2, 3, 3, 3).double(), "conv1.bias": torch.ones(2).double()}
    way = record(assemble("odd", shape, weights, INPUTS["torchvision"]), IMAGE, "conv1")
    assert project(way, 0, 3, 3, start=1.0).shape == IMAGE.shape
