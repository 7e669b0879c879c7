"""Rules of one's own for matching people: the file that `omi-agent calibrate --output` writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from broker.text_files import read_text
from schemas.people_rules import PeopleRules
from vps_bridge.people.match import MatchRules

MAX_BYTES = 1_000_000


class PeopleRulesUnreadable(Exception):
    """The file of rules cannot be used; the message names the remedy."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"The rules for matching people in {path} cannot be used: {why}. Write them with `omi-agent calibrate "
            "--output`, or leave the setting people_rules empty."
        )
        self.path = path


def read_rules(path: Path | None) -> Mapping[str, MatchRules]:
    """Return the rules in a file by embedding space, none where there is no file: the argument `calibrated`.

    Raises:
        PeopleRulesUnreadable: the file is missing, or is no file of rules.
    """
    if path is None:
        return {}
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PeopleRulesUnreadable(path, "it is far too large")
        found = PeopleRules.model_validate_json(read_text(path))
    except OSError as error:
        raise PeopleRulesUnreadable(path, error.strerror or "it cannot be read") from error
    except ValueError as error:
        raise PeopleRulesUnreadable(path, "it is no file of rules") from error
    return {
        each.embedding_space: MatchRules(each.threshold, each.margin, each.min_clean_s, each.suggest_from)
        for each in found.rules
    }
