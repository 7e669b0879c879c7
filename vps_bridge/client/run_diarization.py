"""`run_diarization`: the function that a backend may call already, as a client of the running bridge."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import time
from pathlib import Path
from typing import TypedDict

import structlog

from broker.errors import BrokerError
from broker.settings import load_settings
from schemas.conversation import ConversationUpdated
from schemas.errors import SchemaError
from vps_bridge.client.client import BridgeClient
from vps_bridge.client.errors import BridgeSilent, ClientError
from vps_bridge.conversations.store import speaker_name
from vps_bridge.durations import seconds
from vps_bridge.settings import BridgeSettings

_LOG = structlog.get_logger(__name__)
TIMEOUT_S = 60.0
AGENT_TIMEOUT_S = 12.0  # a little more than the interval of the bridge's heartbeats
DELETE_TIMEOUT_S = 10.0
ENABLED_ENV = "ENABLE_SPEAKER_DIARIZATION"


class DiarizedTurn(TypedDict):
    """One speaker turn, in seconds from the start of the file."""

    speaker_id: str
    start: float
    end: float


async def run_diarization(
    audio_file_path: str | os.PathLike[str], num_speakers: int | None = None
) -> list[DiarizedTurn]:
    """Return who spoke when in a file, or `[]` with a log line that says why not.

    Works in a temporary conversation of its own, which is deleted before it returns, also when it is cancelled. `[]`
    where ENABLE_SPEAKER_DIARIZATION is not `true`, no agent is live, the file is refused, or 60 s have passed.
    `num_speakers` is a hint. Never raises for what its caller cannot do anything about.
    """
    if os.environ.get(ENABLED_ENV, "").strip().lower() != "true":
        _LOG.info("diarization_off", reason=f"{ENABLED_ENV} is not true")
        return []
    cancelled = threading.Event()
    work = asyncio.create_task(asyncio.to_thread(_diarize, Path(audio_file_path), num_speakers, cancelled))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        cancelled.set()
        await work
        raise


def _diarize(path: Path, num_speakers: int | None, cancelled: threading.Event) -> list[DiarizedTurn]:
    conversation_id = f"run-{secrets.token_hex(12)}"
    log = _LOG.bind(conversation=conversation_id)
    try:
        settings = load_settings(BridgeSettings, flags={}, role="backend").settings
        with BridgeClient(settings, conversation_id) as client:
            return _diarize_with(client, path, num_speakers, cancelled, log)
    except (ClientError, BrokerError, SchemaError, OSError) as error:
        log.warning("diarization_failed", reason=str(error))
        return []


def _diarize_with(
    client: BridgeClient,
    path: Path,
    num_speakers: int | None,
    cancelled: threading.Event,
    log: structlog.typing.FilteringBoundLogger,
) -> list[DiarizedTurn]:
    deadline_s = time.monotonic() + TIMEOUT_S
    beat = client.wait_agent(timeout_s=min(AGENT_TIMEOUT_S, TIMEOUT_S))
    if beat.agents_live == 0:
        log.warning("diarization_failed", reason="no agent is live and allowed", waiting=list(beat.agents_waiting))
        return []
    try:
        client.send_file(path, timeout_s=max(1.0, deadline_s - time.monotonic()), num_speakers=num_speakers)
        client.complete(chunks=1, timeout_s=max(1.0, deadline_s - time.monotonic()))
        update = _wait(client, deadline_s, cancelled)
        if update is None:
            log.warning("diarization_cancelled")
            return []
        if update.failed_jobs:
            reasons = [f"{failure.code}: {failure.message}" for failure in update.failures]
            log.warning("diarization_failed", reason=reasons or "the job failed: see the agent's log")
        if update.warnings:
            log.warning("diarization_odd", warnings=list(update.warnings))
        return _to_turns(update)
    finally:
        _delete(client, log)


def _delete(client: BridgeClient, log: structlog.typing.FilteringBoundLogger) -> None:
    try:
        client.delete(timeout_s=DELETE_TIMEOUT_S)
    except (ClientError, BrokerError) as error:
        remedy = "publish `deleted` for it once the bridge is back"
        log.error("conversation_not_removed", reason=str(error), remedy=remedy)


def _wait(client: BridgeClient, deadline_s: float, cancelled: threading.Event) -> ConversationUpdated | None:
    while not cancelled.is_set():
        step_s = max(0.0, min(1.0, deadline_s - time.monotonic()))
        try:
            return client.wait_updated(final=True, timeout_s=step_s)
        except BridgeSilent as error:  # of this step
            if time.monotonic() >= deadline_s:
                msg = f"no labels within {seconds(TIMEOUT_S)}: look at `omi-bridge jobs` and `omi-bridge agents`"
                raise BridgeSilent(msg) from error
    return None


def _to_turns(update: ConversationUpdated) -> list[DiarizedTurn]:
    return [
        DiarizedTurn(speaker_id=speaker_name(turn.speaker_id) or "", start=turn.start_s, end=turn.end_s)
        for turn in update.turns or ()
    ]
