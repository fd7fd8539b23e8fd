"""A descent on disk: written whole, two generations, checked by SHA-256; read back it continues to the same bytes."""

import contextlib
import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from impasto.descent import State
from impasto.errors import BadInput, ImpastoWarning
from impasto.files import write_whole

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
    metadata = {"i": str(state.i), "costs": json.dumps(state.costs), "run": json.dumps(run, sort_keys=True)}
    data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)
    if path.exists():
        path.replace(previous(path))
    write_whole(path, lambda file: file.writelines((MAGIC, hashlib.sha256(data).digest(), data)))


def load_checkpoint(path: Path, identity: dict[str, Any]) -> tuple[State, dict[str, Any]] | None:
    """The state and run of the newest generation that is whole and whose run agrees with `identity`; None where there is none.

    A damaged one, or one of another painting, is said in a warning and not used.
    """
    for candidate in (path, previous(path)):
        try:
            run, state = _read(candidate)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, BadInput) as error:
            warnings.warn(f"the checkpoint {candidate} is damaged and not used ({error})", ImpastoWarning, stacklevel=2)
            continue
        changed = [name for name in identity if run.get(name) != identity[name]]
        if not changed:
            return state, run
        said = f"the checkpoint {candidate} is of another painting ({', '.join(changed)} differ) and not used"
        warnings.warn(said, ImpastoWarning, stacklevel=2)
    return None


def remove_checkpoint(path: Path) -> None:
    """Both generations."""
    for candidate in (path, previous(path)):
        with contextlib.suppress(FileNotFoundError):
            candidate.unlink()


def _read(path: Path) -> tuple[dict[str, Any], State]:
    whole = path.read_bytes()
    data = whole[len(MAGIC) + 32 :]
    if whole[: len(MAGIC)] != MAGIC or whole[len(MAGIC) :][:32] != hashlib.sha256(data).digest():
        raise BadInput("its checksum is wrong")
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    tensors = safetensors.torch.load(data)
    memory: dict[str, tuple[Any, ...]] = {}
    for key in sorted((k for k in tensors if "." in k), key=lambda k: int(k.split(".")[1])):
        name = key.split(".")[0]
        memory[name] = (*memory.get(name, ()), tensors[key])
    state = State(tensors["x"], tensors["gradient"], json.loads(header["costs"]), int(header["i"]), memory)
    return json.loads(header["run"]), state
