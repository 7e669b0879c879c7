"""Beside a self-hosted OMI backend: old conversations whose audio it still has, and the people it knows, once.

Run it where the backend's Python runs, in its folder and with its environment, `publish.py` and `labels.py` beside it:

    OMI_BROKER_URL=… OMI_OWNERS_FILE=owners.tsv python backfill.py UID [UID …] [--people] [--done backfilled.txt]

For each completed conversation with private-cloud audio it sends the transcript and the audio, chunk by chunk with its
time; `labels.py` writes the labels when they come. With `--people` it first has the voices of the user's people learned
from their samples: the backend's voiceprints are of another model and are not taken. What was done is noted in a file,
so that it can be ended and started again. It reads with the backend's own functions, whose names and parameters it
checks at its start, and writes nothing there. It never met a real backend.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omi_diarization_client import Client, OmiClientError, RefusedByBridge

LOG = logging.getLogger("omi_diarization.backfill")
NEEDED = {
    "database.conversations": {"get_conversations": ("uid", "limit", "offset")},
    "database.users": {"get_people": ("uid",)},
    "utils.other.storage": {
        "list_audio_chunks": ("uid", "conversation_id"),
        "download_audio_chunks_and_merge": ("uid", "conversation_id", "timestamps"),
        "get_user_person_speech_samples": ("uid", "person_id", "download"),
    },
}
PAGE = 50
SAMPLE_RATE = 16_000  # the backend returns all kept audio so
SEND_TIMEOUT_S, ENROL_TIMEOUT_S = 300.0, 900.0

Conversation = dict[str, Any]


@dataclass(frozen=True)
class KeptByBackend:
    """The backend's own functions for what it keeps."""

    get_conversations: Callable[[str, int, int], Sequence[Conversation]]
    get_people: Callable[[str], Sequence[dict[str, Any]]]
    list_audio_chunks: Callable[[str, str], Sequence[dict[str, Any]]]
    download_audio_chunks_and_merge: Callable[[str, str, list[float]], bytes]
    get_user_person_speech_samples: Callable[..., Sequence[str]]

    def conversations(self, uid: str) -> Iterator[Conversation]:
        """Yield a user's conversations that are completed and neither discarded nor locked."""
        offset = 0
        while page := self.get_conversations(uid, PAGE, offset):
            offset += len(page)
            for each in page:
                status = each.get("status")
                is_hidden = each.get("deleted") or each.get("discarded") or each.get("is_locked")
                if getattr(status, "value", status) == "completed" and not is_hidden:
                    yield each

    def audio(self, uid: str, conversation_id: str) -> Iterator[tuple[float, bytes]]:
        """Yield each kept chunk: when it begins (Unix time), and its samples (PCM16, mono)."""
        kept = {float(chunk["timestamp"]) for chunk in self.list_audio_chunks(uid, conversation_id)}
        for began_s in sorted(kept):
            samples = self.download_audio_chunks_and_merge(uid, conversation_id, [began_s])
            yield began_s, samples[: len(samples) // 2 * 2]


class DoneFile:
    """What was sent, a line each."""

    def __init__(self, path: Path) -> None:
        """Read it."""
        self._path = path
        self._done = set(path.read_text("utf-8").split("\n")) if path.is_file() else set()

    def __contains__(self, name: str) -> bool:
        """Whether this was sent."""
        return name in self._done

    def add(self, name: str) -> None:
        """Note that this was sent."""
        self._done.add(name)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(name + "\n")


class Backfill:
    """Sends what a backend keeps to the bridge."""

    def __init__(
        self, backend: KeptByBackend, client: Client, done: DoneFile, note_owner: Callable[[str, str], None]
    ) -> None:
        """Read by `backend`, send by `client`; `note_owner` notes for `labels.py` whose conversation it is."""
        self._backend, self._client, self._done, self._note_owner = backend, client, done, note_owner

    def people(self, uid: str) -> int:
        """Have the voices of a user's people learned from their samples; return how many were."""
        learned = 0
        for person in self._backend.get_people(uid):
            name, is_sure = f"person {uid} {person['id']}", not person.get("unverified")
            if not is_sure or name in self._done:
                continue
            samples = [
                Path(path) for path in self._backend.get_user_person_speech_samples(uid, person["id"], download=True)
            ]
            if not samples:
                continue
            try:
                told = self._client.enrol(
                    person["id"], *samples, owner=uid, name=person.get("name"), timeout_s=ENROL_TIMEOUT_S
                )
            except RefusedByBridge as error:
                told = {"outcome": str(error)}
            finally:
                for sample in samples:
                    sample.unlink(missing_ok=True)
            LOG.info("person %s: %s", person["id"], told.get("outcome"))
            learned += told.get("outcome") == "learned"
            self._done.add(name)
        return learned

    def conversations(self, uid: str) -> tuple[int, float]:
        """Send a user's conversations; return how many, and how many seconds of audio. Raises `OmiClientError`."""
        sent, audio_s = 0, 0.0
        for conversation in self._backend.conversations(uid):
            name = f"conversation {uid} {conversation['id']}"
            if name in self._done:
                continue
            try:
                seconds, is_whole = self._send(uid, conversation)
            except RefusedByBridge as error:
                LOG.warning("%s: not taken: %s", conversation["id"], error)
                seconds, is_whole = 0.0, True
            if is_whole:
                self._done.add(name)
            if seconds:
                sent, audio_s = sent + 1, audio_s + seconds
                LOG.info("%s: %.0f s of audio; %d conversations, %.0f s so far", name, seconds, sent, audio_s)
        return sent, audio_s

    def _send(self, uid: str, conversation: Conversation) -> tuple[float, bool]:
        """Send one; return how many seconds of audio were sent, and whether that was all that the backend lists.

        Where no audio is kept nothing is sent.
        """
        name, chunks, seconds, is_whole = str(conversation["id"]), 0, 0.0, True
        for began_s, samples in self._backend.audio(uid, name):
            if not samples:
                LOG.warning(
                    "%s: a chunk that the backend lists cannot be read; it is tried again with the next run", name
                )
                is_whole = False
                continue
            if not chunks:
                # Without a time: the backend's own started_at can be minutes off, and the bridge searches for it.
                self._client.start(name, owner=uid, timeout_s=SEND_TIMEOUT_S)
                self._note_owner(name, uid)
                segments = conversation.get("transcript_segments") or []
                self._client.send_segments(name, segments, timeout_s=SEND_TIMEOUT_S)
            self._client.send_audio(
                name,
                samples,
                chunk_id=f"kept-{round(began_s * 1000)}",  # the same at every run: sent again, it counts once
                captured_at=datetime.fromtimestamp(began_s, UTC),
                encoding="pcm_s16le",
                sample_rate=SAMPLE_RATE,
                channels=1,
                timeout_s=SEND_TIMEOUT_S,
            )
            chunks, seconds = chunks + 1, seconds + len(samples) / 2 / SAMPLE_RATE
        if chunks:
            self._client.complete(name, chunks=chunks, timeout_s=SEND_TIMEOUT_S)
        return seconds, is_whole


def main() -> int:
    """Send everything of the users that are named; return the exit code."""
    from labels import BackendUnknown, find_functions  # type: ignore[import-not-found] # noqa: PLC0415 - the files
    from publish import client_of_environment, note_owner  # type: ignore[import-not-found] # noqa: PLC0415 - beside it

    parser = argparse.ArgumentParser(description="Send old conversations with kept audio to the bridge.")
    parser.add_argument("uids", nargs="+", metavar="UID", help="whose conversations")
    parser.add_argument("--people", action="store_true", help="learn the voices of their people first, from samples")
    parser.add_argument("--done", type=Path, default=Path("backfilled.txt"), help="notes what was sent (%(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    try:
        functions = {name: call for module, needed in NEEDED.items() for name, call in find_functions(module, needed)}
        with client_of_environment() as client:
            backfill = Backfill(KeptByBackend(**functions), client, DoneFile(arguments.done), note_owner)
            for uid in arguments.uids:
                if arguments.people:
                    LOG.info("%s: %d voices learned", uid, backfill.people(uid))
                LOG.info("%s: %d conversations, %.0f s of audio sent", uid, *backfill.conversations(uid))
    except (BackendUnknown, OmiClientError, OSError) as error:
        LOG.error("ended: %s; started again, it goes on where it was", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
