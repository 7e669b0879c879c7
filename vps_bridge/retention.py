"""How long audio and voice samples are kept: swept regularly, and sooner where something became due."""

from __future__ import annotations

import time

import structlog

from schemas.codec import decode, encode
from schemas.errors import SchemaError
from schemas.failure import FailureCode
from schemas.turns import SpeakerTurns
from vps_bridge.conversations.store import ConversationStore
from vps_bridge.dispatch.dispatcher import AUDIO_GONE, Dispatcher
from vps_bridge.intake.disk_reserve import DiskReserve
from vps_bridge.intake.ingest import Ingest
from vps_bridge.intake.spool import Spool
from vps_bridge.labelling.take_apart import settle_samples
from vps_bridge.ledger import Ledger
from vps_bridge.settings import BridgeSettings

_LOG = structlog.get_logger(__name__)
SWEEP_S = 60.0


class Retention:
    """Unlinks audio and drops voice samples that are not needed any more. Runs on the bridge's own thread only."""

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
    ) -> None:
        """Sweep this ledger, spool and store; the first sweep is due at once."""
        self._settings, self._ledger, self._spool, self._store = settings, ledger, spool, store
        self._ingest, self._dispatcher, self._disk_reserve = ingest, dispatcher, disk_reserve
        self._due_s = 0.0
        self._settled_until = 0.0  # Unix time: of conversations final before it, no samples are kept any more

    def is_due(self, now_s: float) -> bool:
        """Whether to sweep now."""
        return now_s >= self._due_s

    def sweep_by(self, moment_s: float) -> None:
        """Sweep no later than at this moment (monotonic seconds)."""
        self._due_s = min(self._due_s, moment_s)

    def note_final(self, now_s: float) -> None:
        """Note that a conversation has become final: its audio is due once it was kept long enough."""
        self.sweep_by(now_s + self._settings.keep_audio_s)

    def sweep(self, now_s: float) -> None:
        """Unlink audio that is due, and forget parts that stopped coming, and pages of what was deleted."""
        self._due_s = now_s + SWEEP_S
        self._ingest.clean_up(now_s)
        self._ledger.forget_deleted_pages()
        self._store.forget_deleted_pages()
        now = time.time()
        self._ledger.chunks.clamp_future_times(now)
        self._ledger.refusals.drop_old(now)
        self._settle_samples(now - self._settings.keep_samples_s)
        due = self._ledger.chunks.expired(
            final_before=now - (self._settings.keep_audio_s if self._disk_reserve.is_held else 0.0),
            failed_before=now - self._settings.keep_failed_audio_s,
            accepted_before=now - self._settings.keep_audio_max_s,
        )
        if not due:
            return
        for chunk in due:
            self._spool.remove(chunk.spool_name or "")
        self._ledger.chunks.mark_unlinked([chunk.arrival for chunk in due])
        _LOG.info("audio_unlinked", chunks=len(due))
        for job_id in self._ledger.jobs.without_audio():
            self._dispatcher.give_up(job_id, FailureCode.PAYLOAD_INCOMPLETE, AUDIO_GONE)
        self._due_s = now_s  # there may be more of it

    def _settle_samples(self, final_until: float) -> None:
        """Replace the voice samples of conversations that were final before this Unix time by what they found."""
        for name in self._ledger.jobs.with_samples(final_after=self._settled_until, final_until=final_until):
            try:
                results = [decode(SpeakerTurns, found.payload) for found in self._ledger.jobs.results(name)]
                payloads = {result.job_id: encode(result) for result in settle_samples(results)}
            except SchemaError as error:
                _LOG.error("samples_not_settled", conversation=name, error=str(error))
                continue
            self._ledger.jobs.replace_results(payloads)
            _LOG.info("samples_settled", conversation=name, jobs=len(payloads))
        self._settled_until = final_until
