"""Two videos against each other, and against a third that is the truth, if there is one.

    compare(a, b, output="out") → out/compare.mp4   side by side, or one wiped over the other
                                  out/compare.png   details where they differ most
                                  out/compare.svg   PSNR and SSIM of every frame
                                  out/compare.html  all but the video on one page

Scores are of RGB, see `iart.pictures.scores`.
"""

import logging
import math
import time as clock
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from iart.compare.findings import Comparison, VideoScores, files
from iart.compare.matching import MatchedVideos
from iart.errors import OptionsError, OutputError
from iart.files.complete import PendingOutput, make_folder, writing
from iart.pictures.degrade import to_uint8
from iart.reports.details import fitted, font_of
from iart.upscaling.film.request import Progress
from iart.video.write.writer import VideoWriter, is_folder

ENDINGS = (".png", ".svg", ".html")

_log = logging.getLogger(__name__)
VIEWS = ("side", "wipe")
SWING_SECONDS = 6
"""A divider that moves is back where it was after this time."""

_LABEL_SHARE = 24  # a label's letters are a picture's height over this
_SMALLEST_LABEL = 11  # pixels

FrameView = Callable[[Sequence[Float[Tensor, "3 h w"]], Fraction], Float[Tensor, "3 h w2"]]
"""Pictures of one size, and their time in seconds, to one picture; inputs are left as they are."""


@dataclass(frozen=True)
class CompareResult:
    """What a comparison has written and measured.

    Attributes:
        video: the comparison to watch.
        sheet: PNG of details.
        plot: SVG of the scores.
        page: HTML.
        frames: compared.
        truth: label of what the scores are against.
        source: whether that is smaller than the results: these were reduced to it, and the scores
            measure consistency with their source.
        scores: of both videos against the reference, or of the first against the second.
        notes: how the videos were matched, one line each.
    """

    video: Path
    sheet: Path
    plot: Path
    page: Path
    frames: int
    truth: str
    source: bool
    scores: tuple[VideoScores, ...]
    notes: tuple[str, ...]


