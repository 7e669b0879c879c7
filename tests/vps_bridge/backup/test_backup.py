"""Backups of a bridge at work, and what a restore brings back: everything but what was erased since."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.conversation import TranscriptSegment
from tests.brokers import RunningBroker
from tests.vps_bridge.commands.kept_call import KeptCall
from tests.vps_bridge.live_bridge import CALL_S, CALL_TURNS, Backend, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav
from vps_bridge.backup.erase_again import ErasedAgain
from vps_bridge.backup.make import WORK_PREFIX, make_backup
from vps_bridge.backup.manifest import BackupManifest, BackupUnusable, read_manifest
from vps_bridge.backup.restore import Restored, RestoreRefused, restore_backup
from vps_bridge.conversations.sqlite import STORE_FILE, SqliteConversations
from vps_bridge.database import DatabaseUnreadable
from vps_bridge.intake.erasure import erase_audio, erase_conversation
from vps_bridge.intake.people import People
from vps_bridge.intake.spool import SPOOL, Spool
from vps_bridge.ledger import Ledger, LedgerBusy, LedgerMissing
from vps_bridge.ledger.conversations import AssignedUpdate
from vps_bridge.ledger.erasure_log import LOG_NAME
from vps_bridge.ledger.ledger import FILE_NAME
from vps_bridge.ledger.records import NewChunk, SpeakerHints
from vps_bridge.rules.assemble import JobPlan, PlannedChunk

IN_FLIGHT, DONE, ERASED, SILENCED = "in-flight", "done", "erased", "silenced"


def ignore(_what: str, _done: int, _total: int) -> None:
    """A report to nobody."""


@pytest.mark.slow
def test_a_backup_made_under_load_restores_to_a_bridge_that_loses_nothing(
    own_broker: RunningBroker, own_backend: Backend, tmp_path: Path
) -> None:
    """Audio comes all the while; what was accepted before the backup began is diarized after the restore."""
    backend, file = own_backend, tmp_path / "backup.tar"
    with run_bridge(own_broker, tmp_path / "data", backend) as bridge:
        bridge.allow("first")
        with ScriptedAgent(own_broker, "first") as agent:
            backend.send_call(DONE)
            agent.answer(agent.wait_offer(DONE), CALL_TURNS)
            labels = backend.wait_updated(DONE).segments
        accepted, stop = send_all_the_while(backend)
        wait_until(lambda: len(accepted) >= 3, "audio before the backup")
        before = len(accepted)
        made = bridge.json("backup", str(file))
        wait_until(lambda: len(accepted) > before, "audio after the backup")
        stop()
        bridge.kill()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert made["conversations"] >= before
        assert made["chunks"] >= before
        refused = bridge.command("restore", str(file), check=False)
        assert refused.returncode == 1
        assert "--overwrite" in refused.stderr
        restored = bridge.json("restore", str(file), "--overwrite", "--yes")
        assert restored["knows_erasures"]
        bridge.start(backend)
        with ScriptedAgent(own_broker, "first") as agent:
            for name in accepted[:before]:
                agent.answer(agent.wait_offer(name), CALL_TURNS)
                assert backend.wait_updated(name).segments
        assert bridge.json("show", DONE)["state"] == "final"
        assert {row["id"]: row["speaker_id"] for row in bridge.json("show", DONE)["segments"]} == {
            label.id: label.speaker_id for label in labels
        }


def send_all_the_while(backend: Backend) -> tuple[list[str], Any]:
    """Send calls from a thread; return those that were accepted as they come, and what stops it."""
    accepted: list[str] = []
    stopping = threading.Event()

    def send() -> None:
        for number in range(1_000):
            if stopping.is_set():
                return
            name = f"{IN_FLIGHT}-{number}"
            backend.send_call(name, tone=number)
            accepted.append(name)

    thread = threading.Thread(target=send)
    thread.start()

    def stop() -> None:
        stopping.set()
        thread.join()

    return accepted, stop


class StoppedBridge:
    """Files of a bridge that is stopped: three conversations with audio, of which nothing is diarized yet."""

    def __init__(self, root: Path) -> None:
        self.root, self.file = root, root.parent / "backup.tar"

    def write(self) -> None:
        with self.opened() as (ledger, store, spool):
            for name in (IN_FLIGHT, ERASED, SILENCED):
                new = NewChunk(name, "c", "0" * 64, 1_000, spool.write(make_wav(1.0)), "wav", duration_s=CALL_S)
                ledger.chunks.accept(new, SpeakerHints(), final=False)
                ledger.jobs.add(name, (JobPlan((PlannedChunk("c", None),), ("c",)),))
                store.upsert_segments(name, 1, [TranscriptSegment(id="s", start_s=0.0, end_s=4.0, text="words")])
            ledger.people.add("", "anna")
            for agent in ("kept-mac", "sold-mac", "lent-mac"):
                ledger.agents.set_allowed(agent, allowed=True)

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[Ledger, SqliteConversations, Spool]]:
        ledger, store = Ledger(self.root, exclusive=True), SqliteConversations(self.root / STORE_FILE)
        try:
            yield ledger, store, Spool(self.root / SPOOL)
        finally:
            store.close()
            ledger.close()

    def back_up(self) -> BackupManifest:
        return make_backup(self.root, self.file, ignore)

    def restore(self, **options: Any) -> Restored:
        return restore_backup(self.file, self.root, ignore, **options)

    def erase(self) -> None:
        """Erase what the tests look for afterwards, each in its own way."""
        with self.opened() as (ledger, store, spool):
            erase_conversation(ERASED, ledger, spool, store)
            erase_audio(SILENCED, ledger, spool)
            People(ledger, store).forget("", "anna")
            ledger.agents.forget("sold-mac")
            ledger.agents.set_allowed("lent-mac", allowed=False)

    def find_kept(self) -> dict[str, Any]:
        with self.opened() as (ledger, store, spool):
            audio = [name for name in (IN_FLIGHT, ERASED, SILENCED) if _has_audio(name, ledger, spool)]
            people = [person.person_id for person in ledger.people.of_owner("")]
            known = {"conversations": sorted(ledger.listing.latest_first()), "texts": sorted(store.known())}
            return known | {"audio": audio, "people": people, "agents": sorted(ledger.agents.allowed())}


def _has_audio(name: str, ledger: Ledger, spool: Spool) -> bool:
    chunks = ledger.chunks.of_conversation(name)
    return any(chunk.spool_name and spool.path(chunk.spool_name).exists() for chunk in chunks)


WHOLE = {
    "conversations": sorted([IN_FLIGHT, ERASED, SILENCED]),
    "texts": sorted([IN_FLIGHT, ERASED, SILENCED]),
    "audio": [IN_FLIGHT, ERASED, SILENCED],
    "people": ["anna"],
    "agents": ["kept-mac", "lent-mac", "sold-mac"],
}
ERASED_SINCE = {
    "conversations": sorted([IN_FLIGHT, SILENCED]),
    "texts": sorted([IN_FLIGHT, SILENCED]),
    "audio": [IN_FLIGHT],
    "people": [],
    "agents": ["kept-mac"],
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files, to be copied: to make them takes longer than any test here."""
    root = tmp_path_factory.mktemp("written") / "bridge"
    StoppedBridge(root).write()
    return root


