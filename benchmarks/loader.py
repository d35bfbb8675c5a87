"""What loading costs: a sample against Pillow's decode of its files, and steps against memory.

    python benchmarks/loader.py              # a sample of 16 frames of 720p, one thread
    python benchmarks/loader.py --steps 8    # also steps of the light model with the loader
    python benchmarks/loader.py --degrade 40 # also degradations, so many of each kind
    python benchmarks/loader.py --scenes 20  # also batches of scenes, made by threads or the device

Frames are the demo clip enlarged to 720p, so that PNG has real footage to work on.

On a busy machine with 2 cores of an AMD EPYC: the sample ×1.02 of the decode. A step of the light
model takes 0.95 s of processor time, making its 4 scenes 0.06 s, and 4 samples of 5 + 5 PNG of 720p
0.46 s, which two cores that compute cannot hide.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from PIL import Image

import iart
from iart.data.augment import degradation_generator
from iart.data.batches import finished
from iart.data.clips import DrawnCrop, load_scenes, send_crops, there_and_back, to_clip
from iart.data.degradation.chain import degrade
from iart.data.degradation.draw import degradation_shares, draw_kind
from iart.data.degradation.parameters import padded
from iart.data.loader import Batch, Loader
from iart.data.motion import Motion, send_motions
from iart.data.pairs import SCALE, found_pairs
from iart.data.scenes import SceneSet
from iart.data.sets import PairedSet, Recipe
from iart.data.stores.folder import FolderStore
from iart.model import IART
from iart.pictures.degrade import degrade_bi, to_uint8
from iart.pictures.resize import imresize
from iart.train.options.data import SceneOptions
from iart.train.options.read import read_options
from iart.video.open import open_video

FRAMES = 16
CLIP = Path(iart.__file__).parent / "assets" / "demo.mp4"
OPTIONS = Path(__file__).parents[1] / "options" / "IART_light.yml"
DVD_OPTIONS = OPTIONS.with_name("IART_dvd.yml")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure what loading costs.")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--degrade", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_clip(root)
        measure_sample(root, arguments.repeats)
        if arguments.steps:
            measure_steps(root, arguments.steps, arguments.workers)
    if arguments.degrade:
        measure_degradations(arguments.degrade)
    if arguments.scenes:
        measure_scenes(arguments.scenes)


def write_clip(root: Path) -> None:
    """GT/a and LQ/a as PNG."""
    for index, frame in enumerate(islice(open_video(CLIP, scenes=False), FRAMES)):
        truth = to_uint8(imresize(frame.data, 2.0))
        for name, image in (("GT", truth), ("LQ", degrade_bi(truth))):
            place = root / name / "a"
            place.mkdir(parents=True, exist_ok=True)
            picture = rearrange(image, "c h w -> h w c").numpy()
            Image.fromarray(picture).save(place / f"{index:08d}.png")


def paired(root: Path, frames: int, side: int) -> PairedSet:
    """The clip as a training set."""
    pairs = found_pairs(FolderStore(root / "GT"), FolderStore(root / "LQ"))
    return PairedSet(pairs, Recipe(frames, (side,), use_hflip=True, use_rot=True))


def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure_sample(root: Path, repeats: int) -> None:
    """Both kinds of work alternate, and the fastest of each counts: others use the machine too."""
    torch.set_num_threads(1)
    files = sorted(root.rglob("*.png"))
    training_set = paired(root, FRAMES, 256)

    def decode() -> None:
        for file in files:
            with Image.open(file) as image:
                image.load()

    training_set.sample(0, 0, 0)
    pairs = [
        (seconds(decode), seconds(lambda i=i: training_set.sample(0, i, 0))) for i in range(repeats)
    ]
    bare, whole = (min(column) for column in zip(*pairs, strict=True))
    print(f"Pillow decodes {len(files)} files   {1000 * bare:7.1f} ms")
    print(f"a sample of them           {1000 * whole:7.1f} ms, ×{whole / bare:.3f}")


def measure_degradations(count: int) -> None:
    """Processor time of 7 frames of 192×192 ground truth; the clip is in memory already."""
    torch.set_num_threads(1)
    source = to_clip(load_scenes(CLIP.parent, include=(CLIP.name,))[0].frames)
    side, frames = SCALE * padded(192 // SCALE), 7
    shares = degradation_shares(read_options(DVD_OPTIONS).datasets.train.degradation)
    assert shares is not None
    means = {}
    for kind in shares:
        spent = []
        for index in range(count):
            how = draw_kind(kind, degradation_generator(0, index))
            places = there_and_back(range(how.moments(frames)), len(source))
            clip = source[places, :, :side, :side].contiguous()
            began = time.process_time()
            degrade(clip, how, frames)
            spent.append(time.process_time() - began)
        means[kind] = sum(spent) / count
        print(f"{kind:<8} {1000 * means[kind]:6.1f} ms of processor time")
    mean = sum(shares[kind] * means[kind] for kind in shares) / sum(shares.values())
    print(f"mean over the shares of IART_dvd.yml {1000 * mean:6.1f} ms")


def measure_scenes(batches: int) -> None:
    """Processor time of a sample of the light recipe, by who computes it; all take turns.

    On the meta device nothing is computed: what is packed for it is packed for a GPU, too.
    """
    torch.set_num_threads(1)
    training_set, data = light_scenes()
    size, cpu, meta = data.batch_size_per_gpu, torch.device("cpu"), torch.device("meta")
    spent: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = work()
        spent.setdefault(name, []).append((time.process_time() - began) / size)
        return result

    for first in range(0, size * (batches + 1), size):
        indices = range(first, first + size)
        whole = timed("threads: made", lambda i=indices: [training_set.sample(0, n, 0) for n in i])
        timed("threads: stacked", lambda whole=whole: finished(whole, cpu))
        drawn = timed("device: drawn", lambda i=indices: [training_set.begin(0, n, 0) for n in i])
        timed("device: packed", lambda drawn=drawn: packed(drawn, meta))
        timed("device: packed and computed, by the CPU", lambda drawn=drawn: finished(drawn, cpu))
    for name, seconds in spent.items():
        mean = sum(seconds[1:]) / batches  # the first fills caches
        print(f"{name:<40} {1000 * mean:6.2f} ms of processor time a sample")


def packed(drawn: Sequence[Any], device: torch.device) -> None:
    """What the processor does to let a device compute samples."""
    if crops := [each.source for each in drawn if isinstance(each.source, DrawnCrop)]:
        send_crops(crops, device)
    if motions := [each.source for each in drawn if isinstance(each.source, Motion)]:
        send_motions(motions, device)


def light_scenes() -> tuple[SceneSet, SceneOptions]:
    """The demo clip as the light recipe's training set."""
    data = read_options(OPTIONS).datasets.train
    assert isinstance(data, SceneOptions)
    scenes = SceneSet(
        load_scenes(CLIP.parent, include=(CLIP.name,)),
        num_frame=data.num_frame,
        gt_size=data.gt_size,
        reduce=data.reduce,
        still_share=data.still_share,
    )
    return scenes, data


