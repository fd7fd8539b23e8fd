"""Hands on a cluster: Ray actors, each with its nets kept and a share of a GPU if it is to have one. Ray Core, the extra `ray`.

An actor does what a process of this machine does (work.py), so the bytes and the marks of what is finished are the same. All
machines share one folder. `--ray` alone starts a Ray of its own: this machine, its loopback, and a token for this run.
"""

import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from functools import partial
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

from impasto.cache import Cache
from impasto.errors import BadInput, BadRecipe, MissingExtra
from impasto.machine import settle
from impasto.tasks import CACHED, done
from impasto.transfer.memory_plan import LIMIT
from impasto.workers import BEGUN, PATIENCE, Crew, Died, Hand, LocalHand, Said, Work

ALONE = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listen on the loopback alone
    "RAY_worker_niceness": "0",  # as a process without Ray
}
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "5",  # in place of minutes of trying to join
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a worker without a GPU sees none
}
SHORT = "/tmp"  # the path of a socket has hardly more than a hundred characters
OBJECTS = 80_000_000  # bytes of Ray's object store, near its least: what is said is small
KNOCKING = 10.0  # seconds
KILLED = "the worker that did it died: its process or its machine is gone"


class Worker:
    """The actor. It works with the `versions` of who asks, or not at all: the bytes depend on them.

    It plans with so much `memory`, in bytes, where neither the work nor the environment says how much it may take.
    """

    def __init__(self, versions: dict[str, str], memory: int | None = None) -> None:
        settle()  # before torch is loaded
        if memory is not None:
            os.environ.setdefault(LIMIT, str(memory))
        self.cache, own = Cache(CACHED), versions_here()
        self.other = [f"{name} {own[name]} in place of {version}" for name, version in versions.items() if own[name] != version]

    def do(self, work: Work) -> Iterator[Said]:
        """One piece of work, what is said of it as it comes."""
        if self.other:
            yield {"error": f"a worker has {', '.join(self.other)}", "is_final": True}
        else:
            yield from done(work, self.cache)


def versions_here() -> dict[str, str]:
    """Of what the bytes depend on."""
    from impasto.nets.nets import Compute
    from impasto.transfer.painting import circumstances

    versions: dict[str, str] = circumstances(Compute())["versions"]
    return versions


class RayHand:
    """An actor, on the side of who asks; made when first needed, and anew, wherever there is room, after it has died."""

    def __init__(self, make: Callable[[], Any], patience: float = PATIENCE) -> None:
        self.make, self.patience, self.closed = make, patience, False
        self.actor: Any = None

    def do(self, work: Work) -> Iterator[Said]:
        """See Hand."""
        import ray
        from ray.exceptions import RayError

        if not self.closed:
            self.actor = self.actor or self.make()
        if self.closed:  # before, or while it was made
            self.close()
            raise Died(KILLED)
        try:
            ray.get(self.actor.__ray_ready__.remote())  # when there is room for it
            yield BEGUN
            for said in self.actor.do.options(num_returns="streaming").remote(work):
                yield ray.get(said)
        except RayError as error:
            self.actor = None
            raise Died(KILLED) from error

    def drop(self) -> None:
        """See Hand."""
        import ray

        if (actor := self.actor) is not None:
            ray.kill(actor)

    def close(self) -> None:
        """See Hand."""
        import ray

        self.closed = True
        if self.actor is not None:
            ray.kill(self.actor)
            self.actor = None


@contextmanager
def hands(crew: Crew, threads: int) -> Iterator[list[Hand]]:
    """One process of this machine or, with --ray, as many actors as asked for or as there is room for, of so many threads each.

    Raises MissingExtra without Ray, BadInput where no cluster answers, BadRecipe where no machine of it is large enough.
    """
    if crew.ray is None:
        yield [LocalHand(crew.timeout or PATIENCE)]
        return
    with _joined(crew.ray[0]) if crew.ray else _alone(threads * (crew.workers or _room(os.cpu_count() or 1, threads))):
        yield on_ray(crew, threads)


def on_ray(crew: Crew, threads: int) -> list[Hand]:
    """The hands, of the Ray that this process has joined."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    has_gpu = any(node.get("GPU") for node in nodes)
    gpus = float(has_gpu) if crew.gpus_each is None else crew.gpus_each
    rooms = [_places(node, threads, gpus) for node in nodes]
    if not any(rooms):
        raise BadRecipe(f"no machine of the cluster has {threads} CPUs and {gpus:g} GPUs for a worker: give fewer --threads")
    count = crew.workers or sum(rooms)
    shares = (_memory(node, min(room, count)) for node, room in zip(nodes, rooms, strict=True))
    memory = min(filter(None, shares), default=None)
    make = partial(ray.remote(Worker).options(num_cpus=threads, num_gpus=gpus).remote, versions_here(), memory)
    return [RayHand(make, crew.timeout or PATIENCE) for _ in range(count)]


def _places(node: dict[str, float], threads: int, gpus: float) -> int:
    """How many workers a machine has room for."""
    by_cpu = node.get("CPU", 0) // threads
    return int(min(by_cpu, node.get("GPU", 0) // gpus) if gpus else by_cpu)


def _memory(node: dict[str, float], workers: int) -> int | None:
    """What each of several workers of a machine may take of its memory; None where there is none beside it."""
    return int(node["memory"] / workers) if workers > 1 and "memory" in node else None


def _room(cpus: int, threads: int) -> int:
    return max(1, cpus // threads)


@contextmanager
def _joined(address: str) -> Iterator[None]:
    ray = _ray()
    try:
        if address != "auto":
            _knock(address)  # Ray itself would try for many minutes
        _init(ray, address=address)
    except (OSError, OverflowError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        said = f"there is no Ray cluster to join at {address}, or not with the token that is here"
        raise BadInput(f"{said}: {str(error).strip().splitlines()[0]}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError or ValueError unless someone answers there."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ValueError("an address is host:port, or auto")
    socket.create_connection((host, int(port)), KNOCKING).close()


@contextmanager
def _alone(cpus: int) -> Iterator[None]:
    """A Ray of our own, whose folder goes with it."""
    os.environ.update(ALONE)
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    ray, folder = _ray(), tempfile.mkdtemp(prefix="impasto-ray-", dir=SHORT if os.path.isdir(SHORT) else None)
    files = Path(folder) / "r"  # which Ray opens to everybody; nobody else comes as far
    try:
        _init(ray, address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=OBJECTS, _temp_dir=str(files))
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _init(ray: Any, **options: Any) -> None:
    """ray.init; afterwards SIGTERM does what it did before.

    From the folder that this package lies in: workers take modules from the one that it is called in, which may be one of pictures.
    """
    terminated = signal.getsignal(signal.SIGTERM)
    with chdir(Path(__file__).parent.parent):
        ray.init(logging_level="error", log_to_driver=True, **options)
    if current_thread() is main_thread():
        signal.signal(signal.SIGTERM, terminated)


def _ray() -> Any:
    os.environ.update(QUIET)
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("--ray needs the extra ray: pip install '.[ray]' in Impasto's folder") from error
    return ray
