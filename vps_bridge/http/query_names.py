"""Refuse a query that names what its path does not know, or one name twice: the answer would be another's."""

from __future__ import annotations

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel

from schemas.text import KeyRepeated, refuse_repeated

_PATHS = ("/v1/", "/api/")  # probes may add what they like to `/health`, scrapers to `/metrics`
_MAX_NAME_CHARS = 100


def check_query(request: Request) -> None:
    """Raise `RequestValidationError` where a query has a name that its path does not document, or one twice."""
    route = request.scope.get("route")
    if not request.url.path.startswith(_PATHS) or not isinstance(route, APIRoute):
        return
    known = _list_names(route.dependant)
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        does = f"this path knows {', '.join(sorted(known))}" if known else "this path takes none"
        raise _malformed(ascii(unknown[0][:_MAX_NAME_CHARS])[1:-1], f"no such parameter: {does}")
    try:
        refuse_repeated(request.query_params.multi_items())
    except KeyRepeated as error:
        raise _malformed("query", str(error)) from error


def _list_names(dependant: Dependant) -> set[str]:
    names = set[str]().union(*(_list_names(each) for each in dependant.dependencies))
    for field in dependant.query_params:
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names |= kind.model_fields.keys()
        else:
            names.add(field.alias)
    return names


def _malformed(place: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"type": "value_error", "loc": ("query", place), "msg": message}])
