"""Two discs of one film become pairs: the truth is known, so what was found is compared with it."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from iart.cli.data import data
from iart.data.clips import to_clip
from iart.data.pair.build import PairResult, make_pairs
from iart.data.pair.check import KEPT, read_segments
from iart.data.pair.disc import Disc, Thumbnails
from iart.data.pairs import Pair, check_pairs, read_clip_list
from iart.data.sets import open_training_set
from iart.data.stores.folder import FolderStore
from iart.data.stores.video import read_video_list
from iart.errors import DataError, IARTError, OutputError
from iart.files.images import write_image
from iart.pictures.degrade import to_uint8
from iart.pictures.scores import psnr
from iart.train.loop import train
from iart.train.options.read import read_options
from iart.train.options.run import TrainingOptions
from iart.upscaling.clip import upscale
from iart.weights import load_model
from tests.data.pair.discs import KINDS, LARGE, TINY, Discs, make_discs, make_other_film
from tests.video import fielded
from tests.video.clips import make_clip, make_sound_only
from tests.video.clips import picture as make_picture
from tests.video.fielded import Moment

ROOT = Path(__file__).parents[3]
OPTIONS, DOCS = ROOT / "options", ROOT / "docs" / "training.md"


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Discs:
    return make_discs(tmp_path_factory.mktemp("discs"), TINY)


@dataclass
class Outcome:
    """How what was found compares with the truth."""

    right: int = 0
    kept: int = 0
    kept_foreign: int = 0
    pairable: int = 0
    kept_pairable: int = 0
    errors: tuple[float, ...] = ()


def reduced(luma: np.ndarray, factor: int) -> np.ndarray:
    """The mean of squares of pixels."""
    height, width = luma.shape
    squares = luma.reshape(height // factor, factor, width // factor, factor)
    return squares.mean((1, 3), dtype=np.float32)


def outcome(discs: Discs, kind: str, pairs: Path) -> Outcome:
    """Every frame of the DVD is known by its content: which moment of the film it shows."""
    disc = Disc.open(discs.dvds[kind])
    width, height = discs.size.dvd
    factor = max(1, width // 240)  # smaller pictures tell moments as well
    film = np.stack([reduced(moment[0], factor) for moment in discs.film])
    seen = [picture for _, picture in disc.luma(height // factor, width // factor)]
    times = Thumbnails(pairs / "analysis" / "dvd.thumbnails").times
    rate = (len(film) - 1) / (times[-1] - times[0])
    found = Outcome()
    errors: list[float] = []
    for segment in read_segments(pairs / "analysis" / "segments.jsonl"):
        if segment.kept:
            errors.append(segment.framing.distance(discs.size.framing, width, height))
        for n, (partner, verdict) in enumerate(
            zip(segment.partners, segment.verdicts, strict=True), segment.first
        ):
            near = max(0, round((times[n] - times[0]) * rate) - 6)
            moment = near + int(np.abs(film[near : near + 13] - seen[n]).mean((1, 2)).argmin())
            truth, kept = discs.partners[moment], verdict == KEPT
            found.kept += kept
            found.right += kept and partner in truth
            found.kept_foreign += kept and not truth
            found.pairable += bool(truth)
            found.kept_pairable += kept and bool(truth)
    found.errors = tuple(errors)
    return found


def hold_the_bars(found: Outcome) -> None:
    assert found.right >= 0.99 * found.kept
    assert found.kept_foreign == 0
    assert found.kept_pairable >= 0.9 * found.pairable
    assert max(found.errors) <= 0.1


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind == "pal" else pytest.mark.slow) for kind in KINDS],
)
def test_frames_find_their_partners(discs: Discs, kind: str, tmp_path: Path):
    ffv1 = kind == "pal"
    for name in (".pairs.json.0123abcd.part", ".report.html.0123abcd.part"):
        (tmp_path / name).touch()  # of runs that were killed
    result = make_pairs(discs.dvds[kind], discs.bluray, tmp_path, clips=2, ffv1=ffv1)
    assert isinstance(result, PairResult)
    assert [path.name for path in tmp_path.glob(".*")] == [".lock"]
    found = outcome(discs, kind, tmp_path)
    hold_the_bars(found)
    assert result.kept == found.kept
    assert (result.clips, result.validation) == (2, 1)
    page = (tmp_path / "report.html").read_text()
    assert f"({found.kept / result.frames:.1%})" in page
    for part in ("train", "val"):
        if ffv1:
            pairs = read_video_list(tmp_path / f"{part}.json", None, None)
        else:
            gt, lq = FolderStore(tmp_path / "GT"), FolderStore(tmp_path / "LQ")
            clips = read_clip_list(tmp_path / f"meta_info_{part}.txt").items()
            pairs = [Pair(lq.clip(name, count), gt.clip(name, count)) for name, count in clips]
        check_pairs(pairs, 16, 64)
        assert [problem for pair in pairs for problem in pair.problems()] == []


@pytest.mark.slow
def test_the_command_brings_colours_together(discs: Discs, tmp_path: Path):
    words = ["pair", discs.dvds["soft"], discs.bluray, "-o", tmp_path, "--clips", 1, "--scale", 2]
    result = CliRunner().invoke(data, [str(word) for word in (*words, "--match-color")])
    assert result.exit_code == 0, result.output
    assert "234 of 252 frames fit; 1 clips with 18 frames written" in result.output
    (low,), (truth,) = (sorted((tmp_path / side).iterdir()) for side in ("LQ", "GT"))
    pictures = [np.asarray(Image.open(clip / "00000009.png")) for clip in (low, truth)]
    height, width, _ = pictures[0].shape
    reduced = pictures[1].reshape(height, 2, width, 2, 3).mean((1, 3)).round().astype(np.uint8)
    a, b = (torch.from_numpy(each.copy()).permute(2, 0, 1) for each in (pictures[0], reduced))
    assert psnr(a, b) > 30  # without it, 25


def letterboxed(moment: Moment) -> Moment:
    """With black bars a fifth as high as the picture above and below."""
    planes = []
    for plane, black in zip(moment, (16, 128, 128), strict=True):
        bar = np.full_like(plane[: len(plane) // 5], black)
        planes.append(np.concatenate((bar, plane, bar)))
    return planes[0], planes[1], planes[2]


def without_sides(moment: Moment) -> Moment:
    """The middle three quarters: 4:3 of 16:9."""
    luma, *chroma = (plane[:, plane.shape[1] // 8 : -plane.shape[1] // 8] for plane in moment)
    return luma, chroma[0], chroma[1]


@pytest.mark.slow
@pytest.mark.parametrize(("change", "share"), [(letterboxed, 1.0), (without_sides, 0.75)])
def test_shapes_of_pictures_may_differ(
    discs: Discs, change: Callable[[Moment], Moment], share: float, tmp_path: Path
):
    film = [change(moment) for moment in discs.film]
    aspect = discs.size.sample_aspect
    dvd = fielded.write(tmp_path / "dvd.mkv", film, rate=fielded.FILM, sample_aspect=aspect)
    result = make_pairs(dvd, discs.bluray, tmp_path / "pairs", clips=1)
    assert result.kept == sum(bool(truth) for truth in discs.partners)
    truth = discs.size.framing
    shift = truth.shift_x + truth.scale_x * (1 - share) / 2
    truth = truth._replace(scale_x=truth.scale_x * share, shift_x=shift)
    for segment in read_segments(tmp_path / "pairs" / "analysis" / "segments.jsonl"):
        if segment.kept:
            assert segment.framing.distance(truth, film[0][0].shape[1], film[0][0].shape[0]) <= 0.1


def copied(source: Path, target: Path, container: str) -> Path:
    """The same video in another container."""
    with av.open(str(source)) as before, av.open(str(target), "w", format=container) as after:
        stream = after.add_stream_from_template(before.streams.video[0], opaque=True)
        for packet in before.demux(video=0):
            if packet.size:
                packet.stream = stream
                after.mux(packet)
    return target


@pytest.mark.slow
def test_discs_are_taken_as_they_come(discs: Discs, tmp_path: Path):
    """A DVD of two VOBs, and a Blu-ray's stream, which cannot be sought."""
    folder = tmp_path / "VIDEO_TS"
    folder.mkdir()
    whole = copied(discs.dvds["hard"], tmp_path / "whole.vob", "vob").read_bytes()
    middle = len(whole) // 2 // 2048 * 2048
    (folder / "VTS_01_1.VOB").write_bytes(whole[:middle])
    (folder / "VTS_01_2.VOB").write_bytes(whole[middle:])
    bluray = copied(discs.bluray, tmp_path / "00001.m2ts", "mpegts")
    pairs = tmp_path / "pairs"
    make_pairs(folder, bluray, pairs, clips=2)
    hold_the_bars(outcome(replace(discs, dvds={"folder": folder}), "folder", pairs))
    (folder / "VTS_01_2.VOB").write_bytes(whole[middle:-2048])
    with pytest.raises(OutputError, match="pairs of other discs or settings"):
        make_pairs(folder, bluray, pairs, clips=2)


