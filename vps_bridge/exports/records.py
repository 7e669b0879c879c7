"""Who spoke when, and what, as every format is written from it. Times are seconds on the transcript's clock."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ExportedSpeaker(BaseModel):
    """Who speaks: a person, a voice without a name, or nobody that is known."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="As people read it: a person's name, SPEAKER_<nn>, `you`, or `unknown`.")
    speaker_id: int | None = Field(default=None, description="The number of the voice in this conversation.")
    person_id: str | None = None
    identity: Literal["confirmed", "matched"] | None = Field(
        default=None, description="Where person_id comes from: a person said so, or a voiceprint does."
    )
    is_user: bool = Field(default=False, description="The one who records.")

    @property
    def shown_name(self) -> str:
        """The name for people to read: that nobody confirmed it is said."""
        return f"{self.name} (matched)" if self.identity == "matched" else self.name

    @property
    def who(self) -> tuple[object, ...]:
        """What is the same for two lines of one speaker, and differs for two who share a name."""
        if self.is_user:
            return ("user",)
        if self.person_id is not None:
            return ("person", self.person_id)
        return ("voice", self.name) if self.speaker_id is None else ("number", self.speaker_id)


class ExportedLine(BaseModel):
    """What one speaker said without another in between: a segment of the transcript, or a piece of one."""

    model_config = ConfigDict(frozen=True)

    segment_id: str
    start_s: float
    end_s: float
    speaker: ExportedSpeaker
    text: str


class ExportedTurn(BaseModel):
    """Somebody speaks, as the audio says; turns of two speakers may overlap."""

    model_config = ConfigDict(frozen=True)

    start_s: float
    end_s: float
    speaker: ExportedSpeaker


class ExportedConversation(BaseModel):
    """A conversation as it is exported."""

    model_config = ConfigDict(frozen=True)

    conversation_id: str
    started_at: float | None = Field(description="Zero of the times, in Unix seconds, where the backend said it.")
    is_final: bool = Field(description="False: more may come, or change.")
    updated_version: int = Field(description="The update that its labels are of; 0 before the first.")
    lines: tuple[ExportedLine, ...] = Field(description="The transcript, by time; empty where none came.")
    turns: tuple[ExportedTurn, ...] = Field(
        description="Overlap kept, by time; empty where there is no result yet, or where there were too many to keep."
    )
