"""One transcript file for each public layout: what is in it is read, and where it is damaged the place is named.

The same two lines are said in every file; a layout differs in what it can say of them.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vps_bridge.conversations.transcripts import TranscriptError, read_transcript

FILES = Path(__file__).with_name("transcript_files")
LINES = [("Hello there.", 0.5, 1.3), ("Hi, Anna.", 2.0, 2.9)]
WORDS = [[("Hello", 0.5, 0.9), ("there.", 1.0, 1.3)], [("Hi,", 2.0, 2.3), ("Anna.", 2.5, 2.9)]]
BARE = [[(text.strip(".,"), start_s, end_s) for text, start_s, end_s in line] for line in WORDS]
LOWER = [(word.lower(), start_s, end_s) for line in BARE for word, start_s, end_s in line]
SHARED = [[("Hello", 0.5, 1.0), ("there.", 1.0, 1.3)], [("Hi,", 2.0, 2.5), ("Anna.", 2.5, 2.9)]]  # no ends of words
TWO, NOBODY = ["SPEAKER_00", "SPEAKER_01"], [None, None]
NONE: list[list[Any]] = [[], []]
# Without punctuation and speakers a service's words are one line, where no pause is longer than a second.
ONE = ([("hello there hi anna", 0.5, 2.9)], [LOWER])

# Of each file: its speakers, its words, and its lines where they are not the two above.
EXPECTED: dict[str, tuple[list[Any], list[Any], list[Any]]] = {
    "amazon.json": (TWO, WORDS, LINES),
    "amazon_call_analytics.json": (["AGENT", "CUSTOMER"], WORDS, LINES),
    "assemblyai.json": (["A", "B"], WORDS, LINES),
    "azure_batch.json": (TWO, WORDS, LINES),
    "azure_fast.json": (["SPEAKER_01", "SPEAKER_02"], WORDS, LINES),
    "bbc_kaldi.json": (TWO, WORDS, LINES),
    "coqui.json": ([None], ONE[1], ONE[0]),
    "deepgram_paragraphs.json": (TWO, WORDS, LINES),
    "deepgram_utterances.json": (TWO, WORDS, LINES),
    "elevenlabs.json": (["speaker_0", "speaker_1"], WORDS, LINES),
    "gladia.json": (TWO, WORDS, LINES),
    "google_operation.json": (TWO, WORDS, LINES),
    "google_v2.json": (TWO, WORDS, LINES),
    "ibm.json": (TWO, WORDS, LINES),
    "nemo.json": (NOBODY, WORDS, LINES),
    "nist.stm": (TWO, NONE, LINES),
    "omi.json": (TWO, NONE, LINES),
    "openai_diarized.json": (["A", "B"], NONE, LINES),
    "openai_verbose.json": (NOBODY, BARE, LINES),
    "podcast.json": (["Ben", "Anna"], NONE, LINES),
    "rev.json": (TWO, WORDS, LINES),
    "soniox.json": (["SPEAKER_01", "SPEAKER_02"], WORDS, LINES),
    "speechmatics.json": (TWO, WORDS, LINES),
    "teams.vtt": (TWO, NONE, LINES),
    "transformers.json": (TWO, WORDS, LINES),
    "vosk.json": ([None], ONE[1], ONE[0]),
    "whisper.json": (NOBODY, WORDS, LINES),
    "whisper.tsv": (NOBODY, NONE, LINES),
    "whisper.vtt": (NOBODY, NONE, LINES),
    "whisper_cpp.json": (NOBODY, NONE, LINES),
    "whisperx.json": (TWO, WORDS, LINES),
    "whisperx.srt": (TWO, NONE, LINES),
    "youtube.json": (NOBODY, SHARED, LINES),
}


def test_every_file_has_its_expectation() -> None:
    assert {path.name for path in FILES.iterdir()} == set(EXPECTED)
    assert len(EXPECTED) >= 25


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_of_a_public_layout_is_read_with_its_lines_words_times_and_speakers(name: str) -> None:
    speakers, words, lines = EXPECTED[name]
    segments = read_transcript(FILES / name, "c1")
    assert [(each.text.strip(), each.start_s, each.end_s) for each in segments] == lines
    assert [each.speaker for each in segments] == speakers
    found = [
        [(word.text, round(word.start_s, 6), round(word.end_s, 6)) for word in each.words or ()] for each in segments
    ]
    assert found == words


# A file, what is damaged in it and how, wherever it stands, and what the error says: where, and what to do.
DAMAGED = [
    (
        "amazon.json",
        '"start_time": "2.0"',
        '"start_time": "soon"',
        r"results\.\S+\.start_time is no time: write a number",
    ),
    ("amazon.json", '"results"', '"outcome"', r"no list of segments in a layout known here\. Known are .*Amazon"),
    (
        "amazon_call_analytics.json",
        "2500",
        '"late"',
        r"Transcript\[1\]\.Items\[1\]\.BeginOffsetMillis is no time: write",
    ),
    ("assemblyai.json", '"utterances"', '"words"', "the key 'words' stands twice in one object: keep the one"),
    (
        "assemblyai.json",
        '"start": 500',
        '"start": {}',
        r"segment 0: wrong or missing start_s \(at utterances\[0\]\.start\)",
    ),
    ("azure_batch.json", "25000000", "[]", r"recognizedPhrases\[1\]\.nBest\[0\]\.words\[1\]|displayWords\[1\]"),
    (
        "azure_fast.json",
        '"offsetMilliseconds": 2000',
        '"offsetMilliseconds": "later"',
        r"phrases\[1\]\.offsetMilliseconds",
    ),
    ("bbc_kaldi.json", '"start": 2.0', '"start": "two"', r"retval\.words\[2\]\.start is no time: write a number"),
    ("coqui.json", '"duration": 0.3', '"duration": "short"', r"transcripts\[0\]\.words\[\d\]\.duration is no time"),
    (
        "deepgram_paragraphs.json",
        '"speaker": 1\n',
        '"speaker": [1]\n',
        r"segment 1: wrong or missing speaker \(at results",
    ),
    (
        "deepgram_utterances.json",
        '"start": 2.5',
        '"start": "x"',
        r"results\.channels\[0\]\.alternatives\[0\]\.words\[3\]\.start is no time",
    ),
    ("elevenlabs.json", '"start": 2.5', '"start": true', r"words\[\d\]\.start is no time: write a number"),
    ("gladia.json", '"end": 2.9', '"end": "x"', r"result\.transcription\.utterances\[1\]\.end is no time"),
    (
        "google_operation.json",
        '"2.500s"',
        '"later"',
        r"response\.results\[0\]\.\S+\.startTime|results\[1\]\.\S+startTime",
    ),
    ("google_v2.json", '"2.500s"', '"later"', r"results\[0\]\.alternatives\[0\]\.words\[3\]\.startOffset is no time"),
    ("ibm.json", '"there.",', '"there.", 1,', r"timestamps\[1\] is no word: write \[text, start, end\]"),
    ("nemo.json", '"start": 2.0,', '"start": "2,0",', r"timestamp\.word\[2\]\.start is no time: write a number"),
    ("nist.stm", "2.00", "two", r"nist\.stm, line 3: expected `file channel speaker start end text`"),
    (
        "omi.json",
        '"start": 2.0,',
        '"start": "2:00",',
        r"segment 1: wrong or missing start_s \(at transcript_segments\[1\]",
    ),
    ("omi.json", '"seg-1"', '"seg-0"', r"the id 'seg-0' stands twice\. Make it unique, or leave ids out"),
    ("omi.json", '"end": 2.9,', "", r"segment 1: wrong or missing end_s\. Expected"),
    ("openai_diarized.json", '"start": 2.0,', '"start" 2.0,', r"is not JSON \(.*: line \d+ column \d+"),
    ("openai_verbose.json", '"start": 2.5', '"start": "x"', r"words\[3\]\.start is no time: write a number"),
    ("podcast.json", '"startTime": 2.0', '"startTime": "0:02"', r"segments\[1\]\.startTime is no time: write a number"),
    ("rev.json", '"ts": 2.5', '"ts": "x"', r"monologues\[1\]\.elements\[\d\]\.ts is no time: write a number"),
    ("soniox.json", '"start_ms": 2500', '"start_ms": "x"', r"tokens\[6\]\.start_ms is no time: write a number"),
    (
        "speechmatics.json",
        '"start_time": 2.5',
        '"start_time": "x"',
        r"results\[\d\]\.start_time is no time: write a number",
    ),
    ("teams.vtt", "WEBVTT\n", "", r"the file does not begin as VTT does, with WEBVTT"),
    ("teams.vtt", "00:00:02.000 -->", "00:00:02.000 ->", r"line 8 is no times of a cue: expected 00:00:01,000 -->"),
    (
        "transformers.json",
        '"timestamp": [\n    2.5',
        '"timestamp": [\n    "x"',
        r"chunks\[3\]\.timestamp\[0\] is no time: write",
    ),
    ("vosk.json", '"start": 2.5', '"start": "x"', r"result\[3\]\.start is no time: write a number"),
    (
        "whisper.json",
        '"start": 2.0,',
        '"start": 2000000.0,',
        r"segment 1: wrong or missing start_s.*milliseconds: send seconds",
    ),
    ("whisper.tsv", "2000\t", "2.0\t", r"line 3: expected start, end \(whole milliseconds\) and text, parted by tabs"),
    ("whisper.vtt", "00:02.000 --> 00:02.900", "00:02.000 --> 2.9", r"line 6 is no times of a cue: expected"),
    (
        "whisper_cpp.json",
        '"from": 2000',
        '"from": "x"',
        r"segment 1: wrong or missing start_s \(at transcription\[1\]\.offsets",
    ),
    ("whisperx.json", '"language": "en"\n}', "", r"is not JSON \(.* line \d+ column \d+"),
    (
        "whisperx.srt",
        "00:00:02,000 --> 00:00:02,900",
        "00:00:02,000 --> soon",
        r"line 6 is no times of a cue: expected",
    ),
    ("youtube.json", '"tStartMs": 2000', '"tStartMs": "x"', r"events\[2\]\.tStartMs is no time: write a number"),
]


@pytest.mark.parametrize(("name", "old", "new", "message"), DAMAGED)
def test_a_damaged_file_is_refused_and_the_place_and_what_to_do_are_named(
    name: str, old: str, new: str, message: str, tmp_path: Path
) -> None:
    text = (FILES / name).read_text()
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new))
    with pytest.raises(TranscriptError, match=message) as refused:
        read_transcript(tmp_path / name, "c1")
    assert name in str(refused.value)


ODD: list[Any] = [None, True, "x", [{}], 10**400, math.nan]
JSON_FILES = [name for name in EXPECTED if name.endswith(".json")]


def spots(content: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every value in a document but the document itself."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from spots(value, (*path, key))


def with_value(content: Any, path: tuple[str | int, ...], value: object) -> Any:
    """The same document with another value at a path."""
    if not path:
        return value
    changed = content.copy()
    changed[path[0]] = with_value(content[path[0]], path[1:], value)
    return changed


@pytest.mark.parametrize("name", JSON_FILES)
def test_whatever_stands_anywhere_in_a_file_is_read_or_refused_and_nothing_else(name: str, tmp_path: Path) -> None:
    content, path = json.loads((FILES / name).read_text()), tmp_path / name
    # One place for each shape of path: segments and words are all alike.
    places = {tuple("[]" if isinstance(step, int) else step for step in spot): spot for spot in spots(content)}
    for spot in places.values():
        for value in ODD:
            path.write_text(json.dumps(with_value(content, spot, value)))
            with contextlib.suppress(TranscriptError):
                read_transcript(path, "c1")
