"""`omi-bridge omi`: whose webhooks of OMI's are taken, and the URLs to paste into OMI's settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.program import ProgramGroup
from broker.terminal import print_json
from broker.text_files import read_text
from vps_bridge.commands.terminal import (
    EXIT_FAILED,
    EXIT_USAGE,
    AsJson,
    ConfigFile,
    DataDir,
    explained,
    fail,
    load,
    make_table,
    out,
)

if TYPE_CHECKING:
    from vps_bridge.omi.users import NewAccess, UserFile
    from vps_bridge.settings import BridgeSettings

PATHS = {
    "Realtime audio bytes": "/omi/audio",
    "Realtime transcript": "/omi/transcript",
    "Conversation events": "/omi/conversation",
}
"""What OMI's developer settings call them, and our paths."""
PLACEHOLDER = "https://YOUR-PUBLIC-NAME"
HELP_OMI = """Users of OMI whose webhooks are taken.

Example:

  omi-bridge omi add 0bJSf2kdTq
"""
omi_app = typer.Typer(cls=ProgramGroup, no_args_is_help=True, help=HELP_OMI, rich_markup_mode=None)
Uid = Annotated[str, typer.Argument(help="The user's id in OMI, as its backend has it.")]
SecretFile = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="File with the secret that OMI signs with, if it does.")
]


@omi_app.command()
def add(
    uid: Uid,
    secret_file: SecretFile = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Take a user's webhooks from now on, and print the URLs to paste into OMI's developer settings: once.

    Example: omi-bridge omi add 0bJSf2kdTq

    Exit codes: 0 added; 1 the user is there already; 2 wrong arguments.
    """
    settings, users = _open(config, data_dir)
    _check_uid(uid)
    with explained():
        if uid in _read(users):
            fail(f"{uid} is there already: `omi-bridge omi rotate {uid}` makes new URLs", EXIT_FAILED)
        _show(settings, users.put(uid, _read_secret(secret_file)), as_json=as_json)


@omi_app.command()
def rotate(
    uid: Uid,
    secret_file: SecretFile = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give a user a new token and secret, and print the URLs once; the old ones are refused from now on.

    Example: omi-bridge omi rotate 0bJSf2kdTq

    Exit codes: 0 done; 1 there is no such user.
    """
    settings, users = _open(config, data_dir)
    with explained():
        if uid not in _read(users):
            fail(f"{uid} is not there: `omi-bridge omi add {uid}`", EXIT_FAILED)
        _show(settings, users.put(uid, _read_secret(secret_file)), as_json=as_json)


@omi_app.command()
def remove(uid: Uid, config: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Take no more webhooks of a user; a running bridge erases what it keeps of theirs within seconds.

    Conversations stay: `omi-bridge purge` erases those.

    Example: omi-bridge omi remove 0bJSf2kdTq

    Exit codes: 0 removed; 1 there is no such user.
    """
    _, users = _open(config, data_dir)
    with explained():
        _read(users)
        if not users.remove(uid):
            fail(f"{uid} is not there: `omi-bridge omi list` says who is", EXIT_FAILED)
    print_json({"removed": uid}) if as_json else out.print(f"{uid} is removed")


@omi_app.command("list")
def list_users(config: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the users; tokens and secrets are not shown.

    Example: omi-bridge omi list --json
    """
    settings, users = _open(config, data_dir)
    with explained():
        uids = sorted(_read(users))
    if as_json:
        print_json([{"uid": uid} for uid in uids])
        return
    table = make_table("user")
    for uid in uids:
        table.add_row(uid)
    out.print(table)
    if settings.omi_http_port == 0:
        out.print("nobody's webhooks are taken: set OMI_OMI_HTTP_PORT for the bridge")


def _open(config: Path | None, data_dir: Path | None) -> tuple[BridgeSettings, UserFile]:
    from vps_bridge.omi.users import UserFile

    with explained():
        settings = load(config, "bridge", data_dir=data_dir)
        settings.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    return settings, UserFile(settings.root)


def _check_uid(uid: str) -> None:
    from vps_bridge.omi.users import MAX_UID_CHARS

    if not 0 < len(uid) <= MAX_UID_CHARS or not uid.isascii() or not uid.isprintable() or " " in uid:
        fail(f"a uid has 1 to {MAX_UID_CHARS} characters of printable ASCII, no space", EXIT_USAGE)


def _read(users: UserFile) -> dict[str, object]:
    from vps_bridge.omi.users import UsersFileBroken

    try:
        return dict(users.all())
    except UsersFileBroken as error:
        fail(str(error), EXIT_FAILED)


def _read_secret(file: Path | None) -> str | None:
    from vps_bridge.omi.users import MIN_SECRET_CHARS

    if file is None:
        return None
    secret = read_text(file).strip()
    if len(secret) < MIN_SECRET_CHARS:
        fail(f"the secret in {file} has less than {MIN_SECRET_CHARS} characters", EXIT_USAGE)
    return secret


def _show(settings: BridgeSettings, access: NewAccess, *, as_json: bool) -> None:
    base = (settings.omi_public_url or PLACEHOLDER).rstrip("/")
    urls = {name: f"{base}{path}?token={access.token}" for name, path in PATHS.items()}
    if as_json:
        print_json({"uid": access.user.uid, "urls": urls, "secret": access.user.secret})
        return
    out.print("Paste into OMI: Settings, Developer, Webhooks (audio bytes: every 5 seconds). Shown this once:")
    for name, url in urls.items():
        out.print(f"{name}: {url}", soft_wrap=True, highlight=False)
    out.print(f"secret, where your OMI signs what it sends: {access.user.secret}", soft_wrap=True, highlight=False)
    if settings.omi_public_url is None:
        out.print("set OMI_OMI_PUBLIC_URL to have your public name in the URLs")
