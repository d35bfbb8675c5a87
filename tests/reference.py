"""The equations of the network as slow float64 loops: written to be read, not to be fast.

One clip at a time, maps as numpy arrays `h w c`, flows `h w 2` with (x, y) last. Weights are looked
up by name in a dictionary. Nothing of the implementation is used but one constant, `SNAP`.
"""

import math
from collections.abc import Iterator

import numpy as np
from torch import nn

from iart.model.kernels import SNAP

Array = np.ndarray
Weights = dict[str, Array]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def weights_of(module: nn.Module) -> Weights:
    return {name: p.detach().double().numpy() for name, p in module.named_parameters()}


def part(weights: Weights, prefix: str) -> Weights:
    start = prefix + "."
    return {name[len(start) :]: w for name, w in weights.items() if name.startswith(start)}


def count(weights: Weights, prefix: str) -> int:
    """How many numbered parts there are below a prefix."""
    return len({name.split(".")[0] for name in part(weights, prefix)})


def pixels(x: Array) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(x.shape[0]) for j in range(x.shape[1]))


# ---- layers


def convolution(x: Array, weights: Weights) -> Array:
    """Zero-padded so that the size stays; weight `out in k k`."""
    weight, bias = weights["weight"], weights["bias"]
    k = weight.shape[-1]
    padded = np.pad(x, ((k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    out = np.empty((*x.shape[:2], len(bias)))
    for i, j in pixels(out):
        out[i, j] = bias + np.einsum("oiyx,yxi->o", weight, padded[i : i + k, j : j + k])
    return out


def linear(x: Array, weights: Weights) -> Array:
    return weights["weight"] @ x + weights["bias"]


def layer_norm(x: Array, weights: Weights) -> Array:
    """Of one pixel's channels."""
    mean = sum(x) / len(x)
    variance = sum((x - mean) ** 2) / len(x)
    return (x - mean) / math.sqrt(variance + 1e-5) * weights["weight"] + weights["bias"]


def softmax(x: list[float]) -> list[float]:
    top = max(x)
    e = [math.exp(v - top) for v in x]
    return [v / sum(e) for v in e]


def leaky_relu(x: Array) -> Array:
    return np.where(x > 0, x, 0.1 * x)


def resize(x: Array, h: int, w: int, *, align_corners: bool) -> Array:
    """Bilinear; pixel centres of the corners match, or else the edges of the picture do."""

    def place(i: int, n_in: int, n_out: int) -> tuple[int, int, float]:
        if align_corners:
            position = i * (n_in - 1) / (n_out - 1) if n_out > 1 else 0.0
        else:
            position = max((i + 0.5) * n_in / n_out - 0.5, 0.0)
        first = min(int(position), n_in - 1)
        return first, min(first + 1, n_in - 1), position - first

    out = np.empty((h, w, x.shape[2]))
    for i, j in pixels(out):
        top, bottom, fy = place(i, x.shape[0], h)
        left, right, fx = place(j, x.shape[1], w)
        upper = (1 - fx) * x[top, left] + fx * x[top, right]
        lower = (1 - fx) * x[bottom, left] + fx * x[bottom, right]
        out[i, j] = (1 - fy) * upper + fy * lower
    return out


def warp(x: Array, flow: Array, padding: str) -> Array:
    """x at p + flow, bilinear; outside is zero, or the nearest pixel of the border."""
    h, w, c = x.shape

    def cell(i: int, j: int) -> Array:
        return x[i, j] if 0 <= i < h and 0 <= j < w else np.zeros(c)

    out = np.empty_like(x)
    for i, j in pixels(out):
        px, py = j + flow[i, j, 0], i + flow[i, j, 1]
        # The sampler's -1 … 1 covers 0 … side − 1; one pixel alone lies at -1, which is 0.
        px, py = (px * (w - 1) / max(w - 1, 1), py * (h - 1) / max(h - 1, 1))
        if padding == "border":
            px, py = min(max(px, 0), w - 1), min(max(py, 0), h - 1)
        x0, y0 = math.floor(px), math.floor(py)
        fx, fy = px - x0, py - y0
        upper = (1 - fx) * cell(y0, x0) + fx * cell(y0, x0 + 1)
        lower = (1 - fx) * cell(y0 + 1, x0) + fx * cell(y0 + 1, x0 + 1)
        out[i, j] = (1 - fy) * upper + fy * lower
    return out


# ---- flow


def spynet_level(ref: Array, other: Array, up: Array, weights: Weights) -> Array:
    x = np.concatenate((ref, warp(other, up, "border"), up), axis=-1)
    layers = sorted({int(name.split(".")[0]) for name in weights})
    for layer in layers:
        x = convolution(x, part(weights, str(layer)))
        if layer != layers[-1]:
            x = np.maximum(x, 0)
    return x + up


def half(x: Array) -> Array:
    out = np.empty((x.shape[0] // 2, x.shape[1] // 2, x.shape[2]))
    for i, j in pixels(out):
        out[i, j] = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean(axis=(0, 1))
    return out


def spynet(reference: Array, other: Array, weights: Weights) -> Array:
    """Flow that points from `reference` into `other`."""
    h, w, _ = reference.shape
    levels = count(weights, "levels")
    multiple = 2 ** (levels - 1)
    h32, w32 = (max(math.ceil(side / multiple) * multiple, 2 * multiple) for side in (h, w))
    pyramids = []
    for image in (reference, other):
        image = (resize(image, h32, w32, align_corners=False) - MEAN) / STD
        pyramid = [image]
        while len(pyramid) < levels:
            pyramid.append(half(pyramid[-1]))
        pyramids.append(pyramid[::-1])
    coarsest = pyramids[0][0]
    flow = np.zeros((coarsest.shape[0] // 2, coarsest.shape[1] // 2, 2))
    for level in range(levels):
        ref, oth = pyramids[0][level], pyramids[1][level]
        up = 2 * resize(flow, 2 * flow.shape[0], 2 * flow.shape[1], align_corners=True)
        missing = (ref.shape[0] - up.shape[0], ref.shape[1] - up.shape[1])
        up = np.pad(up, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        flow = spynet_level(ref, oth, up, part(weights, f"levels.{level}"))
    return resize(flow, h, w, align_corners=False) * (w / w32, h / h32)


# ---- implicit alignment


def sine_encoding(y: float, x: float, channels: int, m: int) -> Array:
    half_channels = channels // 2
    encoding = []
    for coordinate in (y, x):
        for j in range(half_channels):
            wavelength = 0.01 ** (2 * (j // 2) / half_channels)
            angle = coordinate / (m + 1e-6) * 2 * math.pi / wavelength
            encoding.append(math.cos(angle) if j % 2 else math.sin(angle))
    return np.array(encoding)


def align(source: Array, current: Array, flow: Array, weights: Weights, heads: int) -> Array:
    """Gather the four cells of every pixel, then project each of them."""
    h, w, c = source.shape
    d = c // heads
    out = np.empty_like(current)
    for i, j in pixels(out):
        px, py = j + flow[i, j, 0], i + flow[i, j, 1]
        x0, y0 = math.floor(px + SNAP), math.floor(py + SNAP)
        place = sine_encoding(py - y0, px - x0, c, m=2)
        query = linear(current[i, j] + place, part(weights, "query"))
        keys, values = [], []
        for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
            y, x = min(max(y0 + dy, 0), h - 1), min(max(x0 + dx, 0), w - 1)
            cell = source[y, x] + sine_encoding(dy, dx, c, m=1)
            keys.append(linear(cell, part(weights, "key")))
            values.append(linear(cell, part(weights, "value")))
        for n in range(heads):
            head = slice(n * d, (n + 1) * d)
            share = softmax([float(query[head] @ key[head]) / math.sqrt(d) for key in keys])
            out[i, j, head] = sum(s * v[head] for s, v in zip(share, values, strict=True))
    return out


# ---- window attention; maps are lists of three frames


def region(i: int, side: int, k: int) -> int:
    """Which of [0, −k), [−k, −k/2), [−k/2, end) the row or column `i` is in."""
    return 0 if i < side - k else 1 if i < side - k // 2 else 2


def window_attention(
    maps: list[Array], weights: Weights, window: tuple[int, int, int], heads: int, *, shifted: bool
) -> list[Array]:
    """Three frames of normalised tokens → what attention adds to them."""
    h, w, c = maps[0].shape
    _, kh, kw = window
    rows, columns = math.ceil(h / kh) * kh, math.ceil(w / kw) * kw
    padded = [np.zeros((rows, columns, c)) for _ in maps]
    for frame, x in zip(padded, maps, strict=True):
        frame[:h, :w] = x
    if shifted:
        padded = [np.roll(frame, (-(kh // 2), -(kw // 2)), axis=(0, 1)) for frame in padded]
    out = [np.zeros_like(frame) for frame in padded]
    for top in range(0, rows, kh):
        for left in range(0, columns, kw):
            cells = [(t, top + i, left + j) for t in range(3) for i in range(kh) for j in range(kw)]
            tokens = [padded[t][i, j] for t, i, j in cells]
            results = attend(tokens, cells, (rows, columns), weights, window, heads, shifted)
            for (t, i, j), result in zip(cells, results, strict=True):
                out[t][i, j] = result
    if shifted:
        out = [np.roll(frame, (kh // 2, kw // 2), axis=(0, 1)) for frame in out]
    return [frame[:h, :w] for frame in out]


def attend(
    tokens: list[Array],
    cells: list[tuple[int, int, int]],
    size: tuple[int, int],
    weights: Weights,
    window: tuple[int, int, int],
    heads: int,
    shifted: bool,
) -> list[Array]:
    """Attention inside one window, cell by cell and head by head."""
    _, kh, kw = window
    c = len(tokens[0])
    d = c // heads
    qkv = [linear(token, part(weights, "qkv")).reshape(3, heads, d) for token in tokens]
    keys, values = np.stack([x[1] for x in qkv]), np.stack([x[2] for x in qkv])
    regions = [(region(i, size[0], kh), region(j, size[1], kw)) for _, i, j in cells]
    results = []
    for a, (qt, qi, qj) in enumerate(cells):
        bias = np.empty((len(cells), heads))
        for b, (kt, ki, kj) in enumerate(cells):
            t, y, x = qt - kt + 2, qi - ki + kh - 1, qj - kj + kw - 1
            bias[b] = weights["position_bias"][(t * (2 * kh - 1) + y) * (2 * kw - 1) + x]
            if shifted and regions[a] != regions[b]:
                bias[b] += -100
        out = np.empty((heads, d))
        for n in range(heads):
            logits = keys[:, n] @ qkv[a][0, n] / math.sqrt(d) + bias[:, n]
            share = np.exp(logits - logits.max())
            out[n] = (share / share.sum()) @ values[:, n]
        results.append(linear(out.reshape(c), part(weights, "proj")))
    return results


# ---- SwinIRFM: all three frames to the end


def each_pixel(maps: list[Array], weights: Weights) -> list[Array]:
    normed = [np.empty_like(x) for x in maps]
    for x, y in zip(maps, normed, strict=True):
        for i, j in pixels(x):
            y[i, j] = layer_norm(x[i, j], weights)
    return normed


def mlp(x: Array, weights: Weights) -> Array:
    out = np.empty_like(x)
    for i, j in pixels(x):
        hidden = linear(x[i, j], part(weights, "0"))
        hidden = np.array([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in hidden])
        out[i, j] = linear(hidden, part(weights, "2"))
    return out


def swin_irfm(
    maps: list[Array], weights: Weights, heads: tuple[int, ...], window: tuple[int, int, int]
) -> Array:
    """[previous, current, second-previous] → the fused current map."""
    x = each_pixel(maps, part(weights, "embed_norm"))
    for g, n in enumerate(heads):
        group = part(weights, f"groups.{g}")
        y = x
        for b in range(count(group, "blocks")):
            block = part(group, f"blocks.{b}")
            normed = each_pixel(y, part(block, "norm1"))
            attention = part(block, "attention")
            added = window_attention(normed, attention, window, n, shifted=b % 2 == 1)
            y = [a + v for a, v in zip(y, added, strict=True)]
            normed = each_pixel(y, part(block, "norm2"))
            y = [a + mlp(v, part(block, "mlp")) for a, v in zip(y, normed, strict=True)]
        y = [convolution(v, part(group, "conv")) for v in y]
        x = [a + v for a, v in zip(x, y, strict=True)]
    x = each_pixel(x, part(weights, "norm"))
    return convolution(x[1], part(weights, "conv")) + maps[1]


# ---- the whole network


def network(
    frames: list[Array],
    weights: Weights,
    heads: tuple[int, ...],
    window: tuple[int, int, int],
    branches: int,
) -> list[Array]:
    """A clip, enlarged four times."""
    t = len(frames)
    flow = part(weights, "flow")
    backward = [spynet(frames[i], frames[i + 1], flow) for i in range(t - 1)]
    forward = [spynet(frames[i + 1], frames[i], flow) for i in range(t - 1)]
    features = [convolution(frame, part(weights, "extract")) for frame in frames]
    for name in ("backward_1", "forward_1", "backward_2", "forward_2")[:branches]:
        order = list(range(t))
        if name.startswith("backward"):
            order = order[::-1]
        outputs: dict[int, Array] = {}
        f1 = np.zeros(())
        for step, i in enumerate(order):
            x = features[i]
            if step == 0:
                maps = [x, x, x]
            else:
                before, f1 = f1, backward[i] if name.startswith("backward") else forward[i - 1]
                aligner = part(weights, "align")
                p1 = align(outputs[order[step - 1]], x, f1, aligner, heads[0])
                if step == 1:
                    p2 = np.zeros_like(x)
                else:
                    f2 = f1 + warp(before, f1, "zeros")
                    p2 = align(outputs[order[step - 2]], x, f2, aligner, heads[0])
                maps = [p1, x, p2]
            outputs[i] = swin_irfm(maps, part(weights, f"branches.{name}"), heads, window)
        features = [outputs[i] for i in range(t)]
    return [head(x, f, part(weights, "head")) for x, f in zip(features, frames, strict=True)]


def pixel_shuffle(x: Array) -> Array:
    h, w, c = x.shape
    out = np.empty((2 * h, 2 * w, c // 4))
    for i, j in pixels(out):
        for k in range(c // 4):
            out[i, j, k] = x[i // 2, j // 2, 4 * k + 2 * (i % 2) + j % 2]
    return out


def head(x: Array, frame: Array, weights: Weights) -> Array:
    x = convolution(x, part(weights, "reduce"))
    x = leaky_relu(pixel_shuffle(convolution(x, part(weights, "up1"))))
    x = leaky_relu(pixel_shuffle(convolution(x, part(weights, "up2"))))
    x = convolution(leaky_relu(convolution(x, part(weights, "refine"))), part(weights, "last"))
    h, w, _ = frame.shape
    return x + resize(frame, 4 * h, 4 * w, align_corners=False)
