"""Settings of the agent: flag over environment (OMI_…) over the `[agent]` table of the TOML file over default."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Annotated, ClassVar, Self

import platformdirs
from pydantic import Field, field_validator, model_validator

from broker.settings import BrokerSettings
from broker.user_path import UserPath
from schemas.agent import MAX_WANT_PARTS
from schemas.audio import MAX_PART_BYTES
from schemas.record import is_id

PROGRAM = "omi-diarization"  # directories of the platform are called so
MAX_HELD_JOBS = 50  # a heartbeat names 100 jobs, those that wait in the outbox included

PositiveSeconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600)]


def default_agent_id() -> str:
    """Return this machine's name, reduced to what may stand in a topic."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname().split(".")[0]).strip("-_")
    return name[:128] or "agent"


class AgentSettings(BrokerSettings):
    """What the agent is called, which engine it runs, and how patient it is."""

    section: ClassVar[str] = "agent"

    agent_id: str = Field(
        default_factory=default_agent_id,
        description="Name of this agent in topics and on the bridge's allow-list; one running process per name.",
    )
    reconnect_spread: float = Field(
        default=6.0,
        ge=1,
        le=100,
        description="The first pause after a lost connection is anything up to so many times reconnect_min_s: all "
        "agents have lost it.",
    )
    engine: str = Field(
        default="auto",
        min_length=1,
        description="Engine: pyannote, embedded, embedded-ge2e, or auto: pyannote where a pipeline of it is here.",
    )
    device: str = Field(default="auto", min_length=1, description="auto, cpu, mps or cuda.")
    threads: int | None = Field(default=None, ge=1, le=256, description="CPU threads; empty: the engine's own choice.")

    heartbeat_s: PositiveSeconds = Field(default=10.0, description="Time between heartbeats.")
    max_jobs: int = Field(
        default=8,
        ge=1,
        le=MAX_HELD_JOBS,
        description="Most jobs held at once, the running one included; more than two come only where they are short.",
    )
    part_window: int = Field(
        default=8, ge=1, le=MAX_WANT_PARTS, description="Parts of audio asked for and not yet here."
    )
    part_bytes: int = Field(default=262_144, ge=1_024, le=MAX_PART_BYTES, description="Bytes asked for as one part.")
    want_timeout_s: PositiveSeconds = Field(
        default=15.0, description="Audio that has not come by then is asked for again; doubles up to retry_max_s."
    )
    offer_retry_s: PositiveSeconds = Field(
        default=15.0, description="A result nobody settled is offered again after this; doubles up to retry_max_s."
    )
    retry_max_s: PositiveSeconds = Field(default=300.0, description="Longest pause between two attempts to deliver.")
    give_up_s: PositiveSeconds = Field(
        default=900.0, description="A job whose audio stopped coming for so long is dropped; the bridge grants it anew."
    )

    max_audio_s: PositiveSeconds = Field(default=4 * 3600.0, description="Longest audio of one job.")
    max_job_bytes: int = Field(default=2**30, ge=1, description="Most bytes of one job the inbox takes.")
    job_timeout_floor_s: PositiveSeconds = Field(default=180.0, description="Time every job may take at least.")
    job_timeout_factor: float = Field(
        default=4.0, ge=0, le=1_000, description="Further seconds a job may take for each second of its audio."
    )
    recycle_jobs: int = Field(
        default=500, ge=0, description="The worker is started again between jobs after so many; 0: never."
    )
    recycle_gb: float = Field(
        default=6.0,
        ge=0,
        le=1_000,
        description="… and when it holds more than so many GB (on mps and cuda the driver's memory); 0: never.",
    )
    max_worker_gb: float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        description="Memory at which the worker is ended and its job fails; empty: three quarters of this machine's.",
    )
    load_timeout_s: PositiveSeconds = Field(default=600.0, description="Time the engine has to load its weights.")
    audio_max_age_s: PositiveSeconds = Field(
        default=24 * 3600.0, description="Audio older than this is unlinked, whatever the bridge says."
    )
    weights_dir: UserPath | None = Field(
        default=None, description="Where models/ with the engines' weights lies, to share it. Empty: data_dir."
    )
    pipeline_dir: UserPath | None = Field(
        default=None,
        description="A pyannote pipeline of your own (`omi-agent trust DIR` first). Empty: what fetch-model fetched.",
    )
    log_file: UserPath | None = Field(
        default=None, description="File for the log of `run`; rotated at 10 MB, five are kept. Empty: stderr."
    )
    metrics_port: int = Field(
        default=0, ge=0, le=65_535, description="Port on 127.0.0.1 of /metrics, for Prometheus; 0: there is none."
    )
    inbox_dir: UserPath | None = Field(
        default=None,
        description="Where audio is kept while it is worked on; wiped at start. Empty: the user's cache directory, "
        "which no backup takes (~/Library/Caches on a Mac), or data_dir/inbox where data_dir is set.",
    )

    @field_validator("agent_id")
    @classmethod
    def _is_id(cls, value: str) -> str:
        if not is_id(value):
            msg = "use 1 to 128 of A-Z a-z 0-9 _ - and begin with a letter or digit"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _window_fits(self) -> Self:
        if max(self.want_timeout_s, self.offer_retry_s) > self.retry_max_s:
            msg = "retry_max_s must not be below want_timeout_s or offer_retry_s"
            raise ValueError(msg)
        return self

    @property
    def inbox(self) -> Path:
        """Directory of audio being worked on."""
        if self.inbox_dir is not None:
            return self.inbox_dir
        if self.data_dir == platformdirs.user_data_path(PROGRAM):
            return platformdirs.user_cache_path(PROGRAM) / "inbox"
        return self.data_dir / "inbox"  # its lock keeps two agents out of one inbox

    @property
    def verdicts(self) -> Path:
        """Directory of what `omi-agent qualify` found on this machine."""
        return self.data_dir / "verdicts"

    @property
    def outbox(self) -> Path:
        """SQLite file of results that the bridge has not settled."""
        return self.data_dir / "outbox.sqlite"

    @property
    def weights(self) -> Path:
        """Directory in which models/ lies."""
        return self.weights_dir or self.data_dir
