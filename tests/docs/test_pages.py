"""Every page: links lead somewhere, commands and options exist, settings load, examples are messages."""

import ast
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import jsonschema
import pytest
from pydantic import TypeAdapter

from broker.settings import BrokerSettings, load_settings
from mac_agent.settings import AgentSettings
from schemas.codec import decode
from schemas.conversation import TranscriptSegment
from schemas.corrections import Correction
from schemas.document import message_schema
from schemas.failure import FailureCode
from schemas.messages import MESSAGE_BY_SCHEMA
from tests.docs.command_lines import commands_in, complaint_about
from tests.docs.pages import (
    LANGUAGES,
    NEEDS,
    ROOT,
    RUNS,
    Block,
    all_blocks,
    page_names,
    prose_of,
    read_page,
)
from vps_bridge.dispatch.operator_answers import CANCEL_REFUSED, RETRY_REFUSED
from vps_bridge.labelling.vote import VoteOutcome
from vps_bridge.settings import BridgeSettings

PAGES = page_names(with_decisions=True)
SHELL = [*all_blocks("sh"), *all_blocks("bash")]
SERVICE_FILES = {"launchd/README.md", "systemd/README.md"}  # as root, or on a Mac: checked, not run
INLINE = re.compile(r"(?<!`)`((?:omi-(?:bridge|agent|broker)) [^`]+)`(?!`)")
SETTINGS: dict[str, type[BrokerSettings]] = {
    "bridge": BridgeSettings,
    "agent": AgentSettings,
    "broker": BrokerSettings,
    "backend": BridgeSettings,
}
OTHER_VARIABLES = {"OMI_CONFIG", "OMI_REQUIRE_ALL", "OMI_WEBHOOK_SECRET"}  # the last one: of the example's receiver
ENDS_EARLY = "…"  # a command that a sentence only names


@pytest.mark.parametrize("block", all_blocks(), ids=str)
def test_a_block_names_its_language_and_a_shell_block_its_proof(block: Block) -> None:
    assert block.language in LANGUAGES
    assert block.language != "bash" or block.page in SERVICE_FILES
    if block.language == "sh":
        run, needs = block.label("run"), block.label("needs")
        assert (run is None) != (needs is None), "a shell block has a label: run=… or needs=…"
        assert run is None or run in RUNS
        assert needs is None or needs in NEEDS


@pytest.mark.parametrize("name", RUNS)
def test_the_test_that_runs_a_label_is_there_and_there_are_blocks_for_it(name: str) -> None:
    assert f'run="{name}"' in (ROOT / RUNS[name]).read_text()
    assert all_blocks(run=name)


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_command_in_a_block_exists_with_its_options(block: Block) -> None:
    assert [found for words in commands_in(block.text) if (found := complaint_about(words))] == []


@pytest.mark.parametrize("page", page_names())
def test_every_command_in_a_sentence_exists_with_its_options(page: str) -> None:
    commands = [words for text in INLINE.findall(prose_of(page)) for words in commands_in(text)]
    complaints = [found for words in commands if ENDS_EARLY not in words and (found := complaint_about(words))]
    assert [found for found in complaints if "arguments" not in found] == [], "a sentence may leave out arguments"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("omi-bridge shwo call-1", "omi-bridge has no shwo"),
        ("omi-bridge show call-1 --yaml", "omi-bridge show has no --yaml"),
        ("sudo -H -u omi omi-bridge show", "0 arguments"),
        ("A=1 omi-broker init DIR --host", "--host needs a value"),
        ("omi-bridge correct call-1 join 0 3", "has no join"),
        ("true && frobnicate", "frobnicate is no program"),
    ],
)
def test_a_planted_mistake_in_a_command_is_found(line: str, complaint: str) -> None:
    assert any(complaint in (complaint_about(words) or "") for words in commands_in(line))


def _anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_no_link_leads_nowhere(page: str) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        target, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        if not path.exists() or (anchor and anchor not in _anchors(path.read_text())):
            dead.append(link)
    assert dead == []


def test_every_page_is_reached_from_the_list_of_all_pages_and_that_from_the_readme() -> None:
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", read_page("docs/README.md")))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= listed
    assert "(docs/README.md)" in read_page("README.md")


def test_the_readme_is_read_in_two_minutes() -> None:
    assert len(prose_of("README.md").split()) < 600


