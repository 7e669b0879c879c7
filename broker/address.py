"""The address of a broker, parsed from a URL such as `mqtts://vps.tailnet.example:8883`."""

import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True)
class BrokerAddress:
    """Host, port and whether the connection uses TLS."""

    host: str
    port: int
    tls: bool

    @property
    def url(self) -> str:
        """The address as a URL, never with credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine, by its name or address alone (nothing is looked up)."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True)
class ParsedUrl:
    """An address and the credentials that were in its URL."""

    address: BrokerAddress
    username: str | None
    password: str | None


def parse_broker_url(url: str) -> ParsedUrl:
    """Split `mqtt://[user[:password]@]host[:port]`.

    Raises:
        ValueError: not such a URL. The message never repeats the URL, which may hold a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        msg = "must be a URL such as mqtt://127.0.0.1:1883 or mqtts://broker.example:8883"
        raise ValueError(msg)
    if parts.path.strip("/") or parts.query or parts.fragment:
        msg = "must end after the port: a broker has no path, query or fragment"
        raise ValueError(msg)
    address = BrokerAddress(parts.hostname, _port(parts), tls=parts.scheme == "mqtts")
    return ParsedUrl(
        address,
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
    )


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError as error:
        msg = "must have a port between 1 and 65535"
        raise ValueError(msg) from error
    if port == 0:
        msg = "must have a port between 1 and 65535"
        raise ValueError(msg)
    return port or DEFAULT_PORTS[parts.scheme]
