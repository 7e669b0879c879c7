"""Talks whose samples say who speaks, so that an agent without an engine can tell, and the agent that does."""

import contextlib
import random
import threading
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.agent import AgentControl
from schemas.codec import encode
from schemas.turns import ChunkSpan, SpeakerTurn
from tests.omi.traffic import Talk
from tests.vps_bridge.scripted_agent import ScriptedAgent

SpokenTurn = tuple[float, float, str]
"""(start_s, end_s, speaker)"""
RATE = 8_000
LOUDNESS = {"a": 1_000, "b": 2_000, "c": 3_000}
STEP = RATE // 100


def coded_talk(turns: list[SpokenTurn], began_at: float, tail_s: float = 1.0) -> Talk:
    """A talk of these turns: every sample of a turn has its speaker's loudness."""
    samples = np.zeros(round((turns[-1][1] + tail_s) * RATE), np.int16)
    for start_s, end_s, speaker in turns:
        samples[round(start_s * RATE) : round(end_s * RATE)] = LOUDNESS[speaker]
    return Talk(samples, RATE, began_at, tuple((start_s, end_s) for start_s, end_s, _ in turns))


def draw_turns(seed: int, length_s: float, speakers: str = "ab") -> list[SpokenTurn]:
    """Turns of a few seconds; the pauses between them are short, and now and then long."""
    draw, turns, at_s, speaker = random.Random(seed), [], 1.0, speakers[0]
    while at_s < length_s:
        end_s = at_s + draw.uniform(1.5, 6.0)
        turns.append((round(at_s, 2), round(end_s, 2), speaker))
        at_s = end_s + (draw.uniform(2.0, 12.0) if draw.random() < 0.25 else draw.uniform(0.2, 0.8))
        speaker = draw.choice([one for one in speakers if one != speaker])
    return turns


def rows_of(turns: list[SpokenTurn], name: str, zero_s: float = 0.0) -> list[dict[str, Any]]:
    """A transcript of the turns; its second 0 is second `zero_s` of the talk."""
    return [
        {"id": f"{name}-{place}", "start": start_s - zero_s, "end": end_s - zero_s, "text": "words"}
        for place, (start_s, end_s, _) in enumerate(turns)
    ]


class CodedAgent(ScriptedAgent):
    """Answers every job from what the samples say."""

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Work until the end."""
        ended = threading.Event()
        worker = threading.Thread(target=self._work, args=(ended,), daemon=True)
        worker.start()
        try:
            yield
        finally:
            ended.set()
            worker.join()

    def _work(self, ended: threading.Event) -> None:
        done = set[str]()
        while not ended.wait(0.05):
            for offer in list(self.offers.items):
                if offer.lease_id not in done:
                    done.add(offer.lease_id or "")
                    self._answer_coded(offer)

    def _answer_coded(self, offer: AgentControl) -> None:
        audio = self.pull(offer)
        turns: list[SpokenTurn] = []
        spans: list[ChunkSpan] = []
        end_s = 0.0
        for chunk in offer.chunks:
            samples = np.frombuffer(audio[chunk.chunk_id], np.int16)
            rate = chunk.sample_rate or RATE
            start_s = end_s if chunk.start_s is None else chunk.start_s
            end_s = start_s + len(samples) / rate
            spans.append(ChunkSpan(chunk_id=chunk.chunk_id, start_s=start_s, duration_s=end_s - start_s))
            turns += [(start_s + a, start_s + b, speaker) for a, b, speaker in _decode(samples)]
        result = self.result(offer, turns)
        said = tuple(SpeakerTurn(start_s=a, end_s=b, speaker=speaker) for a, b, speaker in turns)
        whole = result.model_copy(
            update={"chunks": tuple(spans), "duration_s": end_s, "turns": said, "exclusive_turns": said}
        )
        self.send_raw(offer.conversation_id or "", encode(whole))
        self.held.pop(offer.job_id or "", None)


def _decode(samples: NDArray[np.int16]) -> list[SpokenTurn]:
    steps = samples[: len(samples) // STEP * STEP].reshape(-1, STEP)[:, STEP // 2]
    found, place = [], 0
    for value, run in groupby(steps.tolist()):
        length = len(list(run))
        speaker = next((name for name, loudness in LOUDNESS.items() if loudness == value), None)
        if speaker is not None:
            found.append((place / 100, (place + length) / 100, speaker))
        place += length
    return found
