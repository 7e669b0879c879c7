"""OMI's traffic, replayed through a real bridge and broker to an agent that reads who speaks from the samples."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from schemas.conversation import ConversationUpdated, EventType
from tests.brokers import RunningBroker
from tests.omi.clocked_bridge import ClockedBridge, start_clocked
from tests.omi.coded_talk import LOUDNESS, CodedAgent, SpokenTurn, coded_talk, draw_turns, rows_of
from tests.omi.traffic import SAMPLE_BYTES, OmiSender, Talk, make_document
from tests.vps_bridge.live_bridge import Backend, wait_until
from vps_bridge.ledger import Ledger

BEGAN_AT = 1_780_000_000.0
HOUR_S = 3_600.0
HERS = LOUDNESS["c"].to_bytes(2, "little") * 1_000  # what only one talk has
REPORTED_S = 130.0  # after the last audio: OMI waits two minutes for more


@pytest.fixture(scope="module")
def omi(
    mosquitto: RunningBroker, backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClockedBridge]:
    bridge = start_clocked(mosquitto, tmp_path_factory.mktemp("data"), backend, BEGAN_AT)
    bridge.allow("first")
    yield bridge
    assert bridge.stop() == 0, bridge.log_file.read_text()


@pytest.fixture(scope="module", autouse=True)
def agent(mosquitto: RunningBroker, omi: ClockedBridge) -> Iterator[CodedAgent]:
    del omi  # ends after the agent: a job that is under way is answered
    with CodedAgent(mosquitto, "first") as working, working.at_work():
        yield working


@dataclass
class Told:
    """A talk that was sent and is to be reported."""

    name: str
    sender: OmiSender
    turns: list[SpokenTurn]
    talk: Talk

    def document(self, conversation_id: str | None = None) -> dict[str, Any]:
        rows = rows_of(self.turns, self.name)
        return make_document(conversation_id or self.name, self.talk.began_at, rows, generation=self.sender.generation)

    @property
    def ended_at(self) -> float:
        return self.talk.began_at + self.turns[-1][1]


def send_talk(
    omi: ClockedBridge, sender: OmiSender, name: str, length_s: float, seed: int, at: float, *, speakers: str = "ab"
) -> Told:
    turns = draw_turns(seed, length_s, speakers)
    talk = coded_talk(turns, at)
    for place, post in enumerate(sender.send_audio(talk)):
        if place % 10 == 9:
            omi.reconnect()
        answer = omi.post(post)
        assert (answer.status_code, answer.json()) == (200, {})
    return Told(name, sender, turns, talk)


def report(omi: ClockedBridge, told: Told, document: dict[str, Any], at: float) -> httpx.Response:
    return omi.post(told.sender.send_conversation(document, at))


def final_labels(backend: Backend, conversation_id: str, after: int = 0) -> ConversationUpdated:
    def find() -> ConversationUpdated | None:
        updates = backend.seen(ConversationUpdated, conversation_id)
        final = [update for update in updates if update.state == "final" and update.updated_version > after]
        return final[-1] if final else None

    return wait_until(find, f"final labels of {conversation_id}")


def share_right(update: ConversationUpdated, turns: list[SpokenTurn], name: str) -> float:
    """The share of seconds with the right speaker, under the best naming of the numbers."""
    labels = {label.id: label.speaker_id for label in update.segments}
    numbers, speakers = sorted({one for one in labels.values() if one is not None}), sorted({who for *_, who in turns})
    total_s = sum(end_s - start_s for start_s, end_s, _ in turns)

    def right_s(naming: dict[int | None, str]) -> float:
        return sum(b - a for place, (a, b, who) in enumerate(turns) if naming.get(labels[f"{name}-{place}"]) == who)

    namings = itertools.permutations(numbers, min(len(numbers), len(speakers)))
    return max((right_s(dict(zip(one, speakers, strict=False))) for one in namings), default=0.0) / total_s


def audio_of(omi: ClockedBridge, conversation_id: str) -> list[tuple[int, int, float]]:
    """The chunks of a conversation: first and last byte of the user's stream, and captured_at."""
    ledger = Ledger(omi.data_dir / "bridge", exclusive=False)
    chunks = ledger.chunks.of_conversation(conversation_id)
    ledger.close()
    names = [(*map(int, chunk.chunk_id.split("-")[1:]), chunk.captured_at_s or 0.0) for chunk in chunks]
    return sorted((int(start), int(end), at) for start, end, at in names)


