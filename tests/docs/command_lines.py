"""Commands in shell text, and whether our programs know them with these options and so many arguments."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import typer

from demo.programs import MODULES

_HEREDOC = re.compile(r"<<-?'?(\w+)'?\n.*?^\1$", re.DOTALL | re.MULTILINE)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_OPERATORS = "();<>|&"
WRAPPERS = {"sudo": {"-u", "-g"}, "exec": set(), "env": set()}
"""Programs that run another, with their options that take a value."""
_KNOWN = """
    apt apt-get brew cat cd chmod chown cp curl docker echo export git grep install journalctl kill kubectl ln make
    mkdir mosquitto mosquitto_pub mosquitto_sub npm openssl pip printf python3 rm scp security sed sleep ssh systemctl
    tailscale tar touch true ufw umask useradd userdel done fi
"""
KNOWN = frozenset(_KNOWN.split())
"""Programs of the system, and words of the shell, that a page may use."""


def commands_in(text: str) -> Iterator[list[str]]:
    """Yield the words of each simple command of a shell text, without redirections and assignments."""
    text = _HEREDOC.sub("", text).replace("\\\n", " ")
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=_OPERATORS)
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        skip_next = False
        for token in lexer:
            if set(token) <= set(_OPERATORS):
                skip_next = token[0] in "<>"
                if not skip_next:
                    yield from _unwrapped(words)
                    words = []
            elif skip_next:
                skip_next = False
            else:
                words.append(token)
        yield from _unwrapped(words)


def _unwrapped(words: list[str]) -> Iterator[list[str]]:
    while words and (_ASSIGNMENT.match(words[0]) or words[0] in WRAPPERS or words[0] in ("do", "then", "until", "if")):
        taking = WRAPPERS.get(words.pop(0), set())
        while words and words[0].startswith("-"):
            words = words[2:] if words[0] in taking else words[1:]
    if words:
        yield words


@cache
def _program(name: str) -> Any:
    return typer.main.get_command(import_module(MODULES[name]).app)


def complaint_about(words: Sequence[str]) -> str | None:
    """Return what is wrong with a command; None where its program and its options are known."""
    name = words[0].rsplit("/", 1)[-1]
    if name in MODULES:
        return _walk(_program(name), list(words[1:]), name)
    if name not in KNOWN:
        return f"{name} is no program that a page may use"
    if name in ("curl", "mosquitto_pub", "mosquitto_sub"):
        known = _options_of(name)
        unknown = [word for word in words[1:] if re.fullmatch(r"--?[a-z][a-z-]*", word) and word not in known]
        return f"{name} has no {', '.join(unknown)}" if unknown and known else None
    return None


@cache
def _options_of(name: str) -> frozenset[str]:
    """Return the options in a program's own help; none where it is not installed."""
    if shutil.which(name) is None:
        return frozenset()
    wanted = [name, "--help", *(["all"] if name == "curl" else [])]
    said = subprocess.run(wanted, capture_output=True, text=True, check=False)
    return frozenset(re.findall(r"(?<![\w-])--?[A-Za-z][A-Za-z0-9-]*", said.stdout + said.stderr))


def _walk(command: Any, words: list[str], path: str) -> str | None:
    """Follow the words through the arguments and options of a command and its subcommands."""
    options = {name: option for option in command.params for name in (*option.opts, *option.secondary_opts)}
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    subcommands = getattr(command, "commands", {})
    given = 0
    while words:
        word = words.pop(0)
        if word == "--help":
            return None
        if word.startswith("-") and word != "-":
            name, _, value = word.partition("=")
            if name not in options:
                return f"{path} has no {name}"
            if not options[name].is_flag and not value:
                if not words:
                    return f"{path}: {name} needs a value"
                words.pop(0)
        elif subcommands and given == len(arguments):
            if word not in subcommands:
                return f"{path} has no {word}"
            return _walk(subcommands[word], words, f"{path} {word}")
        else:
            given += 1
    least = sum(param.required for param in arguments)
    endless = any(param.nargs == -1 for param in arguments)
    if (
        (subcommands and not command.invoke_without_command)
        or given < least
        or (given > len(arguments) and not endless)
    ):
        return f"{path}: {given} arguments, it takes {least} to {'any number' if endless else len(arguments)}"
    return None
