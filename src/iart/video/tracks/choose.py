"""What becomes of every track of the source in the output's container.

`plan_tracks` decides per track: copied bit by bit, converted without loss, or refused. It goes by
FFmpeg's tables of what a container holds, which are not the last word: the whole output is tried in
memory (`iart.video.write.trial`), and if that fails, each track is tried alone.
"""

import io
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from iart.errors import OutputError
from iart.video.dvd.disc import open_media
from iart.video.tracks.convert import convert_start, open_converter
from iart.video.tracks.plan import (
    STATISTICS,
    TrackPlan,
    TrackPlans,
    check_drop,
    codec_of,
    kind_of,
    stream_metadata,
)
from iart.video.write.codecs import Container, held_codecs

_PROBED_BYTES = 32 << 20
"""How far first packets are looked for; a rare track (subtitles) may have none in there."""


def open_source(path: Path) -> InputContainer:
    """Open the source a second time, for its tracks; undecodable metadata keep their bytes."""
    return open_media(path, metadata_errors="surrogateescape")


@dataclass(frozen=True)
class SourceStart:
    """An open source, read as far as planning its tracks needs.

    Attributes:
        container: open; read to its first packets.
        video: the stream that is enlarged.
        streams: the others, but for those that were dropped.
        packets: up to three of each of them, by index.
        picture: the first one, if it can be decoded.
    """

    container: InputContainer
    video: Stream
    streams: tuple[Stream, ...]
    packets: dict[int, list[Packet]]
    picture: VideoFrame | None = None


def read_start(source: InputContainer, video_index: int, drop: Collection[str] = ()) -> SourceStart:
    """Read the first packets of every stream, as far as the beginning of the file has them.

    Args:
        source: just opened.
        video_index: stream index of the video that is enlarged.
        drop: kinds or stream indices to leave out, see `KINDS`.

    Raises:
        OptionsError: `drop` names something that is not there.
    """
    streams = list(source.streams)
    check_drop(drop, len(streams), video_index)
    video = streams[video_index]
    others = tuple(
        stream
        for stream in streams
        if stream is not video and not {kind_of(stream), str(stream.index)} & set(drop)
    )
    found: dict[int, list[Packet]] = {s.index: [] for s in others if s.type != "attachment"}
    wanted = [s.index for s in others if s.index in found and kind_of(s) != "attachment"]
    read, first = 0, None
    try:
        for packet in source.demux():
            read += packet.size
            packets = found.get(packet.stream_index)
            if packets is not None and packet.size and len(packets) < 3:
                packets.append(packet)
            if first is None and packet.stream_index == video_index:
                with suppress(av.error.FFmpegError):
                    first = next((f for f in packet.decode() if isinstance(f, VideoFrame)), None)
            has_all = all(len(found[index]) == 3 for index in wanted)
            if read > _PROBED_BYTES or (has_all and first is not None):
                break
    except av.error.FFmpegError:
        pass  # damage is the reader's to report; trials run with what there is
    return SourceStart(source, video, others, found, first)


def plan_tracks(start: SourceStart, container: Container, *, tried: bool = False) -> TrackPlans:
    """Decide about every stream but the video that is enlarged.

    Args:
        start: of the source.
        container: of the output.
        tried: whether to try each track alone in memory, with its first packets.

    Raises:
        OutputError: tracks that cannot be carried; names all of them and what drops them.
    """
    carried: list[TrackPlan] = []
    notes: list[str] = []
    refused: list[TrackPlan] = []
    for stream in start.streams:
        implied = _implied(stream, start.container)
        if implied is not None:
            notes += [implied] if implied else []
            continue
        packets = start.packets.get(stream.index, [])
        candidates = _candidates(stream, container, packets)
        if tried:
            fitting = [plan for plan in candidates if _fits(plan, stream, container, packets)]
        else:
            fitting = [plan for plan in candidates if _is_held(plan, container)] or candidates
        if not fitting:
            refused.append(_plan(stream, container, "copy"))
            continue
        plan = fitting[0]
        carried.append(plan)
        notes += _note(plan)
        if plan.codec == "dvd_subtitle" and not stream.codec_context.extradata:
            notes.append(f"{plan.name}: its colours are unknown (the IFO tells them)")
    if refused:
        raise OutputError(refusal(refused, container))
    return TrackPlans(tuple(carried), tuple(notes), _video_metadata(start, container))


def _implied(stream: Stream, source: InputContainer) -> str | None:
    """None if the stream is to be carried itself; else "" or a note on what stands for it."""
    if stream.type != "data":
        return None
    if source.chapters() and stream.discard == Discard.all:
        return ""  # the text of the chapters of MP4 and QuickTime, which are carried as chapters
    if "timecode" in stream.metadata:
        return ""  # a QuickTime time code: its only number is carried as metadata of the video
    if codec_of(stream) == "dvd_nav_packet":
        return f"data {stream.index}: DVD navigation is left out (it points into the disc)"
    return None


def _candidates(stream: Stream, container: Container, packets: list[Packet]) -> list[TrackPlan]:
    """Ways to carry the stream, the best first."""
    kind, codec = kind_of(stream), codec_of(stream)
    if kind == "attachment" and not container.is_mov:
        attachment = _attachment(stream, packets)
        return [attachment] if attachment.attached and container.name == "mkv" else []
    targets = ["copy"]
    decoder = stream.codec_context  # None if FFmpeg has none: copied, if the container allows
    if kind == "subtitle" and decoder is not None and decoder.codec.text_sub:
        targets.append(container.text)
    if isinstance(stream, AudioStream) and decoder is not None:
        lossless = _lossless_target(stream, container)
        # FFmpeg muxes bare PCM into MP4, which hardly anything else plays
        first = container.name == "mp4" and codec.startswith("pcm_")
        if lossless is not None:
            targets.insert(0 if first else 1, lossless)
    return [_plan(stream, container, target) for target in targets]


