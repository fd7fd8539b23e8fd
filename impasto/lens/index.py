"""The index of a scan: per unit its strongest patches and its statistics, with no pixels in it; docs/lens.md has the format.

Patches are in a total order: by falling value, then by picture, y, x. Counts are integers. So the indices of parts merge to the
bytes of one scan of all pictures, however they were divided.
"""

import hashlib
import heapq
import json
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import accumulate, count, islice, repeat
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic import Field as Bounds

from impasto.errors import BadInput, BadRecipe
from impasto.files import make_folder, open_file, reason, sha256, write_whole
from impasto.lens.collection import Row, row_from_json, row_to_json
from impasto.lens.module import AnyNet, layers_of, weights_of
from impasto.lens.view import FITS
from impasto.nets.geometry import Field
from impasto.nets.nets import canonical
from impasto.weights import digest

FORMAT = 2
INDEX, MANIFEST = "index.safetensors", "manifest.jsonl"
# Eight bins an octave: a quantile is known to 9 %. The first bin holds 0 and below, the last what is above the last edge.
EDGES = np.concatenate([[0.0], 2 ** (np.arange(-12 * 8, 16 * 8 + 1) / 8)]).astype(np.float32)

Array = NDArray[Any]


@dataclass(frozen=True)
class Layer:
    """A scanned layer: its number of units and its receptive field (None if unknown)."""

    units: int
    field: Field | None


@dataclass(frozen=True)
class Setup:
    """All that an index depends on except the pictures. Indices with equal setups can be merged."""

    net: str
    weights: str
    input: dict[str, Any]
    layers: dict[str, Layer]
    k: int
    per_image: int
    size: int
    fit: str


@dataclass
class Ranking:
    """The k strongest patches of C units: `value` (C, k), falling; `where` (C, k, 3) is picture, y, x. Empty entries: -inf, -1."""

    value: Array
    where: Array


@dataclass
class Units:
    """Rankings and counts of the C units of a layer, or of all layers.

    `everywhere` ranks all positions, `interior` those whose fields contain no padding. Counts (C,): `fired`, pictures in which the
    maximum is above 0; `padded`, those of them whose maximum has padding in its field. `bins` (C, len(EDGES) + 1) is the histogram
    of the maximum in a picture. `first` is the row of unit 0 among the units of all layers.
    """

    first: int
    everywhere: Ranking
    interior: Ranking
    fired: Array
    padded: Array
    bins: Array


@dataclass
class Index:
    """The result of a scan of `pictures` pictures. Its manifest has `rows` rows, which include skipped pictures."""

    setup: Setup
    rows: int
    pictures: int
    units: Units  # of all layers
    layers: dict[str, Units]  # views of them
    rankings: Ranking  # everywhere, then interior of `units`, which are views of it: one sort adds a picture to both


def make_setup(
    net: AnyNet, layers: Sequence[str] = (), k: int = 9, per_image: int = 1, size: int = 224, fit: str = "center"
) -> Setup:
    """The setup of a scan of these layers, by default of all convolutions. Raises BadRecipe for an unknown layer or fit."""
    if fit not in FITS:
        raise BadRecipe(f"fit is {fit!r}, must be one of {', '.join(FITS)}")
    found = {name: Layer(*it) for name, it in layers_of(net, layers).items()}
    return Setup(net.name, digest(weights_of(net)), json.loads(json.dumps(asdict(net.input))), found, k, per_image, size, fit)


def check_net(setup: Setup, net: AnyNet) -> None:
    """Raise BadRecipe for a net or weights other than those of the scan."""
    own = make_setup(net, [next(iter(setup.layers))])
    if changed := [name for name in ("net", "weights", "input") if getattr(own, name) != getattr(setup, name)]:
        raise BadRecipe(f"the scan was made with another {' and '.join(changed)}: give the same weights")


