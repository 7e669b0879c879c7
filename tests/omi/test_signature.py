"""Who may send: signatures, tokens, and the two forms of query."""

import hashlib
import hmac
from pathlib import Path

import pytest

from vps_bridge.omi.request import (
    WebhookProblem,
    WebhookRequest,
    check_signature,
    find_user,
    parse_query,
    read_request,
)
from vps_bridge.omi.signature import is_signed, sign_webhook
from vps_bridge.omi.users import UserFile, UsersFileBroken

NOW = 1_780_000_000
SECRET = "a secret of this test alone"


def test_a_signature_is_what_the_facts_say() -> None:
    expected = hmac.new(SECRET.encode(), f"{NOW}.u1.".encode() + b"body", hashlib.sha256).hexdigest()
    assert sign_webhook(SECRET, NOW, "u1", b"body") == f"t={NOW},v1={expected}"
    assert is_signed(f"t={NOW},v1={expected}", SECRET, NOW + 299, "u1", b"body")
    assert is_signed(f"t={NOW}, v1={'0' * 64}, v1={expected}", SECRET, NOW, "u1", b"body")


@pytest.mark.parametrize(
    ("change", "now", "uid", "body"),
    [
        ("", NOW + 301, "u1", b"body"),
        ("", NOW - 301, "u1", b"body"),
        ("", NOW, "u2", b"body"),
        ("", NOW, "u1", b"other"),
        (",t=1", NOW, "u1", b"body"),
    ],
)
def test_a_signature_is_of_one_body_one_user_and_five_minutes(change: str, now: int, uid: str, body: bytes) -> None:
    assert not is_signed(sign_webhook(SECRET, NOW, "u1", b"body") + change, SECRET, now, uid, body)


@pytest.mark.parametrize("header", ["", "t=,v1=", "v1=00", "t=-1,v1=00", f"t={NOW}", "t=١,v1=0", "x" * 5_000])
def test_what_is_no_signature_is_refused(header: str) -> None:
    assert not is_signed(header, SECRET, NOW, "u1", b"body")


def test_older_backends_put_a_second_question_mark_behind_the_users_own_query() -> None:
    assert parse_query("token=abc?sample_rate=16000&uid=u1") == {"token": "abc", "sample_rate": "16000", "uid": "u1"}
    assert parse_query("token=mine&token=other&uid=a%20b")["token"] == "mine"


def test_a_packed_body_is_not_taken_for_samples() -> None:
    scope = {"query_string": b"uid=u1", "headers": [(b"content-encoding", b"gzip")]}
    with pytest.raises(WebhookProblem, match="Content-Encoding"):
        read_request(scope)
    assert read_request(scope | {"headers": [(b"content-encoding", b"identity")]}).uid == "u1"


def test_a_user_comes_in_by_token_or_signature_and_an_old_token_does_not(tmp_path: Path) -> None:
    users = UserFile(tmp_path)
    old = users.put("u1", SECRET)
    new = UserFile(tmp_path).put("u1", SECRET)
    by_token = WebhookRequest({"uid": "u1", "token": new.token}, {})
    check_signature(by_token, find_user(by_token, users), b"", NOW)
    header = sign_webhook(SECRET, NOW, "u1", b"body").encode()
    signed = WebhookRequest({"session_id": "u1"}, {b"x-omi-signature": header})
    check_signature(signed, find_user(signed, users), b"body", NOW)
    with pytest.raises(WebhookProblem):
        check_signature(signed, find_user(signed, users), b"other", NOW)
    for query in ({"uid": "u1", "token": old.token}, {"uid": "u2", "token": new.token}, {"uid": "u1"}, {}):
        with pytest.raises(WebhookProblem):
            find_user(WebhookRequest(query, {}), users)


def test_the_file_of_users_is_private_and_holds_no_token(tmp_path: Path) -> None:
    users = UserFile(tmp_path)
    access = users.put("u1")
    file = tmp_path / "omi" / "users.json"
    assert file.stat().st_mode & 0o077 == 0
    assert access.token not in file.read_text()
    assert access.token not in repr(access)
    assert access.user.secret not in repr(access)
    assert users.remove("u1")
    assert not users.remove("u1")
    assert users.find("u1") is None
    file.write_text("[{}]")
    with pytest.raises(UsersFileBroken, match="omi-bridge omi add"):
        users.all()
