"""Tracks of the source in the output: equal bytes, equal times, or a refusal by name."""

import os
import subprocess
import sys
import textwrap
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.packet import Packet
from av.stream import Disposition
from av.subtitles.subtitle import SubtitleSet

from iart.errors import OptionsError, OutputError
from iart.video.write.writer import VideoWriter
from tests.video.clips import make_clip, make_tracks, picture
from tests.video.outputs import contents, describe, write_all

ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, Bold, Italic, Underline, Alignment
Style: Default,Arial,16,&Hffffff,0,0,0,2

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def enlarge(source: Path, output: Path, **options) -> tuple[str, ...]:
    """Write the output with as many frames as the source has; returns the notes."""
    info = describe(source)
    with VideoWriter(output, like=info, scale=1, **options) as writer:
        write_all(writer, info)
    assert writer.losses == []
    return writer.notes


def make_source(
    path: Path,
    *,
    audio: str = "aac",
    form: str | None = None,
    seconds: float = 0.5,
    audio_start: Fraction = Fraction(0),
    video_start: Fraction = Fraction(0),
    frames: int = 10,
    container: str | None = None,
    codec: str = "libx264",
) -> Path:
    """A video and one track of loud noise, each with its own start; 25 frames per second."""
    with av.open(str(path), "w", format=container) as output:
        video: Any = output.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.max_b_frames = 0
        sound: Any = output.add_stream(audio, rate=48000)
        sound.codec_context.layout = "stereo"
        if form:
            sound.codec_context.format = form
        sound.metadata.update(language="deu", title="Kommentar")
        sound.disposition = Disposition.default | Disposition.comment | Disposition.hearing_impaired
        packets = []
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts, frame.time_base = i + round(video_start * 25), Fraction(1, 25)
            packets += video.encode(frame)
        packets += video.encode(None)
        for start, block in blocks(seconds, "s32" if form == "s32" else "s16"):
            block.pts = start + round(audio_start * 48000)
            packets += sound.encode(block)
        packets += sound.encode(None)
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        for packet in packets:
            output.mux(packet)
    return path


def blocks(seconds: float, form: str):
    random = np.random.default_rng(0)
    for start in range(0, round(seconds * 48000), 1024):
        if form == "s32":  # 24 bits, as DVDs and studios have
            samples = random.integers(-(2**22), 2**22, (1, 2048)).astype(np.int32) * 256
        else:
            samples = random.integers(-20000, 20000, (1, 2048)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format=form, layout="stereo")
        frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
        yield start, frame


