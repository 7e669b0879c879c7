"""Writing files that others must not read, or must never see half written."""

import contextlib
import os
import secrets
import shlex
import shutil
from pathlib import Path
from typing import BinaryIO

PRIVATE = 0o600


def replace_file(path: Path, content: bytes | str | BinaryIO, *, mode: int = PRIVATE) -> None:
    """Write a file, whole or not at all; afterwards it is on the disk.

    It is written beside its place under a random name that must not exist yet, so that whoever can write into the
    directory cannot have it go to where a link of theirs points. A link at `path` itself is replaced, not followed.

    Args:
        path: its directory must exist.
        content: text is written as UTF-8; a stream is copied from where it stands.
        mode: of the file, whatever the umask is.

    Raises:
        OSError: the disk is full, or the directory cannot be written.
    """
    with contextlib.ExitStack() as undo:
        unfinished = _write_beside(path, content, undo)
        unfinished.chmod(mode)
        unfinished.replace(path)
        undo.pop_all()


def rewrite_file(path: Path, content: bytes | str) -> None:
    """Write a file that exists anew, as `replace_file` does; owner, group, mode and access lists stay as they are.

    Raises:
        FileNotFoundError: there is none.
        PermissionError: it belongs to somebody else, and this process is not root.
        OSError: as in `replace_file`.
    """
    known = path.stat()
    with contextlib.ExitStack() as undo:
        unfinished = _write_beside(path, content, undo)
        written = unfinished.stat()
        if (written.st_uid, written.st_gid) != (known.st_uid, known.st_gid):
            os.chown(unfinished, known.st_uid, known.st_gid, follow_symlinks=False)
        shutil.copystat(path, unfinished)  # after chown, which takes some bits of the mode away
        os.utime(unfinished)
        unfinished.replace(path)
        undo.pop_all()


def say_private(*paths: Path) -> str:
    """Return what to do about files with secrets that others can read: a command for a shell, where one helps."""
    if all(path.is_file() for path in paths):
        return f"chmod {PRIVATE:o} {shlex.join(map(str, paths))}"
    return "that is no file: copy what it holds into one that only you can read (mode 600), and name that"


def is_roots_alone(path: Path) -> bool:
    """Whether a file belongs to root and nobody else can read it."""
    known = path.stat()
    return known.st_uid == 0 and not known.st_mode & 0o044


def _write_beside(path: Path, content: bytes | str | BinaryIO, undo: contextlib.ExitStack) -> Path:
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, PRIVATE)
    undo.callback(unfinished.unlink, missing_ok=True)
    with os.fdopen(descriptor, "wb") as file:
        if isinstance(content, bytes | str):
            file.write(content.encode() if isinstance(content, str) else content)
        else:
            shutil.copyfileobj(content, file)
        file.flush()
        os.fsync(descriptor)
    return unfinished
