"""Files of JSON beside the index of a scan, with what was measured of its units: clarity, words. They belong to one index."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from impasto.errors import BadInput
from impasto.files import read_whole, sha256
from impasto.lens.index import INDEX

MOST_BYTES = 100_000_000


class OfIndex(BaseModel):
    """Such a file: the SHA-256 of the index that it belongs to."""

    model_config = ConfigDict(strict=True, extra="forbid")

    index: str


Kind = TypeVar("Kind", bound=OfIndex)


def read_beside(folder: Path, name: str, kind: type[Kind], command: str) -> Kind | None:
    """The file, checked; None where there is none, or one of another index.

    Raises BadInput for a damaged file, which `impasto lens COMMAND` makes again.
    """
    path = folder / name
    if not path.is_file():
        return None
    try:
        read = kind.model_validate_json(read_whole(path, MOST_BYTES))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {_again(command)}") from error
    return read if read.index == sha256(folder / INDEX) else None


def another_number(path: Path, layer: str, command: str) -> str:
    """What is wrong with a file that has not one entry for each unit of the layer."""
    return f"{path} has another number of units than {layer}: {_again(command)}"


def _again(command: str) -> str:
    return f"delete it, impasto lens {command} makes it again"
