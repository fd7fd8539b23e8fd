"""Activation maximisation: a picture optimised for a unit, a channel or a pair of channels, in Fourier space, by descend().

Erhan, Bengio, Courville & Vincent 2009, "Visualizing Higher-Layer Features of a Deep Network"; Simonyan, Vedaldi & Zisserman 2013
(arXiv:1312.6034). Fourier parameters, random transformations, the start and the diversity term follow Olah, Mordvintsev & Schubert
2017, "Feature Visualization" (Distill, doi:10.23915/distill.00007), here "the article".

With the prior "maco" only the phases of the Fourier transform are optimised; its magnitudes are those of photographs (Fel et al.
2023, arXiv:2306.06805, without the paper's crops, noise and transparency).

A dream may start from a picture and stay near it: feature accentuation (Hamblin et al. 2024, arXiv:2402.10039), which shows what in
that picture excites the unit. Near means: the map of the layer halfway to the objective's changes little.
"""

import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.errors import BadRecipe
from impasto.files import check_writable
from impasto.images.images import MIN_SIDE, check_format, quantize, read_picture, resize, write_picture
from impasto.lens.module import weights_of
from impasto.machine import peak_memory_mb
from impasto.nets.geometry import field_of
from impasto.nets.kernels import has_winograd
from impasto.nets.nets import INPUTS, Net, Pool, channels, features, layer_name, map_size
from impasto.objective.losses import Cost, gram_matrix
from impasto.pictures import CALIBRATION, photograph_folder, picture_path
from impasto.transfer.canvas import Canvas, coefficients, fourier, fourier_noise, length, phases, spectrum
from impasto.transfer.descent import Optimizer, State, Step, begin, descend
from impasto.weights import digest

CONTRAST, LIMIT = 0.1, 0.6  # of the initial noise, and the upper limit; see canvas.fourier
NEARNESS = 3.0  # default weight of the distance from the start
ROOM = 1.1  # the limit of a dream that starts from a picture, over the picture's own length
LR = 0.05  # the article's
RAISED = 16  # steps on the map before the ReLU, which has a gradient where the unit is inactive; the number in the article's code
ANGLE, ZOOM, SHIFT = 10.0, 1.1, 1 / 16  # limits of the random rotation (degrees), scale and shift (share of the side)
DIVERSITY = 0.5  # the cost of a likeness of 1, as a share of the activation: likeness falls to a quarter, activations by a tenth
PRIORS = ("fourier", "maco")
SIDE = 224  # pixels: default for a channel, and the shorter side of the pictures that a dream is compared with
GAP = 8  # white pixels between joined pictures


@dataclass(frozen=True)
class Objective:
    """Maximises the minimum of a layer's `channels` minus the sum of those `against`, at the centre or (`everywhere`) on average.

    (17,) at the centre is a unit; (17, 23) a pair: with a sum instead of the minimum the stronger one would win; (17,)
    against (23,) is one without the other.
    """

    layer: str
    channels: tuple[int, ...]
    against: tuple[int, ...] = ()
    everywhere: bool = False


def dream(
    net: Net,
    objective: Objective,
    *,
    size: int | None = None,
    steps: int = 256,
    pictures: int = 1,
    seed: int = 0,
    prior: str = "fourier",
    start: Tensor | None = None,
    nearness: float = NEARNESS,
    resume: State | None = None,
) -> Iterator[Step]:
    """Steps from noise to `pictures` pictures (B, 3, size, size) that maximise the objective and differ from one another.

    The default size is natural_size. Each step transforms the pictures randomly; its costs are of the transformed pictures:
    "activation", their mean, and "likeness", their mean similarity. From a picture `start` (1, 3, size, size) all begin alike, and
    "distance" is how far they have come from it, with the weight `nearness` (make_cost). With `resume`, the state of a Step, it
    continues to the same bytes. `prior` is one of PRIORS. Raises BadRecipe for a layer, channel or size that the net does not have.
    """
    size = natural_size(net, objective) if size is None else size
    check(net, objective, size)
    check_prior(prior, start)
    cost = partial(make_cost, net, objective, seed, start=start, nearness=nearness)
    if resume is None:
        x, canvas = begun_with(prior, pictures, size, seed) if start is None else _begun_from(start, pictures)
        resume = begin(x, cost(0), canvas=canvas)
    state = resume
    for i in range(state.i + 1, steps + 1):
        for step in descend(cost(i), state, i, steps, Optimizer("adam", LR)):
            state = step.state
            yield step