def measure_steps(root: Path, steps: int, workers: int) -> None:
    """Steps of the light recipe, on its own kind of data (scenes in memory) and on 720p PNG."""
    options = read_options(OPTIONS)
    scenes, data = light_scenes()
    torch.set_num_threads(options.num_threads or 2)
    model = IART(options.network_g.config()).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)

    def step(batch: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.sqrt((model(batch.lq) - batch.gt).square() + 1e-12).mean().backward()
        optimizer.step()

    for name, training_set in (
        ("scenes", scenes),
        ("720p PNG", paired(root, data.num_frame, data.gt_size)),
    ):
        with Loader(
            training_set, batch_size=data.batch_size_per_gpu, seed=0, workers=workers
        ) as loader:
            memory, loaded = compare(step, iter(loader), steps)
        print(
            f"{name:<9} a step {memory:.2f} s on a batch in memory, {loaded:.2f} s with the loader,"
            f" ×{loaded / memory:.3f} ({workers} workers)"
        )


def compare(
    step: Callable[[Batch], None], batches: Iterator[Batch], steps: int
) -> tuple[float, ...]:
    """Seconds of a step on one batch again and again, and on a new one every time."""
    kept = next(batches)
    step(kept)
    times = [
        (seconds(lambda: step(kept)), seconds(lambda: step(next(batches)))) for _ in range(steps)
    ]
    return tuple(min(column) for column in zip(*times, strict=True))


if __name__ == "__main__":
    main()
