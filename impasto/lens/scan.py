"""A set of pictures through the net into an index on disk: a picture at a time, with checkpoints, resumed to the same bytes.

A batch is one picture: on a CPU a larger one is no faster, and what a picture gives cannot depend on its neighbours.
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
from impasto.lens.collection import Row, Source, find_pictures, look_at, row_from_json, same_name
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
from impasto.lens.patches import look
from impasto.lens.view import bring, view_of
from impasto.workers import Task, Worker, distribute, with_retries

PARTIAL_INDEX, PREVIOUS_INDEX, PARTIAL_MANIFEST = PARTIAL = "partial.safetensors", "partial.safetensors.old", "partial.jsonl"
SHARDS = "shards"  # the folder of parts that are scanned by themselves, until they are merged
CHECKPOINT_SECONDS = 30.0
Part = tuple[int, int]  # which, from 0, of how many
WHOLE: Part = (0, 1)


@dataclass(frozen=True)
class Progress:
    """After a picture: its row, and how many are `done` `of` how many."""

    row: Row
    done: int
    of: int


def scan(
    places: Sequence[Path], net: AnyNet, setup: Setup, folder: Path, resume: bool = False, part: Part = WHOLE
) -> Iterator[Progress]:
    """Look at every picture in `places` (see find_pictures) and write the index into `folder`; yields after each picture.

    Of a `part` of the set, every so-manieth name, the index may have no pictures.
    A picture that cannot be used becomes a row that says why. With `resume` an interrupted scan goes on from its last checkpoint
    and ends with the same bytes. Raises BadInput where there are no pictures or none can be used, BadRecipe when `folder` holds
    another scan to resume.
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
    """How many there are. Raises BadInput where there are none in all parts."""
    count = sum(map(len, _groups(places, part)))
    if not count and part == WHOLE:
        raise BadInput(f"there are no pictures in {', '.join(map(str, places))}")
    return count


def _groups(places: Sequence[Path], part: Part) -> Iterator[list[Source]]:
    return islice(same_name(find_pictures(places)), part[0], None, part[1])


def _scan(
    groups: Iterator[list[Source]], net: AnyNet, setup: Setup, folder: Path, of: int, resume: bool, part: Part
) -> Iterator[Progress]:
    index, length = (resume and _resumed(groups, setup, folder)) or (empty_index(setup), 0)
    with closing(Manifest(folder / PARTIAL_MANIFEST, setup, length)) as manifest:
        _save(folder, index, manifest)
        saved = time.monotonic()
        for sources in groups:
            for row in _looked(index, net, sources):
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


def _looked(index: Index, net: AnyNet, sources: Sequence[Source]) -> Iterator[Row]:
    """The rows of pictures that share a name, each after the net has seen it."""
    for row, picture in look_at(sources):
        if picture is not None:
            row = _look(index, net, row, picture)  # noqa: PLW2901
        index.rows += 1
        yield row


def _look(index: Index, net: AnyNet, row: Row, picture: Picture) -> Row:
    try:
        view = view_of((row.height, row.width), index.setup.size, index.setup.fit)
        look(index, net, bring(picture.image, view), index.rows)
    except BadImage as error:
        return replace(row, skipped=f"{row.source.name} {error}")
    except BadInput as error:
        raise BadInput(f"{row.source.name}: {error}") from error
    return row


def _save(folder: Path, index: Index, manifest: Manifest) -> None:
    """A checkpoint: first the rows, then the index that says how many of them are its. The last one becomes the previous one."""
    manifest.sync()
    with contextlib.suppress(FileNotFoundError):
        (folder / PARTIAL_INDEX).replace(folder / PREVIOUS_INDEX)
    write_index(folder / PARTIAL_INDEX, index, manifest.sha256.hexdigest(), manifest.length)


