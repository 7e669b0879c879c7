"""Conversations that OMI's webhook reported: whose they are, when they were, and what was told OMI of them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Text, bindparam, case, cast, delete, exists, func, select, update

from vps_bridge.ledger.both_dialects import insert
from vps_bridge.ledger.database import LedgerDatabase
from vps_bridge.ledger.packing import packed_payload
from vps_bridge.ledger.records import LIVE
from vps_bridge.ledger.tables import ConversationRow, OmiConversationRow, TombstoneRow
from vps_bridge.ledger.told_segment import ToldSegment, choose_told, read_told

Labels = Mapping[str, list[str]]
"""Segment ids by the person who said them."""

NEAR_S = 60.0
"""Conversations that OMI merges or splits lie in each other's time, to about this."""


@dataclass(frozen=True)
class OmiConversationRecord:
    """A conversation of OMI's, in Unix time. `posts`: how often it was reported; `waits`: for its audio still."""

    conversation_id: str
    uid: str
    started_at: float
    ended_at: float
    posts: int
    body_sha256: str
    waits: bool


@dataclass(frozen=True)
class ToldLabels:
    """What OMI said and was told of a conversation. `named`: segments for which it once had a person of its own.

    `assigned`: by segment what OMI was told last.
    """

    named: AbstractSet[str] = frozenset()
    assigned: Mapping[str, ToldSegment] = field(default_factory=dict)


@dataclass(frozen=True)
class UntoldUpdate:
    """An update of which OMI was not told: the conversation, its user, the encoded update, and its version.

    `sent`: changes where all is to be told again, a person was renamed, say, while this is on its way.
    """

    conversation_id: str
    uid: str
    payload: bytes
    told: ToldLabels
    version: int
    sent: int


_OF = "of_conversation"
_IT = OmiConversationRow.conversation_id == bindparam(_OF)
_HAS_NEWS = exists().where(
    ConversationRow.conversation_id == OmiConversationRow.conversation_id,
    ConversationRow.updated_version > OmiConversationRow.sent_version,
)
_IS_GONE = exists().where(TombstoneRow.conversation_id == OmiConversationRow.conversation_id)
_IS_UNTOLD = (
    OmiConversationRow.untold,
    ConversationRow.updated_version > OmiConversationRow.sent_version,
)
_AGAIN = case((OmiConversationRow.sent_version > 0, -1), else_=OmiConversationRow.sent_version - 1)
"""Of no update, and never the same: what is on its way then is told again."""
# What every look would else read all conversations for, whichever of the two tables changed last.
_LOOK_AGAIN = update(OmiConversationRow).where(_IT).values(untold=_HAS_NEWS, gone=_IS_GONE)
_COLUMNS = (
    OmiConversationRow.conversation_id,
    OmiConversationRow.uid,
    OmiConversationRow.started_at,
    OmiConversationRow.ended_at,
    OmiConversationRow.posts,
    OmiConversationRow.body_sha256,
    OmiConversationRow.waits,
)


