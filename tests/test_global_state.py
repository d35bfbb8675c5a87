"""What belongs to the whole process is as before after every public call, in threads too."""

import locale
import logging
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av.logging
import numpy as np
import pytest
import torch

import iart
from tests.model.formula import with_formula_weights
from tests.model.test_pieces import SMALL
from tests.video.clips import make_clip

for _name in iart.__all__:  # their modules come with loggers of their own
    getattr(iart, _name)


def state() -> dict[str, Any]:
    """Of this process and thread."""
    umask = os.umask(0)
    os.umask(umask)
    conv = getattr(torch.backends.cudnn, "conv", None)  # torch 2.9 and later
    return {
        "default type": torch.get_default_dtype(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
        # Python's own is drawn from by beartype, which checks types in tests.
        "random": (torch.get_rng_state().tolist(), pickle.dumps(np.random.get_state())),  # noqa: NPY002
        "cudnn": (
            torch.backends.cudnn.enabled,
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            conv and conv.fp32_precision,
        ),
        "oneDNN": conv and torch.backends.mkldnn.conv.fp32_precision,  # pyright: ignore[reportAttributeAccessIssue]
        "products": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "FFmpeg's log": (av.logging.get_level(), av.logging.get_skip_repeated()),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "locale": locale.setlocale(locale.LC_ALL),
        "umask": umask,
        "scheduling": hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "warnings": list(warnings.filters),
        "logging": (
            logging.root.level,
            logging.root.manager.disable,
            {
                name: (logger.level, logger.propagate, list(logger.handlers))
                for name, logger in logging.root.manager.loggerDict.items()
                if isinstance(logger, logging.Logger) and name.split(".")[0] in ("iart", "libav")
            },
        ),
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [name for name in before if before[name] != after[name]]


def calls(folder: Path, name: str) -> dict[str, Callable[[], object]]:
    """Every public function and class that does something, on files of its own."""
    source = folder / f"{name}.mkv"
    make_clip(source, frames=5)
    network = with_formula_weights(iart.IART(SMALL)).eval()
    weights = folder / f"{name}.safetensors"

    def read() -> None:
        with iart.VideoReader(source) as video:
            list(video)

    def write() -> None:
        with (
            iart.VideoReader(source) as video,
            iart.VideoWriter(folder / f"{name}-written.mkv", like=video.info, scale=4) as out,
        ):
            for frame in iart.upscale_frames(video, network):
                out.write(frame)

    def stream() -> None:
        with iart.VideoReader(source) as video:
            list(iart.upscale_frames(video, network, window=3, overlap=1))

    clip = torch.rand(3, 3, 9, 13, generator=torch.Generator().manual_seed(0))
    return {
        "save_model": lambda: iart.save_model(network, weights),
        "load_model": lambda: iart.load_model(weights, "cpu"),
        "model_names": iart.model_names,
        "upscale": lambda: iart.upscale(clip, network),
        "upscale_frames": stream,
        "VideoReader": read,
        "VideoWriter": write,
        "upscale_video": lambda: iart.upscale_video(source, folder / f"{name}-x4.mkv", network),
    }


def test_every_call_leaves_the_process_as_it_was(tmp_path: Path):
    for name, call in calls(tmp_path, "one").items():
        before = state()
        call()
        assert differences(before, state()) == [], name


def test_calls_that_fail_leave_the_process_as_it_was(tmp_path: Path):
    (tmp_path / "a.mkv").write_bytes(b"no video")
    (tmp_path / "a.pth").write_bytes(b"PK no weights")
    failing = {
        "load_model": lambda: iart.load_model(tmp_path / "a.pth", "cpu"),
        "upscale": lambda: iart.upscale(300 * torch.ones(1, 3, 8, 8), torch.nn.Identity()),
        "VideoReader": lambda: iart.VideoReader(tmp_path / "a.mkv"),
        "upscale_video": lambda: iart.upscale_video(
            tmp_path / "a.mkv", tmp_path / "b.mkv", iart.load_model("bicubic")
        ),
    }
    for name, call in failing.items():
        before = state()
        with pytest.raises(iart.IARTError):
            call()
        assert differences(before, state()) == [], name


def test_calls_in_threads_leave_the_process_as_it_was(tmp_path: Path):
    together = [calls(tmp_path, name) for name in ("first", "second")]
    before = state()
    seen: list[tuple[str, list[str]]] = []
    start = threading.Barrier(len(together))

    def work(own: dict[str, Callable[[], object]]) -> None:
        start.wait()
        mine = {name: state()[name] for name in ("threads", "modes", "autocast")}
        for name, call in own.items():
            call()
            after = state()
            seen.append((name, [key for key in mine if mine[key] != after[key]]))

    threads = [threading.Thread(target=work, args=(own,)) for own in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == sum(map(len, together))
    assert [(name, changed) for name, changed in seen if changed] == []
    assert differences(before, state()) == []


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_other_default_types_do_not_change_what_is_made(default: torch.dtype):
    network = with_formula_weights(iart.IART(SMALL)).eval()
    clip = torch.rand(3, 3, 9, 13, generator=torch.Generator().manual_seed(0))
    expected = iart.upscale(clip, network)
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        assert iart.upscale(clip, network).equal(expected)
    finally:
        torch.set_default_dtype(before)
