from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from saebench.api import MachineError
from saebench.artifacts import RunFolder, cache_folder
from saebench.artifacts.atomic import check_way


def test_records_are_found_in_path_order_and_links_are_not_followed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert list(run.record_paths()) == []
    for name in ("s/b/x.json", "s/a/y.json", "s/a/notes.txt"):
        path = run.root / "records" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (run.root / "records" / "s" / "c").symlink_to(run.root / "records" / "s" / "a")
    (run.root / "records" / "s" / "folder.json").mkdir()
    found = [path.relative_to(run.root / "records").as_posix() for path in run.record_paths()]
    assert found == ["s/a/y.json", "s/b/x.json", "s/folder.json"]


def test_a_folder_of_records_that_cannot_be_read_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "records" / "s" / "locked").mkdir(parents=True)
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(MachineError, match=r"locked: the machine refuses to read it \(Permission denied\)"):
        RunFolder(tmp_path).record_paths()


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_way(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(MachineError, match="the machine refuses to read it"):
        check_way(tmp_path)


def test_a_user_without_a_home_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert not os.path.lexists(cache_folder())
