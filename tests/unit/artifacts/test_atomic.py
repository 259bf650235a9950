from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from saebench.api import MachineError
from saebench.artifacts import atomic_folder, atomic_path, write_json, write_text


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_replaces_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_json(path, {"b": 1, "a": [1.5, None]})
    assert path.read_text() == '{\n  "a": [\n    1.5,\n    null\n  ],\n  "b": 1\n}\n'
    write_text(path, "new")
    assert path.read_text() == "new"
    assert left(path.parent) == ["b.json"]


def test_a_failure_inside_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert left(tmp_path) == ["x"]


def test_nan_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "no space is left"), (errno.EROFS, "read-only"), (errno.EDQUOT, "quota")]
)
def test_a_full_disk_is_one_clear_line(tmp_path: Path, code: int, words: str) -> None:
    path = tmp_path / "x"
    with pytest.raises(MachineError, match=words) as caught, atomic_path(path):
        raise OSError(code, os.strerror(code))
    assert str(path) in str(caught.value)
    assert caught.value.exit_status == 5
    assert left(tmp_path) == []


def test_a_real_full_device_is_refused() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this machine")
    with pytest.raises(MachineError, match="no space"), atomic_path(Path("/dev/shm/saebench-full-test")) as temporary:
        temporary.symlink_to("/dev/full")
        with temporary.open("w") as file:
            file.write("x" * 100_000)


def test_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    for text in ("one", "two"):
        with atomic_folder(folder) as temporary:
            (temporary / text).write_text(text)
    assert left(folder) == ["two"]
    with pytest.raises(RuntimeError), atomic_folder(folder) as temporary:
        (temporary / "three").write_text("x")
        raise RuntimeError
    assert left(folder) == ["two"]
    assert left(tmp_path) == ["f"]
