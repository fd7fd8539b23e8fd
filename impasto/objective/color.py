"""Whose colours a painting has: the photograph's by luminance alone, by a linear match or by histograms.

Gatys, Bethge, Hertzmann & Shechtman 2016, "Preserving Color in Neural Artistic Style Transfer" (arXiv:1606.05897), and the colour
control of Gatys et al. 2017 (arXiv:1611.07865). All of it is computed in float64, in bands of rows.
color_transfer.py says when, and where in a picture.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

EPSILON = 1e-5  # least variance of an axis of colour that a match stretches: less is taken for rounding (0.8 of 255 levels)
BAND = 2**18  # pixels at a time: each takes some 200 bytes
ROUNDING = 1e-12
HALVINGS = 12  # of the search for the most colour that fits

# NTSC 1953, luminance as in ITU-R BT.601: rows are Y, I and Q of gamma-encoded red, green, blue.
YIQ = ((0.299, 0.587, 0.114), (0.59590059, -0.27455667, -0.32134392), (0.21153661, -0.52273617, 0.31119955))
# IEC 61966-2-1: rows are X, Y and Z of linear red, green, blue. White is their sum, D65.
XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
# Ottosson 2020, "A perceptual color space for image processing": cones of linear red, green, blue; L, a and b of their cube roots.
CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
OKLAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


# Spaces: luminance first, then two axes of chroma, 0 where a picture is grey


@dataclass(frozen=True)
class Space:
    """`there` takes (B, 3, H, W), sRGB, to luminance and chroma; `encode(back(...))` undoes it, `back` being in [0, 1] too where a
    colour exists; luminance goes from 0 to `white`."""

    there: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]
    encode: Callable[[Tensor], Tensor]
    white: float


def yiq(image: Tensor) -> Tensor:
    """The television's: a linear map of gamma-encoded colours, luminance only roughly what the eye calls light."""
    return _mixed(YIQ, image)


def from_yiq(image: Tensor) -> Tensor:
    """The inverse of yiq."""
    return _unmixed(YIQ, image)


