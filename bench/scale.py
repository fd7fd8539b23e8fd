"""The tables of docs/scale.md beyond what was measured: python bench/scale.py

Each piece of work takes the time that it was measured to take, on one worker of one thread; whichever worker is free takes the
next, as impasto.workers.distribute does. What workers have in common (the disk, the network, the start) is added after.
"""

import heapq
import random
from collections.abc import Iterable, Sequence

from impasto.recipe.recipe import make_recipe

WORKERS = (1, 2, 8, 64, 512)
START = 10.0  # seconds until Ray and its workers are there
PAINTING = 155.0  # seconds of one painting at 512 px, `standard`
FRAME_STEPS = 15
LOOK = 0.41  # seconds of a picture through VGG-19, all convolutions, 224 px
PARTS, MERGE = 1000, 0.5  # parts of a scan; seconds to merge one of them


def makespan(works: Iterable[float], workers: int) -> float:
    """Seconds until all is done, when whoever is free takes the next."""
    free = [0.0] * workers
    for work in works:
        heapq.heappush(free, heapq.heappop(free) + work)
    return max(free)


def scenes(frames: int, mean: float, seed: int = 0) -> list[int]:
    """Lengths of a film's scenes, some short and few long, as films are cut: exponential, of this mean."""
    rng, lengths = random.Random(seed), list[int]()
    while (left := frames - sum(lengths)) > 0:
        lengths.append(min(left, 1 + round(rng.expovariate(1 / mean))))
    return lengths


def frame() -> float:
    """Seconds of a video's frame that is not the first of its scene: so much of a painting as its share of steps times pixels."""
    recipe = make_recipe()
    return PAINTING * FRAME_STEPS * recipe.size**2 / sum(steps * side**2 for side, steps in recipe.scales())


def row(name: str, works: Sequence[float], after: float = 0.0) -> str:
    """A line of the table: hours for each number of workers."""
    hours = [(START + makespan(works, workers) + after) / 3600 for workers in WORKERS]
    return f"| {name} | {' | '.join(f'{it:,.1f} h' if it >= 1 else f'{60 * it:.0f} min' for it in hours)} |"


def main() -> None:
    """Print the table."""
    print(f"| workers of one thread | {' | '.join(map(str, WORKERS))} |")
    print("|---" * (len(WORKERS) + 1) + "|")
    print(row("1,000 photographs in 3 styles, 512 px", [PAINTING] * 3000))
    lengths = scenes(150_000, 96)
    print(row("a film of 150,000 frames, 512 px", [PAINTING + (length - 1) * frame() for length in lengths]))
    print(row("ImageNet-1k through VGG-19", [LOOK * 1_281_167 / PARTS] * PARTS, PARTS * MERGE))
    print(f"longest scene: {max(lengths)} of {len(lengths)} scenes' frames")


if __name__ == "__main__":
    main()
