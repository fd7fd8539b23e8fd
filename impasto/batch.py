"""Many paintings: contents by styles by knobs, or a file of jobs.

A finished painting is not painted again, an unfinished one continues from its checkpoint, a job that fails is tried again and then
skipped: the others are painted. A painting with the recipe and the hashes of its inputs inside shows by itself that its job is
finished, so any number of processes and machines can share a folder (--shard). Workers paint (workers.py), one here or many on a
cluster; if one dies, one job loses one try.
"""

import csv
import html
import io
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
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
    read_toml,
    reason,
    sha256,
    write_whole,
)
from impasto.images.drawing import GAP, MARGIN, PAPER, SMALL, wrapped, write_lines
from impasto.images.formats import WRITERS
from impasto.images.images import read_picture, read_record, to_pillow, write_small
from impasto.recipe.axes import Axis, axis
from impasto.recipe.recipe import Recipe, in_files, make_recipe
from impasto.transfer.painting import Painting
from impasto.workers import TRIES, Event, LocalWorker, Worker, distribute, painting_task, with_retries

LOCKS = ".locks"  # one file for each painting, locked by the process that paints it
THUMB, ACROSS, A_SHEET = 200, 8, 96  # pixels of a small picture; pictures in a row, and on one contact sheet


@dataclass(frozen=True)
class Job:
    """One painting: `output` is its file name in the folder of the batch."""

    content: Path
    styles: tuple[Path, ...]
    recipe: Recipe
    output: str


@dataclass(frozen=True)
class Result:
    """How a job ended: finished, skipped (finished before), elsewhere (another process paints it), or failed, with the error."""

    job: Job
    state: str
    tries: int = 0
    report: Mapping[str, Any] | None = None
    error: str | None = None

    def to_json(self, folder: Path) -> dict[str, Any]:
        """One line for other programs."""
        about = {"output": str(folder / self.job.output), "state": self.state, "tries": self.tries, "error": self.error}
        about |= {"content": str(self.job.content), "styles": [str(style) for style in self.job.styles]}
        return about | {name: (self.report or {}).get(name) for name in ("width", "height", "seconds", "costs")}


# The jobs


def pictures_in(place: Path) -> list[Path]:
    """The pictures in a folder, by name, those that a .txt file lists, or one picture. Raises BadInput if there is none."""
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
        changed = {name: value for _, own in cell for name, value in own.items()}
        if unknown := {"ratio", "contents", "content", "styles"} & set(changed):
            raise BadRecipe(f"--vary takes knobs, not {unknown.pop()}")
        own = {**knobs, **changed}
        tail = "".join(f"-{name}-{value}" for name, value in changed.items())
        jobs.append(Job(content, (style,), make_recipe(**own), f"{content.stem}-{style.stem}{_plain(tail)}.png"))
    return distinct(jobs)


def read_jobs(source: str, knobs: Mapping[str, Any], stdin: TextIO = sys.stdin) -> list[Job]:
    """Jobs from a file, .toml ([[job]] tables), .jsonl or .csv, or from stdin as lines of JSON ("-").

    A job has a content, a style or styles, and optionally knobs and an output. Relative paths start at the file's folder. `knobs`
    are the defaults of all jobs. Raises BadInput, BadRecipe, with the number of the job.
    """
    folder = Path() if source == "-" else Path(source).parent
    jobs = []
    for n, row in enumerate(_rows_of(source, stdin), 1):
        try:
            jobs.append(_job(row, folder, knobs))
        except (BadRecipe, BadInput) as error:
            raise type(error)(f"job {n}: {error}") from error
    if not jobs:
        raise BadInput(f"there are no jobs in {source}")
    return distinct(jobs)


