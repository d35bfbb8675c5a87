"""Ours against the plain path: speed, memory and results, in turn in one process.

    python benchmarks/speed/compare.py [full|light|FILE] [--frames 5 --height 96 --width 128]
        [--repeats 2] [--train [--checkpointing]] [--backend torch]
        [--device cuda --precision bfloat16] [--json FILE]

`plain.py` is the plain path. Both have the same weights (those of "full" a formula gives) and the
same clip. A first pass of each measures memory; then they take turns, and keep what memory they
have, as from window to window and from step to step. The ratio is the median of the pairs; the
share of the matmul rate takes the fastest pass, and for both the operations that our path needs.
With `--train` a pass is a Charbonnier loss forward and backward, and counts as three forward. On a
GPU, float32 convolutions are float32, not TF32, in both.
"""

import argparse
import ctypes
import gc
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from plain import PlainIART
from torch import Tensor, nn

from iart.bench.measure import (
    check_memory,
    count_operations,
    load_network,
    made_clip,
    matmul_rate,
    now,
    peak_memory,
    reset_peak_memory,
)
from iart.device import PRECISIONS, autocast, pick_precision
from iart.errors import IARTError
from iart.model.kernels.dispatch import BACKENDS
from iart.runtime import keep_freed_memory

sys.path.append(str(Path(__file__).resolve().parents[2]))
from tests.model.formula import with_formula_weights

SIZES = {"light": (8, 90, 160), "full": (5, 96, 128)}
# Without checkpointing the plain path keeps every matrix of attention: gigabytes.
TRAINING_SIZE = (3, 32, 32)
NAMES = ("plain", "ours")


@dataclass
class Measured:
    """One of the two."""

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    """Most that was held during a pass: on the CPU by the whole process."""


@dataclass(frozen=True)
class Comparison:
    """Both, and how far they are apart."""

    model: str
    frames: int
    height: int
    width: int
    device: str
    threads: int
    precision: str
    train: bool
    checkpointing: bool
    operations: float
    matmul_rate: float
    plain: Measured
    ours: Measured
    max_difference: float
    """Of the outputs, RGB in [0, 1]."""
    psnr: float
    gradient_difference: float | None
    """‖ours − plain‖ / ‖plain‖ of the gradient of all position biases."""

    @property
    def ratio(self) -> float:
        """How many times faster ours is, the median of the pairs."""
        pairs = zip(self.plain.seconds, self.ours.seconds, strict=True)
        return statistics.median(plain / ours for plain, ours in pairs)

    def share(self, measured: Measured) -> float:
        """Of the matmul rate."""
        return self.operations / min(measured.seconds) / self.matmul_rate


def one_pass(
    model: nn.Module, clip: Tensor, target: Tensor | None, dtype: torch.dtype, *, recompute: bool
) -> Float[Tensor, "1 t 3 h w"]:
    """Forward, with a target backward too."""
    with autocast(clip.device, dtype):
        if target is None:
            with torch.inference_mode():
                return model(clip)
        out = model(clip, recompute=recompute)
    ((out.float() - target).square() + 1e-12).sqrt().mean().backward()
    return out.detach()


