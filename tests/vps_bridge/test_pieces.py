"""A transcript that comes as one block with the times of its words: who said which, over a real broker."""

from schemas.conversation import EventType, TranscriptSegment, Word
from tests.brokers import RunningBroker
from tests.vps_bridge.live_bridge import CALL_S, CALL_TURNS, STARTED_AT, Backend, LiveBridge
from tests.vps_bridge.scripted_agent import ScriptedAgent, make_wav

WORD_S = 0.5
BLOCK = TranscriptSegment(
    id="block",
    start_s=CALL_TURNS[0][0],
    end_s=CALL_TURNS[-1][1],
    text="all that was said",
    speaker="SPEAKER_00",
    words=tuple(
        Word(text=f"{who}{place}", start_s=start_s + place * WORD_S, end_s=start_s + (place + 1) * WORD_S)
        for start_s, end_s, who in CALL_TURNS
        for place in range(round((end_s - start_s) / WORD_S))
    ),
)


def test_a_block_is_cut_at_its_words_shown_and_put_back_by_an_undo(
    mosquitto: RunningBroker, backend: Backend, bridge: LiveBridge
) -> None:
    bridge.allow("first")
    with ScriptedAgent(mosquitto, "first") as agent:
        backend.event("block", EventType.STARTED, started_at=STARTED_AT)
        backend.event("block", EventType.SEGMENTS, segments=(BLOCK,))
        before = bridge.json("show", "block")["segments"]
        backend.audio("block", make_wav(CALL_S, tone=77), captured_at=STARTED_AT)
        backend.event("block", EventType.COMPLETED, chunks=1)
        agent.answer(agent.wait_offer("block"), CALL_TURNS)
        (label,) = backend.wait_updated("block").segments
    assert label.pieces is not None
    assert [(piece.start_s, piece.end_s) for piece in label.pieces] == [turn[:2] for turn in CALL_TURNS]
    assert [piece.speaker for piece in label.pieces] == ["SPEAKER_00", "SPEAKER_01"] * 3
    shown = bridge.command("show", "block").stdout
    assert all(line in shown for line in ("a0 a1 a2", "b0 b1 b2"))
    cut = bridge.json("show", "block")["segments"]
    bridge.command("undo", "block", "1")
    after = bridge.json("show", "block")["segments"]
    assert after == before
    bridge.command("undo", "block", "2")
    assert bridge.json("show", "block")["segments"] == cut
    bridge.command("redo", "block", "2", "--by", "anna")
    assert bridge.json("show", "block")["segments"] == before
    bridge.command("redo", "block", "1")
    assert bridge.json("show", "block")["segments"] == cut
    done = bridge.command("redo", "block", "1", check=False)
    assert (done.returncode, "is not undone" in done.stderr) == (1, True)
