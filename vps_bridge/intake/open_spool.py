"""Opening the spool that the settings name: a directory, or a bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from broker.errors import SettingsError
from vps_bridge.bucket.address import read_bucket
from vps_bridge.bucket.audio import BucketAudio, is_in_bucket
from vps_bridge.bucket.keys import read_keys
from vps_bridge.bucket.objects import BucketObjects, BucketRefuses, BucketUnavailable
from vps_bridge.bucket.transfers import Transfers
from vps_bridge.errors import StoreUnavailable
from vps_bridge.intake.bucket_spool import COPIES, BucketSpool
from vps_bridge.intake.spool import SPOOL, Spool
from vps_bridge.ledger import Ledger
from vps_bridge.settings import BridgeSettings

_LOG = structlog.get_logger(__name__)
SCRATCH = "encrypted"  # below the bridge's root: what is on its way to the bucket, or from it


def open_audio(settings: BridgeSettings, ledger_id: str) -> BucketAudio | None:
    """Return a ledger's audio in the bucket of the settings; None where they name none. Nothing is asked of it yet.

    Raises `SettingsError`.
    """
    address = read_bucket(settings)
    if address is None:
        return None
    scratch = settings.root / SCRATCH
    keys = read_keys(settings.spool_key_file)
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    return BucketAudio(BucketObjects(address), keys, ledger_id, scratch)


class CommandSpool(Spool):
    """The spool as a command has it, beside a running bridge or without one: it waits for the bucket.

    Its methods raise `BucketUnavailable`.
    """

    def __init__(self, root: Path, audio: BucketAudio | None) -> None:
        """Use the files below the bridge's root, and the bucket, if the settings name one."""
        super().__init__(root / SPOOL)
        self._copies, self._audio = root / COPIES, audio

    def path(self, name: str) -> Path:
        """As `BucketSpool.path`."""
        return (self._copies if is_in_bucket(name) else self.directory) / name

    def remove(self, *names: str) -> frozenset[str]:
        """As `Spool.remove`."""
        asked = super().remove(*names)
        in_bucket = [name for name in asked if is_in_bucket(name)]
        if in_bucket and self._audio is None:
            words = (
                f"{len(in_bucket)} chunks are in a bucket that the settings do not name: set OMI_SPOOL_URL as it was"
            )
            raise BucketUnavailable(words)
        if self._audio is not None and in_bucket:
            self._audio.erase(in_bucket)
        return asked

    def erase(self, conversation_id: str, names: Iterable[str]) -> bool:
        """As `Spool.erase`."""
        self.remove(*names)
        if self._audio is not None:
            self._audio.erase_conversation(conversation_id)
        return True


def open_command_spool(settings: BridgeSettings, ledger_id: str) -> Spool:
    """Open the spool for a command, which shares it with a running bridge. Raises `SettingsError`."""
    return CommandSpool(settings.root, open_audio(settings, ledger_id))


def open_spool(settings: BridgeSettings, ledger: Ledger, on_thread: Callable[[Callable[[], object]], object]) -> Spool:
    """Open the spool of a running bridge; `on_thread` has something done by its own thread.

    A bucket that does not answer is asked again later: nothing is accepted until then.

    Raises:
        SettingsError: the bucket cannot be used as the settings have it, or the audio is in one and they name none.
    """
    in_bucket = sum(1 for name in ledger.chunks.spool_names() if is_in_bucket(name))
    audio = open_audio(settings, ledger.ledger_id)
    if audio is None:
        if in_bucket:
            words = (
                f"{in_bucket} chunks of audio were accepted into a bucket: set OMI_SPOOL_URL as it was until they are "
                "done, or give them up: omi-bridge purge --audio --older-than 0s"
            )
            raise SettingsError("spool_url", "the settings", words)
        return Spool(settings.root / SPOOL)
    if in_bucket:
        audio.note_known()
    try:
        audio.prove()
    except BucketRefuses as error:
        raise SettingsError("spool_url", "the settings", str(error)) from error
    except StoreUnavailable as error:
        _LOG.error("bucket_unavailable", error=str(error), remedy="audio is refused until it answers")
    return BucketSpool(
        settings.root,
        ledger,
        audio,
        copies_bytes=settings.spool_copies_bytes,
        orphan_s=settings.spool_orphan_s,
        transfers=Transfers(),
        on_thread=on_thread,
    )
