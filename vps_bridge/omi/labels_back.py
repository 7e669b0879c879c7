"""Labels of named people go back to OMI: what people say there stays as they left it."""

from __future__ import annotations

import threading
import time

import structlog

from schemas.codec import decode
from schemas.conversation import ConversationUpdated
from vps_bridge.error_guard import describe_error
from vps_bridge.intake.capture_counts import CaptureCounts
from vps_bridge.ledger import Ledger, open_ledger
from vps_bridge.ledger.omi_conversations import UntoldUpdate
from vps_bridge.omi.api import ApiConflict, ApiFailed, ApiRefused, OmiApi
from vps_bridge.omi.label_choice import labels_of, labels_to_change, new_labels
from vps_bridge.settings import BridgeSettings
from vps_bridge.webhook.rests import WebhookRests

_LOG = structlog.get_logger(__name__)
POLL_S = 1.0
CLOSE_S = 5.0
TURN = "labels to OMI"  # of several bridges one sends at a time
MAX_ASSIGN_CALLS = 64
"""Of one person in one conversation: which of its segments OMI refuses is found in halves."""


class LabelSender:
    """One thread with its own connection to the ledger. The pauses after a failure are those of the webhook."""

    def __init__(self, settings: BridgeSettings, api: OmiApi, counts: CaptureCounts) -> None:
        """Send what the ledger has and OMI was not told; `counts` learns what waits and why."""
        self._settings, self._api, self._counts = settings, api, counts
        self._rests = WebhookRests(settings.retry_min_s, settings.retry_max_s)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="omi-labels", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End soon; what was not sent is sent after the next start."""
        self._stopping.set()

    def join(self) -> None:
        """Wait for the attempt that is under way."""
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        ledger: Ledger | None = None
        while not self._stopping.wait(POLL_S):
            try:
                ledger = ledger or self._open_ledger()
                self._send_in_turn(ledger)
            except Exception as error:  # noqa: BLE001 - a full disk, say: what waits is sent once there is room
                _LOG.error("omi_labels_wait", error=describe_error(error))
        if ledger is not None:
            ledger.close()

    def _open_ledger(self) -> Ledger:
        return open_ledger(self._settings, exclusive=False, sync_commits=False, bridge_id=self._settings.bridge_id)

    def _send_in_turn(self, ledger: Ledger) -> None:
        if not ledger.take_turn(TURN):
            return
        try:
            self._send_due(ledger)
        finally:
            ledger.give_turn(TURN)
        if self._counts.labels_error:
            self._counts.labels_waiting = ledger.omi.count_untold()
            if not self._counts.labels_waiting:
                self._counts.labels_error = ""

    def _send_due(self, ledger: Ledger) -> None:
        while not self._stopping.is_set() and not self._rests.is_down(time.monotonic()):
            found = self._rests.choose(
                time.monotonic(), lambda but, newest: ledger.omi.next_untold(but, backwards=newest)
            )
            if found is None:
                return
            try:
                self._send(ledger, found)
            except (ApiFailed, ApiRefused) as error:
                self._note_failed(found, str(error))
            except Exception as error:  # noqa: BLE001 - what is wrong with one conversation must not stop the others
                self._note_failed(found, describe_error(error))

    def _note_failed(self, found: UntoldUpdate, error: str) -> None:
        self._rests.note_failed(found.conversation_id, time.monotonic())
        self._counts.labels_error = error
        _LOG.warning("omi_labels_not_sent", conversation=found.conversation_id, error=error)

    def _send(self, ledger: Ledger, found: UntoldUpdate) -> None:
        """Send what is new of an update, and note it. Raises `ApiFailed`, and `ApiRefused` for an unknown user."""
        labels = new_labels(labels_of(decode(ConversationUpdated, found.payload)), found.told)
        if labels:
            people = self._api.list_people(found.uid)
            try:
                now = self._api.read_labels(found.uid, found.conversation_id)
            except ApiRefused as error:  # deleted or locked there: the next update asks again
                _LOG.warning("omi_labels_refused", conversation=found.conversation_id, error=str(error))
                now = {}
            sending = Sending(self._api, ledger, found, people)
            try:
                sending.send(labels_to_change(labels, now, found.told))
            except ApiFailed:
                if sending.has_sent:  # it is no trouble of all
                    self._rests.note_delivered(found.conversation_id)
                raise
            self._rests.note_delivered(found.conversation_id)
        ledger.omi.note_told(found.conversation_id, found.version)


class Sending:
    """The labels of one update, on their way."""

    def __init__(self, api: OmiApi, ledger: Ledger, update: UntoldUpdate, people: dict[str, str]) -> None:
        """Send them; `people` are the ids and names of those whom OMI knows."""
        self._api, self._ledger, self._update, self._people = api, ledger, update, people
        self.has_sent = False

    def send(self, labels: dict[str, list[str]]) -> None:
        """Send the segments of each person. Raises the first `ApiFailed`, after all were tried."""
        failed: ApiFailed | None = None
        for person, segment_ids in labels.items():
            try:
                self._send_person(person, segment_ids)
            except ApiFailed as error:
                failed = failed or error
            else:
                self.has_sent = True
        if failed is not None:
            raise failed

    def _send_person(self, person: str, segment_ids: list[str]) -> None:
        known = self._ledger.people.get(self._update.uid, person)
        if known is not None and known.is_owner:
            return  # `is_user` from a machine would teach the owner's voice
        name = known.name if known is not None else None
        theirs = self._find_person(person, name)
        about = {"conversation": self._update.conversation_id, "segments": len(segment_ids)}
        if theirs is None:
            _LOG.info("omi_labels_wait_for_a_name", **about)
            return
        waiting, conflict = [segment_ids], None
        for _ in range(MAX_ASSIGN_CALLS):
            ids = waiting.pop()
            try:
                self._api.assign(self._update.uid, self._update.conversation_id, ids, theirs)
            except ApiRefused as error:
                middle = len(ids) // 2
                waiting += [ids[middle:], ids[:middle]] if middle else []
                conflict = error if isinstance(error, ApiConflict) and not middle else conflict
                _LOG.warning("omi_labels_refused", error=str(error), **{**about, "segments": len(ids)})
            else:
                self._ledger.omi.note_assigned(self._update.conversation_id, ids, person, theirs)
                _LOG.info("omi_labels_sent", **{**about, "segments": len(ids)})
            if not waiting:
                break
        if conflict is not None:
            raise ApiFailed(str(conflict)) from conflict

    def _find_person(self, person: str, name: str | None) -> str | None:
        """Return whom OMI knows under this id, or this name; a name that it does not know is added, if it may be."""
        if person in self._people:
            return person
        if not name:
            return None
        known = next((one for one, called in self._people.items() if called.casefold() == name.casefold()), None)
        if known is None:
            try:
                known = self._api.add_person(self._update.uid, name)
            except ApiRefused as error:
                _LOG.warning("omi_person_refused", conversation=self._update.conversation_id, error=str(error))
                return None
            self._people[known] = name
        return known
