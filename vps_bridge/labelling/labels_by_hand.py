"""Whether anything is seen of what a person says of a voice: a line that somebody labelled is never touched."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from schemas.corrections import Correction, CorrectionKind
from vps_bridge.conversations.store import StoredSegment


def is_contradicted(said: Correction, lines: Collection[StoredSegment]) -> bool:
    """Whether people labelled all lines of the voices that a statement is about, and their labels say otherwise."""
    if not lines or not all(line.is_human_labelled for line in lines):
        return False
    match said.kind:
        case CorrectionKind.VOICE_IS:
            return all(_names_anybody(line) and line.person_id != said.person_id for line in lines)
        case CorrectionKind.VOICE_IS_NOT:
            return any(line.person_id == said.person_id for line in lines)
        case CorrectionKind.SAME_VOICE:
            return len(_numbers(lines)) > 1
        case CorrectionKind.OTHER_VOICE:
            named = [line for line in lines if line.id in said.segment_ids]
            left = [line for line in lines if line.id not in said.segment_ids]
            return not _numbers(named).isdisjoint(_numbers(left))
        case _:
            return False


def _names_anybody(line: StoredSegment) -> bool:
    return line.is_user or line.person_id is not None


def _numbers(lines: Iterable[StoredSegment]) -> set[int]:
    return {line.speaker_id for line in lines if line.speaker_id is not None}
