"""Settings of the three programs. A flag wins over the environment, that over the TOML file, that over the default.

One TOML file may serve all three. Its top level holds the settings they share (the fields of
`BrokerSettings`), the tables `[broker]`, `[agent]` and `[bridge]` those of one program, and `[backend]` those of what
acts for a backend: `omi-bridge publish`, the Python client.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableEnvironment

from broker.address import BrokerAddress, parse_broker_urls
from broker.errors import SettingsError
from broker.private_files import say_private
from broker.text_files import read_text
from broker.user_path import UserPath, expand_home
from broker.users import read_credentials, users_file
from schemas.errors import SchemaError
from schemas.topics import DEFAULT_ROOT, Topics

ENV_PREFIX = "OMI_"
CONFIG_ENV = "OMI_CONFIG"
SECTIONS = ("broker", "agent", "bridge", "backend")
BACKEND = "backend"  # its table is read after that of the bridge, by what acts for a backend
JOINED = (
    "broker_url",
    "broker_username",
    "broker_password",
    "broker_ca_file",
    "mqtt_version",
    "mqtt_qos",
    "topic_root",
)
"""What `join` writes into the table of whoever joins a broker."""
MASK = "********"


class BrokerSettings(BaseSettings):
    """How to reach the broker; the base of the agent's and the bridge's settings."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    section: ClassVar[str] = "broker"
    """The TOML table of this program; a subclass names its own."""

    data_dir: UserPath = Field(
        default_factory=lambda: platformdirs.user_data_path("omi-diarization"),
        description="Where everything that must survive a restart is kept.",
    )
    broker_url: str = Field(
        default="mqtt://127.0.0.1:1883",
        description="The broker, mqtt://host:port or mqtts://host:port; user:password@ is taken out and masked. "
        "Of a cluster the URLs of all servers between commas: they are tried in turn.",
    )
    broker_username: str | None = Field(
        default=None,
        description="User at the broker. Empty: the generated one, if the broker is on loopback.",
    )
    broker_password: SecretStr | None = Field(default=None, description="Password of that user.")
    broker_ca_file: UserPath | None = Field(
        default=None, description="PEM file of the CA that signed the broker's certificate (mqtts, own CA)."
    )
    mqtt_version: Literal["auto", "5", "3.1.1"] = Field(
        default="auto",
        description="auto: MQTT 5, and 3.1.1 where the broker knows no other (found out at the first connect).",
    )
    mqtt_qos: int = Field(
        default=1,
        ge=0,
        le=1,
        description="Highest QoS used. 0 for a NATS cluster, which writes to its disks whatever is sent with 1.",
    )
    topic_root: str = Field(default=DEFAULT_ROOT, description="First levels of every topic.")
    keepalive_s: int = Field(
        default=15, ge=5, le=600, description="A connection silent for 1.5 times this is dead to the broker."
    )
    reconnect_min_s: float = Field(
        default=0.5, gt=0, le=60, description="Shortest pause before a reconnect; doubles, with jitter."
    )
    reconnect_spread: float = Field(
        default=1.0,
        ge=1,
        le=100,
        description="The first pause after a lost connection is anything up to so many times reconnect_min_s, so that "
        "many clients do not come back at once.",
    )
    reconnect_max_s: float = Field(default=30.0, gt=0, le=600, description="Longest pause before a reconnect.")
    assumed_max_packet_bytes: int = Field(
        default=1_900_000,
        ge=1_024,
        le=268_435_455,
        description="Largest packet sent to a broker that announces no limit (Mosquitto 2.1 takes 2,000,000).",
    )
    log_json: bool = Field(default=False, description="Log JSON lines instead of lines for people.")

    @model_validator(mode="before")
    @classmethod
    def _take_credentials_out_of_url(cls, values: object) -> object:
        if not isinstance(values, dict) or "@" not in str(values.get("broker_url", "")):
            return values
        try:
            parsed = parse_broker_urls(values["broker_url"])
        except ValueError:
            return values  # the validator of the field reports what is wrong
        if values.get("broker_username") or values.get("broker_password"):
            msg = "broker_url has credentials and broker_username or broker_password is set too: give them once"
            raise ValueError(msg)
        return {
            **values,
            "broker_url": parsed.url,
            "broker_username": parsed.username,
            "broker_password": parsed.password,
        }

    @field_validator("broker_url")
    @classmethod
    def _is_broker_url(cls, value: str) -> str:
        return parse_broker_urls(value).url

    @field_validator("topic_root")
    @classmethod
    def _is_topic_root(cls, value: str) -> str:
        try:
            return Topics(value).root
        except SchemaError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _pauses_in_order(self) -> Self:
        if self.reconnect_min_s > self.reconnect_max_s:
            msg = "reconnect_min_s must not be above reconnect_max_s"
            raise ValueError(msg)
        return self

    @property
    def addresses(self) -> tuple[BrokerAddress, ...]:
        """Host, port and TLS of each server of the broker: several make a cluster."""
        return parse_broker_urls(self.broker_url).addresses

    @property
    def uses_tls(self) -> bool:
        """Whether the broker speaks TLS: all of its servers do, or none."""
        return self.addresses[0].tls


