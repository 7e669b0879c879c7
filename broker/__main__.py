"""`omi-broker`, and `python -m broker`: signals are obeyed before anything is imported that takes time."""

from broker.stop_signals import end_at_once


def main() -> None:
    """Entry point of the console command."""
    end_at_once()
    from broker.cli import main as run  # noqa: PLC0415 - see above

    run()


if __name__ == "__main__":
    main()