def _rows_of(source: str, stdin: TextIO) -> list[dict[str, Any]]:
    try:
        text = stdin.read() if source == "-" else read_text(Path(source))
        kind = Path(source).suffix.lower()
        if source == "-" or kind == ".jsonl":
            found = [json.loads(line) for line in text.split("\n") if line.strip()]
        elif kind == ".toml":
            found = read_toml(Path(source), "jobs in", BadInput).get("job", [])
        elif kind == ".csv":
            found = _csv_rows(text)
        else:
            raise BadInput(f"{source} is no file of jobs: its name must end in .toml, .jsonl or .csv")
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise BadInput(f"cannot read the jobs in {source}: {reason(error)}") from error
    if not isinstance(found, list) or not all(isinstance(it, dict) for it in found):
        raise BadInput(f"the jobs in {source} must be tables of content, style and knobs")
    return found


def _csv_rows(text: str) -> list[dict[str, Any]]:
    """A table as spreadsheets write it: with commas, semicolons or tabs; names in any case. Raises ValueError."""
    lines = text.lstrip().split("\n")
    text = "\n".join(lines[lines[0].startswith("sep=") :])  # Excel names the separator so
    separator = max(",;\t", key=text.partition("\n")[0].count)
    table = csv.DictReader(io.StringIO(text), restkey=BEYOND, delimiter=separator, skipinitialspace=True)
    table.fieldnames = [name.strip().lower() for name in table.fieldnames or ()]
    if not {"content"} < set(table.fieldnames):
        names = ", ".join(table.fieldnames) or "none"
        raise ValueError(f"its first line must name the columns, content and style among them; it has {names}")
    rows = []
    for row in table:
        if BEYOND in row:
            columns = len(table.fieldnames)
            raise ValueError(f"line {table.line_num} has more fields than the first line, which names {columns} columns")
        rows.append({name: value.strip() for name, value in row.items() if value and value.strip()})
    return [row for row in rows if row]


BEYOND = "(beyond the last column)"


def _job(row: Mapping[str, Any], folder: Path, knobs: Mapping[str, Any]) -> Job:
    styles = row.get("styles", row.get("style", ()))
    styles = [part.strip() for part in styles.split(";")] if isinstance(styles, str) else styles
    content, output = row.get("content"), row.get("output", "")
    if not isinstance(content, str) or not isinstance(styles, list | tuple) or not all(isinstance(it, str) for it in styles):
        raise BadInput(f"it needs a content and a style, or styles, as paths; it has {', '.join(row) or 'nothing'}")
    own = {name.replace("-", "_"): value for name, value in row.items() if name not in ("content", "style", "styles", "output")}
    recipe = make_recipe(**{**knobs, **in_files(own, folder)})
    if not isinstance(output, str) or (output and (Path(output).name != output or not output.lower().endswith(tuple(WRITERS)))):
        raise BadInput(f"output is {output!r}, must be a file name that ends in {', '.join(WRITERS)}, without a folder")
    paths = tuple(path_in(folder, style) for style in styles)
    name = output or f"{'-'.join([Path(content).stem, *(path.stem for path in paths[:1])])}.png"
    return Job(path_in(folder, content), paths, recipe, path_in(Path(), name).name)


def _plain(text: str) -> str:
    """Any text as a part of a file name."""
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


# Painting


