"""SAEs with known answers, a fake evaluation source that counts what is asked of it, and metrics with known sums."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from saebench.api import (
    ActivationBatch,
    ArchitectureSpec,
    CellMetricSpec,
    Cost,
    GroupMetricSpec,
    MetricInfo,
    MetricResult,
    MetricValue,
    SparseCodes,
    SplicedLosses,
    TrainingFacts,
)
from saebench.cells.cell import ArchitectureUse, Cell, DatasetUse, EvaluationSettings
from saebench.cells.plan import Group
from saebench.host import Catalog, Registered

D = 6


@dataclass(frozen=True)
class Config:
    d_sae: int = D


class Identity(nn.Module):
    """Writes what it reads; counts its calls."""

    d_in = d_sae = D

    def __init__(self, value=None):
        super().__init__()
        self.value, self.encoded, self.decoded = value, 0, 0
        self.W_dec = nn.Parameter(torch.eye(D))

    def encode(self, x):
        self.encoded += x.shape[0]
        return x if self.value is None else SparseCodes.from_dense(torch.zeros_like(x))

    def decode(self, codes):
        self.decoded += codes.n_rows
        dense = codes.to_dense()
        return dense if self.value is None else dense + self.value

    def facts(self):
        return {"kind": "identity"}


class Source:
    """Tokens `[n, D]` in one order; `eval` and `density` are prefixes of it."""

    content, dictionary = "digest", None

    def __init__(self, seed=0, n_eval=100, n_density=150, absent=(), skip=0):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(300, D, generator=generator) * torch.arange(1, D + 1) + 2
        self.n_tokens, self.n_density_tokens, self.n_loss_tokens, self.asked = n_eval, n_density, 32, []
        self.streams = frozenset({"eval", "density", "loss", "random-tokens"} - set(absent))
        self.absent = {"self-sampled": "an encoder cannot sample"}

    def stream(self, name, batch):
        self.asked.append(name)
        n = {"eval": self.n_tokens, "density": self.n_density_tokens, "random-tokens": 50}[name]
        size = min(batch, 64)
        for start in range(0, n, size):
            x = self.x[start : min(start + size, n)]
            rows = torch.arange(start, start + x.shape[0])
            yield ActivationBatch(x, x, token_ids=rows % 7, positions=rows % 10, sequence_ids=rows // 10)

    def loss_batches(self):
        for start in (0, 20):
            x = self.x[start : start + 20]
            rows = torch.arange(0, 20, 2) + 1
            batch = ActivationBatch(x[rows], x[rows], sequence_ids=rows // 10)

            def splice(x_hat, x=x, rows=rows):
                error = (x_hat - x).square().sum(1)[rows]
                one = torch.ones(rows.numel())
                return SplicedLosses(one, one + error, 5 * one, 4 * one, error, 3 * one)

            yield SimpleNamespace(x=x, batch=batch, rows=rows, splice=splice)

    def splice(self):
        return None

    def overlap(self):
        return None

    def cost(self, streams):
        return {"tokens": 100 * len(list(streams)), "flops": 150 * len(list(streams))}

    def token_texts(self, ids):
        return [f"<{id}>" for id in ids]


def info(id, **more):
    return MetricInfo(id, "ratio", "lower", "test", f"test metric {id}", **more)


def metric(name, *ids, streams=("eval",), fields=("codes",), update=None, compute=None, make=None, measured=False):
    """A spec whose value is the number of tokens it saw, unless told otherwise."""
    provided = tuple(info(id, measured=measured) for id in ids)

    class Counting:
        def __init__(self, context):
            self.n, self.context, self.seen = 0, context, []

        def update(self, stream, scored):
            self.n += scored.batch.n_tokens
            self.seen.append((stream, scored))
            if update:
                update(self, stream, scored)

        def compute(self):
            if compute:
                return compute(self, provided)
            return MetricResult({i.id: MetricValue.of(i, float(self.n), self.n, stderr=1.0) for i in provided})

    return CellMetricSpec(name, "7", provided, make or Counting, streams, fields)


DATASET = DatasetUse("docs", "docs", "1", "text", {}, "recipe-docs")
NEAR = DatasetUse("near", "near", "1", "text", {}, "recipe-near")


@pytest.fixture
def kit():
    catalog = Catalog()
    catalog.architectures["any"] = Registered(
        ArchitectureSpec("any", "1", Config, lambda *a, **k: None, lambda config, site: Cost(1, 1, 1, 1, 1, 11, 1)),
        "tests",
        "0",
        __name__,
    )

    def cell(*specs, **changes):
        for spec in specs:
            catalog.metrics[spec.name] = Registered(spec, "tests", "0", __name__)
        made = Cell(
            cell_id="c", score_id="s", suite="t", entry="any", point="default", sweep={}, where="",
            part=ArchitectureUse("any", "1", {"d_sae": D}), base=None,
            d_in=D, d_out=D, d_sae=D, tags=(), model=None, dataset=DATASET,
            evaluation=EvaluationSettings(("docs",), 100, 32, 150, (0,)),
            evaluation_datasets=(DATASET,), init_seed=0, data_seed=0, parent=None, train=None, tokens=0, control=False,
            expected_l0=None, cohort="", group="", metrics={spec.name: spec.version for spec in specs},
        )  # fmt: skip
        return replace(made, **changes)

    def group(*specs, cells=("a", "b")):
        for spec in specs:
            catalog.metrics[spec.name] = Registered(spec, "tests", "0", __name__)
        return Group("g", "t", "any", "default", "default", cells, {spec.name: spec.version for spec in specs})

    return SimpleNamespace(
        catalog=catalog, cell=cell, group=group, metric=metric, info=info, Identity=Identity, Source=Source,
        docs=DATASET, near=NEAR, d=D, training=TrainingFacts(10, 20, 0, 1.5, 100), GroupMetricSpec=GroupMetricSpec,
    )  # fmt: skip
