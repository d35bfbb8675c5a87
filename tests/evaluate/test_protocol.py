"""Protocols: those that ship are what was published; own ones are read strictly."""

from pathlib import Path

import pytest

from iart.errors import OptionsError
from iart.evaluate.protocol import protocol_names, read_protocol

OWN = """
description: three clips of mine
gt: mine/GT
lq: mine/LR
degradation: bi
clips: {a: 3, b/c: 5}
colour: y
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.yml"
    path.write_text(OWN)
    return path


def test_the_protocols_that_ship():
    assert protocol_names() == [
        "dvd",
        "mpeg2-q4",
        "mpeg2-q8",
        "reds4-n16",
        "reds4-n6",
        "tape",
        "udm10-bd",
        "vid4-bd",
        "vid4-bi",
        "vid4-n16",
        "vid4-n6",
        "vimeo90k-t-bd",
        "vimeo90k-t-bi",
        "web",
    ]


@pytest.mark.parametrize(
    ("name", "psnr", "ssim", "weights"),
    [
        ("reds4-n6", 32.15, 0.9010, "IART_REDS_BI_N6.pth"),
        ("reds4-n16", 32.90, 0.9138, "IART_REDS_BI_N16.pth"),
        ("vid4-bi", 28.26, 0.8517, "IART_Vimeo-90K_BI.pth"),
        ("vimeo90k-t-bi", 38.14, 0.9528, "IART_Vimeo-90K_BI.pth"),
        ("udm10-bd", 41.15, 0.9750, "IART_Vimeo-90K_BD.pth"),
        ("vid4-bd", 29.68, 0.8884, "IART_Vimeo-90K_BD.pth"),
        ("vimeo90k-t-bd", 38.62, 0.9579, "IART_Vimeo-90K_BD.pth"),
    ],
)
def test_what_was_published(name: str, psnr: float, ssim: float, weights: str):
    protocol = read_protocol(name)
    assert protocol.expected is not None
    assert (protocol.expected.psnr, protocol.expected.ssim) == (psnr, ssim)
    assert protocol.weights == Path("experiments/pretrained_models") / weights
    assert protocol.border == 0
    assert protocol.colour == ("rgb" if name.startswith("reds4") else "y")
    assert protocol.degradation == ("bd" if name.endswith("bd") else "bi")
    assert (protocol.score_frames == "centre") == name.startswith("vimeo")
    assert not protocol.flip_seq


def test_the_clips_are_the_published_ones():
    for name in ("reds4-n6", "reds4-n16"):
        assert read_protocol(name).clips == {"000": 100, "011": 100, "015": 100, "020": 100}
    for name in ("vid4-n6", "vid4-n16", "vid4-bi", "vid4-bd"):
        clips = {"calendar": 41, "city": 34, "foliage": 49, "walk": 47}
        assert read_protocol(name).clips == clips
    assert set(read_protocol("udm10-bd").clips.values()) == {32}
    assert len(read_protocol("udm10-bd").clips) == 10
    for name in ("vimeo90k-t-bi", "vimeo90k-t-bd"):
        assert (read_protocol(name).clip_count, read_protocol(name).frames) == (7824, 7)


def test_networks_trained_on_reds_have_no_published_score_on_vid4():
    for name in ("vid4-n6", "vid4-n16"):
        assert read_protocol(name).expected is None
        assert "23.78" in (read_protocol(name).note or "")


def test_an_own_protocol(own: Path):
    protocol = read_protocol(own)
    assert protocol.name == "own"
    assert protocol.clips == {"a": 3, "b/c": 5}
    assert protocol.lq == (Path("mine/LR"),)
    assert read_protocol(str(own)) == protocol


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("colour: y", "colour: y\nname: ../../own"), r"name: '../../own' is no name"),
        (("colour: y", "colour: y\nname: ''"), "name: '' is no name"),
        (("colour: y", "color: y"), r"unknown key 'color' \(did you mean colour\?\)"),
        (("colour: y", "colour: yuv"), r"colour: .*'rgb' or 'y' \(got 'yuv'\)"),
        (("{a: 3, b/c: 5}", "{../a: 3}"), r"clips.*'../a' is no name of a clip"),
        (("{a: 3, b/c: 5}", "{/a: 3}"), r"'/a' is no name of a clip"),
        (("{a: 3, b/c: 5}", "{a: 0}"), "greater than 0"),
        (("clips: {a: 3, b/c: 5}", ""), "needs either clips .* or clip_list"),
        (("clips: {a: 3, b/c: 5}", "clip_list: list.txt"), "a clip_list needs frames"),
        (("gt: mine/GT", ""), "gt: Field required"),
        (("colour: y", "colour: y\nexpected: {psnr: 1, ssim: 1, oft: me}"), "did you mean of"),
        (("colour: y", "colour: ["), "cannot read protocol"),
        (("colour: y", "colour: 2001-99-99"), "cannot read protocol .*month must be in"),
        (("colour: y", f"colour: {'[' * 3000}"), "cannot read protocol"),
    ],
)
def test_what_an_own_protocol_cannot_say(own: Path, change: tuple[str, str], message: str):
    own.write_text(OWN.replace(*change))
    with pytest.raises(OptionsError, match=message) as caught:
        read_protocol(own)
    assert len(str(caught.value).splitlines()) == 1
    assert "own.yml" in str(caught.value)


def test_all_that_is_wrong_is_said_at_once(own: Path):
    own.write_text(OWN.replace("colour: y", "color: y\nborder: -1\nframes: 0"))
    with pytest.raises(OptionsError) as caught:
        read_protocol(own)
    for said in ("unknown key 'color'", "colour: Field required", "border: ", "frames: "):
        assert said in str(caught.value)
    own.write_text(f"{OWN}made: {{c: {{picture: demo, degradation: {{kind: dvd}}}}}}\nframes: 3")
    with pytest.raises(OptionsError, match=r"made needs exactly .* belong to a clip_list"):
        read_protocol(own)


def test_a_clip_that_is_named_twice(own: Path):
    own.write_text(OWN.replace("{a: 3, b/c: 5}", "{a: 3, b/c: 5, a: 4}"))
    with pytest.raises(OptionsError, match=r"key 'a' is given 2 times, in lines 6 and 6: leave"):
        read_protocol(own)


@pytest.mark.parametrize("text", ["", "just words", "- a list"])
def test_a_file_that_is_no_protocol(own: Path, text: str):
    own.write_text(text)
    with pytest.raises(OptionsError, match="holds nothing to measure"):
        read_protocol(own)


def test_names_that_do_not_exist(tmp_path: Path):
    with pytest.raises(
        OptionsError, match=r"unknown protocol 'vid4-n61' \(did you mean vid4-n6"
    ) as e:
        read_protocol("vid4-n61")
    assert ", ".join(protocol_names()) in str(e.value)
    with pytest.raises(OptionsError, match="No such file"):
        read_protocol(tmp_path / "nothing.yml")
    with pytest.raises(OptionsError, match="Is a directory"):
        read_protocol(tmp_path)
