"""What became of the recordings of a folder, kept in the folder itself, so that it is known after a restart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from broker.private_files import replace_file
from schemas.conversation import ConversationUpdated
from vps_bridge.client.errors import FolderUnreadable

RECORDS_FOLDER = ".omi-diarization"


class RecordingState(StrEnum):
    """How far a recording is."""

    ACCEPTED = "accepted"
    """The bridge has it; its labels are awaited."""
    DONE = "done"
    REFUSED = "refused"
    """It cannot be diarized as it is; `error` says why."""


class RecordingRecord(BaseModel):
    """What became of one recording, by the hash of its content."""

    model_config = ConfigDict(frozen=True)

    digest: str
    state: RecordingState
    owner: str | None = None
    """Whose conversation it is."""
    error: str | None = None
    update: ConversationUpdated | None = None
    joined: str | None = None
    """The conversation of its audio, which was published before the transcript came; else it has one of its own."""
    after_version: int = 0
    """Its labels are in a later update than this one."""

    @property
    def updated_version(self) -> int:
        """Return which update it holds; 0: none."""
        return self.update.updated_version if self.update is not None else 0

    @property
    def conversation_id(self) -> str:
        """Return the same id at every attempt, so that what the bridge has already is not there twice."""
        return self.joined or conversation_of(self.digest, self.owner)


class WrittenFile(BaseModel):
    """A file that was written beside a recording: for which recording, and with what in it."""

    model_config = ConfigDict(frozen=True)

    digest: str
    updated_version: int
    """Of the update that it was made of; 0 where there was none."""
    content_sha256: str
    """Where the file holds something else now, it is somebody else's, and stays."""


_WRITTEN = TypeAdapter(dict[str, WrittenFile])


def conversation_of(digest: str, owner: str | None = None) -> str:
    """Return the id of a recording's conversation: each owner has one of their own, also of the same recording."""
    own = f"-{hashlib.sha256(owner.encode()).hexdigest()[:16]}" if owner else ""
    return f"file-{digest[:32]}{own}"


class FolderRecords:
    """The records of one folder."""

    def __init__(self, folder: Path) -> None:
        """Make the place for them. Raises `OSError` where the folder cannot be written."""
        self._place = folder / RECORDS_FOLDER
        self._place.mkdir(mode=0o700, exist_ok=True)
        self._written_file = self._place / "written"
        try:
            self._written = _WRITTEN.validate_json(self._written_file.read_bytes())
        except FileNotFoundError:
            self._written = {}
        except ValidationError as error:
            raise FolderUnreadable(self._written_file) from error

    @property
    def lock_file(self) -> Path:
        """The file that is locked while somebody watches the folder."""
        return self._place / "lock"

    def read(self, digest: str) -> RecordingRecord | None:
        """Return what is known of a recording; None: nothing."""
        path = self._path(digest)
        try:
            return RecordingRecord.model_validate_json(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (ValidationError, UnicodeDecodeError) as error:
            raise FolderUnreadable(path) from error

    def of_conversation(self, conversation_id: str) -> list[RecordingRecord]:
        """Return the recordings of a conversation: the audio alone, and with a transcript that joined it later.

        Both may lie in the folder, as two files of the same sound.
        """
        names = (path.stem for path in self._place.glob("*.json"))
        digests = {name for name in names if conversation_id.startswith(conversation_of(name))}
        joined = self.find_joined(conversation_id)
        found = [self.read(digest) for digest in sorted(digests | ({joined} if joined else set()))]
        return [record for record in found if record is not None and record.conversation_id == conversation_id]

    def find_joined(self, conversation_id: str) -> str | None:
        """Return which recording's transcript joined a conversation; None: none did."""
        try:
            return (self._place / f"{conversation_id}.joined").read_text("ascii")
        except FileNotFoundError:
            return None

    def note_joined(self, conversation_id: str, digest: str) -> None:
        """Keep that a recording's transcript joins the conversation of its audio."""
        replace_file(self._place / f"{conversation_id}.joined", digest)

    def awaited(self) -> list[RecordingRecord]:
        """Return the recordings whose labels are awaited."""
        found = [self.read(path.stem) for path in sorted(self._place.glob("*.json"))]
        return [record for record in found if record is not None and record.state is RecordingState.ACCEPTED]

    def write(self, record: RecordingRecord) -> None:
        """Keep a record, whole or not at all."""
        replace_file(self._path(record.digest), record.model_dump_json(by_alias=True, exclude_none=True))

    def forget(self, digest: str) -> None:
        """Forget a recording, so that it is tried again."""
        self._path(digest).unlink(missing_ok=True)

    def written(self, file: str) -> WrittenFile | None:
        """Return what is known of a file beside a recording; None: it was not written here."""
        return self._written.get(_to_text(file))

    def is_result(self, file: str) -> bool:
        """Whether a file of this name was written beside a recording, and not by somebody else before."""
        written = self.written(file)
        return written is not None and bool(written.content_sha256)

    def note_written(self, files: Mapping[str, WrittenFile]) -> None:
        """Keep which files were written."""
        self._written |= {_to_text(file): written for file, written in files.items()}
        self._keep_written()

    def note_removed(self, file: str) -> None:
        """Forget a file that is gone."""
        self._written.pop(_to_text(file), None)
        self._keep_written()

    def _keep_written(self) -> None:
        replace_file(self._written_file, _WRITTEN.dump_json(self._written))

    def _path(self, digest: str) -> Path:
        return self._place / f"{digest}.json"


def _to_text(name: str) -> str:
    """Return a file's name as JSON can keep it, also where it is not UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def digest_text(text: str) -> str:
    """Return the hash by which a written file is known to be ours."""
    return hashlib.sha256(text.encode()).hexdigest()
