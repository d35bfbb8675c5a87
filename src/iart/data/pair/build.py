"""From two discs to a folder of pairs, in stages that a killed run does not do again.

1  small pictures of either disc   analysis/dvd.thumbnails, analysis/dvd.pictures, …
2  the course of the film          quick, done each time
3  segments registered, checked    analysis/segments.jsonl
4  clips                           GT/…, LQ/…, and lists of them
5  the report                      report.html
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from iart.data.pair.check import check_course, picture_size
from iart.data.pair.clips import (
    SHORTEST,
    ClipWriter,
    PairedClip,
    find_clips,
    spread_choice,
    validation_scenes,
)
from iart.data.pair.disc import Disc, Thumbnails, write_thumbnails
from iart.data.pair.framing import framings
from iart.data.pair.moments import find_course, speeds_of
from iart.data.pair.report import report
from iart.errors import DataError, OptionsError, OutputError
from iart.files.complete import complete_file, locked, make_folder, write_json, writing
from iart.files.names import temporary_name

_SETTINGS = "pairs.json"
_OURS = ("analysis", "GT", "LQ", "meta_info_train.txt", "meta_info_val.txt", "train.json",
         "val.json", "report.html", _SETTINGS, ".lock")  # fmt: skip
_LEAST_MATCHED = 0.05  # of the frames, in films that are the same
_VERSION = 2  # of the analysis: what another has left is not gone on with


@dataclass(frozen=True)
class PairResult:
    """What `make_pairs` has done.

    Attributes:
        frames: of the DVD.
        kept: of these, frames that fit their partners.
        clips: that are in the lists.
        written: frames of these.
        validation: clips that are held out.
    """

    frames: int
    kept: int
    clips: int
    written: int
    validation: int


def make_pairs(
    dvd: Path,
    bluray: Path,
    target: Path,
    *,
    scale: int = 4,
    clips: int | None = None,
    share: float | None = None,
    validation: float = 0.1,
    match_color: bool = False,
    ffv1: bool = False,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None,
) -> PairResult:
    """Make pairs for training from two discs of one film.

    Frames that do not fit are left out and counted by reason. A run that was stopped goes on when
    it is called again; the bytes are those of a run that was not.

    Args:
        dvd: a video, or a DVD's folder.
        bluray: the same film, larger.
        target: folder of the pairs; made if it is missing.
        scale: of the ground truth over the low resolution, 4 or 2.
        clips: write so many at most, evenly over the film.
        share: write this share of the clips, above 0 to 1.
        validation: share of the scenes that is held out, 0 to below 1.
        match_color: bring the ground truth to the DVD's colours.
        ffv1: write videos and JSON lists instead of folders of PNG.
        overwrite: begin again, whatever the folder holds of earlier pairs.
        progress: called with (stage, done, in all).

    Raises:
        InputError: a disc cannot be read.
        DataError: the films are not the same, or nothing fits well enough.
        OptionsError: an option has a value that cannot be.
        OutputError: the folder holds something else, or the operating system refuses.
    """
    if scale not in (2, 4):
        raise OptionsError(f"scale must be 4 or 2, got {scale}")
    if clips is not None and clips < 1:
        raise OptionsError(f"clips must be at least 1, got {clips}")
    if share is not None and not 0 < share <= 1:
        raise OptionsError(f"share must be above 0 and at most 1, got {share:g}")
    if not 0 <= validation < 1:
        raise OptionsError(f"validation must be at least 0 and below 1, got {validation:g}")
    discs = Disc.open(dvd), Disc.open(bluray)
    rows = [disc.active.height for disc in discs]
    if rows[1] <= rows[0]:
        raise DataError(
            f"'{bluray}' has {rows[1]} rows of picture, '{dvd}' {rows[0]}: name the DVD first, then"
            " the Blu-ray, which has more"
        )
    settings = {
        "version": _VERSION,
        "dvd": discs[0].identity,
        "bluray": discs[1].identity,
        "scale": scale,
        "match_color": match_color,
        "ffv1": ffv1,
    }
    make_folder(target)
    with writing(target), _held(target):
        _prepare(target, settings, overwrite=overwrite)
        thumbnails = []
        for disc, name in zip(discs, ("dvd", "bluray"), strict=True):
            path = target / "analysis" / f"{name}.thumbnails"
            told = partial(progress, f"frames of '{disc.path.name}' read")
            write_thumbnails(disc, path, picture_size(discs[0].active), told)
            thumbnails.append(Thumbnails(path))
        pair = thumbnails[0], thumbnails[1]
        course = find_course(
            *pair,
            speeds_of(*(float(disc.info.rate) for disc in discs)),
            framings(*(disc.aspect for disc in discs)),
            partial(progress, "frames searched"),
        )
        frames = len(pair[0])
        matched = sum(len(match.partners) for match in course.matches)
        if matched < _LEAST_MATCHED * frames:
            raise DataError(
                f"'{dvd}' and '{bluray}' do not look like the same film: {matched} of {frames}"
                " frames of the first have a partner in the second"
            )
        path = target / "analysis" / "segments.jsonl"
        segments = check_course(
            course, discs[0].active, pair, path, partial(progress, "frames checked")
        )
        found = find_clips(segments, discs[0].active)
        kept = sum(segment.kept for segment in segments)
        if not found:
            raise DataError(
                f"no {SHORTEST} successive frames of '{dvd}' fit '{bluray}': {kept} of {frames}"
                " frames fit at all; see the reasons in analysis/segments.jsonl"
            )
        count = len(found) if share is None else max(1, round(share * len(found)))
        chosen = spread_choice(found, count if clips is None else min(clips, count))
        writer = ClipWriter(target, discs, pair, scale=scale, match_color=match_color, ffv1=ffv1)
        for stage, write in (
            ("clips of the DVD written", writer.write_low),
            ("clips written", writer.write_truth),
        ):
            for done, clip in enumerate(chosen):
                progress(stage, done, len(chosen))
                write(clip)
            progress(stage, len(chosen), len(chosen))
        held_out = validation_scenes(chosen, validation)
        parts = {
            "train": [clip for clip in chosen if clip.scene not in held_out],
            "val": [clip for clip in chosen if clip.scene in held_out],
        }
        for part, those in parts.items():
            _write_list(target, part, those, writer, ffv1=ffv1)
        page = report(discs, pair, course, segments, found, parts, writer)
        with complete_file(target / "report.html") as file:
            file.write(page.encode())
    written = sum(map(len, chosen))
    return PairResult(frames, kept, len(chosen), written, len(parts["val"]))


@contextmanager
def _held(target: Path) -> Iterator[None]:
    """The folder belongs to this run alone."""
    path = target / ".lock"
    try:
        with locked(path, wait=False):
            yield
    except BlockingIOError:
        raise OutputError(
            f"cannot write pairs to '{target}': another run is at work there"
        ) from None


def _prepare(target: Path, settings: dict[str, object], *, overwrite: bool) -> None:
    """Make the folder ready, or say why it cannot be used."""
    for name in _OURS:  # of a run that was killed
        _remove_parts(target, name)
    path = target / _SETTINGS
    there = {entry.name for entry in target.iterdir()} - {".lock"}
    if there and not path.exists():
        raise OutputError(
            f"cannot write pairs to '{target}': it holds '{min(there)}', which this command did not"
            " make; choose a new folder"
        )
    if path.exists():
        before = None
        with suppress(ValueError):
            before = json.loads(path.read_bytes())
        if before != settings and not overwrite:
            raise OutputError(
                f"cannot go on in '{target}': it holds pairs of other discs or settings; pass"
                " --overwrite to begin again, or choose a new folder"
            )
        if overwrite:
            for name in _OURS[:-1]:
                place = target / name
                if place.exists():  # at once: what a killed run leaves is whole or is a part
                    place.rename(temporary_name(place))
                    _remove_parts(target, name)
    write_json(path, settings)
    for side in ("analysis", "GT", "LQ"):
        (target / side).mkdir(exist_ok=True)
        _remove_parts(target / side)


def _remove_parts(folder: Path, name: str = "*") -> None:
    """What is hidden beside outputs until they are complete."""
    for part in folder.glob(f".{name}.*.part*"):
        shutil.rmtree(part) if part.is_dir() else part.unlink()


def _write_list(
    target: Path, part: str, clips: list[PairedClip], writer: ClipWriter, *, ffv1: bool
) -> None:
    """As `read_clip_list` or `read_video_list` reads it."""
    if ffv1:
        entries = [
            {
                "name": clip.name,
                "gt_video": f"GT/{clip.name}.mkv",
                "lq_video": f"LQ/{clip.name}.mkv",
                "frame_count": len(clip),
            }
            for clip in clips
        ]
        write_json(target / f"{part}.json", entries)
        return
    lines = [
        f"{clip.name} {len(clip)} ({{}},{{}},3)\n".format(*writer.size(clip)) for clip in clips
    ]
    with complete_file(target / f"meta_info_{part}.txt") as file:
        file.write("".join(lines).encode())
