"""`omi-bridge`: the VPS's side on the command line."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from broker.errors import BrokerError, SettingsError
from broker.logs import configure_logs
from broker.settings import load_settings, print_settings
from schemas.bridge import BridgeHeartbeat
from schemas.conversation import ConversationUpdated
from schemas.errors import SchemaError
from schemas.record import is_id
from vps_bridge.bridge import STORE_FILE, AnotherBridge, Bridge
from vps_bridge.client import BridgeClient, ClientError
from vps_bridge.conversations.sqlite import SqliteConversations
from vps_bridge.conversations.store import StoreError
from vps_bridge.database import DatabaseError
from vps_bridge.ledger import Ledger, LedgerBusy, LedgerMissing
from vps_bridge.ledger.records import AgentRecord, ConversationRecord, JobRecord, JobState
from vps_bridge.settings import BridgeSettings
from vps_bridge.standing import describe_standing
from vps_bridge.transcripts import TranscriptError, read_transcript
from vps_bridge.watch import watch_messages

EXIT_FAILED, EXIT_USAGE, EXIT_OTHER_BRIDGE = 1, 2, 3
HELP_RUN = """Run the bridge until SIGTERM or Ctrl-C.

Examples:

  omi-bridge run

  OMI_BROKER_URL=mqtts://vps.tailnet.ts.net:8883 omi-bridge run --data-dir /var/lib/omi-diarization

Exit codes: 0 stopped, 1 failed, 2 wrong setting, 3 another bridge is already there.
"""
app = typer.Typer(
    pretty_exceptions_enable=False,  # they print the values of variables: text, names, audio
    no_args_is_help=True,
    add_completion=False,
    help="The VPS's side: takes audio in, leases it to agents, labels conversations.",
    epilog="A first look at a running system: `omi-bridge watch`, `omi-bridge jobs`, `omi-bridge agents`.",
)
_out, _err = Console(), Console(stderr=True)

ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with settings; see `omi-bridge config`.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the bridge keeps everything.")]
BrokerUrl = Annotated[str | None, typer.Option("--broker-url", help="mqtt://host:port or mqtts://host:port.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")]


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the errors a person can mend into one line and an exit code."""
    try:
        yield
    except SettingsError as error:
        _fail(str(error), EXIT_USAGE)
    except (AnotherBridge, LedgerBusy) as error:
        _fail(str(error), EXIT_OTHER_BRIDGE)
    except (BrokerError, ClientError, LedgerMissing, StoreError, DatabaseError, TranscriptError, SchemaError) as error:
        _fail(str(error), EXIT_FAILED)
    except OSError as error:
        _fail(f"{error.filename or 'the system'}: {error.strerror}", EXIT_FAILED)