def samples_of(path: Path) -> np.ndarray:
    """Decoded sound of the first track as 32-bit integers, shape (2, n)."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="s32p", layout="stereo")
        parts = [
            part.to_ndarray()
            for frame in container.decode(audio=0)
            for part in resampler.resample(frame)
        ]
    return np.concatenate(parts, axis=1)


def make_text(path: Path, codec: str, lines: list[tuple[int, int, str]]) -> Path:
    """A video with text subtitles: start and length in milliseconds, and ASS text."""
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        text: Any = output.add_stream(codec)
        text.codec_context.subtitle_header = ASS_HEADER
        text.codec_context.time_base = Fraction(1, 1000)
        text.metadata["language"] = "deu"
        text.disposition = Disposition.forced
        output.start_encoding()
        for i in range(10):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts, frame.time_base = i * 5, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for i, (start, length, words) in enumerate(lines):
            ass = f"{i},0,Default,,0,0,0,,{words}".encode()
            line = SubtitleSet.create(ass, 0, length, start)
            packet = text.codec_context.encode_subtitle(line)
            packet.stream, packet.time_base = text, Fraction(1, 1000)
            packet.pts = packet.dts = start
            packet.duration = length
            output.mux(packet)
    return path


def texts(path: Path) -> list[tuple[int, int, str]]:
    """Start and length in milliseconds, and what is read."""
    found = []
    with av.open(str(path)) as container:
        stream: Any = container.streams.subtitles[0]
        for packet in container.demux(stream):
            for line in stream.codec_context.decode2(packet) or () if packet.size else ():
                words = line.ass.decode().split(",", 8)[8]
                start = round(packet.pts * packet.time_base * 1000)
                found.append((start, round(packet.duration * packet.time_base * 1000), words))
    return found


# Copies


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("in.mkv", "out.mkv"), ("in.mp4", "out.mp4"), ("in.mp4", "out.mov"), ("in.mov", "out.mp4")],
)
def test_everything_is_copied_bit_by_bit(tmp_path, given, wanted):
    source = make_tracks(
        tmp_path / given,
        metadata={"title": "made clip", "comment": "a comment", "my_key": "a value"},
        container_options={"movflags": "use_metadata_tags"} if given != "in.mkv" else None,
    )
    notes = enlarge(source, tmp_path / wanted)
    before, after = contents(source), contents(tmp_path / wanted)
    assert notes == ()
    kinds = ["video", "audio", "audio", "subtitle", "subtitle"]
    assert [stream.kind for stream in after.streams] == kinds
    for old, new in zip(before.streams[1:], after.streams[1:], strict=True):
        assert new.codec == old.codec
        assert new.payloads == old.payloads
        assert new.times == old.times
        assert language(new) == language(old)
        assert title(new) == title(old)
    assert after.chapters == before.chapters
    for key in ("title", "comment", "my_key"):
        assert after.metadata[key] == before.metadata[key]


def language(stream):
    # QuickTime has a number for one of the two codes for German, and none for "undetermined"
    return {"ger": "deu", "und": None}.get(code := stream.metadata.get("language"), code)


def title(stream):
    return stream.metadata.get("title") or stream.metadata.get("name")


@pytest.mark.parametrize("wanted", ["out.mkv", "out.mp4", "out.mov"])
@pytest.mark.parametrize("given", ["in.mkv", "in.mp4"])
def test_language_title_and_marks_go_along(tmp_path, given, wanted):
    notes = enlarge(make_source(tmp_path / given), tmp_path / wanted)
    before, after = (contents(tmp_path / name).of("audio")[0] for name in (given, wanted))
    assert after.payloads == before.payloads
    assert language(after) == "deu"
    marks = [Disposition.comment, Disposition.hearing_impaired]
    kept = [mark for mark in marks if mark in after.disposition]
    if wanted == "out.mov":
        assert any("mark 'comment', mark 'hearing_impaired'" in note for note in notes)
    else:
        assert kept == marks
        assert not notes
    assert title(after) == "Kommentar" or any("title 'Kommentar'" in note for note in notes)


def test_fonts_and_covers_are_attached(tmp_path):
    font = bytes(range(256)) * 40
    source = make_clip(tmp_path / "in.mkv", attachment=font)
    assert enlarge(source, tmp_path / "out.mkv") == ()
    attached = contents(tmp_path / "out.mkv").of("attachment")
    assert [stream.data for stream in attached] == [font]
    assert attached[0].metadata["filename"] == "note.txt"
    assert attached[0].metadata["mimetype"] == "text/plain"


@pytest.mark.parametrize("wanted", ["out.mkv", "out.mp4"])
def test_a_cover_picture_stays_one(tmp_path, wanted):
    source = make_clip(tmp_path / "in.mp4", cover=True, audio=("eng",))
    enlarge(source, tmp_path / wanted)
    before, after = (contents(path).of("cover") for path in (source, tmp_path / wanted))
    assert [stream.payloads for stream in after] == [stream.payloads for stream in before]
    assert len(after) == 1
    enlarge(tmp_path / wanted, tmp_path / "again.mkv")
    again = contents(tmp_path / "again.mkv").of("cover")
    assert [stream.payloads for stream in again] == [stream.payloads for stream in before]


def test_a_second_video_is_copied_as_it_is(tmp_path):
    source = tmp_path / "in.mkv"
    with (
        av.open(str(make_clip(tmp_path / "a.mkv", options={"bf": "2"}))) as first,
        av.open(str(make_clip(tmp_path / "b.mkv", width=32, height=32))) as second,
        av.open(str(source), "w") as output,
    ):
        streams = [given.streams.video[0] for given in (first, second)]
        copies = [output.add_stream_from_template(stream, opaque=True) for stream in streams]
        for stream, copy in zip(streams, copies, strict=True):
            source_container: Any = stream.container
            for packet in source_container.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    output.mux(packet)
    notes = enlarge(source, tmp_path / "out.mp4")
    assert notes == ("video 1 (h264): copied as it is, not enlarged",)
    old, new = contents(source).streams[1], contents(tmp_path / "out.mp4").streams[1]
    assert (new.payloads, sorted(new.times)) == (old.payloads, sorted(old.times))
    assert enlarge(source, tmp_path / "one.mp4", drop=["video"]) == ()
    assert len(contents(tmp_path / "one.mp4").streams) == 1


@pytest.mark.parametrize("wanted", ["out.mkv", "out.mp4"])
def test_sound_of_broadcasts_loses_only_its_transport_header(tmp_path, wanted):
    source = make_source(tmp_path / "in.ts", codec="mpeg2video")
    enlarge(source, tmp_path / wanted)
    before, after = (contents(path).of("audio")[0] for path in (source, tmp_path / wanted))
    adts = 7  # bytes; other containers say the same once, in their header
    assert after.payloads == [payload[adts:] for payload in before.payloads]
    assert samples_of(tmp_path / wanted).any()


# Times of tracks against each other


@pytest.mark.parametrize("given", ["in.mkv", "in.mp4"])
@pytest.mark.parametrize("wanted", ["out.mkv", "out.mp4", "out.mov"])
@pytest.mark.parametrize(
    ("audio_start", "video_start"),
    [(0, 0), (Fraction(1, 2), 0), (0, Fraction(3, 5)), (Fraction(1, 2), Fraction(3, 5))],
)
def test_starts_stay_where_they_are(tmp_path, given, wanted, audio_start, video_start):
    source = make_source(tmp_path / given, audio_start=audio_start, video_start=video_start)
    enlarge(source, tmp_path / wanted)
    before, after = contents(source), contents(tmp_path / wanted)
    # a clock of milliseconds on either side
    tolerance = Fraction(1, 1000) if "mkv" in given + wanted else 0
    for old, new in zip(before.streams, after.streams, strict=True):
        assert abs(new.start - old.start) <= tolerance
    # the run-up of AAC lies before the start, on both sides
    assert after.streams[0].start == pytest.approx(float(video_start), abs=1e-9)
    assert after.streams[1].start == pytest.approx(float(audio_start) - 1024 / 48000, abs=1e-3)


def test_clocks_that_start_anywhere_are_shifted_for_all_alike(tmp_path):
    source = make_source(
        tmp_path / "in.ts", audio="mp2", audio_start=Fraction(7, 5), video_start=Fraction(8, 5),
        codec="mpeg2video",
    )  # fmt: skip
    before = contents(source)
    assert min(stream.start for stream in before.streams) > 1
    for name in ("out.mkv", "out.mp4"):
        notes = enlarge(source, tmp_path / name)
        assert any("all tracks move alike" in note for note in notes)
        after = contents(tmp_path / name)
        assert min(stream.start for stream in after.streams) == pytest.approx(0, abs=1e-3)
        given, written = (c.streams[0].start - c.streams[1].start for c in (before, after))
        assert float(written - given) == pytest.approx(0, abs=1e-3)


def test_sound_in_milliseconds_runs_smoothly_in_mp4(tmp_path):
    enlarge(make_source(tmp_path / "in.mkv", seconds=1), tmp_path / "out.mp4")
    times = contents(tmp_path / "out.mp4").of("audio")[0].times
    assert {b - a for a, b in pairwise(times)} == {Fraction(1024, 48000)}


# Conversions


@pytest.mark.parametrize(
    ("wanted", "codec"), [("out.mkv", "pcm_s16le"), ("out.mov", "pcm_s16le"), ("out.mp4", "flac")]
)
def test_sound_of_dvds_is_converted_without_loss(tmp_path, wanted, codec):
    source = make_source(
        tmp_path / "in.vob", audio="pcm_dvd", codec="mpeg2video", container="vob", seconds=0.4
    )
    notes = enlarge(source, tmp_path / wanted)
    assert f"audio 1: pcm_dvd → {codec}, without loss" in notes
    assert contents(tmp_path / wanted).of("audio")[0].codec == codec
    before, after = samples_of(source), samples_of(tmp_path / wanted)
    assert before.shape[1] > 10_000
    assert (before == after).all()


@pytest.mark.parametrize(("audio", "form"), [("pcm_s16le", "s16"), ("pcm_s24le", "s32")])
def test_pcm_becomes_flac_in_mp4(tmp_path, audio, form):
    source = make_source(tmp_path / "in.mkv", audio=audio, form=form, audio_start=Fraction(1, 4))
    notes = enlarge(source, tmp_path / "out.mp4")
    assert notes == (f"audio 1: {audio} → flac, without loss",)
    before, after = samples_of(source), samples_of(tmp_path / "out.mp4")
    assert before.shape == after.shape
    assert (before == after).all()
    assert contents(tmp_path / "out.mp4").of("audio")[0].start == Fraction(1, 4)


def test_pcm_is_copied_where_it_belongs(tmp_path):
    source = make_source(tmp_path / "in.mkv", audio="pcm_s24le", form="s32")
    for name in ("out.mkv", "out.mov"):
        assert not [note for note in enlarge(source, tmp_path / name) if "→" in note]
        before, after = contents(source), contents(tmp_path / name)
        assert b"".join(after.of("audio")[0].payloads) == b"".join(before.of("audio")[0].payloads)


LINES = [(100, 300, "plain"), (500, 200, "two\\Nlines"), (900, 250, "ünï → 字")]


@pytest.mark.parametrize(
    ("given", "codec", "wanted", "target"),
    [
        ("in.mkv", "subrip", "out.mp4", "mov_text"),
        ("in.mkv", "subrip", "out.mov", "mov_text"),
        ("in.mkv", "ass", "out.mp4", "mov_text"),
        ("in.mkv", "subrip", "out.webm", "webvtt"),
        ("in.mp4", "mov_text", "out.mkv", "subrip"),
        ("in.mp4", "mov_text", "out.webm", "webvtt"),
    ],
)
def test_text_is_converted(tmp_path, given, codec, wanted, target):
    source = make_text(tmp_path / given, codec, LINES)
    notes = enlarge(source, tmp_path / wanted)
    assert notes[0].startswith(f"subtitle 1: {codec} → {target}")
    assert texts(tmp_path / wanted) == texts(source) == LINES
    text = contents(tmp_path / wanted).of("subtitle")[0]
    if wanted != "out.mov":
        assert text.metadata["language"] == "deu"


def test_italics_survive_the_way_to_mp4_and_back(tmp_path):
    source = make_text(tmp_path / "in.mkv", "ass", [(0, 500, "so {\\i1}very{\\i0} much")])
    enlarge(source, tmp_path / "out.mp4")
    enlarge(tmp_path / "out.mp4", tmp_path / "out.mkv")
    payloads = contents(tmp_path / "out.mkv").of("subtitle")[0].payloads
    assert payloads == [b"so <i>very</i> much"]


def test_forced_subtitles_stay_forced_in_matroska(tmp_path):
    source = make_text(tmp_path / "in.mkv", "subrip", LINES)
    assert enlarge(source, tmp_path / "out.mkv") == ()
    assert Disposition.forced in contents(tmp_path / "out.mkv").of("subtitle")[0].disposition


# Refusals


BITMAP = b"\x16\x00\x0b" + bytes(11) + b"\x80\x00\x00"
"""A composition of nothing, and its end, in the format of Blu-ray subtitles."""


def make_unfit(path: Path) -> Path:
    """Matroska with bitmap subtitles and a font: nothing for MP4."""
    clip = make_clip(path.with_name("clip.mkv"), attachment=b"font", audio=("eng",))
    with av.open(str(clip)) as given, av.open(str(path), "w") as output:
        copies = {
            stream.index: output.add_stream_from_template(stream, opaque=True)
            for stream in given.streams
            if stream.type != "attachment"
        }
        bitmap = output.add_mux_stream("hdmv_pgs_subtitle")
        bitmap.metadata["language"] = "fra"
        output.add_attachment("a.ttf", "font/ttf", b"font")
        for packet in given.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream_index]
                output.mux(packet)
        packet = Packet(BITMAP)
        packet.pts = packet.dts = 100
        packet.duration, packet.stream, packet.time_base = 100, bitmap, Fraction(1, 1000)
        output.mux(packet)
    return path


def test_all_that_cannot_be_carried_is_named_at_once(tmp_path):
    source = make_unfit(tmp_path / "in.mkv")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError) as caught:
        VideoWriter(tmp_path / "out.mp4", like=describe(source))
    message = str(caught.value)
    assert "subtitle 2 (hdmv_pgs_subtitle, fra)" in message
    assert "attachment 3" in message
    assert "pass --drop 2 --drop 3" in message
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("drop", [["2", "3"], ["subtitle", "attachment"], ["subtitle", "3"]])
def test_what_is_dropped_is_no_obstacle(tmp_path, drop):
    source = make_unfit(tmp_path / "in.mkv")
    enlarge(source, tmp_path / "out.mp4", drop=drop)
    kinds = [stream.kind for stream in contents(tmp_path / "out.mp4").streams]
    assert kinds == ["video", "audio"]


def test_bitmap_subtitles_and_fonts_are_copied_into_matroska(tmp_path):
    source = make_unfit(tmp_path / "in.mkv")
    enlarge(source, tmp_path / "out.mkv")
    after = contents(tmp_path / "out.mkv")
    assert after.of("subtitle")[0].payloads == [BITMAP]
    assert after.of("attachment")[0].data == b"font"


def test_tracks_without_packets_are_carried(tmp_path):
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as output:
        video: Any = output.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        output.add_mux_stream("hdmv_pgs_subtitle").metadata["language"] = "fra"
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    assert enlarge(source, tmp_path / "out.mkv") == ()
    assert contents(tmp_path / "out.mkv").of("subtitle")[0].metadata["language"] == "fra"
    with pytest.raises(OutputError, match="--drop 1 to leave out"):
        VideoWriter(tmp_path / "out.mp4", like=describe(source))


def test_lossy_sound_is_never_encoded_again(tmp_path):
    source = make_source(tmp_path / "in.mp4")
    with pytest.raises(OutputError, match=r"webm cannot hold audio 1 \(aac, deu\).*--drop 1 .*mkv"):
        VideoWriter(tmp_path / "out.webm", like=describe(source))
    enlarge(source, tmp_path / "out.webm", drop=["audio"])
    assert len(contents(tmp_path / "out.webm").streams) == 1


@pytest.mark.parametrize(
    ("drop", "words"),
    [
        ("sound", "cannot drop 'sound': pass one of audio, subtitle"),
        ("7", "a stream index below 2"),
        ("0", "it is the video that is enlarged"),
    ],
)
def test_dropping_what_is_not_there_is_an_error(tmp_path, drop, words):
    source = make_source(tmp_path / "in.mkv")
    with pytest.raises(OptionsError, match=words):
        VideoWriter(tmp_path / "out.mkv", like=describe(source), drop=[drop])
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_data_that_fits_nowhere_is_named(tmp_path):
    source = tmp_path / "in.ts"
    with av.open(str(source), "w") as output:
        video: Any = output.add_stream("mpeg2video", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        data = output.add_data_stream("klv")
        output.start_encoding()
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            output.mux(video.encode(frame))
            packet = Packet(b"klv data")
            packet.pts = packet.dts = i * 3600
            packet.stream, packet.time_base = data, Fraction(1, 90000)
            output.mux(packet)
        output.mux(video.encode(None))
    with pytest.raises(OutputError, match=r"mkv cannot hold data 1 \(klv\): pass --drop 1"):
        VideoWriter(tmp_path / "out.mkv", like=describe(source))
    enlarge(source, tmp_path / "out.mkv", drop=["data"])


# Memory


@pytest.mark.skipif(sys.platform == "win32", reason="needs getrusage")
@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
def test_memory_does_not_grow_with_sound_longer_than_the_video(tmp_path, name):
    script = f"""
        import resource
        from pathlib import Path
        from tests.video.tracks.test_tracks import enlarge, make_long
        peaks = []
        for seconds in (20, 400):
            source = make_long(Path(f"{{seconds}}.mkv"), seconds)
            enlarge(source, Path(f"{{seconds}}-{name}"))
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        print(*peaks)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, text=True,
        capture_output=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    short, long = map(int, done.stdout.split())
    assert long - short < 25_000  # kB; the longer track has 77 MB


