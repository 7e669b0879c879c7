"""The listener's HTTP server, in a thread of the bridge's process, and the thread that works on what it took."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from functools import partial

import structlog
import uvicorn

from broker.private_files import replace_file
from schemas.failure import FailureCode
from vps_bridge.conversations.store import ConversationStore
from vps_bridge.error_guard import describe_error
from vps_bridge.errors import Refusal
from vps_bridge.http.connections import CappedProtocol
from vps_bridge.http.listening import listen
from vps_bridge.intake.capture_counts import CaptureCounts
from vps_bridge.intake.disk_reserve import DiskReserve
from vps_bridge.intake.intake import Intake
from vps_bridge.ledger import Ledger, open_ledger
from vps_bridge.mailbox import BridgeBusy, Mailbox
from vps_bridge.omi.api import read_api
from vps_bridge.omi.capture import CAPTURE, Arrival, CaptureLog
from vps_bridge.omi.commits import CommitQueue
from vps_bridge.omi.counts_file import COUNTS_FILE, describe_counts
from vps_bridge.omi.labels_back import LabelSender
from vps_bridge.omi.listener import OmiListener
from vps_bridge.omi.live import LiveConversations, find_over
from vps_bridge.omi.records import hash_name
from vps_bridge.omi.report import Reporter
from vps_bridge.omi.taking import SETTLE_S, AudioTaker
from vps_bridge.omi.users import OMI, UserFile, UsersFileBroken
from vps_bridge.settings import BridgeSettings

_LOG = structlog.get_logger(__name__)
STOP_GRACE_S = 3
CLOSE_S = 8.0
LOOK_S = 1.0
ROOM_EVERY_S = 0.5  # how much is free is not asked for every POST
ASK_TIMEOUT_S, LIVE_RESTS = 60.0, 3
RESERVE_BYTES = 2 * 2**20  # what may arrive until it is asked again


def _configure(app: OmiListener) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=CappedProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_GRACE_S,
    )


class OmiServer:
    """Serves OMI's webhooks from `open` to `close`."""

    def __init__(
        self,
        settings: BridgeSettings,
        mailbox: Mailbox,
        intake: Intake,
        ledger: Ledger,
        store: ConversationStore,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the capture log; `ledger` and `store` are used on the bridge's own thread only.

        Raises `OSError`, and `SettingsError` where labels cannot go back as the settings say.
        """
        self._settings, self._clock = settings, clock
        self._disk_reserve = DiskReserve(settings.root, settings.ballast_bytes)
        self._directory = settings.root / OMI
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.counts = CaptureCounts()
        self._users = UserFile(settings.root)
        self._log = CaptureLog(self._directory / CAPTURE, settings.omi_capture_s, clock())
        self._commits = CommitQueue(self._log, self._check_room)
        self._taker = AudioTaker(settings.root, self._log, mailbox, intake, settings.max_chunk_bytes)
        self._mailbox = mailbox
        self._live, self._live_due_s = LiveConversations(intake, ledger), 0.0
        self._stopping, self._wanted = threading.Event(), threading.Event()
        self._room: tuple[float, int] = (0.0, 0)
        app = OmiListener(
            self._users,
            self._log,
            self._commits,
            Reporter(intake, ledger, store, self._live),
            mailbox,
            self.counts,
            clock=clock,
            on_report=self._wanted.set,
        )
        self._live_texts, self._config = app.live, _configure(app)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        api = read_api(settings)
        self._labels = LabelSender(settings, api, self.counts) if api else None
        self._worker = threading.Thread(target=self._work_on, name="omi-taker", daemon=True)
        self._worker.start()

    @property
    def is_open(self) -> bool:
        """Whether it serves."""
        return self._thread is not None and self._thread.is_alive()

    def open(self) -> None:
        """Start to serve. Raises `OSError` where the address is in use or not of this machine."""
        listener = listen(self._settings.omi_http_host, self._settings.omi_http_port)
        self._server = uvicorn.Server(self._config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="omi-listener", daemon=True)
        self._thread.start()
        _LOG.info("omi_listener_open", host=self._settings.omi_http_host, port=self._settings.omi_http_port)

    def close(self) -> None:
        """Take no more requests; what was taken is on disk, and the next start goes on with it."""
        self._stopping.set()
        self._wanted.set()
        if self._labels is not None:
            self._labels.close()
        if self._server is not None:
            self._server.should_exit = True

    def join(self) -> None:
        """Wait until what was under way has ended; the bridge's thread must have closed its mailbox before."""
        for thread in (self._thread, self._worker):
            if thread is not None:
                thread.join(CLOSE_S)
        if self._labels is not None:
            self._labels.join()
        self._commits.close()

    def _check_room(self, arrival: Arrival) -> None:
        """Raise `Refusal` where what arrived is too much. On the listener's event loop."""
        settings, size = self._settings, len(arrival.body)
        if self._log.kept_bytes + size > settings.omi_capture_bytes:
            remedy = "raise OMI_OMI_CAPTURE_BYTES, or lower OMI_OMI_CAPTURE_S"
            msg = f"{settings.omi_capture_bytes} bytes of OMI's audio are kept: {remedy}"
            raise Refusal(FailureCode.INGEST_FULL, msg)
        if self._log.bytes_of(arrival.user) + size > settings.omi_user_bytes:
            msg = f"{settings.omi_user_bytes} bytes of this user's audio are kept: raise OMI_OMI_USER_BYTES"
            raise Refusal(FailureCode.INGEST_FULL, msg)
        now_s = time.monotonic()
        if now_s - self._room[0] > ROOM_EVERY_S:
            self._room = now_s, self._disk_reserve.room_bytes()
        if self._room[1] < size + RESERVE_BYTES:
            raise Refusal(FailureCode.DISK_FULL, "the bridge's disk is full: make room on the VPS")

    # ------------------------------------------------------------------------------------- the worker's thread

    def _work_on(self) -> None:
        ledger: Ledger | None = None
        while not self._stopping.is_set():
            self._wanted.wait(LOOK_S)
            self._wanted.clear()
            try:
                if ledger is None:
                    ledger = open_ledger(self._settings, exclusive=False, sync_commits=False)
                    self._log.load()
                self._tidy(ledger)
                self._show_live()
                self._taker.take_due(ledger, self._clock(), lambda: not self._stopping.is_set())
            except BridgeBusy:
                self._stopping.wait(LOOK_S)
            except Exception as error:  # noqa: BLE001 - a full disk, say: what waits is taken once there is room
                _LOG.error("omi_waits", error=describe_error(error))
                self._stopping.wait(LOOK_S)
        if ledger is not None:
            ledger.close()

    def _show_live(self) -> None:
        """Show what came live, and rest thrice as long: so it never takes most of the bridge's time."""
        began_s = time.monotonic()
        if began_s < self._live_due_s:
            return
        for text in self._live_texts.take():
            if self._stopping.is_set():
                return
            self._mailbox.ask(partial(self._live.show, text)).result(ASK_TIMEOUT_S)
        ended_s = time.monotonic()
        self._live_due_s = ended_s + LIVE_RESTS * (ended_s - began_s)

    def _tidy(self, ledger: Ledger) -> None:
        """Delete what has had its time, and what is left of deleted conversations and of users who were removed."""
        expired = self._log.expire(self._clock())
        if expired:
            _LOG.info("omi_capture_erased", files=expired)
        self._erase_removed(ledger)
        for record in ledger.omi.deleted():
            self._log.erase(hash_name(record.uid), record.started_at, record.ended_at + SETTLE_S)
            ledger.omi.forget(record.conversation_id)
        self.counts.kept_bytes = self._log.kept_bytes
        self._write_counts()

    def _erase_removed(self, ledger: Ledger) -> None:
        try:
            uids = set(self._users.all())
        except UsersFileBroken as error:
            _LOG.error("omi_users_unknown", error=str(error))
            return
        for user in self._log.users() - {hash_name(uid) for uid in uids}:
            _LOG.info("omi_user_erased", records=self._log.erase(user))
        for name in find_over(ledger.omi.live(), uids, self._settings.omi_capture_s, self._clock()):
            self._mailbox.ask(partial(self._live.drop, name)).result(ASK_TIMEOUT_S)

    def _write_counts(self) -> None:
        described = json.dumps(describe_counts(self.counts))
        path = self._directory / COUNTS_FILE
        if not path.exists() or path.read_text() != described:
            replace_file(path, described)
