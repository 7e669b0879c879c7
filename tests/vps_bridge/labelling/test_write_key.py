"""The write key: it names the evidence for labels, is stored with each conversation, and must stay what it was."""

from __future__ import annotations

from schemas.turns import ChunkSpan, SpeakerTurn, SpeakerVoice
from vps_bridge.conversations.store import StoredSegment
from vps_bridge.labelling.link import SpeakerLink
from vps_bridge.labelling.local_speaker import LocalSpeaker
from vps_bridge.labelling.relabel import ConversationEvidence, JobEvidence, RelabelPolicy, relabel
from vps_bridge.rules.assemble import ChunkInfo

TURNS = (
    SpeakerTurn(start_s=0.5, end_s=4.25, speaker="SPEAKER_00"),
    SpeakerTurn(start_s=4.5, end_s=9.0, speaker="SPEAKER_01"),
)
EVIDENCE = ConversationEvidence(
    conversation_id="c1",
    chunks=(ChunkInfo("a", 0, 0, 1_700_000_000.0, 5.0), ChunkInfo("b", 1, 1, 1_700_000_005.0, 5.0)),
    jobs=(
        JobEvidence(
            job_id="j1",
            chunks=(
                ChunkSpan(chunk_id="a", start_s=0.0, duration_s=5.0),
                ChunkSpan(chunk_id="b", start_s=5.0, duration_s=5.0),
            ),
            turns=TURNS,
            exclusive_turns=TURNS,
            speakers=(SpeakerVoice(speaker="SPEAKER_00", clean_speech_s=3.75, embedding=b"\x00\x00\x80\x3f"),),
            embedding_model="wespeaker",
            embedding_revision="1",
        ),
    ),
    segments=(
        StoredSegment("s1", 0.5, 4.0, speaker="SPEAKER_00", speaker_id=0, original_speaker="SPEAKER_00"),
        StoredSegment("s2", 4.5, 9.0, person_id="p", label_source="manual"),
    ),
    started_at_s=1_700_000_000.0,
    links=(SpeakerLink("cannot", LocalSpeaker("j1", "SPEAKER_00"), LocalSpeaker("j1", "SPEAKER_01")),),
    min_speakers=2,
)
KEY = "357f87c2dc5caf9a41043da8a73804b16dc767efa1561b764de1d420a12c912d"


def test_the_same_evidence_has_the_same_key_in_every_version():
    """A new name in the policy or in the key's facts would write and report every stored conversation again.

    Only a threshold that is meant to change may change this key.
    """
    assert relabel(EVIDENCE, RelabelPolicy()).write_key == KEY
