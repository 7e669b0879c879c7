"""`omi-bridge people`: who is known by voice, teaching it, and forgetting."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.errors import BrokerError
from broker.program import ProgramGroup
from broker.terminal import print_json
from vps_bridge.commands.corrections import By, PersonArgument, SpeakerArgument, Yes, who_says
from vps_bridge.commands.terminal import (
    EXIT_FAILED,
    AsJson,
    BrokerUrl,
    ConfigFile,
    DataDir,
    NamedConversation,
    age,
    ask_first,
    check_id,
    check_regular,
    composed_names,
    explained,
    fail,
    load,
    opened,
    out,
)
from vps_bridge.durations import seconds

if TYPE_CHECKING:
    from schemas.people import PersonEvent
    from schemas.voice_people import Enrolment
    from vps_bridge.client.client import BridgeClient
    from vps_bridge.intake.people_view import PersonView
    from vps_bridge.settings import BridgeSettings

PEOPLE_HELP = """Who is known by voice. A conversation's people are those of its owner, as its `started` event names it.

Examples:

  omi-bridge people enroll anna anna.wav --name Anna --owner user-1

  omi-bridge people confirm anna call-1 0

  omi-bridge people list --owner user-1

  omi-bridge people forget anna --owner user-1

Only what a person confirms is learned; what was recognised never is. All but `enroll` works with the bridge running or
stopped. Exit codes: 0 done; 1 refused, or nobody of that id; 2 wrong arguments.
"""
people_app = typer.Typer(cls=ProgramGroup, help=PEOPLE_HELP, no_args_is_help=True, rich_markup_mode=None)

WITHDRAW_TIMEOUT_S = 5.0  # after Ctrl-C too: so long nobody minds

Owner = Annotated[
    str | None,
    typer.Option("--owner", help="Whose people; none: those of conversations without one.", callback=composed_names),
]
_WHY = {
    "two_voices": "more than one person speaks: use a recording of this person alone",
    "little_speech": "too little clean speech: use a longer or a clearer recording",
    "asks": "it sounds unlike this person's other voiceprints. If it is the right person, publish the recording as a "
    "conversation (`omi-bridge publish`) and confirm its voice there (`omi-bridge people confirm`, with --anyway)",
    "no_voice": "no voice was found: listen to it, and see `omi-bridge failed`",
}


def _checked_consent(agreed: datetime | None) -> datetime | None:
    """Return the day, or end the program, before anything is learned, where it is still to come."""
    from vps_bridge.errors import Refusal
    from vps_bridge.intake.people import check_consent

    try:
        check_consent(agreed.date() if agreed else None)
    except Refusal as refusal:
        raise typer.BadParameter(refusal.message) from refusal
    return agreed


@people_app.command()
def enroll(
    person: PersonArgument,
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Recordings of this person alone.")],
    name: Annotated[
        str | None, typer.Option("--name", help="What the person is called.", callback=composed_names)
    ] = None,
    me: Annotated[bool, typer.Option("--me", help="The person is the owner.")] = False,
    consent_date: Annotated[
        datetime | None,
        typer.Option("--consent-date", formats=["%Y-%m-%d"], help="When the person agreed.", callback=_checked_consent),
    ] = None,
    owner: Owner = None,
    timeout_s: Annotated[float, typer.Option(min=0, help="How long to wait for the outcome.")] = 600.0,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    broker_url: BrokerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Learn a voice from recordings of one person. They are diarized as any audio, then thrown away.

    Example: omi-bridge people enroll anna anna.wav --name Anna --consent-date 2026-05-04
    """
    from vps_bridge.client.client import BridgeClient

    check_id("person", person)
    for file in files:
        check_regular(file)
    with explained():
        settings = load(config, "backend", data_dir=data_dir, broker_url=broker_url)
        with BridgeClient(settings, f"enrolment-{secrets.token_hex(12)}") as client:
            client.wait_bridge()
            with _withdrawn_unless_sent(client):
                client.start(datetime.now(UTC), owner=owner, enrols=person)
                for file in files:
                    _send(client, file)
                client.complete(chunks=len(files))
            told = client.wait_updated(final=True, timeout_s=timeout_s).enrolment
        if told is None:
            fail("the bridge told no outcome: is it of the same version as this command?", EXIT_FAILED)
        if told.outcome == "learned":
            _introduce(settings, owner, person, name, consent_date, is_owner=me)
    _print_outcome(told, as_json=as_json)


