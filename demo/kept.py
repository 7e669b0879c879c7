"""Leaving the demo running, with one line mislabelled on purpose, for a person who tries the page."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence

import httpx
from rich.console import Console

from demo.call import MIN_JUDGED_S
from demo.programs import MODULES, Programs, free_port
from schemas.conversation import ConversationUpdated, TranscriptSegment

BY = "the demo, wrong on purpose"
CHECK_S = 1.0
MAX_STARTS = 10  # of each program after it ended: one that cannot run is not started for ever


def open_door() -> dict[str, str]:
    """Return the settings of a door for the page on a free port, and for this program's own request."""
    return {"OMI_HTTP_PORT": str(free_port()), "OMI_HTTP_TOKEN": secrets.token_hex(16)}


def mislabel(conversation_id: str, segments: Sequence[TranscriptSegment], update: ConversationUpdated) -> str:
    """Say of a short line that the other speaker says it, as a person would, and return its text.

    Of a short one: what is said of most of a voice's speech is said of the voice, and the two would become one.
    """
    speakers = {label.id: label.speaker_id for label in update.segments}
    lengths_s = {segment.id: segment.end_s - segment.start_s for segment in segments}
    judged = [segment for segment in segments if speakers.get(segment.id) is not None]
    chosen = min(
        (segment for segment in judged if lengths_s[segment.id] >= MIN_JUDGED_S), key=lambda it: lengths_s[it.id]
    )
    other = next(number for number in speakers.values() if number not in (None, speakers[chosen.id]))
    event = {
        "schema": "conversation-event",
        "version": "1.1",
        "event_id": f"e-{secrets.token_hex(12)}",
        "type": "corrected",
        "by": BY,
        "corrections": [{"kind": "segment_is", "segment_id": chosen.id, "speaker_id": other}],
    }
    httpx.post(
        f"http://127.0.0.1:{os.environ['OMI_HTTP_PORT']}/v1/conversations/{conversation_id}/events",
        json=event,
        headers={"Authorization": f"Bearer {os.environ['OMI_HTTP_TOKEN']}"},
    ).raise_for_status()
    return chosen.text


def keep_running(programs: Programs, console: Console) -> None:
    """Print a link to the page and wait until Ctrl-C; a program that ends is started again."""
    command = [sys.executable, "-c", f"from {MODULES['omi-bridge']} import main; main()", "page"]
    link = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    console.print(f"\nThe page, for one browser within ten minutes:\n{link}", highlight=False, soft_wrap=True)
    console.print(
        "One line of the conversation `call` is given to the wrong speaker on purpose. Find it, correct it, name both "
        "voices, take it back. Ctrl-C ends everything and deletes its data.",
        soft_wrap=True,
    )
    starts = Counter[str]()
    while True:
        go_on(programs, starts, console)
        time.sleep(CHECK_S)


def go_on(programs: Programs, starts: Counter[str], console: Console) -> None:
    """Start each program again that has ended, its data as it was, and say so; `starts` counts that for each."""
    for program in programs.running:
        if not program.has_ended or starts[program.name] > MAX_STARTS:
            continue
        starts[program.name] += 1
        ended = f"{program.name} ended (exit code {program.process.returncode}; its log: {program.log_file})"
        if starts[program.name] > MAX_STARTS:
            ended += ", too often: it stays ended, the rest goes on"
        else:
            program.restart()
            ended += ": started again, nothing is lost"
        console.print(ended, highlight=False, soft_wrap=True)
