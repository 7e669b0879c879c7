"""When the certificate of a broker ends, as its clients see it."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from broker.check import Check, failed, note, ok

if TYPE_CHECKING:
    from pathlib import Path

    from broker.address import BrokerAddress
    from broker.settings import BrokerSettings

CONNECT_TIMEOUT_S = 5.0
SOON, VERY_SOON = timedelta(days=60), timedelta(days=14)
REMEDY = "On the broker's machine: omi-broker rotate DIR --certificates, then systemctl reload mosquitto."


def check_certificate(settings: BrokerSettings) -> list[Check]:
    """Ask each server of the broker for its certificate and check when it ends; nothing without TLS or a connection.

    What is wrong with a connection the check of the connection says.
    """
    checks = []
    for server in settings.addresses if settings.uses_tls else ():
        name = "certificate" if len(settings.addresses) == 1 else f"certificate of {server.host}:{server.port}"
        with suppress(OSError, ValueError):
            checks.append(check_certificate_end(_fetch_end(server, settings.broker_ca_file), name=name))
    return checks


def check_certificate_end(end: datetime, *, name: str = "certificate", now: datetime | None = None) -> Check:
    """Judge when a certificate ends; `name` says whose it is."""
    left = end - (now or datetime.now(UTC))
    if left < timedelta(0):
        return failed(name, f"ended on {end:%Y-%m-%d}: nobody who checks it connects", REMEDY)
    found = f"ends on {end:%Y-%m-%d}, in {left.days:,} days"
    if left < VERY_SOON:
        return failed(name, found, REMEDY)
    return note(name, found, REMEDY) if left < SOON else ok(name, found)


def _fetch_end(server: BrokerAddress, ca_file: Path | None) -> datetime:
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    with (
        socket.create_connection((server.host, server.port), CONNECT_TIMEOUT_S) as connection,
        context.wrap_socket(connection, server_hostname=server.host) as encrypted,
    ):
        certificate = encrypted.getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
