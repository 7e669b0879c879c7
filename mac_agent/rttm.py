"""RTTM, the plain text format in which diarizations are exchanged and scored.

One line per turn: ``SPEAKER <file> <channel> <onset> <duration> <NA> <NA> <speaker> <NA> <NA>`` (NIST RT-09
evaluation plan, appendix A). Times are seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TextIO

from mac_agent.engines.engine import Turn

_FIELDS = 9  # the tenth, signal lookahead time, is optional in the wild


class RttmMalformed(ValueError):
    """A line that is no RTTM; the message names its number."""


def write_rttm(stream: TextIO, turns: Sequence[Turn], *, file_id: str) -> None:
    """Write turns in the order given. White space in names, which would break the format, becomes `_`."""
    name = _one_word(file_id)
    for turn in turns:
        duration_s = turn.end_s - turn.start_s
        speaker = _one_word(turn.speaker)
        stream.write(f"SPEAKER {name} 1 {turn.start_s:.3f} {duration_s:.3f} <NA> <NA> {speaker} <NA> <NA>\n")


def read_rttm(lines: Iterable[str], *, file_id: str | None = None) -> list[Turn]:
    """Return the turns, sorted by start; of one file where `file_id` names it.

    Comments (``;;``), empty lines and records of other types are passed over.

    Raises:
        RttmMalformed: a SPEAKER line without its fields, or with times that are no times.
    """
    turns = []
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        if len(fields) < _FIELDS:
            raise RttmMalformed(f"line {number}: a SPEAKER line has {_FIELDS} or 10 fields, this one {len(fields)}")
        if file_id is not None and fields[1] != _one_word(file_id):
            continue
        start_s, duration_s = _seconds(fields[3], number), _seconds(fields[4], number)
        turns.append(Turn(start_s, start_s + duration_s, fields[7]))
    return sorted(turns, key=lambda turn: (turn.start_s, turn.end_s, turn.speaker))


def _seconds(text: str, number: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise RttmMalformed(f"line {number}: {text!r} is no time in seconds")
    return value


def _one_word(text: str) -> str:
    return re.sub(r"\s+", "_", text.strip()) or "_"
