from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from bare_records import bare_cell

from saebench.api import MachineError, SuiteError
from saebench.artifacts import save_checkpoint, write_json, write_plan, write_record
from saebench.execute.folder import Owner, check_folder, locked, tenancy
from saebench.execute.lock import LOCK, held
from saebench.execute.status import read_status

PLAN = {"schema_version": 1, "suite": "s", "suite_digest": "0", "cells": [], "cohorts": [], "groups": []}
RECORD = bare_cell()


def tree(folder: Path) -> dict[str, str | None]:
    """All names below a folder, with the text of the files."""
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.name != LOCK
    }


def fill(folder: Path, *names: str) -> dict[str, str | None]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"somebody's {name}")
    return tree(folder)


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    root = tmp_path / "run"
    with locked(root):
        fill(root, ".plan.json.12345678.tmp", "checkpoints/.0123456789abcdef.12345678.tmp/x", "notes.txt", ".env.old")
    with locked(root):
        assert list(tree(root)) == [".env.old", "checkpoints", "notes.txt"]


@pytest.mark.parametrize(
    "names",
    [
        ["README.md", "src/main.py", ".env.old"],
        [".env.old"],
        ["plan.json"],
        ["records/a.json", "records/s/e/k8-s0-01234567.json"],
        ["checkpoints/model.pt"],
        ["index.html", "README.md", "data.json"],
        [".lock"],
        ["cache/x"],
    ],
)
def test_a_folder_of_somebody_elses_is_refused_and_left_alone(tmp_path: Path, names: list[str]) -> None:
    before = fill(tmp_path, *names)
    for fresh in (False, True):
        with pytest.raises(SuiteError, match=str(tmp_path)), locked(tmp_path, fresh=fresh):
            pass
    assert tree(tmp_path) == before
    assert (tmp_path / LOCK).exists() == (LOCK in names)
    assert list(tmp_path.parent.glob(f"{tmp_path.name}.old-*")) == []


def test_force_works_beside_the_files_and_touches_none(tmp_path: Path) -> None:
    theirs = fill(
        tmp_path, "README.md", ".env.old", ".x.12345678.tmp", "checkpoints/m.pt", "src/.plan.json.12345678.tmp"
    )
    with locked(tmp_path, force=True) as (run, _):
        write_json(run.plan, PLAN)
    with locked(tmp_path) as (run, _):  # it holds our plan now
        assert tenancy(tmp_path).owner is Owner.BESIDE
    run.plan.unlink()
    assert tree(tmp_path) == theirs
    with (
        pytest.raises(SuiteError, match="--fresh moves a whole folder aside"),
        locked(tmp_path, fresh=True, force=True),
    ):
        pass


@pytest.mark.parametrize("name", ["plan.json", LOCK])
def test_force_does_not_replace_a_file_that_a_run_would_write(tmp_path: Path, name: str) -> None:
    fill(tmp_path, name)
    with pytest.raises(SuiteError, match="not saebench's"), locked(tmp_path, force=True):
        pass
    assert (tmp_path / name).read_text() == f"somebody's {name}"


