"""Chunks that arrive in parts: in any order and repeatedly, within limits, and only with the audio they state."""

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.failure import FailureCode
from tests.vps_bridge.live_bridge import part_payload
from vps_bridge.errors import Refusal
from vps_bridge.intake.partial_chunks import MAX_PARTIALS, PARTIAL_LIFE_S, PartialChunks

AUDIO = bytes(range(256)) * 40


def parts_of(cuts, **fields):
    edges = sorted({0, len(AUDIO), *cuts})
    return [part_payload("c", AUDIO, a, b, chunk_id="x", **fields) for a, b in itertools.pairwise(edges)]


@given(cuts=st.lists(st.integers(1, len(AUDIO) - 1), max_size=8), order=st.randoms(), repeats=st.integers(1, 3))
def test_parts_make_the_chunk_in_any_order_and_number(tmp_path_factory, cuts, order, repeats):
    chunks = PartialChunks(tmp_path_factory.getbasetemp() / "incoming")
    parts = parts_of(cuts) * repeats
    order.shuffle(parts)
    for part in parts:
        chunk = chunks.add("c", "x", part, 0.0)
        if chunk is not None:
            break
    assert chunk is not None
    assert chunk.path.read_bytes() == AUDIO
    assert chunks.reserved_bytes == 0
    chunk.discard()


def test_a_corrupt_part_is_passed_over(tmp_path):
    chunks = PartialChunks(tmp_path)
    first, second = parts_of([5_000])
    assert chunks.add("c", "x", first.model_copy(update={"part_sha256": "0" * 64}), 0.0) is None
    assert chunks.add("c", "x", second, 0.0) is None
    chunk = chunks.add("c", "x", first, 0.0)
    assert chunk is not None
    assert chunk.sha256() == hashlib.sha256(AUDIO).hexdigest()


def test_arrivals_are_bounded_and_forgotten_when_their_parts_stop(tmp_path):
    chunks = PartialChunks(tmp_path)
    first, _ = parts_of([5_000])
    for place in range(MAX_PARTIALS):
        chunks.add("c", f"x{place}", first, float(place))
    with pytest.raises(Refusal) as refused:
        chunks.add("c", "one-more", first, 0.0)
    assert (refused.value.code, refused.value.is_retryable) == (FailureCode.INGEST_FULL, True)
    assert chunks.reserved_bytes == MAX_PARTIALS * len(AUDIO)
    chunks.drop_stale(PARTIAL_LIFE_S + 10.5)
    assert len(list(tmp_path.iterdir())) == MAX_PARTIALS - 11
    chunks.discard("c")
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_another_total_is_refused(tmp_path):
    chunks = PartialChunks(tmp_path)
    first, second = parts_of([5_000])
    chunks.add("c", "x", first, 0.0)
    with pytest.raises(Refusal) as refused:
        chunks.add("c", "x", second.model_copy(update={"total_bytes": 10**6}), 0.0)
    assert refused.value.code == FailureCode.CHUNK_ID_CONFLICT
