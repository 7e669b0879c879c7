"""Takes the audio of reported conversations out of the capture log and gives it to the bridge, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import structlog

from schemas.audio import ChunkDescription
from schemas.conversation import Verdict
from vps_bridge.intake.intake import Intake
from vps_bridge.intake.partial_chunks import INCOMING
from vps_bridge.intake.taken import Taken
from vps_bridge.intake.upload import Upload
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.omi_conversations import OmiConversationRecord
from vps_bridge.mailbox import Mailbox
from vps_bridge.omi.capture import CaptureLog
from vps_bridge.omi.capture_file import StoredRecord
from vps_bridge.omi.cutting import EDGE_S, ConversationSpan, CutChunk, cut_chunks, taken_spans, window_of
from vps_bridge.omi.placement import ERROR_S, LAG_S, SAMPLE_BYTES, AudioArrival, place_arrivals
from vps_bridge.omi.records import AUDIO, hash_name
from vps_bridge.omi.silence import find_quiet_point

_LOG = structlog.get_logger(__name__)
SETTLE_S = 60.0
"""Audio of a moment may arrive so long after it: OMI tries again for 36 s."""
BEFORE_S = 60.0  # audio cannot have arrived before it was recorded: so much is looked at beside the window
EARLY_S = 1.0
ASK_TIMEOUT_S = 60.0


class AudioTaker:
    """Gives conversations their audio. Runs on one thread of its own, with its own connection to the ledger."""

    def __init__(self, root: Path, log: CaptureLog, mailbox: Mailbox, intake: Intake, max_chunk_bytes: int) -> None:
        """Read from `log`; `intake` is called on the bridge's own thread, through `mailbox`."""
        self._incoming, self._log = root / INCOMING, log
        self._mailbox, self._intake, self._max_chunk_bytes = mailbox, intake, max_chunk_bytes

    def take_due(self, ledger: Ledger, now: float, wanted: Callable[[], bool]) -> None:
        """Take what there is for the conversations that wait; `wanted` says whether to go on with the next chunk.

        Raises `OSError` where the disk refuses, `BridgeBusy` where the bridge stops: the rest is taken later.
        """
        for record in ledger.omi.waiting():
            near = ledger.omi.of_user(record.uid, record.started_at - 2 * EDGE_S)
            window = window_of(_span(record), [_span(other) for other in near])
            chunks = self._plan(ledger, record, window)
            for chunk in chunks:
                if not wanted():
                    return
                if not self._give(record, chunk):
                    break
            else:
                if now > window[1] + LAG_S + SETTLE_S or ledger.conversations.is_deleted(record.conversation_id):
                    ledger.omi.note_taken(record.conversation_id, record.posts)

    def _plan(self, ledger: Ledger, record: OmiConversationRecord, window: tuple[float, float]) -> list[CutChunk]:
        records = self._audio_of(record.uid, window[0] - BEFORE_S)
        arrivals = [
            AudioArrival(one.header.position, one.header.end, one.header.sample_rate, one.header.arrived_at)
            for one in records
        ]
        taken = taken_spans(chunk.chunk_id for chunk in ledger.chunks.of_conversation(record.conversation_id))
        return cut_chunks(place_arrivals(arrivals, partial(_quiet_point, records)), window, taken)

    def _audio_of(self, uid: str, since: float) -> list[StoredRecord]:
        return [one for one in self._log.records_of(hash_name(uid), since) if one.header.kind == AUDIO]

    def _give(self, record: OmiConversationRecord, chunk: CutChunk) -> bool:
        """Give the bridge a chunk; return whether it was taken, or never will be."""
        upload = Upload(self._incoming, self._max_chunk_bytes)
        try:
            upload.write(_read(self._audio_of(record.uid, chunk.recorded_at - EARLY_S), chunk.start, chunk.end))
            if upload.bytes != chunk.end - chunk.start or upload.bytes % SAMPLE_BYTES:
                _LOG.warning("omi_audio_gone", conversation=record.conversation_id, chunk=chunk.chunk_id)
                return True  # its time is over, or its user was removed
            upload.finish()
            description = ChunkDescription(
                chunk_id=chunk.chunk_id,
                captured_at=datetime.fromtimestamp(chunk.recorded_at, UTC),
                captured_error_s=ERROR_S,
                encoding="pcm_s16le",
                sample_rate=chunk.sample_rate,
                channels=1,
            )
            work = partial(self._intake.take_upload, record.conversation_id, description, upload)
            asked: Future[Taken] = self._mailbox.ask(work)
            taken = asked.result(ASK_TIMEOUT_S)
            receipt = (taken if taken.later is None else taken.later.result()).receipt
        finally:
            upload.discard()
        return receipt is not None and receipt.verdict in (Verdict.ACCEPTED, Verdict.DISCARDED)


def _read(records: Sequence[StoredRecord], start: int, end: int) -> bytes:
    """Return bytes of the stream, as far as they are still there."""
    parts = []
    for stored in records:
        if stored.header.position >= end:
            break
        if stored.header.end > start:
            position = stored.header.position
            parts.append(stored.read(max(0, start - position), end - position))
    return b"".join(parts)


def _quiet_point(records: Sequence[StoredRecord], start: int, end: int) -> int | None:
    """Return where between two positions it is quiet for longest; the first of them is where a sample begins."""
    data = _read(records, start, end)
    samples = np.frombuffer(data[: len(data) // SAMPLE_BYTES * SAMPLE_BYTES], "<i2")
    rate = next((one.header.sample_rate for one in records if one.header.end > start), 1)
    index = find_quiet_point(samples, rate)
    return None if index is None else start + SAMPLE_BYTES * index


def _span(record: OmiConversationRecord) -> ConversationSpan:
    return ConversationSpan(record.conversation_id, record.started_at, record.ended_at)
