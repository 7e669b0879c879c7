"""Record the results of stock pyannote on real recordings: `python -m benchmarks.record_stock dev00 trn01`.

Writes one file per recording into `tests/mac_agent/engines/golden/`; `test_golden_stock.py` compares *exact* with them.
Uses the seeded pipeline directory of `benchmarks.local_pipeline`; takes minutes for a minute of audio on two cores.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.local_pipeline import build_pipeline_directory
from benchmarks.recordings import SHARED_AUDIO
from mac_agent.audio import decode
from mac_agent.engines.pyannote_engine import to_diarization

if TYPE_CHECKING:
    from mac_agent.engines.engine import Diarization, Waveform

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "mac_agent" / "engines" / "golden"
DECIMALS = 6
MAX_S = 3600.0


def main() -> None:
    """Record the recordings that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stems", nargs="*", help="names of files in shared/audio without their ending; all without any")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    paths = sorted(path for path in SHARED_AUDIO.rglob("*") if path.suffix in {".wav", ".flac"})
    if unknown := set(options.stems) - {path.stem for path in paths}:
        parser.error(f"no recording {', '.join(sorted(unknown))} in {SHARED_AUDIO}")
    GOLDEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        pipeline = load_stock(build_pipeline_directory(Path(scratch)))
        for path in paths:
            if not options.stems or path.stem in options.stems:
                found = run_stock(pipeline, read_waveform(path))
                relative = path.relative_to(SHARED_AUDIO).as_posix()
                (GOLDEN / f"{path.stem}.json").write_text(json.dumps(as_record(relative, found), indent=1) + "\n")
                print(f"{relative}: {len(found.turns)} turns, {len(found.speakers)} speakers", flush=True)


def load_stock(directory: Path) -> Any:  # noqa: ANN401 - pyannote's
    """Load a pipeline directory as pyannote.audio does, its speaker network at the batch that suits a CPU best."""
    from pyannote.audio import Pipeline  # noqa: PLC0415 - `local_pipeline` must set its environment first

    pipeline: Any = Pipeline.from_pretrained(directory)
    pipeline.embedding_batch_size = 1
    return pipeline


def read_waveform(path: Path) -> Waveform:
    """Decode a recording as the agent does."""
    with path.open("rb") as stream:
        return decode(stream, encoding="auto", sample_rate=None, channels=None, max_s=MAX_S).waveform


def run_stock(pipeline: Any, waveform: Waveform) -> Diarization:  # noqa: ANN401 - pyannote's
    """Return stock pyannote's result, with labels and ends of turns as in the results of our engine."""
    file = {"waveform": torch.from_numpy(waveform)[None], "sample_rate": 16_000, "uri": "recording"}
    return to_diarization(pipeline.apply(file), len(waveform) / 16_000)


def as_record(path: str, found: Diarization) -> dict[str, Any]:
    """Return what a test compares with."""
    return {
        "path": path,
        "turns": [[round(t.start_s, DECIMALS), round(t.end_s, DECIMALS), t.speaker] for t in found.turns],
        "exclusive_turns": [
            [round(t.start_s, DECIMALS), round(t.end_s, DECIMALS), t.speaker] for t in found.exclusive_turns
        ],
        "embeddings": {
            speaker.speaker: [round(float(value), DECIMALS) for value in speaker.embedding]
            for speaker in found.speakers
            if speaker.embedding is not None
        },
    }


if __name__ == "__main__":
    main()
