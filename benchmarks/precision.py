"""How far half precision moves the result from float32.

    python benchmarks/precision.py [light] [full] [--device cuda]

prints a Markdown table: PSNR in dB of frames against those of float32 on the same device (RGB,
before rounding), mean and worst frame, for the precisions that the device has. The scene is the
demo clip. "full" is the published configuration with weights that a formula gives, on three small
frames; its flow is random, and its features are not what training would leave.
"""

import sys
from pathlib import Path

import torch

import iart
from iart.device import PRECISIONS, autocast, pick_device, pick_precision
from iart.errors import DeviceError
from iart.model import IART, IARTConfig

sys.path.append(str(Path(__file__).resolve().parents[1]))
from windows import scenes

from tests.model.formula import with_formula_weights


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    words = sys.argv[1:]
    device = pick_device(words[words.index("--device") + 1] if "--device" in words else "auto")
    demo = scenes()["demo"]
    print("| model | device | precision | mean dB | worst frame dB |")
    print("| --- | --- | --- | --- | --- |")
    for name in [word for word in words if word in ("light", "full")] or ["light"]:
        if name == "full":
            model, clip = with_formula_weights(IART(IARTConfig())).to(device), demo[:3, :, :64, :96]
        else:
            model, clip = iart.load_model(name, device), demo
        frames = clip[None].to(device)
        exact = model(frames)[0].clamp(0, 1)
        for precision in PRECISIONS:
            try:
                dtype = pick_precision(precision, device)
            except DeviceError:
                continue
            with autocast(device, dtype):
                made = model(frames)[0].float().clamp(0, 1)
            psnr = -10 * (made - exact).square().mean(dim=(1, 2, 3)).log10()
            row = (
                "equal | equal"
                if dtype == torch.float32
                else f"{psnr.mean():.1f} | {psnr.min():.1f}"
            )
            print(f"| {name} | {device.type} | {precision} | {row} |", flush=True)


if __name__ == "__main__":
    main()
