"""Frames to files: times, colour, shape of pixels, codecs, and names that appear at the end."""

import os
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from iart.errors import OptionsError, OutputError
from iart.files.complete import output_error
from iart.pictures.color import Color, from_rgb
from iart.video.frame import Frame
from iart.video.write import muxer
from iart.video.write.matroska import display_size
from iart.video.write.writer import ImageWriter, VideoWriter, open_writer
from tests.video.clips import VARIABLE_PTS, make_clip, make_plain, make_variable_rate
from tests.video.outputs import (
    contents,
    describe,
    frame_at,
    images,
    sources_of,
    write_all,
)


def write(path, info, pts, **options):
    """Write frames at the given times, each as long as to the next; the last 3 units."""
    lengths = [b - a for a, b in pairwise(pts)] + [3]
    with VideoWriter(path, like=info, scale=1, **options) as writer:
        for time, length in zip(pts, lengths, strict=True):
            writer.write(frame_at(info, time, duration=length))
    return path


def times(path):
    with av.open(str(path)) as container:
        decoded: Any = container.decode(video=0)
        return [frame.pts * frame.time_base for frame in decoded]


# Times


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "out.webm"])
@pytest.mark.parametrize("base", [Fraction(1001, 30000), Fraction(1, 90000), Fraction(1, 1000)])
def test_times_are_exact_to_the_clock_of_the_container(tmp_path, name, base):
    step = round(Fraction(1001, 30000) / base)
    pts = [step * i + (7 * step if i > 13 else 0) for i in range(30)]
    info = images(tmp_path, time_base=base, rate=Fraction(30000, 1001))
    path = write(tmp_path / name, info, pts, preset="8" if name.endswith("webm") else None)
    tolerance = 0 if name.endswith(("mp4", "mov")) else Fraction(1, 2000)
    wanted = [time * base for time in pts]
    assert len(times(path)) == 30
    assert max(abs(a - b) for a, b in zip(times(path), wanted, strict=True)) <= tolerance


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
def test_29_97_stays_a_fraction(tmp_path, name):
    rate = Fraction(30000, 1001)
    info = images(tmp_path, time_base=1 / rate, rate=rate)
    with VideoWriter(tmp_path / name, like=info, scale=1) as writer:
        for i in range(30):
            writer.write(frame_at(info, i, duration=1))
    with av.open(str(tmp_path / name)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == rate
        assert stream.guessed_rate == rate


def test_variable_rate_is_kept(tmp_path):
    info = describe(make_variable_rate(tmp_path / "in.mkv"))
    with VideoWriter(tmp_path / "out.mp4", like=info, scale=1) as writer:
        write_all(writer, info)
    assert times(tmp_path / "out.mp4") == [Fraction(t, 1000) for t in VARIABLE_PTS]


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_the_last_frame_keeps_its_length(tmp_path, name):
    info = images(tmp_path)
    path = write(tmp_path / name, info, list(range(12)))
    with av.open(str(path)) as container:
        assert container.duration == 14 * 40_000


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
@pytest.mark.parametrize("codec", ["x264", "x265"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_short_videos(tmp_path, name, codec, count):
    path = write(tmp_path / name, images(tmp_path), list(range(count)), codec=codec)
    assert times(path) == [Fraction(i, 25) for i in range(count)]


def test_times_that_do_not_grow_do_not_stop_the_work(tmp_path):
    info = images(tmp_path, time_base=Fraction(1, 1000))
    with VideoWriter(tmp_path / "out.mkv", like=info, scale=1) as writer:
        for pts in (0, 40, 40, 30, 80):
            writer.write(frame_at(info, pts))
    assert times(tmp_path / "out.mkv") == [Fraction(t, 1000) for t in (0, 40, 41, 42, 80)]


# Picture


@pytest.mark.parametrize(
    ("name", "codec", "depth", "pixel_format"),
    [
        ("out.mkv", "x265", 10, "yuv420p10le"),
        ("out.mp4", "x265", 10, "yuv420p10le"),
        ("out.mkv", "svt-av1", 10, "yuv420p10le"),
        ("out.webm", None, 8, "yuv420p"),
        ("out.mp4", "svt-av1", 8, "yuv420p"),
        ("out.mkv", "ffv1", 8, "yuv420p"),
        ("out.mkv", "ffv1", 16, "yuv420p10le"),
        ("out.mov", "prores", 8, "yuv422p10le"),
        ("out.mp4", None, 8, "yuv420p"),
        ("out.mp4", None, 10, "yuv420p10le"),
    ],
)
def test_codecs_write_what_they_are_given(tmp_path, name, codec, depth, pixel_format, capfd):
    info = images(tmp_path, bit_depth=depth)
    given = frame_at(info, 3)
    with VideoWriter(tmp_path / name, like=info, scale=1, codec=codec) as writer:
        for pts in range(3):
            writer.write(Frame(given.data, pts, info.time_base))
    with av.open(str(tmp_path / name)) as container:
        decoded = list(container.decode(video=0))
    assert [frame.format.name for frame in decoded] == [pixel_format] * 3
    wanted = from_rgb(given.data, pixel_format, info.color)
    error = np.abs(_luma(decoded[0]).astype(int) - _luma(wanted).astype(int)).mean()
    bits = decoded[0].format.components[0].bits
    assert error / 2 ** (bits - 8) < (1e-9 if codec == "ffv1" else 2.5)
    assert capfd.readouterr() == ("", "")


def _luma(frame):
    plane = frame.planes[0]
    kind = np.uint16 if frame.format.components[0].bits > 8 else np.uint8
    return np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width]


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.mov", "out.webm"])
@pytest.mark.parametrize(
    "color", [Color(6, 6, 6, False), Color(1, 1, 1, True), Color(9, 16, 9, False)]
)
def test_colour_is_written(tmp_path, name, color):
    path = write(tmp_path / name, images(tmp_path, color=color), [0, 1, 2])
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert context.color_primaries == color.primaries
        assert context.color_trc == color.transfer
        assert context.colorspace == color.matrix
        assert context.color_range == (2 if color.full_range else 1)


@pytest.mark.parametrize("aspect", [Fraction(8, 9), Fraction(16, 15), Fraction(64, 45)])
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "x264"), ("a.mkv", "x264"), ("a.mkv", "ffv1"), ("a.mkv", "svt-av1"),
     ("a.webm", "svt-av1"), ("a.mov", "prores"), ("a.mkv", "prores"), ("a.mp4", "x265")],
)  # fmt: skip
def test_shape_of_pixels_is_written(tmp_path, aspect, name, codec):
    info = images(tmp_path, sample_aspect=aspect)
    path = write(tmp_path / name, info, [0, 1], codec=codec)
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == aspect
        assert len(list(container.decode(video=0))) == 2


