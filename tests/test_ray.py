"""Tasks on a Ray cluster of several simulated machines: the bytes of the same tasks here, whatever dies on the way."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from impasto.batch import Batch, Job, Result, crossed, pictures_in
from impasto.cluster import PRIVATE, QUIET, Actor, RayWorker, ray_workers, versions_here
from impasto.errors import BadRecipe
from impasto.grid import Sheet, make_grid
from impasto.lens.index import INDEX, MANIFEST, make_setup
from impasto.lens.scan import begin_shards, merge_shards, scan, scan_shards
from impasto.pictures import picture_path
from impasto.recipe.recipe import make_recipe
from impasto.transfer.memory_plan import LIMIT, default_budget
from impasto.video.video import Motion, Video
from impasto.weights import load_net
from impasto.workers import WorkerOptions
from tests.clips import moving
from tests.conftest import check_one_line, save
from tests.fake_workers import FakeWorker

pytestmark = [
    pytest.mark.weights,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is missing: pip install '.[ray]'"),
]
QUICK = {"net": "alexnet", "size": 48, "coarsest": 48, "steps": 50}
ONE = {"threads": 1}
SMALL = {"object_store_memory": 80_000_000}


@pytest.fixture(scope="module")
def cluster():
    """A head that does no work itself, and two machines of one CPU and one GPU, which is none: as far as Ray knows."""
    patched, folder = pytest.MonkeyPatch(), tempfile.mkdtemp(prefix="impasto-ray-")
    (Path(folder) / "ray").mkdir()  # where it writes its address
    for name, value in {**PRIVATE, **QUIET, "RAY_AUTH_TOKEN": "0" * 64, "RAY_TMPDIR": folder}.items():
        patched.setenv(name, value)
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": folder, **SMALL}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    machine(cluster)
    machine(cluster)
    ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
    patched.undo()


def machine(cluster):
    return cluster.add_node(num_cpus=1, num_gpus=1, **SMALL)


@pytest.fixture
def workers(cluster) -> list[RayWorker]:
    """Two, since each takes one CPU and half a GPU."""
    found = ray_workers(WorkerOptions(gpus_each=0.5), 1)
    assert len(found) == 2
    return found


@pytest.fixture(scope="module")
def jobs(tmp_path_factory) -> list[Job]:
    folder = tmp_path_factory.mktemp("pictures")
    for kind, names in (("contents", ("cat", "astronaut")), ("styles", ("mosaic", "renoir-moulin"))):
        (folder / kind).mkdir()
        for name in names:
            shutil.copy(picture_path(name), folder / kind)
    return crossed(pictures_in(folder / "contents"), pictures_in(folder / "styles"), [], QUICK)


@pytest.fixture(scope="module")
def here(jobs, tmp_path_factory) -> dict[str, bytes]:
    """The paintings as one process of this machine paints them."""
    folder = tmp_path_factory.mktemp("here")
    assert set(states(Batch(jobs, folder, options=ONE), [FakeWorker()]).values()) == {"finished"}
    return paintings(folder)


def states(batch: Batch, workers=None, on_step: Callable[[], object] = lambda: None) -> dict[str, str]:
    for _, event in batch.events(workers=workers):
        if not isinstance(event, Result):
            on_step()
    return {result.job.output: result.state for result in batch.results.values()}


def paintings(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def processes(nodes) -> list[int]:
    """The processes of the actors of these machines that have started."""
    raylets = {info.process.pid for node in nodes for info in node.all_processes["raylet"]}
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            title = (path / "cmdline").read_bytes()
            if parent in raylets and b"ray::Actor" in title and b"__init__" not in title:  # one that starts may wait for ever
                found.append(int(path.name))
        except OSError:  # it has ended
            continue
    return found


def once(do: Callable[[], object]) -> Callable:
    """At each step, until it has done something."""
    left = [do]
    return lambda: left and left[0]() and left.pop()


def test_workers_of_one_machine_share_its_memory(cluster, monkeypatch):
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0, "memory": 8e9}}, {"Alive": True, "Resources": {"CPU": 1.0, "memory": 1e9}}]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    asked = [ray_workers(crew, 1)[0].make.args[1] for crew in (WorkerOptions(), WorkerOptions(workers=2), WorkerOptions(workers=1))]
    assert asked == [2_000_000_000, 4_000_000_000, None]  # the second machine's only worker has all of that


def test_a_worker_plans_with_its_share_unless_the_machine_says_another(monkeypatch):
    monkeypatch.setattr("os.environ", {**os.environ})
    Actor(versions_here(), 3_000_000_000)
    assert default_budget() == 3e9
    Actor(versions_here(), 5_000_000_000)
    assert default_budget() == 3e9
    monkeypatch.setitem(os.environ, LIMIT, "2GB")
    with pytest.raises(BadRecipe, match=r"IMPASTO_MAX_MEMORY is '2GB', must be a number of bytes"):
        default_budget()


def test_a_worker_that_dies_and_one_that_hangs_lose_nothing(jobs, here, cluster, tmp_path):
    struck: list[int] = []

    def strike():
        if len(found := processes(cluster.list_all_nodes())) == 2:
            struck.extend(found)
            os.kill(found[0], signal.SIGKILL)
            os.kill(found[1], signal.SIGSTOP)
        return struck

    batch, workers = Batch(jobs, tmp_path, options=ONE), ray_workers(WorkerOptions(gpus_each=0.5, timeout=20), 1)
    assert set(states(batch, workers, once(strike)).values()) == {"finished"} and struck
    assert paintings(tmp_path) == here
    assert [result.tries for result in batch.results.values()].count(2) == 2


def test_a_machine_that_goes_loses_nothing(jobs, here, workers, cluster, tmp_path):
    third, gone = machine(cluster), []

    def remove():
        if processes([third]):
            gone.append(cluster.remove_node(third))
        return gone

    batch = Batch(jobs, tmp_path, options=ONE)
    assert set(states(batch, [*workers, *ray_workers(WorkerOptions(workers=1), 1)], once(remove)).values()) == {"finished"} and gone
    assert paintings(tmp_path) == here


def test_what_is_begun_on_ray_ends_here_and_the_reverse(jobs, here, workers, tmp_path):
    for on_ray, first, second in ((True, workers[:1], [FakeWorker()]), (False, [FakeWorker()], workers[1:])):
        folder = tmp_path / ("ray" if on_ray else "here")
        begun = Batch(jobs, folder, options=ONE).paint(workers=first)
        assert next(begun).state == "finished"
        begun.close()
        found = states(Batch(jobs, folder, options=ONE), second)
        assert "skipped" in found.values() and "finished" in found.values()
        assert paintings(folder) == here


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("is_first", [True, False], ids=["begun on Ray", "ended on Ray"])
def test_a_grid_has_the_bytes_of_one_here_and_is_ended_where_it_was_not_begun(jobs, workers, one_thread, tmp_path, is_first):
    grid = make_grid([jobs[0].content, *jobs[0].styles], ["beta", "5", "15", "50"], [], {**QUICK, "steps": 4})
    whole, parted = Sheet(grid, tmp_path / "whole.png"), Sheet(grid, tmp_path / "parted.png")
    whole.paint(lambda _, painting: deque(painting.steps(), 0))
    first, second = [workers[:1], [FakeWorker()]] if is_first else [[FakeWorker()], workers[:1]]
    begun = parted.distribute(first, ONE)
    next(spot for spot, event in begun if isinstance(event, Result))
    begun.close()
    painted, again = len(parted.found), Sheet(grid, parted.output)
    worked = {spot for spot, event in again.distribute(second, ONE) if not isinstance(event, Result)}
    assert painted and worked and painted + len(worked) == len(grid.cells)
    for sheet in (whole, again):
        sheet.write()
        sheet.check()
    for ours, theirs in ((whole.output, again.output), *zip(whole.found.values(), again.found.values(), strict=True)):
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_video_on_ray_has_the_bytes_of_one_here(jobs, workers, one_thread, tmp_path):
    (tmp_path / "in").mkdir()
    for n, frame in enumerate([*moving(3, 64, 80), *(1 - frame for frame in moving(2, 64, 80))]):
        save(tmp_path / "in" / f"{n}.png", frame)
    here, there = (
        Video(tmp_path / "in", jobs[0].styles, tmp_path / name, make_recipe(**{**QUICK, "size": 64, "steps": 4}), Motion(steps=2))
        for name in ("here", "there")
    )
    deque(here.steps(), 0)
    assert {name for name, _ in there.distribute(workers[:1])} == {"0", "3"}
    assert len(list(here.output.iterdir())) == 6
    for path in here.output.iterdir():
        assert path.read_bytes() == (there.output / path.name).read_bytes()


def test_a_scan_on_ray_has_the_bytes_of_one_here(workers, one_thread, tmp_path):
    """Begun on Ray, a part of it done; gone on with here; ended on Ray."""
    folder, net = picture_path("cat").parent, load_net("alexnet")
    deque(scan([folder], net, make_setup(net, ["conv1", "conv3"], size=64), tmp_path / "here"), 0)
    asked = {"kind": "scan", "folder": str(tmp_path), "places": [str(folder)], "threads": 1, "net": "alexnet"}
    asked |= {"weights": None, "weights_input": None, "setup": [["conv1", "conv3"], 9, 1, 64, "center"]}
    begin_shards(tmp_path / "ray", 3, resume=False)
    for part, them in ((0, workers[:1]), (1, [FakeWorker()]), (2, workers[1:])):
        assert list(scan_shards(asked, tmp_path / "ray", [(part, 3)], them))
    assert merge_shards(tmp_path / "ray", 3)
    for name in (INDEX, MANIFEST):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_workers_are_as_many_as_there_is_room_for(cluster):
    assert [len(ray_workers(WorkerOptions(gpus_each=gpus), 1)) for gpus in (0, 0.5, None)] == [2, 2, 2]
    assert len(ray_workers(WorkerOptions(workers=7, gpus_each=0), 1)) == 7
    with pytest.raises(BadRecipe, match=r"no machine of the cluster has 64 CPUs and 1 GPUs for a worker: give fewer --threads"):
        ray_workers(WorkerOptions(), 64)


def test_a_worker_of_other_versions_does_nothing(jobs, cluster, tmp_path):
    import ray

    other = RayWorker(lambda: ray.remote(Actor).remote({**versions_here(), "torch": "1.0"}))
    batch = Batch(jobs[:1], tmp_path / "out", options=ONE)
    assert set(states(batch, [other]).values()) == {"failed"} and not paintings(tmp_path / "out")
    assert re.fullmatch(r"a worker has torch \S+ in place of 1\.0", batch.results[jobs[0].output].error)


def test_a_folder_that_a_worker_does_not_have_gives_an_error(jobs, workers, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rename(tmp_path / "moved")
    monkeypatch.setattr(os, "getcwd", lambda: str(tmp_path / "gone"))
    batch = Batch(jobs[:1], tmp_path / "out", options=ONE)
    assert set(states(batch, workers).values()) == {"failed"}
    assert "a worker cannot open the folder" in batch.results[jobs[0].output].error and batch.results[jobs[0].output].tries == 1


def test_the_command_starts_a_ray_of_its_own_that_runs_nothing_from_where_it_is_called(jobs, here, tmp_path):
    (called := tmp_path / "called").mkdir()
    for name in ("queue", "json", "impasto", "torch"):
        (called / f"{name}.py").write_text("open('ran', 'w').close()\nraise SystemExit\n")
    folder = jobs[0].content.parent.parent
    knobs = [f"--{name}={value}" for name, value in QUICK.items()]
    command = [
        "batch",
        folder / "contents",
        folder / "styles",
        "-o",
        tmp_path,
        *knobs,
        "--threads",
        "1",
        "--json",
        "--workers",
        "2",
        "--ray",
    ]
    run = [sys.executable, "-P", "-m", "impasto", *map(str, command)]
    done = subprocess.run(run, capture_output=True, text=True, check=True, timeout=300, cwd=called)
    assert not (called / "ran").exists()
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("state") for line in lines] == ["finished"] * 4 + [None] and paintings(tmp_path) == here


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "127.0.0.1:99999", "cluster"])
def test_a_cluster_that_is_not_there_gives_a_one_line_error(impasto, jobs, tmp_path, address):
    result = impasto("lens", "scan", jobs[0].content, "-o", tmp_path / "out", "--ray", address)
    check_one_line(result, 5, f"no Ray cluster answers at {address}, or")


def test_a_missing_ray_is_one_line(impasto, jobs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = impasto("batch", jobs[0].content, jobs[0].styles[0], "-o", tmp_path / "out", "--ray")
    assert result.returncode == 2 and "pip install '.[ray]'" in result.stderr and "Traceback" not in result.stderr
