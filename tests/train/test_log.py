"""What a run says of itself."""

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from iart.train.log import Log, draw_curves, opened_log, read_curves
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
    with opened_log(chosen, folder, 0, lines.append, main=True) as log:
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
    with opened_log(options(), folder, 0, lines.append, main=False) as log:
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


def drawn(path: Path) -> list[tuple[str, int]]:
    """What each chart of an SVG shows, and of how many points its line is."""
    charts = ElementTree.parse(path).getroot().findall("{*}svg")
    lines = [next(p for p in c.iter() if p.get("class") == "line") for c in charts]
    return [
        (str(c.get("aria-label")).split(" against")[0], str(line.get("d")).count("L") + 1)
        for c, line in zip(charts, lines, strict=True)
    ]


def test_a_run_leaves_its_curve():
    logged({})
    assert drawn(folder_of() / "curve.svg") == [("loss", 2)]  # one validation is no curve


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
    assert read_curves(log) == {"loss": {10: 0.5, 20: 0.3}, "val/a/psnr": {20: 30.0, 40: 31.0}}
    draw_curves(log, folder / "curve.svg")
    assert drawn(folder / "curve.svg") == [("loss", 2), ("val/a/psnr", 2)]


def test_long_curves_are_thinned(folder: Path):
    lines = [json.dumps({"step": step, "loss": 1.0}) + "\n" for step in range(1, 1001)]
    (folder / "log.jsonl").write_text("".join(lines))
    draw_curves(folder / "log.jsonl", folder / "curve.svg")
    assert drawn(folder / "curve.svg") == [("loss", 250)]


def test_nothing_to_draw(folder: Path):
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    draw_curves(folder / "log.jsonl", folder / "curve.svg")
    assert not (folder / "curve.svg").exists()
