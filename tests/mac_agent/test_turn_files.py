from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mac_agent.engines.engine import Turn
from mac_agent.rttm import RttmMalformed, read_rttm, write_rttm
from mac_agent.timeline import SPEAKER_COLOURS, draw_timeline

TURNS = [Turn(0.0, 12.5, "SPEAKER_00"), Turn(10.0, 30.25, "SPEAKER_01"), Turn(40.0, 58.0, "SPEAKER_00")]


def test_rttm_written_is_read_back():
    stream = io.StringIO()
    write_rttm(stream, TURNS, file_id="a meeting")
    first = stream.getvalue().splitlines()[0]
    assert first == "SPEAKER a_meeting 1 0.000 12.500 <NA> <NA> SPEAKER_00 <NA> <NA>"
    assert read_rttm(stream.getvalue().splitlines()) == TURNS


def test_rttm_of_others_is_read_by_file_and_sorted():
    lines = [
        ";; a comment",
        "",
        "SPKR-INFO other 1 <NA> <NA> <NA> unknown A <NA>",
        "SPEAKER two 1 5.0 1.0 <NA> <NA> B <NA>",
        "SPEAKER one 1 9.0 1.0 <NA> <NA> B <NA> <NA>",
        "SPEAKER one 1 1.0 2.0 <NA> <NA> A <NA> <NA>",
    ]
    assert read_rttm(lines, file_id="one") == [Turn(1.0, 3.0, "A"), Turn(9.0, 10.0, "B")]


@pytest.mark.parametrize("line", ["SPEAKER a 1 2", "SPEAKER a 1 x 1 <NA> <NA> A <NA>", "SPEAKER a 1 nan 1 - - A -"])
def test_a_broken_line_is_named(line):
    with pytest.raises(RttmMalformed, match="line 2"):
        read_rttm([";;", line])


def pixels_of(path, hexadecimal: str) -> int:
    """How many pixels have exactly this colour."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return int((pixels == list(bytes.fromhex(hexadecimal[1:]))).all(axis=2).sum())


def test_the_picture_shows_each_speaker_in_a_colour_by_how_long_they_speak(tmp_path):
    path = tmp_path / "timeline.png"
    draw_timeline(path, {"result": TURNS}, 60.0, "a meeting")
    first, second = pixels_of(path, SPEAKER_COLOURS[0]), pixels_of(path, SPEAKER_COLOURS[1])
    assert first / second == pytest.approx(30.5 / 20.25, rel=0.05)
    assert pixels_of(path, SPEAKER_COLOURS[2]) == 0


def test_lanes_stand_above_each_other_on_one_scale(tmp_path):
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    draw_timeline(one, {"result": TURNS}, 60.0, "")
    draw_timeline(two, {"reference": TURNS, "result": TURNS}, 60.0, "")
    assert Image.open(two).height > Image.open(one).height
    assert Image.open(two).width == Image.open(one).width


def test_a_voice_has_one_colour_in_all_lanes_whatever_it_is_called_and_however_long_it_spoke(tmp_path):
    reference = [Turn(0.0, 31.0, "anna"), Turn(31.0, 60.0, "bert")]
    result = [Turn(0.0, 25.0, "SPEAKER_00"), Turn(31.0, 60.0, "SPEAKER_01"), Turn(25.0, 28.0, "SPEAKER_02")]
    path = tmp_path / "timeline.png"
    draw_timeline(path, {"reference": reference, "result": result}, 60.0, "")
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    anna, bert = (list(bytes.fromhex(SPEAKER_COLOURS[place][1:])) for place in (0, 1))
    left, right = pixels[:, : pixels.shape[1] // 2], pixels[:, 6 * pixels.shape[1] // 10 :]
    assert not (left == bert).all(axis=2).any()
    assert not (right == anna).all(axis=2).any()
    assert pixels_of(path, SPEAKER_COLOURS[2]) > 0


@pytest.mark.parametrize(
    ("lanes", "duration_s"),
    [
        ({"result": []}, 60.0),
        ({"result": []}, 0.0),
        ({}, 10.0),
        ({"result": [Turn(float(i), i + 0.5, f"S{i}") for i in range(40)]}, 4 * 3600.0),
    ],
    ids=["silence", "no audio", "no lanes", "forty speakers in four hours"],
)
def test_odd_results_make_a_picture_too(tmp_path, lanes, duration_s):
    path = tmp_path / "timeline.png"
    draw_timeline(path, lanes, duration_s, "odd")
    assert Image.open(path).size[0] > 1000
