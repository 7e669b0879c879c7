"""People in the ledger: who they are, how they sound, and what was said and decided of them. By owner, always.

What is deleted here is overwritten in the file; `Ledger.forget_deleted_pages` takes it out of the write-ahead log too.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Connection, Text, bindparam, cast, delete, func, select, union, update

from schemas.conversation import Verdict
from schemas.failure import FailureCode
from schemas.people import PersonEvent, PersonEventType
from vps_bridge.ledger.both_dialects import holds, insert, larger
from vps_bridge.ledger.conversation_changes import belongs_to
from vps_bridge.ledger.database import CachedRead, LedgerDatabase
from vps_bridge.ledger.deleted_people import FROM_CONVERSATION, persons_of
from vps_bridge.ledger.erasure_log import Erased, Erasures
from vps_bridge.ledger.event_content import digest_event, is_another
from vps_bridge.ledger.omi_conversations import note_renamed, tell_again
from vps_bridge.ledger.people_rows import (
    add_person,
    ask_asked_again,
    ask_labels,
    ask_labels_where,
    ask_told,
    note_decision,
    put_print,
    tells_of,
)
from vps_bridge.ledger.records import FORGOTTEN, CorrectionRecord
from vps_bridge.ledger.tables import (
    ChunkRow,
    ConversationRow,
    CorrectionRow,
    JobRow,
    PersonDecisionRow,
    PersonEventRow,
    PersonRow,
    PrintRow,
    TombstoneRow,
)

NOBODY = ""
"""The owner of what no event names an owner of."""


@dataclass(frozen=True)
class PersonRecord:
    """A person of an owner."""

    owner: str
    person_id: str
    name: str | None
    is_owner: bool
    consent_date: str | None
    created_at: float
    revision: int
    """Of the latest event about it; an event of a lower one changes nothing."""


@dataclass(frozen=True)
class PrintRecord:
    """A voiceprint as it is kept."""

    person_id: str
    source: str
    conversation_id: str
    embedding_space: str
    vector: bytes
    """float32, little-endian, of length 1."""
    clean_s: float

    def is_from(self, conversation_id: str) -> bool:
        """Whether people confirmed it in this conversation."""
        return (self.source, self.conversation_id) == (FROM_CONVERSATION, conversation_id)


@dataclass(frozen=True)
class DecisionRecord:
    """What was decided about a person, and when (Unix time)."""

    at: float
    what: str
    conversation_id: str | None
    similarity: float | None


@dataclass(frozen=True)
class OwnersPeople:
    """The people of one owner: what matching needs."""

    people: frozenset[str] = frozenset()
    prints: tuple[PrintRecord, ...] = ()


_PERSON_COLUMNS = tuple(getattr(PersonRow, item.name) for item in fields(PersonRecord))
_PRINT_COLUMNS = tuple(getattr(PrintRow, item.name) for item in fields(PrintRecord))
_DECISION_COLUMNS = tuple(getattr(PersonDecisionRow, item.name) for item in fields(DecisionRecord))
# From one name to the next: a server would read every conversation to find the few that differ.
_FIRST_OWNER = select(func.min(ConversationRow.owner).label("owner")).cte("named", recursive=True)
_NAMED = _FIRST_OWNER.union_all(
    select(
        select(func.min(ConversationRow.owner)).where(ConversationRow.owner > _FIRST_OWNER.c.owner).scalar_subquery()
    ).where(_FIRST_OWNER.c.owner.is_not(None))
)
_HAS_LASTING = select(ConversationRow.owner).where(ConversationRow.owner == _NAMED.c.owner, ~ConversationRow.throwaway)
_OWNERS = union(select(PersonRow.owner), select(_NAMED.c.owner).where(_HAS_LASTING.exists()))
_IS_ANY_OF_NOBODY = select(
    select(ConversationRow.owner).where(ConversationRow.owner.is_(None), ~ConversationRow.throwaway).exists()
)
# What every labelling asks; built once, since building a statement takes longer than running it.
_IDS_OF = select(PersonRow.person_id).where(PersonRow.owner == bindparam("of_owner"))
_IS_ANYBODY_KNOWN = select(select(PersonRow.owner).exists() | select(PrintRow.owner).exists())
_PRINTS_OF = select(*_PRINT_COLUMNS).where(PrintRow.owner == bindparam("of_owner")).order_by(*_PRINT_COLUMNS[:3])
_PRINTS_FROM = select(PrintRow.owner, *_PRINT_COLUMNS).where(
    PrintRow.conversation_id == bindparam("of_conversation"), PrintRow.source == FROM_CONVERSATION
)


class PeopleBook:
    """People of all owners; every method is about one owner's."""

    def __init__(self, database: LedgerDatabase, erasures: Erasures) -> None:
        """Work on the ledger's database."""
        self._database, self._erasures = database, erasures
        self._is_anybody_known = CachedRead(database, self._read_whether_anybody_is_known)

    # ---------------------------------------------------------------------------------------------- reading

    def owners(self) -> list[str]:
        """Return every owner of people or of conversations; `NOBODY` where some have none."""
        with self._database.reading() as connection:
            owners = {name or NOBODY for name in connection.scalars(_OWNERS)}
            if connection.scalar(_IS_ANY_OF_NOBODY):
                owners.add(NOBODY)
        return sorted(owners)

    def get(self, owner: str, person_id: str) -> PersonRecord | None:
        """Return a person, or None where the owner has none of that id."""
        with self._database.reading() as connection:
            row = connection.execute(select(*_PERSON_COLUMNS).where(_is(PersonRow, owner, person_id))).first()
            return PersonRecord(**row._asdict()) if row else None

    def of_owner(self, owner: str) -> list[PersonRecord]:
        """Return the owner's people, by id."""
        query = select(*_PERSON_COLUMNS).where(PersonRow.owner == owner).order_by(PersonRow.person_id)
        with self._database.reading() as connection:
            return [PersonRecord(**row._asdict()) for row in connection.execute(query)]

    def known_to(self, owner: str) -> OwnersPeople:
        """Return the ids and voiceprints of the owner's people."""
        if not self._is_anybody_known.get():
            return OwnersPeople()
        with self._database.reading() as connection:
            ids = frozenset(connection.scalars(_IDS_OF, {"of_owner": owner}))
            found = connection.execute(_PRINTS_OF, {"of_owner": owner}) if ids else ()
            return OwnersPeople(ids, tuple(PrintRecord(**row._asdict()) for row in found))

    def _read_whether_anybody_is_known(self) -> bool:
        with self._database.reading() as connection:
            return bool(connection.scalar(_IS_ANYBODY_KNOWN))

    def decisions(self, owner: str, person_id: str) -> list[DecisionRecord]:
        """Return what was decided about a person, oldest first."""
        query = select(*_DECISION_COLUMNS).where(_is(PersonDecisionRow, owner, person_id))
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(PersonDecisionRow.number))
            return [DecisionRecord(**row._asdict()) for row in rows]

    def naming(self, owner: str, person_id: str) -> dict[str, Any]:
        """Return the owner's conversations in which a voice is or was this person's, with their voices as JSON."""
        query = select(ConversationRow.conversation_id, ConversationRow.voices).where(belongs_to(owner))
        if json.dumps(person_id)[1:-1] == person_id:  # else it may be written otherwise there
            query = query.where(holds(cast(ConversationRow.voices, Text), person_id))
        with self._database.reading() as connection:
            return {name: voices for name, voices in connection.execute(query) if json.dumps(person_id) in str(voices)}

    def corrections_about(self, owner: str, person_id: str) -> list[tuple[str, CorrectionRecord]]:
        """Return what people corrected about a person in the owner's conversations, each with its conversation."""
        mine = select(ConversationRow.conversation_id).where(belongs_to(owner))
        columns = [getattr(CorrectionRow, item.name) for item in fields(CorrectionRecord)]
        query = select(CorrectionRow.conversation_id, *columns).where(CorrectionRow.conversation_id.in_(mine))
        with self._database.reading() as connection:
            rows = [row._asdict() for row in connection.execute(query.order_by(CorrectionRow.conversation_id))]
        found = [(row.pop("conversation_id"), CorrectionRecord(**row)) for row in rows]
        return [(name, kept) for name, kept in found if any(one.get("person_id") == person_id for one in kept.said)]

    def voices_by_owner(self) -> list[tuple[str, Any]]:
        """Return the owner and the voices of every conversation that has some."""
        query = select(func.coalesce(ConversationRow.owner, NOBODY), ConversationRow.voices)
        with self._database.reading() as connection:
            return [(owner, voices) for owner, voices in connection.execute(query) if voices]

    def from_conversation(self, conversation_id: str) -> dict[tuple[str, str], PrintRecord]:
        """Return the voiceprints that people confirmed in a conversation, by owner and person."""
        if not self._is_anybody_known.get():
            return {}
        with self._database.reading() as connection:
            found = connection.execute(_PRINTS_FROM, {"of_conversation": conversation_id})
            rows = [row._asdict() for row in found]
        return {(row.pop("owner"), row["person_id"]): PrintRecord(**row) for row in rows}

    def find_answer(self, person_id: str, event: PersonEvent) -> tuple[Verdict, str | None] | None:
        """Return (verdict, reason) for an event that changes nothing, or None for one that is to be applied."""
        owner = event.owner or NOBODY
        seen = select(PersonEventRow.verdict, PersonEventRow.reason, PersonEventRow.content).where(
            _is(PersonEventRow, owner, person_id)
        )
        with self._database.reading() as connection:
            row = connection.execute(seen.where(PersonEventRow.event_id == event.event_id)).first()
            newest = connection.scalar(select(PersonRow.revision).where(_is(PersonRow, owner, person_id)))
        if row is not None and is_another(row.content, event):
            return Verdict.REFUSED, FailureCode.EVENT_ID_CONFLICT
        if row is not None:
            return Verdict(row.verdict), row.reason
        is_fact = event.type not in (PersonEventType.CONFIRMED, PersonEventType.FORGOTTEN)
        if is_fact and event.revision < (newest or 0):
            return Verdict.DISCARDED, FailureCode.REVISION_STALE
        return None

    # ---------------------------------------------------------------------------------------------- writing

    def add(self, owner: str, person_id: str) -> None:
        """Make a person of whom nothing is known yet; one who is there stays as it is."""
        with self._database.writing(_of(owner)) as connection:
            add_person(connection, owner, person_id)
        self._is_anybody_known.drop()

    def note(self, person_id: str, event: PersonEvent, verdict: Verdict, reason: str | None = None) -> None:
        """Apply what an event says of a person and keep its answer. What `forgotten` asks for is done before."""
        owner = event.owner or NOBODY
        answer = {"owner": owner, "person_id": person_id, "event_id": event.event_id}
        with self._database.writing(_of(owner)) as connection:
            if verdict is Verdict.ACCEPTED and event.type is not PersonEventType.FORGOTTEN:
                add_person(connection, owner, person_id)
                _apply(connection, owner, person_id, event)
            content = None if event.type is PersonEventType.FORGOTTEN else digest_event(event)
            kept = insert(PersonEventRow).values(**answer, verdict=verdict, reason=reason, content=content)
            connection.execute(kept.on_conflict_do_nothing())
        self._is_anybody_known.drop()

    def learn(
        self,
        owner: str,
        conversation_id: str,
        prints: Sequence[PrintRecord],
        kept: Collection[str] = (),
        *,
        replaced: Collection[str] = (),
        better: Collection[str] = (),
    ) -> None:
        """Have these be the voiceprints that people confirmed in a conversation, beside those of `kept` people.

        All others from there go: what confirmed them was taken back. So it was of the `replaced` people, whose
        voiceprint is another voice's now, or has lost speech; `better` people's has won some. Of people who are not
        known none is kept. Where the owner's other conversations may know somebody else now, new labels are asked for:
        of those that are not final, and of final ones as docs/adr/0041-a-match-taken-back.md says.
        """
        of_it = (PrintRow.conversation_id == conversation_id) & (PrintRow.source == FROM_CONVERSATION)
        with self._database.writing(_of(owner)) as connection:
            known = set(connection.scalars(select(PersonRow.person_id).where(PersonRow.owner == owner)))
            wanted = {found.person_id: found for found in prints if found.person_id in known}
            rows = connection.execute(select(PrintRow.owner, PrintRow.person_id).where(of_it))
            before = {(row.owner, row.person_id) for row in rows}
            stay = {(owner, person_id) for person_id in (*wanted, *kept) if person_id not in replaced}
            for other, person_id in sorted(before - stay):
                connection.execute(delete(PrintRow).where(of_it, _is(PrintRow, other, person_id)))
                note_decision(connection, other, person_id, "unlearned", conversation_id)
                ask_told(connection, other, person_id, but=conversation_id)
            stay &= before
            for person_id, found in wanted.items():
                put_print(connection, owner, asdict(found))
                if (owner, person_id) not in stay:
                    note_decision(connection, owner, person_id, "learned", conversation_id)
                if (owner, person_id) not in stay or person_id in better:
                    ask_asked_again(connection, owner, person_id)
            if before - stay or {(owner, person_id) for person_id in wanted} - stay:
                ask_labels(connection, owner, but=conversation_id)

    def enrol(self, owner: str, found: PrintRecord) -> None:
        """Keep the voiceprint of an enrolment, and ask for new labels of what is not final.

        Not of one that is deleted: its result may come after the person was forgotten, before all of it is erased.
        """
        stone = select(TombstoneRow.conversation_id).where(TombstoneRow.conversation_id == found.conversation_id)
        with self._database.writing(_of(owner)) as connection:
            if connection.scalar(stone) is not None:
                return
            add_person(connection, owner, found.person_id)
            put_print(connection, owner, asdict(found))
            note_decision(connection, owner, found.person_id, "learned", found.conversation_id)
            ask_asked_again(connection, owner, found.person_id)
            ask_labels(connection, owner, but=found.conversation_id)
        self._is_anybody_known.drop()

    def enrolments(self) -> list[tuple[str, float]]:
        """Return the enrolments whose outcome is told, and since when (Unix time)."""
        query = select(ConversationRow.conversation_id, ConversationRow.final_at).where(
            ConversationRow.enrols.is_not(None), ConversationRow.final_at.is_not(None)
        )
        with self._database.reading() as connection:
            return [(name, final_at or 0.0) for name, final_at in connection.execute(query)]

    def enrolling(self, owner: str, person_id: str) -> list[str]:
        """Return the enrolments of a person that are not deleted yet."""
        mine = select(ConversationRow.conversation_id).where(belongs_to(owner), ConversationRow.enrols == person_id)
        with self._database.reading() as connection:
            return list(connection.scalars(mine))

    def strip(self, conversation_id: str) -> tuple[str, ...] | None:
        """Delete the results of an enrolment that is final; return the names of its audio files. What it tells stays.

        None where that is done already, or is not to be done. Its chunks stay as tombstones, so that audio that is
        sent again is known.
        """
        this = (ConversationRow.conversation_id == conversation_id) & ConversationRow.enrols.is_not(None)
        mine = ChunkRow.conversation_id == conversation_id
        done = update(ConversationRow).where(this, ConversationRow.final_at.is_not(None), ~ConversationRow.stripped)
        its_jobs = select(JobRow.job_id).where(JobRow.conversation_id == conversation_id).with_for_update()
        with self._database.writing(conversation_id) as connection:
            connection.execute(its_jobs).all()  # jobs before their conversation: see `jobs`
            if not connection.execute(done.values(stripped=True, voices=[])).rowcount:
                return None
            names = tuple(name for name in connection.scalars(select(ChunkRow.spool_name).where(mine)) if name)
            connection.execute(update(ChunkRow).where(mine).values(spool_name=None))
            connection.execute(delete(JobRow).where(JobRow.conversation_id == conversation_id))
            return names

    def decide(
        self, owner: str, person_id: str, what: str, conversation_id: str, similarity: float | None = None
    ) -> None:
        """Note a decision about a known person; one like the last of this conversation is not noted again."""
        last = (
            select(PersonDecisionRow.what)
            .where(_is(PersonDecisionRow, owner, person_id), PersonDecisionRow.conversation_id == conversation_id)
            .order_by(PersonDecisionRow.number.desc())
        )
        with self._database.writing(_of(owner)) as connection:
            is_known = connection.execute(select(PersonRow.name).where(_is(PersonRow, owner, person_id))).first()
            if is_known and connection.scalar(last.limit(1)) != what:
                note_decision(connection, owner, person_id, what, conversation_id, similarity)

    def forget(self, owner: str, person_id: str) -> None:
        """Delete all that is known of a person but the ids of events, and what a person confirmed teaches no more.

        Labels of the owner's conversations are worked out anew where they tell of the person, or are not final.
        """
        mine = select(ConversationRow.conversation_id).where(belongs_to(owner))
        kept = select(CorrectionRow.conversation_id, CorrectionRow.write, CorrectionRow.said, CorrectionRow.teaches)
        with self._database.writing(_of(owner)) as connection:
            self._erasures.note(connection, Erased.PERSON, owner, person_id)
            for row in connection.execute(kept.where(CorrectionRow.conversation_id.in_(mine))).all():
                if any(one.get("person_id") == person_id for one in row.said):
                    this = (CorrectionRow.conversation_id == row.conversation_id) & (CorrectionRow.write == row.write)
                    said = [{**one, FORGOTTEN: True} if one.get("person_id") == person_id else one for one in row.said]
                    teaches = row.teaches and bool(persons_of(said))  # the others whom it names are known as before
                    connection.execute(update(CorrectionRow).where(this).values(said=said, teaches=teaches))
            for table in (PersonRow, PrintRow, PersonDecisionRow):
                connection.execute(delete(table).where(_is(table, owner, person_id)))
            contents = update(PersonEventRow).where(_is(PersonEventRow, owner, person_id))
            connection.execute(contents.values(content=None))
            ask_labels(connection, owner)
            ask_labels_where(connection, belongs_to(owner), tells_of(person_id))