class OmiBook:
    """Conversations of OMI's, of all users."""

    def __init__(self, database: LedgerDatabase) -> None:
        """Work on the ledger's database."""
        self._database = database

    def find(self, conversation_id: str) -> OmiConversationRecord | None:
        """Return one by its id."""
        with self._database.reading() as connection:
            query = select(*_COLUMNS).where(OmiConversationRow.conversation_id == conversation_id)
            row = connection.execute(query).first()
            return None if row is None else OmiConversationRecord(*row)

    def put(
        self,
        record: OmiConversationRecord,
        labels: Labels,
        told: Mapping[str, ToldSegment] | None = None,
        heard: Mapping[str, str] | None = None,
        left_out: Mapping[str, str] | None = None,
    ) -> None:
        """Note what was reported, and the labels that OMI has by itself; those that it had before stay known.

        `told`: those that it has from us; what it was told for this very conversation stays as it is, and is told
        again where OMI may have whom it was told before once more. Nothing, where a person said otherwise there.
        `heard`: by segment whom it has by itself in this report; None leaves what was heard last.
        `left_out`: by segment whom a person had named here in what this report has not any more.
        """
        with self._database.writing(record.conversation_id) as connection:
            values = {**vars(record), "sent_labels": _join_labels(connection, record.conversation_id, labels)}
            values |= {} if heard is None else {"heard": dict(heard)}
            if told:
                known = _read_assigned(connection, record.conversation_id)
                may = {one: read_told(known[one]).may_have(said) for one, said in told.items() if one in known}
                again = {one: read_told(known[one]).and_tried(tried) for one, tried in may.items() if tried}
                theirs = {one: said for one, said in told.items() if said == ToldSegment()}
                values["assigned"] = {**told, **known, **again, **theirs}
            if left_out is not None:
                assigned = values.get("assigned") or _read_assigned(connection, record.conversation_id)
                values["assigned"] = _with_left_out(assigned, left_out, told or {})
            changed = {name: value for name, value in values.items() if name != "conversation_id"}
            changed |= {"sent_version": _AGAIN}  # OMI has it: what it did not take while it was deleted there, too
            connection.execute(
                insert(OmiConversationRow)
                .values(**values)
                .on_conflict_do_update(index_elements=["conversation_id"], set_=changed)
            )
            look_again(connection, record.conversation_id)

    def heard_last(self, conversation_id: str) -> dict[str, str]:
        """Return by segment whom OMI had by itself in its last report of a conversation."""
        query = select(OmiConversationRow.heard).where(OmiConversationRow.conversation_id == conversation_id)
        with self._database.reading() as connection:
            return connection.scalar(query) or {}

    def told(self, conversation_id: str) -> dict[str, ToldSegment]:
        """Return by segment what OMI was told of this very conversation."""
        with self._database.reading() as connection:
            return {one: read_told(said) for one, said in _read_assigned(connection, conversation_id).items()}

    def people_told(self, uid: str, here: Collection[str]) -> dict[str, str]:
        """Return by person in OMI who that is of those `here`, as a user's conversations were told.

        Who may be two is none; whoever was deleted here is nobody.
        """
        query = select(OmiConversationRow.assigned).where(OmiConversationRow.uid == uid)
        found = defaultdict[str, set[str]](set)
        with self._database.reading() as connection:
            for assigned in connection.scalars(query):
                for said in map(read_told, (assigned or {}).values()):
                    if said.ours and said.ours in here and said.theirs is not None:
                        found[said.theirs].add(said.ours)
        return {theirs: min(ours) for theirs, ours in found.items() if len(ours) == 1}

    def told_near(
        self, conversation_id: str, uid: str, span: tuple[float, float], has: Mapping[str, str | None], now: float
    ) -> dict[str, ToldSegment]:
        """Return what OMI was told of a conversation's segments, also as segments of others of the user at its time.

        `has`: whom it has for them now; where several conversations told it of one, that one counts which told it this.
        """
        query = select(OmiConversationRow.conversation_id, OmiConversationRow.assigned).where(*_is_near(uid, span))
        elsewhere = defaultdict[str, list[ToldSegment]](list)
        with self._database.reading() as connection:
            for name, assigned in connection.execute(query):
                if name != conversation_id:
                    for one, said in (assigned or {}).items():
                        elsewhere[one].append(read_told(said))
            own = {one: read_told(said) for one, said in _read_assigned(connection, conversation_id).items()}
        found = {one: choose_told(said, has.get(one), now) for one, said in elsewhere.items()}
        return found | {one: said.or_from(found.get(one), has.get(one), now) for one, said in own.items()}

    def named_near(self, uid: str, span: tuple[float, float]) -> frozenset[str]:
        """Return the segments for which OMI had somebody by itself, of a user's conversations at that time."""
        query = select(OmiConversationRow.sent_labels).where(*_is_near(uid, span))
        with self._database.reading() as connection:
            return frozenset(one for labels in connection.scalars(query) for ids in labels.values() for one in ids)

    def others_near(self, conversation_id: str, uid: str, span: tuple[float, float]) -> list[str]:
        """Return a user's other conversations at that time."""
        query = select(OmiConversationRow.conversation_id).where(*_is_near(uid, span))
        with self._database.reading() as connection:
            return sorted(name for name in connection.scalars(query) if name != conversation_id)

    def waiting(self) -> list[OmiConversationRecord]:
        """Return those that wait for audio."""
        with self._database.reading() as connection:
            query = select(*_COLUMNS).where(OmiConversationRow.waits)
            return [OmiConversationRecord(*row) for row in connection.execute(query)]

    def of_user(self, uid: str, since: float) -> list[OmiConversationRecord]:
        """Return a user's that ended after `since`."""
        with self._database.reading() as connection:
            query = select(*_COLUMNS).where(OmiConversationRow.uid == uid, OmiConversationRow.ended_at > since)
            return [OmiConversationRecord(*row) for row in connection.execute(query)]

    def note_taken(self, conversation_id: str, posts: int) -> None:
        """Note that one waits no more, unless it was reported again meanwhile."""
        this = OmiConversationRow.conversation_id == conversation_id, OmiConversationRow.posts == posts
        with self._database.writing() as connection:
            connection.execute(update(OmiConversationRow).where(*this).values(waits=False))

    def live(self) -> list[tuple[str, str | None]]:
        """Return the conversations that show live segments: id, and whose it is."""
        name = ConversationRow.conversation_id
        query = select(name, ConversationRow.owner).where(name >= LIVE, name < LIVE + "~")
        with self._database.reading() as connection:
            return [(row[0], row[1]) for row in connection.execute(query)]

    def next_untold(self, resting: Collection[str], *, backwards: bool = False) -> UntoldUpdate | None:
        """Return an update that OMI was not told of.

        `resting` conversations are left out. `backwards`: of the last by id, not the first.
        """
        name = OmiConversationRow.conversation_id
        query = (
            select(
                name,
                OmiConversationRow.uid,
                ConversationRow.updated_payload,
                OmiConversationRow.sent_labels,
                OmiConversationRow.assigned,
                ConversationRow.updated_version,
                OmiConversationRow.sent_version,
            )
            .join(ConversationRow, ConversationRow.conversation_id == name)
            .where(*_IS_UNTOLD, name.not_in(resting))
            .order_by(name.desc() if backwards else name)
            .limit(1)
        )
        with self._database.reading() as connection:
            row = connection.execute(query).first()
            if row is None:
                return None
            payload = packed_payload(connection, row[0]) if row[2] is None else row[2]
        named = frozenset(one for ids in (row[3] or {}).values() for one in ids)
        told = ToldLabels(named, {segment: read_told(said) for segment, said in (row[4] or {}).items()})
        return UntoldUpdate(row[0], row[1], payload or b"", told, row[5], row[6])

    def count_untold(self) -> int:
        """Return how many conversations have an update that OMI was not told of."""
        query = (
            select(func.count())
            .select_from(OmiConversationRow)
            .join(ConversationRow, ConversationRow.conversation_id == OmiConversationRow.conversation_id)
            .where(*_IS_UNTOLD)
        )
        with self._database.reading() as connection:
            return connection.scalar(query) or 0

    def note_assigned(self, found: UntoldUpdate, told: Mapping[str, ToldSegment]) -> None:
        """Note what OMI was told of these segments, or is about to be.

        Where all is to be told again meanwhile, it is not known any more who that is of ours.
        """
        name, row = found.conversation_id, OmiConversationRow
        with self._database.writing(name) as connection:
            known = _read_assigned(connection, name)
            if connection.scalar(select(row.sent_version).where(row.conversation_id == name)) != found.sent:
                before = {one: read_told(known[one]).tried for one in told if one in known}
                told = {one: said._replace(ours=None).and_tried(before.get(one, ())) for one, said in told.items()}
            tried = {one for one in told if one in known and read_told(known[one]).tried}
            # One that was refused and never told is as if nobody had tried: as a mark it would be a person's word.
            never = {one for one in tried if told[one] == ToldSegment()}
            assigned = {one: said for one, said in {**known, **told}.items() if one not in never}
            connection.execute(update(row).where(_IT).values(assigned=assigned), {_OF: name})

    def note_told(self, found: UntoldUpdate) -> None:
        """Note that OMI was told all that it could be of an update, unless all is to be told again meanwhile."""
        this = _IT, OmiConversationRow.sent_version == found.sent
        with self._database.writing(found.conversation_id) as connection:
            connection.execute(
                update(OmiConversationRow).where(*this).values(sent_version=found.version),
                {_OF: found.conversation_id},
            )
            look_again(connection, found.conversation_id)

    def deleted(self) -> list[OmiConversationRecord]:
        """Return those that were deleted here, whose audio may still be kept."""
        with self._database.reading() as connection:
            query = select(*_COLUMNS).where(OmiConversationRow.gone)
            return [OmiConversationRecord(*row) for row in connection.execute(query)]

    def forget(self, conversation_id: str) -> None:
        """Forget one."""
        this = OmiConversationRow.conversation_id == conversation_id
        with self._database.writing() as connection:
            connection.execute(delete(OmiConversationRow).where(this))


