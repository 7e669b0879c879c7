"""OMI's traffic, replayed through a real bridge and broker to an agent that reads who speaks from the samples."""

import itertools
from collections.abc import Iterator

import pytest

from schemas.conversation import ConversationUpdated
from tests.brokers import RunningBroker
from tests.omi.clocked_bridge import ClockedBridge, start_clocked
from tests.omi.coded_talk import CodedAgent, SpokenTurn, coded_talk, draw_turns, rows_of
from tests.omi.traffic import Post, Sender, make_document
from tests.vps_bridge.live_bridge import Backend, wait_until

BEGAN_AT = 1_780_000_000.0
HOUR_S = 3_600.0


@pytest.fixture(scope="module")
def omi(
    mosquitto: RunningBroker, backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClockedBridge]:
    bridge = start_clocked(mosquitto, tmp_path_factory.mktemp("data"), backend, BEGAN_AT)
    bridge.allow("first")
    yield bridge
    assert bridge.stop() == 0, bridge.log_file.read_text()


@pytest.fixture(scope="module")
def agent(mosquitto: RunningBroker) -> Iterator[CodedAgent]:
    with CodedAgent(mosquitto, "first") as working, working.at_work():
        yield working


def final_labels(backend: Backend, conversation_id: str) -> ConversationUpdated:
    def find() -> ConversationUpdated | None:
        updates = backend.seen(ConversationUpdated, conversation_id)
        return next((update for update in reversed(updates) if update.state == "final"), None)

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


@pytest.mark.parametrize(("generation", "is_signed"), [("A", False), ("B", True), ("B", False)])
def test_a_talk_is_labelled(
    omi: ClockedBridge, agent: CodedAgent, backend: Backend, generation: str, is_signed: bool
) -> None:
    del agent
    name = f"talk-{generation}-{is_signed}".lower()
    sender = Sender(omi.add_user(name), generation, is_signed, 5.0 if generation == "A" else 4.0, seed=3, retries=0.1)
    turns = draw_turns(len(name), 90.0)
    talk = coded_talk(turns, omi.clock() + 100)
    posts: list[Post] = sender.send_audio(talk)
    for place, post in enumerate(posts):
        if place % 10 == 9:
            omi.reconnect()
        assert omi.post(post).json() == {}
    rows = rows_of(turns, name)
    document = make_document(name, talk.began_at, rows, generation=generation)
    reported_at = posts[-1].at + 130
    assert omi.post(sender.send_conversation(document, reported_at)).status_code == 200
    update = final_labels(backend, name)
    assert share_right(update, turns, name) > 0.98