def lab(image: Tensor) -> Tensor:
    """CIE 1976 L*a*b* under D65 (CIE 15:2004, 8.2.1): L* from 0 to 100 in equal steps to the eye."""
    t = _mixed(XYZ, linear(image)) / _white(image)
    f = torch.where(t > (6 / 29) ** 3, t.clamp(min=0) ** (1 / 3), t / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def from_lab(image: Tensor) -> Tensor:
    """The inverse of lab, but for encoded: light."""
    light, a, b = image.unbind(1)
    y = (light + 16) / 116
    f = torch.stack([y + a / 500, y, y - b / 200], 1)
    t = torch.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    return _unmixed(XYZ, t * _white(image))


def oklab(image: Tensor) -> Tensor:
    """Ottosson's: as Lab, with hues that stay what they are when light or chroma change; L from 0 to 1."""
    cones = _mixed(CONES, linear(image))
    return _mixed(OKLAB, cones.sign() * cones.abs() ** (1 / 3))


def from_oklab(image: Tensor) -> Tensor:
    """The inverse of oklab, but for encoded: light."""
    return _unmixed(CONES, _unmixed(OKLAB, image) ** 3)


def linear(image: Tensor) -> Tensor:
    """sRGB as it is stored -> proportional to light (IEC 61966-2-1)."""
    return torch.where(image <= 0.04045, image / 12.92, ((image.clamp(min=0) + 0.055) / 1.055) ** 2.4)


def encoded(light: Tensor) -> Tensor:
    """The inverse of linear."""
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


SPACES = {
    "yiq": Space(yiq, from_yiq, lambda stored: stored, 1.0),
    "lab": Space(lab, from_lab, encoded, 100.0),
    "oklab": Space(oklab, from_oklab, encoded, 1.0),
}


# By luminance


def luminance(image: Tensor, space: str) -> Tensor:
    """(1, 3, H, W) -> (1, 1, H, W), in the units of the space."""
    return _in_bands(lambda band: SPACES[space].there(band)[:, :1], image)


def grey(light: Tensor, space: str) -> Tensor:
    """Luminance (1, 1, H, W) -> a picture (1, 3, H, W) that has it, and no colour."""
    return _in_bands(lambda band: _colored(SPACES[space], band, torch.zeros_like(band).expand(-1, 2, -1, -1)), light)


def match_light(light: Tensor, to: Tensor, space: str, weights: Tensor | None = None, to_weights: Tensor | None = None) -> Tensor:
    """L' = s_to / s (L - m) + m_to, cut to what there is: luminance (1, 1, H, W) with mean m and deviation s of another.

    Gatys et al. 2017, section 5.1. An even surface stays one. Places count by `weights` (1, 1, H, W), equally without.
    """
    (mean, variance), (to_mean, to_variance) = moments(light, weights), moments(to, to_weights)
    least = EPSILON * SPACES[space].white ** 2
    gain, shift = float((to_variance / variance.clamp(min=least)).sqrt()), float(to_mean)
    return ((light - float(mean)) * gain + shift).clamp(0, SPACES[space].white)


def keep_color(painting: Tensor, content: Tensor, space: str, *, matched: bool = False, weights: Tensor | None = None) -> Tensor:
    """The painting's luminance with the content picture's chroma; both are (1, 3, H, W) of one size.

    Where sRGB has no colour of that luminance and chroma the chroma is less, on the line to grey: light and hue stay. `matched`
    gives luminance the mean and the deviation of the content picture's first, places counting by `weights` (1, 1, H, W). For a
    region alone lay the result over the painting: torch.lerp(painting, keep_color(...), mask).
    """
    light = luminance(painting, space)
    if matched:
        light = match_light(light, luminance(content, space), space, weights, weights)
    return _in_bands(lambda band, colors: _colored(SPACES[space], band, SPACES[space].there(colors)[:, 1:]), light, content)


def _colored(space: Space, light: Tensor, chroma: Tensor) -> Tensor:
    """(1, 1, H, W) and (1, 2, H, W) -> sRGB in [0, 1]; where they fit no colour the largest share of the chroma that does."""
    image = space.back(torch.cat([light, chroma], 1))
    outside = ~_fits(image)[0]
    if outside.any():
        light, chroma = light[..., outside], chroma[..., outside]  # (1, 1, n), (1, 2, n)

        def with_share(share: Tensor) -> Tensor:
            return space.back(torch.cat([light, share * chroma], 1).unsqueeze(-1)).squeeze(-1)

        share, step = torch.zeros_like(light), 0.5
        for _ in range(HALVINGS):
            share = torch.where(_fits(with_share(share + step)).unsqueeze(1), share + step, share)
            step /= 2
        image[..., outside] = with_share(share)
    return space.encode(image.clamp(0, 1))


def _fits(image: Tensor) -> Tensor:
    """(1, 3, ...) -> (1, ...): whether it is a colour of sRGB, but for rounding."""
    return ((image > -ROUNDING) & (image < 1 + ROUNDING)).all(1)


# By statistics


def moments(image: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(1, C, H, W) -> mean (C,) and covariance (C, C) of its colours, float64; places count by `weights` (1, 1, H, W).

    Weights that are 0 everywhere count as none.
    """
    mean = torch.stack([part @ share for part, share in _counted(image, weights)]).sum(0)
    centred = ((part - mean[:, None], share) for part, share in _counted(image, weights))
    covariance: Tensor = torch.stack([(c * share) @ c.T for c, share in centred]).sum(0)
    return mean, covariance


def _counted(image: Tensor, weights: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Some of the pixels (C, n) at a time and what each of them counts (n,), which sums to 1; float64."""
    total = 0.0 if weights is None else float(weights.cpu().double().sum())
    for x, *w in _pixels(image, *((weights,) if weights is not None and total else ())):
        part = x.double()
        yield part, w[0][0].double() / total if w else part.new_full(part.shape[1:], 1 / prod(image.shape[-2:]))


def _pixels(*images: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """(1, C, H, W) of one size -> (C, n): the same pixels of each, BAND at a time, on the CPU."""
    return zip(*(torch.split(image.flatten(2)[0].cpu(), BAND, 1) for image in images), strict=True)


def cholesky_map(source: Tensor, target: Tensor) -> Tensor:
    """A = L_T L_S^-1 with covariances L L^T: it keeps red's direction, which the order of the channels decides."""
    A: Tensor = torch.linalg.solve_triangular(_lower(source, EPSILON), _lower(target), upper=False, left=False)
    return A


def pca_map(source: Tensor, target: Tensor) -> Tensor:
    """A = S_T^1/2 S_S^-1/2: to white along the principal axes, and back."""
    return _power(target, 0.5) @ _power(source, -0.5, EPSILON)


def monge_map(source: Tensor, target: Tensor) -> Tensor:
    """A = S_S^-1/2 (S_S^1/2 S_T S_S^1/2)^1/2 S_S^-1/2: of all linear matches the one that moves colours least.

    Pitié & Kokaram 2007, "The linear Monge-Kantorovitch linear colour mapping for example-based colour transfer".
    """
    root, inverse = _power(source, 0.5, EPSILON), _power(source, -0.5, EPSILON)
    return inverse @ _power(root @ target @ root, 0.5) @ inverse


MAPS = {"cholesky": cholesky_map, "pca": pca_map, "monge": monge_map}


def match_color(image: Tensor, to: Tensor, how: str, weights: Tensor | None = None, to_weights: Tensor | None = None) -> Tensor:
    """A picture (1, 3, H, W) in the colours of another, cut to [0, 1].

    By a map of MAPS x becomes A (x - mean) + mean_to: mean and covariance are the other's, but for what is cut. By "histogram"
    each channel's values are. Places count by `weights` and `to_weights` (1, 1, H, W), equally without. An axis with less variance
    than EPSILON is stretched no more than one that has it, so that the rounding of a grey or even picture does not become colour.
    For a region alone lay the result over the picture: torch.lerp(image, match_color(image, to, how, mask), mask).
    """
    if how == "histogram":
        return match_histogram(image, to, weights, to_weights)
    (mean, source), (to_mean, target) = moments(image, weights), moments(to, to_weights)
    A = MAPS[how](source, target)
    shift = (to_mean - A @ mean).view(1, 3, 1, 1)
    return _in_bands(lambda band: (_mixed(A, band) + shift).clamp(0, 1), image)


def match_histogram(image: Tensor, to: Tensor, weights: Tensor | None = None, to_weights: Tensor | None = None) -> Tensor:
    """(1, C, H, W): each channel's value of rank r becomes the other's value of rank r; what was equal stays equal."""
    w, to_w = _shares(image, weights), _shares(to, to_weights)
    channels = zip(image[0].cpu(), to[0].cpu(), strict=True)
    return torch.stack([_ranked(channel, other, w, to_w) for channel, other in channels]).unsqueeze(0).to(image)


def _ranked(channel: Tensor, other: Tensor, w: Tensor, to_w: Tensor) -> Tensor:
    """(H, W) with the values of `other`, any shape: the rank of a value is the middle of the share of weight that has it."""
    _, inverse, ranks = _ranks(channel.flatten(), w)
    values, _, to_ranks = _ranks(other.flatten()[to_w > 0], to_w[to_w > 0])
    return torch.from_numpy(np.interp(ranks, to_ranks, values)[inverse].astype(np.float32)).view(channel.shape)


def _ranks(channel: Tensor, w: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, inverse = np.unique(channel.double().numpy(), return_inverse=True)
    share = np.bincount(inverse, w.numpy(), len(values))
    return values, inverse, share.cumsum() - share / 2


def _shares(image: Tensor, weights: Tensor | None) -> Tensor:
    """(H W,), float64, with sum 1."""
    if weights is None or not bool(weights.any()):
        return torch.full((image.shape[-2] * image.shape[-1],), 1 / (image.shape[-2] * image.shape[-1]), dtype=torch.float64)
    w = weights.flatten().cpu().double()
    return w / w.sum()


def _power(covariance: Tensor, exponent: float, least: float = 0.0) -> Tensor:
    """Of a symmetric matrix, its eigenvalues being at least `least`."""
    values, axes = torch.linalg.eigh(covariance)
    power: Tensor = (axes * values.clamp(min=least) ** exponent) @ axes.T
    return power


def _lower(covariance: Tensor, least: float = 0.0) -> Tensor:
    """L, lower triangular with L L^T the covariance; of a singular one too, which Cholesky's algorithm refuses."""
    values, axes = torch.linalg.eigh(covariance)
    upper = torch.linalg.qr((axes * values.clamp(min=least).sqrt()).T).R
    lower: Tensor = (upper * torch.where(upper.diagonal() < 0, -1.0, 1.0)[:, None]).T
    return lower


def _mixed(matrix: Tensor | Sequence[Sequence[float]], image: Tensor) -> Tensor:
    """Every colour of (B, 3, H, W) multiplied by the matrix."""
    return torch.einsum("rc,bchw->brhw", torch.as_tensor(matrix, dtype=torch.float64).to(image), image)


def _unmixed(matrix: Sequence[Sequence[float]], image: Tensor) -> Tensor:
    return _mixed(torch.tensor(matrix, dtype=torch.float64).inverse(), image)


def _white(image: Tensor) -> Tensor:
    return torch.tensor(XYZ, dtype=torch.float64).to(image).sum(1).view(1, 3, 1, 1)


def _in_bands(change: Callable[..., Tensor], *images: Tensor) -> Tensor:
    """`change` of pictures of one size, some rows at a time, in float64 on the CPU."""
    height, width = images[0].shape[-2:]
    count, found = max(1, BAND // width), None
    for at in range(0, height, count):
        rows = slice(at, at + count)
        band = change(*(image[..., rows, :].cpu().double() for image in images))
        found = images[0].new_empty(*band.shape[:2], height, width) if found is None else found
        found[..., rows, :] = band
    assert found is not None  # a picture has rows
    return found
