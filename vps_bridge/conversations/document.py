"""A conversation as one JSON document, as a backend keeps it for the HTTP store: to read it and to write it. Pure.

Its segments say what a backend wants to know. All else that a store keeps (the history, and where each label comes
from) stands in the member `bridge`, as text that the backend keeps as it is. Members that are not ours stay.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from schemas.conversation import MAX_SEGMENTS, TranscriptSegment
from schemas.text import unique_keys
from vps_bridge.conversations.segment_rows import (
    BLANK,
    SPOKEN,
    change_from_json,
    change_to_json,
    find_other_lines,
    given_label,
    make_tombstone,
    newest_revision,
    read_origin,
    read_segment,
)
from vps_bridge.conversations.store import LabelOrigin, StoredConversation, Write, sum_text
from vps_bridge.conversations.write_json import write_from_json, write_to_json

SCHEMA, VERSION = "conversation-document", "1.0"
MAX_DOCUMENT_BYTES = 32 * 2**20
MAX_BRIDGE_BYTES = 128 * 2**20  # of the member `bridge`, unpacked
MAX_VALUES = 3_000_000
KEPT_STAMPS = 20
_VALUE_MARKS = (b"{", b"[", b",")
_FORMAT = 1  # of the member `bridge`
_LABELLED = ("speaker", "is_user", "person_id", "label_source")
_EVENT_FIELDS = ("id", *SPOKEN, *_LABELLED)


class DocumentWrong(Exception):
    """What was read is no document of this conversation; the words say why, and quote nothing of it."""


class DocumentOfAnother(DocumentWrong):
    """What was read is the document of another conversation."""


@dataclass(frozen=True)
class ConversationDocument:
    """A conversation, read from a document or to be written into one."""

    conversation_id: str
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Segments by id, as a SQL store's rows; the removed ones too."""
    writes: tuple[Write, ...] = ()
    """The history, oldest first."""
    stamps: tuple[str, ...] = ()
    """The latest writes into the document, each by a name of its own."""
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Members of the document that are not ours."""
    segment_extras: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, compare=False)
    """Members of its segments that are not ours, by segment."""

    @property
    def version(self) -> int:
        """Number of the last write."""
        return self.writes[-1].version if self.writes else 0

    @property
    def origins(self) -> dict[str, LabelOrigin]:
        """Where the label of each segment comes from."""
        return {name: read_origin(row) for name, row in self.rows.items()}

    def find_version(self, write_key: str) -> int | None:
        """Return the number of the last write with this key, or None where there was none."""
        return max((write.version for write in self.writes if write.write_key == write_key), default=None)

    def says_the_same(self, other: ConversationDocument) -> bool:
        """Whether segments and history are the same."""
        return (self.rows, self.writes) == (other.rows, other.writes)

    def read(self) -> StoredConversation:
        """Return the conversation as the bridge sees it."""
        segments = [read_segment(row) for row in self.rows.values() if not row["removed"]]
        segments.sort(key=lambda segment: (segment.start_s, segment.end_s, segment.id))
        content = json.dumps([self.version, {name: dict(row) for name, row in self.rows.items()}], sort_keys=True)
        revision = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return StoredConversation(self.conversation_id, revision, self.version, tuple(segments))


def write_document(document: ConversationDocument, stamp: str) -> bytes:
    """Return the document as it is sent, marked as the write that `stamp` names."""
    visible = [row for row in document.rows.values() if not row["removed"]]
    visible.sort(key=lambda row: (row["start_s"], row["end_s"], row["segment_id"]))
    segments = [{**document.segment_extras.get(row["segment_id"], {}), **_shown(row)} for row in visible]
    stamps = (*document.stamps, stamp)[-KEPT_STAMPS:]
    content = {
        **document.extra,
        "schema": SCHEMA,
        "version": VERSION,
        "conversation_id": document.conversation_id,
        "segments": segments,
        "bridge": _pack(document, stamps),
    }
    return json.dumps(content, separators=(",", ":")).encode()


def read_document(conversation_id: str, data: bytes) -> ConversationDocument:
    """Return the conversation that a document holds. Raises `DocumentWrong`."""
    content = _parse(data)
    named = content.get("conversation_id")
    if not isinstance(named, str):
        raise DocumentWrong("it does not name its conversation")
    if named != conversation_id:
        raise DocumentOfAnother(
            "it is not the document of the conversation that was asked for (of two ids that differ in capitals alone "
            "each has its own)"
        )
    kept = _unpack(conversation_id, content.get("bridge"))
    try:
        return _join(conversation_id, content, kept)
    except (KeyError, TypeError, AttributeError, ValueError) as error:  # it unpacks, and is not what we put there
        raise DocumentWrong("its member `bridge` is not what this program writes") from error


def _join(conversation_id: str, content: dict[str, Any], kept: dict[str, Any]) -> ConversationDocument:
    listed = content.get("segments")
    if not isinstance(listed, list) or len(listed) > MAX_SEGMENTS:
        raise DocumentWrong(f"`segments` is no list of at most {MAX_SEGMENTS} segments")
    segments = [_read_listed(place, raw) for place, raw in enumerate(listed)]
    ids = set[str]()
    for place, segment in enumerate(segments):
        if segment.id in ids:
            raise DocumentWrong(f"the id of segment {place} stands twice")
        ids.add(segment.id)
    rows, extras, others = {}, {}, _find_other_lines(kept["segments"], segments)
    for segment, raw in zip(segments, listed, strict=True):
        one = kept["segments"].get(segment.id)
        rows[segment.id] = _merge(segment, one, is_other=segment.id in others)
        extras[segment.id] = {name: value for name, value in raw.items() if name not in _shown(rows[segment.id])}
    for name, one in kept["segments"].items():
        if name not in rows:  # the backend removed it, or it was removed before
            row = {"segment_id": name, **one["row"]}
            rows[name] = row if row["removed"] else make_tombstone(name, newest_revision(row))
    own = ("schema", "version", "conversation_id", "segments", "bridge")
    extra = {name: value for name, value in content.items() if name not in own}
    writes = tuple(
        write_from_json(write, [change_from_json(change) for change in write["changes"]]) for write in kept["writes"]
    )
    return ConversationDocument(conversation_id, rows, writes, tuple(kept["stamps"]), extra, extras)


def _parse(data: bytes) -> dict[str, Any]:
    if sum(map(data.count, _VALUE_MARKS)) > MAX_VALUES:
        raise DocumentWrong(f"it holds more than {MAX_VALUES} values")
    try:
        content = json.loads(data, object_pairs_hook=unique_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DocumentWrong("it is no JSON") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise DocumentWrong(f"it is no JSON object whose `schema` is `{SCHEMA}`")
    if str(content.get("version")).partition(".")[0] != VERSION.partition(".")[0]:
        raise DocumentWrong(f"its `version` is not {VERSION}, or a later minor one")
    return content


def _refuse_constant(name: str) -> float:
    msg = f"{name} is no number in JSON"
    raise ValueError(msg)


def _read_listed(place: int, raw: object) -> TranscriptSegment:
    if not isinstance(raw, dict):
        raise DocumentWrong(f"segment {place} is no object")
    try:
        segment = TranscriptSegment.model_validate({name: raw[name] for name in _EVENT_FIELDS if name in raw})
    except ValidationError as error:
        wrong = ", ".join(sorted({str(item["loc"][0]) for item in error.errors(include_input=False) if item["loc"]}))
        raise DocumentWrong(f"segment {place} has a wrong or missing {wrong or 'member'}") from error
    if not segment.has_times:
        raise DocumentWrong(f"segment {place} has no start_s or end_s")
    return segment


def _find_other_lines(kept: Mapping[str, Any], segments: Sequence[TranscriptSegment]) -> set[str]:
    """Return the ids that the backend has given to other lines since we wrote the document, as far as that is known."""
    before = {
        name: {"segment_id": name, "removed": False, "text": line["text_sum"], **line}
        for name, one in kept.items()
        if (line := one.get("line")) is not None
    }
    now = [segment.model_copy(update={"text": _sum(segment.text)}) for segment in segments]
    return find_other_lines(now, before)


def _merge(segment: TranscriptSegment, kept: Mapping[str, Any] | None, *, is_other: bool) -> dict[str, Any]:
    """Return a segment's row: what we kept of it, changed by what the backend has changed in the document since.

    What differs from what we wrote is the backend's; a label that differs is not ours any more. `is_other`: its id was
    another line's, whose label says nothing of it.
    """
    fields = set(TranscriptSegment.model_fields) - {"id"}
    given = {name: getattr(segment, name) for name in fields}
    given["words"] = None if segment.words is None else [word.model_dump() for word in segment.words]
    if kept is None or kept["row"]["removed"]:
        floor = 0 if kept is None else kept["row"]["backend_revision"]
        own = {"segment_id": segment.id, "removed": False, "backend_revision": floor}
        return {**BLANK, **given, **given_label(segment.speaker), "original_speaker": segment.speaker, **own}
    row = {"segment_id": segment.id, **kept["row"], **{name: given[name] for name in SPOKEN}}
    changed = [name for name in _LABELLED if given[name] != kept["shown"][name]]
    if is_other:
        row |= given_label(row["original_speaker"]) | {"undone": False}
    if "speaker" in changed:
        row |= {"original_speaker": segment.speaker, **given_label(segment.speaker)}
    if said := [name for name in changed if name != "speaker"]:
        row |= {name: given[name] for name in said} | {"corrected": False, "corrected_person": None}
    if changed or _digest(given) != kept["spoken"]:
        row |= {"pieces": None, "matched_person": None}
    return row


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a document's segment says."""
    return {
        "id": row["segment_id"],
        **{name: row[name] for name in SPOKEN},
        "speaker": row["speaker"],
        "is_user": row["is_user"],
        "person_id": row["corrected_person"] or row["person_id"],
        "label_source": "manual" if row["corrected"] else row["label_source"],
        "pieces": row["pieces"],
        "matched_person": row["matched_person"],
    }


