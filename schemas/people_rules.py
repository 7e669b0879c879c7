"""The file in which `omi-agent calibrate` tells the bridge what recognising a person needs."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from schemas.record import Count, Message, Name, Ratio, Record, Seconds, Timestamp

Cosine = Annotated[float, Field(ge=-1, le=1)]


class MeasuredErrors(Record):
    """What the rules were measured on, with folds of speakers who had no part in choosing them."""

    people: Count
    voices: Count
    false_accepts: Ratio
    false_accepts_at_most: Ratio = Field(description="The upper end of the 95 % interval.")
    false_rejects: Ratio
    false_rejects_at_most: Ratio


class SpaceRules(Record):
    """What a match needs in one embedding space; similarities are cosines."""

    embedding_space: Name = Field(description="Model, revision and length of the vector: model@revision/length.")
    threshold: Cosine
    margin: Annotated[float, Field(ge=0, le=2)]
    min_clean_s: Seconds = Field(description="Clean speech of the voice, and of all prints of the person.")
    suggest_from: Cosine
    measured_at: Timestamp
    measured: MeasuredErrors


class PeopleRules(Message):
    """The rules of some embedding spaces, which go before those that the bridge ships with."""

    SCHEMA: ClassVar[str] = "people-rules"

    rules: Annotated[tuple[SpaceRules, ...], Field(max_length=100)] = ()
