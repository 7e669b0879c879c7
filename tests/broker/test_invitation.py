"""Invitations, and the config file that they are written into."""

import os
import tomllib
from pathlib import Path

import pytest

from broker.certificates import OwnCertificates, make_certificates
from broker.config_file import set_in_table, write_settings
from broker.errors import SettingsError, UnsafeFile
from broker.invitation import Invitation, InvitationMalformed, read_invitation, read_invitation_file, write_invitation

PLAIN = Invitation("agent", "mqtt://127.0.0.1:1883", "agent-my-mac", "secret-word", sender_id="my-mac")


def test_an_invitation_with_a_ca_comes_back_whole_and_fits_into_a_line_of_a_terminal(tmp_path):
    own = OwnCertificates.below(tmp_path)
    own.ca.parent.mkdir()
    make_certificates(own, ("100.101.102.103",))
    url = "mqtts://a-long-name-of-a-vps.a-long-tailnet.ts.net:8883"
    invitation = Invitation("agent", url, "agent-my-mac", "x" * 32, "my-mac", own.ca.read_text(), "omi/v2")
    text = write_invitation(invitation)
    assert len(text) < 1024
    assert len(text.split()) == 1
    assert read_invitation(f"\n {text[:500]}\n{text[500:]} \n") == invitation


def test_an_invitation_shows_no_password_where_it_is_printed():
    assert "secret-word" not in repr(PLAIN)
    assert "secret-word" not in write_invitation(PLAIN)


@pytest.mark.parametrize("cut", [0, 5, 17, 30, -1])
def test_what_is_no_whole_invitation_is_refused_and_not_repeated(cut):
    text = write_invitation(PLAIN)
    for damaged in (text[:cut], text[:40] + "A" + text[41:], text + "é"):
        with pytest.raises(
            InvitationMalformed, match=r"begins with omi-invitation-1:.*omi-broker add-agent"
        ) as refused:
            read_invitation(damaged)
        assert damaged[:40] not in str(refused.value) or len(damaged) < 20


@pytest.mark.parametrize(
    "fields",
    [
        {"role": "root"},
        {"url": "http://127.0.0.1"},
        {"sender_id": "a/b"},
        {"topic_root": "a//b"},
        {"username": "a\nb"},
        {"password": 7},
        {"surprise": 1},
    ],
)
def test_an_invitation_that_says_what_none_says_is_refused(fields):
    import msgpack

    from broker.invitation import PREFIX, _check

    packed = msgpack.packb({"role": "agent", "url": PLAIN.url, "username": "a", "password": "b", **fields})
    import base64

    with pytest.raises(InvitationMalformed):
        read_invitation(PREFIX + base64.urlsafe_b64encode(packed + _check(packed)).decode())


def test_an_invitation_that_others_can_read_is_refused(tmp_path):
    file = tmp_path / "invitation"
    file.write_text(write_invitation(PLAIN))
    file.chmod(0o640)
    with pytest.raises(UnsafeFile, match="chmod 600"):
        read_invitation_file(file)
    file.chmod(0o600)
    assert read_invitation_file(file) == PLAIN
    with pytest.raises(UnsafeFile, match="that is no file: copy what it holds into one") as refused:
        read_invitation_file(Path(os.devnull))
    assert "chmod" not in str(refused.value), "whoever did that to a device would break the machine"


@pytest.mark.parametrize(
    "before",
    [
        "",
        "# mine\nlog_json = true\n",
        '[agent]\nengine = "embedded" # keep\nbroker_url = "mqtt://old"\n\n[bridge]\nbroker_url = "mqtt://other"\n',
        '[bridge]\nattempts = 5\n[ agent ] # here\n"broker_ca_file" = 1\nthreads = 2',
    ],
)
def test_other_lines_of_a_config_file_stay(before):
    if '"broker_ca_file"' in before:  # a quoted name: found by comparing what comes out, and refused
        with pytest.raises(tomllib.TOMLDecodeError):
            set_in_table(before, "agent", {"broker_ca_file": "x"})
        return
    changed = set_in_table(before, "agent", {"broker_url": 'mqtt://"new"\\', "broker_ca_file": None})
    known, now = tomllib.loads(before), tomllib.loads(changed)
    assert now == {**known, "agent": {**known.get("agent", {}), "broker_url": 'mqtt://"new"\\'}}
    assert {line for line in before.splitlines() if "mqtt://old" not in line} <= set(changed.splitlines())


def test_a_config_file_that_is_no_toml_is_left_alone_and_one_with_a_password_is_its_owners(tmp_path):
    file = tmp_path / "deep" / "config.toml"
    write_settings(file, "agent", {"broker_password": "b"})
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o077 == 0
    file.write_text("log_json = \n")
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="mend it"):
        write_settings(file, "agent", {"broker_password": "b"})
    assert file.read_text() == "log_json = \n"
    file.write_text("log_json = true\n")
    write_settings(file, "agent", {"broker_password": "b"})
    assert file.stat().st_mode & 0o777 == 0o600
