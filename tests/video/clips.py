"""Makes the small videos that tests read; every file is made by PyAV from pictures of a formula.

`make_clip` makes any of them; the functions after it are the cases that most tests want. Damage is
done to finished files, by `truncate`, `overwrite_middle` and `remux`.
"""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.packet import Packet
from av.stream import Disposition
from av.subtitles.subtitle import SubtitleSet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

WIDTH, HEIGHT = 64, 48
RATE = Fraction(25)

ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+
PlayResX: 384
PlayResY: 288

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour
Style: Default,Arial,16,&Hffffff

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def picture(
    index: int, width: int = WIDTH, height: int = HEIGHT, scene: int = 0, speed: float = 1.0
) -> np.ndarray:
    """Smooth colours that move right by `speed` pixels per index; uint8, shape (height, width, 3).

    Scenes differ in pattern, direction and mean brightness.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    x = x - index * speed
    low, span = (40.0, 90.0) if scene % 2 == 0 else (130.0, 110.0)
    u = 2 * np.pi * (x / 29 + scene * 0.37 + (0.13 + 0.2 * scene) * y / 7)
    v = 2 * np.pi * (y / 23 - scene * 0.21)
    waves = np.stack([np.sin(u), np.sin(v + 1.0), np.sin(u + v)], axis=-1)
    return (low + span * (0.5 + 0.5 * waves)).round().astype(np.uint8)


def pictures(
    count: int, width: int = WIDTH, height: int = HEIGHT, scene: int = 0
) -> list[np.ndarray]:
    return [picture(i, width, height, scene) for i in range(count)]


def make_clip(
    path: Path,
    images: Iterable[np.ndarray] | None = None,
    *,
    frames: int = 10,
    width: int = WIDTH,
    height: int = HEIGHT,
    rate: Fraction = RATE,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    color: tuple[int, int, int, int] | None = None,
    sample_aspect: Fraction | None = None,
    rotation: int = 0,
    flip: bool = False,
    audio: Sequence[str] = (),
    audio_codec: str | None = None,
    audio_seconds: float | None = None,
    subtitles: Sequence[str] = (),
    subtitle_codec: str | None = None,
    attachment: bytes | None = None,
    cover: bool = False,
    chapters: Sequence[tuple[float, float, str]] = (),
    metadata: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    container: str | None = None,
) -> Path:
    """Write a video and return its path. Lossy, but nearly lossless with the default options.

    Args:
        path: its ending chooses the container, unless `container` names it.
        images: uint8 RGB pictures of one size; `pictures(frames, width, height)` if not given.
        pts: one time per frame in units of `time_base`; 0, 1, 2 … / rate if not given.
        color: primaries, transfer, matrix, range (1 limited, 2 full) in FFmpeg's numbers; also used
            for the conversion from RGB. Unspecified in the file if not given.
        rotation: degrees clockwise by which players turn the picture.
        flip: players mirror the picture left to right (before rotation).
        audio: a language for each audio track of `audio_seconds` (as long as the video by default).
        subtitles: a language for each subtitle track with one line of text.
    """
    if images is None:
        images = pictures(frames, width, height)
    images = list(images)
    height, width = images[0].shape[:2]
    time_base = time_base or 1 / rate
    pts = list(range(len(images))) if pts is None else list(pts)
    seconds = float((pts[-1] + 1) * time_base) if audio_seconds is None else audio_seconds
    with av.open(str(path), "w", format=container, options=container_options or {}) as output:
        output.metadata.update(metadata or {})
        video = _add_video(output, codec, rate, options)
        video.width, video.height, video.pix_fmt = width, height, pixel_format
        video.time_base = time_base
        video.codec_context.time_base = time_base
        if color is not None:
            context = video.codec_context
            context.color_primaries, context.color_trc, context.colorspace, context.color_range = (
                color
            )
        if sample_aspect is not None:
            video.codec_context.sample_aspect_ratio = sample_aspect
        if rotation or flip:
            # PyAV mirrors after its counter-clockwise turn
            video.set_display_rotation(rotation if flip else -rotation, hflip=flip)
        sounds = [_add_audio(output, path, language, audio_codec) for language in audio]
        texts = [_add_subtitle(output, path, language, subtitle_codec) for language in subtitles]
        if attachment is not None:
            output.add_attachment("note.txt", "text/plain", attachment)
        picture_stream = _add_cover(output) if cover else None
        if chapters:
            output.set_chapters([_chapter(i, *chapter) for i, chapter in enumerate(chapters)])
        output.start_encoding()
        if picture_stream is not None:
            output.mux(_cover_packet(picture_stream))
        for stream, language in zip(texts, subtitles, strict=True):
            output.mux(_subtitle_packet(stream, f"text in {language}"))
        matrix, full = (5, 1) if color is None else (color[2], color[3])
        for image, time in zip(images, pts, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
                format=pixel_format,
                src_color_range=2,
                dst_colorspace=5 if matrix in (0, 2, 5, 6) else matrix,
                dst_color_range=0 if pixel_format.startswith(("gbr", "rgb", "bgr")) else full,
            )
            frame.pts, frame.time_base = time, time_base
            if color is not None:
                frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range = color
            else:
                frame.colorspace, frame.color_range = 2, 0
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for track, stream in enumerate(sounds):
            _encode_tone(output, stream, seconds, 440 * (track + 1))
    return path


def _add_video(output, codec: str, rate: Fraction, options: dict[str, str] | None) -> VideoStream:
    defaults = {
        "libx264": {"qp": "4", "preset": "ultrafast", "bf": "0", "threads": "1"},
        "libx265": {"preset": "ultrafast", "x265-params": "qp=4:log-level=none:pools=1"},
        "mpeg2video": {"qscale": "2", "flags": "+qscale"},
        "mpeg4": {"qscale": "2", "flags": "+qscale"},
    }
    return output.add_stream(codec, rate=rate, options=defaults.get(codec, {}) | (options or {}))


def _add_audio(output, path: Path, language: str, codec: str | None):
    stream = output.add_stream(codec or ("libopus" if path.suffix == ".webm" else "aac"), 48000)
    stream.metadata["language"] = language
    stream.metadata["title"] = f"sound in {language}"
    return stream


def _encode_tone(output, stream, seconds: float, hertz: float) -> None:
    context = stream.codec_context
    block = context.frame_size or 1024
    total = round(seconds * context.sample_rate)
    planar = context.format.is_planar
    name = "fltp" if planar else "flt"
    resampler = av.AudioResampler(context.format, context.layout, context.sample_rate, block)
    for start in range(0, total, block):
        time = np.arange(start, min(start + block, total)) / context.sample_rate
        tone = np.tile(0.1 * np.sin(2 * np.pi * hertz * time), (context.channels, 1))
        samples = tone if planar else tone.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), name, context.layout.name)
        frame.sample_rate, frame.pts = context.sample_rate, start
        frame.time_base = Fraction(1, context.sample_rate)
        for part in resampler.resample(frame):
            output.mux(stream.encode(part))
    for part in resampler.resample(None):
        output.mux(stream.encode(part))
    output.mux(stream.encode(None))


def _add_subtitle(output, path: Path, language: str, codec: str | None):
    names = {".mp4": "mov_text", ".mov": "mov_text", ".webm": "webvtt"}
    stream = output.add_stream(codec or names.get(path.suffix, "subrip"))
    stream.codec_context.subtitle_header = ASS_HEADER
    stream.codec_context.time_base = Fraction(1, 1000)
    stream.metadata["language"] = language
    return stream


def _subtitle_packet(stream, text: str) -> Packet:
    line = SubtitleSet.create(f"0,0,Default,,0,0,0,,{text}".encode(), start=0, end=200, pts=0)
    packet = stream.codec_context.encode_subtitle(line)
    packet.stream, packet.time_base = stream, Fraction(1, 1000)
    packet.pts = packet.dts = 0
    packet.duration = 200
    return packet


def _add_cover(output) -> VideoStream:
    stream = output.add_stream("png", rate=1)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "rgb24"
    stream.disposition = Disposition.attached_pic
    return stream


def _cover_packet(stream) -> list[Packet]:
    frame = av.VideoFrame.from_ndarray(picture(0, 32, 32, scene=1), format="rgb24")
    frame.pts, frame.time_base = 0, Fraction(1)
    return stream.encode(frame) + stream.encode(None)


def _chapter(index: int, start: float, end: float, title: str) -> Any:
    milliseconds = Fraction(1, 1000)
    return {
        "id": index + 1,
        "start": round(start * 1000),
        "end": round(end * 1000),
        "time_base": milliseconds,
        "metadata": {"title": title},
    }


# The cases that most tests want. Each takes the path and returns it; more by keyword.


def make_plain(path: Path, **more) -> Path:
    """10 frames of 64×48 at 25/s, H.264, nothing else."""
    return make_clip(path, **more)


def make_variable_rate(path: Path, **more) -> Path:
    """Frames at `VARIABLE_PTS` milliseconds."""
    count = len(VARIABLE_PTS)
    return make_clip(path, frames=count, pts=VARIABLE_PTS, time_base=Fraction(1, 1000), **more)


VARIABLE_PTS = (0, 40, 80, 153, 193, 233, 500, 517, 650, 690)
"""Milliseconds at which the frames of `make_variable_rate` are shown."""


def make_b_frames(path: Path, **more) -> Path:
    """B-frames: packets come in another order than frames."""
    return make_clip(path, options={"bf": "3", "b-adapt": "0", "preset": "veryfast"}, **more)


def make_odd_size(path: Path, **more) -> Path:
    """63×47; 4:4:4, since H.264 in 4:2:0 holds even sizes only."""
    return make_clip(path, width=63, height=47, pixel_format="yuv444p", **more)


def make_ten_bit(path: Path, **more) -> Path:
    """HEVC, 10 bits."""
    return make_clip(path, codec="libx265", pixel_format="yuv420p10le", **more)


def make_tracks(path: Path, **more) -> Path:
    """Two audio tracks (longer than the video), two subtitle tracks, two chapters, a title."""
    defaults = {
        "audio": ("eng", "fra"),
        "audio_seconds": 0.6,
        "subtitles": ("eng", "deu"),
        "chapters": ((0.0, 0.2, "first"), (0.2, 0.4, "second")),
        "metadata": {"title": "made clip"},
    }
    return make_clip(path, **(defaults | more))


def make_rotated(path: Path, rotation: int = 90, **more) -> Path:
    """64×48 in the file; players turn it clockwise by `rotation`."""
    return make_clip(path, rotation=rotation, **more)


def make_anamorphic(path: Path, sample_aspect: Fraction = Fraction(16, 15), **more) -> Path:
    return make_clip(path, sample_aspect=sample_aspect, **more)


def make_interlaced(path: Path, **more) -> Path:
    """Marked as interlaced, top field first."""
    return make_clip(path, options={"x264-params": "tff=1"}, **more)


def make_scenes(path: Path, lengths: Sequence[int] = (8, 7, 9), **more) -> Path:
    """Hard cuts between scenes of the given lengths in frames."""
    images = [
        picture(i, scene=scene) for scene, length in enumerate(lengths) for i in range(length)
    ]
    return make_clip(path, images, **more)


def make_sound_only(path: Path) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as output:
        _encode_tone(output, _add_audio(output, path, "eng", None), 0.3, 440)
    return path


def make_sound_with_cover(path: Path) -> Path:
    """Sound and a cover picture."""
    with av.open(str(path), "w") as output:
        sound, cover = _add_audio(output, path, "eng", None), _add_cover(output)
        output.start_encoding()
        output.mux(_cover_packet(cover))
        _encode_tone(output, sound, 0.3, 440)
    return path


def make_encrypted(path: Path, **more) -> Path:
    """Common encryption; the key is not in the file."""
    protection = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
        "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
    }
    return make_clip(path, container_options=protection, **more)


def make_captioned(path: Path) -> Path:
    """H.264 in an elementary stream whose pictures carry closed captions (one A53 message each)."""
    plain = make_clip(path.with_name("plain.h264"), container="h264", options={"g": "1"})
    # itu_t_t35: country, provider, "GA94", type 3, one pair of CEA-608 bytes, marker
    payload = b"\xb5\x00\x31GA94\x03\xc1\xff\xfc\x94\x20\xff"
    message = b"\x00\x00\x00\x01\x06\x04" + bytes([len(payload)]) + payload + b"\x80"
    data = plain.read_bytes()
    slice_start = b"\x00\x00\x01\x65"
    path = path.with_suffix(".h264")
    path.write_bytes(data.replace(slice_start, message[1:] + slice_start))
    return path


def save_image(path: Path, image: np.ndarray, *, pixel_format: str, codec: str = "png") -> Path:
    """One image file. `image` is an array that PyAV takes as `pixel_format`."""
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, VideoCodecContext)
    frame = av.VideoFrame.from_ndarray(image, format=pixel_format)
    context.width, context.height, context.pix_fmt = frame.width, frame.height, pixel_format
    context.time_base = Fraction(1, 25)
    if codec == "mjpeg":
        context.color_range = frame.color_range = 2
    frame.pts = 0
    packets = context.encode(frame) + context.encode(None)
    path.write_bytes(b"".join(bytes(packet) for packet in packets))
    return path


# Damage, done to finished files.


def truncate(path: Path, fraction: float) -> Path:
    """Cut the file off after `fraction` of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * fraction)])
    return path


