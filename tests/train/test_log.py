"""What a run says of itself."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iart.train.curve import draw_curve, read_curves, thinned, ticks
from iart.train.log import Log
from tests.train.tiny import folder_of, make_pairs, options, run


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def steps(log: Log, count: int) -> None:
    for step in range(1, count + 1):
        log.step(step, 0.25 / step, 1e-3, math.inf if step == 2 else 0.5, samples=8, waited=0.0)


def test_lines_are_means_since_the_last(folder: Path):
    lines: list[str] = []
    chosen = options(logger__print_freq=2, train__total_iter=4)
    with Log(chosen, folder, 0, lines.append, main=True) as log:
        steps(log, 4)
    assert [line.split("  ")[:3] for line in lines] == [
        ["step 2 of 4", "loss 0.18750", "lr 1.00e-03"],
        ["step 4 of 4", "loss 0.07292", "lr 1.00e-03"],
    ]
    first, second = (json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines())
    assert first["gradient_norm"] is None  # JSON has no infinity
    assert (second["step"], second["loss"], second["gradient_norm"]) == (4, 0.0729167, 0.5)
    assert second["data_wait_share"] == 0
    assert second["samples_per_second"] > 0


def test_other_processes_say_nothing(folder: Path):
    lines: list[str] = []
    with Log(options(), folder, 0, lines.append, main=False) as log:
        steps(log, 3)
        log.note("text")
        log.scores(3, {"set/psnr": 30.0}, folder)
    assert lines == []
    assert list(folder.iterdir()) == []


# ---- TensorBoard, Weights & Biases


def logged(changes: dict[str, Any]) -> None:
    make_pairs(Path("pairs"))
    held_out = {
        "type": "VideoRecurrentTestDataset", "dataroot_gt": "pairs/gt", "dataroot_lq": "pairs/lq"
    }  # fmt: skip
    run(options(datasets__val=held_out, val__val_freq=2, train__total_iter=2, **changes))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what TensorBoard imports
def test_tensorboard():
    logged({"logger__use_tb_logger": True})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder_of() / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"loss", "lr", "gradient_norm", "val/val/psnr"} <= set(tags["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [1, 2]
    assert set(tags["images"]) == {"val/001", "val/002"}
    assert events.Images("val/001")[0].width == 3 * 64


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of what Weights & Biases imports
def test_weights_and_biases_offline(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    logged({"logger__wandb": {"project": "made"}})
    (run_folder,) = (folder_of() / "wandb").glob("offline-run-*")
    kept = (folder_of() / "wandb_id.txt").read_text()
    assert run_folder.name.endswith(kept)
    (record,) = run_folder.glob("run-*.wandb")
    assert b"gradient_norm" in record.read_bytes()


# ---- the learning curve


def test_a_run_leaves_its_curve():
    logged({})
    image = Image.open(folder_of() / "curve.png")
    assert image.size == (900, 300)  # one validation is no curve
    pixels = np.asarray(image.convert("RGB"))
    assert (pixels == (0x1F, 0x6F, 0xB2)).all(-1).sum() > 500


def test_curves_of_a_log(folder: Path):
    lines = [
        {"flow_step": 5, "flow_error": 1.0},
        {"step": 10, "loss": 0.5},
        {"step": 20, "loss": 0.4},
        {"step": 20, "val/a/psnr": 30.0, "val/a/ssim": 0.9},
        {"step": 20, "loss": 0.3},  # done again after a stop
        {"step": 30, "loss": None},
        {"step": 40, "val/a/psnr": 31.0},
    ]
    log = folder / "log.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 5')
    losses, scores = read_curves(log)
    assert losses == [(10.0, 0.5), (20.0, 0.3)]
    assert scores == {"a/psnr": [(20.0, 30.0), (40.0, 31.0)]}
    draw_curve(log, folder / "curve.png")
    with Image.open(folder / "curve.png") as image:
        assert image.size == (900, 600)


def test_long_curves_are_thinned():
    points = thinned([(float(x), float(x % 2)) for x in range(1000)], limit=250)
    assert len(points) == 250
    assert points[1] == (5.5, 0.5)
    assert thinned(points, limit=250) == points


def test_nothing_to_draw(folder: Path):
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    draw_curve(folder / "log.jsonl", folder / "curve.png")
    assert not (folder / "curve.png").exists()


@pytest.mark.parametrize(
    ("low", "high", "logarithmic", "expected"),
    [
        (0, 10, False, [0, 2, 4, 6, 8, 10]),
        (26.9, 30.2, False, [27, 28, 29, 30]),
        (0.004, 0.3, True, [0.005, 0.01, 0.02, 0.05, 0.1, 0.2]),
        (0.41, 0.43, True, [0.41, 0.415, 0.42, 0.425, 0.43]),
        (0, 300_000, False, [0, 100_000, 200_000, 300_000]),
    ],
)
def test_ticks_are_round(low: float, high: float, logarithmic: bool, expected: list[float]):
    assert ticks(float(low), float(high), logarithmic=logarithmic) == pytest.approx(expected)
