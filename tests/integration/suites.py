"""Small suites on a tiny random model and a made-up text: seconds, not minutes."""

from __future__ import annotations

import random
from pathlib import Path

from saebench.testing import make_model

WORDS = [
    "socket",
    "file",
    "tree",
    "path",
    "walk",
    "read",
    "write",
    "open",
    "close",
    "node",
    "edge",
    "graph",
    "list",
    "map",
    "key",
    "value",
    "token",
    "model",
    "layer",
    "code",
    "test",
    "run",
    "plan",
]

SUITE = """
schema: 1
name: small
models:
  - {{id: {model}, hookpoints: [layers.1], context: 32}}
datasets:
  mine: {{plugin: local, path: {text}}}
  own: {{plugin: faithful, tokens: 4_000}}
  truth: {{plugin: synthetic, d_in: 16, n_features: 32}}
entries:
  - {{name: topk, architecture: topk, dataset: mine, config: {{d_sae: 64}}, sweep: {{k: [4, 8]}}}}
  - {{name: faithful, architecture: topk, dataset: own, config: {{d_sae: 64, k: 4}}}}
  - {{name: ssae, architecture: ssae, dataset: mine, init_from: {{entry: topk, at: {{k: 4}}}}, config: {{tilt: 1.0}}}}
  - {{name: truth, architecture: topk, dataset: truth, config: {{d_sae: 32, k: 4}}}}
train: {{batch: 256}}
evaluation: {{datasets: [mine], tokens: 1_000, loss_tokens: 500, density_tokens: 1_000}}
budget: {{primary: tokens, tokens: 4_000}}
seeds: {{init: [0, 1]}}
controls: true
"""

QUICK = """
schema: 1
name: quick
datasets:
  truth: {plugin: synthetic, d_in: 16, n_features: 32}
entries:
  - {name: topk, architecture: topk, dataset: truth, config: {d_sae: 32}, sweep: {k: [2, 4]}}
train: {batch: 256}
evaluation: {tokens: 1_000, density_tokens: 1_000}
budget: {primary: tokens, tokens: 4_000}
seeds: {init: [0, 1]}
"""


def text_file(path: Path, documents: int = 400) -> Path:
    """Documents of made-up sentences, parted by blank lines; the same every time."""
    rng = random.Random(0)
    path.write_text("\n\n".join(" ".join(rng.choices(WORDS, k=40)) + "." for _ in range(documents)))
    return path


def small_suite(folder: Path) -> Path:
    """Writes model, text and suite into `folder`; gives the suite file."""
    make_model(folder / "model", "llama")
    text_file(folder / "text.txt")
    suite = folder / "small.yaml"
    suite.write_text(SUITE.format(model=folder / "model", text=folder / "text.txt"))
    return suite


def quick_suite(folder: Path) -> Path:
    """Writes a suite without a language model, for tests that run it in a process of its own; gives the suite file."""
    suite = folder / "quick.yaml"
    suite.write_text(QUICK)
    return suite