def begun_with(prior: str, pictures: int, size: int, seed: int) -> tuple[Tensor, Canvas]:
    """The noise that pictures of this size begin with, and what they are painted on."""
    if prior == "fourier":
        return fourier_noise((pictures, 3, size, size), CONTRAST, seed), fourier(size, size, LIMIT)
    magnitudes, mean = natural_spectrum(size)
    generator = torch.Generator().manual_seed(seed)
    return 2 * math.pi * torch.rand(pictures, *magnitudes.shape, generator=generator), phases(magnitudes, mean, size)


def _begun_from(start: Tensor, pictures: int) -> tuple[Tensor, Canvas]:
    x = coefficients(start).repeat(pictures, 1, 1, 1, 1)
    height, width = start.shape[-2:]
    return x, fourier(height, width, max(LIMIT, ROOM * length(x)))


@cache
def natural_spectrum(side: int) -> tuple[Tensor, Tensor]:
    """spectrum() of the squares in the middle of the bundled photographs, scaled to this side."""
    return spectrum(square(read_picture(path).image, side) for path in sorted(photograph_folder().glob("*.jpg")))


def check_prior(prior: str, start: Tensor | None) -> None:
    """Raise BadRecipe for an unknown prior, or one that does not fit a start."""
    if prior not in PRIORS:
        raise BadRecipe(f"the prior is {prior!r}, must be one of {', '.join(PRIORS)}")
    if prior == "maco" and start is not None:
        raise BadRecipe("the prior maco has the magnitudes of all photographs: it cannot start from one picture")


def check(net: Net, objective: Objective, size: int) -> None:
    """Raise BadRecipe for a layer or channel that the net does not have, or too small a size."""
    if not objective.channels:
        raise BadRecipe("name at least one channel")
    last = channels(net, objective.layer) - 1
    for k in (*objective.channels, *objective.against):
        if not 0 <= k <= last:
            raise BadRecipe(f"{objective.layer} of {net.name} has no channel {k}, it has 0 to {last}")
    if size < (least := least_size(net, objective.layer)):
        raise BadRecipe(f"size is {size}, must be at least {least} for {objective.layer} of {net.name}")


def natural_size(net: Net, objective: Objective) -> int:
    """The default side of the picture: the receptive field of a unit; SIDE for a channel."""
    if objective.everywhere:
        return SIDE
    return max(field_of(net.layers, layer_name(net, objective.layer)).size, least_size(net, objective.layer))


def least_size(net: Net, layer: str) -> int:
    """The smallest side of a square picture for which the layer's map is not empty."""
    return next(n for n in count(MIN_SIDE) if min(map_size(net, layer, (n, n))) >= 1)


def make_cost(
    net: Net, objective: Objective, seed: int, i: int, *, start: Tensor | None = None, nearness: float = NEARNESS
) -> Cost:
    """The cost of pictures at step i: minus the sum of their activations, plus a diversity term, plus their distance from `start`.

    An inactive unit has no gradient through its ReLU. In the first steps, and whenever it is inactive later, the map before the
    ReLU is maximised. This differs from the article's code, whose first steps let gradients pass all ReLUs. The distance is the
    squared one in the map halfway, relative to the start's square; `nearness` weighs it against the activation of the start.
    """
    raised, middle = before(net, objective.layer), halfway(net, objective.layer)

    def cost(image: Tensor) -> dict[str, Tensor]:
        how = draw(len(image), objective.everywhere, seed, i)
        warped = warp(image, *how)
        a = features(net, warped, [objective.layer, raised, middle])
        fired, below = objective_value(a[objective.layer], objective), objective_value(a[raised], objective)
        activation = fired.mean()
        alike = likeness(a[objective.layer]) if len(image) > 1 else torch.zeros_like(activation)
        price = DIVERSITY * activation.detach().clamp(min=0)  # relative to the activation: equally strong in every layer
        total = len(image) * price * alike - torch.where((fired > 0) & (i >= RAISED), fired, below).sum()
        costs = {"activation": activation, "likeness": alike}
        if start is not None:
            with torch.no_grad():
                of_start = features(net, warp(start.to(image).expand_as(image), *how), [objective.layer, middle])
            moved = (a[middle] - of_start[middle]).square().sum() / of_start[middle].square().sum()
            worth = objective_value(of_start[objective.layer], objective).abs().sum()
            total, costs["distance"] = total + nearness * worth * moved, moved
        return {"total": total, **costs}

    return cost


