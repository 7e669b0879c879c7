"""The conversation store at a backend that keeps conversations itself: each is a document there, with its history.

A write is a GET, a PUT on the condition that nothing changed since, and a GET that looks whether it is there: no answer
is believed alone. A write that may have happened or not is found out so, too.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from vps_bridge.conversations.conversation_outages import ConversationOutages
from vps_bridge.conversations.document import ConversationDocument, write_document
from vps_bridge.conversations.document_client import DocumentClient, PutAnswer, PutOutcome, TaggedDocument
from vps_bridge.conversations.reversible_store import Reversal, ReversibleStore
from vps_bridge.conversations.segment_rows import BLANK, changed_columns, take_event
from vps_bridge.conversations.store import (
    AlreadyWritten,
    Applied,
    Change,
    Conflict,
    HumanLabel,
    Label,
    StoredConversation,
    Write,
    WriteKind,
    WriteNotFound,
)
from vps_bridge.conversations.write_decisions import (
    decide_apply,
    decide_correct,
    decide_reversal,
    find_target,
    refuse_apply,
)
from vps_bridge.errors import StoreConfusesConversations, StoreMisbehaves, StoreUnavailable

if TYPE_CHECKING:
    from schemas.conversation import TranscriptSegment
    from schemas.corrections import Correction
from vps_bridge.signed_endpoint import SignedEndpoint

T = TypeVar("T")
MAX_PUTS = 10  # of one write: others may write too
MAX_UNKNOWN = 2  # of these, such of which nobody can tell what became
Decide = Callable[[TaggedDocument], tuple[T, ConversationDocument | None]]
PROBE = "omi-doctor-probe"  # the id of no conversation


class HttpConversations(ReversibleStore):
    """A `ConversationStore` at a backend. A write that is not needed sends nothing."""

    def __init__(self, endpoint: SignedEndpoint) -> None:
        """Ask nothing yet."""
        self._client, self._shown = DocumentClient(endpoint), endpoint.shown
        self._outages = ConversationOutages()
        self._lock = threading.RLock()

    def check(self) -> None:
        """Ask for a document that is not there. Raises `StoreUnavailable`."""
        self._client.get(PROBE)

    def upsert_segments(
        self,
        conversation_id: str,
        revision: int,
        segments: Sequence[TranscriptSegment],
        removed: Sequence[str] = (),
    ) -> bool:
        """See `ConversationStore.upsert_segments`."""

        def decide(now: TaggedDocument) -> tuple[bool, ConversationDocument | None]:
            rows = now.document.rows
            current, changed = take_event(rows, revision, segments, removed)
            new = {name: {**(rows.get(name) or BLANK), **columns} for name, columns in current.items()}
            is_same = now.etag is not None and all(name in rows and rows[name] == row for name, row in new.items())
            return changed, None if is_same else replace(now.document, rows={**rows, **new})

        return self._write(conversation_id, decide)

    def read(self, conversation_id: str) -> StoredConversation | None:
        """See `ConversationStore.read`."""
        now = self._ask(conversation_id, lambda: self._client.get(conversation_id))
        return None if now.etag is None else now.document.read()

    def apply(
        self, conversation_id: str, expected_revision: str, write_key: str, labels: Sequence[Label]
    ) -> Applied | Conflict | AlreadyWritten:
        """See `ConversationStore.apply`."""

        def decide(now: TaggedDocument) -> tuple[Applied | Conflict | AlreadyWritten, ConversationDocument | None]:
            stored = None if now.etag is None else now.document.read()
            known_version = now.document.find_version(write_key)
            refused = refuse_apply(stored, known_version, expected_revision, labels)
            if refused is not None or stored is None:
                return refused or Conflict(None), None
            made = decide_apply(stored, now.document.origins, labels)
            return _add_write(now.document, "apply", write_key, made)

        return self._write(conversation_id, decide)

    def correct(
        self,
        conversation_id: str,
        write_key: str,
        labels: Sequence[HumanLabel],
        *,
        corrections: Sequence[Correction],
        by: str | None,
    ) -> Applied:
        """See `ConversationStore.correct`."""

        def decide(now: TaggedDocument) -> tuple[Applied, ConversationDocument | None]:
            known_version = now.document.find_version(write_key)
            if known_version is not None:
                return Applied(known_version), None
            made = decide_correct(now.document.read(), now.document.origins, labels)
            return _add_write(now.document, "correct", write_key, made, by=by, corrections=tuple(corrections))

        return self._write(conversation_id, decide)

    def _reverse(self, conversation_id: str, reversal: Reversal) -> Applied:
        kind, version, write_key = reversal.kind, reversal.version, reversal.write_key

        def decide(now: TaggedDocument) -> tuple[Applied, ConversationDocument | None]:
            known_version = now.document.find_version(write_key)
            if known_version is not None:
                return Applied(known_version), None
            if now.etag is None:
                raise WriteNotFound(conversation_id, version)
            history, origins = now.document.writes, now.document.origins
            target = find_target(history, conversation_id, version, kind)
            made = decide_reversal(now.document.read(), origins, history, target, reversal.other_lines)
            return _add_write(now.document, kind, write_key, made, by=reversal.by, undoes=target.version)

        return self._write(conversation_id, decide)

    def history(self, conversation_id: str) -> tuple[Write, ...]:
        """See `ConversationStore.history`."""
        return self._ask(conversation_id, lambda: self._client.get(conversation_id)).document.writes

    def delete(self, conversation_id: str) -> None:
        """See `ConversationStore.delete`. Raises `StoreMisbehaves` where it is still there afterwards.

        What is another conversation's is left: a backend whose database takes `Call-1` for `call-1` would delete that.
        """

        def delete() -> None:
            try:
                self._client.get(conversation_id)
            except StoreConfusesConversations:
                raise
            except StoreMisbehaves:
                pass  # a document that cannot be read is deleted like any other
            self._client.delete(conversation_id)
            if self._client.get(conversation_id).etag is not None:
                raise StoreMisbehaves(
                    f"{self._shown} said that it deleted a conversation, and still has it: look at its DELETE"
                )

        self._ask(conversation_id, delete)

    def pack(self, _conversation_id: str) -> bool:
        """Leave that to the backend: the room is its own."""
        return False

    def unpacked(self) -> list[str]:
        """Return nothing: there is nothing to pack."""
        return []

    def free_pages(self, _most: int) -> int:
        """Return 0: there are no pages of ours."""
        return 0

    def forget_deleted_pages(self) -> None:
        """Leave that to the backend: its files are not ours."""

    def close(self) -> None:
        """See `ConversationStore.close`."""
        self._client.abort()

    def _ask(self, conversation_id: str, work: Callable[[], T]) -> T:
        with self._lock:
            return self._outages.guard(conversation_id, work)

    def _write(self, conversation_id: str, decide: Decide[T]) -> T:
        """Write what `decide` makes of the document, if it makes anything of it, and return its result."""
        return self._ask(conversation_id, lambda: _WriteAttempt(self._client, self._shown, conversation_id).run(decide))


class _WriteAttempt:
    """One write, until it is known to be there or not to be needed."""

    def __init__(self, client: DocumentClient, shown: str, conversation_id: str) -> None:
        self._client, self._shown, self._conversation_id = client, shown, conversation_id

    def run(self, decide: Decide[T]) -> T:
        """See `HttpConversations._write`.

        A document that was sent is looked for by its stamp, also among those that others wrote upon it. One of which
        nobody knows what became is sent again on the same condition: of the two only one can take its place.
        """
        sent: dict[str, T] = {}
        unknown = 0
        now = self._client.get(self._conversation_id)
        while len(sent) < MAX_PUTS and unknown < MAX_UNKNOWN:
            result, wanted = decide(now)
            if wanted is None:
                return result
            stamp = secrets.token_hex(8)
            sent[stamp] = result
            answer = self._client.put(self._conversation_id, write_document(wanted, stamp), now.etag)
            before, now = now, self._client.get(self._conversation_id)
            there = [name for name in now.document.stamps if name in sent]
            if there:
                self._check_stored(before, now, answer, wanted if there[-1] == stamp else None)
                return sent[there[-1]]
            self._check_refused(before, now, answer)
            unknown += answer.outcome is PutOutcome.UNKNOWN
        raise StoreUnavailable(
            f"{answer.words} to {len(sent)} documents in a row, and has none of them: look at its log"
        )

    def _check_stored(
        self, before: TaggedDocument, now: TaggedDocument, answer: PutAnswer, wanted: ConversationDocument | None
    ) -> None:
        if now.etag == before.etag:
            raise self._misbehaves("kept the ETag of a document that changed: of two writers one would lose")
        if wanted is not None and now.etag == answer.etag and not now.document.says_the_same(wanted):
            raise self._misbehaves("stored another document than it was sent: keep every member as it is")

    def _check_refused(self, before: TaggedDocument, now: TaggedDocument, answer: PutAnswer) -> None:
        if answer.outcome is PutOutcome.STORED:
            raise self._misbehaves("said that it stored a document, and does not have it")
        if answer.outcome is PutOutcome.CHANGED and now.etag == before.etag:
            raise self._misbehaves("refused a document as out of date, and has no other")

    def _misbehaves(self, words: str) -> StoreMisbehaves:
        return StoreMisbehaves(f"{self._shown} {words} (docs/stores.md says what it has to do)")


def _add_write(
    document: ConversationDocument,
    kind: WriteKind,
    write_key: str,
    made: tuple[Change, ...],
    **facts: Any,  # noqa: ANN401 - fields of `Write`
) -> tuple[Applied, ConversationDocument]:
    """Return a document with changes made and in its history, as the conversation's next write."""
    write = Write(document.version + 1, kind, write_key, time.time(), made, **facts)
    changed = {change.segment_id: {**document.rows[change.segment_id], **changed_columns(change)} for change in made}
    rows = {**document.rows, **changed}
    return Applied(write.version), replace(document, rows=rows, writes=(*document.writes, write))
