"""Receptive fields against published tables, index sets found by brute force, and noise outside the field."""

import pytest
import torch

from impasto.nets.geometry import Field, field_of, fields
from impasto.nets.nets import NETS, ConvShape, Pool, features, window
from tests.conftest import TINY, picture, tiny_net

# (size, stride, padding, left, places on one axis without padding, places on one axis) at 224 px. VGG-16 and its pools as in
# google-research/receptive_field, AlexNet as torchvision's.
TABLES = {
    "alexnet": {
        "conv1": (11, 4, 2, 2, 53, 55),
        "pool1": (19, 8, 2, 6, 25, 27),
        "conv2": (51, 8, 18, 6, 21, 27),
        "pool2": (67, 16, 18, 14, 9, 13),
        "conv3": (99, 16, 34, 14, 7, 13),
        "conv4": (131, 16, 50, 14, 5, 13),
        "conv5": (163, 16, 66, 14, 3, 13),
        "pool5": (195, 32, 66, 30, 0, 6),
    },
    "vgg16": {
        "conv1_1": (3, 1, 1, 0, 222, 224),
        "conv1_2": (5, 1, 2, 0, 220, 224),
        "pool1": (6, 2, 2, 0, 110, 112),
        "conv2_1": (10, 2, 4, 0, 108, 112),
        "conv2_2": (14, 2, 6, 0, 106, 112),
        "pool2": (16, 4, 6, 2, 52, 56),
        "conv3_1": (24, 4, 10, 2, 50, 56),
        "conv3_2": (32, 4, 14, 2, 48, 56),
        "conv3_3": (40, 4, 18, 2, 46, 56),
        "pool3": (44, 8, 18, 6, 22, 28),
        "conv4_1": (60, 8, 26, 6, 20, 28),
        "conv4_2": (76, 8, 34, 6, 18, 28),
        "conv4_3": (92, 8, 42, 6, 16, 28),
        "pool4": (100, 16, 42, 6, 8, 14),
        "conv5_1": (132, 16, 58, 6, 6, 14),
        "conv5_2": (164, 16, 74, 6, 4, 14),
        "conv5_3": (196, 16, 90, 6, 2, 14),
        "pool5": (212, 32, 90, 6, 1, 7),
    },
    "vgg19": {
        "conv3_4": (48, 4, 22, 2, 44, 56),
        "conv4_1": (68, 8, 30, 2, 20, 28),
        "conv4_2": (84, 8, 38, 2, 18, 28),
        "conv4_4": (116, 8, 54, 2, 14, 28),
        "conv5_1": (156, 16, 70, 10, 4, 14),
        "conv5_3": (220, 16, 102, 10, 0, 14),
        "conv5_4": (252, 16, 118, 10, 0, 14),
    },
}
ODD = (
    ConvShape("conv1", 3, 2, size=7, stride=3, padding=1),
    Pool("pool1", 3),
    ConvShape("conv2", 2, 2, size=5, stride=2, padding=3),
)
CAFFENET = (
    ConvShape("conv1", 3, 96, size=11, stride=4, padding=0),
    Pool("pool1", 3),
    ConvShape("conv2", 96, 256, size=5, padding=2),
    Pool("pool2", 3),
    ConvShape("conv3", 256, 384),
)


@pytest.mark.parametrize(("name", "layer"), [(name, layer) for name, table in TABLES.items() for layer in table])
def test_fields_are_those_of_the_tables(name, layer):
    size, stride, padding, left, complete, places = TABLES[name][layer]
    field = field_of(NETS[name], layer)
    assert (field, field.left) == (Field(size, stride, padding), left)
    inside = field.interior(224)
    assert inside.stop - inside.start == complete
    assert len(places_seen(NETS[name], 224)[layer]) == places


def places_seen(layers, length: int) -> dict[str, list[set[int]]]:
    """For every place of every layer the pixels it sees, by following indices; padding is None."""
    seen: list[set[int | None]] = [{i} for i in range(length)]
    found = {}
    for layer in layers:
        size, stride, padding = window(layer)
        padded = [{None}] * padding + seen + [{None}] * padding
        seen = [set().union(*padded[o * stride : o * stride + size]) for o in range((len(padded) - size) // stride + 1)]
        found[layer.name] = seen
    return found


@pytest.mark.parametrize("layers", [*NETS.values(), TINY, ODD, CAFFENET], ids=[*NETS, "tiny", "odd", "caffenet"])
@pytest.mark.parametrize("length", [224, 227, 150])
def test_every_place_sees_what_following_indices_says(layers, length):
    for layer, found in places_seen(layers, length).items():
        field = field_of(layers, layer)
        inside = field.interior(length)
        for u, seen in enumerate(found):
            x0, _, x1, _ = field.box(0, u)
            pixels = {i for i in seen if i is not None}
            assert (None not in seen) == (inside.start <= u < inside.stop), (layer, u)
            # Beside padding the last pixels of the picture may be seen by nobody: a window that does not fit is left out.
            assert pixels <= set(range(max(0, x0), min(length, x1))), (layer, u)
            assert None in seen or pixels == set(range(x0, x1)), (layer, u)


def test_touching_is_asked_on_both_axes():
    field = field_of(NETS["alexnet"], "conv5")
    touching = [(y, x) for y in range(13) for x in range(13) if not field.touches_padding(y, x, (224, 224))]
    assert touching == [(y, x) for y in (5, 6, 7) for x in (5, 6, 7)]
    assert field.touches_padding(6, 6, (224, 150)) and not field_of(NETS["alexnet"], "conv1").touches_padding(6, 6, (224, 150))


@pytest.mark.parametrize("layer", ["conv1_2", "pool1", "conv2_1", "conv2_1:pre", "pool2", "conv3_1"])
def test_noise_outside_the_field_changes_nothing_and_inside_does(layer):
    net, image = tiny_net(dtype=torch.float64), picture(40, 36).double()
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    field = field_of(net.layers, layer)
    before = features(net, image, [layer])[layer]
    for y, x in [(0, 0), (4, 3), (before.shape[2] - 1, before.shape[3] // 2)]:
        x0, y0, x1, y1 = field.box(y, x)
        outside = torch.ones(40, 36, dtype=torch.bool)
        outside[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = False
        around, within = (features(net, torch.where(where, noise, image), [layer])[layer] for where in (outside, ~outside))
        assert torch.equal(around[..., y, x], before[..., y, x])
        assert not torch.equal(within[..., y, x], before[..., y, x])


def test_a_drawing_has_the_fields_of_its_net():
    assert fields(TINY) == fields(tiny_net().layers)
