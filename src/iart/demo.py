"""A whole run on a clip that ships: as a DVD has it, restored, and measured against what it was.

The clip is an excerpt of Big Buck Bunny (see THIRD_PARTY_NOTICES.md). The folder afterwards holds

    input.mkv      what comes in: a quarter of the clip's size, interlaced, MPEG-2, with its sound
    bicubic.mp4    the input deinterlaced, and enlarged ×4 by bicubic interpolation
    iart.mp4       the input deinterlaced, and enlarged ×4 by the model
    compare.png    a detail of one frame: bicubic | iart | original

Each picture of the input is woven of two frames of the clip, so that there are half as many; what
is restored are the frames of the first fields.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path

import av
import torch
from jaxtyping import Float
from torch import Tensor

from iart.data.degradation.codec import pack, to_ycc
from iart.files.complete import Destination, complete_file, make_folder
from iart.pictures.degrade import degrade_bi, to_uint8
from iart.pictures.scores import psnr, ssim
from iart.reports.details import sheet
from iart.upscaling.film.choice import AUTO, Models
from iart.upscaling.film.request import Progress, UpscaleRequest
from iart.upscaling.film.run import upscale_video
from iart.video.filters import FilterChain
from iart.video.frame import Crop
from iart.video.read.reader import VideoReader
from iart.weights import load_model

SCALE = 4
SHOWN = Crop(640, 352, 0, 4)
"""Of the clip: a quarter of the rows divides into two fields of 4:2:0."""
QUANTISER = 4  # of MPEG-2, about that of a film that fills its disc
SHOWN_FRAME = 21  # of 25, counted from 0
DETAIL = (180, 10, 420, 190)  # left, top, right, bottom in pixels of the original, half-open
DETAIL_ZOOM = 2


@dataclass(frozen=True, slots=True)
class MeanScores:
    """Mean over the frames of a video against the original, on luma (BT.601 Y).

    Attributes:
        psnr: in dB.
        ssim: at most 1.
    """

    psnr: float
    ssim: float


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What a demo has written and measured.

    Attributes:
        source: the small video that came in.
        output: the video that the model made.
        bicubic: the video that bicubic interpolation made.
        picture: the three side by side.
        model: that was taken.
        frames: in each of the videos.
        seconds: that the model's video took.
        scores: of the model's video as it was written, compression included.
        bicubic_scores: of the bicubic one, likewise.
    """

    source: Path
    output: Path
    bicubic: Path
    picture: Path
    model: str
    frames: int
    seconds: float
    scores: MeanScores
    bicubic_scores: MeanScores


