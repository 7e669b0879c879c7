"""Tables of the ledger. Times that are kept are Unix seconds; they are for people, never for durations."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, ForeignKeyConstraint, Index, Integer, UniqueConstraint, false, text, true
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from vps_bridge.ledger.enum_text import EnumText
from vps_bridge.ledger.job_states import UNFINISHED, JobEvent, JobState
from vps_bridge.rules.lease import LeaseEnd

_UNFINISHED_SQL = f"state IN ({', '.join(repr(str(state)) for state in UNFINISHED)})"


def _partial(name: str, *columns: Any, where: str) -> Index:  # noqa: ANN401 - names, or an expression
    """Return an index of the rows that a condition holds of; PostgreSQL has booleans, SQLite 0 and 1 for them."""
    on_server = re.sub(r"(\w+) = 1", r"\1", re.sub(r"(\w+) = 0", r"NOT \1", where))
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(on_server))


def _goes_with_its_job() -> ForeignKeyConstraint:
    """Return what deletes a row together with the job that it is about."""
    return ForeignKeyConstraint(["job_id"], ["jobs.job_id"], ondelete="CASCADE")


class Base(DeclarativeBase):
    """The ledger's tables."""

    # SQLite's own integers are as large, and only an INTEGER numbers rows by itself there.
    type_annotation_map: ClassVar = {int: BigInteger().with_variant(Integer(), "sqlite")}


class MetaRow(Base):
    """Facts about the ledger itself: its random id."""

    __tablename__ = "meta"
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class BridgeRow(Base):
    """A bridge that runs on a ledger which others may share. `live_until` is by the clock of whoever keeps it."""

    __tablename__ = "bridges"
    bridge_id: Mapped[str] = mapped_column(primary_key=True)
    instance_id: Mapped[str]
    ready: Mapped[bool]
    live_until: Mapped[float]
    places: Mapped[Any] = mapped_column(JSON)


class ErasureRow(Base):
    """What was erased from a ledger on a server; where a file keeps it, the log is a file too (`erasure_log`)."""

    __tablename__ = "erasures"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    kind: Mapped[str]
    at: Mapped[float]
    digest: Mapped[str]


class AgentRow(Base):
    """An agent, and whether audio may be given to it."""

    __tablename__ = "agents"
    agent_id: Mapped[str] = mapped_column(primary_key=True)
    allowed: Mapped[bool]
    first_seen_at: Mapped[float]
    last_heartbeat: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    last_seen_at: Mapped[float | None]


class TombstoneRow(Base):
    """A deleted conversation: whatever comes late for it is discarded. `finished`: nothing of it is left anywhere."""

    __tablename__ = "tombstones"
    __table_args__ = (_partial("tombstones_unfinished", "conversation_id", where="finished = 0"),)
    conversation_id: Mapped[str] = mapped_column(primary_key=True)
    deleted_at: Mapped[float]
    finished: Mapped[bool] = mapped_column(default=False, server_default=true())


class ConversationRow(Base):
    """A conversation: what the backend said of it, and how far its labels are."""

    __tablename__ = "conversations"
    # Finished conversations must not cost the bridge time. Each index with `last_activity_at` costs an event two pages.
    __table_args__ = (
        Index("conversations_activity", "last_activity_at", "conversation_id", "dirty", "updated_version"),
        _partial("conversations_dirty", "conversation_id", where="dirty > 0"),
        _partial("conversations_open_ended", "conversation_id", where="completed = 1 AND final_at IS NULL"),
        _partial("conversations_enrolments", "conversation_id", where="enrols IS NOT NULL"),
        _partial("conversations_open", "conversation_id", where="final_at IS NULL"),
        _partial("conversations_temporary", "last_activity_at", where="throwaway = 1"),
        Index("conversations_owner", "owner"),
        _partial("conversations_set_aside", "conversation_id", where="set_aside IS NOT NULL"),
        _partial(
            "conversations_unapplied", "conversation_id", "updated_version", where="applied_version < updated_version"
        ),
        _partial("conversations_unpacked", text("coalesce(final_at, 0)"), where="packed_at IS NULL"),
        Index("conversations_settled", text("coalesce(final_at, last_activity_at)")),
    )
    conversation_id: Mapped[str] = mapped_column(primary_key=True)
    last_activity_at: Mapped[float]
    started_at_s: Mapped[float | None]
    language: Mapped[str | None]
    started_revision: Mapped[int] = mapped_column(default=-1)
    min_speakers: Mapped[int | None]
    max_speakers: Mapped[int | None]
    num_speakers: Mapped[int | None]
    completed: Mapped[bool] = mapped_column(default=False)
    completed_revision: Mapped[int] = mapped_column(default=-1)
    completed_chunks: Mapped[int | None]
    last_audio_at_s: Mapped[float | None]
    embedding_model: Mapped[str | None]
    embedding_revision: Mapped[str | None]
    voices: Mapped[Any] = mapped_column(JSON, default=list)
    dirty: Mapped[int] = mapped_column(default=0)
    write_key: Mapped[str | None]
    updated_version: Mapped[int] = mapped_column(default=0)
    applied_version: Mapped[int] = mapped_column(default=0)
    updated_payload: Mapped[bytes | None]
    final_at: Mapped[float | None]
    throwaway: Mapped[bool] = mapped_column(default=False, server_default=false())
    audio_places: Mapped[Any] = mapped_column(JSON, nullable=True)
    label_tries: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    set_aside: Mapped[str | None]
    owner: Mapped[str | None]
    enrols: Mapped[str | None]
    stripped: Mapped[bool] = mapped_column(default=False, server_default=false())
    packed_at: Mapped[float | None]
    only_agent: Mapped[str | None]


