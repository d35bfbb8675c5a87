"""Which codecs and containers a user can name, and what one gets who names little.

FFmpeg's tables of what a container holds are not the last word: every output is tried in memory
before the work, see `iart.video.write.trial`.
"""

import io
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import av
from av.codec.codec import UnknownCodecError

from iart.errors import OptionsError, OutputError
from iart.pictures.color import has_alpha, layout_of


@dataclass(frozen=True)
class Container:
    """One kind of output file.

    Attributes:
        name: its ending without the dot.
        muxer: FFmpeg's name.
        codec: video codec for sources of 8 bits, if the user names none.
        deep_codec: the same for more than 8 bits.
        text: codec that text subtitles become where theirs does not fit.
        lossless_audio: codecs for sound that cannot be copied, by bits per sample.
    """

    name: str
    muxer: str
    codec: str
    deep_codec: str
    text: str
    lossless_audio: dict[int, str]

    @property
    def is_mov(self) -> bool:
        """Whether it is of the family of QuickTime and MP4."""
        return self.muxer in ("mp4", "mov")


_PCM = {16: "pcm_s16le", 24: "pcm_s24le", 32: "pcm_s32le"}

CONTAINERS = {
    container.name: container
    for container in (
        Container("mp4", "mp4", "x264", "x265", "mov_text", {16: "flac", 24: "flac"}),
        Container("mov", "mov", "x264", "x265", "mov_text", _PCM),
        Container("mkv", "matroska", "x264", "x265", "subrip", _PCM),
        Container("webm", "webm", "svt-av1", "svt-av1", "webvtt", {}),
    )
}


@dataclass(frozen=True)
class Codec:
    """A video encoder and what a user who names only it gets.

    Attributes:
        encoder: FFmpeg's name.
        formats: pixel formats for sources of 8 bits and of more.
        crf: default constant rate factor; None if the codec has none.
        best_crf: the smallest that it takes.
        worst_crf: the largest.
        crf_option: the encoder's option that it sets.
        preset: default; None leaves it to the encoder.
        preset_option: the encoder's option that a preset sets; None if it has none.
        presets: all that it takes, if these are words.
        options: set always.
    """

    encoder: str
    formats: tuple[str, str]
    crf: int | None = None
    best_crf: int = 0
    worst_crf: int = 51
    crf_option: str = "crf"
    preset: str | None = None
    preset_option: str | None = "preset"
    presets: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)


_X26X_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast", "medium"),
    *("slow", "slower", "veryslow", "placebo"),
)

# A 10-bit H.264 file plays in few devices: with x264 named, deep sources are written with 8 bits
# unless the pixel format says otherwise. The CRFs look about alike; those of NVENC have not been
# compared with them.
CODECS = {
    "x264": Codec(
        "libx264",
        ("yuv420p", "yuv420p"),
        crf=16,
        preset="medium",
        presets=_X26X_PRESETS,
        # On processors with AVX-512 its look-ahead reads memory that nobody has written (core 165,
        # macroblock tree): the bytes would be others in every run, at 1 to 2 % less time.
        options={"x264-params": "cpu-independent=1"},
    ),
    "x265": Codec(
        "libx265",
        ("yuv420p", "yuv420p10le"),
        crf=18,
        preset="medium",
        presets=_X26X_PRESETS,
        options={"x265-params": "log-level=none"},
    ),
    "svt-av1": Codec("libsvtav1", ("yuv420p", "yuv420p10le"), crf=20, worst_crf=63, preset="6"),
    "ffv1": Codec(
        "ffv1",
        ("yuv420p", "yuv420p10le"),
        preset_option=None,
        options={"level": "3", "slicecrc": "1", "slices": "4", "g": "1"},
    ),
    "prores": Codec(
        "prores_ks", ("yuv422p10le", "yuv422p10le"), preset="hq", preset_option="profile"
    ),
} | {
    name: Codec(
        encoder,
        ("yuv420p", deep),
        crf=crf,
        best_crf=1,  # 0 leaves the quality to the encoder
        worst_crf=worst,
        crf_option="cq",
        preset="p5",
        presets=tuple(f"p{number}" for number in range(1, 8)),
        options={"rc": "vbr", "b": "0"},  # else NVENC aims at 2 Mbit/s, whatever the quality
    )
    for name, encoder, deep, crf, worst in (
        ("nvenc-h264", "h264_nvenc", "yuv420p", 19, 51),
        ("nvenc-hevc", "hevc_nvenc", "p010le", 21, 51),
        ("nvenc-av1", "av1_nvenc", "p010le", 25, 63),
    )
}