@pytest.fixture
def stopped(written: Path, tmp_path: Path) -> StoppedBridge:
    shutil.copytree(written, tmp_path / "bridge")
    return StoppedBridge(tmp_path / "bridge")


def test_what_was_erased_after_a_backup_stays_erased_and_the_log_names_nobody(stopped: StoppedBridge) -> None:
    stopped.back_up()
    stopped.erase()
    done = stopped.restore(overwrite=True)
    assert done.knows_erasures
    assert done.erased == ErasedAgain(conversations=1, audio=1, people=1, agents=2)
    assert stopped.find_kept() == ERASED_SINCE
    log = (stopped.root / LOG_NAME).read_text()
    assert len(log.splitlines()) > 5
    assert not any(word in log for word in (ERASED, SILENCED, "anna", "mac"))
    assert stopped.restore(overwrite=True).erased == done.erased, "the log goes on in what was restored"
    assert done.previous is not None
    assert (done.previous / STORE_FILE).exists()


def test_a_backup_holds_what_was_erased_before_it_as_erased(stopped: StoppedBridge) -> None:
    stopped.erase()
    stopped.back_up()
    with stopped.opened() as (ledger, _store, _spool):
        ledger.people.add("", "anna")
    stopped.back_up()
    assert stopped.restore(overwrite=True).erased == ErasedAgain()
    assert stopped.find_kept() == ERASED_SINCE | {"people": ["anna"]}, "whoever was taught anew is not forgotten again"


def test_an_older_backup_put_back_first_forgets_nobody_taught_anew_in_a_later_one(stopped: StoppedBridge) -> None:
    stopped.back_up()
    older = stopped.file.rename(stopped.file.with_name("older.tar"))
    stopped.erase()
    with stopped.opened() as (ledger, _store, _spool):
        ledger.people.add("", "anna")
    stopped.back_up()
    assert restore_backup(older, stopped.root, ignore, overwrite=True).erased.people == 1
    assert stopped.restore(overwrite=True).erased == ErasedAgain(), "erasing again is no new erasure"
    assert stopped.find_kept() == ERASED_SINCE | {"people": ["anna"]}


