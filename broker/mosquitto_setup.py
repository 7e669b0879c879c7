"""Setting a Mosquitto up and changing it: address, TLS, users, and the invitation that each user is handed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from broker.address import BrokerAddress
from broker.certificates import OwnCertificates, check_pair, make_certificates, names_of
from broker.errors import BrokerError
from broker.invitation import Invitation
from broker.invitation_files import invited, write_invitations
from broker.listener import Listener, TlsFiles, check_listener, is_every_address, is_loopback
from broker.mosquitto import ProvisionedMosquitto, known_listener, provision_mosquitto
from broker.mosquitto_files import make_directory
from broker.role_users import renew_password
from broker.users import USERS_NAME, Credentials, require_users

PLAIN_PORT, TLS_PORT = 1883, 8883  # as IANA lists them for mqtt and secure-mqtt


class NotSetUp(BrokerError):
    """A directory holds no Mosquitto of ours."""

    def __init__(self, directory: Path) -> None:
        """Name the directory."""
        super().__init__(f"{directory} holds no broker that was set up: omi-broker init {directory} --host ADDRESS")


@dataclass(frozen=True)
class Wanted:
    """What a person asked for; what is None stays as it was, or is the default."""

    host: str | None = None
    port: int | None = None
    name: str | None = None
    own_tls: TlsFiles | None = None
    """A certificate and a key of theirs."""
    tls: bool = False
    """TLS on loopback too."""
    insecure: bool = False
    persistence: bool | None = None
    bridge_id: str | None = None
    agent_ids: tuple[str, ...] = ()
    further_bridges: tuple[str, ...] = ()
    """Bridges beside the first, on the same ledger."""
    topic_root: str | None = None


@dataclass(frozen=True)
class Setup:
    """A Mosquitto as it is set up now, and where the invitation of each user lies, by role."""

    mosquitto: ProvisionedMosquitto
    invitations: dict[str, Path]
    before: Listener | None
    """Its listener as it was; None where nothing was set up."""
    has_new_users: bool
    """Whether its users were gone, and every password is another than before."""

    @property
    def is_moved(self) -> bool:
        """Whether it is reached at another address than before, or with TLS and not without."""
        now = self.mosquitto.listener
        return self.before is not None and _place(self.before) != _place(now)

    @property
    def must_join(self) -> bool:
        """Whether every program has to join, for the first time or again."""
        return self.before is None or self.is_moved or self.has_new_users


def _place(listener: Listener) -> tuple[str, int, bool]:
    return listener.reached_as, listener.port, listener.tls is not None


def choose_listener(before: Listener | None, wanted: Wanted, made_here: TlsFiles) -> Listener:
    """Decide where the broker listens, and whether with TLS: by default everywhere but on loopback.

    A broker that speaks no TLS goes on so on the same address: its agents would all be locked out.

    Args:
        before: as it is set up already.
        wanted: what was asked for.
        made_here: the files of a certificate of our own, which are named where one is needed.

    Raises:
        BrokerError: it would listen on every address, and nobody said by which name it is reached.
    """
    host = wanted.host or (before.host if before else Listener.host)
    same_place = before is not None and before.host == host
    stays_plain = before is not None and same_place and before.tls is None and not wanted.tls
    tls = wanted.own_tls or (before.tls if before else None)
    if wanted.insecure or (tls is None and (stays_plain or (is_loopback(host) and not wanted.tls))):
        tls = None
    else:
        tls = tls or made_here
    name = wanted.name or (before.name if before and same_place else None)
    if is_every_address(host) and name is None:
        raise BrokerError(f"{host} is every address of this machine: say by which one others reach it with --name")
    return Listener(
        host=host,
        port=wanted.port or _choose_port(before, speaks_tls=tls is not None),
        tls=tls,
        persistence=(before or Listener()).persistence if wanted.persistence is None else wanted.persistence,
        bridge_id=wanted.bridge_id or (before or Listener()).bridge_id,
        name=name,
        topic_root=wanted.topic_root or (before or Listener()).topic_root,
    )


def _choose_port(before: Listener | None, *, speaks_tls: bool) -> int:
    if before is not None and ((before.tls is not None) == speaks_tls or before.port not in (PLAIN_PORT, TLS_PORT)):
        return before.port
    return TLS_PORT if speaks_tls else PLAIN_PORT


def set_up_mosquitto(directory: Path, wanted: Wanted, *, renew_certificate: bool = False) -> Setup:
    """Write everything a Mosquitto needs, and an invitation for each user that a program of ours has.

    Known users, and what is not named, stay as they are.

    Raises:
        BrokerError: a value that would change the meaning of the configuration, or a file that cannot be written.
    """
    before = known_listener(directory)
    has_new_users = before is not None and not (directory / USERS_NAME).exists()
    own = OwnCertificates.below(directory)
    listener = choose_listener(before, wanted, own.server)
    if wanted.own_tls is not None:
        check_pair(wanted.own_tls)
    check_listener(listener, insecure=listener.tls is None)  # nothing is written for an address that is none
    if listener.tls == own.server:
        _provide_certificate(own, _names(listener), renew=renew_certificate)
    elif renew_certificate:
        raise BrokerError(
            f"the certificate {listener.tls.certificate} is yours: renew it where it comes from, then reload Mosquitto"
            if listener.tls
            else "this broker speaks no TLS: omi-broker init DIR --tls gives it certificates, and new invitations"
        )
    mosquitto = provision_mosquitto(
        directory,
        listener,
        agent_ids=wanted.agent_ids,
        further_bridges=wanted.further_bridges,
        insecure=listener.tls is None,
    )
    ca = own.ca.read_text() if listener.tls == own.server else None
    invitations = {
        role: make_invitation(role, user, listener, ca=ca) for role, user in invited(mosquitto.users).items()
    }
    return Setup(mosquitto, write_invitations(directory, invitations), before, has_new_users)


def change_password(directory: Path, user: str) -> Setup:
    """Give one user a new password: with the old one nobody gets in once Mosquitto has read the files again.

    Raises:
        BrokerError: there is no such user.
    """
    require_setup(directory)
    renew_password(directory / USERS_NAME, user)
    return set_up_mosquitto(directory, Wanted())


def require_setup(directory: Path) -> Listener:
    """Return the listener of a directory that was set up.

    Raises:
        NotSetUp: it was not.
        UnsafeFile: its users are gone.
    """
    listener = known_listener(directory)
    if listener is None:
        raise NotSetUp(directory)
    require_users(directory / USERS_NAME)
    return listener


def make_invitation(role: str, user: Credentials, listener: Listener, *, ca: str | None) -> Invitation:
    """Return the invitation of one user, by its role at the broker (`bridge`, `backend`, `agent:<id>`)."""
    kind, _, agent_id = role.partition(":")
    return Invitation(
        role=kind,
        url=BrokerAddress(listener.reached_as, listener.port, tls=listener.tls is not None).url,
        username=user.username,
        password=user.password,
        sender_id=agent_id or (listener.bridge_id if kind == "bridge" else None),
        ca=ca,
        topic_root=listener.topic_root,
    )


def _names(listener: Listener) -> tuple[str, ...]:
    here = ("localhost", "127.0.0.1", "::1") if is_every_address(listener.host) else (listener.host,)
    return tuple(dict.fromkeys((listener.reached_as, *here)))


def _provide_certificate(own: OwnCertificates, names: Collection[str], *, renew: bool) -> None:
    certificate = own.server.certificate
    is_there = certificate.exists() and own.server.key.exists() and own.ca.exists()
    if is_there and not renew and set(names) <= set(names_of(certificate)):
        return
    try:
        make_directory(own.ca.parent)
        make_certificates(own, tuple(names))
    except OSError as error:
        raise BrokerError(f"{error.filename} cannot be written ({error.strerror}). Run this as root.") from error
