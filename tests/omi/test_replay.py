"""OMI's traffic, replayed through a real bridge and broker to an agent that reads who speaks from the samples."""

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from schemas.conversation import ConversationUpdated, EventType
from tests.brokers import RunningBroker, free_port
from tests.inbox import WAIT_S
from tests.omi.clocked_bridge import ClockedBridge, start_clocked
from tests.omi.coded_talk import LOUDNESS, CodedAgent, SpokenTurn, coded_talk, draw_turns, rows_of
from tests.omi.traffic import SAMPLE_BYTES, OmiSender, Talk, make_document
from tests.vps_bridge.live_bridge import Backend, wait_until
from vps_bridge.doctor.omi_check import check_omi
from vps_bridge.ledger import Ledger
from vps_bridge.omi.users import NewAccess, UserFile
from vps_bridge.settings import BridgeSettings

BEGAN_AT = 1_780_000_000.0
KILLED_AT = BEGAN_AT + 5_000
RATE, USERS = 8_000, 4
HOUR_S = 3_600.0
HERS = LOUDNESS["c"].to_bytes(2, "little") * 1_000  # what only one talk has
REPORTED_S = 130.0  # after the last audio: OMI waits two minutes for more


@pytest.fixture(scope="module")
def omi(
    mosquitto: RunningBroker, backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClockedBridge]:
    options = {"OMI_OMI_USER_BYTES": str(2**20), "OMI_HTTP_PORT": str(free_port())}
    bridge = start_clocked(mosquitto, tmp_path_factory.mktemp("data"), backend, BEGAN_AT, **options)
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

    @property
    def rows(self) -> list[dict[str, Any]]:
        return rows_of(self.turns, self.name)

    def document(self, conversation_id: str | None = None) -> dict[str, Any]:
        name = conversation_id or self.name
        return make_document(name, self.talk.began_at, self.rows, generation=self.sender.generation)

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


def final_labels(
    backend: Backend, conversation_id: str, after: int = 0, timeout_s: float = WAIT_S
) -> ConversationUpdated:
    def find() -> ConversationUpdated | None:
        updates = backend.seen(ConversationUpdated, conversation_id)
        final = [update for update in updates if update.state == "final" and update.updated_version > after]
        return final[-1] if final else None

    return wait_until(find, f"final labels of {conversation_id}", timeout_s)


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


def test_a_conversation_at_the_last_moment_there_is_is_taken_and_shown(omi: ClockedBridge, backend: Backend) -> None:
    sender = OmiSender(omi.add_user("timeless"), "B")
    row = {"id": "s-1", "text": "Hello.", "speaker": "SPEAKER_00", "start": 0.0, "end": 2.0}
    document = make_document("timeless-talk", BEGAN_AT, [row]) | {"started_at": "9999-12-31T23:59:59.999999Z"}
    assert omi.post(sender.send_conversation(document, BEGAN_AT)).status_code == 200
    assert [label.id for label in final_labels(backend, "timeless-talk").segments] == ["s-1"]


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


def test_a_key_that_is_used_again_for_other_audio_costs_none_of_it(omi: ClockedBridge) -> None:
    access = omi.add_user("same-key")
    for sent in (b"first ", b"second", b"first "):
        answer = omi.client.post(url(access), content=sent * 500, headers={"Idempotency-Key": "the same"})
        assert answer.status_code == 200
    kept = b"".join(path.read_bytes() for path in omi.capture)
    assert [kept.count(sent * 500) for sent in (b"first ", b"second")] == [1, 1]


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


def url(access: NewAccess) -> str:
    return f"/omi/audio?sample_rate={RATE}&uid={access.user.uid}&token={access.token}"


