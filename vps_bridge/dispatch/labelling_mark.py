"""Which conversation's labels the bridge is working out, in a file: the next start knows what ended the bridge."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILE_NAME = "labelling.now"
SIZE_BYTES = 256  # longer than any id: the file never grows, and a full disk does not matter to it


class LabellingMark:
    """One conversation at a time. It costs no transaction and survives the process, not a crash of the machine."""

    def __init__(self, root: Path) -> None:
        """Read what the process before us left below `root`, and begin with nothing. Raises `OSError`."""
        self._descriptor = os.open(root / FILE_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self.left = os.pread(self._descriptor, SIZE_BYTES, 0).rstrip().decode(errors="replace") or None
        """The conversation at which the process before us ended, None where it ended at none."""
        self._write("")

    @contextmanager
    def on(self, conversation_id: str) -> Iterator[None]:
        """Mark a conversation as long as this lasts. Raises `OSError`."""
        self._write(conversation_id)
        try:
            yield
        finally:
            self._write("")

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _write(self, conversation_id: str) -> None:
        os.pwrite(self._descriptor, conversation_id.encode().ljust(SIZE_BYTES), 0)
