"""Check this machine for whatever keeps an agent from working: packages, weights, device, service."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import wave
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from broker.check import Check, failed, note, ok
from mac_agent.engine_choice import choose_engine, describe_weights
from mac_agent.engines.engine import SAMPLE_RATE_HZ, Hints
from mac_agent.errors import EngineError, ModelMissing
from mac_agent.outbox import inspect_outbox
from mac_agent.service import ServiceError, find_secrets, query
from mac_agent.weights.pipelines import find_pipeline
from mac_agent.weights.verdict import find_mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mac_agent.inference import LoadEngine
    from mac_agent.service import Service
    from mac_agent.settings import AgentSettings

PACKAGES = ("torch", "pyannote.audio", "av", "paho-mqtt", "omi-diarization")
PROBE_TIMEOUT_S = 180.0  # the first import of torch after an installation compiles for minutes on a slow disk
DEEP_CLIP_S = 12.0
UNSETTLED_S = 900.0  # a result is settled in seconds, and offered every 5 minutes where it is not


def check_python(*, system: str = sys.platform, machine: str = platform.machine()) -> Check:
    """Report which Python this is. On a Mac, a Python built for Intel cannot use the GPU."""
    found = f"{platform.python_version()} for {machine} on {platform.platform(terse=True)}"
    if system == "darwin" and machine != "arm64":
        return note(
            "python", found, "On Apple silicon install an arm64 Python and make .venv anew: this one has no mps."
        )
    return ok("python", found)


def check_packages(packages: Sequence[str] = PACKAGES) -> Check:
    """Report the installed versions of the packages, and which packages are missing."""
    found, missing = [], []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        return failed("packages", f"not installed: {', '.join(missing)}", "pip install -r requirements/agent.txt")
    return ok("packages", ", ".join(found))


def check_weights(settings: AgentSettings) -> list[Check]:
    """Check the weights of the chosen engine; where pyannote's are missing, also whether they can be fetched."""
    choice = choose_engine(settings)
    try:
        weights = describe_weights(settings, choice.engine)
        checks = [ok("weights", f"{choice.engine} ({choice.reason}): {weights}; unchanged")]
        return [*checks, check_mode(settings)] if choice.engine == "pyannote" else checks
    except ModelMissing as error:
        found = [failed("weights", str(error))]
        if choice.engine == "pyannote" and settings.pipeline_dir is None:
            found.append(check_hub())
        return found
    except EngineError as error:
        return [failed("weights", str(error))]


def check_hub() -> Check:
    """Check whether the default pipeline could be fetched: token, accepted conditions, network."""
    from mac_agent.weights.hub import DEFAULT_PIPELINE, check_access  # noqa: PLC0415 - the hub's client takes half a second
    from mac_agent.weights.hub_token import find_token  # noqa: PLC0415 - only where weights are missing

    try:
        token = find_token()
        check_access(DEFAULT_PIPELINE, token)
    except EngineError as error:
        return failed("hub", str(error))
    source = f"with the token from {token.source}" if token else "without a token"
    return ok("hub", f"{DEFAULT_PIPELINE} can be fetched {source}")


def check_mode(settings: AgentSettings) -> Check:
    """Report whether pyannote runs in exact or stretch mode on this machine, and why."""
    devices = probe_devices()
    if isinstance(devices, Check):
        return note("mode", "exact or stretch? The device is not known.")
    device = devices[0] if settings.device == "auto" else settings.device
    choice = find_mode(settings.verdicts, find_pipeline(settings.weights, settings.pipeline_dir).manifest, device)
    return ok("mode", f"{choice.mode}: {choice.reason}")


@cache
def probe_devices() -> tuple[str, ...] | Check:
    """Return the devices that torch can use here, fastest first, or a failed check. Cached: it takes seconds."""
    script = "from mac_agent.engines.registry import list_devices; print(' '.join(list_devices()))"
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments; a separate process, because torch cannot be unloaded
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return failed("device", f"torch did not start within {PROBE_TIMEOUT_S:.0f} s", "Restart the machine.")
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return failed("device", f"torch cannot be imported: {reason}", "pip install -r requirements/agent.txt")
    return tuple(done.stdout.split())


