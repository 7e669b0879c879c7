"""Reading conversations, jobs and agents for programs and the page: from the ledger and the store into records."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from schemas.agent import AgentState
from schemas.codec import decode
from schemas.conversation import ConversationUpdated
from vps_bridge.conversations.store import ConversationStore, StoredSegment, speaker_name
from vps_bridge.dispatch.failed_audio import describe_failures
from vps_bridge.dispatch.operator_answers import advise, advise_refused, advise_set_aside
from vps_bridge.dispatch.status import describe_status
from vps_bridge.http.reading_records import (
    AgentPage,
    BridgeStatus,
    ConversationDetail,
    ConversationPage,
    ConversationSummary,
    JobPage,
    LabelledSegment,
    ListedAgent,
    ListedFailure,
    ListedJob,
    ListedVoice,
    OmiStatus,
    RecentWork,
    SpokenPiece,
    WebhookStatus,
)
from vps_bridge.intake.capture_counts import CaptureCounts
from vps_bridge.labelling.number import Voice, VoiceBook
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.job_states import JobState
from vps_bridge.ledger.jobs import MAX_COUNTED
from vps_bridge.ledger.listing import Which
from vps_bridge.ledger.records import (
    AgentRecord,
    ChunkRecord,
    ConversationRecord,
    ConversationState,
    FailedJob,
    JobRecord,
)
from vps_bridge.ledger.refusals import RefusedChunk

BATCH = 50  # conversations whose state is worked out at once
LOOKED_AT, SEARCHED = 100, 1_000
"""Conversations whose state, and whose ids, one answer looks at: whoever wants more asks on from `next_offset`."""
MAX_FAILURES = 50  # of each kind
RECENT_S = 3 * 3_600.0
NOT_LIVE = (AgentState.STOPPED, AgentState.OFFLINE)


def list_conversations(
    ledger: Ledger,
    *,
    stale_s: float,
    search: str,
    state: ConversationState | None,
    offset: int,
    limit: int,
    waits_for: str = "",
) -> ConversationPage:
    """Return a part of the list: `search` is part of an id or of a person's, `waits_for` of what it waits for.

    It may hold fewer than `limit`, or none, where few are like that: `next_offset` says where to look on.
    """
    wanted, agents, reason = search.casefold(), ledger.agents.all(), waits_for.casefold()
    most = max(limit, LOOKED_AT)
    looked_at = SEARCHED if wanted else most if state or reason else limit
    names = ledger.listing.latest(offset, looked_at + 1, _which(state, has_reason=bool(reason)))
    end, last = offset + len(names), offset + min(len(names), looked_at)
    places = list(enumerate(names[:looked_at], start=offset))
    if wanted:
        places = _search(ledger, wanted, places)
    if len(places) > most:
        last, places = places[most][0], places[:most]
    found: list[ConversationSummary] = []
    for batch in (places[first : first + BATCH] for first in range(0, len(places), BATCH)):
        records = ledger.listing.some([name for _, name in batch])
        summaries = {one.conversation_id: one for one in _summarize_all(records, ledger, agents, stale_s)}
        for place, name in batch:
            summary = summaries.get(name)
            if summary and state in (None, summary.state) and reason in (summary.reason or "").casefold():
                found.append(summary)
            if len(found) == limit:
                return ConversationPage(conversations=found, next_offset=place + 1 if place + 1 < end else None)
    return ConversationPage(conversations=found, next_offset=last if last < end else None)


def _which(state: ConversationState | None, *, has_reason: bool) -> Which:
    if state is None:
        return Which.WITH_REASON if has_reason else Which.ALL
    return {ConversationState.FAILED: Which.SET_ASIDE, ConversationState.FINAL: Which.FINAL}.get(state, Which.OPEN)


def _search(ledger: Ledger, wanted: str, places: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return those whose id, or the id of somebody in them, holds these letters."""
    voices = ledger.listing.voices([name for _, name in places])
    return [(place, name) for place, name in places if _matches(wanted, name, voices.get(name))]


