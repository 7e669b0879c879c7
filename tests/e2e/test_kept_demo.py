"""`make demo KEEP=1`: what becomes of it when one of its programs is killed."""

import io
from collections import Counter
from pathlib import Path

from rich.console import Console

from demo.kept import MAX_STARTS, go_on
from demo.programs import Programs


def test_a_program_that_is_killed_is_started_again_and_named_and_one_that_cannot_run_is_left_alone(
    tmp_path: Path,
) -> None:
    said, starts = io.StringIO(), Counter[str]()
    with Programs(tmp_path) as programs:
        killed = programs.start_command("omi-agent", ["sleep", "1000"])
        lived = programs.start_command("omi-broker", ["sleep", "1000"])
        before = (killed.pid, lived.pid)
        killed.kill()
        go_on(programs, starts, Console(file=said))
        assert (killed.pid == before[0], lived.pid == before[1]) == (False, True)
        killed.check()  # it runs
        assert "omi-agent ended (exit code -9;" in said.getvalue()
        assert said.getvalue().rstrip().endswith("started again, nothing is lost")
        for _ in range(MAX_STARTS + 3):
            killed.kill()
            go_on(programs, starts, Console(file=said))
        assert killed.has_ended
        assert said.getvalue().count("too often") == 1
        assert not lived.has_ended
