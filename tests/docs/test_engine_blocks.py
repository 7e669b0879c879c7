"""The blocks of the pages that need an engine and no broker."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.brokers import REPOSITORY
from tests.docs.pages import Block, all_blocks
from tests.e2e.system import models_dir, sample_folder, weights_dir
from tests.inbox import WAIT_S

pytestmark = pytest.mark.slow
MAY_FAIL = {"omi-agent doctor --deep"}  # no broker is there


@pytest.mark.parametrize("block", all_blocks(run="engine"), ids=str)
def test_what_is_typed_at_the_mac_works(block: Block, tmp_path: Path) -> None:
    if not (models_dir() / "embedded").is_dir():
        pytest.skip("the weights of the embedded engine are not here: run `omi-agent fetch-model embedded`")
    shutil.copy(sample_folder() / "sample.wav", tmp_path / "call.wav")
    environment = {**os.environ, "OMI_WEIGHTS_DIR": str(weights_dir()), "OMI_DATA_DIR": str(tmp_path / "data")}
    environment["PYTHONPATH"] = str(REPOSITORY)
    for line in block.text.splitlines():
        done = subprocess.run(
            [sys.executable, "-c", "from mac_agent.commands.main import main; main()", *line.split()[1:]],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert done.returncode in ((0, 1) if line in MAY_FAIL else (0,)), f"{line}: {done.stdout}\n{done.stderr}"
    if "--rttm" in block.text:
        assert (tmp_path / "call.rttm").read_text().startswith("SPEAKER ")
        assert (tmp_path / "call.png").stat().st_size > 1_000