def audio_bytes(omi: ClockedBridge, conversation_id: str) -> int:
    return sum(end - start for start, end, _ in audio_of(omi, conversation_id))


def wait_audio(omi: ClockedBridge, told: Told) -> None:
    """Wait until a conversation has every sample that was sent of it; a half one at the end may be left."""
    sent = sum(len(post.body) for post in told.sender.send_audio(told.talk) if not post.is_retry)
    wait_until(lambda: 0 <= sent - audio_bytes(omi, told.name) < SAMPLE_BYTES, f"all audio of {told.name}")


def test_talks_of_every_kind_of_sender_are_labelled(omi: ClockedBridge, backend: Backend) -> None:
    senders = {
        "old": OmiSender(omi.add_user("old"), "A", is_signed=False, buffer_s=5.0),
        "new": OmiSender(omi.add_user("new"), "B", seed=3, retries=0.1),
        "plain": OmiSender(omi.add_user("plain"), "B", is_signed=False, seed=2),
    }
    told = [
        send_talk(omi, sender, f"talk-{name}", 45.0, place, BEGAN_AT + 100)
        for place, (name, sender) in enumerate(senders.items())
    ]
    for one in told:
        assert report(omi, one, one.document(), one.ended_at + REPORTED_S).json() == {}
    for one in told:
        update = final_labels(backend, one.name)
        assert share_right(update, one.turns, one.name) > 0.9, (one.name, update.warnings)
        wait_audio(omi, one)


@pytest.mark.slow
def test_each_conversation_has_its_own_audio_and_a_merged_one_has_both(omi: ClockedBridge, backend: Backend) -> None:
    sender = OmiSender(omi.add_user("two"), "B", seed=1)
    first = send_talk(omi, sender, "first", 20.0, 5, BEGAN_AT + 1_000)
    second = send_talk(omi, sender, "second", 20.0, 6, first.ended_at + 140)
    at = second.ended_at + REPORTED_S
    for one in (first, second):
        assert report(omi, one, one.document(), at).status_code == 200
        wait_audio(omi, one)
    spans = audio_of(omi, "first"), audio_of(omi, "second")
    assert spans[0][-1][1] <= spans[1][0][0]

    assert report(omi, first, first.document(), at + 5).status_code == 200  # the same one twice
    shift_s = second.talk.began_at - first.talk.began_at
    later = rows_of(second.turns, "second", -shift_s)
    document = make_document("merged", first.talk.began_at, rows_of(first.turns, "first") + later)
    assert report(omi, first, document, at + 10).status_code == 200
    update = final_labels(backend, "merged")
    assert {label.id for label in update.segments} == {row["id"] for row in document["transcript_segments"]}
    both = [(start, end) for start, end, _ in (*spans[0], *spans[1])]
    assert [(start, end) for start, end, _ in audio_of(omi, "merged")] == both
    assert audio_of(omi, "first") == spans[0]

    # OMI splits it again: the segments that it has no more are gone, and the audio is as it was.
    assert report(omi, first, first.document("merged"), at + 20).status_code == 200
    again = final_labels(backend, "merged", update.updated_version)
    assert {label.id for label in again.segments} == {row["id"] for row in first.document()["transcript_segments"]}


