"""The embedded corpus `docs`: cleaning, near-duplicates, split, cache."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saebench.activations.sources.plugin_cache import PluginCache
from saebench.api.splits import is_held_out
from saebench_plugins.core_datasets.docs import corpus as docs_corpus
from saebench_plugins.core_datasets.docs import extract as docs_extract
from saebench_plugins.core_datasets.docs.catalogue import CATALOGUE, Source, is_read
from saebench_plugins.core_datasets.docs.corpus import DocsCorpus, build_docs, without_near_duplicates
from saebench_plugins.core_datasets.docs.extract import docstrings, documents, to_prose

SMALL = (Source("click"), Source("pluggy"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue that is built in a fraction of a second."""
    monkeypatch.setattr(docs_corpus, "CATALOGUE", SMALL)


@pytest.fixture(scope="module")
def whole() -> DocsCorpus:
    """The real corpus, built cold."""
    return build_docs()


NUMPY_STYLE = """
Gather things into one :class:`~a.b.Thing`.

The ``first`` line goes
on here, see [1]_ or https://example.org/x for more.

Parameters
----------
x : array_like, optional
    The input array that is gathered along `axis`.
axis : int
    Number.

Returns
-------
out : ndarray
    The gathered array is returned as a new one::

        out = gather(x)

    It never shares memory with the input.

.. note::

    This note holds **real** text of some length.

.. math:: x = y

.. versionadded:: 1.2
   An old remark that nobody has to read today.

====  =====
name  value
====  =====

>>> gather([1])
A result that looks like a sentence of words.

See Also
--------
other : A thing that is like this one in all respects.
"""

NUMPY_PROSE = """The first line goes on here, see or for more.

The input array that is gathered along axis.

The gathered array is returned as a new one:

It never shares memory with the input.

This note holds real text of some length."""


def test_numpy_docstring_becomes_prose() -> None:
    assert to_prose(NUMPY_STYLE) == NUMPY_PROSE  # the summary has five words only


def test_google_docstring_becomes_prose() -> None:
    text = """Do one thing and then another one.

    Args:
        x (Tensor): the input tensor that
            is gathered here.
        y (dict[str, int]): short.

    - a bullet which has enough words
      to be kept here.
    - tiny.

    Example::

        A code block with many words, like a sentence.

    ```python
    Fenced text is never a sentence in the prose.
    ```
    """
    assert to_prose(text) == (
        "Do one thing and then another one.\n\n"
        "the input tensor that is gathered here.\n\n"
        "a bullet which has enough words to be kept here."
    )


def test_what_announced_dropped_code_goes_at_the_end() -> None:
    assert to_prose("One sentence that has six words.\n\nHere is how it is used now:\n\n>>> f()") == (
        "One sentence that has six words."
    )


@given(st.text(max_size=400))
def test_cleaning_takes_any_text_and_is_stable(text: str) -> None:
    prose = to_prose(text)
    assert all(paragraph and paragraph == " ".join(paragraph.split()) for paragraph in prose.split("\n\n") if prose)
    assert to_prose(text) == prose


def test_indentation_is_blanks_alone_on_every_python() -> None:
    """`inspect.cleandoc` takes the no-break space and the vertical tab for indentation before Python 3.13, and not
    after."""
    text = (
        "\tOne line with six words here.\n\n    Two has\n    six words too.\n"
        "    \xa0\xa0Not less\n    \x0bthan six words."
    )
    assert docs_extract._without_margin(text) == [
        "One line with six words here.",
        "",
        "Two has",
        "six words too.",
        "\xa0\xa0Not less",
        "",
        "than six words.",
    ]
    assert docs_extract._without_margin("One\n\tTwo\n\n        Three\n          Four\n  ") == [
        "One",
        "Two",
        "",
        "Three",
        "  Four",
    ]


def test_docstrings_are_found_statically() -> None:
    source = b'''"""Module."""
import nothing_of_this_name
raise SystemExit
x = 1
"""Of x."""
class A:
    """Class."""
    b = 2
    """Of b."""
    def f(self):
        """Function."""
        "just a string"
        def inner():
            """Inner."""
    async def g(self):
        """Async."""
if x:
    def h():
        """Guarded."""
add_newdoc("m", "f", """Added
later.""")
norm = _add_docstr(other.norm, r"""Also
added {x}.""".format(x=1))
print("""not
this""")
'''
    assert docstrings(source) == [
        "Module.",
        "Of x.",
        "Class.",
        "Of b.",
        "Function.",
        "Inner.",
        "Async.",
        "Guarded.",
        "Added\nlater.",
        "Also\nadded {x}.",
    ]


@pytest.mark.parametrize("source", [b'"""broken', b'def f(: """x"""', b'"""\0"""', b"\xff\xfe'''x'''", b"x = 1"])
def test_unreadable_source_has_no_docstrings(source: bytes) -> None:
    assert docstrings(source) == []


def test_short_docstrings_are_no_documents() -> None:
    short = " ".join(["word"] * (docs_extract.MIN_WORDS - 1))
    assert documents(f'"""{short}."""'.encode()) == []
    assert documents(f'"""{short} word."""'.encode()) == [f"{short} word."]


def words(rng: random.Random, count: int) -> list[str]:
    return [f"w{rng.randrange(5000)}" for _ in range(count)]


def test_near_duplicates_are_dropped_whatever_the_order() -> None:
    rng = random.Random(0)
    base = words(rng, 60)
    reworded = [*base[:30], "changed", *base[31:]]
    quoted = base[10:35]
    alone = words(rng, 60)
    half = [*alone[:15], *words(rng, 45)]  # shares 11 of 56 runs of five: another document
    texts = [" ".join(one) for one in (base, reworded, quoted, alone, half)]
    kept = without_near_duplicates(texts)
    assert len(kept) == 3
    assert {texts[3], texts[4]} < set(kept)
    assert kept == sorted(kept, key=docs_corpus._sha256)
    for _ in range(5):
        rng.shuffle(texts)
        assert without_near_duplicates(texts + texts[:2]) == kept