S = TypeVar("S", bound=BrokerSettings)


@dataclass(frozen=True)
class LoadedSettings(Generic[S]):
    """Settings and, for each field, where its value came from."""

    settings: S
    sources: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    """What a person should be told of the places that secrets came from."""


@dataclass(frozen=True)
class SettingRow:
    """One setting as shown to a person; secrets are masked."""

    name: str
    value: str | None
    source: str
    description: str


def load_settings(
    cls: type[S], *, flags: Mapping[str, Any], config_file: Path | None = None, role: str | None = None
) -> LoadedSettings[S]:
    """Gather the settings of one program.

    Args:
        cls: the program's settings class.
        flags: values from the command line by field name; None means "not given".
        config_file: TOML file; default is OMI_CONFIG, else `config.toml` in the user's config directory.
        role: with no username set and a broker on loopback, use the credentials that `omi-broker run`
            generated for this role (`bridge`, `agent`, `backend` or `watch`).

    Raises:
        SettingsError: a wrong value, an unknown name, or an unreadable file.
    """
    given_flags = {name: value for name, value in flags.items() if value is not None}
    for name in given_flags:
        if name not in cls.model_fields:
            raise SettingsError(name, "flag", f"unknown; known are {', '.join(sorted(cls.model_fields))}")
    path = config_file or default_config_file()
    must_exist = config_file is not None or bool(os.environ.get(CONFIG_ENV))
    file_values, of_backend = _read_config_file(cls, path, role, must_exist=must_exist)
    env_values = _read_environment(cls)
    sources = dict.fromkeys(cls.model_fields, "default")
    sources |= dict.fromkeys(file_values, f"file {path}")
    sources |= {name: f"environment {ENV_PREFIX}{name.upper()}" for name in env_values}
    sources |= dict.fromkeys(given_flags, "flag")
    settings = _validated(cls, {**file_values, **env_values, **given_flags}, sources)
    if settings.broker_username is not None and sources["broker_username"] == "default":
        sources["broker_username"] = sources["broker_password"] = sources["broker_url"]
    is_here = all(server.is_loopback for server in settings.addresses)
    if role is not None and settings.broker_username is None and is_here:
        settings = _with_generated_credentials(settings, sources, role)
    unread = [
        f"{name} in the table [{BACKEND}] of {path} is read by what acts for a backend alone: if it is meant for this "
        f"program, move it into [{cls.section}]"
        for name in of_backend
    ]
    return LoadedSettings(settings, sources, (*unread, *_exposed_secrets(settings, given_flags, file_values, path)))


def describe_settings(loaded: LoadedSettings[S]) -> list[SettingRow]:
    """List every setting with its value, source and meaning; secrets are masked."""
    return [
        SettingRow(name, _shown(getattr(loaded.settings, name)), loaded.sources[name], field.description or "")
        for name, field in type(loaded.settings).model_fields.items()
    ]


def print_settings(loaded: LoadedSettings[S], *, as_json: bool) -> None:
    """Write the settings to stdout, as a table or as a JSON object by name."""
    # Imported here: only `config` needs it, and imports of the module slow down every command.
    import rich.table  # noqa: PLC0415

    from broker.terminal import SafeConsole, print_json  # noqa: PLC0415

    rows = describe_settings(loaded)
    if as_json:
        plain = loaded.settings.model_dump(mode="json")  # numbers and lists stay numbers and lists
        shown = {
            row.name: {
                "value": row.value if row.value == MASK else plain[row.name],
                "source": row.source,
                "description": row.description,
            }
            for row in rows
        }
        print_json(shown)
        return
    table = rich.table.Table(rich.table.Column("setting", no_wrap=True), "value", "from", "meaning")
    for column in table.columns:
        column.overflow = "fold"  # a path that ends in an ellipsis is of no use
    for row in rows:
        table.add_row(row.name, "-" if row.value is None else row.value, row.source, row.description)
    SafeConsole(markup=False).print(table)


def _shown(value: object) -> str | None:
    if value is None:
        return None
    return MASK if isinstance(value, SecretStr) else str(value)


def default_config_file() -> Path:
    """Return the config file that is read where none is named: that of `OMI_CONFIG`, else the user's own.

    Raises `SettingsError` where `OMI_CONFIG` names none.
    """
    from_env = os.environ.get(CONFIG_ENV)
    if not from_env:
        return platformdirs.user_config_path("omi-diarization") / "config.toml"
    try:
        return expand_home(Path(from_env))
    except ValueError as error:
        raise SettingsError(CONFIG_ENV, "the environment", str(error)) from error


