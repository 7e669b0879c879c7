"""What each command that lists or shows something prints at 80 columns, compared with a file that a person has read.

After a change that is meant, write the files anew and read what changed in them:

    OMI_REFRESH_GOLDEN=1 python -m pytest tests/vps_bridge/commands/test_golden_output.py; git diff tests/golden_output
"""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from broker.check import failed, note, ok, print_checks
from broker.terminal import SafeConsole
from schemas.conversation import ConversationEvent, EventType, TranscriptSegment, Verdict
from schemas.people import PersonEvent, PersonEventType
from vps_bridge.client.round_trip import Moment, RoundTrip
from vps_bridge.commands import terminal
from vps_bridge.commands.main import app
from vps_bridge.commands.ping import print_trip
from vps_bridge.conversations.sqlite import STORE_FILE, SqliteConversations
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import NewChunk, SpeakerHints
from vps_bridge.ledger.refusals import RefusedChunk
from vps_bridge.rules.assemble import JobPlan, PlannedChunk
from vps_bridge.rules.lease import LeaseEnd

GOLDEN = Path(__file__).parents[2] / "golden_output"
COLUMNS = 80
NOW = 1_780_000_000.0
LONG = "conversation-of-the-whole-family-on-the-way-home-from-the-seaside"
WHY = "out of memory at 12.1 GB, three times in a row"
COMMANDS = {
    "agents": ("agents",),
    "conversations": ("conversations",),
    "jobs": ("jobs",),
    "jobs-failed": ("jobs", "--state", "failed"),
    "failed": ("failed",),
    "show-conversation": ("show", "call-1"),
    "show-job": ("show", "j-000000000000000000000001"),
    "show-refused": ("show", "call-3"),
    "history": ("history", "call-1"),
    "history-empty": ("history", LONG),
    "people-list": ("people", "list", "--owner", "user-1"),
    "people-show": ("people", "show", "anna", "--owner", "user-1"),
    "retry": ("retry", "--all"),
    "agents-allow-typo": ("agents", "allow", "my-mca"),
    "undo-unknown": ("undo", "call-1", "7"),
    "unknown-conversation": ("show", "no-such-call"),
}
TABLES = {"agents", "conversations", "jobs", "jobs-failed", "show-conversation"}


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    """One moment, ids that count up, and a terminal of 80 columns."""
    with pytest.MonkeyPatch.context() as made:
        made.setattr(time, "time", lambda: NOW)
        for console in (terminal.out, terminal.err):
            made.setattr(console, "_width", COLUMNS)
        made.setenv("TZ", "UTC")
        made.setenv("NO_COLOR", "1")
        made.setenv("USER", "somebody")
        made.setenv("LOGNAME", "somebody")
        time.tzset()
        yield made
    time.tzset()


