"""Scans on disk: stopped anywhere and resumed, or merged in any order, they give the bytes of one scan."""

import contextlib
import hashlib
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import impasto.lens.index as module_of_index
import impasto.lens.scan as scanning
from impasto.errors import BadInput, BadRecipe, CannotWrite, ImpastoError, ImpastoWarning, NoRoom, SomeFailed
from impasto.lens.collection import row_to_json
from impasto.lens.index import INDEX, MANIFEST, layer_statistics, make_setup, merge, read_index, read_rows, unit_statistics
from impasto.lens.patches import top
from impasto.lens.scan import begin_shards, merge_shards, scan, scan_shards, shards_begun
from tests.conftest import kill_at, picture, room_for, save, tiny_net
from tests.fake_workers import FakeWorker

pytestmark = pytest.mark.slow

LAYERS = ["conv1_2", "conv3_1", "conv3_1:pre"]


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Eleven pictures in three folders, one of them damaged, one too long and narrow."""
    for n in range(11):
        folder = tmp_path / "set" / "abc"[n % 3]
        folder.mkdir(parents=True, exist_ok=True)
        save(folder / f"{n}.png", picture(40 + n, 36, n))
    (tmp_path / "set" / "a" / "bad.jpg").write_bytes(b"nothing")
    save(tmp_path / "set" / "b" / "strip.png", picture(2, 64))
    return tmp_path / "set"


def scanned(places, folder: Path, **options) -> tuple[bytes, bytes]:
    """The bytes of the index and of its manifest."""
    net, resume = tiny_net(), options.pop("resume", False)
    for _ in scan(
        places if isinstance(places, list) else [places], net, make_setup(net, LAYERS, size=32, **options), folder, resume
    ):
        pass
    return bytes_of(folder)


def bytes_of(folder: Path) -> tuple[bytes, bytes]:
    return (folder / INDEX).read_bytes(), (folder / MANIFEST).read_bytes()


class Stop(Exception):
    """What a kill looks like from inside: no code of the scan runs after it."""


@pytest.mark.parametrize("where", range(13))
def test_a_scan_stopped_after_any_picture_and_resumed_is_the_same(pictures, tmp_path, where, monkeypatch):
    whole = scanned(pictures, tmp_path / "whole")
    monkeypatch.setattr(scanning, "CHECKPOINT_SECONDS", 0 if where % 2 else 1e9)
    net = tiny_net()
    steps = scan([pictures], net, make_setup(net, LAYERS, size=32), tmp_path / "cut")
    for _ in itertools.islice(steps, where):
        pass
    steps.close()
    assert scanned(pictures, tmp_path / "cut", resume=True) == whole
    assert sorted(path.name for path in (tmp_path / "cut").iterdir() if path.name != ".lock") == [INDEX, MANIFEST]


@pytest.mark.parametrize("call", range(1, 6))
def test_a_scan_stopped_while_it_writes_and_resumed_is_the_same(pictures, tmp_path, call, monkeypatch):
    """Stopped at each of the writes: the first checkpoint, the last, the manifest, the index, and before the checkpoint goes."""
    whole = scanned(pictures, tmp_path / "whole")
    calls = itertools.count(1)

    def stopping(real):
        def write(*args):
            if next(calls) == call:
                raise Stop
            return real(*args)

        return write

    with monkeypatch.context() as patched:
        for owner, name in ((scanning, "write_index"), (scanning, "write_whole"), (Path, "unlink")):
            patched.setattr(owner, name, stopping(getattr(owner, name)))
        with pytest.raises(Stop):
            scanned(pictures, tmp_path / "cut")
    assert scanned(pictures, tmp_path / "cut", resume=True) == whole


@pytest.mark.parametrize("torn", [b"", b'{"half a row', b"x" * 5000])
def test_rows_beyond_the_checkpoint_are_written_anew(pictures, tmp_path, torn):
    whole, net = scanned(pictures, tmp_path / "whole"), tiny_net()
    steps = scan([pictures], net, make_setup(net, LAYERS, size=32), tmp_path / "cut")
    next(steps)
    steps.close()
    with open(tmp_path / "cut" / scanning.PARTIAL_MANIFEST, "ab") as file:
        file.write(torn)
    assert scanned(pictures, tmp_path / "cut", resume=True) == whole


KILLED = """
import sys, time
from pathlib import Path
import impasto.lens.scan as scanning
from impasto.lens.index import make_setup
from tests.conftest import tiny_net
scanning.CHECKPOINT_SECONDS = 0
net = tiny_net()
setup = make_setup(net, ["conv1_2", "conv3_1", "conv3_1:pre"], size=32)
for step in scanning.scan([Path(sys.argv[1])], net, setup, Path(sys.argv[2])):
    print(step.done, flush=True)
    time.sleep(0.05)