def make_long(path: Path, seconds: int) -> Path:
    """Ten frames and silence that goes on after them."""
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = output.add_stream("pcm_s16le", rate=48000)
        for i in range(10):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        silence = np.zeros((1, 2 * 48000), np.int16)
        for second in range(seconds):
            block = av.AudioFrame.from_ndarray(silence, format="s16", layout="stereo")
            block.sample_rate, block.time_base = 48000, Fraction(1, 48000)
            block.pts = second * 48000
            output.mux(sound.encode(block))
        output.mux(sound.encode(None))
    return path


@pytest.mark.parametrize(("known", "unknown"), [(b"A_AAC", b"A_XYZ"), (b"S_TEXT/", b"S_XXXX/")])
def test_tracks_of_unknown_codecs_are_named(tmp_path, known, unknown):
    source = make_tracks(tmp_path / "in.mkv")
    found = source.read_bytes()
    assert known in found
    source.write_bytes(found.replace(known, unknown))
    with pytest.raises(OutputError, match=r"mkv cannot hold \w+ \d \(unknown.*pass --drop"):
        VideoWriter(tmp_path / "out.mkv", like=describe(source))
    assert list(tmp_path.iterdir()) == [source]


# Data


def make_telemetry(path: Path) -> Path:
    """MP4 as cameras write it, with their measurements ("gpmd") between video and sound."""
    sound = make_source(path.with_name("sound.mp4"))
    with av.open(str(sound)) as given, av.open(str(path), "w") as output:
        video = output.add_stream_from_template(given.streams.video[0], opaque=True)
        data = output.add_data_stream("bin_data")
        copies = {0: video, 1: output.add_stream_from_template(given.streams.audio[0])}
        output.start_encoding()
        for i in range(4):
            packet = Packet(b"DEVC" + bytes([i]))
            packet.pts = packet.dts = i * 100
            packet.duration, packet.stream, packet.time_base = 100, data, Fraction(1, 1000)
            output.mux(packet)
        for packet in given.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream_index]
                output.mux(packet)
    return path


