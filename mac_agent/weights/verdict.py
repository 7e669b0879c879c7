"""The verdict on the *stretch* mode: what was measured, whether stretch may replace *exact*, and when that is valid.

Stretch computes an embedding from other frames than stock pyannote does. How much that changes depends on the weights
and on the machine. So `omi-agent qualify` measures it on the machine itself, and a verdict is valid only for the
pipeline, device and versions that it was measured with.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from broker.private_files import replace_file
from mac_agent.weights.manifest import REVISION_CHARS, PinnedFile, content_revision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mac_agent.weights.manifest import Manifest

EXACT, STRETCH = "exact", "stretch"
# docs/adr/0003-exact-and-stretch.md gives the reasons for both limits.
MAX_DER = 0.005
LEAST_COSINE = 0.98
LEAST_SPEECH_S = 15.0  # pyannote's sample, which is always measured, contains 24 s
METHOD = 1  # raised when the measurement changes, so that older verdicts are no longer valid

Seconds = Annotated[float, Field(ge=0)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Comparison(_Record):
    """Exact and stretch compared on one recording, with exact as the reference."""

    recording: str
    audio_s: Seconds
    speech_s: Seconds
    """Speaker seconds that exact found; a second in which two people speak counts twice."""
    error_s: Seconds
    """Seconds of missed speech, false alarm and confusion, without a collar: the numerator of DER."""
    changed_s: Seconds
    """Speaker seconds that only one of the two modes found; a confused second counts twice."""
    cosines: tuple[float, ...]
    """The cosine of the embeddings of each speaker in exact and its match in stretch, where both have one."""
    lost_speakers: int = 0
    """How many speakers with an embedding in one mode have no match in the other."""
    exact_s: Seconds
    stretch_s: Seconds

    @property
    def der(self) -> float:
        """Diarization error rate of stretch, 0 or more; infinite where stretch found speech and exact found none."""
        return self.error_s / self.speech_s if self.speech_s else (float("inf") if self.error_s else 0.0)

    @property
    def speed_up(self) -> float:
        """How many times faster stretch was."""
        return self.exact_s / self.stretch_s if self.stretch_s else 0.0


class Circumstances(_Record):
    """The pipeline, device and versions with which a verdict was measured, and for which alone it is valid."""

    revision: str
    """`content_revision` of the pipeline, which differs as soon as one byte of it differs."""
    device: str
    machine: str
    torch: str
    pyannote_audio: str
    omi_diarization: str
    method: int = METHOD


class StretchVerdict(_Record):
    """The result of `omi-agent qualify`, as it is stored."""

    version: Literal[1] = 1
    passed: bool
    reasons: tuple[str, ...]
    """Why stretch did not pass; empty where it passed."""
    der: float | None
    """Over all recordings; None where exact found no speech."""
    least_cosine: float | None
    changed_s: Seconds
    speech_s: Seconds
    speed_up: Seconds
    comparisons: tuple[Comparison, ...]
    circumstances: Circumstances
    source: str
    """Where the pipeline came from."""
    files: tuple[PinnedFile, ...]
    measured_at: datetime


@dataclass(frozen=True)
class ModeChoice:
    """The mode that runs, and the reason for it."""

    mode: str
    reason: str


def pool(comparisons: Sequence[Comparison]) -> Comparison:
    """Return the sums over all recordings, as a comparison of one recording named `all`."""
    return Comparison(
        recording="all",
        audio_s=sum(each.audio_s for each in comparisons),
        speech_s=sum(each.speech_s for each in comparisons),
        error_s=sum(each.error_s for each in comparisons),
        changed_s=sum(each.changed_s for each in comparisons),
        cosines=tuple(cosine for each in comparisons for cosine in each.cosines),
        lost_speakers=sum(each.lost_speakers for each in comparisons),
        exact_s=sum(each.exact_s for each in comparisons),
        stretch_s=sum(each.stretch_s for each in comparisons),
    )


def why_not(comparisons: Sequence[Comparison], *, ran: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Return every reason why stretch may not run; empty where it passed.

    Args:
        comparisons: one per recording.
        ran: (mode, device) of the two runs, which may differ from the requested ones.
    """
    total = pool(comparisons)
    reasons = []
    modes = [mode for mode, _ in ran]
    if modes != [EXACT, STRETCH]:
        reasons.append(f"ran as {' and '.join(modes)}: the speaker network of this pipeline is run as stock runs it")
    if len({device for _, device in ran}) != 1:
        reasons.append(f"ran on different devices: {' and '.join(device for _, device in ran)}")
    if total.speech_s < LEAST_SPEECH_S:
        reasons.append(f"{total.speech_s:.1f} s of speech, at least {LEAST_SPEECH_S:.0f} s decide")
    elif total.der > MAX_DER:
        reasons.append(f"DER {100 * total.der:.2f} points, at most {100 * MAX_DER:.1f} pass")
    if not total.cosines:
        reasons.append("no speaker had an embedding in both modes")
    elif min(total.cosines) < LEAST_COSINE:
        reasons.append(f"a cosine of {min(total.cosines):.3f}, at least {LEAST_COSINE:.2f} pass")
    if total.lost_speakers:
        reasons.append(f"{total.lost_speakers} speakers were found by one mode only")
    return tuple(reasons)


