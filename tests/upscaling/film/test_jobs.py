"""Work that is stopped, by whatever, goes on after its last finished segment."""

import json
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors import safe_open
from torch import Tensor, nn

from iart.errors import DamagedInputError, DeviceError, InputError, OutputError
from iart.files.complete import Destination, locked
from iart.model.bicubic import Bicubic
from iart.upscaling.clip import Step
from iart.upscaling.film import job
from iart.upscaling.film.choice import Models
from iart.upscaling.film.job import KEPT_NOTES, End, finished_before, note_finished, open_job
from iart.upscaling.film.request import Progress
from iart.upscaling.film.run import upscale_video
from iart.upscaling.film.worker import _Share
from iart.video.frame import Frame
from iart.video.write import segment
from iart.weights import load_model
from tests.processes import PATIENCE_SECONDS, errors_at_end, start_iart, wait_until
from tests.upscaling.test_clip import Neighbours
from tests.video.clips import make_clip, picture, truncate

LENGTHS = (50, 20, 50, 250, 20)
"""Of scenes: one too short for a segment of its own, one too long for one."""
FIRSTS = (0, 50, 120, 360)
"""Of the segments that come of them."""
FRAMES = sum(LENGTHS)
SHORT_LENGTHS = (50, 20, 50, 50)
SHORT_FRAMES = sum(SHORT_LENGTHS)

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")


def make_film(folder: Path, lengths: tuple[int, ...]) -> Path:
    """Scenes that differ, sound, subtitles."""
    images = [
        picture(index, 32, 32, scene=scene)
        for scene, count in enumerate(lengths)
        for index in range(count)
    ]
    return make_clip(folder / "in.mkv", images, audio=["eng"], subtitles=["eng", "deu"])


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("film"), LENGTHS)


@pytest.fixture(scope="session")
def whole(film: Path) -> Path:
    """What comes of it without a stop."""
    return call(film, film.with_name("whole.mkv"), Bicubic())


