"""Trains the decoders of the scaling table: pairs of TopK SAEs of one site that differ in their seed alone.

Activations of a real language model on real text, read once and shared by all sizes. The larger the dictionary the
fewer
tokens a latent gets: the large pairs are under-trained, which is the hard case for matching (few latents have a
partner).
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path

import click
import torch
from safetensors.torch import save_file
from torch import Tensor

from saebench.api import ActivationBatch, Site, StepInfo
from saebench.cells.cell import TrainSettings
from saebench.nn import loss_and_grad
from saebench.train.optimiser import Optimiser
from saebench_plugins.topk.model import build
from saebench_plugins.topk.plugin import TopKConfig

CONTEXT = 256
BATCH = 2048
STEPS = {16_384: 1000, 32_768: 800, 65_536: 700, 131_072: 300}


def documents(folder: Path) -> Iterator[str]:
    """Texts of all jsonl.gz files of a folder, in name order."""
    for path in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)["text"]


@torch.no_grad()
def activations(model_folder: Path, texts: Path, layer: int, n_rows: int) -> Tensor:
    """`[n_rows, d]` float32 outputs of decoder block `layer`, first positions left out, shuffled, scaled to mean square
    1.
    """
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModel.from_pretrained(model_folder, dtype=torch.float32).eval()
    ids = (token for text in documents(texts) for token in tokenizer(text, add_special_tokens=False).input_ids)
    rows: list[Tensor] = []
    n = 0
    while n < n_rows:
        window = [tokenizer.bos_token_id or 0]
        batch = [window + [next(ids) for _ in range(CONTEXT - 1)] for _ in range(32)]
        hidden = model(input_ids=torch.tensor(batch), output_hidden_states=True).hidden_states[layer + 1]
        rows.append(hidden[:, 1:].reshape(-1, hidden.shape[-1]).clone())
        n += rows[-1].shape[0]
    x = torch.cat(rows)[:n_rows]
    x = x[torch.randperm(n_rows, generator=torch.Generator().manual_seed(0))]
    return x / x.square().mean().sqrt()


def train(x: Tensor, d_sae: int, k: int, seed: int, steps: int) -> dict[str, Tensor]:
    """Decoder and encoder of one SAE, and how often each latent fired in the last tenth of training."""
    generator = torch.Generator().manual_seed(seed)
    # no latent counts as dead before the end: AuxK would cost more than all the rest at these sizes
    sae = build(TopKConfig(d_sae=d_sae, k=k, dead_window=1.0), site=Site(x.shape[1], x.shape[1]), generator=generator)
    sae.init_from_data(x[:32768], generator)
    lr = 2e-4 * (16_384 / d_sae) ** 0.5 * 4
    settings = TrainSettings(BATCH, lr, (0.9, 0.999), 1e-8, clip=1.0, warmup=0.05, decay=0.2, normalise="none")
    optimiser = Optimiser(sae, settings, f"d_sae {d_sae} seed {seed}")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(100 + seed))
    fired = torch.zeros(d_sae, dtype=torch.long)
    started = time.perf_counter()
    for step in range(steps):
        at = (step * BATCH) % (len(x) - BATCH)
        rows = x[order[at : at + BATCH]]
        info = StepInfo(step, step / steps, step * BATCH, steps * BATCH)
        terms = loss_and_grad(sae, ActivationBatch(rows, rows), info)
        optimiser.step(step / steps, (step + 1) / steps)
        if step >= steps - steps // 10:
            fired += torch.bincount(sae.encode(rows).latents, minlength=d_sae)
        if step % 50 == 0 or step == steps - 1:
            click.echo(
                f"d_sae {d_sae} seed {seed} step {step}: loss {float(terms.reconstruction.mean()):.4f}, "
                f"{time.perf_counter() - started:.0f} s",
                err=True,
            )
    return {"W_dec": sae.W_dec.detach().clone(), "W_enc": sae.W_enc.detach().clone(), "fired": fired}


@click.command()
@click.option("--material", type=click.Path(path_type=Path, exists=True), envvar="SAEBENCH_MATERIAL", required=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/matching/decoders"))
@click.option("--sizes", default="16384,32768,65536,131072")
@click.option("--k", default=8)
@click.option("--layer", default=3)
@click.option("--tokens", default=1_000_000)
def main(material: Path, out: Path, sizes: str, k: int, layer: int, tokens: int) -> None:
    """Writes OUT/<size>-s<seed>.safetensors with W_dec, W_enc `[d_sae, 256]` for two seeds of each size; skips what is
    there.
    """
    out.mkdir(parents=True, exist_ok=True)
    x = activations(material / "models" / "prose-6m", material / "corpora" / "classics", layer, tokens)
    for size in map(int, sizes.split(",")):
        for seed in (0, 1):
            path = out / f"{size}-s{seed}.safetensors"
            if not path.is_file():
                weights = train(x, size, k, seed, STEPS.get(size, 1000))
                save_file(weights, path.with_suffix(".tmp"))
                path.with_suffix(".tmp").replace(path)


if __name__ == "__main__":
    main()
