"""`omi-bridge correct`, `undo`, `redo`, `history`: mending labels, taking it back, and seeing who changed what."""

from __future__ import annotations

import getpass
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from broker.program import ProgramGroup
from broker.terminal import print_json
from schemas.limits import MAX_NAME_CHARS, MAX_SPEAKER_NUMBER
from vps_bridge.commands.terminal import (
    EXIT_FAILED,
    EXIT_USAGE,
    AsJson,
    ConfigFile,
    DataDir,
    NamedConversation,
    age,
    ask_first,
    checked_names,
    composed_names,
    err,
    explained,
    fail,
    known,
    opened,
    out,
)

if TYPE_CHECKING:
    from schemas.conversation import SegmentPiece
    from schemas.corrections import Correction
    from vps_bridge.intake.history import HistoryEntry

MANY_LABELS = 10
CORRECT_HELP = """Say who speaks. It reaches the rest of the voice, lasts through later relabelling, and can be undone.

Examples:

  omi-bridge correct call-1 merge 0 3

  omi-bridge correct call-1 split s-17 s-21

  omi-bridge correct call-1 segment s-4 --speaker 1

  omi-bridge correct call-1 name 0 anna

Works with the bridge running (which relabels within seconds) or stopped. What became of it: `omi-bridge history`.
Exit codes: 0 taken; 1 it names what is not there; 2 wrong arguments.
"""
correct_app = typer.Typer(cls=ProgramGroup, help=CORRECT_HELP, no_args_is_help=True, rich_markup_mode=None)

