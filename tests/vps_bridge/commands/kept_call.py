"""A conversation in the files of a bridge that is stopped, and commands on it in this process."""

from pathlib import Path

from typer.testing import CliRunner, Result

from schemas.conversation import TranscriptSegment, Word
from vps_bridge.commands.main import app
from vps_bridge.conversations.sqlite import STORE_FILE, SqliteConversations
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.records import NewChunk, SpeakerHints
from vps_bridge.rules.assemble import JobPlan, PlannedChunk


class KeptCall:
    """The conversation `call`, of one segment `s-1`, and a job that failed."""

    def __init__(self, data_dir: Path, *, text: str = "hello", speaker: str = "SPEAKER_00", message: str = "") -> None:
        self.data_dir = data_dir
        ledger = Ledger(data_dir / "bridge", exclusive=True)
        chunk = NewChunk("call", "k", "0" * 64, 1_000, "s", "wav")
        ledger.chunks.accept(chunk, SpeakerHints(), final=True)
        (self.job_id,) = ledger.jobs.add("call", (JobPlan((PlannedChunk("k", None),), ("k",)),))
        ledger.jobs.give_up(self.job_id, "engine.crashed", message)
        ledger.close()
        store = SqliteConversations(data_dir / "bridge" / STORE_FILE)
        words = tuple(
            Word(text=word, start_s=place, end_s=place + 0.5) for place, word in enumerate(text.split()) if word
        )
        segment = TranscriptSegment(id="s-1", start_s=0.5, end_s=4.5, text=text, speaker=speaker, words=words)
        store.upsert_segments("call", 1, [segment])
        store.close()

    def run(self, *arguments: str) -> Result:
        """Run a command of `omi-bridge`."""
        environment = {"OMI_DATA_DIR": str(self.data_dir), "OMI_CONFIG": "", "COLUMNS": "200"}
        return CliRunner().invoke(app, list(arguments), env=environment)
