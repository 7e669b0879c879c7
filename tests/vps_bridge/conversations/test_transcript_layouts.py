"""Transcripts as speech-to-text programs write them, with their words."""

import codecs
import json
from pathlib import Path
from typing import Any

import pytest

from schemas.conversation import TranscriptSegment
from vps_bridge.conversations.transcripts import TranscriptError, read_transcript

Segments = tuple[TranscriptSegment, ...]


def read(tmp_path: Path, content: object, *, mark: bytes = b"", encoding: str = "utf-8") -> Segments:
    path = tmp_path / "t.json"
    path.write_bytes(mark + json.dumps(content, ensure_ascii=False).encode(encoding))
    return read_transcript(path, "c1")


def words_of(segment: TranscriptSegment) -> list[tuple[str, float, float]]:
    return [(word.text, round(word.start_s, 3), round(word.end_s, 3)) for word in segment.words or ()]


def lines(segments: Segments) -> list[tuple[str | None, str, float, float]]:
    return [(segment.speaker, segment.text, segment.start_s, segment.end_s) for segment in segments]


def timed(word: str, start: float, end: float, **fields: Any) -> dict[str, Any]:
    return {"word": word, "start": start, "end": end, **fields}


WHISPERX = {
    "segments": [
        {
            "start": 1.0,
            "end": 4.0,
            "text": " In 2014 I paid 3 100 $",
            "words": [
                timed("In", 1.0, 1.2, score=0.9, speaker="SPEAKER_01"),
                {"word": "2014"},
                timed("I", 2.0, 2.1, score=0.9, speaker="SPEAKER_01"),
                timed("paid", 2.2, 2.6, score=0.9),
                {"word": "3", "speaker": "SPEAKER_01"},
                {"word": "100"},
                {"word": "$"},
            ],
            "speaker": "SPEAKER_01",
        },
        {"start": 5.0, "end": 6.0, "text": "42 43", "words": [{"word": "42"}, {"word": "43"}]},
    ],
    "word_segments": [timed("In", 1.0, 1.2)],
    "language": "en",
}


def test_words_of_whisperx_are_read_and_those_without_times_share_the_gap(tmp_path: Path) -> None:
    first, second = read(tmp_path, WHISPERX)
    assert (first.speaker, first.text, "speaker" in second.model_fields_set) == (
        "SPEAKER_01",
        " In 2014 I paid 3 100 $",
        False,
    )
    assert words_of(first) == [
        ("In", 1.0, 1.2),
        ("2014", 1.2, 2.0),
        ("I", 2.0, 2.1),
        ("paid", 2.2, 2.6),
        ("3", 2.6, 3.067),
        ("100", 3.067, 3.533),
        ("$", 3.533, 4.0),
    ]
    assert words_of(second) == [("42", 5.0, 5.5), ("43", 5.5, 6.0)]


DEEPGRAM_WORDS = [
    timed("hello", 0.08, 0.32, confidence=0.99, speaker=0, speaker_confidence=0.8, punctuated_word="Hello,"),
    timed("there", 0.32, 0.6, confidence=0.99, speaker=0, punctuated_word="there."),
    timed("hi", 0.9, 1.1, confidence=0.97, speaker=1, punctuated_word="Hi!"),
]
DEEPGRAM_LINES = [("SPEAKER_00", "Hello, there.", 0.08, 0.6), ("SPEAKER_01", "Hi!", 0.9, 1.1)]


def deepgram(results: dict[str, Any] | None = None, best: dict[str, Any] | None = None) -> dict[str, Any]:
    """What it returns, with further results, or with more in its best alternative."""
    alternative = {"transcript": "Hello, there. Hi!", "confidence": 0.99, "words": DEEPGRAM_WORDS, **(best or {})}
    return {
        "metadata": {"duration": 2.0},
        "results": {"channels": [{"alternatives": [alternative]}], **(results or {})},
    }


FIRST, SECOND = {"start": 0.08, "end": 0.6, "speaker": 0}, {"start": 0.9, "end": 1.1, "speaker": 1}
UTTERANCES = [
    {**FIRST, "channel": 0, "transcript": "Hello, there.", "words": DEEPGRAM_WORDS[:2], "id": "u-1"},
    {**SECOND, "channel": 0, "transcript": "Hi!", "words": DEEPGRAM_WORDS[2:], "id": "u-2"},
]
PARAGRAPHS = [
    {**FIRST, "sentences": [{"text": "Hello, there.", "start": 0.08, "end": 0.6}], "num_words": 2},
    {**SECOND, "sentences": [{"text": "Hi!", "start": 0.9, "end": 1.1}], "num_words": 1},
]


