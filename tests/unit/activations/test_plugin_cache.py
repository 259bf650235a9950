from __future__ import annotations

import os
import time

import pytest

from saebench.activations.sources.plugin_cache import PluginCache
from saebench.api import MachineError, PluginError


def make():
    return b"content"


def never():
    raise AssertionError("it was kept")


def test_made_once_and_read_by_later_runs(tmp_path):
    assert PluginCache(tmp_path, "me", print)("a/b.bin", make) == b"content"
    assert PluginCache(tmp_path, "me", print)("a/b.bin", never) == b"content"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.bin"]


def test_how_long_it_took_is_told_when_it_is_found(tmp_path):
    def slowly():
        time.sleep(0.02)
        return b"content"

    first, later = PluginCache(tmp_path, "me", print), PluginCache(tmp_path, "me", print)
    first("a", slowly)
    assert first.kept_s == 0.0  # whoever makes it waits for it
    later("a", never)
    assert 0.02 <= later.kept_s < 1.0


@pytest.mark.parametrize("content", [b"", b"\n" * 70, bytes(range(256))])
def test_every_content_comes_back(tmp_path, content):
    assert PluginCache(tmp_path, "me", print)("a", lambda: content) == content
    assert PluginCache(tmp_path, "me", print)("a", never) == content


def flip(path):
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("harm", [flip, cut, pipe, lambda path: path.write_bytes(b"")])
def test_damage_is_named_and_made_again(tmp_path, harm):
    said = []
    keep = PluginCache(tmp_path, "me", said.append)
    keep("a", make)
    harm(tmp_path / "a")
    assert keep("a", make) == b"content"
    (line,) = said
    assert line.startswith(f"{tmp_path / 'a'}: damaged (") and line.endswith("It is made again")
    assert keep("a", never) == b"content"


def test_a_file_of_another_name_or_owner_is_not_believed(tmp_path):
    said = []
    PluginCache(tmp_path, "me", print)("a", make)
    (tmp_path / "a").rename(tmp_path / "b")
    assert PluginCache(tmp_path, "me", said.append)("b", lambda: b"b") == b"b"
    assert PluginCache(tmp_path, "you", said.append)("b", lambda: b"c") == b"c"
    assert len(said) == 2


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x"])
def test_names_outside_the_folder_are_refused(tmp_path, name):
    with pytest.raises(PluginError, match="a file below the dataset's own folder"):
        PluginCache(tmp_path, "me", print)(name, make)


def test_a_folder_that_cannot_be_written_is_the_machines_matter(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError):
        PluginCache(tmp_path / "file", "me", print)("a", make)
