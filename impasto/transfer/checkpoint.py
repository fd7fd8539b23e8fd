"""A descent on disk: written whole, two generations, checked by SHA-256; read back it continues to the same bytes.

Tensors that lie in files already are not written again: their files are given a second name that tells their SHA-256, under which
both generations hold them.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from math import prod
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, Json, NonNegativeInt, TypeAdapter, ValidationError
from torch import Tensor

from impasto.disk import file_of, mapped, to_disk
from impasto.errors import BadInput, BadRecipe, ImpastoWarning
from impasto.files import FULL, cannot_write, open_file, reason, sha256, write_whole
from impasto.transfer.descent import State

MAGIC = b"impasto checkpoint 1\n"
HELD = ".held"
MAX_THREADS = 4096
Shape = Annotated[tuple[NonNegativeInt, ...], Field(max_length=8)]
Held = Annotated[tuple[str, Shape], BeforeValidator(lambda it: (*it[:1], it[1:]) if isinstance(it, list) else it)]  # [name, *shape]


class _Recipe(BaseModel):
    model_config = ConfigDict(extra="allow")

    changes: dict[int, dict[str, Any]] = {}


class _Run(BaseModel):
    """What is read of what a state depends on; the rest is only compared."""

    model_config = ConfigDict(extra="allow")

    recipe: _Recipe
    versions: dict[str, str]
    place: dict[str, Any]
    threads: Annotated[int, Field(ge=1, le=MAX_THREADS)]
    plans: list[dict[str, Any]]


class _Metadata(BaseModel):
    i: NonNegativeInt
    cut: Literal["0", "1"]
    costs: Json[dict[str, FiniteFloat]]
    run: Json[dict[str, Any]]
    files: Json[dict[str, Held]] = {}


class _Lying(BaseModel):
    """Where in the file a tensor lies."""

    dtype: Literal["F32"]
    shape: Shape
    data_offsets: tuple[NonNegativeInt, NonNegativeInt]


def checkpoint_path(output: Path) -> Path:
    """Beside the painting: out.png -> out.png.checkpoint."""
    return output.with_name(output.name + ".checkpoint")


def previous(path: Path) -> Path:
    """Where the generation before this one is kept."""
    return path.with_name(path.name + ".old")


def disk_folder(path: Path) -> Path:
    """Where the files of a painting larger than memory are, by the checkpoint's path: out.png.checkpoint -> out.png.disk."""
    return path.with_suffix(".disk")


def clear_folder(path: Path) -> None:
    """Remove from the disk_folder what no generation of the checkpoint holds, as what a killed process left."""
    _let_go(path, "*")


def on_disk(state: State, folder: Path) -> State:
    """The state with all that is as large as x in files of the folder."""

    def put(it: Tensor) -> Tensor:
        return to_disk(it, folder) if it.shape == state.x.shape else it

    memory = {name: tuple(map(put, kept)) for name, kept in state.memory.items()}
    return replace(state, x=put(state.x), gradient=put(state.gradient), memory=memory)


def save_checkpoint(path: Path, state: State, run: dict[str, Any]) -> None:
    """Save the state, and in `run` what it depends on: recipe, input hashes, versions. The last one becomes the previous one."""
    tensors = {"x": state.x, "gradient": state.gradient}
    tensors |= {f"{name}.{n}": tensor for name, kept in state.memory.items() for n, tensor in enumerate(kept)}
    in_files = {name: file for name, tensor in tensors.items() if (file := file_of(tensor))}
    try:
        held = {name: [_hold(file), *tensors[name].shape] for name, file in in_files.items()}
    except OSError as error:
        raise cannot_write(path, error) from error
    metadata = {
        "i": str(state.i),
        "cut": str(int(state.truncated)),
        "costs": json.dumps(state.costs),
        "run": json.dumps(run, sort_keys=True),
    }
    metadata |= {"files": json.dumps(held)} if held else {}
    parts = _safetensors({name: tensor.cpu().contiguous() for name, tensor in tensors.items() if name not in held}, metadata)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    try:
        if path.exists():
            path.replace(previous(path))
    except OSError as error:
        raise cannot_write(path, error) from error
    write_whole(path, lambda file: file.writelines((MAGIC, digest.digest(), *parts)))
    if held:
        _let_go(path, f"*{HELD}")


def _hold(file: Path) -> str:
    """The second name of a tensor's file, given to it unless it has one; what is in it is on the disk then."""
    if file.suffix == HELD:
        return file.name
    found = next(file.parent.glob(f"{file.stem}-*{HELD}"), None)
    if found is None:
        with open(file, "rb+") as opened:
            os.fsync(opened.fileno())
        found = file.with_name(f"{file.stem}-{sha256(file)}{HELD}")
        _give_name(file, found)
    return found.name


def _give_name(file: Path, name: Path) -> None:
    """A second name for a file; where the file system knows none, as exFAT, a copy, whole before it has the name."""
    try:
        os.link(file, name)
    except OSError as error:
        if error.errno in FULL:
            raise
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            Path(shutil.copyfile(file, Path(folder) / "copy")).rename(name)


def _let_go(path: Path, which: str) -> None:
    """Remove those of the files that neither generation holds."""
    held = _held_by(path) | _held_by(previous(path))
    for file in disk_folder(path).glob(which):
        if file.name not in held:
            file.unlink(missing_ok=True)


def _held_by(path: Path) -> set[str]:
    """The names of the files that belong to a checkpoint; none where there is none, or a damaged one."""
    try:
        _, metadata, _ = _opened(path)
        return {name for name, _ in metadata.files.values()}
    except (OSError, ValueError, BadInput):
        return set()


