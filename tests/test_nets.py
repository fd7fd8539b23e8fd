"""The nets against an independent torch.nn.Sequential, the papers' layer lists, and the identities of pooling and rescaling."""

import math

import pytest
import torch
from torch import nn

from impasto.errors import BadImage, BadRecipe
from impasto.nets.nets import (
    INPUTS,
    NETS,
    Compute,
    Conv,
    Pool,
    average_pooled,
    build_net,
    choose_compute,
    features,
    map_size,
    net_to,
    normalized,
    preprocess,
    weight_shapes,
)
from tests.conftest import picture, tiny_net


def random_weights(name: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    fan_in = {k: math.prod(s[1:]) if len(s) > 1 else 100 for k, s in weight_shapes(name).items()}
    return {k: torch.randn(s, generator=generator) * (2 / fan_in[k]) ** 0.5 for k, s in weight_shapes(name).items()}


def sequential(name: str, weights: dict[str, torch.Tensor]) -> tuple[nn.Sequential, dict[str, int]]:
    """torchvision's layout, written out independently: {layer name: index of its ReLU}."""
    if name == "alexnet":
        plan = [(64, 11, 4, 2), "M", (192, 5, 1, 2), "M", (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1), "M"]
        names = [f"conv{n}" for n in range(1, 6)]
    else:
        four = {"vgg16": 3, "vgg19": 4}[name]
        blocks = [(64, 2), (128, 2), (256, four), (512, four), (512, four)]
        plan = [x for width, n in blocks for x in [*[(width, 3, 1, 1)] * n, "M"]]
        names = [f"conv{b}_{i}" for b, (_, n) in enumerate(blocks, 1) for i in range(1, n + 1)]
    modules, places, channels, convs = [], {}, 3, iter(names)
    for x in plan:
        if x == "M":
            modules.append(nn.MaxPool2d(3 if name == "alexnet" else 2, 2))
            continue
        width, size, stride, padding = x
        layer = next(convs)
        conv = nn.Conv2d(channels, width, size, stride, padding)
        conv.weight.data, conv.bias.data = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
        modules += [conv, nn.ReLU()]
        places[layer], channels = len(modules) - 1, width
    return nn.Sequential(*modules), places


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_features_agree_with_torchvisions_layout(name):
    weights, image = random_weights(name), picture(70, 65)
    reference, places = sequential(name, weights)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    found = features(build_net(name, weights, INPUTS["torchvision"]), image, places)
    assert list(found) == list(places)
    for layer, place in places.items():
        torch.testing.assert_close(found[layer], reference[: place + 1]((image - mean) / std), rtol=1e-4, atol=1e-4)


def test_the_layers_have_the_papers_names():
    convs = {1: 2, 2: 2, 3: 4, 4: 4, 5: 4}
    names = [[*(f"conv{block}_{n}" for n in range(1, count + 1)), f"pool{block}"] for block, count in convs.items()]
    assert [x.name for x in NETS["vgg19"]] == [name for block in names for name in block]
    assert sum(len(s) == 4 for s in weight_shapes("vgg16").values()) == 13
    assert sum(len(s) == 4 for s in weight_shapes("alexnet").values()) == 5


def test_a_layer_name_means_the_rectified_map(net):
    image = picture(24, 20)
    found = features(net, image, ["conv2_1:pre", "conv2_1", "relu2_1"])
    assert found["conv2_1:pre"].min() < 0
    torch.testing.assert_close(found["conv2_1"], found["conv2_1:pre"].relu())
    torch.testing.assert_close(found["relu2_1"], found["conv2_1"])


def test_the_walk_stops_at_the_deepest_layer(net):
    """A picture too small for pool2 still has a conv2_1."""
    tiny = picture(2, 2)
    assert features(net, tiny, ["conv2_1"])["conv2_1"].shape == (1, 6, 1, 1)
    with pytest.raises(BadImage, match="pool2"):
        features(net, tiny, ["conv3_1"])


@pytest.mark.parametrize("layer", ["conv9_1", "pool1:pre", "22", ""])
def test_an_unknown_layer_is_refused_with_the_known_ones(net, layer):
    with pytest.raises(BadRecipe, match="conv1_1, conv1_2, pool1"):
        features(net, picture(16, 16), [layer])


def test_caffe_input_is_bgr_bytes_less_the_mean():
    image = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    x = preprocess(image, INPUTS["caffe"]).flatten()
    torch.testing.assert_close(x, torch.tensor([0 - 103.939, 127.5 - 116.779, 255 - 123.68]))


@torch.no_grad()
def test_average_pooling_averages_and_rescales(net):
    averaged = average_pooled(net, (2.0, 3.0))
    found = features(averaged, picture(16, 16), ["conv1_2", "pool1"])
    torch.testing.assert_close(found["pool1"], 2 * found["conv1_2"].unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2)))


