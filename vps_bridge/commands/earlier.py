"""What an import says of the transcript that a conversation had before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vps_bridge.commands.terminal import err, load

if TYPE_CHECKING:
    from schemas.conversation import TranscriptSegment
    from vps_bridge.conversations.earlier_transcript import EarlierTranscript

MAX_SHOWN_IDS = 5


def find_earlier(
    conversation: str, segments: Sequence[TranscriptSegment], config: Path | None, data_dir: Path | None
) -> EarlierTranscript:
    """Compare with what the bridge's store has; nothing where that is a file, on another machine."""
    from vps_bridge.conversations.earlier_transcript import EarlierTranscript, compare_transcripts
    from vps_bridge.conversations.open_store import open_store
    from vps_bridge.conversations.sqlite import STORE_FILE

    settings = load(config, "bridge", data_dir=data_dir)
    if settings.conversations_url is None and not (settings.root / STORE_FILE).exists():
        return EarlierTranscript()
    store = open_store(settings)
    try:
        stored = store.read(conversation)
    finally:
        store.close()
    return compare_transcripts(stored.segments, segments) if stored else EarlierTranscript()


def tell_earlier(earlier: EarlierTranscript, *, is_replaced: bool) -> None:
    """Say on stderr which segments of it stay, and which labels of people stand on other words now."""
    if earlier.gone and not is_replaced:
        what = "of an earlier transcript are not in this file and stay: `omi-bridge import --replace` removes them"
        _warn(f"{name_segments(earlier.gone)} {what}")
    if earlier.gone_labelled:
        _warn(f"{name_segments(earlier.gone_labelled)} are not in this file and stay, because a person labelled them")
    if earlier.moved_labelled:
        what = "carry the label that a person gave to what was said at another time: look at them"
        _warn(f"{name_segments(earlier.moved_labelled)} {what}")
    if earlier.overwritten:
        what = (
            "of an earlier transcript are overwritten: this file has other words, said at another time, under their "
            "ids. If it is a further part, import all parts as one file whose times go on"
        )
        _warn(f"{name_segments(earlier.overwritten)} {what}")


def name_segments(ids: Sequence[str]) -> str:
    """Return how many segments there are, and the first of their ids."""
    more = ", …" if len(ids) > MAX_SHOWN_IDS else ""
    return f"{len(ids)} segments ({', '.join(ids[:MAX_SHOWN_IDS])}{more})"


def _warn(message: str) -> None:
    err.print(f"omi-bridge: {message}", style="yellow", highlight=False, soft_wrap=True, markup=False)
