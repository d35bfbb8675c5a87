import re
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from iart.data.clips import (
    Scene,
    draw_crop,
    load_scenes,
    low_resolution,
    reduced_side,
    to_clip,
)
from iart.errors import DataError
from iart.pictures.degrade import degrade_bi
from tests.video.clips import make_clip, picture, pictures


def noise_scene(frames: int, h: int, w: int) -> Scene:
    rng = np.random.default_rng(0)
    return Scene("noise", rng.integers(0, 256, (frames, h, w, 3), dtype=np.uint8))


def write_images(folder: Path, images: list[np.ndarray], suffix: str = ".png") -> None:
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}{suffix}")  # 10 sorts before 2 as text


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_images(tmp_path / "a" / "one", pictures(11, 24, 16))
    write_images(tmp_path / "b", pictures(3, 20, 18, scene=1), ".jpg")
    (tmp_path / "c").mkdir()
    make_clip(tmp_path / "c" / "film.mkv", frames=5)
    (tmp_path / "notes.txt").write_text("not a scene")
    return tmp_path


# ---- scenes on disk


def test_folders_and_videos_are_scenes(root: Path):
    scenes = {scene.name: scene.frames for scene in load_scenes(root)}
    assert {name: frames.shape for name, frames in scenes.items()} == {
        "a/one": (11, 16, 24, 3),
        "b": (3, 18, 20, 3),
        "c/film.mkv": (5, 48, 64, 3),
    }
    assert all(frames.dtype == np.uint8 for frames in scenes.values())


def test_images_follow_in_natural_order(root: Path):
    (scene,) = load_scenes(root, include=("a/*",))
    for i, frame in enumerate(scene.frames):
        np.testing.assert_array_equal(frame, picture(i, 24, 16))


def test_video_frames_are_the_pictures(root: Path):
    (scene,) = load_scenes(root, include=("*.mkv",))
    for i, frame in enumerate(scene.frames):
        assert np.abs(frame.astype(float) - picture(i)).mean() < 10


def test_include_and_exclude(root: Path):
    def names(**patterns: tuple[str, ...]) -> list[str]:
        return [scene.name for scene in load_scenes(root, **patterns)]

    assert names(include=("b", "c/*")) == ["b", "c/film.mkv"]
    assert names(exclude=("*film*",)) == ["a/one", "b"]
    assert names(include=("a/*", "b"), exclude=("a/one",)) == ["b"]


def test_grey_images_become_rgb(tmp_path: Path):
    write_images(tmp_path / "grey", [np.full((4, 6), 7, np.uint8)])
    (scene,) = load_scenes(tmp_path)
    assert scene.frames.shape == (1, 4, 6, 3)
    assert (scene.frames == 7).all()


def test_nothing_to_read(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match=re.escape(f"no scenes in '{folder}'")):
            load_scenes(folder)


def test_nothing_included(root: Path):
    with pytest.raises(DataError, match=re.escape("include ['nothing'], exclude ['b']")):
        load_scenes(root, include=("nothing",), exclude=("b",))


def test_broken_files(tmp_path: Path):
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    with pytest.raises(DataError, match=r"broken\.mp4"):
        load_scenes(tmp_path)