@pytest.mark.slow
def test_audio_that_comes_after_its_conversation_was_reported_is_taken_too(
    omi: ClockedBridge, backend: Backend
) -> None:
    sender = OmiSender(omi.add_user("late"), "B")
    turns = draw_turns(8, 20.0)
    talk = coded_talk(turns, BEGAN_AT + 2_000)
    posts = sender.send_audio(talk)
    for post in posts[:-4]:
        omi.post(post)
    told = Told("late-audio", sender, turns, talk)
    assert report(omi, told, told.document(), posts[-4].at).status_code == 200
    wait_until(lambda: audio_bytes(omi, "late-audio"), "the first audio")
    for post in posts[-4:]:
        omi.post(post)
    sent = sum(len(post.body) for post in posts)
    wait_until(lambda: audio_bytes(omi, "late-audio") == sent, "all of the audio")
    final_labels(backend, "late-audio")


@pytest.mark.slow
def test_live_segments_are_answered_with_nothing_and_tell_when_the_conversation_was(
    omi: ClockedBridge, backend: Backend
) -> None:
    sender = OmiSender(omi.add_user("live"), "B")
    told = send_talk(omi, sender, "live-talk", 30.0, 9, BEGAN_AT + 3_000)
    rows = rows_of(told.turns, "live-talk")
    for post in sender.send_live(rows, told.talk.began_at):
        assert omi.post(post).json() == {}
    # OMI's own started_at is minutes off: by it the conversation would have no audio.
    document = make_document("live-talk", told.talk.began_at - 400, rows)
    assert report(omi, told, document, told.ended_at + REPORTED_S).status_code == 200
    update = final_labels(backend, "live-talk")
    assert update.audio_s > 20


def test_of_a_deleted_conversation_the_capture_keeps_nothing(omi: ClockedBridge, backend: Backend) -> None:
    sender = OmiSender(omi.add_user("gone"), "B")
    told = send_talk(omi, sender, "gone-talk", 10.0, 12, BEGAN_AT + 3_500, speakers="ac")
    assert report(omi, told, told.document(), told.ended_at + REPORTED_S).status_code == 200
    final_labels(backend, "gone-talk")
    assert any(HERS in path.read_bytes() for path in omi.capture)
    backend.event("gone-talk", EventType.DELETED)
    wait_until(lambda: not any(HERS in path.read_bytes() for path in omi.capture), "the audio to be erased")
    # The same report again brings nothing back.
    assert report(omi, told, told.document(), told.ended_at + 2 * REPORTED_S).status_code == 200
    assert omi.is_deleted("gone-talk")


def test_nobody_else_gets_in_and_nothing_else_is_there(omi: ClockedBridge) -> None:
    access, other = omi.add_user("own"), omi.add_user("other")
    audio = "/omi/audio?sample_rate=8000&uid=own&token="
    assert omi.client.post(f"{audio}{access.token}", content=b"12").status_code == 200
    for path in (f"{audio}{other.token}", audio, "/omi/audio", "/omi/conversation?uid=nobody&token=x"):
        assert omi.client.post(path, content=b"12").status_code == 401
    forged = {"X-Omi-Signature": "t=1,v1=00"}
    assert omi.client.post("/omi/audio?sample_rate=8000&uid=own", content=b"12", headers=forged).status_code == 401
    for path in ("/", "/v1/conversations", "/health", "/metrics", "/omi/", "/omi/audio/x"):
        assert omi.client.get(path).status_code == 404
        assert omi.client.post(path).status_code == 404
    assert omi.client.get(f"{audio}{access.token}").status_code == 405
    assert omi.client.post(f"{audio.replace('8000', 'fast')}{access.token}", content=b"12").status_code == 400
    claim = make_document("talk-new", BEGAN_AT, [])
    theft = omi.post(OmiSender(access).send_conversation(claim, BEGAN_AT + 4_000))
    assert theft.status_code == 409
    assert access.token not in omi.log_file.read_text()


def test_nothing_of_the_capture_is_left_after_its_time(omi: ClockedBridge) -> None:
    assert omi.capture
    omi.clock.set(BEGAN_AT + 7 * HOUR_S + 10_000)
    wait_until(lambda: not omi.capture, "the end of all that was kept")
