"""The language model inside the package: its files, its tokenizer, and that it has learnt English."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import sys
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from saebench.api import split_of
from saebench_plugins.core_datasets.docs import corpus as docs_corpus
from saebench_plugins.core_datasets.docs.catalogue import Source

FOLDER = Path(str(files("saebench") / "lm" / "docs_lm"))
EVALUATE = Path(__file__).parents[3] / "benchmarks" / "docs_lm" / "evaluate.py"


@pytest.fixture(scope="module")
def evaluate() -> Iterator[ModuleType]:
    """`benchmarks/docs_lm/evaluate.py`, which is beside the tests in the repository."""
    monkeypatch = pytest.MonkeyPatch()
    spec = importlib.util.spec_from_file_location("docs_lm_evaluate", EVALUATE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "docs_lm_evaluate", module)  # dataclasses look there
    spec.loader.exec_module(module)
    yield module
    monkeypatch.undo()


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


@cache
def load_tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture
def tokenizer() -> Any:
    return load_tokenizer()


def test_files_are_small_and_hold_no_corpus() -> None:
    names = {path.name for path in FOLDER.iterdir()} - {"__init__.py", "__pycache__"}
    assert names == {
        "MODEL_CARD.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) <= 8 * 2**20


def test_architecture(model: Any) -> None:
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    assert config["num_hidden_layers"] >= 4
    assert config["tie_word_embeddings"] is True
    assert (config["bos_token_id"], config["eos_token_id"]) == (0, 1)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 3_800_000
    with safe_open(FOLDER / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}  # noqa: SIM118


def test_special_tokens(tokenizer: Any, model: Any) -> None:
    assert len(tokenizer) == model.config.vocab_size
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 1)
    plain = tokenizer("A text.", add_special_tokens=False).input_ids
    assert tokenizer("A text.").input_ids == [0, *plain]
    assert not {0, 1} & set(plain)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "<s>" not in text and "</s>" not in text))
def test_tokenizer_gives_back_every_text(text: str) -> None:
    tokenizer = load_tokenizer()
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_beats_xz_on_held_out_docstrings(
    evaluate: ModuleType, model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small sample of the model card's measurement: documents of a few modules, held out from training."""
    monkeypatch.setattr(docs_corpus, "CATALOGUE", (Source("fsspec"), Source("pandas", ("pandas/core/indexes/",))))
    docs = docs_corpus.build_docs()
    digests = {text: hashlib.sha256(text.encode()).hexdigest() for text in docs.train + docs.held_out}
    documents = [text for text, digest in digests.items() if split_of(digest) == "held-out"][:60]
    score = evaluate.score(model, tokenizer, "docs", documents)
    assert score.n_bytes == len("".join(documents).encode()) > 10_000
    assert score.ratio < evaluate.BAR
    assert score.bits_per_byte < 2.2


def test_samples_are_english(evaluate: ModuleType, model: Any, tokenizer: Any) -> None:
    samples = [evaluate.sample(model, tokenizer, 60, seed) for seed in range(8)]
    words = [word.strip(".,;:!?\"'()“”‘’").lower() for text in samples for word in text.split()]
    common = {
        "the",
        "of",
        "and",
        "to",
        "a",
        "in",
        "is",
        "it",
        "that",
        "was",
        "for",
        "i",
        "he",
        "with",
        "as",
        "be",
        "his",
        "on",
        "by",
        "not",
        "at",
        "this",
        "you",
        "or",
        "have",
    }
    assert len(set(samples)) == len(samples)
    assert 0.2 < sum(word in common for word in words) / len(words) < 0.7
    assert samples[0] == evaluate.sample(model, tokenizer, 60, 0)


@pytest.mark.parametrize(
    ("n", "window", "stride"), [(5, 8, 4), (9, 8, 4), (10, 8, 4), (41, 8, 4), (40, 8, 3), (17, 8, 8)]
)
def test_stream_bits_charges_every_token_once(evaluate: ModuleType, n: int, window: int, stride: int) -> None:
    """Against a loop over tokens that asks the model for each one with the context the window gives it."""
    config = LlamaConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=window,
    )
    generator = torch.Generator().manual_seed(n)
    tiny = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in tiny.parameters():
            parameter.normal_(generator=generator)
    ids = torch.randint(11, (n,), generator=generator).tolist()
    charged = [i % 3 != 0 for i in range(n)]
    expected, shortest = 0.0, n
    done = 0
    while done < n - 1:
        end = min(n - 1, done + (stride if done else window))
        start = max(0, end - window)
        for position in range(done + 1, end + 1):
            shortest = min(shortest, position - start) if done else shortest
            with torch.no_grad():
                log_p = tiny(torch.tensor([ids[start:position]])).logits[0, -1].double().log_softmax(-1)
            expected -= charged[position] * float(log_p[ids[position]]) / math.log(2)
        done = end
    assert evaluate.stream_bits(tiny, ids, charged, stride, batch=2) == pytest.approx(expected, rel=1e-5)
    assert shortest > window - stride


def test_score_counts_bytes_exactly(evaluate: ModuleType, model: Any, tokenizer: Any) -> None:
    score = evaluate.score(model, tokenizer, "x", ["Größe", "déjà vu"])
    assert score.n_bytes == 7 + 9
    tokens = sum(len(tokenizer(text, add_special_tokens=False).input_ids) + 1 for text in ("Größe", "déjà vu"))
    assert score.n_tokens == tokens
    assert score.ratio == pytest.approx(score.bits_per_byte / score.xz_bits_per_byte)