_ALPHA_LOST = ("libx265", "libvpx", "libvpx-vp9")
"""Encoders that take alpha and refuse it, or give it beside their packets, where PyAV leaves it."""
_KEEPS_ALPHA = (
    "(--codec ffv1 into .mkv, --codec prores --preset 4444 into .mov, or PNG images keep it)"
)

_ALIASES = {"h264": "x264", "h265": "x265", "hevc": "x265"}
_ALIASES |= {"av1": "svt-av1", "svtav1": "svt-av1"}
_ALIASES |= {codec.encoder: name for name, codec in CODECS.items()}


def is_nvenc(encoder: str) -> bool:
    """Whether an encoder, by FFmpeg's name, is one of NVIDIA's GPUs."""
    return encoder.endswith("_nvenc")


@dataclass(frozen=True)
class Encoding:
    """Everything that is decided about the video stream before the first frame.

    Attributes:
        container: of the output.
        encoder: FFmpeg's name.
        pixel_format: FFmpeg's name.
        options: for the encoder.
        notes: what the user may want to know, one line each.
    """

    container: Container
    encoder: str
    pixel_format: str
    options: dict[str, str]
    notes: tuple[str, ...] = ()


def choose_encoding(
    container: Container,
    bit_depth: int,
    *,
    alpha: bool = False,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    pixel_format: str | None = None,
) -> Encoding:
    """Fill in what the user left open.

    Sources of more than 8 bits, or a pixel format of more, get a codec that plays at 10 bits
    (x265, SVT-AV1) unless a codec is named.

    Args:
        container: of the output.
        bit_depth: of the source.
        alpha: whether the source has an alpha channel; carried if the codec can.
        codec: a key of `CODECS`, another usual name of it, or the name of an FFmpeg encoder.
        crf: constant rate factor; smaller is better.
        preset: of the encoder ("slow", "4"); the profile for ProRes ("hq", "4444").
        pixel_format: FFmpeg's name.

    Raises:
        OptionsError: an unknown codec or pixel format, or a CRF or preset for a codec without.
    """
    chosen_format = None if pixel_format is None else _known_format(pixel_format)
    depth = bit_depth if chosen_format is None else _depth(chosen_format)
    if codec is None:
        codec = container.codec if depth <= 8 else container.deep_codec
    entry = CODECS.get(_ALIASES.get(codec.lower(), codec.lower())) or _foreign(codec)
    if crf is not None and entry.crf is None and entry in CODECS.values():
        raise OptionsError(f"{codec} has no CRF; leave --crf out")
    if crf is not None and entry.crf is not None and not entry.best_crf <= crf <= entry.worst_crf:
        taken = f"{entry.best_crf} to {entry.worst_crf}"
        raise OptionsError(f"CRF {crf} is out of range; {codec} takes {taken}")
    if preset is not None and entry.preset_option is None:
        raise OptionsError(f"{codec} has no presets; leave --preset out")
    if preset is not None and entry.presets and preset not in entry.presets:
        raise OptionsError(f"{codec} has no preset {preset!r}; it has {', '.join(entry.presets)}")
    options = dict(entry.options)
    crf = entry.crf if crf is None else crf
    preset = entry.preset if preset is None else preset
    if crf is not None:
        options[entry.crf_option] = str(crf)
    if preset is not None and entry.preset_option is not None:
        options[entry.preset_option] = preset
    pixels = chosen_format or entry.formats[bit_depth > 8]
    notes = []
    if alpha:
        carries = entry.encoder not in _ALPHA_LOST
        if chosen_format is None and carries:
            pixels = _with_alpha(pixels, entry.encoder, preset)
        if not (carries and has_alpha(pixels)):
            notes.append(f"alpha: the alpha channel is not carried by {codec} {_KEEPS_ALPHA}")
    if chosen_format is None and _depth(pixels) < min(bit_depth, 10):
        notes.append(
            f"video: {bit_depth} bits are written as {_depth(pixels)} by {codec}"
            " (--codec x265, or --pixel-format yuv420p10le, keeps 10)"
        )
    return Encoding(container, entry.encoder, pixels, options, tuple(notes))