@pytest.fixture(scope="session")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of three segments."""
    return make_film(tmp_path_factory.mktemp("short"), SHORT_LENGTHS)


@pytest.fixture(scope="session")
def short_whole(short: Path) -> Path:
    return call(short, short.with_name("whole.mkv"), Bicubic())


class Stopping(nn.Module):
    """Another model, until so many windows have been shown."""

    def __init__(
        self,
        windows: int = 10**6,
        error: BaseException | None = None,
        state: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__()
        self.left, self.error, self.shown = windows, error or RuntimeError("stopped"), 0
        self.state = state

    def forward(self, frames: Tensor) -> Tensor:
        self.shown += 1
        if self.shown > self.left:
            wait_until(self.state)
            raise self.error
        return Neighbours()(frames)


def call(source: Path, output: Path, model: nn.Module, **more) -> Path:
    options: dict[str, Any] = {} if output.suffix in ("", ".mov") else {"preset": "ultrafast"}
    upscale_video(source, output, model, **(options | more))
    return output


def start(source: Path, output: Path, *more: str, **options) -> subprocess.Popen[str]:
    words = ["upscale", source, "-o", output, "--model", "bicubic", "--preset", "ultrafast", *more]
    return start_iart(*words, **options)


def run(source: Path, output: Path, *more: str) -> str:
    process = start(source, output, *more)
    errors = errors_at_end(process)
    assert process.returncode == 0, errors
    return errors


def segments_of(output: Path) -> Path:
    return output.parent / f".{output.name}.job" / "segments"


def kept(output: Path) -> int:
    """Pictures of segments that are not finished."""
    return len(list(segments_of(output).glob("*/*.picture")))


def finished(output: Path) -> list[Path]:
    return sorted(segments_of(output).glob("*.json"))


def stop(source: Path, output: Path, segments: int, number: int) -> str:
    """Send a signal as soon as so many segments are finished."""
    process = start(source, output)
    wait_until(lambda: len(finished(output)) >= segments, process)
    process.send_signal(number)
    errors = errors_at_end(process)
    assert process.returncode != 0
    return errors


# ---- the same bytes


@needs_posix
def test_killed_and_gone_on_gives_the_same_bytes(
    film: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    output = tmp_path / "out.mkv"
    stop(film, output, 3, signal.SIGKILL)
    kept = [json.loads(path.read_text()) for path in finished(output)]
    assert tuple(record["first"] for record in kept) == FIRSTS[: len(kept)]
    assert not output.exists()
    with caplog.at_level("INFO", "iart"):
        call(film, output, Bicubic())
    done = sum(record["frames"] for record in kept)
    assert f"going on at frame {done} of {FRAMES}" in caplog.text
    assert output.read_bytes() == whole.read_bytes()
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.slow
@needs_posix
@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
def test_killed_at_random_points(film: Path, tmp_path: Path, name: str):
    """Anywhere: while it starts, in the first segment, while the file is put together."""
    expected = call(film, tmp_path / f"whole-{name}", Bicubic())
    began = time.monotonic()
    run(film, tmp_path / f"timed-{name}")
    whole_seconds = time.monotonic() - began
    points, output = random.Random(5), tmp_path / name
    kills = 0
    while kills < 10:
        output.unlink(missing_ok=True)
        while not output.exists() or segments_of(output).parent.exists():
            process = start(film, output)
            try:
                _, errors = process.communicate(timeout=points.uniform(0.4, 1.1) * whole_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
                whole_seconds *= 1.03  # an end, whatever the points are
            else:
                assert process.returncode == 0, (kills, errors)
                whole_seconds *= 0.8  # the machine is less busy than when the run was timed
        assert output.read_bytes() == expected.read_bytes(), kills


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("out.mp4", {}),
        pytest.param("out.mkv", {"codec": "ffv1", "preset": None}, marks=pytest.mark.slow),
        pytest.param("out.mkv", {"codec": "x265"}, marks=pytest.mark.slow),
        pytest.param("out.mov", {"codec": "prores"}, marks=pytest.mark.slow),
        pytest.param("out.webm", {"codec": "svt-av1", "preset": "12"}, marks=pytest.mark.slow),
    ],
)
def test_every_codec_goes_on_with_the_same_bytes(tmp_path: Path, name: str, options: dict):
    """Also where the network looks across the border of two segments inside a scene."""
    images = [picture(index, 32, 32) for index in range(280)]
    source = make_clip(tmp_path / "in.mkv", images, audio=["eng"])
    (tmp_path / "whole").mkdir()
    model = Stopping()
    whole = call(source, tmp_path / "whole" / name, model, drop=["audio"], **options)
    output = tmp_path / name
    with pytest.raises(RuntimeError, match="stopped"):
        call(source, output, Stopping(model.shown - 1), drop=["audio"], **options)
    assert len(finished(output)) == 1
    rest = Stopping()
    call(source, output, rest, drop=["audio"], **options)
    assert 0 < rest.shown < model.shown / 4
    assert output.read_bytes() == whole.read_bytes()


def test_several_processes_give_the_same_bytes(film: Path, whole: Path, tmp_path: Path):
    output = tmp_path / "out.mkv"
    run(film, output, "--devices", "cpu,cpu")
    assert output.read_bytes() == whole.read_bytes()
    assert list(tmp_path.iterdir()) == [output]


def load_nothing() -> nn.Module:
    raise DeviceError("no such device here")


def test_what_stops_one_process_stops_all(short: Path, tmp_path: Path):
    class Waiting(nn.Module):
        def forward(self, frames: Tensor) -> Tensor:
            for process in multiprocessing.active_children():
                process.join(PATIENCE_SECONDS)
            return Bicubic()(frames)

    with pytest.raises(DeviceError, match="no such device here"):
        call(short, tmp_path / "out.mkv", Waiting(), workers=[load_nothing])


@pytest.mark.parametrize("name", ["out.mkv", pytest.param("frames", marks=pytest.mark.slow)])
def test_a_progress_that_fails_for_another_process_is_no_end_of_the_work(
    short: Path, tmp_path: Path, name: str
):
    """It is called by a thread then, whose death nobody sees: the frames would be missing."""

    called = threading.Event()

    class Waiting(Bicubic):
        def forward(self, frames: Tensor) -> Tensor:
            assert called.wait(PATIENCE_SECONDS)
            return super().forward(frames)

    def progress(_: Progress) -> None:
        if threading.current_thread() is not threading.main_thread():
            called.set()
            raise BrokenPipeError("nobody reads any more")

    others = Models("bicubic", ["cpu", "cpu"]).load(None)[1]
    with pytest.raises(BrokenPipeError, match="nobody reads any more"):
        call(short, tmp_path / name, Waiting(), workers=others, progress=progress)
    assert not (tmp_path / name).exists()


def test_a_frame_that_nobody_made_is_missed(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    output, step = tmp_path / "frames", _Share.step

    def forget(self: _Share, frame: Frame) -> Step:
        done = replace(step(self, frame), is_wanted=self.frames > 60)
        if not done.is_wanted:
            self.tickets.clear()
        return done

    with monkeypatch.context() as patch:
        patch.setattr(_Share, "step", forget)
        with pytest.raises(
            OutputError, match=rf"{SHORT_FRAMES - 60} of its {SHORT_FRAMES} frames are there"
        ):
            call(short, output, Bicubic())
    assert not output.exists()


def test_processes_end_if_one_of_them_cannot_start(short: Path, tmp_path: Path):
    """What is to be sent to it may be refused."""
    began = set(multiprocessing.active_children())
    others = [*Models("bicubic", ["cpu", "cpu"]).load(None)[1], lambda: Bicubic()]
    with pytest.raises((AttributeError, pickle.PicklingError)):
        call(short, tmp_path / "out.mkv", Bicubic(), workers=others)
    assert set(multiprocessing.active_children()) == began


def test_devices_are_checked_before_the_work():
    with pytest.raises(DeviceError, match="cuda:99"):
        Models("bicubic", ["cpu", "cuda:99"])
    with pytest.raises(DeviceError, match="no device"):
        Models("bicubic", [])


# ---- what a stop costs within a segment


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network so slow that every picture is kept."""
    monkeypatch.setattr(segment, "KEEP_AFTER_SECONDS", 0)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("out.mkv", {}),
        ("out.mp4", {"codec": "x265", "pixel_format": "yuv420p10le"}),
        ("out.mov", {"codec": "prores"}),
        ("out.mkv", {"codec": "ffv1", "preset": None, "pixel_format": "gbrp10le"}),
        ("out.mkv", {"codec": "ffv1", "preset": None, "pixel_format": "bgr0"}),
    ],
)
def test_a_stop_within_a_segment_costs_one_window_and_no_byte(
    tmp_path: Path, name: str, options: dict
):
    """Sides that no plane in memory ends at; several stops in one segment."""
    images = [picture(index, 34, 18) for index in range(60)]
    source, output = make_clip(tmp_path / "in.mkv", images), tmp_path / name
    model = Stopping()
    whole = call(source, tmp_path / f"whole-{name}", model, **options)
    for windows, frames in ((1, 13), (2, 33)):
        stopped = Stopping(windows, KeyboardInterrupt(), lambda n=frames: kept(output) == n)
        with pytest.raises(KeyboardInterrupt, match=f"the same command goes on at frame {frames}"):
            call(source, output, stopped, **options)
        assert len(finished(output)) == 0
    rest = Stopping()
    call(source, output, rest, **options)
    assert rest.shown == model.shown - 3
    assert output.read_bytes() == whole.read_bytes()
    assert not segments_of(output).parent.exists()


