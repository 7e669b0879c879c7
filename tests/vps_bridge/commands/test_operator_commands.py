"""At 2 a.m.: what failed and why, trying it again, giving it up, and erasing; the bridge running or stopped."""

import os
import sqlite3
from pathlib import Path

import pytest

from schemas.conversation import EventType, Verdict
from schemas.corrections import Correction, CorrectionKind
from schemas.failure import FailureCode
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S
from tests.vps_bridge.commands.kept_call import KeptCall
from tests.vps_bridge.live_bridge import CALL_TURNS, Backend, LiveBridge, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.operator_actions import ActionResult
from vps_bridge.ledger.records import NewChunk, SpeakerHints
from vps_bridge.rules.assemble import JobPlan, PlannedChunk


def fail_hopelessly(agent: ScriptedAgent, conversation_id: str) -> str:
    """Let the conversation's job fail for good; returns its id."""
    offer = agent.wait_offer(conversation_id)
    agent.fail(offer, FailureCode.AUDIO_UNDECODABLE, retryable=False)
    assert offer.job_id is not None
    return offer.job_id


def state_of(bridge: LiveBridge, job_id: str) -> str:
    ledger = Ledger(bridge.data_dir / "bridge", exclusive=False)
    try:
        job = ledger.jobs.get(job_id)
        return job.state if job else "unknown"
    finally:
        ledger.close()


