"""Many paintings: contents by styles by knobs, or a file of jobs.

What is finished is not painted again, what was begun goes on from its checkpoint, what fails is tried again and then set aside: the
others are painted all the same. A painting that is there, with the recipe and the hashes of its inputs inside, is its own mark of
completion, so that any number of processes, here or elsewhere, can share a folder (--shard). Hands do the work (hand.py), one here
or many on a cluster; what kills one costs one try of one job.
"""

import csv
import html
import io
import json
import os
import re
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

from filelock import FileLock, Timeout
from PIL import Image, ImageDraw

from impasto.errors import BadImage, BadInput, BadRecipe, CannotWrite, ImpastoError, SomeFailed
from impasto.files import (
    cannot_write,
    check_writable,
    make_folder,
    open_file,
    path_in,
    pictures_of,
    read_list,
    read_text,
    reason,
    sha256,
    write_whole,
)
from impasto.grid import LOCKS
from impasto.images.drawing import GAP, MARGIN, PAPER, SMALL, wrapped, write_lines
from impasto.images.images import read_picture, read_record, to_pillow, write_small
from impasto.recipe.axes import Axis, axis
from impasto.recipe.recipe import Recipe, in_files, make_recipe
from impasto.transfer.painting import Painting
from impasto.workers import TRIES, Hand, LocalHand, Said, painting_work, shared_out, tried

THUMB, ACROSS, A_SHEET = 200, 8, 96  # pixels of a small picture; of them side by side, on one contact sheet
PAINTED = (".png", ".webp", ".tif", ".tiff", ".jpg", ".jpeg")  # how a painting's file may end


@dataclass(frozen=True)
class Job:
    """One painting to be: `output` is its file's name in the batch's folder."""

    content: Path
    styles: tuple[Path, ...]
    recipe: Recipe
    output: str


Tell = Callable[[Job, Mapping[str, Any]], object]


@dataclass(frozen=True)
class Result:
    """What became of a job: finished, skipped (finished before), elsewhere (another process paints it), or failed and why."""

    job: Job
    state: str
    tries: int = 0
    report: Mapping[str, Any] | None = None
    error: str | None = None

    def to_json(self, folder: Path) -> dict[str, Any]:
        """One line for other programs."""
        told = {"output": str(folder / self.job.output), "state": self.state, "tries": self.tries, "error": self.error}
        told |= {"content": str(self.job.content), "styles": [str(style) for style in self.job.styles]}
        return told | {name: (self.report or {}).get(name) for name in ("width", "height", "seconds", "costs")}


# What is to be painted


def pictures_in(place: Path) -> list[Path]:
    """A folder's pictures by name, those that a text file lists, or the picture itself. Raises BadInput where there is none."""
    try:
        if place.is_dir():
            found = pictures_of(place)
        elif place.suffix.lower() == ".txt":
            found = [path_in(place.parent, line) for line in read_list(place)]
        else:
            with open_file(place):
                found = [place]
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {place}: {reason(error)}") from error
    if not found:
        raise BadInput(f"there are no pictures in {place}: give a folder, a list of paths in a .txt file, or a picture")
    return found


def crossed(contents: Sequence[Path], styles: Sequence[Path], vary: Sequence[Sequence[str]], knobs: Mapping[str, Any]) -> list[Job]:
    """Every content with every style, with every value of the knobs in `vary`, as ["beta", "5", "15"]. Raises BadRecipe."""
    axes: list[Axis] = [axis(words) for words in vary]
    jobs = []
    for content, style, cell in product(contents, styles, product(*axes)):
        changed = {name: value for _, its in cell for name, value in its.items()}
        if unknown := {"ratio", "contents", "content", "styles"} & set(changed):
            raise BadRecipe(f"--vary takes knobs, not {unknown.pop()}")
        own = {**knobs, **changed}
        tail = "".join(f"-{name}-{value}" for name, value in changed.items())
        jobs.append(Job(content, (style,), make_recipe(**own), f"{content.stem}-{style.stem}{_plain(tail)}.png"))
    return distinct(jobs)


