"""Option files: what is read, what is refused, and how that is said."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from iart.errors import OptionsError
from iart.model import IARTConfig
from iart.train.check import batch_warning, obstacles, require_files
from iart.train.options.read import read_options
from iart.train.options.run import NetworkOptions, TrainingOptions

MINIMAL: dict[str, Any] = {
    "name": "run",
    "network_g": {},
    "datasets": {
        "train": {"type": "SceneDataset", "dataroot_gt": "t"},
        "val": {"type": "SceneDataset", "dataroot_gt": "v"},
    },
    "train": {
        "total_iter": 10,
        "optim_g": {"lr": 1e-3},
        "scheduler": {"type": "CosineAnnealingRestartLR", "periods": [10]},
        "pixel_opt": {"type": "CharbonnierLoss"},
        "flow": {"total_iter": 5, "lr": 1e-4, "size": 64},
    },
}
PAIRS = (
    "train.flow=null",
    "datasets.train={type: DVDMultiScaleDataset, dataroot_gt: g, dataroot_lq: l}",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "options.yml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return path


def test_defaults_are_the_published_network(path: Path):
    assert read_options(path).network_g.config() == IARTConfig()
    assert NetworkOptions().config() == IARTConfig()


# ---- overrides


def test_overrides(path: Path):
    options = read_options(
        path,
        (
            "train.total_iter=8",
            "train.optim_g.lr=2e-4",  # YAML 1.1 calls this text
            "datasets.train.dataroot_gt=/data/a=b",
            "network_g.depths=[2, 2, 2]",
            "val.val_freq=7e0",  # a section that the file does not have
            "train.flow=null",
            "datasets.test_2={type: VideoRecurrentTestDataset, dataroot_gt: g, dataroot_lq: ~/l}",
        ),
    )
    assert options.train.total_iter == 8
    assert options.train.optim_g.lr == 2e-4
    assert options.datasets.train.dataroot_gt == Path("/data/a=b")
    assert options.network_g.depths == (2, 2, 2)
    assert options.val.val_freq == 7
    assert options.train.flow is None
    assert list(options.datasets.validation) == ["val", "test_2"]
    other = options.datasets.validation["test_2"]
    assert other.type == "VideoRecurrentTestDataset"
    assert other.dataroot_lq == Path.home() / "l"


def test_an_override_fills_a_section_that_is_null(path: Path):
    options = read_options(path, ("logger.wandb=null", "logger.wandb.project=films"))
    assert options.logger.wandb.project == "films"


@pytest.mark.parametrize("override", ["train.total_iter", "", "=5"])
def test_override_that_sets_nothing(path: Path, override: str):
    assert f"override '{override}' has no place or no '='" in refused(path, override)


def test_override_below_a_value(path: Path):
    expected = "override 'name.first=x': 'name' is a value, not a section"
    assert refused(path, "name.first=x") == expected


@pytest.mark.parametrize("value", ["[", "!!float x", "!!python/name:os.system", "[" * 5000])
def test_override_with_broken_yaml(path: Path, value: str):
    assert f"override 'name={value}' has no valid value" in refused(path, f"name={value}")


# ---- null


def test_sections_that_are_null(path: Path):
    nulls = ("path=null", "val=null", "logger=null", "manual_seed=null", "train.fix_flow=null")
    options = read_options(path, nulls)
    assert options.path.pretrain_network_g is None
    assert options.val.val_freq == 0
    assert options.logger == read_options(path).logger
    assert (options.manual_seed, options.train.fix_flow) == (0, -1)


# ---- keys that are not used


def test_keys_that_are_not_needed_are_noted(path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "iart"):
        read_options(
            path, ("dist_params={}", "datasets.val.pin_memory=true", "network_g.img_size=null")
        )
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "datasets.val.pin_memory is not needed",
        "dist_params is not needed",
    ]


def test_keys_that_would_change_the_result_are_refused_unless_they_are_off(path: Path):
    read_options(path, ("train.gan_opt=null", "network_g.in_channels=3", "val.flip_seq=false"))
    assert "network_d and train.gan_opt belong together: network_d is missing" in (
        refused(path, "train.gan_opt={type: GANLoss}")
    )
    assert "train.ldl_opt: this loss is not built here; set it to null (got {'type'" in (
        refused(path, "train.ldl_opt={type: LDLLoss}")
    )
    assert "network_g.in_channels: pictures have 3 channels (got 1)" in (
        refused(path, "network_g.in_channels=1")
    )
    assert "network_d.type: Input should be" in refused(path, "network_d.type=UNet")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.total_iters=5", "train.total_iters: unknown key; the nearest known key is 'total_"),
        ("num_gpus=5", "num_gpus: unknown key; the nearest known key is 'num_gpu'"),
        ("dist_param={}", "dist_param: unknown key; the nearest known key is 'dist_params'"),
        ("xyz=5", "xyz: unknown key"),
        ("total_iter=5", "total_iter: unknown key; the nearest known key is 'train.total_iter'"),
        ("lr=5", "lr: unknown key; the nearest known key is 'train.optim_g.lr'"),
        ("train.gt_sise=5", "train.gt_sise: unknown key"),
        (
            "num_frame=5",
            "num_frame: unknown key; the nearest known key is 'datasets.train.num_frame'",
        ),
        ("datasets.trian={}", "datasets.trian: unknown key; the nearest known key is 'train'"),
        ("datasets.train.gtsize=4", "datasets.train.gtsize: unknown key; the nearest"),
        ("datasets.val.gtsize=4", "datasets.val.gtsize: unknown key; the nearest"),
        ("datasets.train.use_flip=true", "datasets.train.use_flip: unknown key"),
        ("train.scheduler.period=[1]", "train.scheduler.period: unknown key; the nearest known k"),
        ("val.metrics.psnr.crop=1", "val.metrics.psnr.crop: unknown key"),
        ("logger.wandb.projekt=x", "logger.wandb.projekt: unknown key; the nearest known key is"),
        ("{1: 2}=3", "{1: 2}: unknown key"),
    ],
)
def test_unknown_keys_are_named_with_the_nearest(path: Path, override: str, message: str):
    assert message in refused(path, override)


def test_a_key_that_is_no_text(path: Path):
    assert "datasets.1: unknown key" in refused(path, "datasets={1: 2}")


# ---- values


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(OptionsError) as caught:
        read_options(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.total_iter=soon", "train.total_iter: Input should be a valid integer"),
        ("train.total_iter=-1", "train.total_iter: Input should be greater than or equal to 0"),
        ("train.total_iter=11", "train: scheduler.periods [10] end at step 10, before total_iter"),
        ("train.optim_g.lr=0", "train.optim_g.lr: Input should be greater than 0 (got 0)"),
        ("train.optim_g.lr=.inf", "train.optim_g.lr: Input should be a finite number (got inf)"),
        ("train.optim_g.lr=.nan", "train.optim_g.lr: Input should be a finite number (got nan)"),
        ("train.optim_g.type=SGD", "train.optim_g.type: Input should be 'Adam' or 'AdamW' (got '"),
        ("train.pixel_opt=null", "train: there is no loss: give pixel_opt, fft_opt or percept"),
        ("train.scheduler.restart_weights=[1,1]", "train.scheduler: restart_weights [1.0, 1.0] mu"),
        ("train.scheduler.type=StepLR", "train.scheduler.type: expected one of 'CosineAnnealingR"),
        ("network_g={type: EDVR, num_feat: 64}", "network_g.type: IART is the one network here"),
        ("network_g.embed_dim=122", "network_g: channels (122) must be divisible by 4 and by"),
        ("network_g.window_size=[1, 8, 8]", "network_g: a window spans 3 frames"),
        ("network_g.use_checkpoint=[true, 2]", "network_g.use_checkpoint: Input should be a valid"),
        ("network_g.spynet_path=''", "network_g.spynet_path: a path must be text without NUL"),
        ("datasets.train.gt_size=66", "datasets.train.gt_size: Input should be a multiple of 4"),
        ("datasets.train.reduce=[2, 1]", "datasets.train: reduce must be two factors"),
        ("datasets.train.degradation={}", "give one of bicubic, mpeg2, dvd"),
        ("datasets.train.degradation={vhs: 1}", "datasets.train.degradation.vhs: unknown key"),
        ("datasets.train.drawn_share=0.9", "datasets.train: still_share, drawn_share and photo_sh"),
        ("datasets.train.photo_share=0.1", "datasets.train: photo_share needs dataroot_photos"),
        ("datasets.train.still_share=1.5", "datasets.train.still_share: Input should be less"),
        ("datasets.train.dataroot_gt=~nobody_/x", "datasets.train.dataroot_gt: Could not determin"),
        ("datasets.train={dataroot_gt: x}", "datasets.train.type: Field required"),
        ("datasets.train.type=PairedImageDataset", "datasets.train.type: expected one of 'REDSRec"),
        ("datasets.val.type=SingleImageDataset", "datasets.val.type: expected one of 'VideoRecur"),
        ("datasets.train=[]", "datasets.train: "),
        ("scale=2", "scale: Input should be 4 (got 2)"),
        ("model_type=ESRGANModel", "model_type: Input should be 'RecurrentMixPrecisionRTModel'"),
        ("val.metrics={niqe: {type: calculate_niqe}}", "val.metrics.niqe.type: Input should be '"),
        ("train.flow.size=48", "train.flow.size (48) must be a multiple of 32, at least 64"),
        ("logger.print_freq=0", "logger.print_freq: Input should be greater than 0"),
        ("name=../elsewhere", "name: String should match pattern"),
    ],
)
def test_values_that_cannot_work(path: Path, override: str, message: str):
    text = refused(path, override)
    assert text.startswith(f"'{path}': ")
    assert message in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("datasets.train.num_frame=0", "num_frame: expected a number of frames, or -1 for all"),
        ("datasets.train.interval_list=[]", "datasets.train.interval_list: Tuple should have at"),
        ("datasets.train.io_backend.type=s3", "datasets.train.io_backend.type: Input should be '"),
        ("datasets.train.patch_sizes=[64, 96]", "datasets.train: patch_probs [] must be one share"),
        ("datasets.train.patch_probs=[1]", "datasets.train: patch_probs [1.0] must be one share"),
        ("datasets.train.degradation={dvd: 1}", "datasets.train: give dataroot_lq or degradation"),
        ("datasets.train.dataroot_lq=null", "datasets.train: give dataroot_lq, or degradation to"),
        ("datasets.train.color=y", "datasets.train.color: the network takes RGB in the range 0"),
        ("train.scheduler={type: MultiStepLR, milestones: [4], restarts: [3, 0], "
         "restart_weights: [1, 1]}", "train.scheduler: restarts [3, 0] must ascend"),
    ],
)  # fmt: skip
def test_values_of_pairs_that_cannot_work(path: Path, override: str, message: str):
    assert message in refused(path, *PAIRS, override)


def test_one_precision(path: Path):
    both = ("train.half_precision=true", "train.precision=bfloat16")
    assert "train: half_precision is true and precision bfloat16: set one" in refused(path, *both)
    mixed = "model_type=RecurrentMixPrecisionRTModel"
    assert read_options(path, (mixed,)).train.half_precision
    assert not read_options(path, (mixed, "train.precision=float32")).train.half_precision


def test_lessons_need_scenes(path: Path):
    (said,) = obstacles(read_options(path, (PAIRS[1],)))
    assert said.startswith("train.flow teaches on scenes")
    assert obstacles(read_options(path, PAIRS)) == []


def test_videos_are_found_or_listed(path: Path):
    videos = ("train.flow=null", "datasets.train={type: VideoDataset, dataroot_gt: g}")
    said = "datasets.train: give dataroot_gt and dataroot_lq, or meta_info_file"
    assert said in refused(path, *videos)
    listed = read_options(path, (*videos, "datasets.train.meta_info_file=pairs.json"))
    assert listed.datasets.train.type == "VideoDataset"


def test_missing_value(path: Path):
    path.write_text(yaml.safe_dump({**MINIMAL, "train": {"total_iter": 1}}))
    assert "train.optim_g: Field required" in refused(path)


def test_files_that_cannot_be_read(tmp_path: Path):
    assert "cannot read option file" in refused(tmp_path / "missing.yml")
    broken = tmp_path / "broken.yml"
    for data in (b"name: [", b"\xff\xfe\x00", b"{" * 5000, b"a: \x07"):
        broken.write_bytes(data)
        assert "cannot read option file" in refused(broken)
    broken.write_text("just text")
    assert "holds no options" in refused(broken)


def test_keys_that_are_given_twice(path: Path):
    """Both lines of each are named, of all such keys at once."""
    path.write_text("name: a\ntrain:\n  total_iter: 1\n  'total_iter': 2\n\nname: b\nname: c\n")
    assert refused(path) == (
        f"cannot read option file '{path}': (1) key 'total_iter' is given 2 times, in lines 3"
        " and 4: leave one; (2) key 'name' is given 3 times, in lines 1, 6 and 7: leave one"
    )
    path.write_text("name: run")
    assert "key 'lr' is given 2 times" in refused(path, "train.optim_g={lr: 1, lr: 2}")


def test_merged_sections_may_repeat_keys(path: Path):
    text = yaml.safe_dump({**MINIMAL, "datasets": None}).replace(
        "datasets: null",
        "datasets:\n  train: &t {type: SceneDataset, dataroot_gt: t}\n"
        "  val: {<<: *t, dataroot_gt: v}\n  val_2: {<<: *t}",
    )
    path.write_text(text)
    sets = read_options(path).datasets.validation
    assert [sets[name].dataroot_gt for name in ("val", "val_2")] == [Path("v"), Path("t")]


def test_all_errors_are_said_at_once(path: Path):
    message = refused(
        path,
        "num_gpu=some",
        "train.total_iters=5",
        "train.optim_g={learning_rate: 1}",
        "train.ldl_opt={type: LDLLoss}",
        "train.pixel_opt.type=L7",
        "datasets.train.gtsize=5",
        "datasets.trian={}",
        "datasets.val.gt_size=5",
        "scale=2",
    )
    assert sorted(re.findall(r"\(\d+\) ([\w.]+):", message)) == [
        "datasets.train.gtsize",
        "datasets.trian",
        "datasets.val.gt_size",
        "num_gpu",
        "scale",
        "train.ldl_opt",
        "train.optim_g.learning_rate",
        "train.optim_g.lr",
        "train.pixel_opt.type",
        "train.total_iters",
    ]
    agree = ("train.half_precision=true", "train.precision=float16", "train.pixel_opt=null")
    assert "train: there is no loss" in (message := refused(path, *agree, "train.total_iter=11"))
    assert "half_precision is true" in message
    assert "scheduler.periods [10] end at step 10" in message


def test_no_flow_stage_needs_no_size(path: Path):
    options = read_options(path, ("train.flow.size=48", "train.flow.total_iter=0"))
    assert isinstance(options, TrainingOptions)


# ---- where a run starts


def test_files_that_a_run_starts_from(path: Path, tmp_path: Path):
    def missing(*overrides: str) -> str:
        with pytest.raises(OptionsError) as caught:
            require_files(read_options(path, overrides))
        return str(caught.value)

    require_files(read_options(path))
    assert missing("network_g.spynet_path=spy.pth") == (
        "network_g.spynet_path: there is no file 'spy.pth'. Name it, or pass "
        "network_g.spynet_path=null (our own flow weights)"
    )
    assert "pretrain_network_g: there is no file" in missing("path.pretrain_network_g=x.pth")
    # a name of those that ship
    require_files(read_options(path, ("path.pretrain_network_g=light",)))
    shipped = read_options(path, ("path.pretrain_network_g=light",)).path.pretrain_network_g
    assert shipped is not None
    assert shipped.name == "light.safetensors"
    perceptual = "train.perceptual_opt={layer_weights: {conv5_4: 1}"
    assert missing(perceptual + "}").endswith("or pass train.perceptual_opt=null")
    assert "weights: there is no file" in missing(perceptual + ", weights: vgg.pth}")
    (tmp_path / "vgg.pth").touch()
    require_files(read_options(path, (f"{perceptual}, weights: {tmp_path}/vgg.pth}}",)))


@pytest.mark.parametrize(
    ("num_gpu", "steps", "devices", "said"),
    [
        (8, 1, 1, ("32", "has 4 samples", "steps=8 makes it 32")),
        (8, 2, 3, ("64", "has 24 samples", "steps=6 makes it 72")),
        (8, 1, 4, ("32", "has 16 samples", "steps=2 makes it 32")),
    ],
)
def test_fewer_devices_are_warned_of(
    path: Path, num_gpu: int, steps: int, devices: int, said: tuple[str, ...]
):
    changes = (f"num_gpu={num_gpu}", f"train.gradient_accumulation_steps={steps}")
    warning = batch_warning(read_options(path, changes), devices)
    assert warning is not None
    published, actual, restored = said
    assert f"instead of {published};" in warning
    assert actual in warning
    assert warning.endswith(restored)


@pytest.mark.parametrize("num_gpu", ["auto", 0, 1, 2])
def test_enough_devices_are_not_warned_of(path: Path, num_gpu: str | int):
    assert batch_warning(read_options(path, (f"num_gpu={num_gpu}",)), 2) is None