def _of(owner: str) -> str:
    """Return whose people are written of, as the database locks them."""
    return f"people of {owner}"


def _is(table: Any, owner: str, person_id: str) -> Any:  # noqa: ANN401 - a table of this file, and its condition
    return (table.owner == owner) & (table.person_id == person_id)


def _apply(connection: Connection, owner: str, person_id: str, event: PersonEvent) -> None:
    this = update(PersonRow).where(_is(PersonRow, owner, person_id))
    newest = {"revision": larger(PersonRow.revision, event.revision)}
    match event.type:
        case PersonEventType.NAMED:
            before = connection.scalar(select(PersonRow.name).where(_is(PersonRow, owner, person_id)))
            if before != event.name:
                note_renamed(connection, owner, person_id)
                tell_again(connection, owner)
            connection.execute(this.values(name=event.name, **newest))
        case PersonEventType.CONSENTED:
            connection.execute(this.values(consent_date=str(event.consent_date), **newest))
        case PersonEventType.OWNER:
            if event.is_owner:
                connection.execute(update(PersonRow).where(PersonRow.owner == owner).values(is_owner=False))
            connection.execute(this.values(is_owner=event.is_owner, **newest))
            note_renamed(connection, owner, person_id)  # OMI is told of all but the owner
            tell_again(connection, owner)
    note_decision(connection, owner, person_id, event.type, event.conversation_id)
