"""A broker's own CA, and the certificate it signs for that broker."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.errors import BrokerError, UnsafeFile
from broker.listener import TlsFiles
from broker.mosquitto_files import MOSQUITTO_USER, write_public, write_secret
from broker.private_files import replace_file

# Every agent holds the CA's certificate: a new CA means joining again everywhere, so it outlives them all. The broker's
# own is renewed by one command that nobody else notices.
CA_DAYS, SERVER_DAYS = 30 * 365, 3 * 365
CLOCKS_APART = timedelta(days=1)  # a certificate counts from before it was made: another clock may be behind


@dataclass(frozen=True)
class OwnCertificates:
    """The files of a broker's own CA and of the certificate that the CA signed."""

    ca: Path
    ca_key: Path
    server: TlsFiles

    @classmethod
    def below(cls, directory: Path) -> OwnCertificates:
        """Return the files of the directory that a Mosquitto was set up in."""
        tls = directory.absolute() / "tls"
        return cls(tls / "ca.pem", tls / "ca.key", TlsFiles(tls / "server.pem", tls / "server.key"))


def make_certificates(
    files: OwnCertificates, names: Sequence[str], *, also_as_client: bool = False, owner: str = MOSQUITTO_USER
) -> None:
    """Sign a new certificate for the broker's names and addresses; the CA is made only where there is none.

    Args:
        files: where they lie.
        names: of the broker.
        also_as_client: whether it shows the certificate to other servers too, to which it connects.
        owner: the user that the broker runs as, who is given a new key where root makes it.

    Raises:
        BrokerError: the CA's files cannot be read.
        OSError: the directory, which must exist, cannot be written.
    """
    ca, ca_key = _load_ca(files) if files.ca.exists() and files.ca_key.exists() else _make_ca(files)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    ends_at = min(_now() + timedelta(days=SERVER_DAYS), ca.not_valid_after_utc)
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if also_as_client else [])]
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    builder = (
        _builder(subject, ca.subject, key.public_key(), ends_at)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(authority, critical=False)
    )
    write_secret(files.server.key, _key_text(key), owner)
    write_public(files.server.certificate, _pem(builder.sign(ca_key, SHA256())))


def check_pair(files: TlsFiles) -> None:
    """Refuse a certificate and a key that no broker could start with.

    Raises:
        BrokerError: one of them cannot be read or is no PEM file, the key has a passphrase, or they are of two pairs.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key, password="")
    except OSError as error:  # of OpenSSL too
        raise BrokerError(
            f"{files.certificate} and {files.key} are no PEM certificate and its key, without a passphrase "
            f"({error.strerror or error}): nothing was changed"
        ) from error


def ends_at(certificate: Path) -> datetime:
    """Return when a PEM certificate ends.

    Raises:
        BrokerError: it cannot be read.
    """
    return _load(certificate).not_valid_after_utc


def names_of(certificate: Path) -> tuple[str, ...]:
    """Return the names and addresses that a PEM certificate is for.

    Raises:
        BrokerError: it cannot be read.
    """
    try:
        found = _load(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in found)


def _load(certificate: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise BrokerError(f"the certificate {certificate} cannot be read ({error}): is it a PEM file?") from error


def _load_ca(files: OwnCertificates) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        key = load_pem_private_key(files.ca_key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise BrokerError(f"the CA's key {files.ca_key} cannot be read ({error}). Run this as its owner.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UnsafeFile(files.ca_key, "is no key that `omi-broker init` made", "Give it another directory.")
    return _load(files.ca), key


def _make_ca(files: OwnCertificates) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "omi-diarization broker")])
    builder = (
        _builder(name, name, key.public_key(), _now() + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    ca = builder.sign(key, SHA256())
    replace_file(files.ca_key, _key_text(key))  # ours alone: Mosquitto never needs it
    write_public(files.ca, _pem(ca))
    return ca, key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - CLOCKS_APART)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_text(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
