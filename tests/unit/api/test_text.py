from __future__ import annotations

from pathlib import Path

import pytest

from saebench.api.errors import describe, first_line, recorded, said
from saebench.base.text import one_line, published, shown, without_folders


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a\x1b[31mred\x1b[0m", r"a\x1b[31mred\x1b[0m"),
        ("\x9b2J\x07\x08\x7f", r"\x9b2J\x07\x08\x7f"),
        ("line one\rline two", r"line one\rline two"),
        ("abc\u202edcb\u2066", r"abc\u202edcb\u2066"),
        ("ze\u200bro\ufeff", r"ze\u200bro\ufeff"),
        ("half \ud800", r"half \ud800"),
        ("a\u2028b\u0085c", r"a\u2028b\x85c"),
        ("\U000e0041", r"\U000e0041"),
        ("é ± 日本 →\n\tkept", "é ± 日本 →\n\tkept"),
    ],
)
def test_what_moves_hides_or_turns_text_is_written_out(text: str, printed: str) -> None:
    assert shown(text) == printed


def test_one_line_is_one_short_line() -> None:
    assert one_line("a\n  b\x1b") == r"a b\x1b"
    assert len(one_line("x" * 10_000_000)) == 1000


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("/home/jane/x/y.txt: bad", "y.txt: bad"),
        ("no such file:/a/b/c", "no such file:c"),
        ("['/a/b', '/c/d e/f g']", "['b', 'f g']"),
        (r"at 'C:\Users\jane doe\a b.txt'", "at 'a b.txt'"),
        ("file:///home/x/y and ~/z/y.bin", "y and y.bin"),
        ("runs/a/b.json: bad", "runs/a/b.json: bad"),
        ("https://a.b/c/d.txt, tokens/s and a / b", "https://a.b/c/d.txt, tokens/s and a / b"),
        (r"\x1b[0m", r"\x1b[0m"),
    ],
)
def test_a_published_path_has_no_folders(text: str, published: str) -> None:
    assert without_folders(text) == published


def test_a_home_with_blanks_in_its_name_is_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/jane doe"))
    assert without_folders("/home/jane doe/data/x.txt is bad") == "x.txt is bad"


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("never")


@pytest.mark.parametrize(
    ("error", "full", "first", "described"),
    [
        (ValueError("one\ntwo"), "one\ntwo", "one", "ValueError: one"),
        (ValueError(), "ValueError", "ValueError", "ValueError"),
        (ValueError(" \n "), "ValueError", "ValueError", "ValueError"),
        (ValueError("\x1b]0;x\x07"), r"\x1b]0;x\x07", r"\x1b]0;x\x07", r"ValueError: \x1b]0;x\x07"),
        (Unprintable(),) + ("Unprintable (its text cannot be shown: RuntimeError)",) * 3,
    ],
)
def test_every_exception_becomes_text(error: Exception, full: str, first: str, described: str) -> None:
    assert (said(error), first_line(error), describe(error)) == (full, first, described)


def test_a_record_keeps_no_folder_of_an_error() -> None:
    error = FileNotFoundError(2, "No such file or directory", "/home/jane/secret.txt")
    assert recorded(error) == {
        "type": "FileNotFoundError",
        "message": "[Errno 2] No such file or directory: 'secret.txt'",
    }


def test_published_options_have_no_folders() -> None:
    options = {
        "path": "/home/jane/t.txt",
        "more": ["~/a/b.npy", "C:\\x\\y.npy", "/data/x/"],
        "n": 3,
        "text_column": "a/b",
    }
    assert published(options) == {"path": "t.txt", "more": ["b.npy", "y.npy", "x"], "n": 3, "text_column": "a/b"}
    assert published({"path": "texts/t.txt", "q": "~", "r": "/"}) == {"path": "texts/t.txt", "q": "~", "r": "/"}


def test_a_user_without_a_home_has_folders_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert without_folders("/data/x.npy: bad") == "x.npy: bad"
