"""Numbers of voices: which stay, which are retired, and which are never given again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.labelling.number import FoundVoice, Naming, VoiceBook, name_voices


def found(members, *, matched=True, untouched=None, segments=None):
    """Return a voice; `members`: local speaker -> labelled seconds, e.g. {"j1/A": 30.0}."""
    seconds = {LocalSpeaker(*name.split("/")): value for name, value in members.items()}
    return FoundVoice(tuple(seconds), seconds, segments or {}, matched, untouched or {})


def name(voices, book=None, untouched=()) -> Naming:
    return name_voices(voices, book or VoiceBook(), frozenset(untouched))


def changes_of(naming):
    return [(change.change, change.speaker_id, change.into) for change in naming.changes]


FIRST = name([found({"j1/A": 30.0}), found({"j1/B": 20.0}), found({"j1/C": 10.0})])


def test_the_first_numbers_follow_first_speech():
    assert FIRST.numbers == (0, 1, 2)
    assert changes_of(FIRST) == [("new", 0, None), ("new", 1, None), ("new", 2, None)]


def test_a_voice_keeps_its_first_published_number_in_whatever_order_voices_come_now():
    after = name(
        [found({"j2/X": 50.0}), found({"j1/C": 10.0, "j2/Y": 5.0}), found({"j1/A": 30.0}), found({"j1/B": 1})],
        FIRST.book,
    )
    assert after.numbers == (3, 2, 0, 1)
    assert changes_of(after) == [("new", 3, None)]


def test_on_a_merge_the_number_with_more_labelled_seconds_survives_and_the_other_is_never_given_again():
    merged = name([found({"j1/A": 12.0, "j1/B": 20.0}), found({"j1/C": 10.0})], FIRST.book)
    assert merged.numbers == (1, 2)
    assert changes_of(merged) == [("merged", 0, 1)]
    later = name([found({"j1/A": 12.0, "j1/B": 20.0}), found({"j1/C": 10.0}), found({"j3/D": 9.0})], merged.book)
    assert later.numbers == (1, 2, 3)
    assert 0 in later.book.retired


def test_on_a_split_the_larger_part_keeps_the_number():
    book = name([found({"j1/A": 30.0, "j2/A": 12.0})]).book
    split = name([found({"j2/A": 12.0}), found({"j1/A": 30.0})], book)
    assert split.numbers == (1, 0)
    assert changes_of(split) == [("split", 0, 1)]


def test_a_voice_without_segments_gets_no_number_but_keeps_one_it_had():
    assert name([found({"j1/TV": 90.0}, matched=False)]).numbers == (None,)
    assert name([found({"j1/A": 0.0}, matched=False), found({"j1/B": 1.0})], FIRST.book).numbers == (0, 1)


def test_ninety_nine_is_never_given():
    many = [found({f"j{n}/A": 1.0}) for n in range(101)]
    numbers = name(many).numbers
    assert 99 not in numbers
    assert len(set(numbers)) == 101
    assert name([found({"j/A": 1.0}, untouched={99: 5.0})], untouched=[99]).numbers == (0,)


def test_a_number_on_an_untouched_segment_goes_to_the_voice_that_dominates_it():
    named = name([found({"j1/A": 30.0}), found({"j1/B": 20.0}, untouched={0: 8.0})], untouched=[0])
    assert named.numbers == (1, 0)


def test_a_number_on_an_untouched_segment_is_taken_by_no_other_new_voice():
    assert name([found({"j1/A": 30.0}), found({"j1/B": 20.0})], untouched=[0, 2]).numbers == (1, 3)


def test_a_published_number_stays_even_if_a_person_gave_it_to_another_voice():
    assert name([found({"j1/A": 30.0}), found({"j1/B": 20.0}, untouched={0: 8.0})], FIRST.book, [0]).numbers == (0, 1)


def test_a_vanished_voice_is_retired():
    after = name([found({"j1/A": 30.0}), found({"j1/B": 20.0})], FIRST.book)
    assert changes_of(after) == [("retired", 2, None)]
    assert after.book.retired == (2,)


def test_voices_are_identified_by_their_segments_after_every_job_was_diarized_anew():
    book = name([found({"j1/A": 9.0}, segments={"s1": 9.0}), found({"j1/B": 4.0}, segments={"s2": 4.0})]).book
    anew = name([found({"r1/X": 4.0}, segments={"s2": 4.0}), found({"r1/Y": 9.0}, segments={"s1": 9.0})], book)
    assert anew.numbers == (1, 0)


def test_a_book_survives_being_kept_as_text():
    assert VoiceBook.from_json(FIRST.book.to_json()) == FIRST.book


@given(
    steps=st.lists(
        st.lists(st.tuples(st.integers(0, 11), st.integers(0, 4), st.floats(0, 99)), min_size=1, max_size=12),
        min_size=1,
        max_size=6,
    )
)
def test_through_any_history_numbers_are_unique_and_a_retired_one_never_returns(steps):
    book = VoiceBook()
    for step in steps:
        groups: dict = {}
        for speaker, group, seconds in {item[0]: item for item in step}.values():
            groups.setdefault(group, {})[f"j/{speaker}"] = seconds
        naming = name([found(members) for members in groups.values()], book)
        assert None not in naming.numbers
        assert len(set(naming.numbers)) == len(naming.numbers)
        assert not set(naming.numbers) & set(book.retired)
        assert set(book.retired) <= set(naming.book.retired)
        again = name([found(members) for members in groups.values()], naming.book)
        assert again.numbers == naming.numbers
        assert again.changes == ()
        book = naming.book
