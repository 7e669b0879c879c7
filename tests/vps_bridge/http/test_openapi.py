"""The OpenAPI document of the HTTP door, and whether every request it allows is answered as it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.bridge import BridgeHeartbeat
from tests.brokers import REPOSITORY, RunningBroker
from tests.inbox import WAIT_S
from tests.vps_bridge.http.door import TOKEN, Door, answering, live
from tests.vps_bridge.live_bridge import wait_until


def test_its_document_names_its_paths_and_loads_nothing_from_elsewhere(door: Door) -> None:
    document = door.client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/conversations/{conversation_id}/audio",
        "/v1/conversations/{conversation_id}/events",
        "/v1/conversations/{conversation_id}/history",
        "/v1/conversations/{conversation_id}/retry",
        "/v1/conversations/{conversation_id}",
        "/v1/conversations/{conversation_id}/export",
        "/v1/conversations/{conversation_id}/playback",
        "/v1/conversations/{conversation_id}/chunks/{chunk_id}/audio",
        "/v1/conversations",
        "/v1/jobs",
        "/v1/jobs/{job_id}/retry",
        "/v1/jobs/{job_id}/cancel",
        "/v1/agents",
        "/v1/status",
        "/v1/webhook",
        "/v1/changes",
        "/v1/owners",
        "/v1/people",
        "/v1/people/{person_id}",
        "/v1/people/{person_id}/events",
        "/v1/people/{person_id}/export",
        "/health",
        "/metrics",
        "/api/diarize",
    }
    assert {} in document["paths"]["/health"]["get"]["security"]
    assert {} not in document["paths"]["/v1/conversations/{conversation_id}/audio"]["post"]["security"]
    assert set(document["webhooks"]) == {"conversation-updated", "job-failure"}
    for name, sent in document["webhooks"].items():
        body = sent["post"]["requestBody"]["content"]["application/json"]["schema"]
        message = document["components"]["schemas"][body["$ref"].rpartition("/")[2]]
        assert message["properties"]["schema"]["const"] == name
        headers = {item["name"] for item in sent["post"]["parameters"] if item["in"] == "header" and item["required"]}
        assert headers == {"Omi-Signature", "Idempotency-Key", "Omi-Schema"}
        assert sent["post"]["security"] == [], "it is signed, and carries no token"
    for page in ("/docs", "/redoc"):
        assert door.client.get(page).status_code == 404


def _ask_whatever_the_document_allows(mosquitto: RunningBroker, door: Door, examples: int) -> None:
    # A body at random is rarely audio that is accepted, and pydantic reads false as 0 here as over MQTT.
    # One who was deleted and is still there is another person: of the same id, and of another owner.
    unchecked = "positive_data_acceptance,negative_data_rejection,use_after_free"
    with answering(mosquitto):
        wait_until(lambda: live(door), "the agent")
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                "run",
                f"{door.url}/openapi.json",
                *("--header", f"Authorization: Bearer {TOKEN}"),
                *("--exclude-path", "/v1/changes"),  # a stream, which ends after ten minutes
                *("--checks", "all", "--exclude-checks", unchecked),
                *("--max-examples", str(examples), "--seed", "7", "--generation-database", "none", "--no-shrink"),
                *("--suppress-health-check", "all", "--request-timeout", f"{WAIT_S:.0f}"),
            ],
            env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.vps_bridge.door_bodies", "PYTHONPATH": str(REPOSITORY)},
            cwd=door.bridge.data_dir,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-6_000:]
    asked = re.search(r"(\d+) generated", done.stdout)
    assert asked is not None
    assert int(asked[1]) > 100
    assert "error" not in (door.backend.seen(BridgeHeartbeat)[-1].last_error or "")


def test_schemathesis_finds_no_server_error_and_nothing_that_is_not_documented(
    mosquitto: RunningBroker, door: Door
) -> None:
    _ask_whatever_the_document_allows(mosquitto, door, examples=4)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_schemathesis_finds_none_for_long_either(mosquitto: RunningBroker, door: Door) -> None:
    _ask_whatever_the_document_allows(mosquitto, door, examples=300)
