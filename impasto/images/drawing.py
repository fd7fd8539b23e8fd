"""Drawing: text in lines, pictures in a grid, a page with a title and a legend, and the page as a file. All figures use it."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from impasto.files import check_writable
from impasto.images.writing import check_format, write_picture

GAP, MARGIN, LEADING = 10, 52, 6  # pixels: between two pictures, around a page, between two lines
INK, FAINT, PAPER, OUTSIDE = (34, 34, 34), (112, 112, 112), (255, 255, 255), (237, 234, 228)  # OUTSIDE fills empty cells
TITLE, TEXT, SMALL = 34, 18, 15  # font sizes


def write_lines(draw: ImageDraw.ImageDraw, x: int, y: int, lines: Sequence[str], size: int) -> None:
    """Write lines of text below one another."""
    for n, line in enumerate(lines):
        draw.text((x, y + n * (size + LEADING)), line, FAINT, font(size))


def wrapped(text: str, size: int, width: int) -> list[str]:
    """The text in lines of at most `width` pixels; a longer word has a line of its own."""
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


def in_grid(cells: Sequence[Image.Image], columns: int, gap: int, row_gap: int | None = None) -> Image.Image:
    """Pictures of one size row by row, `gap` pixels apart, or `row_gap` between rows."""
    (width, height), row_gap = cells[0].size, gap if row_gap is None else row_gap
    rows = math.ceil(len(cells) / columns)
    found = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + row_gap) - row_gap), PAPER)
    for n, cell in enumerate(cells):
        found.paste(cell, (n % columns * (width + gap), n // columns * (height + row_gap)))
    return found


def captioned(pictures: Mapping[str, Image.Image]) -> list[Image.Image]:
    """{caption: picture}, all of one size -> each picture under its caption, all of one size, too."""
    lines = [wrapped(caption, SMALL, picture.width) for caption, picture in pictures.items()]
    top, found = max(map(len, lines)) * (SMALL + LEADING), []
    for caption, picture in zip(lines, pictures.values(), strict=True):
        found.append(Image.new("RGB", (picture.width, top + picture.height), PAPER))
        write_lines(ImageDraw.Draw(found[-1]), 0, 0, caption, SMALL)
        found[-1].paste(picture, (0, top))
    return found


def page_of(body: Image.Image, title: str, subtitle: str = "", legend: str = "") -> Image.Image:
    """A page: the title, the subtitle, the body, the legend."""
    head, foot = (wrapped(text, size, body.width) if text else [] for text, size in ((subtitle, TEXT), (legend, SMALL)))
    top = MARGIN + TITLE + 20 + (14 + len(head) * (TEXT + LEADING) if head else 0)
    bottom = top + body.height + (22 + len(foot) * (SMALL + LEADING) if foot else 0)
    page = Image.new("RGB", (body.width + 2 * MARGIN, bottom + MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN - 2, MARGIN - 6), title, INK, font(TITLE))
    write_lines(draw, MARGIN, MARGIN + TITLE + 14, head, TEXT)
    page.paste(body, (MARGIN, top))
    write_lines(draw, MARGIN, top + body.height + 22, foot, SMALL)
    return page


def check_figure(path: Path) -> None:
    """Raise now what write_figure would raise after the work."""
    check_format(path)
    check_writable(path)


def write_figure(path: Path, figure: Image.Image, record: Mapping[str, Any]) -> None:
    """Write a page, whole or not at all, with the record of what it shows inside the file."""
    pixels = torch.from_numpy(np.asarray(figure, dtype=np.float32) / 255)
    write_picture(path, pixels.permute(2, 0, 1)[None], record={**record, "versions": {"impasto": version("impasto")}})
