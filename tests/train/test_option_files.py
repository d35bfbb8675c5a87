"""The option files of the project, and the schema that editors check them by."""

import json
from pathlib import Path

import pytest
import yaml

from iart.model import IARTConfig
from iart.train.options import data as data_options
from iart.train.options import losses as loss_options
from iart.train.options import recipe as recipe_options
from iart.train.options import run as options
from iart.train.options.data import DVDOptions, REDSOptions, VimeoOptions
from iart.train.options.read import read_options, write_schema
from iart.train.options.recipe import CosineOptions
from iart.train.options.section import Section

FOLDER = Path(__file__).parents[2] / "options"
PUBLISHED = (
    "IART_REDS_N6_300K",
    "IART_REDS_N16_600K",
    "IART_Vimeo_N14_300K",
    "train_dvd_bluray",
)
SECTIONS = sorted(
    {
        value
        for module in (
            data_options,
            loss_options,
            options,
            options,
            recipe_options,
        )
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Section) and value is not Section
    },
    key=lambda section: section.__name__,
)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yml")), ids=lambda path: path.name)
def test_option_files_are_read(path: Path):
    assert read_options(path).name == path.stem
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    assert "shared" not in text


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_are_the_published_recipe(name: str):
    chosen = read_options(FOLDER / f"{name}.yml")
    train, scheduler = chosen.train, chosen.train.scheduler
    assert chosen.network_g.config() == IARTConfig()
    assert chosen.network_g.use_checkpoint  # the release's default
    assert train.half_precision
    assert isinstance(scheduler, CosineOptions)
    assert scheduler.periods == (train.total_iter,)
    assert (scheduler.restart_weights, scheduler.eta_min) == ((1,), 1e-7)
    assert (train.ema_decay, train.optim_g.betas, train.optim_g.weight_decay) == (
        0.999, (0.9, 0.99), 0,
    )  # fmt: skip
    assert train.pixel_opt is not None
    assert train.pixel_opt.model_dump() == {
        "type": "CharbonnierLoss", "loss_weight": 1, "reduction": "mean", "eps": 1e-12,
    }  # fmt: skip
    assert chosen.datasets.train.gt_size == 256
    assert chosen.datasets.train.batch_size_per_gpu == 1


def test_reds():
    short, long = (read_options(FOLDER / f"{name}.yml") for name in PUBLISHED[:2])
    data = short.datasets.train
    assert isinstance(data, REDSOptions)
    assert (data.io_backend_type, data.val_partition, data.test_mode) == ("lmdb", "REDS4", False)
    assert (short.num_gpu, short.train.total_iter, data.num_frame) == (8, 300_000, 6)
    assert (long.train.total_iter, long.datasets.train.num_frame) == (600_000, 16)
    assert (short.train.optim_g.lr, short.train.fix_flow, short.train.flow_lr_mul) == (
        2e-4, 5000, 0.125,
    )  # fmt: skip
    assert (data.use_hflip, data.use_rot, data.random_reverse) == (True, True, False)
    assert short.val.val_freq == short.logger.save_checkpoint_freq == 5000
    assert [metric.test_y_channel for metric in short.val.metrics.values()] == [False, False]
    assert list(short.datasets.validation) == ["val"]


def test_vimeo():
    chosen = read_options(FOLDER / "IART_Vimeo_N14_300K.yml")
    data = chosen.datasets.train
    assert isinstance(data, VimeoOptions)
    assert (data.num_frame, data.flip_sequence, data.dataset_enlarge_ratio) == (-1, True, 200)
    assert (chosen.train.optim_g.lr, chosen.train.fix_flow, chosen.train.flow_lr_mul) == (
        1e-4, -1, 0.25,
    )  # fmt: skip
    assert chosen.val.metrics["psnr"].test_y_channel


def test_dvd():
    """With num_frames: 16 in the network, which broke the fork's attention."""
    path = FOLDER / "train_dvd_bluray.yml"
    assert yaml.safe_load(path.read_text())["network_g"]["num_frames"] == 16
    several = (
        "datasets.train.patch_sizes=[256, 384, 512]",
        "datasets.train.patch_probs=[.6,.3,.1]",
    )
    chosen = read_options(path, several)
    data, train = chosen.datasets.train, chosen.train
    assert isinstance(data, DVDOptions)
    assert data.patch_sizes == (256, 384, 512)
    assert (data.num_frame, data.use_hflip, data.use_rot) == (16, False, False)
    assert (train.optim_g.lr, train.total_iter, train.warmup_iter) == (2e-5, 50_000, 500)
    assert (train.use_grad_clip, train.grad_clip_norm) == (True, 0.5)
    assert train.gradient_accumulation_steps == 8
    assert train.perceptual_opt is not None
    assert train.perceptual_opt.layer_weights == {"conv5_4": 1}
    assert train.perceptual_opt.perceptual_weight == 0.05


# ---- documentation of the keys


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_key_says_what_it_is_for(section: type[Section]):
    assert section.__doc__
    for name, field in section.model_fields.items():
        assert field.description, name
        assert field.description.rstrip().endswith("."), name
    for name, known in section.known.items():
        assert len(known.reason) > 10, name
        assert "\n" not in known.reason
        assert name not in section.model_fields


def test_the_schema_is_up_to_date(tmp_path: Path):
    write_schema(tmp_path / "schema.json")
    new, old = (folder / "schema.json" for folder in (tmp_path, FOLDER))
    assert new.read_text() == old.read_text(), (
        'keys have changed: python -c "from pathlib import Path; '
        "from iart.train.options.read import write_schema; "
        "write_schema(Path('options/schema.json'))\""
    )


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_the_schema_has_every_key(section: type[Section]):
    schema = json.loads((FOLDER / "schema.json").read_text())
    part = schema if section is options.TrainingOptions else schema["$defs"].get(section.__name__)
    if part is None:
        assert section.__subclasses__()  # what others have in common
        return
    assert part["properties"].keys() == section.model_fields.keys() | section.known.keys()
    assert not part["additionalProperties"]
