"""Transcripts of services that give words alone, written from their public documentation, and real ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.conversation import TranscriptSegment
from vps_bridge.conversations.transcripts import TranscriptError, read_transcript

Said = list[tuple[str | None, str, float, float]]


def read(path: Path) -> tuple[TranscriptSegment, ...]:
    return read_transcript(path, "c1")


def said(segments: tuple[TranscriptSegment, ...]) -> Said:
    return [(segment.speaker, segment.text, segment.start_s, segment.end_s) for segment in segments]


def amazon(content: str, start: str | None = None, end: str | None = None, **fields: Any) -> dict[str, Any]:
    times = {} if start is None else {"start_time": start, "end_time": end}
    kind = "punctuation" if start is None else "pronunciation"
    return {**times, "alternatives": [{"confidence": "0.9", "content": content}], "type": kind, **fields}


def best(**fields: Any) -> list[dict[str, Any]]:
    return [fields]


def google(word: str, start: object, end: object, **fields: Any) -> dict[str, Any]:
    return {"word": word, "startTime": start, "endTime": end, **fields}


def speechmatics(kind: str, start: float, end: float, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "start_time": start, "end_time": end, "alternatives": best(**fields)}


GOOGLE_WORDS = [google("Hello.", "1.500s", "2s"), google("Yes.", {"seconds": "3"}, {"seconds": 3, "nanos": 500000000})]
GOOGLE_TAGGED = [{**word, "speakerTag": tag} for word, tag in zip(GOOGLE_WORDS, (2, 1), strict=True)]
TALK: Said = [("SPEAKER_00", "Hello.", 1.5, 2.0), ("SPEAKER_01", "Yes.", 3.0, 3.5)]
NOBODY: Said = [(None, text, start_s, end_s) for _, text, start_s, end_s in TALK]

LAYOUTS: dict[str, tuple[object, Said]] = {
    "amazon": (
        {"results": {"items": [amazon("Hello", "1.5", "2.0"), amazon("."), amazon("Yes.", "3", "3.5")]}},
        NOBODY,
    ),
    "amazon, speakers of items": (
        {
            "results": {
                "items": [
                    amazon("Hello", "1.5", "2.0", speaker_label="spk_1"),
                    amazon("."),
                    amazon("Yes.", "3.0", "3.5", speaker_label="spk_0"),
                ]
            }
        },
        TALK,
    ),
    "amazon, speakers beside": (
        {
            "results": {
                "items": [amazon("Hello.", "1.5", "2.0"), amazon("Yes.", "3.0", "3.5")],
                "speaker_labels": {
                    "segments": [
                        {"speaker_label": "spk_0", "items": [{"start_time": "1.5", "speaker_label": "spk_0"}]},
                        {"speaker_label": "spk_1", "items": [{"start_time": "3.0"}]},
                    ]
                },
            }
        },
        TALK,
    ),
    "azure": (
        {
            "recognizedPhrases": [
                {
                    "speaker": 1,
                    "nBest": [{"words": [{"word": "Hello.", "offsetInTicks": 15000000, "durationInTicks": 5000000}]}],
                },
                {
                    "speaker": 2,
                    "nBest": [
                        {
                            "words": [{"word": "yes", "offsetInTicks": 30000000, "durationInTicks": 5000000}],
                            "displayWords": [
                                {"displayText": "Yes.", "offsetInTicks": 30000000, "durationInTicks": 5000000}
                            ],
                        }
                    ],
                },
            ]
        },
        TALK,
    ),
    "bbc kaldi": (
        {
            "retval": {
                "words": [
                    {"start": 1.5, "end": 2.0, "word": "hello", "punct": "Hello."},
                    {"start": 3.0, "end": 3.5, "word": "yes", "punct": "Yes."},
                ],
                "segmentation": {
                    "segments": [
                        {"start": 0, "duration": 2.5, "speaker": {"@id": "S3"}},
                        {"start": 2.5, "duration": 2.0, "speaker": {"@id": "S0"}},
                    ]
                },
            }
        },
        TALK,
    ),
    "google": (
        {"results": [{"alternatives": best(words=GOOGLE_WORDS[:1])}, {"alternatives": best(words=GOOGLE_WORDS[1:])}]},
        NOBODY,
    ),
    "google, all words again with speakers": (
        {"results": [{"alternatives": best(words=GOOGLE_WORDS)}, {"alternatives": best(words=GOOGLE_TAGGED)}]},
        TALK,
    ),
    "google, speakers of the last words alone": (
        {"results": [{"alternatives": best(words=GOOGLE_WORDS[:1])}, {"alternatives": best(words=GOOGLE_TAGGED[1:])}]},
        [(None, "Hello.", 1.5, 2.0), ("SPEAKER_00", "Yes.", 3.0, 3.5)],
    ),
    "google v2": (
        {
            "results": [
                {
                    "alternatives": best(
                        words=[
                            {"word": "Hello.", "startOffset": "1.500s", "endOffset": "2s", "speakerLabel": "1"},
                            {"word": "Yes.", "startOffset": "3s", "endOffset": "3.500s", "speakerLabel": "2"},
                        ]
                    )
                }
            ]
        },
        TALK,
    ),
    "ibm": (
        {
            "results": [
                {"final": True, "alternatives": best(timestamps=[["Hello.", 1.5, 2.0], ["Yes.", 3.0, 3.5]])},
            ],
            "speaker_labels": [{"from": 1.5, "to": 2.0, "speaker": 4}, {"from": 3.0, "to": 3.5, "speaker": 0}],
        },
        TALK,
    ),
    "rev": (
        {
            "monologues": [
                {
                    "speaker": 0,
                    "elements": [
                        {"type": "text", "value": "Hello", "ts": 1.5, "end_ts": 2.0},
                        {"type": "punct", "value": "."},
                    ],
                },
                {"speaker": 1, "elements": [{"type": "text", "value": "Yes.", "ts": 3.0, "end_ts": 3.5}]},
            ]
        },
        TALK,
    ),
    "speechmatics 1": (
        {
            "format": "1.0",
            "words": [
                {"name": "Hello", "time": "1.5", "duration": "0.5"},
                {"name": ".", "time": "2.0", "duration": "0.0"},
                {"name": "Yes.", "time": "3.0", "duration": "0.5"},
            ],
            "speakers": [
                {"name": "M2", "time": "1.5", "duration": "0.6"},
                {"name": "F1", "time": "2.9", "duration": "1"},
            ],
        },
        TALK,
    ),
    "speechmatics 2": (
        {
            "format": "2.9",
            "results": [
                {
                    "type": "word",
                    "start_time": 1.5,
                    "end_time": 2.0,
                    "alternatives": best(content="Hello", speaker="S1"),
                },
                {"type": "punctuation", "start_time": 2.0, "end_time": 2.0, "alternatives": best(content=".")},
                {
                    "type": "word",
                    "start_time": 3.0,
                    "end_time": 3.5,
                    "alternatives": best(content="Yes.", speaker="S2"),
                },
            ],
        },
        TALK,
    ),
    "vosk": (
        {
            "result": [
                {"conf": 1.0, "word": "Hello.", "start": 1.5, "end": 2.0},
                {"conf": 1.0, "word": "Yes.", "start": 3.0, "end": 3.5},
            ],
            "text": "hello yes",
        },
        NOBODY,
    ),
    "elevenlabs": (
        {
            "text": "Hello. Yes.",
            "words": [
                {"text": "Hello.", "start": 1.5, "end": 2.0, "type": "word", "speaker_id": 0},
                {"text": " ", "start": 2.0, "end": 3.0, "type": "spacing", "speaker_id": 0},
                {"text": "Yes.", "start": 3.0, "end": 3.5, "type": "word", "speaker_id": 1},
            ],
        },
        TALK,
    ),
    "gladia": (
        {
            "result": {
                "transcription": {
                    "utterances": [
                        {"start": 1.5, "end": 2.0, "text": "Hello.", "speaker": 0, "words": []},
                        {"start": 3.0, "end": 3.5, "text": "Yes.", "speaker": 1, "words": []},
                    ]
                }
            }
        },
        TALK,
    ),
    "whisper.cpp": (
        {
            "transcription": [
                {"timestamps": {"from": "00:00:01,500"}, "offsets": {"from": 1500, "to": 2000}, "text": "Hello."},
                {"timestamps": {"from": "00:00:03,000"}, "offsets": {"from": 3000, "to": 3500}, "text": "Yes."},
            ]
        },
        NOBODY,
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_read_with_its_times_and_speakers(name: str, tmp_path: Path) -> None:
    content, expected = LAYOUTS[name]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(content))
    assert said(read(path)) == expected


TIMES = {"time", "ts", "from", "offsetInTicks"} | {
    f"{side}{form}" for side in ("start", "end") for form in ("", "_time", "Time", "Offset", "_ts")
}


def spoil(content: Any) -> Any:
    """The same document with words where its times stood."""
    if isinstance(content, dict):
        return {name: "soon" if name in TIMES else spoil(value) for name, value in content.items()}
    if isinstance(content, list):
        return ["soon" if isinstance(item, float) else spoil(item) for item in content]
    return content


@pytest.mark.parametrize("name", LAYOUTS)
def test_where_times_are_no_times_the_file_is_refused_and_the_place_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(spoil(LAYOUTS[name][0])))
    with pytest.raises(
        TranscriptError, match=r"t\.json, (\S+ is no time: write|segment 0: wrong or missing \S+ .at transc)"
    ):
        read(path)


LATER = "Wait for me."
WORDLESS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "azure": ([{"nBest": best(display=LATER, words=[])}], r"recognizedPhrases\[2\]\.nBest\[0\]\.display"),
    "google": ([{"alternatives": best(transcript=LATER)}], r"results\[2\]\.alternatives\[0\]\.transcript"),
    "google v2": ([{"alternatives": best(transcript=LATER, words=[])}], r"results\[1\]\.alternatives\[0\]\.transcript"),
    "ibm": ([{"alternatives": best(transcript=LATER)}], r"results\[\d\]\.alternatives\[0\]\.transcript"),
}


@pytest.mark.parametrize("name", WORDLESS)
def test_text_without_words_beside_text_with_them_is_refused_and_not_left_out(name: str, tmp_path: Path) -> None:
    (part,), place = WORDLESS[name]
    content = json.loads(json.dumps(LAYOUTS[name][0]))
    file = tmp_path / "talk.json"
    for silent in ("alternatives", "nBest"):  # nobody spoke: nothing is lost
        content["recognizedPhrases" if name == "azure" else "results"].append({silent: []})
    file.write_text(json.dumps(content))
    assert said(read(file)) == LAYOUTS[name][1]
    del content["recognizedPhrases" if name == "azure" else "results"][-2:]
    content["recognizedPhrases" if name == "azure" else "results"].append(part)
    file.write_text(json.dumps(content))
    with pytest.raises(TranscriptError, match=place + " is text without the times of its words"):
        read(file)


def test_what_lies_in_no_turn_of_a_pipeline_is_a_line_of_nobody(tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    turn = {"speaker": "SPEAKER_01", "timestamp": [0.0, 3.0], "text": " Hello there."}
    for parts in ([("Hello there.", 0.0, 3.0)], [("Hello", 0.0, 1.0), ("there.", 1.0, 3.0)]):
        chunks = [{"text": f" {text}", "timestamp": [start, end]} for text, start, end in [*parts, ("Yes.", 4.0, 4.5)]]
        file.write_text(json.dumps({"speakers": [turn], "chunks": chunks}))
        assert said(read(file)) == [("SPEAKER_01", "Hello there.", 0.0, 3.0), (None, "Yes.", 4.0, 4.5)]


def of_channels(service: str, words: list[tuple[int, str, float, float]]) -> object:
    """What a service gives of a call that has a channel for each speaker: all words of one, then those of the other."""
    if service == "google":
        by_tag: dict[int, list[dict[str, Any]]] = {}
        for at, *word in words:
            by_tag.setdefault(at, []).append(google(*map(str, word)))
        return {"results": [{"channelTag": tag, "alternatives": best(words=its)} for tag, its in by_tag.items()]}
    if service == "amazon":
        return {
            "results": {"items": [amazon(text, str(a), str(b), channel_label=f"ch_{at}") for at, text, a, b in words]}
        }
    return {
        "results": [
            speechmatics("word", start, end, content=text) | {"channel": f"channel_{at}"}
            for at, text, start, end in words
        ]
    }


@pytest.mark.parametrize("service", ["google", "amazon", "speechmatics"])
def test_the_channels_of_a_service_are_different_people_and_one_channel_is_nobody(service: str, tmp_path: Path) -> None:
    """Without punctuation nothing else parts the last words of one channel from the first of the other."""
    file = tmp_path / "talk.json"
    one, other = [(1, "hello", 1.5, 2.0), (1, "bye", 8.0, 8.5)], [(2, "yes", 3.0, 3.5), (2, "sure", 3.5, 4.0)]
    file.write_text(json.dumps(of_channels(service, one + other)))
    assert said(read(file)) == [
        ("SPEAKER_00", "hello", 1.5, 2.0),
        ("SPEAKER_00", "bye", 8.0, 8.5),
        ("SPEAKER_01", "yes sure", 3.0, 4.0),
    ]
    file.write_text(json.dumps(of_channels(service, one)))
    assert said(read(file)) == [(None, "hello", 1.5, 2.0), (None, "bye", 8.0, 8.5)]


def test_no_line_ends_before_it_begins_where_the_time_of_words_goes_back(tmp_path: Path) -> None:
    file, words = tmp_path / "talk.json", [("hello", 1.5, 2.0), ("bye", 8.0, 8.5), ("yes", 3.0, 3.5)]
    file.write_text(json.dumps({"result": [{"word": text, "start": start, "end": end} for text, start, end in words]}))
    assert said(read(file)) == [(None, *word) for word in words]


def test_a_line_that_stays_on_the_screen_while_the_next_is_spoken_ends_where_that_begins(tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    events = [
        {"tStartMs": 0, "dDurationMs": 5000, "segs": [{"utf8": "hello"}, {"utf8": " there", "tOffsetMs": 500}]},
        {"tStartMs": 2000, "dDurationMs": 10, "aAppend": 1, "segs": [{"utf8": "\n"}]},
        {"tStartMs": 2000, "dDurationMs": 3000, "segs": [{"utf8": "yes"}]},
        {"tStartMs": 7000, "dDurationMs": 1000, "segs": [{"utf8": "bye"}]},
    ]
    file.write_text(json.dumps({"events": events}))
    first, *others = read(file)
    assert said((first, *others)) == [(None, "hello there", 0.0, 2.0), (None, "yes", 2.0, 5.0), (None, "bye", 7.0, 8.0)]
    assert [(word.start_s, word.end_s) for word in first.words or ()] == [(0.0, 0.5), (0.5, 2.0)]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "words", "speakers", "last"),
    [
        ("amazonTranscribe", 1791, 0, "Thank you"),
        ("bbcKaldiTranscriptWithSpeakerSegments", 1712, 2, "reflections of our own humanity."),
        ("gcpSttSpeakerDiarization", 1766, 2, "Thank you."),
        ("ibmTedTalkTranscript", 1780, 1, "thank you"),
        ("speechmaticsTedTalkTranscript", 1791, 3, "Thank you."),
        ("todayinfocus", 725, 2, "low flat area"),
    ],
)
def test_real_transcripts_keep_all_words_and_their_speakers(shared_dir: Path, name, words, speakers, last) -> None:
    segments = read(shared_dir / "transcripts" / "stt_formats" / f"{name}.sample.json")
    assert sum(len(segment.words or ()) for segment in segments) == words
    assert len({segment.speaker for segment in segments} - {None}) == speakers
    assert segments[-1].text.endswith(last)
    starts = [segment.start_s for segment in segments]
    assert starts == sorted(starts)