def judge(
    comparisons: Sequence[Comparison],
    *,
    ran: Sequence[tuple[str, str]],
    circumstances: Circumstances,
    manifest: Manifest,
    measured_at: datetime,
) -> StretchVerdict:
    """Return the verdict on a measurement; the rules are in `why_not`."""
    total, reasons = pool(comparisons), why_not(comparisons, ran=ran)
    return StretchVerdict(
        passed=not reasons,
        reasons=reasons,
        der=total.der if total.speech_s else None,
        least_cosine=min(total.cosines, default=None),
        changed_s=total.changed_s,
        speech_s=total.speech_s,
        speed_up=total.speed_up,
        comparisons=tuple(comparisons),
        circumstances=circumstances,
        source=f"{manifest.source} {manifest.revision[:REVISION_CHARS]}",
        files=manifest.files,
        measured_at=measured_at,
    )


def choose_mode(verdict: StretchVerdict | None, now: Circumstances) -> ModeChoice:
    """Return stretch if the verdict passed under exactly these circumstances, else exact, with the reason."""
    again = "; to measure: omi-agent qualify"
    if verdict is None:
        return ModeChoice(EXACT, f"stretch was not qualified for this pipeline on {now.device}{again}")
    day = f"{verdict.measured_at:%F}"
    then = verdict.circumstances
    changed = [
        f"{name} was {getattr(then, name)}, is {getattr(now, name)}"
        for name in Circumstances.model_fields
        if getattr(then, name) != getattr(now, name)
    ]
    if changed:
        return ModeChoice(EXACT, f"the verdict of {day} is stale: {', '.join(changed)}{again}"[:400])
    if not verdict.passed:
        return ModeChoice(EXACT, f"stretch did not pass on {day}: {'; '.join(verdict.reasons)}")
    cosine = verdict.least_cosine if verdict.least_cosine is not None else float("nan")
    measured = f"DER {100 * (verdict.der or 0.0):.2f} points, cosine {cosine:.3f}, {verdict.speed_up:.1f}x"
    return ModeChoice(STRETCH, f"stretch passed on {day}: {measured}")


def describe_circumstances(manifest: Manifest, device: str) -> Circumstances:
    """Return the circumstances of a measurement made now. Does not import torch.

    Args:
        manifest: manifest of the pipeline.
        device: name of the device in torch.
    """
    return Circumstances(
        revision=content_revision(manifest.files),
        device=device_kind(device),
        machine=f"{platform.system()} {platform.machine()}",
        torch=version("torch"),
        pyannote_audio=version("pyannote.audio"),
        omi_diarization=version("omi-diarization"),
    )


def device_kind(device: str) -> str:
    """Return ``mps``, ``cuda`` or ``cpu`` for a device as `EngineInfo.device` names it."""
    return device.split(" ", maxsplit=1)[0].split(":", maxsplit=1)[0]


def verdict_file(directory: Path, revision: str, device: str) -> Path:
    """Return the file of the verdict on a pipeline and a device; a new verdict replaces the one before."""
    return directory / f"{revision[:REVISION_CHARS]}-{device_kind(device)}.json"


def write_verdict(directory: Path, verdict: StretchVerdict) -> Path:
    """Store a verdict atomically, and return its file.

    Raises:
        OSError: it cannot be written.
    """
    path = verdict_file(directory, verdict.circumstances.revision, verdict.circumstances.device)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_file(path, verdict.model_dump_json(indent=2) + "\n")
    return path


def find_mode(directory: Path, manifest: Manifest, device: str) -> ModeChoice:
    """Return which mode runs for a pipeline on a device, according to the verdict stored in a directory.

    Without a verdict, or with one that cannot be read, that is exact.
    """
    now = describe_circumstances(manifest, device)
    path = verdict_file(directory, now.revision, device)
    try:
        verdict = StretchVerdict.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        verdict = None
    except (OSError, ValidationError) as error:
        return ModeChoice(EXACT, f"{path} cannot be read ({type(error).__name__}); to write it anew: omi-agent qualify")
    return choose_mode(verdict, now)
