from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from saebench.artifacts import RunFolder, atomic_folder
from saebench.artifacts.atomic import finish_swap, surviving
from saebench.artifacts.leftovers import sweep

CELL = "0123456789abcdef"
REPLACING = """
import os, sys
from pathlib import Path
from saebench.artifacts import atomic_folder

renames, real = [], os.replace

def dying(source, target):
    renames.append(target)
    if len(renames) == int(sys.argv[2]):
        os._exit(9)
    real(source, target)

os.replace = dying
with atomic_folder(Path(sys.argv[1])) as temporary:
    (temporary / "new").write_text("new")
"""


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(("rename", "found"), [(1, "old"), (2, "old"), (3, "new")])
def test_a_kill_at_any_rename_of_a_replacement_loses_nothing(tmp_path: Path, rename: int, found: str) -> None:
    folder = tmp_path / "checkpoints" / CELL
    folder.mkdir(parents=True)
    (folder / "old").write_text("old")
    ended = subprocess.run([sys.executable, "-c", REPLACING, str(folder), str(rename)], check=False)
    assert ended.returncode == 9
    assert names(surviving(folder)) == [found]
    sweep(RunFolder(tmp_path))
    assert names(tmp_path) == ["checkpoints", f"checkpoints/{CELL}", f"checkpoints/{CELL}/{found}"]


def test_the_second_rename_refused_puts_the_older_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "old").write_text("old")
    real = os.replace

    def interrupted(source: Path, target: Path) -> None:
        if Path(target) == folder and Path(source).suffix == ".tmp":
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(folder) as temporary:
        (temporary / "new").write_text("new")
    assert names(tmp_path) == ["f", "f/old"]


def test_of_several_older_folders_the_newest_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    for number, code in enumerate(("aaaaaaaa", "cccccccc", "bbbbbbbb")):
        old = tmp_path / f".f.{code}.old"
        old.mkdir()
        (old / code).write_text("x")
        os.utime(old, (number, number))
    finish_swap(folder)
    assert names(tmp_path) == ["f", "f/bbbbbbbb"]


def test_only_our_exact_names_in_our_own_rooms_are_swept(tmp_path: Path) -> None:
    ours = [
        ".plan.json.12345678.tmp",
        "records/s/topk/.k8-s0-0123abcd.json.12345678.tmp",
        "groups/s/topk/.k8-0123abcd.json.12345678.tmp",
        f"arrays/.{CELL}.safetensors.12345678.tmp",
        f"arrays/.group-{CELL}.safetensors.12345678.tmp",
        "leaderboard/.index.html.12345678.tmp",
        f"checkpoints/.{CELL}.12345678.tmp/sae.json",
        f"snapshots/.{CELL}.12345678.tmp/state.json",
        f"activations/.{CELL}.12345678.tmp/x-00000.bin",
        f"cache/{CELL}/.dense-train.npz.12345678.tmp",
        f"cache/{CELL}/train-128/.000000.bin.12345678.tmp",
    ]
    theirs = [
        ".env.old",
        ".notes.md.12345678.tmp",
        ".plan.json.12345678.old",
        ".cache.12345678.tmp/x",
        "sub/.plan.json.12345678.tmp",
        "src/.thing.12345678.old/x",
        "records/.k8-s0-0123abcd.json.12345678.tmp",
        "records/s/topk/.notes.json.12345678.tmp",
        "records/s/topk/deeper/.k8-s0-0123abcd.json.12345678.tmp",
        "leaderboard/.thesis.md.12345678.tmp",
        "checkpoints/.model.12345678.tmp/x",
        f"checkpoints/.{CELL}.12345678.bak/x",
        f"checkpoints/.{CELL}.1234567.tmp/x",
        f"checkpoints/mine/.{CELL}.12345678.tmp/x",
        "activations/.backup.old",
        "cache/.theirs.12345678.tmp",
        "cache/pip/.theirs.12345678.tmp",
        f"cache/{CELL}/.notes.old",
    ]
    for name in [*ours, *theirs]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    sweep(RunFolder(tmp_path))
    assert [name for name in names(tmp_path) if (tmp_path / name).is_file()] == sorted(theirs)


def test_no_link_is_followed_or_removed(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    for name in (f".{CELL}.12345678.tmp", f".{CELL}.12345678.old", f".{CELL}.safetensors.12345678.tmp"):
        (elsewhere / name).mkdir(parents=True)
        (elsewhere / name / "x").write_text("x")
    (root / "snapshots").mkdir(parents=True)
    (root / "checkpoints").symlink_to(elsewhere)
    (root / "snapshots" / f".{CELL}.12345678.tmp").symlink_to(elsewhere)
    (root / "snapshots" / f".{CELL}.87654321.old").symlink_to(elsewhere)
    before = names(tmp_path)
    sweep(RunFolder(root))
    assert names(tmp_path) == before
