"""Dataset `local`: every format, and one clear line for every bad file."""

from __future__ import annotations

import gzip
import importlib
import json
import os
from types import SimpleNamespace

import pytest

from saebench.activations.sources.split_text import SplitText
from saebench.api import SuiteError, split_of
from saebench.base.folding import folded
from saebench_plugins.core_datasets.plugin import LocalOptions
from saebench_plugins.core_datasets.texts import files, lines
from saebench_plugins.core_datasets.texts.cleaning import Counts, cut_at_markers
from saebench_plugins.core_datasets.texts.files import recipe as recipe_local
from saebench_plugins.core_datasets.texts.local import open_local
from saebench_plugins.core_datasets.texts.survey import findings as inspect_local
from saebench_plugins.core_datasets.texts.survey import problems as check_local

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
    train, held_out = (
        [document.text for document in SplitText(opened, "x").documents(split)] for split in ("train", "held-out")
    )
    assert sorted(train + held_out) == sorted(TEXTS)
    assert 0 < len(held_out) < len(train)
    assert all(split_of(document.digest) == "held-out" for document in SplitText(opened, "x").documents("held-out"))
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
        ("a.jsonl", b'{"text": "fine"}\n{"text": \n', r"a\.jsonl:2: the line is not sound JSON"),
        ("a.jsonl", b'{"text": "fine"}\n[1]\n', r"a\.jsonl:2: found list, expected one JSON object"),
        ("a.jsonl", b'{"body": "x", "id": 1}\n', r"a\.jsonl:1: no text column 'text'; found columns body, id\."),
        ("a.jsonl", b'{"texts": "x"}\n', "Did you mean 'texts'"),
        ("a.jsonl", b'{"text": 3}\n', r"a\.jsonl:1: column 'text' holds int"),
        ("a.txt", b"fine\nnot \xff fine\n", r"a\.txt:2: the file is not UTF-8: 1 of its first 16 characters"),
        ("a.jsonl.gz", b"not gzip", "cannot be unpacked"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 100, mtime=0)[:-20], "cannot be unpacked"),
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
        list(SplitText(open_local(LocalOptions(str(empty)), context), "x").documents("train"))
    (problem,) = check_local(LocalOptions(str(bad(tmp_path, "a.docx", b"x"))))
    assert "the ending '.docx' is not known" in problem.message


def test_a_corpus_without_a_held_out_document_says_so(tmp_path, context):
    text = next(text for text in TEXTS if split_of(files.Document(text).digest) == "train")
    path = bad(tmp_path, "a.txt", text.encode())
    with pytest.raises(SuiteError, match="its only document does not fall into the held-out part"):
        list(SplitText(open_local(LocalOptions(str(path)), context), "x").documents("held-out"))


def test_the_plan_hears_of_an_empty_part(tmp_path):
    text = next(text for text in TEXTS if split_of(files.Document(text).digest) == "train")
    found = inspect_local(LocalOptions(str(bad(tmp_path, "a.txt", text.encode()))))
    assert set(found.empty) == {"held-out"}
    assert "its only document" in found.empty["held-out"]
    assert not inspect_local(LocalOptions(str(bad(tmp_path, "b.txt", "\n\n".join(TEXTS).encode())))).empty


# --- markers ---

MARKERS = [
    "<|endoftext|>",
    " </s> ",
    "<s>",
    "</s><s>",
    "<eos>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|EndOfText|>",
    "[EOS]",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
]


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
def test_lines_that_are_a_marker_part_documents_and_blank_lines_do_not(marker, end, tmp_path):
    path = bad(tmp_path, "a.txt", f"{end}{marker}{end}".join(["one", f"two{end}{end}more", "three", ""]).encode())
    counts = Counts()
    documents = list(files.read_documents(str(path), "text", counts))
    assert [document.text for document in documents] == ["one", "two\n\nmore", "three"]
    assert [document.name for document in documents] == [f"{path}:1", f"{path}:3", f"{path}:7"]
    assert (counts.markers, counts.special_token_documents) == (3, 0)


def test_markers_at_the_ends_of_lines_part_documents_too(tmp_path):
    path = bad(tmp_path, "a.txt", b"one\n\nmore<|endoftext|>\n<|endoftext|>two\nthree <|endoftext|>\n\n")
    assert texts_of(path) == ["one\n\nmore", "two\nthree"]


