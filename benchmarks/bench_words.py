"""How many words of real calls get the right speaker, and what cutting segments into pieces adds.

    python -m benchmarks.bench_words [--shared ../shared]

Two earnings calls as three services heard them, with the true turns and with 5 % of the speech given to somebody else.
The words whose speaker the reference knows are counted. A segment that is left alone has no word right.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.real_transcripts import CUTS, HeardWord, RealTranscript, read_transcripts
from schemas.conversation import Word
from vps_bridge.conversations.store import StoredSegment
from vps_bridge.labelling.cut import CuttingRules, cut_segments
from vps_bridge.labelling.pieces import VoicePiece, settle_votes
from vps_bridge.labelling.vote import AssignmentRules, TranscriptTurn, Vote, VoteOutcome, vote_segments

CONFUSED = (0.0, 0.05)
CONFUSION_S = (0.5, 3.0)  # how long the diarizer takes one voice for another
SEED = 1


@dataclass(frozen=True)
class WordCount:
    """How many words have the right speaker."""

    words: int = 0
    whole: int = 0
    """Right with one label a segment."""
    cut: int = 0
    """Right with pieces."""
    harmed: int = 0
    """Right with one label, wrong with pieces."""

    def __add__(self, other: WordCount) -> WordCount:
        return WordCount(
            self.words + other.words, self.whole + other.whole, self.cut + other.cut, self.harmed + other.harmed
        )


def main(shared: Annotated[Path, typer.Option(help="The folder of recordings.")] = Path("../shared")) -> None:
    """Print the table."""
    transcripts = read_transcripts(shared)
    typer.echo("| segments | word times | speech confused | words right, whole segments | with pieces | harmed |")
    typer.echo("|---|---|---|---|---|---|")
    for confused in CONFUSED:
        for cut in CUTS:
            for has_times in (True, False):
                count = sum((count_words(each, cut, confused, has_times) for each in transcripts), WordCount())
                shares = [f"{100 * part / count.words:.1f} %" for part in (count.whole, count.cut)]
                harmed = f"{100 * count.harmed / count.words:.2f} %"
                times = "yes" if has_times else "estimated"
                typer.echo(f"| {cut} | {times} | {100 * confused:.0f} % | {' | '.join(shares)} | {harmed} |")


def count_words(transcript: RealTranscript, cut: str, confused: float, has_times: bool) -> WordCount:  # noqa: FBT001 - a column of the table
    """Label one transcript and count its words."""
    names = sorted({turn.speaker for turn in transcript.turns})
    turns = _confuse(_exclusive(transcript, names), confused, len(names))
    blocks = {str(place): block for place, block in enumerate(CUTS[cut](transcript.words))}
    segments = [_segment(name, block, has_times=has_times) for name, block in blocks.items()]
    pieces = cut_segments(turns, segments, CuttingRules())
    votes = vote_segments(turns, segments, AssignmentRules())
    settled = settle_votes(votes, pieces)
    labels = (
        (vote, _said_by(vote), _voices(after, blocks, pieces)) for vote, after in zip(votes, settled, strict=True)
    )
    return sum((_count(blocks[vote.segment_id], whole, voices, names) for vote, whole, voices in labels), WordCount())


def _said_by(vote: Vote) -> int | None:
    return vote.winner if vote.outcome is VoteOutcome.CLEAR else None


def _voices(
    vote: Vote, blocks: Mapping[str, Sequence[HeardWord]], pieces: Mapping[str, Sequence[VoicePiece]]
) -> list[int | None]:
    """Return who said each word of a segment: by its pieces, where it has some, else by its label."""
    cut = pieces.get(vote.segment_id, ())
    if len(cut) < 2:
        return [_said_by(vote)] * len(blocks[vote.segment_id])
    return [piece.voice for piece in cut for _ in range(piece.first_word, piece.last_word + 1)]


def _count(
    block: Sequence[HeardWord], whole: int | None, voices: Sequence[int | None], names: Sequence[str]
) -> WordCount:
    count = WordCount()
    for word, voice in zip(block, voices, strict=True):
        if word.speaker is not None:
            truth = names.index(word.speaker)
            count += WordCount(1, whole == truth, voice == truth, whole == truth != voice)
    return count


def _segment(name: str, block: Sequence[HeardWord], *, has_times: bool) -> StoredSegment:
    words = tuple(Word(text=word.text, start_s=word.start_s, end_s=word.end_s) for word in block)
    text = " ".join(word.text + "." * word.ends_sentence for word in block)
    return StoredSegment(name, block[0].start_s, block[-1].end_s, text=text, words=words if has_times else None)


def _exclusive(transcript: RealTranscript, names: Sequence[str]) -> list[TranscriptTurn]:
    """Return the true turns without overlap: who spoke first keeps the word."""
    turns: list[TranscriptTurn] = []
    until_s = 0.0
    for turn in transcript.turns:
        if turn.end_s > max(turn.start_s, until_s):
            turns.append(TranscriptTurn(max(turn.start_s, until_s), turn.end_s, names.index(turn.speaker)))
            until_s = turn.end_s
    return turns


def _confuse(turns: Sequence[TranscriptTurn], share: float, speakers: int) -> list[TranscriptTurn]:
    """Give a share of the speech, in runs of 0.5 to 3 s, to another speaker."""
    draw = random.Random(SEED)  # noqa: S311 - the same confusion at every run
    confused = []
    for turn in turns:
        at_s = turn.start_s
        while at_s < turn.end_s:
            end_s = min(turn.end_s, at_s + draw.uniform(*CONFUSION_S))
            index = turn.speaker_index
            if draw.random() < share:
                index = draw.choice([other for other in range(speakers) if other != index])
            confused.append(replace(turn, start_s=at_s, end_s=end_s, speaker_index=index))
            at_s = end_s
    return confused


if __name__ == "__main__":
    typer.run(main)
