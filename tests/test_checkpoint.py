"""Checkpoints: the same state back, an older one when the newest is damaged, none of another painting."""

from dataclasses import replace

import pytest
import torch

from impasto.errors import BadRecipe, ImpastoWarning
from impasto.transfer.checkpoint import checkpoint_path, load_checkpoint, previous, remove_checkpoint, save_checkpoint
from impasto.transfer.descent import State
from tests.conftest import picture

RUN = {
    "recipe": {"size": 64},
    "inputs": {"content": "ab"},
    "versions": {"torch": "2"},
    "place": {"device": "cpu"},
    "threads": 2,
    "plans": [{"tiling": None, "history": 10}],
}
IDENTITY = {"recipe": RUN["recipe"], "inputs": RUN["inputs"]}


def state(i: int) -> State:
    """A state with more than ten kept steps, so that their order matters."""
    kept = tuple(picture(5, 6, 100 * i + n) for n in range(12))
    return State(picture(5, 6, i), picture(5, 6, i + 50), {"total": 0.1 * i}, i, {"s": kept, "y": tuple(2 * a for a in kept)})


def same(a: State, b: State) -> bool:
    tensors = [
        (a.x, b.x),
        (a.gradient, b.gradient),
        *((p, q) for k in a.memory for p, q in zip(a.memory[k], b.memory[k], strict=True)),
    ]
    return a.i == b.i and a.costs == b.costs and a.memory.keys() == b.memory.keys() and all(torch.equal(p, q) for p, q in tensors)


@pytest.fixture
def path(tmp_path):
    return checkpoint_path(tmp_path / "out.png")


def test_a_state_comes_back_to_the_bit(path):
    save_checkpoint(path, state(3), RUN)
    loaded, run = load_checkpoint(path, IDENTITY)
    assert same(loaded, state(3)) and run == RUN and path.name == "out.png.checkpoint"


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "text", "missing"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(path, damage):
    save_checkpoint(path, state(3), RUN)
    save_checkpoint(path, state(4), RUN)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    if damage == "missing":
        path.unlink()
        loaded, _ = load_checkpoint(path, IDENTITY)
    else:
        path.write_bytes({"flip": bytes(data), "truncate": bytes(data[: len(data) // 2]), "empty": b"", "text": b"hello"}[damage])
        with pytest.warns(ImpastoWarning, match="damaged"):
            loaded, _ = load_checkpoint(path, IDENTITY)
    assert same(loaded, state(3))


def test_a_checkpoint_of_another_painting_is_not_used(path):
    save_checkpoint(path, state(3), RUN)
    with pytest.raises(BadRecipe, match=r"other settings \(size differ\)"):
        load_checkpoint(path, IDENTITY | {"recipe": {"size": 65}})
    with pytest.raises(BadRecipe, match=r"other settings \(inputs differ\)"):
        load_checkpoint(path, IDENTITY | {"inputs": {}})


def test_numbers_that_are_not_finite_give_way_to_the_generation_before(path):
    save_checkpoint(path, state(3), RUN)
    save_checkpoint(path, replace(state(4), x=torch.full((1, 3, 5, 6), float("nan"))), RUN)
    with pytest.warns(ImpastoWarning, match="not finite"):
        loaded, _ = load_checkpoint(path, IDENTITY)
    assert same(loaded, state(3))
    remove_checkpoint(path)
    save_checkpoint(path, replace(state(4), costs={"total": float("nan")}), RUN)
    with pytest.warns(ImpastoWarning, match="are not a checkpoint's"):
        assert load_checkpoint(path, IDENTITY) is None


def test_no_checkpoint_is_none(path):
    assert load_checkpoint(path, IDENTITY) is None


def test_both_generations_go(path):
    save_checkpoint(path, state(3), RUN)
    save_checkpoint(path, state(4), RUN)
    assert path.exists() and previous(path).exists()
    remove_checkpoint(path)
    assert not list(path.parent.iterdir())
    remove_checkpoint(path)
