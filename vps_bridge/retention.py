"""How long audio, voice samples and voices are kept: swept regularly, and sooner where something became due."""

from __future__ import annotations

import time

import structlog

from schemas.codec import decode, encode
from schemas.conversation import ConversationUpdated
from schemas.errors import SchemaError
from schemas.failure import FailureCode
from schemas.turns import SpeakerTurns
from vps_bridge.clock_steps import ClockSteps
from vps_bridge.conversations.store import ConversationStore
from vps_bridge.dispatch.dispatcher import Dispatcher
from vps_bridge.dispatch.offer import AUDIO_GONE
from vps_bridge.intake.disk_reserve import DiskReserve
from vps_bridge.intake.ingest import Ingest
from vps_bridge.intake.spool import Spool
from vps_bridge.labelling.forget_voices import FORGOTTEN, find_named, forget_voices
from vps_bridge.labelling.number import VoiceBook
from vps_bridge.labelling.take_apart import settle_samples
from vps_bridge.ledger import Ledger
from vps_bridge.membership import HOUSEKEEPING
from vps_bridge.rules.ownership import Owns, own_all
from vps_bridge.rules.queue_share import QueueUse, is_kept_for_others
from vps_bridge.settings import BridgeSettings

_LOG = structlog.get_logger(__name__)
SWEEP_S = 60.0
GO_ON_S = 5.0  # where there was more than one sweep does, after an upgrade or a long pause, the next comes so soon
ASK_AGAIN_S = 5.0  # a bucket that does not answer is asked again so soon
TEMPORARY_S = 3_600.0  # how long a test that nobody deleted is kept
ENROLMENT_TOLD_S = 86_400.0  # how long the outcome of an enrolment waits for a backend that is away
MAX_FORGOTTEN_AT_ONCE = 20  # conversations in one sweep: each takes some tens of milliseconds