def _read_config_file(
    cls: type[S], path: Path, role: str | None, *, must_exist: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the values for this program, and what of the backend's table somebody may have meant for it."""
    try:
        document = tomllib.loads(read_text(path))
    except FileNotFoundError as error:
        if must_exist:
            raise SettingsError(str(path), "the config file", "the file does not exist") from error
        return {}, ()
    except OSError as error:
        raise SettingsError(str(path), "the config file", f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(str(path), "the config file", f"not readable as TOML: {error}") from error
    sections = {name: document.pop(name) for name in SECTIONS if name in document}
    for name in document:
        if name in BrokerSettings.model_fields:
            continue
        if name in cls.model_fields:
            words = f"belongs into the table [{cls.section}]"
        elif isinstance(document[name], dict):
            words = f"unknown; tables are {_list_tables()}"
        else:
            words = _say_unknown(name, BrokerSettings.model_fields) + f"; the rest goes into {_list_tables()}"
        raise SettingsError(name, f"file {path}", words)
    own = _read_table(cls, path, cls.section, sections.get(cls.section, {}), cls.model_fields)
    of_backend = _read_table(cls, path, BACKEND, sections.get(BACKEND, {}), BrokerSettings.model_fields)
    if role == BACKEND:
        return {**document, **own, **of_backend}, ()
    return {**document, **own}, tuple(name for name in of_backend if name not in {*JOINED, *document, *own})


def _list_tables() -> str:
    return ", ".join(f"[{section}]" for section in SECTIONS)


def _read_table(cls: type[S], path: Path, section: str, table: object, known: Iterable[str]) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise SettingsError(section, f"file {path}", f"must be a table: [{section}]")
    for name in table:
        if name not in known:
            # What is appended to a file stands in its last table, whatever it is meant for.
            is_misplaced = name in cls.model_fields
            words = f"belongs into the table [{cls.section}]" if is_misplaced else _say_unknown(name, known)
            raise SettingsError(name, f"file {path}, table [{section}]", words)
    return table


def _say_unknown(name: str, known: Iterable[str]) -> str:
    """Say that there is no such setting, and which was meant: the nearest, or else all."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown: is it {near[0]}?" if near else f"unknown; known are {', '.join(sorted(known))}"


def _read_environment(cls: type[S]) -> dict[str, Any]:
    """Return what is set there. An empty variable is as good as none, but not where there must be a path."""
    for name, field in cls.model_fields.items():
        variable = f"{ENV_PREFIX}{name.upper()}"
        if field.annotation is Path and os.environ.get(variable) == "":
            raise SettingsError(name, f"environment {variable}", "is empty: name a directory, or unset the variable")
    try:
        return EnvSettingsSource(cls)()
    except UnreadableEnvironment as error:
        raise SettingsError(f"{ENV_PREFIX}*", "environment", f"not readable: {error}") from error


def _validated(cls: type[S], values: dict[str, Any], sources: Mapping[str, str]) -> S:
    try:
        return cls(**values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "broker_url" if "broker_url" in first["msg"] else "settings"
        allowed = first["msg"].removeprefix("Value error, ")
        if name in cls.model_fields:
            allowed = f"{allowed}. {cls.model_fields[name].description or ''}".strip()
        raise SettingsError(name, sources.get(name, "several sources"), allowed) from None


def _exposed_secrets(
    settings: BrokerSettings, flags: Mapping[str, Any], file_values: Mapping[str, Any], path: Path
) -> Iterator[str]:
    """Yield a warning for each place where others than its owner can read a secret of these settings."""
    if _has_password(str(flags.get("broker_url", ""))):
        yield (
            "the password in --broker-url can be read by every user of this machine (ps): set OMI_BROKER_USERNAME and "
            f"OMI_BROKER_PASSWORD instead, or broker_username and broker_password in {path} (mode 600)"
        )
    secrets = [name for name in file_values if isinstance(getattr(settings, name), SecretStr)]
    if (secrets or _has_password(str(file_values.get("broker_url", "")))) and path.stat().st_mode & 0o077:
        yield f"other users of this machine can read the secrets in {path}: {say_private(path)}"


def _has_password(url: str) -> bool:
    try:
        return parse_broker_urls(url).password is not None
    except ValueError:
        return False


def _with_generated_credentials(settings: S, sources: dict[str, str], role: str) -> S:
    credentials = read_credentials(settings.data_dir, role)
    if credentials is None:
        return settings
    source = f"generated credentials {users_file(settings.data_dir)}"
    sources["broker_username"] = sources["broker_password"] = source
    update = {"broker_username": credentials.username, "broker_password": SecretStr(credentials.password)}
    if settings.mqtt_version == "auto":
        # Only the embedded broker generates credentials, and it does not answer a client that uses MQTT 5.
        update["mqtt_version"] = "3.1.1"
        sources["mqtt_version"] = source
    return settings.model_copy(update=update)
