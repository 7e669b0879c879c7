"""People over HTTP: events as over MQTT, and what is known of an owner's people, which no topic tells."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import FastAPI, Path, Query, Request, Response

from schemas.codec import encode
from schemas.people import PersonAccepted, PersonEvent, PersonEventType
from schemas.record import ID_PATTERN, PersonName
from vps_bridge.http.answers import json_event, to_response
from vps_bridge.http.messages import HttpProblem, Problem
from vps_bridge.intake.intake import Intake
from vps_bridge.intake.people_view import OwnerList, PeopleList, PersonDetail, PersonExport
from vps_bridge.ledger.people import NOBODY

T = TypeVar("T")
PersonId = Annotated[str, Path(pattern=ID_PATTERN, description="1 to 128 of A-Z a-z 0-9 _ -, no dot.")]
Owner = Annotated[
    PersonName | None,
    Query(description="Whose people, as `started` of a conversation names it; none: nobody's."),
]

Answers = Callable[[tuple[int, ...], type[Problem]], dict[int | str, dict[str, Any]]]


class Asking(Protocol):
    """Has work done by the bridge's own thread."""

    async def __call__(self, work: Callable[[], T]) -> T:
        """Return what `work` returned there."""
        ...


class PeopleHandlers:
    """What the paths about people do."""

    def __init__(self, ask: Asking, intake: Intake) -> None:
        """Call `intake` through `ask`."""
        self._ask, self._intake = ask, intake

    async def take_event(self, request: Request, person_id: str) -> Response:
        """Take an event of a person."""
        return await self._take(person_id, await json_event(request, PersonEvent))

    async def forget(self, person_id: str, owner: str | None) -> Response:
        """Erase a person, as the event `forgotten` does."""
        await self._check_plus(owner)
        event_id = f"e-{secrets.token_hex(12)}"
        event = PersonEvent(event_id=event_id, type=PersonEventType.FORGOTTEN, owner=owner or None)
        return await self._take(person_id, encode(event))

    async def _check_plus(self, owner: str | None) -> None:
        """Refuse an owner whose plus sign the query lost: nobody would be erased, and that looks like done."""
        meant = (owner or "").replace(" ", "+")
        if meant != (owner or ""):
            owners = (await self.list_owners()).owners
            if owner not in owners and meant in owners:
                msg = "a plus sign in a query is a space, and nobody is called so: write %2B for it in `owner`"
                raise HttpProblem(422, "payload.malformed", msg)

    async def _take(self, person_id: str, data: bytes) -> Response:
        return to_response(await self._ask(partial(self._intake.people.take_event, person_id, data)), 200)

    async def list_owners(self) -> OwnerList:
        """Return every owner."""
        return await self._ask(self._intake.people.list_owners)

    async def list_people(self, owner: str | None) -> PeopleList:
        """Return everybody whom an owner knows."""
        return await self._ask(partial(self._intake.people.list_people, owner or NOBODY))

    async def show(self, person_id: str, owner: str | None) -> PersonDetail:
        """Return one person."""
        return _known(await self._ask(partial(self._intake.people.show, owner or NOBODY, person_id)))

    async def export(self, person_id: str, owner: str | None) -> PersonExport:
        """Return all that is known of a person."""
        return _known(await self._ask(partial(self._intake.people.export, owner or NOBODY, person_id)))


def _known(found: T | None) -> T:
    if found is None:
        raise HttpProblem(404, "person.unknown", "this owner knows nobody of that id: is `owner` the right one?")
    return found


def add_people(
    app: FastAPI, people: PeopleHandlers, *, answers: Answers, event_body: dict[str, Any], take_codes: tuple[int, ...]
) -> None:
    """Add the paths about people."""
    reading = answers((401, 403, 404, 422, 500, 503), Problem)

    @app.post(
        "/v1/people/{person_id}/events",
        response_model=PersonAccepted,
        responses=answers(take_codes, Problem),
        openapi_extra=event_body,
    )
    async def take_person_event(person_id: PersonId, request: Request) -> Response:
        """Take what a backend says of a person."""
        return await people.take_event(request, person_id)

    @app.get("/v1/owners", responses=answers((401, 403, 422, 500, 503), Problem))
    async def list_owners() -> OwnerList:
        """List whose people and conversations there are."""
        return await people.list_owners()

    @app.get("/v1/people", responses=answers((401, 403, 422, 500, 503), Problem))
    async def list_people(owner: Owner = None) -> PeopleList:
        """List everybody whom an owner knows, with their voiceprints' sources."""
        return await people.list_people(owner)

    @app.get("/v1/people/{person_id}", responses=reading)
    async def show_person(person_id: PersonId, owner: Owner = None) -> PersonDetail:
        """Show one person of an owner: voiceprints, decisions, and where it was heard."""
        return await people.show(person_id, owner)

    @app.get("/v1/people/{person_id}/export", responses=reading)
    async def export_person(person_id: PersonId, owner: Owner = None) -> PersonExport:
        """Return all that is known of a person, voiceprints with their vectors."""
        return await people.export(person_id, owner)

    @app.delete("/v1/people/{person_id}", response_model=PersonAccepted, responses=answers(take_codes, Problem))
    async def forget_person(person_id: PersonId, owner: Owner = None) -> Response:
        """Erase a person: name, voiceprints, and how the voice sounds in conversations. It cannot be undone."""
        return await people.forget(person_id, owner)