@pytest.mark.parametrize(
    "content",
    [
        deepgram(),
        deepgram(results={"utterances": UTTERANCES}),
        deepgram(best={"paragraphs": {"transcript": "Speaker 0: Hello, there.", "paragraphs": PARAGRAPHS}}),
    ],
    ids=["words", "utterances", "paragraphs"],
)
def test_what_deepgram_returns_is_read_from_utterances_paragraphs_or_words(tmp_path: Path, content: object) -> None:
    segments = read(tmp_path, content)
    assert lines(segments) == DEEPGRAM_LINES
    assert [words_of(segment) for segment in segments] == [
        [("Hello,", 0.08, 0.32), ("there.", 0.32, 0.6)],
        [("Hi!", 0.9, 1.1)],
    ]


def test_the_channels_of_deepgram_are_different_people(tmp_path: Path) -> None:
    def channel(word: str, start: float) -> dict[str, Any]:
        return {"alternatives": [{"words": [timed(word, start, start + 0.5)]}]}

    segments = read(tmp_path, {"results": {"channels": [channel("two", 2.0), channel("one", 1.0)]}})
    assert [(segment.text, segment.speaker) for segment in segments] == [("one", "SPEAKER_01"), ("two", "SPEAKER_00")]


ASSEMBLY_WORDS = [
    {"text": "Smoke", "start": 250, "end": 650, "confidence": 0.97, "speaker": "A"},
    {"text": "rises.", "start": 730, "end": 1022, "confidence": 0.99, "speaker": "A"},
    {"text": "Yes.", "start": 2500, "end": 2900, "confidence": 0.99, "speaker": "B"},
]


@pytest.mark.parametrize("utterances", [True, False])
def test_milliseconds_of_assemblyai_become_seconds(tmp_path: Path, utterances: bool) -> None:
    spoken = [
        {"start": 250, "end": 1022, "text": "Smoke rises.", "speaker": "A", "words": ASSEMBLY_WORDS[:2]},
        {"start": 2500, "end": 2900, "text": "Yes.", "speaker": "B", "words": ASSEMBLY_WORDS[2:]},
    ]
    content = {"id": "x", "status": "completed", "audio_duration": 3, "words": ASSEMBLY_WORDS}
    segments = read(tmp_path, content | {"utterances": spoken if utterances else None})
    assert lines(segments) == [("A", "Smoke rises.", 0.25, 1.022), ("B", "Yes.", 2.5, 2.9)]
    assert words_of(segments[0]) == [("Smoke", 0.25, 0.65), ("rises.", 0.73, 1.022)]


OPENAI_WORDS = [timed("The", 0.0, 0.3), timed("beach", 0.3, 0.9), timed("was", 3.4, 3.6)]


def test_words_beside_the_segments_of_openai_go_into_them(tmp_path: Path) -> None:
    segments = [
        {"id": 0, "seek": 0, "start": 0.0, "end": 3.3, "text": " The beach", "tokens": [50364], "no_speech_prob": 0.1},
        {"id": 1, "seek": 0, "start": 3.3, "end": 4.0, "text": " was"},
    ]
    verbose = {"task": "transcribe", "language": "english", "duration": 4.0, "text": "The beach was"}
    first, second = read(tmp_path, verbose | {"segments": segments, "words": OPENAI_WORDS})
    assert (first.id, second.id) == ("0", "1")
    assert words_of(first) == [("The", 0.0, 0.3), ("beach", 0.3, 0.9)]
    assert words_of(second) == [("was", 3.4, 3.6)]
    alone = read(tmp_path, verbose | {"words": OPENAI_WORDS})
    assert lines(alone) == [(None, "The beach", 0.0, 0.9), (None, "was", 3.4, 3.6)]


@pytest.mark.parametrize("reverse", [False, True])
def test_words_beside_the_segments_in_any_order_go_where_their_middle_is(tmp_path: Path, reverse: bool) -> None:
    segments = [
        {"id": "early", "start": 0.0, "end": 1.5, "text": "The beach"},
        {"id": "late", "start": 2.0, "end": 4.0, "text": "was"},
    ]
    words = [timed("was", 3.4, 3.6), *OPENAI_WORDS[:2]]
    found = read(tmp_path, {"segments": segments[::-1] if reverse else segments, "words": words})
    said = {segment.id: words_of(segment) for segment in found}
    assert said == {"early": [("The", 0.0, 0.3), ("beach", 0.3, 0.9)], "late": [("was", 3.4, 3.6)]}


def test_words_without_times_beside_the_segments_leave_them_as_they_are(tmp_path: Path) -> None:
    (found,) = read(tmp_path, {"segments": [{"start": 0, "end": 1, "text": "a"}], "words": [{"word": "a"}]})
    assert (found.text, found.words) == ("a", None)