@contextmanager
def _withdrawn_unless_sent(client: BridgeClient) -> Iterator[None]:
    """Delete the enrolment where not all of it could be sent: nobody would complete it, and its audio would stay."""
    try:
        yield
    except BaseException:
        from vps_bridge.client.errors import ClientError

        with suppress(ClientError, BrokerError):
            client.delete(timeout_s=WITHDRAW_TIMEOUT_S)
        raise


def _send(client: BridgeClient, file: Path) -> None:
    from vps_bridge.client.errors import BridgeRefused

    try:
        client.send_file(file)
    except BridgeRefused as error:
        fail(f"{file}: {error}. Nothing was learned, and nothing of it is kept", EXIT_FAILED)


def _introduce(
    settings: BridgeSettings,
    owner: str | None,
    person: str,
    name: str | None,
    agreed: datetime | None,
    *,
    is_owner: bool,
) -> None:
    """Say who somebody is whose voice was learned."""
    from vps_bridge.client.people import PeopleClient

    with PeopleClient(settings, owner) as people:
        if name:
            people.name(person, name)
        if agreed:
            people.consent(person, agreed.date())
        if is_owner:
            people.set_owner(person)


def _print_outcome(told: Enrolment, *, as_json: bool) -> None:
    if as_json:
        print_json(told.model_dump(mode="json"))
    elif told.outcome == "learned":
        out.print(f"{told.person_id} is known by {seconds(told.clean_s)} of clean speech")
    if told.outcome != "learned":
        heard = f"{seconds(told.clean_s)} of clean speech, {seconds(told.other_clean_s)} of others"
        fail(f"not learned, {told.outcome}: {_WHY.get(told.outcome, 'see the log')} ({heard})", EXIT_FAILED)