def check_device(wanted: str) -> Check:
    """Report which devices torch can use here, and whether the configured device is among them."""
    devices = probe_devices()
    if isinstance(devices, Check):
        return devices
    if wanted not in ("auto", *devices):
        return failed("device", f"{wanted} is set and not here", f"Set OMI_DEVICE to auto or {' or '.join(devices)}.")
    return ok("device", f"{', '.join(devices)} here, {wanted} is set")


def check_engine(settings: AgentSettings, load: LoadEngine) -> Check:
    """Load the engine in a worker process and diarize a few seconds of noise: all a job needs except the broker."""
    from mac_agent.diarize import DiarizeFailed, diarize_file  # noqa: PLC0415 - needed only for `--deep`
    from mac_agent.worker import read_limits  # noqa: PLC0415 - the same

    limits = read_limits(settings)
    with tempfile.TemporaryDirectory(prefix="omi-doctor-") as scratch:
        clip = Path(scratch) / "noise.wav"
        write_noise(clip, DEEP_CLIP_S)
        try:
            result = diarize_file(
                clip, load, hints=Hints(), limits=limits, max_audio_s=settings.max_audio_s, report=lambda *_: None
            )
        except EngineError as error:
            return failed("engine", str(error))
        except DiarizeFailed as error:
            return failed("engine", f"{error} ({error.code.value})")
    info, took_s = result.info, result.timings_ms.get("total", 0.0) / 1000
    return ok("engine", f"{info.name} {info.mode} on {info.device}: {DEEP_CLIP_S:.0f} s of noise in {took_s:.1f} s")


def write_noise(path: Path, duration_s: float) -> None:
    """Write quiet noise as a 16-bit mono WAV."""
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(SAMPLE_RATE_HZ)
        samples = bytearray(os.urandom(int(2 * duration_s * SAMPLE_RATE_HZ)))
        samples[1::2] = bytes(len(samples) // 2)  # the high bytes are zero, so only the low 8 of 16 bits are noise
        stream.writeframes(samples)


def check_outbox(path: Path, now: float) -> Check:
    """Check that results leave: none waits for long, and the file they wait in is whole. `now` is Unix time."""
    facts = inspect_outbox(path)
    if facts.damage is not None:
        found = f"{path} is damaged: {facts.damage}"
        return failed("outbox", found, f"Stop the agent, rm '{path}'*, start it: what was in it is computed again.")
    waits_s = 0.0 if facts.oldest_at is None else now - facts.oldest_at
    found = f"{facts.waiting} results wait"
    if waits_s > UNSETTLED_S:
        remedy = "They stay and are sent again. See `broker` and `bridge` below; on the VPS: omi-bridge doctor"
        return failed("outbox", f"{found} for the bridge, the oldest for {waits_s / 60:,.0f} min", remedy)
    return ok("outbox", found)


def check_service(service: Service) -> list[Check]:
    """Check the property list of the service: that it exists and holds no secret; on macOS also that the agent runs."""
    try:
        plist = service.plist_file.read_bytes()
    except FileNotFoundError:
        return [note("service", "not installed", "To start at login: omi-agent install")]
    except OSError as error:
        return [failed("service", f"{service.plist_file} cannot be read: {error.strerror}", "Check whose it is.")]
    try:
        secrets = find_secrets(plist)
        state = query(service) if sys.platform == "darwin" else None
    except ServiceError as error:
        return [failed("service", str(error))]
    if secrets:
        return [
            failed(
                "service",
                f"{service.plist_file} holds what looks like a secret ({', '.join(secrets)}), for anyone to read",
                f"Move it into {service.config_file} (mode 600), change it, and run: omi-agent install",
            )
        ]
    found = [ok("service", f"{service.plist_file} holds no secret")]
    if state is not None:
        running = (
            f"{state.state or 'not loaded'}, started {state.starts or 0} times, last exit {state.last_exit or '-'}"
        )
        found.append(ok("launchd", running) if state.pid else failed("launchd", running, "omi-agent logs says why."))
    return found
