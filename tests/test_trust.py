"""What can go wrong around a batch and a scan in parts: kills, full disks, other processes, damaged files, odd names.

The numbers are those of a list of attacks and faults that all of Impasto is held to.
"""

import json
import os
import random
import shutil
import time
from pathlib import Path

import pytest

from impasto.batch import Batch, Job, Result
from impasto.errors import CannotWrite, ImpastoWarning, NoRoom
from impasto.images.images import read_record
from impasto.lens import scan as scanning
from impasto.lens.index import INDEX, MANIFEST
from impasto.lens.scan import begin_shards, merge_shards, scan_shards, shard_folder
from impasto.recipe.recipe import make_recipe
from impasto.transfer.checkpoint import checkpoint_path, previous
from tests.conftest import paint_with_the_tiny_net, picture, room_for, save
from tests.fake_workers import FakeWorker
from tests.forks import Forked
from tests.test_lens_scan import LAYERS, bytes_of, looked, scanned

pytestmark = pytest.mark.slow

KNOBS = {"size": 32, "coarsest": 24, "steps": 6, "fine_steps": 4, "style_layers": "conv1_1", "content_layers": "conv2_1"}
NAMES = ("one.png", "two.png", "three.png")
unwritable = pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no folder that nobody can write")


def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny net in the place of the real ones, and a checkpoint after every step."""
    paint_with_the_tiny_net(monkeypatch)
    monkeypatch.setattr(scanning, "CHECKPOINT_SECONDS", 0)


@pytest.fixture(autouse=True)
def tiny_here(monkeypatch):
    tiny(monkeypatch)


@pytest.fixture
def inputs(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    for n, name in enumerate((*NAMES, "style.png")):
        save(tmp_path / "in" / name, picture(30, 40, n))
    return tmp_path / "in"


def batch_of(inputs: Path, folder: Path, names=NAMES, outputs=NAMES) -> Batch:
    recipe = make_recipe(**KNOBS)
    return Batch(
        [Job(inputs / name, (inputs / "style.png",), recipe, out) for name, out in zip(names, outputs, strict=True)], folder
    )


def states(batch: Batch, on_step=lambda: None) -> list[str]:
    events = (event for _, event in batch.events(workers=[FakeWorker()]))
    return [event.state for event in events if isinstance(event, Result) or on_step()]


def painted(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def scan_in_parts(pictures: Path, folder: Path, parts=((0, 3), (1, 3), (2, 3))) -> None:
    asked = {"places": [str(pictures)], "setup": [LAYERS, 9, 1, 32]}
    begin_shards(folder, 3, resume=True)
    for step in scan_shards(asked, folder, parts, [FakeWorker(runs=looked)]):
        print(step.done, flush=True)
    merge_shards(folder, 3)


def paint_batch(inputs: Path, folder: Path) -> None:
    for job, event in batch_of(inputs, folder).events(workers=[FakeWorker()]):
        print(*([job.output, event.state] if isinstance(event, Result) else []), flush=True)


SCRIPT = """
import sys
from pathlib import Path
import pytest
from tests import test_trust as t

