"""Check the bucket that audio is kept in: with an object of its own, put, read, and deleted in every version."""

from __future__ import annotations

import time

from broker.check import Check, failed, note, ok
from broker.errors import SettingsError
from vps_bridge.bucket.address import read_bucket
from vps_bridge.bucket.audio import is_in_bucket
from vps_bridge.errors import StoreUnavailable
from vps_bridge.intake.open_spool import open_audio
from vps_bridge.ledger import Ledger
from vps_bridge.settings import BridgeSettings

SLOW_S = 5.0
NAME = "bucket"


def check_bucket(settings: BridgeSettings, ledger: Ledger | None) -> list[Check]:
    """Check the bucket, if the settings name one, or the ledger has audio in one."""
    in_bucket = 0 if ledger is None else sum(map(is_in_bucket, ledger.chunks.spool_names()))
    try:
        address = read_bucket(settings)
        if address is None:
            return [_judge_missing(in_bucket)] if in_bucket else []
        if ledger is None:
            return [note(NAME, f"{address.shown}; it is looked at once a bridge has run")]
        audio = open_audio(settings, ledger.ledger_id)
        if audio is None:
            return []
        if in_bucket:
            audio.note_known()
        began_s = time.monotonic()
        audio.prove()
    except SettingsError as error:
        return [failed(NAME, str(error), "Correct the setting and restart the bridge.")]
    except StoreUnavailable as error:
        return [failed(NAME, str(error), "Audio is refused meanwhile, its publishers keep it: docs/bucket.md.")]
    took_s = time.monotonic() - began_s
    versions = "with versions, which are deleted too" if audio.objects.has_versions else "without versions"
    found = f"{address.shown}, {versions}: put, read and deleted in {took_s:.1f} s; {in_bucket} chunks are there"
    if took_s > SLOW_S:
        remedy = "Every chunk is accepted only once it is there: use a store that is nearer."
        return [failed(NAME, found, remedy)]
    return [ok(NAME, found)]


def _judge_missing(in_bucket: int) -> Check:
    words = f"{in_bucket} chunks of audio are in a bucket, and the settings name none"
    return failed(NAME, words, "Set OMI_SPOOL_URL as it was: the bridge does not start without it.")