def _safetensors(tensors: dict[str, Tensor], metadata: dict[str, str]) -> list[bytes | memoryview]:
    """A safetensors file in parts, float32 and without a copy: a state can be half of the memory there is."""
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data: list[Any] = [tensor.reshape(-1).numpy().data.cast("B") for tensor in tensors.values()]
    return [len(text).to_bytes(8, "little"), text, *data]


def load_checkpoint(
    path: Path, identity: dict[str, Any], check: Callable[[State, dict[str, Any]], object] = lambda state, run: None
) -> tuple[State, dict[str, Any]] | None:
    """The state and run of the newest generation that is whole and whose run agrees with `identity`; None where there is none.

    It may come from anywhere: one that is damaged, or of which `check` raises ValueError, is not used, as a warning says. Raises
    BadRecipe for one of another painting, which would be lost.
    """
    for candidate in (path, previous(path)):
        try:
            run, state = _read(candidate)
            if changed := _changed(run, identity, state.i):
                said = f"{candidate} is of another painting ({changed} differ)"
                raise BadRecipe(f"{said}: give the same again, another -o, or remove it")
            check(state, run)
            return state, run
        except FileNotFoundError:
            continue
        except (OSError, ValueError, BadInput) as error:
            why = "its fields are not a checkpoint's" if isinstance(error, ValidationError) else reason(error)
            warnings.warn(f"the checkpoint {candidate} is damaged and not used ({why})", ImpastoWarning, stacklevel=2)
    return None


def _changed(run: dict[str, Any], identity: dict[str, Any], i: int) -> str:
    """What of `run` is not as in `identity`; knobs of the recipe by name, without what is changed from step i on."""
    ours, theirs = (_up_to(it.get("recipe", {}), i) for it in (identity, run))
    names = [name for name in identity if name != "recipe" and run.get(name) != identity[name]]
    return ", ".join([*names, *(knob for knob in ours if theirs.get(knob) != ours[knob])])


def _up_to(recipe: dict[str, Any], i: int) -> dict[str, Any]:
    """A recipe as far as the state after step i depends on it."""
    return {**recipe, "changes": {str(step): knobs for step, knobs in recipe.get("changes", {}).items() if int(step) < i}}


def remove_checkpoint(path: Path) -> None:
    """Both generations, and the files that belong to them."""
    for candidate in (path, previous(path)):
        with contextlib.suppress(OSError):  # a leftover that cannot go is harmless: it is known by its painting
            candidate.unlink()
    shutil.rmtree(disk_folder(path), ignore_errors=True)


def _opened(path: Path) -> tuple[dict[str, _Lying], _Metadata, memoryview]:
    """The tensors of a checkpoint, what is said of them, and their data. Raises BadInput, ValueError, OSError for a damaged one."""
    with open_file(path) as file:
        whole = bytearray(os.fstat(file.fileno()).st_size)
        file.readinto(whole)
    data = memoryview(whole)[len(MAGIC) + 32 :]
    if whole[: len(MAGIC)] != MAGIC or whole[len(MAGIC) :][:32] != hashlib.sha256(data).digest():
        raise BadInput("its checksum is wrong")
    begin = 8 + int.from_bytes(data[:8], "little")
    header = TypeAdapter(dict[str, dict[str, Any]]).validate_json(bytes(data[8:begin]))
    metadata = _Metadata.model_validate(header.pop("__metadata__", {}))
    return {name: _Lying.model_validate(it) for name, it in header.items()}, metadata, data[begin:]


def _read(path: Path) -> tuple[dict[str, Any], State]:
    lying, said, data = _opened(path)
    _Run.model_validate(said.run)
    tensors = {name: _mapped(path, *it) for name, it in said.files.items()} | {
        name: _tensor(data, it) for name, it in lying.items()
    }
    if not {"x", "gradient"} <= tensors.keys():
        raise BadInput("it has no picture")
    x, gradient = tensors.pop("x"), tensors.pop("gradient")
    memory: dict[str, tuple[Tensor, ...]] = {}
    for name, n in sorted((_numbered(name) for name in tensors), key=itemgetter(1)):
        memory[name] = (*memory.get(name, ()), tensors[f"{name}.{n}"])
    return said.run, State(x, gradient, said.costs, said.i, memory, said.cut == "1")


def _numbered(name: str) -> tuple[str, int]:
    """ "s.11" -> ("s", 11). Raises ValueError."""
    kind, _, n = name.partition(".")
    return kind, int(n)


def _tensor(data: memoryview, lying: _Lying) -> Tensor:
    begin, end = lying.data_offsets
    if not 4 * prod(lying.shape) == end - begin <= end <= len(data) or begin == end:
        raise BadInput("a tensor lies outside of it")
    found = torch.frombuffer(data[begin:end], dtype=torch.float32).view(lying.shape).clone()
    if not found.isfinite().all():
        raise BadInput("it has numbers that are not finite")
    return found


def _mapped(path: Path, name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor that the checkpoint holds. Raises BadInput where what is in its file has changed, or is not one of ours."""
    folder = disk_folder(path.with_suffix("") if path.suffix == ".old" else path)
    file = folder / Path(name).name
    if not file.is_file() or not name.endswith(f"-{sha256(file)}{HELD}") or file.stat().st_size != 4 * prod(shape):
        raise BadInput(f"{file} has changed or is gone")
    return mapped(file, shape)
