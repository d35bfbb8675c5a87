"""Check of a run before it starts: everything that it needs, and roughly what it takes."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from iart.data.pairs import SCALE
from iart.data.samples import Sample, TrainingSet
from iart.data.scenes import SceneSet
from iart.data.sets import ValidationSet, inspect, open_training_set, open_validation_set
from iart.device import free_memory, pick_device
from iart.errors import IARTError, OptionsError
from iart.train.measure import loss_magnitudes, step_cost
from iart.train.options.data import SceneOptions
from iart.train.options.run import TrainingOptions
from iart.train.processes import choose_precision, count_processes


@dataclass
class CheckReport:
    """Findings of a check.

    Attributes:
        lines: labels and what there is to say.
        problems: a line for everything that would stop or spoil the run.
    """

    lines: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Go on after a problem: the next may be one of another kind."""
        try:
            yield
        except IARTError as error:
            if str(error) not in self.problems:
                self.problems.append(str(error))


def check(
    options: TrainingOptions,
    *,
    device: str = "auto",
    devices: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CheckReport:
    """Open the data of a run, read the headers of all its files, and measure a step.

    Args:
        options: of the run.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        devices: processes that the run would have; None for one per GPU, at most `num_gpu`.
        progress: called with clips done and clips in all, for each set anew.

    Raises:
        DeviceError: there is no such device.
    """
    report = CheckReport()
    place = pick_device(device)
    report.problems += obstacles(options)
    training_set = None
    with report.collecting():
        training_set = open_training_set(options.datasets.train)
        _add_set(report, "training set", training_set, progress)
        _add_length(report, options, len(training_set), devices or count_processes(options, place))
    for key, section in options.datasets.validation.items():
        with report.collecting():
            _add_set(report, f"validation, {key}", open_validation_set(section), progress)
    frames = _frames(options)
    if training_set is not None:
        with report.collecting():
            sample = _add_sample(report, training_set, options.manual_seed)
            frames = len(sample.gt)
            _add_losses(report, options, sample, place)
    if frames is not None:
        with report.collecting():
            _add_cost(report, options, place, frames)
    return report


def obstacles(options: TrainingOptions) -> list[str]:
    """What a new run starts from and is not there: files of weights, scenes for lessons.

    Returns:
        A line for each: its place, its name, and what can be done without it.
    """
    pretrained, flow = options.path.pretrain_network_g, options.network_g.spynet_path
    wanted = [
        ("path.pretrain_network_g", pretrained, "path.pretrain_network_g=null (from nothing)"),
        ("path.resume_state", options.path.resume_state, "path.resume_state=null"),
    ]
    if pretrained is None:  # which has a flow network of its own
        without = "network_g.spynet_path=null (our own flow weights)"
        wanted.append(("network_g.spynet_path", flow, without))
    lines = []
    for file in options.weights_files():
        wanted.append((file.option, file.path, file.without))
        if file.path is None:
            lines.append(
                f"{file.option} is missing: name a file with the weights of {file.what}, in "
                f"{file.layout} layout (docs/training.md says where they are), or pass "
                f"{file.without}"
            )
    own_flow = pretrained is None and flow is None
    if options.train.flow and own_flow and not isinstance(options.datasets.train, SceneOptions):
        lines.append(
            "train.flow teaches on scenes, which datasets.train.type=SceneDataset has. Set "
            "train.flow=null, or network_g.spynet_path to a file"
        )
    return lines + [
        f"{place}: there is no file '{path}'. Name it, or pass {without}"
        for place, path, without in wanted
        if path is not None and not path.is_file()
    ]


def require_files(options: TrainingOptions) -> None:
    """See that all is there that a new run starts from; one that goes on needs nothing of it.

    Raises:
        OptionsError: something is missing; says what can be done without it.
    """
    for line in obstacles(options):
        raise OptionsError(line)


def batch_warning(options: TrainingOptions, devices: int) -> str | None:
    """What fewer devices than `num_gpu` mean for the batch, and how to restore it; or None."""
    if options.num_gpu == "auto" or devices >= options.num_gpu:
        return None
    steps = options.train.gradient_accumulation_steps
    each = options.datasets.train.batch_size_per_gpu * steps
    published, actual = options.num_gpu * each, devices * each
    restoring = math.ceil(options.num_gpu * steps / devices)
    restored = devices * options.datasets.train.batch_size_per_gpu * restoring
    return (
        f"the recipe is for num_gpu: {options.num_gpu} and this run has {devices}, so a step has "
        f"{actual} samples instead of {published}; "
        f"train.gradient_accumulation_steps={restoring} makes it {restored}"
    )


def _add_set(
    report: CheckReport,
    label: str,
    opened: TrainingSet | ValidationSet,
    progress: Callable[[int, int], None],
) -> None:
    """Clips, frames and sizes; and all that is wrong with files."""
    if isinstance(opened, SceneSet):
        sizes = Counter(scene.frames.shape[1:3] for scene in opened.scenes)
        frames = sum(len(scene.frames) for scene in opened.scenes)
        report.lines.append((label, f"{_clips(sizes, 1)}, {frames} frames"))
        return
    problems = inspect(opened, progress=progress)
    report.problems += problems
    pairs = opened.pairs
    if not pairs:
        report.lines.append((label, f"{len(opened)} scenes"))
    elif not problems:
        frames = sum(pair.count for pair in pairs)
        sizes = Counter(pair.size for pair in pairs)
        report.lines.append((label, f"{_clips(sizes, SCALE)}, {frames} frames of each"))


def _clips(sizes: Counter[tuple[int, ...]], scale: int) -> str:
    """Number and most frequent size of clips; `scale` is that of the ground truth."""
    (height, width), _ = sizes.most_common(1)[0]
    low = f" and {width}×{height}" if scale > 1 else ""
    others = f" (and {len(sizes) - 1} other sizes)" if len(sizes) > 1 else ""
    return f"{sizes.total()} clips of {scale * width}×{scale * height}{low}{others}"


def _add_length(report: CheckReport, options: TrainingOptions, items: int, devices: int) -> None:
    """What a step and an epoch are."""
    section, recipe = options.datasets.train, options.train
    batch = devices * section.batch_size_per_gpu * recipe.gradient_accumulation_steps
    epoch = items * section.dataset_enlarge_ratio
    epochs = recipe.total_iter * batch / epoch
    report.lines.append(("batch", batch_warning(options, devices) or f"{batch} samples a step"))
    report.lines.append(
        ("epoch", f"{epoch} samples; {recipe.total_iter} steps are {_short(epochs)} epochs")
    )


def _frames(options: TrainingOptions) -> int | None:
    """Of a sample, as far as the options tell."""
    section = options.datasets.train
    if isinstance(section, SceneOptions) or section.num_frame < 0:
        return section.num_frame if section.num_frame > 0 else None
    return section.num_frame * (2 if section.flip_sequence else 1)


def _add_sample(report: CheckReport, training_set: TrainingSet, seed: int) -> Sample:
    """Make a sample, which also decodes some images."""
    began = time.monotonic()
    sample = training_set.sample(0, 0, seed)
    seconds = time.monotonic() - began
    frames, _, height, width = sample.gt.shape
    size = f"{width}×{height} from {width // SCALE}×{height // SCALE}"
    report.lines.append(("sample", f"{frames} frames, {size}, made in {_duration(seconds)}"))
    return sample


def _measurable(options: TrainingOptions) -> TrainingOptions:
    """The run without losses whose files are missing: that has been said, the rest is measured."""
    missing = {
        file.option.split(".")[1]: None
        for file in options.weights_files()
        if file.option.startswith("train.") and (file.path is None or not file.path.is_file())
    }
    return options.model_copy(update={"train": options.train.model_copy(update=missing)})


def _add_losses(
    report: CheckReport, options: TrainingOptions, sample: Sample, device: torch.device
) -> None:
    """Value, gradient and share of each loss."""
    for found in loss_magnitudes(_measurable(options), sample, device):
        text = f"{found.value:.3g}, gradient {found.gradient:.3g}, {found.share:.0%} of all"
        report.lines.append((f"loss {found.name}", text))


def _add_cost(
    report: CheckReport, options: TrainingOptions, device: torch.device, frames: int
) -> None:
    """Memory and time of a step, and of the run."""
    options = _measurable(options)
    recipe = options.train
    precision = choose_precision(recipe, device)
    side = max(options.datasets.train.crop_sides) // SCALE
    cost = step_cost(options, device, precision, frames, side)
    how = "measured" if cost.measured else "estimated from smaller steps"
    kind = f"{str(precision).removeprefix('torch.')}, {how}"
    free = free_memory(device)
    spare = "" if free is None else f" ({free / 1e9:.3g} GB are free)"
    report.lines.append(("memory", f"about {cost.memory / 1e9:.2g} GB on {device}{spare}"))
    whole = _duration(cost.seconds * recipe.total_iter)
    lessons = ", besides those of train.flow" if recipe.flow else ""
    steps = f"{whole} for {recipe.total_iter} steps{lessons}"
    report.lines.append(("time", f"about {_duration(cost.seconds)} a step, {steps} ({kind})"))
    if free is not None and not cost.measured and cost.memory > free:
        report.problems.append(
            f"a step takes about {cost.memory / 1e9:.2g} GB, and {free / 1e9:.2g} GB are free: "
            "lower datasets.train.gt_size, num_frame or batch_size_per_gpu"
        )


def _duration(seconds: float) -> str:
    """E.g. "0.12 s", "77 min", "12 days"."""
    for unit, length, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < limit:
            return f"{_short(seconds / length)} {unit}"
    return f"{_short(seconds / 86_400)} days"


def _short(number: float) -> str:
    """Two digits, or all before the point."""
    return f"{number:.2g}" if number < 10 else f"{number:.0f}"