def compare(
    a: str | Path,
    b: str | Path,
    *,
    reference: str | Path | None = None,
    output: str | Path = "compare",
    view: str = "side",
    divider: float | None = None,
    rate: Fraction | None = None,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> CompareResult:
    """Compare two videos frame by frame, in constant memory but for the scores.

    Frames are matched by time, counted from each video's first frame; smaller results are enlarged
    by bicubic interpolation; it ends with the shortest video. What was done is noted in the log.

    Args:
        a: a video file, a folder or pattern of images, or a DVD.
        b: likewise.
        reference: likewise; what both should look like. Without it they are scored against each
            other. If it is smaller than they are, it is what they were made from: they are reduced
            to its size for the scores, and it is not shown.
        output: a folder, made if missing, or the name of the video; the other files lie beside it.
        view: "side" (with the reference as third) or "wipe".
        divider: where the wipe's line stands, from 0 (left) to 1; if not given it moves.
        rate: frames per second of images; by default that of a video they are compared with, or 25.
        overwrite: whether files may be replaced.
        progress: called after every frame.

    Raises:
        InputError: an input cannot be read.
        OutputError: an output exists or cannot be written.
        OptionsError: another view, a divider outside [0, 1] or without "wipe", or pictures that are
            too small for SSIM (11×11).
    """
    if view not in VIEWS:
        raise OptionsError(f"view must be one of {', '.join(VIEWS)}, got {view!r}")
    if divider is not None and view != "wipe":
        raise OptionsError("divider is for the view 'wipe'; pass --view wipe too")
    sources = [a, b] if reference is None else [a, b, reference]
    began = clock.monotonic()
    with ExitStack() as stack:
        matched = stack.enter_context(
            closing(MatchedVideos(sources, reference=reference is not None, rate=rate))
        )
        labels, info = matched.labels[:-1] if matched.source else matched.labels, matched.info
        if view == "side":
            shown, columns = side_by_side(labels, info.height, info.width), len(labels)
        else:
            shown, columns = wipe(labels, info.height, info.width, divider=divider), 1
        video = _video_name(output, sources)
        inputs = [Path(source) for source in sources]
        others: list[PendingOutput] = []
        for ending in ENDINGS:
            name = video.with_suffix(ending)
            others.append(PendingOutput(name, inputs=inputs, overwrite=overwrite))
            stack.callback(others[-1].discard)
        width, height = info.width * columns, info.height
        like = replace(info, path=inputs[0], width=width + width % 2, height=height + height % 2)
        writer = stack.enter_context(VideoWriter(video, like=like, scale=1, overwrite=overwrite))
        found = Comparison(labels, has_truth=reference is not None)
        for count, moment in enumerate(matched, 1):
            pictures = [to_uint8(picture) for picture in moment.pictures]
            scored = (
                [to_uint8(picture) for picture in moment.scored] if matched.source else pictures
            )
            found.add(pictures, scored, moment.frame.time)
            data = _even(shown(moment.pictures, moment.frame.time))
            writer.write(replace(moment.frame, data=data))
            if progress is not None:
                progress(Progress(count, info.frame_count, clock.monotonic() - began))
        notes = tuple(matched.notes)
        written = files(found, labels, matched.labels[-1], notes, video.name)
        with writing(video):
            for pending, content in zip(others, written, strict=True):
                pending.part.write_bytes(content)
        writer.close()
        for pending in others:
            pending.commit()
    for note in notes:
        _log.info(note)
    sheet, plot, page = (video.with_suffix(ending) for ending in ENDINGS)
    frames, scores = len(found.times), found.scores()
    truth = matched.labels[-1]
    return CompareResult(video, sheet, plot, page, frames, truth, matched.source, scores, notes)


def _even(image: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h2 w2"]:
    """With the last row or column twice where it takes that: H.264 has even sides."""
    _, height, width = image.shape
    return functional.pad(image[None], (0, width % 2, 0, height % 2), mode="replicate")[0]


def _video_name(output: str | Path, sources: Sequence[str | Path]) -> Path:
    """Of the comparison; its folder exists."""
    if not is_folder(output):
        return Path(output)
    folder = Path(output)
    if any(
        Path(source).is_dir() and Path(source).resolve() == folder.resolve() for source in sources
    ):
        raise OutputError(f"cannot write into '{output}': it is an input; choose another folder")
    make_folder(folder)
    return folder / "compare.mp4"


def format_result(result: CompareResult) -> str:
    """The scores as a table, and what lies where."""
    width = max(len(scores.label) for scores in result.scores)
    lines = [f"against {result.truth}, {result.frames} frames"]
    if result.source:
        lines = [f"consistency with the source {result.truth}, {result.frames} frames"]
    for scores in result.scores:
        psnr_text = f"{scores.mean_psnr:.2f} dB" if scores.equal < result.frames else "inf"
        line = f"{scores.label:<{width}}  PSNR {psnr_text}  SSIM {scores.mean_ssim:.4f}"
        if scores.equal:
            line += f"  ({scores.equal} of {result.frames} frames are equal)"
        else:
            worst = scores.worst_frame
            line += f"  (lowest: frame {worst}, {scores.psnr[worst]:.2f} dB)"
        lines.append(line)
    files = (result.video, result.sheet, result.plot, result.page)
    return "\n".join([*lines, "", *map(str, files)])


def result_values(result: CompareResult) -> dict[str, Any]:
    """The same for programs: means, and the scores of every frame."""
    scores = [
        {**asdict(each), "mean_psnr": each.mean_psnr, "mean_ssim": each.mean_ssim}
        for each in result.scores
    ]
    return {**asdict(result), "scores": scores}


# ---- what the video shows of one moment: side by side, or one wiped over another


def side_by_side(labels: Sequence[str], height: int, width: int) -> FrameView:
    """All pictures in a row, each under its label."""
    stamps = [_stamp(label, height, width) for label in labels]

    def view(pictures: Sequence[Tensor], time: Fraction) -> Tensor:
        del time
        row = torch.cat(list(pictures), dim=-1)
        for index, stamp in enumerate(stamps):
            _put(stamp, row[..., index * width : (index + 1) * width], right=False)
        return row

    return view


def wipe(
    labels: Sequence[str], height: int, width: int, *, divider: float | None = None
) -> FrameView:
    """The first picture to the left of a line, the second to its right.

    Args:
        labels: of the two.
        height: of a picture.
        width: of a picture.
        divider: where the line stands, as a share of the width; None for one that swings.

    Raises:
        OptionsError: the divider is outside of [0, 1].
    """
    if divider is not None and not 0 <= divider <= 1:
        raise OptionsError(f"divider must be from 0 (left edge) to 1 (right edge), got {divider:g}")
    stamps = [_stamp(label, height, width) for label in labels]
    line = max(2, width // 480)

    def view(pictures: Sequence[Tensor], time: Fraction) -> Tensor:
        first, second = (picture.clone() for picture in pictures[:2])
        _put(stamps[0], first, right=False)
        _put(stamps[1], second, right=True)
        turn = 2 * math.pi * float(time % SWING_SECONDS) / SWING_SECONDS
        share = 0.5 + 0.45 * math.sin(turn) if divider is None else divider
        x = round(share * width)
        second[..., :x] = first[..., :x]
        if 0 < x < width:
            second[..., max(0, x - line // 2) : x - line // 2 + line] = 1
        return second

    return view


def _stamp(label: str, height: int, width: int) -> Float[Tensor, "4 y x"]:
    """White letters on a dark ground: RGB and how much it covers."""
    font = font_of(max(_SMALLEST_LABEL, height // _LABEL_SHARE))
    text = fitted(label, font, width * 4 // 5)
    left, top, right, bottom = font.getbbox(text)
    pad = round((bottom - top) * 0.4)
    size = (round(right - left) + 2 * pad, round(bottom - top) + 2 * pad)
    box = Image.new("RGBA", size, (0, 0, 0, 150))
    ImageDraw.Draw(box).text((pad - left, pad - top), text, fill="white", font=font)
    return torch.from_numpy(np.array(box)).permute(2, 0, 1).float() / 255


def _put(stamp: Float[Tensor, "4 y x"], picture: Float[Tensor, "3 h w"], *, right: bool) -> None:
    """Lay a stamp into the upper corner of a picture, cut to what has room."""
    _, height, width = picture.shape
    stamp = stamp[:, :height, :width]
    _, rows, columns = stamp.shape
    x = width - columns if right else 0
    picture[:, :rows, x : x + columns].lerp_(stamp[:3], stamp[3:])