def _lossless_target(stream: AudioStream, container: Container) -> str | None:
    codec = stream.codec_context.codec
    if not codec.lossless and not codec.name.startswith("pcm_"):
        return None
    if stream.format is None:  # a damaged header
        return None
    samples = stream.format.packed.name
    if samples in ("u8", "s16"):
        bits = 16
    elif samples == "s32":
        # DVD and Blu-ray sound, FLAC, ALAC, TrueHD: 20 or 24 bits in 32
        bits = 32 if codec.name.startswith("pcm_s32") or codec.name == "wavpack" else 24
    else:
        return None
    return container.lossless_audio.get(bits)


def _plan(stream: Stream, container: Container, target: str) -> TrackPlan:
    start = stream.start_time
    disposition = stream.disposition
    if kind_of(stream) == "video":
        disposition &= ~Disposition.default  # players are to choose the enlarged one
    return TrackPlan(
        stream.index,
        kind_of(stream),
        codec_of(stream),
        target,
        stream_metadata(stream.metadata, container),
        disposition,
        stream.rate if isinstance(stream, AudioStream) and stream.codec_context else 0,
        (stream.time_base or 0).denominator if kind_of(stream) == "video" else 0,
        None if start is None or stream.time_base is None else start * stream.time_base,
    )


def _attachment(stream: Stream, packets: list[Packet]) -> TrackPlan:
    metadata = dict(stream.metadata)
    if isinstance(stream, VideoStream):
        ending = {"mjpeg": "jpg"}.get(codec_of(stream), codec_of(stream))
        metadata.setdefault("filename", f"cover.{ending}")
        metadata.setdefault("mimetype", f"image/{'jpeg' if ending == 'jpg' else ending}")
        data = bytes(packets[0]) if packets else b""
    else:
        metadata.setdefault("filename", f"attachment-{stream.index}")
        metadata.setdefault("mimetype", "application/octet-stream")
        data = bytes(getattr(stream, "data", b""))
    codec = codec_of(stream)
    return TrackPlan(stream.index, "attachment", codec, "attach", metadata, attached=data)


def _is_held(plan: TrackPlan, container: Container) -> bool:
    """Whether FFmpeg's tables say so."""
    codec = plan.codec if plan.target == "copy" else plan.target
    return plan.target == "attach" or codec in held_codecs(container)


def _fits(plan: TrackPlan, stream: Stream, container: Container, packets: list[Packet]) -> bool:
    """Whether the first packets of the track, written in memory, can be read back."""
    if plan.target == "attach":
        return True  # in the header only; the trial of the whole shows it
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format=container.muxer) as output:
            converter = open_converter(plan, stream, output)
            output.start_encoding()
            output.mux(convert_start(converter, packets))
        if not packets:
            return True  # nothing to read back; the trial of the whole shows the header
        buffer.seek(0)
        with av.open(buffer, "r") as back:
            return any(
                came_back(plan, found, any(packet.size for packet in back.demux(found)))
                for found in back.streams
            )
    except (av.error.FFmpegError, ValueError, NotImplementedError):
        return False


def came_back(plan: TrackPlan, found: Stream, has_packets: bool) -> bool:
    """Whether a stream that was read back is the track that was planned."""
    if plan.kind != kind_of(found):
        return False
    if plan.target == "attach":
        return True
    expected = plan.codec if plan.target == "copy" else plan.target
    mpeg = {"mp1", "mp2", "mp3"}  # one number stands for all of them in MP4
    if codec_of(found) != expected and not {codec_of(found), expected} <= mpeg:
        return False
    return has_packets or plan.kind in ("attachment", "subtitle")


def _video_metadata(start: SourceStart, container: Container) -> dict[str, str]:
    kept = stream_metadata(start.video.metadata, container)
    kept = {key: text for key, text in kept.items() if not key.lower().startswith(STATISTICS)}
    data = (stream.metadata for stream in start.container.streams if stream.type == "data")
    for given in (start.video.metadata, *data, start.container.metadata):
        for key, text in given.items():
            if key.lower() == "timecode":
                kept.setdefault("timecode", text)
    return kept


def _note(plan: TrackPlan) -> list[str]:
    if plan.kind == "video":
        return [f"{plan.name}: copied as it is, not enlarged"]
    if plan.target in ("copy", "attach"):
        return []
    if plan.kind == "subtitle":
        kept = "bold, italic and colour" if plan.target != "webvtt" else "bold and italic"
        styles = f" (text; of styles {kept})" if plan.codec in ("ass", "mov_text") else ""
        return [f"subtitle {plan.index}: {plan.codec} → {plan.target}{styles}"]
    return [f"{plan.kind} {plan.index}: {plan.codec} → {plan.target}, without loss"]


def refusal(refused: list[TrackPlan], container: Container) -> str:
    """What cannot be carried, and what to pass to leave it out."""
    names = ", ".join(plan.name for plan in refused)
    flags = " ".join(f"--drop {plan.index}" for plan in refused)
    kinds = dict.fromkeys(plan.kind for plan in refused)
    short = " ".join(f"--drop {kind}" for kind in kinds)
    either = f" (or {short}, for all of the kind)" if len(kinds) < len(refused) else ""
    other = "" if container.name == "mkv" else "; mkv holds more than other containers"
    return f"{container.name} cannot hold {names}: pass {flags}{either} to leave out{other}"
