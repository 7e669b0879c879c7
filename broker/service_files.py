"""Which config file and data directory a service uses: those that its user's own commands would find."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from broker.settings import BrokerSettings, load_settings

PROGRAM = "omi-diarization"


def choose_files(
    cls: type[BrokerSettings], home: Path, config_file: Path | None, data_dir: Path | None, *, markers: Iterable[Path]
) -> tuple[Path, Path]:
    """Return config file and data directory of a service whose user has this home.

    Args:
        cls: the program's settings.
        home: the user's home directory.
        config_file: as it was named; None: the one below the home, where `join` of that user writes it.
        data_dir: as it was named; None: what the config file says, else where data lies already, else below the home.
        markers: files below the data directory, any of which tells that data lies there.

    Raises:
        SettingsError: the config file is there and holds something wrong.
    """
    config = (config_file or home / ".config" / PROGRAM / "config.toml").absolute()
    if data_dir is not None:
        return config, data_dir.absolute()
    if config.exists():
        loaded = load_settings(cls, flags={}, config_file=config)
        if loaded.sources["data_dir"].startswith("file"):
            return config, loaded.settings.data_dir.absolute()
    below_home = home / ".local" / "share" / PROGRAM
    return config, home if any((home / marker).exists() for marker in markers) else below_home