@pytest.mark.parametrize(
    "content",
    [
        {"text": "only text"},
        {"status": "error", "utterances": None, "words": None},
        {"results": {"transcripts": [{"transcript": "Amazon's"}], "items": []}},
        "text",
        7,
        None,
    ],
)
def test_an_unknown_layout_is_refused_with_those_that_are_known(tmp_path: Path, content: object) -> None:
    with pytest.raises(TranscriptError, match=r"whisperX.*OpenAI.*Deepgram.*AssemblyAI"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("speaker", "read_as"),
    [(0, "SPEAKER_00"), ("0", "SPEAKER_00"), (1.0, "SPEAKER_01"), (-1, None), ("", None), ("A", "A")],
)
def test_a_speaker_is_a_number_or_a_name_and_below_zero_nobody(
    tmp_path: Path, speaker: object, read_as: str | None
) -> None:
    (segment,) = read(tmp_path, [{"start": 0, "end": 1, "speaker": speaker}])
    assert segment.speaker == read_as


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("start", "1_0"),
        ("start", "١٢"),
        ("end", "1e400"),
        ("end", float("nan")),
        ("end", ""),
        ("end", True),
        ("speaker", {"id": 1}),
    ],
)
def test_what_is_no_time_and_no_speaker_is_refused_by_name(tmp_path: Path, name: str, bad: object) -> None:
    with pytest.raises(TranscriptError, match=f"segment 0: wrong or missing {name}"):
        read(tmp_path, [{"start": 0, "end": 1, name: bad}])


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({"text": "a" * 20_001}, "20000 characters"),
        ({"id": "a" * 201}, "200 characters"),
        ({"words": [{"word": "a" * 201, "start": 0, "end": 1}]}, "200 characters"),
        ({"words": [{"word": "a", "start": 0, "end": 1}] * 5_001}, "5000 words"),
    ],
    ids=["text", "id", "word", "words"],
)
def test_what_is_too_long_is_refused_with_what_fits(tmp_path: Path, fields: dict[str, object], most: str) -> None:
    with pytest.raises(TranscriptError, match=f"At most {most} fit there: split or shorten it"):
        read(tmp_path, [{"start": 0, "end": 1, **fields}])


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
    ],
)
def test_a_transcript_with_a_byte_order_mark_is_read(tmp_path: Path, mark: bytes, encoding: str) -> None:
    (segment,) = read(tmp_path, [{"start": 0, "end": 1, "text": "Grüße"}], mark=mark, encoding=encoding)
    assert segment.text == "Grüße"
    stm = tmp_path / "t.stm"
    stm.write_bytes(mark + "call 1 Ann 0.5 1.0 Hällo".encode(encoding))
    assert [segment.text for segment in read_transcript(stm, "c1")] == ["Hällo"]


def test_what_a_file_does_not_name_is_not_changed_by_its_import(tmp_path: Path) -> None:
    (segment,) = read(tmp_path, [{"id": "a", "start": 0, "end": 1}])
    assert segment.model_fields_set == {"id", "start_s", "end_s"}


HUGE = 10**400


@pytest.mark.parametrize("name", ["speaker", "speaker_id"])
@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", '"' + "9" * 5_000 + '"', "9" * 5_000, "1" + "0" * 18]
)
def test_a_number_that_is_no_speakers_is_refused_and_its_segment_named(tmp_path: Path, name: str, number: str) -> None:
    file = tmp_path / "t.json"
    file.write_text(f'[{{"start": 0, "end": 1}}, {{"start": 1, "end": 2, "{name}": {number}}}]')
    with pytest.raises(TranscriptError, match=r"t\.json, segment 1: wrong or missing speaker \(at \[1\]\."):
        read_transcript(file, "c1")


@pytest.mark.parametrize(
    "content",
    [
        {"utterances": [{"start": HUGE, "end": HUGE + 99, "text": "a"}]},
        {"words": [{"start": HUGE, "end": HUGE + 99, "text": "a"}]},
        {"transcription": [{"offsets": {"from": HUGE, "to": HUGE}, "text": "a"}]},
        {
            "recognizedPhrases": [
                {"nBest": [{"words": [{"word": "a", "offsetInTicks": HUGE, "durationInTicks": 1}]}]},
            ]
        },
    ],
)
def test_a_time_too_large_for_any_clock_is_refused_and_its_segment_named(tmp_path: Path, content: object) -> None:
    with pytest.raises(TranscriptError, match=r"t\.json, segment 0: wrong or missing .*start_s"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    "content",
    [
        {"monologues": [{"speaker": [0], "elements": [{"type": "text", "value": "a", "ts": 1, "end_ts": 2}]}]},
        {"results": {"utterances": [{"start": 0, "end": 1, "channel": 1, "speaker": {"id": 1}}]}},
        {"results": {"utterances": [{"start": 0, "end": 1, "channel": 1, "speaker": float("nan")}]}},
    ],
)
def test_what_names_no_speaker_in_a_services_layout_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(TranscriptError, match=r"t\.json, segment 0: wrong or missing speaker"):
        read(tmp_path, content)
