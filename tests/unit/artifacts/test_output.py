from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from saebench.api import MachineError, SuiteError
from saebench.artifacts.output import check_output, write_output

MARK = re.compile(rb"<!-- ours -->")
DATA = b"<p>\n<!-- ours -->\n"


@pytest.mark.parametrize("before", [None, b"", b"<!-- ours --> older"])
def test_what_is_new_empty_or_ours_is_written(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "new" / "x.html"
    if before is not None:
        path.parent.mkdir()
        path.write_bytes(before)
    write_output(path, DATA, MARK)
    assert path.read_bytes() == DATA
    assert [found.name for found in path.parent.iterdir()] == ["x.html"]


@pytest.mark.parametrize("theirs", [b"my page", b"\x00\x01", b" "])
def test_what_somebody_else_made_is_refused_by_name(tmp_path: Path, theirs: bytes) -> None:
    path, link = tmp_path / "x.html", tmp_path / "link"
    path.write_bytes(theirs)
    link.symlink_to(path)
    for name in (path, link):
        with pytest.raises(SuiteError, match=rf"{name}: not a file that this command made"):
            write_output(name, DATA, MARK)
    assert path.read_bytes() == theirs
    assert link.is_symlink()


def test_a_link_stays_a_link_and_its_target_is_written(tmp_path: Path) -> None:
    for name, before in (("ours", DATA + b"older"), ("new", None)):
        target, link = tmp_path / "there" / name, tmp_path / f"link-{name}"
        target.parent.mkdir(exist_ok=True)
        if before is not None:
            target.write_bytes(before)
        link.symlink_to(Path("there") / name)
        write_output(link, DATA, MARK)
        assert link.is_symlink()
        assert target.read_bytes() == DATA


def test_a_folder_or_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, words in ((tmp_path, "a folder"), (tmp_path / "loop", "leads back to itself")):
        with pytest.raises(SuiteError, match=words):
            check_output(name, MARK)
    (tmp_path / "file").write_text("x")
    with pytest.raises(MachineError, match="/file: a file has the name of a folder"):
        write_output(tmp_path / "file" / "x", DATA, MARK)


def test_a_pipe_is_written_through_or_refused_where_nobody_reads(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(SuiteError, match="a named pipe without a reader"):
        write_output(pipe, DATA, MARK)
    found: list[bytes] = []
    opened = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(opened, True)
    with os.fdopen(opened, "rb") as file:
        reader = threading.Thread(target=lambda: found.append(file.read()))
        data = DATA * 100_000  # more than a pipe holds
        held = os.open(pipe, os.O_WRONLY)  # a reader that comes before any writer is at the end at once
        reader.start()
        write_output(pipe, data, MARK)
        os.close(held)
        reader.join()
    assert found == [data]
    assert pipe.is_fifo()


def test_a_device_is_written_through() -> None:
    write_output(Path("/dev/null"), DATA, MARK)
    assert Path("/dev/null").is_char_device()
    if Path("/dev/full").exists():
        with pytest.raises(MachineError, match="/dev/full: no space is left"):
            write_output(Path("/dev/full"), DATA, MARK)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("into_file", [True, False])
def test_standard_output_keeps_what_was_printed_before_and_after(tmp_path: Path, name: str, into_file: bool) -> None:
    code = (
        "import re, sys; from pathlib import Path; from saebench.artifacts.output import write_output\n"
        "print('before'); write_output(Path(sys.argv[1]), b'ours\\n', re.compile(b'ours')); print('after')\n"
    )
    with (tmp_path / "out").open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-c", code, name], stdout=file if into_file else subprocess.PIPE, check=True
        )
    assert ((tmp_path / "out").read_bytes() if into_file else done.stdout) == b"before\nours\nafter\n"
