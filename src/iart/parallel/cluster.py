"""Worker processes on all machines of a Ray cluster, with the interface of `Processes`.

    with Cluster("auto", cpus=4) as cluster, cluster.workers(load, describe) as workers:
        futures = [workers.submit(task) for task in tasks]

Ray starts the workers, says when one is lost, and starts it again where there is room. Everything
else is the same: a worker loads once, takes tasks, and ends with this process. What a lost worker
had begun fails with a `WorkerLostError`; whoever submitted it gives it to another one.

Ray is imported by `Cluster` only, after the environment says what it may do.
"""

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from iart.errors import DeviceError, MissingExtraError, OptionsError, first_line
from iart.files.names import hidden_name
from iart.parallel.scratch import machine_mark
from iart.parallel.workers import ClusterWorkers

Loaded = TypeVar("Loaded")

LOCAL = "local"
"""In place of an address: a cluster of this machine alone, for as long as the command runs."""
USUAL_CPUS = 4
"""Of a worker without a GPU, where its machine has as many."""
STORE_BYTES = 128 * 2**20
"""Of Ray's object store, of a cluster of our own: only messages go through it."""
REACH_SECONDS = 10
"""How long a machine may take to answer at all."""
_NOT_REACHED = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_FOLDER = "iart-ray-"  # short: sockets in it have names of 107 bytes at most


class Cluster:
    """A Ray cluster that is joined, or started, until the end of a `with` block.

    Attributes:
        size: how many workers have room.
        cpus: that each of them takes.
        gpus: likewise.
        share: of a GPU, or of the smallest machine, that falls to one.
    """

    def __init__(
        self,
        address: str,
        *,
        cpus: float | None = None,
        gpus: float | None = None,
        output: Path | None = None,
    ) -> None:
        """Say where to work.

        Args:
            address: of a cluster, "auto" for that of RAY_ADDRESS or of this machine, or "local".
            cpus: that a worker takes; None for 4, or all of a machine that has fewer, and for 1
                beside a GPU.
            gpus: that a worker takes, or the part of one; None for 1 if the cluster has any.
            output: beside which a cluster of our own puts what its store cannot hold; None for
                the temporary folder.

        Raises:
            OptionsError: these are not numbers above 0; or the address is one of Ray's client.
        """
        for name, value in (("cpus", cpus), ("gpus", gpus)):
            if value is not None and not (value >= 0 if name == "gpus" else value > 0):
                raise OptionsError(f"--cluster-{name} is a number above 0, got {value}")
            if value is not None and value > 1 and value != int(value):
                raise OptionsError(f"--cluster-{name} above 1 is a whole number, got {value}")
        if "://" in address:
            raise OptionsError(
                f"cannot join '{address}': pass HOST:PORT, and run this on a machine of the cluster"
            )
        self._address, self._cpus, self._gpus = address, cpus, gpus
        self._output = output

    def __enter__(self) -> "Cluster":
        """Join, or start.

        Raises:
            MissingExtraError: Ray is not installed.
            DeviceError: there is no such cluster, or it has no room for one worker.
        """
        with ExitStack() as stack:
            settings: dict[str, Any] = {"address": self._address}
            if self._address == LOCAL:
                settings = _settings_of_our_own(stack, self._output)
            address = (
                os.environ.get("RAY_ADDRESS", "") if self._address == "auto" else self._address
            )
            if address.startswith(("127.", "localhost")):  # else Ray takes it for another address
                os.environ[_NOT_REACHED] = "0"
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            try:
                ray: Any = import_module("ray")
            except ModuleNotFoundError as error:
                raise MissingExtraError(
                    "--cluster needs Ray; install it with: pip install 'iart-vsr[cluster]'"
                ) from error
            try:
                if address in ("auto", ""):
                    services: Any = import_module("ray._private.services")
                    # the last one that was started here, whether or not it still runs
                    _reach(services.get_ray_address_from_environment("auto", None))
                elif address != LOCAL:
                    _reach(address)
                _init(ray, stack, settings, started=address == LOCAL)
            except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
                reason = first_line(error).rstrip(".")
                raise DeviceError(
                    f"cannot join a Ray cluster at '{address or self._address}': {reason}. Start"
                    " one with `ray start --head`, or pass --cluster local"
                ) from error
            # Lost workers are told by us; Ray would print them to stdout, and asks nobody.
            worker: Any = import_module("ray._private.worker")
            worker._worker_logs_enabled = False
            self._plan(ray.nodes())
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def _plan(self, nodes: list[dict[str, Any]]) -> None:
        """Decide how many workers there are, and what each takes."""
        rooms = [node["Resources"] for node in nodes if node["Alive"]]
        has_gpus = any(room.get("GPU", 0) for room in rooms)
        self.gpus = (1.0 if has_gpus else 0.0) if self._gpus is None else self._gpus
        most = min((room["CPU"] for room in rooms if room.get("CPU")), default=1.0)
        usual = 1.0 if self.gpus else min(USUAL_CPUS, most)
        self.cpus = usual if self._cpus is None else self._cpus

        def fitting(room: dict[str, float]) -> int:
            by_cpus = room.get("CPU", 0) / self.cpus
            return int(min(by_cpus, room.get("GPU", 0) / self.gpus) if self.gpus else by_cpus)

        self.size = sum(map(fitting, rooms))
        self.share = min(1.0, self.gpus or self.cpus / most)
        if not self.size:
            of = f"{self.cpus:g} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")
            raise DeviceError(
                f"no machine of the cluster has room for a worker of {of}; pass other"
                " --cluster-cpus or --cluster-gpus"
            )

    @contextmanager
    def workers(
        self, load: Callable[[], Loaded], describe: Callable[[Loaded], str]
    ) -> "Iterator[ClusterWorkers[Loaded]]":
        """As many workers as have room.

        Args:
            load: called once in each worker, and again where one is restarted.
            describe: what was loaded, in words; must be the same on every machine.
        """
        workers = ClusterWorkers(load, describe, size=self.size, cpus=self.cpus, gpus=self.gpus)
        try:
            yield workers
        finally:
            workers.close()


