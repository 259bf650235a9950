"""Tiny language models with a tokenizer, made on the spot: for tests that need a model and no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

Family = Literal["gpt2", "gpt_neox", "llama", "bert"]

_TEXT = (
    "the quick brown fox jumps over the lazy dog while a small model learns to read and write short sentences about "
    "sockets, files and "
    "trees; every word here becomes a piece of its tokenizer, and whatever is not a piece falls back to bytes."
)


def make_tokenizer(vocab_size: int = 300) -> Any:
    """A byte-level BPE tokenizer with `<s>` (0) and `</s>` (1), trained on one paragraph; no padding token of its
    own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from saebench.lm import hf

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT], trainer)
    return hf.new_tokenizer(tokenizer, bos_token="<s>", eos_token="</s>")


def make_model(
    folder: str | Path,
    family: Family = "llama",
    *,
    d_model: int = 32,
    n_layers: int = 3,
    context: int = 64,
    seed: int = 0,
) -> Path:
    """Writes a randomly initialised model with its tokenizer into `folder`, in transformers' own layout.

    Args:
        folder: Made if it is not there.
        family: `bert` is an encoder; the others are causal.
        d_model, n_layers, context: Sizes.
        seed: Of the weights; global random state is left as it was.

    Returns:
        `folder`.
    """
    import torch

    from saebench.lm import hf

    tokenizer = make_tokenizer()
    common = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 1}
    shapes: dict[str, dict[str, Any]] = {
        "gpt2": {"n_embd": d_model, "n_layer": n_layers, "n_head": 4, "n_positions": context},
        "gpt_neox": {
            "hidden_size": d_model,
            "num_hidden_layers": n_layers,
            "num_attention_heads": 4,
            "intermediate_size": 2 * d_model,
            "max_position_embeddings": context,
        },
        "llama": {
            "hidden_size": d_model,
            "num_hidden_layers": n_layers,
            "num_attention_heads": 4,
            "intermediate_size": 2 * d_model,
            "max_position_embeddings": context,
            "tie_word_embeddings": True,
        },
        "bert": {
            "hidden_size": d_model,
            "num_hidden_layers": n_layers,
            "num_attention_heads": 4,
            "intermediate_size": 2 * d_model,
            "max_position_embeddings": context,
            "pad_token_id": 1,
        },
    }
    config = hf.new_config(family, **common, **shapes[family])
    # transformers initialises from the global generator: borrow it, and give it back as it was
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = hf.new_model(config, decoder=family != "bert")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
