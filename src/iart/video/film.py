"""A video file in the making: everything decided and tried first, then packets in, a file out.

plan_film(path, like=info) → FilmPlan       refuses what can be refused, in seconds
Film(plan, part)                            encoded pictures in; sound and the rest come along
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TypedDict, Unpack

import av.error
from av.packet import Packet

from iart.errors import OutputError
from iart.video.assembly import Assembly, amend_header, assemble, with_tracks
from iart.video.codecs import CONTAINERS, Container, choose_encoding
from iart.video.color import color_for
from iart.video.dry_mux import DecodeTimes, Shape, dry_mux, muxer_options
from iart.video.encoder import Encode
from iart.video.frame import Loss, VideoInfo
from iart.video.rehearsal import rehearse


class EncodingOptions(TypedDict, total=False):
    """How the video is encoded; what is left out, or None, is chosen.

    Attributes:
        codec: see `iart.video.codecs.CODECS`, or the name of an encoder of FFmpeg; by container and
            bit depth if not given.
        crf: constant rate factor of the codec; smaller is better.
        preset: of the codec.
        pixel_format: FFmpeg's name; by codec and bit depth if not given.
    """

    codec: str | None
    crf: int | None
    preset: str | None
    pixel_format: str | None


@dataclass(frozen=True)
class FilmPlan:
    """Everything decided about an output file before its first frame.

    Attributes:
        path: its final name.
        assembly: streams, metadata and chapters, rehearsed.
        encode: what the video's encoders must know.
        notes: conversions that will happen and what cannot be kept, one line each.
    """

    path: Path
    assembly: Assembly
    encode: Encode
    notes: tuple[str, ...]


def plan_film(
    path: str | Path,
    *,
    like: VideoInfo,
    scale: int = 4,
    drop: Collection[str] = (),
    start_seconds: Fraction | None = None,
    end_seconds: Fraction | None = None,
    **encoding: Unpack[EncodingOptions],
) -> FilmPlan:
    """Decide everything about an output, and try it in memory.

    Args:
        path: ends in .mp4, .mkv, .mov or .webm.
        like: the source: tracks, times, colour and shape of pixels are taken from it.
        scale: size of the frames that will be written over that of the source.
        drop: tracks to leave out: "audio", "subtitle", "attachment", "data", "video" (every
            other than the one that is enlarged), or a stream index of the source.
        start_seconds: the output begins with this time of the source, if not with its own start.
        end_seconds: tracks are carried up to here; None to their end.
        encoding: see `EncodingOptions`.

    Raises:
        OutputError: the codec or a track; says which and what to do.
        OptionsError: an unknown codec, pixel format or `drop`.
    """
    path = Path(path)
    chosen = choose_encoding(container_for(path), like.bit_depth, **encoding)
    shape = Shape(
        like.width * scale,
        like.height * scale,
        like.rate,
        like.time_base,
        color_for(chosen.pixel_format, like.color),
        like.sample_aspect,
    )
    dry_mux(chosen, shape)
    assembly = Assembly(
        chosen,
        shape,
        shift=-((start_seconds or Fraction(0)) // like.time_base) * like.time_base,
        start_seconds=start_seconds,
        end_seconds=end_seconds,
    )
    notes = list(chosen.notes)
    if like.container != "images":
        assembly, more = with_tracks(assembly, like, drop)
        notes += more
    carried = assembly.tracks.carried
    options = muxer_options(
        chosen, shape, [plan.ticks for plan in carried], [plan.sample_rate for plan in carried]
    )
    assembly, lost = rehearse(replace(assembly, options=options))
    encode = Encode(assembly.encoding, shape, like.color, assembly.shift)
    return FilmPlan(path, assembly, encode, (*notes, *lost, *_caption_note(like)))


class Film:
    """An output that is being put together; a context manager that removes nothing.

    Attributes:
        video: the stream of the pictures, its encoder open.
        losses: damaged parts of the source's tracks, complete after `finish`.
    """

    def __init__(self, plan: FilmPlan, part: Path) -> None:
        """Write the header.

        Raises:
            OutputError: an encoder or the container refuses.
        """
        self._plan, self._part = plan, part
        self.losses: list[Loss] = []
        self._output, self.video, self._copier = assemble(plan.assembly, str(part))
        self._decode_times = DecodeTimes(plan.encode.shape.time_base)
        self._is_open = True

    def mux(self, packet: Packet) -> None:
        """Add the next packet of the video, and of all tracks what comes before it."""
        packet = self._decode_times.mended(packet)
        packet.stream = self.video
        time = packet.pts if packet.dts is None else packet.dts
        if self._copier is not None and time is not None:
            self._copier.advance(time * self._plan.encode.shape.time_base)
        self._output.mux(packet)

    def finish(self) -> None:
        """Add the rest of all tracks, and complete the file."""
        if self._copier is not None:
            self._copier.finish()
            self.losses += self._copier.losses
        self._is_open = False
        self._output.close()
        if not amend_header(self._plan.assembly, self._part):
            raise OutputError(
                f"cannot write '{self._plan.path}': its header has no room for the shape of pixels"
            )

    def close(self) -> None:
        """Let go of the file, finished or not; never fails."""
        if not self._is_open:
            return
        self._is_open = False
        if self._copier is not None:
            self._copier.close()
        try:
            self._output.close()
        except (av.error.FFmpegError, OSError, ValueError):
            return  # not wanted any more; there is nothing to complete

    def __enter__(self) -> "Film":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def container_for(path: Path) -> Container:
    """The container that the ending of a file name asks for.

    Raises:
        OutputError: another ending.
    """
    container = CONTAINERS.get(path.suffix.lower().removeprefix("."))
    if container is None:
        names = ", ".join(f".{name}" for name in CONTAINERS)
        raise OutputError(
            f"cannot write '{path}': unknown ending '{path.suffix}'; pass {names},"
            " or a folder for PNG images"
        )
    return container


def _caption_note(like: VideoInfo) -> list[str]:
    if not like.closed_captions:
        return []
    return ["closed captions: those inside the video are lost (they cannot be passed on yet)"]