@pytest.mark.usefixtures("slow")
def test_pictures_that_are_kept_go_on_with_their_segment(short: Path, tmp_path: Path):
    """In several segments, in one that ends in between, and where one of them is damaged."""
    output = tmp_path / "out.mkv"
    whole = call(short, tmp_path / "whole.mkv", Stopping())
    with pytest.raises(RuntimeError):
        call(short, output, Stopping(8, state=lambda: kept(output) == 33))
    pictures = sorted(segments_of(output).glob("*/*.picture"))
    assert [path.stem for path in pictures] == [f"{index:08d}" for index in range(50, 83)]
    pictures[5].write_bytes(pictures[5].read_bytes()[:-9])
    pictures[29].unlink()
    with pytest.raises(RuntimeError):
        call(short, output, Stopping(8, state=lambda: len(finished(output)) == 2))
    call(short, output, Stopping())
    assert output.read_bytes() == whole.read_bytes()


SLOW_IART = """
from iart.cli import main
from iart.video.write import segment

segment.KEEP_AFTER_SECONDS = 0
main()
"""


@pytest.mark.slow
@needs_posix
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_signal_within_a_segment_leaves_what_was_computed(tmp_path: Path, number: int):
    images = [picture(index, 24, 24) for index in range(100)]
    source, output = make_clip(tmp_path / "in.mkv", images), tmp_path / "out.mkv"
    words = ["upscale", source, "-o", output, "--preset", "ultrafast", "--model", "light"]
    process = start_iart(*words, program=["-c", SLOW_IART])
    state = segments_of(output) / "000000.state"
    wait_until(state.exists, process)
    process.send_signal(number)
    errors = errors_at_end(process)
    assert not finished(output)
    with safe_open(state, "pt") as file:
        done = int(file.metadata()["stop"])
    assert 13 <= done <= kept(output)
    if number == signal.SIGINT:
        assert f"interrupted: the same command goes on at frame {done}" in errors
    seen: list[int] = []
    model = load_model("light", "cpu")
    call(source, output, model, progress=lambda progress: seen.append(progress.frames_done))
    assert seen == list(range(done + 1, 101))
    assert output.read_bytes() == call(source, tmp_path / "whole.mkv", model).read_bytes()


