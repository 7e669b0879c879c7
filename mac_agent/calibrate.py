"""Measure, on recordings of known people, from which similarity on a voice may be taken for one of them."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from broker.text_files import read_text
from mac_agent.audio import decode
from mac_agent.diarize import diarize_files
from mac_agent.engines.engine import SAMPLE_RATE_HZ, Hints
from mac_agent.errors import AudioError
from mac_agent.qualify import RecordingRefused, write_wav
from mac_agent.threshold import NO_ERRORS, Errors, Trials, choose, cross_validate, suggest_from
from mac_agent.worker import read_limits
from schemas.people_rules import MeasuredErrors, PeopleRules, SpaceRules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from numpy.typing import NDArray

    from mac_agent.engines.engine import Waveform
    from mac_agent.inference import JobResult, LoadEngine
    from mac_agent.settings import AgentSettings

PART_S = 15.0
"""Recordings are cut into parts of this length, each of which is one voice: as much as somebody says in a short job."""
MIN_CLEAN_S = 5.0
MIN_PEOPLE = 5
MOST_PRINTS = 5
"""Recordings of each person that are taken for the known one, in turn."""
AUDIO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "aac", "aif", "aiff", "amr", "caf", "flac", "m4a", "mka", "mkv"),
        *("mov", "mp3", "mp4", "oga", "ogg", "opus", "wav", "webm", "wma"),
    )
)
"""What is looked for in folders; a file that is named is taken whatever its name."""


class TooFewVoices(Exception):
    """The recordings are not enough to choose a threshold; the message says what is missing."""


class RecordingRepeated(Exception):
    """A recording is there twice, so that a voice would be compared with itself; the message names both files."""


class RulesUnreadable(Exception):
    """A file that should hold rules holds something else; the message names it."""


@dataclass(frozen=True, eq=False)
class KnownVoice:
    """The voice of one part of a recording of a known person."""

    person: str
    recording: Path
    vector: NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """What was chosen, and what it does to voices of people who had no part in the choice."""

    rules: SpaceRules
    errors: Errors
    people: Mapping[str, int]
    """By name, how many recordings there are of each."""


def find_recordings(paths: Sequence[Path]) -> dict[Path, str]:
    """Return files, and the audio files in folders, with who speaks: the name of the folder that a file lies in."""
    files = sorted({file.resolve() for path in paths for file in _files_of(path)})
    return {file: file.parent.name for file in files}


def merge_rules(path: Path, rules: SpaceRules) -> str:
    """Return the content of a file of rules with these added, in place of older ones for the same embedding space.

    Raises:
        RulesUnreadable: there is a file, and it holds something else.
        OSError: it cannot be read.
    """
    known: tuple[SpaceRules, ...] = ()
    if path.exists():
        try:
            known = PeopleRules.model_validate_json(read_text(path)).rules
        except ValueError as error:
            raise RulesUnreadable(f"{path} is no file of rules: name another one, or delete it.") from error
    kept = [each for each in known if each.embedding_space != rules.embedding_space]
    return PeopleRules(rules=(*kept, rules)).model_dump_json(by_alias=True, indent=2) + "\n"


def calibrate(
    settings: AgentSettings,
    recordings: Mapping[Path, str],
    load: LoadEngine,
    *,
    report: Callable[[str, float], None],
) -> Calibration:
    """Run the engine over recordings of known people and choose a threshold and a margin.

    Args:
        settings: those of the agent.
        recordings: each of one person, with the person's name.
        load: loads the engine, in the worker process.
        report: called with (current step, fraction 0..1).

    Raises:
        TooFewVoices: of too few people there is enough speech.
        RecordingRepeated: two files are the same recording.
        EngineError: the engine cannot be loaded.
        RecordingRefused: a file cannot be decoded.
        DiarizeFailed: the engine failed.
        OSError: a file cannot be read.
    """
    _check_people(Counter(recordings.values()), "there is a recording")
    _check_repeated(recordings)
    with tempfile.TemporaryDirectory(prefix="omi-calibrate-") as scratch:
        parts = _cut(recordings, Path(scratch), settings.max_audio_s, report)
        results = _diarize(list(parts), load, settings, report)
    voices = [
        KnownVoice(recordings[recording], recording, vector)
        for recording, result in zip(parts.values(), results, strict=True)
        if (vector := _voice_of(result)) is not None
    ]
    info = results[0].info
    return judge_voices(voices, f"{info.embedding_model}@{info.embedding_revision}")


def _check_repeated(recordings: Iterable[Path]) -> None:
    known: dict[bytes, Path] = {}
    for recording in recordings:
        with recording.open("rb") as file:
            other = known.setdefault(hashlib.file_digest(file, "sha256").digest(), recording)
        if other != recording:
            raise RecordingRepeated(f"{other} and {recording} are the same recording. Leave it with who speaks, once.")


def judge_voices(voices: Sequence[KnownVoice], model: str) -> Calibration:
    """Choose a threshold and a margin for a model, and measure them.

    Args:
        voices: of known people.
        model: name and revision, model@revision.

    Raises:
        TooFewVoices: of too few people there is enough speech.
    """
    parts_of = Counter(voice.person for voice in voices)
    known = Counter({name: count for name, count in parts_of.items() if count > 1})
    _check_people(known, f"there are two parts with {MIN_CLEAN_S:.0f} s of clean speech")
    kept = [voice for voice in voices if voice.person in known]
    trials = make_trials(kept)
    choice = choose(trials)
    errors = sum(cross_validate(trials), NO_ERRORS)
    rules = SpaceRules(
        embedding_space=f"{model}/{kept[0].vector.size}",
        threshold=choice.threshold,
        margin=choice.margin,
        min_clean_s=MIN_CLEAN_S,
        suggest_from=min(suggest_from(trials), choice.threshold),
        measured_at=datetime.now(UTC),
        measured=_describe(errors, people=len(known), voices=len(kept)),
    )
    recordings = {(voice.person, voice.recording) for voice in kept}
    return Calibration(rules, errors, Counter(person for person, _ in sorted(recordings)))


def make_trials(voices: Sequence[KnownVoice]) -> list[Trials]:
    """Compare every voice with everybody: of each person one recording is the known one, in turn; a set for each turn.

    A voice is never compared with itself: where it comes from the known recording, with the other parts of it, if that
    is the only recording of the person, else not at all in this turn.
    """
    people = sorted({voice.person for voice in voices})
    recordings = {name: sorted({voice.recording for voice in voices if voice.person == name}) for name in people}
    turns = min(MOST_PRINTS, max(len(files) for files in recordings.values()))
    return [
        _make_turn(
            voices,
            {name: files[turn % len(files)] for name, files in recordings.items()},
            {name for name, files in recordings.items() if len(files) == 1},
        )
        for turn in range(turns)
    ]


def _make_turn(voices: Sequence[KnownVoice], known: Mapping[str, Path], alone: AbstractSet[str]) -> Trials:
    people = sorted(known)
    prints = {name: [voice for voice in voices if voice.recording == known[name]] for name in people}
    speaker, similarity = [], []
    for voice in voices:
        is_known = voice.recording == known[voice.person]
        if is_known and voice.person not in alone:
            continue
        row = [_mean([each.vector for each in prints[name] if each is not voice]) @ voice.vector for name in people]
        speaker.append(people.index(voice.person))
        similarity.append(row)
    return Trials(np.array(speaker, dtype=np.intp), np.array(similarity).reshape(len(speaker), len(people)))


def _mean(vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.sum(vectors, axis=0, dtype=np.float64)
    return total / np.linalg.norm(total)


def _voice_of(result: JobResult) -> NDArray[np.float32] | None:
    """Return the unit vector of whoever speaks in a part; None where that is too little, or not one person."""
    clear = [each for each in result.diarization.speakers if each.clean_speech_s >= MIN_CLEAN_S]
    if len(clear) != 1 or clear[0].embedding is None:
        return None
    vector = clear[0].embedding
    length = np.linalg.norm(vector)
    return vector / length if np.isfinite(length) and length > 0 else None


def _describe(errors: Errors, *, people: int, voices: int) -> MeasuredErrors:
    false_accepts, false_rejects = errors.strangers_named + errors.wrong_person, errors.false_rejects
    return MeasuredErrors(
        people=people,
        voices=voices,
        false_accepts=false_accepts.share,
        false_accepts_at_most=false_accepts.interval[1],
        false_rejects=false_rejects.share,
        false_rejects_at_most=false_rejects.interval[1],
    )


def _check_people(counts: Mapping[str, int], what: str) -> None:
    if len(counts) < MIN_PEOPLE:
        names = f": {', '.join(sorted(counts))}" if counts else ""
        raise TooFewVoices(
            f"Recordings of at least {MIN_PEOPLE} people are needed, better of 20, in a folder for each person; {what} "
            f"of {len(counts)}{names}. Two recordings of a minute of each person are enough."
        )


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = (file for file in path.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
    return [file for file in found if file.is_file() and not file.name.startswith(".")]


def _cut(
    recordings: Mapping[Path, str], directory: Path, max_s: float, report: Callable[[str, float], None]
) -> dict[Path, Path]:
    """Write the parts of all recordings, and return of which recording each is."""
    parts: dict[Path, Path] = {}
    for number, recording in enumerate(recordings):
        report("decode", number / len(recordings))
        try:
            with recording.open("rb") as stream:
                waveform = decode(stream, max_s=max_s).waveform
        except AudioError as error:
            raise RecordingRefused(f"{recording}: {error} ({error.code.value})") from error
        for part in _parts(waveform):
            path = directory / f"{len(parts)}.wav"
            write_wav(path, part)
            parts[path] = recording
    return parts


def _parts(waveform: Waveform) -> list[Waveform]:
    """Return equal parts of about `PART_S`, at least one."""
    return np.array_split(waveform, max(1, round(len(waveform) / SAMPLE_RATE_HZ / PART_S)))


def _diarize(
    paths: Sequence[Path], load: LoadEngine, settings: AgentSettings, report: Callable[[str, float], None]
) -> list[JobResult]:
    results: list[JobResult] = []

    def show(_stage: str, _fraction: float) -> None:
        report("listen", len(results) / len(paths))

    for result in diarize_files(
        paths,
        load,
        hints=Hints(num_speakers=1),
        limits=read_limits(settings),
        max_audio_s=settings.max_audio_s,
        report=show,
    ):
        results.append(result)  # noqa: PERF402 - `show` reads the list between two results
    return results
