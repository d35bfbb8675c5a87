"""A whole benchmark: a protocol, its data, and a network or frames made elsewhere → a record."""

import logging
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from pathlib import Path

import torch

import iart
from iart.errors import OptionsError
from iart.evaluate.crops import limit_crops
from iart.evaluate.extra import extra_metrics
from iart.evaluate.layout import find_clips, low_resolution_folder, make_low_resolution
from iart.evaluate.network import Enlarger
from iart.evaluate.protocol import Protocol, read_protocol
from iart.evaluate.record import ClipRecord, Record, Setting
from iart.evaluate.report import write_reports
from iart.evaluate.scoring import score_clip
from iart.evaluate.sharing import Finished, SharedFolder
from iart.evaluate.source import Source, folder_source, network_source
from iart.inference.windows import OVERLAP
from iart.weights.tensorfile import some

_log = logging.getLogger(__name__)

SHOWN_CLIPS = 24
"""Clips that crops are taken of, evenly spread where there are more."""


def run(
    protocol: str | Path | Protocol,
    *,
    weights: str | Path | None = None,
    key: str | None = None,
    data: str | Path = "datasets",
    results: str | Path | None = None,
    make_lr: bool = False,
    limit: int | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    save_images: bool = False,
    metrics: Collection[str] = (),
    window: int | None = None,
    overlap: int = OVERLAP,
    device: str = "auto",
    precision: str = "float32",
    command: str | None = None,
    memory_share: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> Record:
    """Measure a network, or frames made elsewhere, by a protocol; write reports.

    A run that was stopped goes on with the clips that are not done when it is started again.
    Processes that are started alike share the clips; each returns when all of them are done.

    Args:
        protocol: a name of `protocol_names()`, the path of a .yml file, or one that was read.
        weights: name or file, as in `load_model`; None for the file that the protocol names.
        key: which weights of a published file to take, as in `load_model`.
        data: the folder that the protocol's places are below.
        results: score these frames instead of a network's: a folder of images per clip.
        make_lr: make the low-resolution frames from the ground truth if their folder is missing.
        limit: a quick look: only the first frames of each clip, or only the first clips where one
            frame of each is scored. Cannot be compared with published scores.
        output: folder for reports and finished clips; None for one below `results/` that is named
            by what is measured.
        overwrite: measure anew what the output folder holds already.
        save_images: keep the network's frames as PNG in the output folder.
        metrics: to compute besides PSNR and SSIM: names of `iart.evaluate.extra.EXTRA`. One that
            this machine cannot compute becomes a note.
        window: frames that the network sees at once; None for whole clips, or where these do not
            fit in memory, for as many as do.
        overlap: frames of context at either end of a window.
        device: where the network runs, as in `load_model`.
        precision: what features are computed in, as in `load_model`.
        command: what the record gives as its command; None for this process's own.
        memory_share: how much of the free memory this process may take.
        progress: called with the number of frames scored so far, and of all.

    Raises:
        OptionsError: no such protocol, or options that do not go together.
        DataError: images are missing, are too many, do not fit or cannot be read.
        WeightsError: the weights are missing or cannot be used.
        DeviceError: this machine lacks the device, or the memory even for windows.
        OutputError: the output folder holds another run, or cannot be written.
    """
    chosen = protocol if isinstance(protocol, Protocol) else read_protocol(protocol)
    place, made = Path(data), None if results is None else Path(results)
    if made is not None and (weights is not None or save_images):
        raise OptionsError("results exist already: pass them without weights and save_images")
    make_lr = make_lr and made is None
    clips = () if make_lr else find_clips(chosen, place, results=made, limit=limit)
    if made is None:
        source = network_source(chosen, weights, key, device, precision)
    else:
        source = folder_source(made)
    extra = extra_metrics(tuple(metrics), source.place)
    if make_lr:  # which takes its time: not before it is known that the rest is there
        if make_low_resolution(chosen, place, progress=progress):
            _log.info("made the frames in '%s'", low_resolution_folder(chosen, place))
        clips = find_clips(chosen, place, limit=limit)
    enlarger = None
    if source.model is not None:
        enlarger = Enlarger.with_memory_share(
            source.model,
            memory_share,
            precision=precision,
            flip_seq=chosen.flip_seq,
            window=window,
            overlap=overlap,
        )
    setting = {"precision": precision, "window": window, "overlap": overlap} if enlarger else {}
    identity = {
        "iart": iart.__version__,
        "weights": source.weights_hash or source.name,
        "results": None if made is None else str(made.resolve()),
        "limit": limit,
        "metrics": sorted(extra.names),  # not those asked for: some may come to be had
        "save_images": save_images,
        **setting,
        "protocol": chosen.model_dump(mode="json"),
    }
    if output is None:
        more = [precision] if enlarger and precision != "float32" else []
        more += [f"first{limit}"] if limit else []
        output = Path("results", chosen.name, "-".join([source.label, *more]))
    folder = Path(output)
    total = sum(len(clip.scored) for clip in clips)
    crops = _crop_counts([clip.name for clip in clips])
    with SharedFolder(folder, clips, identity, overwrite=overwrite) as shared:

        def show(scored: int = 0) -> None:
            if progress is not None:
                progress(shared.frames + scored, total)

        for clip in shared.claims(show):
            images = folder / "images" if save_images else None
            record, problems = score_clip(
                clip,
                chosen,
                enlarger,
                images=images,
                crops=crops.get(clip.name, 0),
                extra=extra,
                progress=show,
            )
            shared.save(Finished(record, source.device, problems))
            show()
        record = _record(chosen, source, shared.seen(), limit, extra.notes, precision, command)
        with shared.reporting():
            write_reports(record, folder)
    return record


def _crop_counts(names: Sequence[str]) -> dict[str, int]:
    """How many crops to take of which clips: of a few clips 3 each, of many 1 of some."""
    if len(names) <= SHOWN_CLIPS:
        return dict.fromkeys(names, 3)
    return {names[i * len(names) // SHOWN_CLIPS]: 1 for i in range(SHOWN_CLIPS)}


def _record(
    protocol: Protocol,
    source: Source,
    finished: Collection[Finished],
    limit: int | None,
    notes: Collection[str],
    precision: str,
    command: str | None,
) -> Record:
    published = protocol.expected if limit is None else None
    clips = limit_crops(done.clip for done in finished)
    return Record(
        Setting(
            protocol.name,
            protocol.description,
            protocol.colour,
            protocol.border,
            {"psnr": published.psnr, "ssim": published.ssim} if published else {},
            published.of if published else None,
        ),
        clips,
        command or shlex.join([Path(sys.executable).name, *sys.argv]),
        iart.__version__,
        torch.__version__,
        source.name,
        source.weights_hash,
        ", ".join(sorted({done.device for done in finished})),
        None if source.model is None else precision,
        datetime.now().astimezone(),
        (*_notes(protocol, clips, limit), *notes, *sorted({n for f in finished for n in f.notes})),
    )


def _notes(protocol: Protocol, clips: Collection[ClipRecord], limit: int | None) -> list[str]:
    notes = [protocol.note] if protocol.note else []
    if limit is not None:
        what = f"frames of each clip (limit {limit})"
        if protocol.score_frames == "centre":
            what = f"{limit} clips of the list"
        notes.append(f"a quick look at the first {what}: not the score of {protocol.name}")
    if any(clip.lr_made for clip in clips):
        notes.append(f"low-resolution frames ({protocol.degradation}) were made here")
    if windowed := [clip.name for clip in clips if clip.windowed]:
        notes.append(f"in windows, which costs a little, instead of whole: {some(windowed)}")
    return notes
