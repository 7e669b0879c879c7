"""The webhook's own thread: it sends what waits in the outbox, and nothing of the bridge waits for it."""

from __future__ import annotations

import threading
import time

import structlog

from schemas.bridge import WebhookState
from schemas.record import MAX_COUNT, MAX_DURATION_S
from vps_bridge.error_guard import describe_error
from vps_bridge.ledger import Ledger, open_ledger
from vps_bridge.ledger.webhook_outbox import WebhookCounts
from vps_bridge.settings import BridgeSettings
from vps_bridge.signed_endpoint import SignedEndpoint
from vps_bridge.webhook.post import NotDelivered, Post
from vps_bridge.webhook.receiver import read_receiver
from vps_bridge.webhook.rests import WebhookRests

_LOG = structlog.get_logger(__name__)
POLL_S = 0.5
CLOSE_S = 5.0
TURN = "webhook"  # of several bridges one sends at a time


class Webhook:
    """Sends updates and failures to the receiver that the settings name, if they name one."""

    def __init__(self, settings: BridgeSettings, ledger: Ledger, *, is_alone: bool = True) -> None:
        """Turn the outbox on or off. Raises `SettingsError` where the receiver is not fully described.

        `is_alone`: no other bridge runs on the ledger, which would have a receiver.
        """
        self._ledger = ledger
        receiver = read_receiver(settings)
        self._sender = None if receiver is None else WebhookSender(settings, receiver)
        if receiver is not None:
            ledger.webhook.turn_on()
            _LOG.info("webhook_on", receiver=receiver.shown)
        elif is_alone:
            forgotten = ledger.webhook.turn_off()
            if forgotten:
                _LOG.warning("webhook_off", forgotten=forgotten, reason="no webhook_url is set any more")

    def start(self) -> None:
        """Begin to send."""
        if self._sender is not None:
            self._sender.start()

    def close(self) -> None:
        """End the attempt that is under way; what was not delivered is sent after the next start."""
        if self._sender is not None:
            self._sender.close()

    def describe(self) -> WebhookState | None:
        """Return what the heartbeat says of it, or None where it is off."""
        counts = self._ledger.webhook.counts()
        return None if counts is None else describe_webhook(counts, time.time())


def describe_webhook(counts: WebhookCounts, now: float) -> WebhookState:
    """Return what a heartbeat says of the outbox. `now` is Unix time: for people only."""
    oldest_s = 0.0 if counts.oldest_at is None else now - counts.oldest_at
    return WebhookState(
        waiting=min(counts.waiting, MAX_COUNT),
        oldest_s=min(MAX_DURATION_S, max(0.0, oldest_s)),
        last_error=counts.last_error,
    )


class WebhookSender:
    """One thread with its own connection to the ledger; one message is under way at a time."""

    def __init__(self, settings: BridgeSettings, receiver: SignedEndpoint) -> None:
        """Send what waits in the ledger below `settings.root`."""
        self._settings = settings
        self._post = Post(receiver)
        self._pause_s = settings.retry_min_s
        self._rests = WebhookRests(settings.retry_min_s, settings.retry_max_s)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def close(self) -> None:
        """End soon: an attempt that is under way is ended."""
        self._stopping.set()
        self._post.abort()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        ledger: Ledger | None = None
        while not self._stopping.is_set():
            pause_s = POLL_S
            try:
                # A delivery that a power cut makes the ledger forget is made again under the same id: no commit waits
                # for the disk here, because the bridge's own thread would wait for it too.
                ledger = ledger or self._open_ledger()
                while self._send_in_turn(ledger, time.monotonic()):
                    pass
            except Exception as error:  # noqa: BLE001 - a full disk, say: what waits is sent once there is room
                _LOG.error("webhook_waits", error=describe_error(error))
                pause_s = self._pause_s
            self._stopping.wait(pause_s)
        if ledger is not None:
            ledger.close()

    def _open_ledger(self) -> Ledger:
        return open_ledger(self._settings, exclusive=False, sync_commits=False, bridge_id=self._settings.bridge_id)

    def _send_in_turn(self, ledger: Ledger, now_s: float) -> bool:
        """Send one message, unless another bridge is sending one; return whether there may be more."""
        if self._stopping.is_set() or not ledger.take_turn(TURN):
            return False
        try:
            return self._send_next(ledger, now_s)
        finally:
            ledger.give_turn(TURN)

    def _send_next(self, ledger: Ledger, now_s: float) -> bool:
        """Send one message, if one is due; return whether there may be more."""
        if self._stopping.is_set() or self._rests.is_down(now_s):
            return False
        message = self._rests.choose(now_s, lambda but, newest: ledger.webhook.next(but, newest=newest))
        if message is None:
            if not self._rests.resting(now_s):
                self._rests.forget()
            return False
        ledger.sync_all()  # what is told is on disk: a version number that was told is never given to something else
        about = {"conversation": message.conversation_id, "delivery": message.delivery_id}
        try:
            self._post.send(message, int(time.time()))
        except NotDelivered as error:
            if self._stopping.is_set():
                return False
            self._rests.note_failed(message.conversation_id, time.monotonic())
            ledger.webhook.note_failed(message.number, str(error))
            _LOG.warning("webhook_not_delivered", error=str(error), **about)
        else:
            self._rests.note_delivered(message.conversation_id)
            ledger.webhook.note_sent(message.number)
            _LOG.info("webhook_delivered", **about)
        return True
