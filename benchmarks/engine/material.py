"""What is trained and what it is trained on: cells, vectors, models with random weights, token streams."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from saebench.activations.sources.run_data import RunData
from saebench.api import DatasetSpec, Document
from saebench.artifacts import RunFolder, digest
from saebench.base.random import generator
from saebench.cells.cell import ArchitectureUse, Cell, DatasetUse, EvaluationSettings, ModelUse, TrainSettings
from saebench.cells.plan import ActivationUse, Cohort
from saebench.host import Catalog
from saebench.lm.facts import describe_model


@dataclass(frozen=True)
class Shape:
    """Sizes of one training step."""

    d_in: int
    d_sae: int
    k: int
    batch: int

    def __str__(self) -> str:
        return f"d_in {self.d_in}, d_sae {self.d_sae}, k {self.k}, batch {self.batch}"


@dataclass(frozen=True)
class Setting:
    """How a case is to be measured.

    Attributes:
        rounds: Figures a row.
        small: Shrunken sizes, to see whether it runs.
        device: Where.
        scratch: An empty folder.
        catalog: Installed plugins.
    """

    rounds: int
    small: bool
    device: torch.device
    scratch: Path
    catalog: Catalog


# --- cells ------------------------------------------------------------------------------------------------------------


def topk_cell(shape: Shape, catalog: Catalog, *, steps: int, seed: int = 0, decay: float = 0.0) -> Cell:
    """A TopK cell with AuxK on. No latent is dead before its end, so that every step is an ordinary one."""
    spec = catalog.architecture("topk").spec
    defaults = spec.train
    lr = defaults.lr * (defaults.reference_width / shape.d_sae) ** 0.5
    train = TrainSettings(shape.batch, lr, defaults.betas, defaults.eps, defaults.clip, 0.0, decay, "rms")
    config = {"d_sae": shape.d_sae, "k": shape.k, "dead_window": 1.0}
    return Cell(
        cell_id=f"cell-{seed}", score_id="s", suite="engine", entry="topk", point="default", sweep={}, where="engine",
        part=ArchitectureUse("topk", spec.version, config), base=None, d_in=shape.d_in, d_out=shape.d_in,
        d_sae=shape.d_sae, tags=(), model=None, dataset=vectors(shape.d_in),
        evaluation=EvaluationSettings((), 1, 1, 1, (0,)), evaluation_datasets=(), init_seed=seed, data_seed=0,
        parent=None, train=train, tokens=steps * shape.batch, control=False, expected_l0=None, cohort="c", group="g",
    )  # fmt: skip


# --- data -------------------------------------------------------------------------------------------------------------


def vectors(d_in: int) -> DatasetUse:
    """Sparse features with Zipf frequencies, as the dataset plugin `synthetic` makes them."""
    options = {"d_in": d_in, "n_features": 8 * d_in, "active": min(24.0, d_in / 2)}
    return DatasetUse("vectors", "synthetic", "1", "synthetic", options, digest(options))


RANDOM_TOKENS = DatasetUse("random-tokens", "random-tokens", "1", "generated", {}, digest("random-tokens"))
TOPICS = DatasetUse("topics", "topics", "1", "text", {}, digest("topics"))


@dataclass(frozen=True)
class _NoOptions:
    pass


class _RandomTokens:
    """Full windows of random ordinary tokens: each window is as many rows as it is long."""

    def __init__(self, _options: _NoOptions, context: Any) -> None:
        self._context = context

    def sequences(self, split: str, n_tokens: int) -> Iterator[Tensor]:
        draws, length = generator("random-tokens", split), self._context.length
        for _ in range(math.ceil(n_tokens / length)):
            yield torch.randint(2, self._context.model.facts.vocab_size, (length,), generator=draws)

    def manifest(self) -> Mapping[str, Any]:
        return {}


class _Topics:
    """Python's own help topics: prose of the kind that the built-in model knows, there wherever Python is."""

    def __init__(self, _options: _NoOptions, _context: Any) -> None:
        pass

    def documents(self) -> Iterator[Document]:
        from pydoc_data.topics import topics

        for name, text in topics.items():
            yield Document(text, name)

    def manifest(self) -> Mapping[str, Any]:
        return {}


_SPECS = {
    "random-tokens": DatasetSpec(
        "random-tokens", "1", _NoOptions, "generated", lambda *found: _RandomTokens(*found), uses_model=True
    ),
    "topics": DatasetSpec("topics", "1", _NoOptions, "text", lambda *found: _Topics(*found)),
}


class _Catalog:
    """The installed plugins, and the two datasets above."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def dataset(self, name: str) -> Any:
        return SimpleNamespace(spec=_SPECS[name]) if name in _SPECS else self._catalog.dataset(name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)


def sources(setting: Setting, name: str, *uses: DatasetUse) -> RunData:
    """A run folder's data."""
    catalog: Any = _Catalog(setting.catalog)
    return RunData(
        {use.name: use for use in uses}, run=RunFolder(setting.scratch / name), catalog=catalog, device=setting.device
    )  # fmt: skip


def cohort(
    dataset: DatasetUse,
    d_in: int,
    tokens: int,
    *,
    model: ModelUse | None = None,
    shuffle: int = 65_536,
    dtype: str = "float32",
    live: bool = False,
) -> Cohort:
    """What `RunData.training` is asked for."""
    return Cohort(
        key="c", model=model, dataset=dataset, data_seed=0, batch=1, tokens=tokens, dtype=dtype, cells=(), d_in=d_in,
        shuffle=shuffle, activations=ActivationUse("live" if live else "store"),
    )  # fmt: skip


# --- models -----------------------------------------------------------------------------------------------------------


def make_gpt2(folder: Path, *, n_layers: int, width: int, inner: int, vocab: int, context: int) -> Path:
    """A GPT-2 with random weights, beside a tokenizer of 300 tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from saebench.testing.models import make_tokenizer

    config = GPT2Config(
        vocab_size=vocab, n_positions=context, n_embd=width, n_layer=n_layers, n_head=max(1, width // 64),
        n_inner=inner, bos_token_id=0, eos_token_id=1
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):  # transformers draws from the global generator
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def at(model: Path | str, hookpoint: str, context: int) -> ModelUse:
    """A model, by folder or id, at one hookpoint."""
    facts = describe_model(str(model))
    return ModelUse(str(model), None, facts.digest, facts.hookpoint(hookpoint).path, hookpoint, context)
