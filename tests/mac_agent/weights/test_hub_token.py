"""Where an access token may come from, and that it is never shown."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mac_agent.weights.hub_token import KEYCHAIN_SERVICE, TokenUnusable, find_token

GOOD, OTHER = "hf_" + "a" * 34, "hf_" + "b" * 34


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user without any token."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def private(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def security(tmp_path: Path, script: str) -> str:
    """A shell script in place of macOS's `security` program."""
    program = private(tmp_path / "security", f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


def test_without_any_source_there_is_no_token(tmp_path):
    assert find_token(environment={}, security=security(tmp_path, "exit 44")) is None


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGINGFACE_TOKEN"])
def test_a_variable_is_taken_and_named(name, tmp_path):
    found = find_token(environment={name: f" {GOOD}\n"}, security=security(tmp_path, "exit 44"))
    assert found is not None
    assert (found.secret, found.source) == (GOOD, f"the variable {name}")


def test_the_file_a_user_names_wins_over_the_environment(tmp_path):
    found = find_token(private(tmp_path / "t", GOOD + "\n"), environment={"HF_TOKEN": OTHER})
    assert found is not None
    assert found.secret == GOOD


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_file_others_can_read_is_not_used(tmp_path, mode):
    file = private(tmp_path / "t", GOOD, mode)
    with pytest.raises(TokenUnusable, match=f"chmod 600 {file}"):
        find_token(file, environment={})


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(TokenUnusable, match="No such file"):
        find_token(tmp_path / "t", environment={})


@pytest.mark.parametrize("text", ["", "sk-1234567890", "hf_123", f"{GOOD} {GOOD}", "open sesame", "hf_é" * 9])
def test_text_that_is_not_a_token_is_refused_and_not_repeated(tmp_path, text):
    with pytest.raises(TokenUnusable) as refused:
        find_token(private(tmp_path / "t", text), environment={})
    assert not text or text not in str(refused.value)


def test_the_file_in_the_config_directory_is_found(home, monkeypatch, tmp_path):
    from mac_agent.weights.hub_token import default_token_file

    private(default_token_file(), GOOD)
    found = find_token(environment={}, security=security(tmp_path, "exit 44"))
    assert found is not None
    assert str(default_token_file()) in found.source


def test_the_keychain_is_asked_for_our_item_of_this_user(tmp_path):
    asked = tmp_path / "asked"
    found = find_token(environment={}, security=security(tmp_path, f'echo "$@" > {asked}; echo {GOOD}'))
    assert found is not None
    assert (found.secret, found.source) == (GOOD, f"the keychain item {KEYCHAIN_SERVICE}")
    assert f"find-generic-password -s {KEYCHAIN_SERVICE} -a " in asked.read_text()


def test_a_locked_keychain_is_an_error_after_a_timeout(tmp_path, monkeypatch):
    monkeypatch.setattr("mac_agent.weights.hub_token.KEYCHAIN_TIMEOUT_S", 0.2)
    with pytest.raises(TokenUnusable, match="unlock-keychain"):
        find_token(environment={}, security=security(tmp_path, "exec sleep 5"))


def test_a_token_is_never_shown():
    found = find_token(environment={"HF_TOKEN": GOOD}, security="")
    assert GOOD not in f"{found!r} {found}"


def test_our_own_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", GOOD)
    found = find_token()
    assert found is not None
    assert found.secret == os.environ["HF_TOKEN"]
