"""Transcripts of services that give words and no segments, read as words with `text`, `start`, `end` and `speaker`.

Times are seconds. Punctuation that stands alone is added to the word before it. Where a service tells several channels
apart and no speakers, a channel is one. A service's own names of speakers stay as they are: they become numbers, in the
order in which they first speak, where the words are made into segments.

- Amazon Transcribe: `results.items`, speakers in each item or in `results.speaker_labels.segments`.
- Azure: `recognizedPhrases`, times in ticks of 100 ns.
- BBC Kaldi: `retval.words`, speakers in `retval.segmentation.segments`.
- Google: `results[].alternatives[].words`; with speakers, the last result holds all words once more.
- IBM Watson: `results[].alternatives[].timestamps`, speakers in `speaker_labels`.
- Rev: `monologues[].elements`.
- Speechmatics: `words` and `speakers` with `time` and `duration` (format 1), `results` with `type` (format 2).
- Vosk: `result`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vps_bridge.conversations.json_paths import UnreadableValue

KNOWN_SERVICES = "Amazon Transcribe, Azure, BBC Kaldi, Google, IBM Watson, Rev, Speechmatics, Vosk"
TICKS_PER_S = 10_000_000
WORD_START_END = 3
NO_WORDS = "text without the times of its words, and would be lost: have the service give them for all of it"
NO_TIME = "no time: write a number, in the unit of this layout"
_UNKNOWN_SPEAKERS = ("", "UU", "M", "F")  # Speechmatics: unknown, or told apart by sex alone

Word = dict[str, Any]


def find_words(content: Mapping[str, Any]) -> list[Word] | None:
    """Return the words of a service's transcript, in the order of the file; None where it is of none of them."""
    return next((words for read in _READERS if (words := read(content))), None)


def read_seconds(time: object) -> float | None:
    """Return a time in seconds: a number, or text as `12.9` or `12.900s`, or Google's seconds and nanoseconds apart.

    None where there is none. Raises `UnreadableValue` where there is something else.
    """
    if isinstance(time, Mapping):
        seconds, nanos = read_seconds(time.get("seconds", 0)), read_seconds(time.get("nanos", 0))
        return None if seconds is None or nanos is None else seconds + nanos / 1e9
    if time is None or time == "":
        return None
    if isinstance(time, bool) or not isinstance(time, int | float | str):
        raise UnreadableValue(time, NO_TIME)
    try:
        return float(time.removesuffix("s") if isinstance(time, str) else time)
    except OverflowError:  # whole numbers have no largest one, seconds do: refused as too long
        return None
    except ValueError:
        raise UnreadableValue(time, NO_TIME) from None


def _read_amazon(content: Mapping[str, Any]) -> list[Word]:
    results = _object(content, "results")
    speakers = {
        str(item.get("start_time")): item.get("speaker_label", segment.get("speaker_label"))
        for segment in objects_of(_object(results, "speaker_labels"), "segments")
        for item in objects_of(segment, "items")
    }
    items = objects_of(results, "items")
    channel = _channel_of(items, "channel_label")
    return _join(
        _word(
            _best(item).get("content"),
            item.get("start_time"),
            item.get("end_time"),
            item.get("speaker_label", speakers.get(str(item.get("start_time")), channel(item))),
            is_punctuation=item.get("type") == "punctuation",
        )
        for item in items
    )


def _read_azure(content: Mapping[str, Any]) -> list[Word]:
    words, wordless = [], []
    for phrase in objects_of(content, "recognizedPhrases"):
        best = next(iter(objects_of(phrase, "nBest")), {})
        timed = objects_of(best, "displayWords") or objects_of(best, "words")
        wordless += [] if timed else [best.get("display")]
        for word in timed:
            start, length = word.get("offsetInTicks"), word.get("durationInTicks")
            text, start_s, length_s = word.get("displayText", word.get("word")), _read_ticks(start), _read_ticks(length)
            end_s = None if start_s is None or length_s is None else round(start_s + length_s, 7)
            words.append(_word(text, start_s, end_s, phrase.get("speaker", phrase.get("channel"))))
    return _without_loss(words, wordless)


