import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from broker.errors import SettingsError, UnsafeFile
from broker.settings import BrokerSettings, describe_settings, load_settings, print_settings
from broker.users import generate_users, users_file
from tests.brokers import REPOSITORY, free_port

SECRET = "correct-horse-battery"


class AgentLikeSettings(BrokerSettings):
    section: ClassVar[str] = "agent"
    agent_id: str = Field(default="studio", description="Id of this agent.")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("OMI_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def config_file(tmp_path) -> Path:
    return tmp_path / "config.toml"


def test_flag_beats_environment_beats_file_beats_default(monkeypatch, config_file):
    def load(**flags):
        loaded = load_settings(BrokerSettings, flags=flags, config_file=config_file)
        return loaded.settings.keepalive_s, loaded.sources["keepalive_s"]

    config_file.write_text("")
    assert load() == (15, "default")
    config_file.write_text("keepalive_s = 20")
    assert load() == (20, f"file {config_file}")
    monkeypatch.setenv("OMI_KEEPALIVE_S", "30")
    assert load() == (30, "environment OMI_KEEPALIVE_S")
    assert load(keepalive_s=40) == (40, "flag")
    assert load(keepalive_s=None) == (30, "environment OMI_KEEPALIVE_S")


def test_one_file_serves_all_programs(config_file):
    config_file.write_text('topic_root = "home/v1"\n[agent]\nagent_id = "attic"\n[bridge]\nanything = 1\n')
    agent = load_settings(AgentLikeSettings, flags={}, config_file=config_file).settings
    broker = load_settings(BrokerSettings, flags={}, config_file=config_file).settings
    assert (agent.topic_root, agent.agent_id, broker.topic_root) == ("home/v1", "attic", "home/v1")


def test_config_variable_names_the_file(monkeypatch, config_file):
    config_file.write_text("keepalive_s = 21")
    monkeypatch.setenv("OMI_CONFIG", str(config_file))
    assert load_settings(BrokerSettings, flags={}).settings.keepalive_s == 21
    monkeypatch.setenv("OMI_CONFIG", str(config_file.with_name("absent.toml")))
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings(BrokerSettings, flags={})
    monkeypatch.setenv("OMI_CONFIG", str(config_file.parent))
    with pytest.raises(SettingsError, match=r"cannot be read: Is a directory$"):
        load_settings(BrokerSettings, flags={})


@pytest.mark.parametrize(
    ("text", "name", "hint"),
    [
        ("keepalive = 5", "keepalive", "keepalive_s"),
        ('agent_id = "x"', "agent_id", r"\[agent\]"),
        ("[agent]\nagent = 1", "agent", "agent_id"),
        ("[elsewhere]\nx = 1", "elsewhere", r"\[bridge\]"),
        (
            '[backend]\nbroker_username = "b"\nagent_id = "x"',
            "agent_id",
            r"table \[backend\].*into the table \[agent\]",
        ),
        ("[backend]\nkeepalive = 20", "keepalive", "is it keepalive_s"),
        ("keepalive_s = 1", "keepalive_s", "greater than or equal to 5"),
        ('broker_url = "http://x"', "broker_url", "mqtt://127.0.0.1:1883"),
        ('broker_url = "mqtt://x:99999"', "broker_url", "65535"),
        ('topic_root = "a//b"', "topic_root", "single slashes"),
        ("not toml", "config.toml", "not readable as TOML"),
    ],
)
def test_wrong_setting_is_named_with_its_source_and_what_is_allowed(config_file, text, name, hint):
    config_file.write_text(text)
    with pytest.raises(SettingsError, match=hint) as raised:
        load_settings(AgentLikeSettings, flags={}, config_file=config_file)
    assert raised.value.name.endswith(name)
    assert str(config_file) in str(raised.value)


def test_what_may_be_meant_for_the_program_and_stands_in_the_backends_table_is_told_of(config_file):
    def told(text: str, role: str | None = None) -> tuple[str, ...]:
        config_file.write_text(text)
        return load_settings(AgentLikeSettings, flags={}, config_file=config_file, role=role).warnings

    joined = '[agent]\nbroker_username = "a"\n[backend]\nbroker_url = "mqtt://10.0.0.1"\nbroker_username = "b"\n'
    assert told(joined) == ()
    (warning,) = told(joined + 'data_dir = "/srv/omi"\n')
    assert warning.startswith("data_dir in the table [backend]")
    assert "move it into [agent]" in warning
    assert told(joined + 'data_dir = "/srv/omi"\n', role="backend") == ()
    assert told('data_dir = "/srv"\n' + joined + 'data_dir = "/srv/omi"\n') == (), "each has its own"


def test_wrong_environment_value_is_named(monkeypatch):
    monkeypatch.setenv("OMI_KEEPALIVE_S", "soon")
    with pytest.raises(SettingsError, match=r"keepalive_s \(from environment OMI_KEEPALIVE_S\)"):
        load_settings(BrokerSettings, flags={})


def test_unknown_flag_is_refused():
    with pytest.raises(SettingsError, match="unknown"):
        load_settings(BrokerSettings, flags={"nonsense": 1})


def test_password_inside_the_url_is_used_and_shown_nowhere(capsys):
    flags = {"broker_url": f"mqtts://necklace:{SECRET}@broker.example"}
    loaded = load_settings(BrokerSettings, flags=flags)
    settings = loaded.settings
    assert settings.broker_username == "necklace"
    assert settings.broker_password is not None
    assert settings.broker_password.get_secret_value() == SECRET
    assert settings.addresses[0].port == 8883
    assert settings.uses_tls
    assert loaded.sources["broker_password"] == "flag"
    print_settings(loaded, as_json=True)
    print_settings(loaded, as_json=False)
    shown = capsys.readouterr().out + repr(settings) + repr(loaded) + repr(describe_settings(loaded))
    assert SECRET not in shown
    assert "broker.example" in shown


@pytest.mark.parametrize("url", [f"mqtt://u:{SECRET}@h:99999", f"mqtt://u:{SECRET}@h/path", f"ftp://u:{SECRET}@h"])
def test_refused_url_does_not_give_away_its_password(url):
    with pytest.raises(SettingsError) as raised:
        load_settings(BrokerSettings, flags={"broker_url": url})
    assert SECRET not in str(raised.value)
    with pytest.raises(ValueError) as plain:
        BrokerSettings(broker_url=url)
    assert SECRET not in str(plain.value)


def test_credentials_given_twice_are_refused():
    with pytest.raises(SettingsError, match="give them once"):
        load_settings(BrokerSettings, flags={"broker_url": "mqtt://a:b@h", "broker_username": "c"})


def test_settings_are_printed_as_json_with_sources(capsys):
    print_settings(load_settings(BrokerSettings, flags={"keepalive_s": 9}), as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["keepalive_s"]["value"] == 9
    assert shown["keepalive_s"]["source"] == "flag"
    assert all(entry["description"] for entry in shown.values())


def test_generated_credentials_are_found_on_loopback_only(tmp_path):
    users = generate_users(tmp_path)
    flags = {"data_dir": tmp_path}
    loaded = load_settings(BrokerSettings, flags=flags, role="agent")
    assert loaded.settings.broker_password is not None
    assert loaded.settings.broker_password.get_secret_value() == users["agent"].password
    assert loaded.sources["broker_password"] == f"generated credentials {users_file(tmp_path)}"
    elsewhere = load_settings(BrokerSettings, flags={**flags, "broker_url": "mqtt://vps.example"}, role="agent")
    assert elsewhere.settings.broker_username is None
    named = load_settings(BrokerSettings, flags={**flags, "broker_username": "me"}, role="agent")
    assert (named.settings.broker_username, named.settings.broker_password) == ("me", None)


def test_users_file_that_others_can_read_is_refused(tmp_path):
    generate_users(tmp_path)
    users_file(tmp_path).chmod(0o640)
    with pytest.raises(UnsafeFile, match="chmod 600"):
        load_settings(BrokerSettings, flags={"data_dir": tmp_path}, role="agent")


def test_generated_users_stay_and_are_readable_by_their_owner_only(tmp_path):
    first = generate_users(tmp_path)
    assert generate_users(tmp_path) == first
    path = users_file(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert len({user.password for user in first.values()}) == 4
    assert first["agent"].password not in repr(first)


def test_a_password_on_the_command_line_is_warned_about_without_repeating_it():
    loaded = load_settings(BrokerSettings, flags={"broker_url": f"mqtts://necklace:{SECRET}@broker.example"})
    [warning] = loaded.warnings
    assert "ps" in warning
    assert "OMI_BROKER_PASSWORD" in warning
    assert "mode 600" in warning
    assert SECRET not in warning


@pytest.mark.parametrize("url", ["mqtts://broker.example", "mqtts://necklace@broker.example"])
def test_a_url_without_a_password_is_no_reason_to_warn(url):
    assert load_settings(BrokerSettings, flags={"broker_url": url}).warnings == ()


def test_a_password_from_the_environment_is_where_it_should_be(monkeypatch):
    monkeypatch.setenv("OMI_BROKER_URL", f"mqtts://necklace:{SECRET}@broker.example")
    assert load_settings(BrokerSettings, flags={}).warnings == ()


@pytest.mark.parametrize(
    "line", [f'broker_password = "{SECRET}"\nbroker_username = "u"', f'broker_url = "mqtt://u:{SECRET}@h"']
)
def test_a_config_file_with_a_secret_that_others_can_read_is_warned_about(config_file, line):
    config_file.write_text(line)
    config_file.chmod(0o644)
    [warning] = load_settings(BrokerSettings, flags={}, config_file=config_file).warnings
    assert f"chmod 600 {config_file}" in warning
    assert SECRET not in warning
    config_file.chmod(0o600)
    assert load_settings(BrokerSettings, flags={}, config_file=config_file).warnings == ()


def test_a_config_file_without_secrets_may_be_read_by_all(config_file):
    config_file.write_text('broker_url = "mqtt://h"\n')
    config_file.chmod(0o644)
    assert load_settings(BrokerSettings, flags={}, config_file=config_file).warnings == ()


@pytest.mark.parametrize(
    ("module", "arguments"), [("vps_bridge.commands.main", ["watch"]), ("mac_agent.commands.main", ["run"])]
)
def test_programs_print_the_warning_where_no_machine_reads(module, arguments, tmp_path):
    url = f"mqtt://necklace:{SECRET}@127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {module} import main; main()", *arguments, "--broker-url", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMI_DATA_DIR": str(tmp_path), "OMI_HTTP_PORT": "0"},
    )
    assert process.stderr is not None
    with process:
        line = process.stderr.readline()
        process.kill()
    assert "--broker-url can be read by every user" in line
    assert SECRET not in line


def test_several_servers_of_one_broker_stand_between_commas_with_one_login():
    settings = BrokerSettings(broker_url="mqtts://u:p,w@one:8884, mqtts://two")
    assert settings.broker_url == "mqtts://one:8884,mqtts://two:8883"
    assert [server.host for server in settings.addresses] == ["one", "two"]
    assert settings.broker_username == "u"
    assert settings.broker_password is not None
    assert settings.broker_password.get_secret_value() == "p,w"
    for urls in ("mqtt://one,mqtts://two", "mqtt://a:b@one,mqtt://c:d@two", "mqtt://one,", "mqtt://one,two"):
        with pytest.raises(ValueError, match="must"):
            BrokerSettings(broker_url=urls)


@pytest.mark.parametrize("name", ["OMI_DATA_DIR", "OMI_BROKER_CA_FILE", "OMI_CONFIG"])
def test_a_home_directory_that_nobody_has_is_named(monkeypatch, name):
    monkeypatch.setenv(name, "~nobody-of-this-name/x")
    with pytest.raises(SettingsError, match=r"~nobody-of-this-name.*write the path in full"):
        load_settings(BrokerSettings, flags={})


@pytest.mark.parametrize(
    "entry",
    ['{"username": 5, "password": "x"}', '{"username": "a", "password": null}', '{"username": "a:b", "password": "x"}'],
)
def test_a_users_file_with_what_is_no_name_or_password_is_told(tmp_path, entry):
    generate_users(tmp_path)
    users_file(tmp_path).write_text(f'{{"bridge": {entry}}}')
    with pytest.raises(UnsafeFile, match=r"is not a users file.*omi-broker init"):
        generate_users(tmp_path)
