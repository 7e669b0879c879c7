"""What the pyannote engine answers, compared with stock pyannote.audio on one local pipeline and real audio."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("pyannote.audio", reason="could not import pyannote.audio: install the agent extra")

import torch

from benchmarks.recordings import load_sample
from mac_agent.engines.agreement import changed_s
from mac_agent.engines.engine import Diarization, Hints, Turn
from mac_agent.engines.pyannote_device import FRAME_S
from mac_agent.engines.pyannote_engine import (
    PyannoteEngine,
    as_embedding,
    clean_seconds,
    load_pyannote,
    read_hints,
    to_diarization,
)
from mac_agent.engines.pyannote_pipeline import (
    EMBEDDINGS,
    SEGMENTATIONS,
    ExactDiarization,
    choose_masks,
    load_pipeline,
)
from mac_agent.engines.pyannote_stretch import Grid, StretchDiarization, cut_pieces, pool
from mac_agent.errors import InvalidWaveform

if TYPE_CHECKING:
    from mac_agent.engines.engine import Waveform

pytestmark = [pytest.mark.shared, pytest.mark.long]
CPU = torch.device("cpu")


def ignore(_stage: str, _done: float) -> None:
    pass


@pytest.fixture(scope="module")
def sample() -> Waveform:
    return load_sample().waveform


@pytest.fixture(scope="module")
def stages() -> dict[str, Any]:
    """The outputs of the networks for the sample; filled by `found`."""
    return {}


@pytest.fixture(scope="module")
def found(exact: PyannoteEngine, sample: Waveform, stages: dict[str, Any]) -> Diarization:
    apply = exact._pipeline.apply

    def keep(file: dict[str, Any], **options: Any) -> Any:
        output = apply(file, **options)
        stages.update({key: file[key] for key in (SEGMENTATIONS, EMBEDDINGS)})
        return output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact._pipeline, "apply", keep)
        return exact.diarize(sample, Hints(), ignore)


def run_stock(directory: Path, waveform: Waveform) -> tuple[Any, dict[str, Any]]:
    from pyannote.audio import Pipeline

    pipeline = Pipeline.from_pretrained(directory)
    assert pipeline is not None
    pipeline.embedding_batch_size = 1
    stages: dict[str, Any] = {}

    def keep(step: str, artifact: Any, **_: Any) -> None:
        if artifact is not None:
            stages[step] = artifact

    return pipeline.apply(
        {"waveform": torch.from_numpy(waveform)[None], "sample_rate": 16_000, "uri": "x"}, hook=keep
    ), stages


@pytest.fixture(scope="module")
def stock(directory: Path, sample: Waveform) -> tuple[Any, dict[str, Any]]:
    return run_stock(directory, sample)


@pytest.mark.slow
def test_exact_mode_gives_the_turns_of_stock_pyannote(stock: tuple[Any, Any], found: Diarization) -> None:
    theirs = to_diarization(stock[0], 30.0)
    assert len(theirs.turns) >= 8
    assert len(theirs.speakers) == 2
    assert changed_s(theirs.turns, found.turns, tolerance_s=FRAME_S) == 0.0
    assert changed_s(theirs.exclusive_turns, found.exclusive_turns, tolerance_s=FRAME_S) == 0.0


@pytest.mark.slow
def test_exact_mode_gives_the_embeddings_of_stock_pyannote(
    stock: tuple[Any, dict[str, Any]], found: Diarization, stages: dict[str, Any]
) -> None:
    theirs, ours = stock[1]["embeddings"], stages[EMBEDDINGS]
    assert ours.shape == theirs.shape == (21, 3, 256)
    assert np.abs(ours - theirs).max() < 1e-4  # the empty slots included
    speakers = to_diarization(stock[0], 30.0).speakers
    for mine, other in zip(found.speakers, speakers, strict=True):
        assert mine.embedding is not None
        assert other.embedding is not None
        assert np.abs(mine.embedding - other.embedding).max() < 1e-4


def test_speakers_are_named_by_first_speech_with_the_evidence_behind_them(found: Diarization) -> None:
    firsts = {turn.speaker: turn.start_s for turn in reversed(found.turns)}
    assert [speaker.speaker for speaker in found.speakers] == sorted(firsts, key=lambda name: firsts[name])
    assert found.speakers[0].speaker == "SPEAKER_00"
    for speaker in found.speakers:
        assert speaker.embedding is not None
        assert speaker.embedding.dtype == np.float32
        assert np.linalg.norm(speaker.embedding) == pytest.approx(1.0, abs=1e-5)
    overlap_s = sum(turn.end_s - turn.start_s for turn in found.turns) - found.speech_s
    assert overlap_s > 1.0
    alone_s = sum(speaker.clean_speech_s for speaker in found.speakers)
    assert alone_s == pytest.approx(found.speech_s - overlap_s, abs=0.05)  # never more than two at once here
    ends = [0.0, *(turn.end_s for turn in found.exclusive_turns)]
    assert all(turn.start_s >= end - 1e-6 for turn, end in zip(found.exclusive_turns, ends, strict=False))


def test_progress_rises_to_the_end_of_every_stage(exact: PyannoteEngine, sample: Waveform) -> None:
    heard: list[tuple[str, float]] = []
    found = exact.diarize(sample[: 12 * 16_000], Hints(), lambda stage, done: heard.append((stage, done)))
    stages = list(dict.fromkeys(stage for stage, _ in heard))
    assert stages == ["segmentation", "embedding", "clustering"] == list(found.timings_ms)
    for stage in stages:
        rising = [done for name, done in heard if name == stage]
        assert rising == sorted(rising)
        assert rising[-1] == 1.0


def test_an_exception_in_the_report_ends_the_run_and_the_engine_goes_on(
    exact: PyannoteEngine, sample: Waveform
) -> None:
    class StopAnalysis(Exception):
        pass

    def cancel(stage: str, _done: float) -> None:
        if stage == "embedding":
            raise StopAnalysis

    with pytest.raises(StopAnalysis):
        exact.diarize(sample, Hints(), cancel)
    assert exact.diarize(sample[8 * 16_000 : 18 * 16_000], Hints(), ignore).turns


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.5, 3.0, 12.0])
def test_silence_of_any_length_is_an_answer_without_turns(exact: PyannoteEngine, seconds: float) -> None:
    found = exact.diarize(np.zeros(int(seconds * 16_000), dtype=np.float32), Hints(), ignore)
    assert (found.turns, found.exclusive_turns, found.speakers, found.speech_s) == ((), (), (), 0.0)
    assert found.warnings == ("no speech was heard",)


def test_a_second_of_speech_has_turns_and_no_embedding_that_is_not_a_number(
    exact: PyannoteEngine, sample: Waveform
) -> None:
    found = exact.diarize(sample[8 * 16_000 : 9 * 16_000], Hints(), ignore)
    assert found.turns
    assert all(turn.end_s <= 1.0 for turn in found.turns)
    assert all(speaker.embedding is None or np.isfinite(speaker.embedding).all() for speaker in found.speakers)


@pytest.mark.parametrize(
    "waveform",
    [
        np.full(16_000, np.nan, dtype=np.float32),
        np.full(16_000, np.inf, dtype=np.float32),
        np.zeros(16_000),
        np.zeros((1, 16_000), np.float32),
    ],
)
def test_what_is_no_waveform_is_refused(exact: PyannoteEngine, waveform: Any) -> None:
    with pytest.raises(InvalidWaveform):
        exact.diarize(waveform, Hints(), ignore)


def test_more_speakers_than_windows_hold_is_answered_as_if_not_asked(
    exact: PyannoteEngine, sample: Waveform, found: Diarization, stages: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = exact._pipeline.apply
    monkeypatch.setattr(exact._pipeline, "apply", lambda file, **options: apply({**file, **stages}, **options))
    again = exact.diarize(sample, Hints(min_speakers=60), ignore)
    assert changed_s(again.turns, found.turns) == 0.0
    assert again.warnings == ("60 speakers were expected, 2 could be told apart",)


def test_one_speaker_asked_for_is_one_speaker(exact: PyannoteEngine, sample: Waveform) -> None:
    assert len(exact.diarize(sample[: 20 * 16_000], Hints(num_speakers=1), ignore).speakers) == 1


def test_hints_that_contradict_themselves_are_read_leniently() -> None:
    assert read_hints(Hints(num_speakers=3)) == (3, 3)
    assert read_hints(Hints(min_speakers=4, max_speakers=2)) == (2, 2)
    assert read_hints(Hints(num_speakers=0, min_speakers=-1, max_speakers=-5)) == (None, None)
    assert read_hints(Hints(num_speakers=2, max_speakers=9)) == (2, 2)


def test_info_names_the_weights_by_their_content(exact: PyannoteEngine, directory: Path, tmp_path: Path) -> None:
    assert (exact.info.name, exact.info.mode, exact.info.device, exact.info.model) == (
        "pyannote",
        "exact",
        "cpu",
        "seeded",
    )
    assert exact.info.embedding_model == "pyannote/WeSpeakerResNet34"
    copied = tmp_path / "seeded"
    shutil.copytree(directory, copied)
    assert PyannoteEngine(load_pipeline(copied, ExactDiarization), copied, CPU).info == exact.info
    changed = torch.load(copied / "embedding/pytorch_model.bin", weights_only=False)
    changed["state_dict"]["resnet.seg_1.bias"] += 1
    torch.save(changed, copied / "embedding/pytorch_model.bin")
    other = PyannoteEngine(load_pipeline(copied, ExactDiarization), copied, CPU).info
    assert other.embedding_revision != exact.info.embedding_revision
    assert other.revision != exact.info.revision


def test_it_opens_no_connection(directory: Path, sample: Waveform, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("the engine opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load_pyannote(directory, device="cpu").diarize(sample[: 10 * 16_000], Hints(), ignore)


# ------------------------------------------------------------------------------- the parts of stretch


def test_stretch_without_neighbours_is_exact(
    directory: Path, sample: Waveform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single window has no context beyond its edges, so both modes compute the same."""
    monkeypatch.setattr("mac_agent.engines.pyannote_stretch.CONTEXT_FRAMES", 0)
    window = torch.from_numpy(sample[10 * 16_000 : 20 * 16_000])[None]
    embeddings = []
    for kind in (ExactDiarization, StretchDiarization):
        pipeline = load_pipeline(directory, kind)
        file: dict[str, Any] = {"waveform": window, "sample_rate": 16_000, "uri": "x"}
        pipeline.apply(file)
        spoken = file[SEGMENTATIONS].data.sum(axis=1) > 100
        embeddings.append(file[EMBEDDINGS][spoken])
    assert len(embeddings[0]) >= 1
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(*embeddings, strict=True)]
    assert max(cosines) > 0.99999
    assert min(cosines) > 0.98  # of a voice that speaks up to the edge, where a piece ends two features later


