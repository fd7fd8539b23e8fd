"""Crops give the value again, in the two ways that are exact and in no other."""

import pytest
import torch

from impasto.lens.crops import aligned, check, exact, whole, without_padding
from impasto.lens.index import empty_index, make_setup
from impasto.lens.patches import Patch, patches_of, rank_picture
from impasto.lens.view import apply_view
from impasto.nets.geometry import field_of
from impasto.nets.nets import INPUTS, NETS, ConvShape, Net, assemble, features
from tests.conftest import picture, save, tiny_net
from tests.test_nets import random_weights


def alexnet(dtype: torch.dtype = torch.float64) -> Net:
    weights = {name: tensor.to(dtype) for name, tensor in random_weights("alexnet").items()}
    return assemble("alexnet", NETS["alexnet"], weights, INPUTS["torchvision"])


CASES = [(tiny_net(dtype=torch.float64), (40, 46), layer) for layer in ("conv1_2", "conv2_1", "conv2_1:pre", "pool2", "conv3_1")]
CASES += [(alexnet(), (224, 231), layer) for layer in ("conv1", "conv2", "pool2", "conv3", "conv5")]


def interior_places(net: Net, size: tuple[int, int], layer: str) -> list[tuple[int, int]]:
    rows, columns = (range(1000)[field_of(net.layers, layer).interior(length)] for length in size)
    corners = [(y, x) for y in (rows[0], rows[-1]) for x in (columns[0], columns[-1])]
    return [*corners, (rows[len(rows) // 2], columns[len(columns) // 2])]


@pytest.mark.parametrize(("net", "size", "layer"), CASES, ids=[f"{net.name}-{layer}" for net, _, layer in CASES])
@torch.no_grad()
def test_both_ways_are_exact_inside(net, size, layer):
    image = picture(*size).double()
    a = features(net, image, [layer])[layer][0]
    for y, x in interior_places(net, size, layer):
        for unit in (0, 1, 2):
            stored = float(a[unit, y, x])
            assert aligned(net, image, layer, unit, y, x) == pytest.approx(stored, rel=1e-12, abs=1e-12)
            assert exact(net, image, layer, unit, y, x) == pytest.approx(stored, rel=1e-12, abs=1e-12)


@torch.no_grad()
def test_the_exact_crop_gives_a_map_of_one_place():
    net, image = alexnet(), picture(224, 231).double()
    for layer in ("conv1", "conv2", "conv3", "conv4", "conv5"):
        y, x = interior_places(net, (224, 231), layer)[-1]
        x0, y0, x1, y1 = field_of(net.layers, layer).box(y, x)
        assert features(without_padding(net), image[..., y0:y1, x0:x1], [layer])[layer].shape[2:] == (1, 1)


@torch.no_grad()
def test_a_crop_out_of_step_in_the_padded_net_is_wrong():
    """Must fail: the field alone through the net as it is, even at whichever place comes nearest."""
    net, image = alexnet(), picture(224, 231).double()
    y, x = interior_places(net, (224, 231), "conv3")[-1]
    x0, y0, x1, y1 = field_of(net.layers, "conv3").box(y, x)
    stored = features(net, image, ["conv3"])["conv3"][0, :, y, x]
    naive = features(net, image[..., y0:y1, x0:x1], ["conv3"])["conv3"][0]
    nearest = (naive - stored[:, None, None]).abs().amax(0).min()
    assert nearest > 1e-3 * stored.abs().max()


@torch.no_grad()
def test_a_place_at_the_border_is_not_had_from_zeros_around_the_pixels():
    """Must fail: padding belongs to the maps, not to the picture."""
    net, image = tiny_net(dtype=torch.float64), picture(40, 46).double()
    stored = features(net, image, ["conv2_1"])["conv2_1"][0, :, 0, 0]
    field = field_of(net.layers, "conv2_1")
    mean = torch.tensor(net.input.mean, dtype=torch.float64).view(1, 3, 1, 1)  # what the net sees as zero
    pixels = mean.expand(1, 3, 40 + field.padding, 46 + field.padding).clone()
    pixels[..., field.padding :, field.padding :] = image
    padded = features(without_padding(net), pixels[..., : field.size, : field.size], ["conv2_1"])["conv2_1"][0, :, 0, 0]
    assert (padded - stored).abs().max() > 1e-2 * stored.abs().max()


def test_a_receipt_is_given_for_every_patch_of_a_scan(tmp_path):
    """From the index and the file alone: aligned and exact inside, whole where the unit sees padding."""
    from impasto.lens.collection import read_again
    from impasto.lens.scan import scan

    for n in range(6):
        save(tmp_path / f"{n}.png", picture(40 + n, 36, n))
    net = tiny_net()
    setup = make_setup(net, size=32)
    for _ in scan([tmp_path], net, setup, tmp_path / "atlas"):
        pass
    from impasto.lens.index import read_index

    index, ways = read_index(tmp_path / "atlas"), set()
    for layer in index.layers:
        for interior in (False, True):
            for unit, patches in patches_of(tmp_path / "atlas", index, layer, range(4), interior).items():
                for patch in patches:
                    image = apply_view(read_again(patch.row).image, patch.view)
                    for receipt in check(net, image, layer, unit, patch):
                        ways.add((receipt.way, patch.touches_padding))
                        assert receipt.error <= 1e-5 and receipt.error == abs(receipt.value - patch.value)
                assert not interior or not any(patch.touches_padding for patch in patches)
    assert ways == {("whole", True), ("aligned", False), ("exact", False)}


def test_a_wrong_place_has_an_error():
    """The test of the test: one place further on the value is another."""
    net, image = tiny_net(), picture(32, 32)
    index = empty_index(make_setup(net, size=32))
    rank_picture(index, net, image, 0)
    value, (_, y, x) = index.layers["conv2_1"].everywhere.value[1, 0], index.layers["conv2_1"].everywhere.where[1, 0]
    assert whole(net, image, "conv2_1", 1, int(y), int(x)) == pytest.approx(value, rel=1e-5)
    assert whole(net, image, "conv2_1", 1, int(y), int(x) - 1) < value - 1e-4


@pytest.mark.weights
def test_alexnets_patches_have_receipts_to_1e_4():
    from impasto.images.images import read_picture
    from impasto.lens.collection import Row, Source
    from impasto.lens.patches import patch_at
    from impasto.lens.view import view_of
    from impasto.nets.nets import build_net
    from impasto.pictures import picture_path
    from impasto.weights import load_weights

    loaded = load_weights("alexnet")
    net = build_net("alexnet", loaded.tensors, INPUTS[loaded.input])
    seen = read_picture(picture_path("cat")).image
    height, width = seen.shape[-2:]
    image = apply_view(seen, view_of((height, width), 224, "center"))
    index = empty_index(make_setup(net))
    rank_picture(index, net, image, 0)
    row = Row(Source("cat", ""), "", height, width)
    for layer, units in index.layers.items():
        for ranking in (units.everywhere, units.interior):
            scale = float(ranking.value[:, 0].max())
            for unit in range(0, len(ranking.value), 40):
                _, y, x = ranking.where[unit, 0].tolist()
                patch: Patch = patch_at(index.setup, index.setup.layers[layer].field, float(ranking.value[unit, 0]), row, y, x)
                assert all(receipt.error <= 1e-4 * scale for receipt in check(net, image, layer, unit, patch))


def test_a_drawing_without_a_pool_is_in_step_everywhere():
    shape = (ConvShape("conv1", 3, 2, size=3), ConvShape("conv2", 2, 2, size=5, padding=2))
    assert field_of(shape, "conv2").left == 0
