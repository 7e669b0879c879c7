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
NO_TLS = "Does it speak TLS there? If not, OMI_BROKER_URL begins with mqtt:// and not with mqtts://."
NEW_INVITATION = "Join with an invitation of this broker, which holds its CA, or set OMI_BROKER_CA_FILE to its ca.pem."


def explain_failure(error: Exception, server: BrokerAddress, ca_file: Path | None) -> str:
    """Return why a connection could not be made; a sentence where it names the remedy."""
    plain = f"{type(error).__name__}: {error}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{plain}. {_explain_certificate(error.verify_code, server, ca_file)}"
    if isinstance(error, ssl.SSLError) and server.tls:
        if error.reason in {"NO_CERTIFICATE_OR_CRL_FOUND", "PEM", "NO_START_LINE"}:
            return f"{plain}. OMI_BROKER_CA_FILE ({ca_file}) holds no certificate: {NEW_INVITATION}"
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
    if server.tls:
        return reason
    words = "If the broker speaks TLS there, OMI_BROKER_URL begins with mqtts://, and OMI_BROKER_CA_FILE names its CA."
    return f"{reason}. {words}"


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