@pytest.mark.parametrize("padding", ["replicate", "reflect"])
@torch.no_grad()
def test_padding_changes_the_border_only(padding):
    image = picture(32, 32)
    plain, padded = (features(tiny_net(p), image, ["conv1_2"])["conv1_2"] for p in ("zeros", padding))
    torch.testing.assert_close(plain[..., 2:-2, 2:-2], padded[..., 2:-2, 2:-2])
    assert not torch.allclose(plain, padded)


@torch.no_grad()
def test_a_flat_picture_has_no_border_when_replicated():
    a = features(tiny_net("replicate"), torch.full((1, 3, 16, 16), 0.3), ["conv3_1"])["conv3_1"]
    torch.testing.assert_close(a, a[..., :1, :1].expand_as(a))


@pytest.mark.parametrize("kind", ["max", "avg"])
@torch.no_grad()
def test_a_normalized_net_has_mean_activation_one(kind):
    images = [picture(32, 24), picture(20, 40, 1)]
    net = tiny_net() if kind == "max" else average_pooled(tiny_net(), (1.5, 1.5))
    maps = [features(normalized(net, images), image, ["conv1_1", "conv2_1", "conv3_1"]) for image in images]
    for layer in maps[0]:
        mean = torch.cat([a[layer].flatten(2) for a in maps], 2).mean((0, 2))
        torch.testing.assert_close(mean[mean > 0], torch.ones_like(mean[mean > 0]), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_normalizing_rescales_channels_and_nothing_else():
    images, other = [picture(32, 24)], picture(16, 16, 7)
    before, after = (features(n, other, ["conv3_1"])["conv3_1"] for n in (tiny_net(), normalized(tiny_net(), images)))
    active = before.amax((0, 2, 3)) > 1e-3
    ratio = (after / before.clamp(min=1e-9))[:, active]
    for channel, a in zip(ratio[0], before[0, active], strict=True):
        seen = channel[a > 1e-3]
        torch.testing.assert_close(seen, seen.mean().expand_as(seen), rtol=1e-3, atol=1e-3)


def test_the_net_costs_no_gradient_of_its_own(net):
    assert not any(t.requires_grad for x in net.layers if isinstance(x, Conv) for t in (x.weight, x.bias))
    assert isinstance(net.layers[2], Pool)


def test_bf16_convolutions_give_float32_activations_to_its_precision():
    image = picture(32, 24)
    exact, rough = (features(n, image, ["conv2_1"])["conv2_1"] for n in (tiny_net(), net_to(tiny_net(), Compute("cpu", "bf16"))))
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).norm() < 0.02 * exact.norm()


def test_the_device_is_the_best_there_is_or_the_one_asked_for(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert choose_compute() == Compute("cpu", "float32") and choose_compute("cpu", "bf16") == Compute("cpu", "bf16")
    with pytest.raises(BadRecipe, match="device 'cuda' is not available; available: cpu"):
        choose_compute("cuda")
    with pytest.raises(BadRecipe, match="precision is 'tf32', must be one of float32, bf16 on cpu"):
        choose_compute("cpu", "tf32")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert choose_compute() == Compute("cuda", "tf32")


@pytest.mark.parametrize("layer", ["conv1_1", "pool1", "conv2_1", "conv3_1"])
def test_the_size_of_a_map_is_predicted(net, layer):
    for size in ((16, 16), (17, 30), (33, 21)):
        image = picture(*size)
        assert map_size(net, layer, image.shape[-2:]) == tuple(features(net, image, [layer])[layer].shape[-2:])
