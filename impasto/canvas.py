"""What is optimised: the pixels of G, bounded to [0, 1] all along, so that the saved picture is the one that was optimised."""

import torch
from torch import Tensor


def start(content: Tensor, init: str, noise_share: float, seed: int, picture: Tensor | None = None) -> Tensor:
    """What G starts as: noise, the content or a given picture (all (1, 3, H, W) of one size), with a share of noise mixed in."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(content.shape, generator=generator).to(content)
    if init == "noise":
        return noise
    base = content if picture is None else picture
    return torch.lerp(base, noise, noise_share)


def project(x: Tensor) -> Tensor:
    """The nearest picture: every value cut to [0, 1]."""
    return x.clamp(0, 1)


def movable(x: Tensor, gradient: Tensor) -> Tensor:
    """Where a descent can move: not at a bound that the negative gradient points across."""
    return ~(((x <= 0) & (gradient > 0)) | ((x >= 1) & (gradient < 0)))
