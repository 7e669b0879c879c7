"""The labels of one update on their way to OMI: to whom there, in which calls, and what is noted of it."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Collection, Mapping

import structlog

from schemas.text import compose_name
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.omi_conversations import UntoldUpdate
from vps_bridge.ledger.told_segment import ToldSegment
from vps_bridge.omi.api import ApiFailed, ApiRefused, OmiApi
from vps_bridge.omi.label_choice import free_segments, were_somebodys

_LOG = structlog.get_logger(__name__)
MAX_ASSIGN_CALLS = 64
"""Of one person in one conversation: which of its segments OMI refuses is found in halves."""


class Sending:
    """The labels of one update, on their way."""

    def __init__(
        self,
        api: OmiApi,
        ledger: Ledger,
        update: UntoldUpdate,
        people: dict[str, str],
        read: Callable[[], Mapping[str, str | None]],
        refused: set[tuple[str, str]],
    ) -> None:
        """Send them.

        Args:
            api: OMI's.
            ledger: knows the people here, and learns what OMI was told.
            update: what is told of.
            people: the ids and names of those whom OMI knows.
            read: asks whom OMI has for each segment. It is asked before every write: a write may take long, and what
                people say there meanwhile is not written over.
            refused: conversation and segment of what OMI refused when it was sent alone; they are sent last.
        """
        self._api, self._ledger, self._update = api, ledger, update
        self._people, self._read, self._refused = people, read, refused
        self.has_sent = False
        self._no_name = ""

    def send(self, labels: Mapping[str, list[str]], back: Collection[str]) -> None:
        """Send the segments of each person, and those that are nobody's again. Raises the first `ApiFailed`, last.

        Also where OMI takes no person of a name: until there is another one, its lines wait.
        """
        failed: ApiFailed | None = None
        for person, segment_ids in [(None, back), *labels.items()]:
            try:
                now = self._read()
                free = free_segments(segment_ids, now, self._update.told)
                if not free:
                    continue
                self._send_person(person, free, now)
            except ApiFailed as error:
                failed = failed or error
            else:
                self.has_sent = True
        if failed is not None:
            raise failed
        if self._no_name:
            self.has_sent = True  # OMI answers: it is no trouble of all
            raise ApiFailed(f"OMI takes no person of a name that is given here ({self._no_name}): rename that person")

    def _send_person(self, person: str | None, segment_ids: list[str], now: Mapping[str, str | None]) -> None:
        known = None if person is None else self._ledger.people.get(self._update.uid, person)
        if known is not None and known.is_owner:  # `is_user` from a machine would teach the owner's voice
            person, segment_ids = None, were_somebodys(segment_ids, self._update.told)
        theirs = None
        if person is not None:
            theirs = self._find_person(person, known.name if known is not None else None)
            if theirs is None and not (self._people or self._no_name):
                self.has_sent = True  # OMI answers: it is no trouble of all
                raise ApiFailed(
                    "OMI lists no people, and somebody is to be told of who has no name here: name that person"
                )
            if theirs is None:
                about = {"conversation": self._update.conversation_id, "segments": len(segment_ids)}
                _LOG.info("omi_labels_wait_for_a_name", **about)
                person, segment_ids = None, were_somebodys(segment_ids, self._update.told)
        has_it = [one for one in segment_ids if now[one] == theirs]
        self._note(has_it, ToldSegment(person, theirs), now)
        self._assign([one for one in segment_ids if now[one] != theirs], ToldSegment(person, theirs), now)

    def _assign(self, segment_ids: list[str], told: ToldSegment, now: Mapping[str, str | None]) -> None:
        """Assign these segments. Raises `ApiFailed`, once what OMI takes is there."""
        name, refusal = self._update.conversation_id, ""
        waiting = [[one for one in segment_ids if ((name, one) in self._refused) is late] for late in (True, False)]
        waiting = [ids for ids in waiting if ids]
        for calls in range(MAX_ASSIGN_CALLS):
            if not waiting:
                break
            ids, now = waiting.pop(), self._read() if calls else now
            ids = free_segments(ids, now, self._update.told)
            if not ids:
                continue
            self._note_trying(ids, told)
            try:
                self._api.assign(self._update.uid, name, ids, told.theirs)
            except ApiRefused as error:
                middle, refusal = len(ids) // 2, str(error)
                waiting += [ids[middle:], ids[:middle]] if middle else []
                self._ledger.omi.note_assigned(self._update, {one: self._before(one) for one in ids})
                self._refused.update((name, one) for one in ids if not middle)
                _LOG.warning("omi_labels_refused", error=refusal, conversation=name, segments=len(ids))
            else:
                self.has_sent = True
                self._note(ids, told, now)
                self._refused.difference_update((name, one) for one in ids)
                _LOG.info("omi_labels_sent", conversation=name, segments=len(ids))
        if waiting or any((name, one) in self._refused for one in segment_ids):
            raise ApiFailed(refusal)

    def _before(self, segment_id: str) -> ToldSegment:
        return self._update.told.assigned.get(segment_id, ToldSegment())

    def _note_trying(self, segment_ids: Collection[str], told: ToldSegment) -> None:
        """Note whom OMI may have from us, should no answer come: it can be mended then."""
        before = {one: self._before(one) for one in segment_ids}
        trying = {one: said._replace(tried=tuple({*said.tried, told.theirs})) for one, said in before.items()}
        self._ledger.omi.note_assigned(self._update, trying)

    def _note(self, segment_ids: Collection[str], told: ToldSegment, had: Mapping[str, str | None]) -> None:
        if segment_ids:
            at = time.time()
            said = {one: self._before(one).then(told.ours, told.theirs, had[one], at) for one in segment_ids}
            self._ledger.omi.note_assigned(self._update, said)

    def _find_person(self, person: str, name: str | None) -> str | None:
        """Return whom OMI knows under this id, or this name; a name that it does not know is added, if it may be."""
        if person in self._people:
            return person
        if not name:
            return None
        wanted = _as_read(name)
        known = [one for one, called in self._people.items() if _as_read(called) == wanted]
        if len(known) > 1:
            raise ApiFailed("OMI has several people of one name: which one is meant cannot be told")
        if known:
            return known[0]
        try:
            added = self._api.add_person(self._update.uid, name)
        except ApiRefused as error:
            _LOG.warning("omi_person_refused", conversation=self._update.conversation_id, error=str(error))
            self._no_name = str(error)
            return None
        self._people[added] = name
        return added


def _as_read(name: str) -> str:
    """Return what two names that read the same share: pasted ones may have characters that nobody sees."""
    seen = "".join(one for one in name if unicodedata.category(one) != "Cf")
    return str(compose_name(seen or name)).casefold()
