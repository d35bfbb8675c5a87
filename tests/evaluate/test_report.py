"""Reports: the same figures in each form, all of the run's facts, and every text escaped."""

import csv
import io
import math
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from iart.errors import OutputError
from iart.evaluate.report import clips_csv, frames_csv, html, markdown, table, write_reports
from iart.evaluate.results import ClipRecord, CropRecord, FrameScore, Record, Setting, from_json

PNG = b"\x89PNG\r\n\x1a\n"
COMMAND = shlex.join(["iart", "test", "vid4-n16", "--results", "/a <b>/`c` | d"])


def clip(name: str, psnrs: list[float], **more: object) -> ClipRecord:
    frames = tuple(
        FrameScore(f"{i:08d}.png", {"psnr": p, "ssim": 0.5 + i / 100}) for i, p in enumerate(psnrs)
    )
    return replace(ClipRecord(name, frames, 0.25, 1.5), **more)


def record(*clips: ClipRecord) -> Record:
    if not clips:
        clips = (clip("calendar", [20.0, 21.0]), clip("city", [23.0, 24.0]))
    return Record(
        Setting(
            "vid4-n16", "Vid4, MATLAB bicubic", "y", 0, {"psnr": 28.26, "ssim": 0.8517}, "Xu 2024"
        ),
        clips,
        COMMAND,
        "0.1.0",
        "2.13.0",
        "light",
        "ab" * 32,
        "NVIDIA H100",
        "float32",
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        ("a quick look <b>",),
    )


class Texts(HTMLParser):
    """The text that a browser shows, the tags it sees and the places it fetches from."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.places = "", list[str](), list[str]()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.places += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_table_has_clips_mean_published_and_difference() -> None:
    lines = table(record()).splitlines()
    cells = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert cells["calendar"] == ["2", "20.5000", "0.5050", "0.2500", "1.5"]
    assert cells["mean"] == ["4", "22.0000", "0.5050", "0.2500"]
    assert cells["published"] == ["28.26", "0.8517", "-", "Xu", "2024"]
    assert cells["difference"] == ["-6.2600", "-0.3467", "-"]
    ends = {line.index("PSNR dB") + 7 for line in lines if "PSNR dB" in line}
    assert {line.index("22.0000") + 7 for line in lines if line.startswith("mean")} == ends


@pytest.mark.parametrize("form", [table, markdown, clips_csv, frames_csv, html])
def test_every_form_says_how_to_repeat_the_run(form) -> None:
    text = form(record())
    if form is html:
        text = Texts(text).text
    elif form in (clips_csv, frames_csv):
        text = " ".join(rows(text)[0].values())
    assert COMMAND in text
    assert "ab" * 32 in text
    for fact in ("vid4-n16", "NVIDIA H100", "0.1.0", "2.13.0", "2026-01-02", "float32"):
        assert fact in text


def test_no_published_score_no_row() -> None:
    bare = replace(record(), protocol=Setting("mine", "x", "rgb"))
    assert "published" not in table(bare)
    assert {row["kind"] for row in rows(clips_csv(bare))} == {"clip", "mean"}


def test_csv_holds_all_digits_and_one_kind_of_row() -> None:
    third = 20 + 1 / 3
    found = record(clip("a", [third, math.inf]), clip("b, “c”", [30.0]))
    frames = rows(frames_csv(found))
    assert [(row["clip"], row["index"]) for row in frames] == [
        ("a", "0"),
        ("a", "1"),
        ("b, “c”", "0"),
    ]
    assert float(frames[0]["psnr"]) == third
    assert frames[1]["psnr"] == "inf"
    assert "tof" not in frames[0]
    clips = rows(clips_csv(found))
    assert [row["kind"] for row in clips] == ["clip", "clip", "mean", "published", "difference"]
    assert clips[2]["clip"] == ""
    assert clips[0]["tof"] == "0.25"
    assert "a quick look" in clips[0]["notes"]


def test_equal_frames_are_infinite_and_explained() -> None:
    found = record(clip("a", [20.0, math.inf]), clip("b", [math.inf]))
    for text in (table(found), markdown(found), Texts(html(found)).text):
        assert "2 of 3 frames equal their ground truth" in text
        assert "the mean of the others is 20.0000 dB" in text
    every = replace(
        found, clips=(found.clips[1],), protocol=Setting("p", "d", "y", 0, {"psnr": math.inf})
    )
    assert "+0.0000" in table(every)
    assert "nan" not in table(every) + html(every)


def test_many_clips_are_shortened_for_readers_and_whole_in_files() -> None:
    found = record(*(clip(f"clip{i:03d}", [20.0 + i]) for i in range(100)))
    for text in (table(found), markdown(found)):
        assert "(60 more)" in text
        assert "clip000" in text
        assert "clip050" not in text
        assert "clip099" in text
    assert len(rows(clips_csv(found))) == 103
    page = Texts(html(found))
    assert page.tags.count("tr") == 104
    assert page.tags.count("svg") == 2  # sorted scores of all clips: one frame has no curve


def test_markdown_has_one_cell_per_column_whatever_the_names() -> None:
    found = record(clip("a|b`*_<i>", [20.0], windowed="16 frames"), clip("c", [20.0]))
    lines = [line for line in markdown(found).splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "16 frames" in lines[2]
    assert f"`` {COMMAND} ``" in markdown(found)


def test_page_is_alone_and_escaped() -> None:
    crop = CropRecord('<img src="x">', 8, 12, 1.0, PNG, PNG, PNG, PNG)
    bad = '"><script>alert(1)</script>'
    found = record(clip(bad, [20.0, math.inf, 21.0], crops=(crop,), lr_made=True))
    text = html(replace(found, model=bad, notes=(bad,), protocol=replace(found.protocol, name=bad)))
    page = Texts(text)
    assert "script" not in page.tags
    assert page.tags.count("img") == 4
    assert all(place.startswith("data:image/png;base64,") for place in page.places)
    assert "http" not in text
    assert "url(" not in text
    for shown in ("LR made here", 'x">, x 12, y 8', "bicubic", "ground truth", bad):
        assert shown in page.text


def test_page_without_input_shows_what_there_is() -> None:
    found = record(
        clip("a", [20.0, 21.0], crops=(CropRecord("f", 0, 0, 1.0, None, None, PNG, PNG),))
    )
    assert Texts(html(found)).tags.count("img") == 2


def test_files(tmp_path: Path) -> None:
    found = record()
    files = write_reports(found, tmp_path / "new" / "folder")
    names = ["report.md", "report.json", "clips.csv", "frames.csv", "report.html"]
    assert [file.name for file in files] == names
    assert sorted(p.name for p in files[0].parent.iterdir()) == sorted(names)
    assert from_json(files[1].read_bytes(), Record) == found
    assert files[0].read_text(encoding="utf-8") == markdown(found)
    write_reports(replace(found, command="iart test caf\udce9"), tmp_path)  # no text, but a path
    assert all(
        b"caf\\udce9" in (tmp_path / name).read_bytes().replace(b"\\\\", b"\\") for name in names
    )
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make the folder"):
        write_reports(found, tmp_path / "file")
