"""A completed conversation that is one job: there is nothing to link, and its engine's answer stands."""

from __future__ import annotations

from dataclasses import replace

from vps_bridge.labelling.evidence import ConversationEvidence
from vps_bridge.labelling.link import LinkingRules


def linking_rules_for(evidence: ConversationEvidence, rules: LinkingRules) -> LinkingRules:
    """Return the rules of linking for a conversation.

    Little speech makes no voice because it is easily taken for somebody else's in another job. Where one job has all
    the audio there will ever be, there is no other: each of its speakers is a voice, however short it speaks.
    """
    if not evidence.is_final or len(evidence.jobs) != 1:
        return rules
    (job,) = evidence.jobs
    if {chunk.chunk_id for chunk in evidence.chunks} != {span.chunk_id for span in job.chunks}:
        return rules  # some audio has no result
    least_s = {turn.speaker: 0.0 for turn in (*job.turns, *job.exclusive_turns)}
    least_s |= {voice.speaker: voice.clean_speech_s for voice in job.speakers}
    if min(least_s.values(), default=rules.min_clean_speech_s) >= rules.min_clean_speech_s:
        return rules  # they would make no difference, and other rules are another write key
    return replace(rules, min_clean_speech_s=0.0)
