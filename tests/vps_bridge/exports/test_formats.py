"""The formats of an export, read back by programs that are not ours: libav for subtitles, pyannote for RTTM."""

import io
import json
from pathlib import Path

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.conversation import SegmentPiece
from vps_bridge.conversations.store import StoredSegment
from vps_bridge.exports.export_format import ExportFormat
from vps_bridge.exports.formats import file_name, render_export
from vps_bridge.exports.gather import KnownNames, split_segment
from vps_bridge.exports.records import ExportedConversation, ExportedLine, ExportedSpeaker, ExportedTurn
from vps_bridge.labelling.number import Voice

ANNA = ExportedSpeaker(name="Anna Berg", speaker_id=0, person_id="p-1", identity="confirmed")
NOBODY = ExportedSpeaker(name="unknown")
HOSTILE = 'a < b & c --> d\r\n\r\n00:00:01.000 --> 99:00:00.000\nNOTE\x00 <v Ben>"x"</v>'
NOWHERE = "\n\n"


def line(start_s: float, end_s: float, text: str, speaker: ExportedSpeaker = ANNA) -> ExportedLine:
    return ExportedLine(segment_id="s", start_s=start_s, end_s=end_s, speaker=speaker, text=text)


def turn(start_s: float, end_s: float, speaker: ExportedSpeaker = ANNA) -> ExportedTurn:
    return ExportedTurn(start_s=start_s, end_s=end_s, speaker=speaker)


def conversation(*spoken: ExportedLine | ExportedTurn) -> ExportedConversation:
    return ExportedConversation(
        conversation_id="call-1",
        started_at=None,
        is_final=True,
        updated_version=1,
        lines=tuple(one for one in spoken if isinstance(one, ExportedLine)),
        turns=tuple(one for one in spoken if isinstance(one, ExportedTurn)),
    )


def read_subtitles(found: ExportedConversation, form: ExportFormat) -> list[tuple[int, int, str]]:
    """Start and end in milliseconds, and the words, as libav reads the file."""
    name = {ExportFormat.SRT: "srt", ExportFormat.VTT: "webvtt"}[form]
    with av.open(io.BytesIO(render_export(found, form).encode()), "r", format=name) as file:
        packets = [packet for packet in file.demux() if packet.size]
    return [((one.pts or 0), (one.pts or 0) + (one.duration or 0), bytes(one).decode()) for one in packets]


def test_subtitles_say_who_speaks_and_keep_overlap_and_order() -> None:
    found = conversation(line(0.5, 4.25, "good\nmorning"), line(3_723.004, 3_725.0, "yes", NOBODY), line(2, 6, "hm"))
    expected = [(500, 4_250, "good\nmorning", "Anna Berg"), (2_000, 6_000, "hm", "Anna Berg")]
    expected.append((3_723_004, 3_725_000, "yes", "unknown"))
    assert read_subtitles(found, ExportFormat.SRT) == [
        (start, end, f"{who}: {text}") for start, end, text, who in expected
    ]
    assert read_subtitles(found, ExportFormat.VTT) == [
        (start, end, f"<v {who}>{text}</v>") for start, end, text, who in expected
    ]


def test_a_matched_name_says_that_nobody_confirmed_it() -> None:
    matched = ANNA.model_copy(update={"identity": "matched"})
    assert read_subtitles(conversation(line(0, 1, "x", matched)), ExportFormat.SRT) == [
        (0, 1_000, "Anna Berg (matched): x")
    ]


def test_words_and_names_can_be_no_part_of_the_format() -> None:
    speaker = ExportedSpeaker(name="A&B\n\n<i>\t-->", person_id="p-2", identity="confirmed")
    found = conversation(line(1, 2, HOSTILE, speaker), line(3, 4, "next"))
    for form in (ExportFormat.SRT, ExportFormat.VTT):
        first, second = read_subtitles(found, form)
        assert (first[:2], second[:2]) == ((1_000, 2_000), (3_000, 4_000))
        assert "-->" not in first[2]
        assert NOWHERE not in first[2]
    words = read_subtitles(found, ExportFormat.VTT)[0][2]
    assert words.startswith("<v A&amp;B &lt;i&gt; --&gt;>a &lt; b &amp; c --&gt; d\n")
    assert words.count("<") == 2, "the voice tag and its end"


def test_a_line_without_words_or_length_or_before_the_beginning_is_kept() -> None:
    found = conversation(line(-3, -1, "early"), line(5, 5, " \n "))
    assert read_subtitles(found, ExportFormat.SRT) == [
        (0, 1_000, "Anna Berg: early"),
        (5_000, 6_000, "Anna Berg: (speech)"),
    ]


