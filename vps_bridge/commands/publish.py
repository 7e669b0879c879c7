"""`omi-bridge publish`: what a backend does with audio, from the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.terminal import print_json
from vps_bridge.commands.earlier import find_earlier, tell_earlier
from vps_bridge.commands.odd_times import tell_odd_times
from vps_bridge.commands.terminal import (
    EXIT_FAILED,
    AsJson,
    BrokerUrl,
    ConfigFile,
    Conversation,
    ConversationOwner,
    DataDir,
    check_regular,
    err,
    explained,
    fail,
    load,
    out,
    print_warnings,
)
from vps_bridge.durations import seconds

if TYPE_CHECKING:
    from rich.progress import Progress

    from schemas.bridge import BridgeHeartbeat
    from schemas.conversation import ConversationUpdated, TranscriptSegment
    from vps_bridge.client.client import BridgeClient, SentChunk
    from vps_bridge.conversations.earlier_transcript import EarlierTranscript

BELIEVED_BEATS = 2
NOBODY_LIVE = (
    "no agent is live and allowed, so this waits: the audio is safe. Start one on the Mac (omi-agent run) and allow it "
    "here (omi-bridge agents, omi-bridge agents allow ID); Ctrl-C ends only the waiting"
)
TRANSCRIPT_HELP = "JSON of the OMI backend or of a speech-to-text program or service, SRT, WebVTT, TSV, or STM."

CapturedAt = Annotated[
    datetime | None, typer.Option(help="Absolute time of the first sample; without a zone, this machine's.")
]


def publish(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="WAV, FLAC, Ogg, MP3, M4A, AAC, WebM, AIFF or CAF.")
    ],
    conversation: Conversation,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the conversation's final labels.")] = False,
    more: Annotated[bool, typer.Option("--more", help="More audio follows: do not complete the conversation.")] = False,
    captured_at: CapturedAt = None,
    transcript: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help=f"Its transcript. {TRANSCRIPT_HELP}")
    ] = None,
    max_speakers: Annotated[int | None, typer.Option(min=0, max=100, help="A hint; 0: none.")] = None,
    owner: ConversationOwner = None,
    timeout_s: Annotated[float, typer.Option(min=0, help="How long to wait for labels.")] = 3600.0,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    broker_url: BrokerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Publish one audio file into a conversation, as the backend would.

    Returns when the bridge has accepted the audio (from then on it is safe), with --wait when labels are final.

    Example: omi-bridge publish call.wav --conversation call-1 --transcript whisper.json --wait

    Exit codes: 0 accepted, with --wait diarized; 1 not accepted, or with --wait a job of the conversation failed.
    """
    from vps_bridge.client.client import BridgeClient

    check_regular(file)
    captured = to_utc(captured_at)
    with explained(), _refusal_explained():
        segments, earlier = _read_transcript(transcript, conversation, config, data_dir)
        settings = load(config, "backend", data_dir=data_dir, broker_url=broker_url)
        with BridgeClient(settings, conversation) as client, _progress() as progress:
            client.wait_bridge()
            _send_transcript(client, captured, owner, segments, earlier)
            chunk = _send(client, progress, file, captured_at=captured, max_speakers=max_speakers)
            if not more:
                client.complete(chunks=1)  # at least this one: nothing else has to be waited for
            update = _wait(client, progress, timeout_s) if wait else None
        if as_json:
            updated = update.model_dump(mode="json", by_alias=True) if update else None
            print_json({"conversation_id": conversation, **asdict(chunk), "updated": updated})
        else:
            _print_outcome(conversation, chunk, update)
        if update and update.failed_jobs:
            fail(f"{update.failed_jobs} jobs of {conversation} failed: `omi-bridge failed` says why", EXIT_FAILED)


