"""Makes interlaced and telecined videos of known moments, and pictures to compare with.

A moment is one YUV 4:2:0 picture, as planes; weaving takes the rows of a field from each plane, as
a camera or a telecine does, so that chroma belongs to the field of its luma.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.packet import Packet

Moment = tuple[np.ndarray, np.ndarray, np.ndarray]

WIDTH, HEIGHT = 128, 96
VIDEO = Fraction(30000, 1001)
FILM = Fraction(24000, 1001)
_SIZE = 192


@cache
def _spectra(seed: int) -> list[np.ndarray]:
    """Of a blurred noise, for each plane."""
    random = np.random.default_rng(seed)
    frequencies = np.hypot(np.fft.fftfreq(_SIZE)[:, None], np.fft.rfftfreq(_SIZE)[None])
    noise = [np.fft.rfft2(random.normal(size=(_SIZE, _SIZE))) for _ in range(3)]
    kinds = ((440, 9), (180, 18), (180, 18))
    return [
        contrast * np.exp(-((frequencies * blur) ** 2)) * white
        for white, (contrast, blur) in zip(noise, kinds, strict=True)
    ]


def moment(time: float, speed: float = 2.0, seed: int = 0) -> Moment:
    """A detailed texture that has moved right by `speed` pixels per unit of time."""
    planes = []
    for step, spectrum in zip((1, 2, 2), _spectra(seed), strict=True):
        moved = spectrum * np.exp(-2j * np.pi * np.fft.rfftfreq(_SIZE) * speed * time / step)
        texture = np.fft.irfft2(moved, (_SIZE, _SIZE))[: HEIGHT // step, : WIDTH // step]
        planes.append((128 + texture).clip(16, 235).round().astype(np.uint8))
    luma, blue, red = planes
    return luma, blue, red


def moments(count: int, first: float = 0.0, **more) -> list[Moment]:
    return [moment(first + i, **more) for i in range(count)]


def weave(top: Moment, bottom: Moment) -> Moment:
    """The even rows of one moment and the odd rows of another."""
    planes = [plane.copy() for plane in top]
    for plane, other in zip(planes, bottom, strict=True):
        plane[1::2] = other[1::2]
    return planes[0], planes[1], planes[2]


def interlaced(fields: Sequence[Moment], *, top_first: bool) -> list[Moment]:
    """Two successive moments in each picture."""
    pairs = zip(fields[::2], fields[1::2], strict=True)
    return [weave(a, b) if top_first else weave(b, a) for a, b in pairs]


def telecined(film: Sequence[Moment], *, top_first: bool = True) -> list[Moment]:
    """3:2: of every four moments five pictures."""
    fields = [film[i] for i in range(len(film)) for _ in range(2 + i % 2)]
    fields = fields[: len(fields) // 2 * 2]
    return interlaced(fields, top_first=top_first)


def write(
    path: Path,
    pictures: Iterable[Moment],
    *,
    rate: Fraction = VIDEO,
    codec: str = "ffv1",
    options: dict[str, str] | None = None,
    deep: bool = False,
    sample_aspect: Fraction | None = None,
    rotation: int = 0,
) -> Path:
    """A video of pictures as they are. FFV1 is without loss and marks nothing as interlaced."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=rate, options=options or {})
        pictures = iter(pictures)
        first = next(pictures)
        stream.height, stream.width = first[0].shape
        stream.pix_fmt = "yuv420p10le" if deep else "yuv420p"
        stream.time_base = stream.codec_context.time_base = 1 / rate
        if sample_aspect is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect
        if rotation:
            stream.set_display_rotation(-rotation)
        for index, picture in enumerate(chain([first], pictures)):
            frame = as_frame(picture, deep=deep)
            frame.pts, frame.time_base = index, 1 / rate
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def as_frame(picture: Moment, *, deep: bool = False) -> av.VideoFrame:
    """The picture for an encoder; `deep` in 10 bits."""
    height, width = picture[0].shape
    frame = av.VideoFrame(width, height, "yuv420p10le" if deep else "yuv420p")
    for plane, values in zip(frame.planes, picture, strict=True):
        values = values.astype("<u2") * 4 if deep else values
        rows = np.frombuffer(memoryview(plane), values.dtype).reshape(plane.height, -1)
        rows[:, : plane.width] = values
    return frame


MPEG2 = {"qscale": "1", "qmin": "1", "flags": "+qscale", "g": "12"}
MPEG2_INTERLACED = MPEG2 | {"flags": "+qscale+ilme+ildct"}


def soft_telecined(
    path: Path, film: Sequence[Moment], *, sample_aspect: Fraction | None = None
) -> Path:
    """MPEG-2 of film whose headers ask players to show every second picture for three fields."""
    plain = write(
        path.with_name("film.m2v"),
        film,
        codec="mpeg2video",
        options=MPEG2,
        sample_aspect=sample_aspect,
    )
    with av.open(str(plain)) as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0], opaque=True)
        output.start_encoding()
        fields = 0
        packets = [p for p in source.demux(video=0) if p.size]
        for index, packet in enumerate(packets):
            copy = Packet(with_repeat_flags(bytes(packet), index))
            copy.stream, copy.time_base = stream, 1 / (2 * VIDEO)
            copy.pts = copy.dts = fields
            copy.duration = 2 + index % 2
            copy.is_keyframe = packet.is_keyframe
            fields += copy.duration
            output.mux(copy)
    return path


def with_repeat_flags(data: bytes, index: int) -> bytes:
    """The MPEG-2 picture number `index` of a stream without B-frames, with the flags of 3:2."""
    changed = bytearray(data)
    place = data.find(b"\x00\x00\x01\xb5")
    while place >= 0:
        kind = data[place + 4] >> 4
        if kind == 1:  # sequence extension
            changed[place + 5] &= 0xFF ^ 0x08  # not a progressive sequence
        if kind == 8:  # picture coding extension
            top_first, repeat_first = index % 4 < 2, index % 2 == 1
            changed[place + 7] &= 0xFF ^ 0x82
            changed[place + 7] |= 0x80 * top_first + 0x02 * repeat_first
        place = data.find(b"\x00\x00\x01\xb5", place + 4)
    return bytes(changed)
