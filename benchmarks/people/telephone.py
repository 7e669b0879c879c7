"""What the telephone alone makes similar, by people who had no part in measuring it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.people.tables import counted, percent
from benchmarks.people.trials import Condition, conditions, draw_all
from mac_agent.threshold import Rate
from vps_bridge.people.telephone import BEYOND_TELEPHONE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from benchmarks.people.pieces import Pieces

TELEPHONE = "telephone"


def direction(pieces: Mapping[str, Pieces], who: Sequence[str]) -> NDArray[np.float64]:
    """Return the mean of what some people say by telephone, at length 1."""
    means = [pieces[name].voice(range(len(pieces[name].clean_s)))[0] for name in who]
    total: NDArray[np.float64] = np.sum(means, axis=0, dtype=np.float64)
    found: NDArray[np.float64] = total / np.linalg.norm(total)
    return found


def print_direction(pieces: Mapping[str, Pieces]) -> None:
    """Print the direction of everybody, as it is written in `vps_bridge/people/telephone.py`."""
    found = direction(pieces, sorted(pieces)).astype("<f2")
    print(f"\nThe telephone's direction: {base64.b64encode(found.tobytes()).decode()}")


def print_halves(pieces: Mapping[str, Mapping[str, Pieces]], threshold: float) -> None:
    """Print errors of one half of the people where the other half says what a telephone is, one known person at a time.

    With one known person there is no runner-up: the hardest case for strangers.
    """
    print(
        "\nOne person known, five readers; the telephone by the five others (enrolled 5 and 10 s, heard 5 and 30 s):\n"
    )
    print("| | strangers named, threshold alone | and beyond the telephone | not matched | and beyond |")
    print("|---|---|---|---|---|")
    groups: dict[str, list[tuple[float, float, bool]]] = {}
    who = sorted(pieces[TELEPHONE])
    for one, other in conditions(tuple(pieces)):
        by_telephone = (one == TELEPHONE) + (other == TELEPHONE)
        name = ("neither by telephone", "one by telephone", "both by telephone")[by_telephone]
        for half in (0, 1):
            aside = direction(pieces[TELEPHONE], who[1 - half :: 2])
            groups.setdefault(name, []).extend(_pairs(pieces, one, other, who[half::2], aside))
    for name, found in groups.items():
        pairs = np.array(found)
        is_named, is_own = pairs[:, 0] >= threshold, pairs[:, 2] == 1.0
        is_beyond = is_named & (pairs[:, 0] - pairs[:, 1] >= BEYOND_TELEPHONE)
        strangers = [counted(Rate(int((each & ~is_own).sum()), int((~is_own).sum()))) for each in (is_named, is_beyond)]
        known = [percent(Rate(int((~each & is_own).sum()), int(is_own.sum()))) for each in (is_named, is_beyond)]
        print(f"| {name} | " + " | ".join([*strangers, *known]) + " |")


def _pairs(
    pieces: Mapping[str, Mapping[str, Pieces]], one: str, other: str, who: Sequence[str], aside: NDArray[np.float64]
) -> list[tuple[float, float, bool]]:
    """Return of each pair of print and voice the similarity, that by the telephone, and whether it is one person."""
    return [
        (
            float(draw.prints[known].vector @ draw.voices[heard].vector),
            float((draw.prints[known].vector @ aside) * (draw.voices[heard].vector @ aside)),
            known == heard,
        )
        for enrolled_s, heard_s in ((5.0, 5.0), (10.0, 30.0))
        for draw in draw_all(pieces, Condition(one, other, enrolled_s, heard_s))
        for known in who
        for heard in who
    ]
