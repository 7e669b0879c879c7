"""Results and failures: stored idempotently by job, then settled, so that the agent may forget them."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from schemas.codec import Envelope, decode, encode, read_envelope
from schemas.conversation import Verdict
from schemas.errors import SchemaError
from schemas.failure import FailureCode, JobFailure, policy_of
from schemas.turns import SpeakerTurns
from vps_bridge.dispatch.dispatcher import Dispatcher
from vps_bridge.dispatch.read_result import read_result
from vps_bridge.dispatch.result_bounds import bound_lengths, find_excess, new_lengths
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.job_states import UNFINISHED, JobState
from vps_bridge.ledger.records import JobChunk, LeaseRecord

_LOG = structlog.get_logger(__name__)
OTHER_MODEL = "late, and of another model than the one that others work on the conversation with"


class Results:
    """Takes what agents publish about their jobs. Runs on the bridge's own thread only."""

    def __init__(self, ledger: Ledger, dispatcher: Dispatcher, max_audio_s: float) -> None:
        """Store into this ledger and settle through this dispatcher. `max_audio_s`: the longest audio of one job."""
        self._ledger, self._dispatcher, self._max_audio_s = ledger, dispatcher, max_audio_s

    def take_turns(self, conversation_id: str, agent_id: str, data: bytes) -> bool:
        """Take a result. Return whether it was newly stored."""
        try:
            turns = read_result(data)
        except SchemaError as error:
            self._refuse_unreadable(conversation_id, agent_id, read_envelope(SpeakerTurns, data), str(error))
            return False
        lease = self._lease_of(agent_id, turns.job_id, turns.lease_id, conversation_id)
        if lease is None or (turns.conversation_id, turns.agent_id) != (conversation_id, agent_id):
            self._refuse_without_lease(conversation_id, agent_id, turns)
            return False
        if self._is_of_other_model(lease, turns):
            _LOG.warning("turns_of_other_model", job=turns.job_id, agent=agent_id, conversation=conversation_id)
            self._dispatcher.settle(agent_id, turns.job_id, turns.lease_id, Verdict.DISCARDED, OTHER_MODEL)
            return False
        chunks = self._ledger.jobs.chunks(turns.job_id)
        excess = find_excess(turns, chunks)
        if excess is not None:
            self._refuse_unreadable(conversation_id, agent_id, read_envelope(SpeakerTurns, data), excess)
            return False
        bounded = self._bound_lengths(turns, chunks)
        data = data if bounded is turns else encode(bounded)
        stored = self._store(lease, data, bounded, chunks)
        verdict = Verdict.STORED
        if not stored:
            job = self._ledger.jobs.get(turns.job_id)
            verdict = Verdict.DISCARDED if job is None or job.state is JobState.CANCELLED else Verdict.DUPLICATE
        self._dispatcher.settle(agent_id, turns.job_id, turns.lease_id, verdict)
        _LOG.info(
            "turns",
            verdict=verdict,
            job=turns.job_id,
            agent=agent_id,
            conversation=conversation_id,
            turns=len(turns.turns),
            speakers=len(turns.speakers),
            undecoded=len(turns.undecoded),
        )
        return stored

    def _refuse_without_lease(self, conversation_id: str, agent_id: str, turns: SpeakerTurns) -> None:
        gone = self._ledger.conversations.is_deleted(conversation_id)
        verdict = Verdict.DISCARDED if gone else Verdict.REFUSED
        reason = FailureCode.CONVERSATION_DELETED if gone else FailureCode.LEASE_LOST
        _LOG.warning("turns_without_lease", job=turns.job_id, agent=agent_id, conversation=conversation_id)
        self._dispatcher.settle(agent_id, turns.job_id, turns.lease_id, verdict, reason)

    def _store(self, lease: LeaseRecord, data: bytes, turns: SpeakerTurns, chunks: Sequence[JobChunk]) -> bool:
        """Store a result. What could not be decoded fails or waits for another agent, each chunk as its own job."""
        fresh = {item.chunk.chunk_id for item in chunks if item.fresh}  # what is context here is fresh in another job
        undecoded = [item for item in turns.undecoded if item.chunk_id in fresh]
        names = [item.chunk_id for item in undecoded]
        late_model = None if lease.is_current else _model_of(turns)
        kept = self._ledger.jobs.store_result(lease, data, new_lengths(turns, chunks), names, late_model)
        for job_id, item in zip(kept.apart if kept else (), undecoded, strict=False):
            apart = self._ledger.jobs.get(job_id)
            if apart is None or not self._dispatcher.leaves_to_another(apart, frozenset({lease.agent_id})):
                words = f"chunk {item.chunk_id}: {item.message}"
                self._dispatcher.give_up(job_id, FailureCode.AUDIO_UNDECODABLE, words)
        return kept is not None

    def take_failure(self, conversation_id: str, agent_id: str, data: bytes) -> None:
        """Take an agent's failure; it counts only from the holder of the current lease."""
        try:
            failure = decode(JobFailure, data)
        except SchemaError as error:
            self._refuse_unreadable(conversation_id, agent_id, read_envelope(JobFailure, data), str(error))
            return
        if failure.job_id is None or failure.lease_id is None:
            _LOG.warning("failure_without_job", agent=agent_id, conversation=conversation_id, code=failure.code)
            return
        lease = self._lease_of(agent_id, failure.job_id, failure.lease_id, conversation_id)
        job = self._ledger.jobs.get(failure.job_id) if lease else None
        if job is None or job.state is not JobState.LEASED or job.lease_id != failure.lease_id:
            self._dispatcher.settle(agent_id, failure.job_id, failure.lease_id, Verdict.DISCARDED, "lease is over")
            return
        counted = policy_of(failure.code).counts_as_attempt
        noted = self._ledger.jobs.note_failure(job.job_id, failure.code, failure.message, counted=counted)
        self._dispatcher.settle(agent_id, failure.job_id, failure.lease_id, Verdict.STORED)
        _LOG.warning(
            "attempt_failed",
            job=job.job_id,
            agent=agent_id,
            conversation=conversation_id,
            code=failure.code,
            counted=counted,
        )
        if noted is not None:
            self._dispatcher.judge_failed(noted, retryable=failure.retryable, counted=counted)

    def _bound_lengths(self, turns: SpeakerTurns, chunks: Sequence[JobChunk]) -> SpeakerTurns:
        bounded = bound_lengths(turns, chunks, self._max_audio_s)
        if bounded is not turns:
            reason = "longer than the bytes hold, or than OMI_MAX_AUDIO_S of the bridge"
            _LOG.warning("decoded_lengths_ignored", job=turns.job_id, agent=turns.agent_id, reason=reason)
        return bounded

    def _is_of_other_model(self, lease: LeaseRecord, turns: SpeakerTurns) -> bool:
        """Whether a lease had ended, and its job is to be done with another model: voices of two are never compared."""
        if lease.is_current:
            return False
        job, conversation = self._ledger.jobs.get(lease.job_id), self._ledger.conversations.peek(lease.conversation_id)
        if job is None or job.state not in UNFINISHED or conversation is None or conversation.embedding is None:
            return False
        return conversation.embedding != _model_of(turns)

    def _lease_of(self, agent_id: str, job_id: str, lease_id: str, conversation_id: str) -> LeaseRecord | None:
        lease = self._ledger.leases.find(lease_id)
        if lease is None and self._ledger.packs.packed_among([conversation_id]):
            self._ledger.conversations.get(conversation_id)  # puts its leases back: a late result counts
            lease = self._ledger.leases.find(lease_id)
        fits = (
            lease is not None
            and lease.job_id == job_id
            and lease.agent_id == agent_id
            and lease.conversation_id == conversation_id
        )
        return lease if fits else None

    def _refuse_unreadable(self, conversation_id: str, agent_id: str, envelope: Envelope, error: str) -> None:
        """Settle a message that cannot be read or used, so that its agent stops offering it; it counts as an attempt.

        Where its ids cannot be read either, it is about the one lease that the agent has in this conversation.
        """
        _LOG.error("unreadable", agent=agent_id, conversation=conversation_id, lease=envelope.lease_id, error=error)
        mine = self._ledger.leases.of_agent(agent_id)
        if envelope.lease_id is None:
            suspects = [lease for lease in mine if lease.conversation_id == conversation_id]
        else:
            suspects = [lease for lease in mine if lease.lease_id == envelope.lease_id]
        code, words = FailureCode.SCHEMA_UNSUPPORTED, f"the agent's message cannot be used: {error}"
        if len(suspects) != 1:
            if envelope.job_id and envelope.lease_id:
                self._dispatcher.settle(agent_id, envelope.job_id, envelope.lease_id, Verdict.REFUSED, code)
            return
        lease = suspects[0]
        noted = self._ledger.jobs.note_failure(lease.job_id, code, words, counted=True)
        self._dispatcher.settle(agent_id, lease.job_id, lease.lease_id, Verdict.REFUSED, code)
        if noted is not None:
            self._dispatcher.judge_failed(noted, retryable=True, counted=True)


def _model_of(turns: SpeakerTurns) -> tuple[str, str]:
    return turns.engine.embedding_model, turns.engine.embedding_revision
