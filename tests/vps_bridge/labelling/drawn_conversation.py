"""A conversation that a seed draws: who speaks when, and jobs of an engine that makes the mistakes of real ones."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from schemas.turns import ChunkSpan, SpeakerTurn, SpeakerVoice
from tests.vps_bridge.labelling.new_transcription import Transcription, first_transcription
from tests.vps_bridge.labelling.test_relabel import T0, chunks_of
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.rules.assemble import AssemblyRules, JobPlan, plan_jobs

CHUNK_S, LONG_S, DIM = 10.0, 6.0, 32


class DrawnConversation:
    """Two to four people; in some, jobs take two for one or one for two, or give lines to the wrong one."""

    def __init__(self, seed: int, *, overlaps: bool = False) -> None:
        """`overlaps`: whoever listens says something within some long lines, as a line of its own."""
        draw = self._draw = random.Random(seed)
        self.people = "ABCD"[: draw.choice([2, 3, 3, 4])]
        sounds = np.linalg.qr(np.random.default_rng(seed).normal(size=(DIM, 5)))[0].T
        self._sound = dict(zip(self.people, sounds, strict=False))
        self.alike = draw.choice([0.5, 0.7, 0.85]) if draw.random() < 0.3 else 0.0  # the first two, as cosine
        if self.alike:
            self._sound["B"] = self.alike * sounds[0] + np.sqrt(1 - self.alike**2) * sounds[1]
        self._noise = draw.choice([0.04, 0.04, 0.1])
        self.lines, end_s = self._draw_lines()
        if overlaps:
            self.lines = [one for line in self.lines for one in self._with_listener(line)]
        self.chunks = tuple(chunks_of((end_s // CHUNK_S + 1) * CHUNK_S, CHUNK_S))
        rules = AssemblyRules(min_job_s=20.0, max_job_s=draw.choice([30.0, 40.0, 60.0, 200.0]))
        plans = plan_jobs(self.chunks, closing=True, idle_s=0.0, rules=rules)
        self._share_of_wrong_jobs = draw.choice([0.0, 0.3, 0.6])
        self.jobs = tuple(self._diarize(plan) for plan in plans)
        self.transcription = first_transcription(self.lines)
        self.segments, self.truth = self.transcription.segments, self.transcription.truth

    def heard(self, jobs: Sequence[JobEvidence], transcription: Transcription | None = None) -> list[str]:
        """Return the lines that somebody speaks, and of which these jobs heard all."""
        begin = {chunk.chunk_id: chunk.captured_at_s - T0 for chunk in self.chunks}
        starts = {begin[span.chunk_id] for job in jobs for span in job.chunks}
        found = []
        for name, (who, start_s, end_s, _) in (transcription or self.transcription).lines.items():
            covered_s = sum(max(0.0, min(end_s, at_s + CHUNK_S) - max(start_s, at_s)) for at_s in starts)
            if who and covered_s >= end_s - start_s - 1e-6:
                found.append(name)
        return found

    def _draw_lines(self) -> tuple[list[tuple[str, float, float]], float]:
        draw, at_s, last = self._draw, 0.5, ""
        lines = []
        for _ in range(draw.randint(8, 22)):
            others = [one for one in self.people if one != last]
            last = draw.choice(others if draw.random() < 0.8 else list(self.people))
            length_s = draw.choice([1.5, 2.5, 4.0, 6.0, 7.5])
            lines.append((last, at_s, at_s + length_s))
            at_s += length_s + draw.choice([0.3, 0.8, 1.2])
        return lines, at_s

    def _with_listener(self, line: tuple[str, float, float]) -> list[tuple[str, float, float]]:
        who, start_s, end_s = line
        if end_s - start_s < LONG_S or self._draw.random() < 0.5:
            return [line]
        other, at_s = self._draw.choice([one for one in self.people if one != who]), start_s + 2.0
        return [line, (other, at_s, at_s + self._draw.choice([0.8, 1.5]))]

    def _parts(self, n: int) -> list[tuple[float, float]]:
        """Return when whoever speaks a line is the only one who speaks."""
        _, start_s, end_s = self.lines[n]
        inner = [(a, b) for _, a, b in self.lines[n + 1 : n + 2] if b < end_s]
        return [(start_s, inner[0][0]), (inner[0][1], end_s)] if inner else [(start_s, end_s)]

    def _draw_mistake(self) -> dict[tuple[int, str], str]:
        """Return by line and person whom the engine takes a person for, where that is somebody else."""
        draw, lines = self._draw, range(len(self.lines))
        if draw.random() >= self._share_of_wrong_jobs:
            return {}
        kind, (one, other) = draw.choice(["merge", "split", "lines", "lines"]), draw.sample(self.people, 2)
        if kind == "merge":
            return {(n, other): one for n in lines}
        if kind == "split":
            return {(n, one): f"{one}{n % 2}" for n in lines}
        wrong = [n for n in lines if draw.random() < 0.15]
        return {
            (n, who): [one for one in self.people if one != who][n % (len(self.people) - 1)]
            for n in wrong
            for who in self.people
        }

    def _diarize(self, plan: JobPlan) -> JobEvidence:
        mistake, begin = self._draw_mistake(), {chunk.chunk_id: chunk.captured_at_s - T0 for chunk in self.chunks}
        spans, turns, at_s = [], [], 0.0
        for planned in plan.chunks:
            at_s = at_s if planned.start_s is None else planned.start_s
            spans.append(ChunkSpan(chunk_id=planned.chunk_id, start_s=at_s, duration_s=CHUNK_S))
            first_s = begin[planned.chunk_id]
            for n, start_s, end_s in [
                (place, *part) for place in range(len(self.lines)) for part in self._parts(place)
            ]:
                if start_s < first_s + CHUNK_S and end_s > first_s:
                    who = self.lines[n][0]
                    taken_for = mistake.get((n, who), who)
                    moved = max(start_s, first_s) - first_s + at_s, min(end_s, first_s + CHUNK_S) - first_s + at_s
                    turns.append((*moved, taken_for, who))
            at_s += CHUNK_S
        found = sorted(sorted({turn[2] for turn in turns}), key=lambda _: self._draw.random())
        label = {name: f"SPEAKER_{index:02d}" for index, name in enumerate(found)}
        noise = np.random.default_rng(self._draw.randrange(1 << 30))
        speakers = []
        for name in found:
            own = [turn for turn in turns if turn[2] == name]
            sound = sum((turn[1] - turn[0]) * self._sound[turn[3]] for turn in own)
            sound = sound / np.linalg.norm(sound) + noise.normal(scale=self._noise, size=DIM)
            data, clean_s = sound.astype("<f4").tobytes(), sum(turn[1] - turn[0] for turn in own)
            speakers.append(SpeakerVoice(speaker=label[name], clean_speech_s=clean_s, embedding=data))
        exclusive = tuple(
            SpeakerTurn(start_s=start_s, end_s=end_s, speaker=label[name]) for start_s, end_s, name, _ in sorted(turns)
        )
        return JobEvidence(
            "job-" + plan.fresh[0], tuple(spans), exclusive, exclusive, tuple(speakers), "wespeaker", "1"
        )
