"""The parts of `benchmarks/docs_lm` that decide what the model inside the package is trained on."""

from __future__ import annotations

import gzip
import importlib
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from saebench_plugins.core_datasets.docs.corpus import DocsCorpus

FOLDER = Path(__file__).parents[3] / "benchmarks" / "docs_lm"


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    """`corpus` and `train`, imported as the scripts import each other."""
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(FOLDER))
    names = ("corpus", "train")
    before = {name: sys.modules.pop(name, None) for name in names}
    yield {name: importlib.import_module(name) for name in names}
    for name, module in before.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module
    patch.undo()


@pytest.fixture
def train(scripts: dict[str, ModuleType]) -> ModuleType:
    return scripts["train"]


@pytest.fixture
def corpus(scripts: dict[str, ModuleType]) -> ModuleType:
    return scripts["corpus"]


def test_an_epoch_reads_every_token_once(train: ModuleType) -> None:
    tokens = np.arange(100, dtype=np.uint16)
    starts = np.array([0, 10, 35, 36, 100])
    windows = train.epoch_windows(tokens, starts, 8, seed=0, epoch=0)
    targets = windows[:, 1:].flatten()
    assert windows.shape[1] == 9
    assert len(set(targets.tolist())) == len(targets) > 100 - 2 * 8 - 1  # all but the ends of the stream
    for row in windows.astype(int):  # documents stay in order inside; a jump is a document's end
        ends = {9, 34, 35, 99}
        assert all(b == a + 1 or a in ends for a, b in itertools.pairwise(row))
    assert np.array_equal(windows, train.epoch_windows(tokens, starts, 8, seed=0, epoch=0))
    assert not np.array_equal(windows, train.epoch_windows(tokens, starts, 8, seed=0, epoch=1))


def test_halves_predict_the_same_tokens(train: ModuleType) -> None:
    windows = torch.arange(18).reshape(2, 9)
    assert train.halves(windows).tolist() == [
        [0, 1, 2, 3, 4],
        [9, 10, 11, 12, 13],
        [4, 5, 6, 7, 8],
        [13, 14, 15, 16, 17],
    ]


def test_rate_rises_stays_and_falls_to_zero(train: ModuleType) -> None:
    config = {"warmup_steps": 10, "decay_share": 0.5}
    rates = [train.rate_share(step, 100, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:51] == [1.0] * 42
    assert rates[75] == pytest.approx(0.5)
    assert rates[100] == 0.0
    assert [train.rate_share(step, 200, config) for step in range(50)] == rates[:50]


def test_new_model_depends_on_the_seed_alone(train: ModuleType) -> None:
    config = {**train.CONFIG, "layers": 1, "vocab_size": 32}
    state = torch.random.get_rng_state()
    one = train.new_model(config).state_dict()
    torch.random.set_rng_state(state)
    torch.rand(7)
    other = train.new_model(config).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], train.new_model({**config, "seed": 1}).state_dict()["lm_head.weight"])


def test_every_copy_of_a_held_out_book_is_left_out(
    corpus: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = "It is a truth universally acknowledged, that a single man in possession of a good fortune is rich."
    quoted = "He read: it is a TRUTH universally acknowledged that a _single_ man in possession of a good purse."
    short = "It is a truth universally acknowledged by all who live in this old and quiet town of ours."
    rows = {
        "gutenberg": [{"book": book, "text": f"{book} {held}"} for book in (*corpus.HELD_OUT_BOOKS, "Other")]
        + [{"book": "Other", "text": short}],
        "classics": [{"book": "Quotes", "text": quoted}],
        "physics": [{"text": "A body at rest."}],
        "biology": [{"text": "A cell."}],
    }
    for name, parts in corpus.CORPORA.items():
        folder = tmp_path / "corpora" / name
        folder.mkdir(parents=True)
        for part in parts:
            with gzip.open(folder / f"{part}.jsonl.gz", "wt", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in (rows[name] if part == parts[0] else []))
    monkeypatch.setattr(corpus, "build_docs", lambda cache: DocsCorpus(["A doc.", held], ["B", "C"], {}))
    loaded = corpus.load(tmp_path)
    assert loaded.train == {
        "docs": ["A doc."],
        "classics": [],
        "gutenberg": [short],
        "physics": ["A body at rest."],
        "biology": ["A cell."],
    }
    assert loaded.held_out["docs, held out"] == ["B", "C"]
    assert loaded.facts["train"]["classics"] == {"documents": 0, "bytes": 0, "left_out": 1}
    assert loaded.train_documents().count("A doc.") == corpus.DOCS_COPIES


def test_text_that_the_model_may_have_been_trained_on_is_not_judged(corpus: ModuleType) -> None:
    facts = {"held_out": "by hash", "docs": {"digest": "sha256:1"}}
    loaded = corpus.LmCorpus({}, {corpus.DOCS: ["a"], "A-Novel": ["b"]}, facts)
    assert loaded.unseen({"data": facts}) == loaded.held_out
    for other in (
        None,
        {"data": {}},
        {"data": facts | {"held_out": "by other hash"}},
        {"data": facts | {"docs": {"digest": "2"}}},
    ):
        assert loaded.unseen(other) == {"A-Novel": ["b"]}


def test_first_bytes_counts_utf8(corpus: ModuleType) -> None:
    assert corpus.first_bytes(["ab", "é", "c"], 4) == ["ab", "é"]
    assert corpus.first_bytes(["ab", "é", "c"], 3) == ["ab"]