class Retention:
    """Drops audio, voice samples and voices that are not needed any more. Runs on the bridge's own thread only."""

    def __init__(
        self,
        settings: BridgeSettings,
        ledger: Ledger,
        spool: Spool,
        store: ConversationStore,
        *,
        ingest: Ingest,
        dispatcher: Dispatcher,
        disk_reserve: DiskReserve,
        owns: Owns = own_all,
    ) -> None:
        """Sweep this ledger, spool and store; the first sweep is due at once."""
        self._owns = owns
        self._settings, self._ledger, self._spool, self._store = settings, ledger, spool, store
        self._ingest, self._dispatcher, self._disk_reserve = ingest, dispatcher, disk_reserve
        self._due_s, self._clock_steps = 0.0, ClockSteps()

    def is_due(self, now_s: float) -> bool:
        """Whether to sweep now."""
        return now_s >= self._due_s

    def sweep_by(self, moment_s: float) -> None:
        """Sweep no later than at this moment (monotonic seconds)."""
        self._due_s = min(self._due_s, moment_s)

    def note_final(self, conversation_id: str, now_s: float) -> None:
        """Note that a conversation has become final: its audio is due once it was kept long enough.

        An enrolment's is due at once, with its results: only its outcome is still told.
        """
        self.sweep_by(now_s + self._settings.keep_audio_s)
        if self._ledger.conversations.is_enrolment(conversation_id):
            self._strip(conversation_id)

    def note_final_elsewhere(self, now_s: float) -> None:
        """Note that a conversation of another bridge has become final: its audio may be for this one to sweep."""
        self.sweep_by(now_s + self._settings.keep_audio_s)

    def note_applied(self, conversation_id: str) -> None:
        """Note that the backend heard of an update: an enrolment whose outcome was told is deleted."""
        if self._ledger.conversations.is_told_enrolment(conversation_id):
            self._ledger.conversations.mark_deleted(conversation_id)

    def _strip(self, conversation_id: str) -> None:
        names = self._ledger.people.strip(conversation_id)
        if names is None:
            return
        self._spool.remove(*names)
        self._ledger.forget_deleted_pages()

    def sweep(self, now_s: float) -> None:
        """Unlink audio that is due, and forget parts that stopped coming, and pages of what was deleted."""
        self._due_s = now_s + SWEEP_S
        self._ingest.clean_up(now_s)
        self._spool.tidy(keep_copies=self._disk_reserve.is_held)
        self._ledger.forget_deleted_pages()
        self._store.forget_deleted_pages()
        if self._owns(HOUSEKEEPING):
            self._sweep_ledger(now_s)

    def _sweep_ledger(self, now_s: float) -> None:
        """Do the part of a sweep that one of several bridges does for all."""
        self._put_times_right()
        now = time.time()
        self._ledger.refusals.drop_old(now)
        is_more = self._settle_samples(now - self._settings.keep_samples_s)
        is_more |= self._forget_voices(now - self._settings.keep_voices_s)
        if is_more:
            self.sweep_by(now_s + GO_ON_S)
        for name, final_at in self._ledger.people.enrolments():
            self._strip(name)  # a bridge that was killed may have left it
            if final_at <= now - ENROLMENT_TOLD_S:
                self._ledger.conversations.mark_deleted(name)
        # `omi-bridge ping` deletes its own, unless it was killed; the HTTP door waits for its own for so long.
        kept_s = max(TEMPORARY_S, self._settings.http_answer_timeout_s + SWEEP_S)
        for name in self._ledger.conversations.temporary(quiet_since=now - kept_s):
            self._ledger.conversations.mark_deleted(name)
        due = self._ledger.chunks.expired(
            final_before=now - (self._settings.keep_audio_s if self._has_room() else 0.0),
            failed_before=now - self._settings.keep_failed_audio_s,
            accepted_before=now - self._settings.keep_audio_max_s,
        )
        if not due:
            return
        gone = self._spool.remove(*[chunk.spool_name or "" for chunk in due])
        unlinked = [chunk.arrival for chunk in due if chunk.spool_name in gone]
        self._ledger.chunks.mark_unlinked(unlinked)
        _LOG.info("audio_unlinked", chunks=len(unlinked))
        for job_id in self._ledger.jobs.without_audio():
            self._dispatcher.give_up(job_id, FailureCode.PAYLOAD_INCOMPLETE, AUDIO_GONE)
        self._due_s = now_s + (0.0 if unlinked else ASK_AGAIN_S)  # there may be more of it

    def _has_room(self) -> bool:
        """Whether audio that nothing waits for may be kept: what it takes of disk or queue is not wanted for new."""
        kept = QueueUse(0, self._ledger.jobs.counts().bytes)
        return self._disk_reserve.is_held and not is_kept_for_others(kept, self._settings.queue_limit)

    def _put_times_right(self) -> None:
        """Where the clock was set, have what was kept since this bridge began be as old as it is."""
        step_s = self._clock_steps.take()
        if step_s:
            _LOG.warning("clock_set_forward", seconds=round(step_s))
            self._ledger.chunks.shift_times(self._clock_steps.began_at, step_s)
            self._clock_steps.note_taken(step_s)
        self._ledger.chunks.clamp_future_times(time.time())

    def _settle_samples(self, final_until: float) -> bool:
        """Replace the voice samples of conversations that were final before this Unix time by what they found.

        Return whether there may be more of them.
        """
        found = self._ledger.kept_voices.with_samples(final_until)
        for name in found.names:
            try:
                payloads = {result.job_id: encode(result) for result in settle_samples(self._results_of(name))}
            except SchemaError as error:
                _LOG.error("samples_not_settled", conversation=name, error=str(error))
                continue
            self._ledger.jobs.replace_results(payloads)
            _LOG.info("samples_settled", conversation=name, jobs=len(payloads))
        if found.names:
            self._ledger.forget_deleted_pages()
        self._ledger.kept_voices.note_settled(found)
        return found.is_more

    def _forget_voices(self, final_until: float) -> bool:
        """Drop the embeddings of voices that nobody named, of conversations that were final before this Unix time.

        Return whether there may be more of them.
        """
        found = self._ledger.kept_voices.with_voices(FORGOTTEN.encode(), final_until, MAX_FORGOTTEN_AT_ONCE)
        for name in found.names:
            try:
                self._forget_voices_of(name)
            except SchemaError as error:
                _LOG.error("voices_not_forgotten", conversation=name, error=str(error))
        if found.names:
            self._ledger.forget_deleted_pages()
        self._ledger.kept_voices.note_forgotten(found)
        return found.is_more

    def _forget_voices_of(self, name: str) -> None:
        conversation = self._ledger.conversations.get(name)
        if conversation is None:
            return
        stored, payload = self._store.read(name), conversation.updated_payload
        turns = decode(ConversationUpdated, payload).turns if payload is not None else None
        book = VoiceBook.from_json(conversation.voices) if conversation.voices else VoiceBook()
        named = find_named(stored.segments, turns) if stored is not None and turns is not None else frozenset()
        payloads = {result.job_id: encode(result) for result in forget_voices(self._results_of(name), book, named)}
        self._ledger.jobs.replace_results(payloads)
        _LOG.info("voices_forgotten", conversation=name, jobs=len(payloads), kept=len(named))

    def _results_of(self, name: str) -> list[SpeakerTurns]:
        return [decode(SpeakerTurns, found.payload) for found in self._ledger.jobs.results(name)]
