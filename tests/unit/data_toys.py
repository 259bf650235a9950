"""Toy datasets and stand-ins for the plan's objects; tests import this file as `data_toys` (see conftest.py)."""

from __future__ import annotations

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
from saebench.cells import plan
from saebench.cells.cell import DatasetUse, EvaluationSettings, ModelUse
from saebench.cells.plan import ActivationUse


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


class Plugins:
    """`streams`: those that metrics add."""

    def __init__(self, streams=None):
        self.streams = streams or {}

    def dataset(self, name):
        return SimpleNamespace(spec=SPECS[name])

    def added_streams(self):
        return self.streams

    def load_model(self, ref):
        return None


How = ActivationUse
STORED = How()


def Use(name, kind="text", options=None, **more):
    """A toy dataset of a kind: the plugin of that name."""
    options = options or {}
    return DatasetUse(name, kind, "1", kind, options, document_digest(f"{kind}{sorted(options.items())}"), **more)


def Model(id, digest, hookpoint, context=16):
    return ModelUse(id, None, digest, hookpoint, hookpoint, context)


def Cohort(dataset, model, tokens=900, data_seed=0, dtype="float32", d_in=16, shuffle=250, activations=STORED):
    return plan.Cohort(
        "cohort", model, dataset, data_seed, 1, tokens, dtype, (), d_in=d_in, shuffle=shuffle, activations=activations
    )


def Evaluation(tokens=300, loss_tokens=150, density_tokens=200, part=None):
    return EvaluationSettings((), tokens, loss_tokens, density_tokens, (0,), part)


def sources(
    folder: Path, *uses: DatasetUse, device: str = "cpu", say: Callable[[str], None] = print, streams: Any = None
) -> RunData:
    catalog: Any = Plugins(streams)
    return RunData({use.name: use for use in uses}, run=RunFolder(folder), catalog=catalog, device=device, say=say)
