"""A descent on disk: written whole, two generations, checked by SHA-256; read back it continues to the same bytes.

Tensors that lie in files already are not written again: their files are given a second name that tells their SHA-256, under which
both generations hold them.
"""

import contextlib
import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from impasto.descent import State
from impasto.disk import file_of, mapped
from impasto.errors import BadInput, BadRecipe, ImpastoWarning
from impasto.files import cannot_write, sha256, write_whole

MAGIC = b"impasto checkpoint 1\n"
HELD = ".held"


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
        "cut": str(int(state.cut)),
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
        os.link(file, found)
    return found.name


def _let_go(path: Path, which: str) -> None:
    """Remove those of the files that neither generation holds."""
    held = _held_by(path) | _held_by(previous(path))
    for file in disk_folder(path).glob(which):
        if file.name not in held:
            file.unlink(missing_ok=True)


def _held_by(path: Path) -> set[str]:
    """The names of the files that belong to a checkpoint; none where there is none, or a damaged one."""
    try:
        header, _ = _opened(path)
        return {name for name, *_ in json.loads(header["__metadata__"].get("files", "{}")).values()}
    except (OSError, ValueError, KeyError, BadInput):
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


def load_checkpoint(path: Path, identity: dict[str, Any]) -> tuple[State, dict[str, Any]] | None:
    """The state and run of the newest generation that is whole and whose run agrees with `identity`; None where there is none.

    A damaged one is said in a warning and not used. Raises BadRecipe for one of another painting, which would be lost.
    """
    for candidate in (path, previous(path)):
        try:
            run, state = _read(candidate)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, BadInput) as error:
            warnings.warn(f"the checkpoint {candidate} is damaged and not used ({error})", ImpastoWarning, stacklevel=2)
            continue
        if changed := _changed(run, identity, state.i):
            raise BadRecipe(f"{candidate} is of another painting ({changed} differ): give the same again, another -o, or remove it")
        return state, run
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


def _opened(path: Path) -> tuple[dict[str, Any], memoryview]:
    """The header of a checkpoint and its data. Raises BadInput where the checksum is wrong."""
    whole = bytearray(path.read_bytes())
    data = memoryview(whole)[len(MAGIC) + 32 :]
    if whole[: len(MAGIC)] != MAGIC or whole[len(MAGIC) :][:32] != hashlib.sha256(data).digest():
        raise BadInput("its checksum is wrong")
    begin = 8 + int.from_bytes(data[:8], "little")
    return json.loads(bytes(data[8:begin])), data[begin:]


def _read(path: Path) -> tuple[dict[str, Any], State]:
    described, data = _opened(path)
    header = described.pop("__metadata__")
    tensors = {name: _mapped(path, *it) for name, it in json.loads(header.get("files", "{}")).items()}
    for name, it in described.items():
        first, last = it["data_offsets"]
        tensors[name] = torch.frombuffer(data[first:last], dtype=torch.float32).view(it["shape"]).clone()
    memory: dict[str, tuple[Any, ...]] = {}
    for key in sorted((k for k in tensors if "." in k), key=lambda k: int(k.split(".")[1])):
        name = key.split(".")[0]
        memory[name] = (*memory.get(name, ()), tensors[key])
    state = State(tensors["x"], tensors["gradient"], json.loads(header["costs"]), int(header["i"]), memory, header["cut"] == "1")
    return json.loads(header["run"]), state


def _mapped(path: Path, name: str, *shape: int) -> Tensor:
    """A tensor that the checkpoint holds. Raises BadInput where what is in its file has changed."""
    file = disk_folder(path.with_suffix("") if path.suffix == ".old" else path) / name
    if not file.is_file() or not name.endswith(f"-{sha256(file)}{HELD}"):
        raise BadInput(f"{file} has changed or is gone")
    return mapped(file, shape)