def everything_in(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


# ------------------------------------------------------------------------------------------- failed, retry, cancel


def test_a_failed_job_is_explained_and_a_retry_finishes_its_conversation(
    own_broker: RunningBroker, own_backend: Backend, own_bridge: LiveBridge
) -> None:
    assert own_bridge.command("failed").stdout == "no job has failed\n"
    with ScriptedAgent(own_broker, "first") as agent:
        own_backend.send_call("call")
        job_id = fail_hopelessly(agent, "call")
        before = own_backend.wait_updated("call")
        assert before.failed_jobs == 1
        (listed,) = own_bridge.json("failed")
        assert (listed["job_id"], listed["agent_id"]) == (job_id, "first")
        assert (listed["attempts"], listed["has_audio"]) == (1, True)
        said = own_bridge.command("failed").stdout
        assert "audio.undecodable" in said
        assert f"omi-bridge cancel {job_id}" in said

        assert own_bridge.json("retry", job_id) == [{"job_id": job_id, "outcome": "retried", "done": True}]
        again = agent.wait_offer("call", after=1)
        assert (again.job_id, again.attempt) == (job_id, 1), "with all its attempts"
        assert own_bridge.json("retry", job_id)[0]["outcome"] == "already_waiting"
        agent.answer(again, CALL_TURNS)
        after = own_backend.wait_updated("call", version=before.updated_version + 1)
        assert (after.failed_jobs, after.speakers) == (0, 2)
        assert own_bridge.json("retry", job_id)[0]["outcome"] == "already_diarized"
        assert own_bridge.json("failed") == []
        happened = [(item["event"], item["by"]) for item in own_bridge.json("show", job_id)["events"]]
        assert happened[:5] == [
            ("granted", "first"),
            ("attempt_failed", "first"),
            ("given_up", "bridge"),
            ("retried", "operator"),
            ("granted", "first"),
        ]
        assert happened[5:] == [("stored", "first"), ("labelled", "bridge")]
        shown = own_bridge.command("show", job_id).stdout
        assert f"{job_id} of call: done" in shown
        assert "audio.undecodable" in shown


@pytest.mark.long
def test_retry_all_with_the_bridge_stopped_is_done_when_it_starts(
    own_broker: RunningBroker, own_backend: Backend, own_bridge: LiveBridge
) -> None:
    with ScriptedAgent(own_broker, "first") as agent:
        for name in ("one", "two"):
            own_backend.send_call(name)
            fail_hopelessly(agent, name)
            own_backend.wait_updated(name)
        own_bridge.stop()
        lost = own_bridge.json("failed")[0]["job_id"]
        assert own_bridge.command("purge", "one", "--audio", "--yes").stdout.startswith("1 chunks")
        done = own_bridge.command("retry", "--all", check=False)
        assert done.returncode == 1
        assert f"{lost} cannot be tried again, its audio is gone" in done.stderr
        assert "waits for an agent again" in done.stdout
        assert own_bridge.json("failed")[0]["advice"].startswith("publish the audio again")
        own_bridge.start(own_backend)
        agent.answer(agent.wait_offer("two", after=1), CALL_TURNS)
        wait_until(lambda: own_backend.wait_updated("two").failed_jobs == 0, "the replayed result")


def test_a_cancelled_job_stops_its_agent_and_nothing_waits_for_it(
    own_broker: RunningBroker, own_backend: Backend, own_bridge: LiveBridge
) -> None:
    with ScriptedAgent(own_broker, "first") as agent:
        own_backend.send_call("call")
        offer = agent.wait_offer("call")
        job_id = offer.job_id or ""
        assert own_bridge.json("cancel", job_id) == [{"job_id": job_id, "outcome": "cancelled", "done": True}]
        assert agent.cancelled.wait_for(lambda control: control.job_id == job_id).reason == "job is cancelled"
        assert own_backend.wait_updated("call").speakers == 0
        agent.answer(offer, CALL_TURNS)
        settled = agent.settled.wait_for(lambda control: control.job_id == job_id)
        assert settled.verdict is Verdict.DISCARDED
        assert own_bridge.json("cancel", job_id)[0]["outcome"] == "already_cancelled"
        assert own_bridge.command("retry", job_id, check=False).returncode == 1
        assert state_of(own_bridge, job_id) == "cancelled"
        (call,) = own_bridge.json("conversations")
        assert (call["state"], call["updated_version"]) == ("final", 1)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("retry",), 2, "--all"),
        (("retry", "j-0", "--all"), 2, "--all"),
        (("retry", "j-0"), 1, "unknown"),
        (("cancel", "j-0"), 1, "unknown"),
        (("purge",), 2, "--older-than"),
        (("purge", "never"), 1, "never heard of"),
        (("purge", "--older-than", "a month"), 2, "30d"),
    ],
)
def test_an_impossible_wish_is_answered_with_words(bridge: LiveBridge, arguments, code, said) -> None:
    done = bridge.command(*arguments, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert said in done.stderr


# ------------------------------------------------------------------------------------------------------------ purge


def test_purge_beside_a_running_bridge_leaves_a_tombstone_and_nothing_else(
    own_broker: RunningBroker, own_backend: Backend, own_bridge: LiveBridge
) -> None:
    with ScriptedAgent(own_broker, "first") as agent:
        own_backend.send_call("secret-call")
        offer = agent.wait_offer("secret-call")
        refused = own_bridge.command("purge", "secret-call", check=False)
        assert refused.returncode == 1
        assert "--yes" in refused.stderr
        assert own_bridge.json("purge", "secret-call", "--yes") == {
            "conversations": ["secret-call"],
            "audio_only": False,
            "finished": True,
        }
        assert list(own_bridge.spool.iterdir()) == []
        agent.cancelled.wait_for(lambda control: control.job_id == offer.job_id)
        agent.answer(offer, CALL_TURNS)
        late = agent.settled.wait_for(lambda control: control.job_id == offer.job_id)
        assert (late.verdict, late.reason) == (Verdict.DISCARDED, "conversation.deleted")
        assert own_backend.audio("secret-call", make_wav(5.0)).verdict is Verdict.DISCARDED
    assert own_bridge.json("conversations") == []
    assert own_bridge.json("purge", "secret-call", "--yes")["conversations"] == [], "done already"


@pytest.mark.long
def test_purge_with_the_bridge_stopped_erases_at_once(own_backend: Backend, own_bridge: LiveBridge) -> None:
    own_backend.send_call("secret-call")
    own_backend.audio("other-call", make_wav(5.0))
    own_bridge.stop()
    own_bridge.command("purge", "secret-call", "--yes")
    assert len(list(own_bridge.spool.iterdir())) == 1
    assert b"secret-call-0" not in everything_in(own_bridge.data_dir / "bridge"), "its segments"
    assert [call["conversation_id"] for call in own_bridge.json("conversations")] == ["other-call"]
    own_bridge.start(own_backend)
    assert own_backend.audio("secret-call", make_wav(5.0)).verdict is Verdict.DISCARDED


@pytest.mark.long
def test_a_deletion_cut_short_is_finished_by_the_next_bridge(own_backend: Backend, own_bridge: LiveBridge) -> None:
    own_backend.send_call("half-gone")
    own_bridge.kill()
    ledger = Ledger(own_bridge.data_dir / "bridge", exclusive=True)
    ledger.conversations.delete("half-gone")  # and the power went
    ledger.close()
    assert b"half-gone-0" in everything_in(own_bridge.data_dir / "bridge"), "its segments are still there"
    own_bridge.start(own_backend)
    root = own_bridge.data_dir / "bridge"
    wait_until(lambda: b"half-gone-0" not in everything_in(root), "the rest of the deletion")
    assert list(own_bridge.spool.iterdir()) == []


@pytest.mark.long
def test_purge_by_age_takes_only_what_is_quiet_and_audio_alone_keeps_the_labels(
    own_broker: RunningBroker, own_backend: Backend, own_bridge: LiveBridge
) -> None:
    with ScriptedAgent(own_broker, "first") as agent:
        own_backend.send_call("old")
        agent.answer(agent.wait_offer("old"), CALL_TURNS)
        own_backend.wait_updated("old")
    own_backend.audio("new", make_wav(5.0))
    with sqlite3.connect(own_bridge.data_dir / "bridge" / "ledger.sqlite3", timeout=WAIT_S) as ledger:
        older = "UPDATE conversations SET last_activity_at = last_activity_at - 86400"
        ledger.execute(f"{older} WHERE conversation_id = 'old'")
    done = own_bridge.json("purge", "--older-than", "12h", "--audio", "--yes")
    assert (done["conversations"], done["chunks"]) == (["old"], 1)
    assert len(list(own_bridge.spool.iterdir())) == 1, "that of the new one"
    assert {row["speaker"] for row in own_bridge.json("show", "old")["segments"]} == {"SPEAKER_00", "SPEAKER_01"}


@pytest.mark.long
def test_a_job_whose_audio_is_purged_fails_and_says_so(
    own_broker: RunningBroker, own_backend: Backend, own_bridge: LiveBridge
) -> None:
    own_backend.send_call("waiting")
    wait_until(lambda: own_bridge.jobs("waiting"), "the job")
    own_bridge.command("purge", "waiting", "--audio", "--yes")
    assert own_backend.wait_updated("waiting").failed_jobs == 1
    (listed,) = own_bridge.json("failed")
    assert (listed["failure_code"], listed["has_audio"]) == ("payload.incomplete", False)
    assert "an operator purged the audio" in listed["failure_message"]
    own_backend.event("waiting", EventType.COMPLETED, chunks=1)


def test_a_forgotten_agent_is_off_the_list_and_gets_nothing(
    own_broker: RunningBroker, own_backend: Backend, own_bridge: LiveBridge
) -> None:
    assert own_bridge.command("agents", "forget", "second").stdout == "second is forgotten\n"
    assert [agent["agent_id"] for agent in own_bridge.json("agents") if agent["allowed"]] == ["first"]
    again = own_bridge.command("agents", "forget", "second", check=False)
    assert again.returncode == 1
    assert "is unknown" in again.stderr


# ------------------------------------------------------------------------------------------------------ a long queue


@pytest.mark.long
def test_jobs_shows_the_latest_of_ten_thousand_and_counts_the_rest(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bridge", exclusive=True)
    chunk = NewChunk("c", "k", "0" * 64, 1_000, "s", "wav", duration_s=60.0)
    ledger.chunks.accept(chunk, SpeakerHints(), final=False)
    chunks = (PlannedChunk("k", None),)
    names = ledger.jobs.add("c", (JobPlan(chunks, ("k",)), *(JobPlan(chunks, ()),) * 9_999))
    ledger.close()
    bridge = LiveBridge(NoBroker(), tmp_path)  # type: ignore[arg-type] # the command needs none
    shown = bridge.command("jobs").stdout
    assert shown.count("j-") == 50
    assert names[-1] in shown
    assert "10,000 jobs: 10,000 ready" in shown
    assert "9,950 earlier ones are not shown" in shown
    assert [job["job_id"] for job in bridge.json("jobs", "--limit", "3")] == names[-3:]
    assert len(bridge.json("jobs")) == 10_000


def test_an_estimated_length_is_shown_as_one(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bridge", exclusive=True)
    chunk = NewChunk("c", "k", "0" * 64, 90_000, "s", "caf", duration_s=5.0, duration_estimated=True)
    ledger.chunks.accept(chunk, SpeakerHints(), final=False)
    (job_id,) = ledger.jobs.add("c", (JobPlan((PlannedChunk("k", None),), ("k",)),))
    ledger.close()
    bridge = LiveBridge(NoBroker(), tmp_path)  # type: ignore[arg-type] # the command needs none
    assert "about 45 s (estimated) of audio" in bridge.command("show", job_id).stdout
    assert bridge.json("jobs")[0]["audio_estimated"] is True


class NoBroker:
    """A broker that a command of the ledger never asks for."""

    def environment(self, _role: str) -> dict[str, str]:
        return dict(os.environ)


def test_a_retried_job_is_as_good_as_new(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "bridge", exclusive=True)
    ledger.chunks.accept(NewChunk("c", "k", "0" * 64, 1_000, "s", "wav"), SpeakerHints(), final=True)
    (job_id,) = ledger.jobs.add("c", (JobPlan((PlannedChunk("k", None),), ("k",)),))
    for _ in range(2):
        lease = ledger.leases.grant(job_id, "first", "i", ("model", "1"))
        assert lease is not None
        ledger.jobs.note_failure(job_id, "engine.crashed", "words", counted=True)
    assert ledger.jobs.give_up(job_id, "engine.crashed", "words")
    assert ledger.operator_actions.retry(job_id) is ActionResult.RETRIED
    job = ledger.jobs.get(job_id)
    assert job is not None
    assert (job.state, job.attempts, job.deaths, job.failure_code) == ("ready", 0, 0, None)
    assert ledger.operator_actions.cancel(job_id) is ActionResult.CANCELLED
    assert not ledger.jobs.give_up(job_id, "engine.crashed", "words"), "what an operator ended stays as it is"
    assert [end.conversation_id for end in ledger.conversations.awaiting_final()] == ["c"], "nothing waits for it"
    ledger.close()


def test_a_segment_that_is_named_twice_is_split_off_once(tmp_path: Path) -> None:
    call = KeptCall(tmp_path)
    assert call.run("correct", "call", "split", "s-1", "s-1").exit_code == 0
    assert "  another voice: s-1\n" in call.run("history", "call").output
    said = Correction(kind=CorrectionKind.SAME_VOICE, speaker_ids=(0, 1, 0))
    assert said.speaker_ids == (0, 1)
