"""Trains docs-lm, the language model inside saebench, from scratch.

    python benchmarks/docs_lm/train.py --work WORK --material MATERIAL

The work folder receives the tokenizer, the tokens, `checkpoint.pt` (training goes on from there), `curve.jsonl` and at
the end, or on `--export-only`, the model in transformers' layout under `model/`.  The length is a number of tokens, so
that the result does not depend on how fast the machine is.  `evaluate.py` measures the model and writes its card.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpus import DOCS_COPIES, LmCorpus, load
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONFIG: dict[str, Any] = {
    "seed": 0,
    "vocab_size": 4096,
    "layers": 6,
    "d_model": 192,
    "d_mlp": 512,
    "heads": 6,
    "context": 512,  # every second step is cut into windows of half this length
    "batch_tokens": 8192,
    "tokens": 30_000_000,
    "warmup_steps": 100,
    "decay_share": 0.35,  # of all steps, at the end, linearly to zero
    "lr_matrices": 3e-3,  # Muon, update scaled to AdamW's size
    "lr_rest": 3e-3,  # AdamW: embedding and gains
    "betas": (0.9, 0.95),
    "weight_decay": 0.1,
    "grad_clip": 1.0,
}
CHECKPOINT_STEPS = 200


def train_tokenizer(corpus: LmCorpus, vocab_size: int) -> Tokenizer:
    """A byte-level BPE: `<s>` is 0 and is put before each text, `</s>` is 1; decoding gives back every text exactly."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus.train_documents(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    return tokenizer


def for_transformers(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer in transformers' class."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        model_max_length=CONFIG["context"],
        clean_up_tokenization_spaces=False,
    )


