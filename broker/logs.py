"""Structured logs on stderr, the same for the broker, the agent and the bridge."""

import contextlib
import logging
import sys
from typing import TextIO, cast

import structlog


class _Stderr:
    """Stderr whose errors are ignored: on a full disk the log loses lines, and the program goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


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
        structlog.contextvars.merge_contextvars,
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
