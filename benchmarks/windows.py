"""How far windows in time move the result from the whole scene's, for windows and overlaps.

    python benchmarks/windows.py [MODEL]

prints a Markdown table: PSNR in dB of each enlarged frame against the same frame with the whole
scene seen at once (RGB, before rounding), mean and worst frame. Two scenes: the demo clip, and a
pan over its first frame, 3 pixels of the small picture per 2 frames.
"""

import sys
from importlib import resources

import torch
from jaxtyping import Float
from torch import Tensor

import iart
from iart.pictures.degrade import degrade_bi, to_uint8

WINDOWS = (12, 16, 24)
OVERLAPS = (0, 1, 2, 3, 4, 5)
PAN_FRAMES, PAN_WIDTH, PAN_STEP = 50, 320, 6


def reduced(clip: Float[Tensor, "t 3 h w"]) -> Float[Tensor, "t 3 h2 w2"]:
    """MATLAB's bicubic ×1/4 in 8 bits."""
    return degrade_bi(to_uint8(clip)).float() / 255


def scenes() -> dict[str, Float[Tensor, "t 3 h w"]]:
    """Small pictures of two scenes."""
    demo = resources.files("iart") / "assets" / "demo.mp4"
    with resources.as_file(demo) as path, iart.VideoReader(path) as video:
        clip = torch.stack([frame.data for frame in video])
    still = clip[0]
    pan = [still[..., PAN_STEP * i : PAN_STEP * i + PAN_WIDTH] for i in range(PAN_FRAMES)]
    return {"demo": reduced(clip), "pan": reduced(torch.stack(pan))}


def main() -> None:
    """Print the table."""
    model = iart.load_model(sys.argv[1] if len(sys.argv) > 1 else "light")
    print("| scene | window | overlap | mean dB | worst frame dB | work |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, clip in scenes().items():
        whole = iart.upscale(clip, model, window=len(clip), overlap=0)
        for window in WINDOWS:
            for overlap in OVERLAPS:
                if 2 * overlap >= window:
                    continue
                parts = iart.upscale(clip, model, window=window, overlap=overlap)
                errors = (parts - whole).square().mean(dim=(1, 2, 3))
                psnr = -10 * errors.clamp(min=1e-12).log10()
                # Frames seen per frame kept, in a long scene.
                work = window / (window - overlap)
                print(
                    f"| {name} | {window} | {overlap} | {psnr.mean():.1f} | {psnr.min():.1f} "
                    f"| {work:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
