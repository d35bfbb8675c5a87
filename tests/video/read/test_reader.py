import os
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from iart.errors import InputError
from iart.pictures.color import Color
from iart.video.frame import Frame
from iart.video.read.reader import VideoReader
from tests.video import clips
from tests.video.clips import HEIGHT, RATE, WIDTH, picture


def read(path: Path, **more) -> tuple[VideoReader, list[Frame]]:
    with VideoReader(path, **more) as reader:
        return reader, list(reader)


def shown(frame: Frame) -> np.ndarray:
    """The frame as an 8-bit array (h, w, 3)."""
    return (frame.data.permute(1, 2, 0) * 255).round().numpy()


def assert_shows(frame: Frame, image: np.ndarray, mean_error: float = 4.0) -> None:
    assert shown(frame).shape == image.shape
    assert np.abs(shown(frame) - image).mean() < mean_error


# Frames and times


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov", "avi", "ts"])
def test_every_frame_comes_once_in_order_and_in_time(tmp_path: Path, ending: str):
    reader, frames = read(clips.make_plain(tmp_path / f"a.{ending}"))
    assert len(frames) == 10
    for index, frame in enumerate(frames):
        assert frame.data.shape == (3, HEIGHT, WIDTH)
        assert frame.data.dtype == torch.float32
        assert frame.time - frames[0].time == index / RATE
        assert_shows(frame, picture(index))
    assert frames[0].time == reader.info.start_seconds
    assert reader.losses == []


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "ts", "h264"])
def test_b_frames_come_in_presentation_order(tmp_path: Path, ending: str):
    reader, frames = read(clips.make_b_frames(tmp_path / f"a.{ending}"))
    assert [frame.time - frames[0].time for frame in frames] == [i / RATE for i in range(10)]
    for index, frame in enumerate(frames):
        assert_shows(frame, picture(index))
    assert reader.losses == []


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_variable_rate_is_kept(tmp_path: Path, ending: str):
    path = clips.make_variable_rate(tmp_path / f"a.{ending}")
    reader, frames = read(path)
    assert [frame.time for frame in frames] == [Fraction(t, 1000) for t in clips.VARIABLE_PTS]
    assert [frame.time for frame in frames] == clips.packet_times(path)
    assert reader.info.variable_rate
    assert reader.losses == []


def test_ntsc_rate_stays_a_fraction(tmp_path: Path):
    rate = Fraction(30000, 1001)
    reader, frames = read(clips.make_plain(tmp_path / "a.mp4", rate=rate))
    assert reader.info.rate == rate
    assert frames[9].time == 9 / rate
    assert frames[9].duration * frames[9].time_base == 1 / rate


def test_missing_times_follow_from_the_rate(tmp_path: Path):
    path = clips.make_clip(tmp_path / "a.h264", container="h264", options={"bf": "2"})
    with av.open(str(path)) as container:
        assert all(packet.pts is None for packet in container.demux(video=0))
    reader, frames = read(path)
    assert [frame.time for frame in frames] == [i / RATE for i in range(10)]
    assert reader.info.rate == RATE


def test_a_reader_can_be_read_twice(tmp_path: Path):
    with VideoReader(clips.make_plain(tmp_path / "a.mp4", frames=4)) as reader:
        first, second = list(reader), list(reader)
    assert [f.pts for f in first] == [f.pts for f in second]
    assert all(torch.equal(a.data, b.data) for a, b in zip(first, second, strict=True))


def test_leaving_half_way_releases_the_file(tmp_path: Path):
    path = clips.make_plain(tmp_path / "a.mp4")
    with VideoReader(path) as reader:
        iterator = iter(reader)
        next(iterator)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        list(reader)


# What the header says


def test_info_of_a_plain_file(tmp_path: Path):
    info = VideoReader(clips.make_plain(tmp_path / "a.mp4")).info
    assert (info.width, info.height, info.codec) == (WIDTH, HEIGHT, "h264")
    assert "mp4" in info.container
    assert (info.pixel_format, info.bit_depth) == ("yuv420p", 8)
    assert (info.rate, info.frame_count, info.duration_seconds) == (RATE, 10, Fraction(2, 5))
    assert info.sample_aspect == 1
    assert info.rotation == 0
    assert info.variable_rate is False
    assert not info.interlaced
    assert not info.closed_captions


def test_tracks_chapters_and_metadata(tmp_path: Path):
    info = VideoReader(
        clips.make_tracks(tmp_path / "a.mkv", attachment=b"note", chapters=((0.0, 0.2, "one"),))
    ).info
    assert [(t.kind, t.codec, t.language) for t in info.tracks] == [
        ("video", "h264", None),
        ("audio", "aac", "eng"),
        ("audio", "aac", "fra"),
        ("subtitle", "subrip", "eng"),
        ("subtitle", "subrip", "deu"),
        ("attachment", "none", None),
    ]
    assert info.tracks[1].title == "sound in eng"
    assert "48000 Hz" in info.tracks[1].details
    assert info.chapters[0].title == "one"
    assert info.chapters[0].end_seconds == Fraction(1, 5)
    assert info.metadata["title"] == "made clip"
    assert info.duration_seconds == Fraction(2, 5)
    assert info.frame_count == 10


