"""What the three programs have in common as processes: their streams, and arguments that no command can take."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperGroup

from broker.stop_signals import end_at_once, end_in_order

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130  # as a shell tells of a program that Ctrl-C ended
STANDARD_OUTPUT = "standard output"
CHECK_PATH = "Check that it is the right path, whose it is, and that there is room on its disk."
CHECK_SYSTEM = "Check the room on the disk, and how many files and how much memory it may use (ulimit -a)."
STANDARD_STREAMS = (0, 1, 2)
ESCAPED = "backslashreplace"  # what a stream cannot show
STDOUT, STDERR = 1, 2


class CheckedParameter:
    """Refuses values of one option or argument that no command can take, before the option's own check."""

    def __init__(self, own: Callable[..., Any] | None) -> None:
        self._own = own

    def __call__(self, context: Any, parameter: Any, value: Any) -> Any:  # noqa: ANN401
        """Return the value, or what the parameter's own check makes of it."""
        for part in value if isinstance(value, list | tuple) else (value,):
            if isinstance(part, str) and not _is_text(part):
                raise typer.BadParameter("it is no text in UTF-8: type it anew", ctx=context, param=parameter)
            if isinstance(part, float) and not math.isfinite(part):
                raise typer.BadParameter(f"{part} is no number of seconds", ctx=context, param=parameter)
        return self._own(context, parameter, value) if self._own else value


class PathTaker:
    """Takes the value of one option or argument, and refuses an empty path: `Path` has it for the current directory."""

    def __init__(self, own: Callable[..., Any]) -> None:
        self._own = own

    def __call__(self, context: Any, value: Any) -> Any:  # noqa: ANN401
        """Return what the parameter makes of what was typed."""
        made = self._own(context, value)
        typed, paths = (each if isinstance(each, list | tuple) else (each,) for each in (value, made))
        for text, path in zip(typed, paths, strict=False):
            if isinstance(path, Path) and isinstance(text, str) and not text.strip():
                raise typer.BadParameter("it is empty: name a path, or leave it out (. is the current directory)")
        return made


class ProgramGroup(TyperGroup):
    """Commands whose arguments are checked: text is valid UTF-8, numbers are finite, no path is empty.

    Paths may be any bytes.
    """

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - typer does not export its type
        """Return a command by its name."""
        command: Any = super().get_command(ctx, cmd_name)
        for parameter in command.params if command else ():
            if not isinstance(parameter.callback, CheckedParameter):
                parameter.callback = CheckedParameter(parameter.callback)
                parameter.process_value = PathTaker(parameter.process_value)
        return command


class LossyOutput(io.BufferedIOBase):
    """Writes to a file descriptor what it takes: where nobody can be told of an error, there is none."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._number

    def isatty(self) -> bool:
        """Say whether a person sees it."""
        return os.isatty(self._number)

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 - whatever holds bytes
        """Write all of it, or as much as there is room for."""
        rest = memoryview(data)
        with contextlib.suppress(OSError):
            while rest:
                rest = rest[os.write(self._number, rest) :]
        return len(data)


class NamedOutput(io.TextIOWrapper):
    """Stdout: an error of it says whose it is, once. What is written after it goes nowhere."""

    _has_failed = False

    def write(self, text: str) -> int:
        """Write text. Raises `OSError` where that fails, the first time."""
        try:
            return super().write(text)
        except OSError as error:
            self._note(error)
            return len(text)

    def flush(self) -> None:
        """Write what is left. Raises `OSError` where that fails, the first time."""
        try:
            super().flush()
        except OSError as error:
            self._note(error)

    def _note(self, error: OSError) -> None:
        if not self._has_failed:
            self._has_failed = True
            raise OSError(error.errno, error.strerror, STANDARD_OUTPUT) from error


class ClosedOutput(io.TextIOBase):
    """Stands for a stdout that was closed before the program began: writing ends the command, as a closed pipe does."""

    def fileno(self) -> int:
        """Return the number that stdout has."""
        return 1

    def write(self, _text: str) -> NoReturn:
        """Refuse."""
        raise BrokenPipeError(errno.EPIPE, "standard output is closed")


def explain_file_error(error: OSError) -> str:
    """Return which file or directory cannot be used, why, and what to do about it."""
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return f"the system: {error.strerror or error}. {CHECK_SYSTEM}"
    name = os.fsencode(error.filename).decode(errors="backslashreplace")
    if error.filename == STANDARD_OUTPUT:
        return f"{name}: {error.strerror}. Make room there, or send it elsewhere."
    if isinstance(error, FileExistsError):  # of a directory that was to be made
        return f"{name}: a directory is needed there, and something else is in its place. {CHECK_PATH}"
    return f"{name}: {error.strerror}. {CHECK_PATH}"


def run_program(app: Callable[[], Any]) -> None:
    """Run a program with streams that take every text, and files that are its owner's alone. Ends the process."""
    end_in_order()
    os.umask(0o077)  # whatever the shell says: what we write is its owner's alone
    open_streams()
    try:
        app()
    except OSError as error:  # of a file or directory that somebody named: a traceback says no more about it
        if not isinstance(error.filename, str | bytes):
            raise
        _tell(error)
        raise SystemExit(EXIT_FAILED) from None
    except KeyboardInterrupt:  # before a command began: from then on it is typer's
        raise SystemExit(EXIT_INTERRUPTED) from None
    finally:
        end_at_once()  # there is nothing left to put in order
        _flush()


def open_streams() -> None:
    """Put something in the place of closed streams, and escape what an open one cannot show."""
    for number in STANDARD_STREAMS:  # else a file that is opened later gets the number, and is written to as stdout
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - as long as the process lives
    buffer: Any = LossyOutput(STDERR)  # the types of the standard library want more of it than it uses
    encoding = sys.stderr.encoding if sys.stderr else "utf-8"
    sys.stderr = io.TextIOWrapper(buffer, encoding, ESCAPED, line_buffering=True)
    if sys.stdout is None:
        sys.stdout = ClosedOutput()
    else:
        output = io.BufferedWriter(io.FileIO(STDOUT, "w", closefd=False))
        sys.stdout = NamedOutput(output, sys.stdout.encoding, ESCAPED, line_buffering=output.isatty())


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.EPIPE:  # whoever closed a pipe has read what he wanted
            _tell(error)
        raise SystemExit(EXIT_FAILED) from None


def _tell(error: OSError) -> None:
    sys.stderr.write(f"{Path(sys.argv[0]).name}: {explain_file_error(error)}\n")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
