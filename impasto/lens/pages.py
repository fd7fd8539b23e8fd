"""The folder of a page that opens from disk: begun, marked as ours, written, and finished by the page itself.

A browser lets a page from disk load scripts, style sheets and images, but not data: data are small scripts, in ASCII.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from impasto.errors import CannotWrite
from impasto.files import HALF, cannot_write, entries, make_folder, write_whole

PARTS = "parts"


def check_free(output: Path, made_by: str) -> None:
    """Raise CannotWrite for what is no folder, or one that holds anything but an older page `made_by` the same."""
    page = output / "index.html"
    if output.exists() and not output.is_dir():
        raise CannotWrite(f"{output} is a file: name a folder with -o")
    others = entries(output) if output.exists() else []
    if others and not (page.is_file() and _mark(made_by) in page.read_bytes()):
        raise CannotWrite(f"{output} holds something else than a page of {made_by}: name a new folder with -o")


def begin(output: Path, made_by: str) -> Path:
    """Make the folder or take over that of an older page, see check_free; where its parts go. Until it is finished it says so, and
    what a run that was stopped left of files is gone.
    """
    check_free(output, made_by)
    make_folder(output)
    said = b"<title>Not finished</title><p>This page is not finished: it is being made, or was stopped.</p></html>\n"
    head = b'<!doctype html><html lang="en"><meta charset="utf-8">'
    write_whole(output / "index.html", lambda file: file.write(head + _mark(made_by) + said))
    try:
        for path in output.glob(HALF):
            path.unlink()
        if (output / PARTS).exists():
            shutil.rmtree(output / PARTS)
    except OSError as error:
        raise cannot_write(output / PARTS, error) from error
    make_folder(output / PARTS)
    return output / PARTS


def _mark(made_by: str) -> bytes:
    return f'<meta name="generator" content="impasto {made_by}">'.encode()


def finish(output: Path, names: Mapping[str, str]) -> None:
    """Write what is not made, {file in lens/page: its name in the folder}; the page itself is last, so what it names is there."""
    for source, target in names.items():
        data = (files("impasto.lens") / "page" / source).read_bytes()
        write_whole(output / target, lambda file, data=data: file.write(data))  # type: ignore[misc]


def write_script(path: Path, head: str, lines: Sequence[dict[str, Any]], foot: str) -> None:
    """Data as a script, in ASCII: a picture's name cannot be read as anything but a name."""
    text = head + ",\n".join(json.dumps(line, separators=(",", ":"), allow_nan=False) for line in lines) + f"{foot}\n"
    write_whole(path, lambda file: file.write(text.encode("ascii")))


def short(value: float) -> float:
    """Five digits, as a page has room for."""
    return float(f"{value:.5g}")
