"""What people correct stands, spreads, and is taken back to the letter, in whatever order things come."""

from __future__ import annotations

import random
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.conversation import TranscriptSegment
from tests.vps_bridge.labelling.corrected_conversation import NAME, CorrectedConversation, open_conversation
from tests.vps_bridge.labelling.test_relabel import chunks_of, diarize, evidence_of, irregular
from vps_bridge.conversations.store import StoreError
from vps_bridge.errors import Refusal
from vps_bridge.rules.assemble import AssemblyRules, plan_jobs

CHUNK_S, LATER_CHUNKS = 10.0, 10
SPOKEN = [("ABAC"[n % 4], n * 8.0 + 0.5, n * 8.0 + 7.0 + (n % 3) * 0.4) for n in range(30)]
LENGTH_S = 240.0
HUMAN = 7  # a segment that a person labelled in the backend
FEW = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def transcript():
    return tuple(
        TranscriptSegment(
            id=f"s{n:03d}",
            start_s=start_s,
            end_s=end_s,
            text="word",
            speaker="Somebody" if n == HUMAN else "SPEAKER_00",
            label_source="manual" if n == HUMAN else None,
        )
        for n, (_, start_s, end_s) in enumerate(SPOKEN)
    )


def audio(later_chunks=LATER_CHUNKS):
    """Jobs as they are made of audio that comes: those of ten chunks less are among those of all."""
    chunks = chunks_of(LENGTH_S, CHUNK_S)
    chunks = chunks[: len(chunks) - LATER_CHUNKS + later_chunks]
    plans = plan_jobs(chunks, closing=later_chunks > 0, idle_s=0.0, rules=AssemblyRules())
    return tuple(chunks), tuple(diarize(chunks, plan, SPOKEN) for plan in plans)


ALL, EARLY = audio(), audio(0)
HEARD_S = sum(span.duration_s for span in {span.chunk_id: span for job in EARLY[1] for span in job.chunks}.values())


@contextmanager
def conversation(heard=ALL):
    with open_conversation(transcript()) as made:
        made.hear(*heard)
        yield made


def said_by(name):
    return [f"s{n:03d}" for n, (who, *_) in enumerate(SPOKEN) if who == name and n != HUMAN]


def labels(found, name):
    return {found.speakers[segment] for segment in said_by(name) if found.speakers[segment] is not None}


def test_a_merge_joins_two_voices_and_retires_a_number():
    with conversation() as found:
        found.correct(kind="same_voice", speaker_ids=[0, 2])
        assert labels(found, "A") == labels(found, "C") == {"SPEAKER_00"}
        assert labels(found, "B") == {"SPEAKER_01"}
        assert found.found.voices.retired == (2,)


def test_a_split_takes_the_rest_of_the_voice_along_where_most_of_it_was_named():
    with conversation() as found:
        found.correct(kind="same_voice", speaker_ids=[0, 2])
        found.correct(kind="other_voice", segment_ids=said_by("C")[:-1])
        assert labels(found, "A") == {"SPEAKER_00"}
        assert len(labels(found, "C")) == 1
        assert labels(found, "C") != labels(found, "A"), "the one that was not named too"
        assert found.found.corrections[-1].outcome == "spread"


def test_a_split_of_one_segment_moves_that_one():
    with conversation() as found:
        before, (first, *others) = found.speakers, said_by("A")
        found.correct(kind="other_voice", segment_ids=[first])
        assert found.speakers[first] == "SPEAKER_03"
        assert {segment: found.speakers[segment] for segment in others} == {one: before[one] for one in others}
        assert (found.found.corrections[-1].outcome, found.found.corrections[-1].reason) == (
            "alone",
            "sounds_different",
        )


def test_a_split_of_all_that_a_voice_says_holds_for_all_of_it():
    with conversation() as found:
        before = found.speakers
        found.correct(kind="other_voice", segment_ids=said_by("C"))
        assert found.speakers == before
        assert (found.found.corrections[-1].outcome, found.found.corrections[-1].reason) == ("spread", None)


def test_a_name_reaches_every_line_of_the_voice():
    with conversation() as found:
        found.correct(kind="segment_is", segment_id=said_by("A")[0], person_id="anna")
        persons = {segment["id"]: segment["person_id"] for segment in found.segments}
        assert {persons[segment] for segment in said_by("A")} == {"anna"}
        assert {persons[segment] for segment in said_by("B")} == {None}
        assert found.found.corrections[-1].outcome == "spread"