def _finish(folder: Path, index: Index, manifest: Manifest) -> None:
    """The checkpoint stays until both files are in place."""
    _save(folder, index, manifest)
    with open(folder / PARTIAL_MANIFEST, "rb") as rows:
        write_whole(folder / MANIFEST, lambda file: shutil.copyfileobj(rows, file))
    write_index(folder / INDEX, index, manifest.sha256.hexdigest(), manifest.length)
    for name in PARTIAL:
        (folder / name).unlink()


def _resumed(groups: Iterator[list[Source]], setup: Setup, folder: Path) -> tuple[Index, int] | None:
    """The index at the last checkpoint that is whole and the length of its manifest, with the pictures done taken off `groups`.

    A finished scan is one whose pictures are all done. None where there is nothing to go on with.
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
    """An index and the length of its manifest; None of one that is not there, or damaged, which is said in a warning.

    A damaged checkpoint goes, lest it take the previous one's place.
    """
    try:
        index, about = read_index_file(folder / name)
        if prefix_sha256(folder / rows, about["length"]) != about["manifest"]:
            raise BadInput(f"{folder / rows} is not its manifest")
    except BadInput as error:
        if not (folder / name).exists():
            return None
        warnings.warn(f"a damaged checkpoint of the scan is not used ({error})", ImpastoWarning, stacklevel=2)
        if name != INDEX:
            (folder / name).unlink()
        return None
    return index, about["length"]


def _take_off(groups: Iterator[list[Source]], rows: Iterable[Row], folder: Path) -> None:
    for parts, _ in groupby(rows, key=lambda row: row.source.parts):
        sources = next(groups, None)
        if sources is None or sources[0].parts != parts:
            found, name = "nothing" if sources is None else sources[0].name, "/".join(parts)
            raise BadRecipe(f"the pictures are not those that the scan in {folder} began with: {found} in place of {name}")


# In parts, which workers scan by themselves: each has an index of its own, until they are merged to that of all


def shard_folder(folder: Path, part: Part) -> Path:
    """Where the index of a part is until all are merged; of a whole, where it stays."""
    return folder if part == WHOLE else folder / SHARDS / f"{part[0] + 1:05}-of-{part[1]:05}"


def shards_begun(folder: Path) -> int | None:
    """In how many parts the scan in `folder` was begun; None where none was. Raises BadRecipe for parts of two scans."""
    counts = {path.name.partition("-of-")[2] for path in (folder / SHARDS).glob("*-of-*")}
    if len(counts) > 1:
        raise BadRecipe(f"{folder / SHARDS} has parts of scans in {' and in '.join(sorted(counts))} parts: remove those of one")
    begun = any((folder / name).exists() for name in (PARTIAL_INDEX, PREVIOUS_INDEX, INDEX))
    return int(counts.pop()) if counts else 1 if begun else None


def begin_shards(folder: Path, of: int, resume: bool) -> None:
    """The folders of all parts; without `resume` what was begun before is given up."""
    if not resume:
        shutil.rmtree(folder / SHARDS, ignore_errors=True)
        for name in PARTIAL:
            (folder / name).unlink(missing_ok=True)
    for n in range(of):
        make_folder(shard_folder(folder, (n, of)))


def scan_shards(asked: Task, folder: Path, parts: Sequence[Part], workers: Sequence[Worker]) -> Generator[Progress, None, None]:
    """The scan that was `asked` for, of these parts, each by a worker into an index of its own. Raises SomeFailed."""
    of = sum(count_pictures([Path(place) for place in asked["places"]], part) for part in parts)
    tasks = [{**asked, "part": part, "output": str(shard_folder(folder, part))} for part in parts]
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
    """Write the index of all into `folder` and remove the parts; False, and nothing is done, unless each part has its index."""
    parts = [shard_folder(folder, (n, of)) for n in range(of)]
    with FileLock(folder / ".lock"):
        if not all((part / INDEX).exists() for part in parts):
            return False
        indices = [read_index(part) for part in parts]
        _check_some(sum(index.pictures for index in indices), sum(index.rows for index in indices))
        merge(parts, folder)
        shutil.rmtree(folder / SHARDS)
        return True
