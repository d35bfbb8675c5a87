import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from typer.testing import CliRunner

from iart import cli
from iart.bench.growth import (
    ClipSize,
    Cost,
    Growth,
    curves,
    growing_sizes,
    jumps,
    measure_growth,
    peaks_of_a_process,
    straight_line,
    write_growth,
)
from iart.bench.measure import load_network
from iart.device import free_memory
from iart.errors import DeviceError, OptionsError, OutputError
from iart.model import IART
from iart.model.memory import memory_in_use
from iart.upscaling.tiles import plan_tiles
from iart.weights import save_model
from tests.bench.test_measure import CONFIG

HEIGHT, WIDTH, TILE = 16, 24, 48
MULTIPLE = 8  # twice a window of CONFIG


def test_sizes_lie_on_both_sides_of_borders() -> None:
    by_frames, by_pixels, by_tiles = growing_sizes(IART(CONFIG), 2, HEIGHT, WIDTH)
    assert by_frames[0] == ClipSize(1, HEIGHT, WIDTH)
    assert [size.frames for size in by_frames] == sorted({size.frames for size in by_frames})
    for below, at, above in zip(by_pixels[::3], by_pixels[1::3], by_pixels[2::3], strict=True):
        assert at.height % MULTIPLE == at.width % MULTIPLE == 0
        assert (below.height, below.width) == (at.height - 1, at.width - 1)
        assert (above.height, above.width) == (at.height + 1, at.width + 1)
    counts = [len(plan_tiles(size.width, TILE, MULTIPLE)) for size in by_tiles]
    assert counts == [1, 1, 2, 2, 2, 3]
    assert [b.width - a.width for a, b in zip(by_tiles[1::3], by_tiles[2::3], strict=True)] == [
        1,
        1,
    ]
    with pytest.raises(OptionsError, match=r"^tile must be at least .* Pass a larger --width$"):
        growing_sizes(IART(CONFIG), 2, HEIGHT, 8)


def growth() -> Growth:
    """Linear but for a jump of 20 % past 32 pixels."""

    def cost(frames: int, width: int) -> Cost:
        size = ClipSize(frames, 10, width)
        return Cost(size, (1.2 if width > 32 else 1.0) * size.pixels * 1e-6, 100 + 3 * size.pixels)

    widths = tuple(cost(1, width) for width in (16, 31, 32, 33, 64))
    frames = tuple(cost(count, 16) for count in (1, 2, 5, 9))
    return Growth("light", "cpu", "float32", 1, frames, widths, widths)


def test_what_is_not_linear_is_found() -> None:
    found = {(f.cost, f.grows): f for f in curves(growth())}
    assert found["time", "frames"].from_line == pytest.approx(0, abs=1e-9)
    assert found["time", "frames"].jump is None
    assert 0.05 < found["time", "kilopixels per frame"].from_line < 0.2
    assert found["time", "kilopixels per frame"].jump == pytest.approx(0.2)
    memory = found["memory", "kilopixels per frame"]
    assert memory.from_line == pytest.approx(0, abs=1e-9)
    assert memory.jump is not None
    assert -0.1 < memory.jump < 0
    assert list(jumps(growth().by_pixels, lambda cost: cost.seconds)) == [
        ClipSize(1, 10, 32), ClipSize(1, 10, 33)
    ]  # fmt: skip


def test_a_cost_too_little_to_be_seen_is_left_out(tmp_path: Path) -> None:
    unseen = growth()
    unseen = replace(unseen, by_frames=tuple(replace(c, peak_bytes=0) for c in unseen.by_frames))
    found = {(finding.cost, finding.grows) for finding in curves(unseen)}
    assert len(found) == 5
    assert ("memory", "frames") not in found
    assert "memory against frames" not in write_growth(unseen, tmp_path)[1].read_text()


def test_the_line_that_fits_best() -> None:
    assert straight_line([1.0, 2.0, 4.0], [5.0, 7.0, 11.0]) == pytest.approx([5, 7, 11])
    x, y = [1.0, 2.0, 3.0, 5.0], [2.0, 3.5, 3.0, 6.0]

    def misfit(line: list[float]) -> float:
        return math.fsum((a / b - 1) ** 2 for a, b in zip(line, y, strict=True))

    line = straight_line(x, y)
    assert misfit(line) < min(
        misfit([v + d * u for u, v in zip(x, line, strict=True)]) for d in (-0.01, 0.01)
    )
    assert misfit(line) < min(misfit([v + d for v in line]) for d in (-0.01, 0.01))


