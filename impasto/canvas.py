"""What is optimised: the pixels of G, bounded to [0, 1] all along, so that the saved picture is the one that was optimised."""

from collections.abc import Sequence

import numpy as np
import scipy.fft
import torch
from torch import Tensor


def white_noise(shape: Sequence[int], width: float, seed: int) -> Tensor:
    """Uniform noise around grey, 0.5 - width / 2 to 0.5 + width / 2, each value on its own."""
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + width * (torch.rand(shape, generator=generator) - 0.5)


def project(x: Tensor) -> Tensor:
    """The nearest picture: every value cut to [0, 1]."""
    return x.clamp(0, 1)


def movable(x: Tensor, gradient: Tensor) -> Tensor:
    """Where a descent can move: not at a bound that the negative gradient points across."""
    return ~(((x <= 0) & (gradient > 0)) | ((x >= 1) & (gradient < 0)))


def soften(x: Tensor, falloff: float) -> Tensor:
    """(B, C, H, W) with each frequency f, in cycles a pixel, divided by f^falloff: a symmetric, positive operator.

    The frequencies are those of a cosine transform (DCT-II), which knows no edge; the mean counts as the lowest but one.
    As the first inverse Hessian of L-BFGS it makes large shapes and flat colours move before grain does.
    """
    if not falloff:
        return x
    height, width = x.shape[-2:]
    f = np.hypot(np.arange(height)[:, None] / (2 * height), np.arange(width) / (2 * width))
    gain = np.maximum(f, 1 / max(height, width)).astype(np.float32) ** -falloff
    spectrum = scipy.fft.dctn(x.cpu().numpy(), axes=(-2, -1), norm="ortho") * gain
    return torch.from_numpy(scipy.fft.idctn(spectrum, axes=(-2, -1), norm="ortho")).to(x)
