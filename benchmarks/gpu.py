"""All that a GPU is measured by, in one run of some minutes: `make gpu`.

    python benchmarks/gpu.py [--device cuda] [--output benchmarks/gpu] [--quick]

writes OUTPUT.md, a Markdown table, and OUTPUT.json. It needs this checkout and its packages, and
no data. Rows are golden vectors and the tests of kernels and graphs on the device; flow in several
ways (milliseconds a frame, both directions; errors in pixels against float64); speed of the
network (share of the rate of matrix products, and of memory bandwidth), against the plain path, and
with and without CUDA graphs; a made film through `upscale_video`, stage by stage; steps of
training, and samples for it; and whether two processes on one device give the bytes of one. What
fails is a row too, and the exit status is 1 then. `--quick` makes every row small: that is how the
script is tested on a CPU (`--device cpu --quick`).
"""

import argparse
import contextlib
import copy
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import numpy as np
import torch

import iart
from iart.bench.measure import load_network, made_clip, measure, now
from iart.data.clips import load_scenes
from iart.data.loader import Loader
from iart.data.scenes import SceneSet
from iart.device import PRECISIONS, pick_device, pick_precision
from iart.errors import DeviceError, OutputError
from iart.model import IART
from iart.model.flow import SpyNet
from iart.model.kernels import dispatch
from iart.model.kernels.dispatch import BACKENDS, backend_in_use, usable_backend
from iart.pictures import color
from iart.runtime import keep_freed_memory
from iart.train.measure import step_cost
from iart.train.options.data import SceneOptions
from iart.train.options.read import read_options
from iart.upscaling.budget import Tiling, network_bytes
from iart.upscaling.enlarge import Enlarger
from iart.upscaling.film.conform import Conform
from iart.upscaling.film.run import upscale_video
from iart.upscaling.graphs import WindowGraphs
from iart.upscaling.windows import OVERLAP
from iart.video.read import reader
from iart.video.write.encoder import Encode, Encoder

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT), str(ROOT / "benchmarks" / "speed")]

from compare import (  # noqa: E402  # pyright: ignore[reportMissingImports]  # speed/
    compare,
)
from operations import count  # noqa: E402
from stopwatch import Stopwatch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from tests.model.formula import smooth_input, with_formula_weights  # noqa: E402
from tests.model.test_goldens import GOLDEN, TINY  # noqa: E402

RATE = Fraction(25)
STAGES = ("decode", "upload", "to RGB", "network", "resample", "to planes", "download", "encode")


@dataclass(frozen=True)
class Sizes:
    """How large the rows are: frames, height, width, and what else there is."""

    full: tuple[int, int, int] = (10, 180, 320)
    light: tuple[int, int, int] = (16, 480, 720)
    plain: tuple[int, int, int] = (3, 180, 320)
    film: tuple[int, int, int] = (300, 480, 720)
    film_to: str = "1080p"
    shared_film: tuple[int, int, int] = (120, 120, 160)
    clips: int = 6
    clip_frames: int = 7
    clip_side: int = 48
    sample_batches: int = 40
    sample_side: int = 128
    copied_bytes: int = 2**30
    tests: tuple[str, ...] = ()


QUICK = Sizes(
    full=(1, 8, 8),
    light=(2, 24, 32),
    plain=(1, 8, 8),
    film=(6, 48, 64),
    film_to="2x",
    shared_film=(60, 16, 24),
    clips=1,
    clip_frames=2,
    clip_side=8,
    sample_batches=2,
    sample_side=32,
    copied_bytes=2**24,
    tests=("-k", "warp or attend_without or trial_tells"),
)


