"""One of our programs as it runs on the stand-in for a machine: units lie below its root, and it has the user `omi`."""

import os
import pwd
import sys
from importlib import import_module
from pathlib import Path

from broker import systemd_unit

NOBODY = 65534
_known = pwd.getpwnam


def find_account(name: str) -> pwd.struct_passwd:
    """Return an account; of `omi` one that is this process's, or nobody's where that is root's."""
    if name != "omi":
        return _known(name)
    own = os.getuid() or NOBODY
    home = Path(os.environ["OMI_TEST_ROOT"]) / "var/lib/omi-diarization"
    return pwd.struct_passwd((name, "x", own, own, "", str(home), "/usr/sbin/nologin"))


def main() -> None:
    """Run the program whose module is the first argument."""
    systemd_unit.UNITS = Path(os.environ["OMI_TEST_ROOT"]) / "etc/systemd/system"
    pwd.getpwnam = find_account
    module = sys.argv.pop(1)
    import_module(module).main()


if __name__ == "__main__":
    main()
