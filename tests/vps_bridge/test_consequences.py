"""What a bridge has to do is done though the ledger is away in the middle of it: nobody tells it again."""

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from schemas.audio import ChunkDescription
from schemas.codec import encode
from schemas.conversation import ConversationEvent, ConversationUpdated, EventType
from tests.vps_bridge.ledger.test_ledger import accept
from vps_bridge.consequences import Consequences
from vps_bridge.dispatch.updates import Updater
from vps_bridge.errors import CommitsInDoubt, LedgerUnavailable
from vps_bridge.http.one_off import OneOffRequests
from vps_bridge.intake.taken import Taken
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.conversations import AssignedUpdate
from vps_bridge.settings import BridgeSettings


class Sent:
    """A publisher that keeps the conversation of each update."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def send_largest(self, topic: str, _forms: object) -> bool:
        self.names.append(topic.split("/")[-2])
        return True


class Away:
    """Makes a method of an object fail as it does while the ledger's server is away, until it `comes_back`."""

    def __init__(self, whose: object, name: str) -> None:
        self._whose, self._name, self._real = whose, name, getattr(whose, name)
        setattr(whose, name, self._fail)

    def _fail(self, *_arguments: object, **_more: object) -> None:
        raise LedgerUnavailable("away")

    def come_back(self) -> None:
        setattr(self._whose, self._name, self._real)


def note_update(ledger: Ledger, name: str, *, final: bool = False) -> None:
    """Labels of a conversation that the backend has not heard of."""
    accept(ledger, name)
    update = ConversationUpdated(conversation_id=name, updated_version=1, state="live", speakers=0, turns=())
    ledger.conversations.note_update(name, AssignedUpdate([], "key", encode(update), final, (), 0))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path, exclusive=True)
    yield ledger
    ledger.close()


def make_updater(ledger: Ledger, tmp_path: Path, sent: Sent, mine: set[str]) -> Updater:
    return Updater(
        BridgeSettings(data_dir=tmp_path), ledger, cast("Any", None), cast("Any", sent), owns=mine.__contains__
    )


def test_an_update_is_offered_though_the_ledger_was_away_when_it_was_due(ledger: Ledger, tmp_path: Path) -> None:
    sent = Sent()
    updater = make_updater(ledger, tmp_path, sent, {"c1"})
    note_update(ledger, "c1")
    updater.offer_again()
    away = Away(ledger.conversations, "unapplied_update")
    with pytest.raises(LedgerUnavailable):
        updater.offer(1.0)
    away.come_back()
    updater.offer(1.0)
    assert sent.names == ["c1"]


def test_updates_are_offered_again_though_the_ledger_was_away_when_they_were_looked_for(
    ledger: Ledger, tmp_path: Path
) -> None:
    sent = Sent()
    updater = make_updater(ledger, tmp_path, sent, {"c1"})
    note_update(ledger, "c1")
    updater.offer_again()
    away = Away(ledger.conversations, "unapplied")
    with pytest.raises(LedgerUnavailable):
        updater.offer_again()
    away.come_back()
    updater.offer(1.0)
    assert sent.names == ["c1"]


def test_an_update_that_another_bridge_made_last_is_offered_by_who_owns_the_conversation(
    ledger: Ledger, tmp_path: Path
) -> None:
    """It was made after the owner had taken the conversation up: by a bridge that did not know of that yet."""
    maker, owner = Sent(), Sent()
    made, owned = make_updater(ledger, tmp_path, maker, set()), make_updater(ledger, tmp_path, owner, {"c1"})
    owned.offer_again()
    note_update(ledger, "c1")
    made.offer_again("c1")
    made.offer(1.0)
    assert maker.names == [], "it is another one's"
    owned.offer_missed()
    owned.offer_missed()
    owned.offer(1.0)
    assert owner.names == ["c1"], "once: it is no news any more"


