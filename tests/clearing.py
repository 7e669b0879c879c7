"""Doing what a remedy says: the command that clears a message which the broker keeps."""

import re
import shlex
import subprocess

from tests.brokers import RunningBroker
from tests.inbox import WAIT_S

_COMMAND = re.compile(r"(mosquitto_pub .*) \(with the password of (\S+?)\)")


def clear_as_told(broker: RunningBroker, told: str) -> None:
    """Type the command that a log, a heartbeat or a doctor names, as a person would, with the password of its user."""
    found = _COMMAND.search(told)
    assert found is not None, told
    passwords = {user.username: user.password for user in broker.users.values()}
    words = [passwords[found[2]] if word == "PASSWORD" else word for word in shlex.split(found[1])]
    subprocess.run(words, check=True, timeout=WAIT_S)
