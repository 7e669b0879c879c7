"""Erasing a whole conversation, or only its audio, from the ledger, the spool and the store."""

from __future__ import annotations

from vps_bridge.conversations.store import ConversationStore
from vps_bridge.intake.spool import Spool
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import Deleted


def erase_conversation(conversation_id: str, ledger: Ledger, spool: Spool, store: ConversationStore) -> Deleted:
    """Erase everything of a conversation but its tombstone, which is written first.

    Only for the process that holds the ledger exclusively. If it is interrupted at any point, calling it again
    completes the deletion.
    """
    deleted = ledger.conversations.delete(conversation_id)
    ledger.sync()
    for name in deleted.spool_names:
        spool.remove(name)
    store.delete(conversation_id)
    ledger.conversations.finish_deletion(conversation_id)
    ledger.forget_deleted_pages()
    return deleted


def erase_audio(conversation_id: str, ledger: Ledger, spool: Spool) -> int:
    """Delete a conversation's audio files and keep its labels; return how many chunks. Safe beside a running bridge."""
    names = ledger.operator_actions.give_up_audio(conversation_id)
    for name in names:
        spool.remove(name)
    return len(names)
