"""Subtitles, SRT and WebVTT, read as rows of segments."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import webvtt
from webvtt.errors import MalformedFileError

from schemas.text import split_lines
from vps_bridge.conversations.store import speaker_name

FORMATS = {".srt": "srt", ".vtt": "vtt"}
_TIME = r"(?:\d{1,10}:)?\d{1,2}:\d{1,2}[.,]\d{1,3}"
_FRACTION_DIGITS = 3
_TIMING = re.compile(rf"^\s*({_TIME})\s*-->\s*({_TIME})(\s.*)?$")
_SIGN = r"[-+\u2212]"  # of a time before zero, as programs write them that moved a file's times back
_LIKE_TIMING = re.compile(rf"^\s*{_SIGN}?\d[\d:.,]*(?:{_SIGN}[\d:.,]+)*\s*[-\u2013\u2014]+>")
_LIKE_TIME = r"(?:\d+[:\uff1a])?\d{1,2}[:\uff1a]\d{1,2}[.,\uff0c\uff0e]\d{1,3}"  # the marks of a Chinese keyboard too
_LIKE_TWO_TIMES = re.compile(rf"^[^\w\n]*{_LIKE_TIME}[^\w\n]+{_LIKE_TIME}")
_ARROW = "-->"
_NUMBER = re.compile(r"\W*\d+\W*")  # of a cue of SRT
_NO_CUE = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s|$)")
_NUMBERED = re.compile(r"^\[?SPEAKER_(\d{1,18})(?!\d)\]?:?\s*")  # as whisperX writes speakers into SRT
_VOICE_TAG = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]*)>")
_BARE_TAGS = r"(?:a|br?|c|div|em|font|i|lang|p|rt|ruby|s|span|strike|strong|su[bp]|u|v)(?:\.[^\s>]*)?\s*/?>"
_TELLING_TAGS = r"(?:v|lang)(?:\.[^\s>]*)?\s|(?:a|div|font|p|span)\s+[a-z-]+\s*="  # `<v Anna>`, `<font color="red">`
_NO_TAG = re.compile(rf"<(?!/?{_BARE_TAGS}|{_TELLING_TAGS}|\d+:[\d:.,]*>)", re.IGNORECASE)

Row = dict[str, Any]


class SubtitlesError(Exception):
    """No subtitles of this format, or a line that would be lost; the message names it."""


def read_subtitles(text: str, suffix: str) -> list[Row]:
    """Return the cues of a file as rows of `text`, `start`, `end` and, where the file says it, `speaker`.

    A WebVTT voice (`<v Anna>`) is a speaker, a number by the order of the first cue: machines write such names too, so
    that they count as no human's label. A cue with two voices has no speaker. whisperX's `[SPEAKER_00]: ` is one too.

    Raises:
        SubtitlesError: the file is none, or one of its times cannot be read.
    """
    lines = _without_lone_numbers(_plain_lines(split_lines(text)))
    plain = _with_numbers(lines) if suffix == ".srt" else _without_gaps(lines)
    try:
        captions = webvtt.from_buffer(io.StringIO("\n".join(plain)), format=FORMATS[suffix])
    except MalformedFileError as error:
        first = "WEBVTT" if suffix == ".vtt" else "a number, and a line such as 00:00:01,000 --> 00:00:02,500"
        raise SubtitlesError(f"the file does not begin as {suffix[1:].upper()} does, with {first}") from error
    numbers: dict[str, int] = {}
    rows = []
    for caption in captions.captions:
        words = " ".join(html.unescape(caption.text).split())
        row: Row = {"start": _seconds(caption.start), "end": _seconds(caption.end)}
        voices = {" ".join(name.split()) for name in _VOICE_TAG.findall(caption.raw_text)}
        voice = caption.voice if len(voices) == 1 else None
        if numbered := _NUMBERED.match(voice or words):
            words = words if voice else words[numbered.end() :]
            row["speaker"] = speaker_name(int(numbered[1]))
        elif voice:
            row["speaker"] = speaker_name(numbers.setdefault(voice, len(numbers)))
        if words:
            rows.append({**row, "text": words})
    return rows


def _plain_lines(lines: Sequence[str]) -> list[str]:
    """Return the lines with the times of cues as the parser takes them, and with no arrow but theirs.

    The parser drops a cue whose times have minutes above 59, or in SRT no hours, and one with an arrow in its words. It
    takes all between `<` and `>` for a tag: a `<` that begins none known, as in `5 < 6`, is a character of the words.
    What looks like times and is none is refused: its words would end up in the cue before, or nowhere.
    """
    _check_fractions(lines)
    plain = []
    for number, line in enumerate(lines, start=1):
        found = _TIMING.match(line)
        if found is None:
            if _LIKE_TIMING.match(line) or _LIKE_TWO_TIMES.match(line):
                raise SubtitlesError(f"line {number} is no times of a cue: expected 00:00:01,000 --> 00:00:02,500")
            plain.append(_NO_TAG.sub("&lt;", line.replace(_ARROW, "\u2192")))
            continue
        start, end, settings = found.groups(default="")
        if not all(":" in setting for setting in settings.split()):
            raise SubtitlesError(f"line {number} has words behind the times of its cue: put them on the next line")
        plain.append(f"{_plain_time(start)} {_ARROW} {_plain_time(end)}")
    return plain


def _check_fractions(lines: Iterable[str]) -> None:
    """Refuse a file in which only some times have three digits behind the second.

    Where all have two, `.68` is 680 ms. Beside `.680` it may be 68 ms too, written without the zero before it.
    """
    found = [(number, timing) for number, line in enumerate(lines, start=1) if (timing := _TIMING.match(line))]
    fractions = [(number, re.split("[.,]", timing[side])[1]) for number, timing in found for side in (1, 2)]
    lengths = [(number, len(fraction)) for number, fraction in fractions if int(fraction)]
    short = next((number for number, length in lengths if length < _FRACTION_DIGITS), None)
    if short is not None and any(length == _FRACTION_DIGITS for _, length in lengths):
        raise SubtitlesError(
            f"line {short} has fewer than three digits behind the second, and others have three: add zeros"
        )


def _plain_time(clock: str) -> str:
    *rest, fraction = re.split("[:.,]", clock)
    *hours, minutes, seconds = (int(part) for part in rest)
    milliseconds = int(fraction.ljust(_FRACTION_DIGITS, "0"))
    minutes, seconds = divmod(60 * minutes + seconds, 60)
    hour, minutes = divmod(60 * sum(hours) + minutes, 60)
    return f"{hour:02d}:{minutes:02d}:{seconds:02d}.{milliseconds:03d}"


def _without_lone_numbers(lines: Iterable[str]) -> list[str]:
    """Return the lines without a cue's number where an empty line parts it from the times of its cue.

    It would count as words of the cue before. It is known by its value: other numbers are words.
    """
    kept: list[str] = []
    cues = 0
    for line in lines:
        if _TIMING.match(line):
            if "".join(kept[-3:-1]).strip() == str(cues + 1) and not kept[-1].strip():
                del kept[-2:]
            cues += 1
        kept.append(line)
    return kept


def _with_numbers(lines: Iterable[str]) -> list[str]:
    """Return SRT with an empty line and a number before the times of each cue, which the parser drops without."""
    numbered: list[str] = []
    cues = 0
    for line in lines:
        if _TIMING.match(line):
            if numbered and _NUMBER.fullmatch(numbered[-1]):
                numbered.pop()
            cues += 1
            numbered += ["", str(cues)]
        numbered.append(line)
    return "\n".join(numbered).lstrip().split("\n")


def _without_gaps(lines: Sequence[str]) -> list[str]:
    """Return WebVTT without empty lines amid the words of a cue: its parser drops what follows them, SRT's does not."""
    kept: list[str] = []
    is_cue = False
    for line, following in pairwise([*lines, ""]):
        begins = bool(_TIMING.match(line) or _TIMING.match(following) or _NO_CUE.match(line))
        if is_cue and not begins and line.strip():
            while not kept[-1].strip():
                kept.pop()
        elif begins and kept and not kept[-1].strip():
            is_cue = False
        is_cue = is_cue or bool(_TIMING.match(line))
        kept.append(line)
    return kept


def _seconds(clock: str) -> float:
    seconds = 0.0
    for part in clock.split(":"):
        seconds = seconds * 60 + float(part)
    return round(seconds, 3)
