"""Where the webhook's messages go and how they are signed, as the settings say."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from broker.errors import SettingsError
from broker.secret_setting import read_secret
from vps_bridge.settings import BridgeSettings

MIN_SECRET_CHARS = 16
_PORTS = {"http": 80, "https": 443}
_TAILNET = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))
NOT_ENCRYPTED = (
    "http:// is for a receiver on this machine or in the tailnet: use https://, or set OMI_WEBHOOK_INSECURE=true where "
    "the way there is safe"
)


@dataclass(frozen=True)
class Receiver:
    """Who gets the messages."""

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
        """Its address as logs show it: a path may be a secret of the receiver's."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def allows(self, address: str) -> bool:
        """Whether messages may be sent to this IP address."""
        return self.scheme == "https" or self.is_insecure or is_near(address)


def read_receiver(settings: BridgeSettings) -> Receiver | None:
    """Return the receiver, or None where the webhook is off. Raises `SettingsError`."""
    secret = read_secret("webhook_secret", settings.webhook_secret, settings.webhook_secret_file)
    if settings.webhook_url is None:
        return None
    if secret is None or len(secret) < MIN_SECRET_CHARS:
        words = (
            f"the webhook is signed: set OMI_WEBHOOK_SECRET (or webhook_secret_file) to {MIN_SECRET_CHARS} characters "
            "or more that the receiver knows too; `openssl rand -hex 32` makes them"
        )
        raise SettingsError("webhook_secret", "the settings", words)
    scheme, host, port, target = _parse(settings.webhook_url)
    receiver = Receiver(
        scheme, host, port, target, secret, settings.webhook_insecure, timeout_s=settings.webhook_timeout_s
    )
    if _is_ip_address(host) and not receiver.allows(host):
        raise SettingsError("webhook_url", "the settings", NOT_ENCRYPTED)
    return receiver


def sign(secret: str, now: int, body: bytes) -> str:
    """Return the value of the header `Omi-Signature` at a Unix time."""
    digest = hmac.new(secret.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={now},v1={digest}"


def is_near(address: str) -> bool:
    """Whether an IP address is this machine's own or one of a tailnet, whose way is encrypted."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_loopback or any(ip in network for network in _TAILNET)


def _parse(url: str) -> tuple[str, str, int, str]:
    """Return scheme, host, port, and path with query. Raises `SettingsError`, without the URL: it may be secret."""
    words = "an absolute URL, https://host/path or (this machine, tailnet) http://host:port/path"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        raise SettingsError("webhook_url", "the settings", words) from None
    is_plain = url.isascii() and url.isprintable() and " " not in url
    if not is_plain or not host or port is None or parts.fragment:
        raise SettingsError("webhook_url", "the settings", words)
    if parts.username is not None or parts.password is not None:
        words = "without user and password: every message is signed, the receiver checks that"
        raise SettingsError("webhook_url", "the settings", words)
    return parts.scheme, host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
