"""From a disc, or what a disc ripper made of it, to an enlarged film: everything is kept."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from av.packet import Packet

from iart.cli.inputs import pair_up
from iart.model.bicubic import Bicubic
from iart.upscaling.film.run import upscale_video
from iart.video.read.probe import read_info
from tests.video.clips import make_clip
from tests.video.discs import (
    insert,
    make_ifo,
    make_subtitle_picture,
    make_subtitle_sector,
    make_vob,
)

RATE = Fraction(30000, 1001)


def fields(count: int) -> list[np.ndarray]:
    """A bar that moves right between the two fields of a picture, upper field first."""
    images = []
    for index in range(count):
        image = np.full((480, 720, 3), 60, np.uint8)
        for parity in (0, 1):
            left = 40 + 24 * index + 12 * parity
            image[parity::2, left : left + 80] = (200, 80, 60)
        images.append(image)
    return images


def _combing(frame: av.VideoFrame) -> float:
    """Mean difference of luma between each row and those above and below."""
    rows = frame.to_ndarray(format="gray").astype(float)
    return float(np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean())


def packets_of(path: Path, kind: str, number: int = 0) -> list[Packet]:
    with av.open(str(path)) as container:
        stream = [s for s in container.streams if s.type == kind][number]
        return [packet for packet in container.demux(stream) if packet.size]


def make_film(path: Path, **more) -> Path:
    """MPEG-2 in fields, 16:9, SD's colours, with AC-3."""
    return make_clip(
        path,
        fields(8),
        rate=RATE,
        codec="mpeg2video",
        options={"flags": "+ildct+ilme", "top": "1", "field_order": "tt", "qscale": "2"},
        color=(6, 6, 6, 1),
        sample_aspect=Fraction(32, 27),
        audio=["eng"],
        audio_codec="ac3",
        **more,
    )


def make_rip(path: Path) -> Path:
    """As rippers write a film: MPEG-2 in fields, AC-3, two subtitle tracks, chapters."""
    plain = make_film(path.with_name("plain.mkv"))
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        streams = [target.add_stream_from_template(s, opaque=True) for s in source.streams]
        for old, new in zip(source.streams, streams, strict=True):
            new.metadata.update(old.metadata)
        texts = []
        for language in ("ger", "fre"):
            text = target.add_stream("dvdsub")
            text.codec_context.time_base = Fraction(1, 1000)
            text.metadata["language"] = language
            texts.append(text)
        target.set_chapters([
            {"id": i + 1, "start": 200 * i, "end": 200 * i + 200, "time_base": Fraction(1, 1000),
             "metadata": {"title": f"part {i}"}}
            for i in range(2)
        ])  # fmt: skip
        target.start_encoding()
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
        for index, text in enumerate(texts):
            packet = Packet(make_subtitle_picture())
            packet.stream, packet.time_base = text, Fraction(1, 1000)
            packet.pts = packet.dts = 100 * index
            packet.duration = 150
            target.mux(packet)
    return path


def enlarge(source: Path, target: Path) -> None:
    assert read_info(source).interlaced
    upscale_video(
        source, target, Bicubic(), window=4, overlap=1, size="720p", preset="ultrafast", crf=10
    )


def seconds_of(items: Iterable[av.VideoFrame | Packet]) -> list[Fraction]:
    return [i.pts * i.time_base for i in items if i.pts is not None and i.time_base is not None]


def assert_picture_is_enlarged(source: Path, target: Path) -> None:
    """Geometry, progressive frames, colours, and a frame for each picture, at its time."""
    with av.open(str(source)) as old, av.open(str(target)) as new:
        video = new.streams.video[0]
        frames = list(new.decode(video))
        assert video.sample_aspect_ratio is not None
        shape = Fraction(video.width, video.height) * video.sample_aspect_ratio
        assert video.height == 720
        assert abs(shape / Fraction(16, 9) - 1) < Fraction(1, 500)
        assert not any(frame.interlaced_frame for frame in frames)
        assert all(_combing(frame) < 0.05 for frame in frames)
        context = video.codec_context
        numbers = (context.color_primaries, context.color_trc, context.colorspace)
        assert numbers == (1, 1, 1)  # BT.709, as HD has
        assert context.color_range == 1
        times, old_times = seconds_of(frames), seconds_of(old.decode(video=0))
        assert len(times) == len(old_times) == 8
        assert _differ_by_one_shift(times, old_times)


def assert_packets_are_kept(source: Path, target: Path, kind: str, number: int = 0) -> None:
    """The same bytes, in step with the picture."""
    before, after = packets_of(source, kind, number), packets_of(target, kind, number)
    assert before
    assert [bytes(p) for p in after] == [bytes(p) for p in before]
    shown, was_shown = (min(seconds_of(packets_of(p, "video"))) for p in (target, source))
    assert _differ_by_one_shift([shown, *seconds_of(after)], [was_shown, *seconds_of(before)])


