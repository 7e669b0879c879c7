"""`make demo`: one real call through the whole pipeline, checked against its human reference."""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
from rich.console import Console
from rich.status import Status
from rich.table import Table

from broker.errors import BrokerError
from broker.settings import load_settings
from demo.call import Call, LineScore, find_call, merge_blocks, score_lines
from demo.kept import keep_running, mislabel, open_door
from demo.message_recorder import MessageRecorder
from demo.programs import ProgramFailed, Programs
from mac_agent.engines.engine import Turn
from mac_agent.rttm import read_rttm, write_rttm
from mac_agent.settings import AgentSettings
from mac_agent.timeline import draw_timeline
from schemas.conversation import ConversationUpdated, TranscriptSegment
from schemas.failure import JobFailure
from schemas.topics import TopicKind
from vps_bridge.client.client import BridgeClient
from vps_bridge.client.errors import ClientError
from vps_bridge.conversations.store import speaker_name
from vps_bridge.ledger import Ledger
from vps_bridge.settings import BridgeSettings

AGENT_ID = "demo-mac"
MIN_RIGHT, MAX_DER = 12, 0.10
READY_TIMEOUT_S, UPDATE_TIMEOUT_S = 180.0, 180.0
console = Console(width=110 if not sys.stdout.isatty() else None)


class DemoFailed(Exception):
    """The demo did not give the expected result."""


def main() -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="where the results go (default: out/demo)")
    parser.add_argument("--keep", action="store_true", help="leave it running afterwards, and print a link to the page")
    arguments = parser.parse_args()
    out: Path = arguments.out
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        run(out, keep=arguments.keep)
    except KeyboardInterrupt:
        console.print("\nstopped; nothing is left running", style="yellow")
        return 130
    except (DemoFailed, ProgramFailed, ClientError, BrokerError, OSError) as error:
        console.print(f"\n[bold red]FAILED[/] {error}", highlight=False, soft_wrap=True)
        return 1
    return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(out: Path, *, keep: bool = False) -> None:
    """Start the programs, send the call twice (in lines, in blocks), and compare the labels with the reference."""
    started_s = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="omi-demo-") as scratch:
        data_dir = Path(scratch)
        for log in out.glob("omi-*.log"):
            log.unlink()
        with Programs(out) as programs, console.status("starting") as status:
            status.update("starting the broker")
            url = programs.start_broker(data_dir)
            _share_environment(url, data_dir)
            if keep:
                os.environ |= open_door()
            with MessageRecorder(load_settings(BridgeSettings, flags={}, role="bridge").settings) as recorder:
                _start(programs, recorder, url, status)
                lines = _converse(recorder, data_dir, "call", find_call("call"), lambda call: call.segments, status)
                blocks = _converse(
                    recorder, data_dir, "blocks", find_call("blocks"), lambda call: merge_blocks(call.segments), status
                )
                status.update("scoring")
                _report(out, find_call("call"), lines, blocks, recorder)
                if keep:
                    status.stop()
                    mislabel("call", *lines[:2])
                    keep_running(programs, console)
    console.print(f"\n[bold green]OK[/] in {time.monotonic() - started_s:.1f} s; everything started here is stopped.")


def _share_environment(url: str, data_dir: Path) -> None:
    """Set the addresses and directories for every program that is started from here, and for this one."""
    weights = load_settings(AgentSettings, flags={}).settings.weights
    os.environ |= {
        "OMI_BROKER_URL": url,
        "OMI_DATA_DIR": str(data_dir),
        "OMI_WEIGHTS_DIR": str(weights),
        "OMI_AGENT_ID": AGENT_ID,
        "OMI_HTTP_PORT": "0",  # another bridge on this machine may use the default port
    }


