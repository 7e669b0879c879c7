"""The bridge multiplies matrices on one thread: more of them spin while they wait, and relabelling costs four times."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("threadpoolctl", reason="tells how many threads a library has; comes with the agent")

RUN_AND_TELL = """
import sys
from broker import freed_memory
from vps_bridge.commands import main

def tell(_bytes):  # called when all that the bridge needs is imported, and before it opens anything
    import scipy.linalg, threadpoolctl
    print(max(pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"))
    raise SystemExit

freed_memory.keep_freed_memory = tell
main.run(data_dir=sys.argv[1], broker_url="mqtt://127.0.0.1:1")
"""


def told_threads(tmp_path, **variables: str) -> int:
    bare = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    told = subprocess.run(
        [sys.executable, "-c", RUN_AND_TELL, str(tmp_path)],
        env=bare | variables, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return int(told.stdout)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="on one core it is one thread anyhow")
def test_run_multiplies_on_one_thread_and_an_operator_may_say_otherwise(tmp_path):
    assert told_threads(tmp_path) == 1
    assert told_threads(tmp_path, OPENBLAS_NUM_THREADS="2") == 2
