"""How people are recognised: false accepts and false rejects by model, length of enrolment and copy, and conversations.

    make bench-people
    make bench-people ARGS="--quick"
    make bench-people ARGS="--engine embedded-ge2e --answers out/people"

Needs `shared/audio` beside the repository. The networks run once over what ten LibriSpeech voices say, in eight copies,
over three conversations and their seven copies, and over real recordings of strangers: half an hour of an idle core for
each model. `--answers` keeps what they found, and the next run takes seconds. `--quick`: four voices, clean, one
conversation and the next, by the default engine alone.
The numbers in `vps_bridge/people/match.py` come from here (docs/adr/0020-who-is-who.md).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import platformdirs

from benchmarks.people.conversations import (
    SpokenVoice,
    enrolment_clips,
    first_conversations,
    hear,
    next_conversations,
    strangers,
)
from benchmarks.people.copies import COPIES
from benchmarks.people.pieces import embed_all
from benchmarks.people.recorded import recorded_voices
from benchmarks.people.tables import Tally, as_heard, counted, judge_conversation, judge_draws, percent, print_lengths
from benchmarks.people.telephone import print_direction, print_halves
from benchmarks.people.trials import ENROLLED_S, HALF, HEARD_S, Condition, compare, conditions, draw_all
from benchmarks.recordings import voices
from mac_agent.engines.registry import load_engine
from mac_agent.threshold import NO_ERRORS, choose, cross_validate, suggest_from
from mac_agent.weights.models import EMBEDDED, GENERATIONS
from vps_bridge.people.match import Print, match_people, rules_for
from vps_bridge.people.telephone import similarity_by_telephone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.people.pieces import Pieces
    from mac_agent.engines.embedded import EmbeddedEngine
    from mac_agent.threshold import Trials

QUICK_COPIES, QUICK_VOICES = ("clean",), 4
CALIBRATED_S = (5.0, 10.0, 30.0)
TELEVISION = "diarizationExample"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="four clean voices, one conversation")
    parser.add_argument("--engine", action="append", choices=list(GENERATIONS), help="only this one; default: both")
    parser.add_argument("--copies", nargs="+", choices=list(COPIES), help="only these; clean is needed")
    parser.add_argument("--data-dir", type=Path, default=Path(platformdirs.user_data_dir("omi-diarization")))
    parser.add_argument("--answers", type=Path, help="keep what the networks found here, for the next run")
    options = parser.parse_args()
    with TemporaryDirectory() as scratch:
        answers = options.answers or Path(scratch)
        answers.mkdir(parents=True, exist_ok=True)
        if not options.quick:
            print_recorded()
        for name in options.engine or ([EMBEDDED] if options.quick else list(GENERATIONS)):
            engine = load_engine(name, data_dir=options.data_dir, threads=1)
            copies = QUICK_COPIES if options.quick else tuple(options.copies or COPIES)
            print_model(engine, answers, copies, quick=options.quick)  # type: ignore[arg-type] # all are embedded engines


def print_recorded() -> None:
    """Print what the recorded networks of community-1 say, of five people: too few to choose a threshold by."""
    heard = recorded_voices()
    units = np.array([voice.vector / np.linalg.norm(voice.vector) for voice in heard])
    similarity = units @ units.T
    pairs = [
        (similarity[i, j], one.who == other.who, one.recording[:2] == other.recording[:2])
        for i, one in enumerate(heard)
        for j, other in enumerate(heard[:i])
        if one.recording != other.recording
    ]
    print(f"\n## WeSpeaker (community-1), recorded: {len({voice.who for voice in heard})} people, {len(heard)} voices")
    for name, is_same, is_same_recording in (
        ("one person, another job", True, True),
        ("one person, another recording", True, False),
    ):
        found = [cosine for cosine, same, recording in pairs if same is is_same and recording is is_same_recording]
        print(f"{name}: {min(found):.2f} to {max(found):.2f}, median {np.median(found):.2f} ({len(found)} pairs)")
    found = [cosine for cosine, same, _ in pairs if not same]
    print(f"two people: at most {max(found):.2f}, median {np.median(found):.2f} ({len(found)} pairs)")
    print("Published, not measured here: distance 0.65, margin 0.10, 5 s: owner rejected 22 %, accepted falsely 0.8 %.")


def print_model(engine: EmbeddedEngine, answers: Path, copies: Sequence[str], *, quick: bool) -> None:
    """Print all tables of one model."""
    pieces = embed_all(engine, copies, answers, voices()[: QUICK_VOICES if quick else None])
    length = next(iter(pieces[copies[0]].values())).vectors.shape[1]
    space = f"{engine.info.embedding_model}@{engine.info.embedding_revision}/{length}"
    print(f"\n## {engine.info.name}: {space}")
    heard = [] if quick else [voice for each in strangers() for voice in hear(engine, each, answers)]
    print_choice(pieces, heard, copies, space)
    print_lengths(lambda each: judge_draws(draw_all(pieces, each), space), conditions(copies), ENROLLED_S)
    print_agreement(engine, answers, pieces["clean"], parts=1 if quick else 3)
    print_conversations(engine, answers, copies, space, parts=1 if quick else 3)
    rules, axes = rules_for(space), np.eye(length)
    if "telephone" in copies and rules is not None and similarity_by_telephone(space, axes, axes) is not None:
        print_halves(pieces, rules.threshold)
        print_direction(pieces["telephone"])
    if not quick:
        print_strangers(engine, answers, heard, space)


def print_choice(
    pieces: Mapping[str, Mapping[str, Pieces]], heard: Sequence[SpokenVoice], copies: Sequence[str], space: str
) -> None:
    """Print what these voices would choose, what that does to speakers who had no part in it, and what is shipped."""
    sets: list[Trials] = [
        compare(draw_all(pieces, Condition(one, other, enrolled_s, heard_s)), space, heard)
        for one, other in conditions(copies)
        for enrolled_s in CALIBRATED_S
        for heard_s in HEARD_S
    ]
    choice = choose(sets)
    errors = sum(cross_validate(sets), NO_ERRORS)
    print(f"\nChosen here: threshold {choice.threshold:.2f}, margin {choice.margin:.2f}, suggested from", end=" ")
    print(f"{suggest_from(sets):.2f}. In five folds of speakers: strangers named {counted(errors.strangers_named)},")
    print(f"wrong person {counted(errors.wrong_person)}, not matched {percent(errors.false_rejects)}.")
    print(f"Shipped: {rules_for(space)}")


def print_agreement(engine: EmbeddedEngine, answers: Path, pieces: Mapping[str, Pieces], *, parts: int) -> None:
    """Print how near the vectors of whole conversations are to the pieces of the same utterances heard alone."""
    cosines = [
        float(voice.vector @ pieces[voice.who].voice(pieces[voice.who].rows(range(HALF)))[0])
        for talk in first_conversations()[:parts]
        for voice in hear(engine, talk, answers)
        if voice.who in pieces
    ]
    print(f"\nA voice of a conversation, and the same utterances heard alone: cosine {min(cosines):.2f} to", end=" ")
    print(f"{max(cosines):.2f}, {len(cosines)} voices.")


def print_conversations(
    engine: EmbeddedEngine, answers: Path, copies: Sequence[str], space: str, *, parts: int
) -> None:
    """Print who is named in the next conversation, where each voice of the first ones was confirmed once."""
    first = [voice for talk in first_conversations()[:parts] for voice in hear(engine, talk, answers)]
    prints = [Print(voice.who, space, voice.vector, voice.clean_s) for voice in first if voice.who]
    print(f"\n{len(prints)} voices confirmed in {parts} conversations; in the next ones, in other company:\n")
    print("| heard | named | wrong | suggested | not | with a third unknown: strangers named |")
    print("|---|---|---|---|---|---|")
    for copy in copies:
        tally, fewer = Tally(), Tally()
        for talk in next_conversations(copy)[:parts]:
            spoken = hear(engine, talk, answers)
            tally.add(judge_conversation(spoken, prints, space))
            for left_out in range(3):
                known = [each for number, each in enumerate(prints) if number % 3 != left_out]
                fewer.add(judge_conversation(spoken, known, space))
        cells = [tally.known[each] for each in ("matched", "wrong", "suggested", "nothing")]
        print(f"| {copy} | " + " | ".join(str(cell) for cell in cells) + f" | {counted(fewer.named)} |")


def print_strangers(engine: EmbeddedEngine, answers: Path, heard: Sequence[SpokenVoice], space: str) -> None:
    """Print what becomes of real recordings of people that nobody enrolled, and of Katie and Steve, who are."""
    first = [voice for talk in first_conversations() for voice in hear(engine, talk, answers)]
    prints = [Print(voice.who, space, voice.vector, voice.clean_s) for voice in first if voice.who]
    for name, group in (
        ("television", [voice for voice in heard if voice.recording.startswith(TELEVISION)]),
        ("telephone and meetings", [voice for voice in heard if not voice.recording.startswith(TELEVISION)]),
    ):
        tally = Tally()
        for recording in sorted({voice.recording for voice in group}):
            tally.add(judge_conversation([each for each in group if each.recording == recording], prints, space))
        print(f"\n{name}: {len(group)} voices, named {counted(tally.named)}, suggested {tally.strangers['suggested']}")
    katie, steve, talk = enrolment_clips()
    own = [
        Print(name, space, voice.vector, voice.clean_s)
        for name, clip in (("katie", katie), ("steve", steve))
        for voice in hear(engine, clip, answers, num_speakers=1)
    ]
    print("\nKatie and Steve, a clip of each, and the ten; in their conversation:")
    for each in match_people(as_heard(hear(engine, talk, answers), space), [*own, *prints]):
        print(f"  {each.person_id} {each.identity}, {each.similarity:.2f}, then {each.runner_up_similarity or 0:.2f}")


if __name__ == "__main__":
    main()
