"""The address of a broker, parsed from a URL such as `mqtts://vps.tailnet.example:8883`; a cluster has several."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}
_BETWEEN_URLS = re.compile(r"\s*,\s*(?=mqtts?://)")  # a comma may stand in a password


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


@dataclass(frozen=True)
class ParsedUrls:
    """The addresses of the servers of one broker, and the credentials that were in their URLs."""

    addresses: tuple[BrokerAddress, ...]
    username: str | None
    password: str | None

    @property
    def url(self) -> str:
        """The addresses as URLs between commas, never with credentials."""
        return ",".join(address.url for address in self.addresses)


def parse_broker_urls(urls: str) -> ParsedUrls:
    """Split the URLs of the servers of one broker, which stand between commas: `mqtts://a:8883,mqtts://b:8883`.

    Raises:
        ValueError: as `parse_broker_url`; or servers of one broker differ in TLS or in credentials.
    """
    parsed = [parse_broker_url(url) for url in _BETWEEN_URLS.split(urls.strip())]
    addresses = tuple(dict.fromkeys(found.address for found in parsed))
    if len({address.tls for address in addresses}) > 1:
        msg = "must begin with mqtts:// for all servers of a broker, or with mqtt:// for all"
        raise ValueError(msg)
    logins = {(found.username, found.password) for found in parsed if found.username or found.password}
    if len(logins) > 1:
        msg = "must have one user and password for all servers of a broker"
        raise ValueError(msg)
    username, password = logins.pop() if logins else (None, None)
    return ParsedUrls(addresses, username, password)


def parse_broker_url(url: str) -> ParsedUrl:
    """Split `mqtt://[user[:password]@]host[:port]`.

    Raises:
        ValueError: not such a URL. The message never repeats the URL, which may hold a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or "," in parts.hostname:
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