def packets_of(path: Path) -> list[tuple[str, list[tuple[Fraction, bytes]]]]:
    """Kind of every stream but the first, and its packets with their times."""
    with av.open(str(path)) as container:
        found: list[Any] = [(stream.type, []) for stream in container.streams]
        for packet in container.demux():
            if packet.size and packet.pts is not None and packet.time_base is not None:
                found[packet.stream_index][1].append((packet.pts * packet.time_base, bytes(packet)))
    return found[1:]


@pytest.mark.parametrize("wanted", ["out.mp4", "out.mov"])
def test_measurements_of_cameras_are_copied(tmp_path, wanted):
    source = make_telemetry(tmp_path / "in.mp4")
    assert [kind for kind, _ in packets_of(source)] == ["data", "audio"]
    assert packets_of(source)[0][1][3] == (Fraction(3, 10), b"DEVC\x03")
    enlarge(source, tmp_path / wanted)
    assert packets_of(tmp_path / wanted) == packets_of(source)
    assert b"gpmd" in (tmp_path / wanted).read_bytes()


def test_data_and_not_the_sound_after_it_is_refused(tmp_path):
    source = make_telemetry(tmp_path / "in.mp4")
    with pytest.raises(OutputError, match=r"mkv cannot hold data 1 \([^)]*\): pass --drop 1 to"):
        VideoWriter(tmp_path / "out.mkv", like=describe(source))
    enlarge(source, tmp_path / "out.mkv", drop=["1"])
    assert [stream.kind for stream in contents(tmp_path / "out.mkv").streams] == ["video", "audio"]


def test_a_last_packet_without_length_is_kept(tmp_path: Path):
    """NUT states no length of FLAC's packets; MP4 leaves out a last one that has none."""
    source = make_clip(
        tmp_path / "a.nut",
        frames=4,
        codec="mpeg4",
        audio=["fra"],
        audio_codec="flac",
        audio_seconds=0.35,
    )
    enlarge(source, tmp_path / "a.mp4")
    (given,), (kept,) = (contents(path).of("audio") for path in (source, tmp_path / "a.mp4"))
    assert kept.payloads == [payload for payload in given.payloads if payload]
    assert len(kept.payloads) > 2
