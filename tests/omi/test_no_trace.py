"""Erased is erased: of a conversation, a user or all of them no file holds what OMI sent; none outlives its time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.conversation import EventType, Verdict
from tests.brokers import RunningBroker
from tests.omi.clocked_bridge import ClockedBridge, start_clocked
from tests.omi.coded_talk import LOUDNESS, SpokenTurn, coded_talk
from tests.omi.traffic import OmiSender, make_document
from tests.vps_bridge.live_bridge import Backend, wait_until

BEGAN_AT = 1_780_000_000.0
HOUR_S = 3_600.0
WORD, PERSON = "Quartermaine", "person-of-omi-zoe"
SOUND = LOUDNESS["c"].to_bytes(2, "little") * 1_000


@pytest.fixture
def omi(own_broker: RunningBroker, own_backend: Backend, tmp_path: Path) -> Iterator[ClockedBridge]:
    bridge = start_clocked(own_broker, tmp_path / "data", own_backend, BEGAN_AT)
    yield bridge
    assert bridge.stop() == 0, bridge.log_file.read_text()


def traces(omi: ClockedBridge) -> set[str]:
    """Which of the words, the person and the sound any file of the bridge holds, its log too."""
    needles = {"words": WORD.encode(), "person": PERSON.encode(), "sound": SOUND}
    contents = [path.read_bytes() for path in omi.data_dir.rglob("*") if path.is_file()]
    return {what for what, needle in needles.items() if any(needle in content for content in contents)}


def send_all(omi: ClockedBridge, sender: OmiSender, *, is_reported: bool = True) -> None:
    """What OMI sends of a talk: audio, live segments, and the conversation."""
    turns: list[SpokenTurn] = [(0.0, 12.0, "c")]
    talk = coded_talk(turns, omi.clock() + 100)
    rows = [{"id": f"{omi.clock()}-{n}", "start": 4.0 * n, "end": 4.0 * n + 4, "text": WORD} for n in range(3)]
    for post in (*sender.send_audio(talk), *sender.send_live(rows, talk.began_at)):
        assert omi.post(post).status_code == 200
    if is_reported:
        named = [row | {"person_id": PERSON, "speaker_name": WORD} for row in rows]
        document = make_document("call", talk.began_at, named)
        assert omi.post(sender.send_conversation(document, talk.began_at + 200)).status_code == 200


def test_of_a_deleted_conversation_no_file_holds_what_omi_sent(omi: ClockedBridge, own_backend: Backend) -> None:
    send_all(omi, OmiSender(omi.add_user("u1"), "B"))
    wait_until(lambda: list(omi.spool.iterdir()), "the audio to be taken")
    assert traces(omi) == {"words", "person", "sound"}
    assert own_backend.event("call", EventType.DELETED).verdict is Verdict.ACCEPTED
    wait_until(lambda: not traces(omi), "everything to be erased")


@pytest.mark.slow
def test_of_a_removed_user_and_all_conversations_no_file_holds_what_omi_sent(omi: ClockedBridge) -> None:
    sender = OmiSender(omi.add_user("u1"), "B")
    send_all(omi, sender)
    omi.clock.set(BEGAN_AT + HOUR_S)
    send_all(omi, sender, is_reported=False)
    wait_until(lambda: list(omi.spool.iterdir()), "the audio to be taken")
    assert traces(omi) == {"words", "person", "sound"}
    omi.command("omi", "remove", "u1")
    omi.command("purge", "--older-than", "0s", "--yes")
    wait_until(lambda: not traces(omi), "everything to be erased")


def test_nothing_of_it_outlives_its_time_where_omi_is_turned_off(omi: ClockedBridge, own_backend: Backend) -> None:
    send_all(omi, OmiSender(omi.add_user("u1"), "B"), is_reported=False)
    wait_until(lambda: traces(omi) == {"words", "sound"}, "the words to be shown")
    assert omi.stop() == 0
    omi.start(own_backend, OMI_OMI_HTTP_PORT="0")
    omi.clock.set(BEGAN_AT + 7 * HOUR_S)
    wait_until(lambda: not traces(omi), "the end of all that was kept")
