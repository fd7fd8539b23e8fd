"""Work shared out among hands, and tried again when one has died."""

import threading

import pytest

from impasto.errors import BadInput, BadRecipe
from impasto.hand import shard_of, shared_out, tried
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


def test_what_goes_wrong_in_a_hand_is_raised_and_all_are_closed():
    def failing(work):
        raise BadInput("a defect")
        yield

    hands = [Here(does=failing), Here(does=failing)]
    with pytest.raises(BadInput, match="a defect"):
        list(shared_out([1, 2, 3], hands, lambda work, hand: hand.do(work)))
    assert all(hand.closed for hand in hands)


def test_who_stops_listening_closes_the_hands():
    hands = [Here(does=counting), Here(does=counting)]
    events = shared_out([10**6, 10**6], hands, tried)
    next(events)
    events.close()
    assert all(hand.closed for hand in hands) and threading.active_count() < 9


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
