"""A real cluster of Ray on this machine, of three nodes of one CPU, in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NODES = 3
STORE_BYTES = 80 * 2**20
"""Of each node."""

PROGRAM = """
import sys, warnings
from ray.cluster_utils import Cluster

node = {"num_cpus": 1, "include_dashboard": False, "node_ip_address": "127.0.0.1"}
store = {"object_store_memory": int(sys.argv[2])}
cluster = Cluster(initialize_head=True, head_node_args=node | store)
others = []
def add(**environment):
    environment["IART_TEST_NODE"] = str(len(others))
    others.append(cluster.add_node(**node, **store, env_vars=environment))
for _ in range(int(sys.argv[1]) - 1):
    add()
print(cluster.address, flush=True)
for line in sys.stdin:
    word, *settings = line.split()
    if word == "add":
        add(**dict(each.split("=", 1) for each in settings))
    else:
        cluster.remove_node(others.pop(), allow_graceful=word == "leave")
    print("done", flush=True)
cluster.shutdown()
"""


class RayCluster:
    """Of `running`; started by `ray.cluster_utils`, as Ray tests itself."""

    def __init__(self, process: subprocess.Popen[str], mark: str) -> None:
        self._process, self._mark, self._others = process, mark, NODES - 1
        assert process.stdout is not None
        self.address = process.stdout.readline().strip()

    @contextmanager
    def node(self, **environment: str | Path) -> Iterator[None]:
        """One more node in the block, whose workers have this in their environment."""
        self._have(" ".join(["add", *(f"{name}={text}" for name, text in environment.items())]))
        self._others += 1
        try:
            yield
        finally:  # the cluster knows at once, and waits for no worker there
            self._have("leave")
            self._others -= 1

    def remove_node(self) -> None:
        """End all processes of the newest node, which no driver is on, without a farewell."""
        self._have("remove")
        self._others -= 1

    def _have(self, done: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(done, file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == "done\n"

    def actors(self) -> list[int]:
        """Processes of workers."""
        return [pid for pid in marked(self._mark) if "ray::Actor" in _command(pid)]

    def opened(self) -> set[Path]:
        """Files that workers have open."""
        return {path for pid in self.actors() for path in opened(pid)}

    def held(self, *, on_newest_node: bool = False) -> int | None:
        """A worker that is stopped (SIGSTOP) while it writes a segment: its film cannot end.

        None if none writes at this moment.
        """
        newest = marked(f"IART_TEST_NODE={self._others - 1}")
        for pid in self.actors():
            if on_newest_node and pid not in newest:
                continue
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                if any(path.match("segments/*.part") for path in opened(pid)):
                    return pid
                os.kill(pid, signal.SIGCONT)
        return None


@contextmanager
def running(folder: Path) -> Iterator[RayCluster]:
    """A cluster whose sockets and logs lie in `folder`, which must have a short name.

    Its temporary files, too.
    """
    folder.mkdir()
    mark = f"RAY_TMPDIR={folder}"
    environment = os.environ | {
        "RAY_TMPDIR": str(folder),
        "TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(NODES), str(STORE_BYTES)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        try:
            yield RayCluster(process, mark)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


def marked(mark: str) -> list[int]:
    """Processes that were started with `NAME=value` in their environment, and live."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdecimal() and mark.encode() in (place / "environ").read_bytes():
                found.append(int(place.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found


def opened(pid: int) -> set[Path]:
    """What a process has open, by the kernel's names; sockets as well."""
    found = set()
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(link.readlink())
    except OSError:  # it has ended
        pass
    return found


def listening(pids: list[int]) -> set[str]:
    """Addresses, as the kernel writes them, on which processes listen."""
    links = {str(path) for pid in pids for path in opened(pid)}
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            _, local, _, state, *more = line.split()
            if state == "0A" and f"socket:[{more[5]}]" in links:
                found.add(local.partition(":")[0])
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