def _read_ticks(ticks: object) -> float | None:
    found = read_seconds(ticks)
    return None if found is None else found / TICKS_PER_S


def _read_google(content: Mapping[str, Any]) -> list[Word]:
    results = objects_of(content, "results")
    spoken = [objects_of(_best(result), "words") for result in results]
    if not any(spoken):
        return []
    tags = ("speakerTag", "speakerLabel", "speaker_tag", "speaker_label")
    tagged = [any(_first(word, *tags) for word in words) for words in spoken]
    if tagged[-1] and not any(tagged[:-1]) and _holds_all(spoken[-1], spoken[:-1]):
        results = results[-1:]  # all words once more, with speakers
    else:
        _without_loss(spoken, [best.get("transcript") for best in map(_best, results) if not best.get("words")])
    channel = _channel_of(results, "channelTag", "channel_tag")
    return [
        _word(
            word.get("word"),
            _google_start(word),
            _first(word, "endTime", "endOffset", "end_time", "end_offset"),
            _first(word, *tags) or channel(result),  # 0: nobody was told apart
        )
        for result in results
        for word in objects_of(_best(result), "words")
    ]


def _holds_all(last: Sequence[Mapping[str, Any]], earlier: Sequence[Sequence[Mapping[str, Any]]]) -> bool:
    """Whether the words of the last result are those of all before it once more, and not what was said after them."""
    before = [word for words in earlier for word in words]
    is_later = bool(before) and (read_seconds(_google_start(last[0])) or 0.0) > (
        read_seconds(_google_start(before[0])) or 0.0
    )
    return len(last) >= len(before) and not is_later


def _google_start(word: Mapping[str, Any]) -> object:
    return _first(word, "startTime", "startOffset", "start_time", "start_offset")


def _read_ibm(content: Mapping[str, Any]) -> list[Word]:
    parts = [part for part in objects_of(content, "results") if "results" in part] or [content]
    words, wordless = [], []
    for part in parts:
        speakers = {str(entry.get("from")): entry.get("speaker") for entry in objects_of(part, "speaker_labels")}
        for result in objects_of(part, "results"):
            timed = _best(result).get("timestamps")
            wordless += [] if timed else [_best(result).get("transcript")]
            words += [
                _word(entry[0], entry[1], entry[2], speakers.get(str(entry[1])))
                for entry in map(_word_of_ibm, timed if isinstance(timed, list) else ())
            ]
    return _without_loss(words, wordless)


def _word_of_ibm(entry: object) -> list[Any]:
    if not isinstance(entry, list) or len(entry) != WORD_START_END:
        raise UnreadableValue(entry, "no word: write [text, start, end]")
    return entry


def _read_kaldi(content: Mapping[str, Any]) -> list[Word]:
    answer = _object(content, "retval")
    spans = [
        (segment.get("start"), segment.get("duration"), _object(segment, "speaker").get("@id"))
        for segment in objects_of(_object(answer, "segmentation"), "segments")
    ]
    words = [
        _word(word.get("punct") or word.get("word"), word.get("start"), word.get("end"))
        for word in objects_of(answer, "words")
    ]
    return _with_speakers(words, spans)


def _read_rev(content: Mapping[str, Any]) -> list[Word]:
    return _join(
        _word(
            str(element.get("value") or "").strip(),
            element.get("ts"),
            element.get("end_ts"),
            monologue.get("speaker"),
            is_punctuation=element.get("type") == "punct",
        )
        for monologue in objects_of(content, "monologues")
        for element in objects_of(monologue, "elements")
    )


def _read_speechmatics_1(content: Mapping[str, Any]) -> list[Word]:
    timed = [word for word in objects_of(content, "words") if "time" in word and "duration" in word]
    words = []
    for word in timed:
        start_s, length_s = read_seconds(word["time"]), read_seconds(word["duration"])
        end_s = None if start_s is None or length_s is None else start_s + length_s
        is_mark = not any(map(str.isalnum, str(word.get("name"))))
        words.append(_word(word.get("name"), start_s, end_s, is_punctuation=is_mark))
    spans = [(entry.get("time"), entry.get("duration"), entry.get("name")) for entry in objects_of(content, "speakers")]
    return _with_speakers(_join(words), spans)


