"""A secret that is set by itself or by naming a file that holds it."""

from __future__ import annotations

import stat
from pathlib import Path

from pydantic import SecretStr

from broker.errors import SettingsError
from broker.private_files import say_private
from broker.text_files import read_text


def read_secret(name: str, value: SecretStr | None, file: Path | None) -> str | None:
    """Return the secret of the settings `name` and `name_file`, or None where neither is set.

    Raises `SettingsError` where both are, and where the file cannot be read or others can read it.
    """
    if file is None:
        return value.get_secret_value() if value is not None else None
    if value is not None:
        raise SettingsError(
            f"{name}_file", "the settings", f"{name} is set too: give the {name.rpartition('_')[2]} once"
        )
    try:
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise SettingsError(f"{name}_file", str(file), f"others may read it: {say_private(file)}")
        return read_text(file).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}_file", str(file), f"not readable: {error}") from error