def empty_index(setup: Setup) -> Index:
    """An index without pictures."""
    count = sum(layer.units for layer in setup.layers.values())
    rankings = Ranking(np.full((2 * count, setup.k), -np.inf, np.float32), np.full((2 * count, setup.k, 3), -1, np.int32))
    counts = (np.zeros((count, *shape), np.int32) for shape in ((), (), (len(EDGES) + 1,)))
    units = Units(0, _part(rankings, 0, count), _part(rankings, count, count), *counts)
    firsts = accumulate((layer.units for layer in setup.layers.values()), initial=0)
    parts = zip(setup.layers.items(), firsts, strict=False)
    layers = {name: _units_at(units, first, layer.units) for (name, layer), first in parts}
    return Index(setup, 0, 0, units, layers, rankings)


def _part(ranking: Ranking, first: int, count: int) -> Ranking:
    """A view of some rows."""
    return Ranking(*(array[first : first + count] for array in (ranking.value, ranking.where)))


def _units_at(units: Units, first: int, count: int) -> Units:
    """A view of some units."""
    counts = (array[first : first + count] for array in (units.fired, units.padded, units.bins))
    return Units(first, _part(units.everywhere, first, count), _part(units.interior, first, count), *counts)


def ranked(value: Array, where: Array, k: int) -> tuple[Array, Array]:
    """The first k of (C, n) values and (C, n, 3) positions in the total order (-value, picture, y, x)."""
    order = np.lexsort((where[..., 2], where[..., 1], where[..., 0], -value))[:, :k]
    return np.take_along_axis(value, order, 1), np.take_along_axis(where, order[..., None], 1)


def find_layer(index: Index, layer: str) -> str:
    """The layer's name in the index. Raises BadRecipe, which lists the scanned layers."""
    name = layer if layer in index.layers else canonical(layer)
    if name not in index.layers:
        raise BadRecipe(f"layer {layer!r} was not scanned, these were: {', '.join(index.layers)}")
    return name


def check_unit(index: Index, layer: str, unit: int) -> None:
    """Raise BadRecipe for a unit that the layer does not have."""
    units = index.setup.layers[layer].units
    if not 0 <= unit < units:
        raise BadRecipe(f"unit is {unit}, {layer} has the units 0 to {units - 1}")


def quantile(index: Index, layer: str, share: float) -> Array:
    """(C,): the quantile of each unit's maximum in a picture; at most 9 % too high."""
    units = index.layers[layer]
    reached = units.bins.cumsum(1) >= share * index.pictures
    upper: Array = np.append(EDGES, np.inf)[reached.argmax(1)]
    return np.minimum(upper, units.everywhere.value[:, 0])


def choose_units(text: str, count: int, seed: str) -> list[int]:
    """Units of `count`: a number of them, drawn by `seed`; "all"; or a list like "3,17" ("17," for one). Raises BadRecipe."""
    text = text.replace(" ", "")
    if text == "all":
        return list(range(count))
    if text.isdecimal() and int(text):
        return sorted(random.Random(seed).sample(range(count), min(int(text), count)))
    parts = text.split(",")
    if len(parts) > 1 and all(part.isdecimal() and int(part) < count for part in parts if part) and any(parts):
        return [int(part) for part in parts if part]
    raise BadRecipe(f"units is {text!r}, must be a number of units, all, or a list like 3,17 of units 0 to {count - 1}")


def layer_statistics(index: Index) -> list[dict[str, Any]]:
    """For each layer: the number of units, of `dead` ones that never fire; `fires`, the share of units and pictures with a value
    above 0; `sees_padding`, the share of these whose maximum has padding in its field, None if unknown.
    """
    rows = []
    for name, layer in index.layers.items():
        fired, maxima = int(layer.fired.sum()), layer.fired.size * index.pictures
        counts = {"layer": name, "units": len(layer.fired), "dead": int((layer.fired == 0).sum())}
        padded = int(layer.padded.sum()) / max(1, fired) if index.setup.layers[name].field else None
        rows.append(counts | {"fires": fired / max(1, maxima), "sees_padding": padded})
    return rows


