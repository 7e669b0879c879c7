"""A process beside the bridge that works out the labels of large conversations, one at a time, within a limit."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from vps_bridge.dispatch.labelling_work import LabellingWork, work_out
from vps_bridge.error_guard import describe_error
from vps_bridge.errors import LabellingFailed
from vps_bridge.labelling.relabel import Relabelling, RelabelPolicy

IDLE_S = 60.0  # it is ended when nothing was asked of it for so long: it takes some 100 MB


@dataclass
class _Request:
    work: LabellingWork
    final: bool
    began_s: float
    answer: Relabelling | LabellingFailed | None = None


@dataclass(frozen=True)
class LargeLabelling:
    """Work that ended, and its labels or why there are none. `began_s` is in monotonic seconds."""

    work: LabellingWork
    final: bool
    began_s: float
    labelling: Relabelling | LabellingFailed


class LabellingProcess:
    """Used by the bridge's own thread, which never waits for it: another one hands work over and takes the answer."""

    def __init__(self, policy: RelabelPolicy, *, limit_s: float, on_answer: Callable[[], None]) -> None:
        """Start nothing yet; `on_answer` is called from another thread when there is something to `take`."""
        self._policy, self._limit_s, self._on_answer = policy, limit_s, on_answer
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._request: _Request | None = None
        self._ended_s = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether work was given to it whose answer was not taken."""
        return self._request is not None

    def works_on(self, conversation_id: str) -> bool:
        """Whether that is the conversation whose labels it works out."""
        return self._request is not None and self._request.work.name == conversation_id

    def start(self, work: LabellingWork, *, final: bool) -> None:
        """Begin; only where it is not busy. `final` is only kept for who takes the answer."""
        if self._pipe is None or self._process is None or not self._process.is_alive():
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, self._policy), name="labelling", daemon=True)
            self._process.start()
            theirs.close()
        self._request = _Request(work, final, time.monotonic())
        ask = threading.Thread(target=self._ask, args=(self._pipe, self._request), name="labelling", daemon=True)
        ask.start()

    def take(self) -> LargeLabelling | None:
        """Return work that ended; end the process where it takes too long, or has had nothing to do for long."""
        request, now_s = self._request, time.monotonic()
        if request is None:
            if self._process is not None and now_s - self._ended_s > IDLE_S:
                self._kill()
            return None
        if request.answer is None and now_s - request.began_s > self._limit_s:
            self._kill()
            request.answer = LabellingFailed(f"its labels took longer than {self._limit_s:g} s to work out")
        if request.answer is None:
            return None
        self._request, self._ended_s = None, now_s
        return LargeLabelling(request.work, request.final, request.began_s, request.answer)

    def close(self) -> str | None:
        """End the process; return the conversation that it had not done."""
        request, self._request = self._request, None
        self._kill()
        return request.work.name if request else None

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def _ask(self, pipe: Connection, request: _Request) -> None:
        try:
            pipe.send(request.work)
            answer = pipe.recv()
        except (EOFError, OSError):
            answer = LabellingFailed("the process that worked out its labels died")
        if request.answer is None:
            request.answer = answer
        self._on_answer()


def _serve(pipe: Connection, policy: RelabelPolicy) -> None:
    """Answer until the bridge is gone."""
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to the bridge too, which ends this process
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_bridge, daemon=True).start()
    while True:
        work = pipe.recv()
        try:
            answer: Relabelling | LabellingFailed = work_out(work, policy)
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends this conversation's attempt alone
            answer = LabellingFailed(describe_error(error))
        pipe.send(answer)


def _end_with_bridge() -> None:
    bridge = multiprocessing.parent_process()
    if bridge is not None:
        bridge.join()
    os._exit(0)
