"""Tables of how people are recognised, by the rule that the bridge uses."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.people.trials import HEARD_S, Condition, Draw
from mac_agent.threshold import Rate
from vps_bridge.people.match import HeardVoice, Print, match_people

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.people.conversations import SpokenVoice
    from vps_bridge.people.match import Match

TELEPHONE = "telephone"


@dataclass
class Tally:
    """What became of some voices."""

    known: Counter[str] = field(default_factory=Counter)
    """Of voices whose speaker is known: matched, wrong, suggested, nothing."""
    strangers: Counter[str] = field(default_factory=Counter)
    """Of the others: named, suggested, nothing."""

    def add(self, other: Tally) -> None:
        """Count the voices of another tally too."""
        self.known += other.known
        self.strangers += other.strangers

    @property
    def rejected(self) -> Rate:
        """Known voices that were not matched with anybody."""
        return Rate(self.known["suggested"] + self.known["nothing"], self.known.total())

    @property
    def wrong(self) -> Rate:
        """Known voices that were given another's name."""
        return Rate(self.known["wrong"], self.known.total())

    @property
    def named(self) -> Rate:
        """Strangers that were given a name."""
        return Rate(self.strangers["named"], self.strangers.total())


def judge_draws(draws: Sequence[Draw], space: str) -> Tally:
    """Match every voice with everybody, and with everybody but its speaker."""
    tally = Tally()
    for draw in draws:
        prints = [Print(name, space, spoken.vector, spoken.clean_s) for name, spoken in draw.prints.items()]
        for name, spoken in draw.voices.items():
            voice = HeardVoice(0, space, spoken.vector, spoken.clean_s)
            tally.known[_judge(match_people([voice], prints), name)] += 1
            others = [each for each in prints if each.person_id != name]
            tally.strangers[_judge(match_people([voice], others), None)] += 1
    return tally


def judge_conversation(voices: Sequence[SpokenVoice], prints: Sequence[Print], space: str) -> Tally:
    """Match the voices of one conversation with prints, all at once; those of nobody known are strangers."""
    found = {match.voice: match for match in match_people(as_heard(voices, space), prints)}
    people, tally = {each.person_id for each in prints}, Tally()
    for number, voice in enumerate(voices):
        own = (found[number],) if number in found else ()
        if voice.who in people:
            tally.known[_judge(own, voice.who)] += 1
        else:
            tally.strangers[_judge(own, None)] += 1
    return tally


def as_heard(voices: Sequence[SpokenVoice], space: str) -> list[HeardVoice]:
    """Return the voices of a conversation as they are matched, by their place."""
    return [HeardVoice(number, space, voice.vector, voice.clean_s) for number, voice in enumerate(voices)]


def print_lengths(
    judge: Callable[[Condition], Tally], pairs: Sequence[tuple[str, str]], lengths: Sequence[float]
) -> None:
    """Print for each pair of copies, and each length of enrolment, how many of the known were not matched."""
    for heard_s in HEARD_S:
        print(f"\nHeard for {heard_s:.0f} s. Not matched, of 60 known voices (of these suggested rightly):\n")
        print(
            "| enrolled → heard | "
            + " | ".join(f"{length:.0f} s" for length in lengths)
            + " | wrong | strangers named |"
        )
        print("|---" * (len(lengths) + 3) + "|")
        pooled = {group: [Tally() for _ in lengths] for group in ("all but telephone with another", "all")}
        for one, other in pairs:
            row = [judge(Condition(one, other, length, heard_s)) for length in lengths]
            print_row(f"{one} → {other}" if one != other else one, row)
            for group, tallies in pooled.items():
                if group == "all" or (one == TELEPHONE) == (other == TELEPHONE):
                    for tally, each in zip(tallies, row, strict=True):
                        tally.add(each)
        for group, tallies in pooled.items():
            print_row(f"**{group}**", tallies, with_intervals=True)


def print_row(name: str, row: Iterable[Tally], *, with_intervals: bool = False) -> None:
    """Print a row of tallies, and all of them together as wrong names."""
    cells, total = [], Tally()
    for tally in row:
        total.add(tally)
        if with_intervals:
            cells.append(percent(tally.rejected))
        else:
            cells.append(f"{tally.rejected.count} ({tally.known['suggested']})")
    print(f"| {name} | " + " | ".join([*cells, counted(total.wrong), counted(total.named)]) + " |")


def percent(rate: Rate) -> str:
    """Return a rate in percent, with its interval."""
    low, high = rate.interval
    return f"{100 * rate.share:.1f} % ({100 * low:.1f}-{100 * high:.1f})"


def counted(rate: Rate) -> str:
    """Return a count, and how large the true rate may be."""
    return f"{rate.count} of {rate.trials} (≤ {100 * rate.interval[1]:.1f} %)"


def _judge(found: Sequence[Match], speaker: str | None) -> str:
    if not found:
        return "nothing"
    match = found[0]
    if match.identity == "matched":
        return "named" if speaker is None else "matched" if match.person_id == speaker else "wrong"
    return "suggested" if speaker is None or match.person_id == speaker else "nothing"