# ---- what is kept, and for whom


@pytest.fixture
def begun(short: Path, tmp_path: Path) -> Path:
    """An output whose first segments are finished."""
    output = tmp_path / "out.mkv"
    with pytest.raises(RuntimeError):
        call(short, output, Stopping(12))
    assert len(finished(output)) >= 1
    return output


def test_only_what_is_missing_is_enlarged(short: Path, begun: Path):
    before = {path: path.stat().st_mtime_ns for path in finished(begun)}
    with pytest.raises(RuntimeError):
        call(short, begun, Stopping(3))
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_command_is_refused_and_told_why(short: Path, begun: Path):
    kept = finished(begun)
    with pytest.raises(OutputError, match=r"\(crf None, now 20\).*--overwrite to start anew"):
        call(short, begun, Stopping(), crf=20)
    with pytest.raises(OutputError, match=r"\(model Stopping \w+, now Bicubic \w+\)"):
        call(short, begun, Bicubic())
    os.utime(short)
    with pytest.raises(OutputError, match=r"content of the source \w+, now \w+"):
        call(short, begun, Stopping())
    assert finished(begun) == kept


def test_overwrite_goes_on_with_the_same_command_and_starts_another_anew(short: Path, begun: Path):
    model = Stopping(0)
    with pytest.raises(RuntimeError):
        call(short, begun, model, overwrite=True)
    assert finished(begun)
    with pytest.raises(RuntimeError):
        call(short, begun, Stopping(0), overwrite=True, crf=20)
    assert not segments_of(begun).exists()


def test_two_runs_at_once(short: Path, tmp_path: Path):
    output = tmp_path / "out.mkv"
    with (
        open_job(Destination(output), {}, overwrite=False),
        pytest.raises(OutputError, match="another run is working on it"),
    ):
        call(short, output, Bicubic(), overwrite=True)


@needs_posix
def test_a_run_that_follows_at_once_keeps_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place = Destination(tmp_path / "out.mkv")
    followers = ExitStack()

    @contextmanager
    def locked_and_followed(path: Path, *, wait: bool) -> Iterator[None]:
        with locked(path, wait=wait):
            yield
        monkeypatch.setattr(job, "locked", locked)
        followers.enter_context(open_job(place, {}, overwrite=False))

    monkeypatch.setattr(job, "locked", locked_and_followed)
    with open_job(place, {}, overwrite=False):
        pass
    with followers:
        assert segments_of(place.final).is_dir()
        with (
            pytest.raises(OutputError, match="another run is working on it"),
            open_job(place, {}, overwrite=False),
        ):
            pass


def test_an_error_says_where_the_same_command_goes_on(short: Path, tmp_path: Path):
    with pytest.raises(KeyboardInterrupt, match="the same command goes on at frame 50"):
        call(short, tmp_path / "out.mkv", Stopping(10, KeyboardInterrupt()))


@pytest.mark.slow
@needs_posix
def test_a_signal_keeps_segments_and_says_so(film: Path, tmp_path: Path):
    told = stop(film, tmp_path / "out.mkv", 2, signal.SIGTERM)
    assert "interrupted: the same command goes on at frame" in told
    assert "Traceback" not in told


