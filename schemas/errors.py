"""Errors a message or a topic can raise; each carries the failure code of the design."""


class SchemaError(Exception):
    """Base of every error of this package; nothing else leaves the decoder.

    Attributes:
        code: The `FailureCode` value that a `JobFailure` about this message carries.
    """

    code = "payload.malformed"


class MessageMalformed(SchemaError):
    """The bytes are not a message: bad msgpack or JSON, a missing or a wrong field."""


class MessageTooLarge(SchemaError):
    """The bytes pass a limit on size, count or nesting."""

    code = "ingest.too_large"


class SchemaUnsupported(SchemaError):
    """The message names another schema, or a major version this program does not speak."""

    code = "schema.unsupported"


class TopicMalformed(SchemaError):
    """An id that may not stand in a topic, or a topic that is none of ours."""
