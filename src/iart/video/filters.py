"""FFmpeg filters over successive pictures, each of which is known again when it comes out."""

from collections.abc import Sequence
from fractions import Fraction

import av
from av.filter import Graph


class FilterChain:
    """Filters in a row. Pictures are numbered; those that come out say between which they lie."""

    def __init__(self, filters: Sequence[tuple[str, str]]) -> None:
        """`filters` are names and options, as FFmpeg writes them."""
        self._filters = filters
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str] | None = None

    def push(self, image: av.VideoFrame, number: int) -> list[tuple[Fraction, av.VideoFrame]]:
        """Pictures that are ready, with their numbers: halves lie between two that went in.

        A change of size or pixel format empties the filters first.
        """
        ready = []
        shape = (image.width, image.height, image.format.name)
        if shape != self._shape:
            ready = self.flush()
            self._graph, self._shape = filter_graph(image, self._filters), shape
        assert self._graph is not None
        image.pts, image.time_base = number, Fraction(1)
        self._graph.vpush(image)
        return ready + self._ready()

    def flush(self) -> list[tuple[Fraction, av.VideoFrame]]:
        """What the filters still hold, at the end."""
        if self._graph is None:
            return []
        self._graph.vpush(None)
        ready = self._ready()
        self._graph = self._shape = None
        return ready

    def _ready(self) -> list[tuple[Fraction, av.VideoFrame]]:
        assert self._graph is not None
        ready = []
        while True:
            try:
                image = self._graph.vpull()
            except (BlockingIOError, EOFError):
                return ready
            ready.append(((image.pts or 0) * (image.time_base or Fraction(1)), image))


def filter_graph(image: av.VideoFrame, filters: Sequence[tuple[str, str]]) -> Graph:
    """Filters in a row, for pictures of the size and format of one.

    Args:
        image: any of them.
        filters: names and options, as FFmpeg writes them.
    """
    graph = Graph()
    graph.threads = 1
    source = graph.add(
        "buffer",
        video_size=f"{image.width}x{image.height}",
        pix_fmt=image.format.name,
        time_base="1/1",
        pixel_aspect="1/1",
    )
    nodes = [graph.add(name, options or None) for name, options in filters]
    graph.link_nodes(source, *nodes, graph.add("buffersink")).configure()
    return graph
