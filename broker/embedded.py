"""The embedded broker: amqtt on loopback, for a laptop, a first try and tests.

It supports MQTT 3.1.1 only, keeps nothing over a restart, drops a QoS 1 message that is not acknowledged
within 5 s and never notices that a client is gone without closing its connection. Our delivery works without
all of these, only slower than with Mosquitto. On a VPS use `omi-broker init`.
"""

import asyncio
import contextlib
import errno
import resource
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from amqtt.broker import Broker
from amqtt.plugins.topic_checking import TopicAccessControlListPlugin
from pwdlib.hashers.argon2 import Argon2Hasher

from broker.access import access_of
from broker.address import BrokerAddress
from broker.errors import BrokerError, PortInUse
from broker.private_files import replace_file
from broker.stop_signals import call_on_stop
from broker.users import ROLES, Credentials, generate_users, users_file
from schemas.topics import Topics

_log = structlog.get_logger("broker.embedded")

SHUTDOWN_TIMEOUT_S = 5.0


class RoleAccessPlugin(TopicAccessControlListPlugin):  # type: ignore[misc] # amqtt is not typed
    """amqtt's access control with all three of its lists; the `Config` of its own plugin takes only one of them.

    Without the receive list a wildcard subscription receives too much: amqtt permits `a/#` to a user that has `a/+`.
    """

    @dataclass
    class Config:
        """Topic filters by username."""

        publish_acl: dict[str, list[str]] = field(default_factory=dict)
        subscribe_acl: dict[str, list[str]] = field(default_factory=dict)
        receive_acl: dict[str, list[str]] = field(default_factory=dict)


async def serve(
    *, host: str, port: int, data_dir: Path, topic_root: str, on_ready: Callable[[BrokerAddress], None]
) -> None:
    """Run the broker until SIGTERM, SIGINT or SIGHUP.

    Args:
        host: address to listen on; anything but loopback sends passwords and audio unencrypted.
        port: TCP port; 0 takes a free one.
        data_dir: the generated users are kept below it.
        topic_root: first levels of the topics the users may use.
        on_ready: called once, when clients can connect.

    Raises:
        PortInUse: another program listens there.
        BrokerError: the address is not ours, or amqtt could not start.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold audio and words
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_client_error)
    call_on_stop(lambda *_: loop.call_soon_threadsafe(stop.set))
    address = BrokerAddress(host, _free_port(host, port), tls=False)
    password_file = _write_password_file(data_dir, generate_users(data_dir))
    broker = Broker(_config(address, password_file, Topics(topic_root)))
    await broker.start()
    try:
        on_ready(address)
        await stop.wait()
        _log.info("stopping", broker=address.url)
    finally:
        with contextlib.suppress(TimeoutError):  # a client that keeps its connection open must not delay our exit
            await asyncio.wait_for(broker.shutdown(), SHUTDOWN_TIMEOUT_S)


def _log_client_error(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """Log in one line the exception that amqtt does not catch when a client disconnects during its CONNECT."""
    error = context.get("exception")
    _log.warning("a client's connection failed", error=type(error).__name__, reason=context.get("message"))


def _config(address: BrokerAddress, password_file: Path, topics: Topics) -> dict[str, object]:
    access = {role: access_of(role, topics) for role in ROLES}  # one user speaks for every agent, and every bridge
    return {
        "listeners": {"default": {"type": "tcp", "bind": address.url.partition("//")[2]}},
        "plugins": {
            "amqtt.plugins.authentication.FileAuthPlugin": {"password_file": str(password_file)},
            f"{__name__}.{RoleAccessPlugin.__name__}": {
                "publish_acl": {role: list(access[role].publish) for role in ROLES},
                "subscribe_acl": {role: list(access[role].subscribe) for role in ROLES},
                "receive_acl": {role: list(access[role].receive) for role in ROLES},
            },
        },
    }


def _write_password_file(data_dir: Path, users: Mapping[str, Credentials]) -> Path:
    # The passwords are 192 random bits: a costly hash would protect nothing and hold up every connect.
    hasher = Argon2Hasher(time_cost=1, memory_cost=1024, parallelism=1)
    path = users_file(data_dir).with_name("passwords")
    replace_file(path, "".join(f"{user.username}:{hasher.hash(user.password)}\n" for user in users.values()))
    return path


def _free_port(host: str, port: int) -> int:
    """Return the port to listen on, after a check that it is free."""
    try:
        family, *_, socket_address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(socket_address)
            return int(probe.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(host, port) from error
        raise BrokerError(
            f"cannot listen on {host}:{port}: {error.strerror}. Use an address of this machine (127.0.0.1) "
            "and a port above 1023."
        ) from error