def halfway(net: Net, layer: str) -> str:
    """The convolution in the middle of the way to a layer; its map before the ReLU for the first."""
    names = [x.name for x in net.layers]
    convs = [x.name for x in net.layers[: names.index(layer_name(net, layer).removesuffix(":pre")) + 1] if not isinstance(x, Pool)]
    return convs[len(convs) // 2 - 1] if len(convs) > 1 else f"{convs[0]}:pre"


def objective_value(a: Tensor, objective: Objective) -> Tensor:
    """(B, C, h, w), the objective's layer -> (B,): the objective at the centre, or of the channels' means."""
    return value(a.mean((2, 3)) if objective.everywhere else a[..., a.shape[2] // 2, a.shape[3] // 2], objective)


def value(a: Tensor, objective: Objective) -> Tensor:
    """(B, C, ...) -> (B, ...): the minimum of the channels minus the sum of those against."""
    return a[:, list(objective.channels)].amin(1) - a[:, list(objective.against)].sum(1)


def likeness(a: Tensor) -> Tensor:
    """(B, C, h, w) -> scalar: the mean cosine between the Gram matrices of every two pictures (the article)."""
    grams = F.normalize(gram_matrix(a).flatten(1), dim=1)
    cosines = grams @ grams.mT
    return (cosines.sum() - cosines.trace()) / (len(a) * (len(a) - 1))


def before(net: Net, layer: str) -> str:
    """The map before the last ReLU up to the layer: `conv5` -> `conv5:pre`, `pool5` -> `conv5:pre`."""
    name = layer_name(net, layer)
    last = ""
    for x in net.layers:
        last = last if isinstance(x, Pool) else f"{x.name}:pre"
        if x.name == name.removesuffix(":pre"):
            break
    return last


def draw(pictures: int, everywhere: bool, seed: int, i: int) -> tuple[Tensor, Tensor, Tensor]:
    """The random transformation of each picture at step i: angles (B,) in radians, zooms (B,), shifts (B, 2) as shares of the side.

    For `everywhere` shifts are uniform over the whole picture, so that the net's padding affects all parts of it alike.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + i) % 2**63)
    angle, zoom, down, right = 2 * torch.rand(4, pictures, generator=generator) - 1
    reach = 0.5 if everywhere else SHIFT
    return angle * math.radians(ANGLE), ZOOM**zoom, reach * torch.stack([down, right], 1)


def warp(image: Tensor, angle: Tensor, zoom: Tensor, shift: Tensor) -> Tensor:
    """(B, 3, H, W) rotated by `angle` (B,), scaled by `zoom` (B,), shifted by `shift` (B, 2) of its sides; bilinear, same shape.

    Sampling wraps around, since a picture made of Fourier waves is periodic.
    """
    height, width = image.shape[-2:]
    down = torch.arange(height).to(image).view(1, -1, 1) - (height - 1) / 2
    right = torch.arange(width).to(image).view(1, 1, -1) - (width - 1) / 2
    cos, sin, shift = (t.to(image).unsqueeze(-1).unsqueeze(-1) for t in (angle.cos() / zoom, angle.sin() / zoom, shift))
    y = (cos * down + sin * right + (height - 1) / 2 - shift[:, 0] * height).remainder(height)
    x = (cos * right - sin * down + (width - 1) / 2 - shift[:, 1] * width).remainder(width)
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], -1)
    return F.grid_sample(F.pad(image, (0, 1, 0, 1), mode="circular"), grid, align_corners=True)


class Dream:
    """A dream that is written to the file `output`. The constructor raises all errors of its arguments, before the work."""

    def __init__(
        self,
        net: Net,
        objective: Objective,
        output: Path,
        *,
        size: int | None = None,
        steps: int,
        pictures: int = 1,
        seed: int = 0,
        prior: str = "fourier",
        start: Tensor | None = None,
        nearness: float = NEARNESS,
    ) -> None:
        check_prior(prior, start)
        check_writable(output)
        self.net, self.objective, self.output = net, objective, output
        self.size = natural_size(self.net, objective) if size is None else size
        check(self.net, objective, self.size)
        check_format(output, math.ceil(math.sqrt(pictures)) * (self.size + GAP))
        self.options: dict[str, Any] = {"size": self.size, "steps": steps, "pictures": pictures, "seed": seed, "prior": prior}
        input = next(name for name, it in INPUTS.items() if it == net.input)
        self.weights = {"sha256": digest(weights_of(net)), "input": input}
        self.start = None if start is None else square(start, self.size)
        self.nearness = nearness
        self.state: State | None = None
        self.seconds = 0.0

    def steps(self) -> Iterator[Step]:
        """Run the optimisation; at the end write the pictures, joined where there are several."""
        begun = time.monotonic()
        for step in dream(self.net, self.objective, start=self.start, nearness=self.nearness, **self.options):
            self.state = step.state
            yield step
        self.seconds = time.monotonic() - begun
        self._write(self.output, "finished")

    def set_aside(self) -> Path | None:
        """Save the unfinished pictures, under another name if `output` exists. None before the first step."""
        if self.state is None:
            return None
        path = self.output.with_stem(f"{self.output.stem}-so-far") if self.output.exists() else self.output
        self._write(path, "interrupted")
        return path

    def report(self) -> dict[str, Any]:
        """The settings and the activations: of the pictures in the file, of noise, and of the best bundled picture."""
        assert self.state is not None  # there is at least one step
        sheet = read_picture(self.output).image
        dreamt = objective_value(self._map(self.pictures()), self.objective)
        x, canvas = begun_with(self.options["prior"], 1, self.size, self.options["seed"])
        noise = canvas.image(x)
        best, picture = max((self._strongest(picture_image(name)), name) for name in CALIBRATION)
        return {
            "output": str(self.output),
            "width": sheet.shape[-1],
            "height": sheet.shape[-2],
            "seconds": round(self.seconds, 2),
            "peak_memory_mb": peak_memory_mb(),
            "activation": {"dream": dreamt.tolist(), "picture": best, "noise": self._strongest(noise)},
            "picture": picture,
            "excited": bool((dreamt > 0).all()),
            **self._record("finished"),
        }

    def pictures(self) -> Tensor:
        """The pictures in the file (B, 3, n, n)."""
        return split_pictures(read_picture(self.output).image, self.options["pictures"], self.size)

    def _map(self, image: Tensor) -> Tensor:
        with torch.no_grad():
            return features(self.net, image, [self.objective.layer])[self.objective.layer]

    def _strongest(self, image: Tensor) -> float:
        """The objective in this picture; for a unit at its strongest position."""
        a = self._map(image)
        return float(objective_value(a, self.objective) if self.objective.everywhere else value(a, self.objective).amax())

    def _record(self, ended: str) -> dict[str, Any]:
        assert self.state is not None
        versions = {name: version(name) for name in ("impasto", "torch", "pillow", "numpy")}
        how = {"versions": versions, "threads": torch.get_num_threads(), "winograd": has_winograd()}
        what = {"net": self.net.name, **asdict(self.objective), **self.options}
        if self.start is not None:
            what |= {"start": hashlib.sha256(self.start.numpy().tobytes()).hexdigest(), "nearness": self.nearness}
        return {"dream": what, "weights": self.weights, **how, "steps": self.state.i, "ended": ended}

    def _write(self, path: Path, ended: str) -> None:
        assert self.state is not None
        write_picture(path, join_pictures(quantize(self.state.image)), record=self._record(ended))


def summary(report: dict[str, Any]) -> str:
    """The activations of a report in one line; it says so where the objective stayed inactive."""
    dreamt, best, noise = (report["activation"][name] for name in ("dream", "picture", "noise"))
    reached = ", ".join(f"{a:.4g}" for a in dreamt)
    line = f"activation {reached}; best bundled picture ({report['picture']}) {best:.4g}; noise {noise:.4g}"
    return line if report["excited"] else f"not excited, the dream shows nothing: {line}"


def square(image: Tensor, side: int) -> Tensor:
    """The square in the middle of a picture (1, 3, H, W), scaled to (1, 3, side, side)."""
    height, width = image.shape[-2:]
    n = min(height, width)
    top, left = (height - n) // 2, (width - n) // 2
    return resize(image[..., top : top + n, left : left + n], (side, side))


def picture_image(name: str) -> Tensor:
    """A bundled picture (1, 3, H, W), its shorter side SIDE."""
    image = read_picture(picture_path(name)).image
    scale = SIDE / min(image.shape[-2:])
    return resize(image, (round(image.shape[-2] * scale), round(image.shape[-1] * scale)))


def join_pictures(images: Tensor) -> Tensor:
    """(B, 3, n, n) -> (1, 3, H, W): all pictures in a nearly square grid, on white."""
    n = images.shape[-1]
    places = _places(len(images), n)
    sheet = images.new_ones(1, 3, places[-1][0] + n, max(x for _, x in places) + n)
    for (y, x), image in zip(places, images, strict=True):
        sheet[0, :, y : y + n, x : x + n] = image
    return sheet


def split_pictures(sheet: Tensor, pictures: int, n: int) -> Tensor:
    """The inverse of join_pictures: (1, 3, H, W) -> (pictures, 3, n, n)."""
    return torch.cat([sheet[..., y : y + n, x : x + n] for y, x in _places(pictures, n)])


def _places(pictures: int, n: int) -> list[tuple[int, int]]:
    """(y, x) of the upper left corner of each."""
    columns = math.ceil(math.sqrt(pictures))
    return [(i // columns * (n + GAP), i % columns * (n + GAP)) for i in range(pictures)]