@pytest.mark.parametrize("line", ["<" + " " * 200_000 + "x", "<|eos|>" * 30_000 + "x", "<|eos|> " * 30_000 + "x<eos>"])
def test_long_runs_of_blanks_or_markers_are_cut_in_one_pass(line):
    first, text, last = cut_at_markers(line)
    assert (first, text.endswith("x"), last) == (line[1] == "|", True, line.endswith("<eos>"))


def test_a_marker_among_characters_that_nobody_sees_parts_documents(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\n\u200b<|endoftext|>\ufeff\ntwo", encoding="utf-8")
    assert texts_of(path) == ["one", "two"]


@pytest.mark.parametrize("packed", ["gzip", "lzma"])
def test_a_packed_file_under_another_ending_is_named(tmp_path, packed):
    data = importlib.import_module(packed).compress(b"one\n\ntwo")
    with pytest.raises(SuiteError, match=r"a\.txt: found an? (gzip|xz) file, expected text"):
        texts_of(bad(tmp_path, "a.txt", data))
    with pytest.raises(SuiteError, match=r"b\.jsonl\.gz: found an? (gzip|xz) file inside of gzip, expected text"):
        texts_of(bad(tmp_path, "b.jsonl.gz", gzip.compress(data)))


def test_text_of_another_encoding_is_told_how_to_convert(tmp_path):
    for encoding, words in (("utf-16-le", "-f UTF-16LE"), ("latin-1", "-f LATIN1")):
        with pytest.raises(SuiteError, match=words):
            texts_of(bad(tmp_path, "a.txt", "caf\u00e9 \u00fcber alles".encode(encoding)))


def test_a_text_that_is_there_twice_is_refused(tmp_path):
    import pyarrow
    import pyarrow.parquet

    with pytest.raises(SuiteError, match=r'a\.jsonl:2: .* has the key "text" twice'):
        texts_of(bad(tmp_path, "a.jsonl", b'{"text": "a \\"text\\" b"}\n{"text": "one", "text": "two"}\n'))
    (tmp_path / "c.jsonl").write_text('{"text": "one", "more": [{"text": "two"}], "word": "text"}')
    assert texts_of(tmp_path / "c.jsonl") == ["one"]
    twice = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, names=["text", "text"])
    pyarrow.parquet.write_table(twice, tmp_path / "b.parquet")
    with pytest.raises(SuiteError, match=r"b\.parquet: there are several columns 'text'"):
        texts_of(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    "unseen",
    [
        "\u200b",
        "\u2028",
        "\u2029",
        "\x85",
        "\v",
        "\f",
        "\xa0",
        "\ufeff",
        "\xad",
        "\u3164",
        "\u2800",
        "\x1f",
        " \u2060\t",
    ],
)
def test_lines_of_characters_that_nobody_sees_are_blank(tmp_path, unseen):
    (tmp_path / "a.txt").write_text(
        f"one\n{unseen}\ntwo{unseen}\nmore\n{unseen}{unseen}\n{unseen}\nthree", encoding="utf-8"
    )
    assert [folded(text) for text in texts_of(tmp_path / "a.txt")] == ["one", "twomore", "three"]
    (tmp_path / "b.txt").write_text(
        f"one\n{unseen}\n{unseen}<|endoftext|>{unseen}\n{unseen}\ntwo<|eos|>{unseen}\n{unseen}", encoding="utf-8"
    )
    assert [folded(text) for text in texts_of(tmp_path / "b.txt")] == ["one", "two"]
    (tmp_path / "c.jsonl").write_text(
        f'{{"text": "one"}}\n{unseen}\n{{"text": "two"}}\n{{"text": {json.dumps(unseen)}}}', encoding="utf-8"
    )
    assert texts_of(tmp_path / "c.jsonl") == ["one", "two"]


def test_special_tokens_inside_documents_are_counted(tmp_path):
    (tmp_path / "a.txt").write_text("one <s>struck</s> out\n\ntwo [see] <b>\n\nwith <|endoftext|> inside")
    write_lines(tmp_path / "b.jsonl", [{"text": "ends with it</s>"}, {"text": "clean"}])
    counts = Counts()
    assert len(list(files.read_documents(str(tmp_path), "text", counts))) == 5
    assert (counts.special_token_documents, counts.markers) == (3, 0)
    (remark,) = inspect_local(LocalOptions(str(tmp_path))).remarks
    assert "3 of 5 documents hold the text of a special token" in remark


