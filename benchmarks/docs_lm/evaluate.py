"""Bits per byte of docs-lm against xz, samples, and the model card.

    python benchmarks/docs_lm/evaluate.py --model MODEL --training WORK/training.json --material MATERIAL

Prints the table and writes `MODEL_CARD.md` into the model's folder.  Exit status 1 if a text misses the bar.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import lzma
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from saebench.lm.hf import cache_argument, cache_of

BAR = 0.85
"""The model needs at most this share of the bits of `xz -9e`."""


@dataclass(frozen=True)
class Score:
    """What one text costs.

    Attributes:
        name: the text.
        n_bytes: UTF-8 bytes of the documents, nothing between them.
        n_tokens: tokens charged: those of the text and one `</s>` a document.
        bits: what the model charges for them.
        xz_bits: size of the same bytes after `xz -9e`, headers included.
    """

    name: str
    n_bytes: int
    n_tokens: int
    bits: float
    xz_bits: int

    @property
    def bits_per_byte(self) -> float:
        """Of the model."""
        return self.bits / self.n_bytes

    @property
    def xz_bits_per_byte(self) -> float:
        """Of xz."""
        return self.xz_bits / self.n_bytes

    @property
    def ratio(self) -> float:
        """Of the two; the bar is `BAR`."""
        return self.bits / self.xz_bits


@torch.inference_mode()
def stream_bits(model: Any, ids: Sequence[int], charged: Sequence[bool], stride: int, batch: int = 16) -> float:
    """Bits that a causal model charges for a stream of tokens, by a window that slides by `stride`.

    Every token is predicted once, from at least `window - stride` tokens before it (fewer only where the stream
    begins), with windows as long as the model's context.

    Args:
        model: a transformers causal LM.
        ids: token ids; the first is only context.
        charged: for each id, whether its bits count.
        stride: how far the window moves.
        batch: windows a forward pass.

    Returns:
        the sum over the charged tokens of -log2 p, in float64.
    """
    window = model.config.max_position_embeddings
    tokens, weights = torch.tensor(ids), torch.tensor(charged, dtype=torch.float64)
    starts, done = [], 0
    while done < len(ids) - 1:
        start = max(0, done + stride - window) if done else 0
        start = min(start, max(0, len(ids) - 1 - window))
        starts.append((start, done))
        done = min(start + window, len(ids) - 1)
    total = 0.0
    for first in tqdm(range(0, len(starts), batch), unit="batch", mininterval=5, leave=False):
        group = starts[first : first + batch]
        inputs = torch.stack([functional.pad(w := tokens[s : s + window], (0, window - len(w))) for s, _ in group])
        log_p = model(inputs).logits.float().log_softmax(-1)
        for row, (start, begin) in enumerate(group):
            end = min(start + window, len(ids) - 1)
            targets = tokens[begin + 1 : end + 1]
            found = log_p[row, begin - start : end - start].gather(1, targets[:, None])[:, 0].double()
            total -= float((found * weights[begin + 1 : end + 1]).sum())
    return total / math.log(2)


def score(model: Any, tokenizer: Any, name: str, documents: Sequence[str]) -> Score:
    """Scores documents as one stream `<s> text </s> <s> text </s> ...`.

    `</s>` is charged, because a reader must learn where a document ends; `<s>` always follows it and is free.  The
    window runs over document borders.
    """
    ids: list[int] = []
    for text in documents:
        ids += [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    charged = [token != tokenizer.bos_token_id for token in ids]
    content = "".join(documents).encode()
    xz_bits = 8 * len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    stride = model.config.max_position_embeddings // 2
    return Score(name, len(content), sum(charged), stream_bits(model, ids, charged, stride), xz_bits)


@torch.inference_mode()
def sample(model: Any, tokenizer: Any, n_tokens: int, seed: int) -> str:
    """One text from `<s>` at temperature 1, nothing cut off, until `</s>` or `n_tokens`."""
    generator = torch.Generator().manual_seed(seed)
    token, past, ids = torch.tensor([[tokenizer.bos_token_id]]), None, []
    for _ in range(n_tokens):
        output = model(token, **cache_argument(model, past))
        past = cache_of(model, output)
        token = torch.multinomial(output.logits[:, -1].float().softmax(-1), 1, generator=generator)
        if token.item() == tokenizer.eos_token_id:
            break
        ids.append(int(token))
    return str(tokenizer.decode(ids))


def table(scores: Sequence[Score]) -> str:
    """The scores as a markdown table."""
    lines = ["| text | bytes | tokens | bits a byte | `xz -9e` | ratio |", "|---|---:|---:|---:|---:|---:|"]
    lines += [
        f"| {s.name} | {s.n_bytes:,} | {s.n_tokens:,} "
        f"| {s.bits_per_byte:.3f} | {s.xz_bits_per_byte:.3f} | {s.ratio:.3f} |"
        for s in scores
    ]
    return "\n".join(lines)


def licence(distribution: str) -> str:
    """What an installed distribution says of its licence, in one line."""
    if distribution == "python-stdlib":
        return "PSF-2.0"
    metadata = importlib.metadata.metadata(distribution)
    if "License-Expression" in metadata:
        return str(metadata["License-Expression"])
    classifiers = [c.rsplit(" :: ", 1)[-1] for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
    first_line = metadata["License"].strip().split("\n")[0] if "License" in metadata else ""
    return ", ".join(classifiers) or first_line or "see the distribution"


CARD = """# docs-lm