@needs_posix
def test_a_full_disk_keeps_segments(film: Path, whole: Path, tmp_path: Path):
    """Stands for a full disk: a limit on the size of files, which fails in the same calls."""
    import resource

    output, limit = tmp_path / "out.mkv", 170_000
    process = start(
        film, output, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    errors = errors_at_end(process)
    assert process.returncode == 1
    assert errors.startswith("error: cannot write")
    assert "; the same command goes on at frame 120" in errors
    assert len(errors.splitlines()) == 1
    assert sorted(path.suffix for path in segments_of(output).iterdir()) == [
        *[".json"] * 2,
        *[".packets"] * 2,
    ]
    call(film, output, Bicubic())
    assert output.read_bytes() == whole.read_bytes()


def test_a_disk_that_is_full_at_the_end_costs_no_work(
    short: Path, short_whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(self: Destination, part: Path) -> None:
        raise OSError(28, "No space left on device")

    output = tmp_path / "out.mkv"
    monkeypatch.setattr(Destination, "take", full)
    with pytest.raises(OutputError, match=r"no space left.*goes on"):
        call(short, output, Bicubic())
    monkeypatch.undo()
    assert not output.exists()
    with monkeypatch.context() as patch:
        patch.setattr(Bicubic, "forward", lambda *_: pytest.fail("all is done already"))
        call(short, output, Bicubic())
    assert output.read_bytes() == short_whole.read_bytes()


def test_a_segment_that_is_lost_after_all_were_done_is_made_anew(
    short: Path, short_whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        Destination, "take", lambda *_: (_ for _ in ()).throw(OSError(28, "No space"))
    )
    output = tmp_path / "out.mkv"
    with pytest.raises(OutputError):
        call(short, output, Bicubic())
    monkeypatch.undo()
    finished(output)[1].with_suffix(".packets").unlink()
    call(short, output, Bicubic())
    assert output.read_bytes() == short_whole.read_bytes()


def test_a_stop_between_the_name_and_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = make_clip(tmp_path / "in.mkv", frames=3)
    output = tmp_path / "out.mkv"

    def call_and_stop() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(job, "shutil", SimpleNamespace(rmtree=lambda *_, **__: None))
            call(source, output, Bicubic(), overwrite=True)
        assert len(list(tmp_path.iterdir())) == 3

    call_and_stop()
    with monkeypatch.context() as patch:
        patch.setattr(Bicubic, "forward", lambda *_: pytest.fail("all is done already"))
        assert upscale_video(source, output, Bicubic(), preset="ultrafast").frames == 3
        assert sorted(tmp_path.iterdir()) == [source, output]
        with pytest.raises(OutputError, match="it exists"):
            call(source, output, Bicubic())
    call_and_stop()
    before = output.read_bytes()
    with pytest.raises(OutputError, match="it exists"):
        call(source, output, Bicubic(), crf=40)
    assert output.read_bytes() == before
    call_and_stop()
    call(source, output, Bicubic(), crf=40, overwrite=True)
    assert len(output.read_bytes()) < len(before)


def test_pictures_that_are_replaced_are_never_in_the_folder_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Which may be deleted after a stop, to give it up."""
    source = make_clip(tmp_path / "in.mkv", [picture(index, 32, 32) for index in range(3)])
    output, rename = tmp_path / "frames", Path.rename
    call(source, output, Bicubic())
    earlier = (output / "00000000.png").read_bytes()

    def stop(path: Path, target: Path) -> Path:
        if target == output:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stop)
        with pytest.raises(KeyboardInterrupt):
            call(source, output, Stopping(), overwrite=True)
    assert not output.exists()
    kept = [path for path in tmp_path.rglob("00000000.png") if path.read_bytes() == earlier]
    assert kept
    assert not any(path.is_relative_to(segments_of(output).parent) for path in kept)
    call(source, output, Stopping(), overwrite=True)
    assert (output / "00000000.png").read_bytes() != earlier
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "in.mkv"]


@needs_posix
def test_a_stop_after_the_name_of_a_folder_behind_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = make_clip(tmp_path / "in.mkv", [picture(index, 32, 32) for index in range(3)])
    (folder := tmp_path / "real" / "frames").mkdir(parents=True)
    (link := tmp_path / "link").symlink_to(folder)
    with monkeypatch.context() as patch:
        patch.setattr(job, "shutil", SimpleNamespace(rmtree=lambda *_, **__: None))
        call(source, link, Bicubic())
    call(source, link, Bicubic())
    assert len(list(folder.iterdir())) == 3
    assert list(folder.parent.iterdir()) == [folder]


def test_losses_of_runs_before_are_told_at_the_end(tmp_path: Path):
    images = [picture(i, 32, 32, scene=i // 60) for i in range(240)]
    source = truncate(make_clip(tmp_path / "in.mkv", images), 0.6)
    output = tmp_path / "out.mkv"
    with pytest.raises(RuntimeError):
        call(source, output, Stopping(7))
    with pytest.raises(DamagedInputError, match="ends early") as caught:
        call(source, output, Stopping())
    assert caught.value.losses
    assert output.exists()


def test_a_damaged_segment_is_made_anew(short: Path, begun: Path):
    first = finished(begun)[0]
    packets = first.with_suffix(".packets")
    packets.write_bytes(packets.read_bytes()[:-1])
    model = Stopping()
    call(short, begun, model)
    assert model.shown > 10
    expected = call(short, begun.with_name("whole.mkv"), Stopping())
    assert begun.read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_source_that_changes_meanwhile_is_refused(short: Path, tmp_path: Path, is_gone: bool):
    """Else its sound would go with the pictures of the one before."""
    images = [picture(index, 32, 32) for index in range(60)]
    source = make_clip(tmp_path / "in.mkv", images, audio=["eng"])

    def exchange(progress: Progress) -> None:
        if progress.frames_done == 40 and is_gone:
            source.unlink()
        elif progress.frames_done == 40:
            source.write_bytes(short.read_bytes())

    with pytest.raises(InputError, match="has changed while it was read"):
        call(source, tmp_path / "out.mkv", Bicubic(), progress=exchange)
    assert not (tmp_path / "out.mkv").exists()


# ---- pictures


def test_pictures_that_are_whole_are_kept(short: Path, tmp_path: Path):
    output = tmp_path / "frames"
    part: dict[str, Any] = {"end_seconds": Fraction(6)}
    with pytest.raises(RuntimeError):
        call(short, output, Stopping(9), **part)
    pictures = sorted(segments_of(output).glob("*/*.png"))
    before = {path.name: path.stat().st_mtime_ns for path in pictures}
    assert len(before) > 50
    pictures[-1].write_bytes(pictures[-1].read_bytes()[:-20])
    call(short, output, Stopping(), **part)
    names = [f"{index:08d}.png" for index in range(150)]
    assert sorted(path.name for path in output.iterdir()) == names
    after = {name: (output / name).stat().st_mtime_ns for name in before}
    again = [name for name in before if before[name] != after[name]]  # of the segment that was open
    assert pictures[-1].name in again
    assert min(again) >= "00000050.png"
    expected = call(short, tmp_path / "whole", Stopping(), **part)
    assert all((output / n).read_bytes() == (expected / n).read_bytes() for n in names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "whole"]


def test_names_alike_in_their_first_200_bytes_have_jobs_of_their_own(short: Path, tmp_path: Path):
    first, second = (tmp_path / f"{'長い題名' * 18}{i}.mkv" for i in range(2))
    with pytest.raises(RuntimeError, match="stopped"):
        call(short, first, Stopping(12))
    (begun,) = tmp_path.iterdir()
    kept = {path: path.read_bytes() for path in (begun / "segments").iterdir()}
    assert kept
    few = make_clip(tmp_path / "few.mkv", frames=3)
    call(few, second, Bicubic(), overwrite=True)
    assert {path: path.read_bytes() for path in (begun / "segments").iterdir()} == kept


@needs_posix
@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        pytest.param({"LC_ALL": "en_US"}, marks=pytest.mark.slow),
    ],
)
def test_names_that_the_locale_has_no_letters_for(tmp_path: Path, locale: dict[str, str]):
    source = make_clip(tmp_path / "日本.mkv", frames=3)
    output = tmp_path / "映画.mkv"
    process = start(source, output, env={**os.environ, **locale})
    errors = errors_at_end(process)
    assert process.returncode == 0, errors
    assert sorted(tmp_path.iterdir()) == sorted([source, output])


def test_what_is_remembered_of_finished_outputs_does_not_grow(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    notes = tmp_path / "iart" / "finished"
    notes.mkdir(parents=True)
    for number in range(KEPT_NOTES):
        (notes / f"{number}.json").touch()
        os.utime(notes / f"{number}.json", (number, number))
    output = tmp_path / "out.mkv"
    output.write_bytes(b"film")
    note_finished(output, {"command": "this"}, End(1, 1))
    assert finished_before(output, {"command": "this"}) == End(1, 1)
    left = {path.name for path in notes.iterdir()}
    assert len(left) == KEPT_NOTES
    assert "0.json" not in left
