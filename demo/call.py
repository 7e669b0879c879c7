"""The call of the demo: 30 s of telephone speech with reference and transcript, which come with pyannote.audio."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from schemas.conversation import TranscriptSegment
from vps_bridge.conversations.transcripts import read_transcript

BLOCK_S = 40.0
MIN_JUDGED_S = 0.8  # a shorter line has too little speech to be sure of its speaker


@dataclass(frozen=True)
class Call:
    """A recording, its reference turns, and its transcript line by line with the true speaker of each."""

    audio: Path
    reference: Path
    segments: tuple[TranscriptSegment, ...]
    true_speakers: dict[str, str]
    duration_s: float


@dataclass(frozen=True)
class LineScore:
    """How many lines have the right speaker, with each label standing for one true speaker."""

    lines: int
    right: int
    unlabelled: int
    wrong_long: int
    names: dict[str, str]


def find_call(conversation_id: str) -> Call:
    """Return the sample call without importing pyannote.audio (which would take seconds)."""
    spec = find_spec("pyannote.audio")
    if spec is None or spec.origin is None:
        msg = "pyannote.audio is not installed: run `make demo`, which installs it"
        raise FileNotFoundError(msg)
    folder = Path(spec.origin).parent / "sample"
    labelled = read_transcript(folder / "sample.stm", conversation_id, keep_speakers=True)
    unlabelled_lines = read_transcript(folder / "sample.stm", conversation_id, keep_speakers=False)
    blank = tuple(segment.model_copy(update={"speaker": "SPEAKER_00"}) for segment in unlabelled_lines)
    truth = {segment.id: segment.speaker or "" for segment in labelled}
    return Call(folder / "sample.wav", folder / "sample.rttm", blank, truth, duration_s=30.0)


def merge_blocks(segments: tuple[TranscriptSegment, ...]) -> tuple[TranscriptSegment, ...]:
    """Merge lines into blocks of up to 40 s, as backends do whose speech-to-text does not tell speakers apart."""
    blocks: list[TranscriptSegment] = []
    for segment in segments:
        last = blocks[-1] if blocks else None
        if last is not None and segment.end_s - last.start_s <= BLOCK_S:
            merged: dict[str, object] = {"end_s": max(last.end_s, segment.end_s), "text": f"{last.text} {segment.text}"}
            blocks[-1] = last.model_copy(update=merged)
        else:
            blocks.append(segment.model_copy(update={"id": f"block-{len(blocks)}"}))
    return tuple(blocks)


def score_lines(call: Call, labels: dict[str, str | None]) -> LineScore:
    """Compare the labels of the lines with the true speakers; a label stands for the speaker of most of its seconds."""
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    for segment in call.segments:
        label = labels.get(segment.id)
        if label is not None:
            seconds[label, call.true_speakers[segment.id]] += segment.end_s - segment.start_s
    names: dict[str, str] = {}
    for (label, speaker), _ in sorted(seconds.items(), key=lambda item: -item[1]):
        if label not in names and speaker not in names.values():
            names[label] = speaker
    right = unlabelled = wrong_long = 0
    for segment in call.segments:
        label = labels.get(segment.id)
        if label is None:
            unlabelled += 1
        elif names.get(label) == call.true_speakers[segment.id]:
            right += 1
        elif segment.end_s - segment.start_s >= MIN_JUDGED_S:
            wrong_long += 1
    return LineScore(len(call.segments), right, unlabelled, wrong_long, names)
