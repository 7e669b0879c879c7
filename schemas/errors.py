"""The errors of messages and topics, each with its failure code."""


class SchemaError(Exception):
    """Base of every error of this package; the decoder raises no others.

    Attributes:
        code: The `FailureCode` value that a `JobFailure` about this message carries.
    """

    code = "payload.malformed"


class MessageMalformed(SchemaError):
    """The bytes are not a message: bad msgpack or JSON, a missing or a wrong field."""


class MessageTooLarge(SchemaError):
    """The bytes are above a limit on size, count or nesting."""

    code = "ingest.too_large"


class SchemaUnsupported(SchemaError):
    """The message names another schema, or a major version that this program does not support."""

    code = "schema.unsupported"


class TopicMalformed(SchemaError):
    """An id that may not be part of a topic, or a topic that is not one of ours."""