def test_stretch_hears_the_same_speech_for_a_fraction_of_the_work(
    directory: Path, sample: Waveform, found: Diarization, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = PyannoteEngine(load_pipeline(directory, StretchDiarization), directory, CPU)
    features = 0
    network = engine._pipeline.prepare()
    forward = network.forward_frames

    def count(fbank: torch.Tensor) -> torch.Tensor:
        nonlocal features
        features += fbank.shape[0] * fbank.shape[1]
        return forward(fbank)

    monkeypatch.setattr(network, "forward_frames", count)
    stretch = engine.diarize(sample, Hints(), ignore)
    assert engine.info.mode == "stretch"
    # The seeded embeddings say little about who speaks, so only when anyone speaks is compared.
    assert stretch.speech_s == pytest.approx(found.speech_s, abs=FRAME_S)
    assert 0 < features <= 1.5 * 30 * 100


def test_pooling_by_matrix_product_is_pyannotes_pooling() -> None:
    from pyannote.audio.models.blocks.pooling import StatsPool

    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(60, 40, generator=generator).relu() + 5
    masks = (torch.rand(7, 60, generator=generator) < 0.4).float()
    expected = torch.stack([StatsPool()(frames.T[None], mask[None])[0] for mask in masks])
    assert torch.allclose(pool(frames, masks), expected, atol=1e-4)
    assert torch.equal(pool(frames, torch.zeros(1, 60)), torch.zeros(1, 80))
    one = torch.zeros(1, 60)
    one[0, 7] = 1
    assert torch.allclose(pool(frames, one)[0], torch.cat([frames[7], torch.zeros(40)]), atol=1e-5)


def test_pieces_cover_every_frame_once() -> None:
    for n_frames in (1, 100, 188, 500, 4000):
        for balanced in (True, False):
            pieces = cut_pieces(n_frames, is_balanced=balanced)
            joined = [frame for piece in pieces for frame in piece]
            assert joined[:n_frames] == list(range(n_frames))
            assert balanced == (len(joined) == n_frames) or n_frames == 188


def test_every_window_is_pooled_once_and_only_when_complete() -> None:
    grid = Grid(n_windows=51, hop_features=100.0, window_features=998, window_frames=125, mask_frames=589)
    assert grid.windows_before(grid.n_frames) == 51
    assert grid.windows_before(124) == 0
    assert grid.windows_before(125) == 1
    for window in range(51):
        mask = np.ones((1, 589), dtype=np.float32)
        laid = grid.spread(mask, window, range(grid.n_frames))
        assert int(laid.sum()) == 125
        last = int(np.flatnonzero(laid[0])[-1]) + 1
        assert grid.windows_before(last - 1) <= window < grid.windows_before(last + 1) + 1
        assert all(window in grid.windows_over(range(frame, frame + 1)) for frame in np.flatnonzero(laid[0]).tolist())


def test_overlap_is_left_out_of_a_mask_unless_too_little_remains() -> None:
    segmentation = np.zeros((1, 10, 2), dtype=np.float32)
    segmentation[0, :8, 0] = 1
    segmentation[0, 6:, 1] = 1
    alone = choose_masks(segmentation, 3)
    assert alone[0, 0].tolist() == [1] * 6 + [0] * 4
    assert alone[0, 1].tolist() == [0] * 6 + [1] * 4  # only two frames alone: all of them are used
    assert choose_masks(segmentation, None)[0, 0].tolist() == [1] * 8 + [0] * 2


# ---------------------------------------------------------------------------------- helper functions


def test_clean_seconds_leave_overlap_out() -> None:
    turns = (Turn(0.0, 4.0, "a"), Turn(3.0, 5.0, "b"), Turn(7.0, 8.0, "b"))
    alone_s, speech_s = clean_seconds(turns)
    assert alone_s == {"a": 3.0, "b": 2.0}
    assert speech_s == 6.0


def test_an_embedding_of_nothing_is_none() -> None:
    assert as_embedding(np.full(4, np.nan), 10.0) is None
    assert as_embedding(np.zeros(4), 10.0) is None
    assert as_embedding(np.ones(4), 0.5) is None


def test_agreement_ignores_names_and_counts_what_moved() -> None:
    ours = (Turn(0.0, 2.0, "a"), Turn(2.0, 3.0, "b"))
    renamed = (Turn(0.0, 2.0, "y"), Turn(2.0, 3.0, "x"))
    assert changed_s(ours, renamed) == 0.0
    assert changed_s(ours, (Turn(0.0, 2.0, "y"), Turn(2.1, 3.0, "x"))) == pytest.approx(0.1)
    assert changed_s(ours, (Turn(0.0, 2.01, "y"), Turn(2.01, 3.0, "x")), tolerance_s=FRAME_S) == 0.0
    assert changed_s(ours, (Turn(0.0, 3.0, "y"),)) == pytest.approx(2.0)
    assert changed_s((), ours) == pytest.approx(3.0)
    assert changed_s((), ()) == 0.0