def unit_statistics(index: Index, name: str) -> list[dict[str, Any]]:
    """For each unit of a layer: the share of pictures in which it `fires`; the share of these whose maximum has padding in its
    field (`sees_padding`, if the field is known); quantiles of the maximum in a picture, and the `largest`.
    """
    layer = index.layers[name]
    columns = {"fires": layer.fired / max(1, index.pictures)}
    if index.setup.layers[name].field:
        columns["sees_padding"] = layer.padded / np.maximum(1, layer.fired)
    columns |= {f"q{round(100 * share)}": quantile(index, name, share) for share in (0.5, 0.9, 0.99)}
    columns["largest"] = layer.everywhere.value[:, 0]
    return [{"unit": n} | {key: float(column[n]) for key, column in columns.items()} for n in range(len(layer.fired))]


# On disk


def write_index(path: Path, index: Index, manifest: str, length: int) -> None:
    """Write the index; `manifest` is the SHA-256 of the first `length` bytes of its manifest."""
    tensors = {f"{layer}/{name}": tensor for layer, units in index.layers.items() for name, tensor in _tensors(units).items()}
    about = {"format": FORMAT, "setup": _setup_to_json(index.setup), "rows": index.rows, "pictures": index.pictures}
    about |= {"manifest": manifest, "length": length}
    about["sha256"] = _checksum(about, tensors)
    metadata = {"impasto": json.dumps(about, sort_keys=True)}  # one entry: safetensors writes several in any order
    write_whole(path, lambda file: file.write(safetensors.numpy.save(tensors, metadata)))


def _checksum(about: dict[str, Any], tensors: dict[str, Array]) -> str:
    """The SHA-256 of an index's metadata and tensors."""
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        found.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
    return found.hexdigest()


def _tensors(units: Units) -> dict[str, Array]:
    rankings = {"everywhere": units.everywhere, "interior": units.interior}
    tensors = {f"{name}/{kind}": getattr(ranking, kind) for name, ranking in rankings.items() for kind in ("value", "where")}
    return tensors | {"fired": units.fired, "padded": units.padded, "bins": units.bins}


def _setup_to_json(setup: Setup) -> dict[str, Any]:
    layers = [
        {"name": name, "units": layer.units} | (asdict(layer.field) if layer.field else {}) for name, layer in setup.layers.items()
    ]
    return asdict(setup) | {"layers": layers}


Count = Annotated[int, Bounds(ge=0, lt=2**31)]
Some = Annotated[int, Bounds(ge=1, lt=2**31)]
Hash = Annotated[str, Bounds(pattern="^[0-9a-f]{64}$")]


