"""Learning a style: the numbers of the net's normalisations are fitted so that J of what it paints becomes small.

J is that of a descent with the default recipe. What is learned from are squares of photographs; the style picture's statistics are
those at STYLE_SIDE, so that strokes have the size that they have in a descent of that size.
"""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from impasto.cache import Cache
from impasto.errors import BadInput
from impasto.feedforward.net import Style, Transformer
from impasto.feedforward.styles import TrainedNet, numbers_of
from impasto.images.images import resize
from impasto.nets.nets import Net, for_small_maps
from impasto.objective.objective import make_cost
from impasto.objective.targets import make_targets
from impasto.recipe.recipe import LEARNING_STEPS, Recipe, make_recipe

STYLE_SIDE = 512
CONTENT = 2.0  # weight of the content cost over the preset's: one pass has to form what it shows, as coarse scales of a descent do
SQUARE = 192  # pixels: side of the squares of photographs
RATE = 0.02  # Adam's step size at first; it falls along half a cosine
PERIOD = 8  # pixels: the net computes in eighths of the size, so that it can leave a lattice of this period and its parts
LATTICE = 3.0  # weight of lattice_cost
PLAIN_WEIGHT = 100.0  # of the mean square of the pixels where the net learns to give the photograph back

PictureCost = Callable[[Tensor, Tensor], dict[str, Tensor]]  # of a painting and its photograph


@dataclass(frozen=True)
class Lesson:
    """Step i of `of` in learning a style: the costs of the square just painted, with side `scale`; the numbers so far."""

    i: int
    of: int
    scale: int
    costs: dict[str, float]
    numbers: Tensor
    seconds: float


def learn_style(
    style: Tensor, photographs: Sequence[Tensor], net: Net, trained: TrainedNet, steps: int = LEARNING_STEPS, seed: int = 0
) -> Iterator[Lesson]:
    """Fit the numbers of a style picture (1, 3, H, W) on photographs (1, 3, H, W), the weights of the transformation net held.

    `net` is that of the costs. Starts from the numbers known for the picture. Raises BadInput without photographs or steps.
    """
    if not photographs or steps < 1:
        raise BadInput("learning a style needs at least one photograph and one step")
    numbers = numbers_of(style, trained).numbers.clone().requires_grad_()
    adam = torch.optim.Adam([numbers], betas=(0.9, 0.99))
    cost = style_cost_of(style, for_small_maps(net, (SQUARE, SQUARE)))
    rng, painter = random.Random(seed), Transformer(trained.weights)
    for i in range(steps):
        begun = time.monotonic()
        adam.param_groups[0]["lr"] = RATE * (0.5 + 0.5 * math.cos(math.pi * i / steps))
        square = random_square(rng.choice(photographs), SQUARE, rng)
        costs = cost(painter.paint(square, Style(((None, numbers),))), square)
        (numbers.grad,) = torch.autograd.grad(costs["total"], numbers)
        if torch.isfinite(numbers.grad).all():  # of a square of one colour, which normalisation divides by nearly 0, it may not be
            adam.step()
        found = {name: float(value.detach()) for name, value in costs.items()}
        yield Lesson(i + 1, steps, SQUARE, found, numbers.detach().clone(), time.monotonic() - begun)


def random_square(photograph: Tensor, side: int, rng: random.Random) -> Tensor:
    """(1, 3, H, W) -> (1, 3, side, side): a square of random place, half to twice as large, mirrored by chance."""
    height, width = photograph.shape[-2:]
    length = rng.randint(min(side // 2, height, width), min(height, width, 2 * side))
    top, left = rng.randint(0, height - length), rng.randint(0, width - length)
    square = resize(photograph[..., top : top + length, left : left + length], (side, side))
    return square.flip(-1) if rng.random() < 0.5 else square


def learning_recipe(side: int) -> Recipe:
    """The default recipe for squares of this side in pixels, with style pictures of STYLE_SIDE."""
    return make_recipe(size=side, style_scale=STYLE_SIDE / side, alpha=CONTENT * make_recipe().alpha, composition=0.0)


def style_cost_of(style: Tensor, net: Net) -> PictureCost:
    """J of paintings (B, 3, side, side) of photographs of the same shape in the manner of the style picture, per painting."""
    cache = Cache(8)

    def cost(painting: Tensor, photograph: Tensor) -> dict[str, Tensor]:
        recipe = learning_recipe(max(photograph.shape[-2:]))
        costs = make_cost(make_targets(photograph, [style], recipe, net, cache=cache), recipe, net)(painting)
        found = {name: value / len(photograph) for name, value in costs.items()}
        woven = lattice_cost(painting)
        return {**found, "lattice": woven, "total": found["total"] + LATTICE * woven}

    return cost


def lattice_cost(painting: Tensor) -> Tensor:
    """How far the spectrum of (B, 3, H, W) rises at n / PERIOD cycles a pixel above the frequencies beside: 0 without a lattice.

    The mean logarithm of the ratios of power, across and down, those below 1 as 1. Sides must be multiples of PERIOD.
    """
    return torch.stack([_lines(painting), _lines(painting.mT)]).mean()


def _lines(x: Tensor) -> Tensor:
    """(..., H, W) -> (..., PERIOD / 2): the logarithms of the ratios along rows, each a mean over all rows, at least 0."""
    side = x.shape[-1]
    spectrum = torch.fft.rfft((x - x.mean(-1, keepdim=True)) * torch.hann_window(side).to(x))
    power = torch.cat([spectrum, spectrum[..., :-1].flip(-1)], -1).abs().square().mean(-2) + 1e-9
    at = torch.arange(side // PERIOD, side // 2 + 1, side // PERIOD, device=x.device)
    beside = torch.stack([power[..., (at + n).abs()] for n in (-7, -6, -5, -4, -3, 3, 4, 5, 6, 7)]).mean(0)
    return (power[..., at] / beside).log().relu()


def plain_cost_of(net: Net) -> PictureCost:
    """The content cost and the mean square of the differences: least where the net gives the photograph back."""

    def cost(painting: Tensor, photograph: Tensor) -> dict[str, Tensor]:
        recipe = learning_recipe(max(photograph.shape[-2:])).model_copy(update={"beta": 0.0, "style_layers": {}})
        content = make_cost(make_targets(photograph, [], recipe, net), recipe, net)(painting)["content"] / len(photograph)
        squares = (painting - photograph).square().mean()
        return {"total": content + PLAIN_WEIGHT * squares, "content": content, "style": torch.zeros(())}

    return cost
