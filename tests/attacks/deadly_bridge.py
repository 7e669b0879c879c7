"""A bridge that is killed by the labels of one conversation, however small it is."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from unittest import mock

from tests.vps_bridge.live_bridge import LiveBridge
from vps_bridge.dispatch.labelling_work import LabellingWork, work_out
from vps_bridge.labelling.relabel import Relabelling, RelabelPolicy

DEADLY = "deadly"


@dataclass
class DeadlyBridge(LiveBridge):
    """Started as the real one is."""

    def spawn(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            command = [sys.executable, "-m", "tests.attacks.deadly_bridge", "run"]
            self.process = subprocess.Popen(command, env=self.environment(), stdout=log, stderr=log)


def main() -> None:
    from vps_bridge.commands.main import main as run_bridge
    from vps_bridge.dispatch import updates

    def die(work: LabellingWork, policy: RelabelPolicy) -> Relabelling:
        if work.name == DEADLY and work.results:
            os.kill(os.getpid(), signal.SIGKILL)
        return work_out(work, policy)

    with mock.patch.object(updates, "work_out", die):
        run_bridge()


if __name__ == "__main__":
    main()