"""


def test_a_killed_process_is_resumed_to_the_same_bytes(pictures, tmp_path):
    whole = scanned(pictures, tmp_path / "whole")
    kill_at(b"5", KILLED, pictures, tmp_path / "cut")
    assert not (tmp_path / "cut" / INDEX).exists() and (tmp_path / "cut" / scanning.PARTIAL_INDEX).exists()
    done = [step.done for step in resumed(pictures, tmp_path / "cut")]
    assert done[0] > 1 and bytes_of(tmp_path / "cut") == whole


def resumed(pictures: Path, folder: Path):
    net = tiny_net()
    return scan([pictures], net, make_setup(net, LAYERS, size=32), folder, resume=True)


@pytest.mark.parametrize("size", [100, 3000], ids="{} bytes".format)
def test_a_full_disk_gives_an_error_and_leaves_no_index(pictures, tmp_path, size):
    """Full at the manifest, and at the index behind it. What was scanned is not lost: there may be room again."""
    with pytest.raises(NoRoom, match="no room on the disk for"), room_for(size):
        list(resumed(pictures, tmp_path / "out"))
    with pytest.raises(BadInput, match="there is no finished scan"):
        read_index(tmp_path / "out")
    list(resumed(pictures, tmp_path / "out"))
    assert bytes_of(tmp_path / "out") == scanned(pictures, tmp_path / "whole")


def test_a_merge_into_a_full_disk_leaves_no_index_and_spares_its_parts(pictures, tmp_path):
    for part in "ab":
        scanned(pictures / part, tmp_path / part)
    before = bytes_of(tmp_path / "a")
    for size in (100, 3000):
        with pytest.raises(NoRoom, match="no room on the disk for"), room_for(size):
            merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
        assert not (tmp_path / "merged" / INDEX).exists()
    with pytest.raises(BadRecipe, match="is one of the scans that are merged"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "b" / ".." / "a")
    assert bytes_of(tmp_path / "a") == before


@pytest.mark.parametrize("per_image", [1, 2])
@pytest.mark.parametrize("order", list(itertools.permutations("abc")), ids="".join)
def test_scans_of_parts_merge_to_one_scan_in_any_order(pictures, tmp_path, order, per_image):
    whole = scanned([pictures / part for part in "abc"], tmp_path / "whole", per_image=per_image)
    for part in "abc":
        scanned(pictures / part, tmp_path / part, per_image=per_image)
    merge([tmp_path / part for part in order], tmp_path / "merged")
    assert bytes_of(tmp_path / "merged") == whole
    pairs = tmp_path / "pair"
    merge([tmp_path / order[1], tmp_path / order[2]], pairs)
    merge([pairs, tmp_path / order[0]], tmp_path / "again")
    assert bytes_of(tmp_path / "again") == whole


def test_a_picture_given_twice_counts_once(pictures, tmp_path):
    once, twice = scanned(pictures / "a", tmp_path / "once"), scanned([pictures / "a", pictures / "a"], tmp_path / "twice")
    assert once == twice


def test_a_picture_in_two_scans_is_not_merged(pictures, tmp_path):
    for name in ("one", "two"):
        scanned(pictures / "a", tmp_path / name)
    with pytest.raises(BadInput, match=r"0\.png is in two of the scans"):
        merge([tmp_path / "one", tmp_path / "two"], tmp_path / "merged")
    assert not (tmp_path / "merged" / MANIFEST).exists()


def test_another_setup_is_neither_merged_nor_resumed(pictures, tmp_path):
    scanned(pictures / "a", tmp_path / "a")
    scanned(pictures / "b", tmp_path / "b", k=4)
    with pytest.raises(BadRecipe, match=r"b is a scan with other k:"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    with pytest.raises(BadRecipe, match=r"is a scan with other k, fit:"):
        scanned(pictures / "a", tmp_path / "a", resume=True, k=4, fit="whole")
    net = tiny_net(input="caffe")
    net.layers[0].weight[0, 0, 0, 0] += 1.0
    with pytest.raises(BadRecipe, match="is a scan with other weights, input:"):
        next(scan([pictures / "a"], net, make_setup(net, LAYERS, size=32), tmp_path / "a", resume=True))


def test_other_pictures_are_not_resumed(pictures, tmp_path):
    scanned(pictures, tmp_path / "cut")
    (pictures / "a" / "0.png").unlink()
    with pytest.raises(BadRecipe, match=r"a/3\.png instead of a/0\.png"):
        scanned(pictures, tmp_path / "cut", resume=True)


def test_a_finished_scan_is_not_done_again_and_goes_on_with_what_comes_behind(pictures, tmp_path):
    before = scanned(pictures, tmp_path / "out")
    assert list(resumed(pictures, tmp_path / "out")) == [] and bytes_of(tmp_path / "out") == before
    save(pictures / "z.png", picture(40, 40, 99))
    assert [step.row.source.name for step in resumed(pictures, tmp_path / "out")] == ["z.png"]
    assert bytes_of(tmp_path / "out") == scanned(pictures, tmp_path / "afresh")


def cut_short(pictures: Path, folder: Path, pictures_seen: int) -> None:
    """A scan that saved a checkpoint after every picture, and stopped after so many."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scanning, "CHECKPOINT_SECONDS", 0)
        steps = resumed(pictures, folder)
        for _ in range(pictures_seen):
            next(steps)
        steps.close()


