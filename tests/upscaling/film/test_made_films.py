"""200 small films of all kinds: what was put in comes out, or the loss of it is told by name."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import pytest
from av.stream import Disposition

import iart
from tests.upscaling.film.made_films import Put, PutTrack, draw, write
from tests.video.outputs import Contents, Stream, contents

SEED, FILMS, WHOLE = 13, 200, 0.85
TICK = Fraction(25, 10_000)
"""Seconds by which times may differ: containers round them to 1 ms, in and out."""
CONVERTED = Fraction(1, 40)
"""Likewise of sound that is coded anew."""


class Loss(NamedTuple):
    """What did not come out."""

    what: str
    note: str
    """A word that a note on it has; empty if no note excuses it."""


@pytest.mark.slow
def test_films_of_all_kinds_lose_nothing_unsaid(tmp_path: Path):
    model = iart.load_model("bicubic")
    faults: list[str] = []
    whole = 0
    for index in range(FILMS):
        put = draw(tmp_path, index, SEED)
        write(put)
        steps: list[object] = []
        preset = None if put.output.suffix == ".webm" else "ultrafast"
        try:
            result = iart.upscale_video(
                put.path, put.output, model, preset=preset, progress=steps.append
            )
        except iart.DamagedInputError as error:
            faults.append(f"{put}: {error}")
        except iart.IARTError as error:
            if steps:
                faults.append(f"{put}: refused in the middle of the work: {error}")
        else:
            losses = list(lost(put))
            notes = " ".join(result.notes).lower()
            unsaid = [loss for loss in losses if not loss.note or loss.note not in notes]
            faults += [f"{put}: {loss.what}; notes: {result.notes}" for loss in unsaid]
            whole += not losses
    assert not faults, "\n".join(faults)
    assert whole >= WHOLE * FILMS


def lost(put: Put) -> Iterator[Loss]:
    """Compare an output with what was put into its source."""
    with av.open(str(put.output)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        times = [Fraction(frame.pts or 0) * (frame.time_base or 1) for frame in frames]
        size, rate = (frames[0].width, frames[0].height), stream.average_rate or Fraction(1)
        shape = stream.sample_aspect_ratio or Fraction(1)
    turned = put.turn % 180 != 0
    width, height = reversed(put.size) if turned else put.size
    aspect = 1 / put.aspect if turned else put.aspect
    if size != (4 * width, 4 * height):
        yield Loss(f"size {size}", "")
    if abs(shape / aspect - 1) > Fraction(3, 1000):
        yield Loss(f"pixels of {shape}, not {aspect}", "pixels")
    if len(times) != len(put.times):
        yield Loss(f"{len(times)} of {len(put.times)} frames", "")
        return
    first, begin = times[0], put.times[0]
    if any(abs(a - first - (b - begin)) > TICK for a, b in zip(times, put.times, strict=True)):
        yield Loss(f"times {list(map(float, times))}", "")
    if put.is_regular and abs(len(times) / rate - len(times) / put.rate) > TICK:
        yield Loss(f"rate {rate}", "")
    found = contents(put.output)
    yield from lost_tracks(put, found, first - begin)
    yield from lost_words(put, found, first - begin)


def lost_tracks(put: Put, found: Contents, moved: Fraction) -> Iterator[Loss]:
    """Tracks, whose times may have moved with those of the pictures."""
    for kind, losses in (("audio", lost_sound), ("subtitle", lost_texts)):
        tracks, streams = [t for t in put.tracks if t.kind == kind], found.of(kind)
        if len(tracks) != len(streams):
            yield Loss(f"{len(streams)} of {len(tracks)} {kind} tracks", kind)
            continue
        for track, stream in zip(tracks, streams, strict=True):
            if three_letters(stream.metadata.get("language", "")) != three_letters(track.language):
                yield Loss(f"language {track.language} of {kind}: {stream.metadata}", "language")
            titles = (stream.metadata.get("title", ""), stream.metadata.get("name", ""))
            if track.title not in titles:
                yield Loss(f"title '{track.title}' of {kind}: {stream.metadata}", "title")
            if track.forced and Disposition.forced not in stream.disposition:
                yield Loss(f"{kind} is not forced", "forced")
            yield from losses(track, stream, moved)


def three_letters(language: str) -> str:
    """One of the two names that some languages have."""
    return {"fre": "fra", "ger": "deu", "und": ""}.get(language, language)


def lost_sound(track: PutTrack, stream: Stream, moved: Fraction) -> Iterator[Loss]:
    """Packets, whose bytes must be the same; packets of PCM may be cut elsewhere."""
    names = {"libmp3lame": ("mp3",), "libopus": ("opus",), "mp2": ("mp2", "mp3")}
    copied = stream.codec in names.get(track.codec, (track.codec,))
    if not copied:
        yield Loss(f"{track.codec} became {stream.codec}", f"{track.codec} → {stream.codec}")
    elif b"".join(stream.payloads) != b"".join(track.payloads):
        sizes = [sum(map(len, payloads)) for payloads in (stream.payloads, track.payloads)]
        yield Loss(f"{track.codec}: {sizes[0]} of {sizes[1]} bytes of sound", "")
    pairs = list(zip(stream.times, track.times, strict=False))
    ends = pairs[:1] if len(stream.times) != len(track.times) else [pairs[0], pairs[-1]]
    if any(abs(a - b - moved) > (TICK if copied else CONVERTED) for a, b in ends):
        yield Loss(f"{track.codec}: times {[float(a - b - moved) for a, b in ends]} off", "")


def lost_texts(track: PutTrack, stream: Stream, moved: Fraction) -> Iterator[Loss]:
    """Lines of text; MP4 has packets without text between them."""
    shown = [(t, p) for t, p in zip(stream.times, stream.payloads, strict=True) if b"line" in p]
    pairs = list(zip(shown, track.times, track.payloads, strict=False))
    if len(shown) != len(track.payloads) or not all(text in p for (_, p), _, text in pairs):
        yield Loss(f"{track.codec}: texts {stream.payloads}", "")
    if any(abs(a - b - moved) > TICK for (a, _), b, _ in pairs):
        yield Loss(f"{track.codec}: times of texts {list(map(float, stream.times))}", "")


def lost_words(put: Put, found: Contents, moved: Fraction) -> Iterator[Loss]:
    """Chapters, metadata and attachments; what comes before the first picture begins with it."""
    first = put.times[0] + moved
    marks = [(max(start, first), title) for start, _, title in found.chapters]
    expected = [(start + moved, title) for start, _, title in put.chapters]
    same = [
        abs(a[0] - b[0]) <= 4 * TICK and a[1] == b[1] for a, b in zip(marks, expected, strict=False)
    ]
    if len(marks) != len(expected) or not all(same):
        yield Loss(f"chapters {[(float(s), t) for s, t in marks]}", "chapter")
    for key, value in put.tags.items():
        if found.metadata.get(key.lower()) != value:
            yield Loss(f"{key} is {found.metadata.get(key.lower())!r}", key.lower())
    held = [stream.data for stream in found.of("attachment")]
    for name, data in put.files.items():
        if data not in held:
            yield Loss(f"attachment {name}", name)
