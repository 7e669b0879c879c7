"""A duration in a message is never rounded to nothing."""

import pytest

from vps_bridge.durations import seconds


@pytest.mark.parametrize(
    ("duration_s", "said"),
    [
        (0.0, "0 s"),
        (0.25, "0.25 s"),
        (0.04, "0.04 s"),
        (1.5, "1.5 s"),
        (9.96, "10 s"),
        (60.0, "60 s"),
        (3_600.0, "3600 s"),
    ],
)
def test_short_durations_keep_two_digits(duration_s: float, said: str) -> None:
    assert seconds(duration_s) == said
