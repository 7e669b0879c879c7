"""Erasing again what was erased after a backup was made: the log has digests, the restored databases have the ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vps_bridge.conversations.sql_store import SqlConversations
from vps_bridge.conversations.store import ConversationStore
from vps_bridge.intake.erasure import erase_audio, erase_conversation
from vps_bridge.intake.people import People
from vps_bridge.intake.spool import Spool
from vps_bridge.labelling.number import VoiceBook
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.erasure_log import Erased, Erasure


@dataclass(frozen=True)
class ErasedAgain:
    """How much of each was erased again."""

    conversations: int = 0
    audio: int = 0
    people: int = 0
    agents: int = 0


def erase_again(
    erasures: Iterable[Erasure],
    ledger: Ledger,
    spool: Spool,
    store: ConversationStore,
    *,
    erase: Callable[[str], object] | None = None,
) -> ErasedAgain:
    """Erase what the log names and the databases still have.

    `erase` is what erases a conversation; without it the ledger must be held exclusively.
    """
    wanted = {(erasure.kind, erasure.digest) for erasure in erasures}
    if not wanted:
        return ErasedAgain()

    def is_wanted(kind: Erased, *ids: str) -> bool:
        return (kind, ledger.erasures.digest(kind, *ids)) in wanted

    stored = store.known() if isinstance(store, SqlConversations) else ()  # a backend knows itself what it deleted
    names = sorted({*ledger.listing.latest_first(), *stored})
    gone = [name for name in names if is_wanted(Erased.CONVERSATION, name)]
    for name in gone:
        if erase is None:
            erase_conversation(name, ledger, spool, store)
        else:
            erase(name)
    silent = [name for name in names if name not in gone and is_wanted(Erased.AUDIO, name)]
    for name in silent:
        erase_audio(name, ledger, spool)
    people = [known for known in sorted(_known_people(ledger)) if is_wanted(Erased.PERSON, *known)]
    for owner, person_id in people:
        People(ledger, store).forget(owner, person_id)
    agents = 0
    for agent in ledger.agents.all():
        if is_wanted(Erased.AGENT, agent.agent_id):
            agents += ledger.agents.forget(agent.agent_id)
        elif agent.allowed and is_wanted(Erased.PERMISSION, agent.agent_id):
            ledger.agents.set_allowed(agent.agent_id, allowed=False)
            agents += 1
    ledger.forget_deleted_pages()
    store.forget_deleted_pages()
    return ErasedAgain(len(gone), len(silent), len(people), agents)


def erase_restored(ledger: Ledger, spool: Spool, store: ConversationStore) -> ErasedAgain:
    """Erase again what was erased from a ledger on a server after the dump was made that was restored there since.

    Safe beside other bridges: whoever owns a conversation erases it, as after a command.
    """
    copy = ledger.erasure_copy
    lost = copy.find_lost() if copy is not None else []
    if copy is None or not lost:
        return ErasedAgain()
    with copy.putting_back(lost):
        return erase_again(lost, ledger, spool, store, erase=ledger.conversations.mark_deleted)


def _known_people(ledger: Ledger) -> set[tuple[str, str]]:
    """Return (owner, person) of everybody who is known, or whom a voice of a conversation is named after."""
    known = {(owner, person.person_id) for owner in ledger.people.owners() for person in ledger.people.of_owner(owner)}
    for owner, voices in ledger.people.voices_by_owner():
        for voice in VoiceBook.from_json(voices).voices:
            known |= {(owner, person) for person in (voice.person_id, voice.matched_person) if person}
    return known