@pytest.mark.parametrize(
    ("width", "height", "aspect", "shown"),
    [
        (2880, 1920, Fraction(8, 9), (2560, 1920)),
        (2880, 2304, Fraction(16, 15), (3072, 2304)),
        (64, 48, Fraction(8, 9), (64, 54)),
        (2880, 2304, Fraction(59, 54), (3245, 2376)),
        (7680, 4320, Fraction(9973, 9967), (7685, 4320)),
    ],
)
def test_display_sizes_are_exact_and_plausible(width, height, aspect, shown):
    assert display_size(width, height, aspect) == shown


def test_a_header_without_room_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(muxer, "amend", lambda *_, **__: False)
    info = images(tmp_path, sample_aspect=Fraction(8, 9))
    with pytest.raises(OutputError, match="its header has no room for the shape of pixels"):
        VideoWriter(tmp_path / "out.mkv", like=info)
    assert list(tmp_path.iterdir()) == []


def test_the_same_frames_give_the_same_bytes(tmp_path):
    source = make_clip(tmp_path / "in.mkv", subtitles=("eng",))
    names = ("out.mp4", "out.mkv", "out.mov", "out.webm")
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for name in names:
            with VideoWriter(tmp_path / folder / name, like=describe(source), scale=1) as writer:
                write_all(writer, describe(source))
        time.sleep(1.1 if folder == "one" else 0)  # files of other makers carry the second
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), (
            name
        )