def return_freed_memory() -> None:
    """To the system, so that one path's peak does not count what the other has left behind."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
        if trim is not None:
            trim(0)


def position_bias_gradient(model: nn.Module) -> Float[Tensor, " all"]:
    """Of every attention, in one row."""
    named = model.named_parameters()
    gradients = [p.grad for name, p in named if name.endswith("attention.position_bias")]
    return torch.cat([cast("Tensor", gradient).flatten() for gradient in gradients])


def compare(
    name: str,
    size: Sequence[int],
    *,
    repeats: int,
    train: bool = False,
    checkpointing: bool = False,
    device: str = "cpu",
    precision: str = "float32",
    backend: str = "native",
) -> Comparison:
    """Measure both; `size` is frames, height, width."""
    ours = load_network(name, device, backend=backend)
    if name == "full":
        ours = with_formula_weights(ours)
    check_memory(ours, *size)
    plain = PlainIART(ours.config)
    plain.load_state_dict(ours.state_dict())
    models: dict[str, nn.Module] = {"plain": plain, "ours": ours}
    where = ours.extract.weight.device
    dtype = pick_precision(precision, where)
    clip = made_clip(*size).to(where)
    target = torch.rand(*clip.shape[:3], 4 * size[1], 4 * size[2], device=where) if train else None
    for model in models.values():
        model.to(where).requires_grad_(train)

    measured = {path: Measured() for path in NAMES}
    for path, model in models.items():
        return_freed_memory()
        reset_peak_memory(where)
        one_pass(model, clip, target, dtype, recompute=checkpointing)
        measured[path].peak_bytes = peak_memory(where)
        model.zero_grad()
    rate = matmul_rate(where, dtype)
    outputs: dict[str, Tensor] = {}
    for i in range(repeats):
        for path in NAMES if i % 2 else NAMES[::-1]:
            model = models[path]
            model.zero_grad()
            started = now(where)
            out = one_pass(model, clip, target, dtype, recompute=checkpointing)
            seconds = now(where) - started
            measured[path].seconds.append(seconds)
            outputs[path] = out.float().cpu()
            del out
            print(f"{path}: {seconds:.3f} s", file=sys.stderr, flush=True)
        rate = max(rate, matmul_rate(where, dtype))

    difference = outputs["ours"] - outputs["plain"]
    gradient_difference = None
    if train:
        ours_gradient, plain_gradient = map(position_bias_gradient, (ours, plain))
        apart = (ours_gradient - plain_gradient).norm() / plain_gradient.norm()
        gradient_difference = float(apart)
    return Comparison(
        name,
        *size,
        device=str(where),
        threads=torch.get_num_threads(),
        precision=precision,
        train=train,
        checkpointing=checkpointing,
        operations=(3 if train else 1) * sum(count_operations(ours.config, *size).values()),
        matmul_rate=rate,
        plain=measured["plain"],
        ours=measured["ours"],
        max_difference=float(difference.abs().max()),
        psnr=float(-10 * difference.square().mean().clamp(min=1e-12).log10()),
        gradient_difference=gradient_difference,
    )


def table(c: Comparison) -> str:
    """For people."""
    what = "forward"
    if c.train:
        what = f"forward + backward, checkpointing {'on' if c.checkpointing else 'off'}"
    lines = [
        f"{c.model}, {c.frames} frames of {c.width}x{c.height}, {what}; {c.precision} on "
        f"{c.device}, {c.threads} threads; matmul {c.matmul_rate / 1e9:.0f} GFLOP/s",
        f"{'':<6}{'seconds':>10}{'of matmul':>11}{'peak MB':>9}",
    ]
    lines += [
        f"{name:<6}{statistics.median(m.seconds):>10.3f}{c.share(m):>11.1%}"
        f"{m.peak_bytes / 1e6:>9.0f}"
        for name, m in (("plain", c.plain), ("ours", c.ours))
    ]
    lines.append(
        f"ours is {c.ratio:.2f} times as fast ({len(c.ours.seconds)} pairs); outputs differ by "
        f"{c.max_difference:.1e} at most, {c.psnr:.1f} dB"
    )
    if c.gradient_difference is not None:
        lines.append(f"gradient of the position biases differs by {c.gradient_difference:.1e}")
    return "\n".join(lines)


def at_least_one(text: str) -> int:
    """For the command line.

    Raises:
        argparse.ArgumentTypeError: the number is none, or below 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got '{text}'")
    return int(text)


def main() -> None:
    """Read the command line, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="full", help="full, light or a file")
    for side in ("frames", "height", "width"):
        parser.add_argument(f"--{side}", type=at_least_one)
    parser.add_argument("--repeats", type=at_least_one, default=2)
    parser.add_argument("--train", action="store_true", help="forward and backward")
    parser.add_argument("--checkpointing", action="store_true", help="recompute, with --train")
    parser.add_argument("--backend", choices=BACKENDS, default=BACKENDS[0], help="of ours")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.json and not args.json.parent.is_dir():
        parser.error(f"there is no folder '{args.json.parent}' for --json")
    if args.checkpointing and not args.train:
        parser.error("--checkpointing goes with --train")
    keep_freed_memory()  # as the command does
    convolutions = getattr(torch.backends.cudnn, "conv", None)  # torch 2.9 and later
    if convolutions is not None:
        convolutions.fp32_precision = "ieee"
    asked = (args.frames, args.height, args.width)
    usual = TRAINING_SIZE if args.train else SIZES.get(args.model, SIZES["full"])
    size = [
        usual_side if side is None else side for side, usual_side in zip(asked, usual, strict=True)
    ]
    try:
        comparison = compare(
            args.model,
            size,
            repeats=args.repeats,
            train=args.train,
            checkpointing=args.checkpointing,
            device=args.device,
            precision=args.precision,
            backend=args.backend,
        )
    except IARTError as error:
        parser.error(str(error))
    print(table(comparison))
    if args.json:
        derived = {
            "ratio": comparison.ratio,
            "shares": {n: comparison.share(getattr(comparison, n)) for n in NAMES},
        }
        args.json.write_text(json.dumps({**asdict(comparison), **derived}), encoding="utf-8")


if __name__ == "__main__":
    main()