def read_jobs(source: str, knobs: Mapping[str, Any], stdin: TextIO = sys.stdin) -> list[Job]:
    """Jobs from a file, .toml ([[job]] tables), .jsonl or .csv, or from stdin as lines of JSON ("-").

    A job has a content, a style or styles, knobs, and an output if it is to be called so; paths are from the file's folder.
    `knobs` are those of all jobs, where these say nothing else. Raises BadInput, BadRecipe, with the job's number.
    """
    folder = Path() if source == "-" else Path(source).parent
    jobs = []
    for n, told in enumerate(_told(source, stdin), 1):
        try:
            jobs.append(_job(told, folder, knobs))
        except (BadRecipe, BadInput) as error:
            raise type(error)(f"job {n}: {error}") from error
    if not jobs:
        raise BadInput(f"there are no jobs in {source}")
    return distinct(jobs)


def _told(source: str, stdin: TextIO) -> list[dict[str, Any]]:
    try:
        text = stdin.read() if source == "-" else read_text(Path(source))
        kind = Path(source).suffix.lower()
        if source == "-" or kind == ".jsonl":
            found = [json.loads(line) for line in text.split("\n") if line.strip()]
        elif kind == ".toml":
            found = tomllib.loads(text).get("job", [])
        elif kind == ".csv":
            found = _rows(text)
        else:
            raise BadInput(f"{source} is no file of jobs: its name must end in .toml, .jsonl or .csv")
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise BadInput(f"cannot read the jobs in {source}: {reason(error)}") from error
    if not isinstance(found, list) or not all(isinstance(it, dict) for it in found):
        raise BadInput(f"the jobs in {source} must be tables of content, style and knobs")
    return found


def _rows(text: str) -> list[dict[str, Any]]:
    """A table as spreadsheets write it: with commas, semicolons or tabs, its head in any case, spaces around. Raises ValueError."""
    lines = text.lstrip().split("\n")
    text = "\n".join(lines[lines[0].startswith("sep=") :])  # how Excel is told the separator
    separator = max(",;\t", key=text.partition("\n")[0].count)
    table = csv.DictReader(io.StringIO(text), restkey=BEYOND, delimiter=separator, skipinitialspace=True)
    table.fieldnames = [name.strip().lower() for name in table.fieldnames or ()]
    if not {"content"} < set(table.fieldnames):
        raise ValueError(
            f"its first line must name the columns, content and style among them; it has {', '.join(table.fieldnames) or 'none'}"
        )
    rows = []
    for row in table:
        if BEYOND in row:
            raise ValueError(
                f"line {table.line_num} has more fields than the first line, which names {len(table.fieldnames)} columns"
            )
        rows.append({name: value.strip() for name, value in row.items() if value and value.strip()})
    return [row for row in rows if row]


BEYOND = "(beyond the last column)"


def _job(told: Mapping[str, Any], folder: Path, knobs: Mapping[str, Any]) -> Job:
    styles = told.get("styles", told.get("style", ()))
    styles = [part.strip() for part in styles.split(";")] if isinstance(styles, str) else styles
    content, output = told.get("content"), told.get("output", "")
    if not isinstance(content, str) or not isinstance(styles, list | tuple) or not all(isinstance(it, str) for it in styles):
        raise BadInput(f"it needs a content and a style, or styles, as paths; it has {', '.join(told) or 'nothing'}")
    own = {name.replace("-", "_"): value for name, value in told.items() if name not in ("content", "style", "styles", "output")}
    recipe = make_recipe(**{**knobs, **in_files(own, folder)})
    if not isinstance(output, str) or (output and (Path(output).name != output or not output.lower().endswith(PAINTED))):
        raise BadInput(f"output is {output!r}, must be a file name that ends in {', '.join(PAINTED)}, without a folder")
    paths = tuple(path_in(folder, style) for style in styles)
    name = output or f"{'-'.join([Path(content).stem, *(path.stem for path in paths[:1])])}.png"
    return Job(path_in(folder, content), paths, recipe, path_in(Path(), name).name)


def _plain(text: str) -> str:
    """A part of a file name out of any value."""
    return re.sub(r"[^\w.=-]+", "_", text)[:80]


