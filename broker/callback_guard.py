"""Running a callback of a session's user: an error in it ends nothing."""

from collections.abc import Callable

import structlog

from broker.records import SessionCounters

_log = structlog.get_logger("broker.session")


def run_guarded(callback: Callable[[], None], where: str, client_id: str, counters: SessionCounters) -> None:
    """Run a callback of the user. An error in it is counted, and logged without its text, which may quote a payload."""
    try:
        callback()
    except Exception as error:  # noqa: BLE001 - any error of a callback is counted, and the session goes on
        counters.handler_errors += 1
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        at = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame is not None else "?"
        _log.error("callback raised", client_id=client_id, where=where, error=type(error).__name__, at=at)
