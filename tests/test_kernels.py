"""The kernels against torch's own, in float64 where it decides, forwards and backwards."""

import pytest
import torch
import torch.nn.functional as F

from impasto.nets import nets
from impasto.nets.kernels import (
    Averaged,
    Gram,
    Pooled,
    Rectified,
    flip,
    has_winograd,
    is_winograd,
    is_worth_keeping,
    same_convolution,
    wrapped,
)
from impasto.nets.nets import INPUTS, Conv, ConvShape, Pool, assemble, for_small_maps


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def ways(weight: torch.Tensor, bias: torch.Tensor):
    """What Rectified takes: the convolution, and its gradient."""
    return lambda x: same_convolution(x, weight, bias), lambda grad: same_convolution(grad, flip(weight), None)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (29, 31), (64, 13)])
@pytest.mark.parametrize(("channels_in", "channels"), [(32, 48), (64, 33)])
def test_winograd_is_the_convolution(channels_in, channels, height, width):
    x, weight, bias = draw(2, channels_in, height, width), draw(channels, channels_in, 3, 3, seed=1), draw(channels, seed=2)
    assert is_winograd(x.float(), weight.float()) == has_winograd()
    exact = F.conv2d(x, weight, bias, padding=1)
    found = same_convolution(x.float(), weight.float(), bias.float())
    assert (found - exact).norm() < 1e-4 * exact.norm()


def test_winograd_is_left_where_it_does_not_pay_or_does_not_fit():
    weight = draw(64, 64, 3, 3, dtype=torch.float32)
    large, small = draw(1, 64, 30, 30, dtype=torch.float32), draw(1, 64, 8, 8, dtype=torch.float32)
    assert not is_winograd(small, weight) and not is_winograd(large.double(), weight.double())
    assert not is_winograd(large[:, :3], weight[:, :3]) and not is_winograd(large, draw(64, 64, 5, 5, dtype=torch.float32))


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 16, 16), (2, 13, 22), (1, 21, 32), (3, 15, 14)])
def test_kept_weights_give_the_convolution_and_its_gradient(batch, height, width):
    """Against torch's in float64; NNPACK's error is larger (above)."""
    weight, bias, x = draw(256, 300, 3, 3), draw(256, seed=1), draw(batch, 300, height, width, seed=2).requires_grad_()
    exact = F.conv2d(x, weight, bias, padding=1)
    upstream = draw(*exact.shape, seed=3)
    (gradient,) = torch.autograd.grad(exact, x, upstream)
    conv = Conv("conv", weight.float(), bias.float(), 1, 1, keeps=True)
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nets, "same_convolution", lambda *_: calls.append(1))
        for found, wanted in ((conv.along(x.detach().float()), exact), (conv.back(upstream.float()), gradient)):
            assert (found - wanted).norm() < 1e-5 * wanted.norm()
    assert not calls


def test_weights_are_kept_for_small_maps_of_many_channels_alone():
    weight = draw(256, 256, 3, 3, dtype=torch.float32)
    kept = [places for places in (64, 191, 192, 2048, 2049) if is_worth_keeping(weight, places)]
    assert kept == [192, 2048]
    assert not is_worth_keeping(weight[:255], 500) and not is_worth_keeping(weight[:, :255], 500)
    assert not is_worth_keeping(weight.double(), 500) and not is_worth_keeping(draw(256, 256, 5, 5, dtype=torch.float32), 500)
    layers = [ConvShape("wide", 3, 256), ConvShape("same", 256, 256), Pool("pool"), ConvShape("deep", 256, 256)]
    names = [f"{x.name}.{part}" for x in layers if isinstance(x, ConvShape) for part in ("weight", "bias")]
    shapes = {name: (256,) if name.endswith("bias") else (256, 3 if "wide" in name else 256, 3, 3) for name in names}
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    net = assemble("net", layers, weights, INPUTS["caffe"])
    assert [[conv.keeps for conv in for_small_maps(net, size).convs] for size in ((24, 24), (30, 40), (80, 100), (120, 140))] == [
        [False, True, False],
        [False, True, True],
        [False, False, True],
        [False, False, False],
    ]


def test_flipped_weights_give_the_gradient():
    """Against autograd through torch's convolution."""
    weight, bias = draw(5, 4, 3, 3), draw(5, seed=1)
    x = draw(1, 4, 9, 7, seed=2).requires_grad_()
    y = F.relu(F.conv2d(x, weight, bias, padding=1))
    upstream = draw(*y.shape, seed=3)
    (expected,) = torch.autograd.grad(y, x, upstream)
    (found,) = torch.autograd.grad(Rectified.apply(x, *ways(weight, bias)), x, upstream)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_rectified_passes_gradcheck(size):
    weight, bias = draw(3, 2, size, size), draw(3, seed=1)
    x = draw(1, 2, 6, 5, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: Rectified.apply(x, *ways(weight, bias)), x)


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 8), (6, 9), (7, 9), (2, 3)])
def test_pooling_is_torchs_ties_included(height, width):
    """Ties are the rule behind a ReLU: of equal places the first has the gradient, as in torch."""
    x = (2 * draw(2, 3, height, width)).round().relu().requires_grad_()
    y = F.max_pool2d(x, 2)
    upstream = draw(*y.shape, seed=1)
    found = Pooled.apply(x)
    assert torch.equal(found, y)
    assert torch.equal(*(torch.autograd.grad(z, x, upstream)[0] for z in (found, y)))


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 8), (6, 9), (7, 9), (2, 3)])
def test_averaging_is_torchs_times_its_gain(height, width):
    x = draw(2, 3, height, width).requires_grad_()
    y = 1.7 * F.avg_pool2d(x, 2)
    upstream = draw(*y.shape, seed=1)
    found = Averaged.apply(x, 1.7)
    torch.testing.assert_close(found, y)
    torch.testing.assert_close(*(torch.autograd.grad(z, x, upstream)[0] for z in (found, y)))


def test_gram_passes_gradcheck_and_is_autograds():
    x = draw(2, 3, 7).requires_grad_()
    assert torch.autograd.gradcheck(Gram.apply, x)
    upstream = draw(2, 3, 3, seed=1)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, upstream)[0] for y in (Gram.apply(x), x @ x.mT)))


@pytest.mark.parametrize(("before", "behind"), [(1, 1), (0, 1), (2, 3)])
@pytest.mark.parametrize("wraps", [(True, True), (True, False), (False, True), (False, False)], ids=str)
def test_a_wrapped_map_is_a_part_of_the_map_tiled(wraps, before, behind):
    x = draw(1, 2, 5, 4).requires_grad_()
    rows, columns = (slice(n - before, 2 * n + behind) if wrap else slice(n, 2 * n) for n, wrap in zip((5, 4), wraps, strict=True))
    expected, found = x.repeat(1, 1, 3, 3)[..., rows, columns], wrapped(x, wraps, before, behind)
    torch.testing.assert_close(found, expected)
    upstream = draw(*found.shape, seed=1)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, upstream)[0] for y in (found, expected)))
