"""A damaged or unreadable file of the bridge ends every command with one line that names a remedy."""

import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemas.conversation import TranscriptSegment
from tests.vps_bridge.waiting_job import add_waiting_job
from vps_bridge.commands.main import app
from vps_bridge.conversations.sqlite import STORE_FILE, SqliteConversations
from vps_bridge.ledger import Ledger
from vps_bridge.ledger.ledger import FILE_NAME

PAGE_BYTES, SEEDS = 4096, 12
COMMANDS = (
    ("conversations",),
    ("jobs",),
    ("failed", "--json"),
    ("show", "call-3"),
    ("history", "call-3"),
    ("undo", "call-3", "1", "--yes"),
    ("correct", "call-3", "name", "0", "anna"),
    ("export", "call-3", "--format", "srt"),
    ("retry", "--all"),
    ("purge", "call-3", "--yes"),
    ("agents", "allow", "second"),
    ("people", "list"),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a bridge with some conversations."""
    root = tmp_path_factory.mktemp("whole") / "bridge"
    ledger, store = Ledger(root, exclusive=True), SqliteConversations(root / STORE_FILE)
    for number in range(8):
        add_waiting_job(ledger, f"call-{number}", f"c-{number}", audio_s=60.0, final=False)
        segments = tuple(
            TranscriptSegment(id=f"s-{place}", start_s=place, end_s=place + 1, text="some words " * 20)
            for place in range(30)
        )
        store.upsert_segments(f"call-{number}", 1, segments)
    ledger.agents.set_allowed("first", allowed=True)
    store.close()
    ledger.close()
    return root


def damage(file: Path, drawn: random.Random) -> None:
    """Overwrite, cut or empty a file, or put something else in its place."""
    data = bytearray(file.read_bytes())
    kind = drawn.choice(("bytes", "page", "pages", "pages", "cut", "text", "folder"))
    start, count = drawn.randrange(len(data)), {"page": PAGE_BYTES, "pages": 40 * PAGE_BYTES}.get(kind, 8)
    match kind:
        case "cut":
            del data[start:]
        case "text":
            data = bytearray(b"hello" * 1_000)
        case "folder":
            file.unlink()
            file.mkdir()
            return
        case _:
            data[start : start + count] = drawn.randbytes(len(data[start : start + count]))
    file.write_bytes(data)


@pytest.mark.parametrize("name", [FILE_NAME, STORE_FILE])
def test_a_file_damaged_anywhere_ends_a_command_with_one_line(name: str, whole: Path, tmp_path: Path) -> None:
    told = 0
    for seed in range(SEEDS):
        drawn, root = random.Random(seed), tmp_path / str(seed) / "bridge"
        root.mkdir(parents=True)
        for file in (FILE_NAME, STORE_FILE):
            (root / file).write_bytes((whole / file).read_bytes())
        damage(root / name, drawn)
        for words in drawn.sample(COMMANDS, 5):
            done = CliRunner().invoke(app, [*words, "--data-dir", str(root.parent)], env={"OMI_CONFIG": ""})
            assert isinstance(done.exception, SystemExit | None), (seed, words, done.exception)
            if f"{name} cannot be used" in done.stderr:
                assert len(done.stderr.splitlines()) == 1, done.stderr
                assert "restore a backup" in done.stderr
                assert done.exit_code == 1
                told += 1
    assert told > SEEDS
