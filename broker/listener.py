"""Where a Mosquitto that we set up listens, and what may be written into its configuration."""

import ipaddress
import re
from collections import Counter
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from broker.errors import BrokerError
from schemas.topics import DEFAULT_ROOT, TopicKind, Topics

# What addresses and names are made of; Mosquitto's configuration is read line by line, and at spaces.
_HOST = re.compile(r"[0-9A-Za-z][0-9A-Za-z.:_%-]*|::[0-9A-Za-z.:_%-]*")
NAME_COMMENT = "# Others reach it as: "  # in the configuration, where the listener has another name than its address
FIRST_BRIDGE = "# bridge"  # in the access list, over the rights of the first bridge
# Tailscale encrypts what goes between these: tailscale.com/kb/1015/100.x-addresses, kb/1033/ip-and-dns-addresses.
TAILNETS = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))


class UnencryptedListener(BrokerError):
    """A broker without TLS would listen on a network that others can listen to."""

    def __init__(self, host: str) -> None:
        """Name the address."""
        self.host = host
        super().__init__(
            f"{host} is neither loopback nor an address of a tailnet: passwords and audio would cross that network "
            "unencrypted. Give this machine's tailnet address (`tailscale ip -4`), or set up a Mosquitto with TLS "
            "(`omi-broker init`), or say --insecure if only machines you trust can reach it."
        )


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of a TLS listener; absolute paths that the broker's user can read."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Listener:
    """The only listener of a broker, and what else was chosen when it was set up."""

    host: str = "127.0.0.1"
    port: int = 1883
    tls: TlsFiles | None = None
    persistence: bool = False
    """Keep retained messages over a restart. Not needed: our programs publish theirs again."""
    bridge_id: str = "bridge"
    name: str | None = None
    """By which others reach it, where that is another than `host`."""
    topic_root: str = DEFAULT_ROOT

    @property
    def reached_as(self) -> str:
        """The name or address in the URL that clients are given."""
        return self.name or self.host


def check_listener(listener: Listener, *, insecure: bool) -> None:
    """Check what would be written into a configuration, and that nobody can listen in.

    Args:
        listener: what was asked for.
        insecure: allow a listener without TLS on any network.

    Raises:
        UnencryptedListener: no TLS, and neither on loopback nor on a tailnet.
        BrokerError: the host or a path holds what would become another line of the configuration.
    """
    for host in (listener.host, listener.reached_as):
        if not _HOST.fullmatch(host):
            raise BrokerError(f"host {host!r} is no address: give one such as 127.0.0.1, ::1 or 100.64.0.1")
    if listener.tls is not None:
        check_path(listener.tls.certificate.absolute())
        check_path(listener.tls.key.absolute())
    elif not insecure and not is_private(listener.host):
        raise UnencryptedListener(listener.host)


def is_private(host: str) -> bool:
    """Whether what is sent to this address stays on this machine or is encrypted by the tailnet.

    A name other than `localhost` never counts, because it can come to mean another address. Nor does an address of a
    home or office network: whoever is in it can listen.
    """
    address = _parse_address(host)
    return is_loopback(host) or any(address in network for network in TAILNETS if address is not None)


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach this address."""
    address = _parse_address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def is_every_address(host: str) -> bool:
    """Whether a broker that listens there does so on all addresses of the machine, so that it is no URL's host."""
    address = _parse_address(host)
    return address is not None and address.is_unspecified


def _parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def check_path(path: Path) -> None:
    """Raise `BrokerError` for a path that cannot stand in a line of the configuration."""
    text = str(path)
    if not text.isprintable() or text != text.strip():
        raise BrokerError(f"{text!r} cannot stand in a configuration: use a path without line breaks and such")


def read_listener(config: Path, acl: Path) -> Listener | None:
    """Return what an earlier run wrote into these two files; None where there is no listener.

    Raises:
        BrokerError: they cannot be read.
    """
    try:
        lines = config.read_text(encoding="utf-8").splitlines()
        rights = acl.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BrokerError(f"{config.parent} cannot be read ({error}): run this as the user that wrote it") from error
    found = dict(line.split(" ", maxsplit=1) for line in lines if " " in line and not line.startswith("#"))
    port, _, host = found.get("listener", "").partition(" ")
    if not port.isdecimal() or not host:
        return None
    tls = TlsFiles(Path(found["certfile"]), Path(found["keyfile"])) if {"certfile", "keyfile"} <= set(found) else None
    name = next((line.removeprefix(NAME_COMMENT).strip() for line in lines if line.startswith(NAME_COMMENT)), None)
    root = _find_topic_root(rights)
    bridge_id = _find_bridge_id(rights, Topics(root))
    return Listener(host, int(port), tls, found.get("persistence") == "true", bridge_id, name, root)


def _find_topic_root(rights: list[str]) -> str:
    """Return the root of all topics: that of most rights, whichever of them somebody took out."""
    found = (re.fullmatch(r"topic (?:read|write) (\S+?)/conversations/\+/\S+", line) for line in rights)
    roots = Counter(match[1] for match in found if match)
    return roots.most_common(1)[0][0] if roots else DEFAULT_ROOT


def _find_bridge_id(rights: list[str], topics: Topics) -> str:
    """Return the id of the first bridge, under which it alone may beat and tell of failures."""
    begin = rights.index(FIRST_BRIDGE) + 1 if FIRST_BRIDGE in rights else 0
    own = list(takewhile(lambda line: not line.startswith("#"), rights[begin:]))
    for kind in (TopicKind.BRIDGE_HEARTBEAT, TopicKind.FAILURE):
        before, _, after = topics.filter(kind).rpartition("+")
        pattern = re.compile(f"topic write {re.escape(before)}([A-Za-z0-9_-]+){re.escape(after)}")
        for match in filter(None, map(pattern.fullmatch, own)):
            return match[1]
    return Listener.bridge_id
