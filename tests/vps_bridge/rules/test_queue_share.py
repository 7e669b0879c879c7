"""Who may use what is left of a queue that is nearly full."""

import pytest

from vps_bridge.rules.queue_share import QueueUse, is_kept_for_others, may_use_rest

LIMIT = QueueUse(jobs=100, bytes=1_000)


@pytest.mark.parametrize(
    ("used", "kept"),
    [
        (QueueUse(0, 0), False),
        (QueueUse(89, 899), False),
        (QueueUse(90, 0), True),
        (QueueUse(0, 900), True),
        (QueueUse(100, 1_000), True),
    ],
)
def test_the_last_tenth_is_kept(used: QueueUse, kept: bool) -> None:
    assert is_kept_for_others(used, LIMIT) is kept


@pytest.mark.parametrize(
    ("own", "may"),
    [
        (None, False),
        (QueueUse(0, 0), True),
        (QueueUse(9, 99), True),
        (QueueUse(10, 0), False),
        (QueueUse(0, 100), False),
    ],
)
def test_it_is_for_conversations_that_have_begun_and_use_little(own: QueueUse | None, may: bool) -> None:
    assert may_use_rest(own, LIMIT) is may


def test_a_limit_of_one_is_one() -> None:
    assert not is_kept_for_others(QueueUse(0, 0), QueueUse(1, 10))
    assert QueueUse(1, 0).reaches(QueueUse(1, 10))