class PackedRow(Base):
    """The rows of a conversation that nothing happens to any more, as one value; see `vps_bridge.ledger.packing`.

    `people`: whom its latest update names. `holds_voices`: how people sound there is not forgotten yet.
    """

    __tablename__ = "packed_conversations"
    conversation_id: Mapped[str] = mapped_column(primary_key=True)
    holds_voices: Mapped[bool]
    people: Mapped[Any] = mapped_column(JSON)
    packed: Mapped[bytes]


class EventRow(Base):
    """An event that was seen, so that the same one is answered the same."""

    __tablename__ = "events"
    conversation_id: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(primary_key=True)
    verdict: Mapped[str]
    reason: Mapped[str | None]
    content: Mapped[str | None]


class CorrectionRow(Base):
    """What a person corrected: a `corrected` event. `voices_before`: see `CorrectionRecord`."""

    __tablename__ = "corrections"
    conversation_id: Mapped[str] = mapped_column(primary_key=True)
    write: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[str]
    said: Mapped[Any] = mapped_column(JSON)
    anchors: Mapped[Any] = mapped_column(JSON)
    voices_before: Mapped[Any] = mapped_column(JSON)
    in_force: Mapped[bool] = mapped_column(default=True, server_default=true())
    teaches: Mapped[bool] = mapped_column(default=True, server_default=true())


class PersonRow(Base):
    """A person of an owner; the owner is empty where conversations name none."""

    __tablename__ = "people"
    owner: Mapped[str] = mapped_column(primary_key=True)
    person_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    is_owner: Mapped[bool] = mapped_column(default=False, server_default=false())
    consent_date: Mapped[str | None]
    revision: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    created_at: Mapped[float]


class PrintRow(Base):
    """A voiceprint, and the conversation it was made from; that of an enrolment is thrown away."""

    __tablename__ = "prints"
    __table_args__ = (Index("prints_conversation", "conversation_id"),)
    owner: Mapped[str] = mapped_column(primary_key=True)
    person_id: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)
    conversation_id: Mapped[str] = mapped_column(primary_key=True)
    embedding_space: Mapped[str]
    vector: Mapped[bytes]
    clean_s: Mapped[float]
    created_at: Mapped[float]


class PersonEventRow(Base):
    """An event about a person that was seen. It outlives the person: one that comes late brings nobody back.

    Its content's digest does not: whoever guesses a name could check it.
    """

    __tablename__ = "person_events"
    owner: Mapped[str] = mapped_column(primary_key=True)
    person_id: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(primary_key=True)
    verdict: Mapped[str]
    reason: Mapped[str | None]
    content: Mapped[str | None]


class PersonDecisionRow(Base):
    """What was decided about a person, for whoever asks why somebody is recognised; never a name."""

    __tablename__ = "person_decisions"
    __table_args__ = (Index("person_decisions_person", "owner", "person_id"), Index("decisions_in", "conversation_id"))
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    owner: Mapped[str]
    person_id: Mapped[str]
    at: Mapped[float]
    what: Mapped[str]
    conversation_id: Mapped[str | None]
    similarity: Mapped[float | None]


class ChunkRow(Base):
    """An accepted chunk. `spool_name` is null once its audio is unlinked; the row stays as a tombstone."""

    __tablename__ = "chunks"
    __table_args__ = (
        UniqueConstraint("conversation_id", "chunk_id"),
        _partial("chunks_uncovered", "conversation_id", "accepted_at", where="covered = 0"),
        _partial("chunks_spooled", "accepted_at", "bytes", where="spool_name IS NOT NULL"),
    )
    arrival: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    conversation_id: Mapped[str]
    chunk_id: Mapped[str]
    sequence: Mapped[int | None]
    captured_at_s: Mapped[float | None]
    encoding: Mapped[str]
    sample_rate: Mapped[int | None]
    channels: Mapped[int | None]
    duration_s: Mapped[float | None]
    duration_estimated: Mapped[bool] = mapped_column(default=False, server_default=false())
    captured_error_s: Mapped[float] = mapped_column(default=0.0, server_default=text("0"))
    sha256: Mapped[str]
    bytes: Mapped[int]
    spool_name: Mapped[str | None]
    accepted_at: Mapped[float]
    covered: Mapped[bool] = mapped_column(default=False)


