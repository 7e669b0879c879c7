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
        (SRT.replace("00:00:03,000", "00\uff1a00\uff1a03,000"), "t.srt", "line 7 is no times"),
        (SRT.replace("00:00:03,000 -->", "00:00:03,000 \u2192"), "t.srt", "line 7 is no times"),
        (SRT.replace("00:00:03,000 -->", "00:00:03,000 \u2013"), "t.srt", "line 7 is no times"),
        (SRT.replace("00:00:03,000", "[00:00:03,000"), "t.srt", "line 7 is no times"),
        (SRT.replace("X1:3\nSo", "So"), "t.srt", "line 7 has words behind the times"),
        (SRT.replace("00:00:03,000", "00:00:03,68"), "t.srt", "line 7 has fewer than three digits"),
        (VTT.replace("00:01.000", "00:01.5"), "t.vtt", "line 9 has fewer than three digits"),
        (VTT.replace("00:00:04.500\n", "00:00:04.500 align:left yes "), "t.vtt", "line 13 has words behind the times"),
    ],
)
def test_what_would_be_lost_is_refused_and_its_line_named(tmp_path: Path, text: str, name: str, message: str) -> None:
    with pytest.raises(TranscriptError, match=message):
        said(tmp_path, text, name)


@pytest.mark.parametrize(
    ("begin", "start_s"),
    [
        ("2\n00:03,000 --> 00:04,500", 3.0),
        ("2\n75:03,000 --> 75:04,500", 4503.0),
        ("00:00:03,000 --> 00:00:04,500", 3.0),
        ("2.\n00:00:03,000 --> 00:00:04,500", 3.0),
    ],
    ids=["no hours", "minutes alone", "no number", "a number with a dot"],
)
def test_no_cue_of_srt_is_lost_for_how_it_begins(tmp_path: Path, begin: str, start_s: float) -> None:
    lines = said(tmp_path, SRT.replace("2\n00:00:03,000 --> 00:00:04,500", begin), "t.srt")
    assert lines == [(None, "Anna: hello there", 1.0, 2.5), (None, "So & so", start_s, start_s + 1.5)]


@pytest.mark.parametrize("name", ["t.srt", "t.vtt"])
@pytest.mark.parametrize("ends", ["\n\n", "\r\r\n"])
def test_a_cue_s_number_does_not_become_a_word_where_an_empty_line_follows_it(
    tmp_path: Path, name: str, ends: str
) -> None:
    cues = "1\n00:00:01.000 --> 00:00:02.000\nin\n1984\n\n2\n00:00:03.000 --> 00:00:04.000\n3\n"
    text = ("WEBVTT\n\n" if name == "t.vtt" else "") + cues
    assert said(tmp_path, text.replace("\n", ends), name) == [(None, "in 1984", 1.0, 2.0), (None, "3", 3.0, 4.0)]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ("00:00:06.68 --> 00:00:07.05", (6.68, 7.05)),
        ("00:06.6 --> 00:07.0", (6.6, 7.0)),
        ("00:00:06.5 --> 00:00:07.25", (6.5, 7.25)),
        ("00:00:00.0 --> 00:00:07.250", (0.0, 7.25)),
    ],
)
@pytest.mark.parametrize("name", ["t.srt", "t.vtt"])
def test_one_or_two_digits_behind_the_second_are_tenths_and_hundredths(
    tmp_path: Path, name: str, times: str, expected: tuple[float, float]
) -> None:
    times = times.replace(".", ",") if name == "t.srt" else "WEBVTT\n\n" + times
    assert said(tmp_path, f"{times}\nhello\n", name) == [(None, "hello", *expected)]


def test_minutes_beyond_59_of_webvtt_are_read(tmp_path: Path) -> None:
    cues = said(tmp_path, VTT.replace("1:00:00.000 --> 1:00:01.000", "60:00.000 --> 60:01.000"), "t.vtt")
    assert cues[2] == (None, "late both", 3600.0, 3601.0)


@pytest.mark.parametrize("name", ["t.srt", "t.vtt"])
def test_words_behind_an_empty_line_or_with_an_arrow_are_the_cues(tmp_path: Path, name: str) -> None:
    head = "WEBVTT\n\n" if name == "t.vtt" else ""
    cues = "1\n00:00:01.000 --> 00:00:02.000\nfirst\n\nfrom A --> B\n\n2\n00:00:03.000 --> 00:00:04.000\n\nsecond\n"
    note = "\nNOTE no word\nof theirs\n" if name == "t.vtt" else ""
    assert said(tmp_path, head + cues + note, name) == [
        (None, "first from A \u2192 B", 1.0, 2.0),
        (None, "second", 3.0, 4.0),
    ]


@pytest.mark.parametrize("name", ["t.srt", "t.vtt"])
@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("5 < 6 and 7 > 3", "5 < 6 and 7 > 3"),
        ("x<y, I <3 you <laughs> a->b", "x<y, I <3 you <laughs> a->b"),
        ("a<b and c<p, so p>a &lt;i&gt;", "a<b and c<p, so p>a <i>"),
        ("<I>so</I> <00:00:01.500><c.loud> it</c> <font color='red'>is</font><br/>", "so it is"),
    ],
)
def test_what_stands_between_angles_and_is_no_tag_is_words(tmp_path: Path, name: str, written: str, words: str) -> None:
    text = f"{'WEBVTT' if name.endswith('vtt') else ''}\n\n1\n00:00:01.000 --> 00:00:02.000\n{written}\n"
    assert [text for _, text, _, _ in said(tmp_path, text, name)] == [words]


def test_a_voice_that_stands_twice_in_a_cue_is_one_voice(tmp_path: Path) -> None:
    cue = "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Anna>one</v>\n<v Anna>two</v>\n"
    assert said(tmp_path, cue, "t.vtt") == [("SPEAKER_00", "one two", 1.0, 2.0)]


def test_a_speakers_number_of_5000_digits_is_text(tmp_path: Path) -> None:
    words = f"[SPEAKER_{'9' * 5_000}]: hello"
    (cue,) = said(tmp_path, f"1\n00:00:00,000 --> 00:00:01,000\n{words}\n", "t.srt")
    assert cue[:2] == (None, words)