def test_on_another_machine_a_copy_of_the_log_is_asked_for(stopped: StoppedBridge, tmp_path: Path) -> None:
    stopped.back_up()
    stopped.erase()
    copied = tmp_path / "copy-of-erasures.log"
    shutil.copy(stopped.root / LOG_NAME, copied)
    shutil.rmtree(stopped.root)
    assert not stopped.restore().knows_erasures
    assert stopped.find_kept() == WHOLE
    shutil.rmtree(stopped.root)
    done = stopped.restore(erasures=copied)
    assert done.knows_erasures
    assert stopped.find_kept() == ERASED_SINCE


def test_a_restore_replaces_nothing_unasked_and_nothing_while_a_bridge_runs(stopped: StoppedBridge) -> None:
    stopped.back_up()
    with pytest.raises(RestoreRefused, match="--overwrite"):
        stopped.restore()
    with stopped.opened(), pytest.raises(LedgerBusy, match="stop it first"):
        stopped.restore(overwrite=True)
    assert stopped.find_kept() == WHOLE


@pytest.mark.parametrize("lost", [FILE_NAME, STORE_FILE])
def test_what_a_restore_replaces_is_kept_though_a_part_of_it_is_lost(stopped: StoppedBridge, lost: str) -> None:
    """Corrections made since the backup are nowhere else: who finds the other file again has them."""
    stopped.back_up()
    (stopped.root / lost).unlink()
    left = {path.name: path.read_bytes() for path in stopped.root.glob("*.sqlite3")}
    previous = stopped.restore(overwrite=True).previous
    assert previous is not None
    assert {path.name: path.read_bytes() for path in previous.glob("*.sqlite3")} == left