def _fail(message: str, code: int) -> NoReturn:
    _err.print(f"omi-bridge: {message}", style="red", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def _settings(config: Path | None, role: str, **flags: Any) -> BridgeSettings:  # noqa: ANN401 - fields of the settings
    loaded = load_settings(BridgeSettings, flags=flags, config_file=config, role=role)
    configure_logs(as_json=loaded.settings.log_json)
    return loaded.settings


def _print_json(value: Any) -> None:  # noqa: ANN401 - any JSON document
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")


def _checked_id(conversation_id: str) -> str:
    if not is_id(conversation_id):
        _fail(f"conversation id {conversation_id!r}: use 1 to 128 of A-Z a-z 0-9 _ - (no dot)", EXIT_USAGE)
    return conversation_id


Conversation = Annotated[str, typer.Option("--conversation", "-c", help="The conversation's id.", callback=_checked_id)]
NamedConversation = Annotated[str, typer.Argument(help="The conversation's id.", callback=_checked_id)]


@app.command(help=HELP_RUN)
def run(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    broker_url: BrokerUrl = None,
    bridge_id: Annotated[str | None, typer.Option(help="This bridge's name in topics and heartbeats.")] = None,
) -> None:
    """Run the bridge."""
    with _explained():
        settings = _settings(config, "bridge", data_dir=data_dir, broker_url=broker_url, bridge_id=bridge_id)
        Bridge(settings).run()


@app.command()
def publish(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="WAV, FLAC, Ogg, MP3, M4A or WebM.")],
    conversation: Conversation,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the conversation's final labels.")] = False,
    more: Annotated[bool, typer.Option("--more", help="More audio follows: do not complete the conversation.")] = False,
    captured_at: Annotated[datetime | None, typer.Option(help="Absolute time of the first sample.")] = None,
    max_speakers: Annotated[int | None, typer.Option(min=1, max=100, help="A hint.")] = None,
    timeout_s: Annotated[float, typer.Option(help="How long to wait for labels.")] = 3600.0,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    broker_url: BrokerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Publish one audio file into a conversation, as the backend would.

    Returns when the bridge has accepted the audio (from then on it is safe), with --wait when labels are final.

    Example: omi-bridge publish call.wav --conversation call-1 --wait
    """
    with _explained():
        settings = _settings(config, "backend", data_dir=data_dir, broker_url=broker_url)
        with BridgeClient(settings, conversation) as client, _progress() as progress:
            client.wait_bridge()
            sending = progress.add_task("sending", total=file.stat().st_size)
            chunk = client.send_file(
                file,
                report=lambda sent, total: progress.update(sending, completed=sent, total=total),
                captured_at=captured_at.astimezone(UTC) if captured_at else None,
                max_speakers=max_speakers,
            )
            if not more:
                client.complete(chunks=1)  # at least this one: nothing else has to be waited for
            update = _wait(client, progress, timeout_s) if wait else None
        answer = {"conversation_id": conversation, **asdict(chunk)}
        if as_json:
            _print_json(answer | {"updated": update.model_dump(mode="json", by_alias=True) if update else None})
        else:
            _out.print(f"accepted {chunk.bytes} bytes as chunk {chunk.chunk_id} of {conversation}")
            if update:
                _print_update(update)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    return Progress(*columns, console=_err, transient=True)


def _wait(client: BridgeClient, progress: Progress, timeout_s: float) -> ConversationUpdated:
    waiting = progress.add_task("waiting for an agent", total=None)

    def report(beat: BridgeHeartbeat) -> None:
        queue = beat.queue
        words = f"{queue.jobs_leased} jobs with agents, {queue.jobs_ready} waiting, {beat.agents_live} agents live"
        progress.update(waiting, description=words)

    return client.wait_updated(final=True, timeout_s=timeout_s, report=report)


def _print_update(update: ConversationUpdated) -> None:
    _out.print(
        f"update {update.updated_version} ({update.state}): {update.speakers} speakers in {update.audio_s:.0f} s of "
        f"audio, {len(update.changed)} segments changed, {len(update.left_alone)} left alone"
    )


@app.command("import")
def import_transcript(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSON segments, or STM.")],
    conversation: Conversation,
    started_at: Annotated[datetime | None, typer.Option(help="Absolute time of the transcript's zero.")] = None,
    keep_speakers: Annotated[bool, typer.Option(help="Keep the speakers the file names.")] = True,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    broker_url: BrokerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Import a transcript as a conversation's segments.

    Example: omi-bridge import transcript.json --conversation call-1
    """
    with _explained():
        segments = read_transcript(file, conversation, keep_speakers=keep_speakers)
        settings = _settings(config, "backend", data_dir=data_dir, broker_url=broker_url)
        with BridgeClient(settings, conversation) as client:
            client.wait_bridge()
            client.start(started_at.astimezone(UTC) if started_at else None)
            client.send_segments(segments)
        if as_json:
            _print_json({"conversation_id": conversation, "segments": len(segments)})
        else:
            _out.print(f"imported {len(segments)} segments into {conversation}")


