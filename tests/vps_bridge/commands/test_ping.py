"""`omi-bridge ping`: a second of speech comes back, each leg is timed, and where it stops is said with the remedy."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from schemas.agent import AgentControl
from schemas.bridge import BridgeHeartbeat
from schemas.conversation import EventType
from schemas.failure import FailureCode
from tests.brokers import RunningBroker
from tests.late_proxy import LateProxy
from tests.pace import paced
from tests.vps_bridge.answering_agent import AnsweringAgent
from tests.vps_bridge.live_bridge import Backend, LiveBridge, run_bridge, wait_until
from tests.vps_bridge.scripted_agent import ScriptedAgent
from vps_bridge.client.ping import Ping
from vps_bridge.client.round_trip import LEGS, Link, Moment, RoundTrip, describe
from vps_bridge.commands.ping import print_trip
from vps_bridge.ledger import Ledger
from vps_bridge.settings import BridgeSettings

MAX_DELAY_S = 1.2  # the broker's answer to a connect takes twice as long, and has 3 s
LEG_NAMES = {leg.name for leg in LEGS}


@dataclass
class Links:
    """Broker and bridge, with a proxy on the way of each: of the ping itself, of the bridge, of the agent."""

    broker: RunningBroker
    bridge: LiveBridge
    here: LateProxy
    to_bridge: LateProxy
    to_agent: LateProxy
    proxies: dict[Link, LateProxy] = field(default_factory=dict)

    def ping(self, agent_id: str | None, *, timeout_s: float = 60.0) -> dict[str, Any]:
        """What `omi-bridge ping --json` prints, without its second of start-up."""
        broker = self.broker.reached_at(self.here.port)
        speaks, listens = broker.settings("backend", BridgeSettings), broker.settings("bridge", BridgeSettings)
        return describe(Ping(speaks, listens, agent_id=agent_id, timeout_s=timeout_s).run())

    def listed(self) -> list[str]:
        """What `omi-bridge conversations` lists, without its second of start-up."""
        ledger = Ledger(self.bridge.data_dir / "bridge", exclusive=False)
        names = [record.conversation_id for record in ledger.listing.some(ledger.listing.latest_first())]
        ledger.close()
        return names

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it as a person would, with the users of both roles in one config file."""
        config = self.bridge.data_dir / "ping.toml"
        tables = {role: self.broker.users[role] for role in ("backend", "bridge")}
        config.write_text(
            "".join(
                f'[{role}]\nbroker_username = "{user.username}"\nbroker_password = "{user.password}"\n'
                for role, user in tables.items()
            )
        )
        config.chmod(0o600)
        url = self.broker.reached_at(self.here.port).url
        own = {"OMI_CONFIG": str(config), "OMI_BROKER_URL": url}
        without = ("OMI_BROKER_USERNAME", "OMI_BROKER_PASSWORD")
        return self.bridge.command("ping", *arguments, check=False, own=own, without=without)


@pytest.fixture(scope="module")
def links(mosquitto: RunningBroker, backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Links]:
    with contextlib.ExitStack() as stack:
        here, to_bridge, to_agent = (stack.enter_context(LateProxy(mosquitto.port)) for _ in range(3))
        behind = mosquitto.reached_at(to_bridge.port)
        bridge = stack.enter_context(run_bridge(behind, tmp_path_factory.mktemp("data"), backend))
        bridge.allow("first", "second")
        ways = {Link.HERE: here, Link.BRIDGE: to_bridge, Link.AGENT: to_agent}
        yield Links(mosquitto, bridge, here, to_bridge, to_agent, ways)


def wait_live(bridge: LiveBridge, backend: Backend, *names: str) -> None:
    wait_until(
        lambda: set(names) <= set(backend.seen(BridgeHeartbeat)[-1].agents_live_ids), f"{names} counted by the bridge"
    )


def test_a_named_agent_does_it_each_leg_is_timed_and_nothing_stays(links: Links, backend: Backend) -> None:
    with AnsweringAgent(links.broker, "first"), AnsweringAgent(links.broker, "second", worker_ms=7.0) as second:
        wait_live(links.bridge, backend, "first", "second")
        before = links.listed()
        for _ in range(2):  # the first agent would be as good
            told = links.ping("second")
            assert (told["ok"], told["agent_id"]) == (True, "second"), told
        done = links.command("second")
        assert (done.returncode, done.stderr) == (0, "")
        assert {leg["leg"] for leg in told["legs"]} == LEG_NAMES | {"worked on"}
        assert all(leg["ms"] >= 0 for leg in told["legs"])
        assert 0 < next(leg["ms"] for leg in told["legs"] if leg["leg"] == "worked on") <= 7.0
        assert told["problem"] is None
        (name, *_) = {offer.conversation_id for offer in second.offers.items}
        assert links.listed() == before
        assert links.bridge.jobs(str(name)) == []
        assert links.bridge.is_deleted(str(name))


