from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from saebench.api import MachineError, SuiteError
from saebench.execute import lock
from saebench.execute.lock import LOCK, held, is_running, require, shared


def test_one_run_at_a_time(tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    with held(tmp_path):
        assert is_running(tmp_path)
        with pytest.raises(SuiteError, match="another saebench run works in this folder"), held(tmp_path):
            pass
    assert not is_running(tmp_path)
    with held(tmp_path):
        pass


def test_a_run_that_begins_beside_a_reader_waits_for_it(tmp_path: Path) -> None:
    with held(tmp_path):
        pass
    begun = threading.Event()

    def run() -> None:
        with held(tmp_path):
            begun.set()

    with shared(tmp_path) as free:
        assert free
        assert not is_running(tmp_path)
        thread = threading.Thread(target=run)
        thread.start()
        assert not begun.wait(0.2)
    thread.join()
    assert begun.is_set()


def test_a_reader_that_stays_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "READER_S", 0.1)
    (tmp_path / LOCK).touch()
    with shared(tmp_path), pytest.raises(SuiteError, match="has read this folder"), held(tmp_path):
        pass


def test_who_reads_beside_a_run_is_told(tmp_path: Path) -> None:
    with shared(tmp_path / "nothing") as free:
        assert not free
    with held(tmp_path), shared(tmp_path) as free:
        assert not free


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS, errno.EIO])
def test_a_file_system_without_locks_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refused(handle: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / LOCK).touch()
    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(MachineError, match="takes no locks") as caught, held(tmp_path):
        pass
    assert os.strerror(code) in str(caught.value)
    assert not is_running(tmp_path)
    with shared(tmp_path) as free:
        assert not free


def test_a_lock_whose_folder_was_moved_away_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run opens the lock file, then another moves the folder aside and lets go."""
    root, moved = tmp_path / "run", tmp_path / "moved"
    root.mkdir()
    real = fcntl.flock

    def late(handle: int, how: int) -> None:
        if not moved.exists():
            root.rename(moved)
            root.mkdir()
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with held(root) as handle:
        assert os.path.samestat(os.fstat(handle), (root / LOCK).stat())


def test_a_folder_that_goes_while_a_run_works_in_it_is_the_machines_matter(tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    with held(root):
        require(root)
        root.rename(tmp_path / "moved")
        with pytest.raises(MachineError, match="was moved or removed"):
            require(root)
