"""Files that people write are read with a byte-order mark and without."""

import codecs
import os
import threading
from pathlib import Path

import pytest

from broker.errors import SettingsError
from broker.settings import BrokerSettings, load_settings
from broker.text_files import read_text

MARKS = [
    (b"", "utf-8"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
]


@pytest.mark.parametrize(("mark", "encoding"), MARKS)
def test_the_mark_says_how_to_read_and_is_no_part_of_the_text(tmp_path: Path, mark: bytes, encoding: str) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(mark + "Grüße".encode(encoding))
    assert read_text(file) == "Grüße"
    file.write_bytes(mark + 'topic_root = "own/v1"\n'.encode(encoding))
    assert load_settings(BrokerSettings, flags={}, config_file=file).settings.topic_root == "own/v1"


def test_what_is_no_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xff\x00\x80")
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "f")


def test_a_pipe_is_read_as_its_writer_writes_and_one_that_nobody_opens_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "config.toml"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text('topic_root = "own/v1"\n'))
    writer.start()
    assert load_settings(BrokerSettings, flags={}, config_file=pipe).settings.topic_root == "own/v1"
    writer.join()
    monkeypatch.setattr("broker.text_files.PIPE_WAIT_S", 0.05)
    with pytest.raises(SettingsError, match="a pipe, and for"):
        load_settings(BrokerSettings, flags={}, config_file=pipe)


def test_a_file_without_an_end_is_an_error(tmp_path: Path) -> None:
    endless = tmp_path / "config.toml"
    endless.symlink_to("/dev/zero")
    with pytest.raises(SettingsError, match="it is another file"):
        load_settings(BrokerSettings, flags={}, config_file=endless)
