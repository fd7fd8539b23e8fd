"""A descent on disk: written whole, two generations, checked by SHA-256; read back it continues to the same bytes."""

import contextlib
import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from impasto.descent import State
from impasto.errors import BadInput, BadRecipe, ImpastoWarning
from impasto.files import cannot_write, write_whole

MAGIC = b"impasto checkpoint 1\n"


def checkpoint_path(output: Path) -> Path:
    """Beside the painting: out.png -> out.png.checkpoint."""
    return output.with_name(output.name + ".checkpoint")


def previous(path: Path) -> Path:
    """Where the generation before this one is kept."""
    return path.with_name(path.name + ".old")


def save_checkpoint(path: Path, state: State, run: dict[str, Any]) -> None:
    """Save the state, and in `run` what it depends on: recipe, input hashes, versions. The last one becomes the previous one."""
    tensors = {"x": state.x, "gradient": state.gradient}
    tensors |= {f"{name}.{n}": tensor for name, kept in state.memory.items() for n, tensor in enumerate(kept)}
    metadata = {
        "i": str(state.i),
        "cut": str(int(state.cut)),
        "costs": json.dumps(state.costs),
        "run": json.dumps(run, sort_keys=True),
    }
    parts = _safetensors({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    try:
        if path.exists():
            path.replace(previous(path))
    except OSError as error:
        raise cannot_write(path, error) from error
    write_whole(path, lambda file: file.writelines((MAGIC, digest.digest(), *parts)))


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
    """Both generations."""
    for candidate in (path, previous(path)):
        with contextlib.suppress(OSError):  # a leftover that cannot go is harmless: it is known by its painting
            candidate.unlink()


def _read(path: Path) -> tuple[dict[str, Any], State]:
    whole = bytearray(path.read_bytes())
    data = memoryview(whole)[len(MAGIC) + 32 :]
    if whole[: len(MAGIC)] != MAGIC or whole[len(MAGIC) :][:32] != hashlib.sha256(data).digest():
        raise BadInput("its checksum is wrong")
    begin = 8 + int.from_bytes(data[:8], "little")
    described = json.loads(bytes(data[8:begin]))
    header = described.pop("__metadata__")
    tensors = {}
    for name, it in described.items():
        first, last = (begin + offset for offset in it["data_offsets"])
        tensors[name] = torch.frombuffer(data[first:last], dtype=torch.float32).view(it["shape"]).clone()
    memory: dict[str, tuple[Any, ...]] = {}
    for key in sorted((k for k in tensors if "." in k), key=lambda k: int(k.split(".")[1])):
        name = key.split(".")[0]
        memory[name] = (*memory.get(name, ()), tensors[key])
    state = State(tensors["x"], tensors["gradient"], json.loads(header["costs"]), int(header["i"]), memory, header["cut"] == "1")
    return json.loads(header["run"]), state