@pytest.mark.parametrize("harm", ["cut", "flipped", "another", "path"])
def test_a_damaged_backup_is_refused_and_changes_nothing(stopped: StoppedBridge, harm: str) -> None:
    stopped.back_up()
    data = bytearray(stopped.file.read_bytes())
    if harm == "cut":
        del data[len(data) // 2 :]
    elif harm == "flipped":
        data[len(data) // 2] ^= 0xFF
    elif harm == "another":
        data = bytearray(b"no backup at all" * 1_000)
    else:
        data = data.replace(b"conversations.sqlite3", b"../versations.sqlite3")
    stopped.file.write_bytes(data)
    with pytest.raises(BackupUnusable, match="Nothing was changed"):
        stopped.restore(overwrite=True)
    assert stopped.find_kept() == WHOLE
    assert not [path for path in stopped.root.parent.iterdir() if "restoring" in path.name]


def test_a_backup_is_private_anonymous_and_holds_only_audio_that_is_needed(stopped: StoppedBridge) -> None:
    with stopped.opened() as (ledger, _store, spool):
        job = ledger.jobs.of_conversation(SILENCED)[0]
        lease = ledger.leases.grant(job.job_id, "kept-mac", "i", ("m", "1"))
        assert lease is not None
        ledger.jobs.store_result(lease, b"turns")
        update = AssignedUpdate([], "key", b"{}", True, (job.job_id,), 1)
        ledger.conversations.note_update(SILENCED, update)
        assert _has_audio(SILENCED, ledger, spool), "kept for listening"
    (stopped.root / f"{WORK_PREFIX}killed").mkdir()
    made = stopped.back_up()
    assert (made.conversations, made.chunks) == (3, 2)
    assert stat.S_IMODE(stopped.file.stat().st_mode) == 0o600
    assert not list(stopped.root.glob(f"{WORK_PREFIX}*")), "also what a killed backup left"
    with tarfile.open(stopped.file) as tar:
        assert {(member.uname, member.uid, member.mode) for member in tar} == {("", 0, 0o600)}
    assert read_manifest(stopped.file) == made
    stopped.restore(overwrite=True)
    assert stopped.find_kept()["audio"] == [IN_FLIGHT, ERASED]


def test_a_database_that_is_damaged_is_no_backup_and_the_last_one_stays(stopped: StoppedBridge) -> None:
    """A row that belongs to none, as a damaged disk or a hand in the file leaves it."""
    made = stopped.back_up()
    with contextlib.closing(sqlite3.connect(stopped.root / STORE_FILE)) as file, file:
        file.execute("UPDATE segments SET conversation_id = 'nobody-' || conversation_id")
    with pytest.raises(DatabaseUnreadable, match=r"segments belongs to none.*restore a backup") as raised:
        stopped.back_up()
    assert str(raised.value).startswith(f"{stopped.root / STORE_FILE} "), (
        "the bridge's own file and no copy that is gone"
    )
    assert read_manifest(stopped.file) == made
    assert sorted(path.name for path in stopped.root.parent.iterdir()) == ["backup.tar", "bridge"]
    assert not list(stopped.root.glob(f"{WORK_PREFIX}*"))


def test_backups_at_the_same_time_are_all_whole(stopped: StoppedBridge) -> None:
    """One that begins takes what one that runs has copied for no leftover."""
    begun: list[BackupManifest] = []

    def begin_another(_what: str, done: int, total: int) -> None:
        if done == total and not begun:
            begun.append(make_backup(stopped.root, stopped.root.parent / "another.tar", ignore))

    make_backup(stopped.root, stopped.file, begin_another)
    assert len(begun) == 1
    for file in (stopped.file, stopped.root.parent / "another.tar"):
        assert read_manifest(file).conversations == begun[0].conversations
        with tarfile.open(file) as tar:
            assert {STORE_FILE, FILE_NAME} <= set(tar.getnames())
    assert not list(stopped.root.glob(f"{WORK_PREFIX}*"))


def test_where_no_bridge_ever_ran_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    with pytest.raises(LedgerMissing, match="omi-bridge run"):
        make_backup(tmp_path / "bridge", tmp_path / "backup.tar", ignore)


def test_commands_say_what_they_did_and_what_to_do(tmp_path: Path) -> None:
    call, file = KeptCall(tmp_path / "data"), tmp_path / "backup.tar"
    assert "make it first" in call.run("backup", str(tmp_path / "missing" / "backup.tar")).stderr
    assert "1 conversations and 0 chunks of audio" in call.run("backup", str(file)).stdout
    assert "say --overwrite" in call.run("restore", str(file)).stderr
    assert "say --yes" in call.run("restore", str(file), "--overwrite").stderr
    done = call.run("restore", str(file), "--overwrite", "--yes")
    assert done.exit_code == 0
    assert "restored 1 conversations" in done.stdout
    assert "erased again, as since then: 0 conversations" in done.stdout
    assert "delete it once all is well" in done.stdout
    assert call.run("show", "call").exit_code == 0


def test_a_backup_replaces_nothing_that_is_no_file(tmp_path: Path) -> None:
    call, pipe, link = KeptCall(tmp_path / "data"), tmp_path / "pipe", tmp_path / "stdout"
    os.mkfifo(pipe)  # stands for a device: root's backup to /dev/full had put a file in its place
    link.symlink_to(pipe)
    for place in (pipe, link, tmp_path):
        refused = call.run("backup", str(place))
        assert refused.exit_code == 1
        assert "is no file that could be replaced" in refused.stderr
    assert pipe.is_fifo()
    assert link.is_symlink()


@pytest.mark.parametrize("name", [FILE_NAME, STORE_FILE, "new.tar"])
def test_no_command_writes_among_the_bridges_own_files(tmp_path: Path, name: str) -> None:
    call, link = KeptCall(tmp_path / "data"), tmp_path / "link"
    link.symlink_to(tmp_path / "data" / "bridge")
    for place in (tmp_path / "data" / "bridge" / name, link / name):
        for command in (("backup", str(place)), ("export", "call", "--format", "srt", "--force", "-o", str(place))):
            refused = call.run(*command)
            assert refused.exit_code == 1
            assert "among the bridge's own files" in refused.stderr
    assert call.run("show", "call").exit_code == 0


def test_a_dash_is_no_name_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = KeptCall(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for command in (("backup", "-"), ("export", "call", "--format", "srt", "--output", "-")):
        refused = call.run(*command)
        assert refused.exit_code == 2, refused.output
        assert "name a file" in refused.stderr
    assert not (tmp_path / "-").exists()


def test_links_lead_to_what_a_backup_and_a_restore_replace(tmp_path: Path) -> None:
    data, file, link = tmp_path / "data", tmp_path / "b.tar", tmp_path / "latest.tar"
    call = KeptCall(data)
    (tmp_path / "disk").mkdir()
    (data / "bridge").rename(tmp_path / "disk" / "bridge")
    (data / "bridge").symlink_to(tmp_path / "disk" / "bridge")
    link.symlink_to(file)
    assert call.run("backup", str(link)).exit_code == 0
    assert link.is_symlink()
    assert file.stat().st_size > 0
    assert call.run("restore", str(file), "--overwrite", "--yes").exit_code == 0
    assert (data / "bridge").is_symlink(), "the data stay on their disk"
    assert call.run("show", "call").exit_code == 0
