"""`omi-bridge omi`: what a person pastes into OMI, once, and what is shown afterwards."""

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner, Result

from vps_bridge.commands.omi import omi_app
from vps_bridge.omi.users import UserFile

URL = "https://omi.example.org"


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMI_OMI_PUBLIC_URL", URL)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("OMI_DATA_DIR", str(tmp_path))
    return tmp_path


def omi(*arguments: str) -> Result:
    return CliRunner().invoke(omi_app, arguments)


def test_a_user_is_added_listed_rotated_and_removed(data_dir: Path) -> None:
    users = UserFile(data_dir / "bridge")
    added = json.loads(omi("add", "u1", "--json").stdout)
    paths = [urlsplit(url).path for url in added["urls"].values()]
    assert paths == ["/omi/audio", "/omi/transcript", "/omi/conversation"]
    (token,) = {parse_qs(urlsplit(url).query)["token"][0] for url in added["urls"].values()}
    known = users.find("u1")
    assert known is not None
    assert known.has_token(token)
    assert known.secret == added["secret"]
    listed = omi("list", "--json").stdout
    assert json.loads(listed) == [{"uid": "u1"}]
    assert omi("add", "u1").exit_code == 1
    (data_dir / "secret").write_text("the secret that this OMI signs with\n")
    rotated = json.loads(omi("rotate", "u1", "--secret-file", str(data_dir / "secret"), "--json").stdout)
    assert rotated["secret"] == "the secret that this OMI signs with"
    again = users.find("u1")
    assert again is not None
    assert not again.has_token(token)
    assert omi("remove", "u1").exit_code == 0
    assert [omi(command, "u1").exit_code for command in ("remove", "rotate")] == [1, 1]


def test_what_is_no_uid_or_no_secret_is_refused(data_dir: Path) -> None:
    (data_dir / "short").write_text("short")
    assert omi("add", "u 1").exit_code == 2
    assert omi("add", "u" * 129).exit_code == 2
    assert omi("add", "u1", "--secret-file", str(data_dir / "short")).exit_code == 2
    assert UserFile(data_dir / "bridge").all() == {}
    assert f"{URL}/omi/audio?token=" in omi("add", "u1").stdout
