"""A path as people write it in a setting: `~` stands for the home directory, and an empty one is a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator


def expand_home(path: Path) -> Path:
    """Return a path with the home directory that `~` or `~name` stands for. Raises `ValueError` where none is known."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        msg = f"{path}: the home directory that {path.parts[0]} stands for is not known: write the path in full"
        raise ValueError(msg) from error


def refuse_empty(value: object) -> object:
    """Return what was given for a path. Raises `ValueError` where it is empty, which `Path` has for `.`."""
    if isinstance(value, str) and not value.strip():
        msg = "is empty: name a path, or leave the setting out (. is the current directory)"
        raise ValueError(msg)
    return value


UserPath = Annotated[Path, BeforeValidator(refuse_empty), AfterValidator(expand_home)]
