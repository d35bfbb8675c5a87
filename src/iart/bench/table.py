"""A measured pass as a table for people, and as JSON for programs."""

import json
from dataclasses import asdict

from iart.bench.measure import BenchResult

DERIVED = ("operations", "frames_per_second", "matmul_share", "peak_bytes")


def format_result(result: BenchResult) -> str:
    """A table for people: per stage milliseconds, operations, share of the matmul rate, memory."""
    model = f"{result.model}, " if result.model else ""
    title = (
        f"{model}{result.frames} frames of {result.width}x{result.height} on {result.device} in "
        f"{result.precision}, {result.threads} threads, backend {result.backend}"
    )
    lines = [title, f"{'stage':<9}{'ms':>9}{'GFLOP':>9}{'of matmul':>11}{'peak MB':>9}"]
    rows = [(s.name, s.seconds, s.operations, s.matmul_share, s.peak_bytes) for s in result.stages]
    whole = result.seconds, result.operations, result.matmul_share, result.peak_bytes
    rows.append(("all", *whole))
    for name, seconds, operations, share, peak in rows:
        lines.append(
            f"{name:<9}{seconds * 1e3:>9.1f}{operations / 1e9:>9.2f}"
            f"{share:>11.1%}{peak / 1e6:>9.0f}"
        )
    per_pixel = result.operations / (result.frames * result.height * result.width)
    lines.append(
        f"{result.frames_per_second:.2f} frames/s, {per_pixel / 1e6:.2f} MFLOP per input pixel"
    )
    rates = (f"{name} {rate / 1e9:.0f}" for name, rate in result.matmul_rates.items())
    lines.append(f"matmul in GFLOP/s: {', '.join(rates)}")
    if result.psnr is not None:
        lines.append(f"{result.psnr:.1f} dB against the output of float32")
    return "\n".join(lines)


def to_json(result: BenchResult) -> str:
    """The same for programs; seconds, operations and bytes."""
    stages = [{**asdict(s), "matmul_share": s.matmul_share} for s in result.stages]
    derived = {name: getattr(result, name) for name in DERIVED}
    return json.dumps({**asdict(result), "stages": stages, **derived})
