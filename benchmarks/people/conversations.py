"""Conversations, and the voices that the engine finds in them, with who each really is."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from benchmarks.people.copies import COPIES
from benchmarks.recordings import SAMPLE_RATE_HZ, SHARED_AUDIO, Recording, load_real, utterances, voices
from mac_agent.engines.engine import Hints

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mac_agent.engines.engine import Diarization, Engine

LEAST_SHARE = 0.5
TELEVISION = ("diarizationExample", "diarizationExample2")


@dataclass(frozen=True, eq=False)
class SpokenVoice:
    """One speaker of a job, as its result names them."""

    recording: str
    who: str
    """Who speaks most of it by the reference; empty where nobody has half of it."""
    vector: NDArray[np.float32]
    clean_s: float


PAUSES_S = (0.1, 0.8)


def talk(
    name: str, who: Sequence[str], numbers: Sequence[int], seed: int, pauses_s: tuple[float, float] = PAUSES_S
) -> Recording:
    """Some voices taking turns with pauses between, each saying the utterances with these numbers once."""
    random = np.random.default_rng(seed)
    turns = [(voice, number) for voice in who for number in numbers]
    parts: list[NDArray[np.float32]] = []
    reference: list[tuple[float, float, str]] = []
    at = 0
    spoken = {voice: utterances(voice) for voice in who}
    for index in random.permutation(len(turns)).tolist():
        voice, number = turns[index]
        speech = spoken[voice][number]
        pause = np.zeros(int(random.uniform(*pauses_s) * SAMPLE_RATE_HZ), dtype=np.float32)
        reference.append((at / SAMPLE_RATE_HZ, (at + len(speech)) / SAMPLE_RATE_HZ, voice))
        parts += [speech, pause]
        at += len(speech) + len(pause)
    return Recording(name, np.concatenate(parts), tuple(reference))


def first_conversations() -> list[Recording]:
    """The ten voices in three conversations, with the first half of what each says."""
    return [talk(f"first-{part}", voices()[part::3], range(5), seed=part) for part in range(3)]


def next_conversations(copy: str) -> list[Recording]:
    """The ten voices in three other circles, with the second half of what each says, as copies."""
    circles = [voices()[:3], voices()[3:6], voices()[6:]]
    talks = [talk(f"next-{part}", who, range(5, 10), seed=10 + part) for part, who in enumerate(circles)]
    return [replace(COPIES[copy](each, 10 + part), name=f"{each.name} {copy}") for part, each in enumerate(talks)]


def strangers() -> list[Recording]:
    """Real recordings of people who are in no LibriSpeech conversation."""
    return [each for each in load_real() if not each.name.startswith("gradientsj")]


def enrolment_clips() -> list[Recording]:
    """Katie and Steve: a clip of each, and their conversation, of which no reference says who speaks when."""
    found = []
    for name in ("enrollment_audio_katie", "enrollment_audio_steve", "katiesteve_mono"):
        samples, rate_hz = soundfile.read(SHARED_AUDIO / "enrolment" / f"{name}.wav", dtype="float32", always_2d=True)
        if rate_hz != SAMPLE_RATE_HZ:
            raise ValueError(f"{name} is at {rate_hz} Hz.")
        found.append(Recording(name, np.ascontiguousarray(samples.mean(axis=1)), ()))
    return found


def hear(engine: Engine, recording: Recording, cache: Path, *, num_speakers: int | None = None) -> list[SpokenVoice]:
    """Return the speakers that the engine finds in a recording and has a vector of; an answer in the cache is used."""
    path = cache / f"{engine.info.name} {recording.name}.answer"
    if not path.is_file():
        hints = Hints(num_speakers=num_speakers)
        path.write_bytes(pickle.dumps(engine.diarize(recording.waveform, hints, lambda *_: None)))
    found: Diarization = pickle.loads(path.read_bytes())  # noqa: S301 - written above
    return [
        SpokenVoice(recording.name, _who(found, each.speaker, recording), each.embedding, each.clean_speech_s)
        for each in found.speakers
        if each.embedding is not None
    ]


def _who(found: Diarization, speaker: str, recording: Recording) -> str:
    """Return who has most of the turns of a speaker."""
    spoken = [(turn.start_s, turn.end_s) for turn in found.turns if turn.speaker == speaker]
    shared: dict[str, float] = {}
    for start_s, end_s, who in recording.reference:
        overlap_s = sum(max(0.0, min(end_s, last_s) - max(start_s, first_s)) for first_s, last_s in spoken)
        shared[who] = shared.get(who, 0.0) + overlap_s
    most = max(shared, key=lambda who: shared[who], default="")
    total_s = sum(end_s - start_s for start_s, end_s in spoken)
    return most if most and shared[most] >= LEAST_SHARE * total_s else ""
