"""Tasks distributed among workers, retried when one has died, divided among processes that know nothing of each other."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from impasto.errors import BadInput, BadRecipe
from impasto.images.images import read_picture, read_record
from impasto.lens.index import INDEX, MANIFEST
from impasto.pictures import picture_path
from impasto.recipe.recipe import Recipe, checked_recipe, make_recipe
from impasto.workers import LocalWorker, distribute, painting_task, shard_of, with_retries
from tests.clips import moving
from tests.conftest import save
from tests.fake_workers import FakeWorker

pytestmark = pytest.mark.slow


def counting(work):
    """As many steps as the work says, then its report."""
    yield from ({"step": n} for n in range(work))
    yield {"report": work}


def test_every_task_is_done_once_whichever_worker_dies():
    workers = [FakeWorker(2, counting), FakeWorker(0, counting)]
    events = list(distribute(range(9), workers, with_retries))
    assert sorted(event["report"] for _, event in events if "report" in event) == list(range(9))
    assert sum(event.get("tries", 1) - 1 for _, event in events) in (1, 2) and all(worker.closed for worker in workers)


def test_the_events_of_a_work_come_in_their_order():
    events = list(distribute([3, 4], [FakeWorker(runs=counting), FakeWorker(runs=counting)], with_retries))
    for work in (3, 4):
        assert [event.get("step", "end") for it, event in events if it == work] == [*range(work), "end"]


def test_workers_run_at_the_same_time():
    """Each waits for the other within its work."""
    both = threading.Barrier(2, timeout=30)

    def meeting(work):
        both.wait()
        yield {"report": work}

    assert len(list(distribute("ab", [FakeWorker(runs=meeting), FakeWorker(runs=meeting)], with_retries))) == 2


@pytest.mark.parametrize("wrong", [BadInput, IndexError])
def test_an_error_in_a_worker_is_raised_and_all_are_closed(wrong):
    def failing(work):
        raise wrong("a defect")
        yield

    workers = [FakeWorker(runs=failing), FakeWorker(runs=failing)]
    with pytest.raises(wrong, match="a defect"):
        list(distribute([1, 2, 3], workers, lambda work, worker: worker.run(work)))
    assert all(worker.closed for worker in workers)


def test_who_stops_listening_closes_the_workers():
    workers = [FakeWorker(runs=counting), FakeWorker(runs=counting)]
    events = distribute([10**6, 10**6], workers, with_retries)
    next(events)
    events.close()
    assert all(worker.closed for worker in workers) and threading.active_count() < 9


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
def worker(monkeypatch):
    monkeypatch.setattr("impasto.workers.COMMAND", [sys.executable, "-c", HANGING])
    worker = LocalWorker(timeout=2.0)
    yield worker
    worker.close()


def test_a_task_that_hangs_is_stopped_and_tried_again(worker, tmp_path):
    tasks = [(hangs, str(tmp_path / "marker")) for hangs in ("never", "once", "never")]
    found = [event for _, event in distribute(tasks, [worker], with_retries) if "report" in event]
    assert [(event["report"], event["tries"]) for event in found] == [("never", 1), ("once", 2), ("never", 1)]


def test_a_task_that_always_hangs_fails_and_the_next_one_runs(worker, tmp_path):
    *steps, last = with_retries(("always", str(tmp_path / "marker")), worker)
    assert steps == [{"step": 1}] * 2
    assert last == {"error": "no progress for 2 s, so the worker was stopped", "is_final": False, "tries": 2}
    assert list(with_retries(("never", ""), worker)) == [{"report": "never", "tries": 1}]


OTHERWISE = {  # of every knob a value that is not the default's
    "preset": "gatys",
    "quality": "draft",
    "size": 96,
    "seed": 7,
    "alpha": 0.5,
    "beta": 2.5,
    "tv": 0.1,
    "style_weights": (2.0, 1.0),
    "style_scale": 1.5,
    "style_rotation": 30.0,
    "style_crop": "none",
    "shape": "16:9",
    "seamless": "both",
    "init": "noise",
    "init_noise": 0.25,
    "noise_width": 0.5,
    "net": "vgg16",
    "pooling": "max",
    "padding": "reflect",
    "normalize_net": True,
    "content_layers": {"conv3_1": 1.0},
    "style_layers": {"conv2_1": 0.3},
    "style_edit": {"conv1_1": {"gain": 0.5, "units": {3: 2.0}, "pairs": {"1&2": {"weight": 0}}}},
    "style_costs": {"gram": 1.0, "w2": 0.5},
    "content_costs": {"laplacian": 1.0},
    "regions": {
        "sky": {"mask": "masks/sky.png", "style": 1, "style_mask": "/masks/old.png", "feather": 0.2},
        "sea": {"mask": "rest"},
    },
    "protect": "masks/face.png",
    "content_norm": "paper",
    "style_norm": "paper",
    "optimizer": "adam",
    "lr": 0.02,
    "history": 3,
    "falloff": 1.0,
    "clean_color": False,
    "composition": 0.3,
    "calm": 0.7,
    "detail": 0.1,
    "strokes": 0.2,
    "color": "luminance",
    "color_when": "after",
    "color_space": "oklab",
    "match_light": False,
    "coarsest": 48,
    "steps": 9,
    "fine_steps": 4,
    "changes": {3: {"beta": 9.0}},
}


@pytest.mark.parametrize("knob", Recipe.model_fields)
def test_every_knob_reaches_whoever_does_the_work(knob):
    recipe = make_recipe(**{knob: OTHERWISE[knob]})
    assert getattr(recipe, knob) != getattr(make_recipe(), knob)
    work = json.loads(json.dumps(painting_task(Path("a"), [Path("s")], Path("o"), recipe, {})))
    assert checked_recipe(work["recipe"]) == recipe


@pytest.fixture
def workers_in_this_process(monkeypatch):
    """Those of a command, which are processes otherwise; it gives them the same tasks."""
    monkeypatch.setattr("impasto.cluster.LocalWorker", lambda _: FakeWorker())


@pytest.mark.weights
@pytest.mark.usefixtures("workers_in_this_process")
def test_workers_find_masks_that_are_files_and_no_record_names_them(impasto, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.linear_gradient("L").resize((300, 200)).save("mask.png")
    Path("regions.toml").write_text('[low]\nmask = "mask.png"\nstyle_weight = 2\n')
    for option in (["--protect", "mask.png"], ["--regions", "regions.toml"]):
        words = ["batch", picture_path("cat"), picture_path("mosaic"), *QUICK, *option, "-o", "out"]
        Image.linear_gradient("L").resize(read_picture(picture_path("cat")).image.shape[:-3:-1]).save("mask.png")
        done = impasto(*words)
        assert done.returncode == 0 and "finished" in done.stdout, done.stderr
        assert "mask.png" not in json.dumps(read_record(Path("out") / "cat-mosaic.png"))
        assert "skipped" in impasto(*words).stdout
        Image.radial_gradient("L").resize(read_picture(picture_path("cat")).image.shape[:-3:-1]).save("mask.png")
        assert "finished" in impasto(*words).stdout  # with another mask it is another painting


def test_nothing_is_run_from_the_folder_that_the_pictures_lie_in(tmp_path, monkeypatch):
    for name in ("queue", "json", "impasto", "torch", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w').close()\nraise SystemExit\n")
    monkeypatch.chdir(tmp_path)
    worker = LocalWorker(timeout=60.0)
    (*_, last) = with_retries({"kind": "painting", "folder": str(tmp_path / "none")}, worker, 1)
    worker.close()
    assert "cannot open the folder" in last["error"] and not (tmp_path / "ran").exists()


CHATTY = """
import os, sys
from impasto import tasks
def chatty(asked, cache):
    print("a library says hello")
    os.write(1, b"from below\\n")
    yield {"report": asked["n"]}