class _Json(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _LayerJson(_Json):
    name: str
    units: Some
    size: Some | None = None
    stride: Some | None = None
    padding: Count | None = None

    def layer(self) -> Layer:
        known = self.size is not None and self.stride is not None and self.padding is not None
        return Layer(self.units, Field(self.size, self.stride, self.padding) if known else None)  # type: ignore[arg-type]


class _SetupJson(_Json):
    net: str
    weights: Hash
    input: dict[str, Any]
    layers: Annotated[list[_LayerJson], Bounds(min_length=1)]
    k: Some
    per_image: Some
    size: Some
    fit: str


class _IndexJson(_Json):
    """The metadata of an index."""

    format: Literal[2]
    setup: _SetupJson
    rows: Count
    pictures: Count
    manifest: Hash
    length: Annotated[int, Bounds(ge=0)]


def _filled(read: _IndexJson, tensors: dict[str, Array]) -> Index:
    """The index of metadata and tensors. Raises ValueError, KeyError where they do not match."""
    known = {it.name: it.layer() for it in read.setup.layers}
    if read.setup.fit not in FITS or len(known) < len(read.setup.layers):
        raise ValueError(f"its fit is {read.setup.fit!r}, or a layer is there twice")
    setup = Setup(**(dict(read.setup) | {"layers": known}))
    if sum(layer.units for layer in setup.layers.values()) * setup.k > sum(map(np.size, tensors.values())):
        raise ValueError("it declares more units than it has")  # before memory for them is allocated
    index = empty_index(setup)
    index.rows, index.pictures = read.rows, read.pictures
    for name, units in index.layers.items():
        for kind, array in _tensors(units).items():
            tensor = tensors[f"{name}/{kind}"]
            if tensor.shape != array.shape or tensor.dtype != array.dtype:
                raise ValueError(f"{name}/{kind} is {tensor.dtype} {tensor.shape}, must be {array.dtype} {array.shape}")
            array[...] = tensor
    found, counts = index.rankings, (index.units.fired, index.units.padded, index.units.bins)
    is_within = found.where.min() >= -1 and found.where[..., 0].max() < index.rows and index.pictures <= index.rows
    if np.isnan(found.value).any() or not is_within or any(it.min() < 0 or it.max() > index.pictures for it in counts):
        raise ValueError("it has values or pictures out of range")
    return index


def read_index(folder: Path) -> Index:
    """The finished index in an atlas. Raises BadInput where there is none, or it or its manifest is damaged."""
    path = folder / INDEX
    if not path.is_file():
        raise BadInput(f"there is no finished scan in {folder}: impasto lens scan PICTURES -o {folder} makes one")
    index, about = read_index_file(path)
    if not (folder / MANIFEST).is_file() or sha256(folder / MANIFEST) != about["manifest"]:
        raise BadInput(f"{folder / MANIFEST} is not the manifest of {path}: scan again")
    return index


def read_index_file(path: Path) -> tuple[Index, dict[str, Any]]:
    """An index, finished or a checkpoint, and its metadata. Raises BadInput."""
    try:
        with safetensors.safe_open(path, "np") as opened:
            about = json.loads((opened.metadata() or {})["impasto"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise ValueError(f"its format must be {FORMAT}: scan again")
        if about.pop("sha256") != _checksum(about, tensors):
            raise ValueError("its checksum is wrong")
        index = _filled(_IndexJson.model_validate(about), tensors)
    except ValidationError as error:
        raise BadInput(f"{path} cannot be read as the index of a scan: {_first(error)}") from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        raise BadInput(f"{path} cannot be read as the index of a scan: {reason(error)}") from error
    return index, about


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def read_rows(manifest: Path) -> Iterator[Row]:
    """The manifest's rows, one at a time, without its header. Raises BadInput."""
    try:
        with open_file(manifest) as file:
            for line in islice(file, 1, None):
                yield row_from_json(json.loads(line))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = _first(error) if isinstance(error, ValidationError) else reason(error)
        raise BadInput(f"{manifest} cannot be read as the manifest of a scan: {why}") from error


def rows_at(folder: Path, numbers: Sequence[int]) -> dict[int, Row]:
    """{number: row} of these rows of the manifest. Raises BadInput."""
    wanted = set(numbers)
    rows = islice(read_rows(folder / MANIFEST), max(wanted, default=-1) + 1)
    found = {number: row for number, row in enumerate(rows) if number in wanted}
    if len(found) < len(wanted):
        raise BadInput(f"{folder / MANIFEST} has fewer rows than its index: scan again")
    return found


def _line(it: dict[str, Any]) -> bytes:
    """An object as a line of the manifest."""
    return json.dumps(it, sort_keys=True).encode() + b"\n"


def _head(setup: Setup) -> bytes:
    """The manifest's first line."""
    return _line({"format": FORMAT, "setup": _setup_to_json(setup)})


def check_same(setup: Setup, other: Setup, path: Path) -> None:
    """Raise BadRecipe, which names the differences, if the scan in `path` has another setup."""
    if changed := [f.name for f in fields(Setup) if getattr(setup, f.name) != getattr(other, f.name)]:
        raise BadRecipe(f"{path} is a scan with other {', '.join(changed)}: repeat the options, or choose another folder with -o")


# Merging


def merge(folders: Sequence[Path], output: Path) -> Index:
    """Merge scans into `output`, byte for byte the index of one scan of all their pictures.

    Raises BadRecipe for scans of different setups and for an output that is one of them, BadInput for a picture in two of them.
    """
    if output.resolve() in {folder.resolve() for folder in folders}:
        raise BadRecipe(f"{output} is one of the scans that are merged: choose another folder with -o")
    indices = [read_index(folder) for folder in folders]
    for folder, index in zip(folders[1:], indices[1:], strict=True):
        check_same(indices[0].setup, index.setup, folder)
    make_folder(output)
    numbers = _merge_manifests(indices[0].setup, folders, output / MANIFEST)
    merged = empty_index(indices[0].setup)
    merged.rows, merged.pictures = sum(index.rows for index in indices), sum(index.pictures for index in indices)
    _merge_rankings(merged.rankings, [index.rankings for index in indices], numbers)
    for name in ("fired", "padded", "bins"):
        getattr(merged.units, name)[...] = sum(getattr(index.units, name) for index in indices)
    write_index(output / INDEX, merged, sha256(output / MANIFEST), (output / MANIFEST).stat().st_size)
    return merged


def _merge_manifests(setup: Setup, folders: Sequence[Path], output: Path) -> list[Array]:
    """Write the rows of all manifests in order; returns for each manifest the new number of every row, and -1 for row -1."""
    numbers: list[list[int]] = [[] for _ in folders]

    def write(file: IO[bytes]) -> None:
        number, last = count(), None
        file.write(_head(setup))
        streams = [zip(read_rows(folder / MANIFEST), repeat(n)) for n, folder in enumerate(folders)]
        for row, n in heapq.merge(*streams, key=lambda it: it[0].key):
            if row.key == last:
                raise BadInput(f"{row.source.name} is in two of the scans: a picture may be in one only")
            last = row.key
            numbers[n].append(next(number))
            file.write(_line(row_to_json(row)))

    write_whole(output, write)
    return [np.array([*found, -1], np.int32) for found in numbers]


def _merge_rankings(merged: Ranking, parts: Sequence[Ranking], numbers: Sequence[Array]) -> None:
    where = [np.dstack([new[part.where[..., 0]], part.where[..., 1:]]) for part, new in zip(parts, numbers, strict=True)]
    value = np.concatenate([part.value for part in parts], 1)
    merged.value[...], merged.where[...] = ranked(value, np.concatenate(where, 1), merged.value.shape[1])


class Manifest:
    """The manifest of an unfinished scan, with the SHA-256 and the length of its bytes so far."""

    def __init__(self, path: Path, setup: Setup, length: int = 0) -> None:
        """Begin, or continue after the first `length` bytes; the rest is truncated."""
        self.file = open(path, "r+b" if length else "w+b")  # noqa: SIM115 - closed with the scan
        self.sha256 = hashlib.sha256(self.file.read(length))
        self.file.truncate()
        self.length = length
        if not length:
            self._write(_head(setup))

    def add(self, row: Row) -> None:
        """Write a row."""
        self._write(_line(row_to_json(row)))

    def sync(self) -> None:
        """Flush all rows to the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def _write(self, line: bytes) -> None:
        self.file.write(line)
        self.sha256.update(line)
        self.length += len(line)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def prefix_sha256(path: Path, length: int) -> str:
    """The SHA-256 of the first `length` bytes of a file, in hex; of fewer where it is shorter or missing."""
    found = hashlib.sha256()
    if path.is_file():
        with open(path, "rb") as file:
            while length > 0 and (part := file.read(min(length, 2**20))):
                found.update(part)
                length -= len(part)
    return found.hexdigest()
