"""A whole run on a clip that ships: made small, enlarged, and measured against what it was.

The clip is an excerpt of Big Buck Bunny (see THIRD_PARTY_NOTICES.md). The folder afterwards holds

    input.mkv      what comes in: the clip at a quarter of its size, lossless, with its sound
    bicubic.mp4    the input enlarged ×4 by bicubic interpolation
    iart.mp4       the input enlarged ×4 by the model
    compare.png    a detail of one frame: bicubic | iart | original
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from iart.files.complete import Destination, complete_file, make_folder
from iart.pictures.degrade import degrade_bi, to_uint8
from iart.pictures.scores import psnr, ssim
from iart.progress import Progress
from iart.reports.details import sheet
from iart.upscaling.film.run import upscale_video
from iart.video.read.reader import VideoReader
from iart.video.write.writer import VideoWriter
from iart.weights import load_model

SCALE = 4
SHOWN_FRAME = 24  # of 50, counted from 0; the camera pans
DETAIL = (175, 15, 415, 195)  # left, top, right, bottom in pixels of the original, half-open
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
        frames: in each of the videos.
        seconds: that the model's video took.
        scores: of the model's video as it was written, compression included.
        bicubic_scores: of the bicubic one, likewise.
    """

    source: Path
    output: Path
    bicubic: Path
    picture: Path
    frames: int
    seconds: float
    scores: MeanScores
    bicubic_scores: MeanScores


def run(
    folder: str | Path = "demo",
    model: str | Path = "light",
    device: str = "auto",
    *,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> DemoResult:
    """Make the clip small, enlarge it with a model and by bicubic interpolation, and compare.

    Args:
        folder: made if missing.
        model: name or file of weights, as in `load_model`.
        device: as in `load_model`.
        overwrite: whether files in the folder may be replaced, such as those of an earlier demo.
        progress: called after every frame of the model's video.

    Raises:
        WeightsError: no such model.
        DeviceError: this machine lacks the device.
        OutputError: the folder cannot be made or written, or a file exists.
    """
    folder = Path(folder)
    network = load_model(model, device)
    make_folder(folder)
    source, picture = folder / "input.mkv", folder / "compare.png"
    bicubic, output = folder / "bicubic.mp4", folder / "iart.mp4"
    for path in (source, bicubic, output, picture):
        Destination(path, overwrite=overwrite)  # refuses what exists, before any work
    with resources.as_file(resources.files("iart") / "assets" / "demo.mp4") as original:
        make_input(original, source)
        upscale_video(source, bicubic, load_model("bicubic"), overwrite=True)
        done = upscale_video(source, output, network, overwrite=True, progress=progress)
        bicubic_scores, scores = measure([bicubic, output], original)
        columns = {
            f"bicubic  {bicubic_scores.psnr:.2f} dB": bicubic,
            f"iart  {scores.psnr:.2f} dB": output,
            "original": original,
        }
        compare(columns, picture)
    return DemoResult(
        source, output, bicubic, picture, done.frames, done.seconds, scores, bicubic_scores
    )


def format_result(result: DemoResult) -> str:
    """The scores as a table, and what lies where."""
    rows = [("", "PSNR (Y)", "SSIM (Y)")]
    for name, scores in (("bicubic", result.bicubic_scores), ("iart", result.scores)):
        rows.append((name, f"{scores.psnr:.2f} dB", f"{scores.ssim:.4f}"))
    lines = [f"{name:<9}{psnr:>10}{ssim:>10}" for name, psnr, ssim in rows]
    speed = f"{result.frames} frames in {result.seconds:.1f} s"
    files = (
        (result.source, "what came in"),
        (result.bicubic, "four times larger by bicubic interpolation"),
        (result.output, f"four times larger by iart: {speed}"),
        (result.picture, "a detail: bicubic | iart | original"),
    )
    width = max(len(str(file)) for file, _ in files)
    return "\n".join([*lines, "", *(f"{file!s:<{width}}  {text}" for file, text in files)])


def make_input(original: Path, small: Path) -> None:
    """Write a video at a quarter of its size (MATLAB bicubic), lossless RGB, with its sound."""
    with VideoReader(original) as video:
        info = replace(
            video.info, width=video.info.width // SCALE, height=video.info.height // SCALE
        )
        with VideoWriter(
            small, like=info, scale=1, codec="ffv1", pixel_format="bgr0", overwrite=True
        ) as writer:
            for frame in video:
                reduced = degrade_bi(to_uint8(frame.data)).float() / 255
                writer.write(replace(frame, data=reduced))


def measure(videos: Sequence[Path], original: Path) -> list[MeanScores]:
    """Mean scores of each video against the original, frame by frame."""
    sums = [[0.0, 0.0] for _ in videos]
    count = 0
    with ExitStack() as stack:
        readers = [stack.enter_context(VideoReader(path, scenes=False)) for path in videos]
        truth = stack.enter_context(VideoReader(original, scenes=False))
        for expected, *frames in zip(truth, *readers, strict=True):
            count += 1
            for total, frame in zip(sums, frames, strict=True):
                total[0] += psnr(frame.data, expected.data, luma=True)
                total[1] += ssim(frame.data, expected.data, luma=True)
    return [MeanScores(total[0] / count, total[1] / count) for total in sums]


def compare(columns: dict[str, Path], picture: Path) -> None:
    """Write the same detail of videos of one size side by side, each under its label.

    Raises:
        OutputError: the picture cannot be written.
    """
    left, top, right, bottom = DETAIL
    details = [
        to_uint8(frame_at(video, SHOWN_FRAME))[:, top:bottom, left:right]
        for video in columns.values()
    ]
    with complete_file(picture) as file:
        sheet(list(columns), [("", details)], zoom=DETAIL_ZOOM).save(file, "PNG")


def frame_at(video: Path, index: int) -> Float[Tensor, "3 h w"]:
    """One frame of a video, counted from 0."""
    with VideoReader(video, scenes=False) as reader:
        return next(frame.data for i, frame in enumerate(reader) if i == index)
