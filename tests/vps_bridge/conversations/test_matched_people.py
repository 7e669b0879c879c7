"""Whom a voiceprint names in a segment: written beside the label, taken back, and cleared by other labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.vps_bridge.conversations.test_store import make_segment
from vps_bridge.conversations.sqlite import SqliteConversations
from vps_bridge.conversations.store import AlreadyWritten, Applied, Label


@pytest.fixture
def store(migrated_file, tmp_path):
    store = SqliteConversations(Path(shutil.copy(migrated_file, tmp_path)))  # it is every test's, and stays empty
    store.upsert_segments("c1", 1, [make_segment("a", speaker="SPEAKER_00"), make_segment("b", 2, 3)])
    yield store
    store.close()


def matched(store):
    return [segment.matched_person for segment in store.read("c1").segments]


def write(store, key, *labels):
    return store.apply("c1", store.read("c1").revision, key, labels)


def test_a_match_is_a_change_of_its_own_and_no_person_s_word(store):
    assert write(store, "k1", Label("a", 0, matched_person="anna")) == Applied(1)
    first = store.read("c1").segments[0]
    assert (first.speaker, first.matched_person, first.person_id) == ("SPEAKER_00", "anna", None)
    assert not first.is_human_labelled
    assert isinstance(write(store, "k1", Label("a", 0, matched_person="anna")), AlreadyWritten)
    assert write(store, "k1", Label("a", 0)) == Applied(2), "the match is gone"
    assert matched(store) == [None, None]


def test_an_undo_takes_match_and_label_back_and_a_redo_brings_both(store):
    before = store.read("c1").segments
    write(store, "k1", Label("a", 3, matched_person="anna"), Label("b", 4))
    after = store.read("c1").segments
    store.undo("c1", 1)
    assert store.read("c1").segments == before
    assert store.read("c1").segments[0].is_human_labelled
    store.redo("c1", 1)
    assert store.read("c1").segments == after
    assert not store.read("c1").segments[0].is_human_labelled


@pytest.mark.parametrize(
    "said",
    [{"speaker": "SPEAKER_01"}, {"person_id": "zoe", "label_source": "manual"}, {"text": "other words"}],
)
def test_what_the_backend_says_of_a_segment_later_takes_the_match_off_where_it_may_be_wrong(store, said):
    write(store, "k1", Label("a", 0, matched_person="anna"))
    store.upsert_segments("c1", 2, [make_segment("a", **said)])
    assert matched(store) == [None, None]