def overwrite_middle(path: Path, start: float, end: float, value: int = 0x5A) -> Path:
    """Overwrite the bytes from `start` to `end` (fractions of the file) by `value`."""
    data = bytearray(path.read_bytes())
    first, last = round(len(data) * start), round(len(data) * end)
    data[first:last] = bytes([value]) * (last - first)
    path.write_bytes(data)
    return path


def remux(
    source: Path, path: Path, change: Callable[[int, Packet], Packet | None], **container_options
) -> Path:
    """Copy the video packets; `change(index, packet)` returns the packet to write, or None."""
    with (
        av.open(str(source)) as given,
        av.open(str(path), "w", options=container_options) as output,
    ):
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream, opaque=True)
        output.start_encoding()
        packets = [packet for packet in given.demux(stream) if packet.dts is not None]
        for index, packet in enumerate(packets):
            changed = change(index, packet)
            if changed is not None:
                changed.stream = copy
                output.mux(changed)
    return path


def concatenate_raw(source: Path, path: Path, gap_ticks: int) -> Path:
    """The packets of `source` twice, the second time `gap_ticks` earlier, as MPEG-TS bytes."""
    first, second = path.with_name("first.ts"), path.with_name("second.ts")

    def earlier(_: int, packet: Packet) -> Packet:
        assert packet.pts is not None
        assert packet.dts is not None
        back = int(Fraction(gap_ticks, 90_000) / packet.time_base)
        packet.pts, packet.dts = packet.pts - back, packet.dts - back
        return packet

    remux(source, first, lambda _, packet: packet)
    remux(source, second, earlier)
    path.write_bytes(first.read_bytes() + second.read_bytes())
    return path


def spoiled(packet: Packet, keep_bytes: int = 12) -> Packet:
    """The packet with everything after its first bytes overwritten, times kept."""
    data = bytes(packet)
    copy = Packet(data[:keep_bytes] + b"\xa7" * max(0, len(data) - keep_bytes))
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    copy.time_base, copy.is_keyframe = packet.time_base, packet.is_keyframe
    return copy


def packet_times(path: Path) -> list[Fraction]:
    """Presentation times in seconds of the video packets, sorted: what a reader must return."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = [p.pts * p.time_base for p in container.demux(stream) if p.pts is not None]
    assert all(a != b for a, b in pairwise(sorted(times)))
    return sorted(times)