@pytest.mark.parametrize("said", [{"person_id": "anna"}, {"speaker_id": 1}], ids=["name", "number"])
def test_a_word_on_a_line_that_the_backend_took_away_holds_nothing_and_says_so(said):
    line = next(segment for segment in transcript() if segment.id == said_by("A")[0])
    with conversation() as found:
        write = found.correct(kind="segment_is", segment_id=line.id, **said)
        assert found.outcomes[0][1] != "void"
        found.store.upsert_segments(NAME, 2, (), (line.id,))
        found.relabel()
        assert found.outcomes == [(write, "void", "no_voice")]
        found.store.upsert_segments(NAME, 3, (line,), ())
        found.relabel()
        assert found.persons[line.id] is None
        assert found.outcomes == [(write, "void", "overridden")]


def test_a_name_that_others_contradict_stays_alone_and_says_so():
    with conversation() as found:
        first, *others = said_by("A")
        for segment in others[:4]:
            found.correct(kind="segment_is", segment_id=segment, person_id="anna")
        found.correct(kind="segment_is", segment_id=said_by("B")[0], person_id="ben")
        found.correct(kind="segment_is", segment_id=first, person_id="ben")
        assert (found.found.corrections[-1].outcome, found.found.corrections[-1].reason) == ("alone", "contradicted")
        persons = {segment["id"]: segment["person_id"] for segment in found.segments}
        assert persons[first] == "ben", "what a person says of a segment holds for it"
        assert {persons[segment] for segment in others} == {"anna"}
        assert labels(found, "A") == {"SPEAKER_00"}
        assert labels(found, "B") == {"SPEAKER_01"}


def test_what_was_split_off_a_job_s_speaker_stays_so_when_the_next_job_decides_some_of_its_seconds():
    with conversation(EARLY) as found:
        found.correct(kind="other_voice", segment_ids=said_by("A")[:4])
        before = {name: speaker for name, speaker in found.speakers.items() if name in said_by("A")[:7]}
        found.hear(*ALL)
        assert {name: found.speakers[name] for name in before} == before


def test_a_voice_is_named_and_the_later_word_counts():
    with conversation() as found:
        found.correct(kind="voice_is", speaker_id=0, person_id="anna")
        found.correct(kind="voice_is_not", speaker_id=0, person_id="anna")
        assert {segment["person_id"] for segment in found.segments} == {None}
        assert [one.outcome for one in found.found.corrections] == ["void", "spread"]


def test_two_voices_of_one_person_are_one():
    with conversation() as found:
        found.correct(kind="voice_is", speaker_id=0, person_id="anna")
        found.correct(kind="voice_is", speaker_id=2, person_id="anna")
        assert labels(found, "A") == labels(found, "C") == {"SPEAKER_00"}


def names(*persons):
    return [{"kind": "voice_is", "speaker_id": number, "person_id": person} for number, person in enumerate(persons)]


@pytest.mark.parametrize(
    "right", [("ben", "anna", "carl"), ("ben", "carl", "anna"), ("ben", "anna", "ben")], ids="-".join
)
def test_names_that_were_given_the_wrong_way_round_change_places_and_make_no_two_voices_one(right):
    """Of the last, the first and the third voice are one: they have one name when all is said."""
    with conversation() as found:
        before = [labels(found, name) for name in "ABC"]
        found.correct_at_once(*names("anna", "ben", "carl"))
        write = found.correct_at_once(*names(*right))
        assert [{found.persons[line] for line in said_by(name)} for name in "ABC"] == [{person} for person in right]
        now = [labels(found, name) for name in "ABC"]
        assert [now[0] == now[1], now[0] == now[2], now[1] == now[2]] == [False, right[0] == right[2], False]
        found.undo(write)
        assert [labels(found, name) for name in "ABC"] == before
        assert [found.persons[said_by(name)[0]] for name in "ABC"] == ["anna", "ben", "carl"]
        found.redo(write)
        assert [labels(found, name) for name in "ABC"] == now


def test_two_voices_of_one_person_stay_one_under_another_name():
    with conversation() as found:
        found.correct_at_once(*names("anna", "ben", "anna"))
        found.correct(kind="voice_is", speaker_id=0, person_id="carl")
        assert labels(found, "A") == labels(found, "C") == {"SPEAKER_00"}
        assert {found.persons[line] for line in (*said_by("A"), *said_by("C"))} == {"carl"}


