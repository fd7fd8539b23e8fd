"""Workers on a Ray cluster: actors, each with its own cache and, if needed, a share of a GPU. Needs Ray Core, the extra `ray`.

An actor runs the same tasks as a process of this machine (tasks.py), so results and finished files are the same. All machines share
one folder. `--ray` alone starts a private Ray: this machine, its loopback, and a token for this run.
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
from impasto.tasks import CACHED, run_task
from impasto.transfer.memory_plan import LIMIT
from impasto.workers import STARTED, TIMEOUT, Event, LocalWorker, Task, Worker, WorkerDied, WorkerOptions

PRIVATE = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listen on the loopback only
    "RAY_worker_niceness": "0",  # as a process without Ray
}
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "5",  # in place of minutes of trying to join
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a worker without a GPU sees none
}
SHORT = "/tmp"  # the path of a socket has hardly more than a hundred characters
OBJECTS = 80_000_000  # bytes of Ray's object store, near its minimum: events are small
CONNECT_SECONDS = 10.0
DIED = "the worker stopped: its process or its machine is gone"


class Actor:
    """The remote side of a RayWorker. Other `versions` than the caller's are an error: the bytes depend on them.

    `memory`, in bytes, is its limit where neither the task nor the environment sets one.
    """

    def __init__(self, versions: dict[str, str], memory: int | None = None) -> None:
        settle()  # before torch is loaded
        if memory is not None:
            os.environ.setdefault(LIMIT, str(memory))
        self.cache, own = Cache(CACHED), versions_here()
        self.other = [f"{name} {own[name]} in place of {version}" for name, version in versions.items() if own[name] != version]

    def run(self, task: Task) -> Iterator[Event]:
        """The events of one task."""
        if self.other:
            yield {"error": f"a worker has {', '.join(self.other)}", "is_final": True}
        else:
            yield from run_task(task, self.cache)


def versions_here() -> dict[str, str]:
    """The versions that the bytes depend on."""
    from impasto.nets.nets import Compute
    from impasto.transfer.painting import circumstances

    versions: dict[str, str] = circumstances(Compute())["versions"]
    return versions


class RayWorker:
    """The caller's side of an Actor. The first task makes it, and the next one after it has died, wherever there is room."""

    def __init__(self, make: Callable[[], Any], timeout: float = TIMEOUT) -> None:
        self.make, self.timeout, self.closed = make, timeout, False
        self.actor: Any = None

    def run(self, task: Task) -> Iterator[Event]:
        """See Worker."""
        import ray
        from ray.exceptions import RayError

        if not self.closed:
            self.actor = self.actor or self.make()
        if self.closed:  # before, or while it was made
            self.close()
            raise WorkerDied(DIED)
        try:
            ray.get(self.actor.__ray_ready__.remote())  # when there is room for it
            yield STARTED
            for event in self.actor.run.options(num_returns="streaming").remote(task):
                yield ray.get(event)
        except RayError as error:
            self.actor = None
            raise WorkerDied(DIED) from error

    def kill(self) -> None:
        """See Worker."""
        import ray

        if (actor := self.actor) is not None:
            ray.kill(actor)

    def close(self) -> None:
        """See Worker."""
        self.closed = True
        self.kill()
        self.actor = None


@contextmanager
def workers(options: WorkerOptions, threads: int) -> Iterator[list[Worker]]:
    """One process of this machine or, with --ray, as many actors as asked for or as there is room for, with `threads` each.

    Raises MissingExtra without Ray, BadInput where no cluster answers, BadRecipe where no machine of it is large enough.
    """
    if options.ray is None:
        yield [LocalWorker(options.timeout or TIMEOUT)]
        return
    count = options.workers or max(1, (os.cpu_count() or 1) // threads)
    with _joined(options.ray[0]) if options.ray else _private_ray(threads * count):
        yield ray_workers(options, threads)


def ray_workers(options: WorkerOptions, threads: int) -> list[Worker]:
    """The workers, on the Ray that this process has joined."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    has_gpu = any(node.get("GPU") for node in nodes)
    gpus = float(has_gpu) if options.gpus_each is None else options.gpus_each
    rooms = [_room(node, threads, gpus) for node in nodes]
    if not any(rooms):
        raise BadRecipe(f"no machine of the cluster has {threads} CPUs and {gpus:g} GPUs for a worker: give fewer --threads")
    count = options.workers or sum(rooms)
    shares = (_memory(node, min(room, count)) for node, room in zip(nodes, rooms, strict=True))
    memory = min(filter(None, shares), default=None)
    make = partial(ray.remote(Actor).options(num_cpus=threads, num_gpus=gpus).remote, versions_here(), memory)
    return [RayWorker(make, options.timeout or TIMEOUT) for _ in range(count)]


def _room(node: dict[str, float], threads: int, gpus: float) -> int:
    """How many workers fit on a machine."""
    by_cpu = node.get("CPU", 0) // threads
    return int(min(by_cpu, node.get("GPU", 0) // gpus) if gpus else by_cpu)


def _memory(node: dict[str, float], workers: int) -> int | None:
    """The bytes of memory for each of several workers of a machine; None for a single one."""
    return int(node["memory"] / workers) if workers > 1 and "memory" in node else None


@contextmanager
def _joined(address: str) -> Iterator[None]:
    ray = _ray()
    try:
        if address != "auto":
            _check_answers(address)  # Ray itself would try for many minutes
        _init(ray, address=address)
    except (OSError, OverflowError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        why = f"no Ray cluster answers at {address}, or it refuses this machine's token"
        raise BadInput(f"{why}: {str(error).strip().splitlines()[0]}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise OSError or ValueError unless something listens there."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ValueError("an address is host:port, or auto")
    socket.create_connection((host, int(port)), CONNECT_SECONDS).close()


@contextmanager
def _private_ray(cpus: int) -> Iterator[None]:
    """A Ray for this command, whose folder is removed with it."""
    os.environ.update(PRIVATE)
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    ray, folder = _ray(), tempfile.mkdtemp(prefix="impasto-ray-", dir=SHORT if os.path.isdir(SHORT) else None)
    files = Path(folder) / "r"  # Ray makes it readable for everybody; the folder around it is ours alone
    try:
        _init(ray, address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=OBJECTS, _temp_dir=str(files))
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _init(ray: Any, **options: Any) -> None:
    """ray.init; afterwards SIGTERM does what it did before.

    Called in the folder of this package: workers import modules from the current folder, which may be one of pictures.
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
