"""The rankings against brute force over every place of every picture, and the properties of a total order."""

import numpy as np
import pytest
import torch

from impasto.errors import BadInput, BadRecipe
from impasto.lens.index import EDGES, empty_index, find_layer, make_setup, quantile, ranked
from impasto.lens.patches import rank_picture, strongest, strongest_apart
from impasto.lens.view import apply_view, view_of
from impasto.nets.geometry import field_of
from impasto.nets.nets import INPUTS, ConvShape, Net, Pool, assemble, features
from tests.conftest import picture, tiny_net

LAYERS = ["conv1_2", "conv2_1", "conv2_1:pre", "pool2", "conv3_1"]
IMAGES = [picture(32, 32, n) for n in range(12)]


def looked(net: Net, images, **options):
    index = empty_index(make_setup(net, LAYERS, **options))
    for n, image in enumerate(images):
        rank_picture(index, net, image, n)
    return index


def brute_force(net: Net, images, layer: str, unit: int, interior: bool, per_image: int) -> list[tuple[float, int, int, int]]:
    """Sort all there is, one place after the other, in plain Python."""
    field, found = field_of(net.layers, layer), []
    for n, image in enumerate(images):
        a = features(net, image, [layer])[layer][0, unit]
        places = [(-float(a[y, x]), n, y, x) for y in range(a.shape[0]) for x in range(a.shape[1])]
        if interior:
            places = [it for it in places if not field.touches_padding(*it[2:], tuple(image.shape[-2:]))]
        taken: list[tuple] = []
        for it in sorted(places):
            far = all(max(abs(it[2] - t[2]), abs(it[3] - t[3])) * 2 * field.stride >= field.size for t in taken)
            if far and len(taken) < per_image:
                taken.append(it)
        found += taken
    return [(-value, n, y, x) for value, n, y, x in sorted(found)]


