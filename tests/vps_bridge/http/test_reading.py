"""What programs read over HTTP, and what they do to jobs: from a bridge with a real conversation, by a real agent."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from schemas.conversation import EventType
from tests.brokers import RunningBroker
from tests.inbox import WAIT_S
from tests.vps_bridge.http.door import Door, answering, open_door
from tests.vps_bridge.live_bridge import CALL_S, CALL_TURNS, Backend, run_bridge, wait_until
from vps_bridge.http.changes import MAX_LISTENERS, MAX_NAMED, ChangeNotice, compare_marks
from vps_bridge.ledger.listing import Marks

COMMANDS = """
import json, os, sys
from typer.testing import CliRunner
from vps_bridge.commands.main import app
os.umask(0o077)
done = [CliRunner().invoke(app, words) for words in json.load(sys.stdin)]
print(json.dumps([[one.exit_code, one.output] for one in done]))
"""


@pytest.fixture(scope="module")
def called(mosquitto: RunningBroker, door: Door) -> Iterator[Door]:
    """A door whose bridge has labelled two calls."""
    with answering(mosquitto):
        for name in ("call-1", "other-2"):
            door.backend.send_call(name)
            door.backend.wait_updated(name)
        yield door


def read(door: Door, path: str, **query: Any) -> Any:
    answer = door.client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/v1/jobs?conversation=call-1", "conversation_id"),
        ("/v1/jobs?limit=1&limit=2", "stands twice"),
        ("/v1/conversations?Search=call", "search"),
        ("/v1/conversations/call-1?limit=1", "takes none"),
        ("/v1/conversations/call-1/export?fromat=srt", "format"),
        ("/v1/conversations/call-1/history?before=7", "takes none"),
        ("/v1/status?x=%0A%1B", "takes none"),
        ("/v1/agents?id=mac", "takes none"),
    ],
)
def test_a_query_that_its_path_does_not_know_is_refused_and_never_answered_as_another(
    called: Door, path: str, known: str
) -> None:
    answer = called.client.get(path)
    assert (answer.status_code, known in answer.json()["message"]) == (422, True), answer.text
    assert called.client.get("/health?cache=no").status_code == 200


def test_the_list_is_searched_filtered_and_paged(called: Door) -> None:
    page = read(called, "/v1/conversations")
    assert [item["conversation_id"] for item in page["conversations"]] == ["other-2", "call-1"]
    assert {(item["state"], item["speakers"]) for item in page["conversations"]} == {("final", 2)}
    assert page["next_offset"] is None
    first = read(called, "/v1/conversations", limit=1)
    assert (len(first["conversations"]), first["next_offset"]) == (1, 1)
    rest = read(called, "/v1/conversations", limit=1, offset=1)
    assert ([item["conversation_id"] for item in rest["conversations"]], rest["next_offset"]) == (["call-1"], None)
    assert len(read(called, "/v1/conversations", search="CALL")["conversations"]) == 1
    assert read(called, "/v1/conversations", state="waiting")["conversations"] == []
    assert called.client.get("/v1/conversations", params={"state": "nothing"}).status_code == 422


def test_a_conversation_tells_who_speaks_and_how_sure_that_is(called: Door) -> None:
    found = read(called, "/v1/conversations/call-1")
    assert [voice["speaker"] for voice in found["voices"]] == ["SPEAKER_00", "SPEAKER_01"]
    assert sum(voice["segments"] for voice in found["voices"]) == len(found["segments"]) == len(CALL_TURNS)
    assert {segment["coverage"] for segment in found["segments"]} == {1.0}
    assert len(found["turns"]) == len(CALL_TURNS)
    assert (found["state"], found["failures"], found["write"]) == ("final", [], 1)
    assert called.client.get("/v1/conversations/never-heard-of").status_code == 404


def test_jobs_and_agents_are_listed_as_the_commands_list_them(called: Door) -> None:
    page = read(called, "/v1/jobs", conversation_id="call-1")
    assert [job["state"] for job in page["jobs"]] == ["done"]
    assert page["counts"] == {"done": 2}
    assert read(called, "/v1/jobs", state="failed")["jobs"] == []
    (agent,) = read(called, "/v1/agents")["agents"]
    assert (agent["agent_id"], agent["allowed"], agent["is_live"], agent["engine"]) == ("first", True, True, "scripted")
    status = read(called, "/v1/status")
    assert (status["jobs_ready"], status["failures"], status["disk_free_bytes"] > 0) == (0, [], True)
    recent = status["recent"]
    assert recent["labelled_audio_s"] == 2 * CALL_S
    assert 0 < recent["median_latency_s"] <= recent["slow_latency_s"] < recent["span_s"]


def test_a_job_is_cancelled_once_and_never_brought_back(
    own_broker: RunningBroker, own_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with run_bridge(own_broker, tmp_path_factory.mktemp("data"), own_backend, **open_door()) as bridge:
        door = Door(bridge, own_backend)
        ended = threading.Event()

        def listen_to_the_end() -> None:
            with door.client.stream("GET", "/v1/changes") as stream:
                list(stream.iter_lines())
            ended.set()

        threading.Thread(target=listen_to_the_end, daemon=True).start()
        own_backend.send_call("stuck")
        (job,) = wait_until(lambda: read(door, "/v1/jobs", state="ready")["jobs"], "a job that waits")
        summary = read(door, "/v1/conversations", state="waiting")["conversations"][0]
        assert summary["reason"] == "no agent is allowed: omi-bridge agents allow ID"
        path = f"/v1/jobs/{job['job_id']}"
        assert door.client.post(f"{path}/retry").json()["outcome"] == "already_waiting"
        assert door.client.post(f"{path}/cancel").json()["outcome"] == "cancelled"
        refused = door.client.post(f"{path}/retry")
        assert (refused.status_code, refused.json()["code"]) == (409, "job.already_cancelled")
        assert door.client.post("/v1/jobs/j-none/retry").status_code == 404
        not_failed = door.client.post("/v1/conversations/stuck/retry").json()
        assert not_failed["outcome"] == "not_set_aside"
    assert ended.wait(WAIT_S), "a bridge that stops ends the streams, and with no broken connection"


def test_an_open_stream_tells_within_a_moment_what_to_read_again(called: Door) -> None:
    heard: list[dict[str, Any]] = []

    def listen() -> None:
        with called.client.stream("GET", "/v1/changes") as stream:
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    heard.append(json.loads(line.removeprefix("data: ")))
                if any("call-1" in notice["conversations"] for notice in heard):
                    return

    listening = threading.Thread(target=listen, daemon=True)
    listening.start()
    wait_until(lambda: any(notice["agents"] for notice in heard), "a heartbeat to be told of")
    said = [{"kind": "voice_is", "speaker_id": 0, "person_id": "anna"}]
    assert called.event("call-1", EventType.CORRECTED, corrections=said, by="anna").status_code == 200
    listening.join(WAIT_S)
    assert not listening.is_alive()
    assert all(set(notice) == set(ChangeNotice.model_fields) for notice in heard), "and nothing of it"

    def is_named() -> bool:
        return read(called, "/v1/conversations/call-1")["voices"][0]["person_id"] == "anna"

    wait_until(is_named, "the name in the conversation")
    assert len(read(called, "/v1/conversations", search="ANNA")["conversations"]) == 1


def test_so_many_pages_listen_and_no_more_until_one_goes(called: Door) -> None:
    def listen(stack: ExitStack) -> int:
        client = stack.enter_context(httpx.Client(headers=called.client.headers, timeout=WAIT_S))
        stream = stack.enter_context(client.stream("GET", f"{called.url}/v1/changes"))
        if stream.status_code == 200:
            lines = stream.iter_lines()
            stack.callback(id, lines)  # kept until then: the connection ends with its reader
            next(lines)
        return stream.status_code

    with ExitStack() as stack:
        assert [listen(stack) for _ in range(MAX_LISTENERS)] == [200] * MAX_LISTENERS
        assert listen(stack) == 503

    def is_let_in() -> bool:
        with ExitStack() as stack:
            return listen(stack) == 200

    wait_until(is_let_in, "a place for one more page")


def test_notices_name_what_changed_and_stay_small() -> None:
    before = Marks({"a": (1, 2), "b": (1, 2)}, jobs=3, refused=0.0, agents=())
    after = Marks({"a": (1, 3), "c": (1, 2)}, jobs=4, refused=0.0, agents=(), webhook=(1, None))
    notice = compare_marks(before, after)
    assert notice == ChangeNotice(conversations=("a", "b", "c"), jobs=True, webhook=True)
    assert compare_marks(after, after).is_empty
    flood = Marks({str(number): (1,) for number in range(MAX_NAMED + 1)}, jobs=3, refused=0.0, agents=())
    assert notice.merge(compare_marks(before, flood)) == ChangeNotice(many=True, jobs=True, webhook=True)


def test_a_conversation_is_downloaded_and_written_by_a_command_with_the_names_of_its_people(called: Door) -> None:
    called.backend.send_call("exported")
    called.backend.wait_updated("exported")
    named = {"schema": "person-event", "version": "1.0", "event_id": "e-named", "type": "named", "name": "Anna Berg"}
    assert called.client.post("/v1/people/p-1/events", json=named).status_code == 200
    said = [{"kind": "voice_is", "speaker_id": 0, "person_id": "p-1"}]
    assert called.event("exported", EventType.CORRECTED, corrections=said).status_code == 200

    def download(form: str) -> httpx.Response:
        answer = called.client.get("/v1/conversations/exported/export", params={"format": form})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-disposition"] == f'attachment; filename="exported.{form}"'
        return answer

    wait_until(lambda: "<v Anna Berg>word</v>" in download("vtt").text, "the name in the subtitles")
    assert download("srt").text.startswith("1\n00:00:00,500 --> 00:00:04,500\nAnna Berg: word\n")
    assert download("rttm").text.splitlines()[1].split()[7] == "SPEAKER_01"
    assert len(download("json").json()["turns"]) == len(CALL_TURNS)
    assert download("vtt").headers["content-type"] == "text/vtt; charset=utf-8"
    path = "/v1/conversations/exported/export?format="
    assert called.open.get(f"{path}srt").status_code == 401
    assert called.client.get(f"{path}docx").status_code == 422
    assert called.client.get("/v1/conversations/never-heard-of/export").status_code == 404

    file = called.bridge.data_dir / "exported.srt"
    words = ["export", "exported", "--format", "srt", "--output", str(file)]
    rttm = ["export", "exported", "--format", "rttm"]
    written, again, forced, shown = run_commands(called, words, words, [*rttm, *words[4:], "--force"], rttm)
    assert (written, shown) == ([0, ""], [0, download("rttm").text])
    assert (again[0], "say --force" in again[1], forced) == (1, True, [0, ""])
    assert (file.read_text(), file.stat().st_mode & 0o077) == (download("rttm").text, 0)


def test_prometheus_reads_how_long_labels_took_and_nothing_of_anybody(called: Door) -> None:
    answer = called.open.get("/metrics")
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "text/plain")
    lines = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    assert float(lines["omi_bridge_accepted_to_updated_seconds_count"]) >= 2
    assert float(lines["omi_bridge_labelled_audio_seconds_total"]) >= 2 * CALL_S
    assert float(lines['omi_bridge_agents{allowed="yes",live="yes"}']) == 1
    assert [word for word in ("call-1", "other-2", "anna", "first", "SPEAKER") if word in answer.text] == []


def run_commands(door: Door, *commands: list[str]) -> list[list[Any]]:
    """Exit code and output of each command of `omi-bridge`, all in one process, which takes a second to start."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input=json.dumps(commands),
        env=door.bridge.environment() | {"NO_COLOR": "1", "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=True,
    )
    return list(json.loads(done.stdout))
