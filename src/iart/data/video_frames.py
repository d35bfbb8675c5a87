"""Clips that are video files: one seek a sample, exact by presentation times.

Times come from one pass over the packets of a file, when its frames are first needed. Pictures are
those of `iart.video`, of the file's own colours and upright, rounded to 8 bits; what they need is
cut out before colours are computed.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.filter import Graph
from einops import rearrange
from jaxtyping import UInt8

from iart.data.degrade import to_uint8
from iart.data.frames import Frames
from iart.errors import DataError, InputError
from iart.video.chroma import Siting
from iart.video.color import is_supported, to_rgb
from iart.video.decode import Decoder
from iart.video.frame import Color, Loss, VideoInfo
from iart.video.orientation import Orientation
from iart.video.probe import color_tags, open_container, read_info
from iart.video.reader import CENTRED_CHROMA_CODECS
from iart.video.tags import resolve_color

# Chroma is interpolated from 2 samples on either side, which lie at most 4 pixels apart.
_MARGIN = 16
_TIMED_BY_ORDER = ("avi",)


class VideoFrames(Frames):
    """The frames of one file, as they are stored: nothing is deinterlaced."""

    def __init__(self, path: Path, name: str, count: int | None = None) -> None:
        """See `Store.clip`."""
        self.name = name
        self._path, self._stated = path, count

    @property
    def count(self) -> int:
        """As stated, else counted."""
        return len(self._times) if self._stated is None else self._stated

    @property
    def size(self) -> tuple[int, int]:
        """As shown."""
        return self._info.height, self._info.width

    @cached_property
    def _info(self) -> VideoInfo:
        with _damage_named(self._path):
            # of a varying rate: frames that the file never had are no damage
            return replace(read_info(self._path), variable_rate=True)

    @cached_property
    def _times(self) -> tuple[int, ...]:
        """Of all frames, ascending, in units of the file's time base."""
        info = self._info
        by_order = info.container.split(",")[0] in _TIMED_BY_ORDER
        times: list[int] = []
        with _damage_named(self._path), open_container(self._path) as container:
            for packet in container.demux(container.streams[info.stream_index]):
                time = packet.dts if by_order else packet.pts
                if packet.size and time is not None and not packet.is_discard:
                    times.append(time)
        times.sort()
        if by_order:  # such as the reader counts them
            start = round(info.start_seconds / info.time_base) - times[0]
            times = [time + start for time in times]
        if self._stated is not None and len(times) < self._stated:
            raise DataError(
                f"video '{self._path}' has {len(times)} frames, but the list of videos says"
                f" {self._stated}"
            )
        return tuple(times)

    def read(
        self, indices: Sequence[int], top: int, left: int, height: int, width: int
    ) -> UInt8[np.ndarray, "t h w 3"]:
        """See `Frames`."""
        unit = self._info.time_base
        wanted = {self._times[index]: place for place, index in enumerate(indices)}
        start, end = min(wanted) * unit, (max(wanted) + 1) * unit
        result = np.empty((len(indices), height, width, 3), np.uint8)
        with _damage_named(self._path), open_container(self._path) as container:
            decoder = Decoder(container, self._info, start_seconds=start, logged=(start, end))
            stream: Any = container.streams[self._info.stream_index]
            stream.codec_context.thread_count = 1  # other threads make other samples
            part = _Part(self._info, stream, (top, left, height, width))
            for picture in decoder:
                if (place := wanted.pop(picture.pts, None)) is not None:
                    result[place] = part.of(picture.image, decoder.orientation)
                if not wanted:
                    break
            self._check(decoder.losses, wanted)
        return result

    def _check(self, losses: Sequence[Loss], missing: Iterable[int]) -> None:
        damage = [(loss.start_seconds, loss.reason) for loss in losses]
        damage += [(time * self._info.time_base, "a frame is missing") for time in missing]
        if damage:
            seconds, reason = damage[0]
            raise DataError(f"video '{self._path}' is damaged at {float(seconds):.3f} s: {reason}")

    def problems(self) -> Iterator[str]:
        """See `Frames`."""
        try:
            _ = self.size
            if len(self._times) != self.count:
                yield (
                    f"video '{self._path}' has {len(self._times)} frames, but the list of videos"
                    f" says {self.count}; the rest is not used"
                )
        except DataError as error:
            yield str(error)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (InputError, FFmpegError, OSError) as error:
        raise DataError(f"cannot read video '{path}': {error}") from error


class _Part:
    """Cuts one rectangle out of pictures of a file."""

    def __init__(self, info: VideoInfo, stream: Any, box: tuple[int, int, int, int]) -> None:
        self._info, self._stream, self._box = info, stream, box
        self._siting: Siting = "centre" if info.codec in CENTRED_CHROMA_CODECS else "left"
        self._graph: Graph | None = None

    def of(self, image: av.VideoFrame, orientation: Orientation) -> UInt8[np.ndarray, "h w 3"]:
        """The part of a picture, after it was turned upright."""
        color = self._color(image)
        top, left, height, width = self._box
        if orientation == Orientation():
            above, before = (max(0, n - _MARGIN) // _MARGIN * _MARGIN for n in (top, left))
            image = self._cut(image, above, before)
            top, left = top - above, left - before
        rgb = orientation.upright(to_rgb(image, color, siting=self._siting))
        part = to_uint8(rgb[:, top : top + height, left : left + width])
        return rearrange(part, "c h w -> h w c").numpy()

    def _color(self, image: av.VideoFrame) -> Color:
        """As the reader takes it: the picture's own description over that of the file."""
        tags = color_tags(image).over(color_tags(self._stream.codec_context))
        size = (image.width, image.height)
        color = resolve_color(tags, image.format.name, size, self._info.rate)
        return color if is_supported(color.matrix) else self._info.color

    def _cut(self, image: av.VideoFrame, above: int, before: int) -> av.VideoFrame:
        """The rectangle with a margin for chroma, from (above, before) on; no sample changes."""
        top, left, height, width = self._box
        below = min(image.height, top + height + _MARGIN)
        right = min(image.width, left + width + _MARGIN)
        if self._graph is None:
            self._graph = _cut_graph(image, right - before, below - above, before, above)
        self._graph.vpush(image)
        return self._graph.vpull()


def _cut_graph(image: av.VideoFrame, width: int, height: int, x: int, y: int) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = graph.add(
        "buffer",
        video_size=f"{image.width}x{image.height}",
        pix_fmt=image.format.name,
        time_base="1/1000000",
        pixel_aspect="1/1",
    )
    cut = graph.add("crop", f"w={width}:h={height}:x={x}:y={y}:exact=1")
    graph.link_nodes(source, cut, graph.add("buffersink")).configure()
    return graph