def _with_alpha(pixel_format: str, encoder: str, preset: str | None) -> str:
    """The format with an alpha channel that is nearest to one that an encoder would get."""
    if encoder == "prores_ks" and (preset or "").startswith("4444"):
        pixel_format = "yuv444p10le"
    found = layout_of(pixel_format).with_alpha
    return found if found in _formats(encoder) else pixel_format


def reductions(encoding: Encoding, source_format: str) -> tuple[str, ...]:
    """What a pixel format that nobody asked for does not keep of the source's; one line or none.

    Less than 10 bits are the codec's doing, which `choose_encoding` notes.
    """
    given, written = layout_of(source_format), layout_of(encoding.pixel_format)
    depth = _depth(encoding.pixel_format)
    lost = []
    if given.kind != "grey" and any(a < b for a, b in zip(given.step, written.step, strict=True)):
        name = "RGB" if given.kind == "rgb" else given.sampling
        lost.append(f"colour in {name} becomes {written.sampling}")
    if 10 <= depth < given.depth:
        lost.append(f"{given.depth} bits become {depth}")
    if not lost:
        return ()
    bits = min(given.depth, 12) if depth > 8 else 8
    colour = given.sampling if given.kind != "grey" else written.sampling
    alpha = "a" if has_alpha(encoding.pixel_format) else ""
    keeping = f"yuv{alpha}{colour.replace(':', '')}p{f'{bits}le' if bits > 8 else ''}"
    way_out = ""
    if keeping in _formats(encoding.encoder):
        way_out = f" (--pixel-format {keeping} keeps more)"
    elif "ffv1" in fitting_codecs(encoding.container):
        way_out = f" (--codec ffv1 --pixel-format {keeping} keeps more)"
    return (f"video: {' and '.join(lost)}{way_out}",)


def _formats(encoder: str) -> list[str]:
    return [form.name for form in av.Codec(encoder, "w").video_formats or []]


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


def held_codecs(container: Container) -> frozenset[str]:
    """FFmpeg's names of the codecs, encoders and decoders that its muxer says it holds."""
    # QuickTime's says yes to these, and refuses later
    refused = {"libsvtav1", "av1_nvenc", "libvpx-vp9"} if container.name == "mov" else set()
    return _supported(container.muxer) - refused


@cache
def _supported(muxer: str) -> frozenset[str]:
    with av.open(io.BytesIO(), "w", format=muxer) as output:
        return frozenset(output.supported_codecs)


def fitting_codecs(container: Container) -> list[str]:
    """Names of those codecs of `CODECS` that the container holds."""
    held = held_codecs(container)
    return [name for name, codec in CODECS.items() if codec.encoder in held]


def _foreign(codec: str) -> Codec:
    """Any other encoder of FFmpeg, with no defaults but a pixel format."""
    try:
        described = av.Codec(codec, "w")
    except (UnknownCodecError, ValueError):
        described = None
    if described is None or described.type != "video":
        raise OptionsError(
            f"unknown codec {codec!r}; known are {', '.join(CODECS)} and FFmpeg's encoders"
        )
    held = _formats(codec)
    shallow = "yuv420p" if "yuv420p" in held or not held else held[0]
    deep = next((name for name in ("yuv420p10le", "p010le") if name in held), shallow)
    return Codec(codec, (shallow, deep))


def _known_format(name: str) -> str:
    """FFmpeg's full name: `yuv420p10` is `yuv420p10le`, `yuvj420p` is `yuv420p` in full range."""
    name = name.replace("yuvj", "yuv")
    for candidate in (name, f"{name}le"):
        try:
            known = av.VideoFormat(candidate)
        except ValueError:
            continue
        if not known.components:
            raise OptionsError(f"pixel format {name!r} lies on a GPU; yuv420p and yuv420p10 do not")
        return known.name
    raise OptionsError(f"unknown pixel format {name!r}; yuv420p and yuv420p10 are usual")


def _depth(pixel_format: str) -> int:
    return max(component.bits for component in av.VideoFormat(pixel_format).components)