def test_video_without_pictures(tmp_path: Path):
    with av.open(tmp_path / "sound.mp4", "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        silence = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match=r"sound\.mp4': .*no video stream"):
        load_scenes(tmp_path)


def test_broken_image(tmp_path: Path):
    write_images(tmp_path / "s", pictures(2, 8, 8))
    (tmp_path / "s" / "2.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=re.escape(f"cannot read image '{tmp_path}/s/2.png'")):
        load_scenes(tmp_path)


def test_images_of_different_sizes(tmp_path: Path):
    write_images(tmp_path / "s", [picture(0, 8, 8), picture(0, 8, 9)])
    with pytest.raises(DataError, match="is 8×9, but its clip is 8×8"):
        load_scenes(tmp_path)


# ---- clips


@pytest.mark.parametrize("size", [16, 20, 32, 60])
def test_random_clip_has_the_size_asked_for(size: int):
    scene, rng = noise_scene(6, 70, 90), np.random.default_rng(0)
    for _ in range(5):
        clip = draw_crop(scene, 4, size, (1.0, 2.4), rng).clip()
        assert clip.shape == (4, 3, size, size)
        assert clip.dtype == torch.float32
        assert clip.min() >= 0
        assert clip.max() <= 1


def test_a_seed_gives_a_clip():
    def make(seed: int) -> torch.Tensor:
        return draw_crop(
            noise_scene(6, 64, 64), 3, 16, (1.0, 2.0), np.random.default_rng(seed)
        ).clip()

    assert make(0).equal(make(0))
    assert not make(0).equal(make(1))


def test_a_scene_of_just_the_size_and_length_will_do():
    clip = draw_crop(noise_scene(3, 20, 20), 3, 20, (1.7, 2.4), np.random.default_rng(0)).clip()
    assert clip.shape == (3, 3, 20, 20)


def test_scene_too_small():
    with pytest.raises(DataError, match=re.escape("scene 'noise' is 30×18: too small")):
        draw_crop(noise_scene(3, 18, 30), 3, 20, (1.0, 2.0), np.random.default_rng(0)).clip()


def test_in_a_scene_too_short_time_runs_back():
    crop = draw_crop(noise_scene(2, 32, 32), 5, 16, (1.0, 2.0), np.random.default_rng(0))
    clip = crop.clip()
    assert clip[0].equal(clip[2])
    assert clip[1].equal(clip[3])
    assert not clip[0].equal(clip[1])


def test_reduction_keeps_the_picture():
    """A clip is a reduced part of the scene: the same mean colour where there is only one."""
    scene = Scene("flat", np.full((2, 64, 64, 3), (10, 100, 200), np.uint8))
    clip = draw_crop(scene, 2, 16, (1.5, 2.5), np.random.default_rng(0)).clip()
    expected = torch.tensor([10, 100, 200]).view(3, 1, 1).expand(2, 3, 16, 16) / 255
    torch.testing.assert_close(clip, expected)


def test_sides_before_reduction_are_few():
    assert {reduced_side(128, f, 480) % 16 for f in np.linspace(1.6, 2.4, 50)} == {0}
    assert reduced_side(128, 2.0, 480) == 256
    assert reduced_side(128, 2.4, 250) == 240
    assert reduced_side(20, 1.0, 64) == 20


def test_crops_reach_all_sixteen_views():
    scene, rng = noise_scene(2, 8, 8), np.random.default_rng(0)
    whole = to_clip(scene.frames)
    clips = [draw_crop(scene, 2, 8, (1.0, 1.0), rng).clip() for _ in range(300)]
    views = {tuple(clip.flatten().tolist()) for clip in clips}
    assert len(views) == 16
    expected = whole.flatten().sort().values
    assert all((clip.flatten().sort().values - expected).abs().max() < 1e-5 for clip in clips)


def test_to_clip():
    frames = noise_scene(2, 5, 7).frames
    clip = to_clip(frames)
    assert clip.shape == (2, 3, 5, 7)
    assert float(clip[1, 2, 3, 4]) == pytest.approx(frames[1, 3, 4, 2] / 255)


@pytest.mark.parametrize("size", [(64, 48), (37, 50)])
def test_low_resolution_is_degrade_bi(size: tuple[int, int]):
    frames = torch.from_numpy(noise_scene(2, *size).frames).permute(0, 3, 1, 2)
    low = low_resolution(frames.float() / 255) * 255
    exact = degrade_bi(frames).float()
    assert low.shape == exact.shape
    torch.testing.assert_close(low, low.round(), rtol=0, atol=1e-4)  # whole codes
    assert (low - exact).abs().max() < 1.001
    assert ((low - exact).abs() > 0.5).float().mean() < 1e-3
