"""Drawn stills: sharp pictures to learn from that need no licence.

Dead leaves: shapes fall on each other, their sizes distributed by a power law, which gives pictures
the statistics of natural ones (Lee, Mumford and Huang 2001, "Occlusion models for natural images").
"""

from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from iart.data.clips import Scene

# Drawn so much larger, then reduced, which smooths edges.
_LARGER = 2
# Radii as a share of the side; their density falls with the third power.
_LEAST, _MOST = 0.016, 0.4
_LEAVES = 420
_SHAPES = ("disc", "polygon", "grating", "gradient", "text")
_SHARES = (0.25, 0.3, 0.2, 0.1, 0.15)
_LETTERS = "ABCDEFGHIKLMNOPRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789&?!%+=/:."
_STILL = 7  # last word of a generator's seed


@lru_cache(maxsize=24)
def drawn_still(seed: int, number: int, side: int) -> Scene:
    """One still as a scene of one frame.

    Args:
        seed: of the run.
        number: of the still.
        side: in pixels.
    """
    rng = np.random.default_rng((seed, number, _STILL))
    return Scene(f"drawn still {number}", draw_leaves(rng, side)[None])


def draw_leaves(rng: np.random.Generator, side: int) -> UInt8[np.ndarray, "s s 3"]:
    """A picture of discs, polygons, gratings, gradients and text on each other."""
    large = _LARGER * side
    image = Image.new("RGB", (large, large), _color(rng))
    for _ in range(_LEAVES):
        # inverse of the distribution function of a density ~ r^-3
        uniform = rng.random()
        radius = large * (_LEAST**-2 - uniform * (_LEAST**-2 - _MOST**-2)) ** -0.5
        shape = _SHAPES[int(rng.choice(len(_SHAPES), p=_SHARES))]
        centre = rng.uniform(0, large, 2)
        _drop(image, shape, centre, radius, rng)
    return np.asarray(image.reduce(_LARGER))


def _drop(
    image: Image.Image, shape: str, centre: np.ndarray, radius: float, rng: np.random.Generator
) -> None:
    draw = ImageDraw.Draw(image)
    x, y = (float(c) for c in centre)
    if shape == "text":
        letters = "".join(rng.choice(list(_LETTERS), size=int(rng.integers(1, 9))))
        size = float(np.clip(1.2 * radius, 14, 0.2 * image.width))
        font = ImageFont.load_default(size=size)
        draw.text((x, y), letters, fill=_color(rng), font=font, anchor="mm")
        return
    outline = _outline(shape, x, y, radius, rng)
    if shape in ("disc", "polygon"):
        draw.polygon(outline, fill=_color(rng))
        return
    corners = np.array(outline)
    left, top = np.floor(corners.min(axis=0)).astype(int)
    width, height = (np.ceil(corners.max(axis=0)).astype(int) - (left, top) + 1).tolist()
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).polygon([(a - left, b - top) for a, b in outline], fill=255)
    image.paste(_filling(shape, width, height, rng), (int(left), int(top)), mask)


def _outline(
    shape: str, x: float, y: float, radius: float, rng: np.random.Generator
) -> list[tuple[float, float]]:
    if shape == "disc":
        angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        reach = np.full(48, radius)
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
        reach = radius * rng.uniform(0.4, 1.4, len(angles))
    squeeze, turn = rng.uniform(0.3, 1), rng.uniform(0, np.pi)
    along, across = reach * np.cos(angles), squeeze * reach * np.sin(angles)
    xs = x + along * np.cos(turn) - across * np.sin(turn)
    ys = y + along * np.sin(turn) + across * np.cos(turn)
    return list(zip(xs.tolist(), ys.tolist(), strict=True))


def _filling(shape: str, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Two colours that change along a direction: in waves or stripes, or once."""
    turn = rng.uniform(0, np.pi)
    place = (
        np.arange(width, dtype=np.float32) * np.float32(np.cos(turn))
        + np.arange(height, dtype=np.float32)[:, None] * np.float32(np.sin(turn))
    )  # fmt: skip
    if shape == "grating":
        period = _LARGER * float(np.exp(rng.uniform(np.log(3), np.log(30))))
        share = 0.5 + 0.5 * np.sin(2 * np.pi / period * place)
        if rng.random() < 0.5:
            share = (share > rng.uniform(0.2, 0.8)).astype(np.float32)
    else:
        share = (place - place.min()) / max(float(np.ptp(place)), 1.0)
    first, second = (np.array(_color(rng), dtype=np.float32) for _ in range(2))
    return Image.fromarray((first + share[..., None] * (second - first)).astype(np.uint8))


def _color(rng: np.random.Generator) -> tuple[int, int, int]:
    """Mostly weak colours, as in photographs."""
    grey, strength = rng.uniform(10, 245), rng.uniform(0, 1) ** 2 * 110
    values = np.clip(grey + strength * rng.uniform(-1, 1, 3), 0, 255)
    red, green, blue = (int(value) for value in values)
    return red, green, blue
