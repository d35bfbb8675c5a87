"""Which degradation a clip gets: kinds by their shares, and the parameters of each at random.

docs/degradation.md says where the ranges come from.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from iart.data.degradation.parameters import (
    CYCLE,
    GRID,
    KINDS,
    Coding,
    Degradation,
    Grain,
    Kind,
    Reduction,
    Scan,
    Sharpening,
    Tape,
)

_Name = TypeVar("_Name", bound=str)

_SEED = 2**31
_LEAD = 4  # lead-in frames are fewer than this

# Scalers of studios and of encoders, and how often.
_KERNELS = {"cubic": 0.35, "lanczos": 0.25, "triangle": 0.15, "area": 0.15, "gauss": 0.1}
_DVD_SCANS = {"progressive": 0.45, "interlaced": 0.35, "telecined": 0.2}
_TAPE_SCANS = {"progressive": 0.25, "interlaced": 0.6, "telecined": 0.15}
_TAPE_CODECS = {"mpeg2video": 0.55, "dvvideo": 0.3, "none": 0.15}
_WEB_CODECS = {"mpeg4": 0.35, "libx264": 0.3, "flv": 0.2, "h263p": 0.15}
_SOFTEST = {"gauss": 0.55, "area": 1.0, "triangle": 1.0, "cubic": 1.0, "lanczos": 1.0}
"""Width of each kernel at which it is about as sharp as the others."""


def degradation_shares(section: Any | None) -> dict[Kind, float] | None:
    """Kinds and their shares, of a section of an option file; None for none."""
    return section and {kind: getattr(section, kind) for kind in KINDS}


def draw(shares: Mapping[Kind, float], rng: np.random.Generator) -> Degradation:
    """All parameters of a clip.

    Args:
        shares: how often each kind is drawn; in proportion.
        rng: of the sample.
    """
    return draw_kind(_choice(rng, shares), rng)


def draw_kind(kind: Kind, rng: np.random.Generator) -> Degradation:
    """All parameters of a clip of one kind."""
    top, left = (int(n) for n in rng.integers(GRID, size=2))
    seed, lead = int(rng.integers(_SEED)), int(rng.integers(_LEAD))
    if kind == "bicubic":
        return Degradation(kind=kind, top=top, left=left)
    make = {"mpeg2": _mpeg2_alone, "dvd": _dvd, "tape": _tape, "web": _web}[kind]
    drawn = make(rng)
    if drawn.scan.kind != "progressive":
        top -= top % 2
    more = {"noise_seed": seed, "lead": lead, "top": top, "left": left}
    return drawn.model_copy(update=more)


def _mpeg2_alone(rng: np.random.Generator) -> Degradation:
    """A disc of a clean master: nothing but the reduction and the codec."""
    kernel = _choice(rng, _KERNELS)
    width = _SOFTEST[kernel]
    return Degradation(
        kind="mpeg2",
        reduction=Reduction.model_validate({"kernel": kernel, "width_x": width, "width_y": width}),
        codings=(_mpeg2(rng),),
    )


def _dvd(rng: np.random.Generator) -> Degradation:
    scan = _scan(rng, _DVD_SCANS)
    return Degradation(
        kind="dvd",
        reduction=_reduction(rng, scan, softness=0.35),
        sharpening=_sharpening(rng, 0.55),
        grain=_grain(rng, 0.5),
        scan=scan,
        codings=(_mpeg2(rng),),
    )


def _tape(rng: np.random.Generator) -> Degradation:
    scan = _scan(rng, _TAPE_SCANS)
    codec = _choice(rng, _TAPE_CODECS)
    coding = {"mpeg2video": _mpeg2(rng), "dvvideo": Coding(codec="dvvideo", group=1), "none": None}
    chosen = coding[codec]
    return Degradation(
        kind="tape",
        reduction=_reduction(rng, scan, softness=0.35),
        sharpening=_sharpening(rng, 0.5),
        grain=_grain(rng, 0.2),
        tape=Tape(
            luma_lines=_between(rng, 200, 300, 10),
            chroma_lines=_between(rng, 30, 60, 5),
            chroma_delay_x=_between(rng, -1, 4, 0.25),
            chroma_delay_y=float(rng.choice([0, 0, 1, 2])),
            luma_noise=_between(rng, 0.5, 5),
            chroma_noise=_between(rng, 0.5, 5),
            jitter=_between(rng, 0, 0.4) if rng.random() < 0.7 else 0.0,
            dot_crawl=_between(rng, 0.1, 0.6) if rng.random() < 0.4 else 0.0,
            head_switching=int(rng.integers(4, 13)) if rng.random() < 0.1 else 0,
        ),
        scan=scan,
        codings=() if chosen is None else (chosen,),
    )


def _web(rng: np.random.Generator) -> Degradation:
    codings = [_web_coding(rng)]
    if rng.random() < 0.35:
        first = _web_coding(rng)
        codings.insert(0, first.model_copy(update={"size": _between(rng, 0.6, 1.4, 0.1)}))
    return Degradation(
        kind="web",
        reduction=_reduction(rng, Scan(), softness=0.25),
        sharpening=_sharpening(rng, 0.3),
        grain=_grain(rng, 0.25),
        codings=tuple(codings),
    )


def _scan(rng: np.random.Generator, shares: Mapping[str, float]) -> Scan:
    return Scan.model_validate(
        {
            "kind": _choice(rng, shares),
            "top_first": bool(rng.random() < 0.7),
            "per_field": bool(rng.random() < 0.25),
            "cadence": int(rng.integers(CYCLE)),
        }
    )


def _reduction(rng: np.random.Generator, scan: Scan, softness: float) -> Reduction:
    kernel = _choice(rng, _KERNELS)
    base = _SOFTEST[kernel]
    across = base * (1 + softness * rng.random() ** 2)
    down = across * (1 + 0.3 * rng.random() ** 2)
    if scan.kind == "interlaced":  # against twitter between lines
        down *= 1 + 0.5 * rng.random()
    return Reduction.model_validate(
        {"kernel": kernel, "width_x": round(across, 2), "width_y": round(down, 2)}
    )


def _sharpening(rng: np.random.Generator, share: float) -> Sharpening | None:
    if rng.random() >= share:
        return None
    amount = _between(rng, 0.15, 1.2)
    return Sharpening(
        amount_x=amount,
        amount_y=amount * float(rng.choice([0, 0.5, 1])),
        radius=_between(rng, 0.6, 2.2, 0.1),
    )


def _grain(rng: np.random.Generator, share: float) -> Grain | None:
    if rng.random() >= share:
        return None
    return Grain(strength=_between(rng, 0.5, 5), size=_between(rng, 0, 0.8, 0.1))


def _mpeg2(rng: np.random.Generator) -> Coding:
    b_pictures = int(rng.choice([0, 1, 2], p=[0.15, 0.15, 0.7]))
    options = {"intra_dc_precision": str(int(rng.choice([8, 9, 10])) - 8)}
    if rng.random() < 0.3:
        options["trellis"] = "1"
    return Coding(
        codec="mpeg2video",
        quantiser=_whole_between(rng, 2, 12),
        swing=_between(rng, 0, 0.25),
        group=int(rng.integers(9, 19)),
        b_pictures=b_pictures,
        options=options,
    )


def _web_coding(rng: np.random.Generator) -> Coding:
    codec = _choice(rng, _WEB_CODECS)
    if codec == "libx264":
        preset = str(rng.choice(["veryfast", "fast"]))
        # little to look ahead for at a constant quantiser
        options = {"preset": preset, "rc-lookahead": "4"}
        quantiser = int(rng.integers(20, 36))
        return Coding(
            codec="libx264", quantiser=quantiser, group=250, b_pictures=2, options=options
        )
    b_pictures = int(rng.choice([0, 1, 2])) if codec == "mpeg4" else 0
    options = {"mpeg4": {"flags": "+mv4" + ("+qpel" if rng.random() < 0.3 else "")}}.get(codec, {})
    return Coding.model_validate(
        {
            "codec": codec,
            "quantiser": _whole_between(rng, 3, 16),
            "swing": _between(rng, 0, 0.2),
            "group": 250,
            "b_pictures": b_pictures,
            "options": options,
        }
    )


def _choice(rng: np.random.Generator, shares: Mapping[_Name, float]) -> _Name:
    names, weights = list(shares), np.array(list(shares.values()), dtype=float)
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def _between(
    rng: np.random.Generator, low: int | float, high: int | float, step: int | float = 0.01
) -> float:
    """In whole steps, so that filters serve again and files can be read."""
    return float(round(round(rng.uniform(low, high) / step) * step, 2))


def _whole_between(rng: np.random.Generator, low: int, high: int) -> int:
    """As likely in every octave."""
    return round(float(np.exp(rng.uniform(np.log(low), np.log(high)))))
