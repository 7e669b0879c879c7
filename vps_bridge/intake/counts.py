"""What the bridge counts in its memory, for `/metrics`."""

from __future__ import annotations

from typing import NamedTuple

from vps_bridge.bucket.counts import BucketCounts
from vps_bridge.intake.capture_counts import CaptureCounts


class BridgeCounts(NamedTuple):
    """Counts since the start."""

    messages_dropped: int
    """Messages that were not let in."""
    captured: CaptureCounts | None
    """What OMI's webhooks brought, None where their listener is off."""
    bucket: BucketCounts | None
    """Calls of the bucket, None where audio is in a directory."""
