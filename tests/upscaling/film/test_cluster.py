"""Films on a real cluster of Ray: the same bytes as in one process, whatever is lost on the way."""

import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import ignore_patterns

import numpy as np
import pytest

import iart
from iart.parallel.scratch import machine_mark
from tests.processes import errors_at_end, start_iart, wait_until
from tests.ray_cluster import STORE_BYTES, RayCluster, listening, marked, running
from tests.video.clips import make_clip, picture, save_image

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

LENGTHS = (50, 20, 50, 250, 20)
"""Of scenes: one too short for a segment of its own, one too long for one."""
SHORT_OF_MEMORY = Path(__file__).with_name("short_of_memory.py")
LONG = (50,) * 30
"""Of scenes, of which there are more than any worker makes before another is lost."""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Of a short name: sockets lie in it."""
    place = Path(tempfile.mkdtemp(prefix="iart-t", dir="/tmp"))
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[RayCluster]:
    with running(folder / "ray") as cluster:
        yield cluster


def film(path: Path, lengths: tuple[int, ...], first: int = 0) -> Path:
    images = [
        picture(index, 32, 32, scene=first + scene)
        for scene, count in enumerate(lengths)
        for index in range(count)
    ]
    return make_clip(path, images, audio=["eng"])


@pytest.fixture(scope="module")
def films(folder: Path) -> list[Path]:
    return [film(folder / f"{n}.mkv", LENGTHS, 7 * i) for i, n in enumerate("abc")]


@pytest.fixture(scope="module")
def copies(folder: Path) -> Path:
    """Where all nodes keep what is shipped, as they are on one machine."""
    return folder / "ray" / f"iart-{os.getuid()}-{machine_mark()}"


@pytest.fixture(scope="module")
def long(folder: Path) -> Path:
    return film(folder / "long.mkv", LONG)


def start(*words: str | Path, model: str = "bicubic", **more: str) -> subprocess.Popen[str]:
    command = ["upscale", *words, "--model", model]
    command += [] if {"--codec", "--images"} & set(words) else ["--preset", "ultrafast"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | more
    return start_iart(*command, stdout=subprocess.PIPE, env=environment)


def ended(process: subprocess.Popen[str]) -> str:
    """What it wrote to stderr, and nothing to stdout."""
    written, errors = process.communicate()
    assert process.returncode == 0, errors
    assert not written
    return errors


def alone(source: Path, model: str = "bicubic") -> Path:
    """The output of one process."""
    output = source.with_name(f"{source.stem}-{model}.mkv")
    if not output.exists():
        ended(start(source, "-o", output, model=model))
    return output


def finished(output: Path) -> int:
    return len(list((output.parent / f".{output.name}.job" / "segments").glob("*.json")))


@contextmanager
def holding(
    cluster: RayCluster, process: subprocess.Popen[str], *, on_newest_node: bool = False
) -> Iterator[int]:
    """A worker that stands still in the block, amid a segment: the film goes on until its end."""
    found: list[int] = []

    def one_is_held() -> bool:
        found.extend(filter(None, [cluster.held(on_newest_node=on_newest_node)]))
        return bool(found)

    wait_until(one_is_held, process)
    try:
        yield found[0]
    finally:
        with suppress(ProcessLookupError):
            os.kill(found[0], signal.SIGCONT)


def test_one_film(cluster: RayCluster, films: list[Path], tmp_path: Path):
    output = tmp_path / "out.mkv"
    errors = ended(start(films[0], "-o", output, "--cluster", "auto", RAY_ADDRESS=cluster.address))
    assert output.read_bytes() == alone(films[0]).read_bytes()
    assert list(tmp_path.iterdir()) == [output]
    assert f"{output}: 390 frames in " in errors
    wait_until(lambda: not cluster.actors())


def test_the_network(cluster: RayCluster, films: list[Path], tmp_path: Path):
    """Computed with as many threads as one process: that is what its last bits depend on."""
    output, whole = tmp_path / "out.mkv", tmp_path / "whole.mkv"
    words = ("--end", "5", "--codec", "ffv1")
    ended(start(films[0], "-o", output, *words, "--cluster", cluster.address, model="light"))
    ended(start(films[0], "-o", whole, *words, "--threads", "1", model="light"))
    assert output.read_bytes() == whole.read_bytes()


def test_three_films_share_the_workers(cluster: RayCluster, films: list[Path], tmp_path: Path):
    errors = ended(start(*films, "-o", tmp_path / "out/", "--cluster", cluster.address))
    for path in films:
        assert (tmp_path / "out" / path.name).read_bytes() == alone(path).read_bytes()
    assert errors.count(": 390 frames in ") == 3


def test_shipped(cluster: RayCluster, copies: Path, long: Path, tmp_path: Path):
    """Workers read copies, one on each node, and see neither the source nor the job."""
    output = tmp_path / "out.mkv"
    process = start(long, "-o", output, "--cluster", cluster.address, "--ship")
    seen = set[Path]()

    def two_copies_are_read() -> bool:
        seen.update(cluster.opened())
        return len({path for path in seen if path.name == long.name}) >= 2

    wait_until(two_copies_are_read, process)
    ended(process)
    assert output.read_bytes() == alone(long).read_bytes()
    read = {path for path in seen if path.name == long.name}
    assert all(path.is_relative_to(copies) for path in read)
    assert len({path.relative_to(copies).parts[0] for path in read}) == len(read)
    assert not [path for path in seen if path.is_relative_to(tmp_path)]
    assert list(tmp_path.iterdir()) == [output]
    assert [path.name for path in copies.iterdir()] == ["lock"]


def test_shipped_pictures(cluster: RayCluster, tmp_path: Path):
    source = tmp_path / "in"
    source.mkdir()
    for index in range(70):
        image = picture(index, 32, 32, scene=index // 50)
        save_image(source / f"{index}.png", image, pixel_format="rgb24")
    words = (source, "--images", "-o")
    ended(start(*words, tmp_path / "whole"))
    ended(start(*words, tmp_path / "out", "--cluster", cluster.address, "--ship"))
    made, whole = (sorted((tmp_path / name).iterdir()) for name in ("out", "whole"))
    assert [path.name for path in made] == [path.name for path in whole]
    assert [path.read_bytes() for path in made] == [path.read_bytes() for path in whole]


def test_a_worker_is_killed_where_films_are_shipped(
    cluster: RayCluster, long: Path, tmp_path: Path
):
    output = tmp_path / "out.mkv"
    process = start(long, "-o", output, "--cluster", cluster.address, "--ship")
    wait_until(lambda: finished(output), process)
    with holding(cluster, process) as worker:
        os.kill(worker, signal.SIGKILL)
    assert "was lost" in ended(process)
    assert output.read_bytes() == alone(long).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_stopped_leaves_no_copies(
    cluster: RayCluster, copies: Path, long: Path, tmp_path: Path, number: signal.Signals
):
    output = tmp_path / "out.mkv"
    process = start(long, "-o", output, "--cluster", cluster.address, "--ship", "--quiet")
    wait_until(lambda: finished(output), process)
    with holding(cluster, process):
        process.send_signal(number)
    assert errors_at_end(process) == "interrupted: the same command goes on\n"
    assert process.returncode == 130
    assert [path.name for path in copies.iterdir()] == ["lock"]
    wait_until(lambda: not cluster.actors())


def test_a_worker_is_killed(cluster: RayCluster, long: Path, tmp_path: Path):
    output = tmp_path / "out.mkv"
    process = start(long, "-o", output, "--cluster", cluster.address)
    with holding(cluster, process) as worker:
        os.kill(worker, signal.SIGKILL)
    assert "was lost" in ended(process)
    assert output.read_bytes() == alone(long).read_bytes()


def test_the_driver_is_killed_and_run_again(cluster: RayCluster, long: Path, tmp_path: Path):
    output = tmp_path / "out.mkv"
    process = start(long, "-o", output, "--cluster", cluster.address)
    wait_until(lambda: finished(output), process)
    with holding(cluster, process):
        process.kill()
        errors_at_end(process)
    assert not output.exists()
    wait_until(lambda: not cluster.actors())
    assert "going on at frame" in ended(start(long, "-o", output, "--cluster", cluster.address))
    assert output.read_bytes() == alone(long).read_bytes()


def other_package(folder: Path, *, version: bool) -> Path:
    """A place where Python finds another version of this package, or one with other weights."""
    package = folder / "iart"
    shutil.copytree(Path(iart.__file__).parent, package, ignore=ignore_patterns("__pycache__"))
    if version:
        with (package / "version.py").open("a") as file:
            file.write("# other\n")
    else:
        assets = package / "assets"
        shutil.copy(assets / "dvd.safetensors", assets / "light.safetensors")
    return folder


@pytest.mark.parametrize("version", [True, False])
def test_a_node_that_has_another_package_or_other_weights_is_named(
    cluster: RayCluster, films: list[Path], tmp_path: Path, version: bool
):
    output = tmp_path / "out.mkv"
    with cluster.node(PYTHONPATH=other_package(tmp_path / "other", version=version)):
        process = start(films[0], "-o", output, "--cluster", cluster.address, model="light")
        errors = errors_at_end(process)
    assert process.returncode == 1
    assert f"error: {platform.node()} has " in errors
    assert ("; install the same there" if version else "all must be alike") in errors
    assert errors.count("error: ") == 1
    assert not output.exists()


def test_workers_with_little_memory(cluster: RayCluster, tmp_path: Path):
    """A plan for the weakest; then allocations that fail: smaller pieces, or an error of one line.

    Addresses are limited where workers load, see the program.
    """
    images = [picture(i, 320, 240, scene=scene) for scene in range(2) for i in range(50)]
    source = make_clip(tmp_path / "in.mkv", images)
    program = [sys.executable, str(SHORT_OF_MEMORY), cluster.address, str(source), str(tmp_path)]
    ran = subprocess.run(program, capture_output=True, text=True, check=False)
    told = ran.stderr
    assert ran.returncode == 0, told
    node = platform.node()
    assert f"{node}: cpu has run out of memory; from here on tiles of 160 pixels" in told
    assert f"{node}: that was in segment " in told
    ended(start(source, "-o", tmp_path / "whole", "--images", "--size", "1x"))
    whole = [path.read_bytes() for path in sorted((tmp_path / "whole").iterdir())]
    made = list(tmp_path.glob("made-*"))
    assert made
    for each in made:
        assert [path.read_bytes() for path in sorted(each.iterdir())] == whole
    (error,) = [line for line in told.splitlines() if "600: error: " in line]
    assert f"{node}: cpu has too little memory" in error
    assert error.endswith("; frames that are missing: 0 to 99")


def test_a_source_larger_than_the_store_is_shipped(cluster: RayCluster, tmp_path: Path):
    """Noise as it is, more than the store of any node holds."""
    random = np.random.default_rng(1)
    images = (random.integers(0, 255, (720, 1280, 3), np.uint8) for _ in range(80))
    source = make_clip(tmp_path / "in.mkv", images, codec="rawvideo")
    assert source.stat().st_size > 1.25 * STORE_BYTES
    words = ("--size", "1x", "--end", "0.1", "-o")
    ended(start(source, *words, tmp_path / "whole.mkv"))
    words = ("--cluster", cluster.address, "--ship", *words)
    ended(start(source, *words, tmp_path / "out.mkv"))
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()


def test_a_node_is_removed(cluster: RayCluster, long: Path, tmp_path: Path):
    """The last of these tests: it leaves two nodes."""
    output = tmp_path / "out.mkv"
    process = start(long, "-o", output, "--cluster", cluster.address)
    with holding(cluster, process, on_newest_node=True):
        cluster.remove_node()
    assert "was lost" in ended(process)
    assert output.read_bytes() == alone(long).read_bytes()


def test_a_cluster_of_our_own_listens_to_this_machine_and_ends_with_the_command(
    films: list[Path], long: Path, tmp_path: Path
):
    ours = {"IART_TEST": str(tmp_path)}
    mark = f"IART_TEST={tmp_path}"
    output = tmp_path / "out.mkv"
    words = ("--cluster", "local", "--cluster-cpus", "1")
    process = start(long, "-o", output, *words, **ours)
    wait_until(lambda: finished(output) >= 1, process)
    addresses = listening(marked(mark))
    assert addresses
    assert addresses <= LOOPBACK
    assert list(tmp_path.glob(".out.mkv.spilled-*"))
    process.kill()
    errors_at_end(process)
    wait_until(lambda: not marked(mark))
    left = set(Path("/tmp").glob("iart-ray-*"))
    assert "going on at frame" in ended(start(long, "-o", output, *words, **ours))
    assert output.read_bytes() == alone(long).read_bytes()
    wait_until(lambda: not marked(mark))
    assert not set(Path("/tmp").glob("iart-ray-*")) & left
    assert list(tmp_path.iterdir()) == [output]


def test_a_command_that_is_stopped_while_ray_starts_leaves_nothing(
    films: list[Path], tmp_path: Path
):
    ours = {"IART_TEST": str(tmp_path)}
    output = tmp_path / "out.mkv"
    process = start(films[0], "-o", output, "--cluster", "local", **ours)
    folder = f"iart-ray-{process.pid}-*"
    wait_until(lambda: list(Path("/tmp").glob(f"{folder}/session_*/sockets/*")), process)
    process.send_signal(signal.SIGTERM)
    assert errors_at_end(process) == "interrupted: nothing was written\n"
    assert process.returncode == 130
    wait_until(lambda: not marked(f"IART_TEST={tmp_path}"))
    assert not list(Path("/tmp").glob(folder))
    assert not list(tmp_path.iterdir())


def test_a_command_is_stopped_where_something_else_listens(films: list[Path], tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        process = start(films[0], "-o", tmp_path / "out.mkv", "--cluster", address)
        other.accept()[0].close()  # to see whether anybody is there
        with other.accept()[0]:  # Ray, which waits for an answer
            process.send_signal(signal.SIGINT)
            assert errors_at_end(process) == "interrupted: nothing was written\n"
    assert process.returncode == 130


SPILL = """
import sys
from pathlib import Path
import numpy as np
from iart.parallel.cluster import Cluster

with Cluster("local", output=Path(sys.argv[1])):
    import ray
    kept = [ray.put(np.full(60 * 2**20, n, np.uint8)) for n in range(5)]
    assert [ray.get(each)[-1] for each in kept] == [0, 1, 2, 3, 4]
    written = Path(sys.argv[1]).parent.rglob("*")
    print(sum(path.stat().st_size for path in written if path.is_file()) // 2**20)
"""


def test_what_the_store_cannot_hold_lies_beside_the_output(tmp_path: Path):
    command = [sys.executable, "-c", SPILL, str(tmp_path / "out.mkv")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(shown) >= 5 * 60 - 128
    assert not list(tmp_path.iterdir())
