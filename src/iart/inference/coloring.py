"""Which colours the output has, and what happens to HDR."""

from dataclasses import replace

import av

from iart.errors import InputError, OptionsError
from iart.video.color import RGB
from iart.video.frame import Color, VideoInfo
from iart.video.gamut import TELEVISION, can_convert
from iart.video.tags import is_hd

COLORS = ("auto", "keep", "bt709", "bt601", "bt2020")
HDR = ("refuse", "passthrough")

_BT709 = Color(1, 1, 1, full_range=False)
_BT601 = {5: Color(5, 6, 5, full_range=False), 6: Color(6, 6, 6, full_range=False)}
_BT2020 = Color(9, 14, 9, full_range=False)
_SD_MATRICES = (5, 6)
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
_HDR_BITS = 10


def plan_color(
    info: VideoInfo, size: tuple[int, int], choice: str = "auto", *, is_folder: bool = False
) -> Color:
    """The colours of the output.

    Limited or full range stays as it is. Greys keep their numbers.

    Args:
        info: of the source.
        size: width and height of the output.
        choice: "auto": BT.601 becomes BT.709 in videos larger than SD, where players expect that;
            all else is kept. "keep"; or "bt709", "bt601" (625 lines for 25 and 50 frames per
            second, else 525), "bt2020".
        is_folder: whether the output is a folder of images, whose colours are kept by "auto".

    Raises:
        OptionsError: an unknown choice, or a source that cannot be converted to it.
    """
    source = info.color
    if choice not in COLORS:
        raise OptionsError(f"unknown color {choice!r}; pass {', '.join(COLORS)}")
    is_sd_color = source.matrix in _SD_MATRICES and source.transfer in TELEVISION
    if choice == "auto":
        can = is_sd_color and can_convert(source.primaries, _BT709.primaries, source.transfer)
        choice = "bt709" if can and is_hd(*size) and not is_folder else "keep"
    if choice == "keep":
        return source
    target = {"bt709": _BT709, "bt601": _bt601_of(info), "bt2020": _BT2020}[choice]
    if not can_convert(source.primaries, target.primaries, source.transfer):
        raise OptionsError(
            f"colours of '{info.path.name}' (primaries {source.primaries}, transfer"
            f" {source.transfer}) cannot be converted to {choice}; pass --color keep"
        )
    return replace(
        target,
        # one curve for all televisions, so that only its name changes; others stay
        transfer=target.transfer if source.transfer in TELEVISION else source.transfer,
        matrix=RGB if source.matrix == RGB else target.matrix,
        full_range=source.full_range,
    )


def _bt601_of(info: VideoInfo) -> Color:
    """The form for 625 or for 525 lines."""
    return _BT601[5 if info.color.primaries == 5 or info.rate in (25, 50) else 6]


def check_hdr(info: VideoInfo, choice: str, pixel_format: str) -> tuple[str, ...]:
    """Refuse HDR unless it is asked for and the output can hold it; notes on what is lost.

    Args:
        info: of the source.
        choice: one of `HDR`.
        pixel_format: of the output; that of a folder of images is RGB.

    Raises:
        InputError: the source is HDR, and `choice` is "refuse".
        OptionsError: the output cannot hold HDR, or an unknown choice.
    """
    if choice not in HDR:
        raise OptionsError(f"unknown hdr {choice!r}; pass {' or '.join(HDR)}")
    kind = _HDR_TRANSFERS.get(info.color.transfer)
    if kind is None:
        return ()
    if choice == "refuse":
        raise InputError(
            f"'{info.path.name}' is HDR ({kind}), which the network does not know. Pass"
            " --hdr passthrough to enlarge it as it is, or convert it to SDR first"
        )
    form = av.VideoFormat(pixel_format)
    if form.is_rgb:
        raise OptionsError("images cannot say that they are HDR; pass a video file as output")
    if max(component.bits for component in form.components) < _HDR_BITS:
        raise OptionsError(
            f"HDR needs {_HDR_BITS} bits, {pixel_format} has fewer; pass --codec x265"
            " --pixel-format yuv420p10le"
        )
    return (
        f"hdr: {kind} goes through as it is; mastering display and content light are kept by x265"
        " and svt-av1; HDR10+ and Dolby Vision are lost",
    )