@people_app.command()
def confirm(
    person: PersonArgument,
    conversation: NamedConversation,
    speaker: SpeakerArgument,
    anyway: Annotated[bool, typer.Option("--anyway", help="Also where it sounds unlike the person's others.")] = False,
    owner: Owner = None,
    by: By = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Say that a voice of a conversation is this person. It becomes a voiceprint, unless it sounds too unlike others.

    Example: omi-bridge people confirm anna call-1 0
    """
    from schemas.people import PersonEvent, PersonEventType

    event = PersonEvent(
        event_id=_new_id(),
        type=PersonEventType.CONFIRMED,
        owner=owner,
        conversation_id=conversation,
        speaker_id=speaker,
        anyway=anyway,
        by=who_says(by),
    )
    _take(person, event, config, data_dir)
    if as_json:
        print_json({"person_id": person, "conversation_id": conversation, "event_id": event.event_id})
    else:
        out.print(f"taken; what became of it: omi-bridge people show {person}, omi-bridge history {conversation}")


@people_app.command()
def rename(
    person: PersonArgument,
    name: Annotated[str, typer.Argument(help="What the person is called.", callback=composed_names)],
    owner: Owner = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Say what a person is called.

    Example: omi-bridge people rename anna "Anna B."
    """
    from schemas.people import PersonEvent, PersonEventType

    event = PersonEvent(event_id=_new_id(), type=PersonEventType.NAMED, owner=owner, name=name)
    _take(person, event, config, data_dir, known=True)
    if as_json:
        print_json({"person_id": person, "name": name})
    else:
        out.print(f"{person} is {name}", highlight=False)


@people_app.command("list")
def list_people(
    owner: Owner = None, config: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """List everybody whom an owner knows.

    Example: omi-bridge people list --owner user-1
    """
    from vps_bridge.intake.people_view import PeopleReader
    from vps_bridge.ledger.people import NOBODY

    with explained(), opened(config, data_dir) as (ledger, _store, _stale_s):
        found = PeopleReader(ledger).list_people(owner or NOBODY)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    for person in found.people:
        out.print(_describe(person), highlight=False, soft_wrap=True)
    if not found.people:
        out.print("nobody is known to this owner: omi-bridge people enroll PERSON FILE")


@people_app.command()
def show(
    person: PersonArgument,
    owner: Owner = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show a person: voiceprints and where they come from, and what was decided.

    Example: omi-bridge people show anna --owner user-1
    """
    from vps_bridge.intake.people_view import PeopleReader
    from vps_bridge.ledger.people import NOBODY

    with explained(), opened(config, data_dir) as (ledger, _store, _stale_s):
        found = PeopleReader(ledger).show(owner or NOBODY, person)
    if found is None:
        fail(_nobody(person), EXIT_FAILED)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    lines = [_describe(found)]
    lines += [
        f"  {seconds(each.clean_s)} from {each.source} {each.conversation_id} ({each.embedding_space})"
        for each in found.prints
    ]
    lines += [
        f"  {age(each.at_s)} ago: {each.what}"
        + (f" in {each.conversation_id}" if each.conversation_id else "")
        + (f", {each.similarity:.2f} alike" if each.similarity is not None else "")
        for each in found.decisions
    ]
    lines += [f"  heard in {each.conversation_id} as {each.speaker_id} ({each.identity})" for each in found.heard_in]
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True)


@people_app.command()
def export(
    person: PersonArgument,
    owner: Owner = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    _as_json: AsJson = True,
) -> None:
    """Write all that is known of a person as one JSON document, voiceprints too.

    Example: omi-bridge people export anna > anna.json
    """
    from vps_bridge.intake.people_view import PeopleReader
    from vps_bridge.ledger.people import NOBODY

    with explained(), opened(config, data_dir) as (ledger, _store, _stale_s):
        found = PeopleReader(ledger).export(owner or NOBODY, person)
    if found is None:
        fail(_nobody(person), EXIT_FAILED)
    print_json(found.model_dump(mode="json"))


@people_app.command()
def forget(
    person: PersonArgument,
    owner: Owner = None,
    yes: Yes = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Erase a person: name, voiceprints, and how the voice sounds in conversations. It cannot be undone.

    Example: omi-bridge people forget anna --owner user-1
    """
    from vps_bridge.intake.people import People
    from vps_bridge.ledger.people import NOBODY

    with explained(), opened(config, data_dir) as (ledger, store, _stale_s):
        mine = owner or NOBODY
        if ledger.people.get(mine, person) is None and not ledger.people.enrolling(mine, person):
            fail(_nobody(person), EXIT_FAILED)
        if not yes:
            ask_first(f"This erases {person} for good. Go on?", unasked="this erases a person and ")
        People(ledger, store).forget(mine, person)
    if as_json:
        print_json({"person_id": person, "forgotten": True})
    else:
        out.print(f"{person} is forgotten")


def _take(person: str, event: PersonEvent, config: ConfigFile, data_dir: DataDir, *, known: bool = False) -> None:
    from vps_bridge.errors import Refusal
    from vps_bridge.intake.people import People
    from vps_bridge.ledger.people import NOBODY

    check_id("person", person)
    with explained(), opened(config, data_dir) as (ledger, store, _stale_s):
        if known and ledger.people.get(event.owner or NOBODY, person) is None:
            fail(_nobody(person), EXIT_FAILED)
        try:
            People(ledger, store).accept(person, event)
        except Refusal as refusal:
            fail(refusal.message, EXIT_FAILED)


def _describe(person: PersonView) -> str:
    words = person.person_id + (f" ({person.name})" if person.name else "") + (", the owner" if person.is_owner else "")
    words += f": {len(person.prints)} voiceprints, {seconds(sum(each.clean_s for each in person.prints))}"
    return words + (f", agreed on {person.consent_date}" if person.consent_date else ", no consent date")


def _nobody(person: str) -> str:
    return f"this owner knows nobody called {person}: `omi-bridge people list --owner OWNER` lists whom it knows"


def _new_id() -> str:
    return f"e-{secrets.token_hex(12)}"
