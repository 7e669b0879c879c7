"""Checking that a running broker takes a user: its name and its password."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from broker.check import Check, failed, ok
from broker.errors import BrokerError, BrokerRefused
from broker.session import MqttSession
from broker.settings import BrokerSettings
from broker.users import Credentials

CONNECT_TIMEOUT_S = 5.0
UNREACHABLE = "broker"  # the name of the check where the broker itself cannot be reached


def check_user(
    role: str, settings: BrokerSettings, *, reload: str, start: str, timeout_s: float = CONNECT_TIMEOUT_S
) -> Check:
    """Connect as a user; the check is named `UNREACHABLE` where the broker itself cannot be reached.

    Args:
        role: whose settings these are.
        settings: with its username, its password and the address.
        reload: the remedy where the broker refuses it.
        start: the remedy where there is no broker.
        timeout_s: how long to wait for it.
    """
    session = MqttSession(settings, client_id=f"check-{secrets.token_hex(6)}", on_message=lambda _: None)
    session.start()
    try:
        session.wait_connected(timeout_s)
    except BrokerRefused as error:
        return failed(f"user {role}", f"refused: {error.reason}", reload)
    except BrokerError as error:
        return failed(UNREACHABLE, str(error), start)
    finally:
        session.stop()
    return ok(f"user {role}", f"{settings.broker_url}, packets of up to {session.max_packet_bytes:,} bytes")


def settings_of(
    url: str, user: Credentials, ca_file: Path | None, *, mqtt_version: Literal["5", "3.1.1"]
) -> BrokerSettings:
    """Return settings to connect with as a user, whatever the environment says."""
    return BrokerSettings(
        broker_url=url,
        broker_username=user.username,
        broker_password=SecretStr(user.password),
        broker_ca_file=ca_file,
        mqtt_version=mqtt_version,
    )