@pytest.mark.parametrize("order", ["name, split", "name and split", "split and name"])
def test_a_name_stays_with_the_voice_that_more_than_half_is_split_off(order):
    name = {"kind": "voice_is", "speaker_id": 0, "person_id": "anna"}
    split = {"kind": "other_voice", "segment_ids": said_by("A")[::2]}
    events = {"name, split": [[name], [split]], "name and split": [[name, split]], "split and name": [[split, name]]}
    with conversation() as found:
        for said in events[order]:
            found.correct_at_once(*said)
        for number in (0, 2):
            found.correct(kind="voice_is", speaker_id=number, person_id="anna")
            assert {found.persons[line] for line in split["segment_ids"]} == {None}
            assert {found.speakers[line] for line in split["segment_ids"]} == {"SPEAKER_03"}
            assert {found.persons[line] for line in said_by("A")[1::2]} == {"anna"}
            assert "void" not in {outcome for _, outcome, _ in found.outcomes}
        assert labels(found, "C") == {"SPEAKER_00"}, "the other voice that is anna is one with the first"


def test_voices_that_only_a_name_made_one_are_two_again_where_they_are_not_that_person():
    with conversation() as found:
        found.correct(kind="voice_is", speaker_id=0, person_id="anna")
        found.correct(kind="voice_is", speaker_id=2, person_id="anna")
        found.correct(kind="voice_is_not", speaker_id=0, person_id="anna")
        assert [one.outcome for one in found.found.corrections] == ["void", "void", "spread"]
        assert (labels(found, "A"), labels(found, "B")) == ({"SPEAKER_00"}, {"SPEAKER_01"})
        assert labels(found, "C") == {"SPEAKER_03"}
        assert {segment["person_id"] for segment in found.segments} == {None}
        found.correct(kind="voice_is", speaker_id=3, person_id="anna")
        assert {segment["person_id"] for segment in found.segments if segment["id"] in said_by("A")} == {None}
        assert {segment["person_id"] for segment in found.segments if segment["id"] in said_by("C")} == {"anna"}


def test_voices_that_somebody_called_one_stay_so_whoever_they_are_not():
    with conversation() as found:
        found.correct(kind="same_voice", speaker_ids=[0, 2])
        found.correct(kind="voice_is", speaker_id=0, person_id="anna")
        found.correct(kind="voice_is_not", speaker_id=0, person_id="anna")
        assert labels(found, "A") == labels(found, "C") == {"SPEAKER_00"}


CORRECTIONS = st.one_of(
    st.lists(st.integers(0, 2), min_size=2, max_size=3, unique=True).map(
        lambda numbers: {"kind": "same_voice", "speaker_ids": numbers}
    ),
    st.tuples(st.sampled_from("ABC"), st.integers(1, 4)).map(
        lambda some: {"kind": "other_voice", "segment_ids": said_by(some[0])[: some[1]]}
    ),
    st.tuples(st.integers(0, 19), st.integers(0, 2)).map(
        lambda some: {"kind": "segment_is", "segment_id": f"s{some[0]:03d}", "speaker_id": some[1]}
    ),
    st.tuples(st.integers(0, 19), st.sampled_from(["anna", "ben"])).map(
        lambda some: {"kind": "segment_is", "segment_id": f"s{some[0]:03d}", "person_id": some[1]}
    ),
    st.tuples(st.integers(0, 2), st.sampled_from(["anna", "ben"])).map(
        lambda some: {"kind": "voice_is", "speaker_id": some[0], "person_id": some[1]}
    ),
)


def make(found, said):
    """Correct; None where what it names is gone by now."""
    try:
        return found.correct(**said)
    except Refusal:
        return None


@FEW
@given(said=st.lists(CORRECTIONS, min_size=1, max_size=4), order=st.randoms(use_true_random=False))
def test_corrections_stand_after_ten_more_chunks_and_a_reshuffle(said, order: random.Random):
    with conversation(EARLY) as found:
        for one in said:
            make(found, one)
        before, outcomes = found.speakers, found.found.corrections
        chunks, jobs = ALL
        for count in range(len(EARLY[1]), len(jobs) + 1):
            mixed = tuple(order.sample(jobs[:count], count))
            found.hear(tuple(order.sample(chunks, len(chunks))), mixed)
        after = found.speakers
        heard = {f"s{n:03d}" for n, (_, _, end_s) in enumerate(SPOKEN) if end_s < HEARD_S}
        assert {name: after[name] for name in heard} == {name: before[name] for name in heard}
        spread = {one.write for one in outcomes if one.outcome == "spread"}
        assert {one.write for one in found.found.corrections if one.outcome == "spread"} >= spread
        assert after[f"s{HUMAN:03d}"] == "Somebody" or any(one.get("segment_id") == f"s{HUMAN:03d}" for one in said), (
            "a person's label is touched by nobody else"
        )