class Parts:
    """What `Consequences` has others do, and what of it was done."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.told: list[str] = []
        self.mine: set[str] = set()
        self.looks = [True]
        self.others = {"other": "instance"}
        self.one_offs: Any = SimpleNamespace(look=lambda: None)

    def look(self, *_arguments: object, **_more: object) -> bool:
        return bool(self.looks) and self.looks.pop()

    def make(self, tmp_path: Path) -> Consequences:
        membership = SimpleNamespace(owns=self.mine.__contains__, others=self.others, look=self.look)
        self.schedule = SimpleNamespace(take_up=self._note("schedule"), find_work=self._note("work"))
        self.updater = SimpleNamespace(offer_again=self._note("updates"), offer_missed=self._note("missed"))
        parts = SimpleNamespace(
            schedule=self.schedule,
            updater=self.updater,
            admission=SimpleNamespace(note_known=lambda *_names, **_lasting: None),
            one_offs=self.one_offs,
            ledger=SimpleNamespace(conversations=SimpleNamespace(latest_open=lambda _limit: []), tell=self.told.append),
        )
        presence = SimpleNamespace(beat_soon=lambda: None)
        consequences = Consequences(
            BridgeSettings(data_dir=tmp_path), cast("Any", membership), cast("Any", presence), cast("Any", None)
        )
        consequences.use(cast("Any", parts))
        return consequences

    def _note(self, what: str) -> Any:
        return lambda *names: self.done.append(" ".join([what, *names]))


def test_what_another_bridge_owned_is_taken_up_though_the_ledger_was_away_in_the_middle(tmp_path: Path) -> None:
    """That a bridge is gone is seen once: the owners are others than before, and then they are the same."""
    parts = Parts()
    consequences = parts.make(tmp_path)
    away = Away(parts.updater, "offer_again")
    with pytest.raises(LedgerUnavailable):
        consequences.act_on_news(0.0, is_ready=True)
    away.come_back()
    parts.done.clear()
    consequences.act_on_news(0.0, is_ready=True)
    assert parts.done[:2] == ["schedule", "updates"]
    parts.done.clear()
    consequences.act_on_news(1.0, is_ready=True)
    assert parts.done == []


def test_all_is_taken_up_anew_once_the_ledger_may_have_forgotten_something(tmp_path: Path) -> None:
    parts = Parts()
    consequences = parts.make(tmp_path)
    consequences.act_on_news(0.0, is_ready=True)
    parts.done.clear()
    consequences.note_unsynced(LedgerUnavailable("it did not answer, and has what it had"))
    consequences.act_on_news(0.0, is_ready=True)
    assert parts.done == []
    consequences.note_unsynced(CommitsInDoubt("hung up"))
    consequences.act_on_news(1.0, is_ready=True)
    assert parts.done == ["schedule", "updates"]


def test_updates_are_offered_on_a_new_connection_though_the_ledger_is_away_then(tmp_path: Path) -> None:
    parts = Parts()
    parts.looks = []
    consequences = parts.make(tmp_path)
    consequences.act_on_news(0.0, is_ready=True)
    parts.done.clear()
    consequences.note_connected()
    away = Away(parts.updater, "offer_again")
    with pytest.raises(LedgerUnavailable):
        consequences.act_on_news(1.0, is_ready=True)
    away.come_back()
    consequences.act_on_news(1.0, is_ready=True)
    assert parts.done == ["updates"]


def test_a_resync_that_came_to_another_bridge_reaches_the_owner_of_the_conversation(tmp_path: Path) -> None:
    """As over HTTP, which any of them answers."""
    other, owner = Parts(), Parts()
    owner.mine.add("c1")
    event = ConversationEvent(event_id="e", type=EventType.RESYNC)
    other.make(tmp_path).act_on_event(event, "c1")
    assert other.done == []
    consequences = owner.make(tmp_path)
    consequences.receive_news(other.told)
    consequences.act_on_news(1.0, is_ready=True)
    assert "updates c1" in owner.done


def test_a_one_off_request_is_answered_though_the_ledger_was_away_when_its_answer_was_there(
    ledger: Ledger, tmp_path: Path
) -> None:
    """Nobody says a second time that its conversation is final: it is looked at, also by a bridge that is alone."""
    events: list[bytes] = []
    intake = SimpleNamespace(
        live_agents=lambda: ["mac"],
        take_upload=lambda *_chunk: Taken(None, later=Future()),
        take_event=lambda _name, data: events.append(data),
    )
    one_offs = OneOffRequests(cast("Any", intake), ledger)
    answer = one_offs.start("c1", ChunkDescription(), cast("Any", None)).answer
    note_update(ledger, "c1", final=True)
    away = Away(intake, "take_event")
    with pytest.raises(LedgerUnavailable):
        one_offs.answer_if_final("c1")
    away.come_back()
    parts = Parts()
    parts.looks, parts.others, parts.one_offs = [], {}, one_offs
    parts.make(tmp_path).act_on_news(0.0, is_ready=True)
    assert answer.result(0) == ()
    assert len(events) == 1, "and its conversation is deleted"
