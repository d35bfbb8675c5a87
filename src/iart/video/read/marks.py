"""What a stream's header says beside colours: Dolby Vision, cropping, alpha, spherical and stereo.

PyAV does not show the side data of streams. FFmpeg's MP4 muxer writes them into boxes, whatever
container they came from, so one packet is muxed in memory and the boxes are read back.
"""

import io
import struct
from collections.abc import Iterator
from fractions import Fraction

import av
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from iart.pictures.color import alpha_of
from iart.pictures.orientation import Orientation
from iart.video.frame import Crop, DolbyVision, Marks, Spherical

_PATH = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_LIST_HEADER, _ENTRY_HEADER = 8, 78
_DOLBY_VISION = (b"dvcC", b"dvvC", b"dvwC")
_SHOWN_ALONE = (4, 7, 9)
"""Profiles of Dolby Vision whose base layer is a picture of its own, whatever else they state."""
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""FFmpeg's own decoders give the pictures alone."""
_STEREO = {1: "top_bottom", 2: "left_right"}
_PROJECTIONS = {b"equi": "equirectangular", b"cbmp": "cubemap", b"mshp": "mesh"}


def read_marks(
    stream: VideoStream, packet: Packet, width: int, height: int, orientation: Orientation
) -> Marks:
    """The marks of a stream.

    Args:
        stream: of the source.
        packet: of it; belongs to another stream afterwards.
        width: of the stored picture, in pixels.
        height: likewise.
        orientation: how pictures become upright.
    """
    boxes = _boxes(_remuxed(stream, packet))
    dolby = next((boxes[name] for name in _DOLBY_VISION if name in boxes), None)
    aperture = _aperture(boxes[b"clap"], width, height) if b"clap" in boxes else None
    stereo = stream.metadata.get("stereo_mode")
    if stereo is None and b"st3d" in boxes:
        mode = boxes[b"st3d"][4]
        stereo = _STEREO.get(mode, "other") if mode else None
    elif stereo is None and b"vexu" in boxes and b"eyes" in boxes[b"vexu"]:
        stereo = "other"
    spherical = _spherical(boxes[b"sv3d"]) if b"sv3d" in boxes else None
    return Marks(
        None if dolby is None else _dolby_vision(dolby),
        None if aperture is None else aperture.upright(orientation, width, height),
        spherical,
        None if stereo == "mono" else stereo,
    )


def may_be_transparent(stream: VideoStream, frames: list[av.VideoFrame]) -> bool:
    """Whether pictures have an alpha channel, by the first ones."""
    if stream.codec_context.codec.canonical_name == "gif":  # its decoder gives one to every file
        return any(float(alpha.min()) < 1 for alpha in map(alpha_of, frames) if alpha is not None)
    return alpha_of(frames[0]) is not None or alpha_decoder(stream) is not None


def alpha_decoder(stream: VideoStream) -> VideoCodecContext | None:
    """A decoder of VP8 and VP9 with alpha, which lies beside the packets; None for others."""
    tags = {key.lower(): text for key, text in stream.metadata.items()}
    name = _ALPHA_DECODERS.get(stream.codec_context.codec.canonical_name)
    if name is None or tags.get("alpha_mode") != "1":
        return None
    context = av.CodecContext.create(name, "r")
    assert isinstance(context, VideoCodecContext)
    context.thread_count = 0
    return context


def _remuxed(stream: VideoStream, packet: Packet) -> bytes:
    """A file of one packet; MOV holds codecs that MP4 does not."""
    for muxer in ("mp4", "mov"):
        buffer = io.BytesIO()
        try:
            with av.open(
                buffer, "w", format=muxer, container_options={"strict": "unofficial"}
            ) as output:
                copy = output.add_stream_from_template(stream, opaque=True)
                copy.metadata.clear()
                packet.stream = copy
                packet.pts = packet.dts = 0
                output.mux(packet)
        except (FFmpegError, ValueError, NotImplementedError):
            continue
        return buffer.getvalue()
    return b""


def _boxes(file: bytes) -> dict[bytes, bytes]:
    """The boxes of the sample entry by name."""
    inside = file
    for name in _PATH:
        inside = dict(_children(inside)).get(name, b"")
    _, entry = next(_children(inside[_LIST_HEADER:]), (b"", b""))
    return dict(_children(entry[_ENTRY_HEADER:]))


def _children(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and payload of the boxes in a row."""
    at = 0
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        header = 8
        if size == 1 and at + 16 <= len(data):
            (size,), header = struct.unpack_from(">Q", data, at + 8), 16
        if size < header:
            return
        yield name, data[at + header : at + size]
        at += size


def _dolby_vision(box: bytes) -> DolbyVision:
    bits = int.from_bytes(box[2:4])
    profile, has_layer, compatibility = bits >> 9, bool(bits & 1), box[4] >> 4
    name = f"{profile}.{compatibility}" if compatibility and profile != 7 else str(profile)
    return DolbyVision(name, has_layer and (compatibility > 0 or profile in _SHOWN_ALONE))


def _aperture(box: bytes, width: int, height: int) -> Crop | None:
    """The clean aperture: its size, and how far its middle lies from the picture's."""
    numbers = struct.unpack_from(">IIIIiIiI", box)
    if not all(numbers[1::2]):
        return None
    across, down, right, below = (
        Fraction(a, b) for a, b in zip(numbers[::2], numbers[1::2], strict=True)
    )
    x, y = round((width - across) / 2 + right), round((height - down) / 2 + below)
    crop = Crop(round(across), round(down), max(0, x), max(0, y))
    fits = crop.x + crop.width <= width and crop.y + crop.height <= height
    whole = (crop.width, crop.height) == (width, height)
    return crop if fits and not whole and min(crop.width, crop.height) > 0 else None


def _spherical(box: bytes) -> Spherical | None:
    projection = dict(_children(dict(_children(box)).get(b"proj", b"")))
    header = projection.pop(b"prhd", b"")
    for name, data in projection.items():
        if name in _PROJECTIONS and len(header) >= 16:
            yaw, pitch, roll = (Fraction(v, 1 << 16) for v in struct.unpack_from(">iii", header, 4))
            return Spherical(_PROJECTIONS[name], yaw, pitch, roll, data)
    return None
