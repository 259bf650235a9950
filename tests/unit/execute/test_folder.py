from __future__ import annotations

from pathlib import Path

import pytest

from saebench.api import MachineError, SuiteError
from saebench.execute.folder import is_running, locked, move_aside


def test_one_run_at_a_time(tmp_path: Path) -> None:
    root = tmp_path / "run"
    assert not is_running(root)
    with locked(root):
        assert is_running(root)
        with pytest.raises(SuiteError, match="another saebench run works in this folder"), locked(root):
            pass
    assert not is_running(root)
    with locked(root):
        pass


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    root = tmp_path / "run"
    (root / "checkpoints" / ".0123456789abcdef.12345678.tmp").mkdir(parents=True)
    (root / "checkpoints" / ".0123456789abcdef.12345678.tmp" / "x").write_text("half")
    (root / ".plan.json.12345678.tmp").write_text("half")
    (root / "keep.json").write_text("{}")
    with locked(root):
        assert sorted(path.name for path in root.rglob("*")) == [".lock", "checkpoints", "keep.json"]


def test_moving_aside_deletes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "run"
    assert move_aside(root) is None
    for number in (1, 2):
        root.mkdir()
        (root / "x").write_text(str(number))
        moved = move_aside(root)
        assert moved == tmp_path / f"run.old-{number}"
        assert (moved / "x").read_text() == str(number)


def test_a_file_in_the_way_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises((MachineError, FileExistsError)), locked(tmp_path / "run" / "deeper"):
        pass
