import inspect
import tomllib
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from iart import cli, demo
from iart.demo import first_fields, measure
from iart.errors import OutputError
from iart.pictures.degrade import degrade_bi, to_uint8
from iart.video.frame import Crop, Frame
from iart.video.read.reader import VideoReader
from iart.video.write.writer import VideoWriter
from iart.weights import model_names

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "src" / "iart" / "assets"
CLIP = ASSETS / "demo.mp4"
BYTES = 1_000_000


def packets(path: Path) -> list[bytes]:
    """Of the first sound track."""
    with av.open(str(path)) as file:
        return [bytes(packet) for packet in file.demux(file.streams.audio[0]) if packet.size]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder of a demo, and what the command printed."""
    folder = tmp_path_factory.mktemp("demo")
    words = ["demo", "-o", str(folder / "out"), "--model", "bicubic"]
    done = CliRunner().invoke(cli.app, words, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return folder / "out", done.stdout


def test_the_clip_is_small_and_one_scene_with_motion():
    assert CLIP.stat().st_size <= BYTES
    assert packets(CLIP)
    with VideoReader(CLIP) as video:
        frames = list(video)
    assert len(frames) == 50
    assert not any(frame.cut for frame in frames)
    moves = [float((b.data - a.data).abs().mean()) for a, b in pairwise(frames)]
    assert np.mean([move > 0.005 for move in moves]) > 0.9


def test_it_makes_videos_with_sound_and_a_picture(made: tuple[Path, str]):
    folder, printed = made
    names = ["bicubic.mp4", "compare.png", "iart.mp4", "input.mkv"]
    assert sorted(path.name for path in folder.iterdir()) == names
    for name, size in (("input.mkv", (160, 88)), ("iart.mp4", (640, 352))):
        with VideoReader(folder / name, scenes=False) as video:
            assert (video.info.width, video.info.height) == size
            assert sum(1 for _ in video) == 25
        assert packets(folder / name) == packets(CLIP)
        assert name in printed
    with Image.open(folder / "compare.png") as picture:
        assert picture.width == 3 * 480
        pixels = np.asarray(picture).astype(float)
    bicubic, iart, original = np.split(pixels[40:], 3, axis=1)
    assert np.array_equal(bicubic, iart)
    assert np.abs(bicubic - original).mean() > 2


def test_files_that_it_did_not_make_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "make_input", lambda *_: pytest.fail("nothing is begun"))
    for name in ("input.mkv", "bicubic.mp4", "iart.mp4", "compare.png"):
        (file := tmp_path / name).write_text("mine")
        with pytest.raises(OutputError, match=f"{name}': it exists; pass --overwrite"):
            demo.run(tmp_path, "bicubic")
        assert file.read_text() == "mine"
        file.unlink()


@pytest.mark.slow
def test_a_quiet_one_prints_nothing(made: tuple[Path, str]):
    folder, _ = made
    words = ["-o", str(folder), "--model", "bicubic", "--overwrite", "--quiet"]
    result = CliRunner().invoke(cli.app, ["demo", *words])
    assert (result.exit_code, result.output) == (0, "")


def test_it_prints_scores(made: tuple[Path, str]):
    for line, name in zip(made[1].splitlines()[1:3], ("bicubic", "iart"), strict=True):
        label, psnr, unit, ssim = line.split()
        assert (label, unit) == (name, "dB")
        assert float(psnr) == pytest.approx(27.88, abs=0.05)  # encoders differ a little
        assert float(ssim) == pytest.approx(0.7070, abs=0.002)


@pytest.mark.skipif("light" not in model_names(), reason="no trained model in the package yet")
@pytest.mark.slow
def test_the_model_that_ships_beats_bicubic(tmp_path: Path):
    result = demo.run(tmp_path / "demo")
    assert result.scores.psnr > result.bicubic_scores.psnr + 0.2
    assert result.scores.ssim > result.bicubic_scores.ssim


def test_the_input_is_what_a_disc_has(made: tuple[Path, str]):
    """Woven of two moments, found to be so, and brought back to the first of them."""
    with VideoReader(made[0] / "input.mkv") as disc:
        assert disc.info.codec == "mpeg2video"
        assert disc.info.fields is not None
        assert (disc.info.fields.kind, disc.info.fields.top_first) == ("interlaced", True)
        frames = [frame.data for frame in disc]
    small = [degrade_bi(to_uint8(frame)) / 255 for frame in first_fields(CLIP)]
    for index in (2, 5, 8):  # where it moves most
        near = range(index - 2, index + 3)
        distances = {i: float((frames[index] - small[i]).abs().mean()) for i in near}
        assert min(near, key=distances.__getitem__) == index
        assert distances[index] < 0.03


def test_the_original_against_itself_is_perfect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "SHOWN", Crop(64, 48, 200, 100))
    frames = list(first_fields(CLIP))
    assert len(frames) == 25
    info = VideoReader(CLIP, crop=demo.SHOWN).info
    exact = tmp_path / "exact.mkv"
    with VideoWriter(exact, like=info, scale=1, codec="ffv1", pixel_format="bgr0") as writer:
        for number, data in enumerate(frames):
            writer.write(Frame(data, number, 1 / info.rate))
    (scores,) = measure([exact], CLIP)
    assert scores.psnr > 55  # of 8 bits
    assert scores.ssim == pytest.approx(1.0, abs=1e-3)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "demo").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot make the folder .*demo"):
        demo.run(tmp_path / "demo", "bicubic")


def test_flags_are_keywords_of_run():
    flags = inspect.signature(cli.demo).parameters
    words = inspect.signature(demo.run).parameters
    assert flags.keys() - {"quiet", "verbose"} == words.keys() - {"progress"}
    for name in words.keys() - {"progress"}:
        assert flags[name].default == words[name].default


def test_what_ships_is_attributed():
    """THIRD_PARTY_NOTICES.md goes into the wheel as a licence file, and names every asset."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "THIRD_PARTY_NOTICES.md" in project["license-files"]
    notices = (ROOT / "THIRD_PARTY_NOTICES.md").read_text()
    for asset in ASSETS.iterdir():
        assert f"`src/iart/assets/{asset.name}`" in notices
    for words in ("Big Buck Bunny", "Blender Foundation", "creativecommons.org/licenses/by/3.0"):
        assert words in notices
    with av.open(str(CLIP)) as file:
        assert "CC BY 3.0" in file.metadata["copyright"]
        assert file.metadata["artist"] == "Blender Foundation"