def _start(programs: Programs, recorder: MessageRecorder, url: str, status: Status) -> None:
    """Start bridge and agent as processes, allow the agent, wait until both are online."""
    status.update("starting the bridge and the agent (its worker loads torch)")
    programs.start("omi-bridge", "run")
    programs.start("omi-agent", "run", "--engine", "embedded")
    _wait(programs, recorder.bridge_online, "the bridge's heartbeat")
    ledger = Ledger(load_settings(BridgeSettings, flags={}).settings.root, exclusive=False)
    ledger.agents.set_allowed(AGENT_ID, allowed=True)
    ledger.close()
    _wait(programs, lambda: recorder.agent_online() is not None, "the agent's heartbeat")
    beat = recorder.agent_online()
    engine = beat.engine if beat else None
    console.print(f"broker, bridge and agent are up at {url}; engine {engine.name if engine else '?'} on "
                  f"{engine.device if engine else '?'}")  # fmt: skip


def _wait(programs: Programs, ready: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while not ready():
        for program in programs.running:
            program.check()
        if time.monotonic() > deadline_s:
            msg = f"{what} did not come within {READY_TIMEOUT_S:.0f} s: see the logs in {programs.directory}"
            raise DemoFailed(msg)
        time.sleep(0.05)


def _converse(
    recorder: MessageRecorder,
    data_dir: Path,
    conversation_id: str,
    call: Call,
    cut: Callable[[Call], tuple[TranscriptSegment, ...]],
    status: Status,
) -> tuple[tuple[TranscriptSegment, ...], ConversationUpdated, float]:
    """Send transcript, audio and `completed` as a backend does.

    Returns:
        The segments that were sent, the final update, and when the audio was sent (monotonic seconds).
    """
    settings = load_settings(BridgeSettings, flags={"data_dir": data_dir}, role="backend").settings
    segments = cut(call)
    with BridgeClient(settings, conversation_id) as client:
        client.wait_bridge()
        client.start()
        client.send_segments(segments)
        status.update(f"{conversation_id}: publishing {call.audio.name}")
        published_s = time.monotonic()
        client.send_file(call.audio, chunk_id=f"demo-{secrets.token_hex(4)}")
        client.complete(chunks=1)

        def report(_beat: object) -> None:
            beat = recorder.agent_online()
            if beat is not None and beat.jobs:
                job = beat.jobs[0]
                status.update(f"{conversation_id}: {job.state} on {beat.agent_id}, {job.progress:.0%}")

        update = client.wait_updated(final=True, timeout_s=UPDATE_TIMEOUT_S, report=report)
    failures = [recorded.message for recorded in recorder.of(TopicKind.FAILURE)]
    if failures:
        first = failures[0]
        msg = f"a job failed: {first.message if isinstance(first, JobFailure) else first}"
        raise DemoFailed(msg)
    return segments, update, published_s


def _report(out: Path, call: Call, lines: Any, blocks: Any, recorder: MessageRecorder) -> None:  # noqa: ANN401 - what _converse returned
    segments, update, published_s = lines
    labels = {label.id: label.speaker for label in update.segments}
    score = score_lines(call, labels)
    turns = [Turn(turn.start_s, turn.end_s, speaker_name(turn.speaker_id) or "") for turn in update.turns or ()]
    reference = read_rttm(call.reference.read_text().splitlines())
    der, parts = _diarization_error(reference, turns, call.duration_s)
    _print_conversation(call, segments, labels, score)
    _print_blocks(*blocks[:2])
    _print_stages(recorder, published_s)
    _write(out, call, segments, update, turns, reference)
    console.print(
        f"\n{score.right} of {score.lines} lines right, {score.unlabelled} unlabelled, "
        f"{score.wrong_long} of 0.8 s or longer wrong; DER {der:.3f} ({parts}; no collar, overlap scored)",
        highlight=False,
    )
    for name in ("conversation.json", "turns.rttm", "timeline.png"):
        console.print(f"  {out / name}", highlight=False)
    _check_labels(score, der, blocks[1])


def _check_labels(score: LineScore, der: float, blocks: ConversationUpdated) -> None:
    complaints = []
    if score.right < MIN_RIGHT or score.wrong_long:
        complaints.append(f"{score.right} of {score.lines} lines right, {score.wrong_long} long lines wrong")
    if der > MAX_DER:
        complaints.append(f"DER {der:.3f} is above {MAX_DER}")
    if len(score.names) != len(set(score.names.values())) or len(score.names) != 2:
        complaints.append(f"{len(score.names)} speakers were found where two people speak")
    if any(change.after not in (None, change.before) for change in blocks.changed) or not blocks.left_alone:
        complaints.append("a block in which two people speak was given to one of them")
    if complaints:
        raise DemoFailed("the labels are wrong: " + "; ".join(complaints))


def _diarization_error(reference: list[Turn], turns: list[Turn], duration_s: float) -> tuple[float, str]:
    """Return the DER, and its parts as text; no collar, overlap scored."""
    from pyannote.core import Annotation, Segment, Timeline  # noqa: PLC0415 - takes a second, and is needed only at the end
    from pyannote.metrics.diarization import DiarizationErrorRate  # noqa: PLC0415

    def annotate(found: list[Turn]) -> Annotation:
        annotation = Annotation()
        for number, turn in enumerate(found):
            annotation[Segment(turn.start_s, turn.end_s), number] = turn.speaker
        return annotation

    metric = DiarizationErrorRate(collar=0.0, skip_overlap=False)
    whole = Timeline([Segment(0.0, duration_s)])
    detail = metric(annotate(reference), annotate(turns), uem=whole, detailed=True)
    parts = ", ".join(
        f"{name} {detail[key]:.2f} s"
        for name, key in (("missed", "missed detection"), ("false alarm", "false alarm"), ("confused", "confusion"))
    )
    return float(detail["diarization error rate"]), parts


def _print_conversation(
    call: Call, segments: tuple[TranscriptSegment, ...], labels: dict[str, str | None], score: LineScore
) -> None:
    table = Table("from", "to", "before", "after", "true", "text", title="The conversation, before and after")
    for segment in segments:
        after = labels.get(segment.id)
        true = call.true_speakers[segment.id]
        mark = "dim" if after is None else "green" if score.names.get(after) == true else "bold red"
        times = (f"{segment.start_s:.2f}", f"{segment.end_s:.2f}")
        table.add_row(*times, segment.speaker, f"[{mark}]{after or 'unknown'}[/]", true, segment.text)
    console.print(table)


def _print_blocks(segments: tuple[TranscriptSegment, ...], update: ConversationUpdated) -> None:
    counts = ", ".join(f"{count} for {reason}" for reason, count in update.left_alone_counts.items()) or "none"
    console.print(
        f"the same call merged into {len(segments)} block(s) of up to 40 s: {len(update.changed)} changed, "
        f"left alone: {counts}",
        highlight=False,
    )


def _print_stages(recorder: MessageRecorder, published_s: float) -> None:
    table = Table("stage", "seconds", title="Where the time went")
    for name, seconds in recorder.stages("call", published_s).items():
        table.add_row(name, f"{seconds:.2f}")
    turns = [recorded.message for recorded in recorder.of(TopicKind.TURNS)]
    for name, milliseconds in getattr(turns[0], "timings_ms", {}).items() if turns else ():
        table.add_row(f"[dim]  in the worker: {name}[/]", f"[dim]{milliseconds / 1000:.2f}[/]")
    console.print(table)


def _write(
    out: Path,
    call: Call,
    segments: tuple[TranscriptSegment, ...],
    update: ConversationUpdated,
    turns: list[Turn],
    reference: list[Turn],
) -> None:
    labels = {label.id: label for label in update.segments}
    conversation = [
        {
            "id": segment.id,
            "start": segment.start_s,
            "end": segment.end_s,
            "text": segment.text,
            "speaker": labels[segment.id].speaker,
            "speaker_id": labels[segment.id].speaker_id,
            "coverage": labels[segment.id].coverage,
            "runner_up": labels[segment.id].runner_up,
        }
        for segment in segments
    ]
    (out / "conversation.json").write_text(json.dumps(conversation, indent=2, ensure_ascii=False) + "\n")
    with (out / "turns.rttm").open("w") as file:
        write_rttm(file, turns, file_id=call.audio.stem)
    lanes = {"reference": reference, "result": turns}
    draw_timeline(out / "timeline.png", lanes, call.duration_s, "Who spoke when: a 30 s telephone call")


if __name__ == "__main__":
    sys.exit(main())
