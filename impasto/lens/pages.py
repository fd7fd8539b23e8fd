"""The folder of an HTML page that opens from disk: created, marked as ours, filled, and finished with the page itself.

A browser lets a page from disk load scripts, style sheets and images, but no data. So the data are small ASCII scripts.
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
    """Raise CannotWrite for a file, or a folder that holds anything but an older page `made_by` the same command."""
    page = output / "index.html"
    if output.exists() and not output.is_dir():
        raise CannotWrite(f"{output} is a file: choose a folder with -o")
    others = entries(output) if output.exists() else []
    if others and not (page.is_file() and _mark(made_by) in page.read_bytes()):
        raise CannotWrite(f"{output} holds something other than a page of {made_by}: choose a new folder with -o")


def begin(output: Path, made_by: str) -> Path:
    """Create the folder, or clear that of an older page (see check_free); returns the folder for its parts.

    Until finish is called the page says that it is not finished.
    """
    check_free(output, made_by)
    make_folder(output)
    text = b"<title>Not finished</title><p>This page is not finished: it is being made, or was stopped.</p></html>\n"
    head = b'<!doctype html><html lang="en"><meta charset="utf-8">'
    write_whole(output / "index.html", lambda file: file.write(head + _mark(made_by) + text))
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
    """Copy the static files, {file in lens/page: its name in the folder}; the page itself last, when all that it loads exists."""
    for source, target in names.items():
        data = (files("impasto.lens") / "page" / source).read_bytes()
        write_whole(output / target, lambda file, data=data: file.write(data))  # type: ignore[misc]


def write_script(path: Path, head: str, lines: Sequence[dict[str, Any]], foot: str) -> None:
    """Write data as an ASCII script, so that a picture's name cannot be taken for code."""
    text = head + ",\n".join(json.dumps(line, separators=(",", ":"), allow_nan=False) for line in lines) + f"{foot}\n"
    write_whole(path, lambda file: file.write(text.encode("ascii")))


def short(value: float) -> float:
    """Rounded to five digits, to keep pages small."""
    return float(f"{value:.5g}")
