"""An operator's own rules of who is who: they decide labels, and a file that cannot be read stops the bridge."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from broker.errors import SettingsError
from schemas.people_rules import MeasuredErrors, PeopleRules, SpaceRules
from tests.vps_bridge.labelling.test_voice_people import SPACE, heard, named, prints_of
from vps_bridge.dispatch.updates import Updater
from vps_bridge.labelling.relabel import RelabelPolicy, relabel
from vps_bridge.settings import BridgeSettings


def policy_of(tmp_path, **settings: Any) -> RelabelPolicy:
    nothing = cast("Any", None)
    return Updater(BridgeSettings(data_dir=tmp_path, **settings), nothing, nothing, nothing).policy


def test_own_rules_go_before_the_shipped_ones_and_are_in_the_key_only_by_what_they_decide(tmp_path):
    measured = MeasuredErrors(
        people=2, voices=9, false_accepts=0, false_accepts_at_most=0.1, false_rejects=0, false_rejects_at_most=0.1
    )
    strict = SpaceRules(
        embedding_space=SPACE,
        threshold=1.0,
        margin=0.0,
        min_clean_s=1.0,
        suggest_from=0.9,
        measured_at=datetime(2026, 5, 4, tzinfo=UTC),
        measured=measured,
    )
    path = tmp_path / "rules.json"
    path.write_text(PeopleRules(rules=(strict,)).model_dump_json(by_alias=True))
    shipped, own = policy_of(tmp_path), policy_of(tmp_path, people_rules=path)
    known, nobody = heard(people=prints_of(anna="A")), heard()
    assert named(relabel(known, shipped)) == {0: ("anna", "matched")}
    assert named(relabel(known, own)) == {0: ("anna", "suggested")}
    assert relabel(nobody, own).write_key == relabel(nobody, shipped).write_key
    assert relabel(known, own).write_key != relabel(known, shipped).write_key


def test_rules_that_cannot_be_read_are_told_by_the_setting(tmp_path):
    with pytest.raises(SettingsError, match=r"people_rules.*omi-agent calibrate"):
        policy_of(tmp_path, people_rules=tmp_path / "missing.json")
