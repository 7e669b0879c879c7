"""Erasing a whole conversation, or only its audio, from the ledger, the spool and the store."""

from __future__ import annotations

from dataclasses import replace

from vps_bridge.conversations.store import ConversationStore
from vps_bridge.intake.spool import Spool
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import Deleted


def erase_conversation(conversation_id: str, ledger: Ledger, spool: Spool, store: ConversationStore) -> Deleted:
    """Erase everything of a conversation but its tombstone, which is written first.

    Only for the process that holds the ledger exclusively. If it is interrupted at any point, calling it again
    completes the deletion. So it does where audio is in a bucket: `finished` is false until nothing is left there.
    """
    deleted = ledger.conversations.delete(conversation_id)
    ledger.sync()
    is_gone = spool.erase(conversation_id, deleted.spool_names)
    store.delete(conversation_id)
    if is_gone:
        ledger.conversations.finish_deletion(conversation_id)
    ledger.forget_deleted_pages()
    return replace(deleted, finished=is_gone)


def erase_audio(conversation_id: str, ledger: Ledger, spool: Spool) -> int:
    """Delete a conversation's audio files and keep its labels; return how many chunks. Safe beside a running bridge."""
    names = ledger.operator_actions.give_up_audio(conversation_id)
    spool.remove(*names)
    return len(names)
