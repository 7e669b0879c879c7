"""Subtitles, SRT and WebVTT, read as rows of segments."""

from __future__ import annotations

import html
import io
import re
from typing import Any

import webvtt
from webvtt.errors import MalformedFileError

from schemas.text import split_lines
from vps_bridge.conversations.store import speaker_name

FORMATS = {".srt": "srt", ".vtt": "vtt"}
_TIME = r"(\d{1,10}:)?\d{1,2}:\d{1,2}[.,]\d{1,3}"
_TIMING = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}(\s|$)")
_SIGN = r"[-+\u2212]"  # of a time before zero, as programs write them that moved a file's times back
_LIKE_TIMING = re.compile(rf"^\s*{_SIGN}?\d[\d:.,]*(?:{_SIGN}[\d:.,]+)*\s*[-\u2013\u2014]+>")
_NUMBERED = re.compile(r"^\[?SPEAKER_(\d{1,18})(?!\d)\]?:?\s*")  # as whisperX writes speakers into SRT
_VOICE_TAG = re.compile(r"<v[.\s]")

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
    _check_timings(text)
    try:
        captions = webvtt.from_buffer(io.StringIO(text), format=FORMATS[suffix])
    except MalformedFileError as error:
        first = "WEBVTT" if suffix == ".vtt" else "a number, and a line such as 00:00:01,000 --> 00:00:02,500"
        raise SubtitlesError(f"the file does not begin as {suffix[1:].upper()} does, with {first}") from error
    numbers: dict[str, int] = {}
    rows = []
    for caption in captions.captions:
        words = " ".join(html.unescape(caption.text).split())
        row: Row = {"start": _seconds(caption.start), "end": _seconds(caption.end)}
        voice = caption.voice if len(_VOICE_TAG.findall(caption.raw_text)) == 1 else None
        if numbered := _NUMBERED.match(voice or words):
            words = words if voice else words[numbered.end() :]
            row["speaker"] = speaker_name(int(numbered[1]))
        elif voice:
            row["speaker"] = speaker_name(numbers.setdefault(voice, len(numbers)))
        if words:
            rows.append({**row, "text": words})
    return rows


def _check_timings(text: str) -> None:
    """Refuse what looks like a cue's times and is not: its words would end up in the cue before, or nowhere."""
    for number, line in enumerate(split_lines(text), start=1):
        if _LIKE_TIMING.match(line) and not _TIMING.match(line):
            raise SubtitlesError(f"line {number} is no times of a cue: expected 00:00:01,000 --> 00:00:02,500")


def _seconds(clock: str) -> float:
    seconds = 0.0
    for part in clock.split(":"):
        seconds = seconds * 60 + float(part)
    return round(seconds, 3)