@pytest.mark.parametrize("name", ["out.mp4", "out.mov"])
def test_hevc_is_tagged_for_apple_and_the_index_comes_first(tmp_path, name):
    path = write(tmp_path / name, images(tmp_path), [0, 1, 2], codec="x265")
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_mastering_light_is_passed_on(tmp_path):
    display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    source = make_clip(
        tmp_path / "in.mkv", codec="libx265", pixel_format="yuv420p10le", frames=3,
        color=(9, 16, 9, 1),
        options={"x265-params": f"log-level=none:master-display={display}:max-cll=1000,400"},
    )  # fmt: skip
    info = describe(source, color=Color(9, 16, 9, full_range=False))
    for codec in ("x265", "svt-av1"):
        path = tmp_path / f"{codec}.mkv"
        with VideoWriter(path, like=info, scale=1, codec=codec) as writer:
            write_all(writer, info)
        assert _light(path) == pytest.approx(_light(source), abs=1e-4)


def _light(path):
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    numbers = []
    data: Any
    for data in frame.side_data:
        if data.type.name == "MASTERING_DISPLAY_METADATA":
            pairs = np.frombuffer(bytes(data)[:80], np.int32).reshape(10, 2)
            numbers += list(pairs[:, 0] / pairs[:, 1])
        if data.type.name == "CONTENT_LIGHT_LEVEL":
            numbers += list(np.frombuffer(bytes(data)[:8], np.uint32).astype(float))
    assert len(numbers) == 12
    return numbers


def test_frames_are_scaled_from_the_source(tmp_path):
    info = images(tmp_path)
    with VideoWriter(tmp_path / "out.mkv", like=info) as writer:
        writer.write(frame_at(info, 0, scale=4))
        with pytest.raises(ValueError, match="expected frames of 256x192, got 64x48"):
            writer.write(frame_at(info, 1))
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (256, 192)


# Names that appear at the end


def test_the_name_appears_at_the_end_and_nothing_else_is_left(tmp_path):
    info = images(tmp_path / "in")
    path = tmp_path / "out.mkv"
    writer = VideoWriter(path, like=info, scale=1)
    writer.write(frame_at(info, 0))
    assert not path.exists()
    writer.close()
    assert sources_of(path) == ["out.mkv"]
    writer.close()


