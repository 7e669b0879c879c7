"""`omi-agent calibrate`: what it asks for, what it writes, and that the bridge follows it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.recordings import SHARED_AUDIO
from mac_agent.calibrate import (
    MIN_PEOPLE,
    KnownVoice,
    RulesUnreadable,
    TooFewVoices,
    find_recordings,
    judge_voices,
    make_trials,
    merge_rules,
)
from mac_agent.commands.main import app
from tests.mac_agent.sounds import as_wav, tone
from vps_bridge.people.match import MatchRules
from vps_bridge.people.rules_file import PeopleRulesUnreadable, read_rules

EXIT_USAGE, EXIT_AUDIO = 2, 5
MODEL = "somebody/new@1"


def made_up_voices(people: int, *, recordings: int = 3, parts: int = 4, seed: int = 0) -> list[KnownVoice]:
    """Return parts of recordings whose vectors lie around one for each person."""
    random = np.random.default_rng(seed)
    voices = []
    for person in range(people):
        centre = random.normal(size=64)
        for recording in range(recordings):
            for _ in range(parts):
                vector = centre + 0.5 * random.normal(size=64)
                path = Path(f"voices/p{person:02d}/{recording}.wav")
                voices.append(KnownVoice(path.parent.name, path, (vector / np.linalg.norm(vector)).astype(np.float32)))
    return voices


def test_a_person_is_the_folder_that_a_file_lies_in(tmp_path):
    for name in ("anna/one.wav", "anna/two.M4A", "ben/walk/three.flac", "ben/notes.txt", "ben/.hidden.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_recordings([tmp_path, tmp_path / "anna" / "one.wav", tmp_path / "ben" / "notes.txt"])
    assert {path.name: person for path, person in found.items()} == {
        "one.wav": "anna",
        "two.M4A": "anna",
        "three.flac": "walk",
        "notes.txt": "ben",
    }


def test_voices_that_can_be_told_apart_are_and_it_says_how_sure_that_is():
    found = judge_voices(made_up_voices(12), MODEL)
    assert found.rules.embedding_space == f"{MODEL}/64"
    assert 0.45 < found.rules.threshold < 0.7, "between strangers at most at 0.4 and speakers at least at 0.7"
    assert found.rules.suggest_from <= found.rules.threshold
    assert found.errors.strangers_named.share <= 0.01
    assert found.errors.false_rejects.share <= 0.01
    measured = found.rules.measured
    assert (measured.people, measured.voices) == (12, 144)
    assert measured.false_accepts < measured.false_accepts_at_most < 0.05
    assert found.people == {f"p{number:02d}": 3 for number in range(12)}


def test_a_voice_is_never_compared_with_its_own_recording_where_there_is_another():
    voices = made_up_voices(5, recordings=2, parts=2)
    turns = make_trials(voices)
    assert [len(turn.speaker) for turn in turns] == [10, 10]
    alone = make_trials([voice for voice in voices if voice.recording.stem == "0"])
    assert [len(turn.speaker) for turn in alone] == [10]
    assert alone[0].similarity.max() < 1.0, "nor with itself"


@pytest.mark.parametrize("people", [0, 1, MIN_PEOPLE - 1])
def test_too_few_people_are_refused_with_what_is_needed(people):
    with pytest.raises(TooFewVoices, match=f"at least {MIN_PEOPLE} people") as refused:
        judge_voices(made_up_voices(people), MODEL)
    assert f"of {people}" in str(refused.value)


def test_the_bridge_follows_the_file_and_other_models_stay_in_it(tmp_path):
    path = tmp_path / "rules.json"
    first, second = (
        judge_voices(made_up_voices(6), MODEL).rules,
        judge_voices(made_up_voices(6, seed=1), "other@2").rules,
    )
    for rules in (first, second, first):
        path.write_text(merge_rules(path, rules))
    assert read_rules(path) == {
        each.embedding_space: MatchRules(each.threshold, each.margin, each.min_clean_s, each.suggest_from)
        for each in (first, second)
    }
    assert read_rules(None) == {}


@pytest.mark.parametrize(
    "content", ["", "[]", '{"schema": "people-rules", "version": "2.0"}', '{"rules": [{}]}', "\udcff"]
)
def test_a_file_of_anything_else_is_refused_by_both(tmp_path, content):
    path = tmp_path / "rules.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(PeopleRulesUnreadable, match="omi-agent calibrate"):
        read_rules(path)
    with pytest.raises(RulesUnreadable, match=r"rules\.json"):
        merge_rules(path, judge_voices(made_up_voices(6), MODEL).rules)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PeopleRulesUnreadable, match="No such file"):
        read_rules(tmp_path / "rules.json")


def test_the_command_names_the_people_it_found_where_they_are_too_few(tmp_path):
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / "one.wav").write_bytes(as_wav(tone(440.0, 1.0)))
    done = CliRunner().invoke(app, ["calibrate", str(tmp_path)], env={"COLUMNS": "500"})
    assert done.exit_code == EXIT_USAGE
    assert "at least 5 people" in done.stderr
    assert "of 1: anna" in done.stderr


def test_the_command_names_a_file_that_is_no_audio(tmp_path):
    for name in "abcde":
        (tmp_path / name).mkdir()
        (tmp_path / name / "words.wav").write_text(f"no audio of {name}")
    done = CliRunner().invoke(app, ["calibrate", str(tmp_path)], env={"COLUMNS": "500"})
    assert done.exit_code == EXIT_AUDIO
    assert "a/words.wav" in done.stderr


@pytest.mark.parametrize("copied_to", ["e", "a"])
def test_the_command_refuses_a_recording_that_is_there_twice(tmp_path, copied_to):
    for place, name in enumerate("abcde"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.wav").write_bytes(as_wav(tone(440.0 + place, 1.0)))
    shutil.copy(tmp_path / "a" / "one.wav", tmp_path / copied_to / "two.wav")
    done = CliRunner().invoke(app, ["calibrate", str(tmp_path)], env={"COLUMNS": "500"})
    assert done.exit_code == EXIT_USAGE
    assert "a/one.wav and " in done.stderr
    assert f"{copied_to}/two.wav are the same recording" in done.stderr


@pytest.mark.slow
@pytest.mark.shared
def test_real_voices_through_the_real_engine(tmp_path):
    """Six readers, four utterances each: every one is a recording of its own."""
    for folder in sorted((SHARED_AUDIO / "librispeech").glob("[0-9]*"))[:6]:
        (tmp_path / folder.name).mkdir()
        for file in sorted(folder.glob("*.flac"), key=lambda each: -each.stat().st_size)[:4]:
            shutil.copy(file, tmp_path / folder.name)
    path = tmp_path / "rules.json"
    done = CliRunner().invoke(
        app, ["calibrate", str(tmp_path), "--engine", "embedded", "--output", str(path), "--json"]
    )
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["recordings"] == {folder.name: 4 for folder in tmp_path.iterdir() if folder.is_dir()}
    assert found["measured"]["false_accepts"] <= 0.02
    [(space, rules)] = read_rules(path).items()
    assert space.startswith("3d-speaker/campplus@")
    assert rules.threshold == found["threshold"] < 0.7
