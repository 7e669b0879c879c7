"""Importing transcript files: the shapes people have, and errors that say what to do."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.vps_bridge.scripted_agent import make_wav
from vps_bridge.conversations.transcripts import TranscriptError, read_transcript


def write(tmp_path, content, name="transcript.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


OMI_SEGMENT = {
    "id": "s1",
    "text": "Hi",
    "start": 1.0,
    "end": 2.5,
    "speaker": "SPEAKER_01",
    "speaker_id": 1,
    "is_user": False,
    "person_id": "p1",
    "translations": [],
}


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"segments": s}, lambda s: {"id": "c", "transcript_segments": s}]
)
def test_segments_of_the_omi_backend_are_read(tmp_path, wrap):
    (segment,) = read_transcript(write(tmp_path, wrap([OMI_SEGMENT])), "c1")
    assert (segment.id, segment.text, segment.start_s, segment.end_s) == ("s1", "Hi", 1.0, 2.5)
    assert (segment.speaker, segment.person_id) == ("SPEAKER_01", "p1")


def test_an_empty_list_does_not_hide_the_one_that_has_the_segments(tmp_path):
    content = {"segments": [], "transcript_segments": [{"text": "hello", "start": 0.0, "end": 1.0}]}
    assert [segment.text for segment in read_transcript(write(tmp_path, content), "c1")] == ["hello"]


def test_dropping_speakers_drops_owner_and_person_as_well(tmp_path):
    (segment,) = read_transcript(write(tmp_path, [OMI_SEGMENT | {"is_user": True}]), "c1", keep_speakers=False)
    assert (segment.speaker, segment.person_id, segment.is_user) == (None, None, False)


def test_times_in_seconds_by_our_names_and_a_bare_speaker_number_are_read(tmp_path):
    (segment,) = read_transcript(write(tmp_path, [{"start_s": 0, "end_s": 1, "speaker_id": 3}]), "c1")
    assert (segment.start_s, segment.end_s, segment.speaker) == (0.0, 1.0, "SPEAKER_03")


def test_missing_ids_are_made_and_are_the_same_at_every_import(tmp_path):
    path = write(tmp_path, [{"start": 0, "end": 1}, {"start": 1, "end": 2}])
    first, second = read_transcript(path, "c1"), read_transcript(path, "c1")
    assert [segment.id for segment in first] == ["c1-00000", "c1-00001"]
    assert first == second


def test_a_manual_label_of_the_backend_stays_manual(tmp_path):
    (segment,) = read_transcript(write(tmp_path, [OMI_SEGMENT | {"speaker_label_source": "manual"}]), "c1")
    assert segment.label_source == "manual"


def test_stm_lines_become_segments_whose_speakers_are_people(tmp_path):
    stm = (
        ";; comment\ncall 1 Ann 0.50 1.25 <o,f0,female> Hello there.\n\ncall 1 Bob 1.30 2.00 Hi.\ncall 1 Ann 2.1 2.2\n"
    )
    first, second, third = read_transcript(write(tmp_path, stm, "call.stm"), "c1")
    assert (first.text, first.start_s, first.end_s) == ("Hello there.", 0.5, 1.25)
    assert [segment.person_id for segment in (first, second, third)] == ["Ann", "Bob", "Ann"]
    assert [segment.speaker for segment in (first, second, third)] == ["SPEAKER_00", "SPEAKER_01", "SPEAKER_00"]
    assert {segment.label_source for segment in (first, second, third)} == {"manual"}
    assert third.text == ""


def test_lines_of_stm_that_scoring_leaves_out_are_no_segments_of_somebody(tmp_path):
    stm = (
        "talk 1 inter_segment_gap 0 6.6 <o,,unknown> ignore_time_segment_in_scoring\n"
        "talk 1 Ann 6.6 7.1 <o,f0,female> Thank you.\n"
        "talk 1 excluded_region 7.1 8.0 <o,f0,male> applause\n"
        "talk 1 Bob 8.0 9.0 <o,f0,male> IGNORE_TIME_SEGMENT_IN_SCORING\n"
    )
    (segment,) = read_transcript(write(tmp_path, stm, "talk.stm"), "c1")
    assert (segment.text, segment.person_id, segment.speaker) == ("Thank you.", "Ann", "SPEAKER_00")


def test_stm_without_its_speakers_is_only_text_and_times(tmp_path):
    (segment,) = read_transcript(write(tmp_path, "call 1 Ann 0.5 1.0 Hello", "call.stm"), "c1", keep_speakers=False)
    assert (segment.text, segment.speaker, segment.person_id, segment.label_source) == ("Hello", None, None, None)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("{", "t.json", "not JSON"),
        ('{"words": []}', "t.json", "no list of segments"),
        ("[1]", "t.json", "segment 0: not an object"),
        ('[{"start": 0}]', "t.json", "segment 0: wrong or missing end_s"),
        ('[{"start": 0, "end": "soon"}]', "t.json", "segment 0: wrong or missing end_s"),
        ('[{"id": "a", "start": 0, "end": 1}, {"id": "a", "start": 1, "end": 2}]', "t.json", "stands twice"),
        ("call 1 Ann half 1.0 Hello", "t.stm", "line 1: expected"),
        ("call 1", "t.stm", "line 1: expected"),
        ("a 1 Ann 0 1 Hello\n;; the next\nb 1 Bob 0 1 Hi", "t.stm", "line 3: another recording begins"),
        ("start\tend\tspeaker\ttext\n0\t900\tAnn\tHello", "t.tsv", "line 1: expected start"),
        ("[" * 100_000, "t.json", "not JSON"),
    ],
)
def test_an_invalid_transcript_is_refused_and_the_error_names_the_place(tmp_path, content, name, message):
    with pytest.raises(TranscriptError, match=message):
        read_transcript(write(tmp_path, content, name), "c1")


def test_a_missing_file_and_one_that_is_not_text_are_refused(tmp_path):
    with pytest.raises(TranscriptError, match="cannot be read"):
        read_transcript(tmp_path / "none.json", "c1")
    (tmp_path / "audio.json").write_bytes(b"RIFF\xff\xfe\x00")
    with pytest.raises(TranscriptError, match="is no text"):
        read_transcript(tmp_path / "audio.json", "c1")


def test_the_errors_never_repeat_the_text_of_the_transcript(tmp_path):
    with pytest.raises(TranscriptError) as error:
        read_transcript(write(tmp_path, [{"text": "my secret", "start": "my secret", "end": 1}]), "c1")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("written", [0, "0"])
def test_id_zero_and_speaker_zero_are_kept_as_a_number_and_as_text(tmp_path, written):
    file = tmp_path / "t.json"
    row = {"id": written, "start": 0.0, "end": 1.0, "text": "yes", "speaker": written}
    file.write_text(json.dumps([row, {"start": 1.0, "end": 2.0, "speaker_id": written}]))
    first, second = read_transcript(file, "call")
    assert (first.id, first.speaker) == ("0", "SPEAKER_00")
    assert (second.id, second.speaker) == ("call-00001", "SPEAKER_00")


@pytest.mark.parametrize(
    "row", ['{"start": 0, "end": 1, "end": 2}', '{"start": 0, "end": 1, "x": {"end": 1, "end": 1}}']
)
def test_a_key_twice_in_an_object_is_refused_and_named(tmp_path, row):
    with pytest.raises(TranscriptError, match=r"transcript\.json: the key 'end' stands twice in one object"):
        read_transcript(write(tmp_path, f"[{row}]"), "c1")


def test_what_never_ends_or_is_no_transcript_is_refused_before_it_fills_the_memory(tmp_path):
    with pytest.raises(TranscriptError, match="/dev/zero is larger than 67108864 bytes"):
        read_transcript(Path("/dev/zero"), "c1")
    lists = write(tmp_path, "[" + "[]," * 1_500_001 + "[]]", "lists.json")
    with pytest.raises(TranscriptError, match=r"lists\.json holds more than 3000000 values"):
        read_transcript(lists, "c1")


def test_a_transcript_is_read_from_a_pipe(tmp_path):
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(pipe.write_text, json.dumps([OMI_SEGMENT]))
        assert [segment.text for segment in read_transcript(pipe, "c1")] == ["Hi"]
        written.result()


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_a_newline_ends_a_line_of_stm(tmp_path, mark):
    text = f"call 1 Ann 0.5 1.0 one{mark}two\r\ncall 1 Ben 1.0 2.0 three\n"
    said = [segment.text for segment in read_transcript(write(tmp_path, text, "t.stm"), "c1")]
    assert said == [f"one{mark}two", "three"]


@pytest.mark.parametrize("samples", [bytes(400), b"\xff\x00" * 200])
@pytest.mark.parametrize("name", ["call.wav", "call.json", "call.stm", "call.srt"])
def test_a_recording_is_no_text_and_where_it_goes_is_said(tmp_path, samples, name):
    (tmp_path / name).write_bytes(make_wav(0.01)[:44] + samples)
    with pytest.raises(TranscriptError, match=rf"{name} is no text\..*`omi-bridge publish`"):
        read_transcript(tmp_path / name, "c1")


def test_text_of_another_encoding_is_still_to_be_converted(tmp_path):
    (tmp_path / "t.json").write_bytes('[{"start": 0, "end": 1, "text": "Grüße"}]'.encode("latin-1"))
    with pytest.raises(TranscriptError, match=r"is not UTF-8 text\. Convert it"):
        read_transcript(tmp_path / "t.json", "c1")
