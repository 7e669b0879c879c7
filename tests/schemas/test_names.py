"""A name is the same however it was typed: composed or not, with what space around it, at every door that takes one."""

import json
import unicodedata
from typing import get_args

import pytest
from pydantic import BaseModel, TypeAdapter

from schemas.conversation import ConversationEvent, TranscriptSegment
from schemas.corrections import Correction
from schemas.people import PersonEvent
from schemas.record import PersonName
from schemas.text import compose_name

NAME = "Zoë Ångström"
TYPED = (NAME, unicodedata.normalize("NFD", NAME), f" {NAME}\t", "Zoe\u0308\u00a0 A\u030angstr\u00f6m\n")
NAMES = {"owner", "by", "name", "person_id"}
DOORS: tuple[type[BaseModel], ...] = (ConversationEvent, TranscriptSegment, Correction, PersonEvent)


@pytest.mark.parametrize("typed", TYPED)
def test_every_field_that_names_somebody_takes_a_name_however_it_was_typed(typed: str) -> None:
    correction = {"kind": "voice_is", "speaker_id": 0, "person_id": typed}
    taken = ConversationEvent.model_validate_json(
        json.dumps({"event_id": "e", "type": "corrected", "owner": typed, "by": typed, "corrections": [correction]})
    )
    segment = TranscriptSegment.model_validate({"id": "s", "start_s": 0, "end_s": 1, "person_id": typed})
    person = PersonEvent.model_validate_json(
        json.dumps({"event_id": "e", "type": "named", "owner": typed, "by": typed, "name": typed})
    )
    said = (taken.owner, taken.by, taken.corrections[0].person_id, segment.person_id)
    assert {*said, person.owner, person.by, person.name} == {NAME}


def test_no_field_that_names_somebody_was_forgotten() -> None:
    composed = set()
    for door in DOORS:
        for name, field in door.model_fields.items():
            parts = [field.annotation, *get_args(field.annotation), *field.metadata]
            found = str(parts) + str([getattr(part, "__metadata__", "") for part in parts])
            if "_compose" in found:
                composed.add((door, name))
    assert composed == {(door, name) for door in DOORS for name in NAMES & door.model_fields.keys()}


def test_a_name_that_is_too_long_is_refused_by_its_length_as_it_is_kept() -> None:
    names = TypeAdapter(PersonName)
    assert names.validate_python("e\u0308" * 200) == "ë" * 200
    with pytest.raises(ValueError, match="longer than 200"):
        names.validate_python("\u0958" * 150)  # one character that is two when it is composed


def test_who_differs_by_capitals_or_a_mark_is_somebody_else() -> None:
    assert len({compose_name(name) for name in ("Anna", "anna", "Ánna", "An na")}) == 4


def test_an_empty_person_is_nobody_and_no_label_of_a_human() -> None:
    segment = TranscriptSegment.model_validate({"id": "s-1", "start_s": 0.0, "end_s": 1.0, "person_id": ""})
    assert segment.person_id is None
    assert "person_id" in segment.model_fields_set, "in an update it takes away who was there, as null does"