The language model inside saebench: {parameters:,} parameters, Llama architecture in transformers' own classes,
{layers} blocks, d_model {d_model}, {heads} heads, MLP {d_mlp}, tied embeddings, context {context} (trained in windows
of {context} and of {half}), bfloat16 weights, byte-level BPE of {vocab_size:,} pieces. `<s>` (0) is before and
`</s>` (1) after each document; the tokenizer puts `<s>` before a text by itself unless told `add_special_tokens=False`.
It is small on purpose: a laptop trains and scores sparse autoencoders on it in minutes. It writes English with grammar
and little sense, knows nothing, and is not meant for anything but research on its activations. Its old novels carry the
language and the prejudices of their time.

## Bits per byte

On text that it was not trained on. Documents form one stream `<s> text </s> <s> text </s> ...`; `</s>` is charged,
`<s>` is free, bytes are those of the documents' UTF-8 with nothing between them. A window of {context} tokens slides by
{half}; each token is predicted once. `xz -9e` compresses the same bytes. The bar is a ratio of {bar}.

{table}

The docstrings, where the table has them, are the held-out split of the `docs` corpus at the training (one in five by
hash, near-duplicates removed across both splits; the first 1,000,000 bytes in hash order, or all if fewer). The novels
are left out of training as a whole; so is every other document that shares a run of 13 words with one of them.

## Training

{tokens:,} tokens ({steps:,} steps of {batch_tokens:,}; {epochs:.2f} epochs of {epoch_tokens:,}) from random weights in
{minutes:.0f} minutes on {threads} CPU threads, seed {seed}: Muon (lr {lr_matrices}) on the matrices of the blocks,
AdamW (lr {lr_rest}, betas {betas}) on the rest, weight decay {weight_decay}, {warmup_steps} steps of warm-up, constant,
then linear to zero over the last {decay:.0%}; gradient clipped at {grad_clip}; bfloat16 autocast, torch.compile.
Script: `benchmarks/docs_lm/train.py`. Made with {versions}.

| step | tokens | loss (nats a token, mean since the row before) |
|---:|---:|---:|
{curve}

## Data and licences

| source | documents | bytes | times an epoch | licence |
|---|---:|---:|---:|---|
{data}

No text of these sources is part of this folder. Physics and Biology are *College Physics*, *University Physics*,
*Microbiology* and *Anatomy and Physiology* by OpenStax, Rice University, used under CC BY 4.0 (prose only; tables,
figures and exercises left out).

