"""`omi-bridge import`: the transcript of a conversation, and what becomes of an earlier one's."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.terminal import print_json
from vps_bridge.commands.earlier import find_earlier, name_segments, tell_earlier
from vps_bridge.commands.odd_times import tell_odd_times
from vps_bridge.commands.publish import TRANSCRIPT_HELP, to_utc
from vps_bridge.commands.terminal import (
    AsJson,
    BrokerUrl,
    ConfigFile,
    Conversation,
    ConversationOwner,
    DataDir,
    explained,
    load,
    out,
)

if TYPE_CHECKING:
    from schemas.conversation import TranscriptSegment
    from vps_bridge.conversations.earlier_transcript import EarlierTranscript


def import_transcript(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help=TRANSCRIPT_HELP)],
    conversation: Conversation,
    started_at: Annotated[
        datetime | None, typer.Option(help="Absolute time of the transcript's zero; without a zone, this machine's.")
    ] = None,
    keep_speakers: Annotated[bool, typer.Option(help="Keep the speakers the file names.")] = True,
    replace: Annotated[
        bool | None,
        typer.Option(
            "--replace/--no-replace",
            help="Remove the segments that an earlier import brought and this file does not have, but for those that a "
            "person labelled. Default: ask; where nobody can answer they stay.",
        ),
    ] = None,
    owner: ConversationOwner = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    broker_url: BrokerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Import a transcript as a conversation's segments.

    On the bridge's machine it says what an earlier transcript leaves behind, and removes it if you want.

    Example: omi-bridge import transcript.json --conversation call-1
    """
    from vps_bridge.client.client import BridgeClient
    from vps_bridge.conversations.transcripts import read_transcript

    started = to_utc(started_at)
    with explained():
        segments = read_transcript(file, conversation, keep_speakers=keep_speakers)
        earlier = find_earlier(conversation, segments, config, data_dir)
        is_replaced = _decide(earlier, replace)
        settings = load(config, "backend", data_dir=data_dir, broker_url=broker_url)
        with BridgeClient(settings, conversation) as client:
            client.wait_bridge()
            client.start(started, owner=owner)
            client.send_segments(segments)
            if is_replaced:
                client.remove_segments(earlier.gone)
        _tell(conversation, segments, earlier, is_replaced=is_replaced, as_json=as_json)


def _tell(
    conversation: str,
    segments: Sequence[TranscriptSegment],
    earlier: EarlierTranscript,
    *,
    is_replaced: bool,
    as_json: bool,
) -> None:
    warnings = tell_odd_times(segments)
    if as_json:
        left = [*earlier.gone_labelled, *(() if is_replaced else earlier.gone)]
        counts = {"segments": len(segments), "removed": len(earlier.gone) if is_replaced else 0}
        ids = {"left": left, "moved": earlier.moved_labelled, "overwritten": earlier.overwritten}
        print_json({"conversation_id": conversation, **counts, **ids, "warnings": warnings})
    else:
        removed = f", removed {len(earlier.gone)} of an earlier one" if is_replaced else ""
        out.print(f"imported {len(segments)} segments into {conversation}{removed}")
    tell_earlier(earlier, is_replaced=is_replaced)


def _decide(earlier: EarlierTranscript, replace: bool | None) -> bool:
    if not earlier.gone:
        return False
    if replace is None and sys.stdin.isatty():
        question = f"{name_segments(earlier.gone)} of an earlier transcript are not in this file: remove them?"
        return typer.confirm(question, err=True)
    return bool(replace)
