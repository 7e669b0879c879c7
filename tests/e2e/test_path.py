"""The whole path through real processes, from audio to labels, on both brokers."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.recordings import voices
from schemas.conversation import Accepted, EventType, Verdict
from schemas.corrections import Correction, CorrectionKind
from tests.brokers import AGENT_ID, REPOSITORY
from tests.e2e.readers_calls import CHUNK_S, people_in, write_calls
from tests.e2e.system import (
    MqttBackend,
    System,
    count_right,
    make_wav,
    models_dir,
    read_wav,
    sample_folder,
    sample_segments,
    wait_until,
)
from tests.inbox import WAIT_S

PART_S = 5
NAME = "Anna Arkadyevna Oblonskaya"
OURS = {"schemas", "broker", "vps_bridge", "mac_agent", "omi_diarization_client", "tests", "benchmarks", "demo"}


def test_a_published_file_labels_an_imported_transcript(any_system: System, tmp_path: Path) -> None:
    system = any_system
    system.start_bridge()
    system.start_agent()
    system.command("omi-bridge", "agents", "allow", AGENT_ID)
    segments, _ = sample_segments("call")
    transcript = tmp_path / "transcript.json"
    transcript.write_text(json.dumps([segment.model_dump(mode="json") for segment in segments]))

    system.command("omi-bridge", "import", str(transcript), "--conversation", "call")
    answer = system.command(
        "omi-bridge", "publish", str(sample_folder() / "sample.wav"), "--conversation", "call", "--wait", "--json"
    )

    update = json.loads(answer)["updated"]
    assert update["state"] == "final"
    shown = system.show("call")
    assert shown["state"] == "final"
    labels = {segment["id"]: segment["speaker"] for segment in shown["segments"]}
    right, wrong_long = count_right(labels, "call")
    assert right >= 12
    assert wrong_long == 0
    assert len({label for label in labels.values() if label}) == 2
    jobs = json.loads(system.command("omi-bridge", "jobs", "--json"))
    assert [job["state"] for job in jobs] == ["done"]
    inbox = system.data_dir / "inbox"
    assert inbox.is_dir()
    assert not list(inbox.glob("*.audio")), "the agent kept audio of a settled job"


def test_a_plain_mqtt_client_plays_the_backend(any_system: System, backend: MqttBackend) -> None:
    any_system.start_bridge()
    any_system.start_agent()
    any_system.allow_agent()
    segments, _ = sample_segments("plain")
    samples, rate = read_wav(sample_folder() / "sample.wav")
    step = PART_S * rate * 2

    assert backend.event("plain", EventType.STARTED).verdict is Verdict.ACCEPTED
    assert backend.event("plain", EventType.SEGMENTS, revision=1, segments=segments).verdict is Verdict.ACCEPTED
    chunks = [samples[start : start + step] for start in range(0, len(samples), step)]
    for number, chunk in enumerate(chunks):
        receipt = backend.audio(
            "plain", chunk, sequence=number, encoding="pcm_s16le", sample_rate=rate, channels=1, duration_s=PART_S
        )
        assert receipt is not None
        assert receipt.verdict is Verdict.ACCEPTED
    backend.event("plain", EventType.COMPLETED, chunks=len(chunks))
    update = backend.updated("plain")

    right, wrong_long = count_right({label.id: label.speaker for label in update.segments}, "plain")
    assert right >= 12
    assert wrong_long == 0
    assert update.audio_s == pytest.approx(30.0, abs=0.5)


def test_chunks_of_a_long_call_keep_one_voice_one_label(working_system: System, backend: MqttBackend) -> None:
    """Three minutes in 30 s chunks become several jobs; both people keep their speaker numbers in all of them."""
    samples, rate = read_wav(sample_folder() / "sample.wav")
    lines, truth = sample_segments("long")
    repeats = 6
    segments = [
        line.model_copy(
            update={"id": f"{line.id}-{turn}", "start_s": line.start_s + 30 * turn, "end_s": line.end_s + 30 * turn}
        )
        for turn in range(repeats)
        for line in lines
    ]
    backend.event("long", EventType.STARTED)
    backend.event("long", EventType.SEGMENTS, revision=1, segments=segments)
    for number in range(repeats):
        backend.audio("long", make_wav(samples, rate), sequence=number, encoding="wav")
    backend.event("long", EventType.COMPLETED, chunks=repeats)
    update = backend.updated("long")

    jobs = json.loads(working_system.command("omi-bridge", "jobs", "--json"))
    assert len([job for job in jobs if job["conversation_id"] == "long"]) >= 2
    by_truth: dict[str, set[str]] = {}
    for label in update.segments:
        line = next(line for line in lines if label.id.startswith(f"{line.id}-"))
        if label.speaker is not None and line.end_s - line.start_s >= 2.0:
            by_truth.setdefault(truth[line.id], set()).add(label.speaker)
    assert all(len(labels) == 1 for labels in by_truth.values()), by_truth
    assert len(set.union(*by_truth.values())) == 2


def test_a_backend_that_speaks_only_mqtt_corrects_undoes_and_hears_what_became_of_it(
    working_system: System, backend: MqttBackend
) -> None:
    samples, rate = read_wav(sample_folder() / "sample.wav")
    segments, _ = sample_segments("mended")
    backend.event("mended", EventType.STARTED)
    backend.event("mended", EventType.SEGMENTS, revision=1, segments=segments)
    backend.audio("mended", make_wav(samples, rate), sequence=0, encoding="wav")
    backend.event("mended", EventType.COMPLETED, chunks=1)
    before = backend.updated("mended")
    assert {label.speaker_id for label in before.segments} >= {0, 1}

    merge = Correction(kind=CorrectionKind.SAME_VOICE, speaker_ids=(0, 1))
    name = Correction(kind=CorrectionKind.VOICE_IS, speaker_id=0, person_id="diane")
    backend.event("mended", EventType.CORRECTED, event_id="e-mend", corrections=(merge, name), by="diane")
    merged = backend.updated("mended", version=before.updated_version + 1)
    ((speaker, person),) = {(label.speaker, label.person_id) for label in merged.segments}
    assert (speaker in {"SPEAKER_00", "SPEAKER_01"}, person) == (True, "diane"), "the number of who says more stays"
    assert [(one.event_id, one.outcome) for one in merged.corrections] == [("e-mend", "spread")] * 2

    backend.event("mended", EventType.UNDONE, target_event_id="e-mend")
    undone = backend.updated("mended", version=merged.updated_version + 1)
    assert undone.segments == before.segments
    assert working_system.show("mended")["segments"][0]["label_source"] is None


def access_as_backend(system: System) -> dict[str, object]:
    """Where the broker is, and who the backend is there."""
    address, user = urlsplit(system.broker.url), system.broker.users["backend"]
    return {"host": address.hostname, "port": address.port, "user": user.username, "password": user.password}


@pytest.mark.shared
def test_a_backend_of_schemas_alone_confirms_enrols_corrects_forgets_and_hears_the_outcome(
    working_system: System, tmp_path: Path
) -> None:
    known, beside, enrolled, stranger = voices()[:4]
    said = {
        **access_as_backend(working_system),
        "chunk_s": CHUNK_S,
        "schemas": str(REPOSITORY / "schemas"),
        "folder": str(write_calls(tmp_path)),
        "known": known,
        "name": NAME,
    }
    script = Path(__file__).with_name("schemas_backend.py")
    done = subprocess.run(
        [sys.executable, "-I", str(script), json.dumps(said)],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        text=True,
        timeout=6 * WAIT_S,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert not OURS & set(told["modules"])
    assert set(told["verdicts"]) == {"accepted"}
    assert told["refused"]["verdict"] == "refused", "no owner's conversation teaches another's people"

    assert people_in(told["first"]) == {known: {None}, beside: {None}}
    assert people_in(told["confirmed"]) == {known: {("anna", "confirmed")}, beside: {None}}
    assert people_in(told["second"]) == {known: {("anna", "matched")}, enrolled: {None}}, told["second"]
    assert people_in(told["corrected"]) == {known: {None}, enrolled: {None}}
    assert [(one["kind"], one["outcome"]) for one in told["outcomes"]] == [("voice_is_not", "spread")]
    assert told["undone_is_as_before"]
    assert (told["enrolment"]["person_id"], told["enrolment"]["outcome"]) == ("ben", "learned")
    assert people_in(told["third"]) == {enrolled: {("ben", "matched")}, stranger: {None}}, told["third"]
    assert people_in(told["without_anna"]) == {known: {None}, enrolled: {("ben", "matched")}}
    assert people_in(told["without_both"]) == {known: {None}, enrolled: {None}}
    left = working_system.command("omi-bridge", "people", "list", "--owner", "user-1", "--json")
    assert json.loads(left)["people"] == []


def test_a_bare_wav_file_works_as_audio(working_system: System, backend: MqttBackend) -> None:
    segments, _ = sample_segments("bare")
    backend.event("bare", EventType.STARTED)
    backend.event("bare", EventType.SEGMENTS, revision=1, segments=segments)

    backend.publish("omi/v1/conversations/bare/audio", (sample_folder() / "sample.wav").read_bytes())
    wait_until(lambda: any(receipt.chunk_id for receipt in backend.seen(Accepted, "bare")), "the receipt")
    backend.event("bare", EventType.COMPLETED, chunks=1)

    right, _ = count_right({label.id: label.speaker for label in backend.updated("bare").segments}, "bare")
    assert right >= 12


def test_a_file_larger_than_a_message_travels_in_parts(working_system: System, tmp_path: Path) -> None:
    """Two and a half minutes of WAV (4.8 MB) do not fit into one message: they are sent in parts on both hops."""
    samples, rate = read_wav(sample_folder() / "sample.wav")
    long_call = tmp_path / "long.wav"
    long_call.write_bytes(make_wav(samples * 5, rate))

    answer = json.loads(
        working_system.command("omi-bridge", "publish", str(long_call), "--conversation", "parts", "--wait", "--json")
    )

    assert answer["updated"]["audio_s"] == pytest.approx(150.0, abs=0.5)
    assert answer["updated"]["speakers"] >= 2
    assert answer["bytes"] > 4_000_000


def test_deleted_leaves_no_row_and_no_file(system: System, backend: MqttBackend) -> None:
    """Searched are every table of ledger and store, the bytes of both databases and their logs, the bridge's spool and
    half-received chunks, the agent's inbox and outbox, and the broker's own files."""
    system.start_bridge()
    system.start_agent()
    system.allow_agent()
    samples, rate = read_wav(sample_folder() / "sample.wav")
    segments, _ = sample_segments("gone")
    secret = "a-sentence-that-must-vanish"
    segments = (segments[0].model_copy(update={"text": secret}), *segments[1:])
    audio = make_wav(samples, rate)
    backend.event("gone", EventType.STARTED)
    backend.event("gone", EventType.SEGMENTS, revision=1, segments=segments)
    backend.audio("gone", audio, encoding="wav")
    backend.event("gone", EventType.COMPLETED, chunks=1)
    backend.updated("gone")
    person = "anna-karenina-of-yasnaya-polyana"
    named = Correction(kind=CorrectionKind.SEGMENT_IS, segment_id=segments[0].id, person_id=person)
    assert backend.event("gone", EventType.CORRECTED, corrections=(named,), by=person).verdict is Verdict.ACCEPTED
    assert any(system.spool.iterdir()), "the test must have something to delete"

    assert backend.event("gone", EventType.DELETED).verdict is Verdict.ACCEPTED

    assert "is deleted" in system.command("omi-bridge", "show", "gone", check=False)
    fingerprint = samples[100_000:100_064]
    kept = []
    for file in (path for path in system.data_dir.parent.rglob("*") if path.is_file() and "logs" not in path.parts):
        content = file.read_bytes()
        if secret.encode() in content or fingerprint in content or person.encode() in content:
            kept.append(str(file))
    assert not kept
    assert not any(system.spool.iterdir())
    assert _rows_naming(system.data_dir / "bridge" / "ledger.sqlite3", "gone") == {"tombstones"}
    assert _rows_naming(system.data_dir / "bridge" / "conversations.sqlite3", "gone") == set()

    late = backend.audio("gone", audio, encoding="wav")
    assert late is not None
    assert (late.verdict, late.reason) == (Verdict.DISCARDED, "conversation.deleted")
    assert not any(system.spool.iterdir())


def _rows_naming(database: Path, conversation_id: str) -> set[str]:
    import sqlite3

    with sqlite3.connect(database) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table for table in tables for row in connection.execute(f"SELECT * FROM {table}") if conversation_id in row
        }


def test_an_operator_reads_heartbeats_updates_and_failures_with_mosquitto_sub(
    system: System, backend: MqttBackend
) -> None:
    system.start_bridge()
    agent = system.start_agent()
    system.allow_agent()
    user = system.broker.users["watch"]
    port = system.broker.url.rsplit(":", 1)[1]
    login = ("mosquitto_sub", "-p", port, "-u", user.username, "-P", user.password)
    topics = ("omi/v1/+/+/heartbeat", "omi/v1/conversations/+/updated", "omi/v1/conversations/+/failure/#")

    def listen(seconds: int) -> list[str]:
        """Return what the command of docs/operating.md prints within some seconds."""
        done = subprocess.run(
            [*login, "-v", "-W", str(seconds), *(word for topic in topics for word in ("-t", topic))],
            check=False,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )
        return done.stdout.splitlines()

    def states() -> dict[str, str]:
        return {line.split(" ", 1)[0]: json.loads(line.split(" ", 1)[1])["state"] for line in listen(1)}

    both_online = {"omi/v1/agents/studio/heartbeat": "online", "omi/v1/bridge/bridge/heartbeat": "online"}
    wait_until(lambda: states() == both_online, "the heartbeats")

    agent.kill()
    wait_until(
        lambda: any('"state":"offline"' in line and "agents/studio" in line for line in listen(1)),
        "the agent's retained `offline`",
    )
    with _publishing(backend):
        wait_until(
            lambda: any("failure/bridge" in line and "audio.undecodable" in line for line in listen(1)), "the failure"
        )


@contextlib.contextmanager
def _publishing(backend: MqttBackend) -> Iterator[None]:
    """Publish a payload that is no audio, again and again."""
    stop = threading.Event()

    def publish() -> None:
        while not stop.wait(0.3):
            backend.publish("omi/v1/conversations/odd/audio", b"this is not audio")

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_watch_decodes_what_mosquitto_sub_cannot_show(working_system: System, backend: MqttBackend) -> None:
    system = working_system
    watching = system.programs.start("omi-bridge", "watch", "--json", environment=system.environment("bridge"))
    wait_until(lambda: "heartbeat" in watching.log_file.read_text(), "the first line of watch")
    samples, rate = read_wav(sample_folder() / "sample.wav")
    backend.audio("seen", make_wav(samples, rate), encoding="wav")
    backend.event("seen", EventType.COMPLETED, chunks=1)
    backend.updated("seen")
    wait_until(lambda: "conversations/seen/updated" in watching.log_file.read_text(), "the update in watch")
    watching.stop()

    lines = [json.loads(line) for line in watching.log_file.read_text().splitlines() if line.startswith('{"seen_at"')]
    kinds = {line["kind"] for line in lines if "seen" in line["topic"] or "agents" in line["topic"]}
    assert {"audio", "events", "accepted", "audio/agent", "turns/agent", "updated", "want", "control"} <= kinds
    turns = next(line for line in lines if line["kind"] == "turns/agent")
    assert turns["message"]["turns"][0]["speaker"]
    assert models_dir().name not in watching.log_file.read_text()