@pytest.fixture(scope="module")
def data_dir(patch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a bridge: two conversations, three jobs, audio that was refused, two agents, a person."""
    home = tmp_path_factory.mktemp("golden")
    ledger = Ledger(home / "bridge", exclusive=True)
    numbers = itertools.count(1)  # of what follows: which ids the ledger gave itself does not matter
    patch.setattr(secrets, "token_hex", lambda size=16: f"{next(numbers):0{2 * size}x}")
    started = ConversationEvent(event_id="e-1", type=EventType.STARTED, owner="user-1")
    ledger.events.note(started, "call-1", Verdict.ACCEPTED)
    jobs = [_job(ledger, "call-1", "k-1", 60.0), _job(ledger, LONG, "k-2", 90.5), _job(ledger, LONG, "k-3", 15.0)]
    lease = ledger.leases.grant(jobs[0], "mac-studio-in-the-office", "i-1", ("model", "1"))
    assert lease is not None
    ledger.leases.end(lease.lease_id, LeaseEnd.AGENT_STALE)
    for _ in range(3):
        assert ledger.leases.grant(jobs[1], "mac-studio-in-the-office", "i-1", ("model", "1"))
        ledger.jobs.note_failure(jobs[1], "engine.crashed", WHY, counted=True)
    ledger.jobs.give_up(jobs[1], "engine.crashed", WHY)
    _refuse(ledger)
    _agents(ledger)
    named = PersonEvent(event_id="p-1", type=PersonEventType.NAMED, owner="user-1", name="Anna from next door")
    ledger.people.add("user-1", "anna")
    ledger.people.note("anna", named, Verdict.ACCEPTED)
    ledger.close()
    store = SqliteConversations(home / "bridge" / STORE_FILE)
    store.upsert_segments("call-1", 1, _segments())
    store.close()
    code, said = _invoke(home, "correct", "call-1", "segment", "s-2", "--person", "anna", "--by", "Bea")
    assert code == 0, said
    return home


def _job(ledger: Ledger, conversation_id: str, chunk_id: str, audio_s: float) -> str:
    chunk = NewChunk(conversation_id, chunk_id, "0" * 64, 160_000, f"s-{chunk_id}", "wav", duration_s=audio_s)
    ledger.chunks.accept(chunk, SpeakerHints(), final=False)
    (job_id,) = ledger.jobs.add(conversation_id, (JobPlan((PlannedChunk(chunk_id, None),), (chunk_id,)),))
    return job_id


def _refuse(ledger: Ledger) -> None:
    fields: dict[str, Any] = {"sha256": "ab" * 32, "bytes": 44, "reason": "audio.empty", "message": "no sound in it"}
    ledger.refusals.note(RefusedChunk("call-3", "k-9", **fields, times=2, first_at=NOW - 600, last_at=NOW - 300))
    ledger.refusals.write(float("inf"))


def _agents(ledger: Ledger) -> None:
    engine = {"name": "pyannote", "device": "mps", "mode": "exact"}
    beat = {"state": "online", "engine": engine, "jobs": [{}], "sent_at": "2026-05-01T00:00:00Z"}
    ledger.agents.note_heartbeat("mac-studio-in-the-office", beat)
    ledger.agents.set_allowed("mac-studio-in-the-office", allowed=True)
    ledger.agents.note_heartbeat("laptop", beat | {"jobs": []})


def _segments() -> list[TranscriptSegment]:
    said = "So we drove on until the coast road ends, and there it was, the whole bay at once. [laughter]"
    return [
        TranscriptSegment(id="s-1", start_s=0.5, end_s=9.5, text=said, speaker="SPEAKER_00"),
        TranscriptSegment(id="s-2", start_s=10.0, end_s=11.25, text="And the dog?", speaker="SPEAKER_00"),
        TranscriptSegment(id="s-3", start_s=3_600.0, end_s=3_601.0, text="Asleep, of course.", is_user=True),
    ]


def _invoke(home: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words), env={"OMI_DATA_DIR": str(home), "OMI_CONFIG": ""})
    return done.exit_code, done.output


def compare(name: str, said: str) -> None:
    """Compare with the golden file; with OMI_REFRESH_GOLDEN write it."""
    file = GOLDEN / f"{name}.txt"
    text = "".join(f"{line.rstrip()}\n" for line in said.splitlines())
    if os.environ.get("OMI_REFRESH_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_prints_what_is_in_its_golden_file(name: str, data_dir: Path) -> None:
    code, said = _invoke(data_dir, *COMMANDS[name])
    compare(name, f"$ omi-bridge {' '.join(COMMANDS[name])}\n{said.replace(str(data_dir), 'DATA')}exit code {code}\n")
    if name in TABLES:
        assert max(map(len, said.splitlines())) <= COLUMNS
        assert "…" not in said


@pytest.mark.parametrize("name", ["agents", "conversations", "jobs", "failed"])
def test_a_list_of_nothing_says_so(name: str, patch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Ledger(tmp_path / "bridge", exclusive=True).close()
    code, said = _invoke(tmp_path, name)
    compare(f"{name}-empty", f"$ omi-bridge {name}\n{said}exit code {code}\n")


def test_a_ping_that_came_back_and_one_that_did_not(patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    at_s = (0.0, 0.004, 0.021, 0.03, 2.4, 2.41, 4.9, 4.93, 5.1)
    whole = RoundTrip("mac-studio-in-the-office", "pyannote exact mps", dict(zip(Moment, at_s, strict=True)), 187.0)
    print_trip(whole)
    cut = RoundTrip("laptop", moments=dict(list(whole.moments.items())[:4]), problem="laptop has it and is silent")
    cut.remedy = "On that machine: omi-agent logs, omi-agent doctor --deep"
    print_trip(cut)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines()[:9])) <= COLUMNS
    compare("ping", said)


def test_a_doctors_lines(patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    checks = (
        ok("ledger", "the file is whole"),
        note("tailnet", "100.64.0.7; the key expires on 2026-05-10", "tailscale up --force-reauth"),
        failed("agent laptop", "is live, and nobody has allowed it", "omi-bridge agents allow laptop"),
    )
    print_checks(SafeConsole(markup=False, width=COLUMNS, no_color=True), checks)
    compare("doctor", capsys.readouterr().out)


def _all_commands() -> dict[str, tuple[str, ...]]:
    root = typer.main.get_command(app)
    found: dict[str, tuple[str, ...]] = {}
    for name, command in root.commands.items():  # type: ignore[attr-defined] # of a group
        found[name] = (name,)
        found |= {f"{name} {sub}": (name, sub) for sub in getattr(command, "commands", {})}
    return found


@pytest.mark.slow  # 40 of them
@pytest.mark.parametrize("name", _all_commands())
def test_the_help_of_every_command_fits_80_columns_and_has_an_example(name: str, patch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(app, [*_all_commands()[name], "--help"], env={"COLUMNS": str(COLUMNS)})
    assert done.exit_code == 0
    assert max(map(len, done.output.splitlines())) <= COLUMNS
    assert "Example" in done.output
