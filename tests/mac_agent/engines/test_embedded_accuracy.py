"""The accuracy that the README states, on real recordings and on conversations of real voices, with one setting.

DER without collar, overlap scored, over the whole recording. benchmarks/bench_embedded.py prints every number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("pyannote.metrics", reason="could not import pyannote.metrics: install the agent extra")

from benchmarks.bench_embedded import MOVED, Score, compare, moved, oracle, pool, spoil
from benchmarks.recordings import AMI, Recording, load_real, make_conversation, make_solo, voices
from mac_agent.engines.embedded import EmbeddedEngine, NetworkOutput, StageTimer, to_diarization
from mac_agent.engines.engine import Hints

if TYPE_CHECKING:
    from mac_agent.engines.clustering import Policy
    from mac_agent.engines.engine import Engine

    Outputs = dict[str, tuple[Recording, NetworkOutput]]

# The first test that uses a fixture runs the networks on all of its recordings, which takes minutes.
pytestmark = [pytest.mark.shared, pytest.mark.slow, pytest.mark.timeout(3600)]

MOVES = [pytest.param(1.0, id="as set"), pytest.param(0.85, id="15 % down"), pytest.param(1.15, id="15 % up")]


def run_networks(engine: Engine, recordings: list[Recording]) -> Outputs:
    assert isinstance(engine, EmbeddedEngine)
    outputs = {}
    for recording in recordings:
        output = engine.run_networks(recording.waveform, lambda _stage, _done: None, StageTimer())
        if output is not None:
            outputs[recording.name] = (recording, output)
    return outputs


@pytest.fixture(scope="module")
def real(embedded: Engine) -> Outputs:
    return run_networks(embedded, load_real())


@pytest.fixture(scope="module")
def talks(embedded: Engine) -> Outputs:
    return run_networks(embedded, [make_conversation(voices, seed=1) for voices in (3, 5, 10)])


@pytest.fixture(scope="module")
def alone(embedded: Engine) -> Outputs:
    """Ten voices, each alone for a minute, and copies of every second one as a wearable records them."""
    solos = [make_solo(voice) for voice in voices()]
    return run_networks(embedded, solos + [copy for solo in solos[::2] for copy in spoil(solo)])


@pytest.fixture(scope="module")
def policy(embedded: Engine) -> Policy:
    assert isinstance(embedded, EmbeddedEngine)
    return embedded.policy


def evaluate(recording: Recording, output: NetworkOutput, policy: Policy) -> tuple[Score, int]:
    turns = to_diarization(output, Hints(), policy, StageTimer()).turns
    return compare(recording, turns), len({turn.speaker for turn in turns})


@pytest.mark.parametrize("factor", MOVES)
@pytest.mark.parametrize(
    ("name", "limit"), [("sample", 0.06), ("repair_call_40", 0.055), ("diarizationExample", 0.045)]
)
def test_dialogue_and_broadcast(real: Outputs, name: str, limit: float, factor: float, policy: Policy) -> None:
    score, speakers = evaluate(*real[name], moved(policy, MOVED, factor))
    assert score.der <= limit
    assert speakers == real[name][0].speakers


@pytest.mark.parametrize("factor", MOVES)
def test_meetings(real: Outputs, factor: float, policy: Policy) -> None:
    results = {name: evaluate(*real[name], moved(policy, MOVED, factor)) for name in AMI}
    assert pool(score for score, _ in results.values()).der <= 0.215


@pytest.mark.parametrize("factor", MOVES)
def test_clustering_is_within_five_points_of_perfect(
    real: Outputs, talks: Outputs, factor: float, policy: Policy
) -> None:
    mixtures = {name: pair for name, pair in real.items() if name.startswith("gradientsj")}
    assert len(mixtures | talks) == 6
    for name, (recording, output) in (mixtures | talks).items():
        score, _ = evaluate(recording, output, moved(policy, MOVED, factor))
        best = compare(recording, oracle(recording, output))
        assert score.der <= best.der + 0.05, (name, score, best)


@pytest.mark.parametrize("factor", MOVES)
def test_a_voice_alone_is_one_speaker(alone: Outputs, factor: float, policy: Policy) -> None:
    plain = [name for name in alone if " " not in name]
    assert len(plain) == 10
    assert {name: evaluate(*alone[name], moved(policy, MOVED, factor))[1] for name in plain} == dict.fromkeys(plain, 1)


def test_no_copy_of_a_voice_alone_becomes_two(alone: Outputs, policy: Policy) -> None:
    copies = [name for name in alone if " " in name]
    assert len(copies) == 25
    assert {name: evaluate(*alone[name], policy)[1] for name in copies} == dict.fromkeys(copies, 1)
