"""Whose sound was erased: a result says it for each of its speakers, however often something is erased in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from schemas.codec import decode, encode
from schemas.turns import EngineDescription, SpeakerTurns, SpeakerVoice
from vps_bridge.labelling.forget_voices import ERASED, erased_speakers, forget_numbers
from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.labelling.number import Voice, VoiceBook


def result_of(job_id: str, speakers: Sequence[str], warnings: tuple[str, ...] = ()) -> SpeakerTurns:
    rows = np.eye(128, dtype="<f4")
    return SpeakerTurns(
        conversation_id="c",
        job_id=job_id,
        lease_id="l",
        agent_id="mac",
        engine=EngineDescription(name="any"),
        turns=(),
        exclusive_turns=(),
        speakers=tuple(
            SpeakerVoice(speaker=label, clean_speech_s=9.0, embedding=rows[number].tobytes())
            for number, label in enumerate(speakers)
        ),
        warnings=warnings,
    )


def erase(results: Sequence[SpeakerTurns], *numbers: int) -> list[SpeakerTurns]:
    """Erase voices, each a speaker of every result by its place there; through the messages that the ledger keeps."""
    said_by = {
        number: [
            LocalSpeaker(result.job_id, voice.speaker) for result in results for voice in result.speakers[number:][:1]
        ]
        for number in numbers
    }
    book = VoiceBook(tuple(Voice(number, tuple(members)) for number, members in said_by.items()))
    return [decode(SpeakerTurns, encode(each)) for each in forget_numbers(results, book, frozenset(numbers))]


def erased_in(result: SpeakerTurns) -> set[str]:
    return set(erased_speakers(result.warnings, [voice.speaker for voice in result.speakers]))


def changed_in(before: SpeakerTurns, after: SpeakerTurns) -> set[str]:
    pairs = zip(before.speakers, after.speakers, strict=True)
    return {old.speaker for old, new in pairs if old.embedding != new.embedding}


def test_a_result_says_whose_sound_was_erased_also_where_another_is_erased_later():
    before = [result_of("j1", ["A", "B: b", "C"]), result_of("j2", ["A"]), result_of("j3", [])]
    once = erase(before, 1)
    assert [erased_in(each) for each in once] == [{"B: b"}, set(), set()]
    twice = erase(once, 0)
    assert [erased_in(each) for each in twice] == [{"A", "B: b"}, {"A"}, set()]
    assert [changed_in(*pair) for pair in zip(before, twice, strict=True)] == [{"A", "B: b"}, {"A"}, set()]


@pytest.mark.parametrize("warnings", [(ERASED,), (*(f"odd: {number}" for number in range(49)), ERASED)])
def test_where_a_result_does_not_say_whose_it_may_be_anybody_s(warnings: tuple[str, ...]):
    old = result_of("j1", ["A", "B"], warnings)
    assert erased_in(old) == {"A", "B"}
    assert erased_in(erase([old], 0)[0]) == {"A", "B"}


def test_more_speakers_than_there_is_room_for_lines_are_all_said_to_be_erased():
    labels = [f"S{number}" for number in range(80)]
    (after,) = erase([result_of("j1", labels, tuple(f"odd: {number}" for number in range(50)))], *range(60))
    assert erased_in(after) == set(labels)
    assert len(after.warnings) == 50
