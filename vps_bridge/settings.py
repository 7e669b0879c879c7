"""Settings of the bridge; every one can be set by flag, environment (`OMI_…`) or file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, StringConstraints, ValidationInfo, field_validator, model_validator

from broker.settings import BrokerSettings
from broker.user_path import UserPath
from schemas.record import ID_PATTERN
from vps_bridge.rules.assemble import AssemblyRules
from vps_bridge.rules.lease import LeaseRules
from vps_bridge.rules.queue_share import QueueUse

HOUR_S = 3600.0


class BridgeSettings(BrokerSettings):
    """Everything about the bridge that can be set."""

    section: ClassVar[str] = "bridge"

    bridge_id: Annotated[str, StringConstraints(pattern=ID_PATTERN)] = Field(
        default="bridge", description="This bridge's name in topics and heartbeats."
    )
    http_host: str = Field(
        default="127.0.0.1", description="Address of the HTTP door; any other than a loopback address needs a token."
    )
    http_port: int = Field(default=8765, ge=0, le=65_535, description="Port of the HTTP door; 0 turns it off.")
    http_token: SecretStr | None = Field(
        default=None,
        description="Token of the HTTP door; without one /v1 is closed. Not a flag: other users could read it.",
    )
    http_token_file: UserPath | None = Field(default=None, description="File (mode 600) that holds that token.")
    http_answer_timeout_s: float = Field(
        default=1_800.0, gt=0, description="How long the HTTP call /api/diarize waits for its answer."
    )
    webhook_url: str | None = Field(
        default=None, description="Updates and failures are also sent there by HTTP POST; empty: no webhook."
    )
    webhook_secret: SecretStr | None = Field(
        default=None, description="What its messages are signed with. Not a flag: other users could read it."
    )
    webhook_secret_file: UserPath | None = Field(default=None, description="File (mode 600) that holds that secret.")
    webhook_insecure: bool = Field(
        default=False, description="Send to http:// also beyond this machine and the tailnet."
    )
    webhook_timeout_s: float = Field(
        default=10.0, gt=0, le=300, description="Its receiver has so long to be reached, and again to answer."
    )
    database_url: str | None = Field(
        default=None,
        description="Where the ledger is kept: postgresql://user@host/database; empty: a file in data_dir. "
        "See docs/ledger-on-postgresql.md.",
    )
    database_secret: SecretStr | None = Field(
        default=None, description="Password of that database. Not a flag: other users could read it."
    )
    database_secret_file: UserPath | None = Field(default=None, description="File (mode 600) that holds that password.")
    database_timeout_s: float = Field(
        default=10.0, gt=0, le=60, description="A statement of the ledger has so long there."
    )
    conversations_url: str | None = Field(
        default=None,
        description="Where conversations are kept: postgresql://user@host/database, or https:// of a backend that "
        "keeps them itself; empty: a file in data_dir. See docs/stores.md.",
    )
    conversations_secret: SecretStr | None = Field(
        default=None, description="Password of that database, or what that backend's requests are signed with."
    )
    conversations_secret_file: UserPath | None = Field(
        default=None, description="File (mode 600) that holds that password or secret."
    )
    conversations_insecure: bool = Field(
        default=False, description="Use http:// for it also beyond this machine and the tailnet."
    )
    conversations_timeout_s: float = Field(
        default=5.0,
        gt=0,
        le=60,
        description="It has so long to be reached, and again to answer; nothing else is done meanwhile.",
    )
    spool_url: str | None = Field(
        default=None,
        description="Where accepted audio is kept: s3://bucket/prefix of any S3-compatible store, encrypted; empty: a "
        "directory in data_dir. See docs/bucket.md.",
    )
    spool_endpoint: str | None = Field(
        default=None, description="Address of that store, https://host:port; empty: Amazon S3 of the region."
    )
    spool_region: str = Field(default="us-east-1", description="Region of the bucket, as its store names it.")
    spool_access_key: str | None = Field(default=None, description="Id of the access key to that bucket.")
    spool_secret: SecretStr | None = Field(
        default=None, description="The access key's secret. Not a flag: other users could read it."
    )
    spool_secret_file: UserPath | None = Field(default=None, description="File (mode 600) that holds that secret.")
    spool_key_file: UserPath | None = Field(
        default=None,
        description="File (mode 600) of the keys that audio is encrypted with before it leaves: omi-bridge spool-key.",
    )
    spool_insecure: bool = Field(
        default=False, description="Use http:// for it also beyond this machine and the tailnet."
    )
    spool_timeout_s: float = Field(
        default=10.0, gt=0, le=300, description="The store has so long to be reached, and for each sign of life."
    )
    spool_copies_bytes: int = Field(
        default=2**30, ge=0, description="So much audio of the bucket is kept here too, for agents and the page."
    )
    spool_orphan_s: float = Field(
        default=24 * HOUR_S,
        gt=0,
        description="Audio in the bucket that the ledger does not know is deleted when it is this old.",
    )
    omi_http_host: str = Field(default="127.0.0.1", description="Address of the listener for OMI's webhooks.")
    omi_http_port: int = Field(
        default=0, ge=0, le=65_535, description="Its port, to which a proxy passes /omi/ from a public name; 0: off."
    )
    omi_public_url: str | None = Field(
        default=None, description="The public name, https://host: `omi-bridge omi add` prints URLs with it."
    )
    omi_capture_s: float = Field(
        default=6 * HOUR_S, gt=0, description="Audio from OMI is kept so long until its conversation is reported."
    )
    omi_capture_bytes: int = Field(
        default=20 * 2**30, ge=2**20, description="So much of it is kept; beyond that OMI is told to come later."
    )
    omi_user_bytes: int = Field(default=2**30, ge=2**20, description="And so much of one user.")
    omi_api_url: str | None = Field(
        default=None, description="OMI's API, https://host: names that a match gives go there; empty: nothing does."
    )
    omi_admin_key: SecretStr | None = Field(
        default=None, description="ADMIN_KEY of that backend. Not a flag: other users could read it."
    )
    omi_admin_key_file: UserPath | None = Field(default=None, description="File (mode 600) that holds that key.")
    heartbeat_s: float = Field(default=10.0, gt=0, le=600, description="Seconds between heartbeats.")
    stale_s: float = Field(default=30.0, gt=0, description="An agent silent for longer is taken for dead.")
    grace_s: float = Field(default=30.0, ge=0, description="Seconds a lease is kept after its agent's will.")
    lease_limit_factor: float = Field(
        default=10.0, gt=0, description="A lease lasts at most this many times the expected time, plus the floor."
    )
    lease_limit_floor_s: float = Field(
        default=600.0, gt=0, description="The floor, in seconds: added to that limit of every lease."
    )
    max_attempts: int = Field(default=3, ge=1, le=100, description="A job has failed after this many attempts.")
    retry_min_s: float = Field(default=15.0, gt=0, description="First pause before a message is sent again.")
    retry_max_s: float = Field(default=300.0, gt=0, description="Longest pause before a message is sent again.")
    part_bytes: int = Field(
        default=262_144, ge=1_024, le=1_500_000, description="Size of the parts in which audio is sent."
    )
    max_chunk_bytes: int = Field(default=512 * 2**20, ge=1, description="The largest chunk that is accepted.")
    max_audio_s: float = Field(
        default=4 * HOUR_S, gt=0, description="Longest audio of one job, as the agents have it; longer is not believed."
    )
    max_queue_jobs: int = Field(default=20_000, ge=1, description="Jobs that may wait; beyond that audio is refused.")
    max_queue_bytes: int = Field(default=20 * 2**30, ge=1, description="Bytes of audio that may be kept on disk.")
    ballast_bytes: int = Field(
        default=16 * 2**20,
        ge=2**16,
        description="Disk space reserved for results and deletions; while it is used up, no audio is accepted.",
    )
    labels_limit_s: float = Field(
        default=60.0,
        gt=0,
        description="Working out a large conversation's labels may take so long; too often longer, and it has failed.",
    )
    remove_stale_labels: bool = Field(
        default=False,
        description="Take a number off a segment of two speakers where it is another speaker's now; else only tell.",
    )
    people_rules: UserPath | None = Field(
        default=None,
        description="File from `omi-agent calibrate --output`: what a match needs, in place of what we measured.",
    )
    min_job_s: float = Field(default=60.0, gt=0, description="Chunks are gathered into jobs of at least this length.")
    max_job_s: float = Field(default=120.0, gt=0, description="And into jobs of at most this length.")
    overlap_s: float = Field(default=10.0, ge=0, description="Seconds of the previous job's audio that a job repeats.")
    pause_s: float = Field(default=20.0, gt=0, description="A job is closed when no new chunk comes for this long.")
    quiet_s: float = Field(
        default=60.0,
        ge=0,
        description="A completed conversation with no stated number of chunks is final after this long without audio.",
    )
    keep_audio_s: float = Field(
        default=24 * HOUR_S,
        ge=0,
        description="Audio is kept this long after the final linking, less where disk or queue is full; 0: not at all.",
    )
    keep_failed_audio_s: float = Field(
        default=7 * 24 * HOUR_S, ge=0, description="Audio of a failed job is kept this long, so that it can be retried."
    )
    keep_samples_s: float = Field(
        default=3 * 24 * HOUR_S,
        ge=0,
        description="Voice samples are kept this long after a conversation became final; then one vector for a voice.",
    )
    keep_details_s: float = Field(
        default=3 * 24 * HOUR_S,
        ge=0,
        description="What happened to each job is kept so long after its conversation went quiet, then packed.",
    )
    keep_voices_s: float = Field(
        default=30 * 24 * HOUR_S,
        ge=0,
        description="Embeddings of voices that nobody named are kept this long after a conversation became final.",
    )
    keep_audio_max_s: float = Field(default=7 * 24 * HOUR_S, gt=0, description="Audio is never kept longer than this.")

    @field_validator("conversations_url", "database_url")
    @classmethod
    def _has_no_password(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and ("password" in value or urlsplit(value).password is not None):
            name = (info.field_name or "").removesuffix("_url")
            msg = f"give its password as OMI_{name.upper()}_SECRET or {name}_secret_file, not in the address"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _limits_in_order(self) -> Self:
        for low, high in (("min_job_s", "max_job_s"), ("retry_min_s", "retry_max_s")):
            if getattr(self, low) > getattr(self, high):
                msg = f"{low} ({getattr(self, low):g}) must not be above {high} ({getattr(self, high):g})"
                raise ValueError(msg)
        return self

    @property
    def root(self) -> Path:
        """The directory of everything the bridge keeps."""
        return self.data_dir / "bridge"

    @property
    def lease_rules(self) -> LeaseRules:
        """The times that decide about leases."""
        return LeaseRules(
            stale_s=self.stale_s,
            grace_s=self.grace_s,
            limit_factor=self.lease_limit_factor,
            limit_floor_s=self.lease_limit_floor_s,
            max_attempts=self.max_attempts,
        )

    @property
    def queue_limit(self) -> QueueUse:
        """How much may wait."""
        return QueueUse(self.max_queue_jobs, self.max_queue_bytes)

    @property
    def assembly_rules(self) -> AssemblyRules:
        """How chunks become jobs."""
        return AssemblyRules(
            min_job_s=self.min_job_s, max_job_s=self.max_job_s, overlap_s=self.overlap_s, pause_s=self.pause_s
        )
