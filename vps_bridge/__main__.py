"""`omi-bridge`, and `python -m vps_bridge`: signals are obeyed before anything is imported that takes time."""

import gc

from broker.stop_signals import end_at_once
from vps_bridge.interpreter import COLLECT_EVERY


def main() -> None:
    """Entry point of the console command."""
    end_at_once()
    gc.set_threshold(*COLLECT_EVERY)  # what is imported stays: a tenth of each command's time went into looking at it
    from vps_bridge.commands.main import main as run  # noqa: PLC0415 - see above

    try:
        run()
    finally:
        gc.freeze()  # at its end Python would look through all once more, a fifth of a short command's time


if __name__ == "__main__":
    main()
