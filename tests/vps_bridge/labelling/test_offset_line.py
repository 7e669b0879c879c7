"""The line of a run's offsets: found where it drifts, and no place for blocks that it does not certainly hold for."""

from __future__ import annotations

import numpy as np
import pytest

from vps_bridge.labelling.offset_line import LineRules, fit_offset_line
from vps_bridge.labelling.offset_search import BLOCK_S, STEP_S

STATES, MIDDLE = 121, 60
LITTLE = 0.01
"""Nats of a block that was heard, and that says nothing."""


def speaking(blocks, speaking_blocks, slope=0.0):
    """Return nats that speak for one line, in these blocks only, and its states."""
    states = np.rint(MIDDLE + slope * (np.arange(blocks) - (blocks - 1) / 2) * BLOCK_S / STEP_S).astype(int)
    nats = np.full((blocks, STATES), LITTLE, np.float32)
    for block in speaking_blocks:
        nats[block] = np.clip(4.0 - 2.0 * np.abs(np.arange(STATES) - states[block]), -4.0, 4.0)
    return nats, states


@pytest.mark.parametrize("slope", [-0.01, -0.005, 0.005, 0.01])
def test_a_clock_that_runs_too_fast_or_too_slowly_is_followed_from_end_to_end(slope):
    nats, states = speaking(24, range(24), slope)
    line = fit_offset_line(nats, np.full(24, MIDDLE), 6, -MIDDLE * STEP_S, LineRules())
    assert line.slope == pytest.approx(slope, abs=0.001)
    assert line.base_s + line.slope * (6 + 12) * BLOCK_S == pytest.approx(0.0, abs=0.1)
    assert (line.first, len(line.states)) == (0, 24)
    assert np.abs(np.array(line.states) - states).max() <= 1


def test_a_constant_clock_is_no_drift():
    nats, _ = speaking(24, range(24))
    assert fit_offset_line(nats, np.full(24, MIDDLE), 0, 0.0, LineRules()).slope == 0.0


def test_blocks_far_from_the_pauses_that_speak_have_no_place():
    """Pauses within 20 s tell where they lie, and not at which rate the clock runs: a minute later it may be off."""
    nats, _ = speaking(24, range(2, 6))
    line = fit_offset_line(nats, np.full(24, MIDDLE), 0, 0.0, LineRules())
    assert line.first + len(line.states) < 18, "a clock of 1 % is 0.6 s off by then"
    assert set(range(2, 6)) <= set(range(line.first, line.first + len(line.states)))


def test_a_run_that_nothing_speaks_for_has_no_place():
    nats = np.full((24, STATES), LITTLE, np.float32)
    assert fit_offset_line(nats, np.full(24, MIDDLE), 0, 0.0, LineRules()).states == ()


def test_blocks_that_nobody_heard_yet_go_with_those_before_them():
    """So an end that more audio may come behind is not cut back any further than one where the audio ends."""
    nats, _ = speaking(24, range(6))
    nats[6:] = 0.0
    line = fit_offset_line(nats, np.full(24, MIDDLE), 0, 0.0, LineRules())
    assert (line.first, len(line.states)) == (0, 24)
