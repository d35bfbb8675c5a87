"""Draws many small films, writes them, and remembers what was put into each.

Files are written by FFmpeg's muxers through PyAV, or as bytes of our own (Y4M, IVF, bare streams);
`Put` is what went in, and nothing here reads a file back.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.packet import Packet
from av.stream import Disposition
from av.subtitles.subtitle import SubtitleSet

from tests.video.clips import ASS_HEADER, picture

SAMPLES = 48000
_MS = Fraction(1, 1000)

RATES = tuple(map(Fraction, ("24000/1001", "24", "25", "30000/1001", "50", "60000/1001", "15")))
ASPECTS = tuple(map(Fraction, ("1", "1", "8/9", "16/15", "64/45", "32/27", "4/3")))
SCANS = ("progressive", "progressive", "top", "bottom")
LANGUAGES = ("eng", "fra", "jpn", "deu")
TAGS = {"title": "Ein Füllm", "artist": "Ö. Maker", "comment": "made; by a test", "date": "1998"}
OWN_TAGS = {"MY_NOTE": "kept 映画"}


@dataclass(frozen=True)
class Kind:
    """What a container holds, as its specification and FFmpeg's muxer have it.

    Attributes:
        ending: of files.
        form: FFmpeg's name of the muxer.
        video: names of encoders.
        audio: likewise.
        texts: encoders of subtitles.
        tags: keys of the file's metadata that it holds.
        titles: whether tracks have languages and titles.
        languages: whether tracks have languages.
        chapters: whether it has them.
        files: whether it has attachments.
        aspect: whether it, or all of its codecs, state the shape of pixels.
        turns: whether it states by how much pictures are turned.
        starts: whether tracks begin at any time.
        late: a late beginning in seconds, such as shortly before a clock starts again.
        variable: whether times of frames are free.
        weight: how often it is drawn.
    """

    ending: str
    form: str
    video: tuple[str, ...]
    audio: tuple[str, ...]
    texts: tuple[str, ...] = ()
    tags: tuple[str, ...] = tuple(TAGS)
    titles: bool = False
    languages: bool = True
    chapters: bool = False
    files: bool = False
    aspect: bool = True
    turns: bool = False
    starts: bool = True
    late: int = 3600
    variable: bool = False
    weight: int = 2


KINDS = (
    Kind(".mkv", "matroska",
         ("libx264", "libx265", "mpeg2video", "mpeg4", "libvpx-vp9", "ffv1", "prores_ks", "mjpeg"),
         ("aac", "ac3", "libmp3lame", "flac", "libopus", "pcm_s16le"), ("subrip", "ass"),
         tags=(*TAGS, *OWN_TAGS), titles=True, chapters=True, files=True, variable=True, weight=6),
    Kind(".webm", "webm", ("libvpx", "libvpx-vp9"), ("libopus",), ("webvtt",),
         tags=(*TAGS, *OWN_TAGS), titles=True, chapters=True, variable=True),
    Kind(".mp4", "mp4", ("libx264", "libx265", "mpeg4", "libvpx-vp9"),
         ("aac", "ac3", "libmp3lame", "alac"), ("mov_text",), chapters=True, turns=True,
         variable=True, weight=5),
    Kind(".mov", "mov", ("libx264", "libx265", "prores_ks", "mjpeg", "mpeg4"),
         ("aac", "pcm_s16le", "pcm_s16be", "alac"), ("mov_text",), chapters=True, turns=True,
         weight=3),
    Kind(".ts", "mpegts", ("libx264", "mpeg2video", "libx265"), ("aac", "ac3", "mp2", "libmp3lame"),
         tags=(), late=95430, weight=3),
    Kind(".mpg", "vob", ("mpeg2video",), ("mp2", "ac3"), tags=(), languages=False,
         late=95430),
    Kind(".avi", "avi", ("mpeg4", "mjpeg", "ffv1", "huffyuv"), ("libmp3lame", "pcm_s16le", "ac3"),
         languages=False, starts=False, weight=3),
    Kind(".flv", "flv", ("flv", "libx264"), ("aac", "libmp3lame"), languages=False, aspect=False,
         tags=("title", "artist", "comment")),
    Kind(".wmv", "asf", ("wmv2", "msmpeg4v3"), ("wmav2", "libmp3lame"), aspect=False,
         tags=("title", "artist", "comment")),
    Kind(".nut", "nut", ("mpeg4", "ffv1", "libx264"), ("aac", "flac", "pcm_s16le"),
         tags=tuple(TAGS)),
    Kind(".y4m", "", ("y4m",), (), tags=(), weight=1),
    Kind(".m2v", "mpeg2video", ("mpeg2video",), (), tags=(), weight=1),
    Kind(".ivf", "", ("libvpx-vp9",), (), tags=(), aspect=False, weight=1),
)  # fmt: skip
BARE = (".y4m", ".m2v", ".ivf")
"""Endings of files that hold pictures and nothing else."""
INTERLACED = ("libx264", "mpeg2video", "ffv1", "y4m")
"""Encoders whose streams, or containers, mark fields."""
REORDERED = ("libx264", "mpeg2video")
"""Encoders that are asked for B-frames."""
SHAPED = ("libx264", "libx265", "mpeg2video", "mpeg4", "y4m")
"""Encoders whose streams state the shape of pixels."""


@dataclass
class PutTrack:
    """A track that was put in.

    Attributes:
        kind: "audio" or "subtitle".
        codec: FFmpeg's name.
        language: empty if it was not stated.
        title: likewise.
        forced: how it is marked.
        times: of its packets, in seconds of the film's clock.
        payloads: their bytes; of subtitles the texts.
    """

    kind: str
    codec: str
    language: str = ""
    title: str = ""
    forced: bool = False
    times: list[Fraction] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)


@dataclass
class Put:
    """A film, and all that was put into it.

    Attributes:
        path: of the file.
        output: that it is to become.
        kind: its container.
        codec: encoder of the pictures.
        size: (width, height) of a picture as stored.
        rate: frames per second; of films whose times are free, of most frames.
        times: of its frames, in seconds; the film's clock may begin anywhere.
        aspect: shape of a pixel.
        turn: degrees clockwise by which pictures are to be shown.
        scan: "progressive"; "top" or "bottom", the field that is first, where fields are marked.
        woven: whether the fields show two moments.
        reordered: whether pictures are coded in another order than they are shown.
        tracks: in the order of the file.
        chapters: (start, end, title), in seconds.
        tags: of the file.
        files: attachments by name.
    """

    path: Path
    output: Path
    kind: Kind
    codec: str
    size: tuple[int, int]
    rate: Fraction
    times: list[Fraction]
    aspect: Fraction
    turn: int
    scan: str
    woven: bool
    reordered: bool
    tracks: list[PutTrack]
    chapters: list[tuple[Fraction, Fraction, str]]
    tags: dict[str, str]
    files: dict[str, bytes]

    @property
    def is_regular(self) -> bool:
        """Whether frames follow at the rate."""
        return all(t == self.times[0] + i / self.rate for i, t in enumerate(self.times))

    @property
    def time_base(self) -> Fraction:
        """In which all times of frames, from the first one on, are whole numbers."""
        return 1 / self.rate if self.is_regular else _MS

    def __str__(self) -> str:
        """All that was drawn, in one line."""
        tracks = " ".join(
            f"{t.kind}:{t.codec}:{t.language}@{float(t.times[0] - self.times[0]):+.3f}"
            for t in self.tracks
        )
        return (
            f"{self.path.name} → {self.output.suffix} {self.codec} {self.size}"
            f" {len(self.times)}@{self.rate} from {float(self.times[0])} aspect {self.aspect}"
            f" turn {self.turn} {self.scan} woven {self.woven} reordered {self.reordered}"
            f" [{tracks}] chapters {len(self.chapters)} tags {list(self.tags)} files"
            f" {len(self.files)}"
        )


def draw(folder: Path, index: int, seed: int) -> Put:
    """The film of an index, not written yet."""
    rng = np.random.default_rng((seed, index))

    def some(values: Sequence[Any]) -> Any:
        return values[int(rng.integers(len(values)))]

    kind = some([kind for kind in KINDS for _ in range(kind.weight)])
    codec, count = some(kind.video), int(rng.integers(6, 13))
    rate = some(RATES[:-1] if codec == "mpeg2video" else RATES)  # those that MPEG-2 has
    begin = some([0, 0, 0, 1, 10, kind.late]) if kind.starts and kind.ending not in BARE else 0
    times = [begin + i / rate for i in range(count)]
    if kind.variable and codec != "mpeg2video" and rng.random() < 0.3:
        holds = rng.choice([40, 40, 40, 80, 120], count)
        rate, times = Fraction(25), [begin + Fraction(int(t), 1000) for t in np.cumsum(holds)]
    scan = some(SCANS) if codec in INTERLACED else "progressive"
    width, height = 16 * int(rng.integers(3, 5)), 16 * int(rng.integers(2, 4))
    aspects = ASPECTS
    if codec == "mpeg2video":  # states the shape of the picture, one of few
        aspects = (Fraction(1), *(Fraction(*s) * height / width for s in ((4, 3), (16, 9))))
    shaped = kind.aspect and codec in SHAPED
    length = times[-1] - times[0] + 1 / rate
    tracks = []
    most = 1 if kind.form == "flv" else 2  # more are told apart by their order alone
    for _ in range(some([0, 1, 1, most]) if kind.audio else 0):
        late = Fraction(int(rng.integers(-8, 20)) * 20, 1000) if kind.starts else Fraction(0)
        late = max(late, -Fraction(begin))
        tracks.append(PutTrack("audio", some(kind.audio), times=[times[0] + late]))
    for _ in range(some([0, 0, 1, 2]) if kind.texts else 0):
        starts = [times[0] + length * share for share in (Fraction(1, 10), Fraction(6, 10))]
        track = PutTrack(
            "subtitle", some(kind.texts), times=[round(t * 1000) * _MS for t in starts]
        )
        track.payloads = [f"line {i} of {len(tracks)} ä".encode() for i in range(2)]
        track.forced = kind.titles and rng.random() < 0.3
        tracks.append(track)
    for number, track in enumerate(tracks):
        track.language = some(LANGUAGES) if kind.languages else ""
        if kind.form == "mov":  # QuickTime's table has these names
            track.language = {"deu": "ger"}.get(track.language, track.language)
        track.title = f"track {number} für alle" if kind.titles and rng.random() < 0.5 else ""
    chapters = []
    if kind.chapters and rng.random() < 0.4:
        half = times[0] + round(length * 500) * _MS
        end = times[0] + round(length * 1000) * _MS
        chapters = [(times[0], half, "eins"), (half, end, "zwei: Ende")]
    every = TAGS | OWN_TAGS
    ending = some([".mkv"] * 4 + [".mp4"] * 3 + [".mov", ".webm"])
    if ending == ".webm" and kind.ending not in (".webm", *BARE) and rng.random() < 0.8:
        ending = ".mkv"  # most sound does not go into webm, which is refused by name
    return Put(
        path=folder / f"{index:03d}{kind.ending}",
        output=folder / f"{index:03d}_x4{ending}",
        kind=kind,
        codec=codec,
        size=(width, height),
        rate=rate,
        times=times,
        aspect=some(aspects) if shaped else Fraction(1),
        turn=some([0, 0, 90, 180, 270]) if kind.turns else 0,
        scan=scan,
        woven=scan != "progressive" and rng.random() < 0.6,
        reordered=codec in REORDERED and kind.starts and rng.random() < 0.5,
        tracks=tracks,
        chapters=chapters,
        tags={key: every[key] for key in kind.tags if rng.random() < 0.5},
        files={"note.txt": b"not a font"} if kind.files and rng.random() < 0.3 else {},
    )


# ---- writing


def write(put: Put) -> None:
    """Write a film, and complete what was put into its tracks."""
    texture = len(str(put))  # another one in every film
    moments = [picture(i + texture, *put.size, speed=1.5) for i in range(2 * len(put.times))]
    images = moments[::2]
    for image, later in zip(images, moments[1::2], strict=True):
        if put.woven:
            image[put.scan == "top" :: 2] = later[put.scan == "top" :: 2]
    {".y4m": _write_y4m, ".ivf": _write_ivf}.get(put.kind.ending, _write_film)(put, images)


def _write_film(put: Put, images: list[np.ndarray]) -> None:
    bare = put.kind.ending in BARE
    with av.open(str(put.path), "w", format=put.kind.form) as output:
        output.metadata.update(put.tags)
        video = _video(output, put)
        streams = [_track(output, track) for track in put.tracks]
        for name, data in put.files.items():
            output.add_attachment(name, "text/plain", data)
        if put.chapters:
            output.set_chapters(list(map(_chapter, range(9), put.chapters)))
        output.start_encoding()
        packets = list(_pictures(video, put, images))
        for stream, track in zip(streams, put.tracks, strict=True):
            length = put.times[-1] - put.times[0] + Fraction(1, 10)
            made = (
                _sound(stream, track, length, freely=put.kind.starts)
                if track.kind == "audio"
                else _texts(stream, track)
            )
            packets += made
        for packet in packets if bare else sorted(packets, key=_decoded_at):
            output.mux(packet)


def _decoded_at(packet: Packet) -> Fraction:
    return (packet.dts or 0) * Fraction(packet.time_base or 1)


def _video(output: Any, put: Put) -> Any:
    options = {
        "libx264": {"preset": "ultrafast", "qp": "8", "threads": "1", "bf": "0"},
        "libx265": {"preset": "ultrafast", "x265-params": "qp=8:log-level=none:pools=1:bframes=0"},
        "libvpx": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
    }.get(put.codec, {})
    if put.reordered:
        options |= {"bf": "2", "b-adapt": "0"} if put.codec == "libx264" else {"bf": "2"}
    fields = put.scan != "progressive"
    if fields and put.codec == "libx264":
        options["x264-params"] = "tff=1" if put.scan == "top" else "bff=1"
    if fields and put.codec in ("mpeg2video", "prores_ks"):
        options["flags"] = "+ildct+ilme"
    stream = output.add_stream(put.codec, rate=put.rate, options=options)
    stream.width, stream.height = put.size
    stream.pix_fmt = _pixel_format(put.codec)
    stream.codec_context.time_base = stream.time_base = put.time_base
    stream.codec_context.sample_aspect_ratio = put.aspect
    if fields:
        stream.codec_context.field_order = {"top": 2, "bottom": 3}[put.scan]
    if put.codec in ("mpeg2video", "libx264"):
        stream.codec_context.gop_size = 4
    if put.turn:
        stream.set_display_rotation(-put.turn)
    return stream


def _pixel_format(codec: str) -> str:
    return {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le", "huffyuv": "yuv422p"}.get(
        codec, "yuv420p"
    )


def _pictures(stream: Any, put: Put, images: list[np.ndarray]) -> Iterator[Packet]:
    base = put.time_base
    for image, time in zip(images, put.times, strict=True):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame = frame.reformat(format=_pixel_format(put.codec))
        frame.pts, frame.time_base = round((time - put.times[0]) / base), base
        yield from _moved(stream.encode(frame), put.times[0])
    yield from _moved(stream.encode(None), put.times[0])


def _moved(packets: Sequence[Packet], begin: Fraction) -> Iterator[Packet]:
    """Later by the beginning of a film or track: encoders take times from 0 on."""
    for packet in packets:
        base, pts, dts = Fraction(packet.time_base or 1), packet.pts or 0, packet.dts or 0
        finer = Fraction(1, base.denominator * begin.denominator)  # in which both are whole
        packet.pts, packet.dts = (round((begin + time * base) / finer) for time in (pts, dts))
        packet.duration = round((packet.duration or 0) * base / finer)
        packet.time_base = finer
        yield packet


def _shown_at(packet: Packet) -> Fraction:
    return (packet.pts or 0) * Fraction(packet.time_base or 1)


def _track(output: Any, track: PutTrack) -> Any:
    if track.kind == "audio":
        stream = output.add_stream(track.codec, rate=SAMPLES)
        stream.bit_rate = 128_000
    else:
        stream = output.add_stream(track.codec)
        stream.codec_context.subtitle_header = ASS_HEADER
        stream.codec_context.time_base = _MS
    if track.language:
        stream.metadata["language"] = track.language
    if track.title:
        stream.metadata["title"] = track.title
    if track.forced:
        stream.disposition = Disposition.forced
    return stream


def _sound(stream: Any, track: PutTrack, length: Fraction, *, freely: bool) -> list[Packet]:
    context, begin = stream.codec_context, track.times.pop()
    block = context.frame_size or 1024
    planar = context.format.is_planar
    resampler = av.AudioResampler(context.format, context.layout, SAMPLES, block)
    packets: list[Packet] = []
    for first in range(0, round(length * SAMPLES), block):
        tone = 0.2 * np.sin(2 * np.pi * 440 * np.arange(first, first + block) / SAMPLES)
        both = np.tile(tone.astype(np.float32), (context.channels, 1))
        samples = both if planar else both.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), "fltp" if planar else "flt", context.layout.name
        )
        frame.sample_rate, frame.pts, frame.time_base = SAMPLES, first, Fraction(1, SAMPLES)
        for part in resampler.resample(frame):
            packets += stream.encode(part)
    packets += stream.encode(None)
    if not freely:  # the container counts from 0: nothing may come before
        begin = -_shown_at(packets[0])
    packets = [packet for packet in _moved(packets, begin) if packet.size]
    track.times = list(map(_shown_at, packets))
    track.payloads = list(map(bytes, packets))
    return packets


def _texts(stream: Any, track: PutTrack) -> Iterator[Packet]:
    for time, text in zip(track.times, track.payloads, strict=True):
        line = SubtitleSet.create(b"0,0,Default,,0,0,0,," + text, start=0, end=40, pts=0)
        packet = stream.codec_context.encode_subtitle(line)
        packet.stream, packet.time_base = stream, _MS
        packet.pts = packet.dts = round(time * 1000)
        packet.duration = 40
        yield packet


def _chapter(number: int, chapter: tuple[Fraction, Fraction, str]) -> Any:
    start, end, title = chapter
    return {
        "id": number + 1,
        "start": round(start * 1000),
        "end": round(end * 1000),
        "time_base": _MS,
        "metadata": {"title": title},
    }


# ---- bytes of our own


def _write_y4m(put: Put, images: list[np.ndarray]) -> None:
    (width, height), rate, aspect = put.size, put.rate, put.aspect
    scan = {"progressive": "p", "top": "t", "bottom": "b"}[put.scan]
    head = (
        f"YUV4MPEG2 W{width} H{height} F{rate.numerator}:{rate.denominator} I{scan}"
        f" A{aspect.numerator}:{aspect.denominator} C420mpeg2\n"
    )
    with put.path.open("wb") as file:
        file.write(head.encode())
        for image in images:
            planes = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            file.write(b"FRAME\n" + planes.to_ndarray().tobytes())


def _write_ivf(put: Put, images: list[np.ndarray]) -> None:
    packets: list[bytes] = []
    with av.open(io.BytesIO(), "w", format="ivf") as output:  # nothing goes there
        packets += map(bytes, _pictures(_video(output, put), put, images))
    (width, height), rate = put.size, put.rate
    numbers = (
        (0, 2), (32, 2), (int.from_bytes(b"VP90", "little"), 4), (width, 2), (height, 2),
        (rate.numerator, 4), (rate.denominator, 4), (len(packets), 4), (0, 4),
    )  # fmt: skip
    with put.path.open("wb") as file:
        file.write(b"DKIF" + b"".join(value.to_bytes(size, "little") for value, size in numbers))
        for number, packet in enumerate(packets):
            file.write(len(packet).to_bytes(4, "little") + number.to_bytes(8, "little") + packet)