def _digest(spoken: Mapping[str, Any]) -> str:
    """Return what tells whether text, times or words changed."""
    times = [float(spoken["start_s"]), float(spoken["end_s"])]
    words = [[word["text"], float(word["start_s"]), float(word["end_s"])] for word in spoken["words"] or ()]
    content = json.dumps([spoken["text"], times, words, spoken["words"] is None])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _pack(document: ConversationDocument, stamps: tuple[str, ...]) -> str:
    content = {
        "format": _FORMAT,
        "conversation_id": document.conversation_id,
        "stamps": stamps,
        "segments": {name: _keep(row) for name, row in document.rows.items()},
        "writes": [
            {
                **write_to_json(write),
                "version": write.version,
                "changes": [change_to_json(one) for one in write.changes],
            }
            for write in document.writes
        ],
    }
    packed = zlib.compress(json.dumps(content, separators=(",", ":")).encode())
    return base64.b64encode(packed).decode()


def _keep(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what we keep of a segment: all but what the document's segment says in full."""
    left_out = () if row["removed"] else (*SPOKEN, "segment_id")
    kept = {name: value for name, value in row.items() if name not in left_out}
    if row["removed"]:
        return {"row": kept}
    shown = _shown(row)
    line = {"start_s": row["start_s"], "end_s": row["end_s"], "text_sum": _sum(row["text"])}
    return {"row": kept, "shown": {name: shown[name] for name in _LABELLED}, "spoken": _digest(row), "line": line}


def _sum(text: str) -> str:
    """Return a checksum that stands for a text, none for none: the text itself stands in the document's segment."""
    return f"{sum_text(text):08x}" if text else ""


def _unpack(conversation_id: str, packed: object) -> dict[str, Any]:
    """Return what we keep in the member `bridge`; of a document that we never wrote there is none."""
    if packed is None:
        return {"segments": {}, "writes": [], "stamps": []}
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(base64.b64decode(str(packed), validate=True), MAX_BRIDGE_BYTES)
        content: dict[str, Any] = json.loads(data if unpacker.eof else b"")
    except (ValueError, binascii.Error, zlib.error) as error:
        raise DocumentWrong(
            "its member `bridge` is not as it was sent: keep it as it is, whatever its length"
        ) from error
    if content.get("format") != _FORMAT:
        raise DocumentWrong("a newer version of omi-diarization wrote it: install that version again")
    if content.get("conversation_id") != conversation_id:
        raise DocumentWrong("its member `bridge` is another conversation's")
    return content