def _differ_by_one_shift(times: list[Fraction], others: list[Fraction]) -> bool:
    """Whether two clocks differ by where they begin only; Matroska counts milliseconds."""
    assert len(times) == len(others)
    shifts = [a - b for a, b in zip(times, others, strict=True)]
    return max(shifts) - min(shifts) <= Fraction(1, 1000)


def test_what_a_disc_ripper_made_keeps_everything(tmp_path: Path):
    source, target = make_rip(tmp_path / "rip.mkv"), tmp_path / "large.mkv"
    enlarge(source, target)
    assert_picture_is_enlarged(source, target)
    times, old_times = (sorted(seconds_of(packets_of(p, "video"))) for p in (target, source))
    assert times == old_times
    for kind, number in (("audio", 0), ("subtitle", 0), ("subtitle", 1)):
        assert_packets_are_kept(source, target, kind, number)
        before, after = packets_of(source, kind, number), packets_of(target, kind, number)
        assert [p.pts for p in after] == [p.pts for p in before]
    with av.open(str(source)) as old, av.open(str(target)) as new:
        assert [s.type for s in new.streams] == ["video", "audio", "subtitle", "subtitle"]
        assert [s.metadata.get("language") for s in new.streams][1:] == ["eng", "ger", "fre"]
        assert [c["metadata"] for c in new.chapters()] == [{"title": "part 0"}, {"title": "part 1"}]
        assert [(c["start"], c["end"]) for c in new.chapters()] == [
            (c["start"], c["end"]) for c in old.chapters()
        ]
        for before, after in zip(old.streams.subtitles, new.streams.subtitles, strict=True):
            assert b"palette" in (before.codec_context.extradata or b"")
            assert after.codec_context.extradata == before.codec_context.extradata


def test_a_vob_by_itself_keeps_what_it_has(tmp_path: Path):
    source, target = make_film(tmp_path / "film.VOB", container="vob"), tmp_path / "large.mkv"
    insert(source, 3, make_subtitle_sector(45000, 63000, 0))
    enlarge(source, target)
    assert_picture_is_enlarged(source, target)
    for kind in ("audio", "subtitle"):
        assert_packets_are_kept(source, target, kind)
    with av.open(str(target)) as new:
        assert [s.type for s in new.streams] == ["video", "audio", "subtitle"]
        assert not new.chapters()


@pytest.mark.parametrize("given", ["folder", "file", "list"])
def test_a_disc_is_one_film(tmp_path: Path, given: str):
    folder = tmp_path / "VIDEO_TS"
    folder.mkdir()
    first = make_vob(folder / "VTS_01_1.VOB", 0, 20)
    insert(first, 3, make_subtitle_sector(60000, 90000, 0))
    make_vob(folder / "VTS_01_2.VOB", 20, 20)
    make_ifo(
        folder / "VTS_01_0.IFO",
        cells=[(0, 12, b"\0\0\0\x60"), (13, 25, b"\0\0\0\x60")],
        programs=[1, 2],
        subtitles=["de"],
    )
    sources = {
        "folder": [str(folder)],
        "file": [str(folder / "VTS_01_1.VOB")],
        "list": [str(path) for path in sorted(folder.glob("*.VOB"))],
    }[given]
    target = tmp_path / "film.mkv"
    [(source, _)] = pair_up(sources, target)
    upscale_video(source, target, Bicubic(), window=10, overlap=1, preset="ultrafast")

    with av.open(str(target)) as film:
        times = [frame.pts for frame in film.decode(video=0) if frame.pts is not None]
        assert [b - a for a, b in pairwise(times)] == [40] * 39
        assert [s.type for s in film.streams] == ["video", "audio", "subtitle"]
        assert [s.metadata.get("language") for s in film.streams][1:] == ["eng", "ger"]
        header = film.streams.subtitles[0].codec_context.extradata or b""
        assert header.startswith(b"size: 720x480\npalette: 000000, ")
        assert len(film.chapters()) == 2
    [subtitle] = packets_of(target, "subtitle")
    assert bytes(subtitle) == make_subtitle_picture()
    parts = sorted(folder.glob("VTS_01_[12].VOB"))
    with av.open(str(parts[0])) as part:
        start = next(f.pts for f in part.decode(video=0) if f.pts is not None)
    assert subtitle.pts is not None
    assert abs(subtitle.pts - times[0] - (90000 - start) / 90) <= 1
    before = [bytes(p) for path in parts for p in packets_of(path, "audio")]
    assert [bytes(p) for p in packets_of(target, "audio")] == before
