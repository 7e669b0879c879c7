"""Structured logs on stderr, the same for the broker, the agent and the bridge."""

import contextlib
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import TextIO, cast

import structlog


class _Stderr:
    """Stderr whose errors are ignored: on a full disk, or closed, the log loses lines, and the program goes on.

    An error would end the thread that logs: the network's, say, without a word.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


MESSAGE_FROM: ContextVar[str | None] = ContextVar("message_from", default=None)
"""Whose message is being worked on."""
LINES_PER_MINUTE = 20  # warnings and errors of one kind about messages of one sender
MAX_SENDERS = 1_000
MINUTE_S = 60.0


class SenderLimit:
    """A processor that leaves out lines about messages of a sender who causes many: nobody may fill the disk with them.

    Only warnings and errors that are logged while `MESSAGE_FROM` is set count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began_s = clock, clock()
        self._lines: Counter[tuple[str, str]] = Counter()  # in this minute, by sender and event

    def __call__(
        self, _logger: structlog.types.WrappedLogger, level: str, line: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        """Return the line, or raise `DropEvent` where it is one too many."""
        sender = MESSAGE_FROM.get()
        if sender is None or level not in ("warning", "error"):
            return line
        key = sender, str(line.get("event"))
        if key not in self._lines and len(self._lines) >= MAX_SENDERS:
            key = "others", key[1]
        self._lines[key] += 1
        if self._lines[key] > LINES_PER_MINUTE:
            raise structlog.DropEvent
        return line

    def report(self) -> None:
        """Once a minute has passed, log how many lines of each sender were left out in it, and begin another."""
        if self._clock() - self._began_s < MINUTE_S:
            return
        self._began_s, lines, self._lines = self._clock(), self._lines, Counter()
        for (sender, event), count in lines.items():
            if count > LINES_PER_MINUTE:
                log = structlog.get_logger(__name__)
                log.warning("lines_left_out", sender=sender, about=event, count=count - LINES_PER_MINUTE)


sender_limit = SenderLimit()
"""The one that `configure_logs` uses. A program that sets `MESSAGE_FROM` calls its `report` now and then."""


def configure_logs(*, as_json: bool) -> None:
    """Send logs to stderr, as JSON lines for programs or as text for people (coloured on a terminal)."""
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # Rich tracebacks print local variables, which may hold a secret or someone's words.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    processors: list[structlog.types.Processor] = [
        sender_limit,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if as_json:
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    # Libraries log through the standard library; only their warnings and errors are shown.
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s [%(levelname)s] %(name)s: %(message)s"
    )


def silence_logs() -> None:
    """Keep the log of an MQTT session off the terminal, for a command that reports the same problems itself."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stderr(sys.stderr))),
    )