def flipped(path: Path, at: float) -> None:
    """One bit of the file changed, at this share of its length."""
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("at", [0.0, 0.03, 0.3, 0.6, 0.9, 0.999])
def test_a_checkpoint_with_one_bit_changed_gives_way_to_the_one_before(pictures, tmp_path, at):
    whole, folder = scanned(pictures, tmp_path / "whole"), tmp_path / "cut"
    cut_short(pictures, folder, 6)
    flipped(folder / scanning.PARTIAL_INDEX, at)
    with pytest.warns(ImpastoWarning, match=r"ignoring a damaged checkpoint of the scan .*partial\.safetensors cannot"):
        done = [step.done for step in resumed(pictures, folder)]
    assert done[0] > 1 and bytes_of(folder) == whole


def test_with_both_checkpoints_damaged_a_scan_begins_again(pictures, tmp_path):
    whole, folder = scanned(pictures, tmp_path / "whole"), tmp_path / "cut"
    cut_short(pictures, folder, 6)
    for name in (scanning.PARTIAL_INDEX, scanning.PREVIOUS_INDEX):
        flipped(folder / name, 0.5)
    with pytest.warns(ImpastoWarning, match="ignoring a damaged checkpoint of the scan"):
        done = [step.done for step in resumed(pictures, folder)]
    assert done[0] == 1 and bytes_of(folder) == whole


def test_a_scan_killed_between_two_checkpoints_goes_on_from_the_first(pictures, tmp_path):
    whole, folder = scanned(pictures, tmp_path / "whole"), tmp_path / "cut"
    cut_short(pictures, folder, 6)
    (folder / scanning.PARTIAL_INDEX).unlink()
    done = [step.done for step in resumed(pictures, folder)]
    assert done[0] > 1 and bytes_of(folder) == whole


