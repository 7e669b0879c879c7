"""Made-up recordings that are harder than readers taking turns: calls, meetings, broadcasts, talks.

Calls are of two alike voices, meetings overlap, a talk is mostly one voice; all of LibriSpeech voices. Parts of a real
call are added. Everything follows from a seed. Docs say which seeds were looked at while choices were made, and which
only afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.signal import fftconvolve, resample_poly

from benchmarks.recordings import SAMPLE_RATE_HZ, SHARED_AUDIO, Recording, load_real, utterances, voices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Audio = NDArray[np.float32]

Random = np.random.Generator
Channel = Callable[["Audio", Random], "Audio"]
Seconds = Callable[[Random, int], float]
_LEAST_SPEECH = SAMPLE_RATE_HZ // 2  # what is left of an utterance is not used if it is shorter
_LEVEL = 0.05  # root mean square of every turn, before a voice is made quieter


class _Supply:
    """The utterances of a voice in a drawn order, of which each turn takes the next few seconds."""

    def __init__(self, voice: str, random: Random) -> None:
        self._waiting = utterances(voice)
        random.shuffle(self._waiting)
        self._number = self._used = 0

    def take(self, n_samples: int) -> Audio:
        while len(speech := self._waiting[self._number % len(self._waiting)]) - self._used < _LEAST_SPEECH:
            self._number, self._used = self._number + 1, 0
        part = speech[self._used : self._used + n_samples]
        self._used += n_samples
        if self._used > len(speech) - _LEAST_SPEECH:
            self._number, self._used = self._number + 1, 0
        return part


@dataclass(frozen=True)
class Conditions:
    """How speakers take turns, and what they are recorded through."""

    duration_s: float
    turn_s: Seconds
    """Draws the length of a turn, given the number of the speaker."""
    gap_s: Seconds
    """Draws the time from the end of a turn to the next; where it is negative, the next one speaks over the last."""
    channel: Channel
    """Mixes the speakers' audio, shape ``(speakers, samples)``."""


def make_talk(name: str, speakers: list[str], random: Random, conditions: Conditions) -> Recording:
    """Return speakers taking turns, never the same entry twice; one voice on two entries is one speaker."""
    n_samples = int(conditions.duration_s * SAMPLE_RATE_HZ)
    tracks = np.zeros((len(speakers), n_samples + 30 * SAMPLE_RATE_HZ), dtype=np.float32)
    supplies = [_Supply(speaker, random) for speaker in speakers]
    gains = 10 ** (random.uniform(-6, 0, len(speakers)) / 20)
    reference = []
    at, last = int(0.3 * SAMPLE_RATE_HZ), -1
    while at < n_samples:
        able = [number for number in range(len(speakers)) if number != last]
        last = int(random.choice(able, p=np.full(len(able), 1 / len(able))))
        part = supplies[last].take(int(conditions.turn_s(random, last) * SAMPLE_RATE_HZ))
        part = part * (_LEVEL / (np.sqrt((part**2).mean()) + 1e-6)) * gains[last]
        tracks[last, at : at + len(part)] += part
        reference.append((at / SAMPLE_RATE_HZ, min(at + len(part), n_samples) / SAMPLE_RATE_HZ, speakers[last]))
        gap = int(conditions.gap_s(random, last) * SAMPLE_RATE_HZ)
        at = max(at + len(part) + gap, at + int(0.3 * SAMPLE_RATE_HZ))
    mixed = conditions.channel(tracks[:, :n_samples], random).astype(np.float32)
    return Recording(name, mixed, tuple(sorted(reference)))


def by_telephone(tracks: Audio, random: Random) -> Audio:
    """Mix speakers with a little noise, through 280 to 3,500 Hz at 8 kHz and eight bits of mu-law."""
    noisy = _add_noise(tracks.sum(axis=0), random.uniform(20, 35), random).astype(np.float32)
    narrow = resample_poly(noisy, 1, 2)
    spectrum = np.fft.rfft(narrow)
    frequency_hz = np.fft.rfftfreq(len(narrow), 1 / 8000)
    spectrum[(frequency_hz < 280) | (frequency_hz > 3500)] *= 0.05
    narrow = np.fft.irfft(spectrum, len(narrow))
    narrow = np.clip(narrow / (np.abs(narrow).max() + 1e-9) * 0.9, -1, 1)
    coded = np.round(np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256) * 127) / 127
    decoded = (np.sign(coded) * (256 ** np.abs(coded) - 1) / 255).astype(np.float32)
    wide: Audio = resample_poly(decoded, 2, 1)[: len(noisy)].astype(np.float32)
    return wide


