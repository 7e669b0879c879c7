"""`omi-bridge purge`: erase conversations, or only their audio."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated

import typer

from broker.terminal import print_json
from vps_bridge.commands.terminal import (
    EXIT_FAILED,
    EXIT_USAGE,
    AsJson,
    ConfigFile,
    DataDir,
    ask_first,
    explained,
    fail,
    known,
    load,
    opened,
    out,
)

if TYPE_CHECKING:
    from vps_bridge.conversations.store import ConversationStore
    from vps_bridge.ledger import Ledger
    from vps_bridge.settings import BridgeSettings

UNIT_S = {"s": 1, "min": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
BRIDGE_TIMEOUT_S = 15.0
POLL_S = 0.1


def purge(
    conversation: Annotated[str | None, typer.Argument(help="The conversation's id.")] = None,
    older_than: Annotated[
        str | None, typer.Option(help="Every conversation nothing happened to for so long: 30min, 12h, 30d, 4w.")
    ] = None,
    audio: Annotated[bool, typer.Option("--audio", help="Only audio: labels, text and history stay.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Erase a conversation as its backend's `deleted` does: audio, turns, text, labels, history. It cannot be undone.

    A tombstone stays, so that what comes late is discarded. With --audio only audio goes; a job that still needs it
    fails. Works with the bridge running (which then does it, within seconds) or stopped.

    Examples:
      omi-bridge purge call-1

      omi-bridge purge --audio --older-than 12h --yes

    Exit codes: 0 erased; 1 nothing of that name, or not confirmed; 2 wrong arguments.
    """
    if (conversation is None) == (older_than is None):
        fail("name one conversation, or say --older-than 30d", EXIT_USAGE)
    with explained():
        settings = load(config, "bridge", data_dir=data_dir)
        with opened(config, data_dir) as (ledger, store, _stale_s):
            names = _choose(ledger, conversation, older_than)
            if names and not yes:
                _confirm(names, audio=audio)
                still = set(_choose(ledger, conversation, older_than))  # something may have happened meanwhile
                names = [name for name in names if name in still]
            if audio:
                _purge_audio(ledger, settings, names, as_json=as_json)
            else:
                _purge_all(ledger, store, settings, names, as_json=as_json)


def _choose(ledger: Ledger, conversation: str | None, older_than: str | None) -> list[str]:
    if older_than is not None:
        return ledger.conversations.quiet_since(time.time() - _seconds(older_than))
    name = conversation or ""
    if ledger.conversations.is_deleted(name):
        return []
    return [known(ledger, name).conversation_id]


def _seconds(words: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h|d|w)", words.strip())
    if found is None:
        fail(f"--older-than {words!r}: say a number and s, min, h, d or w, such as 30d", EXIT_USAGE)
    return float(found[1]) * UNIT_S[found[2]]


def _confirm(names: list[str], *, audio: bool) -> None:
    what = "the audio of " if audio else "everything of "
    which = names[0] if len(names) == 1 else f"{len(names)} conversations ({names[0]}, …)"
    ask_first(f"Erase {what}{which}? It cannot be undone.", unasked="")


def _purge_audio(ledger: Ledger, settings: BridgeSettings, names: list[str], *, as_json: bool) -> None:
    from vps_bridge.bucket.objects import BucketUnavailable
    from vps_bridge.intake.erasure import erase_audio
    from vps_bridge.intake.open_spool import open_command_spool

    spool = open_command_spool(settings, ledger.ledger_id)
    before = ledger.free_bytes()
    chunks, left = 0, ""
    for name in names:
        try:
            chunks += erase_audio(name, ledger, spool)
        except BucketUnavailable as error:
            left = str(error)
    freed = max(0, ledger.free_bytes() - before)
    if left:
        fail(
            f"the ledger has no audio of them any more; in the bucket some is left until a bridge finds it: {left}",
            EXIT_FAILED,
        )
    if as_json:
        print_json({"conversations": names, "audio_only": True, "chunks": chunks, "finished": True})
    else:
        out.print(f"{chunks} chunks of audio of {len(names)} conversations are gone; {freed:,} bytes more are free")


def _purge_all(
    ledger: Ledger, store: ConversationStore, settings: BridgeSettings, names: list[str], *, as_json: bool
) -> None:
    from vps_bridge.intake.erasure import erase_conversation
    from vps_bridge.intake.open_spool import open_command_spool
    from vps_bridge.intake.partial_chunks import INCOMING, PartialChunks
    from vps_bridge.ledger import LedgerBusy, open_ledger

    for name in names:
        ledger.conversations.mark_deleted(name)
    try:
        own = open_ledger(settings, exclusive=True)
    except LedgerBusy:
        finished = _wait_for_bridge(ledger, names)  # the running bridge has them in memory, so it erases them
    else:
        spool = open_command_spool(settings, own.ledger_id)
        PartialChunks(settings.root / INCOMING)  # deletes the incomplete chunks that a killed bridge left
        for name in names:
            erase_conversation(name, own, spool, store)
        own.close()
        finished = True
    if as_json:
        print_json({"conversations": names, "audio_only": False, "finished": finished})
    elif finished:
        out.print(f"{len(names)} conversations are erased" if names else "there was nothing to erase")
    else:
        out.print(f"{len(names)} conversations are deleted; the running bridge is still erasing what is left of them")


def _wait_for_bridge(ledger: Ledger, names: list[str]) -> bool:
    deadline_s = time.monotonic() + BRIDGE_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if not set(names).intersection(ledger.conversations.unfinished_deletions()):
            return True
        time.sleep(POLL_S)
    return False
