"""`omi-bridge page`: a link that signs a browser in to the page."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.terminal import print_json
from vps_bridge.commands.terminal import (
    EXIT_FAILED,
    EXIT_USAGE,
    AsJson,
    ConfigFile,
    DataDir,
    explained,
    fail,
    load,
    out,
)

ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


def page(
    url: Annotated[
        str | None, typer.Option(help="Where the browser reaches the bridge, e.g. https://vps.tailnet.ts.net.")
    ] = None,
    sign_out: Annotated[bool, typer.Option("--sign-out", help="Sign everybody out, and make all links void.")] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Print a link that opens the page in a browser: once, within ten minutes, for a session of twelve hours.

    The page shows what is alive, what is stuck and who spoke, and takes corrections. `omi-bridge run` serves it.

    Example: omi-bridge page

    Exit codes: 0 done; 1 the bridge never ran here, or serves no page; 2 wrong arguments.
    """
    from vps_bridge.http.sign_in import LINK_S, SESSION_S, SignIns

    with explained():
        settings = load(config, "bridge", data_dir=data_dir)
        sign_ins = SignIns(settings.root)
        if not settings.root.is_dir():
            fail(f"no bridge has run with {settings.root} yet: start `omi-bridge run` first", EXIT_FAILED)
        if sign_out:
            ended = sign_ins.sign_everybody_out()
            print_json({"signed_out": ended}) if as_json else out.print(f"{ended} sessions are ended")
            return
        if settings.http_port == 0:
            fail("the HTTP door is off (OMI_HTTP_PORT is 0), and the page with it: set a port", EXIT_FAILED)
        base = url or _base_url(settings.http_host, settings.http_port)
        link = f"{base.rstrip('/')}/sign-in?link={sign_ins.make_link()}"
    if as_json:
        print_json({"url": link, "valid_s": LINK_S, "session_s": SESSION_S})
    else:
        out.print(link, soft_wrap=True, highlight=False)


def _base_url(host: str, port: int) -> str:
    if host in ANY_ADDRESS:
        fail(f"the bridge listens on every address ({host}): say by which you reach it, --url http://…", EXIT_USAGE)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