@pytest.mark.parametrize("per_image", [1, 3])
@pytest.mark.parametrize("interior", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_streaming_is_brute_force(net, layer, interior, per_image):
    index = looked(net, IMAGES, k=5, per_image=per_image)
    ranking = index.layers[layer].interior if interior else index.layers[layer].everywhere
    for unit in range(index.setup.layers[layer].units):
        expected = brute_force(net, IMAGES, layer, unit, interior, per_image)[:5]
        found = [(v, *w) for v, w in zip(ranking.value[unit].tolist(), ranking.where[unit].tolist(), strict=True) if w[0] >= 0]
        assert found == expected


def test_fewer_patches_are_the_first_of_more(net):
    few, many = looked(net, IMAGES, k=2), looked(net, IMAGES, k=7)
    np.testing.assert_array_equal(few.rankings.value, many.rankings.value[:, :2])
    np.testing.assert_array_equal(few.rankings.where, many.rankings.where[:, :2])


def test_another_order_of_pictures_renumbers_them_and_nothing_else(net):
    order = [7, 2, 11, 0, 5, 9, 1, 3, 10, 4, 8, 6]
    one, other = looked(net, IMAGES), looked(net, [IMAGES[n] for n in order])
    renumbered = other.rankings.where.copy()
    renumbered[..., 0] = np.array([*order, -1])[renumbered[..., 0]]
    value, where = ranked(other.rankings.value, renumbered, 9)
    np.testing.assert_array_equal(value, one.rankings.value)
    positive = value > 0  # ties of silent units go by number
    np.testing.assert_array_equal(where[positive], one.rankings.where[positive])


def test_the_same_picture_twice_ties_and_the_first_comes_first(net):
    index = looked(net, [IMAGES[0], IMAGES[1], IMAGES[0]], k=3)
    value, where = index.layers["conv3_1"].everywhere.value, index.layers["conv3_1"].everywhere.where
    for unit in range(len(value)):
        assert np.flatnonzero(where[unit, :, 0] == 2) == np.flatnonzero(where[unit, :, 0] == 0) + 1 or value[unit].max() == 0


def test_values_below_zero_are_ranked_too(net):
    index = looked(net, IMAGES[:3])
    low = index.layers["conv2_1:pre"].everywhere.value[:, :3]
    assert np.isfinite(low).all() and (index.layers["conv2_1:pre"].everywhere.where[:, :3, 0] >= 0).all()
    assert (index.layers["conv2_1:pre"].everywhere.value[:, 3:] == -np.inf).all()


def test_of_equal_places_the_first_in_reading_order_is_taken():
    a = np.zeros((2, 4, 5), np.float32)
    a[1, 2, 3] = a[1, 3, 0] = a[1, 2, 4] = 7.0
    value, y, x = strongest(a)
    assert (value.tolist(), y.tolist(), x.tolist()) == ([0.0, 7.0], [0, 2], [0, 3])


def test_patches_of_one_picture_lie_apart_until_no_place_is_left():
    a = np.arange(25, dtype=np.float32).reshape(1, 5, 5)
    values, places = strongest_apart(a, 5, 2)
    assert values[0].tolist() == [24.0, 21.0, 9.0, 6.0, -np.inf]
    assert places[0, :4].tolist() == [[4, 4], [4, 1], [1, 4], [1, 1]]
    assert a[0, 4, 4] == 24.0


@torch.no_grad()
def test_firing_padding_and_quantiles_are_those_of_the_maxima(net):
    index = looked(net, IMAGES)
    for layer in ("conv2_1", "conv3_1"):
        peaks = torch.stack([features(net, image, [layer])[layer][0].amax((1, 2)) for image in IMAGES]).numpy()
        units = index.layers[layer]
        assert units.fired.tolist() == (peaks > 0).sum(0).tolist()
        assert (units.padded <= units.fired).all() and units.bins.sum(1).tolist() == [12] * len(units.bins)
        for share in (0.25, 0.5, 0.9, 1.0):
            exact = np.sort(peaks, 0)[int(np.ceil(share * 12)) - 1]
            found = quantile(index, layer, share)
            assert (found >= exact * (1 - 1e-6)).all() and (found <= np.maximum(exact * 1.0906, EDGES[1])).all()
        assert quantile(index, layer, 1.0).tolist() == units.everywhere.value[:, 0].tolist()


def test_a_unit_is_padded_where_its_strongest_place_sees_padding():
    """A net that adds up nine pixels, on a bright square in the corner of grey and on one in the middle."""
    weights = {"conv1.weight": torch.ones(1, 3, 3, 3), "conv1.bias": torch.zeros(1)}
    net = assemble("sum", (ConvShape("conv1", 3, 1),), weights, INPUTS["torchvision"])
    corner, middle = torch.tensor(net.input.mean).view(1, 3, 1, 1).expand(2, 1, 3, 9, 9).clone()
    corner[..., :2, :2], middle[..., 4:6, 4:6] = 1.0, 1.0
    index = empty_index(make_setup(net))
    for n, image in enumerate((corner, middle)):
        rank_picture(index, net, image, n)
    assert index.layers["conv1"].padded.tolist() == [1] and index.layers["conv1"].fired.tolist() == [2]


def test_a_planted_stamp_is_found_where_it_was_planted():
    """A filter that matches a stamp: its patches are the stamps, the brighter first, at their places."""
    generator = torch.Generator().manual_seed(0)
    stamp = torch.rand(3, 5, 5, generator=generator)
    shape = (ConvShape("conv1", 3, 1, size=5, padding=2), Pool("pool1"))
    std = torch.tensor(INPUTS["torchvision"].std).view(3, 1, 1)
    mean = torch.tensor(INPUTS["torchvision"].mean).view(3, 1, 1)
    weights = {"conv1.weight": ((stamp - 0.5) * std)[None], "conv1.bias": (mean * (stamp - 0.5)).sum()[None]}  # answers image - 0
    net = assemble("match", shape, weights, INPUTS["torchvision"])
    planted = [(0, 4, 11, 1.0), (2, 20, 7, 0.9), (1, 13, 2, 0.8)]
    images = [torch.full((1, 3, 32, 32), 0.5) for _ in range(3)]
    for n, y, x, strength in planted:
        images[n][0, :, y : y + 5, x : x + 5] = 0.5 + strength * (stamp - 0.5)
    index = empty_index(make_setup(net, k=3))
    for n, image in enumerate(images):
        rank_picture(index, net, image, n)
    assert index.layers["conv1"].everywhere.where[0].tolist() == [[n, y + 2, x + 2] for n, y, x, _ in planted]


def test_activations_that_are_not_finite_are_refused(net):
    index = empty_index(make_setup(net))
    with pytest.raises(BadInput, match="conv1_1 are not finite"):
        rank_picture(index, net, torch.full((1, 3, 32, 32), torch.nan), 0)


def test_layers_have_the_papers_names(net):
    index = empty_index(make_setup(net, ["relu2_1", "conv1_1:pre", "conv2_1"]))
    assert list(index.layers) == ["conv1_1:pre", "conv2_1"] and find_layer(index, "relu2_1") == "conv2_1"
    with pytest.raises(BadRecipe, match="layer 'conv3_1' was not scanned, these were: conv1_1:pre, conv2_1"):
        find_layer(index, "conv3_1")
    with pytest.raises(BadRecipe, match="tiny has no layer 'fc6'"):
        make_setup(net, ["fc6"])
    with pytest.raises(BadRecipe, match="fit is 'stretch', must be one of center, whole"):
        make_setup(net, fit="stretch")


@pytest.mark.parametrize("size", [(100, 75), (75, 101), (60, 60), (448, 335)])
def test_a_box_is_brought_back_through_crop_and_resize(size):
    """The corners of what is seen are those of the middle square of the picture, up to the crop's rounding."""
    view = view_of(size, 64, "center")
    x0, y0, x1, y1 = view.in_picture((0, 0, 64, 64))
    assert min(view.resized) == 64 and view.size == (64, 64)
    assert view.start == tuple((n - 64) // 2 for n in view.resized)
    pixel = max(size) / max(view.resized)
    assert abs((x0 + x1) / 2 - size[1] / 2) <= pixel / 2 + 1e-9 and abs((y0 + y1) / 2 - size[0] / 2) <= pixel / 2 + 1e-9
    assert view_of(size, 64, "whole").in_picture((0, 0, *view.resized[::-1])) == pytest.approx((0, 0, size[1], size[0]))


def test_a_marked_pixel_is_found_again_in_the_picture():
    """A bright square brought to the net and boxed there lies in the box that is brought back."""
    image = torch.zeros(1, 3, 120, 200)
    image[..., 60:66, 130:136] = 1.0
    view = view_of((120, 200), 64, "center")
    place = int(apply_view(image, view)[0, 0].argmax())
    y, x = divmod(place, 64)
    x0, y0, x1, y1 = view.in_picture((x, y, x + 1, y + 1))
    assert 130 <= (x0 + x1) / 2 <= 136 and 60 <= (y0 + y1) / 2 <= 66


def test_tiny_net_fires_in_some_pictures_and_not_in_others():
    """The tests above would prove little on a net that always fires or never does."""
    fired = looked(tiny_net(), IMAGES).layers["conv3_1"].fired
    assert fired.min() < 12 and fired.max() == 12
