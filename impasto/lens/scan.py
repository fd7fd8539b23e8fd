"""A scan: a set of pictures is run through the net into an index on disk, with checkpoints, resumed to the same bytes.

The batch size is 1: on a CPU larger ones are no faster, and a picture's activations must not depend on its neighbours.
"""

import contextlib
import shutil
import time
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path

from filelock import FileLock, Timeout

from impasto.errors import BadImage, BadInput, BadRecipe, CannotWrite, ImpastoWarning, SomeFailed
from impasto.files import cannot_write, make_folder, write_whole
from impasto.images.images import Picture
from impasto.lens.collection import Row, Source, find_pictures, grouped_by_name, read_pictures, row_from_json
from impasto.lens.index import (
    INDEX,
    MANIFEST,
    Index,
    Manifest,
    Setup,
    check_same,
    empty_index,
    merge,
    prefix_sha256,
    read_index,
    read_index_file,
    read_rows,
    write_index,
)
from impasto.lens.module import AnyNet, check_size
from impasto.lens.patches import rank_picture
from impasto.lens.view import apply_view, view_of
from impasto.workers import Task, Worker, distribute, with_retries

PARTIAL_INDEX, PREVIOUS_INDEX, PARTIAL_MANIFEST = PARTIAL = "partial.safetensors", "partial.safetensors.old", "partial.jsonl"
SHARDS = "shards"  # the folder of parts that are scanned separately, until they are merged
CHECKPOINT_SECONDS = 30.0
Part = tuple[int, int]  # (n, count): part n, from 0, of count
WHOLE: Part = (0, 1)


@dataclass(frozen=True)
class Progress:
    """After a picture: its row; `done` pictures `of` all."""

    row: Row
    done: int
    of: int


def scan(
    places: Sequence[Path], net: AnyNet, setup: Setup, folder: Path, resume: bool = False, part: Part = WHOLE
) -> Iterator[Progress]:
    """Scan every picture in `places` (see find_pictures) and write the index into `folder`; yields after each picture.

    A picture that cannot be used becomes a row that says why. With `resume` an interrupted scan continues from its last checkpoint
    and ends with the same bytes. `part` (n, count) scans every count-th name only; the index of a part may be empty.
    Raises BadInput where there are no pictures or none can be used, BadRecipe where the scan in `folder` is of other settings or
    pictures.
    """
    check_size(net, setup.layers, setup.size)
    of = count_pictures(places, part)
    make_folder(folder)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield from _scan(_groups(places, part), net, setup, folder, of, resume, part)
    except Timeout as error:
        raise CannotWrite(f"another scan is writing into {folder}") from error
    except OSError as error:
        raise cannot_write(folder, error) from error


def count_pictures(places: Sequence[Path], part: Part = WHOLE) -> int:
    """The number of pictures in a part. Raises BadInput where the whole set is empty."""
    count = sum(map(len, _groups(places, part)))
    if not count and part == WHOLE:
        raise BadInput(f"there are no pictures in {', '.join(map(str, places))}")
    return count


def _groups(places: Sequence[Path], part: Part) -> Iterator[list[Source]]:
    return islice(grouped_by_name(find_pictures(places)), part[0], None, part[1])


def _scan(
    groups: Iterator[list[Source]], net: AnyNet, setup: Setup, folder: Path, of: int, resume: bool, part: Part
) -> Iterator[Progress]:
    index, length = (resume and _resumed(groups, setup, folder)) or (empty_index(setup), 0)
    with closing(Manifest(folder / PARTIAL_MANIFEST, setup, length)) as manifest:
        _save(folder, index, manifest)
        saved = time.monotonic()
        for sources in groups:
            for row in _scan_group(index, net, sources):
                manifest.add(row)
                yield Progress(row, index.rows, of)
            if time.monotonic() - saved >= CHECKPOINT_SECONDS:
                _save(folder, index, manifest)
                saved = time.monotonic()
        if part == WHOLE:
            _check_some(index.pictures, index.rows)
        _finish(folder, index, manifest)


def _check_some(pictures: int, rows: int) -> None:
    if not pictures:
        raise BadInput(f"none of the {rows} pictures can be used: there is nothing to rank")


def _scan_group(index: Index, net: AnyNet, sources: Sequence[Source]) -> Iterator[Row]:
    """The rows of pictures that share a name, each after it was ranked."""
    for row, picture in read_pictures(sources):
        if picture is not None:
            row = _scan_picture(index, net, row, picture)  # noqa: PLW2901
        index.rows += 1
        yield row


def _scan_picture(index: Index, net: AnyNet, row: Row, picture: Picture) -> Row:
    try:
        view = view_of((row.height, row.width), index.setup.size, index.setup.fit)
        rank_picture(index, net, apply_view(picture.image, view), index.rows)
    except BadImage as error:
        return replace(row, skipped=f"{row.source.name} {error}")
    except BadInput as error:
        raise BadInput(f"{row.source.name}: {error}") from error
    return row


def _save(folder: Path, index: Index, manifest: Manifest) -> None:
    """Save a checkpoint: first the rows, then the index with their number. The last checkpoint becomes the previous one."""
    manifest.sync()
    with contextlib.suppress(FileNotFoundError):
        (folder / PARTIAL_INDEX).replace(folder / PREVIOUS_INDEX)
    write_index(folder / PARTIAL_INDEX, index, manifest.sha256.hexdigest(), manifest.length)