t.tiny(pytest.MonkeyPatch())
t.{}(*map(Path, sys.argv[1:]))
"""


def started(what: str, *arguments: Path) -> Forked:
    return Forked(SCRIPT.format(what), *arguments)


def killed(what: str, seed: int, *arguments: Path) -> bool:
    """Begun, and killed at a random moment; whether it was not done before."""
    draw, process = random.Random(seed), started(what, *arguments)
    for _ in range(draw.randint(1, 8)):
        process.stdout.readline()
    time.sleep(draw.uniform(0, 0.02))
    process.kill()
    return process.wait() != 0


def test_a_batch_killed_at_random_moments_has_no_half_file_and_ends_with_the_same_bytes(inputs, tmp_path):
    states(batch_of(inputs, tmp_path / "whole"))
    kills = sum(killed("paint_batch", seed, inputs, tmp_path / "out") for seed in range(3))
    for path in (tmp_path / "out").glob("*.png"):
        assert read_record(path)["ended"] == "finished"
    assert kills and set(states(batch_of(inputs, tmp_path / "out"))) <= {"finished", "skipped"}
    assert painted(tmp_path / "out") == painted(tmp_path / "whole")


@pytest.fixture
def pictures(tmp_path) -> Path:
    (tmp_path / "set").mkdir()
    for n in range(10):
        save(tmp_path / "set" / f"{n}.png", picture(40 + n, 36, n))
    return tmp_path / "set"


def test_a_scan_in_parts_killed_at_random_moments_ends_with_the_same_bytes(pictures, tmp_path):
    whole = scanned(pictures, tmp_path / "whole")
    assert sum(killed("scan_in_parts", seed, pictures, tmp_path / "out") for seed in range(3))
    scan_in_parts(pictures, tmp_path / "out")
    assert bytes_of(tmp_path / "out") == whole and not (tmp_path / "out" / scanning.SHARDS).exists()


def test_a_batch_on_a_full_disk_says_so_and_goes_on_when_there_is_room(inputs, tmp_path):
    batch = batch_of(inputs, tmp_path / "out")
    with room_for(300), pytest.warns(ImpastoWarning, match="without a checkpoint"):
        assert set(states(batch)) == {"failed"}
    assert all("no room on the disk" in str(result.error) for result in batch.results.values()) and not painted(tmp_path / "out")
    with room_for(300), pytest.raises(NoRoom):
        batch.write_index()
    assert states(batch_of(inputs, tmp_path / "out")) == ["finished"] * 3


def test_parts_of_a_scan_on_a_full_disk_are_not_merged_to_half_an_index(pictures, tmp_path):
    scan_in_parts(pictures, tmp_path / "out", ((0, 3), (1, 3)))
    before = bytes_of(shard_folder(tmp_path / "out", (0, 3)))
    asked = {"places": [str(pictures)], "setup": [LAYERS, 9, 1, 32]}
    list(scan_shards(asked, tmp_path / "out", [(2, 3)], [FakeWorker(runs=looked)]))
    for size in (100, 3000):
        with room_for(size), pytest.raises(NoRoom, match="no room on the disk for"):
            merge_shards(tmp_path / "out", 3)
        assert not (tmp_path / "out" / INDEX).exists() and bytes_of(shard_folder(tmp_path / "out", (0, 3))) == before
    assert merge_shards(tmp_path / "out", 3) and bytes_of(tmp_path / "out") == scanned(pictures, tmp_path / "whole")


@unwritable
def test_a_folder_that_cannot_be_written_is_an_error_before_the_work(inputs, pictures):
    for begin in (lambda: batch_of(inputs, Path("/proc/self")), lambda: begin_shards(Path("/proc/self"), 2, resume=False)):
        with pytest.raises(CannotWrite, match="/proc/self"):
            begin()


def test_a_folder_that_is_deleted_on_the_way_ends_no_other_job(inputs, tmp_path):
    batch, left = batch_of(inputs, tmp_path / "out"), [tmp_path / "out"]
    found = states(batch, on_step=lambda: left and shutil.rmtree(left.pop(), ignore_errors=True))
    assert len(found) == 3 and set(found) <= {"finished", "failed"}
    assert states(batch_of(inputs, tmp_path / "out")).count("failed") == 0


def test_two_processes_share_a_batch_and_paint_each_job_once(inputs, tmp_path):
    both = [started("paint_batch", inputs, tmp_path / "out") for _ in range(2)]
    said = [line.split() for process in both for line in process.stdout.read().splitlines() if line]
    assert [process.wait() for process in both] == [0, 0]
    assert sorted(name for name, state in said if state == "finished") == sorted(NAMES)
    assert {state for _, state in said} <= {"finished", "skipped", "elsewhere"}
    states(batch_of(inputs, tmp_path / "whole"))
    assert painted(tmp_path / "out") == painted(tmp_path / "whole")


def test_a_damaged_checkpoint_of_a_batch_gives_way_to_the_one_before(inputs, tmp_path):
    states(batch_of(inputs, tmp_path / "whole"))
    begun = batch_of(inputs, tmp_path / "out").paint(workers=[FakeWorker(4)])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("impasto.batch.with_retries", lambda task, worker, _: ({**event, "tries": 1} for event in worker.run(task)))
        assert next(begun).state == "failed"
        begun.close()
    path = checkpoint_path(tmp_path / "out" / NAMES[0])
    assert path.exists() and previous(path).exists()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(ImpastoWarning, match="damaged"):
        assert states(batch_of(inputs, tmp_path / "out")) == ["finished"] * 3
    assert painted(tmp_path / "out") == painted(tmp_path / "whole")


def test_a_damaged_painting_is_painted_again(inputs, tmp_path):
    states(batch_of(inputs, tmp_path / "out"))
    before, path = painted(tmp_path / "out"), tmp_path / "out" / NAMES[1]
    path.write_bytes(path.read_bytes()[:200])
    assert states(batch_of(inputs, tmp_path / "out")) == ["skipped", "finished", "skipped"]
    assert painted(tmp_path / "out") == before


@pytest.mark.parametrize("name", [INDEX, MANIFEST])
def test_a_damaged_part_is_scanned_again(pictures, tmp_path, name):
    scan_in_parts(pictures, tmp_path / "out", ((0, 3), (1, 3)))
    path = shard_folder(tmp_path / "out", (1, 3)) / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.warns(ImpastoWarning, match="ignoring a damaged checkpoint of the scan"):
        scan_in_parts(pictures, tmp_path / "out")
    assert bytes_of(tmp_path / "out") == scanned(pictures, tmp_path / "whole")


ODD = ["a b.png", "#50%?.png", "-o.png", "naïve 絵.png", "'\"<&>.png", "n" * 250 + ".png", os.fsdecode(b"\xff\xfe.png")]


def test_odd_names_are_painted_and_shown(inputs, tmp_path):
    for name in ODD:
        shutil.copy(inputs / NAMES[0], inputs / name)
    outputs = [f"x{name}" if len(name) < 250 else f"{name[:250]}-painting.png" for name in ODD]
    batch = batch_of(inputs, tmp_path / "out", ODD, outputs)
    found = states(batch)
    assert found == ["finished"] * 5 + ["failed", "finished"]
    assert all(json.dumps(result.to_json(tmp_path)).isascii() for result in batch.results.values())
    page = batch.write_index().read_text("utf-8")
    assert "x%2350%25%3F.png" in page and "x&#x27;&quot;&lt;&amp;&gt;.png" in page and "xnaïve 絵.png" in page
    assert "x%FF%FE.png" in page
    assert "too long" in str(batch.results[outputs[5]].error)


def test_pictures_with_odd_names_are_scanned_in_parts(pictures, tmp_path):
    for name in ODD:
        shutil.copy(pictures / "0.png", pictures / name)
    scan_in_parts(pictures, tmp_path / "out")
    assert bytes_of(tmp_path / "out") == scanned(pictures, tmp_path / "whole")
