"""What must stay the same while the code is made over: the SHA-256 of what some fifty small commands write.

    python -m tests.unchanged before.json    # at the commit to start from: writes the hashes
    python -m tests.unchanged before.json    # afterwards: says which of them have changed; exit code 1 where any has

Bytes depend on the processor and on the versions of torch and its neighbours, so the hashes are for one machine.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch
from PIL import Image

from impasto import disk
from impasto.cli.app import main
from impasto.images.images import read_picture, write_picture
from impasto.objective.tiles import Tiling
from impasto.pictures import picture_path
from impasto.recipe.recipe import PRESETS, make_recipe
from impasto.transfer.memory_plan import Plan
from impasto.transfer.transfer import Execution, make_net, stylize
from tests.clips import moving
from tests.conftest import save

FOLDER = Path(tempfile.gettempdir()) / "impasto-unchanged"  # one name, since a scan's manifest has the paths of its pictures
ALEX = ["--net", "alexnet", "--size", "64", "--coarsest", "64", "--steps", "2", "--device", "cpu"]
SMALL = ["--net", "alexnet", "--size", "96", "--coarsest", "32", "--steps", "3", "--fine-steps", "2"]
PAINT = ["transfer", "cat.jpg", "mosaic.jpg", "-q", "-o", "out.png"]
REGIONS = """[sky]
mask = "light"
style_weight = 2.0
color = "pca"
[rest]
mask = "rest"
style = 1
"""
EDIT = "[conv1]\ngain = 0.5\n[conv1.units]\n3 = 2.0\n"
OF_A_RECIPE = {
    "adam": ["--optimizer", "adam", "--lr", "0.02"],
    "gd": ["--optimizer", "gd", "--lr", "1e-3"],
    "noise": ["--init", "noise", "--seed", "5"],
    "luminance": ["--color", "luminance"],
    "monge": ["--color", "monge", "--color-when", "after"],
    "histogram": ["--color", "histogram", "--color-space", "oklab"],
    "regions": ["--regions", "regions.toml"],
    "protect": ["--protect", "mask.png"],
    "edit": ["--style-edit", "edit.toml"],
    "changes": ["--changes", "changes.toml"],
    "seamless": ["--seamless", "both", "--shape", "1:1"],
    "turned": ["--style-rotation", "30", "--style-scale", "1.5"],
    "tv": ["--tv", "3", "--pooling", "max", "--padding", "reflect"],
    "normalized": ["--normalize-net"],
    **{
        f"cost {cost}": ["--style-costs", f"gram=1,{cost}=0.5"]
        for cost in ("covariance", "moments", "w2", "sliced", "histogram", "patches", "cross")
    },
    **{f"cost {cost}": ["--content-costs", f"{cost}=1"] for cost in ("laplacian", "self-similarity")},
}
LENS = ["lens", "scan", "photos", "-o", "scan", "--size", "64", "-q"]
RUNS: dict[str, list[list[str]]] = {
    **{f"transfer {name}": [[*PAINT, *SMALL, *options]] for name, options in OF_A_RECIPE.items()},
    **{f"preset {name}": [[*PAINT, "--preset", name, "--size", "48", "--coarsest", "48", "--steps", "2"]] for name in PRESETS},
    "transfer two styles": [
        ["transfer", "cat.jpg", "mosaic.jpg", "wave.jpg", "--style-weights", "2,1", "-q", "-o", "out.png", *SMALL]
    ],
    "transfer tiles": [[*PAINT, "--net", "vgg19", "--size", "320", "--coarsest", "320", "--steps", "1", "--max-memory", "1GB"]],
    "transfer 16 bits": [["transfer", "cat.jpg", "mosaic.jpg", "-q", "-o", "out.tif", "--bits", "16", *SMALL]],
    "transfer jpeg": [["transfer", "cat.jpg", "mosaic.jpg", "-q", "-o", "out.jpg", *SMALL]],
    "texture": [["texture", "mosaic.jpg", "-q", "-o", "out.png", *ALEX]],
    "invert": [["invert", "cat.jpg", "-q", "-o", "out.png", *ALEX]],
    "mask": [["mask", "cat.jpg", "k-means 1 of 3", "-o", "out.png"]],
    "grid": [["grid", "cat.jpg", "mosaic.jpg", "--rows", "beta", "5", "50", "-q", "-o", "out.png", *ALEX]],
    "batch": [["batch", "photos", "mosaic.jpg", "-q", "-o", "out", *ALEX]],
    "video": [["video", "frames", "mosaic.jpg", "-q", "-o", "out", "--frame-steps", "2", *ALEX]],
    "film": [["video", "frames", "mosaic.jpg", "-q", "-o", "out.mp4", "--frame-steps", "2", *ALEX]],
    "style read": [["style", "read", "mosaic.jpg", "-o", "out", "--net", "alexnet", "--size", "64", "-q"]],
    "style compare": [["style", "compare", "mosaic.jpg", "cat.jpg", "--net", "alexnet", "--size", "64", "-o", "out.png", "--json"]],
    "lens scan": [[*LENS]],
    "transfer on disk": [["on disk"]],
    "grid figure": [["grid", "cat.jpg", "mosaic.jpg", "--figure", "style-layers", "-q", "-o", "out.png", *ALEX]],
    "lens top": [
        [*LENS],
        ["lens", "top", "scan", "--layer", "conv2", "--unit", "3"],
        ["lens", "units", "scan", "--layer", "conv1"],
    ],
    "lens compare": [[*LENS], ["lens", "compare", "scan", "scan", "--layer", "conv2", "-o", "out.png"]],
    "lens sheet": [[*LENS], ["lens", "sheet", "scan", "--layer", "conv2", "-o", "out.png"]],
    "lens atlas": [[*LENS, "--layers", "conv1"], ["lens", "atlas", "scan", "-o", "out", "-q"]],
    "lens project": [["lens", "project", "cat.jpg", "--layer", "conv2", "--unit", "3", "-o", "out.png"]],
    "lens dream": [["lens", "dream", "--layer", "conv3", "--unit", "17", "--steps", "3", "-q", "-o", "out.png"]],
}


def inputs(folder: Path) -> None:
    """The pictures and files that the commands name."""
    for name, file in (("cat", "cat"), ("mosaic", "mosaic"), ("wave", "hokusai-great-wave")):
        (folder / f"{name}.jpg").write_bytes(picture_path(file).read_bytes())
    (folder / "photos").mkdir()
    for name in ("cat", "astronaut"):
        (folder / "photos" / f"{name}.jpg").write_bytes(picture_path(name).read_bytes())
    (folder / "frames").mkdir()
    for n, frame in enumerate(moving(2, 48, 64)):
        save(folder / "frames" / f"{n}.png", frame)
    with Image.open(folder / "cat.jpg") as cat:
        Image.radial_gradient("L").resize(cat.size).save(folder / "mask.png")
    for name, text in (("regions", REGIONS), ("edit", EDIT), ("changes", "[2]\nbeta = 40\n")):
        (folder / f"{name}.toml").write_text(text)


def paint_on_disk() -> None:
    """A painting whose second scale lies in files, as those do that memory has no room for."""
    content, style = (read_picture(f"{name}.jpg").image for name in ("cat", "mosaic"))
    recipe = make_recipe("gatys", net="alexnet", size=160, coarsest=80, steps=2, fine_steps=2)
    plans = [Plan(None, 10), Plan(Tiling(("pool1",), 64), 10, on_disk=True)]
    with mock.patch.object(disk, "BAND", 4000):
        *_, last = stylize(content, [style], recipe, make_net(recipe), execution=Execution(plans, Path()))
    write_picture(Path("out.png"), last.image)


def made(commands: list[list[str]]) -> str:
    """The hash of all that these commands print on stdout and write into a new folder."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    with contextlib.chdir(FOLDER), io.StringIO() as printed:
        inputs(Path())
        given = set(Path().rglob("*"))
        for command in commands:
            if command == ["on disk"]:
                paint_on_disk()
                continue
            sys.argv = ["impasto", *command]
            with (
                contextlib.redirect_stdout(printed),
                contextlib.redirect_stderr(io.StringIO()) as said,
                contextlib.suppress(SystemExit),
            ):
                main()
            if "Traceback" in said.getvalue() or (
                said.getvalue() and "impasto: " in said.getvalue() and "warning" not in said.getvalue()
            ):
                return f"failed: {said.getvalue()[-300:]}"
        digest = hashlib.sha256(printed.getvalue().encode())
        if not printed.getvalue() and given == set(Path().rglob("*")):
            return "failed: nothing was made"
        for path in sorted(set(Path().rglob("*")) - given):
            if path.is_file() and ".locks" not in path.parts:
                digest.update(os.fsencode(path) + path.read_bytes())
        return digest.hexdigest()


def run() -> int:
    """Write the hashes to a file that is not there yet, or compare with those in it."""
    torch.set_num_threads(1)
    file = Path(sys.argv[1]).resolve()
    found = {}
    for name, commands in RUNS.items():
        found[name] = made(commands)
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    if not file.exists():
        file.write_text(json.dumps(found, indent=1) + "\n")
        return 0
    before = json.loads(file.read_text())
    changed = [name for name in {**before, **found} if before.get(name) != found.get(name)]
    print(f"{len(found) - len(changed)} unchanged; changed: {', '.join(changed) or 'none'}")
    return bool(changed)


if __name__ == "__main__":
    sys.exit(run())
