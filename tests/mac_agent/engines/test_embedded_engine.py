"""The embedded engine on real speech, with its real weights."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from benchmarks.recordings import Recording, load_sample, make_solo, sample_path, voices
from mac_agent.engines.engine import Diarization, Hints, Turn
from mac_agent.errors import InvalidWaveform
from mac_agent.voice_samples import add_samples
from schemas.codec import decode, encode
from schemas.turns import EngineDescription, SpeakerTurns

if TYPE_CHECKING:
    from mac_agent.engines.engine import Engine


RESULT: dict[str, Any] = {
    "conversation_id": "c",
    "job_id": "j",
    "lease_id": "l",
    "agent_id": "a",
    "engine": EngineDescription(name="embedded"),
    "turns": (),
    "exclusive_turns": (),
}


def ignore(_stage: str, _done: float) -> None:
    pass


@pytest.fixture(scope="module")
def sample() -> Recording:
    return load_sample()


@pytest.fixture(scope="module")
def found(embedded: Engine, sample: Recording) -> Diarization:
    return embedded.diarize(sample.waveform, Hints(), ignore)


def error_rate(recording: Recording, turns: tuple[Turn, ...]) -> float:
    """DER without collar, overlap scored, by pyannote.metrics."""
    from pyannote.core import Annotation, Segment
    from pyannote.metrics.diarization import DiarizationErrorRate

    reference, hypothesis = Annotation(), Annotation()
    for number, (start_s, end_s, speaker) in enumerate(recording.reference):
        reference[Segment(start_s, end_s), number] = speaker
    for number, turn in enumerate(turns):
        hypothesis[Segment(turn.start_s, turn.end_s), number] = turn.speaker
    whole = Segment(0, recording.duration_s)
    return float(DiarizationErrorRate(collar=0.0, skip_overlap=False)(reference, hypothesis, uem=whole))


@dataclass(frozen=True)
class Line:
    speaker: str
    start_s: float
    end_s: float


def transcript() -> list[Line]:
    fields = [line.split() for line in sample_path().with_suffix(".stm").read_text().splitlines() if line.strip()]
    return [Line(f[2], float(f[3]), float(f[4])) for f in fields]


def vote(line: Line, turns: tuple[Turn, ...]) -> str | None:
    seconds: defaultdict[str, float] = defaultdict(float)
    for turn in turns:
        seconds[turn.speaker] += max(0.0, min(turn.end_s, line.end_s) - max(turn.start_s, line.start_s))
    best = max(seconds, key=lambda speaker: seconds[speaker], default=None)
    return best if best is not None and seconds[best] > 0 else None


def test_error_rate_on_a_real_call_is_at_most_a_tenth(sample: Recording, found: Diarization) -> None:
    assert error_rate(sample, found.turns) <= 0.10
    assert len(found.speakers) == 2


def test_transcript_lines_go_to_the_person_who_said_them(found: Diarization) -> None:
    lines = transcript()
    votes = [vote(line, found.exclusive_turns) for line in lines]
    # Two people speak in the reference; the better of the two mappings of our two speakers to them counts.
    names = sorted({turn.speaker for turn in found.turns})
    ways = [dict(zip(names, order, strict=False)) for order in (("Diane", "Sheila"), ("Sheila", "Diane"))]
    wrong = min(
        ([line for line, who in zip(lines, votes, strict=True) if way.get(who or "") != line.speaker] for way in ways),
        key=len,
    )
    assert len(wrong) <= 1
    assert all(line.end_s - line.start_s < 0.8 for line in wrong)


def test_two_people_at_once_are_two_turns_at_once(found: Diarization) -> None:
    turns = found.turns
    overlapping = [(a, b) for a in turns for b in turns if a.speaker < b.speaker and a.start_s < b.end_s > a.start_s]
    assert any(min(a.end_s, b.end_s) > max(a.start_s, b.start_s) for a, b in overlapping)
    ends_before = zip(found.exclusive_turns, found.exclusive_turns[1:], strict=False)
    assert all(one.end_s <= other.start_s + 1e-9 for one, other in ends_before)


def test_every_speaker_has_evidence_in_order_of_first_speech(found: Diarization) -> None:
    order = list(dict.fromkeys(turn.speaker for turn in found.turns))
    assert [speaker.speaker for speaker in found.speakers] == order == ["SPEAKER_00", "SPEAKER_01"]
    for speaker in found.speakers:
        assert 5 < speaker.clean_speech_s < 20
        assert speaker.embedding is not None
        assert speaker.embedding.dtype == np.float32
        assert np.linalg.norm(speaker.embedding) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.long
def test_the_same_file_gives_the_same_answer_whatever_ran_before(
    embedded: Engine, sample: Recording, found: Diarization
) -> None:
    noise = np.random.default_rng(0).standard_normal(48_000).astype(np.float32) * np.float32(0.1)
    embedded.diarize(noise, Hints(), ignore)
    again = embedded.diarize(sample.waveform, Hints(), ignore)
    assert again.turns == found.turns
    assert again.exclusive_turns == found.exclusive_turns
    for one, other in zip(again.speakers, found.speakers, strict=True):
        np.testing.assert_array_equal(one.embedding, other.embedding)


@pytest.mark.parametrize("duration_s", [0.0, 0.01, 1.0, 12.0])
def test_silence_has_no_turns(embedded: Engine, duration_s: float) -> None:
    quiet = embedded.diarize(np.zeros(int(16_000 * duration_s), dtype=np.float32), Hints(), ignore)
    assert quiet.turns == quiet.exclusive_turns == ()
    assert quiet.speakers == ()
    assert quiet.speech_s == 0.0


@pytest.mark.parametrize("seconds", [0.02, 0.3, 2.0, 4.999, 5.0, 5.001, 7.3])
def test_turns_of_short_audio_lie_within_it(embedded: Engine, sample: Recording, seconds: float) -> None:
    short = sample.waveform[160_000 : 160_000 + int(16_000 * seconds)]
    turns = embedded.diarize(short, Hints(), ignore).turns
    assert all(0.0 <= turn.start_s < turn.end_s <= len(short) / 16_000 for turn in turns)


@pytest.mark.long
def test_a_maximum_is_kept_and_a_minimum_adds_no_speaker(embedded: Engine, sample: Recording) -> None:
    assert len(embedded.diarize(sample.waveform, Hints(max_speakers=1), ignore).speakers) == 1
    assert len(embedded.diarize(sample.waveform, Hints(num_speakers=1), ignore).speakers) == 1
    assert len(embedded.diarize(sample.waveform, Hints(max_speakers=9), ignore).speakers) == 2
    assert len(embedded.diarize(sample.waveform, Hints(num_speakers=9), ignore).speakers) <= 3
    for absurd in (Hints(min_speakers=5, max_speakers=2), Hints(num_speakers=-1), Hints(num_speakers=0)):
        assert embedded.diarize(sample.waveform, absurd, ignore).turns


@pytest.mark.long
def test_progress_is_reported_and_an_exception_in_it_stops_the_run(embedded: Engine, sample: Recording) -> None:
    stages: list[tuple[str, float]] = []
    embedded.diarize(sample.waveform, Hints(), lambda stage, done: stages.append((stage, done)))
    assert {"segmentation", "embedding", "clustering"} <= {stage for stage, _ in stages}
    assert all(0.0 <= done <= 1.0 for _, done in stages)

    class Cancelled(Exception):
        pass

    def cancel(_stage: str, _done: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        embedded.diarize(sample.waveform, Hints(), cancel)


def test_audio_that_is_not_mono_float32_is_refused_with_the_remedy(embedded: Engine) -> None:
    with pytest.raises(InvalidWaveform, match="mono float32"):
        embedded.diarize(np.zeros((2, 100), dtype=np.float32), Hints(), ignore)
    with pytest.raises(InvalidWaveform, match="mono float32"):
        embedded.diarize(np.zeros(100), Hints(), ignore)  # type: ignore[arg-type] # float64 is what the test passes
    with pytest.raises(InvalidWaveform, match="NaN"):
        embedded.diarize(np.full(100, np.nan, dtype=np.float32), Hints(), ignore)


def test_the_engine_says_which_weights_it_holds(embedded: Engine) -> None:
    info = embedded.info
    assert info.name == "embedded"
    assert info.device == "cpu"
    assert len(info.revision) == len(info.embedding_revision) == 12
    assert info.revision != info.embedding_revision


@pytest.mark.parametrize("times", [3, 4])
def test_what_repeats_itself_has_no_more_speakers(embedded: Engine, sample: Recording, times: int) -> None:
    """Copies of one utterance are more alike than its voice is: they must not become voices of their own."""
    repeated = np.tile(sample.waveform, times)
    assert len(embedded.diarize(repeated, Hints(), ignore).speakers) == 2


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_one_voice_for_a_minute_is_one_speaker(embedded: Engine, number: int) -> None:
    solo = make_solo(voices()[number])
    assert len(embedded.diarize(solo.waveform, Hints(), ignore).speakers) == 1


def test_every_piece_of_clear_speech_is_a_sample_within_a_message(found: Diarization, sample: Recording):
    assert found.samples is not None
    assert (np.diff(found.samples.start_s) >= 0).all()
    length_s = found.samples.end_s - found.samples.start_s
    assert length_s.min() > 0
    assert length_s.max() <= 0.9
    assert (found.samples.clean_s <= length_s + 1e-6).all()
    assert 15.0 < found.samples.clean_s.sum() < sample.duration_s
    message = add_samples(SpeakerTurns(**RESULT, duration_s=sample.duration_s), found.samples)
    kept = decode(SpeakerTurns, encode(message)).voice_samples
    assert kept is not None
    assert (kept.count, kept.every) == (len(found.samples), 1)
    assert len(encode(message)) < 50_000