@app.command()
def show(
    conversation: NamedConversation,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show a conversation: who said what, and what is still to come.

    Example: omi-bridge show call-1 --json
    """
    with _explained(), _opened(config, data_dir) as (ledger, store, stale_s):
        record = _known(ledger, conversation)
        stored = store.read(conversation)
        jobs = ledger.jobs.all(conversation_id=conversation)
        segments = [asdict(segment) for segment in stored.segments] if stored else []
        facts = _conversation_facts(record, ledger, stale_s)
        if as_json:
            _print_json(facts | {"segments": segments, "jobs": [asdict(job) for job in jobs]})
            return
        _out.print(f"{conversation}: {facts['state']}" + (f" ({facts['reason']})" if facts["reason"] else ""))
        table = Table("start", "end", "speaker", "text")
        for item in segments:
            speaker = "you" if item["is_user"] else item["person_id"] or item["speaker"] or "unknown"
            table.add_row(f"{item['start_s']:.2f}", f"{item['end_s']:.2f}", speaker, item["text"])
        _out.print(table)


def _known(ledger: Ledger, conversation: str) -> ConversationRecord:
    record = ledger.conversations.get(conversation)
    if record is None:
        gone = "is deleted" if ledger.conversations.is_deleted(conversation) else "was never heard of"
        _fail(f"conversation {conversation} {gone}: `omi-bridge conversations` lists those there are", EXIT_FAILED)
    return record


def _conversation_facts(record: ConversationRecord, ledger: Ledger, stale_s: float) -> dict[str, Any]:
    name = record.conversation_id
    state, reason = describe_standing(
        record,
        ledger.chunks.of_conversation(name),
        ledger.jobs.all(conversation_id=name),
        ledger.agents.all(),
        now=time.time(),
        stale_s=stale_s,
    )
    facts = asdict(record) | {"state": state, "reason": reason}
    facts.pop("updated_payload")
    return facts


@app.command()
def conversations(config: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the conversations and where each stands.

    Example: omi-bridge conversations --json
    """
    with _explained(), _opened(config, data_dir) as (ledger, _store, stale_s):
        listed = [_conversation_facts(record, ledger, stale_s) for record in ledger.conversations.all()]
        if as_json:
            _print_json(listed)
            return
        table = Table("conversation", "state", "why", "since", "update", "applied")
        for facts in listed:
            told = (str(facts["updated_version"]), str(facts["applied_version"]))
            since = f"{_age(facts['since_at'])} ago"
            table.add_row(facts["conversation_id"], facts["state"], facts["reason"] or "", since, *told)
        _out.print(table)


@app.command()
def jobs(
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the jobs: what waits, who works on what, what failed and why.

    Example: omi-bridge jobs --state failed
    """
    with _explained(), _opened(config, data_dir) as (ledger, _store, _stale_s):
        found = ledger.jobs.all(states=(state,) if state else ())
        if as_json:
            _print_json([asdict(job) for job in found])
            return
        table = Table("job", "conversation", "state", "audio", "attempts", "agent", "age", "failure")
        for job in found:
            table.add_row(*_job_row(job))
        _out.print(table)


def _job_row(job: JobRecord) -> tuple[str, ...]:
    failure = f"{job.failure_code}: {job.failure_message}" if job.failure_code else ""
    audio = f"{job.audio_s:.0f} s" if job.audio_s else "?"
    head = (job.job_id, job.conversation_id, job.state, audio, str(job.attempts))
    return (*head, job.agent_id or "", _age(job.created_at), failure)


def _age(moment: float | None) -> str:
    if moment is None:
        return ""
    seconds = max(0, round(time.time() - moment))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


agents_app = typer.Typer(invoke_without_command=True)
app.add_typer(agents_app, name="agents")


@agents_app.callback()
def agents(
    context: typer.Context, config: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """List the agents; `agents allow ID` lets one have audio, `agents deny ID` takes that back.

    Example: omi-bridge agents, or omi-bridge agents allow my-mac
    """
    context.obj = (config, data_dir, as_json)
    if context.invoked_subcommand is not None:
        return
    with _explained(), _opened(config, data_dir) as (ledger, _store, _stale_s):
        records = ledger.agents.all()
        if as_json:
            _print_json([asdict(record) for record in records])
            return
        table = Table("agent", "allowed", "state", "heard", "engine", "device", "jobs")
        for record in records:
            table.add_row(*_agent_row(record))
        _out.print(table)
        if any(not record.allowed for record in records):
            _out.print("an agent that is not allowed gets no audio: omi-bridge agents allow ID")


def _agent_row(record: AgentRecord) -> tuple[str, ...]:
    beat = record.heartbeat or {}
    engine = beat.get("engine") or {}
    heard = f"{_age(record.last_seen_at)} ago" if record.last_seen_at else "never"
    head = (record.agent_id, "yes" if record.allowed else "no", beat.get("state", ""), heard)
    return (*head, engine.get("name", ""), engine.get("device", ""), str(len(beat.get("jobs", ()))))


@agents_app.command()
def allow(context: typer.Context, agent_id: str) -> None:
    """Let an agent have audio. It may be allowed before it was ever heard of.

    Example: omi-bridge agents allow my-mac
    """
    _set_allowed(context, agent_id, allowed=True)


@agents_app.command()
def deny(context: typer.Context, agent_id: str) -> None:
    """Give an agent no more audio; what it works on goes to another.

    Example: omi-bridge agents deny my-mac
    """
    _set_allowed(context, agent_id, allowed=False)


def _set_allowed(context: typer.Context, agent_id: str, *, allowed: bool) -> None:
    config, data_dir, as_json = context.obj
    if not is_id(agent_id):
        _fail(f"agent id {agent_id!r}: use 1 to 128 of A-Z a-z 0-9 _ - (no dot)", EXIT_USAGE)
    with _explained(), _opened(config, data_dir) as (ledger, _store, _stale_s):
        ledger.agents.set_allowed(agent_id, allowed=allowed)
        if as_json:
            _print_json({"agent_id": agent_id, "allowed": allowed})
        else:
            _out.print(f"{agent_id} is {'allowed' if allowed else 'denied'}; a running bridge sees it at once")


@app.command()
def history(
    conversation: NamedConversation,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show every change this pipeline made to a conversation.

    Example: omi-bridge history call-1
    """
    with _explained(), _opened(config, data_dir) as (ledger, store, _stale_s):
        writes = store.history(_known(ledger, conversation).conversation_id)
        if as_json:
            _print_json([asdict(write) for write in writes])
            return
        for write in writes:
            _out.print(f"version {write.version} ({write.kind}, {_age(write.written_at_s)} ago)")
            for change in write.changes:
                _out.print(f"  {change.segment_id}: {change.before or 'unknown'} -> {change.after or 'unknown'}")


@app.command()
def undo(
    conversation: NamedConversation,
    version: Annotated[int, typer.Argument(help="Which write to take back; see `omi-bridge history`.")],
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Take one write back; the segments it restores count as labelled by a person from now on.

    Example: omi-bridge undo call-1 2
    """
    with _explained(), _opened(config, data_dir) as (ledger, store, _stale_s):
        undone = store.undo(_known(ledger, conversation).conversation_id, version)
        ledger.conversations.mark_dirty(conversation)
        if as_json:
            _print_json({"conversation_id": conversation, "undone": version, "version": undone.version})
        else:
            _out.print(f"write {version} of {conversation} is undone")


@app.command()
def watch(
    config: ConfigFile = None, data_dir: DataDir = None, broker_url: BrokerUrl = None, as_json: AsJson = False
) -> None:
    """Watch every message of the pipeline live, decoded; audio, text and embeddings are left out.

    Example: omi-bridge watch --json | jq 'select(.kind == "failure/agent")'
    """
    with _explained():
        settings = _settings(config, "bridge", data_dir=data_dir, broker_url=broker_url)
        try:
            for message in watch_messages(settings):
                _print_message(message, as_json=as_json)
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


def _print_message(message: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(message, default=str) + "\n")
        sys.stdout.flush()
        return
    said = message.get("error") or json.dumps(message["message"], default=str, ensure_ascii=False)
    kept = " retained" if message["retain"] else ""
    _out.print(
        f"[dim]{message['seen_at'][11:23]}[/] [bold]{message['topic']}[/] {message['bytes']} B{kept}", highlight=False
    )
    _out.print(f"    {said}", markup=False, highlight=False)


@app.command("config")
def show_config(config: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show every setting, its value, and where the value came from; secrets are masked.

    Example: omi-bridge config --json
    """
    with _explained():
        flags = {"data_dir": data_dir}
        loaded = load_settings(BridgeSettings, flags=flags, config_file=config, role="bridge")
        print_settings(loaded, as_json=as_json)


@contextmanager
def _opened(config: Path | None, data_dir: Path | None) -> Iterator[tuple[Ledger, SqliteConversations, float]]:
    """Open ledger and store beside the running bridge, and say when an agent counts as stale."""
    settings = _settings(config, "bridge", data_dir=data_dir)
    ledger = Ledger(settings.root, exclusive=False)
    store = SqliteConversations(settings.root / STORE_FILE)
    try:
        yield ledger, store, settings.stale_s
    finally:
        store.close()
        ledger.close()


def main() -> None:
    """Entry point of `omi-bridge`."""
    app()