def test_an_index_with_one_bit_changed_anywhere_is_not_read(pictures, tmp_path):
    scanned(pictures / "a", tmp_path / "a")
    whole = (tmp_path / "a" / INDEX).read_bytes()
    for at in range(0, len(whole), len(whole) // 40):
        flipped(tmp_path / "a" / INDEX, at / len(whole))
        with pytest.raises(BadInput, match="cannot be read as the index of a scan"):
            read_index(tmp_path / "a")
        (tmp_path / "a" / INDEX).write_bytes(whole)


def rewritten(folder, about=lambda it: it, tensors=lambda it: it) -> None:
    """The index with other fields or tensors, and a right checksum."""
    path = folder / "index.safetensors"
    with safetensors.safe_open(path, "np") as opened:
        told = json.loads(opened.metadata()["impasto"])
        kept = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    del told["sha256"]
    told, kept = about(told), tensors(kept)
    if isinstance(told, dict):
        told["sha256"] = module_of_index._checksum(told, kept)
    path.write_bytes(safetensors.numpy.save(kept, {"impasto": json.dumps(told)}))


ABSURD = [None, True, -1, 0, 1.5, 2**31, 2**80, "", "x", "a" * 64, [], [1], {}, {"a": 1}, [{}], [{"name": "a", "units": 10**12}]]


def places_in(it: object, at: tuple = ()) -> list[tuple]:
    """Of every value in JSON."""
    inner = it.items() if isinstance(it, dict) else enumerate(it) if isinstance(it, list) else ()
    return [at, *(place for key, value in inner for place in places_in(value, (*at, key)))]


def changed_at(it: object, place: tuple, value: object) -> object:
    if not place:
        return value
    copied = dict(it) if isinstance(it, dict) else list(it)
    copied[place[0]] = changed_at(it[place[0]], place[1:], value)
    return copied


def used(folder) -> None:
    """All that is read back of an atlas."""
    index = read_index(folder)
    for layer in index.layers:
        unit_statistics(index, layer)
        top(folder, layer, 0)
    layer_statistics(index)
    merge([folder], folder.with_name("merged"))


@pytest.mark.slow
def test_absurd_fields_under_a_right_checksum_are_an_error_of_ours_or_harmless(pictures, tmp_path):
    scanned(pictures, tmp_path / "good")
    told: list[dict] = []
    shutil.copytree(tmp_path / "good", tmp_path / "bad")
    rewritten(tmp_path / "bad", lambda it: told.append(dict(it)) or it)
    refused = 0
    for place in places_in(told[0]):
        for value in ABSURD:
            shutil.copyfile(tmp_path / "good" / "index.safetensors", tmp_path / "bad" / "index.safetensors")
            rewritten(tmp_path / "bad", lambda it, place=place, value=value: changed_at(it, place, value))
            try:
                used(tmp_path / "bad")
            except ImpastoError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > 200


@pytest.mark.parametrize("value", [-2, 10**6, np.iinfo(np.int32).max, np.iinfo(np.int32).min])
def test_absurd_tensors_under_a_right_checksum_are_an_error_of_ours(pictures, tmp_path, value):
    scanned(pictures, tmp_path / "good")
    with safetensors.safe_open(tmp_path / "good" / "index.safetensors", "np") as opened:
        names = list(opened.keys())
    for name in names:
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(tmp_path / "good", tmp_path / "bad")
        fill = np.nan if name.endswith("value") else value
        rewritten(tmp_path / "bad", tensors=lambda it, name=name, fill=fill: it | {name: np.full_like(it[name], fill)})
        with pytest.raises(BadInput):
            read_index(tmp_path / "bad")


@pytest.mark.parametrize("field", ["name", "path", "sha256", "height", "width", "offset", "length", "skipped", "more"])
def test_absurd_rows_under_a_right_checksum_are_an_error_of_ours_or_harmless(pictures, tmp_path, field):
    for value in ABSURD:
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        scanned(pictures / "a", tmp_path / "bad")
        manifest = tmp_path / "bad" / "manifest.jsonl"
        head, *rows = manifest.read_bytes().splitlines(keepends=True)
        rows = [json.dumps(json.loads(row) | {field: value}).encode() + b"\n" for row in rows]
        manifest.write_bytes(b"".join([head, *rows]))
        digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
        rewritten(tmp_path / "bad", lambda it, digest=digest: it | {"manifest": digest})
        with contextlib.suppress(ImpastoError):
            used(tmp_path / "bad")


def test_bad_pictures_are_named_and_skipped(pictures, tmp_path):
    steps = list(resumed(pictures, tmp_path / "out"))
    said = {step.row.source.name: step.row.skipped for step in steps if step.row.skipped}
    assert set(said) == {"a/bad.jpg", "b/strip.png"} and "no picture in a supported format" in said["a/bad.jpg"]
    assert said["b/strip.png"] == "b/strip.png is 64 x 2: one side may be at most 16 times as long as the other"
    index = read_index(tmp_path / "out")
    assert (index.rows, index.pictures) == (13, 11) and steps[-1].done == steps[-1].of == 13
    skipped = [n for n, row in enumerate(read_rows(tmp_path / "out" / MANIFEST)) if row.skipped]
    assert not set(skipped) & set(index.rankings.where[..., 0].flatten().tolist())


def test_damaged_weights_give_an_error_that_names_the_picture(pictures, tmp_path):
    net = tiny_net()
    net.layers[1].weight[0] = float("nan")
    with pytest.raises(BadInput, match=r"^[abc]/.*: the activations of conv1_2 are not finite: the weights of tiny are damaged"):
        list(scan([pictures], net, make_setup(net, LAYERS, size=32), tmp_path / "out"))


def test_a_set_without_a_picture_that_can_be_used_makes_no_index(pictures, tmp_path):
    with pytest.raises(BadInput, match="none of the 1 pictures can be used"):
        scanned(pictures / "a" / "bad.jpg", tmp_path / "out")
    assert not (tmp_path / "out" / INDEX).exists()


def test_the_index_has_no_pixels_in_it_and_its_size_does_not_depend_on_the_set(pictures, tmp_path):
    few, many = scanned(pictures / "a", tmp_path / "few"), scanned(pictures, tmp_path / "many")
    assert abs(len(few[0]) - len(many[0])) < 16


def test_a_shard_gives_the_patches_of_its_folder(pictures, tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for path in sorted(pictures.rglob("*.png"), reverse=True):
            tar.add(path, path.relative_to(pictures))
    (pictures / "a" / "bad.jpg").unlink()
    scanned(pictures, tmp_path / "folder")
    scanned(tmp_path / "set.tar", tmp_path / "shard")
    for unit in range(7):
        ours, theirs = (top(tmp_path / name, "conv3_1", unit) for name in ("folder", "shard"))
        assert [(p.value, p.box, f"set.tar/{p.row.source.name}") for p in ours] == [
            (p.value, p.box, p.row.source.name) for p in theirs
        ]


def test_a_whole_picture_is_seen_with_whole(pictures, tmp_path):
    save(pictures / "c" / "wide.png", picture(40, 120))
    scanned(pictures, tmp_path / "whole", fit="whole")
    wide = [p for unit in range(5) for p in top(tmp_path / "whole", "conv1_2", unit) if p.row.source.name == "c/wide.png"]
    assert wide and wide[0].view.size == (32, 96) and wide[0].view.start == (0, 0)


def test_two_scans_do_not_write_into_one_folder(pictures, tmp_path):
    first = resumed(pictures, tmp_path / "out")
    next(first)
    with pytest.raises(CannotWrite, match="another scan is writing into"):
        next(resumed(pictures, tmp_path / "out"))
    first.close()


def test_a_scan_that_is_not_possible_gives_an_error(pictures, tmp_path):
    with pytest.raises(BadInput, match="there is no finished scan in"):
        read_index(tmp_path)
    with pytest.raises(BadInput, match="there are no pictures in"):
        (tmp_path / "empty").mkdir()
        scanned(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(BadRecipe, match="size is 3: too small, the map of conv3_1 would be empty"):
        net = tiny_net()
        next(scan([pictures], net, make_setup(net, ["conv3_1"], size=3), tmp_path / "out"))
    scanned(pictures, tmp_path / "out")
    shutil.copy(pictures / "a" / "bad.jpg", tmp_path / "out" / MANIFEST)
    with pytest.raises(BadInput, match="is not the manifest of"):
        read_index(tmp_path / "out")


def test_checkpoints_are_written_on_the_way(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(scanning, "CHECKPOINT_SECONDS", 0)
    steps = resumed(pictures, tmp_path / "out")
    for _ in itertools.islice(steps, 4):
        pass
    steps.close()
    done = [step.done for step in resumed(pictures, tmp_path / "out")]
    assert done[0] == 4


# In parts


def looked(work):
    """A part, by the tiny net."""
    net = tiny_net()
    for it in scan(work["places"], net, make_setup(net, *work["setup"]), Path(work["output"]), True, work["part"]):
        yield {"step": {"row": row_to_json(it.row), "done": it.done, "of": it.of}}
    yield {"report": {}}


def worker(dies_after: int | None = None) -> FakeWorker:
    return FakeWorker(dies_after, looked)


def in_parts(pictures: Path, folder: Path, of: int, workers, parts=None):
    asked = {"places": [pictures], "setup": [LAYERS, 9, 1, 32]}
    begin_shards(folder, of, resume=True)
    return list(scan_shards(asked, folder, parts or [(n, of) for n in range(of)], workers))


@pytest.mark.parametrize("of", [2, 5, 40])
def test_a_scan_in_parts_has_the_bytes_of_the_whole_whoever_dies(pictures, tmp_path, of):
    whole = scanned(pictures, tmp_path / "whole")
    steps = in_parts(pictures, tmp_path / "out", of, [worker(1), worker(0), worker()])
    assert {step.of for step in steps} == {13} and max(step.done for step in steps) == 13
    assert merge_shards(tmp_path / "out", of) and bytes_of(tmp_path / "out") == whole
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name != ".lock") == [INDEX, MANIFEST]


def test_parts_scanned_one_by_one_are_merged_by_the_last(pictures, tmp_path):
    whole = scanned(pictures, tmp_path / "whole")
    for n in (1, 2, 0):
        assert not (tmp_path / "out" / INDEX).exists()
        in_parts(pictures, tmp_path / "out", 3, [worker()], [(n, 3)])
        assert merge_shards(tmp_path / "out", 3) == (n == 0)
    assert bytes_of(tmp_path / "out") == whole and not merge_shards(tmp_path / "out", 3)


def test_a_scan_goes_on_in_the_parts_it_was_begun_in(pictures, tmp_path):
    assert shards_begun(tmp_path / "out") is None
    in_parts(pictures, tmp_path / "out", 4, [worker()], [(2, 4)])
    assert shards_begun(tmp_path / "out") == 4
    begin_shards(tmp_path / "out", 3, resume=True)
    with pytest.raises(BadRecipe, match="of 00003 and of 00004"):
        shards_begun(tmp_path / "out")
    begin_shards(tmp_path / "out", 3, resume=False)
    assert shards_begun(tmp_path / "out") == 3 and not merge_shards(tmp_path / "out", 3)
    next(resumed(pictures, tmp_path / "whole"))
    assert shards_begun(tmp_path / "whole") == 1


def test_parts_that_fail_give_an_error_and_the_others_are_scanned(pictures, tmp_path):
    def failing(work):
        yield from [{"error": "no such weights", "is_final": True}] if work["part"] == (1, 3) else looked(work)

    with pytest.raises(SomeFailed, match="1 of 3 parts could not be scanned, 2 of 3 first: no such weights"):
        in_parts(pictures, tmp_path / "out", 3, [FakeWorker(runs=failing)])
    assert not merge_shards(tmp_path / "out", 3)
    in_parts(pictures, tmp_path / "out", 3, [worker()])
    assert merge_shards(tmp_path / "out", 3) and bytes_of(tmp_path / "out") == scanned(pictures, tmp_path / "whole")


def test_parts_without_a_picture_that_can_be_used_make_no_index(pictures, tmp_path):
    in_parts(pictures / "a" / "bad.jpg", tmp_path / "out", 2, [worker()])
    with pytest.raises(BadInput, match="none of the 1 pictures can be used"):
        merge_shards(tmp_path / "out", 2)
    assert not (tmp_path / "out" / INDEX).exists()
