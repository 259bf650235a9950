"""Tiny models, made on the spot, and where helper modules are: beside the tests that they help.

pytest's importlib mode puts no test folder on the path.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
for folder in ("testing", "artifacts", "interop", "matching", "console", "compare"):
    sys.path.insert(0, str(Path(__file__).parent / folder))

WORDS = (
    "the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree", "and", "then", "it", "saw", "big", "red",
    "old", "new", "house", "river", "sun", "moon", "fish", "bird",
)  # fmt: skip


def make_tokenizer(folder: Path, *, bos: str | None, eos: str | None) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = sorted({token for token in (bos, eos) if token})
    vocabulary = {word: index for index, word in enumerate([*special, "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"bos_token": bos, "eos_token": eos, "unk_token": "<unk>"}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{key: value for key, value in names.items() if value}
    ).save_pretrained(folder)


def save_model(folder: Path, model_class: type, config) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
        for parameter in model.parameters():  # a random model of its own size is nearly flat: make it say something
            if parameter.ndim >= 2:
                parameter.data.mul_(8)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory) -> Path:
    """GPT-2: no BOS of its own, vocabulary padded beyond the tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("gpt2")
    make_tokenizer(folder, bos="<|endoftext|>", eos="<|endoftext|>")
    config = GPT2Config(n_layer=3, n_head=2, n_embd=16, n_positions=64, vocab_size=40, bos_token_id=0, eos_token_id=0)
    return save_model(folder, GPT2LMHeadModel, config)


@pytest.fixture(scope="session")
def neox(tmp_path_factory) -> Path:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    folder = tmp_path_factory.mktemp("neox")
    make_tokenizer(folder, bos="<s>", eos="</s>")
    config = GPTNeoXConfig(
        num_hidden_layers=3,
        num_attention_heads=2,
        hidden_size=16,
        intermediate_size=32,
        max_position_embeddings=64,
        vocab_size=32,
        bos_token_id=1,
        eos_token_id=0,
    )
    return save_model(folder, GPTNeoXForCausalLM, config)


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> Path:
    from transformers import BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("bert")
    make_tokenizer(folder, bos="[CLS]", eos="[SEP]")
    config = BertConfig(
        num_hidden_layers=2,
        num_attention_heads=2,
        hidden_size=16,
        intermediate_size=32,
        max_position_embeddings=64,
        vocab_size=32,
    )
    return save_model(folder, BertForMaskedLM, config)


@pytest.fixture
def model(neox: Path):
    import data_toys

    from saebench.lm.facts import describe_model

    facts = describe_model(str(neox))
    return data_toys.Model(str(neox), facts.digest, facts.hookpoint("layers.1").path)


@pytest.fixture
def encoder(bert: Path):
    import data_toys

    from saebench.lm.facts import describe_model

    facts = describe_model(str(bert))
    return data_toys.Model(str(bert), facts.digest, facts.hookpoint("layers.0").path)
