"""What is told to the backend fits every broker, and what a conversation waits for is said in words."""

from dataclasses import replace

import pytest

from schemas.codec import encode
from schemas.conversation import (
    ConversationTurn,
    ConversationUpdated,
    LabelChange,
    LeftAlone,
    SegmentLabel,
    VoiceChange,
)
from schemas.errors import MessageTooLarge
from vps_bridge.backoff import RetryTimer
from vps_bridge.dispatch.failed_audio import describe_failures
from vps_bridge.dispatch.status import describe_status
from vps_bridge.dispatch.updates import smaller_forms
from vps_bridge.ledger.job_states import JobState
from vps_bridge.ledger.records import AgentRecord, ConversationRecord, ConversationState, JobRecord
from vps_bridge.rules.completion import CompletionFacts, describe_missing, is_all_here, is_final


def update_of(segments, turns=0):
    ids = [f"segment-{place:032d}" for place in range(segments)]
    return ConversationUpdated(
        conversation_id="c1",
        updated_version=3,
        state="final",
        segments=tuple(
            SegmentLabel(id=name, speaker="SPEAKER_01", speaker_id=1, coverage=0.987654321, runner_up="SPEAKER_02")
            for name in ids
        ),
        changed=tuple(LabelChange(id=name, before="SPEAKER_00", after="SPEAKER_01") for name in ids),
        left_alone=tuple(LeftAlone(id=name, reason="low_coverage") for name in ids[: segments // 2]),
        left_alone_counts={"low_coverage": segments // 2},
        voices=(VoiceChange(change="new", speaker_id=1),),
        speakers=2,
        turns=tuple(ConversationTurn(start_s=n * 0.7, end_s=n * 0.7 + 0.6, speaker_id=1) for n in range(turns)),
    )


def fitting(update):
    for form in smaller_forms(update):
        try:
            return form, encode(form)
        except MessageTooLarge:
            continue
    raise AssertionError("no form fits")


def test_a_small_update_is_told_whole():
    update = update_of(100, turns=200)
    assert fitting(update)[0] == update


@pytest.mark.parametrize(("segments", "turns"), [(5_000, 20_000), (8_000, 0), (12_000, 20_000), (20_000, 20_000)])
def test_a_large_update_keeps_every_label(segments, turns):
    form, payload = fitting(update_of(segments, turns))
    assert len(payload) <= 2_000_000
    assert [label.speaker for label in form.segments] == ["SPEAKER_01"] * segments
    assert (form.updated_version, form.left_alone_counts) == (3, {"low_coverage": segments // 2})


def test_the_last_form_is_small_whatever_the_conversation_and_says_what_to_do():
    *_, last = smaller_forms(update_of(20_000, 20_000))
    assert len(encode(last)) < 1_000
    assert "resync" in (last.reason or "")


def test_why_jobs_failed_is_told_with_what_to_do_however_long_the_words_and_many_the_jobs():
    failed = replace(job(JobState.FAILED), failure_code="audio.undecodable", failure_message="x" * 20_000)
    told = describe_failures([job(JobState.DONE), *[failed] * 60])
    assert len(told) == 60
    assert (told[0].code, len(told[0].message)) == ("audio.undecodable", 500)
    assert "omi-bridge cancel j" in told[0].remedy
    whole = update_of(20_000, 20_000).model_copy(update={"failures": told[:50], "failed_jobs": 60})
    form, _ = fitting(whole)
    assert len(form.failures) == 50
    *_, last = smaller_forms(whole)
    assert len(encode(last)) < 1_000
    assert last.failed_jobs == 60


def test_a_message_is_offered_after_growing_pauses_and_at_once_when_asked():
    timer = RetryTimer(1.0, 5.0)
    taken = [tenth / 10 for tenth in range(200) if timer.take("a", tenth / 10)]
    assert taken == [0.0, 1.0, 3.0, 7.0, 12.0, 17.0]
    assert not timer.is_due("a", 19.9)
    timer.reset("b")
    assert not timer.is_due("a", 19.9)
    timer.reset("a")
    assert timer.take("a", 19.9)
    timer.keep_only({"b"})
    assert timer.take("a", 19.9)


@pytest.mark.parametrize(
    ("end", "here"),
    [
        (CompletionFacts("c", 3, None, None, 100.0), None),
        (CompletionFacts("c", 3, 4, None, None), False),
        (CompletionFacts("c", 4, 4, None, None), True),
        (CompletionFacts("c", 4, None, 100.0, 90.0), False),
        (CompletionFacts("c", 4, None, 100.0, 99.6), True),
        (CompletionFacts("c", 4, 4, 100.0, 90.0), False),
        (CompletionFacts("c", 4, None, 100.0, None), None),
    ],
)
def test_what_completed_named_is_waited_for(end, here):
    assert is_all_here(end) is here
    assert is_final(end, idle_s=0.0, quiet_s=60.0) is (here is True)
    assert is_final(end, idle_s=61.0, quiet_s=60.0) is (here is not False)
    assert is_final(end, idle_s=601.0, quiet_s=60.0)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (CompletionFacts("c", 3, 4, None, None), "audio.missing: of the 4 chunks that completed named, 3 came"),
        (CompletionFacts("c", 4, 4, None, None), None),
        (CompletionFacts("c", 5, 4, None, None), None),
        (CompletionFacts("c", 3, None, None, None), None),
        (CompletionFacts("c", 4, 4, 100.0, 90.0), "it ends 10 s before the last_audio_at that completed named"),
        (CompletionFacts("c", 4, None, 100.0, None), None),
    ],
)
def test_what_completed_named_and_never_came_is_told(end, words):
    said = describe_missing(end)
    assert (said is None) is (words is None)
    assert words is None or words in str(said)


def conversation(**fields):
    blank = dict.fromkeys(ConversationRecord.__dataclass_fields__)
    known = {"conversation_id": "c1", "last_activity_at": 0.0, "dirty": 0}
    return ConversationRecord(**{**blank, **known, **fields})


def job(state, agent_id=None):
    blank = dict.fromkeys(JobRecord.__dataclass_fields__)
    return JobRecord(
        **{**blank, "job_id": "j", "conversation_id": "c1", "state": state, "agent_id": agent_id, "audio_s": 9.0}
    )


def agent(name="mac", *, allowed=True, heard_at=100.0, state="online", model=("m", "1")):
    engine = {"embedding_model": model[0], "embedding_revision": model[1]}
    return AgentRecord(name, allowed, 0.0, heard_at, {"state": state, "engine": engine})


@pytest.mark.parametrize(
    ("record", "jobs", "agents", "words"),
    [
        (conversation(), [], [], "no audio yet"),
        (conversation(), [job(JobState.READY)], [], "no agent is allowed: omi-bridge agents allow ID"),
        (conversation(), [job(JobState.READY)], [agent(allowed=False)], "no agent is allowed"),
        (conversation(), [job(JobState.READY)], [agent(heard_at=50.0)], "no allowed agent is live (mac)"),
        (conversation(), [job(JobState.READY)], [agent(state="offline")], "no allowed agent is live (mac)"),
        (conversation(embedding=("m", "2")), [job(JobState.READY)], [agent()], "began with (m@2)"),
        (conversation(embedding=("m", "1")), [job(JobState.READY)], [agent()], "the agents are busy"),
        (conversation(), [job(JobState.LEASED, "mac"), job(JobState.READY)], [agent()], "diarization by mac"),
        (conversation(completed=True, completed_chunks=3), [], [], "3 of 3 chunks to come"),
        (conversation(completed=True), [], [], "final once it is quiet"),
        (conversation(completed=True, dirty=1), [], [], "the log of omi-bridge says what its store answers"),
    ],
)
def test_a_waiting_conversation_says_for_what(record, jobs, agents, words):
    state, reason = describe_status(record, [], jobs, agents, now=120.0, stale_s=30.0)
    assert state is ConversationState.WAITING
    assert words in (reason or "")


def test_a_final_conversation_waits_for_nothing():
    record = conversation(final_at=1.0, completed=True)
    assert describe_status(record, [], [], [], now=2.0, stale_s=30.0) == (ConversationState.FINAL, None)


def test_a_final_conversation_says_what_of_it_failed():
    failed = [
        replace(job(JobState.FAILED), failure_code=code) for code in ("audio.empty", "audio.empty", "engine.crashed")
    ]
    record = conversation(final_at=1.0, completed=True)
    one, three = (
        describe_status(record, [], [job(JobState.DONE), *jobs], [], now=2.0, stale_s=30.0)[1]
        for jobs in (failed[:1], failed)
    )
    assert (one, three) == ("1 job failed: audio.empty", "3 jobs failed: audio.empty, engine.crashed")