def _is_near(uid: str, span: tuple[float, float]) -> tuple[ColumnElement[bool], ...]:
    """Return what makes a conversation one of a user's at that time (Unix time)."""
    row = OmiConversationRow
    return row.uid == uid, row.started_at <= span[1] + NEAR_S, row.ended_at >= span[0] - NEAR_S


def look_again(connection: Connection, conversation_id: str) -> None:
    """Note whether OMI is to be told of an update of this conversation, and whether it is gone; most are not OMI's."""
    connection.execute(_LOOK_AGAIN, {_OF: conversation_id})


def tell_again(connection: Connection, uid: str) -> None:
    """Have OMI be told what it was not told yet of a user's conversations: a name, or who is the owner, has changed."""
    is_told = exists().where(
        ConversationRow.conversation_id == OmiConversationRow.conversation_id, ConversationRow.updated_version > 0
    )
    connection.execute(
        update(OmiConversationRow).where(OmiConversationRow.uid == uid).values(sent_version=_AGAIN, untold=is_told)
    )


def note_renamed(connection: Connection, uid: str, person_id: str) -> None:
    """Have OMI be told anew of a person whom it was told under another name, or before it was the owner."""
    row = OmiConversationRow
    query = select(row.conversation_id, row.assigned).where(
        row.uid == uid, cast(row.assigned, Text).contains(json.dumps(person_id), autoescape=True)
    )
    for name, assigned in connection.execute(query).all():
        changed = {one: [None if said[0] == person_id else said[0], *said[1:]] for one, said in assigned.items()}
        connection.execute(update(row).where(_IT).values(assigned=changed), {_OF: name})


def _read_assigned(connection: Connection, conversation_id: str) -> dict[str, Any]:
    query = select(OmiConversationRow.assigned).where(OmiConversationRow.conversation_id == conversation_id)
    return connection.scalar(query) or {}


def _with_left_out(assigned: Mapping[str, Any], left_out: Mapping[str, str], told: Collection[str]) -> dict[str, Any]:
    """Return what was told, with whom a person had named in the lines that are gone, but not in those that are back."""
    known = {one: read_told(assigned[one]) for one in (*left_out, *told) if one in assigned}
    said = {one: was._replace(by_hand=left_out.get(one)) for one, was in known.items() if was != ToldSegment()}
    return {**assigned, **said}


def _join_labels(connection: Connection, conversation_id: str, labels: Labels) -> dict[str, list[str]]:
    """Return these labels and those that OMI had before."""
    query = select(OmiConversationRow.sent_labels).where(OmiConversationRow.conversation_id == conversation_id)
    known: Labels = connection.scalar(query) or {}
    return {person: sorted({*known.get(person, []), *labels.get(person, [])}) for person in (*known, *labels)}
