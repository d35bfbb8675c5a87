"""Which model suits a source: `--model auto`.

    fields, of one moment each or of film                     dvd
    codecs of discs, tapes and the early web                  dvd, but for high rates
    H.264, HEVC, VP8, VP9, AV1 of standard definition         dvd, but for high rates
    everything else: images, lossless, high rates, large      light

docs/models.md has the measurements that the limits come from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from iart.device import threads_per_process
from iart.upscaling.film.request import AUTO, UpscaleRequest
from iart.upscaling.film.run import LoadModel
from iart.upscaling.film.stream import STREAM
from iart.video.frame import VideoInfo
from iart.video.open import open_video
from iart.weights import load_model

CLEAN, RESTORING = "light", "dvd"

SD_PIXELS = 1024 * 576
"""Widest picture of standard definition, with square pixels."""

_DISC, _OLD, _NEW = 1.5, 0.9, 0.3
MOST_BITS = {
    **dict.fromkeys(("mpeg1video", "mpeg2video"), _DISC),
    **dict.fromkeys(("mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3"), _OLD),
    **dict.fromkeys(("h263", "h263p", "flv1", "svq1", "svq3", "rv20", "rv30", "rv40"), _OLD),
    **dict.fromkeys(("wmv1", "wmv2", "wmv3", "vc1", "vp3", "theora", "vp6", "vp6f"), _OLD),
    "dvvideo": math.inf,  # each picture for itself, at one rate
    **dict.fromkeys(("h264", "hevc", "vp8", "vp9", "av1"), _NEW),
}
"""Bits per pixel up to which a codec, by FFmpeg's name, leaves something to restore."""

_FIELDS = {"interlaced", "hard telecine", "shifted film"}


@dataclass(frozen=True)
class Choice:
    """A model and the reason for it.

    Attributes:
        model: a name that `load_model` knows.
        why: in a few words, "mpeg2video at 0.31 bits per pixel".
    """

    model: str
    why: str

    def __str__(self) -> str:
        return f"{self.model}, for {self.why} (--model NAME takes another)"


def choose_model(info: VideoInfo) -> Choice:
    """The model for what is known of a source."""
    bits, limit = info.bits_per_pixel, MOST_BITS.get(info.codec)
    if info.fields is not None and _FIELDS & info.fields.shares.keys():
        return Choice(RESTORING, f"{info.codec} in fields")
    if info.container == "images" or limit is None:
        kind = "images" if info.container == "images" else info.codec
        return Choice(CLEAN, f"{kind}, not known to have lost much")
    size = f"{info.width}x{info.height}"
    what = info.codec if bits is None else f"{info.codec} at {bits:.2g} bits per pixel"
    if limit == _NEW and info.width * info.height > SD_PIXELS:
        return Choice(CLEAN, f"{what}, {size}")
    if bits is not None and bits > limit:
        return Choice(CLEAN, f"{what}, a high rate")
    return Choice(RESTORING, f"{what}, a low rate" if limit == _NEW else what)


class Models:
    """Models by name, each loaded once; "auto" stands for the one that suits a source.

    Attributes:
        name: as asked for.
    """

    def __init__(
        self, name: str, devices: Sequence[str], precision: str = "auto", backend: str = "auto"
    ) -> None:
        """Load the model, unless it depends on the source.

        Args:
            name: "auto", or see `iart.weights.load_model`.
            devices: at least one; the same one may come twice.
            precision: see `iart.weights.load_model`.
            backend: likewise.

        Raises:
            WeightsError: no such model.
            DeviceError: this machine lacks a device.
        """
        self.name = name
        self._how = devices, precision, backend
        self._loaded: dict[str, tuple[nn.Module, list[LoadModel]]] = {}
        threads_per_process(devices)  # are they there?
        if name != AUTO:
            self._load(name)

    def choose(self, request: UpscaleRequest) -> Choice | None:
        """The choice for a source; None where the model is named.

        Raises:
            InputError: the source cannot be read.
        """
        if self.name != AUTO:
            return None
        if str(request.source) == STREAM:
            return Choice(CLEAN, "a stream, whose past is not known")
        with open_video(
            request.source, rate=request.rate, deinterlace=request.deinterlace
        ) as reader:
            return choose_model(reader.info)

    def load(self, choice: Choice | None) -> tuple[nn.Module, list[LoadModel]]:
        """What `choose` has given, on the first device; what loads it on the others, elsewhere."""
        return self._load(self.name if choice is None else choice.model)

    def _load(self, name: str) -> tuple[nn.Module, list[LoadModel]]:
        if name not in self._loaded:
            devices, precision, backend = self._how
            loaders: list[LoadModel] = [
                partial(load_model, name, device, precision, backend=backend) for device in devices
            ]
            self._loaded[name] = loaders[0](), loaders[1:]
        return self._loaded[name]