def in_a_room(tracks: Audio, random: Random) -> Audio:
    """Mix speakers, each from another place in one room, with noise."""
    rt60_s = random.uniform(0.25, 0.6)
    n = int(rt60_s * SAMPLE_RATE_HZ)
    mixed: NDArray[Any] = np.zeros(tracks.shape[1])
    for track in tracks:
        tail = random.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
        response = np.concatenate([[1.0], tail / np.sqrt((tail**2).sum()) * 10 ** (random.uniform(-6, 0) / 20)])
        mixed = mixed + fftconvolve(track, response)[: len(track)]
    return _add_noise(mixed, random.uniform(15, 25), random)


def make_hard(seed: int) -> Iterator[Recording]:
    """Yield eight calls of two alike voices, five meetings, three broadcasts, three talks and four parts of a call."""
    sex = _sexes()
    call = Conditions(90, _uniform(0.8, 6), _uniform(-0.3, 0.6), by_telephone)
    for number in range(8):
        alike = [voice for voice in sex if sex[voice] == "MF"[number % 2]]
        yield _draw(f"phone-{seed}-{number}", alike, 2, seed * 1000 + number, call)
    meeting = Conditions(100, _meeting_turn, _meeting_gap, in_a_room)
    for number in range(5):
        yield _draw(f"meeting-{seed}-{number}", list(sex), 3 + number % 3, seed * 1000 + 100 + number, meeting)
    broadcast = Conditions(150, _uniform(3, 18), _uniform(0.05, 0.4), by_telephone)
    for number in range(3):
        yield _draw(f"broadcast-{seed}-{number}", list(sex), 4, seed * 1000 + 200 + number, broadcast)
    for number, channel in enumerate((_mix, in_a_room, by_telephone)):
        talk = Conditions(150, _speaker_and_asker, _uniform(0.1, 0.7), channel)
        yield _draw(f"talk-{seed}-{number}", list(sex), 2, seed * 1000 + 300 + number, talk)
    yield from _cut_call(seed)


def make_hard_solos(seed: int) -> Iterator[Recording]:
    """Yield each voice alone, by telephone or in a room, with pauses: it should stay one."""
    for number, voice in enumerate(sorted(_sexes())):
        name, channel = (("phone", by_telephone), ("room", in_a_room))[(number + seed) % 2 == 0]
        random = np.random.default_rng(seed * 1000 + 500 + number)
        alone = Conditions(45, _uniform(1, 8), _uniform(0.1, 0.8), channel)
        yield make_talk(f"solo-{name}-{seed}-{voice}", [voice, voice], random, alone)


def _draw(name: str, able: list[str], n_speakers: int, seed: int, conditions: Conditions) -> Recording:
    random = np.random.default_rng(seed)
    return make_talk(name, random.choice(able, n_speakers, replace=False).tolist(), random, conditions)


def _cut_call(seed: int) -> Iterator[Recording]:
    call = next(recording for recording in load_real() if recording.name == "repair_call_40")
    for number, length_s in enumerate((30, 45, 60, 90)):
        start_s = np.random.default_rng(seed * 1000 + 400 + number).uniform(0, call.duration_s - length_s)
        inside = [turn for turn in call.reference if turn[1] > start_s and turn[0] < start_s + length_s]
        reference = [(max(a - start_s, 0), min(b - start_s, length_s), who) for a, b, who in inside]
        first = int(start_s * SAMPLE_RATE_HZ)
        samples = call.waveform[first : int((start_s + length_s) * SAMPLE_RATE_HZ)]
        yield Recording(f"callpart-{seed}-{number}", samples, tuple(reference))


def _sexes() -> dict[str, str]:
    lines = (SHARED_AUDIO / "librispeech" / "SPEAKERS.TXT").read_text().splitlines()
    fields = [[field.strip() for field in line.split("|")] for line in lines if not line.startswith(";")]
    known = {field[0]: field[1] for field in fields}
    return {voice: known[voice] for voice in voices()}


def _uniform(least: float, most: float) -> Seconds:
    return lambda random, _speaker: random.uniform(least, most)


def _meeting_turn(random: Random, _speaker: int) -> float:
    return min(10.0, 0.6 + random.exponential(2.5))


def _meeting_gap(random: Random, _speaker: int) -> float:
    return random.normal(0, 0.7)


def _speaker_and_asker(random: Random, speaker: int) -> float:
    return random.uniform(6, 20) if speaker == 0 else random.uniform(0.8, 3)


def _mix(tracks: Audio, _random: Random) -> Audio:
    mixed: Audio = tracks.sum(axis=0)
    return mixed


def _add_noise(waveform: NDArray[Any], snr_db: float, random: Random) -> Audio:
    noise = np.convolve(random.standard_normal(len(waveform) + 63), 0.9 ** np.arange(64), mode="valid")
    gain = np.sqrt((waveform**2).mean() / (noise**2).mean()) * 10 ** (-snr_db / 20)
    noisy: Audio = waveform + noise * gain
    return noisy