@FEW
@given(said=st.lists(CORRECTIONS, min_size=1, max_size=3))
def test_every_undo_and_every_redo_is_exact(said):
    with conversation() as found:
        states, writes = [found.segments], []
        for one in said:
            write = make(found, one)
            if write is not None:
                writes.append(write)
                states.append(found.segments)
        for write, state in zip(reversed(writes), reversed(states[:-1]), strict=True):
            found.undo(write)
            assert found.segments == state
        for write, state in zip(writes, states[1:], strict=True):
            found.redo(write)
            assert found.segments == state
        if writes:
            undone = found.undo(writes[-1])
            found.undo(undone)
            assert found.segments == states[-1]
            with pytest.raises(StoreError, match="is not undone"):
                found.redo(writes[-1])


@FEW
@given(
    said=st.permutations(
        [
            {"kind": "same_voice", "speaker_ids": [0, 2]},
            {"kind": "segment_is", "segment_id": "s001", "person_id": "ben"},
            {"kind": "segment_is", "segment_id": "s004", "person_id": "anna"},
            {"kind": "voice_is", "speaker_id": 1, "person_id": "ben"},
        ]
    )
)
def test_the_order_of_corrections_that_agree_does_not_matter(said):
    with conversation() as found:
        for one in said:
            make(found, one)
        assert labels(found, "A") == labels(found, "C") == {"SPEAKER_00"}
        persons = {segment["id"]: segment["person_id"] for segment in found.segments}
        assert {persons[segment] for name in "AC" for segment in said_by(name)} == {"anna"}
        assert {persons[segment] for segment in said_by("B")} == {"ben"}


def test_nothing_of_a_deleted_conversation_s_corrections_is_left_in_a_file(tmp_path):
    found = CorrectedConversation(tmp_path, transcript())
    found.hear(*ALL)
    found.correct(kind="voice_is", speaker_id=0, person_id="anna-karenina")
    found.undo(found.correct(kind="segment_is", segment_id="s001", person_id="ben-nevis"))
    found.ledger.conversations.delete(NAME)
    found.store.delete(NAME)
    found.ledger.forget_deleted_pages()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert b"anna-karenina" not in kept
    assert b"ben-nevis" not in kept
    assert b"same_voice" not in kept
    found.close()


def take_places_away(found, other, *, after):
    """Have the transcript come again, and what is said after a segment at times that nobody speaks at."""
    late = [
        TranscriptSegment(id=f"s{place:03d}", start_s=start_s, end_s=end_s)
        for place, (_, start_s, end_s) in enumerate(other)
        if place > after
    ]
    found.store.upsert_segments(NAME, 1, late)
    assert "clock.unverified" in {reason for _, reason in found.relabel().left_alone}


@contextmanager
def irregular_talk(spoken):
    evidence = evidence_of(spoken, spoken[-1][2] + 2.0)
    segments = (
        TranscriptSegment(id=f"s{place:03d}", start_s=start_s, end_s=end_s)
        for place, (_, start_s, end_s) in enumerate(spoken)
    )
    with open_conversation(tuple(segments)) as made:
        made.hear(evidence.chunks, evidence.jobs)
        yield made


@pytest.mark.parametrize("seed", [0, 2])
def test_what_was_split_off_stays_so_where_the_rest_of_the_audio_loses_its_place(seed):
    spoken, other = irregular(12, seed=seed), irregular(12, seed=seed + 50)
    with irregular_talk(spoken) as found:
        found.correct(kind="other_voice", segment_ids=["s000", "s002"])
        before = found.speakers
        assert before["s000"] == before["s002"] != before["s004"]
        take_places_away(found, other, after=6)
        assert found.speakers == before


@pytest.mark.parametrize("seed", [2, 9, 13])
def test_one_label_weighs_no_more_where_the_rest_of_the_audio_loses_its_place(seed):
    spoken, other = irregular(12, seed=seed), irregular(12, seed=seed + 50)
    label = max((1, 3), key=lambda place: spoken[place][2] - spoken[place][1])
    with irregular_talk(spoken) as found:
        found.correct(kind="segment_is", segment_id="s000", person_id="anna")
        found.correct(kind="segment_is", segment_id=f"s{label:03d}", person_id="anna")
        before = found.speakers, found.persons
        take_places_away(found, other, after=4)
        assert found.speakers == before[0]
        assert all(person in (None, before[1][name]) for name, person in found.persons.items())
        assert found.persons["s000"] == found.persons[f"s{label:03d}"] == "anna"
