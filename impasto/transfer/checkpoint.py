"""The state of a descent in a file, from which it continues to the same bytes: written whole, with its SHA-256, two generations.

Tensors that are on disk already are not written again: their files get a second name (a hard link) that contains their SHA-256, by
which both generations refer to them.
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
    """The part of a run's record that is read; the rest is only compared."""

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
    """The position of a tensor in the file."""

    dtype: Literal["F32"]
    shape: Shape
    data_offsets: tuple[NonNegativeInt, NonNegativeInt]


def checkpoint_path(output: Path) -> Path:
    """Beside the painting: out.png -> out.png.checkpoint."""
    return output.with_name(output.name + ".checkpoint")


def previous(path: Path) -> Path:
    """The path of the generation before this one."""
    return path.with_name(path.name + ".old")


def disk_folder(path: Path) -> Path:
    """The folder for the tensor files of a painting larger than memory: out.png.checkpoint -> out.png.disk."""
    return path.with_suffix(".disk")


def clear_folder(path: Path) -> None:
    """Remove files from the disk_folder that no generation of the checkpoint refers to, such as those of a killed process."""
    _remove_unused(path, "*")


def on_disk(state: State, folder: Path) -> State:
    """The state with every tensor of the shape of x in a file of the folder."""

    def put(it: Tensor) -> Tensor:
        return to_disk(it, folder) if it.shape == state.x.shape else it

    memory = {name: tuple(map(put, kept)) for name, kept in state.memory.items()}
    return replace(state, x=put(state.x), gradient=put(state.gradient), memory=memory)


def save_checkpoint(path: Path, state: State, run: dict[str, Any]) -> None:
    """Save the state and `run`, everything that it depends on: recipe, input hashes, versions. Keeps the previous generation."""
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
        _remove_unused(path, f"*{HELD}")


def _hold(file: Path) -> str:
    """The second name of a tensor's file, made if it has none; its contents are flushed to disk."""
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
    """Hard-link a file; on a file system without hard links, such as exFAT, copy it and then rename the copy."""
    try:
        os.link(file, name)
    except OSError as error:
        if error.errno in FULL:
            raise
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            Path(shutil.copyfile(file, Path(folder) / "copy")).rename(name)


def _remove_unused(path: Path, which: str) -> None:
    """Remove the files that neither generation refers to."""
    held = _held_by(path) | _held_by(previous(path))
    for file in disk_folder(path).glob(which):
        if file.name not in held:
            file.unlink(missing_ok=True)


def _held_by(path: Path) -> set[str]:
    """The names of the files that a checkpoint refers to; none if it is missing or damaged."""
    try:
        _, metadata, _ = _opened(path)
        return {name for name, _ in metadata.files.values()}
    except (OSError, ValueError, BadInput):
        return set()


def _safetensors(tensors: dict[str, Tensor], metadata: dict[str, str]) -> list[bytes | memoryview]:
    """A safetensors file in parts, float32, without copying the tensors: a state can take half of the memory."""
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
    """The state and run of the newest undamaged generation whose run agrees with `identity`; None if there is none.

    The file is not trusted: if it is damaged, or `check` raises ValueError, a warning says so and it is not used. Raises BadRecipe
    for the checkpoint of another painting, which would be lost.
    """
    for candidate in (path, previous(path)):
        try:
            run, state = _read(candidate)
            if changed := _changed(run, identity, state.i):
                message = f"the checkpoint {candidate} was made with other settings ({changed} differ)"
                raise BadRecipe(f"{message}: repeat the same options, name another output with -o, or remove it")
            check(state, run)
            return state, run
        except FileNotFoundError:
            continue
        except (OSError, ValueError, BadInput) as error:
            why = "its fields are not a checkpoint's" if isinstance(error, ValidationError) else reason(error)
            warnings.warn(f"the checkpoint {candidate} is damaged and not used ({why})", ImpastoWarning, stacklevel=2)
    return None


def _changed(run: dict[str, Any], identity: dict[str, Any], i: int) -> str:
    """The names of the entries in which `run` and `identity` differ; for the recipe its knobs, without changes from step i on."""
    ours, theirs = (_up_to(it.get("recipe", {}), i) for it in (identity, run))
    names = [name for name in identity if name != "recipe" and run.get(name) != identity[name]]
    return ", ".join([*names, *(knob for knob in ours if theirs.get(knob) != ours[knob])])


def _up_to(recipe: dict[str, Any], i: int) -> dict[str, Any]:
    """The part of a recipe that the state after step i depends on."""
    return {**recipe, "changes": {str(step): knobs for step, knobs in recipe.get("changes", {}).items() if int(step) < i}}


def remove_checkpoint(path: Path) -> None:
    """Both generations, and the files that belong to them."""
    for candidate in (path, previous(path)):
        with contextlib.suppress(OSError):  # one that cannot be removed is harmless: it is never used for another painting
            candidate.unlink()
    shutil.rmtree(disk_folder(path), ignore_errors=True)


def _opened(path: Path) -> tuple[dict[str, _Lying], _Metadata, memoryview]:
    """The positions of a checkpoint's tensors, its metadata and its data. Raises BadInput, ValueError, OSError if it is damaged."""
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
    """A tensor in a file that the checkpoint refers to. Raises BadInput if the file has changed, or is not one of ours."""
    folder = disk_folder(path.with_suffix("") if path.suffix == ".old" else path)
    file = folder / Path(name).name
    if not file.is_file() or not name.endswith(f"-{sha256(file)}{HELD}") or file.stat().st_size != 4 * prod(shape):
        raise BadInput(f"{file} has changed or is gone")
    return mapped(file, shape)
