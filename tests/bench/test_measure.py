import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from iart.bench.measure import (
    STAGES,
    count_operations,
    format_result,
    load_network,
    made_clip,
    measure,
    to_json,
)
from iart.device import free_memory
from iart.errors import DeviceError, OptionsError
from iart.model import IART, IARTConfig

CONFIG = IARTConfig(
    channels=24, mid_channels=16, head_channels=8, flow_channels=(8, 8), flow_levels=2,
    depths=(2, 1), heads=(2, 2), window=(3, 4, 4), branches=2,
)  # fmt: skip


def test_operations_agree_with_what_torch_counts() -> None:
    """Sizes without padding; the kernel and alignment's 2×2 cells are not in torch's count."""
    frames, h, w = 3, 16, 24
    model = IART(CONFIG).eval()
    model.backend = "torch"
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        model(torch.rand(1, frames, 3, h, w))
    alignments = CONFIG.branches * (2 + 1)
    cells = 2 * alignments * 2 * 4 * CONFIG.channels * h * w
    expected = sum(count_operations(CONFIG, frames, h, w).values()) - cells
    # What the encodings of the four cells are projected by is not worth counting.
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.001)


def test_measures_every_stage() -> None:
    result = measure(IART(CONFIG).eval(), frames=2, height=16, width=16, repeats=1)
    assert [stage.name for stage in result.stages] == list(STAGES)
    assert all(stage.seconds > 0 and stage.operations > 0 for stage in result.stages)
    assert sum(stage.seconds for stage in result.stages) <= result.seconds
    assert result.peak_bytes > 10_000_000
    assert 0 < result.matmul_share < 5
    assert result.frames_per_second == pytest.approx(2 / result.seconds)
    assert all(name in format_result(result) for name in (*STAGES, "frames/s", "of matmul"))
    assert json.loads(to_json(result))["frames_per_second"] == result.frames_per_second
    assert result.psnr is None
    assert list(result.matmul_rates) == ["float32"]


def test_half_precision_is_measured_against_its_own_rate_and_float32s_output() -> None:
    model = load_network("light", "cpu", "bfloat16")
    result = measure(model, frames=2, height=16, width=24, repeats=1)
    assert result.psnr is not None
    assert 40 < result.psnr < 110
    assert list(result.matmul_rates) == ["float32", "bfloat16"]
    for stage in result.stages:
        rate = result.matmul_rates["float32" if stage.name == "flow" else "bfloat16"]
        assert stage.floor_seconds == pytest.approx(stage.operations / rate)
    assert f"{result.psnr:.1f} dB" in format_result(result)
    with pytest.raises(DeviceError, match="float16 needs a GPU"):
        load_network("light", "cpu", "float16")


def test_the_clip_is_a_smooth_pan() -> None:
    clip = made_clip(3, 40, 60)
    assert clip.shape == (1, 3, 3, 40, 60)
    assert 0 <= clip.min() < 0.4 < 0.6 < clip.max() <= 1
    assert torch.equal(clip[:, 1:, ..., :-2], clip[:, :-1, ..., 2:])
    assert clip.diff(dim=-1).abs().mean() < 0.1
    assert torch.equal(clip, made_clip(3, 40, 60))


def test_full_is_the_same_every_time_and_leaves_the_callers_numbers_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one, two = (load_network("full", "cpu").extract.weight for _ in range(2))
    assert torch.rand(1) == expected
    assert torch.equal(one, two)


def test_bicubic_is_no_network() -> None:
    with pytest.raises(OptionsError, match="'bicubic' is not a network"):
        load_network("bicubic", "cpu")


@pytest.mark.skipif(free_memory(torch.device("cpu")) is None, reason="nobody knows what is free")
@pytest.mark.parametrize(("frames", "side"), [(1, 10**6), (10**9, 8)])
def test_too_little_memory_is_said_before_it_is_taken(frames: int, side: int) -> None:
    words = rf"^{frames} frames of {side}x{side} need \d+\.\d GB of memory, and cpu has .* GB"
    with pytest.raises(DeviceError, match=words):
        measure(IART(CONFIG), frames, side, side)
