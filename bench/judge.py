"""How far apart two pictures are to an eye that did not paint them: AlexNet, which no default minimises.

LPIPS: Zhang et al. 2018 (arXiv:1801.03924), version 0.1, AlexNet: how different two pictures look, place by place. 0 is the same.
Style distance: the mean over five layers of the relative distance of Gram matrices: how different two textures are.
"""

import torch
from torch import Tensor

from impasto.nets.nets import INPUTS, Net, build_net, features
from impasto.objective.losses import mean_gram
from impasto.weights import load_weights

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")


def judge_net() -> Net:
    """AlexNet as LPIPS was trained on it."""
    return build_net("alexnet", load_weights("alexnet").tensors, INPUTS["torchvision"])


@torch.no_grad()
def lpips(image: Tensor, other: Tensor, net: Net, heads: dict[str, Tensor]) -> float:
    """Two pictures (1, 3, H, W) of one size -> 0 (the same) to about 1. `heads` are load_weights("lpips").tensors."""
    one, two = (features(net, x, LAYERS) for x in (image, other))
    distances = [(heads[f"{layer}.head"] * (_unit(one[layer]) - _unit(two[layer])).square()).sum(1).mean() for layer in LAYERS]
    return float(torch.stack(distances).sum())


@torch.no_grad()
def style_distance(image: Tensor, style: Tensor, net: Net) -> float:
    """Two pictures (1, 3, H, W) of any sizes -> the mean over layers of |G - A| / |A|, A the style picture's."""
    grams, targets = ({layer: mean_gram(a) for layer, a in features(net, x, LAYERS).items()} for x in (image, style))
    return float(torch.stack([(grams[layer] - targets[layer]).norm() / targets[layer].norm() for layer in LAYERS]).mean())


def _unit(a: Tensor) -> Tensor:
    return a / (a.square().sum(1, keepdim=True).sqrt() + 1e-10)