class OmiConversationRow(Base):
    """One that OMI's webhook reported. `waits`: for audio still. `untold`: OMI, of an update. `gone`: deleted here."""

    __tablename__ = "omi_conversations"
    __table_args__ = (
        Index("omi_conversations_uid", "uid", "started_at"),
        *(_partial(f"omi_conversations_{kept}", "conversation_id", where=f"{kept} = 1") for kept in ("untold", "gone")),
        _partial("omi_conversations_waiting", "conversation_id", where="waits = 1"),
    )
    conversation_id: Mapped[str] = mapped_column(primary_key=True)
    uid: Mapped[str]
    started_at: Mapped[float]
    ended_at: Mapped[float]
    posts: Mapped[int]
    body_sha256: Mapped[str]
    waits: Mapped[bool]
    sent_version: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    sent_labels: Mapped[Any] = mapped_column(JSON, default=dict)
    assigned: Mapped[Any] = mapped_column(JSON, default=dict, server_default=text("'{}'"))
    heard: Mapped[Any] = mapped_column(JSON, default=dict, server_default=text("'{}'"))
    untold: Mapped[bool] = mapped_column(default=False, server_default=false())
    gone: Mapped[bool] = mapped_column(default=False, server_default=false())


class RefusedChunkRow(Base):
    """A chunk that was refused, and why; never its audio. `chunk_id` and `sha256` are empty where nobody knows them."""

    __tablename__ = "refused_chunks"
    __table_args__ = (UniqueConstraint("conversation_id", "chunk_id", "sha256", "reason"),)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    conversation_id: Mapped[str]
    chunk_id: Mapped[str]
    sha256: Mapped[str]
    bytes: Mapped[int]
    reason: Mapped[str]
    message: Mapped[str]
    times: Mapped[int]
    first_at: Mapped[float]
    last_at: Mapped[float]


class JobRow(Base):
    """A job: whole chunks of one conversation, diarized together."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("job_id"),
        Index("jobs_state", "state", "number"),
        Index("jobs_conversation", "conversation_id"),
        _partial("jobs_busy", "conversation_id", where=_UNFINISHED_SQL),
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str]
    conversation_id: Mapped[str]
    state: Mapped[JobState] = mapped_column(EnumText(JobState))
    audio_s: Mapped[float]
    audio_estimated: Mapped[bool] = mapped_column(default=False, server_default=false())
    attempts: Mapped[int] = mapped_column(default=0)
    deaths: Mapped[int] = mapped_column(default=0)
    lease_id: Mapped[str | None]
    failure_code: Mapped[str | None]
    failure_message: Mapped[str | None]
    created_at: Mapped[float]
    ended_at: Mapped[float | None]


class JobChunkRow(Base):
    """A chunk's place in a job; `fresh` where this job is the first to cover it."""

    __tablename__ = "job_chunks"
    __table_args__ = (_goes_with_its_job(), Index("job_chunks_arrival", "arrival"))
    job_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    arrival: Mapped[int]
    start_s: Mapped[float | None]
    fresh: Mapped[bool]


class LeaseRow(Base):
    """Every lease ever granted: a result counts from any of them. `lease_end` is null while it runs."""

    __tablename__ = "leases"
    __table_args__ = (_goes_with_its_job(), Index("leases_job", "job_id"))
    lease_id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str]
    agent_id: Mapped[str]
    instance_id: Mapped[str]
    granted_at: Mapped[float]
    lease_end: Mapped[LeaseEnd | None] = mapped_column(EnumText(LeaseEnd))


class JobEventRow(Base):
    """What happened to a job, for people who ask why it is where it is."""

    __tablename__ = "job_events"
    __table_args__ = (_goes_with_its_job(), Index("job_events_job", "job_id"))
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str]
    at: Mapped[float]
    event: Mapped[JobEvent] = mapped_column(EnumText(JobEvent))
    by: Mapped[str]
    lease_id: Mapped[str | None]
    detail: Mapped[str | None]
    message: Mapped[str | None]


class ResultRow(Base):
    """The turns of a job as its agent sent them (msgpack `SpeakerTurns`)."""

    __tablename__ = "results"
    __table_args__ = (_goes_with_its_job(),)
    job_id: Mapped[str] = mapped_column(primary_key=True)
    lease_id: Mapped[str]
    agent_id: Mapped[str]
    payload: Mapped[bytes]
    stored_at: Mapped[float]


class WebhookRow(Base):
    """What the webhook's receiver has not confirmed. Without a payload it is the latest update of its conversation."""

    __tablename__ = "webhook_outbox"
    __table_args__ = (
        UniqueConstraint("conversation_id", "subject"),
        Index("webhook_outbox_order", "conversation_id", "number"),
        {"sqlite_autoincrement": True},
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    delivery_id: Mapped[str]
    conversation_id: Mapped[str]
    subject: Mapped[str]
    payload: Mapped[bytes | None]
    created_at: Mapped[float]
    last_error: Mapped[str | None]
    tried_at: Mapped[float | None]


IS_UNFINISHED = text(f"jobs.{_UNFINISHED_SQL}")
"""A job that is still to be worked on; spelled as the index `jobs_busy` is, so that SQLite uses it."""