tasks.RUNNERS["chatty"] = chatty
tasks.main()
"""


def test_what_libraries_print_is_not_taken_for_an_answer(monkeypatch, capfd):
    monkeypatch.setattr("impasto.workers.COMMAND", [sys.executable, "-c", CHATTY])
    worker = LocalWorker(timeout=60.0)
    assert [last["report"] for n in (1, 2) for last in with_retries({"kind": "chatty", "folder": ".", "n": n}, worker)] == [1, 2]
    worker.close()
    assert capfd.readouterr().err.count("from below") == 2


DRIVER = """
import subprocess, sys, time
from impasto.workers import LocalWorker
worker = LocalWorker()
events = worker.run({"kind": "waiting", "folder": "."})
next(events)
print(worker.process.pid, flush=True)
time.sleep(1000)
"""
WAITING = "import time; from impasto import tasks; tasks.RUNNERS['waiting'] = lambda *_: time.sleep(1000) or iter(()); tasks.main()"


def test_a_worker_ends_with_whoever_gives_it_work():
    script = f"import impasto.workers as h, sys; h.COMMAND = [sys.executable, '-c', {WAITING!r}]\n{DRIVER}"
    driver = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    worker = int(driver.stdout.readline())
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 60
    while (state := state_of(worker)) not in ("", "Z") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert state in ("", "Z")


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@pytest.mark.parametrize(("is_final", "tries"), [(True, 1), (False, 3)])
def test_a_final_error_is_not_tried_again(is_final, tries):
    def failing(_):
        yield {"error": "no", "is_final": is_final}

    assert list(with_retries({}, FakeWorker(runs=failing), 3)) == [{"error": "no", "is_final": is_final, "tries": tries}]


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
def test_the_last_shard_ends_what_all_have_begun(impasto, tmp_path, monkeypatch, one_thread, request, command):
    """The first is a worker in a process of its own, as users have them; the others are in this one."""
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
        request.getfixturevalue("workers_in_this_process")
    assert impasto(*words, f"out{end}", "--shard", "2/2").returncode == 0  # all is done
    for name in MADE[command]:
        assert (Path(f"out{end}") / name).read_bytes() == (Path(f"whole{end}") / name).read_bytes()
