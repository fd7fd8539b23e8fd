"""The net that comes with Impasto, the styles that it knows, and those that were learned here.

A style that nobody learned gets its numbers from the known ones: the mixture of them whose statistics are nearest to those of
the style picture, by the mean and the spread of the net's own first maps. Learned styles lie in a folder, by the hash of their
picture's pixels; their files are untrusted.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import safetensors
import scipy  # each part of it loads when it is first used: they take half a second
import torch
from platformdirs import user_data_path
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from impasto.errors import BadInput, BadWeights
from impasto.feedforward.net import NUMBERS, Style, Transformer, shapes
from impasto.files import make_folder, read_whole, write_whole
from impasto.images.images import resize, scaled_size
from impasto.images.pixels import to_levels

PLAIN = "photograph"  # the style that gives the photograph back
BUNDLE = Path(__file__).with_name("net.safetensors")
SEEN_SIDE = 512  # longer side of a style picture whose statistics are compared
MOST = 1000.0  # largest absolute value of a number that is believed
SAME = 0.05  # distance of statistics, in their spreads, below which two pictures are one
OWN = 0.9  # share from which on the picture itself is the known style
MOST_BYTES = 2**20  # of a learned style's file
DRAWN = ("down1", "down2", "down3")  # the layers whose maps are compared


@dataclass(frozen=True)
class TrainedNet:
    """The net, its digest, and what it knows: {name: numbers (2, NUMBERS)} and {name: statistics}."""

    weights: Mapping[str, Tensor]
    digest: str
    numbers: Mapping[str, Tensor]
    statistics: Mapping[str, Tensor]


@cache
def bundled() -> TrainedNet:
    """The net that comes with Impasto."""
    return read_net(BUNDLE)


def read_net(path: Path) -> TrainedNet:
    """The net in a file as bench/train_instant.py writes it. Raises BadWeights for a file that is none."""
    data = path.read_bytes()
    try:
        saved = {name: tensor.float() for name, tensor in load_tensors(data).items()}
    except (safetensors.SafetensorError, ValueError) as error:
        raise BadWeights(f"{path} is not a file of the instant net: {error}") from error
    groups: dict[str, dict[str, Tensor]] = {"weights": {}, "numbers": {}, "statistics": {}}
    for name, tensor in saved.items():
        group, _, rest = name.partition("/")
        groups.setdefault(group, {})[rest] = tensor
    weights, numbers, statistics = (groups[name] for name in ("weights", "numbers", "statistics"))
    if {name: tuple(tensor.shape) for name, tensor in weights.items()} != shapes() or PLAIN not in numbers:
        raise BadWeights(f"{path} is not a file of the instant net: its tensors have other names or shapes")
    for name, its in numbers.items():
        check_numbers(its, f"{path}: the style {name}")
    return TrainedNet(weights, hashlib.sha256(data).hexdigest(), numbers, statistics)


def check_numbers(numbers: Tensor, what: str) -> Tensor:
    """The numbers (2, NUMBERS) of a style. Raises BadInput for another shape and values that no style has."""
    if tuple(numbers.shape) != (2, NUMBERS):
        raise BadInput(f"{what} has {tuple(numbers.shape)} numbers, a style has {(2, NUMBERS)}")
    if not bool(torch.isfinite(numbers).all()) or float(numbers.abs().max()) > MOST:
        raise BadInput(f"{what} has numbers that no style has")
    return numbers


# Styles learned here


def learned_folder() -> Path:
    """The folder of the learned styles: $IMPASTO_STYLES, else in the user's data folder."""
    folder = os.environ.get("IMPASTO_STYLES")
    return Path(folder) if folder else user_data_path("impasto") / "styles"


def hash_of(style: Tensor) -> str:
    """SHA-256 of the pixels (1, 3, H, W) of a style picture, as they are used."""
    levels = to_levels(style[0], 8)
    return hashlib.sha256(f"{levels.shape}".encode() + levels.tobytes()).hexdigest()


def learned_path(style: Tensor) -> Path:
    """The file that a learned style has or would have."""
    return learned_folder() / f"{hash_of(style)}.safetensors"


def save_learned(style: Tensor, numbers: Tensor, trained: TrainedNet) -> Path:
    """Keep the numbers of a style picture, under the digest of the net that they are for."""
    path = learned_path(style)
    make_folder(path.parent)
    write_whole(path, lambda file: file.write(save_tensors({trained.digest: numbers.detach().contiguous()})))
    return path


def read_learned(path: Path, trained: TrainedNet) -> Tensor | None:
    """The numbers of a learned style; None where there is no file, or one for another net. Raises BadInput for a bad file."""
    if not path.is_file():
        return None
    try:
        numbers = load_tensors(read_whole(path, MOST_BYTES)).get(trained.digest)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise BadInput(f"{path} is not a learned style: delete it and learn again") from error
    return None if numbers is None else check_numbers(numbers.float(), str(path))


# Styles that nobody learned


def statistics_of(style: Tensor, weights: Mapping[str, Tensor], plain: Tensor) -> Tensor:
    """(1, 3, H, W) -> (2 C,): mean and spread of each map of the net's first layers."""
    picture = resize(style, scaled_size(style, SEEN_SIDE))
    maps = Transformer(weights).first_maps(picture, Style(((None, plain),)))
    return torch.cat([torch.cat([maps[name].mean((0, 2, 3)), maps[name].std((0, 2, 3))]) for name in DRAWN])


def mixture(statistics: Tensor, known: Mapping[str, Tensor]) -> dict[str, float]:
    """{name: share}, which sum to 1: the mixture of known statistics nearest to these, each divided by its spread."""
    names = list(known)
    rows = torch.stack([known[name] for name in names]).double()
    spread = rows.std(0) + 1e-6
    matrix, target = (rows / spread).T.numpy(), (statistics.double() / spread).numpy()
    distances = np.sqrt(np.square(matrix - target[:, None]).mean(0))
    if distances.min() < SAME:
        return {names[int(distances.argmin())]: 1.0}
    one = 100 * np.abs(matrix).max()  # a heavy row: the shares sum to 1
    shares, _ = scipy.optimize.nnls(np.vstack([matrix, np.full(len(names), one)]), np.append(target, one))
    return {name: float(share) for name, share in zip(names, shares / shares.sum(), strict=True) if share > 0.01}


@dataclass(frozen=True)
class Known:
    """The numbers (2, NUMBERS) of a style picture, and the shares of the known styles in them: none where it was learned itself."""

    numbers: Tensor
    shares: Mapping[str, float]

    @property
    def digest(self) -> str:
        """SHA-256 of the numbers."""
        return hashlib.sha256(self.numbers.contiguous().numpy().tobytes()).hexdigest()

    @property
    def guess(self) -> str:
        """The known styles and their shares, the largest first; empty where the numbers are the picture's own."""
        names = sorted(self.shares, key=lambda name: -self.shares[name])
        if not names or self.shares[names[0]] > OWN:
            return ""
        return ", ".join(f"{100 * self.shares[name]:.0f} % {name}" for name in names)


def numbers_of(style: Tensor, trained: TrainedNet) -> Known:
    """The numbers of a style picture (1, 3, H, W): those learned from it, or a mixture of known ones."""
    if (learned := read_learned(learned_path(style), trained)) is not None:
        return Known(learned, {})
    shares = mixture(statistics_of(style, trained.weights, trained.numbers[PLAIN]), trained.statistics)
    numbers = torch.stack([share * trained.numbers[name] for name, share in shares.items()]).sum(0)
    return Known(numbers, shares)