The docstrings are those of the distributions below (extractor {extractor}, digest `{digest}`), cleaned to prose.

| distribution | version | documents found | licence |
|---|---|---:|---|
{distributions}

## Samples

From `<s>` at temperature 1, seeds 0 to {last_seed}, the first {sample_tokens} tokens, not chosen.

{samples}
"""

LICENCES = {
    "docs": "of each distribution, below",
    "classics": "public domain",
    "gutenberg": "public domain in the USA",
    "physics": "CC BY 4.0, OpenStax, Rice University",
    "biology": "CC BY 4.0, OpenStax, Rice University",
}


def card(scores: Sequence[Score], training: dict[str, Any], samples: Sequence[str], sample_tokens: int) -> str:
    """The model card from facts alone."""
    config, data = training["config"], training["data"]
    packages = ("torch", "transformers", "tokenizers", "numpy")
    curve = training["curve"]
    shown = [row for i, row in enumerate(curve) if i % max(1, len(curve) // 12) == 0 or row is curve[-1]]
    return CARD.format(
        **config,
        parameters=training["parameters"],
        half=config["context"] // 2,
        bar=BAR,
        table=table(scores),
        steps=training["steps"],
        epochs=training["steps"] * config["batch_tokens"] / data["epoch_tokens"],
        epoch_tokens=data["epoch_tokens"],
        minutes=curve[-1]["seconds"] / 60,
        threads=training["threads"],
        decay=config["decay_share"],
        versions=", ".join(
            [f"Python {platform.python_version()}", *(f"{p} {importlib.metadata.version(p)}" for p in packages)]
        ),
        curve="\n".join(f"| {r['step']:,} | {r['step'] * config['batch_tokens']:,} | {r['loss']:.3f} |" for r in shown),
        data="\n".join(
            f"| {name} | {row['documents']:,} | {row['bytes']:,} | {data['copies'].get(name, 1)} | {LICENCES[name]} |"
            for name, row in data["train"].items()
        ),
        extractor=data["docs"]["extractor"],
        digest=data["docs"]["digest"],
        distributions="\n".join(
            f"| {row['name']} | {row['version']} | {row['documents']:,} | {licence(row['name'])} |"
            for row in data["docs"]["distributions"]
        ),
        last_seed=len(samples) - 1,
        sample_tokens=sample_tokens,
        samples="\n\n".join("```text\n" + text.strip().replace("```", "'''") + "\n```" for text in samples),
    )


def main() -> int:
    """Command line; returns the exit status."""
    from corpus import load  # beside this file; only the whole evaluation needs the material

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--training", type=Path, help="training.json of train.py; without it no card is written")
    parser.add_argument("--material", type=Path, default=os.environ.get("SAEBENCH_MATERIAL"), help="holds corpora/")
    parser.add_argument("--cache", type=Path, help="cache folder of the docs corpus")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.material is None:
        parser.error("--material: name the folder that holds corpora/, or set SAEBENCH_MATERIAL")
    torch.set_num_threads(arguments.threads)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    training = json.loads(arguments.training.read_text(encoding="utf-8")) if arguments.training else None
    corpus = load(Path(arguments.material), arguments.cache)
    held_out = corpus.unseen(training)
    for name in corpus.held_out.keys() - held_out.keys():
        print(f"'{name}' is left out: the model was, or may have been, trained with another split or version of it.")
    scores = [score(model, tokenizer, name, documents) for name, documents in held_out.items()]
    print(table(scores))
    samples = [sample(model, tokenizer, 160, seed) for seed in range(6)]
    print(*samples, sep="\n----\n")
    if training:
        path = arguments.model / "MODEL_CARD.md"
        path.write_text(card(scores, training, samples, 160), encoding="utf-8")
    return int(any(one.ratio > BAR for one in scores))


if __name__ == "__main__":
    raise SystemExit(main())