@dataclass
class Report:
    """Rows of the table: a section, what was measured, and the figures."""

    device: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, section: str, what: str, **figures: Any) -> None:
        """One more row."""
        self.rows.append({"section": section, "what": what, **figures})
        shown = ", ".join(f"{name} {_shown(value)}" for name, value in figures.items())
        print(f"{section}: {what}: {shown}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def part(self, section: str, what: str) -> Iterator[None]:
        """What goes wrong in the block becomes a row; the rest is measured all the same."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # of drivers, compilers: any class
            traceback.print_exc()
            words = str(error).strip().splitlines() or [""]
            self.add(section, what, failed=f"{type(error).__name__}: {words[0]}")

    @property
    def failures(self) -> int:
        """Rows that failed."""
        return sum("failed" in row for row in self.rows)

    def markdown(self) -> str:
        """One table."""
        lines = ["| section | what | figures |", "| --- | --- | --- |"]
        for row in self.rows:
            figures = [f"{k} {_shown(v)}" for k, v in row.items() if k not in ("section", "what")]
            cells = (row["section"], row["what"], ", ".join(figures))
            lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
        return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# ---- correctness


def goldens(report: Report, device: torch.device) -> None:
    """Outputs of the published network in float32: a few pixels near jumps of flow may differ."""
    with np.load(GOLDEN / "network_goldens.npz") as file:
        stored = {name: torch.from_numpy(file[name]) for name in file.files}
    for backend in dict.fromkeys(usable_backend(name, device) for name in BACKENDS):
        model = with_formula_weights(IART(TINY)).to(device)
        model.backend = backend
        for shape in ((2, 5, 64, 64), (1, 4, 70, 82)):
            b, t, h, w = shape
            what = f"{backend}, {t} frames of {w}x{h}, float32"
            with report.part("goldens", what), torch.inference_mode():
                frames = smooth_input("iart.lq", (b, t, 3, h, w), clamp=True)
                out = model(frames.to(device)).cpu()[..., ::5, ::7]
                error = (out - stored[f"iart_tiny.{b}x{t}x{h}x{w}"]).abs().flatten()
                middle, high = (error.quantile(q).item() for q in (0.5, 0.999))
                figures = {"median": middle, "p99.9": high, "largest": error.max().item()}
                if not middle <= 1e-4:
                    figures["failed"] = "half of the values are off by more than 1e-4"
                report.add("goldens", what, **figures)


def tests(report: Report, device: torch.device, sizes: Sizes) -> None:
    """The tests of kernels, graphs and golden vectors, by pytest."""
    files = [
        f"tests/model/{name}.py"
        for name in ("test_goldens", "test_gpu_kernels", "test_gpu_flow", "test_gpu_gradients")
    ]
    files += ["tests/upscaling/test_graphs.py", "tests/train/test_captured.py"]
    files += ["tests/data/test_batches.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    environment = dict(os.environ)
    if device.type == "cuda":
        environment["FAIL_WITHOUT_CUDA"] = "1"
    run = subprocess.run(
        [*command, *sizes.tests], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    words = (run.stdout.strip().splitlines() or [run.stderr[-200:]])[-1]
    failed = {"failed": f"exit status {run.returncode}"} if run.returncode else {}
    report.add("tests", "kernels, graphs and golden vectors", result=words.strip("= "), **failed)
    if run.returncode:
        print(run.stdout[-5000:], file=sys.stderr)


# ---- the network


def copy_rate(device: torch.device, size: int) -> float:
    """Bytes per second that a copy in the device's memory reads and writes, the best of 5."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(5):
        started = now(device)
        target.copy_(source)
        seconds.append(now(device) - started)
    return 2 * size / min(seconds)


def speed(report: Report, device: torch.device, sizes: Sizes) -> None:
    """Precisions and backends, each stage by itself."""
    rate = copy_rate(device, sizes.copied_bytes)
    report.add("machine", "memory", **{"GB/s copied": rate / 1e9})
    for name, size in (("full", sizes.full), ("light", sizes.light)):
        frames, height, width = size
        for precision, asked in product(PRECISIONS, BACKENDS):
            try:
                pick_precision(precision, device)
            except DeviceError:
                continue
            if usable_backend(asked, device) != asked:
                continue
            what = f"{name}, {frames} frames of {width}x{height}, {precision}, {asked}"
            with report.part("network", what):
                model = load_network(name, str(device), precision, asked)
                found = measure(model, *size, repeats=2, name=name)
                without_flow = found.seconds - next(
                    stage.seconds for stage in found.stages if stage.name == "flow"
                )
                share = {}
                used = backend_in_use(asked, device, PRECISIONS[precision])
                if used != "native":  # C++ on the CPU, whose bytes nothing counts
                    moved = count(model.config, *size, backend=used).bytes.total()
                    moved *= PRECISIONS[precision].itemsize / torch.float32.itemsize
                    share["of memory"] = moved / without_flow / rate
                report.add(
                    "network",
                    what,
                    **{"frames/s": found.frames_per_second},
                    **{f"{stage.name} ms": 1e3 * stage.seconds for stage in found.stages},
                    **{"of matmul": found.matmul_share},
                    **share,
                    **{"peak MB": found.peak_bytes / 1e6},
                    **({} if found.psnr is None else {"dB against float32": found.psnr}),
                )


class Tripled(nn.Module):
    """A convolution as one of TF32 over three times the channels: high, low and high once more.

    Low·low is left out, 2^-22 of it. How well the GPU sums up is up to cuDNN.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        (high, low), self.bias = _in_tf32(conv.weight.detach()), conv.bias
        self.weight = torch.cat((high, high, low), dim=1).to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """See above."""
        high, low = _in_tf32(x)
        return torch.conv2d(torch.cat((high, low, high), 1), self.weight, self.bias, padding=3)


def _in_tf32(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rounded to 10 bits after the point, and what is left."""
    high = ((x.view(torch.int32) + 2**12) & -(2**13)).view(torch.float32)
    return high, x - high


def flow(report: Report, device: torch.device, sizes: Sizes) -> None:
    """Ways to compute it: PyTorch's convolutions in float32, and what multiplies less exactly."""
    for name, size in (("full", sizes.full), ("light", sizes.light)):
        (frames, height, width) = size = max(2, size[0]), *size[1:]
        clip = made_clip(*size)[0].to(device)
        spynet = load_network(name, str(device)).flow
        exact = copy.deepcopy(spynet).double()(clip[:1], clip[1:2])
        for way in FLOWS:
            what = f"{name}, {frames} frames of {width}x{height}, {way}"
            with report.part("flow", what), torch.inference_mode(), _flow_scope(way, device):
                if way == "kernel" and (
                    device.type != "cuda" or usable_backend("triton", device) != "triton"
                ):
                    report.add("flow", what, **{"ms a frame": "n/a"})
                    continue
                net = _flow_network(spynet, way)

                def both(net: SpyNet = net, clip: Tensor = clip) -> None:
                    net(clip[:-1], clip[1:])
                    net(clip[1:], clip[:-1])

                seconds = _best(both, device)[0]
                error = (net(clip[:1], clip[1:2]) - exact).abs().flatten()
                report.add(
                    "flow",
                    what,
                    **{"ms a frame": 1e3 * seconds / len(clip)},
                    **{"mean error": error.mean().item(), "largest": error.max().item()},
                )
        if device.type == "cuda":
            suits = torch.cuda.get_device_capability(device) in dispatch.OF_TRAINING
            report.add("flow", f"{name}, what the triton backend takes", kernel=str(suits).lower())


FLOWS = ("float32", "channels last", "benchmarked", "benchmarked, channels last", "TF32", "kernel")


def _flow_network(spynet: SpyNet, way: str) -> SpyNet:
    """A copy that computes this way, in the scope that belongs to it."""
    net = copy.deepcopy(spynet)
    net.backend = "triton" if way == "kernel" else "torch"
    if "channels last" in way:
        net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if way == "TF32":
        for level in net.levels:
            for i, layer in enumerate(level.children()):
                if isinstance(layer, nn.Conv2d):
                    level[i] = Tripled(layer)  # pyright: ignore[reportIndexIssue]
    return net


@contextlib.contextmanager
def _flow_scope(way: str, device: torch.device) -> Iterator[None]:
    cudnn, module = torch.backends.cudnn, sys.modules[SpyNet.__module__]
    with contextlib.ExitStack() as scope:
        if "benchmarked" in way:
            scope.callback(setattr, cudnn, "benchmark", cudnn.benchmark)
            cudnn.benchmark = True  # pyright: ignore[reportAttributeAccessIssue]
        if way == "TF32":  # which PyTorch lets convolutions take, unless told otherwise
            scope.enter_context(patch.object(module, "exact_convolutions", contextlib.nullcontext))
        if way == "kernel" and device.type == "cuda":  # whatever the rule says of this card
            suits = (torch.cuda.get_device_capability(device),)
            scope.enter_context(patch.object(dispatch, "OF_TRAINING", suits))
        yield


def against_plain(report: Report, device: torch.device, sizes: Sizes) -> None:
    """How many times faster than the formulas as they are published."""
    wide = "float32"
    half = next(p for p in ("float16", "bfloat16") if p == "bfloat16" or device.type == "cuda")
    for precision in (wide, half):
        what = f"full, {sizes.plain[0]} frames, {precision}"
        with report.part("plain path", what):
            found = compare(
                "full",
                sizes.plain,
                repeats=2,
                device=str(device),
                precision=precision,
                backend=usable_backend("auto", device),
            )
            report.add(
                "plain path",
                what,
                ratio=found.ratio,
                **{"plain s": min(found.plain.seconds), "ours s": min(found.ours.seconds)},
                dB=found.psnr,
            )


def graphs(report: Report, device: torch.device, sizes: Sizes) -> None:
    """A window that follows another, replayed as a CUDA graph and not: the numbers are the same."""
    for name, size in (("full", sizes.full), ("light", sizes.light)):
        frames, height, width = size
        what = f"{name}, {frames} frames of {width}x{height}"
        with report.part("graphs", what), torch.inference_mode():
            model, windows = load_network(name, str(device)), WindowGraphs()
            clip, kept = made_clip(*size).to(device), slice(0, max(1, frames - OVERLAP))
            needed = network_bytes(model, Tiling(frames, 0, None), height, width)
            state = model.advance(clip, {}, kept=kept)[1]

            def plain(
                model: IART = model, clip: Any = clip, state: Any = state, kept: slice = kept
            ) -> Any:
                return model.advance(clip, state, kept=kept)

            def replayed(
                model: IART = model,
                windows: WindowGraphs = windows,
                args: Any = (clip, state, kept, needed),
            ) -> Any:
                return windows.advance(model, *args)

            eager, expected = _best(plain, device)
            figures: dict[str, Any] = {"ms eagerly": 1e3 * eager, "ms replayed": "n/a"}
            if device.type == "cuda":
                started = now(device)
                replayed()
                replayed()  # recorded
                figures["ms to record"] = 1e3 * (now(device) - started - eager)
                seconds, found = _best(replayed, device)
                both = (torch.equal(found[0], expected[0]), *_equal(found[1], expected[1]))
                figures |= {"ms replayed": 1e3 * seconds, "equal": str(all(both)).lower()}
                figures["reserved MB"] = torch.cuda.memory_reserved(device) / 1e6
                if not windows.count:
                    figures["failed"] = "nothing was recorded"
                elif not all(both):
                    figures["failed"] = "a replay gives other numbers"
            report.add("graphs", f"{what}, {model.precision}, {model.backend}", **figures)


def _best(function: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds of the fastest of 3 calls after one, and what the last one gave."""
    result, seconds = function(), []
    for _ in range(3):
        started = now(device)
        result = function()
        seconds.append(now(device) - started)
    return min(seconds), result


def _equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> Iterator[bool]:
    yield a.keys() == b.keys()
    for name, x in a.items():
        yield torch.equal(x, b[name])


# ---- a film


def write_film(path: Path, frames: int, height: int, width: int) -> None:
    """A pan with a cut in its middle, as MPEG-2, like a DVD's."""
    clip = (255 * made_clip(frames, height, width)[0]).byte()
    clip[frames // 2 :] = 255 - clip[frames // 2 :]
    with av.open(path, "w") as output:
        stream = output.add_stream("mpeg2video", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 6_000_000
        for rgb in clip:
            picture = av.VideoFrame.from_ndarray(
                rgb.permute(1, 2, 0).contiguous().numpy(), format="rgb24"
            )
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))


def film(report: Report, device: torch.device, sizes: Sizes) -> None:
    """`upscale_video` with each encoder, and where its time goes."""
    frames, height, width = sizes.film
    model = iart.load_model("light", device)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.mkv"
        write_film(source, *sizes.film)
        for codec, preset in (("x264", "veryfast"), ("nvenc-h264", None)):
            what = f"light, {width}x{height} to {sizes.film_to}, {frames} frames, {codec}"
            with report.part("upscale", what):
                watch = Stopwatch(device)
                with contextlib.ExitStack() as scope:
                    for place in (
                        watch.watching_items(reader, "treated", "decode"),
                        watch.watching(color, "upload", "upload"),
                        watch.watching(reader.Finish, "__call__", "to RGB"),
                        watch.watching(Enlarger, "enlarge", "network"),
                        watch.watching(Conform, "after", "resample"),
                        watch.watching(Encode, "picture", "to planes"),
                        watch.watching(color, "download", "download"),
                        watch.watching(Encoder, "encode", "encode"),
                    ):
                        scope.enter_context(place)
                    output = Path(folder) / f"{codec}.mkv"
                    started = time.perf_counter()
                    try:
                        upscale_video(
                            source, output, model, size=sizes.film_to, codec=codec, preset=preset
                        )
                    except OutputError as error:
                        if codec == "x264":
                            raise
                        report.add("upscale", what, skipped=str(error))
                        continue
                    seconds = time.perf_counter() - started
                report.add(
                    "upscale",
                    what,
                    **{"frames/s": frames / seconds},
                    **_stages(watch.seconds, "", frames),
                    # The network's thread, of the whole time: for frames, and for room behind it.
                    waiting=1 - watch.seconds["network"] / seconds,
                    **_stages(watch.on_device(), " on the card", frames),
                )


def _stages(seconds: dict[str, float], suffix: str, frames: int) -> dict[str, float]:
    """Milliseconds per frame; conversions without the copies inside them."""
    own = dict(seconds)
    for outer, inner in (("to RGB", "upload"), ("to planes", "download")):
        if outer in own:
            own[outer] -= own.get(inner, 0.0)
    return {f"{name}{suffix} ms": 1e3 * own[name] / frames for name in STAGES if name in seconds}


def two_processes(report: Report, device: torch.device, sizes: Sizes) -> None:
    """Two processes on one device write the bytes of one."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.mkv"
        write_film(source, *sizes.shared_film)
        made = []
        where = "cuda:0" if device.type == "cuda" else str(device)
        for devices in (where, f"{where},{where}"):
            output = Path(folder) / f"{len(made)}.mkv"
            command = [sys.executable, "-m", "iart", "upscale", source, "-o", output, "--quiet"]
            command += ["--model", "light", "--devices", devices]
            started = time.perf_counter()
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                raise RuntimeError(run.stderr.strip().splitlines()[-1])
            made.append((output.read_bytes(), time.perf_counter() - started))
        equal = made[0][0] == made[1][0]
        report.add(
            "processes",
            f"--devices {where},{where}",
            **{"s of one": made[0][1], "s of two": made[1][1], "bytes equal": str(equal).lower()},
            **({} if equal else {"failed": "two processes give other bytes than one"}),
        )


# ---- training


def training(report: Report, device: torch.device, sizes: Sizes) -> None:
    """Steps of the optimiser on samples of noise, one operation at a time and as CUDA graphs."""
    base = "embed_dim=64 mid_channels=64 head_channels=64 depths=[2,2] num_heads=[4,4] branches=4"
    full = "embed_dim=120 mid_channels=64 head_channels=64 depths=[6,6,6] num_heads=[6,6,6]"
    wide = " window_size=[3,8,8] branches=4 flow_levels=6 flow_channels=[32,64,32,16]"
    precision = torch.float32 if device.type == "cpu" else torch.bfloat16
    frames, side = sizes.clip_frames, sizes.clip_side
    for (name, network, clips), captured in product(
        (("light", "", sizes.clips), ("base", base, sizes.clips), ("full", full + wide, 1)),
        (False, True),
    ):
        how = "graph" if captured else "eager"
        what = f"{name}, {clips} clips of {frames} frames of {side}x{side}, {how}"
        if captured and device.type == "cpu":
            report.add("training", what, **{"s a step": "n/a"})
            continue
        with report.part("training", what):
            overrides = [f"network_g.{word}" for word in network.split()]
            overrides += [f"datasets.train.batch_size_per_gpu={clips}", "train.flow.size=64"]
            options = read_options(Path("IART_light.yml"), tuple(overrides))
            cost = step_cost(options, device, precision, frames, side, captured=captured)
            figures: dict[str, Any] = {"s a step": cost.seconds, "peak MB": cost.memory / 1e6}
            if captured and not cost.replayed:
                figures["failed"] = "nothing was recorded"
            report.add("training", what, **figures)


def samples(report: Report, device: torch.device, sizes: Sizes) -> None:
    """Batches of scenes, computed by the loader's threads and by the device: the same ones.

    Processor time is that of the whole process: threads, and the loop that asks the device.
    """
    options = read_options(Path("IART_light.yml")).datasets.train
    assert isinstance(options, SceneOptions)
    with resources.as_file(resources.files("iart") / "assets" / "demo.mp4") as clip:
        scenes = load_scenes(clip.parent, include=(clip.name,))
    training_set = SceneSet(
        scenes,
        num_frame=options.num_frame,
        gt_size=sizes.sample_side,
        reduce=options.reduce,
        still_share=options.still_share,
    )
    size, count = options.batch_size_per_gpu, sizes.sample_batches
    workers = min(os.cpu_count() or 1, 8)
    made: list[list[torch.Tensor]] = []
    for on_device in (False, True):
        who = "the device" if on_device else f"{workers} threads"
        what = f"{size} of {options.num_frame} frames of {sizes.sample_side} pixels, made by {who}"
        with (
            report.part("samples", what),
            Loader(
                training_set, batch_size=size, seed=0, workers=workers, device=device,
                on_device=on_device,
            ) as loader,
        ):  # fmt: skip
            batches = iter(loader)
            warm = [next(batches).gt for _ in range(2)]  # and the threads' lead
            made.append([gt.cpu() for gt in warm])
            started, busy = now(device), time.process_time()
            for _ in range(count):
                next(batches)
            seconds, busy = now(device) - started, time.process_time() - busy
            figures: dict[str, Any] = {
                "samples/s": size * count / seconds,
                "ms of processor a sample": 1e3 * busy / (size * count),
            }
            if on_device:
                off = max(float((a - b).abs().max()) for a, b in zip(*made, strict=True))
                figures["levels off at most"] = round(255 * off)
                if 255 * off > 1.01:
                    figures["failed"] = "the device makes other samples"
            report.add("samples", what, **figures)


PARTS: tuple[tuple[str, Callable[[Report, torch.device, Sizes], None]], ...] = (
    ("goldens", lambda report, device, _: goldens(report, device)),
    ("tests", tests),
    ("flow", flow),
    ("network", speed),
    ("plain path", against_plain),
    ("graphs", graphs),
    ("upscale", film),
    ("processes", two_processes),
    ("training", training),
    ("samples", samples),
)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small rows, to try the script")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "gpu")
    args = parser.parse_args()
    if not args.output.parent.is_dir():
        parser.error(f"there is no folder '{args.output.parent}' for --output")
    try:
        device = pick_device(args.device)
    except DeviceError as error:
        parser.error(str(error))
    sizes = QUICK if args.quick else Sizes()
    keep_freed_memory()  # as the command does
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    report, began = Report(named), time.perf_counter()
    report.add(
        "machine", named, cores=os.cpu_count(), torch=torch.__version__, sizes=str(asdict(sizes))
    )
    for name, part in PARTS:
        started = time.perf_counter()
        with report.part(name, "all"):
            part(report, device, sizes)
        print(f"{name} took {time.perf_counter() - started:.1f} s", file=sys.stderr)
    report.add("machine", "this run", seconds=time.perf_counter() - began)
    args.output.with_suffix(".md").write_text(report.markdown(), encoding="utf-8")
    args.output.with_suffix(".json").write_text(json.dumps(report.rows, indent=1), encoding="utf-8")
    print(report.markdown())
    sys.exit(1 if report.failures else 0)


if __name__ == "__main__":
    main()
