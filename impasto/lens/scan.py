"""A set of pictures through the net into an index on disk: a picture at a time, with checkpoints, resumed to the same bytes.

A batch is one picture: on a CPU a larger one is no faster, and what a picture gives cannot depend on its neighbours.
"""

import shutil
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path

from filelock import FileLock, Timeout

from impasto.errors import BadImage, BadInput, BadRecipe, CannotWrite, ImpastoWarning
from impasto.files import cannot_write, make_folder, write_whole
from impasto.images import Picture
from impasto.lens.collection import Row, Source, find_pictures, look_at, same_name
from impasto.lens.index import (
    INDEX,
    MANIFEST,
    Index,
    Manifest,
    Setup,
    check_same,
    empty_index,
    prefix_sha256,
    read_index_file,
    read_rows,
    write_index,
)
from impasto.lens.module import AnyNet, check_size
from impasto.lens.patches import look
from impasto.lens.view import bring, view_of

PARTIAL_INDEX, PARTIAL_MANIFEST = "partial.safetensors", "partial.jsonl"
CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Progress:
    """After a picture: its row, and how many are `done` `of` how many."""

    row: Row
    done: int
    of: int


def scan(places: Sequence[Path], net: AnyNet, setup: Setup, folder: Path, resume: bool = False) -> Iterator[Progress]:
    """Look at every picture in `places` (see find_pictures) and write the index into `folder`; yields after each picture.

    A picture that cannot be used becomes a row that says why. With `resume` an interrupted scan goes on from its last checkpoint
    and ends with the same bytes. Raises BadInput where there are no pictures or none can be used, BadRecipe when `folder` holds
    another scan to resume.
    """
    check_size(net, setup.layers, setup.size)
    of = sum(1 for _ in find_pictures(places))
    if not of:
        raise BadInput(f"there are no pictures in {', '.join(map(str, places))}")
    make_folder(folder)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield from _scan(same_name(find_pictures(places)), net, setup, folder, of, resume)
    except Timeout as error:
        raise CannotWrite(f"another scan is writing into {folder}") from error
    except OSError as error:
        raise cannot_write(folder, error) from error


def _scan(groups: Iterator[list[Source]], net: AnyNet, setup: Setup, folder: Path, of: int, resume: bool) -> Iterator[Progress]:
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
        if not index.pictures:
            raise BadInput(f"none of the {index.rows} pictures can be used: there is nothing to rank")
        _finish(folder, index, manifest)


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
    """A checkpoint: first the rows, then the index that says how many of them are its."""
    manifest.sync()
    write_index(folder / PARTIAL_INDEX, index, manifest.sha256.hexdigest(), manifest.length)


def _finish(folder: Path, index: Index, manifest: Manifest) -> None:
    """The checkpoint stays until both files are in place."""
    _save(folder, index, manifest)
    with open(folder / PARTIAL_MANIFEST, "rb") as rows:
        write_whole(folder / MANIFEST, lambda file: shutil.copyfileobj(rows, file))
    write_index(folder / INDEX, index, manifest.sha256.hexdigest(), manifest.length)
    for name in (PARTIAL_INDEX, PARTIAL_MANIFEST):
        (folder / name).unlink()


def _resumed(groups: Iterator[list[Source]], setup: Setup, folder: Path) -> tuple[Index, int] | None:
    """The index at the last checkpoint and the length of its manifest, with the pictures done taken off `groups`; None without one.

    A finished scan is one whose pictures are all done.
    """
    names = [pair for pair in ((PARTIAL_INDEX, PARTIAL_MANIFEST), (INDEX, MANIFEST)) if (folder / pair[0]).exists()]
    if not names:
        return None
    name, rows = names[0]
    try:
        index, about = read_index_file(folder / name)
        if prefix_sha256(folder / rows, about["length"]) != about["manifest"]:
            raise BadInput(f"{folder / rows} is not its manifest")
    except BadInput as error:
        warnings.warn(f"the scan in {folder} cannot be resumed and begins again ({error})", ImpastoWarning, stacklevel=2)
        return None
    check_same(setup, index.setup, folder / name)
    _take_off(groups, islice(read_rows(folder / rows), index.rows), folder)
    if name == INDEX:
        shutil.copyfile(folder / MANIFEST, folder / PARTIAL_MANIFEST)
    return index, about["length"]


def _take_off(groups: Iterator[list[Source]], rows: Iterable[Row], folder: Path) -> None:
    for parts, _ in groupby(rows, key=lambda row: row.source.parts):
        sources = next(groups, None)
        if sources is None or sources[0].parts != parts:
            found, name = "nothing" if sources is None else sources[0].name, "/".join(parts)
            raise BadRecipe(f"the pictures are not those that the scan in {folder} began with: {found} in place of {name}")
