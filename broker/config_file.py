"""Writing settings into the TOML file that people edit too: their lines and comments stay."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from broker.errors import BrokerError, SettingsError
from broker.private_files import PRIVATE, replace_file, rewrite_file
from broker.text_files import read_text


def write_settings(path: Path, table: str, values: Mapping[str, str | None]) -> None:
    """Set values in one table of a config file, which is its owner's alone afterwards; None takes a value out.

    Raises:
        SettingsError: the file is no TOML, or is laid out so that these lines cannot be found in it.
        BrokerError: it cannot be written.
    """
    try:
        try:
            text = read_text(path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(path, set_in_table("", table, values))
        else:
            changed = set_in_table(text, table, values)
            path.chmod(PRIVATE)  # before the secret is in it
            rewrite_file(path, changed)
    except OSError as error:
        raise BrokerError(f"{path} cannot be written ({error.strerror}): run this as its owner") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        words = f"cannot be written there ({error}): mend it; wanted are {', '.join(values)}"
        raise SettingsError(table, f"file {path}", words) from error


def set_in_table(text: str, table: str, values: Mapping[str, str | None]) -> str:
    """Return a TOML document with these values set in one table, and everything else as it was.

    Raises:
        tomllib.TOMLDecodeError: it is no TOML, or the result would not be the document that is meant.
    """
    document = tomllib.loads(text)
    lines = text.splitlines()
    header = re.compile(rf"\s*\[\s*{re.escape(table)}\s*\]\s*(#.*)?")
    start = next((number for number, line in enumerate(lines) if header.fullmatch(line)), None)
    if start is None:
        lines += ["", f"[{table}]"] if lines else [f"[{table}]"]
        start = len(lines) - 1
    rest = range(start + 1, len(lines))
    end = next((number for number in rest if lines[number].lstrip().startswith("[")), len(lines))
    kept = [line for line in lines[start + 1 : end] if line.partition("=")[0].strip() not in values]
    given = {name: value for name, value in values.items() if value is not None}
    written = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in given.items()]
    changed = "\n".join([*lines[: start + 1], *written, *kept, *lines[end:]]) + "\n"
    own = {name: value for name, value in document.get(table, {}).items() if name not in values}
    if tomllib.loads(changed) != {**document, table: {**own, **given}}:
        raise tomllib.TOMLDecodeError(f"table [{table}] is not one name = value on each line")
    return changed
