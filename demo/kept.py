"""Leaving the demo running, with one line mislabelled on purpose, for a person who tries the page."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence

import httpx
from rich.console import Console

from demo.call import MIN_JUDGED_S
from demo.programs import MODULES, DemoProgram, Programs, free_port
from schemas.conversation import ConversationUpdated, TranscriptSegment

BY = "the demo, wrong on purpose"
CHECK_S = 1.0
MAX_RESTARTS = 10  # of each program: one that cannot run is not started for ever


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
    restarts = dict.fromkeys((program.name for program in programs.running), 0)
    while True:
        for program in programs.running:
            if program.has_ended and restarts[program.name] <= MAX_RESTARTS:
                restarts[program.name] += 1
                _go_on(program, console, is_last=restarts[program.name] > MAX_RESTARTS)
        time.sleep(CHECK_S)


def _go_on(program: DemoProgram, console: Console, *, is_last: bool) -> None:
    """Say that a program ended, and start it again unless it ended too often; its data stays as it is."""
    ended = f"{program.name} ended (exit code {program.process.returncode}; its log: {program.log_file})"
    if is_last:
        console.print(f"{ended}, too often: it stays ended, the rest goes on", highlight=False, soft_wrap=True)
        return
    program.restart()
    console.print(f"{ended}: started again, nothing is lost", highlight=False, soft_wrap=True)
