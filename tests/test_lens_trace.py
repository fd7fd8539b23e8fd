"""Fields followed through a pass: those of straight nets, and of branches, by brute force."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from impasto.errors import BadRecipe
from impasto.lens.crops import check_field
from impasto.lens.module import module_net
from impasto.lens.trace import NOTHING, FieldTracer
from impasto.nets.geometry import Field, field_of
from tests.conftest import maps, picture, tiny_net
from tests.nets_of_your_own import ALEX, WAYS, Joined, Residual, sequential, settled, straight

UNKNOWN_OF_RESIDUAL = {"mean", "fc"}


def fields_of(module: nn.Module, size: int) -> dict[str, Field | None]:
    return {name: known.field for name, known in module_net(module, size=size).known.items()}


def after(function, size: int = 12, channels: int = 4) -> Field | None:
    pixels = torch.zeros(1, channels, size, size)
    with torch.no_grad(), FieldTracer(pixels) as sight:
        return sight.of(function(pixels))


@pytest.mark.parametrize("way", WAYS)
def test_a_straight_net_has_the_fields_of_its_arithmetic(way):
    found = fields_of(WAYS[way](straight()), 64)
    for layer in ("conv1", "conv2", "conv3"):
        assert found[layer] == field_of(ALEX, layer)
    pools = {"modules": ("pool1", "pool2"), "one ReLU": ("pool", "pool@2")}
    for ours, layer in zip(pools.get(way, ()), ("pool1", "pool2"), strict=False):
        assert found[ours] == field_of(ALEX, layer)


def test_the_tiny_nets_fields_too():
    net = tiny_net()
    found = fields_of(sequential(net), 32)
    assert all(found[layer.name] == field_of(net.layers, layer.name) for layer in net.layers)


@pytest.mark.parametrize(("net", "size"), [(Residual, 48), (Joined, 24)], ids=["residual", "joined"])
@torch.no_grad()
def test_what_a_pixel_that_is_no_number_spoils_are_the_places_that_see_it(net, size):
    """Brute force, as NaN goes wherever a pixel goes: the columns that each place of each layer sees, from first to last."""
    net = module_net(settled(net()), size=size)
    known = {name: it.field for name, it in net.known.items() if it.field}
    assert len(known) >= 7
    seen: dict[tuple[str, int], list[int]] = {}
    for column in range(size):
        image = picture(size, size).double()
        image[..., column] = torch.nan
        for name, a in maps(net, image, known).items():
            for x in torch.nonzero(a.isnan().any(2).any(1)[0]).flatten().tolist():
                seen.setdefault((name, x), []).append(column)
    inside = 0
    for (name, x), columns in seen.items():
        x0, _, x1, _ = known[name].box(0, x)
        assert x0 <= min(columns) <= max(columns) < x1, (name, x)
        if x0 >= 0 and x1 <= size:  # at the border a dilated window may have its hole where the picture begins
            assert (min(columns), max(columns)) == (x0, x1 - 1), (name, x)
            inside += 1
    assert {name for name, _ in seen} == set(known) and inside > 3 * len(known)


@pytest.mark.parametrize(("net", "size"), [(Residual, 48), (Joined, 24)], ids=["residual", "joined"])
def test_noise_outside_a_field_changes_no_bit_and_at_its_edges_it_does(net, size):
    net = module_net(settled(net()), size=size)
    image = picture(size, size).double()
    moved_at = dict.fromkeys(("left", "top", "right", "bottom"), 0)
    for name, known in net.known.items():
        if known.field is None:
            continue
        a = maps(net, image, [name])[name]
        for y, x in [(a.shape[2] // 2, a.shape[3] // 2), (a.shape[2] - 1, 0)]:
            moved = check_field(net, image, name, y, x)
            assert moved.outside == 0
            moved_at = {edge: n + (getattr(moved, edge) > 0) for edge, n in moved_at.items()}
    assert min(moved_at.values()) >= 7


def test_a_field_that_is_too_small_is_found_out():
    """The test of the test."""
    net = module_net(settled(Residual()), size=48)
    known = net.known["layer1.0"]
    small = Field(known.field.size - 4, known.field.stride, known.field.padding - 2)
    wrong = type(net)(net.name, net.module, net.input, {"layer1.0": type(known)(known.units, small, None)})
    assert check_field(wrong, picture(48, 48).double(), "layer1.0", 6, 6).outside > 0


def test_check_field_holds_for_impastos_own_nets():
    net = tiny_net(dtype=torch.float64)
    moved = check_field(net, picture(40, 40).double(), "conv2_1", 10, 9)
    assert moved.outside == 0 < min(moved.left, moved.top, moved.right, moved.bottom)


def test_what_looks_at_the_whole_map_is_unknown():
    found = fields_of(Residual(), 48)
    assert {name for name, field in found.items() if field is None} == UNKNOWN_OF_RESIDUAL
    joined = fields_of(Joined(), 24)
    assert joined["mixed"] is None and joined["joined"] and joined["behind"]
    with pytest.raises(BadRecipe, match="the receptive field of mean is unknown"):
        check_field(module_net(Residual(), size=48), picture(48, 48), "mean", 0, 0)


def test_a_block_sees_what_its_longest_branch_sees():
    found = fields_of(Residual(), 48)
    assert found["pool"] == Field(9, 4, 4) and found["layer1.0"] == found["layer1.0.bn2"] == Field(25, 4, 12)
    assert found["layer2.0"] == found["layer2.0.conv2"] and found["layer2.0.skip"].size < found["layer2.0"].size


CASES = {
    "dilation": (lambda x: F.conv2d(x, torch.ones(2, 4, 3, 3), padding=2, dilation=2), Field(5, 1, 2)),
    "zeros around": (lambda x: F.pad(x, (2, 1, 2, 1)), Field(1, 1, 2)),
    "channels shuffled": (lambda x: x.view(1, 2, 2, 12, 12).transpose(1, 2).reshape(1, 4, 12, 12), Field(1, 1, 0)),
    "constants": (lambda x: 2 * x.clamp(min=0) + torch.ones(4, 1, 1), Field(1, 1, 0)),
    "batch norm": (lambda x: F.batch_norm(x, torch.zeros(4), torch.ones(4)), Field(1, 1, 0)),
    "weights": (lambda x: torch.ones(1, 4, 2, 2), NOTHING),
    "own statistics": (lambda x: F.batch_norm(x, None, None, training=True), None),
    "instance norm": (F.instance_norm, None),
    "group norm": (lambda x: F.group_norm(x, 2), None),
    "reflected": (lambda x: F.pad(x, (1, 1, 1, 1), "reflect"), None),
    "no square": (lambda x: F.avg_pool2d(x, (1, 3)), None),
    "uneven": (lambda x: F.pad(x, (1, 1, 0, 0)), None),
    "mirrored": (lambda x: x.flip(3), None),
    "turned": (lambda x: x.transpose(2, 3), None),
    "a part": (lambda x: x[..., 3:], None),
    "side by side": (lambda x: torch.cat([x, x], 3), None),
    "excited by the mean": (lambda x: x * F.adaptive_avg_pool2d(x, 1), None),
    "a place for all": (lambda x: x + F.max_pool2d(x, 12), None),
    "two strides": (lambda x: x[:, :, :6, :6] + F.max_pool2d(x, 2), None),
    "written in part": (lambda x: torch.zeros(1, 4, 12, 12).index_fill_(3, torch.tensor([2]), 1.0) * x, Field(1, 1, 0)),
}


@pytest.mark.parametrize("case", CASES)
def test_an_operation_has_the_field_it_has_or_says_that_it_is_unknown(case):
    function, field = CASES[case]
    assert after(function) == field


def test_a_tensor_filled_part_by_part_is_not_taken_for_a_constant():
    def filled(x):
        ground = torch.zeros(1, 4, 12, 12)
        ground[:, :, :6] = x[:, :, 6:]
        return ground

    def changed(x):
        one = x * 1.0
        one[:, :2] += F.avg_pool2d(x, 3, 1, 1)[:, :2]
        return one

    assert after(filled) is None and after(changed) is None
    assert after(lambda x: next(half.relu_() for half in (x * 1.0).chunk(2, 1))) == Field(1, 1, 0)
