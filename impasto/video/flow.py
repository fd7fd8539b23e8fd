"""Optical flow: where the pixels of one frame were in another, which were visible in both, and where a scene ends.

The flow is OpenCV's DIS (Kroeger, Timofte, Dai & Van Gool 2016, arXiv:1603.03590). Visibility and weights follow Ruder, Dosovitskiy
& Brox 2016 (arXiv:1604.08610) and Sundaram, Brox & Keutzer 2010. Frames are (1, 3, H, W) in [0, 1], flows (1, 2, H, W) in pixels to
the right and down.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.errors import MissingExtra
from impasto.images.images import resize, scaled_size, size_of
from impasto.objective.color import YIQ

try:
    import cv2
except ImportError as error:
    raise MissingExtra("OpenCV is missing: pip install '.[video]' in Impasto's folder brings it") from error

OPENCV: str = cv2.__version__
cv2.setNumThreads(1)  # DIS works in one stripe per thread, which changes the result
CUT_SEEN, CUT_UNLIKE = 0.4, 0.15  # a scene ends if less of a frame was visible before, or the visible part differs by more
CUT_SIDE = 128  # pixels: longer side of the frames that are compared to find where scenes end


@dataclass(frozen=True)
class Link:
    """How a frame relates to another: the flow to it, and masks (1, 1, H, W) of 0 and 1: `seen`, the pixels visible in both, and
    `sure`, those of them away from motion boundaries, where the flow is reliable."""

    flow: Tensor
    seen: Tensor
    sure: Tensor


def link(frame: Tensor, other: Tensor) -> Link:
    """The Link from `frame` to `other`. The flow there and the flow back are computed at the same time."""
    with ThreadPoolExecutor(2) as pool:
        back, forth = pool.map(optical_flow, (frame, other), (other, frame))
    seen = seen_in(back, forth)
    return Link(back, seen, seen * ~motion_boundary(back))


def optical_flow(frame: Tensor, other: Tensor) -> Tensor:
    """(1, 2, H, W) with frame(p) = other(p + flow(p)), on 8-bit grey."""
    empty = np.zeros((*frame.shape[-2:], 2), np.float32)
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(0)  # full resolution: the preset's half loses objects below about 30 pixels
    flow = dis.calc(_grey(frame), _grey(other), empty)
    return torch.from_numpy(flow).permute(2, 0, 1).unsqueeze(0).contiguous()


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """(1, C, H, W) -> (1, C, H, W): image(p + flow(p)), bilinear; pixels beyond the edge repeat the edge.

    torch's grid_sample takes coordinates in [-1, 1], whose rounding blurs even a shift by whole pixels.
    """
    height, width = image.shape[-2:]
    (x, y), (x_most, y_most) = _places(flow), (width - 1, height - 1)
    x, y = x.clamp(0, x_most), y.clamp(0, y_most)
    left, top = x.floor().long(), y.floor().long()
    right, bottom = (left + 1).clamp(max=x_most), (top + 1).clamp(max=y_most)
    across, down = (x - left).to(image.dtype), (y - top).to(image.dtype)
    above = torch.lerp(image[..., top, left], image[..., top, right], across)
    below = torch.lerp(image[..., bottom, left], image[..., bottom, right], across)
    return torch.lerp(above, below, down)


def seen_in(back: Tensor, forth: Tensor) -> Tensor:
    """(1, 1, H, W): 1 where a pixel is inside the other frame and the flow there and back returns to it, within
    |w + w'|^2 <= 0.01 (|w|^2 + |w'|^2) + 0.5. Up to half a pixel beyond the edge counts as inside."""
    returned = warp(forth, back)
    astray = (back + returned).square().sum(1, keepdim=True)
    x, y = _places(back)
    inside = (x >= -0.5) & (x <= back.shape[-1] - 0.5) & (y >= -0.5) & (y <= back.shape[-2] - 0.5)
    return ((astray <= 0.01 * (_square(back) + _square(returned)) + 0.5) & inside).to(back)


def motion_boundary(flow: Tensor) -> Tensor:
    """(1, 1, H, W), true where neighbours move apart: |grad u|^2 + |grad v|^2 > 0.01 |w|^2 + 0.002."""
    steep = sum(gradient.square().sum(1, keepdim=True) for gradient in torch.gradient(flow, dim=(-2, -1)))
    apart: Tensor = steep > 0.01 * _square(flow) + 0.002
    return apart


def softened(seen: Tensor) -> Tensor:
    """(1, 1, H, W): the mean over 5 x 5 pixels, so that masks have no hard edges and no single pixels."""
    return F.avg_pool2d(seen, 5, 1, 2, count_include_pad=False)


def long_term_weights(weights: Sequence[Tensor]) -> list[Tensor]:
    """Masks c of the frames 1, 2, 4, ... back -> their weights: each pixel is tied to the nearest frame in which it was visible.

    c_long(i - j) = max(c(i - j) - sum of c(i - k) over the nearer k, 0).
    """
    return [(c - sum(weights[:n], torch.zeros_like(c))).clamp(min=0) for n, c in enumerate(weights)]


def is_cut(frame: Tensor, before: Tensor) -> bool:
    """Whether a scene begins with this frame: most of it was not visible before, or the visible part has other colours."""
    frame, before = (resize(it, scaled_size(it, min(CUT_SIDE, max(size_of(it))))) for it in (frame, before))
    found = link(frame, before)
    return float(found.seen.mean()) < CUT_SEEN or warped_error(frame, before, found) > CUT_UNLIKE


def warped_error(image: Tensor, before: Tensor, found: Link) -> float:
    """Flicker: the mean of |x - warp(x before)| over the pixels that were visible before; 0 if none was."""
    error = (image - warp(before, found.flow)).abs().mean(1, keepdim=True)
    return float((error * found.seen).sum() / found.seen.sum().clamp(min=1))


def _places(flow: Tensor) -> tuple[Tensor, Tensor]:
    """The coordinates that each pixel moves to: x (H, W), y (H, W)."""
    height, width = flow.shape[-2:]
    return torch.arange(width) + flow[0, 0], torch.arange(height)[:, None] + flow[0, 1]


def _square(flow: Tensor) -> Tensor:
    return flow.square().sum(1, keepdim=True)


def _grey(frame: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(H, W), 8 bits."""
    grey = torch.einsum("c,chw->hw", torch.tensor(YIQ[0]), frame[0].float().cpu())
    return (grey * 255).round().to(torch.uint8).numpy()
