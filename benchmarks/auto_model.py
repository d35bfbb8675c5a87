"""Which model restores what a codec leaves, rate by rate: what `--model auto` is made from.

    python benchmarks/auto_model.py SCENE… [--models light dvd] [--frames 5]

Scenes are folders of pictures or videos that no model has learnt from. Each is cut to a multiple
of 32, reduced (area), coded at several quantisers, enlarged, and compared with what it was: PSNR on
Y, mean over the scenes, beside the codec's bits per pixel. Not for the frozen protocols' clips.
"""

import argparse
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import torch
from av.video.codeccontext import VideoCodecContext
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from iart import load_model, upscale
from iart.pictures.degrade import to_uint8
from iart.pictures.scores import psnr
from iart.video.open import open_video

LARGE = 544, 960  # height and width that scenes are cut to at most; the small picture is a quarter
CODECS = {
    "mpeg2video": (1, 2, 3, 4, 6, 8, 12),
    "mpeg4": (2, 4, 8),
    "libx264": (12, 16, 20, 24, 28, 34),
}
"""Quantisers (of x264 its crf)."""
GROUP = 12


def truth_of(scene: str, frames: int) -> Float[Tensor, "t 3 h w"]:
    """The middle of its first frames, with sides that are multiples of 8 when reduced."""
    with open_video(scene, deinterlace="off") as reader:
        clip = torch.stack([frame.data for frame in islice(reader, frames)])
    height, width = (
        min(side, most) // 32 * 32 for side, most in zip(clip.shape[-2:], LARGE, strict=True)
    )
    top, left = (clip.shape[-2] - height) // 2, (clip.shape[-1] - width) // 2
    return clip[:, :, top : top + height, left : left + width]


def coded(
    clip: UInt8[Tensor, "t 3 h w"], codec: str, quantiser: int
) -> tuple[Float[Tensor, "t 3 h w"], float]:
    """What a decoder gives, and the bits per pixel."""
    encoder: VideoCodecContext = av.CodecContext.create(codec, "w")  # pyright: ignore[reportAssignmentType]
    encoder.height, encoder.width, encoder.pix_fmt = *clip.shape[-2:], "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.thread_count, encoder.gop_size, encoder.max_b_frames = 1, GROUP, 2
    if codec == "libx264":
        encoder.options = {"crf": str(quantiser), "threads": "1"}
    else:
        encoder.qmin = encoder.qmax = quantiser
    pictures = [av.VideoFrame.from_ndarray(rgb.permute(1, 2, 0).numpy(), "rgb24") for rgb in clip]
    packets: list[av.Packet] = []
    for number, picture in enumerate(pictures):
        picture = picture.reformat(format="yuv420p", dst_colorspace="itu601")
        picture.pts = number
        packets += encoder.encode(picture)
    packets += encoder.encode(None)
    name = "h264" if codec == "libx264" else codec
    decoder: VideoCodecContext = av.CodecContext.create(name, "r")  # pyright: ignore[reportAssignmentType]
    decoder.thread_count = 1
    decoded = [image for packet in packets for image in decoder.decode(packet)]
    decoded += decoder.decode(None)
    bits = (
        8 * sum(packet.size for packet in packets) / (len(clip) * clip.shape[-2] * clip.shape[-1])
    )
    rgb = [image.to_ndarray(format="rgb24", src_colorspace="itu601") for image in decoded]
    return torch.stack([torch.from_numpy(r).permute(2, 0, 1) / 255 for r in rgb]), bits


def measured(
    scenes: list[str], models: dict[str, nn.Module], frames: int
) -> Iterator[tuple[str, int, float, list[float]]]:
    """Codec, quantiser, mean bits per pixel and PSNR of each model."""
    truths = [truth_of(scene, frames) for scene in scenes]
    small = [to_uint8(avg_pool2d(truth, 4)) for truth in truths]
    for codec, quantisers in CODECS.items():
        for quantiser in quantisers:
            bits, scores = 0.0, [0.0] * len(models)
            for low, truth in zip(small, truths, strict=True):
                clip, spent = coded(low, codec, quantiser)
                bits += spent / len(truths)
                for number, model in enumerate(models.values()):
                    large = upscale(clip, model)
                    pairs = zip(large, truth, strict=True)
                    mean = sum(psnr(a, b, luma=True) for a, b in pairs) / len(truth)
                    scores[number] += mean / len(truths)
            yield codec, quantiser, bits, scores


def main() -> None:
    """Print a table for docs/models.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("scenes", nargs="+")
    parser.add_argument("--models", nargs="+", default=["light", "dvd"])
    parser.add_argument("--frames", type=int, default=7)
    asked = parser.parse_args()
    models = {Path(name).stem: load_model(name) for name in asked.models}
    print("| codec | quantiser | bits per pixel |", " | ".join(models), "|")
    print("| --- " * (3 + len(models)) + "|")
    for codec, quantiser, bits, scores in measured(asked.scenes, models, asked.frames):
        told = " | ".join(f"{score:.2f}" for score in scores)
        print(f"| {codec} | {quantiser} | {bits:.2f} | {told} |", flush=True)


if __name__ == "__main__":
    main()
