"""Everything that says how one clip is degraded; drawn once per clip, or written in a file.

Lengths are pixels of the low resolution, strengths are of values in [0, 1] unless they say 8 bits.
docs/degradation.md names what each step imitates, and the sources.
"""

from fractions import Fraction
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

Kind = Literal["bicubic", "mpeg2", "dvd", "tape", "web"]
KINDS: tuple[Kind, ...] = ("bicubic", "mpeg2", "dvd", "tape", "web")
CodecName = Literal["mpeg2video", "dvvideo", "mpeg4", "libx264", "flv", "h263p"]

CYCLE, FILM = 5, 4
"""Pictures of telecined video that hold so many of film."""
GRID = 16
"""Side of a macroblock: coded pictures have sides that are multiples of it."""


class _Parameters(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Reduction(_Parameters):
    """To a quarter of the size: a kernel, wider than it need be by a factor for each axis."""

    kernel: Literal["area", "triangle", "cubic", "lanczos", "gauss"] = "cubic"
    width_x: Annotated[float, Field(gt=0)] = 1.0
    width_y: Annotated[float, Field(gt=0)] = 1.0


class Sharpening(_Parameters):
    """Edge enhancement: luma + amount · (luma − luma blurred by a Gaussian), for each axis."""

    amount_x: NonNegativeFloat
    amount_y: NonNegativeFloat
    radius: Annotated[float, Field(gt=0)]


class Grain(_Parameters):
    """Noise of film, new in every moment, strongest in middle greys."""

    strength: NonNegativeFloat
    """Standard deviation in middle greys, of 8-bit values."""
    size: NonNegativeFloat = 0.0
    """Standard deviation of the Gaussian that grains are blurred by."""


class Tape(_Parameters):
    """What a video recorder of the colour-under kind does to a signal of 13.5 MHz."""

    luma_lines: Annotated[float, Field(gt=0)] = 240.0
    """Horizontal resolution, lines per picture height."""
    chroma_lines: Annotated[float, Field(gt=0)] = 40.0
    chroma_delay_x: float = 0.0
    chroma_delay_y: float = 0.0
    luma_noise: NonNegativeFloat = 0.0
    """Standard deviation, of 8-bit values."""
    chroma_noise: NonNegativeFloat = 0.0
    jitter: NonNegativeFloat = 0.0
    """Standard deviation of the shift of a line."""
    dot_crawl: NonNegativeFloat = 0.0
    """Share of the colour carrier that is left in luma."""
    head_switching: NonNegativeInt = 0
    """Rows at the bottom, of both fields together, that are torn."""


class Coding(_Parameters):
    """One codec of FFmpeg and how it is asked to code."""

    codec: CodecName
    quantiser: Annotated[float, Field(ge=1, le=51)] = 4
    """Scale of the quantiser of I and P pictures; of libx264 its constant quantiser."""
    swing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """How far the quantiser moves from picture to picture, as a share."""
    group: PositiveInt = 12
    """Pictures from one I picture to the next."""
    b_pictures: NonNegativeInt = 0
    """Between two I or P pictures."""
    options: dict[str, str] = Field(default_factory=dict)
    """Others, by FFmpeg's names."""
    size: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Of the coded picture, as a factor of the low resolution."""


class Scan(_Parameters):
    """How moments become pictures, and how these become frames again."""

    kind: Literal["progressive", "interlaced", "telecined"] = "progressive"
    top_first: bool = True
    per_field: bool = False
    """Interlaced: a frame of every field, not of the first of each picture."""
    cadence: Annotated[int, Field(ge=0, lt=CYCLE)] = 0
    """Telecined: pictures of a cycle that are left out at the start."""


class Degradation(_Parameters):
    """All parameters of one clip.

    Attributes:
        kind: which chain; "bicubic" reads nothing but `top` and `left`.
        noise_seed: of grain, noise and jitter, and of the quantiser's swing.
        lead: frames that are coded before the first one that is used.
        top: row of the coded picture at which the sample begins; even unless progressive.
        left: likewise, column.
        codings: one after another.
    """

    kind: Kind
    noise_seed: NonNegativeInt = 0
    lead: NonNegativeInt = 0
    top: Annotated[int, Field(ge=0, lt=GRID)] = 0
    left: Annotated[int, Field(ge=0, lt=GRID)] = 0
    reduction: Reduction = Reduction()
    sharpening: Sharpening | None = None
    grain: Grain | None = None
    tape: Tape | None = None
    scan: Scan = Scan()
    codings: tuple[Coding, ...] = ()

    def pictures(self, frames: int) -> int:
        """Pictures that are coded so that `frames` come out, run-up and run-out included."""
        if self.scan.kind == "progressive":
            return self.lead + frames
        if self.scan.kind == "interlaced":
            # one more at the end: what is interpolated looks at both neighbours
            return -(-(self.lead + frames) // (2 if self.scan.per_field else 1)) + 1
        # a cycle to run up, and one to run out
        return CYCLE * (-(-(self.lead + frames) // FILM) + 2)

    def fields(self, frames: int) -> list[tuple[int, int]]:
        """The moments of the upper and of the lower field of every coded picture."""
        count = self.pictures(frames)
        if self.scan.kind == "progressive":
            return [(i, i) for i in range(count)]
        if self.scan.kind == "interlaced":
            order = [(2 * i, 2 * i + 1) for i in range(count)]
        else:
            film = [i for i in range(2 + count) for _ in range(2 + i % 2)]
            order = [(film[2 * i], film[2 * i + 1]) for i in range(count + self.scan.cadence)]
            order = order[self.scan.cadence :]
            start = order[0][0]
            order = [(first - start, second - start) for first, second in order]
        return order if self.scan.top_first else [(second, first) for first, second in order]

    def moments(self, frames: int) -> int:
        """Moments that the chain must be given so that `frames` come out."""
        if self.kind == "bicubic":
            return frames
        return 1 + max(max(pair) for pair in self.fields(frames))

    @property
    def before(self) -> int:
        """Moments before that of the first frame that comes out."""
        if self.kind == "bicubic":
            return 0
        if self.scan.kind == "interlaced" and not self.scan.per_field:
            return 2 * self.lead
        if self.scan.kind == "telecined":
            # cadence 2 begins with a picture of two film frames, of which only the second is whole
            return self.lead + FILM + (self.scan.cadence == 2)
        return self.lead

    @property
    def moments_per_frame(self) -> int:
        """From one frame that comes out to the next."""
        return 2 if self.scan.kind == "interlaced" and not self.scan.per_field else 1


def padded(side: int) -> int:
    """Side of the coded picture of which a sample of `side` is cut at any phase of its grid."""
    return -(-(side + GRID) // GRID) * GRID


RATE = Fraction(25)
"""Pictures per second that encoders are told."""
