"""Is the suite any good? Faults sown on purpose, one at a time in a copy of the code; the tests named beside each must notice.

    python -m tests.seeded_faults              # all of them; half an hour on two cores
    python -m tests.seeded_faults 3 17         # these, by number

A fault is a text that stands exactly once in the package, whichever file it is in, and what takes its place.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SECONDS = 600


@dataclass(frozen=True)
class Fault:
    """`before` becomes `after`; `tests` are files, or names within them."""

    before: str
    after: str
    tests: str


FAULTS = [
    # Formulas
    Fault("weights * squares).sum() / (4 * n_C**2)", "weights * squares).sum() / (2 * n_C**2)", "test_losses.py"),
    Fault("constant = 1 / (4 * a_G[0].numel())", "constant = 1 / (2 * a_G[0].numel())", "test_losses.py"),
    Fault("alpha * J_content + beta * J_style", "alpha * J_content - beta * J_style", "test_losses.py"),
    Fault("gradient: Tensor = (grad + grad.mT) @ x", "gradient: Tensor = grad @ x", "test_kernels.py"),
    Fault(
        "columns[..., :right] += grad[..., left + width :]", "columns[..., :right] -= grad[..., left + width :]", "test_kernels.py"
    ),
    Fault(
        "ctx.save_for_backward(right > left, lower > upper)",
        "ctx.save_for_backward(right >= left, lower > upper)",
        "test_kernels.py",
    ),
    Fault("(image[:, input.channels] * input.scale - mean) / std", "(image * input.scale - mean) / std", "test_nets.py"),
    Fault(
        "return gram - mean[:, :, None] * mean[:, None, :]",
        "return gram + mean[:, :, None] * mean[:, None, :]",
        "test_distances.py",
    ),
    Fault("x, y = x.clamp(0, x_most), y.clamp(0, y_most)", "x, y = x.clamp(0, y_most), y.clamp(0, x_most)", "test_flow.py"),
    Fault("(x >= -0.5) & (x <= back.shape[-1] - 0.5)", "(x >= 0.5) & (x <= back.shape[-1] - 0.5)", "test_flow.py"),
    Fault("ground.scatter_add_(2, places, values)", "ground.scatter_(2, places, values)", "test_lens_deconv.py"),
    # Descent
    Fault("mean / (1 - BETAS[0] ** float(count))", "mean / (1 - BETAS[0])", "test_descent.py"),
    Fault("if rise <= SUFFICIENT * slope:", "if True:", "test_descent.py"),
    Fault("(x >= canvas.high) & (gradient < 0)", "(x >= canvas.high) & (gradient > 0)", "test_canvas.py test_descent.py"),
    Fault("return x.clamp(canvas.low, canvas.high)", "return x", "test_canvas.py test_descent.py"),
    Fault(
        "state = begin(state.x, cost, stage.first, state.truncated, canvas)",
        "state = begin(state.x, cost, stage.first, True, canvas)",
        "test_changes.py test_painting.py",
    ),
    Fault("while self.coarsest * 2**finer < self.size:", "while self.coarsest * 2**finer <= self.size:", "test_recipe.py"),
    Fault("t *= min(0.5, max(0.1, -slope / (2 * (rise - slope))))", "t *= 2", "test_descent.py"),
    # Tiles, disk, memory
    Fault(
        "found[name] = found[name] + part.double() if name in found else part.double()",
        "found[name] = part.double()",
        "test_tiles.py",
    ),
    Fault("first = at % length", "first = min(at, length - 1)", "test_tiles.py test_frame.py"),
    Fault("os.posix_fallocate(descriptor, 0, nbytes)", "os.truncate(descriptor, nbytes)", "test_disk.py"),
    Fault(
        "if fitting := [(work, plan) for work, plan in found if plan.peak <= budget]:",
        "if fitting := found:",
        "test_plan.py test_painting.py",
    ),
    Fault("least = min(least, *(plan.peak for _, plan in found), inf)", "least = 0.0", "test_plan.py"),
    # Files
    Fault("os.unlink(name)\n        raise\n    _sync_folder", "raise\n    _sync_folder", "test_files.py"),
    Fault("(stat.S_ISFIFO,", "(stat.S_ISLNK,", "test_files.py -k ordinary"),
    Fault('if not (name.startswith(".") or', "if not (", "test_files.py"),
    Fault("!= hashlib.sha256(data).digest():", "== b'':", "test_checkpoint.py"),
    Fault("path.replace(previous(path))", "path.unlink()", "test_checkpoint.py"),
    Fault('raise BadInput("its fields contradict each other")', "return", "test_painting.py -k anybody"),
    Fault(
        'if not mask or is_made(mask) or (info.context or {}).get("paths") else FILE',
        "",
        "test_masks.py test_workers.py test_painting.py",
    ),
    Fault("6: 4, 7: 6, 8: 2}", "6: 2, 7: 6, 8: 4}", "test_images.py test_formats.py"),
    Fault("image, alpha = image * alpha + (1 - alpha), None", "image, alpha = image * alpha, None", "test_images.py"),
    Fault("return grey if picture.alpha is None else grey * picture.alpha", "return grey", "test_masks.py"),
    # Work
    Fault("for n in range(1, tries + 1):", "for n in range(1, tries):", "test_workers.py"),
    Fault("if self.is_finished(job):\n                    yield", "if False:\n                    yield", "test_batch.py"),
    Fault(
        'raise SomeFailed(f"{len(failed)} of {len(self.results)} jobs',
        'print(f"{len(failed)} of {len(self.results)} jobs',
        "test_batch.py",
    ),
    Fault("return int(part) - first, int(count)", "return int(part), int(count)", "test_workers.py -k shards"),
    Fault("    os._exit(0)\n", "", "test_workers.py -k ends_with"),
    Fault('return sys.executable, "-P", "-c", run', 'return sys.executable, "-c", run', "test_workers.py -k nothing_is_run"),
    Fault("torch.set_num_threads(threads)", "pass  # those of a checkpoint", "test_painting.py -k threads"),
    # Lens
    Fault("np.flatnonzero(value > ranking.value[:, -1])", "np.flatnonzero(value > ranking.value[:, 0])", "test_lens_patches.py"),
    Fault('order = np.argsort(-value, 1, kind="stable")', 'order = np.argsort(value, 1, kind="stable")', "test_lens_patches.py"),
    Fault("fires = value > 0", "fires = value >= 0", "test_lens_patches.py test_lens_scan.py"),
    # Studio
    Fault("if len(named) != 1 or named[0].lower() not in hosts:", "if len(named) != 1:", "test_studio_attacks.py"),
    Fault("if HEADER not in headers:", "if False:", "test_studio_attacks.py"),
    Fault('httponly=True, samesite="strict"', 'httponly=True, samesite="lax"', "test_studio_attacks.py"),
    Fault('hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())', "True", "test_studio_attacks.py"),
    # Instant pictures
    Fault("plain.lerp(self._mixed(part, plain), strength)", "plain.lerp(self._mixed(part, plain), 1.0)", "test_feedforward.py"),
    Fault("start = 0 if edges[0] else start + 2", "start = 0 if edges[0] else start + 1", "test_feedforward.py"),
    Fault(".get(trained.digest)", ".popitem()[1]", "test_feedforward.py"),
    Fault("now.lerp(was, self.inertia)", "was.lerp(now, self.inertia)", "test_feedforward.py"),
    # Small maps, the process that waits, flicker
    Fault("torch.kron(G, G).flip(1) @ weight", "torch.kron(G, G) @ weight", "test_kernels.py"),
    Fault("places in KEPT_PLACES", "places > 0", "test_kernels.py"),
    Fault('self._cancel("stop")', "pass", "test_studio_jobs.py"),
    Fault("if last or self.process is not old or self.ending:", "if True:", "test_studio_jobs.py"),
    Fault("other = i + 1 if number % 2 else i - 1", "other = i - 1", "test_video.py"),
    # Clarity, words, paths and dreams; photographs that are brought
    Fault("(across.sum(1, keepdim=True) - across) / (n - 1)", "across.sum(1, keepdim=True) / (n - 1)", "test_lens_clarity.py"),
    Fault(".quantile(0.95))", ".quantile(0.5))", "test_lens_clarity.py"),
    Fault("x = x + y if x.shape == y.shape else y", "x = y", "test_lens_words.py"),
    Fault(
        "sides += [missing // 2, missing - missing // 2]", "sides += [missing - missing // 2, missing // 2]", "test_lens_words.py"
    ),
    Fault("scipy.stats.binom.logsf(counts - 1, of, rates)", "scipy.stats.binom.logsf(counts, of, rates)", "test_lens_words.py"),
    Fault("np.where(counts >= MOST,", "np.where(counts >= 1,", "test_lens_words.py"),
    Fault("(x - x.flip(-2).roll(1, -2)) / 2", "(x - x.flip(-2)) / 2", "test_canvas.py"),
    Fault("* window / window.square().mean().sqrt()", "* window", "test_canvas.py"),
    Fault("own[~np.eye(len(own), dtype=bool)].mean()", "own.mean()", "test_lens_paths.py"),
    Fault("others = [(unit + len(way.a) // 2) % len(way.a) for unit in first]", "others = first", "test_lens_atlas.py"),
    Fault("if everywhere or not places_of(", "if not places_of(", "test_lens_atlas.py"),
    # Pictures at once
    Fault("if is_stage and mine != self.newest:", "if False:", "test_studio_live.py"),
    Fault(
        "except BaseException:  # the request was cancelled", "except OSError:  # the request was cancelled", "test_studio_live.py"
    ),
    Fault("min(size, LARGEST) if isinstance(size, int) else LARGEST", "size or LARGEST", "test_studio_live.py"),
]


def sown(fault: Fault, root: Path) -> None:
    """Sow it in this copy of the code. Raises LookupError where its text does not stand exactly once."""
    there = [path for path in sorted((root / "impasto").rglob("*.py")) if fault.before in path.read_text()]
    if len(there) != 1 or there[0].read_text().count(fault.before) != 1:
        raise LookupError(f"{fault.before!r} stands in {[path.name for path in there]}")
    there[0].write_text(there[0].read_text().replace(fault.before, fault.after))


def is_caught(fault: Fault) -> bool:
    """Whether its tests fail, in a copy of the code with it."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for part in ("impasto", "tests", "docs", "pyproject.toml", "ARCHITECTURE.md", "README.md"):
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copyfile
            copy(ROOT / part, root / part)
        sown(fault, root)
        files = [word if word.startswith("-") or not word.endswith(".py") else f"tests/{word}" for word in fault.tests.split()]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
        environment = {**os.environ, "PYTHONPATH": name, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, timeout=SECONDS, check=False)
        if done.returncode not in (0, 1):
            raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout[-500:].decode()}")
        return done.returncode == 1


def run() -> int:
    """Say of each fault whether it was caught, then how many were."""
    chosen = [int(word) for word in sys.argv[1:]] or range(1, len(FAULTS) + 1)
    caught = 0
    for n in chosen:
        try:
            found = "caught" if is_caught(FAULTS[n - 1]) else "MISSED"
        except (LookupError, RuntimeError, subprocess.TimeoutExpired) as error:
            found = f"NOT SOWN: {error}"
        caught += found == "caught"
        print(f"{n}. {found}: {FAULTS[n - 1].before!r}", flush=True)
    print(f"{caught} of {len(chosen)} caught")
    return caught < len(chosen)


if __name__ == "__main__":
    sys.exit(run())