def test_case_and_punctuation_do_not_hide_a_duplicate() -> None:
    text = "The quick brown fox jumps over the lazy dog and goes home."
    assert len(without_near_duplicates([text, text.upper().replace(" ", ", ")])) == 1


def test_whole_corpus(whole: DocsCorpus) -> None:
    manifest = whole.manifest
    everything = whole.train + whole.held_out
    assert len(set(everything)) == len(everything) > 5000
    assert all(len(text.split()) >= docs_extract.MIN_WORDS for text in everything)
    assert not any(is_held_out(text) for text in whole.train)
    assert all(is_held_out(text) for text in whole.held_out)
    assert 0.17 < len(whole.held_out) / len(everything) < 0.23
    assert whole.train == sorted(whole.train, key=docs_corpus._sha256)
    assert manifest["documents"]["train"] == len(whole.train)
    assert manifest["bytes"]["held_out"] == sum(len(text.encode()) for text in whole.held_out) > 500_000
    assert sum(row["lines"] for row in manifest["distributions"]) < 1_300_000
    assert [row["name"] for row in manifest["distributions"]] + manifest["missing"] == [s.name for s in CATALOGUE]
    assert json.loads(json.dumps(manifest)) == manifest
    assert sum(text.count(">>>") for text in everything) < 50


def test_no_document_straddles_the_split(whole: DocsCorpus) -> None:
    """Checked by another route than the code's: runs of 8 words, as strings."""

    def runs(text: str) -> set[str]:
        plain = "".join(c if c.isalnum() else " " for c in text.lower()).split()
        return {" ".join(plain[i : i + 8]) for i in range(len(plain) - 7)}

    trained = set().union(*map(runs, whole.train))
    shares = [len(runs(text) & trained) / max(1, len(runs(text))) for text in whole.held_out]
    assert max(shares) < 0.9
    assert sum(share > 0.5 for share in shares) < 0.01 * len(shares)


def test_corpus_does_not_depend_on_the_order_of_files(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = build_docs()
    files = docs_corpus._files
    monkeypatch.setattr(docs_corpus, "_files", lambda source: files(source)[::-1])
    monkeypatch.setattr(docs_corpus, "_WORKERS", 3)
    assert build_docs() == corpus


def test_reading_imports_nothing(tmp_path: Path) -> None:
    prose = " ".join(["Plain"] * 30) + "."
    module = tmp_path / "dangerous.py"
    module.write_text(f'"""{prose}"""\nraise SystemExit(9)\n', encoding="utf-8")
    assert docs_corpus._extract([module, tmp_path / "absent.py"]) == [(2, [prose]), (0, [])]


def test_missing_distribution_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs_corpus, "CATALOGUE", (Source("no-such-distribution-here"), Source("pluggy")))
    manifest = build_docs().manifest
    assert manifest["missing"] == ["no-such-distribution-here"]
    assert [row["name"] for row in manifest["distributions"]] == ["pluggy"]


def test_what_was_kept_is_read_and_built_again_when_damaged(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    keep = PluginCache(tmp_path / "cache", "recipe", said.append)
    corpus = build_docs(keep)
    assert corpus == build_docs()
    (path,) = (tmp_path / "cache").iterdir()
    content = path.read_bytes()

    def is_whole() -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(docs_corpus, "_build", lambda versions: pytest.fail("what was kept was not used"))
            return build_docs(keep) == corpus

    assert is_whole()
    for damaged in (content[: len(content) // 2], b"", b"junk"):
        path.write_bytes(damaged)
        assert build_docs(keep) == corpus
        assert is_whole()  # its bytes are others: they tell how long it took
    assert list(path.parent.iterdir()) == [path]
    assert len(said) == 3


def test_other_versions_are_kept_in_another_file(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = PluginCache(tmp_path, "recipe", print)
    build_docs(keep)
    monkeypatch.setattr(docs_corpus, "installed_version", lambda source: "0")
    build_docs(keep)
    assert len(list(tmp_path.iterdir())) == 2


def test_failed_worker_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs_corpus.docs_extract, "__file__", "/no/such/worker.py")
    with pytest.raises(RuntimeError, match="docstring worker"):
        docs_corpus._extract([Path("x.py")])


@pytest.mark.parametrize(
    ("relative", "read"),
    [
        ("json/decoder.py", True),
        ("json/tests/decoder.py", False),
        ("json/decoder.pyi", False),
        ("../bin/tool.py", False),
        ("package/_vendor/a.py", False),
        ("package/conftest.py", False),
    ],
)
def test_files_that_are_read(relative: str, read: bool) -> None:
    assert is_read(Source("json"), relative) is read


def test_parts_limit_a_large_distribution() -> None:
    source = Source("torch", ("torch/nn/", "torch/hub.py"))
    assert is_read(source, "torch/nn/modules/linear.py")
    assert is_read(source, "torch/hub.py")
    assert not is_read(source, "torch/fx/graph.py")
    assert not is_read(source, "torch/nn_extra.py")


def test_catalogue_is_sorted_and_unique() -> None:
    names = [source.name for source in CATALOGUE]
    assert names == sorted(set(names))
    assert all(part.endswith(("/", ".py")) for source in CATALOGUE for part in source.parts)
    for one, other in combinations(CATALOGUE, 2):
        assert not set(one.parts) & set(other.parts)


def test_importing_the_corpus_is_light() -> None:
    code = "import sys, saebench_plugins.core_datasets.docs.corpus; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
