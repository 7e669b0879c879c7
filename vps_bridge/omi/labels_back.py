"""Labels of named people go back to OMI, each once: what people change there afterwards stays as they left it."""

from __future__ import annotations

import threading
import time

import structlog

from schemas.codec import decode
from schemas.conversation import ConversationUpdated
from vps_bridge.error_guard import describe_error
from vps_bridge.ledger import Ledger, open_ledger
from vps_bridge.ledger.omi_conversations import Labels
from vps_bridge.omi.api import ApiFailed, ApiRefused, OmiApi
from vps_bridge.settings import BridgeSettings
from vps_bridge.webhook.rests import WebhookRests

_LOG = structlog.get_logger(__name__)
POLL_S = 1.0
CLOSE_S = 5.0
_SURE = ("matched", "confirmed")


def labels_of(update: ConversationUpdated) -> dict[str, list[str]]:
    """Return the segments of each person that an update names for sure."""
    found: dict[str, list[str]] = {}
    for label in update.segments:
        if label.person_id is not None and label.identity in _SURE:
            found.setdefault(label.person_id, []).append(label.id)
    return found


def new_labels(labels: Labels, told: Labels) -> dict[str, list[str]]:
    """Return the labels of segments of which OMI was told nobody yet."""
    known = {segment_id for ids in told.values() for segment_id in ids}
    fresh = {person: [one for one in ids if one not in known] for person, ids in labels.items()}
    return {person: ids for person, ids in fresh.items() if ids}


class LabelSender:
    """One thread with its own connection to the ledger. The pauses after a failure are those of the webhook."""

    def __init__(self, settings: BridgeSettings, api: OmiApi, min_s: float, max_s: float) -> None:
        """Send what the ledger has and OMI was not told."""
        self._settings, self._api, self._rests = settings, api, WebhookRests(min_s, max_s)
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
                ledger = ledger or open_ledger(self._settings, exclusive=False, sync_commits=False)
                self._send_due(ledger)
            except Exception as error:  # noqa: BLE001 - a full disk, say: what waits is sent once there is room
                _LOG.error("omi_labels_wait", error=describe_error(error))
        if ledger is not None:
            ledger.close()

    def _send_due(self, ledger: Ledger) -> None:
        while not self._stopping.is_set() and not self._rests.is_down(time.monotonic()):
            found = self._rests.choose(
                time.monotonic(), lambda but, newest: ledger.omi.next_untold(but, backwards=newest)
            )
            if found is None:
                return
            conversation_id, uid, payload, told, version = found
            fresh = new_labels(labels_of(decode(ConversationUpdated, payload)), told)
            try:
                self._send(ledger, uid, conversation_id, fresh)
            except (ApiFailed, ApiRefused) as error:
                self._rests.note_failed(conversation_id, time.monotonic())
                _LOG.warning("omi_labels_not_sent", conversation=conversation_id, error=str(error))
                continue
            if fresh:
                self._rests.note_delivered(conversation_id)
            ledger.omi.note_told(conversation_id, version)

    def _send(self, ledger: Ledger, uid: str, conversation_id: str, fresh: Labels) -> None:
        """Send labels, and note those of each person at once; refused ones count as sent. Raises as `list_people`."""
        people = self._api.list_people(uid) if fresh else {}
        for person, segment_ids in fresh.items():
            known = ledger.people.get(uid, person)
            try:
                if known is None or not known.is_owner:  # `is_user` from a machine would teach the owner's voice
                    omi_person = self._find_person(uid, people, person, known.name if known is not None else None)
                    if omi_person is None:
                        _LOG.info("omi_labels_wait_for_a_name", conversation=conversation_id, segments=len(segment_ids))
                        continue
                    self._api.assign(uid, conversation_id, segment_ids, omi_person)
                    _LOG.info("omi_labels_sent", conversation=conversation_id, segments=len(segment_ids))
            except ApiRefused as error:
                _LOG.warning("omi_labels_refused", conversation=conversation_id, error=str(error))
            ledger.omi.note_assigned(conversation_id, {person: segment_ids})

    def _find_person(self, uid: str, people: dict[str, str], person: str, name: str | None) -> str | None:
        """Return whom OMI knows under this id, or this name; a name that it does not know is added."""
        if person in people:
            return person
        if not name:
            return None
        known = next((one for one, called in people.items() if called.casefold() == name.casefold()), None)
        if known is None:
            known = self._api.add_person(uid, name)
            people[known] = name
        return known
