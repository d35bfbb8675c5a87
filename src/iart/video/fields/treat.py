"""From fields to whole frames: which treatment a file needs, and the treatments.

Each treatment takes pictures in order and gives pictures with exact times, in units of the source's
time base divided by `divisor`. None holds more than a few pictures, and what it gives depends only
on pictures nearby: reading from the middle of a file gives the same.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, Protocol, runtime_checkable

from iart.errors import InputError
from iart.video.fields.bwdif import Bwdif, BwdifSome
from iart.video.fields.classify import CYCLE, FieldReport, describe_shares
from iart.video.fields.telecine import DIVISOR, Decimator, Film, Match
from iart.video.frame import VideoInfo
from iart.video.read.decode import Picture

_TREATMENTS = {
    "bwdif": "interpolated, a frame of each picture",
    "bwdif-field": "interpolated, a frame of each field",
    "bwdif-some": "interpolated where it is interlaced",
    "match": "fields of one film frame put together",
    "film": "fields of one film frame put together, one picture of five dropped",
    "film-some": "made film again where it is",
}

MODES = ("auto", "off", "bwdif", "bwdif-field")


@runtime_checkable
class Treatment(Protocol):
    """Makes frames of fields, for one iteration over a video."""

    divisor: int

    def push(self, picture: Picture) -> Iterable[Picture]:
        """Take the next picture; give those that are ready."""
        ...

    def flush(self) -> Iterable[Picture]:
        """Give the rest, at the end."""
        ...


@dataclass(frozen=True)
class Plan:
    """How the fields of a file are treated.

    Attributes:
        way: what is done: "none"; "bwdif": a frame of each picture; "bwdif-field": a frame of each
            field; "bwdif-some": bwdif where pictures are interlaced; "match": fields of one film
            frame put together; "film": that, and one picture of five dropped; "film-some": the same
            where there is film.
        top_first: which field comes first; None to believe the flags.
    """

    way: Literal["none", "bwdif", "bwdif-field", "bwdif-some", "match", "film", "film-some"]
    top_first: bool | None = None

    def treatment(self, info: VideoInfo) -> Treatment | None:
        """A new treatment of the pictures of `info`, the source as stored; None for none."""
        step = round(1 / info.rate / info.time_base)
        if self.way == "none":
            return None
        if self.way == "bwdif-some":
            return BwdifSome(self.top_first)
        if self.way.startswith("bwdif"):
            return Bwdif(self.top_first, step, per_field=self.way == "bwdif-field")
        top_first = self.top_first is not False
        if self.way == "match":
            return Match(top_first)
        first = round(info.start_seconds / info.time_base)
        decimator = Decimator(info.rate * info.time_base, first, always=self.way == "film")
        return Film(top_first, decimator)

    def outcome(self, info: VideoInfo, report: FieldReport | None) -> VideoInfo:
        """What is known of the frames, of which `info` was known before."""
        if self.way == "none" and report is None:
            return info
        count = info.frame_count
        factor, divisor, variable = Fraction(1), 1, info.variable_rate
        rate = info.rate
        if self.way == "bwdif-field":
            factor, divisor, rate = Fraction(2), 2, 2 * info.rate
        elif self.way.startswith("film"):
            hard = 1 if report is None else report.shares["hard telecine"]
            factor, divisor = 1 - Fraction(hard).limit_denominator(1000) / CYCLE, DIVISOR
            variable = info.variable_rate if self.way == "film" else True
            rate = info.rate * (CYCLE - 1) / CYCLE if self.way == "film" else info.rate
        elif report is not None and report.kind == "soft telecine" and report.rate is not None:
            rate, variable = report.rate, True
            if info.duration_seconds and count == round(info.duration_seconds * info.rate):
                factor = rate / info.rate  # an estimate
        return replace(
            info,
            rate=rate,
            time_base=info.time_base / divisor,
            frame_count=None if count is None else round(count * factor),
            variable_rate=variable,
            interlaced=False,
            fields=report,
            treatment=_TREATMENTS.get(self.way, ""),
        )


def plan_fields(info: VideoInfo, report: FieldReport | None, mode: str) -> Plan:
    """The treatment that `mode` and the content ask for.

    Raises:
        InputError: the content is of kinds that cannot be treated together.
    """
    shares = {} if report is None else report.shares
    both = "fields in both orders" in shares
    first = None if both or report is None else report.top_first
    if mode.startswith("bwdif"):
        return Plan("bwdif" if mode == "bwdif" else "bwdif-field", first)
    if mode == "off" or report is None:
        return Plan("none")
    if both:
        raise InputError(
            f"cannot read '{info.path.name}': it is interlaced with the top field first here and "
            f"with the bottom field first there ({describe_shares(shares)}). Pass "
            "--deinterlace bwdif to believe its flags, or --deinterlace off"
        )
    contents = set(shares)
    if "hard telecine" in contents:
        return Plan("film" if len(contents) == 1 else "film-some", first)
    if "shifted film" in contents:
        return Plan("match", first)
    if contents == {"interlaced"}:
        return Plan("bwdif", first)
    return Plan("bwdif-some" if "interlaced" in contents else "none", first)


def treated(pictures: Iterable[Picture], treatment: Treatment | None) -> Iterator[Picture]:
    """All pictures through a treatment."""
    if treatment is None:
        yield from pictures
        return
    for picture in pictures:
        yield from treatment.push(picture)
    yield from treatment.flush()