def test_the_picture_needs_nothing_else(tmp_path: Path) -> None:
    files = write_growth(growth(), tmp_path / "new")
    assert [file.name for file in files] == ["growth.json", "growth.svg"]
    text = files[1].read_text()
    charts = ElementTree.fromstring(text).findall("{*}svg")
    assert len(charts) == 6
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    marks = [float(dot.attrib["cx"]) for dot in charts[0].findall("{*}circle")]
    assert len(marks) == 2 * 4
    left = marks[0] - (marks[1] - marks[0])  # frames 1, 2, 5, 9 lie in proportion
    assert [(x - left) / (marks[0] - left) for x in marks[:4]] == pytest.approx(
        [1, 2, 5, 9], rel=0.01
    )
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write '"):
        write_growth(growth(), tmp_path / "file")


def test_memory_in_use_is_the_same_every_time_and_what_the_formula_says() -> None:
    size = ClipSize(3, 90, 125)
    peaks = peaks_of_a_process("light", "cpu", [size, ClipSize(2, 16, 24), size], "float32")
    expected = memory_in_use(load_network("light", "cpu").config, 3, 90, 125)
    assert expected == pytest.approx(peaks[0], rel=0.1)
    assert peaks[2] == pytest.approx(peaks[0], rel=0.05)
    assert peaks[1] < peaks[0] / 3
    with pytest.raises(
        DeviceError, match=r"memory could not be measured: .*unknown model 'light2'"
    ):
        peaks_of_a_process("light2", "cpu", [size], "float32")


PEAKS_STAY = """
from pathlib import Path
import torch
from iart.bench import measure
from iart.bench.growth import ClipSize, peaks_on_device
measure.CLEAR_REFS = Path("/proc/no such file")
assert not measure.reset_peak_memory(torch.device("cpu"))
print(*peaks_on_device("light", "cpu", [ClipSize(4, 96, 160)], "float32"))
"""


@pytest.mark.slow
def test_memory_where_peaks_stay() -> None:
    """As on macOS, and in sandboxes without this file of Linux; in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", PEAKS_STAY], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) > 4 * 48 * ClipSize(4, 96, 160).pixels


@pytest.mark.slow
def test_memory_is_that_of_the_backend_that_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler, called = tmp_path / "compiler", tmp_path / "called"
    compiler.write_text(f"#!/bin/sh\ntouch '{called}'\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    peaks_of_a_process("light", "cpu", [ClipSize(1, 16, 24)], "float32", "torch")
    assert not called.exists()


def test_a_folder_that_cannot_be_is_found_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    arguments = ["bench", "--model", "not looked at", "--growth", str(tmp_path / "file" / "x")]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 1
    assert "cannot write '" in result.output


@pytest.mark.skipif(free_memory(torch.device("cpu")) is None, reason="nobody knows what is free")
def test_too_little_memory_for_growth(tmp_path: Path) -> None:
    tiny = tmp_path / "tiny.safetensors"
    save_model(IART(CONFIG), tiny)
    with pytest.raises(DeviceError, match=r"^16 frames of 1000000x1000000 need .* GB of memory"):
        measure_growth(str(tiny), "cpu", frames=1, height=10**6, width=10**6)


@pytest.mark.slow
def test_command(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "tiny.safetensors"
    save_model(IART(CONFIG), weights)
    arguments = ["bench", "--model", str(weights), "--device", "cpu", "--repeats", "1", "--frames"]
    sizes = ["1", "--height", str(HEIGHT), "--width", str(WIDTH), "--growth", str(tmp_path / "g")]
    result = CliRunner().invoke(cli.app, [*arguments, *sizes])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "g" / "growth.json").read_text())
    costs = found["by_frames"] + found["by_pixels"] + found["by_tiles"]
    assert all(cost["seconds"] > 0 for cost in costs)
    for cost in costs:
        size = cost["size"]
        pixels = size["frames"] * size["height"] * size["width"]
        if pixels > 2000:  # the least is too little to be seen from outside the process
            assert cost["peak_bytes"] > 4 * 48 * pixels
    assert len(found["findings"]) == 6
    assert len(re.findall(r"within \d+\.\d% of a line", result.stdout)) == 6
    shown = CliRunner().invoke(cli.app, [*arguments, "1", "--json"])
    assert json.loads(shown.stdout)["model"] == str(weights)