def tokenize(tokenizer: Tokenizer, documents: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """All documents as `<s> ... </s>` in one array of ids, and where each begins (with the end as last entry)."""
    ids: list[np.ndarray] = []
    for start in range(0, len(documents), 1000):
        encodings = tokenizer.encode_batch(documents[start : start + 1000])
        ids += [np.array([*encoding.ids, 1], dtype=np.uint16) for encoding in encodings]
    return np.concatenate(ids), np.cumsum([0, *(len(one) for one in ids)])


def epoch_windows(tokens: np.ndarray, starts: np.ndarray, length: int, seed: int, epoch: int) -> np.ndarray:
    """One epoch as `[n_windows, length + 1]`: documents in a new order, packed, cut anew, windows shuffled."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(starts) - 1)
    stream = np.concatenate([tokens[starts[i] : starts[i + 1]] for i in order])
    stream = stream[int(rng.integers(length)) :]
    n_windows = (len(stream) - 1) // length
    windows = np.lib.stride_tricks.sliding_window_view(stream, length + 1)[::length][:n_windows]
    return windows[rng.permutation(n_windows)]


def new_model(config: dict[str, Any]) -> LlamaForCausalLM:
    """The model with random weights from an explicit generator (residual projections scaled down by depth)."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config["vocab_size"],
            hidden_size=config["d_model"],
            intermediate_size=config["d_mlp"],
            num_hidden_layers=config["layers"],
            num_attention_heads=config["heads"],
            num_key_value_heads=config["heads"],
            max_position_embeddings=config["context"],
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    generator = torch.Generator().manual_seed(config["seed"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                parameter.normal_(0.0, 0.02 / math.sqrt(2 * config["layers"] if deep else 1), generator=generator)
    return model


def rate_share(step: int, steps: int, config: dict[str, Any]) -> float:
    """Share of the full rate: warm-up, constant (whatever the length of the run will be), linear decay to zero."""
    return float(min(1.0, (step + 1) / config["warmup_steps"], (steps - step) / (config["decay_share"] * steps)))


def optimizers(model: LlamaForCausalLM, config: dict[str, Any]) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024) for the matrices of the blocks, AdamW for the embedding and the gains."""
    blocks = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    embedding = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" in name]
    gains = [p for p in model.parameters() if p.ndim != 2]
    decay = config["weight_decay"]
    muon = torch.optim.Muon(blocks, lr=config["lr_matrices"], weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(
        [{"params": embedding, "weight_decay": decay}, {"params": gains, "weight_decay": 0.0}],
        lr=config["lr_rest"],
        betas=config["betas"],
    )
    return [muon, adamw]


def loss_on(model: torch.nn.Module, windows: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats of `[batch, length + 1]` token ids, computed in float32 from bfloat16 logits."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(windows[:, :-1]).logits
    return functional.cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten())


def halves(windows: torch.Tensor) -> torch.Tensor:
    """`[n, 2L + 1]` to `[2n, L + 1]`: both halves of each window, the token between them in both."""
    length = (windows.shape[1] - 1) // 2
    return torch.cat([windows[:, : length + 1], windows[:, length:]])


def save_atomically(path: Path, state: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def export(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes bf16 safetensors, configs and tokenizer; `model` keeps its own precision."""
    copy = LlamaForCausalLM(model.config).to(torch.bfloat16)
    copy.load_state_dict({name: value.to(torch.bfloat16) for name, value in model.state_dict().items()})
    copy.save_pretrained(folder)
    for_transformers(tokenizer).save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors leaves its file to the owner alone


def prepared(work: Path, material: Path) -> tuple[Tokenizer, np.ndarray, np.ndarray, dict[str, Any]]:
    """Tokenizer, tokens, document starts and facts of the data: from the work folder if they are there."""
    if not (work / "facts.json").exists():
        corpus = load(material, work / "cache")
        tokenizer = train_tokenizer(corpus, CONFIG["vocab_size"])
        tokenizer.save(str(work / "tokenizer.json"))
        tokens, starts = tokenize(tokenizer, corpus.train_documents())
        np.save(work / "tokens.npy", tokens)
        np.save(work / "starts.npy", starts)
        digest = hashlib.sha256(tokens.tobytes()).hexdigest()
        facts = {**corpus.facts, "copies": {"docs": DOCS_COPIES}, "epoch_tokens": len(tokens), "tokens_sha256": digest}
        (work / "facts.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    facts = json.loads((work / "facts.json").read_text(encoding="utf-8"))
    return tokenizer, np.load(work / "tokens.npy"), np.load(work / "starts.npy"), facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for tokens, checkpoints and the result")
    parser.add_argument("--material", type=Path, default=os.environ.get("SAEBENCH_MATERIAL"), help="holds corpora/")
    parser.add_argument("--tokens", type=int, default=CONFIG["tokens"], help="length of the run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="torch.compile (faster, needs a C++ compiler)")
    parser.add_argument("--stop-after", type=int, help="stop after this many steps, as if interrupted (for trials)")
    parser.add_argument("--export-only", action="store_true", help="write the model of the last checkpoint and stop")
    arguments = parser.parse_args()
    if arguments.material is None:
        parser.error("--material: name the folder that holds corpora/, or set SAEBENCH_MATERIAL")
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    config = {**CONFIG, "tokens": arguments.tokens}
    steps = config["tokens"] // config["batch_tokens"]

    tokenizer, tokens, starts, facts = prepared(work, Path(arguments.material))
    model = new_model(config)
    optims = optimizers(model, config)
    full_rates = [[group["lr"] for group in optim.param_groups] for optim in optims]
    first, seconds, curve = 0, 0.0, []
    if (work / "checkpoint.pt").exists():
        state = torch.load(work / "checkpoint.pt", weights_only=True)
        model.load_state_dict(state["model"])
        for optim, saved in zip(optims, state["optimizers"], strict=True):
            optim.load_state_dict(saved)
        first, seconds, curve = state["step"], state["seconds"], state["curve"]
    if arguments.export_only:
        export(model, tokenizer, work / "model")
        return

    per_step = config["batch_tokens"] // config["context"]
    loss_of = torch.compile(loss_on, dynamic=False) if arguments.compile else loss_on
    epoch, windows, offset = -1, np.empty((0, 0)), 0
    recent: list[float] = []
    began = time.perf_counter()
    with tqdm(total=steps, initial=first, unit="step", mininterval=10) as bar:
        for step in range(min(steps, arguments.stop_after or steps)):
            if epoch < 0 or offset + per_step > len(windows):
                epoch, offset = epoch + 1, 0
                windows = epoch_windows(tokens, starts, config["context"], config["seed"], epoch)
            batch = windows[offset : offset + per_step]
            offset += per_step
            if step < first:
                continue
            ids = torch.from_numpy(batch.astype(np.int64))
            loss = loss_of(model, halves(ids) if step % 2 else ids)
            model.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config["grad_clip"])
            share = rate_share(step, steps, config)
            for optim, rates in zip(optims, full_rates, strict=True):
                for group, rate in zip(optim.param_groups, rates, strict=True):
                    group["lr"] = rate * share
                optim.step()
            recent.append(loss.item())
            bar.update()
            bar.set_postfix(loss=f"{np.mean(recent[-50:]):.3f}", refresh=False)
            if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == steps:
                total = seconds + time.perf_counter() - began
                curve.append({"step": step + 1, "loss": float(np.mean(recent)), "seconds": round(total)})
                recent.clear()
                save_atomically(
                    work / "checkpoint.pt",
                    {
                        "model": model.state_dict(),
                        "optimizers": [optim.state_dict() for optim in optims],
                        "step": step + 1,
                        "seconds": total,
                        "curve": curve,
                    },
                )
    if arguments.stop_after is None:
        export(model, tokenizer, work / "model")
        training = {
            "config": config,
            "parameters": sum(p.numel() for p in model.parameters()),
            "steps": steps,
            "curve": curve,
            "threads": arguments.threads,
            "compiled": arguments.compile,
            "torch": torch.__version__,
        }
        (work / "training.json").write_text(json.dumps({**training, "data": facts}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
