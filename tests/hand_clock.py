"""A clock that moves only when the test moves it."""


class HandClock:
    """Monotonic seconds, or Unix time: set `now_s`."""

    def __init__(self, now_s: float = 1_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s
