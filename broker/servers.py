"""Which server of a broker a session connects to: one is enough, a cluster has several."""

from __future__ import annotations

import random
from collections.abc import Sequence

from broker.address import BrokerAddress
from broker.backoff import Backoff


class Servers:
    """The servers of one broker, tried in turn, and the pauses in between. For the network thread.

    The first is one at random, so that the clients of a cluster spread over it. The pause grows once every server had
    its turn: where one is down, the next is tried as soon as the same one would be.
    """

    def __init__(self, addresses: Sequence[BrokerAddress], min_pause_s: float, max_pause_s: float) -> None:
        """Begin with any of these."""
        self._addresses = list(addresses)
        self._place = random.randrange(len(self._addresses))  # noqa: S311 - spreading load, not a secret
        self._tried, self._spread_s = 0, 0.0
        self._backoff = Backoff.start(min_pause_s, max_pause_s)

    @property
    def current(self) -> BrokerAddress:
        """The one to connect to, or the one that we are connected to."""
        return self._addresses[self._place]

    def spread_next(self, spread: float) -> None:
        """Begin with the shortest pause again, or anything up to `spread` times as long: a good connection was lost.

        Every other client has lost it too, if it was the server that went down.
        """
        self._tried, self._backoff = 0, self._backoff.restarted()
        self._spread_s = spread * self._backoff.pause_s

    def turn_to_next(self) -> float:
        """Turn to the next server after a connection ended or failed; return the pause before it, in seconds."""
        self._place = (self._place + 1) % len(self._addresses)
        pause_s, self._spread_s = max(self._backoff.jittered_s(), random.uniform(0.0, self._spread_s)), 0.0  # noqa: S311 - as above
        self._tried += 1
        if self._tried >= len(self._addresses):
            self._tried, self._backoff = 0, self._backoff.longer()
        return pause_s