@pytest.mark.slow
def test_scenes_in_which_the_framing_moves_are_left_out(discs: Discs, tmp_path: Path):
    """Pan and scan: in scene 2 of the DVD the part that it shows moves by a sixth of it."""
    film = list(discs.film)
    count = discs.size.frames
    room = discs.size.dvd[0] // 4
    for n, moment in enumerate(film):
        left = room // 2
        if n // count == 2:
            left = round(room * (n % count) / (count - 1) / 2) * 2
        right = left + discs.size.dvd[0] - room
        luma, *chroma = moment
        blue, red = (plane[:, left // 2 : right // 2] for plane in chroma)
        film[n] = luma[:, left:right], blue, red
    aspect = discs.size.sample_aspect
    dvd = fielded.write(tmp_path / "dvd.mkv", film, rate=fielded.FILM, sample_aspect=aspect)
    result = make_pairs(dvd, discs.bluray, tmp_path / "pairs", clips=1)
    verdicts: dict[int, list[str]] = {}
    for segment in read_segments(tmp_path / "pairs" / "analysis" / "segments.jsonl"):
        verdicts.setdefault(segment.first // count, []).extend(segment.verdicts)
    assert KEPT not in verdicts[2]
    assert result.kept >= 0.9 * (sum(map(bool, discs.partners)) - count)


@pytest.mark.slow
def test_a_minute_at_720p(tmp_path: Path):
    """All kinds in one test: the Blu-ray is made once, whatever processes tests run in."""
    large = make_discs(tmp_path, LARGE)
    for kind, dvd in large.dvds.items():
        pairs = tmp_path / f"pairs-{kind}"
        make_pairs(dvd, large.bluray, pairs, clips=2, scale=2, ffv1=True)
        found = outcome(large, kind, pairs)
        hold_the_bars(found)
    other = make_other_film(tmp_path / "other", TINY, 6)
    with pytest.raises(DataError, match="do not look like the same film: 0 of 108"):
        make_pairs(other, large.bluray, tmp_path / "none")


class _KilledError(Exception):
    pass


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_bytes(discs: Discs, tmp_path: Path):
    dvd, bluray = discs.dvds["soft"], discs.bluray

    def killed_at(stage: str, count: int) -> None:
        def progress(now: str, done: int, _: int) -> None:
            if now == stage and done >= count:
                raise _KilledError

        with pytest.raises(_KilledError):
            make_pairs(dvd, bluray, tmp_path / "a", clips=2, progress=progress)

    killed_at("frames checked", 200)
    with (tmp_path / "a/analysis/segments.part.jsonl").open("a") as file:
        file.write('{"scene": 5, "fir')  # killed while it wrote
    killed_at("clips written", 1)
    make_pairs(dvd, bluray, tmp_path / "a", clips=2)
    make_pairs(dvd, bluray, tmp_path / "b", clips=2)
    assert dict(_files(tmp_path / "a")) == dict(_files(tmp_path / "b"))
    with pytest.raises(OutputError, match="pairs of other discs or settings; pass --overwrite"):
        make_pairs(dvd, bluray, tmp_path / "a", clips=2, scale=2)


def _files(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield path.relative_to(root).as_posix(), path.read_bytes()


def test_other_films_are_refused(discs: Discs, tmp_path: Path):
    other = make_other_film(tmp_path / "other", TINY, 3)
    with pytest.raises(DataError, match="do not look like the same film: 0 of 54"):
        make_pairs(other, discs.bluray, tmp_path / "pairs")


def test_what_cannot_be_paired_is_named(discs: Discs, tmp_path: Path):
    (tmp_path / "empty.mkv").touch()
    (tmp_path / "folder").mkdir()
    image = tmp_path / "folder" / "0.png"
    write_image(image, torch.zeros(3, 64, 64, dtype=torch.uint8))
    one = make_clip(tmp_path / "one.mkv", frames=1)
    sound = make_sound_only(tmp_path / "sound.mka")
    cases: list[tuple[Path, Path, str]] = [
        (discs.bluray, discs.dvds["pal"], "name the DVD first, then the Blu-ray"),
        (discs.bluray, discs.bluray, "144 rows of picture, .* 144: name the DVD first"),
        (tmp_path / "none.mkv", discs.bluray, "none.mkv"),
        (tmp_path / "empty.mkv", discs.bluray, "empty.mkv': the file is empty"),
        (tmp_path / "folder", discs.bluray, "folder' holds no VOB files: pass a video"),
        (discs.dvds["pal"], image, "0.png' is not a video: pass a video"),
        (discs.dvds["pal"], sound, "sound.mka': no video stream"),
        (one, discs.bluray, "one.mkv' has fewer than two frames"),
    ]
    for dvd, bluray, words in cases:
        with pytest.raises(IARTError, match=words):
            make_pairs(dvd, bluray, tmp_path / "pairs")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(OutputError, match=r"it holds 'notes.txt', which this command did not make"):
        make_pairs(discs.dvds["pal"], discs.bluray, tmp_path / "mine")


@pytest.mark.parametrize(
    ("codec", "pixel_format"),
    [("libx264rgb", "rgb24"), ("libx264", "yuv420p10le"), ("mjpeg", "yuvj420p")],
)
def test_pictures_of_any_kind_are_looked_at(codec: str, pixel_format: str, tmp_path: Path):
    path = make_clip(tmp_path / "kind.mkv", frames=3, codec=codec, pixel_format=pixel_format)
    seen = np.stack([picture for _, picture in Disc.open(path).luma(48, 64)]).astype(float)
    made = np.stack([make_picture(i) @ (0.299, 0.587, 0.114) for i in range(3)])
    for a, b in zip(seen, made, strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99


def small_recipe(folder: Path, *overrides: str) -> TrainingOptions:
    """The option file that docs/training.md gives for pairs and a small machine."""
    (recipe,) = re.findall(r"^```yaml\n(name: own\n.*?)^```$", DOCS.read_text(), re.M | re.S)
    (folder / "own.yml").write_text(recipe)
    return read_options(folder / "own.yml", overrides)


def test_the_small_recipe_reads_what_is_written(tmp_path: Path):
    """The same folders and list as the recipe that ships."""
    both = small_recipe(tmp_path), read_options(OPTIONS / "train_dvd_bluray.yml")
    a, b = (each.datasets.train.model_dump(mode="json") for each in both)
    for key in ("type", "dataroot_gt", "dataroot_lq", "meta_info_file"):
        assert a[key] == b[key]


@pytest.mark.slow
def test_training_on_the_pairs_helps(discs: Discs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """At least 0.5 dB on scenes that are held out, colours being the same before."""
    monkeypatch.chdir(tmp_path)
    pairs = tmp_path / "datasets" / "dvd_bluray"
    make_pairs(discs.dvds["hard"], discs.bluray, pairs, validation=0.2, match_color=True)
    overrides = ("network_g.spynet_path=null", "train.perceptual_opt=null")
    section = read_options(OPTIONS / "train_dvd_bluray.yml", overrides).datasets.train
    assert len(open_training_set(section)) > 0
    changes = {"total_iter": 150, "ema_decay": 0.9, "optim_g.lr": 1e-3, "scheduler.periods": [150]}
    changed = (f"train.{name}={value}" for name, value in changes.items())
    train(small_recipe(tmp_path, *changed, "path.pretrain_network_g=light"), device="cpu")
    weights = tmp_path / "experiments" / "own" / "models" / "net_g_150.safetensors"
    scores = []
    for model in (load_model("light", device="cpu"), load_model(weights, device="cpu")):
        values = []
        for name, count in read_clip_list(pairs / "meta_info_val.txt").items():
            low, truth = (
                np.stack([np.asarray(Image.open(p)) for p in sorted((pairs / s / name).iterdir())])
                for s in ("LQ", "GT")
            )
            assert len(low) == count
            large = upscale(to_clip(low[:8]), model)
            both = zip(to_uint8(large), to_uint8(to_clip(truth[:8])), strict=True)
            values += [psnr(a, b) for a, b in both]
        scores.append(float(np.mean(values)))
    assert scores[1] > scores[0] + 0.5
