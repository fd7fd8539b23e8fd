"""Work on a Ray cluster of several simulated machines: the bytes of the work done here, whatever dies on the way."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from impasto.batch import Batch, Job, crossed, pictures_in
from impasto.cluster import ALONE, QUIET, RayHand, on_ray
from impasto.console import Crew
from impasto.hand import LocalHand
from impasto.lens.commands import net_of
from impasto.lens.index import INDEX, MANIFEST, make_setup
from impasto.lens.scan import begin_shards, merge_shards, scan, scan_shards
from impasto.pictures import picture_path

pytestmark = pytest.mark.weights
QUICK = {"net": "alexnet", "size": 48, "coarsest": 48, "steps": 80}
ONE = {"threads": 1}
SMALL = {"object_store_memory": 80_000_000}


@pytest.fixture(scope="module")
def cluster():
    """A head that does no work itself, and two machines of one CPU and one GPU, which is none: as far as Ray knows."""
    os.environ |= {**ALONE, **QUIET, "RAY_AUTH_TOKEN": "0" * 64}
    ray = pytest.importorskip("ray", reason="Ray is missing: pip install 'impasto[ray]'")
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="impasto-ray-")
    head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": folder, **SMALL}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    machine(cluster)
    machine(cluster)
    ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def machine(cluster):
    return cluster.add_node(num_cpus=1, num_gpus=1, **SMALL)


@pytest.fixture
def hands(cluster) -> list[RayHand]:
    """Two, since each takes one CPU and half a GPU."""
    found = on_ray(Crew(gpus_each=0.5), 1)
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
    assert set(states(Batch(jobs, folder, how=ONE)).values()) == {"finished"}
    return paintings(folder)


def states(batch: Batch, hands=None, tell: Callable = lambda *_: None) -> dict[str, str]:
    return {result.job.output: result.state for result in batch.paint(hands=hands, tell=tell)}


def paintings(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def workers(nodes) -> list[int]:
    """The processes of the actors of these machines."""
    raylets = {info.process.pid for node in nodes for info in node.all_processes["raylet"]}
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent in raylets and b"ray::Worker" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:  # it has ended
            continue
    return found


def once(do: Callable[[], object]) -> Callable:
    """At each step that is told, until it has done something."""
    left = [do]
    return lambda *_: left and left[0]() and left.pop()


def test_a_batch_on_ray_has_the_bytes_of_one_here(jobs, here, hands, tmp_path):
    assert set(states(Batch(jobs, tmp_path, how=ONE), hands).values()) == {"finished"}
    assert paintings(tmp_path) == here


def test_37_killed_workers_lose_nothing(jobs, here, hands, cluster, tmp_path):
    killed: list[int] = []

    def kill():
        killed.extend(workers(cluster.list_all_nodes()))
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        return killed

    batch = Batch(jobs, tmp_path, how=ONE)
    assert set(states(batch, hands, once(kill)).values()) == {"finished"} and killed
    assert paintings(tmp_path) == here
    assert {result.tries for result in batch.results.values()} == {1, 2}


def test_37_a_machine_that_goes_loses_nothing(jobs, here, hands, cluster, tmp_path):
    third, gone = machine(cluster), []

    def remove():
        if workers([third]):
            gone.append(cluster.remove_node(third))
        return gone

    batch = Batch(jobs, tmp_path, how=ONE)
    assert set(states(batch, [*hands, *on_ray(Crew(workers=1), 1)], once(remove)).values()) == {"finished"} and gone
    assert paintings(tmp_path) == here


def test_what_is_begun_on_ray_ends_here_and_the_reverse(jobs, here, hands, tmp_path):
    for first, second in ((hands, None), (None, on_ray(Crew(), 1))):
        folder = tmp_path / ("ray" if first else "here")
        begun = Batch(jobs, folder, how=ONE).paint(hands=first)
        assert next(begun).state == "finished"
        begun.close()
        found = states(Batch(jobs, folder, how=ONE), second)
        assert "skipped" in found.values() and "finished" in found.values()
        assert paintings(folder) == here


def test_a_scan_on_ray_has_the_bytes_of_one_here(hands, tmp_path):
    """Begun on Ray, a part of it done; gone on with here, in a process of its own; ended on Ray."""
    folder, net = picture_path("cat").parent, net_of("alexnet")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in scan([folder], net, make_setup(net, ["conv1", "conv3"], size=64), tmp_path / "here"):
        pass
    torch.set_num_threads(threads)
    asked = {"kind": "scan", "folder": str(tmp_path), "places": [str(folder)], "threads": 1, "net": "alexnet"}
    asked |= {"weights": None, "weights_input": None, "setup": [["conv1", "conv3"], 9, 1, 64, "center"]}
    begin_shards(tmp_path / "ray", 3, resume=False)
    for part, them in ((0, hands[:1]), (1, [LocalHand()]), (2, hands[1:])):
        assert list(scan_shards(asked, tmp_path / "ray", [(part, 3)], them))
    assert merge_shards(tmp_path / "ray", 3)
    for name in (INDEX, MANIFEST):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