def read_conversation(
    conversation_id: str, ledger: Ledger, store: ConversationStore, *, stale_s: float
) -> ConversationDetail | None:
    """Return a conversation with its labels, or None where it was never heard of or is deleted."""
    record = ledger.conversations.get(conversation_id)
    if record is None:
        return None
    stored = store.read(conversation_id)
    told = decode(ConversationUpdated, record.updated_payload) if record.updated_payload else None
    jobs = ledger.jobs.of_conversation(conversation_id)
    voices = _voices_of(record)
    people = {voice.speaker_id: voice.person_id for voice in voices}
    segments = _label_segments(stored.segments if stored else (), told, people)
    (summary,) = _summarize_all([record], ledger, ledger.agents.all(), stale_s)
    return ConversationDetail(
        **summary.model_dump(include=set(ConversationSummary.model_fields) & set(ConversationDetail.model_fields)),
        owner=record.owner,
        write=stored.version if stored else 0,
        audio_s=told.audio_s if told else 0.0,
        voices=_describe_voices(voices, segments, told),
        segments=segments,
        turns=list(told.turns) if told is not None and told.turns is not None else None,
        warnings=list(told.warnings) if told else [],
        failures=list(describe_failures(jobs)),
        enrolment=told.enrolment if told else None,
    )


def list_jobs(ledger: Ledger, *, state: JobState | None, conversation_id: str | None, limit: int) -> JobPage:
    """Return the latest jobs, with how far each is as its agent says."""
    progress = {
        held.get("job_id"): float(held.get("progress", 0.0))
        for agent in ledger.agents.all()
        for held in (agent.heartbeat or {}).get("jobs", ())
    }
    found = ledger.jobs.all(states=(state,) if state else (), conversation_id=conversation_id, limit=limit)
    jobs = [
        ListedJob(
            **{name: getattr(job, name) for name in ListedJob.model_fields if name != "progress"},
            progress=progress.get(job.job_id) if job.state is JobState.LEASED else None,
        )
        for job in found
    ]
    return JobPage(jobs=jobs, counts=ledger.jobs.by_state(at_most=MAX_COUNTED))


def list_agents(ledger: Ledger, *, stale_s: float) -> AgentPage:
    """Return every agent as its last heartbeat describes it."""
    heard_after = time.time() - stale_s
    return AgentPage(agents=[_describe_agent(agent, heard_after) for agent in ledger.agents.all()])


def read_status(ledger: Ledger, captured: CaptureCounts | None = None) -> BridgeStatus:
    """Return what waits, what failed and how much room there is; `captured` is what OMI's webhooks brought."""
    counts = ledger.jobs.counts()
    failures = [_describe_failed_job(item) for item in reversed(ledger.jobs.failed(limit=MAX_FAILURES))]
    failures += [_describe_set_aside(*item) for item in ledger.conversations.set_aside()[:MAX_FAILURES]]
    failures += [_describe_refused(item) for item in ledger.refusals.latest(MAX_FAILURES)]
    return BridgeStatus(
        chunks_waiting=counts.chunks_waiting,
        jobs_ready=counts.jobs_ready,
        jobs_leased=counts.jobs_leased,
        jobs_failed=counts.jobs_failed,
        conversations_failed=counts.conversations_failed,
        chunks_refused=counts.chunks_refused,
        audio_bytes=counts.bytes,
        disk_free_bytes=ledger.free_bytes(),
        oldest_at=counts.oldest_at,
        recent=_describe_recent(ledger),
        omi=None if captured is None else OmiStatus.model_validate(captured, from_attributes=True),
        failures=failures,
    )