def _init(ray: Any, stack: ExitStack, settings: dict[str, Any], *, started: bool) -> None:
    """Call `ray.init`, and `ray.shutdown` at the end.

    In a thread: there Ray leaves signals alone, and one that comes meanwhile is heeded, where Ray
    is `started`, when all of it can be stopped. The thread lasts as long as Ray, whose daemons end
    with it.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)  # it warns that it leaves signals alone
    begun: Future[Any] = Future()
    end = threading.Event()

    def begin() -> None:
        try:
            quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
            begun.set_result(ray.init(**settings, **quiet))
        except BaseException as error:  # noqa: BLE001  # it is raised where the result is asked for
            begun.set_exception(error)
        end.wait()

    thread = threading.Thread(target=begin, name="ray", daemon=True)

    def leave() -> None:
        ray.shutdown()
        end.set()
        if begun.done():  # else something that is not Ray listens, and Ray tries for long
            thread.join()

    thread.start()
    stack.callback(leave)
    try:
        begun.result()
    finally:
        if started:
            wait([begun])
        if threading.current_thread() is threading.main_thread():
            # beneath Python, Ray has taken SIGTERM to print where it came
            known = signal.getsignal(signal.SIGTERM)
            if known is not None:  # one that was not set from Python cannot be set again
                signal.signal(signal.SIGTERM, known)


def _reach(address: str) -> None:
    """See whether anything listens there: Ray would try for a quarter of an hour.

    Raises:
        ConnectionError: nothing does.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise ConnectionError("it is no HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(getattr(error, "strerror", None) or str(error)) from error


def _settings_of_our_own(stack: ExitStack, output: Path | None) -> dict[str, Any]:
    """What Ray is started with on this machine alone: nothing of it can be reached from others."""
    os.environ[_NOT_REACHED] = "0"  # else it listens on all interfaces
    place = Path(tempfile.gettempdir() if len(tempfile.gettempdir()) < 20 else "/tmp")
    folder = _made(stack, place, _FOLDER)
    spilled = folder
    if output is not None and output.absolute().parent.is_dir():  # else it is refused later
        name = hidden_name(output.absolute(), f".spilled-{machine_mark()}-")
        with suppress(OSError):  # an output that cannot be written is told of later
            spilled = _made(stack, name.parent, name.name)
    return {
        "address": LOCAL,
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": folder,
        "object_spilling_directory": spilled,
        "object_store_memory": STORE_BYTES,
    }


def _made(stack: ExitStack, place: Path, name: str) -> str:
    """A folder until the end; those of commands that were killed go."""
    for left in place.iterdir():
        owner = left.name.removeprefix(name).partition("-")[0]
        is_ours = left.name.startswith(name) and owner.isdecimal() and Path("/proc").exists()
        if is_ours and not Path("/proc", owner).exists():
            shutil.rmtree(left, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"{name}{os.getpid()}-", dir=place)
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder
