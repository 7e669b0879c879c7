"""Labels of named people go back to OMI: what people say there stays as they left it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial

import structlog

from schemas.codec import decode
from schemas.conversation import ConversationUpdated
from vps_bridge.error_guard import describe_error
from vps_bridge.intake.capture_counts import CaptureCounts
from vps_bridge.ledger import Ledger, open_ledger
from vps_bridge.ledger.omi_conversations import UntoldUpdate
from vps_bridge.omi.api import ApiFailed, ApiGone, ApiRefused, OmiApi
from vps_bridge.omi.label_choice import labels_of, new_labels, taken_back
from vps_bridge.omi.label_sending import Sending
from vps_bridge.settings import BridgeSettings
from vps_bridge.webhook.rests import WebhookRests

_LOG = structlog.get_logger(__name__)
POLL_S = 1.0
CLOSE_S = 5.0
TURN = "labels to OMI"  # of several bridges one sends at a time


class LabelSender:
    """One thread with its own connection to the ledger."""

    def __init__(self, settings: BridgeSettings, api: OmiApi, counts: CaptureCounts) -> None:
        """Send what the ledger has and OMI was not told; `counts` learns what waits and why."""
        self._settings, self._delivery = settings, LabelDelivery(settings, api, counts)
        self._thread = threading.Thread(target=self._run, name="omi-labels", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End soon; what was not sent is sent after the next start."""
        self._delivery.stopping.set()

    def join(self) -> None:
        """Wait for the attempt that is under way."""
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        ledger: Ledger | None = None
        while not self._delivery.stopping.wait(POLL_S):
            try:
                ledger = ledger or self._open_ledger()
                self._delivery.send_due(ledger)
            except Exception as error:  # noqa: BLE001 - a full disk, say: what waits is sent once there is room
                _LOG.error("omi_labels_wait", error=describe_error(error))
        if ledger is not None:
            ledger.close()

    def _open_ledger(self) -> Ledger:
        return open_ledger(self._settings, exclusive=False, sync_commits=False, bridge_id=self._settings.bridge_id)


class LabelDelivery:
    """Sends what is due, one conversation after the other. The pauses after a failure are those of the webhook."""

    def __init__(self, settings: BridgeSettings, api: OmiApi, counts: CaptureCounts) -> None:
        """Send to this API; `counts` learns what waits and why."""
        self._api, self._counts = api, counts
        self._rests = WebhookRests(settings.retry_min_s, settings.retry_max_s)
        self._refused: set[tuple[str, str]] = set()
        self._error = ""  # the last one, while something waits because of it
        self.stopping = threading.Event()
        """Once it is set, nothing more is begun."""

    def send_due(self, ledger: Ledger) -> None:
        """Send all that is due, unless another bridge sends."""
        if not ledger.take_turn(TURN):
            return
        try:
            self._send_each(ledger)
        finally:
            ledger.give_turn(TURN)
        if self._error:
            waiting = ledger.omi.count_untold()
            self._error = self._error if waiting else ""
            self._counts.labels_waiting = waiting  # before the reason: whoever sees that tells how many
            self._counts.labels_error = self._error

    def _send_each(self, ledger: Ledger) -> None:
        while not self.stopping.is_set() and not self._rests.is_down(time.monotonic()):
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
        self._error = error
        _LOG.warning("omi_labels_not_sent", conversation=found.conversation_id, error=error)

    def _send(self, ledger: Ledger, found: UntoldUpdate) -> None:
        """Send what is new of an update, and note it. Raises `ApiFailed`, and `ApiRefused` for an unknown user."""
        update = decode(ConversationUpdated, found.payload)
        sure = labels_of(update)
        labels, back = new_labels(sure, found.told), taken_back(update, sure, found.told)
        if labels or back:
            people = self._api.list_people(found.uid)
            read = partial(self._read_labels, found, [label.id for label in update.segments])
            sending = Sending(self._api, ledger, found, people, read, self._refused)
            try:
                sending.send(labels, back)
            except ApiFailed:
                if sending.has_sent:  # it is no trouble of all
                    self._rests.note_delivered(found.conversation_id)
                raise
            self._rests.note_delivered(found.conversation_id)
        ledger.omi.note_told(found)

    def _read_labels(self, found: UntoldUpdate, segment_ids: Sequence[str]) -> dict[str, str | None]:
        """Return whom OMI has for each segment now. Raises `ApiFailed`, also where it has none of these segments."""
        try:
            now = self._api.read_labels(found.uid, found.conversation_id)
        except ApiGone as error:  # deleted there: the next update asks again
            _LOG.warning("omi_labels_refused", conversation=found.conversation_id, error=str(error))
            return {}
        except ApiRefused as error:  # what stands before OMI may refuse for a while: nothing says that it is deleted
            raise ApiFailed(str(error)) from error
        if now.keys().isdisjoint(segment_ids):
            self._rests.note_delivered(found.conversation_id)  # it is no trouble of all
            raise ApiFailed("OMI shows none of the conversation's segments under the ids that it reported")
        return now
