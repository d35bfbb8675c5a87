"""Charts are XML, stay inside their frame and have round numbers on their axes."""

import math
from xml.etree import ElementTree

import pytest

from iart.reports.charts import lines_chart


@pytest.mark.parametrize(
    "values",
    [
        [1.0],
        [2.0, 2.0],
        [math.inf],
        [0.1, math.inf, 0.3],
        [30.0 + i / 7 for i in range(500)],
        [-3.0, 0.0],
    ],
)
def test_charts_are_xml_inside_their_frame(values: list[float]) -> None:
    names = [f"<{i}>" for i in range(len(values))]
    chart = ElementTree.fromstring(
        lines_chart({"": values}, names, title="a < b", unit="dB", axis="frame")
    )
    assert "a < b" in chart.attrib["aria-label"]
    box = [float(v) for v in chart.attrib["viewBox"].split()]
    dots = chart.findall("circle")
    assert len(dots) == (len(values) if len(values) <= 150 else 0)
    for dot in dots:
        assert box[0] <= float(dot.attrib["cx"]) <= box[2]
        assert box[1] <= float(dot.attrib["cy"]) <= box[3]
    lines = [path for path in chart.findall("path") if path.attrib["class"] == "line"]
    gaps = sum(math.isinf(value) for value in values)
    assert len(lines) == (gaps + 1 if len(values) > 1 else 1 - gaps)
    labels = [text.text for text in chart.findall("text")]
    assert len(set(labels)) >= 4
    assert {"dB", "frame"} <= set(labels)


@pytest.mark.parametrize(
    ("values", "logarithmic", "numbers"),
    [
        ([0.0, 10.0], False, ["0", "5", "10"]),
        ([26.9, 30.2], False, ["26", "27", "28", "29", "30", "31"]),
        ([0.006, 0.3], True, ["0.005", "0.01", "0.02", "0.05", "0.1", "0.2", "0.5"]),
        ([0.41, 0.43], True, ["0.41", "0.42", "0.43"]),
        ([0.0, 1.0], True, ["0.0", "0.5", "1.0"]),
        ([1e-5, 1.0], True, ["1e-05", "0.0001", "0.001", "0.01", "0.1", "1"]),
    ],
)
def test_numbers_on_the_axis_are_round(
    values: list[float], logarithmic: bool, numbers: list[str]
) -> None:
    text = lines_chart(
        {"": values}, ["a", "b"], title="", unit="", axis="", at=[1.0, 2.0], logarithmic=logarithmic
    )
    chart = ElementTree.fromstring(text)
    shown = [t.text for t in chart.findall("text") if t.attrib["class"] == "end"]
    assert shown == numbers
    heights = [float(dot.attrib["cy"]) for dot in chart.findall("circle")]
    assert heights == sorted(heights, reverse=True)
