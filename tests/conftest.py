import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st
from PIL import Image

from impasto.cli.app import main
from impasto.lens.module import AnyNet, visit
from impasto.nets.nets import INPUTS, ConvShape, Net, Pool, assemble
from impasto.transfer import painting
from impasto.weights import Loaded
from tests.forks import Forked

LONGEST = ("test_ray", "test_studio", "test_disk", "test_studio_attacks", "test_cli", "test_tiles", "test_painting", "test_video")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that no worker ends with one of them while the others wait."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


TINY = (
    ConvShape("conv1_1", 3, 4),
    ConvShape("conv1_2", 4, 5),
    Pool("pool1"),
    ConvShape("conv2_1", 5, 6),
    Pool("pool2"),
    ConvShape("conv3_1", 6, 7),
)


def tiny_net(padding: str = "zeros", dtype: torch.dtype = torch.float32, input: str = "torchvision") -> Net:
    """A net of four convolutions with seeded random weights, as deep as a test needs."""
    generator = torch.Generator().manual_seed(5)
    weights = {}
    for x in TINY:
        if isinstance(x, ConvShape):
            shape = (x.channels, x.channels_in, x.size, x.size)
            weights[f"{x.name}.weight"] = (torch.randn(shape, generator=generator) / (4.5 * x.channels_in) ** 0.5).to(dtype)
            weights[f"{x.name}.bias"] = (0.1 * torch.randn(x.channels, generator=generator)).to(dtype)
    return assemble("tiny", TINY, weights, INPUTS[input], padding)


def paint_with_the_tiny_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paintings are painted by the tiny net, whatever they ask for, with a checkpoint after every step."""
    net = tiny_net()
    monkeypatch.setattr(painting, "load_weights", lambda *_: Loaded({}, "torchvision", "tiny"))
    monkeypatch.setattr(painting, "make_net", lambda *_: net)
    monkeypatch.setattr(painting, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(painting, "CHECKPOINT_SHARE", 0)


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Smooth random colours: (1, 3, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 4, generator=generator)
    fine = torch.rand(1, 3, height, width, generator=generator)
    return 0.8 * torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear") + 0.2 * fine


def save(path: Path, image: torch.Tensor) -> Path:
    Image.fromarray((image[0] * 255).round().byte().permute(1, 2, 0).numpy()).save(path)
    return path


def damaged(data: st.DataObject, whole: bytes) -> bytes:
    """A file with up to six of its bytes changed."""
    found = bytearray(whole)
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(found) - 1), st.integers(0, 255)), max_size=6)):
        found[place] = value
    return bytes(found)


def maps(net: AnyNet, image: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
    """{layer: (1, C, h, w)}: the maps as they were when they were made."""
    found: dict[str, torch.Tensor] = {}
    visit(net, image, layers, lambda name, a: found.update({name: a.clone()}))
    return found


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: what a full disk looks like to whoever writes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def net() -> Net:
    return tiny_net()


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A content picture, a style picture and where the painting goes."""
    return save(tmp_path / "photo.png", picture(30, 40)), save(tmp_path / "style.png", picture(36, 28, 1)), tmp_path / "out.png"


@pytest.fixture
def no_holes(monkeypatch):
    """A tiny net's tiles leave no holes in memory that would count."""
    monkeypatch.setattr("impasto.transfer.memory_plan.HOLES", 0.0)


@pytest.fixture
def impasto(capsys, monkeypatch):
    """The command line, in this process, which has torch loaded already."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def run(*args: object) -> subprocess.CompletedProcess:
        monkeypatch.setattr(sys, "argv", ["impasto", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return subprocess.CompletedProcess(args, ended.value.code or 0, *capsys.readouterr())

    return run


def check_one_line(result: subprocess.CompletedProcess, code: int, said: str) -> None:
    assert result.returncode == code, result.stderr
    assert said in result.stderr and "Traceback" not in result.stderr and not result.stdout
    assert len(result.stderr.strip().splitlines()) == 1


def kill_at(line: bytes, script: str, *arguments: object) -> None:
    """Run a script in a process of its own and kill -9 it when it has printed this line."""
    process = Forked(script, *arguments)
    while (printed := process.stdout.readline()).strip() != line.decode():
        assert printed, "it ended"
    process.kill()
    assert process.wait() == -signal.SIGKILL
