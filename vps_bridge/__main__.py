"""`omi-bridge`, and `python -m vps_bridge`: signals are obeyed before anything is imported that takes time."""

from broker.stop_signals import end_at_once


def main() -> None:
    """Entry point of the console command."""
    end_at_once()
    from vps_bridge.commands.main import main as run  # noqa: PLC0415 - see above

    run()


if __name__ == "__main__":
    main()
