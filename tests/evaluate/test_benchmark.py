"""Whole benchmarks on made clips: scores, notes, what is kept, what is refused."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from iart.errors import DataError, DeviceError, OptionsError, OutputError, WeightsError
from iart.evaluate import benchmark
from iart.evaluate.benchmark import run
from iart.evaluate.results import Record, from_json
from iart.files.images import read_image, write_image
from iart.model import IART
from iart.model.bicubic import Bicubic
from iart.pictures.scores import psnr, ssim
from iart.upscaling.clip import upscale
from iart.weights import load_model, save_model, weights_hash
from tests.evaluate.made import CLIPS, make_data, make_protocol, picture
from tests.upscaling.test_clip import TINY


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data")


@pytest.fixture
def protocol(tmp_path: Path) -> Path:
    return make_protocol(tmp_path / "made.yml")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_model(IART(TINY), tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def scores(record: Record) -> list[list[dict[str, float]]]:
    return [[frame.values for frame in clip.frames] for clip in record.clips]


@pytest.mark.parametrize(("colour", "border"), [("y", 0), ("rgb", 4)])
def test_scores_are_those_of_the_frames(tmp_path: Path, data: Path, colour: str, border: int):
    protocol = make_protocol(tmp_path / "p.yml", colour=colour, border=border)
    record = run(protocol, weights="bicubic", data=data, output=tmp_path / "out")
    model = load_model("bicubic")
    for clip in record.clips:
        folder = data / "set" / "BIx4" / clip.name
        small = torch.stack([read_image(path) for path in sorted(folder.iterdir())])
        large = upscale(small.float() / 255, model)
        for frame, made in zip(clip.frames, large, strict=True):
            truth = read_image(data / "set" / "GT" / clip.name / frame.name)
            luma = colour == "y"
            assert frame.values == {
                "psnr": psnr(made, truth, crop=border, luma=luma),
                "ssim": ssim(made, truth, crop=border, luma=luma),
            }
    means = [sum(f.values["psnr"] for f in c.frames) / len(c.frames) for c in record.clips]
    assert record.means()["psnr"] == pytest.approx(sum(means) / 2)
    assert [len(clip.frames) for clip in record.clips] == [3, 2]
    assert all(clip.crops for clip in record.clips)


def test_the_record_says_what_was_measured(tmp_path: Path, data: Path, tiny: Path):
    expected = {"psnr": 30.0, "ssim": 0.9, "of": "somebody"}
    protocol = make_protocol(tmp_path / "p.yml", expected=expected, note="made data")
    shown: list[tuple[int, int]] = []
    record = run(
        protocol,
        weights=tiny,
        data=data,
        output=tmp_path / "out",
        command="iart test p.yml",
        device="cpu",
        progress=lambda *counts: shown.append(counts),
    )
    assert record.protocol.name == "p"
    assert record.protocol.expected == {"psnr": 30.0, "ssim": 0.9}
    assert record.protocol.expected_of == "somebody"
    assert record.command == "iart test p.yml"
    assert record.model == "tiny"
    assert record.weights_hash == weights_hash(load_model(tiny))
    assert record.precision == "float32"
    assert record.notes == ("made data",)
    assert record.date.tzinfo is not None
    assert not any(clip.windowed or clip.lr_made for clip in record.clips)
    assert shown == [(3, 5), (5, 5)]
    assert from_json((tmp_path / "out" / "report.json").read_bytes(), Record) == record


def test_the_output_folder_is_named_by_what_is_measured(
    tmp_path: Path, data: Path, protocol: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    digits = weights_hash(load_model(tiny))[:8]
    run(protocol, weights=tiny, data=data)
    run(protocol, weights=tiny, data=data, limit=1, precision="bfloat16", device="cpu")
    run(protocol, weights="bicubic", data=data)
    run(protocol, results=data / "set" / "GT", data=data)
    assert sorted(path.name for path in Path("results", "made").iterdir()) == [
        "bicubic",
        "results-GT",
        f"tiny-{digits}",
        f"tiny-{digits}-bfloat16-first1",
    ]


def test_results_of_another_tool(tmp_path: Path, data: Path, protocol: Path):
    ours = run(protocol, weights="bicubic", data=data, output=tmp_path / "ours", save_images=True)
    images = tmp_path / "ours" / "images"
    assert sorted(p.name for p in (images / "a").iterdir()) == ["000.png", "001.png", "002.png"]
    shutil.rmtree(data / "set" / "BIx4")
    record = run(protocol, results=images, data=data, output=tmp_path / "out")
    assert scores(record) == scores(ours)
    assert record.model == "images"
    assert record.weights_hash is None
    assert record.precision is None


def test_frames_that_equal_their_ground_truth(tmp_path: Path, data: Path, protocol: Path):
    record = run(protocol, results=data / "set" / "GT", data=data, output=tmp_path / "out")
    assert record.means()["psnr"] == float("inf")
    assert record.means()["ssim"] == pytest.approx(1)


def test_a_run_is_resumed(tmp_path: Path, data: Path, protocol: Path):
    def written() -> dict[str, int]:
        return {p.stem: p.stat().st_mtime_ns for p in (tmp_path / "out" / "clips").iterdir()}

    options: dict[str, Any] = {"weights": "bicubic", "data": data, "output": tmp_path / "out"}
    whole = run(protocol, **options)
    before = written()
    (tmp_path / "out" / "clips" / "b.json").unlink()
    again = run(protocol, **options)
    resumed = written()
    assert resumed["a"] == before["a"]
    assert resumed["b"] > before["b"]
    assert scores(again) == scores(whole)
    run(protocol, overwrite=True, **options)
    assert all(written()[name] > time for name, time in resumed.items())


def test_devices_share_the_clips(tmp_path: Path, data: Path, protocol: Path):
    alone = run(protocol, weights="bicubic", data=data, output=tmp_path / "alone")
    shown: list[tuple[int, int]] = []
    both = run(
        protocol,
        weights="bicubic",
        data=data,
        output=tmp_path / "both",
        devices=["cpu", "cpu"],
        progress=lambda *counts: shown.append(counts),
    )
    assert scores(both) == scores(alone)
    assert [clip.name for clip in both.clips] == list(CLIPS)
    assert max(shown) == (5, 5)


@pytest.mark.slow
def test_a_clip_that_fails_on_one_device_does_not_stop_the_others(
    tmp_path: Path, data: Path, protocol: Path
):
    place = data / "set" / "GT" / "a" / "001.png"
    place.write_bytes(place.read_bytes()[:-200])
    options: dict[str, Any] = {"weights": "bicubic", "data": data, "output": tmp_path / "out"}
    with pytest.raises(DataError, match=r"cannot read image '.*a/001.png'"):
        run(protocol, devices=["cpu", "cpu"], **options)
    assert [p.name for p in (tmp_path / "out" / "clips").iterdir()] == ["b.json"]


def test_a_quick_look_is_not_compared(tmp_path: Path, data: Path):
    protocol = make_protocol(tmp_path / "p.yml", expected={"psnr": 30.0, "ssim": 0.9, "of": "x"})
    record = run(protocol, weights="bicubic", data=data, output=tmp_path / "out", limit=1)
    assert [len(clip.frames) for clip in record.clips] == [1, 1]
    assert record.protocol.expected == {}
    assert any("quick look" in note and "not the score of p" in note for note in record.notes)


def test_centre_frames(tmp_path: Path):
    data = make_data(tmp_path / "data", {"x/1": 3, "x/2": 3})
    (data / "set" / "list.txt").write_text("x/1\nx/2\n")
    protocol = make_protocol(
        tmp_path / "p.yml",
        clips=None,
        clip_list="set/list.txt",
        frames=3,
        score_frames="centre",
    )
    options: dict[str, Any] = {"weights": "bicubic", "data": data}
    record = run(protocol, **options, output=tmp_path / "out", save_images=True)
    assert [[f.name for f in clip.frames] for clip in record.clips] == [["001.png"]] * 2
    assert (tmp_path / "out" / "images" / "x" / "2" / "001.png").is_file()
    limited = run(protocol, **options, output=tmp_path / "limited", limit=1)
    assert scores(limited) == scores(record)[:1]
    assert any("first 1 clips of the list" in note for note in limited.notes)


def test_low_resolution_frames_made_here_are_told_of(tmp_path: Path, data: Path, protocol: Path):
    published = run(protocol, weights="bicubic", data=data, output=tmp_path / "published")
    shutil.rmtree(data / "set" / "BIx4")
    made = run(protocol, weights="bicubic", data=data, output=tmp_path / "out", make_lr=True)
    assert scores(made) == scores(published)
    assert all(clip.lr_made for clip in made.clips)
    assert any("made here" in note for note in made.notes)


# ---- memory


def test_windows_are_told_of(tmp_path: Path, data: Path, protocol: Path, tiny: Path):
    record = run(protocol, weights=tiny, data=data, output=tmp_path / "out", window=2, overlap=0)
    assert [clip.windowed for clip in record.clips] == [
        "windows of 2 frames, 0 of context",
        None,
    ]
    assert any("in windows" in note and note.endswith(": a") for note in record.notes)


def test_shorter_windows_where_the_estimate_was_too_low(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clips = {"a": 12}
    data = make_data(tmp_path / "data", clips)
    protocol = make_protocol(tmp_path / "p.yml", clips=clips)
    real = Bicubic.forward

    def scarce(self: Bicubic, frames: Tensor) -> Tensor:
        if frames.shape[1] > 5:
            raise torch.OutOfMemoryError
        return real(self, frames)

    monkeypatch.setattr(Bicubic, "forward", scarce)
    options: dict[str, Any] = {"weights": "bicubic", "data": data, "overlap": 1}
    record = run(protocol, **options, output=tmp_path / "out")
    assert record.clips[0].windowed == "windows of 4 frames, 1 of context"
    assert len(record.clips[0].frames) == 12
    with pytest.raises(DeviceError, match="too little memory"):
        run(protocol, **options, output=tmp_path / "asked", window=12)


# ---- what is refused


def test_weights_that_are_missing(tmp_path: Path, data: Path, protocol: Path):
    with pytest.raises(WeightsError, match=r"no weights for made: it names none.*--weights light"):
        run(protocol, data=data)
    named = make_protocol(tmp_path / "p.yml", weights="experiments/IART.pth")
    with pytest.raises(
        WeightsError, match=r"there is no 'experiments/IART.pth'. Put the published"
    ):
        run(named, data=data)
    with pytest.raises(WeightsError, match="no such file"):
        run(protocol, data=data, weights=tmp_path / "nothing.pth")


def test_the_published_weights_are_taken_from_their_place(
    tmp_path: Path, data: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    model = load_model(tiny)
    save_model(model, "published.pth")
    protocol = make_protocol(tmp_path / "p.yml", weights="published.pth", key="params")
    record = run(protocol, data=data, output=tmp_path / "out")
    assert record.weights_hash == weights_hash(model)
    wrong = make_protocol(tmp_path / "q.yml", weights="published.pth", key="params_ema")
    with pytest.raises(WeightsError, match="no 'params_ema'"):
        run(wrong, data=data, output=tmp_path / "other")


def test_options_that_do_not_go_together(data: Path, protocol: Path):
    both: list[dict[str, Any]] = [{"weights": "bicubic"}, {"save_images": True}]
    for options in both:
        with pytest.raises(OptionsError, match="results exist already"):
            run(protocol, data=data, results=data / "set" / "GT", **options)
    with pytest.raises(OptionsError, match="there is no metric 'nonsense'"):
        run(protocol, data=data, weights="bicubic", metrics=("nonsense",))
    with pytest.raises(OptionsError, match=r"overlap must be 0 .*got -1"):
        run(protocol, data=data, weights="bicubic", overlap=-1)


def test_a_damaged_frame_is_named_and_the_rest_is_kept(tmp_path: Path, data: Path, protocol: Path):
    place = data / "set" / "GT" / "b" / "001.png"
    place.write_bytes(place.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"cannot read image '.*b/001.png'"):
        run(protocol, weights="bicubic", data=data, output=tmp_path / "out")
    assert [p.name for p in (tmp_path / "out" / "clips").iterdir()] == ["a.json"]
    write_image(place, picture(101))
    assert len(run(protocol, weights="bicubic", data=data, output=tmp_path / "out").clips) == 2


def test_nothing_is_written_before_the_data_are_checked(tmp_path: Path, data: Path, protocol: Path):
    shutil.rmtree(data / "set" / "GT" / "a")
    with pytest.raises(DataError, match="missing a"):
        run(protocol, weights="bicubic", data=data, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_temporal_measure(tmp_path: Path, data: Path, protocol: Path):
    record = run(protocol, weights="bicubic", data=data, output=tmp_path / "out", metrics=("tof",))
    assert all(clip.temporal is not None for clip in record.clips)
    assert record.means().keys() == {"psnr", "ssim", "tof"}


def test_metrics_that_cannot_be_had_are_told_of(
    tmp_path: Path, data: Path, protocol: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "DISTS_pytorch", None)  # as if it were not installed
    record = run(
        protocol, weights="bicubic", data=data, output=tmp_path / "out", metrics=("dists",)
    )
    assert any("dists is not computed" in note for note in record.notes)


def test_a_metric_that_comes_to_be_had_is_not_left_out_in_silence(
    tmp_path: Path, data: Path, protocol: Path, monkeypatch: pytest.MonkeyPatch
):
    options: dict[str, Any] = {"weights": "bicubic", "data": data, "output": tmp_path / "out"}
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "cv2", None)  # as if it were not installed
        run(protocol, metrics=("tof",), **options)
    with pytest.raises(OutputError, match=r"another metrics \(\[\], now \['tof'\]\)"):
        run(protocol, metrics=("tof",), **options)
    run(protocol, metrics=("tof",), overwrite=True, **options)
    assert "tof" in run(protocol, metrics=("tof", "tof"), **options).means()


def test_grey_frames_are_scored(tmp_path: Path, data: Path, protocol: Path):
    for path in (data / "set").glob("*/*/*.png"):
        with Image.open(path) as image:
            grey = image.convert("L")
        grey.save(path)
    record = run(protocol, weights="bicubic", data=data, output=tmp_path / "out")
    assert set(CLIPS) == {clip.name for clip in record.clips}
    assert json.loads((tmp_path / "out" / "run.json").read_bytes())["run"]["weights"] == "bicubic"


def test_crops_of_many_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(benchmark, "SHOWN_CLIPS", 2)
    clips = {"a": 1, "b": 1, "c": 1, "d": 1}
    data = make_data(tmp_path / "data", clips)
    protocol = make_protocol(tmp_path / "p.yml", clips=clips)
    record = run(protocol, weights="bicubic", data=data, output=tmp_path / "out")
    assert [len(clip.crops) for clip in record.clips] == [1, 0, 1, 0]
