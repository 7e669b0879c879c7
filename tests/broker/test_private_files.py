"""Files are written whole or not at all, never through a link, and for their owner alone."""

import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from broker.private_files import replace_file, rewrite_file, say_private
from broker.users import Credentials, generate_users, users_file, write_users

VICTIM = b"what a neighbour wants to have overwritten"


@pytest.fixture(autouse=True)
def open_umask():
    """The worst umask there is."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_bytes(VICTIM)
    return path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def plant_links(path: Path, victim: Path) -> None:
    """Links where a temporary file of this process could be guessed to be, and at the file itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in (f".{path.name}.{os.getpid()}", f".{path.name}", f"{path.name}.tmp", f"{path.name}.part"):
        (path.parent / name).symlink_to(victim)


@pytest.mark.parametrize("write", [replace_file, rewrite_file])
def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path, victim, write):
    path = tmp_path / "file"
    path.symlink_to(victim)
    write(path, "new")
    assert not path.is_symlink()
    assert path.read_text() == "new"
    assert victim.read_bytes() == VICTIM


def test_a_planted_link_at_a_guessable_name_catches_nothing(tmp_path, victim):
    plant_links(tmp_path / "file", victim)
    replace_file(tmp_path / "file", "secret")
    assert (tmp_path / "file").read_text() == "secret"
    assert victim.read_bytes() == VICTIM


def test_users_and_passwords_never_go_through_a_planted_link(tmp_path, victim):
    plant_links(users_file(tmp_path), victim)
    users = generate_users(tmp_path)
    assert victim.read_bytes() == VICTIM
    assert mode_of(users_file(tmp_path)) == 0o600
    assert mode_of(users_file(tmp_path).parent) == 0o700
    write_users(users_file(tmp_path), {**users, "more": Credentials("more", "x")})
    assert victim.read_bytes() == VICTIM
    assert mode_of(users_file(tmp_path)) == 0o600


def test_the_temporary_file_is_private_and_its_name_cannot_be_foreseen(tmp_path):
    """Watched from beside, by a thread that looks as fast as it can."""
    seen: dict[str, int] = {}
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            for entry in os.scandir(tmp_path):
                try:
                    seen[entry.name] = stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode)
                except FileNotFoundError:
                    continue

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(50):
        replace_file(tmp_path / "file", bytes(100_000), mode=0o644)
    done.set()
    watcher.join()
    temporary = {name: mode for name, mode in seen.items() if name != "file"}
    assert temporary
    assert set(temporary.values()) <= {0o600, 0o644}, "0644 only after it is written"
    assert all(str(os.getpid()) != name.rpartition(".")[2] for name in temporary)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "file"
    replace_file(path, "old")
    with pytest.raises(UnicodeEncodeError):
        replace_file(path, "\udcff")
    with pytest.raises(UnicodeEncodeError):
        rewrite_file(path, "\udcff")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("file", "old")]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604])
def test_a_file_that_is_rewritten_keeps_its_mode_and_owner(tmp_path, mode):
    path = tmp_path / "file"
    replace_file(path, "old")
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
    path.chmod(mode)
    before = path.stat()
    rewrite_file(path, "new")
    after = path.stat()
    assert path.read_text() == "new"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino


def test_only_a_file_that_exists_is_rewritten(tmp_path):
    with pytest.raises(FileNotFoundError):
        rewrite_file(tmp_path / "file", "new")
    assert list(tmp_path.iterdir()) == []


def test_the_command_that_makes_a_file_private_is_one_that_a_shell_takes(tmp_path: Path) -> None:
    secret = tmp_path / "it's a secret.token"
    secret.touch(0o666)
    subprocess.run(["sh", "-c", say_private(secret)], check=True)
    assert mode_of(secret) == 0o600
    assert "chmod" not in say_private(Path(os.devnull))
