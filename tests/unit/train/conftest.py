"""A tiny SAE family and a fake source: everything the loop calls, nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from saebench.api import ActivationBatch, ArchitectureSpec, Cost, LossTerms, Site, SparseCodes, UnitRows
from saebench.cells.cell import ArchitectureUse, Cell, DatasetUse, EvaluationSettings, TrainSettings
from saebench.host import Catalog, Registered
from saebench.train import train_pass

D_IN, D_SAE = 8, 16


@dataclass(frozen=True)
class TinyConfig:
    d_sae: int = D_SAE
    k: int = 2
    break_at: int = -1
    raise_at: int = -1


class Tiny(nn.Module):
    """TopK by torch.topk; notes what the harness hands it."""

    def __init__(self, config, site, generator):
        super().__init__()
        self.d_in, self.d_sae, self.config = site.d_in, config.d_sae, config
        W = torch.randn(config.d_sae, site.d_in, generator=generator)
        self.W_enc, self.W_dec = nn.Parameter(W / 3), nn.Parameter(W.clone())
        self.b_dec = nn.Parameter(torch.zeros(site.d_in))
        self.seen = []

    def init_from_data(self, x, generator):
        self.b_dec.copy_(x.mean(0))
        self.seen.append(("init", x.shape[0], float(x.square().sum(1).mean())))

    def encode(self, x):
        values, latents = torch.topk((x - self.b_dec) @ self.W_enc.T, self.config.k)
        return SparseCodes.from_topk(values.relu(), latents, self.d_sae)

    def decode(self, codes):
        return codes.to_dense() @ self.W_dec + self.b_dec

    def training_loss(self, batch, step):
        self.seen.append(step)
        if step.index == self.config.raise_at:
            raise TypeError("a slip in the plugin")
        codes = self.encode(batch.x)
        x_hat = self.decode(codes)
        losses = (batch.target - x_hat).square().sum(1)
        if step.index == self.config.break_at:
            losses = losses * float("nan")
        return LossTerms(losses, {"zero": self.W_enc.sum() * 0}, codes, x_hat, {"step": float(step.index)})

    def constraints(self):
        return {"W_dec": UnitRows()}


def tiny_cost(config, site, base_cost=None):
    product = 2 * config.d_sae * site.d_in
    n = product + site.d_in
    return Cost(n, 4 * n, 6 * product, 10, 1000, product, 64, float(config.k))


def spec_of(name, module, *, config=TinyConfig, **more):
    return ArchitectureSpec(
        name,
        "1",
        config,
        lambda config, *, site, generator: module(config, site, generator),
        tiny_cost,
        **more,
    )


class FakeSource:
    """`n` vectors in one low-dimensional cloud, endless batches in an order of their own seed."""

    forward_flops_per_token = 7
    data_cost, data_s, forward_s = {"tokens": 0, "flops": 0}, 0.0, 0.0

    def __init__(self, n=640, d=D_IN, scale=3.0, seed=0):
        generator = torch.Generator().manual_seed(seed)
        basis = torch.randn(4, d, generator=generator)
        self.x = (
            torch.randn(n, 4, generator=generator) @ basis + 0.1 * torch.randn(n, d, generator=generator) + 0.5
        ) * scale
        self.d_in, self.n_tokens, self.asked, self.read = d, n, [], 0

    def init_sample(self, n):
        return self.x[:n]

    def batches(self, batch, seed, start=0):
        self.asked.append((batch, seed, start))
        generator = torch.Generator().manual_seed(seed)
        index = 0
        while True:
            order = torch.randperm(self.n_tokens, generator=generator)
            for rows in order.split(batch):
                if rows.numel() == batch:
                    if index >= start:
                        x = self.x[rows]
                        self.read += 1
                        yield ActivationBatch(x, x, sequence_ids=rows // 16)
                    index += 1


SETTINGS = TrainSettings(
    batch=64, lr=0.01, betas=(0.9, 0.999), eps=1e-8, clip=1.0, warmup=0.1, decay=0.2, normalise="rms"
)
DATASET = DatasetUse("fake", "fake", "1", "text", {}, "recipe")
EVALUATION = EvaluationSettings(("fake",), 128, 64, 128, (0,))


def _id(architecture, config, changes):
    told = {name: changes.get(name) for name in ("init_seed", "tokens", "train", "parent")}
    return hashlib.sha256(repr((architecture, config, told)).encode()).hexdigest()


def make_cell(architecture="tiny", *, config=None, base=None, **changes):
    config = config or {"d_sae": D_SAE, "k": 2, "break_at": -1, "raise_at": -1}
    cell = Cell(
        cell_id=_id(architecture, config, changes), score_id="s", suite="t", entry=architecture, point="default",
        sweep={}, where="t.yaml:1",
        part=ArchitectureUse(architecture, "1", config), base=base, d_in=D_IN, d_out=D_IN, d_sae=D_SAE, tags=(),
        model=None, dataset=DATASET,
        evaluation=EVALUATION, evaluation_datasets=(DATASET,), init_seed=0, data_seed=5, parent=None, train=SETTINGS,
        tokens=640, control=False, expected_l0=2.0, cohort="c", group="g",
    )  # fmt: skip
    return replace(cell, **changes)


def equal(a, b):
    """Whether two outcomes hold the same weights and the same facts, bit for bit."""
    left, right = a.module.state_dict(), b.module.state_dict()
    same = left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
    return same and a.to_json() == b.to_json()


@pytest.fixture
def kit(device):
    """Everything above, and a catalog to which a test may add its own module."""
    catalog = Catalog()

    def add(name, module, **more):
        catalog.architectures[name] = Registered(spec_of(name, module, **more), "tests", "0", __name__)

    def train(cell=None, source=None, *, parent_folder=None, **more):
        """One cell alone."""
        cell = cell or make_cell()
        parents = {cell.parent: parent_folder} if parent_folder is not None else None
        ((_, outcome),) = train_pass([(cell, source or FakeSource())], catalog, parents=parents, device=device, **more)
        return outcome

    add("tiny", Tiny)
    return SimpleNamespace(
        catalog=catalog, add=add, train=train, device=device, TinyConfig=TinyConfig, site=Site(D_IN, D_IN), equal=equal,
        cell=make_cell, source=FakeSource, Tiny=Tiny, settings=SETTINGS, d_in=D_IN, d_sae=D_SAE, replace=replace,
        config=lambda **changes: {"d_sae": D_SAE, "k": 2, "break_at": -1, "raise_at": -1, **changes}, spec_of=spec_of,
        Part=ArchitectureUse,
    )  # fmt: skip