def distinct(jobs: Sequence[Job]) -> list[Job]:
    """The same jobs under names that differ in every file system: a second cat.png is cat-2.png."""
    seen: Counter[str] = Counter()
    found = []
    for job in jobs:
        name, path = job.output, Path(job.output)
        while seen[name.casefold()]:
            seen[job.output.casefold()] += 1
            name = f"{path.stem}-{seen[job.output.casefold()]}{path.suffix}"
        seen[name.casefold()] += 1
        found.append(Job(job.content, job.styles, job.recipe, name))
    return found


# Painting it


class Batch:
    """Jobs and the folder where their paintings go. What can be known to be wrong is raised here, before the work."""

    def __init__(self, jobs: Sequence[Job], folder: Path, *, tries: int = TRIES, how: Mapping[str, Any] | None = None) -> None:
        make_folder(folder / LOCKS)
        check_writable(folder / "index.html")
        self.jobs, self.folder, self.tries, self.how = list(jobs), folder, tries, dict(how or {})
        inputs = {os.path.realpath(path) for job in jobs for path in (job.content, *job.styles, *job.recipe.mask_files().values())}
        for job in jobs:
            if os.path.realpath(folder / job.output) in inputs:
                raise CannotWrite(f"{folder / job.output} is one of the pictures to paint from: name another folder with -o")
        self.results: dict[str, Result] = {}

    def is_finished(self, job: Job) -> bool:
        """Whether its painting is there, from these inputs by this recipe. Raises BadImage for an input that is not there."""
        try:
            record = read_record(self.folder / job.output)
        except BadImage:
            return False
        try:
            inputs: dict[str, Any] = {"content": sha256(job.content), "styles": list(map(sha256, job.styles)), "start": None}
            masks = {name: sha256(path) for name, path in job.recipe.mask_files().items()}
        except OSError as error:
            raise BadImage(f"cannot read {error.filename}: {error.strerror}") from error
        inputs |= {"masks": masks} if masks else {}
        return record.get("ended") == "finished" and (record.get("recipe"), record.get("inputs")) == (
            job.recipe.model_dump(mode="json"),
            inputs,
        )

    def paint(
        self, part: tuple[int, int] = (0, 1), tell: Tell = lambda *_: None, hands: Sequence[Hand] | None = None
    ) -> Generator[Result, None, None]:
        """Every job of this part, and what became of it, as they end. `tell` hears of the steps; the hands, one unless given, are
        closed in the end."""
        for job, event in shared_out(self.jobs[part[0] :: part[1]], hands or [LocalHand()], self._one):
            if isinstance(event, Result):
                self.results[job.output] = event
                yield event
            else:
                tell(job, event["step"])

    def _one(self, job: Job, hand: Hand) -> Iterator[Said | Result]:
        lock = FileLock(self.folder / LOCKS / job.output)
        try:
            with lock.acquire(timeout=0):
                if self.is_finished(job):
                    yield Result(job, "skipped")
                    return
                work = painting_work(job.content, job.styles, self.folder / job.output, job.recipe, self.how)
                for said in tried(work, hand, self.tries):
                    yield said if "step" in said else _result(job, said)
        except Timeout:
            yield Result(job, "elsewhere")
        except ImpastoError as error:
            yield Result(job, "failed", 1, error=str(error))
        except OSError as error:  # of the lock
            yield Result(job, "failed", 1, error=str(cannot_write(self.folder / job.output, error)))

    def check(self) -> None:
        """Raise SomeFailed where jobs failed."""
        failed = [result for result in self.results.values() if result.state == "failed"]
        if failed:
            first = failed[0]
            raise SomeFailed(f"{len(failed)} of {len(self.results)} jobs failed, {first.job.output} first: {first.error}")

    # What there is to look at in the end

    def write_index(self) -> Path:
        """index.html with every job, contact sheets in sheets/, and small/ with what they show. The page's path.

        In folders of their own, where no job's painting can lie.
        """
        make_folder(self.folder / "small")
        make_folder(self.folder / "sheets")
        there = [job for job in self.jobs if os.path.exists(self.folder / job.output)]  # of a name too long Path.exists raises
        small = {job.output: picture for job in there if (picture := self._small(job)) is not None}
        sheets = [self._write_sheet(n, part) for n, part in enumerate(_parts(list(small.items()), A_SHEET), 1)]
        page = index_page(self.jobs, self.results, set(small), sheets)
        write_whole(self.folder / "index.html", lambda file: file.write(page.encode(errors="backslashreplace")))
        return self.folder / "index.html"

    def _small(self, job: Job) -> Image.Image | None:
        try:
            picture = to_pillow(read_picture(self.folder / job.output).image)
        except BadImage:  # of an earlier run, damaged since: its job says so
            return None
        picture.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
        write_small(self.folder / "small" / f"{job.output}.webp", picture)
        return picture

    def _write_sheet(self, n: int, part: Sequence[tuple[str, Image.Image]]) -> str:
        name = f"sheets/{n}.jpg"
        drawn = contact_sheet(part)
        write_whole(self.folder / name, lambda file: drawn.save(file, "JPEG", quality=90))
        return name


