"""What the bridge says about a conversation: who spoke when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ConversationLabels:
    """One `conversation-updated` message; `message` is all of it, and the properties are what most callers read."""

    conversation_id: str
    version: int
    is_final: bool
    """False: more may follow, as long as audio comes."""
    message: dict[str, Any] = field(repr=False)

    @classmethod
    def read(cls, message: dict[str, Any]) -> ConversationLabels:
        """Read a message. Raises `KeyError` or `ValueError` where it is none."""
        version = message["updated_version"]
        if message.get("schema") != "conversation-updated" or not isinstance(version, int):
            raise ValueError("no conversation-updated message")
        return cls(str(message["conversation_id"]), version, message["state"] == "final", message)

    @property
    def speakers(self) -> int:
        """How many speakers there are."""
        return int(self.message.get("speakers", 0))

    @property
    def segments(self) -> dict[str, str | None]:
        """The speaker of each segment of the transcript by its id, such as `SPEAKER_00`; None: nobody can be named."""
        return {label["id"]: label.get("speaker") for label in self.message.get("segments", ())}

    @property
    def turns(self) -> list[dict[str, Any]]:
        """Who spoke when, with or without a transcript: `start_s`, `end_s`, `speaker_id` of each turn."""
        return list(self.message.get("turns") or ())

    @property
    def failures(self) -> list[dict[str, Any]]:
        """Audio that gave no labels, each with `code`, `message` and `remedy`."""
        return list(self.message.get("failures", ()))

    @property
    def enrolment(self) -> dict[str, Any] | None:
        """What became of an enrolment: `outcome` is `learned`, or says why not."""
        found: dict[str, Any] | None = self.message.get("enrolment")
        return found