def test_without_a_transcript_subtitles_show_who_speaks_and_nothing_at_all_is_a_file_too() -> None:
    expected = [(0, 1_500, "<v Anna Berg>(speech)</v>")]
    assert read_subtitles(conversation(turn(0, 1.5)), ExportFormat.VTT) == expected
    assert render_export(conversation(), ExportFormat.VTT) == "WEBVTT\n"
    assert render_export(conversation(), ExportFormat.SRT) == render_export(conversation(), ExportFormat.RTTM) == ""


@pytest.mark.long  # pyannote takes seconds to load
def test_pyannote_reads_the_turns_with_one_name_for_each_speaker(tmp_path: Path) -> None:
    from pyannote.database.util import load_rttm

    namesake = ANNA.model_copy(update={"person_id": "p-9", "speaker_id": 4})
    matched = ANNA.model_copy(update={"speaker_id": 7, "identity": "matched"})
    turns = [turn(-1, 2.5), turn(2, 3, namesake), turn(2.25, 4, matched), turn(4, 4), turn(5, 6, NOBODY), turn(-2, -1)]
    path = tmp_path / "call.rttm"
    path.write_text(render_export(conversation(*turns, line(0, 9, "words")), ExportFormat.RTTM))
    (annotation,) = load_rttm(path).values()
    assert annotation.uri == "call-1"
    spoken = [(segment.start, segment.end, who) for segment, _, who in annotation.itertracks(yield_label=True)]
    assert spoken == [
        (0.0, 2.5, "Anna_Berg"),
        (2.0, 3.0, "Anna_Berg_2"),
        (2.25, 4.0, "Anna_Berg"),
        (5.0, 6.0, "unknown"),
    ]


def test_json_holds_everything_and_files_are_named_by_the_conversation() -> None:
    found = conversation(line(0, 1, HOSTILE), turn(0, 1))
    assert ExportedConversation.model_validate_json(render_export(found, ExportFormat.JSON)) == found
    assert json.loads(render_export(found, ExportFormat.JSON))["lines"][0]["speaker"]["person_id"] == "p-1"
    assert file_name("call-1", ExportFormat.VTT) == "call-1.vtt"


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10), st.text(max_size=30), st.text(max_size=12)), max_size=4)
)
def test_whatever_is_said_each_line_is_one_subtitle_and_each_turn_one_line(
    said: list[tuple[float, float, str, str]],
) -> None:
    lines = [
        line(place * 30 + start, place * 30 + end, text, ExportedSpeaker(name=name, person_id=f"p{place}"))
        for place, (start, end, text, name) in enumerate(said)
    ]
    for form in (ExportFormat.SRT, ExportFormat.VTT):
        assert len(read_subtitles(conversation(*lines), form)) == len(lines)
    rows = render_export(conversation(*lines), ExportFormat.RTTM).splitlines()
    assert all(len(row.split(" ")) == len(row.split()) == 10 for row in rows)
    assert len({row.split()[7] for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("segment", "shown"),
    [
        (StoredSegment("s", 0, 1, speaker="SPEAKER_00", speaker_id=0), ["Anna Berg"]),
        (StoredSegment("s", 0, 1, speaker="SPEAKER_01", speaker_id=1), ["SPEAKER_01"]),
        (StoredSegment("s", 0, 1, speaker="SPEAKER_01", speaker_id=1, person_id="ben"), ["ben"]),
        (StoredSegment("s", 0, 1, speaker="SPEAKER_01", speaker_id=1, matched_person="p-1"), ["Anna Berg (matched)"]),
        (StoredSegment("s", 0, 1, speaker="SPEAKER_07", is_user=True), ["you"]),
        (StoredSegment("s", 0, 1, speaker="Doctor"), ["Doctor"]),
        (StoredSegment("s", 0, 1), ["unknown"]),
        (
            StoredSegment(
                "s",
                0,
                2,
                text="one two three",
                speaker_id=1,
                pieces=(
                    SegmentPiece(start_s=0, end_s=1, first_word=0, last_word=1, speaker_id=0),
                    SegmentPiece(start_s=1, end_s=2, first_word=2, last_word=2),
                ),
            ),
            ["Anna Berg", "unknown"],
        ),
    ],
)
def test_who_speaks_is_the_person_that_somebody_named_then_the_matched_one_then_the_number(
    segment: StoredSegment, shown: list[str]
) -> None:
    known = KnownNames({0: Voice(0, (), person_id="p-1"), 1: Voice(1, ())}, {"p-1": "Anna Berg"})
    lines = list(split_segment(segment, known))
    assert [one.speaker.shown_name for one in lines] == shown
    assert " ".join(one.text for one in lines) == segment.text