def _result(job: Job, said: Said) -> Result:
    if "report" in said:
        return Result(job, "finished", said["tries"], said["report"])
    return Result(job, "failed", said["tries"], error=said["error"])


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def contact_sheet(pictures: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Small pictures with their names below, so many side by side."""
    across = min(ACROSS, len(pictures))
    cell, label = THUMB + GAP, 2 * (SMALL + 4) + GAP
    rows = -(-len(pictures) // across)
    page = Image.new("RGB", (across * cell + 2 * MARGIN, rows * (cell + label) + 2 * MARGIN), PAPER)
    for n, (name, picture) in enumerate(pictures):
        x, y = MARGIN + n % across * cell, MARGIN + n // across * (cell + label)
        page.paste(picture, (x + (THUMB - picture.width) // 2, y + THUMB - picture.height))
        write_lines(ImageDraw.Draw(page), x, y + THUMB + GAP // 2, wrapped(Path(name).stem, SMALL, THUMB)[:2], SMALL)
    return page


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.45 system-ui, sans-serif; margin: 1.2rem; }}
ul {{ list-style: none; padding: 0; display: grid; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)); gap: 1.2rem; }}
img {{ max-width: 200px; max-height: 200px; display: block; }}
.failed {{ border-left: 4px solid #b3261e; padding-left: 0.6rem; }}
</style></head>
<body><h1>{title}</h1><p>{sheets}</p><ul>
{items}
</ul></body></html>
"""


def index_page(jobs: Sequence[Job], results: Mapping[str, Result], shown: Iterable[str], sheets: Sequence[str]) -> str:
    """All jobs on one page: pictures that are there link to their files, others say what became of them."""
    there = set(shown)
    links = " ".join(f'<a href="{name}">contact sheet {n}</a>' for n, name in enumerate(sheets, 1))
    items = [_item(job, results.get(job.output), job.output in there) for job in jobs]
    return PAGE.format(title=f"{len(there)} of {len(jobs)} paintings", sheets=links, items="\n".join(items))


def _item(job: Job, result: Result | None, is_there: bool) -> str:
    name, address = html.escape(job.output), html.escape(quote(os.fsencode(job.output)))
    failed = result is not None and result.state == "failed"
    picture = f'<a href="{address}"><img src="small/{address}.webp" alt="" loading="lazy">{name}</a>' if is_there else name
    why = f"<br>{html.escape(str(result.error))}" if result is not None and failed else "" if is_there else "<br>not painted yet"
    return f"<li{' class=failed' if failed else ''}>{picture}{why}</li>"


# How long it will take


def estimated(jobs: Sequence[Job], seconds_a_pixel: float) -> float:
    """Seconds: the steps of all scales, each as long as its pixels are many."""
    return sum(seconds_a_pixel * steps * side**2 for job in jobs for side, steps in job.recipe.scales())


def measured(jobs: Sequence[Job]) -> float:
    """Seconds that a step takes here a pixel of a square as wide as the picture: the second of the first job that can be begun.

    Raises what is wrong with the last where none can.
    """
    for n, job in enumerate(jobs, 1):
        try:
            with tempfile.TemporaryDirectory() as folder:
                painting = Painting(job.content, job.styles, Path(folder) / "one.png", job.recipe)
                *_, last = islice(painting.steps(), 2)
            return last.seconds / last.scale**2
        except ImpastoError:
            if n == len(jobs):
                raise
    return 0.0
