"""Short descriptions of what activates a unit: colours, direction and width of lines, where. They only help to tell units apart."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from impasto.objective.color import oklab

# The named colours, in sRGB.
COLORS = {
    "black": (20, 20, 22),
    "dark grey": (70, 70, 72),
    "grey": (128, 128, 128),
    "light grey": (190, 190, 190),
    "white": (245, 245, 245),
    "cream": (236, 222, 190),
    "beige": (200, 176, 136),
    "brown": (125, 85, 50),
    "dark brown": (65, 43, 30),
    "red": (190, 45, 40),
    "dark red": (110, 30, 30),
    "orange": (225, 130, 45),
    "yellow": (228, 200, 70),
    "olive": (120, 115, 55),
    "green": (80, 145, 70),
    "dark green": (35, 70, 45),
    "pale green": (170, 195, 155),
    "teal": (45, 125, 125),
    "light blue": (150, 185, 215),
    "blue": (60, 105, 170),
    "grey-blue": (95, 115, 140),
    "dark blue": (30, 45, 85),
    "purple": (110, 70, 130),
    "pink": (225, 160, 165),
}
FLAT = 0.04  # standard deviation of lightness below which patches are "smooth"
LINED = 0.25  # coherence of the structure tensor above which lines have a direction
FINE, BROAD = 0.5, 0.9  # limits of "fine" and "broad", in wavelengths of a patch with one edge in its middle
EVEN = 0.24  # standard deviation of the positions, as a share of the side, above which it is "all over"; 0.29 is uniform


def described(patches: Sequence[Tensor]) -> str:
    """Patches (3, h, w) in [0, 1] -> "dark blue on cream, broad rising lines"; "no patch" if there is none."""
    if not patches:
        return "no patch"
    return f"{_colors(patches)}, {_texture(patches)}"


def whereabouts(map: Tensor) -> str:
    """(h, w), not negative -> "lower left", "middle", "all over" ...: where most of the map is."""
    weights = map.double() / map.double().sum().clamp(min=1e-30)
    (down, y), (across, x) = (_spread(weights.sum(axis)) for axis in (1, 0))
    if down > EVEN and across > EVEN:
        return "all over"
    words = [_third(y, "upper", "lower") if down <= EVEN else "", _third(x, "left", "right") if across <= EVEN else ""]
    return " ".join(word for word in words if word) or "middle"


def _spread(weights: Tensor) -> tuple[float, float]:
    """(n,) that sum to 1 -> standard deviation and mean of the positions, from 0 to 1."""
    at = (torch.arange(len(weights)).to(weights) + 0.5) / len(weights)
    mean = float((weights * at).sum())
    return float((weights * (at - mean).square()).sum()) ** 0.5, mean


def _third(at: float, first: str, last: str) -> str:
    return first if at < 0.4 else last if at > 0.6 else ""


def _colors(patches: Sequence[Tensor]) -> str:
    """The mean colours of the darker and the lighter half of the patches' middles."""
    halves: list[list[Tensor]] = [[], []]
    for patch in patches:
        pixels = _middle(patch).flatten(1)
        order = pixels.mean(0).argsort()
        half = (pixels.shape[1] + 1) // 2
        halves[0].append(pixels[:, order[:half]].mean(1))
        halves[1].append(pixels[:, order[-half:]].mean(1))
    dark, light = (color_name(torch.stack(half).mean(0)) for half in halves)
    return dark if dark == light else f"{dark} on {light}"


def _middle(patch: Tensor) -> Tensor:
    """Without a fifth at each edge, which has little influence on the unit."""
    top, left = patch.shape[1] // 5, patch.shape[2] // 5
    return patch[:, top : patch.shape[1] - top, left : patch.shape[2] - left]


def color_name(color: Tensor) -> str:
    """(3,) sRGB in [0, 1] -> the nearest named colour in Oklab (Ottosson 2020)."""
    named = oklab(torch.tensor([*COLORS.values()]).double().T.reshape(1, 3, -1, 1) / 255)
    distances = (named - oklab(color.double().view(1, 3, 1, 1))).square().sum(1)
    return [*COLORS][int(distances.argmin())]


def _texture(patches: Sequence[Tensor]) -> str:
    """From the structure tensor over all patches: the direction of lines, if they have one; from its trace their width."""
    variance = sum(float(patch.mean(0).var(correction=0)) for patch in patches) / len(patches)
    if variance < FLAT**2:
        return "smooth"
    xx, xy, yy = (sum(column) / len(patches) for column in zip(*map(_structure, patches), strict=True))
    size = max(max(patch.shape) for patch in patches)
    wave = 2 * math.sqrt(variance / max(xx + yy, 1e-12) / size)
    broad = "" if size <= 4 else "fine " if wave < FINE else "broad " if wave > BROAD else ""
    lined = math.hypot(xx - yy, 2 * xy) >= LINED * (xx + yy)
    return f"{broad}{_direction(0.5 * math.atan2(2 * xy, xx - yy))} lines" if lined else f"{broad}mottled"


def _structure(patch: Tensor) -> tuple[float, float, float]:
    """Mean products of the gradient, between every four pixels: with differences of two pixels noise would get a direction."""
    upper, lower = patch.mean(0)[:-1], patch.mean(0)[1:]
    across = ((upper + lower)[:, 1:] - (upper + lower)[:, :-1]) / 2
    down = ((lower - upper)[:, 1:] + (lower - upper)[:, :-1]) / 2
    if not across.numel():
        return 0.0, 0.0, 0.0
    return float(across.square().mean()), float((across * down).mean()), float(down.square().mean())


def _direction(gradient: float) -> str:
    """The direction of lines perpendicular to a gradient with this angle (clockwise from the right, since y points down)."""
    degrees = (90 - math.degrees(gradient)) % 180  # of the lines, counterclockwise
    return ("level", "rising", "upright", "falling")[round(degrees / 45) % 4]
