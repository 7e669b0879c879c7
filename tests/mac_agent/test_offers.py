from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mac_agent.byte_ranges import add_range, missing_ranges, split_ranges
from mac_agent.offers import Held, OfferAction, decide_offer, ends_job
from schemas.agent import AgentControl, ControlType, HeldJobState, OfferedChunk
from schemas.conversation import Verdict


def chunk(chunk_id: str = "c-1") -> OfferedChunk:
    return OfferedChunk(chunk_id=chunk_id, bytes=10, sha256="0" * 64, encoding="wav")


def offer(lease_id: str = "lease-1", ledger_id: str = "ledger-1", chunks=None) -> AgentControl:
    return AgentControl(
        type=ControlType.OFFER,
        ledger_id=ledger_id,
        job_id="job-1",
        lease_id=lease_id,
        conversation_id="conversation-1",
        chunks=chunks or (chunk(),),
    )


def held(state: HeldJobState, *, is_failure: bool = False) -> Held:
    chunks = () if state is HeldJobState.OUTBOX else (chunk(),)
    return Held("lease-1", "ledger-1", state, chunks, is_failure)


def decide(control: AgentControl, mine: Held | None, *, active: int = 0, ready: bool = True) -> OfferAction:
    return decide_offer(control, mine, active_jobs=active, max_jobs=2, ready=ready)


WORKING = [HeldJobState.RECEIVING, HeldJobState.QUEUED, HeldJobState.RUNNING]


class TestOffer:
    def test_new_job_is_taken_where_there_is_room(self):
        assert decide(offer(), None) is OfferAction.ACCEPT
        assert decide(offer(), None, active=1) is OfferAction.ACCEPT
        assert decide(offer(), None, active=2) is OfferAction.IGNORE_FULL
        assert decide(offer(), None, ready=False) is OfferAction.IGNORE_NOT_READY

    @pytest.mark.parametrize("state", WORKING)
    def test_the_same_offer_again_is_kept_also_when_full_or_draining(self, state):
        assert decide(offer(), held(state), active=2) is OfferAction.KEEP
        assert decide(offer(), held(state), ready=False) is OfferAction.KEEP

    @pytest.mark.parametrize("state", WORKING)
    def test_a_new_lease_for_the_same_audio_keeps_the_work(self, state):
        assert decide(offer("lease-2"), held(state), active=2) is OfferAction.RELEASE

    def test_other_audio_begins_the_job_anew(self):
        assert decide(offer(chunks=(chunk("c-2"),)), held(HeldJobState.RUNNING)) is OfferAction.RESTART

    @pytest.mark.parametrize("state", [*WORKING, HeldJobState.OUTBOX])
    def test_another_bridge_gets_nothing_of_a_held_job(self, state):
        assert decide(offer(ledger_id="ledger-2"), held(state)) is OfferAction.IGNORE_FOREIGN

    @pytest.mark.parametrize("lease_id", ["lease-1", "lease-2"])
    def test_a_result_is_offered_again_whatever_the_lease(self, lease_id):
        assert decide(offer(lease_id), held(HeldJobState.OUTBOX), active=2) is OfferAction.RESEND

    def test_a_failure_is_offered_again_under_its_lease_and_tried_again_under_another(self):
        failed = held(HeldJobState.OUTBOX, is_failure=True)
        assert decide(offer("lease-1"), failed) is OfferAction.RESEND
        assert decide(offer("lease-2"), failed) is OfferAction.RESTART
        assert decide(offer("lease-2"), failed, active=2) is OfferAction.IGNORE_FULL
        assert decide(offer("lease-2"), failed, ready=False) is OfferAction.IGNORE_NOT_READY


def word(kind: ControlType, lease_id: str | None = "lease-1", ledger_id: str = "ledger-1") -> AgentControl:
    verdict = Verdict.STORED if kind is ControlType.SETTLED else None
    return AgentControl(type=kind, ledger_id=ledger_id, job_id="job-1", lease_id=lease_id, verdict=verdict)


@pytest.mark.parametrize("kind", [ControlType.SETTLED, ControlType.CANCEL])
class TestEnd:
    @pytest.mark.parametrize("state", [*WORKING, HeldJobState.OUTBOX])
    def test_the_lease_that_is_held_is_ended(self, kind, state):
        assert ends_job(word(kind), held(state))
        assert ends_job(word(kind, lease_id=None), held(state))

    def test_what_is_not_held_is_not_ended(self, kind):
        assert not ends_job(word(kind), None)

    @pytest.mark.parametrize("state", [*WORKING, HeldJobState.OUTBOX])
    def test_another_bridge_ends_nothing(self, kind, state):
        assert not ends_job(word(kind, ledger_id="ledger-2"), held(state))

    @pytest.mark.parametrize("state", WORKING)
    def test_a_late_word_about_an_earlier_lease_does_not_end_newer_work(self, kind, state):
        assert not ends_job(word(kind, lease_id="lease-0"), held(state))

    def test_a_result_is_settled_under_any_lease_but_a_failure_under_its_own(self, kind):
        assert ends_job(word(kind, lease_id="lease-0"), held(HeldJobState.OUTBOX))
        assert not ends_job(word(kind, lease_id="lease-0"), held(HeldJobState.OUTBOX, is_failure=True))


TOTAL = 200
RANGES = st.lists(st.tuples(st.integers(0, TOTAL), st.integers(0, TOTAL)), max_size=20)


@given(RANGES)
def test_missing_is_exactly_what_no_part_brought(parts):
    held_ranges: list[tuple[int, int]] = []
    brought: set[int] = set()
    for start, end in parts:
        held_ranges = add_range(held_ranges, (start, end))
        brought |= set(range(start, end))
    missing = {byte for start, end in missing_ranges(held_ranges, TOTAL) for byte in range(start, end)}
    assert missing == set(range(TOTAL)) - brought
    assert held_ranges == sorted(held_ranges)
    assert all(left[1] < right[0] for left, right in pairwise(held_ranges))


@given(RANGES, st.integers(1, 50), st.integers(0, 30))
def test_split_parts_are_small_few_and_in_order(ranges, part_bytes, most):
    disjoint: list[tuple[int, int]] = []
    for each in ranges:
        disjoint = add_range(disjoint, each)
    parts = split_ranges(disjoint, part_bytes, most)
    assert len(parts) <= most
    assert all(0 < end - start <= part_bytes for start, end in parts)
    whole = [byte for start, end in disjoint for byte in range(start, end)]
    asked = [byte for start, end in parts for byte in range(start, end)]
    assert asked == whole[: len(asked)]
    if len(parts) < most:
        assert asked == whole
