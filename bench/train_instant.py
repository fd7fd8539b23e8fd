"""python -m bench.train_instant: learn the transformation net and its styles from nothing, from photographs and paintings.

Resumable: run again, it continues from the last checkpoint; one seed gives one sequence of squares and styles. The log has a
line of JSON a step. bench/LOG.md has the settings of the net that comes with Impasto.
"""

import json
import math
import random
import time
from pathlib import Path

import torch
from cyclopts import App
from safetensors.torch import load_file, save_file
from torch import Tensor

from impasto.feedforward.learn import STYLE_SIDE, PictureCost, learning_recipe, plain_cost_of, random_square, style_cost_of
from impasto.feedforward.net import Style, Transformer, first_weights, plain_numbers
from impasto.feedforward.styles import PLAIN, statistics_of
from impasto.images.images import read_picture, resize, scaled_size, size_of
from impasto.nets.nets import for_small_maps
from impasto.objective.framing import cropped_styles
from impasto.transfer.transfer import make_net

app = App(name="python -m bench.train_instant")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
WARM = 200  # steps until the full step size
SAVE_EVERY = 200


def photographs(folders: list[Path], side: int) -> list[Tensor]:
    """(1, 3, H, W) of each photograph, enlarged where a side is shorter than `side`."""
    found = []
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
        image = read_picture(path).image
        short = min(size_of(image))
        found.append(image if short >= side else resize(image, scaled_size(image, math.ceil(max(size_of(image)) * side / short))))
    return found


class Learner:
    """The weights and numbers that are learned, with Adam's averages, on disk from time to time."""

    def __init__(self, folder: Path, styles: list[str], seed: int) -> None:
        self.path, self.step = folder / "checkpoint.safetensors", 0
        self.weights = {name: tensor.requires_grad_() for name, tensor in first_weights(seed).items()}
        self.numbers = {name: plain_numbers().requires_grad_() for name in styles}
        self.named = {f"weights/{k}": v for k, v in self.weights.items()} | {f"numbers/{k}": v for k, v in self.numbers.items()}
        self.adam = torch.optim.Adam(
            [{"params": list(self.weights.values())}, {"params": list(self.numbers.values())}], betas=(0.9, 0.99)
        )
        if self.path.exists():
            self._load()

    def _load(self) -> None:
        saved = load_file(self.path)
        self.step = int(saved["step"])
        with torch.no_grad():
            for name, tensor in self.named.items():
                if name in saved:
                    tensor.copy_(saved[name])
        for name, tensor in self.named.items():
            if f"{name}/exp_avg" in saved:
                self.adam.state[tensor] = {key: saved[f"{name}/{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        tensors = {name: tensor.detach() for name, tensor in self.named.items()}
        for name, tensor in self.named.items():
            tensors |= {f"{name}/{key}": value for key, value in self.adam.state.get(tensor, {}).items()}
        part = self.path.with_suffix(".part")
        save_file({**tensors, "step": torch.tensor(self.step)}, part)
        part.replace(self.path)

    def learn(self, costs: dict[str, Tensor], scale: float, lr: float) -> None:
        """One step of Adam down the costs over `scale`; the numbers of a style move faster than the weights."""
        for group, factor in zip(self.adam.param_groups, (1.0, 5.0), strict=True):
            group["lr"] = lr * factor
        self.adam.zero_grad(set_to_none=True)
        (costs["total"] / scale).backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_([tensor for tensor in self.named.values() if tensor.grad is not None], 1.0)
        if torch.isfinite(norm):  # of a square of one colour, which normalisation divides by nearly 0, it may not be
            self.adam.step()
        self.step += 1


def rate(step: int, steps: int, highest: float) -> float:
    """The step size: rises at first, falls along half a cosine in the last half."""
    late = max(0.0, 2 * step / steps - 1)
    return highest * min(1.0, (step + 1) / WARM) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, late)) * 0.98 + 0.01)


@app.command
def export(trained: Path, paintings: Path, output: Path) -> None:
    """Write the net, its styles and their statistics as half floats, for the package."""
    saved = {name: tensor for name, tensor in load_file(trained / "checkpoint.safetensors").items() if name.count("/") == 1}
    weights = {name.removeprefix("weights/"): tensor for name, tensor in saved.items() if name.startswith("weights/")}
    found = {name: tensor.half() for name, tensor in saved.items()}
    for path in sorted(path for path in paintings.iterdir() if path.suffix.lower() in SUFFIXES):
        (picture,) = cropped_styles([read_picture(path)], learning_recipe(STYLE_SIDE))
        statistics = statistics_of(picture.image, weights, saved[f"numbers/{PLAIN}"])
        found[f"statistics/{path.stem}"] = statistics.half()
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, output)


@app.command
def train(
    *,
    photos: list[Path],
    paintings: Path,
    output: Path,
    steps: int = 20_000,
    side: int = 256,
    batch: int = 1,
    lr: float = 1e-3,
    seed: int = 0,
) -> None:
    """Learn from the photographs in these folders and the paintings in that one, until so many steps in all are done.

    Example: python -m bench.train_instant train --photos photos --paintings paintings --output trained
    """
    output.mkdir(parents=True, exist_ok=True)
    names = sorted(path for path in paintings.iterdir() if path.suffix.lower() in SUFFIXES)
    recipe = learning_recipe(side)
    net = for_small_maps(make_net(recipe), (side, side))
    pictures = cropped_styles([read_picture(path) for path in names], recipe)
    costs: dict[str, PictureCost] = {PLAIN: plain_cost_of(net)}
    costs |= {path.stem: style_cost_of(picture.image, net) for path, picture in zip(names, pictures, strict=True)}
    learner, squares = Learner(output, list(costs), seed), photographs(photos, side)
    means: dict[str, float] = {}
    begun = time.monotonic()
    while learner.step < steps:
        step, rng = learner.step, random.Random(f"{seed} {learner.step}")
        style = random.Random(f"{seed} {step // len(costs)}").sample(sorted(costs), len(costs))[step % len(costs)]
        photograph = torch.cat([random_square(rng.choice(squares), side, rng) for _ in range(batch)])
        painting = Transformer(learner.weights).paint(photograph, Style(((None, learner.numbers[style]),)))
        found = costs[style](painting, photograph)
        total = float(found["total"].detach())
        if not math.isfinite(total):
            raise SystemExit(f"J is {total} at step {step}")
        means[style] = 0.95 * means.get(style, total) + 0.05 * total
        learner.learn(found, means[style], rate(step, steps, lr))
        line = {"step": step, "style": style, "side": side, "s": round(time.monotonic() - begun, 1)}
        line |= {f"J {name}": round(float(found[name].detach()), 4) for name in found}
        with (output / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        if learner.step % SAVE_EVERY == 0:
            learner.save()
    learner.save()


if __name__ == "__main__":
    app()