def read_webhook(ledger: Ledger) -> WebhookStatus:
    """Return whether the webhook is on, and what its receiver has not taken yet."""
    counts = ledger.webhook.counts()
    if counts is None:
        return WebhookStatus(is_on=False, waiting=0, oldest_at=None, last_error=None, last_error_at=None)
    return WebhookStatus(
        is_on=True,
        waiting=counts.waiting,
        oldest_at=counts.oldest_at,
        last_error=counts.last_error,
        last_error_at=counts.tried_at,
    )


def _describe_recent(ledger: Ledger) -> RecentWork:
    now = time.time()
    lately = ledger.measures.labelled_lately(now - RECENT_S)
    took_s = sorted(chunk.latency_s for chunk in lately.labelled)
    return RecentWork(
        span_s=round(now - lately.since, 3),
        labelled_audio_s=round(sum(chunk.audio_s for chunk in lately.labelled), 3),
        median_latency_s=took_s[len(took_s) // 2] if took_s else None,
        slow_latency_s=took_s[len(took_s) * 95 // 100] if took_s else None,
    )


def _matches(wanted: str, name: str, voices: Any) -> bool:  # noqa: ANN401 - as the ledger keeps them
    if wanted in name.casefold():
        return True
    # Most voices are nobody's: to look into their text takes a tenth of reading it. What JSON writes otherwise is read.
    if json.dumps(wanted)[1:-1] == wanted and wanted not in str(voices).casefold():
        return False
    return any(wanted in (voice.person_id or "").casefold() for voice in _read_voices(voices))


def _read_voices(voices: Any) -> tuple[Voice, ...]:  # noqa: ANN401 - as the ledger keeps them
    return VoiceBook.from_json(voices).voices if voices else ()


def _voices_of(record: ConversationRecord) -> tuple[Voice, ...]:
    return _read_voices(record.voices)


def _summarize_all(
    records: list[ConversationRecord], ledger: Ledger, agents: list[AgentRecord], stale_s: float
) -> list[ConversationSummary]:
    names = [record.conversation_id for record in records if record.packed_at is None]
    chunks = ledger.chunks.of_unpacked(names) if names else {}
    jobs = ledger.jobs.of_unpacked(names) if names else {}
    summaries = []
    for record in records:
        of_it = chunks.get(record.conversation_id, []), jobs.get(record.conversation_id, [])
        summaries.append(_summarize(record, *of_it, agents, stale_s))
    return summaries


def _summarize(
    record: ConversationRecord,
    chunks: list[ChunkRecord],
    jobs: list[JobRecord],
    agents: list[AgentRecord],
    stale_s: float,
) -> ConversationSummary:
    name, voices = record.conversation_id, _voices_of(record)
    state, reason = describe_status(record, chunks, jobs, agents, now=time.time(), stale_s=stale_s)
    return ConversationSummary(
        conversation_id=name,
        state=state,
        reason=reason,
        last_activity_at=record.last_activity_at,
        started_at=record.started_at_s,
        speakers=len(voices),
        people=sorted({voice.person_id for voice in voices if voice.person_id}),
        updated_version=record.updated_version,
    )


def _label_segments(
    segments: Iterable[StoredSegment], told: ConversationUpdated | None, people: Mapping[int, str | None]
) -> list[LabelledSegment]:
    labels = {label.id: label for label in told.segments} if told else {}
    left_alone = {item.id: item.reason for item in told.left_alone} if told else {}
    described = []
    for segment in segments:
        label = labels.get(segment.id)
        described.append(
            LabelledSegment(
                id=segment.id,
                start_s=segment.start_s,
                end_s=segment.end_s,
                text=segment.text,
                speaker=segment.speaker,
                speaker_id=segment.speaker_id,
                person_id=segment.person_id or _person_of(segment.speaker_id, people),
                is_user=segment.is_user,
                by_person=segment.is_human_labelled,
                coverage=label.coverage if label else None,
                runner_up=label.runner_up if label else None,
                left_alone=left_alone.get(segment.id),
                pieces=_describe_pieces(segment),
            )
        )
    return described


def _person_of(speaker_id: int | None, people: Mapping[int, str | None]) -> str | None:
    return None if speaker_id is None else people.get(speaker_id)


def _describe_pieces(segment: StoredSegment) -> list[SpokenPiece]:
    if not segment.pieces:
        return []
    words = [word.text for word in segment.words] if segment.words else segment.text.split()
    return [
        SpokenPiece(
            start_s=piece.start_s,
            end_s=piece.end_s,
            speaker_id=piece.speaker_id,
            text=" ".join(words[piece.first_word : piece.last_word + 1]),
            estimated=piece.estimated,
        )
        for piece in segment.pieces
    ]


def _describe_voices(
    voices: Iterable[Voice], segments: Iterable[LabelledSegment], told: ConversationUpdated | None
) -> list[ListedVoice]:
    speech_s: dict[int, float] = {}
    labelled: dict[int, int] = {}
    for turn in (told.turns or ()) if told else ():
        speech_s[turn.speaker_id] = speech_s.get(turn.speaker_id, 0.0) + turn.end_s - turn.start_s
    for segment in segments:
        if segment.speaker_id is not None:
            labelled[segment.speaker_id] = labelled.get(segment.speaker_id, 0) + 1
    known = {person.speaker_id: person for person in (told.people if told else ())}
    return [
        ListedVoice(
            speaker_id=voice.speaker_id,
            speaker=speaker_name(voice.speaker_id) or "",
            person_id=voice.person_id,
            speech_s=round(speech_s.get(voice.speaker_id, 0.0), 3),
            segments=labelled.get(voice.speaker_id, 0),
            known=known.get(voice.speaker_id),
        )
        for voice in sorted(voices, key=lambda voice: voice.speaker_id)
    ]


def _describe_agent(agent: AgentRecord, heard_after: float) -> ListedAgent:
    beat = agent.heartbeat or {}
    engine, memory = beat.get("engine") or {}, beat.get("memory") or {}
    state = beat.get("state")
    return ListedAgent(
        agent_id=agent.agent_id,
        allowed=agent.allowed,
        is_live=(agent.last_seen_at or 0.0) >= heard_after and state is not None and state not in NOT_LIVE,
        state=state,
        last_seen_at=agent.last_seen_at,
        engine=engine.get("name") or None,
        model=engine.get("model") or None,
        device=engine.get("device") or None,
        speed_x_real_time=beat.get("speed_x_real_time") or None,
        memory_bytes=(memory.get("agent_rss_bytes", 0) + memory.get("worker_rss_bytes", 0)) or None,
        device_bytes=memory.get("device_bytes") or None,
        jobs=len(beat.get("jobs", ())),
        jobs_done=beat.get("jobs_done", 0),
        jobs_failed=beat.get("jobs_failed", 0),
        last_error=beat.get("last_error"),
    )


def _describe_failed_job(item: FailedJob) -> ListedFailure:
    job = item.job
    return ListedFailure(
        kind="job",
        conversation_id=job.conversation_id,
        job_id=job.job_id,
        code=job.failure_code,
        message=job.failure_message or "",
        remedy=advise(item),
        agent_id=item.last_agent_id,
        attempts=job.attempts,
        at=job.ended_at,
        can_retry=item.has_audio,
        can_cancel=True,
    )


def _describe_set_aside(name: str, reason: str) -> ListedFailure:
    return ListedFailure(
        kind="conversation",
        conversation_id=name,
        message=reason,
        remedy=advise_set_aside(name),
        at=None,
        can_retry=True,
        can_cancel=False,
    )


def _describe_refused(item: RefusedChunk) -> ListedFailure:
    return ListedFailure(
        kind="audio",
        conversation_id=item.conversation_id,
        code=item.reason,
        message=item.message,
        remedy=advise_refused(item),
        attempts=item.times,
        at=item.last_at,
        can_retry=False,
        can_cancel=False,
    )
