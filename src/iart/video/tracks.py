"""What becomes of every track of the source in the output's container.

`plan_tracks` decides per track: copied bit by bit, converted without loss, or refused. Each
decision is tried in memory with the first packets of the track, since tables of what a container
holds are never complete.
"""

import io
from collections.abc import Collection
from pathlib import Path

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.stream import VideoStream

from iart.errors import OutputError
from iart.video.codecs import Container
from iart.video.dvd import open_media
from iart.video.lanes import copy_packet, open_lane
from iart.video.plans import (
    STATISTICS,
    Plan,
    TrackPlans,
    check_drop,
    codec_of,
    kind_of,
    stream_metadata,
)

_PROBED_BYTES = 32 << 20
"""How far first packets are looked for; a rare track (subtitles) may have none in there."""


def open_source(path: Path) -> InputContainer:
    """Open the source a second time, for its tracks; undecodable metadata keep their bytes."""
    return open_media(path, metadata_errors="surrogateescape")


def plan_tracks(
    source: InputContainer, video_index: int, container: Container, drop: Collection[str] = ()
) -> TrackPlans:
    """Decide about every stream but the video that is enlarged.

    Args:
        source: read from its start, to its first packets.
        video_index: stream index of that video.
        container: of the output.
        drop: kinds or stream indices to leave out, see `KINDS`.

    Raises:
        OutputError: tracks that cannot be carried; names all of them and what drops them.
        OptionsError: `drop` names something that is not there.
    """
    streams = list(source.streams)
    check_drop(drop, len(streams), video_index)
    others = [
        stream
        for stream in streams
        if stream.index != video_index and not {kind_of(stream), str(stream.index)} & set(drop)
    ]
    samples = _first_packets(source, others)
    carried: list[Plan] = []
    notes: list[str] = []
    refused: list[Plan] = []
    for stream in others:
        if _implied(stream, source) is not None:
            notes.extend(filter(None, [_implied(stream, source)]))
            continue
        candidates = _candidates(stream, container, samples.get(stream.index, []))
        for plan in candidates:
            if fits(plan, stream, container, samples.get(stream.index, [])):
                carried.append(plan)
                notes.extend(_note(plan))
                if plan.codec == "dvd_subtitle" and not stream.codec_context.extradata:
                    notes.append(f"{plan.name}: its colours are unknown (the IFO tells them)")
                break
        else:
            refused.append(_plan(stream, container, "copy"))
    if refused:
        raise OutputError(refusal(refused, container))
    return TrackPlans(
        tuple(carried),
        tuple(notes),
        _video_metadata(streams[video_index], streams, container),
        samples,
    )


def _first_packets(source: InputContainer, streams: list[Stream]) -> dict[int, list[Packet]]:
    """Up to three packets of each stream, as far as the beginning of the file has them."""
    wanted = [stream for stream in streams if stream.type != "attachment"]
    found: dict[int, list[Packet]] = {stream.index: [] for stream in wanted}
    if not wanted:
        return found
    read = 0
    try:
        for packet in source.demux():
            read += packet.size
            packets = found.get(packet.stream_index)
            if packets is not None and packet.size and len(packets) < 3:
                packets.append(packet)
            if read > _PROBED_BYTES or all(
                len(found[stream.index]) == 3 or Disposition.attached_pic in stream.disposition
                for stream in wanted
            ):
                break
    except av.error.FFmpegError:
        pass  # damage is the reader's to report; trials run with what there is
    return found


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


def _candidates(stream: Stream, container: Container, packets: list[Packet]) -> list[Plan]:
    """Ways to carry the stream, the best first."""
    kind, codec = kind_of(stream), codec_of(stream)
    if kind == "attachment" and not container.is_mov:
        return [_attachment(stream, packets)] if container.name == "mkv" else []
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


def _plan(stream: Stream, container: Container, target: str) -> Plan:
    start = stream.start_time
    disposition = stream.disposition
    if kind_of(stream) == "video":
        disposition &= ~Disposition.default  # players are to choose the enlarged one
    return Plan(
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


def _attachment(stream: Stream, packets: list[Packet]) -> Plan:
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
    return Plan(stream.index, "attachment", codec_of(stream), "attach", metadata, attached=data)


def fits(plan: Plan, stream: Stream, container: Container, packets: list[Packet]) -> bool:
    """Whether the plan works: tried in memory, and read back.

    Args:
        plan: to be tried.
        stream: of the source.
        container: of the output.
        packets: first ones of the stream; may be empty.
    """
    if plan.target == "attach":
        return bool(plan.attached)  # in the header only; the rehearsal of the whole shows it
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format=container.muxer) as output:
            lane = open_lane(plan, stream, output)
            output.start_encoding()
            for packet in packets:
                output.mux(lane.convert(copy_packet(packet)))
            output.mux(lane.flush())
        if not packets:
            return True  # nothing to read back; the rehearsal of the whole shows the header
        buffer.seek(0)
        with av.open(buffer, "r") as back:
            return _came_back(plan, back)
    except (av.error.FFmpegError, ValueError, NotImplementedError):
        return False


def _came_back(plan: Plan, back: InputContainer) -> bool:
    kinds = [kind_of(stream) for stream in back.streams]
    if plan.kind not in kinds:
        return False
    stream = back.streams[kinds.index(plan.kind)]
    expected = plan.codec if plan.target == "copy" else plan.target
    found = codec_of(stream)
    mpeg = {"mp1", "mp2", "mp3"}  # one number stands for all of them in MP4
    if found != expected and not {found, expected} <= mpeg:
        return False
    return plan.kind in ("attachment", "subtitle") or any(p.size for p in back.demux(stream))


def _video_metadata(video: Stream, streams: list[Stream], container: Container) -> dict[str, str]:
    kept = stream_metadata(video.metadata, container)
    kept = {key: text for key, text in kept.items() if not key.lower().startswith(STATISTICS)}
    for stream in streams:
        if stream.type == "data" and "timecode" in stream.metadata:
            kept.setdefault("timecode", stream.metadata["timecode"])
    return kept


def _note(plan: Plan) -> list[str]:
    if plan.kind == "video":
        return [f"{plan.name}: copied as it is, not enlarged"]
    if plan.target in ("copy", "attach"):
        return []
    if plan.kind == "subtitle":
        kept = "bold, italic and colour" if plan.target != "webvtt" else "bold and italic"
        styles = f" (text; of styles {kept})" if plan.codec in ("ass", "mov_text") else ""
        return [f"subtitle {plan.index}: {plan.codec} → {plan.target}{styles}"]
    return [f"{plan.kind} {plan.index}: {plan.codec} → {plan.target}, without loss"]


def refusal(refused: list[Plan], container: Container) -> str:
    """What cannot be carried, and what to pass to leave it out."""
    names = ", ".join(plan.name for plan in refused)
    flags = " ".join(f"--drop {plan.index}" for plan in refused)
    kinds = dict.fromkeys(plan.kind for plan in refused)
    short = " ".join(f"--drop {kind}" for kind in kinds)
    either = f" (or {short}, for all of the kind)" if len(kinds) < len(refused) else ""
    other = "" if container.name == "mkv" else "; mkv holds more than other containers"
    return f"{container.name} cannot hold {names}: pass {flags}{either} to leave out{other}"
