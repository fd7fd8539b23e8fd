"""Flicker and style cost of a video's frames: python -m bench.video FOLDER [SIZE [FRAMES [QUALITY]]], each alone or from the last.

Two clips out of the bundled pictures, with sensor noise: a camera that stands still before a cat, a cut-out astronaut passing by,
and one that pans over the astronaut. They and their paintings stay in FOLDER; what was painted there is not painted again.
"""

import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.images.images import read_picture, resize, scaled_size, write_picture
from impasto.machine import settle
from impasto.pictures import picture_path
from impasto.recipe.recipe import make_recipe
from impasto.video.video import Motion, Video

NOISE = 4 / 255  # standard deviation
WAYS = {
    "each alone": Motion(temporal=0, start="recipe"),
    "along the flow, no temporal cost": Motion(temporal=0),
    "the default": Motion(),
    "temporal 1000": Motion(temporal=1000),
}
INSTANT_WAYS = {"each alone": Motion(start="recipe"), "the default": Motion()}  # quality instant minimises nothing


def still_camera(size: int, frames: int) -> Iterator[Tensor]:
    """The cat, before which an oval of the astronaut moves by 6 pixels a frame."""
    cat, astronaut = (shown(name, side) for name, side in (("cat", size), ("astronaut", size // 2)))
    height, width = astronaut.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    oval = (((y / height - 0.35) / 0.3) ** 2 + ((x / width - 0.45) / 0.25) ** 2 < 1).float()
    top = cat.shape[-2] - height - 10
    for n in range(frames):
        frame = cat.clone()
        place = frame[..., top : top + height, 10 + 6 * n : 10 + 6 * n + width]
        place.copy_(torch.lerp(place, astronaut, oval))
        yield frame


def panning_camera(size: int, frames: int) -> Iterator[Tensor]:
    """A window that goes over the astronaut by 3.4 and 1.3 pixels a frame."""
    whole = shown("astronaut", size * 3 // 2)
    height, width = whole.shape[-2:]
    for n in range(frames):
        y = 2 * (torch.arange(size * 2 // 3) + 10.5 + 1.3 * n) / height - 1
        x = 2 * (torch.arange(size) + 20.5 + 3.4 * n) / width - 1
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
        yield F.grid_sample(whole, places, mode="bicubic", align_corners=False)


CLIPS = {"still": still_camera, "pan": panning_camera}


def shown(name: str, size: int) -> Tensor:
    """A bundled picture."""
    image = read_picture(picture_path(name)).image
    return resize(image, scaled_size(image, size))


def write_clip(name: str, folder: Path, size: int, frames: int) -> None:
    """The clip's frames with noise, as a folder of pictures."""
    generator = torch.Generator().manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    for n, frame in enumerate(CLIPS[name](size, frames)):
        noise = NOISE * torch.randn(frame.shape, generator=generator)
        write_picture(folder / f"{n:03d}.png", (frame + noise).clamp(0, 1))


def measure(folder: Path, size: int, frames: int, quality: str) -> None:
    """A row a clip and way."""
    recipe, style = make_recipe(size=size, quality=quality), picture_path("hokusai-great-wave")
    print("| clip | way | seconds | style | content | flicker | of the input |\n|---|---|---|---|---|---|---|")
    for name in CLIPS:
        write_clip(name, folder / name, size, frames)
        for way, motion in (INSTANT_WAYS if recipe.is_instant else WAYS).items():
            video = Video(folder / name, [style], folder / f"{name} {quality} {way}", recipe, motion)
            for _ in video.steps(resume=True):
                pass
            it = video.report()
            costs, flicker = (
                ("" if recipe.is_instant else f"{it['costs'][name]:.3f}" for name in ("style", "content")),
                it["flicker"],
            )
            figures = f"{' | '.join(costs)} | {flicker['painting']:.4f} | {flicker['input']:.4f}"
            print(f"| {name} | {way} | {it['seconds']:.0f} | {figures} |", flush=True)


if __name__ == "__main__":
    settle()
    folder, size, frames, quality = (
        given or otherwise for given, otherwise in zip_longest(sys.argv[1:], ("", "128", "8", "standard"))
    )
    measure(Path(folder), int(size), int(frames), quality)
