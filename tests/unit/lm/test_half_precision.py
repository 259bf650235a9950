"""What a model in half precision does to scores: less than another seed of the SAE does."""

from __future__ import annotations

import email.message
import gzip
import inspect
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from saebench.api import ActivationBatch, AfterStep, Site, StepInfo
from saebench.api.specs import resolve
from saebench.cells.cell import TrainSettings
from saebench.cells.load import LoadSettings
from saebench.lm.model import LanguageModel
from saebench.nn import loss_and_grad, total_variance
from saebench.train.optimiser import Optimiser
from saebench_plugins.topk.plugin import saebench_architectures

(SPEC,) = saebench_architectures()
STEPS, BATCH, CONTEXT, SEEDS = 120, 256, 64, (0, 1, 2)
WINDOWS = 160
"""A fifth of them is held out."""

MODELS = {
    "docs-lm": ("model.layers.2", 256),
    "stories260k": ("model.layers.2", 256),
    "prose-6m": ("model.layers.3", 1024),
}
"""Hookpoint, and width of the SAE."""


def text_of(name: str, material: Callable[[], Path]) -> tuple[str, str]:
    """Where the model is, and text of the kind that it was trained on."""
    if name == "docs-lm":
        return name, inspect.getsource(email.message) + inspect.getsource(inspect)
    corpus = {"stories260k": "tinystories/valid.jsonl.gz", "prose-6m": "classics/part1.jsonl.gz"}[name]
    with gzip.open(material() / "corpora" / corpus, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(200), strict=False)]
    return str(material() / "models" / name), "\n".join(texts)[:60_000]


def train(x: Tensor, seed: int, d_sae: int) -> Any:
    """A TopK SAE after some hundred steps on rows `x [R, d]`, as the harness trains it."""
    width, total = x.shape[1], STEPS * BATCH
    generator = torch.Generator().manual_seed(seed)
    sae: Any = resolve(SPEC.build)(SPEC.config(d_sae=d_sae, k=16), site=Site(width, width), generator=generator)
    sae.init_from_data(x[:4096], generator)
    settings = TrainSettings(BATCH, 2e-3, (0.9, 0.999), 1e-8, clip=1.0, warmup=0.05, decay=0.2, normalise="none")
    optimiser = Optimiser(sae, settings, "half")
    order = torch.Generator().manual_seed(1)
    for index in range(STEPS):
        rows = x[torch.randint(0, len(x), (BATCH,), generator=order)]
        batch, step = ActivationBatch(rows, rows), StepInfo(index, index / STEPS, index * BATCH, total)
        terms = loss_and_grad(sae, batch, step)
        optimiser.step(index / STEPS, (index + 1) / STEPS)
        sae.after_step(AfterStep(batch, terms, step, generator, optimiser.reset_moments))
    return sae


@torch.no_grad()
def fvu(sae: Any, x: Tensor) -> float:
    return float((sae.decode(sae.encode(x)) - x).square().sum(1).mean()) / total_variance(x)


@pytest.mark.parametrize(
    "name", ["docs-lm", *(pytest.param(name, marks=pytest.mark.slow) for name in ("stories260k", "prose-6m"))]
)
def test_half_precision_moves_fvu_by_less_than_another_seed(name, request):
    model, text = text_of(name, lambda: request.getfixturevalue("material"))
    hookpoint, d_sae = MODELS[name]
    rows: dict[str, Tensor] = {}
    for dtype in ("float32", "bfloat16", "float16"):
        lm = LanguageModel.load(model, load=LoadSettings(dtype=dtype))
        ids = torch.tensor(lm.encode(text)[: WINDOWS * (CONTEXT - 1)]).view(WINDOWS, CONTEXT - 1)
        windows = torch.cat([torch.full((WINDOWS, 1), lm.bos_id), ids], dim=1)
        rows[dtype] = lm.activations(windows, hookpoint)[:, 1:].reshape(-1, lm.facts.d_model)
    scale = rows["float32"].square().sum(1).mean().sqrt() / rows["float32"].shape[1] ** 0.5
    cut = len(rows["float32"]) * 4 // 5
    parts = {dtype: (x[:cut] / scale, x[cut:] / scale) for dtype, x in rows.items()}
    saes = [train(parts["float32"][0], seed, d_sae) for seed in SEEDS]
    scores = [fvu(sae, parts["float32"][1]) for sae in saes]
    noise = statistics.stdev(scores)
    assert max(scores) < 0.7, "the case is real: it learned"
    for dtype in ("bfloat16", "float16"):
        moved = [abs(fvu(sae, parts[dtype][1]) - score) for sae, score in zip(saes, scores, strict=True)]
        assert 0 < max(moved) < noise, dtype
    # trained on the other activations, an SAE is another one, as with another seed: three of each tell no more
    own = [fvu(train(parts["bfloat16"][0], seed, d_sae), parts["bfloat16"][1]) for seed in SEEDS]
    assert abs(statistics.mean(own) - statistics.mean(scores)) < 4 * noise
