"""Toy datasets and stand-ins for the plan's objects; tests import this file as `data_toys` (see conftest.py)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from saebench.activations.sources.run_data import RunData
from saebench.api import ActivationBatch, DatasetSpec, Document, SparseCodes, document_digest
from saebench.artifacts import RunFolder
from saebench.base.random import generator


@dataclass(frozen=True)
class Options:
    n: int = 200
    leak: bool = False
    ending: str = ""


WORDS = (
    "the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree", "and", "then", "it", "saw", "big", "red",
    "old", "new", "house", "river", "sun", "moon", "fish", "bird",
)  # fmt: skip


class ToyText:
    def __init__(self, options, context):
        self.options, self.context = options, context

    def documents(self):
        draws = generator("toy")
        for number in range(self.options.n):
            chosen = torch.randint(len(WORDS), (12,), generator=draws).tolist()
            text = " ".join(WORDS[index] for index in chosen) + self.options.ending
            yield Document(text, f"toy[{number}]")

    def manifest(self):
        return {"documents": self.options.n}


class ToySamples:
    def __init__(self, options, context):
        self.options, self.context = options, context

    def sequences(self, split, n_tokens):
        model = self.context.model
        ids = model.sample(
            self.options.n,
            self.context.length,
            temperature=1.0,
            top_p=1.0,
            generator=generator("toy", "train" if self.options.leak else split),
        )
        self.context.meter.add(tokens=ids.numel(), flops=7)
        yield from ids

    def manifest(self):
        return {}


class ToyVectors:
    d_in = 4

    def __init__(self, options, context):
        self.dictionary = torch.eye(4)

    def n_tokens(self, split):
        return None

    def batches(self, split, n_tokens, batch, seed):
        draws = generator(split, seed)
        for start in range(0, n_tokens, batch):
            z = torch.rand(min(batch, n_tokens - start), 4, generator=draws).gt(0.5).float()
            yield ActivationBatch(z, z, truth=SparseCodes.from_dense(z))

    def manifest(self):
        return {"kind": "toy"}


SPECS = {
    "text": DatasetSpec("text", "1", Options, "text", ToyText),
    "generated": DatasetSpec("generated", "1", Options, "generated", ToySamples, uses_model=True),
    "synthetic": DatasetSpec("synthetic", "1", Options, "synthetic", ToyVectors),
}


class Offers:
    def dataset(self, name):
        return SimpleNamespace(spec=SPECS[name])

    def load_model(self, ref):
        return None


@dataclass(frozen=True)
class Use:
    """Stands for the plan's DatasetUse."""

    name: str
    kind: str = "text"
    options: Any = dataclasses.field(default_factory=dict)
    version: str = "1"
    model: Any = None
    holds: Any = dataclasses.field(default_factory=dict)

    @property
    def plugin(self):
        return self.kind

    @property
    def recipe(self):
        return document_digest(f"{self.kind}{sorted(self.options.items())}")


@dataclass(frozen=True)
class Model:
    id: str
    digest: str
    hookpoint: str
    revision: str | None = None
    context: int = 16
    allow_unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class How:
    """Stands for the plan's ActivationUse."""

    source: str = "store"
    build: str = "ahead"
    prefetch: int | None = None
    quota_gb: float | None = None


@dataclass(frozen=True)
class Cohort:
    dataset: Use
    model: Model | None
    tokens: int = 900
    data_seed: int = 0
    dtype: str = "float32"
    d_in: int = 16
    shuffle: int = 250
    activations: How = How()


@dataclass(frozen=True)
class Evaluation:
    tokens: int = 300
    loss_tokens: int = 150
    density_tokens: int = 200
    part: str | None = None


def sources(folder: Path, *uses: Use, device: str = "cpu", say: Callable[[str], None] = print) -> RunData:
    return RunData({use.name: use for use in uses}, run=RunFolder(folder), catalog=Offers(), device=device, say=say)
