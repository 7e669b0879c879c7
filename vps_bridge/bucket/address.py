"""Which bucket, as the settings say, and as whom."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from broker.errors import SettingsError
from broker.secret_setting import read_secret
from vps_bridge.settings import BridgeSettings
from vps_bridge.signed_endpoint import is_near

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]*/)*")
_WHERE = "the settings"


@dataclass(frozen=True)
class BucketAddress:
    """A bucket, a place in it, and the user of it."""

    bucket: str
    prefix: str
    """Empty, or ends with a slash."""
    endpoint: str | None
    """None: Amazon's, of the region."""
    region: str
    access_key: str
    secret: str = field(repr=False)
    timeout_s: float

    @property
    def shown(self) -> str:
        """How people are told of it."""
        return f"s3://{self.bucket}/{self.prefix}" + (f" at {self.endpoint}" if self.endpoint else "")


def read_bucket(settings: BridgeSettings) -> BucketAddress | None:
    """Return the bucket of the settings; None where audio is kept in a directory. Raises `SettingsError`."""
    if settings.spool_url is None:
        return None
    bucket, prefix = _parse(settings.spool_url)
    secret = read_secret("spool_secret", settings.spool_secret, settings.spool_secret_file)
    if not settings.spool_access_key or not secret:
        words = "a bucket needs OMI_SPOOL_ACCESS_KEY, and OMI_SPOOL_SECRET_FILE (or OMI_SPOOL_SECRET)"
        raise SettingsError("spool_access_key" if secret else "spool_secret", _WHERE, words)
    return BucketAddress(
        bucket,
        prefix,
        _check_endpoint(settings.spool_endpoint, is_insecure=settings.spool_insecure),
        settings.spool_region,
        settings.spool_access_key,
        secret,
        settings.spool_timeout_s,
    )


def _parse(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    prefix = f"{prefix}/" if prefix else ""
    is_plain = parts.scheme == "s3" and not (parts.query or parts.fragment or "@" in parts.netloc)
    if not is_plain or _BUCKET.fullmatch(parts.netloc) is None or _PREFIX.fullmatch(prefix) is None:
        words = "s3://bucket or s3://bucket/prefix; without it, audio is kept in a directory in data_dir"
        raise SettingsError("spool_url", _WHERE, words)
    return parts.netloc, prefix


def _check_endpoint(endpoint: str | None, *, is_insecure: bool) -> str | None:
    if endpoint is None:
        return None
    words = "https://host:port, or http://address:port of this machine or the tailnet; empty: Amazon S3"
    try:
        parts = urlsplit(endpoint)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        raise SettingsError("spool_endpoint", _WHERE, words) from None
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.query or parts.path.strip("/"):
        raise SettingsError("spool_endpoint", _WHERE, words)
    if parts.scheme == "http" and not (is_insecure or host == "localhost" or is_near(host)):
        far = "http:// shows others which conversation is kept when: use https://, or set OMI_SPOOL_INSECURE=true"
        raise SettingsError("spool_endpoint", _WHERE, far)
    return endpoint.rstrip("/")
