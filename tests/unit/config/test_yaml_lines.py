"""The YAML reader: core-schema scalars, positions, equal keys, and files that are no YAML."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saebench.api import SuiteError
from saebench.config.yaml_lines import read_yaml, scalar


def read(tmp_path: Path, text: str | bytes):
    path = tmp_path / "s.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(path, "s.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1e6", 1e6),
        (".5", 0.5),
        ("5.", 5.0),
        ("1_000", 1000),
        ("150_000", 150_000),
        ("1_0.2_5", 10.25),
        ("-3", -3),
        ("+3", 3),
        ("0o17", 15),
        ("0x1F", 31),
        ("010", 10),
        ("~", None),
        ("null", None),
        ("", None),
        ("true", True),
        ("FALSE", False),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("off", "off"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("_1", "_1"),
        ("1__0", "1__0"),
        ("1_", "1_"),
        ("2024-01-01", "2024-01-01"),
        ("0b1", "0b1"),
        ("1e", "1e"),
        (".", "."),
        ("=", "="),
        ("<<", "<<"),
    ],
)
def test_plain_scalars_follow_the_core_schema(text, value):
    found = scalar(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text", [".inf", "-.inf", ".nan", "1e999", "-1e400", "9" * 5000, "-" + "9" * 400, "0x" + "f" * 5000]
)
def test_numbers_that_no_float_holds_are_refused(text, tmp_path):
    with pytest.raises(OverflowError):
        scalar(text)
    with pytest.raises(SuiteError) as caught:
        read(tmp_path, f"a: 1\nb: [{text}]\n")
    assert str(caught.value).startswith("s.yaml:2 b[0]: got '")
    assert "only finite numbers up to 1.7e308 are allowed" in str(caught.value)
    assert len(str(caught.value)) < 200


@given(st.integers(min_value=-(10**300), max_value=10**300))
def test_integers_come_back(value):
    assert scalar(str(value)) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back(value):
    found = scalar(repr(value))
    assert found == value


def test_quoted_scalars_and_explicit_tags(tmp_path):
    data, _ = read(tmp_path, "a: '1e-3'\nb: \"no\"\nc: !!str 12\nd: !!float 3\ne: |\n  12\n")
    assert data == {"a": "1e-3", "b": "no", "c": "12", "d": 3.0, "e": "12\n"}
    assert type(data["d"]) is float


def test_positions_of_keys_and_elements(tmp_path):
    _, marks = read(tmp_path, "a: 1\nb:\n  - {c: 2}\n  - c: 3\n    d: {e:\n      4}\n")
    lines = {path: mark.line for path, mark in marks.items()}
    assert lines[("a",)] == 1
    assert lines[("b",)] == 2
    assert lines[("b", 0)] == 3
    assert lines[("b", 0, "c")] == 3
    assert lines[("b", 1)] == 4
    assert lines[("b", 1, "d", "e")] == 5
    assert str(marks["b", 1, "d"]) == "s.yaml:5"


def test_all_equal_keys_are_reported_with_both_lines(tmp_path):
    with pytest.raises(SuiteError) as caught:
        read(tmp_path, "a: 1\nb: {c: 1, c: 2}\na: 3\n")
    assert str(caught.value).splitlines() == [
        "s.yaml:2 b.c: key is given twice, first at s.yaml:2. Keep one.",
        "s.yaml:3 a: key is given twice, first at s.yaml:1. Keep one.",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "s.yaml: is empty"),
        ("# only a comment\n", "s.yaml: is empty"),
        ("- 1\n", "holds a list but a suite is a mapping"),
        ("hello\n", "holds a single value but"),
        ("a: [1, 2\nb: 3\n", "s.yaml:2 YAML syntax:"),
        ("a: 1\n\tb: 2\n", "s.yaml:2 YAML syntax:"),
        ("a: *x\n", "s.yaml:1 YAML syntax:"),
        ("a: 1\n---\nb: 2\n", "YAML syntax:"),
        ("a: !!python/object:os.system x\n", "got the tag"),
        ("a: !!set {x}\n", "got the tag"),
        ("a: !!int x\n", "s.yaml:1 a: got 'x' under the tag 'int'"),
        ("? [1, 2]\n: 3\n", "s.yaml:1: a key must be a plain word"),
        ("a: &x [*x]\n", "an alias is inside what it names"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not a text file (first odd byte at 0)"),
        (b"a: \x00\n", "is not a text file (first odd byte at 3)"),
        ("[" * 2000, "nested deeper than 32 levels"),
        ("{a: " * 2000, "nested deeper than 32 levels"),
        ("- " * 2000, "nested deeper than 32 levels"),
        ("- x\n" * 30_000, "more than 20,000 values"),
        ("#" * 2_000_000, "more than 1,048,576 bytes"),
        ('a: "\\UFFFFFFFF"', "YAML syntax"),
        ('a: "\\xZZ"', "s.yaml:1 YAML syntax"),
        ('a: "\\ud800"', "s.yaml:1 a: got '\\ud800', which holds a control character or half a character"),
        ('a: "x\\0"', "s.yaml:1 a: got 'x\\x00', which holds a control"),
        ('"a\\e": 1', "s.yaml:1: a key holds a control character: 'a\\x1b'"),
        ("a: !!python/object/apply:os.system [ls]", "got the tag"),
        ("a: 1".encode("utf-16"), "is not a text file"),
    ],
)
def test_files_that_are_no_suite_give_one_clear_line(tmp_path, text, said):
    with pytest.raises(SuiteError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_alias_bomb_is_refused(tmp_path):
    text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for this, below in zip("bcdefg", "abcdef", strict=True):
        text += f"{this}: &{this} [{', '.join([f'*{below}'] * 10)}]\n"
    with pytest.raises(SuiteError, match="more than 20,000 values"):
        read(tmp_path, text)


def test_a_byte_order_mark_and_a_folder(tmp_path):
    assert read(tmp_path, b"\xef\xbb\xbfa: 1\n")[0] == {"a": 1}
    with pytest.raises(SuiteError, match="is a folder"):
        read_yaml(tmp_path, "here")


def test_nothing_waits_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        with pytest.raises(SuiteError, match="no regular file"):
            read_yaml(path, "here")


def test_a_hundred_problems_are_counted(tmp_path):
    with pytest.raises(SuiteError) as caught:
        read(tmp_path, "\n".join(f"a{i}: .inf" for i in range(100)))
    lines = str(caught.value).splitlines()
    assert len(lines) == 51
    assert lines[-1] == "... and 50 more problems."
