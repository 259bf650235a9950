from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
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


REFUSALS = [
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.EMFILE,
    errno.ESTALE,
    errno.ENOENT,
    errno.EBUSY,
]


@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize("call", ["os.replace", "os.fsync", "pathlib.Path.mkdir", "pathlib.Path.write_bytes"])
def test_whatever_the_system_refuses_is_the_machines_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    path = tmp_path / "new" / "x.json"
    if call != "pathlib.Path.mkdir":
        write_json(path, "old")

    def refused(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(call, refused)
        with pytest.raises(MachineError, match=r"x\.json: ") as caught:
            write_json(path, "new")
    assert "\n" not in str(caught.value)
    assert left(path.parent) == ["x.json"] if call != "pathlib.Path.mkdir" else not path.parent.exists()
    assert path.read_text() == '"old"\n' if path.exists() else call == "pathlib.Path.mkdir"


def test_an_error_that_a_library_only_quotes_is_the_machines_matter(tmp_path: Path) -> None:
    """Safetensors raises no OSError."""
    with pytest.raises(MachineError, match=r"f: no space is left"), atomic_folder(tmp_path / "f"):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(MachineError, match=r"f: the machine refuses"), atomic_folder(tmp_path / "f") as temporary:
        raise RuntimeError(f'I/O error: No such file or directory (os error 2) at path "{temporary / "x"}"')
    with pytest.raises(RuntimeError, match="os error 2"), atomic_folder(tmp_path / "f"):
        raise RuntimeError('I/O error: No such file or directory (os error 2) at path "/elsewhere/x"')


def test_a_file_that_is_read_meanwhile_is_not_ours(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="corpus"), atomic_folder(tmp_path / "run" / "store"):
        (tmp_path / "corpus.txt").read_text()


def test_a_real_safetensors_write_past_the_limit_is_refused(tmp_path: Path) -> None:
    code = """
import resource, signal, sys, torch
from pathlib import Path
from saebench.api import MachineError
from saebench.artifacts import save_arrays, save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
large = {"w": torch.zeros(9999)}
for save in (lambda: save_checkpoint(Path("c"), large, {}), lambda: save_arrays(Path("a"), large)):
    try:
        save()
    except MachineError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [line.split(" (")[0] for line in done.stdout.splitlines()] == [
        "c: the file grew past the size limit of this process",
        "a: the file grew past the size limit of this process",
    ]
    assert left(tmp_path) == []


def test_what_is_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(MachineError, match=r"/link: a link that leads nowhere has the name of a folder\. Move it away"):
        write_text(tmp_path / "link" / "deep" / "x", "text")
    with pytest.raises(MachineError, match=r"/file: a file has the name of a folder\. Move it away"):
        write_text(tmp_path / "file" / "x", "text")


def test_an_empty_folder_in_a_files_place_makes_room_and_a_full_one_does_not(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    write_text(tmp_path / "x", "text")
    assert (tmp_path / "x").read_text() == "text"
    (tmp_path / "y" / "theirs").mkdir(parents=True)
    with pytest.raises(MachineError, match="a folder has the name of this file"):
        write_text(tmp_path / "y", "text")
    assert left(tmp_path) == ["x", "y"]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        socket.gaierror(-2, "Name or service not known"),
    ],
)
def test_an_error_of_a_network_is_not_blamed_on_the_file(error: OSError, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, atomic_folder(tmp_path / "store"):
        raise error
    assert caught.value is error
    assert left(tmp_path) == []
