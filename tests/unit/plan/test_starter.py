"""What `saebench init` says of a text before it prints a suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from saebench.api import SuiteError
from saebench.host import load_catalog
from saebench.plan import check_text


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.txt", "", "the corpus is empty: no document with any text in it."),
        ("a.txt", " \n\n\t\n", "the corpus is empty: no document with any text in it."),
        ("a.jsonl", "", "the corpus is empty: no document with any text in it."),
        ("a.jsonl", '{"text": ""}\n', "the corpus is empty: no document with any text in it."),
        ("a.txt", "one document", "its only document does not fall into the"),
        ("a.csv", "x", "the ending '.csv' is not known."),
    ],
)
def test_a_text_that_no_plan_takes_is_refused(tmp_path: Path, name: str, content: str, line: str) -> None:
    (tmp_path / name).write_text(content)
    said: list[str] = []
    with pytest.raises(SuiteError) as refused:
        check_text(str(tmp_path / name), load_catalog(), say=said.append)
    assert str(refused.value).startswith(f"--text {tmp_path / name}: {line}")
    assert "\n" not in str(refused.value)
    assert said == []


def test_a_column_of_another_name_is_said_and_the_suite_is_printed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "words"}\n')
    said: list[str] = []
    check_text(str(tmp_path / "a.jsonl"), load_catalog(), say=said.append)
    assert len(said) == 1
    assert "no text column 'text'; found columns body." in said[0]
