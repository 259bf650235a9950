"""Dataset `local`: every format, and one clear line for every bad file."""

from __future__ import annotations

import gzip
import json

import pytest

from saebench.api import SuiteError, split_of
from saebench_plugins.core_datasets import files
from saebench_plugins.core_datasets.local import open_local
from saebench_plugins.core_datasets.plugin import LocalOptions, check_local, recipe_local

TEXTS = [f"Document {number} says something." for number in range(40)]


def write_lines(path, rows, opened=open):
    with opened(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_parquet(path, columns):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def texts_of(path, column="text"):
    return [document.text for document in files.read_documents(str(path), column)]


def test_txt_is_cut_at_blank_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo\r\n\r\n \t\r\nthree\n\n\n\nfour".encode())
    documents = list(files.read_documents(str(path), "text"))
    assert [document.text for document in documents] == ["one\ntwo", "three", "four"]
    assert [document.name for document in documents] == [f"{path}:1", f"{path}:5", f"{path}:9"]


def test_every_format_holds_the_same_documents(tmp_path):
    rows = [{"id": number, "text": text} for number, text in enumerate(TEXTS)]
    (tmp_path / "a.txt").write_text("\n\n".join(TEXTS))
    write_lines(tmp_path / "b.jsonl", rows)
    write_lines(tmp_path / "c.jsonl.gz", rows, gzip.open)
    write_parquet(tmp_path / "d.parquet", {"id": list(range(40)), "text": TEXTS})
    for name in ("a.txt", "b.jsonl", "c.jsonl.gz", "d.parquet"):
        assert texts_of(tmp_path / name) == TEXTS
    (tmp_path / "e.csv").write_text("passed,over")
    (tmp_path / ".hidden.txt").write_text("passed over")
    (tmp_path / "folder").mkdir()
    assert texts_of(tmp_path) == TEXTS * 4
    assert [row["name"] for row in recipe_local(LocalOptions(str(tmp_path)))["files"]] == [
        "a.txt",
        "b.jsonl",
        "c.jsonl.gz",
        "d.parquet",
    ]
    assert not check_local(LocalOptions(str(tmp_path)))


def test_split_by_document_hash(tmp_path, context):
    (tmp_path / "a.txt").write_text("\n\n".join(TEXTS))
    opened = open_local(LocalOptions(str(tmp_path / "a.txt")), context)
    train, held_out = ([document.text for document in opened.documents(split)] for split in ("train", "held-out"))
    assert sorted(train + held_out) == sorted(TEXTS)
    assert 0 < len(held_out) < len(train)
    assert all(split_of(document.digest) == "held-out" for document in opened.documents("held-out"))
    assert opened.manifest()["files"][0]["name"] == "a.txt"


def test_recipe_follows_the_content(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    before = recipe_local(LocalOptions(str(path)))
    path.write_text("two")
    assert recipe_local(LocalOptions(str(path))) != before


def test_empty_texts_are_passed_over(tmp_path):
    write_lines(tmp_path / "a.jsonl", [{"text": ""}, {"text": None}, {"text": "  "}, {"text": "x"}])
    write_parquet(tmp_path / "b.parquet", {"text": ["", None, "y"]})
    assert texts_of(tmp_path) == ["x", "y"]


def bad(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl", b'{"text": "fine"}\n{"text": \n', r"a\.jsonl:2: the line is not JSON"),
        ("a.jsonl", b'{"text": "fine"}\n[1]\n', r"a\.jsonl:2: found list, expected one JSON object"),
        ("a.jsonl", b'{"body": "x", "id": 1}\n', r"a\.jsonl:1: no text column 'text'; found columns body, id\."),
        ("a.jsonl", b'{"texts": "x"}\n', "Did you mean 'texts'"),
        ("a.jsonl", b'{"text": 3}\n', r"a\.jsonl:1: column 'text' holds int"),
        ("a.txt", b"fine\nnot \xff fine\n", r"a\.txt:2: byte 9 \(0xff\) is not UTF-8"),
        ("a.jsonl.gz", b"not gzip", "cannot be unpacked"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 100)[:-20], "cannot be unpacked"),
        ("a.parquet", b"not parquet", "cannot be read as parquet"),
    ],
)
def test_bad_files_give_one_line_with_the_place(name, data, words, tmp_path):
    path = bad(tmp_path, name, data)
    with pytest.raises(SuiteError, match=words) as caught:
        texts_of(path)
    assert "\n" not in str(caught.value)


def test_parquet_lists_its_columns(tmp_path):
    write_parquet(tmp_path / "a.parquet", {"body": ["x"], "title": ["y"]})
    with pytest.raises(SuiteError, match="no text column 'text'; found columns body, title"):
        texts_of(tmp_path / "a.parquet")
    (problem,) = check_local(LocalOptions(str(tmp_path / "a.parquet")))
    assert problem.key == "text_column"


def test_paths_that_are_not_there_name_near_ones(tmp_path):
    (tmp_path / "stories.txt").write_text("x")
    for wrong, words in (("storys.txt", "stories.txt"), ("none/at/all.txt", "does not exist either")):
        (problem,) = check_local(LocalOptions(str(tmp_path / wrong)))
        assert problem.key == "path"
        assert words in problem.message


def test_empty_folders_files_and_unknown_endings(tmp_path, context):
    (problem,) = check_local(LocalOptions(str(tmp_path)))
    assert "holds none of" in problem.message
    empty = bad(tmp_path, "a.txt", b"\n \n")
    (problem,) = check_local(LocalOptions(str(empty)))
    assert "the corpus is empty" in problem.message
    with pytest.raises(SuiteError, match="the corpus is empty"):
        list(open_local(LocalOptions(str(empty)), context).documents("train"))
    (problem,) = check_local(LocalOptions(str(bad(tmp_path, "a.docx", b"x"))))
    assert "the ending '.docx' is not known" in problem.message


def test_a_corpus_without_a_held_out_document_says_so(tmp_path, context):
    text = next(text for text in TEXTS if split_of(files.Document(text).digest) == "train")
    path = bad(tmp_path, "a.txt", text.encode())
    with pytest.raises(SuiteError, match="none of its 1 documents falls into the held-out part"):
        list(open_local(LocalOptions(str(path)), context).documents("held-out"))


def test_real_corpus(material, context):
    path = material / "corpora" / "wikitext2"
    opened = open_local(LocalOptions(str(path)), context)
    counts = [sum(1 for _ in opened.documents(split)) for split in ("train", "held-out")]
    assert sum(counts) > 100
    assert 0.1 < counts[1] / sum(counts) < 0.3