@pytest.mark.parametrize("block", all_blocks("toml"), ids=str)
def test_a_toml_block_loads_as_settings(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMI_BROKER_USERNAME", "OMI_BROKER_PASSWORD", "OMI_BROKER_URL", "OMI_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "config.toml"
    file.write_text(block.text)
    tables = [name for name in tomllib.loads(block.text) if name in SETTINGS] or ["broker"]
    for table in tables:
        load_settings(SETTINGS[table], flags={}, config_file=file)


def _payloads(text: str) -> list[dict[str, object]]:
    """Return what a JSON block holds: one document, or one for each line."""
    try:
        return [json.loads(text)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("block", all_blocks("json"), ids=str)
def test_a_json_example_is_a_message_by_code_and_by_schema(block: Block) -> None:
    if block.label("file"):
        assert TypeAdapter(list[TranscriptSegment]).validate_json(block.text)
        return
    for payload in _payloads(block.text):
        message = MESSAGE_BY_SCHEMA[str(payload["schema"])]
        decode(message, json.dumps(payload).encode())
        jsonschema.Draft202012Validator(message_schema(message)).validate(payload)


def test_every_kind_of_correction_on_the_pages_is_one() -> None:
    found = [text for page in page_names() for text in re.findall(r'`(\{"kind"[^`]+\})`', prose_of(page))]
    assert len(found) >= 4
    for text in found:
        Correction.model_validate(json.loads(text))


@pytest.mark.parametrize("block", all_blocks("python"), ids=str)
def test_a_python_block_is_python(block: Block) -> None:
    ast.parse(block.text)


@pytest.mark.parametrize("block", all_blocks("ini"), ids=str)
def test_systemd_takes_a_unit_and_a_drop_in(block: Block, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    base = "" if block.label("unit") == "" else "[Service]\nExecStart=/usr/bin/env\n"
    unit = tmp_path / "omi-probe.service"
    unit.write_text(base + re.sub(r"^ExecStart=.*", "ExecStart=/usr/bin/env", block.text, flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert [line for line in (done.stdout + done.stderr).splitlines() if unit.name in line] == []


@pytest.mark.parametrize("page", page_names())
def test_every_variable_that_a_page_names_is_a_setting(page: str) -> None:
    fields = {name for settings in SETTINGS.values() for name in settings.model_fields}
    named = set(re.findall(r"\bOMI_[A-Z_]+[A-Z]\b", read_page(page)))
    known = {f"OMI_{name.upper()}" for name in fields} | OTHER_VARIABLES
    assert named <= known


@pytest.mark.parametrize("page", page_names())
def test_every_target_that_a_page_names_is_in_the_makefile(page: str) -> None:
    targets = set(re.findall(r"`make ([a-z-]+)", read_page(page)))
    defined = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert targets <= defined


def test_troubleshooting_names_every_reason_why_a_segment_is_left_alone() -> None:
    text = read_page("docs/troubleshooting.md")
    reasons = {outcome.value for outcome in VoteOutcome if outcome is not VoteOutcome.CLEAR} | {"label.stale"}
    assert [reason for reason in reasons if f"`{reason}`" not in text] == []


def test_troubleshooting_names_every_warning_about_audio() -> None:
    text = read_page("docs/troubleshooting.md")
    files = [path for room in ("mac_agent", "vps_bridge") for path in sorted((ROOT / room).rglob("*.py"))]
    warnings = set(re.findall(r'"(audio\.[a-z_]+)', "".join(path.read_text("utf-8") for path in files)))
    warnings -= {"audio.gone"}  # of the door
    assert len(warnings) > 15
    assert sorted(warning for warning in warnings if f"`{warning}`" not in text) == []


def test_every_code_of_the_door_is_on_its_page() -> None:
    source = "".join(path.read_text() for path in sorted((ROOT / "vps_bridge" / "http").glob("*.py")))
    codes = set(re.findall(r'HttpProblem\(\s*[\w.]+, "([a-z_.]+)"', source))
    codes |= {f"job.{outcome}" for outcome in (*RETRY_REFUSED, *CANCEL_REFUSED)}
    assert len(codes) > 10
    told = read_page("docs/http.md")
    assert sorted(code for code in codes - set(FailureCode) if f"`{code}`" not in told) == []