def test_a_folder_that_nobody_uses_is_taken(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    assert tenancy(tmp_path).owner is Owner.EMPTY
    assert tenancy(tmp_path / "new" / "deeper").owner is Owner.EMPTY
    with locked(tmp_path / "new" / "deeper") as (run, moved):
        assert moved is None
        assert tenancy(run.root).owner is Owner.OURS


@pytest.mark.parametrize("mark", ["", "saebench run f"])
def test_a_run_killed_before_its_plan_was_written_goes_on(tmp_path: Path, mark: str) -> None:
    (tmp_path / LOCK).write_text(mark)
    (tmp_path / ".plan.json.12345678.tmp").write_text("{")
    with locked(tmp_path):
        assert tree(tmp_path) == {}


def test_damage_does_not_make_a_run_folder_somebody_elses(tmp_path: Path) -> None:
    with locked(tmp_path):
        pass
    (tmp_path / "plan.json").write_text("{")
    assert check_folder(tmp_path).owner is Owner.OURS


def test_a_copy_without_hidden_files_is_known_by_its_plan_records_or_checkpoints(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "plan.json", PLAN)
    write_record(tmp_path / "b" / "records" / "s" / "e" / "k8-s0-01234567.json", RECORD)
    save_checkpoint(tmp_path / "c" / "checkpoints" / "0123456789abcdef", {}, {"cell_id": "0123456789abcdef"})
    (tmp_path / "d" / "records" / "s").mkdir(parents=True)
    for folder in ("a", "b", "c", "d"):
        assert check_folder(tmp_path / folder).owner is Owner.OURS


def test_fresh_moves_the_older_run_aside_and_deletes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "run"
    for number in range(3):
        with locked(root, fresh=True) as (run, moved):
            (run.root / "notes.txt").write_text(str(number))
            assert moved == (root.with_name(f"run.old-{number}") if number else None)
    assert [(tmp_path / f"run.old-{number}" / "notes.txt").read_text() for number in (1, 2)] == ["0", "1"]


def test_fresh_does_not_move_a_folder_in_which_a_run_works(tmp_path: Path) -> None:
    root = tmp_path / "run"
    with locked(root):
        (root / "x").write_text("x")
        with pytest.raises(SuiteError, match="another saebench run works in this folder"), locked(root, fresh=True):
            pass
    assert tree(tmp_path) == {"run": None, "run/x": "x"}


def test_fresh_follows_a_link_to_the_folder(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    root = tmp_path / "run"
    root.symlink_to(tmp_path / "disk")
    with locked(root):
        (root / "x").write_text("x")
    with locked(root, fresh=True) as (run, moved):
        assert moved == tmp_path / "disk.old-1"
        assert tree(run.root) == {}
    assert root.is_symlink()
    assert (moved / "x").read_text() == "x"


def test_fresh_does_not_move_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked(tmp_path):
        pass
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SuiteError, match="Change to a folder outside"), locked(Path(), fresh=True):
        pass


def test_a_file_or_a_link_in_the_way_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, words in (
        ("file", "a file has this name"),
        ("file/deeper", "a file has this name"),
        ("link", "leads nowhere"),
    ):
        with pytest.raises(SuiteError, match=words), locked(tmp_path / name):
            pass
    with pytest.raises(MachineError, match="too long"), locked(tmp_path / ("n" * 300)):
        pass
    assert not (tmp_path / "nowhere").exists()


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "run" / "plan.json", PLAN)
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SuiteError, match="a link has the name"), held(tmp_path / "run"):
        pass
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read_is_the_machines_matter(tmp_path: Path) -> None:
    tmp_path.chmod(0)
    with pytest.raises(MachineError, match="permission denied"):
        tenancy(tmp_path)
    tmp_path.chmod(0o700)


def test_fresh_says_what_to_do_where_the_folder_is_a_mount_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(tmp_path / "run"):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "ismount", lambda path: path == (tmp_path / "run").resolve())
        with pytest.raises(SuiteError, match=r"is a mount point, which cannot be moved\. Choose another folder"):
            check_folder(tmp_path / "run", fresh=True)

    def busy(self: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", str(self))

    monkeypatch.setattr(Path, "rename", busy)
    with (
        pytest.raises(MachineError, match=r"it is a mount point, or in use\. Choose another folder"),
        locked(tmp_path / "run", fresh=True),
    ):
        pass


def in_place(path: Path, kind: str) -> None:
    """Puts something that is no folder there."""
    if kind == "file":
        path.write_text("x")
    elif kind == "named pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere")


@pytest.mark.parametrize("kind", ["file", "named pipe", "link that leads nowhere"])
@pytest.mark.parametrize("room", ["records", "groups", "checkpoints", "arrays", "activations", "cache", "leaderboard"])
def test_what_is_in_the_place_of_a_folder_of_a_run_is_said_before_anything_is_spent(
    tmp_path: Path, room: str, kind: str
) -> None:
    root = tmp_path / "run"
    with locked(root) as (run, _):
        write_plan(run, PLAN)
    in_place(root / room, kind)
    line = rf"^{root / room}: a {kind} has the name of a folder\. Move it away, then run the same command again\.$"
    with pytest.raises(MachineError, match=line):
        check_folder(root)
    with pytest.raises(MachineError, match=line):
        read_status(root)
    check_folder(root, fresh=True)  # moving all of it aside needs no folder whole
    (root / room).unlink()
    check_folder(root)


@pytest.mark.parametrize("room", ["records", "cache"])
def test_somebodys_file_of_a_name_that_a_run_needs_is_refused(tmp_path: Path, room: str) -> None:
    fill(tmp_path, room, "thesis.tex")
    with pytest.raises(SuiteError, match=rf"{room}: not saebench's, but a run needs this name"):
        check_folder(tmp_path, force=True)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")  # tensors could not be written below it
    with pytest.raises(SuiteError, match="the name is not UTF-8"):
        check_folder(folder)