def fail_after_three(path, info, error, **options):
    with open_writer(path, like=info, scale=1, **options) as writer:
        for i in range(3):
            writer.write(frame_at(info, i))
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["out.mkv", "out.mp4", "out"])
def test_an_error_leaves_nothing_behind(tmp_path, error, name):
    with pytest.raises(error):
        fail_after_three(tmp_path / name, images(tmp_path / "in"), error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
def test_an_error_keeps_what_was_to_be_replaced(tmp_path, name):
    info = images(tmp_path / "in")
    path = tmp_path / name
    path.write_bytes(b"precious")
    with pytest.raises(RuntimeError):
        fail_after_three(path, info, RuntimeError, overwrite=True)
    assert path.read_bytes() == b"precious"
    assert sources_of(path) == [name]


def test_existing_files_are_replaced_only_on_request(tmp_path):
    info = images(tmp_path / "in")
    path = tmp_path / "out.mkv"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists; pass --overwrite"):
        VideoWriter(path, like=info, scale=1)
    assert path.read_bytes() == b"precious"
    write(path, info, [0, 1], overwrite=True)
    assert len(times(path)) == 2


def test_the_input_is_never_the_output(tmp_path):
    source = make_plain(tmp_path / "in.mkv")
    before = source.read_bytes()
    link = tmp_path / "link.mkv"
    link.symlink_to(source)
    for path in (source, link, tmp_path / "." / "in.mkv"):
        with pytest.raises(OutputError, match="it is the input"):
            VideoWriter(path, like=describe(source), scale=1, overwrite=True)
    assert source.read_bytes() == before


@pytest.mark.parametrize("name", ["no/out.mkv", "no/out"])
def test_a_missing_folder_is_named(tmp_path, name):
    with pytest.raises(OutputError, match="no' does not exist"):
        open_writer(tmp_path / name, like=images(tmp_path / "in"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_is_not_writable_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="is not writable"):
        VideoWriter(tmp_path / "out.mkv", like=images(tmp_path / "in"))
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("name", ["out.avi", "out.txt"])
def test_unknown_endings_are_refused(tmp_path, name):
    with pytest.raises(OutputError, match=r"unknown ending.*\.mp4, \.mov, \.mkv, \.webm"):
        open_writer(tmp_path / name, like=images(tmp_path / "in"))


def test_a_codec_that_does_not_fit_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match="webm cannot hold libx264; it holds svt-av1"):
        VideoWriter(tmp_path / "out.webm", like=images(tmp_path / "in"), codec="x264")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.mkv", "out"])
def test_no_frame_is_no_output(tmp_path, name):
    with (
        pytest.raises(OutputError, match="no frame"),
        open_writer(tmp_path / name, like=images(tmp_path / "in")),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.mkv", "out"])
def test_two_runs_at_once_do_not_mix(tmp_path, name):
    info = images(tmp_path / "in")
    first = open_writer(tmp_path / name, like=info, scale=1)
    second = open_writer(tmp_path / name, like=info, scale=1)
    for i in range(3):
        first.write(frame_at(info, i))
    second.write(frame_at(info, 0))
    first.close()
    with pytest.raises(OutputError, match=r"appeared .* the finished output is '(.*\.part.*)'"):
        second.close()
    if name == "out":
        assert len(list((tmp_path / name).iterdir())) == 3
    else:
        assert len(times(tmp_path / name)) == 3
    # hours of work are not thrown away for a name
    assert len(list(tmp_path.iterdir())) == 2


def test_names_are_taken_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a:b.mkv", "50%d.mkv", "-x.mkv", "ünï.mkv", f"{'long' * 60}.mkv"):
        write(name, images(tmp_path / "in"), [0])
        assert (tmp_path / name).stat().st_size > 0


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, name):
    script = f"""
        import resource, sys, torch
        from fractions import Fraction
        from pathlib import Path
        from iart.errors import OutputError
        from iart.video.frame import Frame
        from iart.video.write.writer import VideoWriter
        from tests.video.outputs import images
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        info = images(Path("in"))
        noise = torch.Generator().manual_seed(0)
        try:
            with VideoWriter({name!r}, like=info, scale=4, crf=1, preset="ultrafast") as out:
                for i in range(60):
                    out.write(Frame(torch.rand(3, 192, 256, generator=noise), i, info.time_base))
        except OutputError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, text=True,
        capture_output=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert f"cannot write '{name}': the file would be larger" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_no_space_is_told_as_such(tmp_path):
    with (
        pytest.raises(OSError, match="No space left") as caught,
        Path("/dev/full").open("wb", 0) as file,
    ):
        file.write(b"x")
    message = str(output_error(tmp_path / "out.mkv", caught.value))
    assert "no space left on the disk" in message
    assert str(tmp_path) in message


# Folders of images


@pytest.mark.parametrize("depth", [8, 10])
def test_images_hold_every_value(tmp_path, depth):
    info = images(tmp_path / "in", bit_depth=depth)
    top = 255 if depth == 8 else 65535
    ramp = torch.linspace(0, 1, 64 * 48).reshape(1, 48, 64).expand(3, -1, -1)
    with ImageWriter(tmp_path / "out", like=info, scale=1) as writer:
        for i in range(11):
            writer.write(Frame(ramp, i, info.time_base))
    names = [path.name for path in sorted((tmp_path / "out").iterdir())]
    assert names == [f"{i:08d}.png" for i in range(11)]
    with av.open(str(tmp_path / "out" / names[0])) as container:
        decoded = next(container.decode(video=0))
    kind = "rgb24" if depth == 8 else "rgb48le"
    values = decoded.reformat(format=kind).to_ndarray()
    assert (values[..., 1] == (ramp[1] * top).round().numpy()).all()
    Image.open(tmp_path / "out" / names[0]).verify()


def test_an_empty_folder_may_exist(tmp_path):
    (tmp_path / "out").mkdir()
    with open_writer(tmp_path / "out", like=images(tmp_path / "in"), scale=1) as writer:
        writer.write(frame_at(images(tmp_path / "in"), 0))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["00000000.png"]


def test_folders_are_replaced_only_on_request_and_only_if_they_hold_frames(tmp_path):
    info = images(tmp_path / "in")
    folder = tmp_path / "out.frames"
    for count, overwrite in ((3, False), (2, True)):
        with open_writer(f"{folder}/", like=info, scale=1, overwrite=overwrite) as writer:
            for i in range(count):
                writer.write(frame_at(info, i))
    assert len(list(folder.iterdir())) == 2
    assert sources_of(folder) == ["out.frames"]
    with pytest.raises(OutputError, match="not empty; pass --overwrite"):
        open_writer(folder, like=info)
    (folder / "diary.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"more than frames \('diary.txt'\)"):
        open_writer(folder, like=info, overwrite=True)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OutputError, match="a file has that name"):
        ImageWriter(tmp_path / "file", like=info, overwrite=True)


def test_images_say_what_they_do_not_carry(tmp_path):
    source = make_clip(tmp_path / "in.mkv", audio=("eng",), subtitles=("deu",))
    info = describe(source, variable_rate=True)
    notes = ImageWriter(tmp_path / "out", like=info).notes
    assert notes[0].startswith("not carried into a folder of images: audio 1")
    assert "subtitle 2" in notes[0]
    assert "times" in notes[1]
    assert len(ImageWriter(tmp_path / "out", like=info, drop=["audio", "2"]).notes) == 1


def test_options_of_videos_do_not_apply_to_images(tmp_path):
    with pytest.raises(OptionsError, match="--crf does not apply"):
        open_writer(tmp_path / "out", like=images(tmp_path / "in"), crf=3)
    with pytest.raises(OptionsError, match="rgb24 or rgb48be"):
        ImageWriter(tmp_path / "out", like=images(tmp_path / "in"), pixel_format="yuv420p")


def test_captions_are_named_as_lost(tmp_path):
    info = replace(images(tmp_path / "in"), closed_captions=True)
    writer = VideoWriter(tmp_path / "out.mkv", like=info)
    assert any(note.startswith("closed captions") for note in writer.notes)
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_contents_of_a_plain_output(tmp_path):
    source = make_plain(tmp_path / "in.mkv", metadata={"title": "a title", "foo": "bar"})
    with VideoWriter(tmp_path / "out.mkv", like=describe(source), scale=1) as writer:
        write_all(writer, describe(source))
        assert writer.notes == ()
    found = contents(tmp_path / "out.mkv")
    assert [stream.kind for stream in found.streams] == ["video"]
    assert (found.metadata["title"], found.metadata["foo"]) == ("a title", "bar")


@pytest.mark.parametrize("name", ["n" * 300 + ".mp4", "n" * 300])
def test_names_too_long_are_refused_before_the_work(tmp_path, name):
    with pytest.raises(OutputError, match="name too long"):
        open_writer(tmp_path / name, like=images(tmp_path / "in"), scale=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode elsewhere")
def test_names_of_any_bytes(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4"))
    write(path, images(tmp_path / "in"), [0, 1])
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff.mp4"]  # noqa: PTH208


def test_a_folder_that_cannot_be_replaced_comes_back(tmp_path, monkeypatch):
    info = images(tmp_path / "in")
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "00000000.png").write_bytes(b"precious")
    rename = Path.rename

    def failing(path, target):
        if path.suffix == ".part":
            raise OSError(5, "Input/output error")
        return rename(path, target)

    writer = open_writer(folder, like=info, scale=1, overwrite=True)
    writer.write(frame_at(info, 0))
    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match="Input/output"):
        writer.close()
    assert (folder / "00000000.png").read_bytes() == b"precious"
    assert sources_of(folder) == ["frames"]


def test_dropping_what_is_not_there_is_an_error_for_images_too(tmp_path):
    with pytest.raises(OptionsError, match="cannot drop 'sound'"):
        open_writer(tmp_path / "out", like=images(tmp_path / "in"), drop=["sound"])
    assert list(tmp_path.iterdir()) == []