class Batch:
    """Jobs and the folder for their paintings. Raises what can be known to be wrong before the first is painted.

    `options` are those of painting_task.
    """

    def __init__(self, jobs: Sequence[Job], folder: Path, *, tries: int = TRIES, options: Mapping[str, Any] | None = None) -> None:
        make_folder(folder / LOCKS)
        check_writable(folder / "index.html")
        self.jobs, self.folder, self.tries, self.options = list(jobs), folder, tries, dict(options or {})
        inputs = {os.path.realpath(path) for job in jobs for path in (job.content, *job.styles, *job.recipe.mask_files().values())}
        for job in jobs:
            if os.path.realpath(folder / job.output) in inputs:
                raise CannotWrite(f"{folder / job.output} is one of the pictures to paint from: name another folder with -o")
        self.results: dict[str, Result] = {}

    def is_finished(self, job: Job) -> bool:
        """Whether its painting exists, from these inputs with this recipe. Raises BadImage for an input that does not exist."""
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
        expected = {"ended": "finished", "recipe": job.recipe.model_dump(mode="json"), "inputs": inputs}
        return all(record.get(name) == value for name, value in expected.items())

    def events(
        self, part: tuple[int, int] = (0, 1), workers: Sequence[Worker] | None = None
    ) -> Generator[tuple[Job, Event | Result], None, None]:
        """The steps and the Result of every job of this part, as they come. The workers, one by default, are closed at the end."""
        for job, event in distribute(self.jobs[part[0] :: part[1]], workers or [LocalWorker()], self._run):
            if isinstance(event, Result):
                self.results[job.output] = event
            yield job, event

    def paint(self, part: tuple[int, int] = (0, 1), workers: Sequence[Worker] | None = None) -> Generator[Result, None, None]:
        """The Result of every job of this part, as they end; see events."""
        with closing(self.events(part, workers)) as events:
            yield from (event for _, event in events if isinstance(event, Result))

    def _run(self, job: Job, worker: Worker) -> Iterator[Event | Result]:
        lock = FileLock(self.folder / LOCKS / job.output)
        try:
            with lock.acquire(timeout=0):
                if self.is_finished(job):
                    yield Result(job, "skipped")
                    return
                task = painting_task(job.content, job.styles, self.folder / job.output, job.recipe, self.options)
                for event in with_retries(task, worker, self.tries):
                    state = "finished" if "report" in event else "failed"
                    yield event if "step" in event else Result(job, state, event["tries"], event.get("report"), event.get("error"))
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

    # The page

    def write_index(self) -> Path:
        """Write index.html with every job, contact sheets in sheets/ and their pictures in small/. Returns the path of the page.

        Sheets and small pictures have folders of their own, where they cannot collide with a job's painting.
        """
        make_folder(self.folder / "small")
        make_folder(self.folder / "sheets")
        # Not Path.exists, which raises for a name that is too long.
        there = [job for job in self.jobs if os.path.exists(self.folder / job.output)]
        small = {job.output: picture for job in there if (picture := self._small(job)) is not None}
        pictures = list(small.items())
        sheets = [self._write_sheet(first, pictures[first : first + A_SHEET]) for first in range(0, len(pictures), A_SHEET)]
        page = index_page(self.jobs, self.results, set(small), sheets)
        write_whole(self.folder / "index.html", lambda file: file.write(page.encode(errors="backslashreplace")))
        return self.folder / "index.html"

    def _small(self, job: Job) -> Image.Image | None:
        try:
            picture = to_pillow(read_picture(self.folder / job.output).image)
        except BadImage:  # of an earlier run, damaged since: the result of its job says so
            return None
        picture.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
        write_small(self.folder / "small" / f"{job.output}.webp", picture)
        return picture

    def _write_sheet(self, first: int, part: Sequence[tuple[str, Image.Image]]) -> str:
        name = f"sheets/{first // A_SHEET + 1}.jpg"
        drawn = contact_sheet(part)
        write_whole(self.folder / name, lambda file: drawn.save(file, "JPEG", quality=90))
        return name


def contact_sheet(pictures: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Small pictures in rows of ACROSS, with their names below."""
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
    """One page with all jobs: finished paintings link to their files, the others say why they are missing."""
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


# Estimates


def estimated(jobs: Sequence[Job], seconds_a_pixel: float) -> float:
    """Seconds for all jobs, if a step takes so many seconds for each pixel of a square."""
    return sum(seconds_a_pixel * steps * side**2 for job in jobs for side, steps in job.recipe.scales())


def measured(jobs: Sequence[Job]) -> float:
    """Seconds of one step on this machine for each pixel of a square as wide as the picture, from the second step of a first job.

    A job that cannot be started is passed over; if none can, the error of the last is raised.
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
