"""SRT and WebVTT as people and programs write them."""

from pathlib import Path

import pytest

from vps_bridge.conversations.transcripts import TranscriptError, read_transcript

SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Anna:</i> hello
there

2
00:00:03,000 --> 00:00:04,500 X1:3
So &amp; so

"""
VTT = """WEBVTT - a talk

NOTE made by hand

STYLE
::cue { color: red }

first
00:01.000 --> 00:02.500 align:left
<v Anna>hello &amp; you</v>

second
00:00:03.250 --> 00:00:04.500
<v.loud Bob>yes <c>there</c>

1:00:00.000 --> 1:00:01.000
<v Anna>late</v>
<v Bob>both</v>
"""


def said(tmp_path: Path, text: str, name: str, *, mark: str = "") -> list[tuple[str | None, str, float, float]]:
    path = tmp_path / name
    path.write_text(mark + text, encoding="utf-8")
    return [(each.speaker, each.text, each.start_s, each.end_s) for each in read_transcript(path, "c1")]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_srt_is_read_without_its_marks(tmp_path: Path, ending: str, mark: str) -> None:
    lines = said(tmp_path, SRT.replace("\n", ending), "t.SRT", mark=mark)
    assert lines == [(None, "Anna: hello there", 1.0, 2.5), (None, "So & so", 3.0, 4.5)]


def test_srt_of_whisperx_has_its_speakers(tmp_path: Path) -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\n[SPEAKER_01]: hello\n\n2\n00:00:03,000 --> 00:00:04,000\n[loud] bang\n"
    assert said(tmp_path, text, "t.srt") == [("SPEAKER_01", "hello", 1.0, 2.0), (None, "[loud] bang", 3.0, 4.0)]


def test_webvtt_is_read_with_its_voices_and_no_name_of_a_cue_becomes_a_word(tmp_path: Path) -> None:
    assert said(tmp_path, VTT, "t.vtt") == [
        ("SPEAKER_00", "hello & you", 1.0, 2.5),
        ("SPEAKER_01", "yes there", 3.25, 4.5),
        (None, "late both", 3600.0, 3601.0),
    ]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "t.srt", "does not begin as SRT"),
        ("hello", "t.srt", "does not begin as SRT"),
        (SRT, "t.vtt", "does not begin as VTT"),
        (SRT.replace("00:00:03,000 -->", "00:00:03,000 ->"), "t.srt", "line 7 is no times"),
        (SRT.replace("00:00:04,500", "soon"), "t.srt", "line 7 is no times"),
        (VTT.replace("00:00:04.500", "5"), "t.vtt", "line 13 is no times"),
        (SRT.replace("00:00:03,000", "-00:00:03,000"), "t.srt", "line 7 is no times"),
        (SRT.replace("00:00:03,000", "00:00:-3,000"), "t.srt", "line 7 is no times"),
        (SRT.replace("00:00:03,000", "\u221200:00:03,000"), "t.srt", "line 7 is no times"),
        (SRT.replace("00:00:03,000", "9" * 400 + ":00:03,000"), "t.srt", "line 7 is no times"),
    ],
)
def test_what_would_be_lost_is_refused_and_its_line_named(tmp_path: Path, text: str, name: str, message: str) -> None:
    with pytest.raises(TranscriptError, match=message):
        said(tmp_path, text, name)


def test_a_speakers_number_of_5000_digits_is_text(tmp_path: Path) -> None:
    words = f"[SPEAKER_{'9' * 5_000}]: hello"
    (cue,) = said(tmp_path, f"1\n00:00:00,000 --> 00:00:01,000\n{words}\n", "t.srt")
    assert cue[:2] == (None, words)