def _read_speechmatics_2(content: Mapping[str, Any]) -> list[Word]:
    results = [result for result in objects_of(content, "results") if "content" in _best(result)]
    channel = _channel_of(results, "channel")
    return _join(
        _word(
            _best(result)["content"],
            result.get("start_time"),
            result.get("end_time"),
            _best(result).get("speaker", channel(result)),
            is_punctuation=result.get("type") == "punctuation",
        )
        for result in results
    )


def _read_vosk(content: Mapping[str, Any]) -> list[Word]:
    return [
        _word(word.get("word"), word.get("start"), word.get("end"))
        for word in objects_of(content, "result")
        if "word" in word
    ]


_READERS: tuple[Callable[[Mapping[str, Any]], list[Word]], ...] = (
    _read_amazon,
    _read_azure,
    _read_google,
    _read_ibm,
    _read_kaldi,
    _read_rev,
    _read_speechmatics_1,
    _read_speechmatics_2,
    _read_vosk,
)


def _word(text: object, start: object, end: object, speaker: object = None, *, is_punctuation: bool = False) -> Word:
    known = None if speaker in _UNKNOWN_SPEAKERS else speaker
    return {
        "text": "" if text is None else str(text),
        "start": read_seconds(start),
        "end": read_seconds(end),
        "speaker": known,
        "is_punctuation": is_punctuation,
    }


def _without_loss(words: list[Any], wordless: Iterable[object]) -> list[Any]:
    """Return the words; raises `UnreadableValue` where the file has them, and beside them text that has none."""
    lost = next((text for text in wordless if isinstance(text, str) and text.strip()), None)
    if words and lost is not None:
        raise UnreadableValue(lost, NO_WORDS)
    return words


def _join(words: Iterable[Word]) -> list[Word]:
    """Add punctuation that stands alone to the word before it."""
    joined: list[Word] = []
    for word in words:
        if word["is_punctuation"] and joined:
            joined[-1]["text"] += word["text"]
        elif not word["is_punctuation"]:
            joined.append(word)
    return joined


def _with_speakers(words: list[Word], spans: list[tuple[object, object, object]]) -> list[Word]:
    """Give each word the speaker in whose span its middle is: (start, length, speaker) of each span."""
    timed = sorted(
        (start_s, start_s + length_s, str(speaker))
        for start, length, speaker in spans
        if (start_s := read_seconds(start)) is not None and (length_s := read_seconds(length)) is not None
    )
    starts = [start_s for start_s, _, _ in timed]
    for word in words:
        if word["start"] is None or word["end"] is None:
            continue
        middle_s = (word["start"] + word["end"]) / 2
        place = bisect_right(starts, middle_s) - 1
        if place >= 0 and middle_s <= timed[place][1] and timed[place][2] not in _UNKNOWN_SPEAKERS:
            word["speaker"] = timed[place][2]
    return words


def _channel_of(items: Sequence[Mapping[str, Any]], *names: str) -> Callable[[Mapping[str, Any]], object]:
    """Return what tells the channel of an item; None for each where there are not several."""
    channels = {str(_first(item, *names)) for item in items}
    return lambda item: _first(item, *names) if len(channels) > 1 else None


def _first(item: Mapping[str, Any], *names: str) -> Any:  # noqa: ANN401 - what a file says
    return next((item[name] for name in names if item.get(name) is not None), None)


def _best(item: Mapping[str, Any]) -> Mapping[str, Any]:
    return next(iter(objects_of(item, "alternatives")), {})


def _object(item: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = item.get(name)
    return found if isinstance(found, Mapping) else {}


def objects_of(item: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return the objects of a list; none where there is no list."""
    found = item.get(name)
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []
