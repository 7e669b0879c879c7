"""Stretch runs only with a verdict that passed, on the pipeline, device and versions with which it was measured."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mac_agent.weights.manifest import Manifest, PinnedFile
from mac_agent.weights.verdict import (
    EXACT,
    LEAST_COSINE,
    MAX_DER,
    STRETCH,
    Comparison,
    StretchVerdict,
    choose_mode,
    describe_circumstances,
    device_kind,
    find_mode,
    judge,
    pool,
    verdict_file,
    why_not,
    write_verdict,
)

NOW = datetime(2026, 11, 22, tzinfo=UTC)
RAN = ((EXACT, "mps"), (STRETCH, "mps"))


def manifest(sha256: str = "0" * 64) -> Manifest:
    return Manifest(source="here", revision="1", files=(PinnedFile(path="config.yaml", sha256=sha256, size_bytes=1),))


def comparison(**fields) -> Comparison:
    passing = {"recording": "a", "audio_s": 120.0, "speech_s": 100.0, "error_s": 0.0, "changed_s": 0.0}
    passing |= {"cosines": (0.999, 0.995), "exact_s": 10.0, "stretch_s": 2.0}
    return Comparison.model_validate(passing | fields)


def verdict(*comparisons: Comparison, ran=RAN, device: str = "mps", pinned: Manifest | None = None) -> StretchVerdict:
    pinned = pinned or manifest()
    return judge(
        comparisons or (comparison(),),
        ran=ran,
        circumstances=describe_circumstances(pinned, device),
        manifest=pinned,
        measured_at=NOW,
    )


# ---------------------------------------------------------------------------------------------- judging


def test_the_limits_themselves_pass_and_anything_beyond_does_not():
    at_the_limits = comparison(error_s=100 * MAX_DER, cosines=(1.0, LEAST_COSINE))
    assert why_not([at_the_limits], ran=RAN) == ()
    [der] = why_not([comparison(error_s=100 * MAX_DER + 0.05)], ran=RAN)
    assert der == "DER 0.55 points, at most 0.5 pass"
    [cosine] = why_not([comparison(cosines=(1.0, LEAST_COSINE - 0.001))], ran=RAN)
    assert cosine == "a cosine of 0.979, at least 0.98 pass"


def test_der_is_over_all_recordings_and_one_bad_voice_is_enough():
    short = comparison(speech_s=10.0, error_s=0.4)  # a DER of 4 points in this recording alone
    assert why_not([short, comparison(speech_s=990.0)], ran=RAN) == ()
    assert len(why_not([short, comparison(speech_s=20.0)], ran=RAN)) == 1
    assert len(why_not([comparison(), comparison(cosines=(0.5,))], ran=RAN)) == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"speech_s": 0.0}, "at least 15 s decide"),
        ({"speech_s": 0.0, "error_s": 3.0}, "at least 15 s decide"),
        ({"cosines": ()}, "no speaker had an embedding"),
        ({"lost_speakers": 1}, "1 speakers were found by one mode only"),
    ],
)
def test_a_measurement_with_too_little_speech_or_no_pair_of_embeddings_does_not_pass(fields, says):
    assert any(says in reason for reason in why_not([comparison(**fields)], ran=RAN))


def test_nothing_measured_does_not_pass():
    assert why_not([], ran=RAN)


@pytest.mark.parametrize(
    "ran",
    [
        (("stock", "mps"), ("stock", "mps")),
        ((EXACT, "mps"), (EXACT, "mps")),
        ((EXACT, "mps"), (STRETCH, "cpu (mps refused)")),
    ],
)
def test_two_runs_that_were_not_the_two_modes_on_one_device_do_not_pass(ran):
    assert len(why_not([comparison()], ran=ran)) == 1


def test_a_verdict_sums_up_its_comparisons():
    found = verdict(comparison(error_s=0.1, changed_s=0.2), comparison(speech_s=300.0, exact_s=30.0, cosines=(0.99,)))
    assert found.passed
    assert found.der == pytest.approx(0.1 / 400)
    assert (found.least_cosine, found.changed_s, found.speech_s, found.speed_up) == (0.99, 0.2, 400.0, 10.0)
    assert found.files == manifest().files


def test_a_verdict_without_speech_has_no_der_and_can_be_stored(tmp_path):
    silent = verdict(comparison(speech_s=0.0, error_s=2.0, cosines=()))
    assert (silent.der, silent.least_cosine, silent.passed) == (None, None, False)
    assert StretchVerdict.model_validate_json(write_verdict(tmp_path, silent).read_bytes()) == silent
    assert pool([]).der == 0.0


# ---------------------------------------------------------------------------------------------- choosing


def test_without_a_verdict_exact_runs_and_the_reason_names_the_command(tmp_path):
    choice = find_mode(tmp_path, manifest(), "mps")
    assert choice.mode == EXACT
    assert "omi-agent qualify" in choice.reason


def test_a_passing_verdict_lets_stretch_run_on_its_device_and_pipeline_only(tmp_path):
    path = write_verdict(tmp_path / "verdicts", verdict())
    assert path.parent.stat().st_mode & 0o077 == 0
    assert find_mode(path.parent, manifest(), "mps").mode == STRETCH
    assert find_mode(path.parent, manifest(), "cpu").mode == EXACT
    assert find_mode(path.parent, manifest("1" * 64), "mps").mode == EXACT


def test_a_failing_verdict_says_why_exact_runs(tmp_path):
    write_verdict(tmp_path, verdict(comparison(cosines=(0.9,))))
    choice = find_mode(tmp_path, manifest(), "mps")
    assert choice.mode == EXACT
    assert "a cosine of 0.900" in choice.reason


@pytest.mark.parametrize(
    "name", ["machine", "torch", "pyannote_audio", "omi_diarization", "method", "device", "revision"]
)
def test_a_verdict_measured_under_other_circumstances_is_stale_and_says_what_changed(name):
    now = describe_circumstances(manifest(), "mps")
    other = 0 if name == "method" else "other"
    old = verdict().model_copy(update={"circumstances": now.model_copy(update={name: other})})
    choice = choose_mode(old, now)
    assert choice.mode == EXACT
    assert f"stale: {name} was other" in choice.reason or f"stale: {name} was 0" in choice.reason
    assert choose_mode(verdict(), now).mode == STRETCH


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 2}', b"\xff"])
def test_a_damaged_verdict_counts_as_none_and_is_named(tmp_path, content):
    file = verdict_file(tmp_path, describe_circumstances(manifest(), "mps").revision, "mps")
    file.write_bytes(content)
    choice = find_mode(tmp_path, manifest(), "mps")
    assert choice.mode == EXACT
    assert str(file) in choice.reason


def test_a_new_verdict_replaces_the_one_before(tmp_path):
    first = write_verdict(tmp_path, verdict())
    assert write_verdict(tmp_path, verdict(comparison(lost_speakers=2))) == first
    assert find_mode(tmp_path, manifest(), "mps").mode == EXACT


def test_a_device_is_judged_by_its_kind():
    assert [device_kind(name) for name in ("mps", "cuda:0", "cpu (mps refused)")] == ["mps", "cuda", "cpu"]
