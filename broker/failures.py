"""Why a connection failed, in words that name the setting and the remedy."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from broker.address import BrokerAddress

# OpenSSL's numbers of what is wrong with a certificate (openssl:include/openssl/x509_vfy.h).
NOT_YET_VALID, ENDED = 9, 10
UNKNOWN_CA = {2, 18, 19, 20, 21}
OTHER_NAME = {62, 64}
TLS_ALERT = b"\x15\x03"  # what a port of TLS answers to whoever speaks none
SPEAKS_TLS = "If the broker speaks TLS there, OMI_BROKER_URL begins with mqtts://, and OMI_BROKER_CA_FILE names its CA."
OTHER_PORT = "OMI_BROKER_URL names another program's port: the broker's is 1883, or 8883 with TLS, unless it was moved."
NO_TLS = "Does it speak TLS there? If not, OMI_BROKER_URL begins with mqtt:// and not with mqtts://."
NOT_IN_TLS = (
    "It answers without TLS: if it is the broker, OMI_BROKER_URL begins with mqtt:// and not with mqtts://; if it is a "
    "web server, such as the bridge's HTTP door, OMI_BROKER_URL names another port."
)
NO_BROKER = "Is a broker there, or does OMI_BROKER_URL name the port of a web server?"
NEW_INVITATION = "Join with an invitation of this broker, which holds its CA, or set OMI_BROKER_CA_FILE to its ca.pem."


class NotMqtt(OSError):
    """What answers at the broker's address speaks another protocol; the message says which, and what to do."""

    def __init__(self, first: bytes) -> None:
        """Take the first bytes of the answer."""
        line = first.splitlines()[0].decode("ascii", "replace")
        if first.startswith(TLS_ALERT):
            words = f"TLS answers there. {SPEAKS_TLS}"
        elif first.startswith(b"HTTP/"):
            words = f"a web server answers there, such as the bridge's HTTP door. {OTHER_PORT}"
        elif first.startswith(b"INFO {"):
            words = f"NATS answers there in its own protocol. {OTHER_PORT}"
        elif line.isprintable() and line.isascii():
            words = f"what answers there, {line!r}, is no MQTT. {OTHER_PORT}"
        else:
            words = f"what answers there is no MQTT. {OTHER_PORT}"
        super().__init__(words)


def explain_failure(error: Exception, server: BrokerAddress, ca_file: Path | None) -> str:
    """Return why a connection could not be made; a sentence where it names the remedy."""
    if isinstance(error, NotMqtt):
        return str(error)
    plain = f"{type(error).__name__}: {error}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{plain}. {_explain_certificate(error.verify_code, server, ca_file)}"
    if isinstance(error, ssl.SSLError) and server.tls:
        if error.reason in {"NO_CERTIFICATE_OR_CRL_FOUND", "PEM", "NO_START_LINE"}:
            return f"{plain}. OMI_BROKER_CA_FILE ({ca_file}) holds no certificate: {NEW_INVITATION}"
        if error.reason == "WRONG_VERSION_NUMBER":  # it answered, and not in TLS
            return f"{plain}. {NOT_IN_TLS}"
        return f"{plain}. {NO_TLS}"
    if isinstance(error, ConnectionResetError) and server.tls:  # how Mosquitto ends what is no MQTT
        return f"{plain}. {NO_TLS}"
    if server.tls and ca_file is not None and isinstance(error, FileNotFoundError | PermissionError):
        return f"{plain}. OMI_BROKER_CA_FILE ({ca_file}) cannot be read: {NEW_INVITATION}"
    return plain


def explain_refusal(reason: str) -> str:
    """Return why the broker let nobody in: most often the password is another since `omi-broker rotate`."""
    words = "Check OMI_BROKER_USERNAME and OMI_BROKER_PASSWORD, or join again: omi-broker rotate DIR NAME invites anew."
    return f"refused: {reason}. {words}"


def explain_silence(reason: str, server: BrokerAddress) -> str:
    """Return why a connection ended before the broker answered: a port of TLS closes one that speaks none."""
    return f"{reason}. {NO_BROKER if server.tls else SPEAKS_TLS}"


def _explain_certificate(code: int, server: BrokerAddress, ca_file: Path | None) -> str:
    if code in UNKNOWN_CA:
        known = f"OMI_BROKER_CA_FILE ({ca_file})" if ca_file else "this machine"
        return f"The broker's certificate is signed by no CA that {known} knows. {NEW_INVITATION}"
    if code in OTHER_NAME:
        return (
            f"The broker's certificate is not for {server.host}: give OMI_BROKER_URL a name that it is for, or on the "
            f"broker's machine omi-broker init DIR --name {server.host}."
        )
    if code == ENDED:
        return "Renew it on the broker's machine: omi-broker rotate DIR --certificates (or is the clock here wrong?)."
    if code == NOT_YET_VALID:
        return "Set the clock of this machine: it is behind the day the certificate was made."
    return NEW_INVITATION