def body(user: int, place: int) -> bytes:
    """A second of audio that tells whose and which it is."""
    return f"{user:04}{place:04}".encode() * (RATE // 4)


def send_until_cut_off(omi: ClockedBridge, access: NewAccess, user: int, answered: list[int]) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{omi.omi_port}") as client:
        for place in range(60):
            try:
                answer = client.post(url(access), content=body(user, place), headers={"Idempotency-Key": f"k{place}"})
            except httpx.TransportError:
                return
            assert answer.status_code == 200
            answered.append(place)


def test_what_was_answered_is_in_its_conversation_after_a_kill_and_once(omi: ClockedBridge, backend: Backend) -> None:
    omi.clock.set(KILLED_AT)
    users = [omi.add_user(f"u{user}") for user in range(USERS)]
    answered: list[list[int]] = [[] for _ in users]
    threads = [
        threading.Thread(target=send_until_cut_off, args=(omi, access, user, answered[user]))
        for user, access in enumerate(users)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: min(map(len, answered)) > 5, "some answers to everybody")
    report_span(omi, users[0], 0)  # whose audio may be taken now, or by the next start
    omi.kill()
    for thread in threads:
        thread.join()
    omi.start(backend)
    omi.wait_open()
    for user, access in enumerate(users):
        last = answered[user][-1]  # its answer may have been lost on the way: it comes again under the same key
        again = omi.client.post(url(access), content=body(user, last), headers={"Idempotency-Key": f"k{last}"})
        assert again.status_code == 200
        if user:
            report_span(omi, access, user)
    for user in range(USERS):
        count = len(answered[user])
        seconds = seconds_in(wait_whole_posts(omi, user, count))
        # One more may be there: written, and its answer cut off.
        assert seconds in [[(user, place, 2 * RATE) for place in range(whole)] for whole in (count, count + 1)]


def seconds_in(audio: bytes) -> list[tuple[int, int, int]]:
    """What `body` made, in the order in which it is here: user, place, and how many bytes of it."""
    names = [audio[at : at + 8] for at in range(0, len(audio), 8)]
    return [(int(name[:4]), int(name[4:]), 8 * len(list(same))) for name, same in itertools.groupby(names)]


def report_span(omi: ClockedBridge, access: NewAccess, user: int) -> None:
    row = {"id": f"s{user}", "start": 0.0, "end": 200.0, "text": "words"}
    document = make_document(f"c{user}", KILLED_AT - 100, [row])
    assert omi.post(OmiSender(access).send_conversation(document, KILLED_AT + 60)).status_code == 200


def wait_whole_posts(omi: ClockedBridge, user: int, count: int) -> bytes:
    """Wait for so many POSTs, and for the other part of the last: silence may have been left out within it."""

    def find() -> bytes | None:
        audio = stored_of(omi, user)
        return audio if len(audio) >= count * 2 * RATE and len(audio) % (2 * RATE) == 0 else None

    return wait_until(find, f"whole POSTs of user {user}, {count} or more")


def stored_of(omi: ClockedBridge, user: int) -> bytes:
    ledger = Ledger(omi.data_dir / "bridge", exclusive=False)
    chunks = ledger.chunks.of_conversation(f"c{user}")
    ledger.close()
    ordered = sorted(chunks, key=lambda chunk: int(chunk.chunk_id.split("-")[1]))
    return b"".join((omi.spool / (chunk.spool_name or "")).read_bytes() for chunk in ordered)


def test_what_finds_no_room_is_503_and_counted_and_what_a_removed_user_sent_is_gone(omi: ClockedBridge) -> None:
    access = omi.add_user("much")
    codes = [omi.client.post(url(access), content=bytes(400_000)).status_code for _ in range(4)]
    assert codes == [200, 200, 503, 503]
    settings = BridgeSettings(data_dir=omi.data_dir, omi_http_port=omi.omi_port)
    (check,) = wait_until(
        lambda: [one for one in check_omi(settings, omi.clock() + 5) if "2 POSTs turned away" in one.found],
        "the doctor",
    )
    assert "OMI_OMI_USER_BYTES" in (check.remedy or "")
    metrics = httpx.get(f"http://127.0.0.1:{omi.options['OMI_HTTP_PORT']}/metrics").text
    assert 'omi_bridge_omi_posts_total{answer="turned_away"} 2.0' in metrics
    assert UserFile(omi.data_dir / "bridge").remove("much")
    wait_until(lambda: omi.logged("omi_user_erased", records=2), "the removed user's audio to be erased")
    assert omi.client.post(url(access), content=bytes(2)).status_code == 401


def test_nothing_of_the_capture_is_left_after_its_time(omi: ClockedBridge) -> None:
    assert omi.capture
    omi.clock.set(BEGAN_AT + 7 * HOUR_S + 10_000)
    wait_until(lambda: not omi.capture, "the end of all that was kept")
