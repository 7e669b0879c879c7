"""The jobs an agent works on, from offer to outbox. No MQTT here: messages come in, messages go out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from broker.backoff import Backoff
from mac_agent.engines.engine import Hints
from mac_agent.inbox import PartRefused
from mac_agent.incoming_audio import ActiveJob, WantPolicy
from mac_agent.inference import JobDecoded, JobFailed, JobResult, WorkerJob
from mac_agent.offers import Held, OfferAction, decide_offer, ends_job
from mac_agent.outbox import EntryKind, OutboxEntry
from mac_agent.result import to_job_failure, to_speaker_turns
from schemas.agent import HeldJob, HeldJobState
from schemas.codec import encode
from schemas.errors import MessageTooLarge
from schemas.failure import FailureCode, JobFailure, policy_of

if TYPE_CHECKING:
    from mac_agent.heartbeat import AgentCounters
    from mac_agent.inbox import Inbox
    from mac_agent.inference import WorkerReport
    from mac_agent.outbox import Outbox
    from mac_agent.settings import AgentSettings
    from mac_agent.worker import Worker
    from schemas.agent import AgentControl, AgentWant
    from schemas.audio import AudioPart
    from schemas.record import Message

MAX_REFUSED_PARTS = 50  # of one job: past this the connection or the source damages every part

_log = structlog.get_logger("mac_agent.held_jobs")


class HeldJobs:
    """Holds jobs and moves each on: receiving, queued, running, outbox. Used by one thread."""

    def __init__(
        self,
        settings: AgentSettings,
        inbox: Inbox,
        outbox: Outbox,
        worker: Worker,
        counters: AgentCounters,
    ) -> None:
        self._settings, self._inbox, self._outbox, self._worker = settings, inbox, outbox, worker
        self._counters = counters
        self._want_policy = WantPolicy(
            window=settings.part_window,
            part_bytes=settings.part_bytes,
            pause=Backoff.start(settings.want_timeout_s, settings.retry_max_s),
        )
        self._jobs: dict[str, ActiveJob] = {}
        self._lacking_bytes = 0
        self._last_token = 0

    @property
    def active_jobs(self) -> int:
        """How many jobs take room: those in the outbox do not."""
        return len(self._jobs)

    @property
    def is_busy(self) -> bool:
        """Whether something may happen any moment."""
        return bool(self._jobs)

    @property
    def free_places(self) -> int:
        """How many jobs may come: none while the disk has no room."""
        return 0 if self.is_disk_full else self._settings.max_jobs - self.active_jobs

    @property
    def is_disk_full(self) -> bool:
        """Whether the last job found no room, and there still is none for it."""
        if self._lacking_bytes and self._inbox.free_bytes() >= self._lacking_bytes:
            self._lacking_bytes = 0
        return self._lacking_bytes > 0

    def held_jobs(self) -> list[HeldJob]:
        """Return every job held, as heartbeats list them."""
        active = [
            HeldJob(job_id=job.job_id, lease_id=job.lease_id, state=job.state, progress=self._progress(job))
            for job in self._jobs.values()
        ]
        waiting = [
            HeldJob(job_id=entry.job_id, lease_id=entry.lease_id, state=HeldJobState.OUTBOX, progress=1.0)
            for entry in self._outbox.entries()
            if entry.job_id not in self._jobs
        ]
        return active + waiting

    # ------------------------------------------------------------------------- messages of the bridge

    def take_offer(self, offer: AgentControl, *, ready: bool) -> OfferAction:
        """Do what an offer asks for, where it can be done; the bridge repeats what is ignored."""
        held = self._held(offer.job_id or "")
        action = decide_offer(offer, held, active_jobs=self.active_jobs, max_jobs=self._settings.max_jobs, ready=ready)
        if action in (OfferAction.RESTART, OfferAction.ACCEPT):
            self._forget(offer.job_id or "")
            self._accept(offer)
        elif action is OfferAction.RESEND:
            self._outbox.make_due(offer.job_id)
        elif action in (OfferAction.KEEP, OfferAction.RELEASE):
            job = self._jobs[offer.job_id or ""]
            job.offer, job.lease_id = offer, offer.lease_id or job.lease_id
            job.forget_asked()  # the bridge repeats itself because it heard nothing of this job, or under another lease
        return action

    def end_job(self, control: AgentControl) -> bool:
        """Forget a job that the bridge settled or cancelled; say whether there was one."""
        job_id = control.job_id or ""
        if not ends_job(control, self._held(job_id)):
            return False
        self._forget(job_id)
        return True

    def take_part(self, part: AudioPart) -> None:
        """Write a part of audio where it belongs; a part of a job that is not held is dropped."""
        job = self._jobs.get(part.job_id)
        if job is None or job.state is not HeldJobState.RECEIVING:
            return
        try:
            job.take_part(self._inbox, part, time.monotonic(), self._want_policy)
            wrong = job.verify_complete(self._inbox)
        except PartRefused as error:
            job.refused_parts += 1
            _log.warning("part refused, asking again", job=job.job_id, reason=str(error))
            if job.refused_parts > MAX_REFUSED_PARTS:
                self._fail(job, FailureCode.PAYLOAD_SHA256_MISMATCH, "Parts keep arriving damaged. Check the broker.")
            return
        except OSError as error:
            self._fail_for_disk(job, error.strerror)
            return
        if wrong is not None:
            self._fail(
                job,
                FailureCode.PAYLOAD_SHA256_MISMATCH,
                "The chunk came whole twice and never had its sha256: the audio kept by the bridge was changed.",
                job.offer.chunks.index(wrong),
            )

    def next_wants(self) -> list[AgentWant]:
        """Return what to ask the bridge for now: nothing for each part that comes, half a window at once."""
        now_s = time.monotonic()
        receiving = [job for job in self._jobs.values() if job.state is HeldJobState.RECEIVING]
        wants: list[AgentWant] = []
        for job in receiving:
            room = self._want_policy.window - sum(each.outstanding() for each in receiving)
            room = room if 2 * room >= self._want_policy.window else 0
            wants += job.next_wants(self._inbox, room, now_s, self._want_policy)
        return wants

    def forget_asked(self) -> None:
        """Ask for everything missing again: what was on its way is lost."""
        for job in self._jobs.values():
            job.forget_asked()

    # ----------------------------------------------------------------------------------- the worker

    def start_next(self) -> None:
        """Give the idle worker the job that has been complete for longest."""
        if not self._worker.is_idle:
            return
        job = next((job for job in self._jobs.values() if job.state is HeldJobState.QUEUED), None)
        if job is None:
            return
        self._last_token += 1
        job.token, job.state = self._last_token, HeldJobState.RUNNING
        self._worker.submit(
            WorkerJob(
                token=self._last_token,
                chunks=job.sources(self._inbox),
                hints=Hints(max_speakers=job.offer.max_speakers),
                max_audio_s=self._settings.max_audio_s,
            )
        )
        _log.info("job runs", job=job.job_id, conversation=job.conversation_id, chunks=len(job.chunks))

    def take_report(self, report: WorkerReport) -> None:
        """Do what a report of the worker asks for; a report on a forgotten job is dropped."""
        token = getattr(report, "token", None)
        job = next((job for job in self._jobs.values() if token is not None and job.token == token), None)
        if job is None:
            return
        if isinstance(report, JobDecoded):
            job.drop_files(self._inbox)  # the samples are in the worker's memory; another attempt asks again
        elif isinstance(report, JobResult):
            self._finish(job, report)
        elif isinstance(report, JobFailed):
            self._fail(job, report.code, report.message, report.chunk_index)

    def hand_back(self) -> None:
        """Let go of every job that has no result yet: the last beat lists none of them, so that others get them."""
        for job in list(self._jobs.values()):
            _log.info("job handed back", job=job.job_id, state=job.state)
            self._remove(job)

    def drop_stale(self) -> None:
        """Let go of audio that is too old, and of jobs whose audio stopped coming: the bridge grants them anew."""
        now_s = time.monotonic()
        old = set(self._inbox.expired(self._settings.audio_max_age_s))
        for job in list(self._jobs.values()):
            silent = job.state is HeldJobState.RECEIVING and now_s - job.last_bytes_s > self._settings.give_up_s
            if silent or any(chunk.handle in old for chunk in job.chunks):
                _log.warning("job dropped", job=job.job_id, reason="no audio came" if silent else "audio too old")
                self._forget(job.job_id)

    # --------------------------------------------------------------------------------------- ends

    def replace_too_large(self, entry: OutboxEntry, reason: str) -> None:
        """Store a failure in place of a result that no broker carries: it could never arrive."""
        failure = JobFailure(
            conversation_id=entry.conversation_id,
            job_id=entry.job_id,
            lease_id=entry.lease_id,
            code=FailureCode.INGEST_TOO_LARGE.value,
            retryable=policy_of(FailureCode.INGEST_TOO_LARGE).is_retryable,
            message=reason,
        )
        self._put(entry.job_id, entry.lease_id, entry.ledger_id, entry.conversation_id, EntryKind.FAILURE, failure)

    def _accept(self, offer: AgentControl) -> None:
        job = ActiveJob(offer, offer.job_id or "", offer.lease_id or "", offer.conversation_id or "")
        if len({chunk.chunk_id for chunk in offer.chunks}) != len(offer.chunks):
            self._fail(job, FailureCode.PAYLOAD_MALFORMED, "The offer names a chunk twice.")
            return
        if job.total_bytes > self._settings.max_job_bytes:
            self._fail(
                job,
                FailureCode.INGEST_TOO_LARGE,
                f"The job is larger than {self._settings.max_job_bytes} bytes. Raise OMI_MAX_JOB_BYTES of the agent.",
            )
            return
        if job.total_bytes > self._inbox.free_bytes():
            self._fail_for_disk(job, f"it takes {job.total_bytes} bytes")
            return
        try:
            job.open_files(self._inbox, time.monotonic(), self._want_policy)
        except OSError as error:
            self._fail_for_disk(job, error.strerror)
            return
        self._jobs[job.job_id] = job
        job.verify_complete(self._inbox)  # chunks without bytes are complete already

    def _finish(self, job: ActiveJob, result: JobResult) -> None:
        turns = to_speaker_turns(job.offer, job.lease_id, self._settings.agent_id, result)
        try:
            self._put(job.job_id, job.lease_id, job.offer.ledger_id, job.conversation_id, EntryKind.TURNS, turns)
        except MessageTooLarge as error:
            self._fail(job, FailureCode.INGEST_TOO_LARGE, str(error))
            return
        self._remove(job)
        self._counters.jobs_done += 1
        self._counters.note_speed(result.duration_s, result.timings_ms.get("total", 0.0) / 1000)
        _log.info(
            "job done",
            job=job.job_id,
            conversation=job.conversation_id,
            audio_s=round(result.duration_s, 1),
            turns=len(turns.turns),
            speakers=len(turns.speakers),
            took_ms=round(result.timings_ms.get("total", 0.0)),
        )

    def _fail(self, job: ActiveJob, code: FailureCode, message: str, chunk_index: int | None = None) -> None:
        failure = to_job_failure(job.offer, job.lease_id, code, message, chunk_index)
        self._counters.jobs_failed += 1
        self._counters.last_error = f"{code.value}: {message}"
        self._put(job.job_id, job.lease_id, job.offer.ledger_id, job.conversation_id, EntryKind.FAILURE, failure)
        self._remove(job)
        _log.warning("job failed", job=job.job_id, conversation=job.conversation_id, code=code.value, reason=message)

    def _fail_for_disk(self, job: ActiveJob, reason: str | None) -> None:
        """Hand a job back, which costs it no attempt, and take none until there is room for this one."""
        self._lacking_bytes = max(job.total_bytes, 1)
        self._fail(job, FailureCode.DISK_FULL, f"Audio has no room here: {reason}. Make room on the agent's disk.")

    def _put(
        self, job_id: str, lease_id: str, ledger_id: str, conversation_id: str, kind: EntryKind, message: Message
    ) -> None:
        self._outbox.put(OutboxEntry(job_id, lease_id, ledger_id, conversation_id, kind, encode(message)))

    def _forget(self, job_id: str) -> None:
        job = self._jobs.get(job_id)
        if job is not None:
            if job.token is not None:
                self._worker.cancel(job.token)
            self._remove(job)
        self._outbox.settle(job_id)

    def _remove(self, job: ActiveJob) -> None:
        job.drop_files(self._inbox)
        self._jobs.pop(job.job_id, None)

    def _held(self, job_id: str) -> Held | None:
        job = self._jobs.get(job_id)
        if job is not None:
            return Held(job.lease_id, job.offer.ledger_id, job.state, job.offer.chunks)
        entry = self._outbox.get(job_id)
        if entry is None:
            return None
        is_failure = entry.kind is EntryKind.FAILURE
        return Held(entry.lease_id, entry.ledger_id, HeldJobState.OUTBOX, is_failure=is_failure)

    def _progress(self, job: ActiveJob) -> float:
        if job.state is HeldJobState.RUNNING:
            return self._worker.progress
        return job.received_ratio(self._inbox) if job.state is HeldJobState.RECEIVING else 0.0
