"""How much of the encoder's own rate is left when a film is read, converted and written around it.

    python benchmarks/pipeline.py                                   # what a user gets
    python benchmarks/pipeline.py --codec x264 --preset veryfast
    python benchmarks/pipeline.py --codec ffv1 --repeats 3

The source is a made DVD: progressive MPEG-2 of 720x576 in MKV. `upscale_video` makes a film of
1080p of it, with all that it does by default, and swscale's bicubic in the place of the network. In
the same run, the same encoder is given the same pictures from memory, and writes the same kind of
file. Printed are both rates, the pipeline's over the encoder's, and processor time per frame.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from statistics import median

import av
import numpy as np
import torch
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import Float
from torch import Tensor, nn

from iart.pictures.color import from_rgb
from iart.runtime import keep_freed_memory
from iart.upscaling.film.plan import UpscalePlan, plan_upscale
from iart.upscaling.film.request import UpscaleRequest
from iart.upscaling.film.run import upscale_video
from iart.video.write.encoder import add_video
from iart.video.write.film import EncodingOptions, FilmPlan

WIDTH, HEIGHT, RATE = 720, 576, 25
SCENE = 100


class Bicubic(nn.Module):
    """swscale's bicubic to 1080p, in the place of a network."""

    def __init__(self) -> None:
        super().__init__()
        self._scaler = VideoReformatter()

    def forward(self, frames: Float[Tensor, "1 t 3 h w"]) -> Float[Tensor, "1 t 3 1080 1920"]:
        """Each frame on its own, in float32; the size wanted, so that nothing is resized after."""
        large = torch.empty(1, frames.shape[1], 3, 1080, 1920)
        for small, target in zip(frames[0], large[0], strict=True):
            _, height, width = small.shape
            picture = av.VideoFrame(width, height, "gbrpf32le")
            for plane, values in zip(picture.planes, small[[1, 2, 0]], strict=True):
                rows(plane)[:] = values.numpy()
            picture = self._scaler.reformat(
                picture, 1920, 1080, interpolation=Interpolation.BICUBIC, threads=1
            )
            for plane, channel in zip(picture.planes, (1, 2, 0), strict=True):
                target[channel] = torch.from_numpy(rows(plane))
        return large


def rows(plane: VideoPlane) -> np.ndarray:
    """A plane's own memory, without the padding at line ends."""
    whole = np.frombuffer(memoryview(plane), np.float32).reshape(plane.height, -1)
    return whole[:, : plane.width]


def write_source(path: Path, frames: int) -> None:
    """A landscape that pans, with grain, a sprite that crosses it, and a cut now and then."""
    random = np.random.default_rng(5)
    with av.open(path, "w") as output:
        stream = output.add_stream("mpeg2video", rate=RATE, options={"b": "6M", "bf": "2"})
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        context.sample_aspect_ratio = Fraction(64, 45)
        context.color_primaries, context.color_trc, context.colorspace = 5, 6, 5
        context.color_range = 1
        scenes = [landscape(random, 2 * WIDTH) for _ in range(-(-frames // SCENE))]
        for index in range(frames):
            scene, sprite = scenes[index // SCENE], scenes[0][:100, -100:]
            pan, x = 3 * (index % SCENE), 5 * (index % SCENE)
            picture = scene[:, pan : pan + WIDTH].copy()
            picture[200:300, x : x + 100] = sprite
            picture += random.normal(0, 3, picture.shape[:2])[..., None]
            rgb = picture.clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def landscape(random: np.random.Generator, width: int) -> np.ndarray:
    """Noise with as much of every size of detail as photographs have; HEIGHT, width, 3; 0-255."""
    noise = np.fft.rfft2(random.normal(size=(HEIGHT, width, 3)), axes=(0, 1))
    down, right = np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(width)[None]
    size = np.maximum(np.hypot(down, right), 1 / width)
    scene = np.fft.irfft2(noise / size[..., None] ** 1.2, s=(HEIGHT, width), axes=(0, 1))
    return 128 + 45 * (scene / scene.std())


class Clock:
    """Wall and processor time of this process, in seconds, since it was made."""

    def __init__(self) -> None:
        self._wall, self._own = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Wall, processor."""
        return time.perf_counter() - self._wall, time.process_time() - self._own


def encoder_alone(plan: FilmPlan, pictures: list[av.VideoFrame], path: Path) -> None:
    """Encode pictures from memory."""
    encode = plan.encode
    with av.open(path, "w", format=encode.encoding.container.muxer) as output:
        stream = add_video(output, encode.encoding, encode.shape)
        for picture in pictures:
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))


def finished(plan: UpscalePlan) -> Iterator[av.VideoFrame]:
    """The pictures that the pipeline gives its encoder."""
    assert isinstance(plan.target, FilmPlan)
    encode, network = plan.target.encode, Bicubic()
    timeline = encode.timeline()
    for frame in plan.conform.before(plan.reader):
        large = network(frame.data[None, None])[0, 0].clamp_(0, 1)
        picture = from_rgb(large, encode.encoding.pixel_format, encode.source_color)
        picture.pts, picture.time_base = timeline.place(frame).pts, encode.shape.time_base
        yield picture


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The pipeline against its encoder.")
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--codec")
    parser.add_argument("--preset")
    parser.add_argument("--pixel-format")
    parser.add_argument("--container", default="mkv")
    arguments = parser.parse_args()
    keep_freed_memory()  # as the command does
    encoding = EncodingOptions(
        codec=arguments.codec, preset=arguments.preset, pixel_format=arguments.pixel_format
    )
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.mkv"
        output = Path(folder) / f"output.{arguments.container}"
        write_source(source, arguments.frames)
        with plan_upscale(UpscaleRequest(source, output, size="1080p", **encoding)) as planned:
            pictures, plan = list(finished(planned)), planned.target
        assert isinstance(plan, FilmPlan)
        chosen = plan.encode.encoding
        shown = " ".join(f"{name}={value}" for name, value in chosen.options.items())
        print(f"{len(pictures)} frames, {os.cpu_count()} cores")
        print(f"{chosen.encoder} {chosen.pixel_format} {shown}")
        shares = []
        print(f"{'':12}{'frames/s':>10}{'processor ms per frame':>26}{'share':>8}")
        for _ in range(arguments.repeats):
            clock = Clock()
            encoder_alone(plan, pictures, output)
            alone, alone_own = clock.read()
            clock = Clock()
            upscale_video(
                source,
                output,
                Bicubic(),
                window=1,  # what lies in memory for a real network is no part of this
                overlap=0,
                tile=None,
                size="1080p",
                overwrite=True,
                **encoding,
            )
            whole, whole_own = clock.read()
            shares.append(alone / whole)
            count = len(pictures)
            print(f"{'encoder':12}{count / alone:10.2f}{1000 * alone_own / count:26.0f}")
            print(
                f"{'pipeline':12}{count / whole:10.2f}{1000 * whole_own / count:26.0f}"
                f"{shares[-1]:8.0%}"
            )
        print(f"median share {median(shares):.0%}")
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
