"""A folder whose recordings are published, and beside which who spoke when is written.

Everything is safe to end at any moment: a recording's conversation and chunk have ids made of its content, so that what
the bridge has already is not there twice, and a record is written before and after each step.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from broker.errors import BrokerError
from broker.private_files import replace_file
from broker.settings import BrokerSettings
from schemas.conversation import ConversationUpdated, TranscriptSegment
from schemas.failure import FailureCode
from vps_bridge.client.client import BridgeClient
from vps_bridge.client.connected import ASK_AGAIN_S
from vps_bridge.client.dropped_files import DroppedRecording, SettledFiles, find_recordings
from vps_bridge.client.errors import BridgeRefused, BridgeSilent, FileChanged
from vps_bridge.client.folder_records import (
    FolderRecords,
    RecordingRecord,
    RecordingState,
    WrittenFile,
    digest_text,
)
from vps_bridge.client.labelled_recording import describe_recording
from vps_bridge.client.update_listener import UpdateListener
from vps_bridge.conversations.transcripts import TranscriptError, read_transcript
from vps_bridge.exports.export_format import ExportFormat
from vps_bridge.exports.formats import render_export

FORMATS = (ExportFormat.RTTM, ExportFormat.JSON, ExportFormat.SRT)
ERROR_SUFFIX, READABLE_AS = ".error.txt", 0o666
BRIDGE_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 300.0
TRY_AGAIN_S = 15.0  # after the bridge did not answer
DELETED = (
    "its conversation was deleted. What was deleted stays deleted: give the recording another transcript, "
    "or take it out of the folder"
)


@dataclass(frozen=True)
class FolderNews:
    """Something that happened to a recording, for a person or a program to read."""

    file: str
    outcome: str
    """accepted, done, refused (as it is), failed (its audio), kept (files of somebody else's), or later."""
    message: str
    files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What is odd about its audio or the times of its transcript."""


class WatchedFolder:
    """Publishes what is dropped into a folder. Used by one thread; `look` does all there is to do now."""

    def __init__(
        self,
        settings: BrokerSettings,
        folder: Path,
        listener: UpdateListener,
        report: Callable[[FolderNews], None],
        *,
        settle_s: float,
        owner: str | None = None,
    ) -> None:
        """Ask for the labels of what was published before. Raises `OSError` where the folder cannot be written."""
        self._settings, self._folder, self._listener, self._report = settings, folder, listener, report
        self._owner = owner
        self._records, self._settled = FolderRecords(folder), SettledFiles(settle_s)
        self._digests: dict[DroppedRecording, str] = {}
        self._done: dict[DroppedRecording, Path | None] = {}  # with the file that says what was wrong
        self._told: set[DroppedRecording] = set()  # of which it was said why nothing can be done
        self._resting_until_s = 0.0
        self._awaited = {record.conversation_id for record in self._records.awaited()}
        self._bridges: set[str] = set()  # instances that were heard
        self._doubted = self._accepted()  # before this bridge began: restored from a backup, it may not have them
        self._ask_again_s = 0.0

    @property
    def awaited(self) -> int:
        """How many recordings' labels are awaited."""
        return len(self._awaited)

    def look(self) -> bool:
        """Publish what is new and write what came. Returns whether nothing of the folder is left to be done."""
        self._hear()
        recordings = find_recordings(self._folder, self._records.is_result)
        settled = self._settled.look(recordings, time.monotonic())
        present = set(recordings)
        self._digests = {each: digest for each, digest in self._digests.items() if each in present}
        self._done = {each: error for each, error in self._done.items() if each in present}
        is_done = len(settled) == len(recordings)
        for recording in settled:
            error_file = self._done.get(recording)
            if recording not in self._done or (error_file is not None and not error_file.exists()):
                is_done = self._take(recording) and is_done
        return is_done and not self._awaited

    def _hear(self) -> None:
        """Take in what came of labels, and ask for those that are still awaited."""
        heard = self._listener.take()
        for update in heard.updates:
            self._finish(update)
        if self._bridges and not heard.bridges <= self._bridges:
            self._doubted = self._accepted()
        self._bridges |= heard.bridges
        for conversation_id in self._awaited & set(heard.deleted):
            self._awaited.discard(conversation_id)
            for record in self._records.of_conversation(conversation_id):
                if record.state is RecordingState.ACCEPTED:
                    refused = RecordingRecord(digest=record.digest, state=RecordingState.REFUSED, error=DELETED)
                    self._records.write(refused)
        if time.monotonic() >= self._ask_again_s:
            self._ask_again_s = time.monotonic() + ASK_AGAIN_S
            for conversation_id in self._awaited:
                self._listener.ask_again(conversation_id)

    def _take(self, recording: DroppedRecording) -> bool:
        """Do with one recording what is to be done now; False: try it again later."""
        name = recording.audio.name
        if len(os.fsencode(name + ERROR_SUFFIX)) > os.pathconf(self._folder, "PC_NAME_MAX"):
            self._tell_once(
                recording, "refused", "the names of the files beside it would be too long: shorten its name"
            )
            return True
        try:
            digest = self._digests.get(recording)
            if digest is None:
                digest = self._digests[recording] = recording.digest()
            record = self._records.read(digest)
            if record is not None and record.state is RecordingState.REFUSED and self._is_error_deleted(record, name):
                record = None
            is_doubted = record is not None and record.state is RecordingState.ACCEPTED and digest in self._doubted
            if record is None or is_doubted:
                if time.monotonic() < self._resting_until_s:
                    return False
                record = self._publish(recording, record or self._new_record(recording, digest), again=is_doubted)
            if record is not None and record.state is not RecordingState.ACCEPTED:
                self._write_beside(record, recording)
                is_refused = record.state is RecordingState.REFUSED
                self._done[recording] = self._folder / f"{name}{ERROR_SUFFIX}" if is_refused else None
        except (FileChanged, FileNotFoundError):
            return False  # somebody writes it still, or took it away
        except PermissionError as error:
            self._tell_once(recording, "refused", f"{error.filename} is not readable: give this user the right")
            return True
        except OSError as error:  # of a disk or a share: the others go on
            self._tell_once(recording, "later", f"{error.filename or name}: {error.strerror}")
            return False
        return record is not None

    def _tell_once(self, recording: DroppedRecording, outcome: str, message: str) -> None:
        if recording not in self._told:
            self._told.add(recording)
            self._report(FolderNews(recording.audio.name, outcome, message))

    def _is_error_deleted(self, record: RecordingRecord, name: str) -> bool:
        """Whether somebody deleted the file that said why: then it is tried again."""
        file = f"{name}{ERROR_SUFFIX}"
        written = self._records.written(file)
        is_deleted = written is not None and written.digest == record.digest and not (self._folder / file).exists()
        if is_deleted:
            self._records.note_removed(file)
        return is_deleted

    def _accepted(self) -> set[str]:
        return {record.digest for record in self._records.awaited()}

    def _publish(self, recording: DroppedRecording, record: RecordingRecord, *, again: bool) -> RecordingRecord | None:
        """Send a recording, or send it again to a bridge that may not have it; None where the bridge did not answer."""
        name, conversation_id = recording.audio.name, record.conversation_id
        owner = record.owner or self._owner
        try:
            segments = _read(recording, conversation_id)
            with BridgeClient(self._settings, conversation_id) as client:
                beat = client.wait_bridge(BRIDGE_TIMEOUT_S)
                if segments or owner:
                    client.start(owner=owner)
                if segments:
                    client.send_segments(segments)
                if record.joined is None or again:
                    of_audio = record.digest if record.joined is None else recording.digest_without_transcript()
                    client.send_file(recording.audio, chunk_id=f"f-{of_audio[:32]}", timeout_s=SEND_TIMEOUT_S)
                client.complete(chunks=1)
        except (TranscriptError, BridgeRefused) as error:
            is_deleted = again and isinstance(error, BridgeRefused) and error.code == FailureCode.CONVERSATION_DELETED
            why = DELETED if is_deleted else str(error)
            record = record.model_copy(update={"state": RecordingState.REFUSED, "error": why})
            if again:
                self._awaited.discard(conversation_id)
        except (BridgeSilent, BrokerError) as error:
            self._resting_until_s = time.monotonic() + TRY_AGAIN_S
            self._report(FolderNews(name, "later", str(error)))
            return None
        if record.joined is not None and record.state is RecordingState.ACCEPTED:
            self._records.note_joined(record.joined, record.digest)  # one that is refused leaves the audio its labels
        self._records.write(record)
        self._doubted.discard(record.digest)
        if record.state is RecordingState.ACCEPTED:
            self._awaited.add(conversation_id)
            self._listener.ask_again(conversation_id)  # an earlier run may have confirmed it, and ended before it wrote
            nobody = "" if beat.agents_live else "; no agent is live now (omi-bridge agents)"
            if not again:
                self._report(FolderNews(name, "accepted", f"the bridge has it; its labels are awaited{nobody}"))
        return record

    def _new_record(self, recording: DroppedRecording, digest: str) -> RecordingRecord:
        """Return the record of a recording that is published now.

        Where its audio was published before the transcript was there, the transcript joins that conversation: one
        transcript alone, since of a second one nobody can tell which lines of the first it replaces.
        """
        record = RecordingRecord(digest=digest, state=RecordingState.ACCEPTED, owner=self._owner)
        earlier = self._records.read(recording.digest_without_transcript()) if recording.transcript else None
        if earlier is None or earlier.state is RecordingState.REFUSED:
            return record
        joined = earlier.conversation_id
        if self._records.find_joined(joined) not in (None, digest):
            return record
        return record.model_copy(update={"joined": joined, "after_version": earlier.updated_version})

    def _finish(self, update: ConversationUpdated) -> None:
        """Keep an update that is awaited, or newer than what is written; others are no business of this folder."""
        known = self._records.of_conversation(update.conversation_id) if update.state == "final" else []
        if not known:
            return
        older = [each for each in known if max(each.updated_version, each.after_version) < update.updated_version]
        failed = [f"{each.code}: {each.message}\nThen: {each.remedy}" for each in update.failures]
        if update.failed_jobs and not failed:
            failed = ["a job failed: `omi-bridge failed` says why"]
        error = "\n".join(failed) or None
        done = {"state": RecordingState.DONE, "update": update, "error": error}
        for record in older:
            self._records.write(record.model_copy(update=done))
        if all(each in older for each in known if each.state is RecordingState.ACCEPTED):
            self._awaited.discard(update.conversation_id)
        kept = {record.digest for record in older}
        self._done = {each: file for each, file in self._done.items() if self._digests.get(each) not in kept}
        self._listener.confirm(update)

    def _write_beside(self, record: RecordingRecord, recording: DroppedRecording) -> None:
        """Write the files of a recording beside it, once; never over a file that was not written here."""
        name = recording.audio.name
        error_file = f"{name}{ERROR_SUFFIX}"
        files = [f"{name}.{form}" for form in FORMATS] if record.update is not None else []
        files += [error_file] if record.error else []
        source = (record.digest, record.updated_version)
        written = [self._records.written(file) for file in files]
        if all(each is not None and (each.digest, each.updated_version) == source for each in written):
            return
        texts = self._render(record, recording) | ({error_file: f"{record.error}\n"} if record.error else {})
        kept = tuple(file for file, text in texts.items() if not self._is_ours(file, text))
        mode = recording.audio.stat().st_mode & READABLE_AS  # who may hear it may read it
        for file in set(texts) - set(kept):
            replace_file(self._folder / file, texts[file], mode=mode)
        contents = {file: "" if file in kept else digest_text(text) for file, text in texts.items()}
        self._records.note_written(
            {
                file: WrittenFile(digest=record.digest, updated_version=record.updated_version, content_sha256=content)
                for file, content in contents.items()
            }
        )
        if not record.error:
            self._remove_error(error_file)
        if kept:
            self._report(FolderNews(name, "kept", "is there and was not written here: it is left as it is", kept))
        outcome = "refused" if record.state is RecordingState.REFUSED else "failed" if record.error else "done"
        written_now = tuple(file for file in texts if file not in kept)
        warnings = record.update.warnings if record.update is not None else ()
        self._report(FolderNews(name, outcome, record.error or "who spoke when is beside it", written_now, warnings))

    def _render(self, record: RecordingRecord, recording: DroppedRecording) -> dict[str, str]:
        if record.update is None:
            return {}
        conversation = describe_recording(record.update, _read(recording, record.conversation_id))
        return {f"{recording.audio.name}.{form}": render_export(conversation, form) for form in FORMATS}

    def _remove_error(self, file: str) -> None:
        """Delete what an earlier content of the recording was refused for."""
        if self._records.written(file) is not None:
            if self._is_ours(file, ""):
                (self._folder / file).unlink(missing_ok=True)
            self._records.note_removed(file)

    def _is_ours(self, file: str, text: str) -> bool:
        """Whether a file may be replaced by this text: it is not there, was written here, or says the same."""
        path, written = self._folder / file, self._records.written(file)
        try:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        except FileNotFoundError:
            return not path.is_symlink()
        except IsADirectoryError:
            return False
        return content == digest_text(text) or (written is not None and written.content_sha256 == content)


def _read(recording: DroppedRecording, conversation_id: str) -> tuple[TranscriptSegment, ...]:
    return read_transcript(recording.transcript, conversation_id) if recording.transcript else ()
