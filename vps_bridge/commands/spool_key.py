"""`omi-bridge spool-key`: make and rotate the keys that audio is encrypted with before it goes into a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.errors import SettingsError
from broker.terminal import print_json
from vps_bridge.commands.terminal import (
    EXIT_USAGE,
    AsJson,
    ConfigFile,
    DataDir,
    ask_first,
    explained,
    fail,
    load,
    out,
)

if TYPE_CHECKING:
    from vps_bridge.bucket.keys import SpoolKeys


def spool_key(
    file: Annotated[Path | None, typer.Argument(help="The file; without one, that of OMI_SPOOL_KEY_FILE.")] = None,
    rotate: Annotated[bool, typer.Option("--rotate", help="Put a new key first; the others still decrypt.")] = False,
    drop_old: Annotated[bool, typer.Option("--drop-old", help="Keep only the first key.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make the file of keys (mode 600) that a bridge with a bucket needs, or rotate it. Keys are never shown.

    Whoever has the file can read the audio in the bucket; without it nobody can. All bridges of one ledger have the
    same file: copy it to each of them, and to where your backups are not.

    Rotating: run --rotate on one bridge, copy the file to the others, restart the bridges one after the other. After
    OMI_KEEP_AUDIO_MAX_S nothing is left that the old key encrypted: --drop-old.

    Examples:
      omi-bridge spool-key /etc/omi-diarization/spool-keys

      omi-bridge spool-key --rotate

    Exit codes: 0 written; 1 not confirmed, or the disk refuses; 2 wrong arguments, or the file is not one of keys.
    """
    from vps_bridge.bucket import keys

    if rotate and drop_old:
        fail("say --rotate or --drop-old: days lie between the two", EXIT_USAGE)
    with explained():
        settings = load(config, "bridge", data_dir=data_dir)
        path = (file or settings.spool_key_file or Path()).expanduser()
        if file is None and settings.spool_key_file is None:
            raise SettingsError("spool_key_file", "the settings", "say which file, or set OMI_SPOOL_KEY_FILE")
        if drop_old and not yes:
            ask_first(f"Drop all keys of {path} but the first? What they encrypted is lost.", unasked="")
        made = keys.rotate_key_file if rotate else keys.drop_old_keys if drop_old else keys.make_key_file
        _report(made(path), as_json=as_json)


def _report(keys: SpoolKeys, *, as_json: bool) -> None:
    ids = [key.key_id.hex() for key in keys.keys]
    if as_json:
        print_json({"file": str(keys.file), "key_ids": ids})
        return
    others = f"; {len(ids) - 1} more decrypt" if len(ids) > 1 else ""
    out.print(f"{keys.file}: key {ids[0]} encrypts from a bridge's next start{others}", highlight=False)
    out.print("the same file belongs on every bridge of this ledger, and in a safe place: without it audio is lost")
