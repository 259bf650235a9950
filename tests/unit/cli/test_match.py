from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import foreign_folders as made
import numpy as np
import pytest
import torch

from saebench.cli import main

DECODER, ENCODER = made.directions(0, 24, 8)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    noisy = DECODER + 0.2 * made.directions(1, 24, 8)[0]
    return str(made.saelens(tmp_path / "a", DECODER, ENCODER)), str(made.sparsify(tmp_path / "b", noisy, ENCODER))


def call(*arguments: object) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(["match", *map(str, arguments)])
    return ended.value.code


def test_the_page_on_standard_output_progress_beside(
    folders: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*folders) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("A  SAELens folder (jumprelu): 24 latents of width 8, 24 alive\n")
    assert "sparsify folder (topk)" in shown.out
    assert "exact: proven gap" in shown.out
    assert "matching 24 with 24 latents of width 8" in shown.err


def test_json_is_one_object_and_the_file_is_the_same(
    folders: tuple[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(*folders, "--json", "--out", tmp_path / "x.json", "--picture", tmp_path / "x.svg") == 0
    text = capsys.readouterr().out
    shown = json.loads(text)
    assert text == (tmp_path / "x.json").read_text()
    assert shown["scores"]["strict-shared"]["value"] == shown["scores"]["sfr"]["value"] > 0.5
    assert shown["certificate"]["proven"] is True
    assert (tmp_path / "x.svg").is_file()
    assert call(*folders, "--json") == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("name", ["x.json", "x.svg", "x.png", "x.html"])
def test_a_file_is_replaced_only_where_match_made_it(
    name: str, folders: tuple[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / name
    option = "--out" if name == "x.json" else "--picture"
    for _ in range(2):
        assert call(*folders, "--no-null", option, path) == 0
    made_by_match = path.read_bytes()
    for theirs in (
        b"somebody's",
        b'{"schema_version": 1}',
        made_by_match.replace(b"saebench match", b"somebody else!"),
    ):
        path.write_bytes(theirs)
        assert call(*folders, "--no-null", option, path) == 2
        assert f"{path}: not a file that this command made" in capsys.readouterr().err
        assert path.read_bytes() == theirs
    assert call(*folders, option, "") == 2
    assert call(*folders, option, tmp_path) == 2
    assert call(*folders, "--out", path, "--picture", path) == 2


def test_options_reach_the_job(folders: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--which",
        "both",
        "--absolute",
        "--threshold",
        "0.25",
        "--no-null",
        "--time-limit",
        "60",
        "--solver",
        "scipy",
    ]
    assert call(*folders, *options, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["which"], shown["signed"], shown["threshold"]) == ("both", False, 0.25)
    assert shown["scores"]["sfr"]["null"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["A", "nowhere"], "nowhere: no such file or folder. Looked for:"),
        (["A"], "Missing argument 'B'"),
        (["A", "A", "--which", "middle"], "'middle' is not one of"),
        (["A", "A", "--threshold", "1"], "--threshold 1: a cosine"),
        (["A", "A", "--time-limit", "0"], "--time-limit"),
        (["A", "A", "--picture", "x.jpg"], "--picture x.jpg: a picture ends in"),
        (["A", "A", "--device", "abacus"], "--device abacus"),
        (["A", "W"], "directions of width 8"),
    ],
)
def test_bad_arguments(
    arguments: list[str], words: str, folders: tuple[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    np.save(tmp_path / "wide.npy", torch.ones(3, 9).numpy())
    places = {"A": folders[0], "W": str(tmp_path / "wide.npy")}
    assert call(*(places.get(argument, argument) for argument in arguments)) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err


def test_help_and_bad_arguments_load_no_torch() -> None:
    for arguments in (["match", "--help"], ["match", "x"]):
        code = (
            "import sys\nfrom saebench.cli import main\n"
            f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
            "assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
