"""Who a voice is: what an update tells of a voice that somebody confirmed, or that was compared with voiceprints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.record import Id, Name, Record, Seconds

Identity = Literal["suggested", "matched", "confirmed"]
Similarity = Annotated[float, Field(ge=-1, le=1)]


class VoicePerson(Record):
    """Who one voice of a conversation is, or may be."""

    speaker_id: Annotated[int, Field(ge=0, le=10_000)]
    person_id: Name
    identity: Identity = Field(
        description="confirmed: a person said so; matched: its voiceprint says so clearly, and its segments are "
        "labelled with it; suggested: it may be, and a person has to decide."
    )
    similarity: Similarity | None = Field(default=None, description="Of the voice and the person's voiceprints.")
    needed: Similarity | None = Field(default=None, description="From which similarity on it could be a match.")
    runner_up: Name | None = Field(default=None, description="The most similar of the other people.")
    runner_up_similarity: Similarity | None = None
    reason: Name | None = Field(
        default=None,
        description="Why it is only suggested: below_threshold, margin, little_speech, not_mutual, not_calibrated; a "
        "reader must survive reasons it does not know.",
    )
    voiceprint: Name | None = Field(
        default=None,
        description="confirmed by `voice_is`: what became of its voiceprint. learned; asks: it sounds unlike the "
        "person's others, confirm it with `anyway` if it is right; little_speech: too little clean speech; gone: the "
        "voice is not known well enough any more; no_id: person_id is no id that a topic can carry, so it labels this "
        "conversation alone. A reader must survive words it does not know.",
    )
    needed_clean_s: Seconds | None = Field(
        default=None, description="little_speech: the clean speech that a voiceprint needs, in seconds."
    )


class Enrolment(Record):
    """What became of a conversation whose `started` event said `enrols`."""

    person_id: Id
    outcome: Name = Field(
        description="learned: it became a voiceprint; two_voices, little_speech, asks (it sounds unlike the person's "
        "others), no_voice: it did not. A reader must survive words it does not know."
    )
    clean_s: Seconds = Field(default=0.0, description="Clean speech of the clearest voice.")
    needed_clean_s: Seconds = 0.0
    other_clean_s: Seconds = Field(default=0.0, description="Clean speech of all other voices.")
    similarity: Similarity | None = Field(default=None, description="asks: to the person's other voiceprints.")
