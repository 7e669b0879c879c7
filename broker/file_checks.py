"""Check the directory, the config file and the disk of an agent or a bridge."""

from __future__ import annotations

import re
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from broker.check import Check, failed, note, ok
from broker.private_files import say_private
from broker.text_files import read_text

SECRET_WORD = re.compile(r"password|token|secret|credential|api_?key", re.IGNORECASE)
_OTHERS_MAY_WRITE, _OTHERS_MAY_READ = 0o022, 0o077


def check_data_dir(directory: Path) -> Check:
    """Check that results can be written there, and that no other user can change the weights in it."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=directory):
            mode = stat.S_IMODE(directory.stat().st_mode)
    except OSError as error:
        return failed(
            "data directory", f"{directory} cannot be used: {error.strerror}", "Make it yours, or set OMI_DATA_DIR."
        )
    if mode & _OTHERS_MAY_WRITE:
        mend = f"chmod 700 {shlex.quote(str(directory))}"
        return failed("data directory", f"others may write into {directory}", mend)
    return ok("data directory", f"{directory}, mode {mode:o}")


def check_config_file(path: Path, no_file: str) -> Check:
    """Check that a config file with a secret in it is readable by its owner only; `no_file` says who needs one."""
    try:
        text, mode = read_text(path), path.stat().st_mode
    except FileNotFoundError:
        return note("config file", f"none at {path}", no_file)
    except (OSError, UnicodeDecodeError) as error:
        return failed("config file", f"{path} cannot be read: {error}", "Check whose it is, and that it is text.")
    if SECRET_WORD.search(text) and mode & _OTHERS_MAY_READ:
        return failed("config file", f"{path} holds a secret and others can read it", say_private(path))
    return ok("config file", str(path))


def check_private_files(directory: Path, files: Iterable[Path], rewrite: str) -> Check:
    """Check that no other user, but for the group, can read a broker's secrets; `rewrite` is the command for them."""
    try:
        open_files = [path for path in files if path.stat().st_mode & _OTHERS_MAY_READ & ~stat.S_IRGRP]
    except OSError as error:
        return failed("files", f"{error.filename}: {error.strerror}", f"{rewrite} writes them again")
    if open_files:
        return failed("files", f"others can read {', '.join(map(str, open_files))}", say_private(*open_files))
    return ok("files", str(directory))


def check_disk(directory: Path, needed_bytes: int, why: str) -> Check:
    """Check that the free disk space is enough; `why` says what needs it."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    free_bytes = shutil.disk_usage(existing).free
    found = f"{_describe_bytes(free_bytes)} free at {existing}"
    if free_bytes < needed_bytes:
        return failed("disk", found, f"Make room: {why} need {_describe_bytes(needed_bytes)}.")
    return ok("disk", found)


def _describe_bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"
