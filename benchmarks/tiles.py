"""How far tiles move the result from the whole picture's, for overlaps, and what they cost.

    python benchmarks/tiles.py [light] [tiny] [full]

prints a Markdown table: PSNR in dB of the enlarged frames against those made with whole pictures
(RGB, before rounding), mean and worst frame, and pixels computed per pixel of the picture. Scenes:
the demo clip, and two halves that pan over its first frame in opposite directions, so many pixels
of the small picture per frame. "tiny" and "full" are networks whose weights a formula gives: full
has the published configuration, tiny 24 channels and 2 groups of 2 blocks.
"""

import sys
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import iart
from iart.model import IART, IARTConfig
from iart.upscaling.budget import Tiling, tile_multiple
from iart.upscaling.enlarge import Enlarger
from iart.upscaling.tiles import plan_tiles

sys.path.append(str(Path(__file__).resolve().parents[1]))
from windows import scenes

from tests.model.formula import with_formula_weights

OVERLAPS = (0, 8, 16, 24, 32, 48, 64)
CONFIGS = {
    "tiny": IARTConfig(channels=24, mid_channels=32, depths=(2, 2), heads=(4, 4)),
    "full": IARTConfig(),
}


def pans(still: Float[Tensor, "3 h w"], step: int) -> Float[Tensor, "9 3 h 144"]:
    """Nine frames whose halves move `step` pixels per frame, to the left and to the right."""
    half = torch.stack([still[..., step * i : step * i + 72] for i in range(9)])
    return torch.cat([half, half.flip(-1)], dim=-1)


def work(clip: Tensor, tile: int, multiple: int, overlap: int) -> float:
    """Pixels in tiles per pixel."""
    counts = [
        sum(place.stop - place.start for place in plan_tiles(side, tile, multiple, overlap)) / side
        for side in clip.shape[-2:]
    ]
    return counts[0] * counts[1]


def main() -> None:
    """Print the table."""
    demo = scenes()["demo"]
    clips = {"demo": demo[:16], "pan 6": pans(demo[0], 6), "pan 10": pans(demo[0], 10)}
    print("| model | scene | tile | overlap | mean dB | worst frame dB | work |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in sys.argv[1:] or ["light"]:
        if name in CONFIGS:
            model = with_formula_weights(IART(CONFIGS[name]))
            chosen = {"demo": demo[: 3 if name == "full" else 8, :, :64]}
        else:
            model, chosen = iart.load_model(name), clips
        for scene, clip in chosen.items():
            tile, multiple = clip.shape[-1] * 7 // 10, tile_multiple(model)
            everything = slice(0, len(clip))
            whole = Enlarger(model, Tiling(len(clip), 0, None)).enlarge(clip, everything)[0]
            for overlap in OVERLAPS:
                if tile - overlap < multiple:
                    continue
                enlarger = Enlarger(model, Tiling(len(clip), 0, tile), tile_overlap=overlap)
                made = enlarger.enlarge(clip, everything)[0]
                errors = (made - whole).square().mean(dim=(1, 2, 3))
                psnr = -10 * errors.clamp(min=1e-12).log10()
                print(
                    f"| {name} | {scene} | {tile} | {overlap} | {psnr.mean():.1f} "
                    f"| {psnr.min():.1f} | {work(clip, tile, multiple, overlap):.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