By = Annotated[
    str | None,
    typer.Option("--by", help="Who says so, for the history; else your user name here.", callback=composed_names),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
SegmentName = Annotated[
    str, typer.Argument(help="The segment's id; see `omi-bridge show CONVERSATION`.", callback=checked_names)
]
SpeakerArgument = Annotated[
    int, typer.Argument(min=0, max=MAX_SPEAKER_NUMBER, help="The speaker's number: 1 for SPEAKER_01.")
]
PersonArgument = Annotated[str, typer.Argument(help="The person's id.", callback=composed_names)]


@correct_app.callback()
def correct(context: typer.Context, conversation: NamedConversation) -> None:
    """Take which conversation is corrected."""
    context.obj = conversation


@correct_app.command()
def merge(
    context: typer.Context,
    speakers: Annotated[list[int], typer.Argument(min=0, max=MAX_SPEAKER_NUMBER, help="Numbers of two or more.")],
    by: By = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """These speakers are one voice: the number with more labelled speech stays.

    Example: omi-bridge correct call-1 merge 0 3
    """
    from schemas.corrections import CorrectionKind

    said = _read(kind=CorrectionKind.SAME_VOICE, speaker_ids=tuple(speakers))
    _correct(context, said, by, config, data_dir, as_json=as_json)


@correct_app.command()
def split(
    context: typer.Context,
    segments: Annotated[list[str], typer.Argument(help="Ids of segments of one voice.", callback=checked_names)],
    by: By = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """These segments are one voice, and not the one they were given to: the larger part keeps its number.

    Example: omi-bridge correct call-1 split s-17 s-21
    """
    from schemas.corrections import CorrectionKind

    said = _read(kind=CorrectionKind.OTHER_VOICE, segment_ids=tuple(segments))
    _correct(context, said, by, config, data_dir, as_json=as_json)


@correct_app.command()
def segment(
    context: typer.Context,
    segment: SegmentName,
    speaker: Annotated[
        int | None, typer.Option("--speaker", min=0, max=MAX_SPEAKER_NUMBER, help="The speaker's number.")
    ] = None,
    person: Annotated[str | None, typer.Option("--person", help="The person's id.", callback=composed_names)] = None,
    by: By = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """This segment is that speaker, or that person.

    Example: omi-bridge correct call-1 segment s-4 --speaker 1
    """
    from schemas.corrections import CorrectionKind

    said = _read(kind=CorrectionKind.SEGMENT_IS, segment_id=segment, speaker_id=speaker, person_id=person)
    _correct(context, said, by, config, data_dir, as_json=as_json)


@correct_app.command()
def name(
    context: typer.Context,
    speaker: SpeakerArgument,
    person: PersonArgument,
    is_not: Annotated[bool, typer.Option("--not", help="The voice is not that person.")] = False,
    by: By = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """This voice is that person, or with --not, is not. A voice that is somebody is known in later conversations too.

    Example: omi-bridge correct call-1 name 0 anna
    """
    from schemas.corrections import CorrectionKind

    kind = CorrectionKind.VOICE_IS_NOT if is_not else CorrectionKind.VOICE_IS
    said = _read(kind=kind, speaker_id=speaker, person_id=person)
    _correct(context, said, by, config, data_dir, as_json=as_json)


def _read(**fields: object) -> Correction:
    from pydantic import ValidationError

    from schemas.corrections import Correction

    try:
        return Correction.model_validate(fields)
    except ValidationError as error:
        fail("; ".join(str(item["msg"]).removeprefix("Value error, ") for item in error.errors()), EXIT_USAGE)


def _correct(
    context: typer.Context, said: Correction, by: str | None, config: ConfigFile, data_dir: DataDir, *, as_json: bool
) -> None:
    from schemas.corrections import CorrectionKind
    from schemas.record import is_id
    from vps_bridge.errors import Refusal
    from vps_bridge.intake.corrections import Corrections

    with explained(), opened(config, data_dir) as (ledger, store, _stale_s):
        conversation = known(ledger, context.obj).conversation_id
        event_id = f"e-{secrets.token_hex(12)}"
        try:
            write = Corrections(ledger, store).correct(conversation, event_id, [said], by=who_says(by))
        except Refusal as refusal:
            fail(refusal.message, EXIT_FAILED)
    if said.kind is CorrectionKind.VOICE_IS and not is_id(said.person_id or ""):
        words = f"{said.person_id!r} labels this conversation alone. To know the voice in later ones give an id of"
        words += " A-Z a-z 0-9 _ -, and the name by `omi-bridge people rename`"
        err.print(f"omi-bridge: {words}", style="yellow", highlight=False, soft_wrap=True)
    if as_json:
        print_json({"conversation_id": conversation, "write": write, "event_id": event_id})
    else:
        out.print(f"taken as write {write} of {conversation}; what became of it: omi-bridge history {conversation}")


def undo(
    conversation: NamedConversation,
    version: Annotated[int, typer.Argument(help="Which write to take back; see `omi-bridge history`.")],
    yes: Yes = False,
    by: By = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Take one write back: this pipeline's, a correction, or an undo.

    The segments that the undo of a write of this pipeline restores count as labelled by a person from now on.
    Example: omi-bridge undo call-1 2

    Exit codes: 0 undone; 1 no such write, it cannot be undone as things are, or not confirmed; 2 wrong arguments.
    """
    write = _reverse(conversation, version, config, data_dir, by=by, yes=yes, redo=False)
    if as_json:
        print_json({"conversation_id": conversation, "undone": version, "version": write})
    else:
        out.print(f"write {version} of {conversation} is undone")


def redo(
    conversation: NamedConversation,
    version: Annotated[int, typer.Argument(help="What was undone, or the undo; see `omi-bridge history`.")],
    yes: Yes = False,
    by: By = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Bring back what an undo took away.

    Example: omi-bridge redo call-1 2

    Exit codes: 0 brought back; 1 nothing of that number is undone, or not confirmed; 2 wrong arguments.
    """
    write = _reverse(conversation, version, config, data_dir, by=by, yes=yes, redo=True)
    if as_json:
        print_json({"conversation_id": conversation, "redone": version, "version": write})
    else:
        out.print(f"write {version} of {conversation} is brought back")


def _reverse(
    conversation: str,
    version: int,
    config: ConfigFile,
    data_dir: DataDir,
    *,
    by: str | None,
    yes: bool,
    redo: bool,
) -> int:
    from vps_bridge.intake.corrections import Corrections
    from vps_bridge.intake.history import count_labels

    with explained(), opened(config, data_dir) as (ledger, store, _stale_s):
        name = known(ledger, conversation).conversation_id
        labels = count_labels(store.history(name), version)
        if labels > MANY_LABELS and not yes:
            ask_first(f"This changes {labels} labels of {name}. Go on?", unasked=f"this changes {labels} labels and ")
        return Corrections(ledger, store).reverse(name, version, by=who_says(by), redo=redo)


def history(
    conversation: NamedConversation,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show every change of a conversation's labels: who made it, what it was, and why.

    Example: omi-bridge history call-1
    """
    from vps_bridge.intake.history import read_history

    with explained(), opened(config, data_dir) as (ledger, store, _stale_s):
        found = read_history(known(ledger, conversation).conversation_id, ledger, store)
    writes = found.writes if found else ()
    if as_json:
        print_json([write.model_dump(mode="json") for write in writes])
        return
    for write in writes:
        _print_write(write)
    if not writes:
        out.print("no label of it was ever written", highlight=False)


def _print_write(write: HistoryEntry) -> None:
    from vps_bridge.intake.history import BRIDGE

    who = f" by {write.by}" if write.by and write.by != BRIDGE else ""
    words = f"version {write.version} ({write.kind}{who}, {age(write.written_at_s)} ago)"
    words += f", takes back write {write.undoes}" if write.undoes else ""
    words += f", because of write {write.because_of}" if write.because_of else ""
    words += f", undone by write {write.undone_by}" if write.undone_by else ""
    out.print(words, highlight=False)
    for place, said in enumerate(write.corrections):
        outcome = write.outcomes[place] if place < len(write.outcomes) else None
        became = f": {outcome.outcome}" + (f" ({outcome.reason})" if outcome.reason else "") if outcome else ""
        out.print(f"  {_describe_said(said)}{became}", highlight=False, soft_wrap=True)
    for change in write.changes:
        before = _describe_label(change.before, change.person_before, change.matched_before, change.pieces_before)
        after = _describe_label(change.after, change.person_after, change.matched_after, change.pieces_after)
        out.print(f"  {change.segment_id}: {before} -> {after}", highlight=False, soft_wrap=True)


def _describe_said(said: Correction) -> str:
    """Say a correction in words."""
    from schemas.corrections import CorrectionKind

    speaker = f"speaker {said.speaker_id}"
    match said.kind:
        case CorrectionKind.SAME_VOICE:
            return f"speakers {', '.join(map(str, said.speaker_ids))} are one voice"
        case CorrectionKind.OTHER_VOICE:
            return f"another voice: {', '.join(said.segment_ids)}"
        case CorrectionKind.SEGMENT_IS:
            return f"{said.segment_id} is {said.person_id or speaker}"
        case CorrectionKind.VOICE_IS:
            return f"{speaker} is {said.person_id}"
        case CorrectionKind.VOICE_IS_NOT:
            return f"{speaker} is not {said.person_id}"


def _describe_label(
    speaker: str | None, person: str | None, matched: str | None, pieces: Sequence[SegmentPiece]
) -> str:
    """Describe a label, and who said the pieces of its segment."""
    said = ", ".join(piece.speaker or "unknown" for piece in pieces)
    words = f" = {person}" if person else f" = {matched} (matched)" if matched else ""
    return (speaker or "unknown") + words + (f" (cut: {said})" if said else "")


def who_says(by: str | None) -> str:
    """Return who says something: as named, else the user of this machine."""
    try:
        name = by or getpass.getuser()
        name.encode()
    except (OSError, UnicodeEncodeError):  # a user id without a name, or with one that is no text
        return "operator"
    return name[:MAX_NAME_CHARS]
