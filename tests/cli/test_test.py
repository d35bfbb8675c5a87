"""`iart test`: flags, what is printed, processes that share, and errors of one line."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from iart import cli
from iart.cli.measure import score
from iart.evaluate.benchmark import run
from iart.evaluate.protocol import protocol_names
from iart.evaluate.results import Record, from_json
from iart.files.complete import locked
from tests.cli.test_cli import keywords
from tests.evaluate.made import make_data, make_protocol
from tests.processes import start_iart, wait_until

CLIPS = {"a": 3, "b": 2, "c": 2}


def iart(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["test", *(str(argument) for argument in arguments)])


def assert_fails(result: Result, *texts: str) -> None:
    """Exit code 1 and one line that says what is wrong."""
    assert result.exit_code == 1, result.output
    for text in texts:
        assert text in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert not result.stdout


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data", CLIPS)


@pytest.fixture
def protocol(tmp_path: Path) -> Path:
    return make_protocol(tmp_path / "made.yml", clips=CLIPS)


@pytest.fixture
def asked(data: Path, protocol: Path) -> list[str]:
    """A benchmark of bicubic enlargement."""
    return [str(protocol), "--data", str(data), "--weights", "bicubic"]


def test_flags_are_keywords_of_the_library():
    flags, words = keywords(score), keywords(run)
    assert flags.keys() - {"threads", "json", "quiet", "verbose"} == words.keys() - {
        "command",
        "progress",
    }
    shared = flags.keys() & words.keys()
    assert {name: flags[name] for name in shared} == {name: words[name] for name in shared}


def test_the_list_shows_all_protocols():
    result = iart("list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == protocol_names()
    assert "Vid4/GT + Vid4/BIx4" in result.stdout
    assert "28.26 / 0.8517" in result.stdout
    assert max(map(len, lines)) <= 80


def test_scores_are_printed_and_written(tmp_path: Path, asked: list[str]):
    output = tmp_path / "out"
    result = iart(*asked, "-o", output)
    assert result.exit_code == 0, result.output
    record = from_json((output / "report.json").read_bytes(), Record)
    assert f"{record.means()['psnr']:.4f}" in result.stdout
    for name in CLIPS:
        assert name in result.stdout
    assert {path.name for path in output.iterdir()} >= {"report.md", "report.html", "clips.csv"}
    assert f"note: the report is in '{output / 'report.html'}'" in result.stderr
    assert "were scored before" not in result.stderr
    again = iart(*asked, "-o", output)
    assert again.exit_code == 0
    assert f"note: {len(CLIPS)} of {len(CLIPS)} clips were scored before" in again.stderr
    assert "report.html" in again.stderr


def test_the_command_is_kept(tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/iart", "test", "a b.yml"])
    iart(*asked, "-o", tmp_path / "out")
    assert (
        from_json((tmp_path / "out" / "report.json").read_bytes(), Record).command
        == "iart test 'a b.yml'"
    )


# ---- several processes


@pytest.mark.slow
def test_several_devices_share_the_clips(tmp_path: Path, asked: list[str]):
    alone = iart(*asked, "-o", tmp_path / "alone")
    both = iart(*asked, "-o", tmp_path / "both", "--devices", "cpu,cpu")
    assert alone.exit_code == both.exit_code == 0, both.output
    one, two = (
        from_json((tmp_path / name / "report.json").read_bytes(), Record)
        for name in ("alone", "both")
    )
    assert one.means() == two.means()
    assert [clip.name for clip in two.clips] == list(CLIPS)


@pytest.mark.slow
def test_a_cluster_gives_the_record_of_one_process(tmp_path: Path, asked: list[str]):
    pytest.importorskip("ray")
    light = [*asked[:-1], "light", "--json", "--threads", "1"]
    local = ["--cluster", "local", "--cluster-cpus", "1"]
    for name, more in (("alone", []), ("shared", local)):
        process = start_iart("test", *light, "-o", tmp_path / name, *more, stdout=subprocess.PIPE)
        written, errors = process.communicate()
        assert process.returncode == 0, errors
        assert json.loads(written)["model"] == "light"  # Ray writes nothing there
    one, two = (
        from_json((tmp_path / n / "report.json").read_bytes(), Record) for n in ("alone", "shared")
    )
    assert [clip.name for clip in two.clips] == list(CLIPS)
    pairs = zip(one.clips, two.clips, strict=True)
    clips = tuple(replace(b, seconds=a.seconds) for a, b in pairs)
    assert replace(two, clips=clips, command=one.command, date=one.date) == one


def test_devices_that_do_not_exist(asked: list[str]):
    assert_fails(iart(*asked, "--devices", "cpu, gpu7,"), "unknown device 'gpu7'")
    assert_fails(iart(*asked, "--devices", " ,"), "no device is named")
    assert_fails(iart(*asked, "--devices", "cpu,gpu7"), "unknown device 'gpu7'")


def test_an_error_in_every_process_is_told_once(tmp_path: Path, asked: list[str], data: Path):
    (data / "set" / "BIx4" / "a" / "001.png").unlink()
    assert_fails(iart(*asked, "--devices", "cpu,cpu"), "holds 2 low-resolution frames, expected 3")


def test_a_killed_run_goes_on(tmp_path: Path, asked: list[str]):
    output = tmp_path / "out"
    killed = start_iart("test", *asked, "-o", output, stdout=subprocess.DEVNULL)
    wait_until(lambda: list(output.glob("clips/*.json")), killed)
    killed.kill()
    killed.communicate()
    assert iart(*asked, "-o", output).exit_code == 0
    record = from_json((output / "report.json").read_bytes(), Record)
    assert [clip.name for clip in record.clips] == list(CLIPS)


def test_two_runs_in_one_folder_are_refused(tmp_path: Path, asked: list[str]):
    (tmp_path / "out" / "clips").mkdir(parents=True)
    with locked(tmp_path / "out" / ".lock"):
        assert_fails(iart(*asked, "-o", tmp_path / "out"), "another run is writing to", "--output")
    assert iart(*asked, "-o", tmp_path / "out").exit_code == 0


# ---- errors of one line


def test_unknown_protocols():
    assert_fails(iart("vid4"), "unknown protocol 'vid4' (did you mean vid4-", "udm10-bd", ".yml")


def test_no_data(tmp_path: Path, asked: list[str]):
    assert_fails(
        iart("vid4-n16", "--data", tmp_path / "nowhere"),
        "there is no data folder",
        "calendar, city, foliage, walk",
        "Vid4/BIx4",
        "--data",
    )


def test_metrics_are_named_together_or_one_by_one(tmp_path: Path, asked: list[str]):
    asked = [*asked, "-o", str(tmp_path / "out")]
    assert_fails(iart(*asked, "--metrics", "tof,nonsense"), "there is no metric 'nonsense'")
    again = iart(*asked, "--metrics", "tof", "--metrics", "dists,nonsense")
    assert_fails(again, "there is no metric 'nonsense'")
    assert_fails(iart(*asked, "--metrics", "tof, nonsense,"), "there is no metric 'nonsense'")


def test_no_weights(asked: list[str]):
    assert_fails(iart(*asked[:-2]), "no weights for made", "--weights light")


def test_no_place_to_write(tmp_path: Path, asked: list[str]):
    (tmp_path / "file").write_text("")
    assert_fails(iart(*asked, "-o", tmp_path / "file"), "cannot write")


def test_another_run_in_the_folder(tmp_path: Path, asked: list[str]):
    assert iart(*asked, "-o", tmp_path / "out").exit_code == 0
    again = (*asked, "-o", tmp_path / "out", "--limit", "1")
    assert_fails(iart(*again), "holds a run with another limit", "--overwrite")
    assert iart(*again, "--overwrite").exit_code == 0
