"""Writing the files that a Mosquitto reads: owner and mode stay as they are, and it can read a new one."""

import contextlib
import os
import shutil
from pathlib import Path

from broker.private_files import replace_file, rewrite_file

MOSQUITTO_USER = "mosquitto"  # which a Mosquitto that is started by root becomes, unless its configuration says another
PUBLIC_MODE, DIRECTORY_MODE = 0o644, 0o755


def make_directory(directory: Path) -> None:
    """Make the directory, so that Mosquitto's own user can enter it, and nobody else write, whatever the umask is."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for path in missing:
        path.chmod(DIRECTORY_MODE)


def write_secret(path: Path, text: str, owner: str = MOSQUITTO_USER) -> None:
    """Write a file that only the broker may read; a new one written by root is made that of the broker's own user."""
    try:
        rewrite_file(path, text)
    except FileNotFoundError:
        replace_file(path, text)
        if os.geteuid() == 0:
            with contextlib.suppress(LookupError):  # no such user here: it is not installed, or runs as another
                shutil.chown(path, owner, owner)


def write_public(path: Path, text: str) -> None:
    """Write a file that everybody may read."""
    try:
        rewrite_file(path, text)
    except FileNotFoundError:
        replace_file(path, text, mode=PUBLIC_MODE)
