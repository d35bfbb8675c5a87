"""Two discs of one film become pairs: the truth is known, so what was found is compared with it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from iart.cli.data import data
from iart.data.clips import to_clip
from iart.data.pair.build import PairResult, make_pairs
from iart.data.pair.check import KEPT, read_segments
from iart.data.pair.disc import Disc, Thumbnails
from iart.data.pairs import check_pairs, listed_pairs, read_clip_list
from iart.data.sets import open_training_set
from iart.data.stores.folder import FolderStore
from iart.data.stores.video import read_video_list
from iart.errors import DataError, IARTError, OutputError
from iart.pictures.degrade import to_uint8
from iart.pictures.scores import psnr
from iart.train.loop import train
from iart.train.options.read import read_options
from iart.train.options.run import TrainingOptions
from iart.upscaling.clip import upscale
from iart.weights import load_model
from tests.data.pair.discs import KINDS, LARGE, TINY, Discs, make_discs
from tests.video import fielded
from tests.video.fielded import Moment

OPTIONS = Path(__file__).parents[3] / "options"


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


def outcome(discs: Discs, kind: str, pairs: Path) -> Outcome:
    """Every frame of the DVD is known by its content: which moment of the film it shows."""
    disc = Disc.open(discs.dvds[kind])
    film = np.stack([moment[0] for moment in discs.film]).astype(np.int16)
    width, height = discs.size.dvd
    seen = [picture for _, picture in disc.luma(height, width)]
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
    result = make_pairs(discs.dvds[kind], discs.bluray, tmp_path, clips=2, ffv1=ffv1)
    assert isinstance(result, PairResult)
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
            stores = FolderStore(tmp_path / "GT"), FolderStore(tmp_path / "LQ")
            pairs = listed_pairs(*stores, read_clip_list(tmp_path / f"meta_info_{part}.txt"))
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
def test_films_at_720p(tmp_path: Path):
    large = make_discs(tmp_path, LARGE, kinds=["pal"])
    make_pairs(large.dvds["pal"], large.bluray, tmp_path / "pairs", clips=1)
    hold_the_bars(outcome(large, "pal", tmp_path / "pairs"))


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
    other = fielded.write(tmp_path / "other.mkv", fielded.moments(60), rate=fielded.FILM)
    with pytest.raises(DataError, match="do not look like the same film: 0 of 60"):
        make_pairs(other, discs.bluray, tmp_path / "pairs")


def test_what_cannot_be_paired_is_named(discs: Discs, tmp_path: Path):
    cases: list[tuple[Path, Path, str]] = [
        (discs.bluray, discs.dvds["pal"], "name the DVD first, then the Blu-ray"),
        (tmp_path / "none.mkv", discs.bluray, "none.mkv"),
    ]
    for dvd, bluray, words in cases:
        with pytest.raises(IARTError, match=words):
            make_pairs(dvd, bluray, tmp_path / "pairs")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(OutputError, match=r"it holds 'notes.txt', which this command did not make"):
        make_pairs(discs.dvds["pal"], discs.bluray, tmp_path / "mine")


@pytest.mark.slow
def test_training_on_the_pairs_helps(discs: Discs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """At least 0.5 dB on scenes that are held out, colours being the same before."""
    monkeypatch.chdir(tmp_path)
    pairs = tmp_path / "datasets" / "dvd_bluray"
    make_pairs(discs.dvds["hard"], discs.bluray, pairs, validation=0.2, match_color=True)
    overrides = ("network_g.spynet_path=null", "train.perceptual_opt=null")
    section = read_options(OPTIONS / "train_dvd_bluray.yml", overrides).datasets.train
    assert len(open_training_set(section)) > 0
    network = yaml.safe_load((OPTIONS / "IART_light.yml").read_text())["network_g"]
    recipe = {
        "total_iter": 150, "ema_decay": 0.9, "flow_lr_mul": 0.0,
        "optim_g": {"type": "Adam", "lr": 1e-3, "betas": [0.9, 0.99]},
        "scheduler": {"type": "CosineAnnealingRestartLR", "periods": [150]},
        "pixel_opt": {"type": "CharbonnierLoss"},
    }  # fmt: skip
    train_set = section.model_dump() | {"num_frame": 5, "gt_size": 128}
    train(
        TrainingOptions.model_validate(
            {
                "name": "pairs", "network_g": network, "datasets": {"train": train_set},
                "train": recipe, "path": {"pretrain_network_g": "light"},
                "logger": {"use_tb_logger": False},
            }
        ),
        device="cpu",
    )  # fmt: skip
    weights = tmp_path / "experiments" / "pairs" / "models" / "net_g_150.safetensors"
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