def _read_transcript(
    file: Path | None, conversation: str, config: Path | None, data_dir: Path | None
) -> tuple[tuple[TranscriptSegment, ...], EarlierTranscript]:
    from vps_bridge.conversations.earlier_transcript import EarlierTranscript
    from vps_bridge.conversations.transcripts import read_transcript

    if file is None:
        return (), EarlierTranscript()
    segments = read_transcript(file, conversation)
    return segments, find_earlier(conversation, segments, config, data_dir)


def _send_transcript(
    client: BridgeClient,
    started: datetime | None,
    owner: str | None,
    segments: tuple[TranscriptSegment, ...],
    earlier: EarlierTranscript,
) -> None:
    if segments or owner:
        client.start(started if segments else None, owner=owner)
    if segments:
        client.send_segments(segments)
        tell_earlier(earlier, is_replaced=False)
        tell_odd_times(segments)


def _send(client: BridgeClient, progress: Progress, file: Path, **facts: Any) -> SentChunk:  # noqa: ANN401 - fields of AudioPayload
    sending = progress.add_task("sending", total=file.stat().st_size)
    return client.send_file(
        file, report=lambda sent, total: progress.update(sending, completed=sent, total=total), **facts
    )


def to_utc(moment: datetime | None) -> datetime | None:
    """Return a time that was given on the command line in UTC, or end the program where it has none."""
    try:
        return moment.astimezone(UTC) if moment else None
    except (OverflowError, ValueError):
        fail(f"{moment:%Y-%m-%d} is a time outside the years 1 to 9999 in UTC: give the right one", EXIT_FAILED)


@contextmanager
def _refusal_explained() -> Iterator[None]:
    from vps_bridge.client.errors import BridgeRefused

    try:
        yield
    except BridgeRefused as error:
        fail(f"{error}. On the VPS `omi-bridge failed` lists what was refused", EXIT_FAILED)


def _progress() -> Progress:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    return Progress(*columns, console=err, transient=True)


def _wait(client: BridgeClient, progress: Progress, timeout_s: float) -> ConversationUpdated:
    waiting = progress.add_task("waiting for an agent", total=None)
    silent: set[datetime] = set()  # heartbeats without an agent: the first may be older than one that just connected

    def report(beat: BridgeHeartbeat) -> None:
        queue, known = beat.queue, len(silent)
        if beat.agents_live == 0:
            silent.add(beat.sent_at)
        if known < len(silent) == BELIEVED_BEATS:
            progress.console.print(f"omi-bridge: {NOBODY_LIVE}", style="yellow", highlight=False, soft_wrap=True)
        words = f"{queue.jobs_leased} jobs with agents, {queue.jobs_ready} waiting, {beat.agents_live} agents live"
        progress.update(waiting, description=words)

    return client.wait_updated(final=True, timeout_s=timeout_s, report=report)


def _print_outcome(conversation: str, chunk: SentChunk, update: ConversationUpdated | None) -> None:
    out.print(f"accepted {chunk.bytes} bytes as chunk {chunk.chunk_id} of {conversation}")
    if update:
        _print_update(update)


def _print_update(update: ConversationUpdated) -> None:
    out.print(
        f"update {update.updated_version} ({update.state}): {update.speakers} speakers in {seconds(update.audio_s)} of "
        f"audio, {len(update.changed)} segments changed, {describe_left_alone(update)}"
    )
    print_warnings(update.warnings)
    for failure in update.failures:
        words = f"{failure.job_id} failed, {failure.code}: {failure.message}\n  then: {failure.remedy}"
        out.print(words, highlight=False, soft_wrap=True)


def describe_left_alone(update: ConversationUpdated) -> str:
    """Return how many segments kept their label because nothing decided it, and why; the most frequent reason first."""
    counts = sorted(update.left_alone_counts.items(), key=lambda item: (-item[1], item[0]))
    total = f"{sum(count for _, count in counts)} left alone"
    return f"{total} ({', '.join(f'{count} {reason}' for reason, count in counts)})" if counts else total
