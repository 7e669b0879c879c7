"""Where signed requests go, as the settings say: to an address that is near or by TLS, and nowhere else."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from broker.errors import SettingsError

MIN_SECRET_CHARS = 16
_PORTS = {"http": 80, "https": 443}
_TAILNET = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))


@dataclass(frozen=True)
class SignedEndpoint:
    """Who gets the requests."""

    setting: str
    """`webhook` for the settings `webhook_url`, `webhook_secret` and so on."""
    scheme: str
    host: str
    port: int
    target: str
    """Path and query of the requests."""
    secret: str = field(repr=False)
    is_insecure: bool
    """Whether http:// is allowed whatever the address."""
    timeout_s: float
    """For connecting, and again for request and answer as a whole."""

    @property
    def shown(self) -> str:
        """Its address as logs show it: a path may be a secret of the other side's."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def variable(self) -> str:
        """The beginning of the names of its settings as environment variables."""
        return f"OMI_{self.setting.upper()}"

    @property
    def not_encrypted(self) -> str:
        """What to say where an address is too far for http://."""
        return (
            "http:// is for a receiver on this machine or in the tailnet: use https://, or set "
            f"{self.variable}_INSECURE=true where the way there is safe"
        )

    def allows(self, address: str) -> bool:
        """Whether requests may be sent to this IP address."""
        return self.scheme == "https" or self.is_insecure or is_near(address)


def read_endpoint(
    setting: str, what: str, url: str, secret: str | None, *, is_insecure: bool, timeout_s: float
) -> SignedEndpoint:
    """Return the endpoint of the settings `setting`_url and so on; `what` it is, for errors. Raises `SettingsError`."""
    if secret is None or len(secret) < MIN_SECRET_CHARS:
        words = (
            f"{what} is signed: set OMI_{setting.upper()}_SECRET (or {setting}_secret_file) to {MIN_SECRET_CHARS} "
            "characters or more that the receiver knows too; `openssl rand -hex 32` makes them"
        )
        raise SettingsError(f"{setting}_secret", "the settings", words)
    scheme, host, port, target = _parse(f"{setting}_url", url)
    endpoint = SignedEndpoint(setting, scheme, host, port, target, secret, is_insecure, timeout_s)
    if _is_ip_address(host) and not endpoint.allows(host):
        raise SettingsError(f"{setting}_url", "the settings", endpoint.not_encrypted)
    return endpoint


def sign(secret: str, now: int, signed: bytes) -> str:
    """Return the value of the header `Omi-Signature` at a Unix time, over what is to be signed."""
    digest = hmac.new(secret.encode(), f"{now}.".encode() + signed, hashlib.sha256).hexdigest()
    return f"t={now},v1={digest}"


def is_near(address: str) -> bool:
    """Whether an IP address is this machine's own or one of a tailnet, whose way is encrypted. A name is none."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_loopback or any(ip in network for network in _TAILNET)


def _parse(name: str, url: str) -> tuple[str, str, int, str]:
    """Return scheme, host, port, and path with query. Raises `SettingsError`, without the URL: it may be secret."""
    words = "an absolute URL, https://host/path or (this machine, tailnet) http://host:port/path"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        raise SettingsError(name, "the settings", words) from None
    is_plain = url.isascii() and url.isprintable() and " " not in url
    if not is_plain or not host or port is None or parts.fragment:
        raise SettingsError(name, "the settings", words)
    if parts.username is not None or parts.password is not None:
        words = "without user and password: every message is signed, the receiver checks that"
        raise SettingsError(name, "the settings", words)
    return parts.scheme, host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
