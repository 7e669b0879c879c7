"""Beside a self-hosted OMI backend: the bridge's labels are written into its conversations, by its own functions.

Run it where the backend's Python runs, in its folder and with its environment:

    OMI_BROKER_URL=… OMI_OWNERS_FILE=owners.tsv python labels.py

It reads a conversation and writes its segments with `database.conversations`, whose functions it checks by name and
parameters at its start: another backend than it knows is refused, and nothing is written. It waits for `completed`, and
writes only where nothing has changed since it read (`updated_at`, and every segment): the check is made once more right
before the write. Of a segment it changes `speaker` and `speaker_id`, nothing else; one that a person or a voiceprint of
the backend's labelled (`is_user`, `person_id`, `manual`) is left alone. It never met a real backend.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from omi_diarization_client import ConversationLabels

LOG = logging.getLogger("omi_diarization.labels")
NEEDED = {
    "get_conversation": ("uid", "conversation_id"),
    "update_conversation_segments": ("uid", "conversation_id", "segments"),
}
ATTEMPTS = 3
RESERVED_SPEAKER_ID = 99  # the voice of OMI itself
_NUMBERED = re.compile(r"SPEAKER_(\d+)")

Segment = dict[str, Any]
Conversation = dict[str, Any]


class BackendUnknown(Exception):
    """The backend has not the functions that are needed; the message names which."""


class LabelOutcome(StrEnum):
    """What became of an update."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    LATER = "later"
    """The conversation is not completed, or changes just now: the bridge offers the update again."""
    GONE = "gone"
    """It is deleted, discarded or locked: nothing is written, now or later."""


@dataclass(frozen=True)
class BackendFunctions:
    """The backend's own functions."""

    get_conversation: Callable[[str, str], Conversation | None]
    update_segments: Callable[[str, str, list[Segment]], object]

    @classmethod
    def find(cls, module: str = "database.conversations") -> BackendFunctions:
        """Import them, and check that they are what is known here. Raises `BackendUnknown`."""
        found = dict(find_functions(module, NEEDED))
        return cls(found["get_conversation"], found["update_conversation_segments"])


def find_functions(module: str, needed: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield functions of a module of the backend, with their names, checked: each begins with these parameters.

    Raises `BackendUnknown` where one is missing, or needs more than is known here.
    """
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise BackendUnknown(f"{module} cannot be imported: run this in the backend's folder, by its Python") from error
    for name, wanted in needed.items():
        function = getattr(found, name, None)
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise BackendUnknown(f"{module}.{name} is no function here: this backend is another than is known")
        parameters = inspect.signature(function).parameters
        has = tuple(parameters)[: len(wanted)]
        needs_more = [each.name for each in list(parameters.values())[len(wanted) :] if _is_required(each)]
        if has != tuple(wanted) or needs_more:
            expected = ", ".join(wanted)
            raise BackendUnknown(f"{module}.{name} takes {', '.join(parameters)}; known is {expected}: nothing is done")
        yield name, function


def _is_required(parameter: inspect.Parameter) -> bool:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in variable


def relabel(segments: Sequence[Segment], labels: Mapping[str, str | None]) -> list[Segment]:
    """Return the segments with their new speakers; all other fields, and those that nobody may touch, as they are."""
    is_padded = not any(re.fullmatch(r"SPEAKER_\d", str(segment.get("speaker"))) for segment in segments)
    found = []
    for segment in segments:
        number = _NUMBERED.fullmatch(labels.get(str(segment.get("id"))) or "")
        if number is None or int(number[1]) == RESERVED_SPEAKER_ID or _is_somebodys(segment):
            found.append(segment)
            continue
        speaker_id = int(number[1])
        name = f"SPEAKER_{speaker_id:02}" if is_padded else f"SPEAKER_{speaker_id}"
        found.append({**segment, "speaker": name, "speaker_id": speaker_id})
    return found


def _is_somebodys(segment: Segment) -> bool:
    is_manual = segment.get("speaker_label_source") == "manual"
    return bool(segment.get("is_user") or segment.get("person_id") or is_manual)


class LabelWriter:
    """Writes updates into the backend's conversations."""

    def __init__(self, backend: BackendFunctions) -> None:
        """Use these functions."""
        self._backend = backend

    def write(self, uid: str, labels: ConversationLabels) -> LabelOutcome:
        """Write an update, if nobody else writes meanwhile. Raises what the backend's functions do."""
        for _ in range(ATTEMPTS):
            read = self._backend.get_conversation(uid, labels.conversation_id)
            if read is None or read.get("deleted") or read.get("discarded") or read.get("is_locked"):
                return LabelOutcome.GONE
            if _status(read) != "completed":
                return LabelOutcome.LATER
            segments = _segments(read)
            wanted = relabel(segments, labels.segments)
            if wanted == segments:
                return LabelOutcome.UNCHANGED
            again = self._backend.get_conversation(uid, labels.conversation_id)
            if again is not None and _state(again) == _state(read):
                self._backend.update_segments(uid, labels.conversation_id, wanted)
                return LabelOutcome.WRITTEN
        return LabelOutcome.LATER


def _status(conversation: Conversation) -> str:
    status = conversation.get("status")
    return str(getattr(status, "value", status))


def _segments(conversation: Conversation) -> list[Segment]:
    segments = conversation.get("transcript_segments") or []
    if not all(isinstance(segment, dict) for segment in segments):
        raise BackendUnknown("the segments of a conversation are no dicts: this backend is another than is known")
    return list(segments)


def _state(conversation: Conversation) -> tuple[object, ...]:
    """Return what must not change between reading and writing; older backends have no `updated_at`."""
    hidden = (conversation.get("deleted"), conversation.get("discarded"), conversation.get("is_locked"))
    return conversation.get("updated_at"), _status(conversation), _segments(conversation), hidden


class OwnersFile:
    """Whose conversations they are, as `publish.py` notes it."""

    def __init__(self, path: Path) -> None:
        """Read it when somebody asks."""
        self._path = path
        self._owners: dict[str, str] = {}

    def find(self, conversation_id: str) -> str | None:
        """Return the user of a conversation; None: it is not one of the backend's."""
        if conversation_id not in self._owners and self._path.is_file():
            lines = self._path.read_text("utf-8").splitlines()
            self._owners = dict(line.split("\t", 1) for line in lines if "\t" in line)
        return self._owners.get(conversation_id)


def main() -> None:
    """Write every update that comes, for ever. What is not dealt with is not confirmed, and comes again."""
    from publish import client_of_environment  # type: ignore[import-not-found] # noqa: PLC0415 - the file beside this one

    logging.basicConfig(level=logging.INFO)
    writer, owners = LabelWriter(BackendFunctions.find()), OwnersFile(Path(os.environ["OMI_OWNERS_FILE"]))
    with client_of_environment() as client:
        for labels in client.updates(confirms=False):
            if apply(writer, owners, labels) not in (None, LabelOutcome.LATER):
                client.confirm(labels)


def apply(writer: LabelWriter, owners: OwnersFile, labels: ConversationLabels) -> LabelOutcome | None:
    """Write one update and log what became of it; fails open."""
    uid = owners.find(labels.conversation_id)
    if uid is None:
        return None
    try:
        outcome = writer.write(uid, labels)
    except Exception as error:  # noqa: BLE001 - whatever the backend's functions raise, the next update must be written
        LOG.warning("not written, %s: %s", labels.conversation_id, type(error).__name__)
        return LabelOutcome.LATER
    LOG.info("%s: %s", labels.conversation_id, outcome)
    return outcome


if __name__ == "__main__":
    main()
