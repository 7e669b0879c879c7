"""Whether two events under one id are the same event."""

from __future__ import annotations

import hashlib

from schemas.conversation import ConversationEvent
from schemas.people import PersonEvent

DIGEST_BYTES = 8  # enough to tell two events of one id apart by mistake once in 2**64


def digest_event(event: ConversationEvent | PersonEvent) -> str:
    """Return a digest of what an event says: equal through whichever door it came, with its defaults written or not.

    Within a segment a field that is missing is not one that is null: only there it counts what was written.
    """
    fields = type(event).model_fields
    defaults = {name for name in event.model_fields_set if getattr(event, name) == fields[name].default}
    said = event.model_dump_json(by_alias=True, exclude_unset=True, exclude=defaults | {"version", "schema_name"})
    return hashlib.blake2b(said.encode(), digest_size=DIGEST_BYTES).hexdigest()


def is_another(kept: str | None, event: ConversationEvent | PersonEvent) -> bool:
    """Return whether an id was used for an event that says something else; unknown of what older bridges noted."""
    return kept is not None and kept != digest_event(event)
