"""Check the bridge's databases, and what its ledger says waits or has failed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from broker.check import Check, CheckState, failed, note, ok
from broker.errors import SettingsError
from vps_bridge.conversations.open_store import open_store
from vps_bridge.conversations.sqlite import SqliteConversations
from vps_bridge.database import RESTORE, DatabaseError
from vps_bridge.dispatch.operator_answers import FORGET_REFUSED
from vps_bridge.durations import seconds
from vps_bridge.errors import LedgerUnavailable, StoreUnavailable
from vps_bridge.gone_database import DatabaseGone
from vps_bridge.http.access import read_access_rule
from vps_bridge.intake.spool import SPOOL
from vps_bridge.ledger import Ledger, LedgerMissing, open_ledger
from vps_bridge.ledger.erasure_log import LOG_NAMES, LOG_REMEDY, find_log_damage
from vps_bridge.ledger.ledger import FILE_NAME, LOCK_NAME
from vps_bridge.ledger.records import QueueCounts
from vps_bridge.ledger.server_facts import ServerFacts
from vps_bridge.rules.queue_share import QueueUse, is_kept_for_others
from vps_bridge.settings import BridgeSettings

LONG_WAIT_S = 900.0  # a lease's expected time is far below it, and so is a pause of an agent that is awake
STORE_REMEDY = "Nothing is lost meanwhile: labels are written once it answers. docs/stores.md says how it is set up."
ROOM_REMEDY = (
    "Publishers keep their audio until there is room. Start another agent, or raise OMI_MAX_QUEUE_JOBS and "
    "OMI_MAX_QUEUE_BYTES."
)
SERVER_REMEDY = "Nothing is lost meanwhile: docs/ledger-on-postgresql.md says how it is set up."


def check_files(settings: BridgeSettings) -> tuple[list[Check], Ledger | None]:
    """Open ledger and conversations and check both files whole. Returns the ledger, to be closed by the caller.

    A damaged ledger is not returned: what is read from it may be wrong, or end the command.
    """
    store = _check_store(settings)
    try:
        ledger = open_ledger(settings, exclusive=False)
    except LedgerMissing as error:
        return [_judge_missing(settings.root) or note("ledger", str(error))], None
    except (LedgerUnavailable, SettingsError) as error:
        return [failed("ledger", str(error), SERVER_REMEDY), store], None
    except DatabaseError as error:
        return [failed("ledger", error.problem, error.remedy or SERVER_REMEDY), store], None
    facts = ledger.describe_server()
    judged = _judge("ledger", ledger) if facts is None else _judge_server(facts)
    if facts is None and judged.verdict is CheckState.FAILED:
        ledger.close()
        return [judged, store], None
    return [judged, store], ledger


def check_spool(settings: BridgeSettings) -> list[Check]:
    """Check that the directory of audio is there; nothing where it is, in a bucket, or where no bridge ever ran."""
    directory = settings.root / SPOOL
    if settings.spool_url or directory.is_dir() or not (settings.root / LOCK_NAME).exists():
        return []
    remedy = "Restart the bridge, which makes it. Audio that waited there: publish it again, or restore a backup."
    return [failed("spool", f"{directory} is gone: audio is refused", remedy)]


def check_erasures(root: Path) -> list[Check]:
    """Check that all of the log of erasures can be read, on which a restore relies; nothing where there is none."""
    damage = find_log_damage(root)
    if damage:
        return [failed("erasures", "; ".join(damage), LOG_REMEDY)]
    return [ok("erasures", "the log of what was erased can be read")] if any(root.glob(LOG_NAMES)) else []


def longest_wait_s(counts: QueueCounts, now: float) -> float:
    """Return how long the oldest job waits; 0 where none does. `now` is Unix time."""
    return 0.0 if counts.oldest_at is None else now - counts.oldest_at


def check_queue(counts: QueueCounts, reasons: Sequence[str], now: float, limit: QueueUse) -> list[Check]:
    """Check whether there is room, what waits for too long (`reasons`: for what), what failed. `now` is Unix time."""
    found = f"{counts.jobs_ready} jobs wait, {counts.jobs_leased} are worked on, {counts.bytes / 1e6:,.0f} MB of audio"
    waits_s, used = longest_wait_s(counts, now), QueueUse(counts.jobs_ready + counts.jobs_leased, counts.bytes)
    if is_kept_for_others(used, limit):
        room = f"{used.jobs:,} of at most {limit.jobs:,} jobs, {used.bytes / 1e6:,.0f} of {limit.bytes / 1e6:,.0f} MB"
        checks = [failed("queue", f"{room}: audio of new conversations is refused", ROOM_REMEDY)]
    elif waits_s > LONG_WAIT_S:
        remedy = "omi-bridge jobs lists them, omi-bridge show CONVERSATION says what one waits for."
        checks = [failed("queue", f"{found}; the oldest for {seconds(waits_s)}: {'; '.join(reasons)}", remedy)]
    else:
        checks = [ok("queue", found)]
    bad = {
        "jobs": counts.jobs_failed,
        "conversations": counts.conversations_failed,
        "pieces of audio refused": counts.chunks_refused,
    }
    if any(bad.values()):
        found = ", ".join(f"{count} {what}" for what, count in bad.items() if count)
        is_work = counts.jobs_failed or counts.conversations_failed
        remedy = f"omi-bridge failed says why and what to do, then {'omi-bridge retry' if is_work else FORGET_REFUSED}"
        return [*checks, failed("failures", found, remedy)]
    return [*checks, ok("failures", "none")]


def check_door(settings: BridgeSettings) -> list[Check]:
    """Check what the bridge needs to open its HTTP door; nothing where the door is off."""
    if settings.http_port == 0:
        return []
    try:
        rule = read_access_rule(settings)
    except SettingsError as error:
        return [
            failed("http", str(error), "Correct it and restart the bridge: omi-bridge config shows where it is set")
        ]
    where = f"http://{settings.http_host}:{settings.http_port}"
    return [ok("http", where if rule.token else f"{where}, /v1 closed: no token is set")]


def _check_store(settings: BridgeSettings) -> Check:
    try:
        store = open_store(settings)
    except DatabaseError as error:
        return failed("conversations", error.problem, error.remedy)
    except SettingsError as error:
        return failed("conversations", str(error), STORE_REMEDY)
    try:
        if isinstance(store, SqliteConversations):
            return _judge("conversations", store)
        store.check()
    except StoreUnavailable as error:
        return failed("conversations", str(error), STORE_REMEDY)
    finally:
        store.close()
    return ok("conversations", "their store answers")


def _judge_missing(root: Path) -> Check | None:
    """Tell a ledger whose file was taken away from one that was never made; None: it was never made."""
    if not (root / LOCK_NAME).exists():
        return None
    gone = DatabaseGone(root / FILE_NAME)
    return failed("ledger", gone.problem, gone.remedy)


def _judge_server(facts: ServerFacts) -> Check:
    """Check what the ledger relies on: that a commit which the server has told us of outlives its machine."""
    if facts.risks:
        words = f"{facts.shown} may lose what it has told us is safe: {', '.join(facts.risks)}"
        return failed("ledger", words, "Set them to `on` in its postgresql.conf, and reload it.")
    return ok("ledger", f"{facts.shown} (version {facts.version}) answers, and syncs what it commits")


def _judge(name: str, file: Ledger | SqliteConversations) -> Check:
    try:
        damage = file.find_damage()
    except DatabaseError as error:
        return failed(name, error.problem, error.remedy)
    if damage:
        return failed(name, f"the file is damaged: {'; '.join(damage)}", RESTORE)
    return ok(name, "the file is whole")