# --- characters that are none
# ------------------------------------------------------------------------------------------


def test_characters_that_are_none_are_replaced_and_counted(tmp_path):
    long = b"A long clean line. " * 40  # one in a hundred would be another encoding
    (tmp_path / "a.jsonl").write_bytes(
        b'{"text": "half \\ud83d"}\n{"text": "whole \\ud83d\\ude00"}\n{"text": "nul \\u0000 raw \0"}\n{"text": "'
        + long
        + b'"}\n'
    )
    (tmp_path / "b.txt").write_bytes(long + b"\xff\xfe and \xe2\x82\n\nfine\n")
    counts = Counts()
    texts = [document.text for document in files.read_documents(str(tmp_path), "text", counts)]
    bad_one = "\ufffd"
    assert texts[:3] == [f"half {bad_one}", "whole \U0001f600", f"nul {bad_one} raw {bad_one}"]
    assert texts[4].endswith(f"line. {bad_one}{bad_one} and {bad_one}")
    assert (counts.replaced_documents, counts.replaced_characters) == (3, 6)
    for text in texts:
        text.encode()
    assert any(
        "invalid UTF-8 in 3 of 6 documents (6 characters)" in remark
        for remark in inspect_local(LocalOptions(str(tmp_path))).remarks
    )


def test_invalid_utf8_in_parquet_is_replaced(tmp_path):
    import pyarrow

    raw = pyarrow.array([b"bad \xff", None, b"good"], pyarrow.binary()).view(pyarrow.string())
    write_parquet(tmp_path / "a.parquet", {"text": raw})
    write_parquet(tmp_path / "b.parquet", {"text": pyarrow.array(["x", "x"]).dictionary_encode()})
    assert texts_of(tmp_path) == ["bad \ufffd", "good", "x", "x"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_a_byte_order_mark_names_the_encoding(encoding, tmp_path):
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    path = bad(tmp_path, "a.txt", f"{mark}caf\u00e9\n\nzwei \u2028 drei".encode(encoding))
    assert texts_of(path) == ["caf\u00e9", "zwei \u2028 drei"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "latin-1", "cp1252"])
def test_another_encoding_is_refused(encoding, tmp_path):
    path = bad(tmp_path, "a.txt", ("\u00c9t\u00e9 \u00e0 la mer, d\u00e9j\u00e0 pr\u00eat. " * 20).encode(encoding))
    (problem,) = check_local(LocalOptions(str(path)))
    assert "a.txt:1: the file is not UTF-8" in problem.message


# --- what never ends
# ---------------------------------------------------------------------------------------------------


def test_what_never_ends_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAX_CHARACTERS", 10_000)
    monkeypatch.setattr(files, "MAX_CHARACTERS", 10_000)
    monkeypatch.setattr(lines, "EXPANDED_BYTES", 100_000)
    monkeypatch.setattr(lines, "MAX_EMPTY", 2000)
    monkeypatch.setattr(files, "MAX_EMPTY", 2000)
    monkeypatch.setattr(files, "LARGE_GROUP", 100_000)
    monkeypatch.setattr(files, "LARGE_ROW", 100)
    long = "x" * 20_000
    (tmp_path / "a.txt").write_text(f"fine\n\n{long}")
    (tmp_path / "b.txt").write_text("fine\n\n" + "word\n" * 5000)
    write_lines(tmp_path / "c.jsonl", [{"text": "fine"}, {"text": long}])
    write_parquet(tmp_path / "d.parquet", {"text": ["fine"] * 9 + [long]})
    (tmp_path / "e.jsonl").write_text('{"text": "x", "deep": ' + "[" * 9000)
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 100_000))
    (tmp_path / "j.txt").write_text("fine\n" + " \n" * 3000)
    write_lines(tmp_path / "k.jsonl", [{"text": None}] * 3000)
    write_parquet(tmp_path / "l.parquet", {"text": ["fine"] * 990 + [long * 8]})
    os.mkfifo(tmp_path / "g.txt")
    (tmp_path / "h.txt").symlink_to("/dev/zero")
    (tmp_path / "i.txt").symlink_to("nothing")
    for name, words in {
        "a.txt": "a.txt:3: the line has over",
        "b.txt": "b.txt:3: the document has over",
        "c.jsonl": "c.jsonl:2: the line has over",
        "d.parquet": "d.parquet row 1: the text of a row has over",
        "j.txt": "j.txt:2002: the 2,000 lines before hold no text",
        "k.jsonl": "k.jsonl:2001: the 2,000 rows before hold no text",
        "l.parquet": "l.parquet row 1, or one behind it: the text has over",
        "e.jsonl": "e.jsonl:1: the line is not sound JSON",
        "f.jsonl.gz": "unpack to over",
        "g.txt": "found a pipe",
        "h.txt": "found a device",
        "i.txt": "no such file",
    }.items():
        (problem,) = check_local(LocalOptions(str(tmp_path / name)))
        assert words in problem.message
        assert "\n" not in problem.message
    (problem,) = check_local(LocalOptions(str(tmp_path)))
    assert "the line has over" in problem.message or "found a pipe" in problem.message


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    path = bad(tmp_path, "a.txt", "\n\n".join(TEXTS).encode())
    documents = files.read_documents(str(path), "text")
    next(documents)
    with path.open("a") as file:
        file.write("more")
    with pytest.raises(SuiteError, match="changed while it was read"):
        list(documents)


