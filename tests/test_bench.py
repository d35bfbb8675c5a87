import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from iart.bench import STAGES, count_operations, format_result, load_network, measure, to_json
from iart.errors import OptionsError
from iart.model import IART, IARTConfig

CONFIG = IARTConfig(
    channels=24, mid_channels=16, head_channels=8, flow_channels=(8, 8), flow_levels=2,
    depths=(2, 1), heads=(2, 2), window=(3, 4, 4), branches=2,
)  # fmt: skip


def test_operations_agree_with_what_torch_counts() -> None:
    """Sizes without padding; attention and the 2×2 cells are not in torch's count on the CPU."""
    frames, h, w = 3, 16, 24
    model = IART(CONFIG).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.rand(1, frames, 3, h, w))
    counted = counter.get_flop_counts()["Global"]
    attention = sum(n for op, n in counted.items() if "scaled_dot_product" in str(op))
    c, cells = CONFIG.channels, 48
    queries = 3 * 3 - 2  # frames attended from: three in each block, the middle one in the last
    expected_attention = 2 * CONFIG.branches * frames * queries * 2 * cells * c * h * w
    alignments = CONFIG.branches * (2 + 1)
    expected_cells = 2 * alignments * 2 * 4 * c * h * w
    expected = sum(count_operations(CONFIG, frames, h, w).values()) - expected_cells
    # What the encodings of the four cells are projected by is not worth counting.
    uncounted = 0 if attention else expected_attention
    assert sum(counted.values()) == pytest.approx(expected - uncounted, rel=0.001)


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


def test_bicubic_is_no_network() -> None:
    with pytest.raises(OptionsError, match="'bicubic' is not a network"):
        load_network("bicubic", "cpu")
