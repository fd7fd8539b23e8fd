"""Lettering and sheets: the colours, sizes and gaps of every page that is drawn, lines of text on it, and the page as a file."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from impasto.images.images import write_picture

GAP, MARGIN = 10, 52  # pixels between two things on a page, and around all of them
INK, FAINT, PAPER, OUTSIDE = (34, 34, 34), (112, 112, 112), (255, 255, 255), (237, 234, 228)  # the last where nothing is shown
TITLE, TEXT, SMALL = 34, 18, 15  # sizes of letters


def write_lines(draw: ImageDraw.ImageDraw, x: int, y: int, lines: Sequence[str], size: int) -> None:
    """Write lines of text below one another."""
    for n, line in enumerate(lines):
        draw.text((x, y + n * (size + 6)), line, FAINT, font(size))


def wrapped(text: str, size: int, width: int) -> list[str]:
    """The text in lines no wider than so many pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font(size).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own, so that a page looks the same everywhere."""
    return ImageFont.load_default(size)


def write_figure(path: Path, figure: Image.Image, record: Mapping[str, Any]) -> None:
    """Write a page, with what it shows inside the file."""
    pixels = torch.from_numpy(np.asarray(figure, dtype=np.float32) / 255)
    write_picture(path, pixels.permute(2, 0, 1)[None], record={**record, "versions": {"impasto": version("impasto")}})