def test_sound_longer_than_the_picture_is_no_loss(tmp_path: Path):
    for ending in ("mkv", "mp4"):
        reader, frames = read(clips.make_tracks(tmp_path / f"a.{ending}", audio_seconds=2.0))
        assert len(frames) == 10
        assert reader.losses == []


def test_cover_art_is_not_the_video(tmp_path: Path):
    reader, frames = read(clips.make_clip(tmp_path / "a.mp4", cover=True, audio=("eng",)))
    assert (reader.info.width, reader.info.codec, len(frames)) == (WIDTH, "h264", 10)
    assert "attached_pic" in reader.info.tracks[-1].disposition


def test_a_mark_of_interlacing_is_noticed(tmp_path: Path):
    path = clips.make_interlaced(tmp_path / "a.mp4")
    assert VideoReader(path, deinterlace="off").info.interlaced


def test_closed_captions_are_noticed(tmp_path: Path):
    path = clips.make_captioned(tmp_path / "a.ts")
    assert VideoReader(path).info.closed_captions


# Shape and colour


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_frames_come_upright(tmp_path: Path, ending: str, rotation: int):
    path = clips.make_rotated(tmp_path / f"a.{ending}", rotation, sample_aspect=Fraction(4, 3))
    reader, frames = read(path)
    upright = np.rot90(picture(0), -rotation // 90)
    assert (reader.info.width, reader.info.height) == (upright.shape[1], upright.shape[0])
    assert reader.info.rotation == rotation
    assert reader.info.sample_aspect == (Fraction(4, 3) if rotation == 180 else Fraction(3, 4))
    assert_shows(frames[0], upright)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_mirrored_frames_come_upright(tmp_path: Path, rotation: int):
    _, frames = read(clips.make_rotated(tmp_path / "a.mp4", rotation, flip=True))
    assert_shows(frames[0], np.rot90(np.fliplr(picture(0)), -rotation // 90))


def test_anamorphic_pixels(tmp_path: Path):
    info = VideoReader(clips.make_anamorphic(tmp_path / "a.mkv")).info
    assert info.sample_aspect == Fraction(16, 15)
    assert (info.width, info.height) == (WIDTH, HEIGHT)


def test_odd_sizes(tmp_path: Path):
    _, frames = read(clips.make_odd_size(tmp_path / "a.mkv"))
    assert frames[0].data.shape == (3, 47, 63)
    assert_shows(frames[3], picture(3, 63, 47))


def test_ten_bits_stay_ten(tmp_path: Path):
    reader, frames = read(clips.make_ten_bit(tmp_path / "a.mkv", frames=3))
    assert reader.info.bit_depth == 10
    assert_shows(frames[0], picture(0))


@pytest.mark.parametrize(
    "color", [(1, 1, 1, 1), (6, 6, 6, 1), (5, 6, 5, 2), (9, 16, 9, 1), (1, 13, 1, 2)]
)
def test_stated_colour_is_read_and_used(tmp_path: Path, color):
    reader, frames = read(clips.make_clip(tmp_path / "a.mkv", color=color, frames=2))
    assert reader.info.color == Color(*color[:3], full_range=color[3] == 2)
    assert_shows(frames[0], picture(0))


def test_unstated_colour_is_that_of_the_size(tmp_path: Path):
    assert VideoReader(clips.make_plain(tmp_path / "a.mp4")).info.color == Color(5, 6, 5, False)


def test_rgb_stays_rgb(tmp_path: Path):
    path = clips.make_clip(tmp_path / "a.mkv", codec="ffv1", pixel_format="bgr0", frames=3)
    reader, frames = read(path)
    assert reader.info.color == Color(1, 13, 0, full_range=True)
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(shown(frame), picture(index))


def test_cuts_are_marked(tmp_path: Path):
    path = clips.make_scenes(tmp_path / "a.mp4", (8, 7, 9))
    _, frames = read(path)
    assert [i for i, frame in enumerate(frames) if frame.cut] == [8, 15]
    _, frames = read(path, scenes=False)
    assert len(frames) == 24
    assert not any(frame.cut for frame in frames)


# Damage


def _spoil(path: Path, damaged: Path, indices: range) -> Path:
    return clips.remux(
        path, damaged, lambda i, packet: clips.spoiled(packet) if i in indices else packet
    )


def test_spoiled_packets_are_lost_and_the_rest_goes_on(tmp_path: Path):
    path = clips.make_plain(tmp_path / "a.mkv", frames=30, options={"g": "5"})
    reader, frames = read(_spoil(path, tmp_path / "b.mkv", range(10, 15)))
    times = [frame.time for frame in frames]
    assert all(a < b for a, b in pairwise(times))
    assert {i / RATE for i in (*range(10), *range(15, 30))} <= set(times)
    (loss,) = reader.losses
    assert abs(loss.start_seconds - 10 / RATE) <= 1 / RATE
    assert loss.end_seconds is not None
    assert abs(loss.end_seconds - 15 / RATE) <= 1 / RATE
    assert "Invalid data" in loss.reason or "damaged" in loss.reason


def test_missing_packets_are_noticed_in_an_even_video(tmp_path: Path):
    path = clips.make_plain(tmp_path / "a.mkv", frames=50, options={"g": "1"})
    cut = clips.remux(path, tmp_path / "b.mkv", lambda i, p: None if i in (35, 36, 37) else p)
    reader, frames = read(cut)
    assert len(frames) == 47
    (loss,) = reader.losses
    assert (loss.start_seconds, loss.end_seconds) == (35 / RATE, 38 / RATE)
    assert "3 frames are missing" in loss.reason


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
@pytest.mark.parametrize("audio", [(), ("eng",)])
def test_a_film_that_begins_late_is_whole(tmp_path: Path, ending: str, audio: tuple[str, ...]):
    path = clips.make_clip(
        tmp_path / f"late.{ending}",
        frames=25,
        rate=Fraction(25),
        pts=range(50, 75),
        audio=audio,
        audio_seconds=3.0,
    )
    reader, frames = read(path)
    assert (reader.info.start_seconds, reader.info.duration_seconds) == (2, 1)
    assert reader.info.frame_count == len(frames) == 25
    assert not reader.losses


@pytest.mark.parametrize(("begin", "sound"), [(3600, []), (0, ["eng"])])
def test_the_length_of_asf_is_that_of_the_file(tmp_path: Path, begin: int, sound: list[str]):
    """It says when the file ends: pictures that begin late, or sound that goes on, lack nothing."""
    path = clips.make_clip(
        tmp_path / "a.wmv",
        frames=6,
        codec="wmv2",
        pts=[1000 * begin + 40 * i for i in range(6)],
        time_base=Fraction(1, 1000),
        audio=sound,
        audio_codec="mp3",
        audio_seconds=2,
    )
    reader, frames = read(path)
    assert len(frames) == 6
    assert not reader.losses


def test_few_late_frames_of_matroska_are_all(tmp_path: Path):
    """Of so few, FFmpeg gives the end of the file as the length of the stream."""
    path = clips.make_clip(tmp_path / "a.mkv", frames=6, pts=range(250, 256))
    reader, frames = read(path)
    assert (len(frames), reader.info.duration_seconds) == (6, Fraction(6, 25))
    assert not reader.losses


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_file_that_ends_early(tmp_path: Path, ending: str):
    path = tmp_path / f"a.{ending}"
    options = {"movflags": "faststart"} if ending == "mp4" else {}
    clips.make_plain(path, frames=60, container_options=options, options={"g": "10"})
    reader, frames = read(clips.truncate(path, 0.6))
    assert 10 < len(frames) < 50
    assert reader.losses
    last = reader.losses[-1]
    assert abs(last.start_seconds - len(frames) / RATE) <= 3 / RATE
    assert last.end_seconds == Fraction(12, 5)


@pytest.mark.parametrize("ending", ["mkv", "ts", "mp4", "avi"])
def test_overwritten_bytes(tmp_path: Path, ending: str):
    path = tmp_path / f"a.{ending}"
    options = {"movflags": "faststart"} if ending == "mp4" else {}
    clips.make_plain(path, frames=80, options={"g": "8"}, container_options=options)
    reader, frames = read(clips.overwrite_middle(path, 0.45, 0.55))
    assert 40 < len(frames) <= 80
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    assert_shows(frames[-1], picture(79))
    assert reader.losses


def test_times_that_jump_back_are_counted_on(tmp_path: Path):
    path = clips.make_plain(tmp_path / "a.mkv", pts=[5000 + 40 * i for i in range(12)],
                            frames=12, time_base=Fraction(1, 1000), options={"g": "1"})  # fmt: skip
    reader, frames = read(clips.concatenate_raw(path, tmp_path / "b.ts", 90_000 * 3))
    assert len(frames) == 24
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    assert any("jump back by 3." in loss.reason for loss in reader.losses)


# Refusals


def test_missing_file(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot read 'none.mp4': no such file"):
        VideoReader(tmp_path / "none.mp4")


def test_a_folder_is_not_a_file(tmp_path: Path):
    with pytest.raises(InputError, match="it is a folder"):
        VideoReader(tmp_path)


def test_empty_file(tmp_path: Path):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(InputError, match="the file is empty"):
        VideoReader(tmp_path / "a.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "a.bin", "a.txt"])
def test_not_a_media_file(tmp_path: Path, name: str):
    (tmp_path / name).write_text("nothing to see here\n" * 500)
    with pytest.raises(InputError, match=rf"cannot read '{name}': .*Pass a file"):
        VideoReader(tmp_path / name)


def test_no_video_stream(tmp_path: Path):
    path = clips.make_sound_only(tmp_path / "a.mp4")
    with pytest.raises(
        InputError, match=r"no video stream \(found: audio aac\)\. Pass a file with a video stream"
    ):
        VideoReader(path)


def test_only_cover_art(tmp_path: Path):
    path = clips.make_sound_with_cover(tmp_path / "a.mp4")
    with pytest.raises(InputError, match=r"no video stream \(found: audio aac, cover art png\)"):
        VideoReader(path)


def test_truncated_header_passes_on_what_ffmpeg_says(tmp_path: Path):
    path = clips.truncate(clips.make_plain(tmp_path / "a.mp4"), 0.5)
    with pytest.raises(InputError, match="moov atom not found"):
        VideoReader(path)


def test_no_frame_can_be_decoded(tmp_path: Path):
    path = clips.make_plain(tmp_path / "a.mkv", frames=5)
    spoiled = clips.remux(path, tmp_path / "b.mkv", lambda _, p: clips.spoiled(p, 4))
    with pytest.raises(InputError, match="no frame of its h264 video can be decoded"):
        VideoReader(spoiled)


def test_a_stream_without_packets(tmp_path: Path):
    path = clips.make_plain(tmp_path / "a.avi")
    empty = clips.remux(path, tmp_path / "b.avi", lambda _, packet: None)
    with pytest.raises(InputError, match=r"cannot read 'b\.avi': its h264 video .*frame"):
        VideoReader(empty)


def test_an_encrypted_file_is_named(tmp_path: Path):
    path = clips.make_encrypted(tmp_path / "a.mp4")
    with pytest.raises(InputError, match="is encrypted"):
        VideoReader(path)


def test_an_unsupported_matrix_is_named(tmp_path: Path):
    path = clips.make_clip(tmp_path / "a.mkv", color=(9, 16, 14, 1))
    with pytest.raises(InputError, match=r"colour matrix \(ictcp\) is not supported"):
        VideoReader(path)


def test_an_unknown_codec_is_named(tmp_path: Path):
    path = clips.make_plain(tmp_path / "a.mkv")
    data = path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_NOSUCH/ISO/AV")
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"no decoder for its video codec"):
        VideoReader(path)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "avi"])
def test_random_damage_gives_frames_or_a_clear_error(tmp_path: Path, ending: str):
    options = {"movflags": "faststart"} if ending == "mp4" else {}
    path = clips.make_tracks(tmp_path / f"a.{ending}", container_options=options,
                             **({} if ending in ("mp4", "mkv") else {"subtitles": ()}))  # fmt: skip
    whole = path.read_bytes()
    for seed in range(12):
        random = np.random.default_rng(seed)
        data = bytearray(whole)
        for place in random.integers(0, len(data), 3 + 4 * seed):
            data[place] = random.integers(0, 256)
        path.write_bytes(data)
        try:
            _, frames = read(path)
        except InputError:
            continue
        assert all(a.pts < b.pts for a, b in pairwise(frames))
        assert len({tuple(frame.data.shape) for frame in frames}) == 1


def test_a_change_of_size_is_scaled_back_and_recorded(tmp_path: Path):
    options = {"g": "1"}
    first = clips.make_plain(tmp_path / "1.ts", frames=5, options=options)
    second = clips.make_plain(
        tmp_path / "2.ts", frames=5, width=96, height=64, options=options,
        pts=range(5, 10),
    )  # fmt: skip
    joined = tmp_path / "a.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    reader, frames = read(joined)
    assert {tuple(frame.data.shape) for frame in frames} == {(3, HEIGHT, WIDTH)}
    assert len(frames) == 10
    assert any("changes from 64x48 to 96x64" in loss.reason for loss in reader.losses)
    assert [i for i, frame in enumerate(frames) if frame.cut] == []


def test_a_colon_in_a_name_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clips.make_clip(tmp_path / "in.mkv", frames=2).rename(tmp_path / "a:b.mkv")
    monkeypatch.chdir(tmp_path)
    with VideoReader("a:b.mkv") as video:
        assert len(list(video)) == 2


def test_a_pipe_is_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="can be read only once"):
        VideoReader(tmp_path / "pipe")


def test_a_name_that_no_file_can_have(tmp_path: Path):
    with pytest.raises(InputError, match="name too long"):
        VideoReader(tmp_path / ("n" * 300))