def _finish(folder: Path, index: Index, manifest: Manifest) -> None:
    """Write the finished files; the checkpoint stays until both are in place."""
    _save(folder, index, manifest)
    with open(folder / PARTIAL_MANIFEST, "rb") as rows:
        write_whole(folder / MANIFEST, lambda file: shutil.copyfileobj(rows, file))
    write_index(folder / INDEX, index, manifest.sha256.hexdigest(), manifest.length)
    for name in PARTIAL:
        (folder / name).unlink()


def _resumed(groups: Iterator[list[Source]], setup: Setup, folder: Path) -> tuple[Index, int] | None:
    """The index of the last intact checkpoint and the length of its manifest; its pictures are removed from `groups`.

    A finished scan is a checkpoint with all pictures. None where there is nothing to resume.
    """
    begun = [name for name in (PARTIAL_INDEX, PREVIOUS_INDEX) if (folder / name).exists()]
    for name in begun or [INDEX]:
        rows = PARTIAL_MANIFEST if begun else MANIFEST
        if (found := _read_checkpoint(folder, name, rows)) is None:
            continue
        check_same(setup, found[0].setup, folder / name)
        _take_off(groups, islice(read_rows(folder / rows), found[0].rows), folder)
        if name == INDEX:
            shutil.copyfile(folder / MANIFEST, folder / PARTIAL_MANIFEST)
        return found
    return None


def _read_checkpoint(folder: Path, name: str, rows: str) -> tuple[Index, int] | None:
    """An index and the length of its manifest; None where it is missing or, with a warning, damaged.

    A damaged checkpoint is deleted, so that it cannot replace the previous one.
    """
    try:
        index, about = read_index_file(folder / name)
        if prefix_sha256(folder / rows, about["length"]) != about["manifest"]:
            raise BadInput(f"{folder / rows} is not its manifest")
    except BadInput as error:
        if not (folder / name).exists():
            return None
        warnings.warn(f"ignoring a damaged checkpoint of the scan ({error})", ImpastoWarning, stacklevel=2)
        if name != INDEX:
            (folder / name).unlink()
        return None
    return index, about["length"]


def _take_off(groups: Iterator[list[Source]], rows: Iterable[Row], folder: Path) -> None:
    for parts, _ in groupby(rows, key=lambda row: row.source.parts):
        sources = next(groups, None)
        if sources is None or sources[0].parts != parts:
            found, name = "nothing" if sources is None else sources[0].name, "/".join(parts)
            raise BadRecipe(f"these are not the pictures of the scan in {folder}: {found} instead of {name}")


# In parts, which workers scan separately: each has its own index until all are merged


def shard_folder(folder: Path, part: Part) -> Path:
    """The folder of a part's index; for the whole set the folder itself."""
    return folder if part == WHOLE else folder / SHARDS / f"{part[0] + 1:05}-of-{part[1]:05}"


def shards_begun(folder: Path) -> int | None:
    """The number of parts of the scan in `folder`; None where there is no scan. Raises BadRecipe for parts of two scans."""
    counts = {path.name.partition("-of-")[2] for path in (folder / SHARDS).glob("*-of-*")}
    if len(counts) > 1:
        raise BadRecipe(f"{folder / SHARDS} has parts of two scans, of {' and of '.join(sorted(counts))}: remove one")
    begun = any((folder / name).exists() for name in (PARTIAL_INDEX, PREVIOUS_INDEX, INDEX))
    return int(counts.pop()) if counts else 1 if begun else None


def begin_shards(folder: Path, of: int, resume: bool) -> None:
    """Make the folders of all parts; without `resume` an unfinished scan is discarded."""
    if not resume:
        shutil.rmtree(folder / SHARDS, ignore_errors=True)
        for name in PARTIAL:
            (folder / name).unlink(missing_ok=True)
    for n in range(of):
        make_folder(shard_folder(folder, (n, of)))


def scan_shards(whole: Task, folder: Path, parts: Sequence[Part], workers: Sequence[Worker]) -> Generator[Progress, None, None]:
    """Scan these parts, each by one worker into its own index; `whole` is the task of the whole scan. Raises SomeFailed."""
    of = sum(count_pictures([Path(place) for place in whole["places"]], part) for part in parts)
    tasks = [{**whole, "part": part, "output": str(shard_folder(folder, part))} for part in parts]
    done, failed = dict[Part, int](), dict[Part, str]()
    for task, event in distribute(tasks, workers, with_retries):
        if "step" in event:
            done[task["part"]] = event["step"]["done"]
            yield Progress(row_from_json(event["step"]["row"]), sum(done.values()), of)
        elif "error" in event:
            failed[task["part"]] = event["error"]
    if failed:
        (n, count), error = next(iter(failed.items()))
        raise SomeFailed(f"{len(failed)} of {len(parts)} parts could not be scanned, {n + 1} of {count} first: {error}")


def merge_shards(folder: Path, of: int) -> bool:
    """Merge the parts into `folder` and remove them. Does nothing, and returns False, if a part is not finished."""
    parts = [shard_folder(folder, (n, of)) for n in range(of)]
    with FileLock(folder / ".lock"):
        if not all((part / INDEX).exists() for part in parts):
            return False
        indices = [read_index(part) for part in parts]
        _check_some(sum(index.pictures for index in indices), sum(index.rows for index in indices))
        merge(parts, folder)
        shutil.rmtree(folder / SHARDS)
        return True
