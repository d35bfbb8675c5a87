"""Protocols whose clips are made on the spot."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from iart.data.degradation.parameters import Degradation
from iart.errors import DataError, WeightsError
from iart.evaluate.benchmark import run
from iart.evaluate.made import make_frames
from iart.evaluate.protocol import Protocol, read_protocol
from iart.files.images import image_size
from iart.train.options.data import SceneOptions
from iart.train.options.read import read_options

FROZEN = ("dvd", "tape", "web", "mpeg2-q4", "mpeg2-q8")
ROOT = Path(__file__).parents[2]


def small(**changes) -> Protocol:
    """Three frames of a clip as a DVD would have it."""
    how = read_protocol("dvd").made["drawn-3"]
    return Protocol.model_validate(
        {
            "name": "small", "description": "small", "gt": "GT", "lq": "LQ", "colour": "y",
            "clips": {"a": 3}, "made": {"a": how.model_dump()},
            "metrics": ["flicker", "blockiness", "sharpness"],
        }
        | changes
    )  # fmt: skip


@pytest.mark.parametrize("name", FROZEN)
def test_the_frozen_protocols_say_everything(name: str):
    protocol = read_protocol(name)
    assert list(protocol.clips) == ["bunny", "dish", "canyon", "sign", "lake",
                                    "drawn-1", "drawn-2", "drawn-3", "drawn-4"]  # fmt: skip
    assert set(protocol.clips.values()) == {15}
    assert protocol.metrics == ("tof", "flicker", "blockiness", "sharpness")
    tree = yaml.safe_load((ROOT / "benchmarks" / f"{name}.yml").read_text())
    for clip, made in tree["made"].items():
        written = made["degradation"]
        # no parameter is left to a default, which might change
        known = protocol.made[clip].degradation.model_dump(exclude_none=True)
        assert Degradation.model_validate(written).model_dump(exclude_none=True) == known
        assert written.keys() == known.keys()
        assert [c.keys() for c in written["codings"]] == [c.keys() for c in known["codings"]]
        assert (written["top"], written["left"]) == (0, 0)  # where blockiness looks for blocks
        assert written["codings"] == [] or written["codings"][-1]["size"] == 1
    if name.startswith("mpeg2"):
        ways = {str(made["degradation"]) for made in tree["made"].values()}
        assert len(ways) == 1
        (coding,) = protocol.made["bunny"].degradation.codings
        assert (coding.codec, coding.quantiser) == ("mpeg2video", int(name[-1]))


def test_nothing_is_learnt_from_what_is_measured():
    assets = resources.files("iart") / "assets" / "photos"
    photos = {entry.name.removesuffix(".webp") for entry in assets.iterdir()}
    assert {made.picture for made in read_protocol("dvd").made.values()} == {
        "demo", "drawn", *photos,
    }  # fmt: skip
    for options in ROOT.glob("options/IART_dvd*.yml"):
        train = read_options(options).datasets.train
        assert isinstance(train, SceneOptions)
        excluded = " ".join(train.exclude_photos)
        assert all(photo.rsplit("-", 1)[0] in excluded for photo in photos)
        assert "*bigbuckbunny*" in train.exclude
        assert "photos/*" in train.exclude


def test_frames_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shown: list[tuple[int, int]] = []
    protocol, folder = make_frames(small(), progress=lambda *count: shown.append(count))
    assert shown == [(1, 3), (2, 3), (3, 3)]
    files = sorted(folder.rglob("*.png"))
    assert [file.relative_to(folder).parts[0] for file in files] == ["GT"] * 3 + ["LQ"] * 3
    sides = {image_size(file) for file in files}
    assert sides == {(320, 320), (80, 80)}
    before = [file.stat().st_mtime_ns for file in files]
    assert make_frames(small()) == (protocol, folder)
    assert [file.stat().st_mtime_ns for file in files] == before
    # other parameters are other frames
    _, other = make_frames(small(clips={"a": 2}))
    assert other != folder
    assert [entry.name for entry in other.parent.iterdir()] == [other.name]


def test_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    record = run(small(), weights="bicubic")
    means = record.means()
    assert set(means) == {"psnr", "ssim", "flicker", "blockiness", "sharpness"}
    assert 15 < means["psnr"] < 30
    assert 0.2 < means["sharpness"] < 1
    assert run(small(), weights="bicubic").means() == means
    assert (tmp_path / "results" / "small" / "bicubic" / "report.html").is_file()


def test_own_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "b").mkdir(parents=True)
    random = np.random.default_rng(0)
    for index in range(4):
        picture = Image.fromarray(random.integers(0, 255, (20, 26, 3), dtype=np.uint8))
        picture.resize((104, 82)).save(tmp_path / "mine" / "b" / f"{index}.png")
    record = run(small(), weights="bicubic", data="mine")
    assert [(clip.name, len(clip.frames)) for clip in record.clips] == [("b", 4)]
    assert "clips of 'mine', not those of the frozen protocol small" in record.notes
    with pytest.raises(DataError, match="no clips in 'nowhere'"):
        run(small(), weights="bicubic", data="nowhere")


def test_what_does_not_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="made needs exactly the names of clips"):
        small(clips={"b": 3})
    with pytest.raises(ValueError, match="either degradation"):
        small(degradation="bi")
    with pytest.raises(WeightsError, match="no weights for small: it names none"):
        run(small())
