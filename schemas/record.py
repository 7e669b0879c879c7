"""What all messages have in common: ids, hashes, times, schema and version."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import ErrorDetails

from schemas.limits import MAX_NAME_CHARS
from schemas.text import compose_name

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
SHA256_PATTERN = r"^[0-9a-f]{64}$"
VERSION_PATTERN = r"^[0-9]{1,3}\.[0-9]{1,3}$"
_LOST_PLUS = re.compile(r".*[0-9]:[0-9]{2}(:[0-9.]+)? [0-9]{2}:?([0-9]{2})?")
_LEAP_SECOND = re.compile(r".*[T ][0-9]{2}:[0-9]{2}:60([.Z+-].*)?")
_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?")
MAX_TEXT_CHARS = 20_000
MAX_DURATION_S = 7 * 24 * 3600.0  # no duration or position in a message is longer than a week
MAX_BYTES = 2**40
MAX_COUNT = 10_000_000
MAX_ENTRIES = 100

T = TypeVar("T")


def _to_utc(moment: datetime) -> datetime:
    # A time with another offset may not parse again (seconds in the offset) or not convert (near the years 1 and 9999).
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        msg = "a time outside the years 1 to 9999 in UTC"
        raise ValueError(msg) from None


def _name_lost_plus(moment: Any) -> Any:  # noqa: ANN401 - anything, before validation
    # In a query `+` is a space: 10:00:00+02:00 arrives as 10:00:00 02:00, and that it was a plus is a guess.
    if isinstance(moment, str) and _LOST_PLUS.fullmatch(moment.strip()):
        msg = (
            "the plus sign of the time zone was lost on the way: in a query write it as %2B, or give UTC and end with Z"
        )
        raise ValueError(msg)
    return moment


def _take_leap_second(moment: Any, parse: ValidatorFunctionWrapHandler) -> datetime:  # noqa: ANN401 - before validation
    # 23:59:60 is a time that NTP and GPS clocks give; Python's datetime has none, and computers count it as 00:00:00.
    if isinstance(moment, str) and _LEAP_SECOND.fullmatch(moment.strip()):
        parsed: datetime = parse(moment.replace(":60", ":59", 1))
        return parsed + timedelta(seconds=1)
    taken: datetime = parse(moment)
    return taken


def check_hints(least: int | None, most: int | None) -> None:
    """Raise `ValueError` where a message expects at least more speakers than at most."""
    if least is not None and most is not None and least > most:
        msg = f"min_speakers is {least} and max_speakers {most}: send a least number that is not above the most"
        raise ValueError(msg)


def _refuse_odd_number(number: Any) -> Any:  # noqa: ANN401 - anything, before validation
    # pydantic would take "1_0" for 10, True for 1 and " 5 " (in a query: +5) for 5.
    if isinstance(number, bool) or (isinstance(number, str) and not _NUMBER.fullmatch(number)):
        msg = "write the number in plain decimal digits"
        raise ValueError(msg)
    return number


def _refuse_many(entries: Any) -> Any:  # noqa: ANN401 - anything, before validation
    # pydantic would collect an error of 1 KB for every wrong entry before it counts the entries.
    if isinstance(entries, dict) and len(entries) > MAX_ENTRIES:
        msg = f"more than {MAX_ENTRIES} entries"
        raise ValueError(msg)
    return entries


def _compose(name: Any) -> Any:  # noqa: ANN401 - anything, before validation
    composed = compose_name(name)
    if isinstance(name, str) and len(name) <= MAX_NAME_CHARS < len(composed):
        msg = f"composed (NFC) it is longer than {MAX_NAME_CHARS} characters"
        raise ValueError(msg)
    return composed


def is_beyond_seconds(item: ErrorDetails) -> bool:
    """Whether a field is wrong because it is longer than any time in seconds: it is likely in milliseconds."""
    return any(limit in (MAX_DURATION_S, -MAX_DURATION_S) for limit in item.get("ctx", {}).values())


def describe_wrong(item: ErrorDetails) -> str:
    """Return what pydantic says of a wrong field, with what to do where it does not say that."""
    said = item["msg"].removeprefix("Value error, ")
    return f"{said}; looks like milliseconds: send seconds" if is_beyond_seconds(item) else said


Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
Sha256 = Annotated[
    str,
    StringConstraints(pattern=SHA256_PATTERN),
    BeforeValidator(lambda digest: digest.lower() if isinstance(digest, str) else digest),
]
Name = Annotated[str, StringConstraints(max_length=MAX_NAME_CHARS)]
PersonName = Annotated[Name, BeforeValidator(_compose)]
"""A name or id that people gave to a person or an owner."""
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)]
Timestamp = Annotated[
    AwareDatetime,
    WrapValidator(_take_leap_second),
    BeforeValidator(_name_lost_plus),
    AfterValidator(_to_utc),
    PlainSerializer(lambda moment: moment.isoformat(), return_type=str, when_used="always"),
]
Seconds = Annotated[float, Field(ge=0, le=MAX_DURATION_S)]
SignedSeconds = Annotated[float, Field(ge=-MAX_DURATION_S, le=MAX_DURATION_S)]
ByteCount = Annotated[int, Field(ge=0, le=MAX_BYTES)]
PlainNumber = BeforeValidator(_refuse_odd_number)
Count = Annotated[int, Field(ge=0, le=MAX_COUNT), PlainNumber]
SpeakerCount = Annotated[int, Field(ge=1, le=100)]
SpeakerHint = Annotated[
    Annotated[int, Field(ge=0, le=100)] | None, PlainNumber, AfterValidator(lambda count: count or None)
]
"""A number of speakers that a caller expects; 0 says nothing, as None does."""
Ratio = Annotated[float, Field(ge=0, le=1)]
ByName = Annotated[dict[Name, T], Field(max_length=MAX_ENTRIES), BeforeValidator(_refuse_many)]


def is_id(text: str) -> bool:
    """Whether `text` is a valid id, which may be a level of a topic (NATS forbids dots there)."""
    return _ID.fullmatch(text) is not None


class Record(BaseModel):
    """A part of a message. Frozen; fields it does not know are ignored (a newer minor version)."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)


class Message(Record):
    """A whole payload, with its schema and version, so that a reader can refuse what it cannot read."""

    SCHEMA: ClassVar[str]
    MAJOR: ClassVar[int] = 1
    ENCODING: ClassVar[str] = "json"
    MAX_ENCODED_BYTES: ClassVar[int] = 2_000_000

    schema_name: str = Field(default="", alias="schema", description="Which message this is.")
    version: str = Field(default="1.0", pattern=VERSION_PATTERN, description="major.minor of the schema.")

    def model_post_init(self, _context: Any) -> None:  # noqa: ANN401 - pydantic's own signature
        """Fill in the schema's name where the sender gave none; refuse that of another schema."""
        if not self.schema_name:
            object.__setattr__(self, "schema_name", self.SCHEMA)
        if self.schema_name != self.SCHEMA or not self.version.startswith(f"{self.MAJOR}."):
            msg = f"schema and version must be {self.SCHEMA} {self.MAJOR}.x"
            raise ValueError(msg)
