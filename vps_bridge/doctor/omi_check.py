"""Check the listener for OMI's webhooks: who may send, and what was turned away."""

from __future__ import annotations

from broker.check import Check, failed, ok
from vps_bridge.durations import seconds
from vps_bridge.intake.capture_counts import CaptureCounts
from vps_bridge.omi.counts_file import read_counts
from vps_bridge.omi.door import LABELS_REMEDY, OMI_LABELS
from vps_bridge.omi.users import UserFile, UsersFileBroken
from vps_bridge.settings import BridgeSettings

NAME = "omi webhooks"
RECENT_S = 24 * 3600.0


def check_omi(settings: BridgeSettings, now: float) -> list[Check]:
    """Check the listener, if there is one. `now` is Unix time."""
    if settings.omi_http_port == 0:
        return []
    try:
        users = UserFile(settings.root).all()
    except UsersFileBroken as error:
        return [failed(NAME, "nobody is let in", str(error))]
    counts = read_counts(settings.root)
    if not users:
        found = failed(NAME, "on, and nobody may send", "Add a user: omi-bridge omi add UID")
        return [found] if counts is None else [found, *_check_labels(settings, counts)]
    if counts is None:
        return [failed(NAME, "on in these settings, off in the running bridge", "Restart the bridge.")]
    return [_check_posts(counts, len(users), now), *_check_labels(settings, counts)]


def _check_posts(counts: CaptureCounts, users: int, now: float) -> Check:
    since_s = None if counts.turned_away_at is None else now - counts.turned_away_at
    if since_s is None or since_s > RECENT_S:
        return ok(NAME, f"{users} users may send")
    found = f"{counts.turned_away} POSTs turned away since the start, the last {seconds(max(0.0, since_s))} ago"
    return failed(NAME, found, f"OMI drops what they held. {counts.reason}")


def _check_labels(settings: BridgeSettings, counts: CaptureCounts) -> list[Check]:
    if settings.omi_api_url is None:
        return []
    if not counts.labels_error:
        return [ok(OMI_LABELS, "OMI takes them")]
    found = f"those of {counts.labels_waiting} conversations wait; {counts.labels_error}"
    return [failed(OMI_LABELS, found, LABELS_REMEDY[0].upper() + LABELS_REMEDY[1:] + ".")]
