"""The alpha channel of pictures: 0 where they are transparent, 1 where they are opaque."""

import av
import numpy as np
import torch
from av.error import FFmpegError
from av.video.format import VideoFormat
from jaxtyping import Float
from torch import Tensor

from iart.pictures.color import layout_of, plane_numbers, repack


def has_alpha(pixel_format: str) -> bool:
    """Whether pictures in a format of FFmpeg's name have the channel; palettes do not say."""
    return any(component.is_alpha for component in VideoFormat(pixel_format).components)


def alpha_of(frame: av.VideoFrame) -> Float[Tensor, "1 h w"] | None:
    """The channel in [0, 1]; None if a picture has none that can be read.

    A palette says of any picture that it may be transparent, so one that is nowhere has none.
    """
    palette = frame.format.has_palette
    if not (palette or has_alpha(frame.format.name)):
        return None
    layout = layout_of(frame.format.name)
    try:
        plain = repack(frame, layout.with_alpha)
    except (FFmpegError, ValueError):
        return None
    top = 1.0 if layout.floating else 2.0**layout.depth - 1
    numbers = plane_numbers(plain.planes[3], layout).astype(np.float32)
    alpha = (torch.from_numpy(numbers)[None] / top).clamp_(0, 1)
    return None if palette and bool((alpha == 1).all()) else alpha


def set_alpha(frame: av.VideoFrame, alpha: Float[Tensor, "1 h w"]) -> av.VideoFrame:
    """The picture with another channel, in the same pixel format, which must have one."""
    layout = layout_of(frame.format.name)
    plain = repack(frame, layout.with_alpha)
    top = 1.0 if layout.floating else 2.0**layout.depth - 1
    numbers = alpha[0].detach().to("cpu", torch.float32).clamp(0, 1) * top
    target = plane_numbers(plain.planes[3], layout)
    target[:] = (numbers if layout.floating else numbers.round()).numpy()
    made = repack(plain, frame.format.name)
    made.color_primaries, made.color_trc = frame.color_primaries, frame.color_trc
    made.colorspace, made.color_range = frame.colorspace, frame.color_range
    return made
