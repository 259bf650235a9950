from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from saebench.api.errors import Damaged, MachineError
from saebench.artifacts import check_seal, digest_of, prove, read_json, read_sealed, sealed, write_json

CONTENT = {"b": [1, 2.5, None, "é"], "a": {"x": -0.0, "y": 10**20, "z": 1e-300}}


def test_a_sealed_file_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "x", sealed(CONTENT, "seal"))
    found = read_sealed(tmp_path / "x", "seal")
    assert {**found, "seal": None} == {**CONTENT, "seal": None}


def test_sealing_again_replaces_the_seal() -> None:
    once = sealed(CONTENT, "seal")
    assert sealed(once, "seal") == once


def test_keys_that_are_no_strings_keep_their_seal(tmp_path: Path) -> None:
    write_json(tmp_path / "x", sealed({"n": {2: "a", 10: "b"}}, "seal"))
    assert read_sealed(tmp_path / "x", "seal")["n"] == {"2": "a", "10": "b"}


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_json(path, sealed(CONTENT, "seal"))
    data = path.read_bytes()
    for place in range(8 * len(data)):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            found = read_sealed(path, "seal")
        except Damaged:
            continue
        assert {**found, "seal": None} == {**CONTENT, "seal": None}  # blanks, or another way to write the same number


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"a": NaN, "seal": "x"}', "[" * 100_000, "\x00"])
def test_what_is_not_sealed_is_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(Damaged, match="damaged") as caught:
        read_sealed(tmp_path / "x", "seal")
    assert "\n" not in str(caught.value)
    assert caught.value.found.startswith(f"{tmp_path / 'x'}: damaged (")


def _folder(path: Path) -> None:
    path.mkdir()


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "missing"),
        (_folder, "a folder has the name of a file"),
        (os.mkfifo, "a named pipe has the name of a file"),
        (_socket, "a socket has the name of a file"),
        (lambda path: path.symlink_to("/dev/null"), "a device has the name of a file"),
        (lambda path: path.symlink_to("nowhere"), "a link that leads nowhere has the name of a file"),
        (lambda path: path.symlink_to(path.name), "a link that cannot be followed has the name of a file"),
    ],
)
def test_what_is_no_file_is_named_and_waits_for_nobody(tmp_path: Path, make: object, words: str) -> None:
    path = tmp_path / "x"
    make(path)  # type: ignore[operator]
    for read in (digest_of, read_json):
        with pytest.raises(Damaged, match=words):
            read(path)


def test_a_link_to_a_file_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"abc")
    (tmp_path / "x").symlink_to("real")
    prove(tmp_path / "x", digest_of(tmp_path / "real"))
    (tmp_path / "real").write_bytes(b"abd")
    with pytest.raises(Damaged, match=r"x: damaged \(its sha256"):
        prove(tmp_path / "x", "0" * 64)


def test_a_refused_read_is_the_machines_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(MachineError, match=r"x: the machine refuses to read it \(Permission denied\)"):
        digest_of(tmp_path / "x")


def test_a_seal_of_other_content_is_refused() -> None:
    value = json.loads(json.dumps(sealed(CONTENT, "seal")))
    check_seal(Path("x"), value, "seal")
    with pytest.raises(Damaged, match="does not have the seal that it holds"):
        check_seal(Path("x"), value | {"b": []}, "seal")


def test_what_is_in_the_place_of_a_file_or_of_its_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("x")
    for name, words in (
        ("link", "link: damaged (a link that leads nowhere has the name of a file)"),
        ("loop", "loop: damaged (a link that cannot be followed has the name of a file)"),
        ("gone", "gone: missing"),
        ("file/x", f"file/x: missing ({tmp_path / 'file'}: a file has the name of a folder)"),
        (
            "link/deep/x",
            f"link/deep/x: missing ({tmp_path / 'link'}: a link that leads nowhere has the name of a folder)",
        ),
    ):
        with pytest.raises(Damaged) as caught:
            read_json(tmp_path / name)
        assert caught.value.found == f"{tmp_path}/{words}"