@pytest.mark.slow
@pytest.mark.parametrize("link", [Link.HERE, Link.BRIDGE, Link.AGENT])
def test_the_slow_link_is_named(link: Link, links: Links, backend: Backend) -> None:
    with AnsweringAgent(links.broker.reached_at(links.to_agent.port), "first"):
        wait_live(links.bridge, backend, "first")
        links.proxies[link].delay(min(paced(0.8), MAX_DELAY_S))
        try:
            told = links.ping("first")
        finally:
            links.proxies[link].delay(0.0)
    assert told["ok"], told
    assert told["slow"][0] == link
    assert max(told["legs"], key=lambda leg: leg["ms"])["link"] == link


@pytest.mark.slow
def test_it_says_where_it_stopped_and_what_to_type(links: Links, backend: Backend) -> None:
    links.bridge.allow("second", allowed=False)
    with ScriptedAgent(links.broker, "first") as silent, ScriptedAgent(links.broker, "second"):
        wait_live(links.bridge, backend, "first")
        told = links.ping("first", timeout_s=paced(3))
        assert (told["ok"], told["stopped_at"]) == (False, "asked for by agent")
        assert "omi-agent logs" in told["remedy"]
        name = silent.offers.items[-1].conversation_id or ""
        wait_until(lambda: links.bridge.is_deleted(name), "the deletion of what stopped on its way")
        told = links.ping("second", timeout_s=paced(1))
        assert (told["ok"], told["remedy"]) == (False, "omi-bridge agents allow second")
        assert len(told["legs"]) == 0
    links.bridge.allow("second")
    told = links.ping("nobody", timeout_s=paced(0.5))
    assert "nobody is not live" in told["problem"]
    assert "omi-agent doctor" in told["remedy"]
    links.here.refuse()
    done = links.command("--json")
    links.here.refuse(on=False)
    assert done.returncode == 1
    assert "OMI_BROKER_URL" in json.loads(done.stdout)["problem"]


def test_the_agents_failure_is_told_in_its_words(links: Links, backend: Backend) -> None:
    class Failing(AnsweringAgent):
        def _do(self, offer: AgentControl) -> None:
            self.fail(offer, FailureCode.ENGINE_CRASHED)

    with Failing(links.broker, "first"):
        wait_live(links.bridge, backend, "first")
        told = links.ping("first")
    assert not told["ok"]
    assert "engine.crashed: as the test told it" in told["problem"]


def test_a_real_conversation_is_not_made_temporary_by_who_sends_a_test(links: Links, backend: Backend) -> None:
    backend.event("kept", EventType.STARTED)
    backend.event("kept", EventType.STARTED, temporary=True, only_agent="first")
    assert "kept" in links.listed()


def test_a_slow_worker_is_told_from_a_slow_link() -> None:
    moments = dict.fromkeys(Moment, 1.0) | {Moment.RESULT: 25.0, Moment.STORED: 25.0, Moment.BACK: 25.0}
    assert RoundTrip(moments=moments, worker_ms=23_900.0).slow_links() == [Link.WORKER]
    assert RoundTrip(moments=moments, worker_ms=9_000.0).slow_links() == [Link.AGENT]


def test_what_is_seen_in_another_order_takes_no_less_than_nothing() -> None:
    moments = {moment: float(place) for place, moment in enumerate(Moment)}
    moments |= {Moment.AT_BROKER: 9.0}
    assert min(leg.ms for leg in RoundTrip(moments=moments).legs()) == 0.0


def test_a_ping_that_may_not_see_the_agent_does_not_name_one(capsys: pytest.CaptureFixture[str]) -> None:
    print_trip(RoundTrip(moments={Moment.SENT: 0.0, Moment.AT_BROKER: 0.1, Moment.ACCEPTED: 0.2, Moment.BACK: 0.5}))
    told = capsys.readouterr().out
    assert "500 ms, by an agent" in told
    assert "None" not in told
