"""Check the unit of an installed service: that systemd can start it, that it holds no secret, whose files it has."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path

from broker.check import Check, failed, note, ok
from broker.file_checks import SECRET_WORD
from broker.systemd_unit import SECRET_VALUE, SYSTEMCTL, ServiceProblem, find_unit_file, query

_LINE = re.compile(r"^([A-Za-z]+)=(.*)$", re.MULTILINE)


def check_unit(name: str, *, data_dir: Path, config_file: Path, systemctl: str = SYSTEMCTL) -> list[Check]:
    """Check the unit `name`; nothing where there is none. `data_dir` and `config_file` are those of this command."""
    unit_file = find_unit_file(name)
    try:
        text = unit_file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        return [failed("service", f"{unit_file} cannot be read: {error}", f"sudo {name} install")]
    problem = find_fault(text, unit_file, name)
    if problem is not None:
        return [problem]
    facts, variables = _read(text)
    uses = {"OMI_CONFIG": str(config_file), "OMI_DATA_DIR": str(data_dir)}
    others = {key: value for key, value in variables.items() if key in uses and uses[key] != value}
    if others:
        given = " ".join(f"{key}={variables[key]}" for key in uses if key in variables)
        words = f"the service uses {', '.join(others.values())}, this command does not"
        program = facts["ExecStart"].split()[0]
        return [note("service", words, f"sudo -H -u {facts.get('User', 'root')} {given} {program} doctor")]
    return [_check_runs(name, unit_file, systemctl)]


def find_fault(text: str, unit_file: Path, name: str) -> Check | None:
    """Return what is wrong with a unit's text, or None."""
    again = f"sudo {name} install writes it anew"
    facts, variables = _read(text)
    words = facts.get("ExecStart", "").split()
    if "[Service]" not in text or not words:
        return failed("service", f"{unit_file} is damaged: it starts nothing", again)
    named = [key for key in variables if SECRET_WORD.search(key)]
    if named or SECRET_VALUE.search(text):
        found = f"{unit_file} holds what looks like a secret ({', '.join(named) or 'a URL'}), for anyone to read"
        return failed("service", found, f"Move it into the config file (mode 600), change it; {again}")
    if not os.access(words[0], os.X_OK):
        return failed("service", f"{unit_file} starts {words[0]}, which is not there", again)
    user = facts.get("User", "root")
    try:
        pwd.getpwnam(user)
    except KeyError:
        return failed("service", f"{unit_file} runs as {user}, and there is no such user", f"{again}, with --user")
    return None


def _check_runs(name: str, unit_file: Path, systemctl: str) -> Check:
    try:
        state = query(name, systemctl=systemctl)
    except ServiceProblem as error:
        return note("service", f"{unit_file}: {error}")
    found = f"{state.active} ({state.detail}), started again {state.restarts} times"
    if state.runs:
        return ok("service", found)
    return failed("service", f"{found}, last: {state.last_exit}", f"journalctl -u {name}; systemctl restart {name}")


def _read(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the last value of each key, and the variables of all `Environment` lines."""
    lines = _LINE.findall(text)
    variables = [word for key, value in lines if key == "Environment" for word in value.split() if "=" in word]
    return dict(lines), dict(word.partition("=")[::2] for word in variables)
