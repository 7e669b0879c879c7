"""What a command says of a transcript whose times cannot be, before any audio is compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vps_bridge.commands.terminal import err

if TYPE_CHECKING:
    from schemas.conversation import TranscriptSegment


def tell_odd_times(segments: Sequence[TranscriptSegment]) -> list[str]:
    """Say on stderr what is odd about the times, and return it."""
    from vps_bridge.labelling.transcript_times import describe_own_times

    found = describe_own_times(segments)
    for words in found:
        err.print(f"omi-bridge: {words}", style="yellow", highlight=False, soft_wrap=True)
    return found