def run(
    folder: str | Path = "demo",
    model: str | Path = AUTO,
    device: str = "auto",
    *,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> DemoResult:
    """Make a DVD's video of the clip, enlarge it with a model and by interpolation, and compare.

    Args:
        folder: made if missing.
        model: name or file of weights, as in `load_model`, or "auto".
        device: as in `load_model`.
        overwrite: whether files in the folder may be replaced, such as those of an earlier demo.
        progress: called after every frame of the model's video.

    Raises:
        WeightsError: no such model.
        DeviceError: this machine lacks the device.
        OutputError: the folder cannot be made or written, or a file exists.
    """
    folder = Path(folder)
    models = Models(str(model), [device])
    make_folder(folder)
    source, picture = folder / "input.mkv", folder / "compare.png"
    bicubic, output = folder / "bicubic.mp4", folder / "iart.mp4"
    for path in (source, bicubic, output, picture):
        Destination(path, overwrite=overwrite)  # refuses what exists, before any work
    with resources.as_file(resources.files("iart") / "assets" / "demo.mp4") as original:
        make_input(original, source)
        choice = models.choose(UpscaleRequest(source, output))
        network, _ = models.load(choice)
        upscale_video(source, bicubic, load_model("bicubic"), overwrite=True)
        done = upscale_video(source, output, network, overwrite=True, progress=progress)
        bicubic_scores, scores = measure([bicubic, output], original)
        columns = {
            f"bicubic  {bicubic_scores.psnr:.2f} dB": bicubic,
            f"iart  {scores.psnr:.2f} dB": output,
        }
        compare(columns, original, picture)
    return DemoResult(
        source,
        output,
        bicubic,
        picture,
        str(model) if choice is None else choice.model,
        done.frames,
        done.seconds,
        scores,
        bicubic_scores,
    )


def format_result(result: DemoResult) -> str:
    """The scores as a table, and what lies where."""
    rows = [("", "PSNR (Y)", "SSIM (Y)")]
    for name, scores in (("bicubic", result.bicubic_scores), ("iart", result.scores)):
        rows.append((name, f"{scores.psnr:.2f} dB", f"{scores.ssim:.4f}"))
    lines = [f"{name:<9}{psnr:>10}{ssim:>10}" for name, psnr, ssim in rows]
    took = f"model {result.model}, {result.frames} frames in {result.seconds:.1f} s"
    files = (
        (result.source, "what came in: interlaced, MPEG-2, with sound"),
        (result.bicubic, "four times larger by bicubic interpolation"),
        (result.output, f"four times larger by iart: {took}"),
        (result.picture, "a detail: bicubic | iart | original"),
    )
    width = max(len(str(file)) for file, _ in files)
    return "\n".join([*lines, "", *(f"{file!s:<{width}}  {text}" for file, text in files)])


def make_input(original: Path, disc: Path) -> None:
    """Write what a DVD would have: reduced (MATLAB bicubic), interlaced, MPEG-2; sound as it is."""
    with VideoReader(original, crop=SHOWN, scenes=False) as video:
        clip = torch.stack([frame.data for frame in video])
        rate = video.info.rate / 2
    small = degrade_bi(to_uint8(clip)).float() / 255
    fields = [(first, first + 1) for first in range(0, len(small) - 1, 2)]
    pictures = pack(*to_ycc(small), fields)
    top_first = FilterChain([("setfield", "mode=tff")])
    with av.open(str(original)) as source, av.open(str(disc), "w") as output:
        video = output.add_stream("mpeg2video", rate=rate)
        video.height, video.width, video.pix_fmt = *small.shape[-2:], "yuv420p"
        video.options = {"flags": "+ildct+ilme", "qmin": str(QUANTISER), "qmax": str(QUANTISER)}
        sound = output.add_stream_from_template(source.streams.audio[0])
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "yuv420p")
            for _, marked in top_first.push(frame, number):
                marked.pts, marked.time_base = number, 1 / rate
                output.mux(video.encode(marked))
        output.mux(video.encode(None))
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = sound
                output.mux(packet)


def first_fields(original: Path) -> Iterator[Float[Tensor, "3 h w"]]:
    """The frames of the clip that are restored."""
    with VideoReader(original, crop=SHOWN, scenes=False) as video:
        yield from (frame.data for frame in islice(video, 0, None, 2))


def measure(videos: Sequence[Path], original: Path) -> list[MeanScores]:
    """Mean scores of each video against the frames of the original that it shows."""
    sums = [[0.0, 0.0] for _ in videos]
    count = 0
    with ExitStack() as stack:
        readers = [stack.enter_context(VideoReader(path, scenes=False)) for path in videos]
        for expected, *frames in zip(first_fields(original), *readers, strict=True):
            count += 1
            for total, frame in zip(sums, frames, strict=True):
                total[0] += psnr(frame.data, expected, luma=True)
                total[1] += ssim(frame.data, expected, luma=True)
    return [MeanScores(total[0] / count, total[1] / count) for total in sums]


def compare(videos: dict[str, Path], original: Path, picture: Path) -> None:
    """Write the same detail of videos and of the original side by side, each under its label.

    Raises:
        OutputError: the picture cannot be written.
    """
    left, top, right, bottom = DETAIL
    frames = [frame_at(video, SHOWN_FRAME) for video in videos.values()]
    frames.append(next(islice(first_fields(original), SHOWN_FRAME, None)))
    details = [to_uint8(frame)[:, top:bottom, left:right] for frame in frames]
    with complete_file(picture) as file:
        sheet([*videos, "original"], [("", details)], zoom=DETAIL_ZOOM).save(file, "PNG")


def frame_at(video: Path, index: int) -> Float[Tensor, "3 h w"]:
    """One frame of a video, counted from 0."""
    with VideoReader(video, scenes=False) as reader:
        return next(frame.data for i, frame in enumerate(reader) if i == index)
