"""Work shared out among hands, tried again when one has died, parted among processes that know nothing of each other."""

import sys
import threading
from pathlib import Path

import pytest
import torch

from impasto.errors import BadInput, BadRecipe
from impasto.hand import LocalHand, shard_of, shared_out, tried
from impasto.lens.index import INDEX, MANIFEST
from impasto.pictures import picture_path
from tests.clips import moving
from tests.conftest import save
from tests.hands import Here


def counting(work):
    """As many steps as the work says, then its report."""
    yield from ({"step": n} for n in range(work))
    yield {"report": work}


def test_every_work_is_done_once_whichever_hand_dies():
    hands = [Here(2, counting), Here(0, counting)]
    events = list(shared_out(range(9), hands, tried))
    assert sorted(said["report"] for _, said in events if "report" in said) == list(range(9))
    assert sum(said.get("tries", 1) - 1 for _, said in events) in (1, 2) and all(hand.closed for hand in hands)


def test_the_events_of_a_work_come_in_their_order():
    events = list(shared_out([3, 4], [Here(does=counting), Here(does=counting)], tried))
    for work in (3, 4):
        assert [said.get("step", "end") for it, said in events if it == work] == [*range(work), "end"]


def test_hands_work_at_the_same_time():
    """Each waits for the other within its work."""
    both = threading.Barrier(2, timeout=30)

    def meeting(work):
        both.wait()
        yield {"report": work}

    assert len(list(shared_out("ab", [Here(does=meeting), Here(does=meeting)], tried))) == 2


@pytest.mark.parametrize("wrong", [BadInput, IndexError])
def test_what_goes_wrong_in_a_hand_is_raised_and_all_are_closed(wrong):
    def failing(work):
        raise wrong("a defect")
        yield

    hands = [Here(does=failing), Here(does=failing)]
    with pytest.raises(wrong, match="a defect"):
        list(shared_out([1, 2, 3], hands, lambda work, hand: hand.do(work)))
    assert all(hand.closed for hand in hands)


def test_who_stops_listening_closes_the_hands():
    hands = [Here(does=counting), Here(does=counting)]
    events = shared_out([10**6, 10**6], hands, tried)
    next(events)
    events.close()
    assert all(hand.closed for hand in hands) and threading.active_count() < 9


HANGING = """
import json, os, sys, time
for line in sys.stdin:
    hangs, marker = json.loads(line)
    if hangs == "always" or (hangs == "once" and not os.path.exists(marker)):
        open(marker, "w").close()
        print(json.dumps({"step": 1}), flush=True)
        time.sleep(1000)
    print(json.dumps({"report": hangs}), flush=True)
"""


@pytest.fixture
def hand(monkeypatch):
    monkeypatch.setattr("impasto.hand.COMMAND", [sys.executable, "-c", HANGING])
    hand = LocalHand(patience=2.0)
    yield hand
    hand.close()


def test_37_work_that_hangs_is_ended_and_tried_again(hand, tmp_path):
    works = [(hangs, str(tmp_path / "marker")) for hangs in ("never", "once", "never")]
    found = [said for _, said in shared_out(works, [hand], tried) if "report" in said]
    assert [(said["report"], said["tries"]) for said in found] == [("never", 1), ("once", 2), ("never", 1)]


def test_37_work_that_always_hangs_is_set_aside_and_said(hand, tmp_path):
    *steps, last = tried(("always", str(tmp_path / "marker")), hand)
    assert steps == [{"step": 1}] * 2
    assert last == {"error": "nothing was heard of it for 2 s", "is_final": False, "tries": 2}
    assert list(tried(("never", ""), hand)) == [{"report": "never", "tries": 1}]


@pytest.mark.parametrize(("is_final", "tries"), [(True, 1), (False, 3)])
def test_a_final_error_is_not_tried_again(is_final, tries):
    def failing(_):
        yield {"error": "no", "is_final": is_final}

    assert list(tried({}, Here(does=failing), 3)) == [{"error": "no", "is_final": is_final, "tries": tries}]


def test_shards_part_the_jobs():
    parts = [shard_of(f"{n}/3", {}) for n in (1, 2, 3)]
    jobs = list(range(10))
    assert sorted(it for n, of in parts for it in jobs[n::of]) == jobs
    assert shard_of("auto", {"SLURM_PROCID": "2", "SLURM_NTASKS": "5"}) == (2, 5)
    assert shard_of("auto", {"RANK": "0", "WORLD_SIZE": "2"}) == (0, 2)
    for wrong in ("0/3", "4/3", "x", "1/0", "", "auto"):
        with pytest.raises(BadRecipe):
            shard_of(wrong, {})


QUICK = ["--net=alexnet", "--size=64", "--coarsest=64", "--steps=3", "--device=cpu"]
SHARDED = {
    "grid": ["grid", picture_path("cat"), picture_path("mosaic"), *QUICK, "--rows", "beta", "5", "15", "50"],
    "video": ["video", "in", picture_path("mosaic"), *QUICK, "--frame-steps=2"],
    "scan": ["lens", "scan", picture_path("cat").parent, "--size=64", "--layers=conv1,conv2"],
}
MADE = {"grid": [""], "video": ["0.png", "3.png", "4.png", "impasto.json"], "scan": [INDEX, MANIFEST]}


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.weights
@pytest.mark.parametrize("command", SHARDED)
def test_the_last_shard_ends_what_all_have_begun(impasto, tmp_path, monkeypatch, one_thread, command):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for n, frame in enumerate([*moving(3, 64, 80), *(1 - frame for frame in moving(2, 64, 80))]):
        save(Path("in") / f"{n}.png", frame)
    end = ".png" if command == "grid" else ""
    words = [*SHARDED[command], "--threads", 1, "--quiet", "-o"]
    assert impasto(*words, f"whole{end}").returncode == 0
    for n in (2, 1):
        assert not (Path("out") / MADE[command][0]).is_file()
        done = impasto(*words, f"out{end}", "--shard", f"{n}/2")
        assert done.returncode == 0, done.stderr
    assert impasto(*words, f"out{end}", "--shard", "2/2").returncode == 0  # all is done
    for name in MADE[command]:
        assert (Path(f"out{end}") / name).read_bytes() == (Path(f"whole{end}") / name).read_bytes()