# --- near-duplicates
# ---------------------------------------------------------------------------------------------------


def test_near_duplicates_are_in_the_plan_and_in_the_record(tmp_path, context):
    import random

    draws = random.Random(0)
    texts = []
    for number in range(40):
        words = [f"word{draws.randrange(5000)}" for _ in range(60)]
        texts += [" ".join([*words, f"ending{number}x{copy}"]) for copy in range(10)]
    write_lines(tmp_path / "near.jsonl", [{"text": text} for text in texts])
    options = LocalOptions(str(tmp_path / "near.jsonl"))
    held_out = sum(split_of(files.Document(text).digest) == "held-out" for text in texts)
    (remark,) = inspect_local(options).remarks
    assert f"{held_out} of {held_out} held-out documents are near-duplicates" in remark
    facts = open_local(options, context).manifest()["survey"]["overlap"]
    assert (facts["near_duplicates"], facts["held_out_documents"], facts["train_documents"]) == (
        held_out,
        held_out,
        400 - held_out,
    )
    (tmp_path / "other.txt").write_text(
        "\n\n".join(" ".join(f"w{draws.randrange(5000)}" for _ in range(60)) for _ in range(100))
    )
    assert inspect_local(LocalOptions(str(tmp_path / "other.txt"))).remarks == ()


def test_a_document_of_two_datasets_is_on_one_side(tmp_path, context):
    write_lines(tmp_path / "a.jsonl", [{"text": text} for text in TEXTS])
    (tmp_path / "b.txt").write_text("\r\n\r\n".join(text.upper().replace(" ", "  ") for text in TEXTS))
    held_out = [
        {
            document.digest
            for document in SplitText(open_local(LocalOptions(str(tmp_path / name)), context), "x").documents(
                "held-out"
            )
        }
        for name in ("a.jsonl", "b.txt")
    ]
    assert held_out[0] == held_out[1] != set()


def test_copies_are_counted(tmp_path):
    write_lines(tmp_path / "a.jsonl", [{"text": text + " " * copy} for text in TEXTS for copy in range(3)])
    (remark,) = inspect_local(LocalOptions(str(tmp_path / "a.jsonl"))).remarks
    assert "80 of 120 documents are copies of others" in remark


def test_real_corpus(material, context):
    path = material / "corpora" / "wikitext2"
    opened = open_local(LocalOptions(str(path)), context)
    counts = [sum(1 for _ in SplitText(opened, "x").documents(split)) for split in ("train", "held-out")]
    assert sum(counts) > 100
    assert 0.1 < counts[1] / sum(counts) < 0.3


def test_metadata_of_parquet_columns_are_read_only_where_rows_are_large() -> None:
    """pyarrow ends the process where they are damaged (a histogram of sizes, found by the fuzzer); reading the column
    gives an error."""
    group = SimpleNamespace(num_rows=10, total_byte_size=1_000)  # has no `column`
    table = SimpleNamespace(metadata=SimpleNamespace(row_group=lambda number: group))
    assert files._bytes_of_a_row(table, 0, "text") == 100


def test_a_home_that_nobody_has_is_a_missing_path() -> None:
    (problem,) = check_local(LocalOptions(path="~nobody-has-this-home/text"))
    assert "no such file or folder" in str(problem)
