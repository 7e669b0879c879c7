"""The AsyncAPI document, read by the official parser; the lock that installs it names no registry."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from schemas.document import FOLDER as SCHEMAS
from schemas.document import asyncapi
from tests.docs.node_packages import FOLDER, LOCK, installed_packages, node_program

ERROR = 0  # of the parser's severities
NEWER_EXISTS = "asyncapi-latest-version"  # 3.1 of the format; 3.0 is what more generators read


def document_without_action() -> dict[str, Any]:
    document = asyncapi()
    del document["operations"]["receive-events"]["action"]
    return document


def document_that_points_nowhere() -> dict[str, Any]:
    document = asyncapi()
    document["channels"]["events"]["messages"] = {"x": {"$ref": "#/nowhere"}}
    return document


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the parser says of our document, and of two that are wrong."""
    folder, files = tmp_path_factory.mktemp("asyncapi"), [SCHEMAS / "asyncapi.json"]
    for document in (document_without_action(), document_that_points_nowhere()):
        for message in document["components"]["messages"].values():
            message["payload"] = {"type": "object"}  # the schemas are not beside it
        files.append(folder / f"{len(files)}.json")
        files[-1].write_text(json.dumps(document))
    command: list[str | Path] = [node_program(), FOLDER / "check_asyncapi.mjs", installed_packages(), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_official_parser_takes_the_document_and_finds_every_topic(read: list[dict[str, Any]]) -> None:
    assert [complaint for complaint in read[0]["said"] if complaint["code"] != NEWER_EXISTS] == []
    assert set(read[0]["channels"]) == {channel["address"] for channel in asyncapi()["channels"].values()}


@pytest.mark.parametrize(("place", "named"), [(1, "action"), (2, "nowhere")])
def test_a_planted_fault_is_found(read: list[dict[str, Any]], place: int, named: str) -> None:
    errors = [complaint for complaint in read[place]["said"] if complaint["severity"] == ERROR]
    assert named in json.dumps(errors)


def test_the_lock_pins_digests_and_names_no_registry() -> None:
    packages = json.loads(LOCK.read_text())["packages"]
    wanted = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    assert packages[""]["dependencies"] == wanted
    installed = {name: package for name, package in packages.items() if name}
    assert [name for name, package in installed.items() if not package.get("integrity", "").startswith("sha512-")] == []
    assert [name for name, package in installed.items() if "resolved" in package] == []
