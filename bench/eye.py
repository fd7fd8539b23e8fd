"""python -m bench.eye RESULT PHOTOGRAPH STYLE measures what a painter sees: grain, specks, lattices, leaks, forms that are kept.

Pictures are (1, 3, H, W), sRGB in [0, 1]. Surfaces are measured on pixels, leaks and forms by AlexNet (judge_net), which no default
minimises.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.judge import LAYERS, judge_net
from impasto.images.images import read_picture, resize, scaled_size, size_of
from impasto.nets.nets import Net, features

# ITU-R BT.601, full range: rows are luminance, blue-difference and red-difference chroma.
YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
FINE = 0.35  # cycles a pixel: what lies above is seen as grain at 100 %
FLAT, SPECK = 4 / 255, 12 / 255  # standard deviation of a flat neighbourhood; distance of a speck from its median
PERIODS = (2, 4, 8)  # pixels: the strides of pools and of blocks
SIDE, PATCH, STEP, STYLE_STEP = 512, 64, 32, 16  # pixels: longer side, patches, and their steps in the result and in the style
THING_LAYERS = ("conv3", "conv4")
CONTRAST = 0.06  # least standard deviation of the grey of a square that shows something: flat squares are alike everywhere
UNRELATED = 0.495  # likeness that 1 % of 1,317 squares of photographs reach in unrelated ones (10 pairs); bench/LOG.md has 20


# Surfaces


def ycbcr(image: Tensor) -> Tensor:
    """(1, 3, H, W) -> (1, 3, H, W): luminance and both chromas."""
    found: Tensor = torch.einsum("rc,bchw->brhw", torch.tensor(YCBCR).to(image), image)
    return found


def power_spectrum(image: Tensor) -> Tensor:
    """(1, C, H, W) -> (C, H, W), float64: its mean is the variance of the picture under a Hann window."""
    x = image[0].double()
    window = torch.outer(*(torch.hann_window(n, periodic=False, dtype=torch.float64) for n in size_of(image)))
    mean = (x * window.square()).sum((1, 2), keepdim=True) / window.square().sum()
    power: Tensor = torch.fft.fft2((x - mean) * window).abs().square() / window.square().sum()
    return power


def fine_energy(image: Tensor) -> tuple[float, float]:
    """The variance above FINE cycles a pixel of luminance, and of both chromas together."""
    rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64) for n in size_of(image))
    is_fine = torch.hypot(rows[:, None], columns) > FINE
    light, blue, red = ((power * is_fine).mean().item() for power in power_spectrum(ycbcr(image)))
    return light, blue + red


def grain(image: Tensor, style: Tensor) -> dict[str, float]:
    """{"luminance", "chroma"}: fine_energy of the picture over that of the style picture."""
    both = zip(("luminance", "chroma"), fine_energy(image), fine_energy(style), strict=True)
    return {name: ours / max(theirs, 1e-12) for name, ours, theirs in both}


def specks(image: Tensor) -> float:
    """Pixels per thousand that stand out of a flat 5 x 5 neighbourhood: far from its median."""
    around = F.unfold(image[0][:, None], 5)  # (3, H, W) -> (3, 25, places)
    median = around.median(1, keepdim=True).values
    others = torch.cat([around[:, :12], around[:, 13:]], 1)
    is_flat = ((others - median).square().mean(1).sqrt() < FLAT).all(0)
    stands_out = ((around[:, 12] - median[:, 0]).abs() > SPECK).any(0)
    return 1000 * (is_flat & stands_out).double().mean().item()


def lattice(image: Tensor) -> float:
    """The power of the spectrum's lines at one of PERIODS over that of their neighbours: about 1 without a lattice.

    The mean over luminance and both chromas; of the periods, across and down, the largest. The picture is cropped to a square.
    """
    side = min(size_of(image)) // 16 * 16
    power = power_spectrum(ycbcr(image[..., :side, :side]))
    ratios = []
    for lines in (power.mean(1), power.mean(2)):  # (3, side): the frequencies across, then down
        for period in PERIODS:
            at = [side * k // period for k in range(1, period // 2 + 1)]
            beside = [torch.cat([lines[:, n - 7 : n - 2], lines[:, n + 3 : n + 8]], 1).mean(1) for n in at]  # past a line's width
            ratios.append((lines[:, at].sum(1) / torch.stack(beside, 1).sum(1)).mean())
    return torch.stack(ratios).max().item()


# Things and forms


def squares(image: Tensor, step: int) -> Tensor:
    """(N, 3, PATCH, PATCH): the squares of the picture scaled to SIDE, every `step` pixels."""
    image = resize(image, scaled_size(image, SIDE))
    return F.unfold(image, PATCH, stride=step)[0].T.view(-1, 3, PATCH, PATCH)


def show_something(some: Tensor) -> Tensor:
    """(N, 3, PATCH, PATCH) -> (N,) of bools: which squares are not flat."""
    return some.mean(1).flatten(1).std(1) > CONTRAST


@torch.no_grad()
def square_features(some: Tensor, net: Net) -> Tensor:
    """(N, 3, PATCH, PATCH) -> (N, D): activations of THING_LAYERS, those of each layer with norm 1."""
    parts = [features(net, few, THING_LAYERS) for few in torch.split(some, 128)]
    return torch.cat([torch.cat([F.normalize(a.flatten(1), dim=1) for a in part.values()], 1) for part in parts])


def likeness(ours: Tensor, style: Tensor, net: Net) -> Tensor:
    """(N,): of each square of a picture, its cosine with the most similar square of the style picture that shows something.

    Both less the mean of the style picture's squares, so that its general manner does not count, only what is special in a square.
    """
    theirs = squares(style, STYLE_STEP)
    found = square_features(theirs, net)
    centre, things = found.mean(0), found[show_something(theirs)]
    return (F.normalize(square_features(ours, net) - centre, dim=1) @ F.normalize(things - centre, dim=1).T).amax(1)


def leak(image: Tensor, content: Tensor, style: Tensor, net: Net) -> float:
    """The share of squares with something in them that show a square of the style picture, where the photograph shows none of its.

    The photograph has 0, the style picture 1. `image` and `content` have one shape.
    """
    ours, photographs = squares(image, STEP), squares(content, STEP)
    found, before = likeness(torch.cat([ours, photographs]), style, net).chunk(2)
    is_free, shows = (before <= UNRELATED) & show_something(ours), found > UNRELATED
    return (shows & is_free).sum().item() / max(1, is_free.sum().item())


@torch.no_grad()
def forms_kept(image: Tensor, content: Tensor, net: Net) -> float:
    """The correlation of the distances between places in both pictures, the mean over AlexNet's layers: 1 for the photograph."""
    one, two = (features(net, resize(x, scaled_size(content, SIDE // 2)), LAYERS) for x in (image, content))
    return sum(_correlation(_distances(one[layer]), _distances(two[layer])) for layer in LAYERS) / len(LAYERS)


def _distances(a: Tensor) -> Tensor:
    """(1, C, h, w) -> cosine distances between all pairs of at most 14 x 14 places."""
    places = F.normalize(F.adaptive_avg_pool2d(a, (min(14, a.shape[-2]), min(14, a.shape[-1]))).flatten(2)[0], dim=0)
    return (1 - places.T @ places)[tuple(torch.triu_indices(places.shape[1], places.shape[1], 1))]


def _correlation(x: Tensor, y: Tensor) -> float:
    return torch.corrcoef(torch.stack([x, y]))[0, 1].item()


def measured(image: Tensor, content: Tensor, style: Tensor) -> dict[str, float]:
    """All measures of a result; the photograph and the style picture as they were read, scaled here."""
    net = judge_net()
    content, style = resize(content, size_of(image)), resize(style, scaled_size(style, max(size_of(image))))
    surfaces = {**grain(image, style), "specks": specks(image), "lattice": lattice(image)}
    return surfaces | {"leak": leak(image, content, style, net), "forms": forms_kept(image, content, net)}


if __name__ == "__main__":
    print(json.dumps(measured(*(read_picture(Path(name)).image for name in sys.argv[1:4]))))
