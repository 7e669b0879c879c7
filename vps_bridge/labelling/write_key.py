"""The key under which a relabelling is written: the same evidence under the same policy is written once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import astuple

from vps_bridge.labelling.evidence import AudioTimeline, ConversationEvidence
from vps_bridge.labelling.job_evidence import JobEvidence
from vps_bridge.rules.assemble import order_chunks


def make_write_key(
    evidence: ConversationEvidence, timeline: AudioTimeline, policy_facts: Mapping[str, object], people_facts: object
) -> str:
    """Return the sha256 of all that decides the labels, without the labels that this pipeline wrote itself.

    Keys are stored with the conversations. A name in here, or the name of a field of the policy, must not change: every
    conversation would get another key, and be written and reported again.
    """
    chunks = order_chunks(timeline.chunks)
    key_facts: dict[str, object] = {
        "policy": policy_facts,
        "conversation": [evidence.conversation_id, evidence.started_at_s],
        "hints": [evidence.num_speakers, evidence.min_speakers, evidence.max_speakers],
        "links": sorted((link.kind, *astuple(link.a), *astuple(link.b)) for link in evidence.links),
        "placed": [[place.chunk_id, place.stretch, place.start_s, place.duration_s] for place in timeline.placed],
        "captured": [chunk.captured_at_s for chunk in chunks],
        "jobs": [_job_facts(job) for job in sorted(evidence.jobs, key=lambda job: job.job_id)],
        "segments": sorted(
            [
                segment.id,
                segment.start_s,
                segment.end_s,
                segment.original_speaker,
                segment.is_human_labelled,
                segment.is_user,
                segment.person_id,
                *((word.start_s, word.end_s) for word in segment.words or ()),
            ]
            for segment in evidence.segments
        ),
    }
    errors_s = [chunk.captured_error_s for chunk in chunks]
    if any(errors_s):
        key_facts["captured_errors"] = errors_s
    if timeline.awaited:
        key_facts["awaited"] = _awaited_facts(timeline)
    if evidence.corrections:
        said = [(kept.write, kept.said.model_dump(mode="json", exclude={"anyway"})) for kept in evidence.corrections]
        key_facts["corrections"] = said
    if people_facts:
        key_facts["people"] = people_facts
    words = {segment.id: [(word.start_s, word.end_s) for word in segment.words or ()] for segment in evidence.segments}
    if any(words.values()):
        key_facts["words"] = words
    return hashlib.sha256(json.dumps(key_facts, sort_keys=True).encode()).hexdigest()


def _awaited_facts(timeline: AudioTimeline) -> list[object]:
    """Return where labels are held back: those of the end are written though no result is new."""
    return [[job_id, sorted(at.before), sorted(at.after)] for job_id, at in sorted(timeline.awaited.items())]


def _job_facts(job: JobEvidence) -> list[object]:
    """Return what a job contributes to the write key."""
    voices = [(voice.speaker, voice.clean_speech_s, (voice.embedding or b"").hex()) for voice in job.speakers]
    turns = [(turn.start_s, turn.end_s, turn.speaker) for turn in (*job.exclusive_turns, *job.turns)]
    spans = [(span.chunk_id, span.start_s, span.duration_s) for span in job.chunks]
    facts: list[object] = [job.job_id, spans, turns, voices, job.embedding_model, job.embedding_revision]
    samples = job.voice_samples
    return facts if samples is None else [*facts, hashlib.sha256(samples.embeddings + samples.times_s).hexdigest()]
