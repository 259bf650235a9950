"""Training steps on the simulated card: the processor's curves, few waits, and planted faults found by name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import pytest
import torch
from simulated_device import Card, HostWait, simulated_cuda
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from saebench.api import ActivationBatch, LossTerms, Site, SparseCodes, StepInfo
from saebench.cells.cell import ArchitectureUse, TrainSettings
from saebench.host import load_catalog
from saebench.host.build import build_module
from saebench.nn.kernels import backends
from saebench.train.meter import Meter
from saebench.train.monitor import Monitor
from saebench.train.step import Trainer

D_IN, D_SAE, BATCH, STEPS = 16, 64, 64, 12
SETTINGS = TrainSettings(
    batch=BATCH, lr=0.003, betas=(0.9, 0.999), eps=1e-8, clip=1.0, warmup=0.1, decay=0.2, normalise="rms"
)
CONFIGS: dict[str, dict[str, Any]] = {
    "topk": {"k": 4, "dead_window": 0.2},
    "batch-topk": {"k": 4, "dead_window": 0.2},
    "jumprelu": {"target_l0": 4.0},
    "relu-l1": {},
    "expander": {"k": 4, "degree": 5, "reaim_every": 0.4},
    "ssae": {"tilt": 1.0},
}
ALWAYS = {
    "saebench/train/step.py:Trainer._gradients",  # the loss: a cell that diverged ends before its weights change
    "saebench/train/optimiser.py:Optimiser._clip_gradients",  # the norm: the same
}
TOP = {f"saebench/nn/kernels/dense_topk.py:{function}" for function in ("_with_edge", "_decided")}  # ties, near ties
AUX = {"saebench/nn/dead.py:DeadLatents.dead", "saebench/nn/dead.py:add_aux_k_gradients"}  # how many are dead
ABOVE = {"saebench/nn/kernels/screen.py:nonzero_flat"}  # how many are above their thresholds
ACCEPTED = {
    "topk": TOP | AUX,
    "batch-topk": AUX | {"saebench/nn/kernels/dense_topk.py:_with_edge", "saebench/api/codes.py:SparseCodes.nonzero"},
    "jumprelu": ABOVE,
    "relu-l1": ABOVE,
    "expander": {
        "saebench/nn/expander.py:_top_of_columns",  # ties
        "plugins/saebench_plugins/expander/model.py:Expander.after_step",  # once in `reaim_every`
        "saebench/nn/dead.py:draw_by_loss",
    },
    "ssae": TOP
    | AUX
    | {
        "saebench/nn/tilted.py:term_weights",
        "saebench/nn/tilted.py:effective_sample_size",
        "saebench/train/step.py:TokenWeights.__call__",  # weights must sum to 1
    },
}
"""What an architecture may wait for in a step: sizes that depend on values."""


@pytest.fixture
def card():
    with simulated_cuda() as card:
        yield card


def build(name: str, generator: torch.Generator) -> Any:
    catalog = load_catalog()
    wraps = name == "ssae"
    part = ArchitectureUse(name, "1", CONFIGS[name] if wraps else {"d_sae": D_SAE, **CONFIGS[name]})
    base = ArchitectureUse("topk", "1", {"d_sae": D_SAE, **CONFIGS["topk"]}) if wraps else None
    return build_module(part, base, site=Site(D_IN, D_IN), generator=generator, catalog=catalog)


def data(generator: torch.Generator) -> Tensor:
    x = torch.randn(STEPS * BATCH, 4, generator=generator) @ torch.randn(4, D_IN, generator=generator)
    return x + 0.1 * torch.randn(len(x), D_IN, generator=generator)


def train(
    module: Any, x: Tensor, device: str, region: Callable[[int], Any] = lambda step: nullcontext()
) -> list[float]:
    """Losses of the steps, each with what the loop notes of it, in the region of its number."""
    draws = torch.Generator().manual_seed(7)
    module.to(device).train()
    x = x.to(device)
    if hasattr(module, "init_from_data"):
        with torch.no_grad():
            module.init_from_data(x, draws)
    trainer = Trainer(module, SETTINGS, draws, "cell")
    catalog = load_catalog()
    spec = catalog.architecture("topk").spec
    meter = Meter(len(x), spec.cost(spec.config(D_SAE, 4), Site(D_IN, D_IN)), D_SAE)
    monitor = Monitor("cell", module, meter, BATCH, None)
    monitor._due.clear()  # steps between two points of the trajectory
    losses = []

    def observe(batch: ActivationBatch, terms: LossTerms, loss: float) -> None:
        meter.charge_step(batch.n_tokens, terms.codes, terms.flops)
        monitor.check_loss(loss, terms)
        monitor.observe(batch, terms)
        losses.append(loss)

    for index, rows in enumerate(torch.split(x, BATCH)):
        info = StepInfo(index, meter.progress, meter.tokens, meter.allotted)
        with region(index):
            trainer.step(ActivationBatch(rows, rows), info, observe)
    return losses


@pytest.mark.parametrize("name", CONFIGS)
def test_steps_wait_for_nothing_but_what_is_said_and_give_the_processors_curve(name: str, card: Card) -> None:
    draws = torch.Generator().manual_seed(0)
    x = data(draws)
    with backends.force("plain"):
        here = train(build(name, torch.Generator().manual_seed(1)), x, "cpu")
    accepted = ALWAYS | ACCEPTED[name]

    waited = []

    def region(step: int) -> Any:
        waited.append(card.waits.total())
        # the first step of a module checks what it returned
        return card.hot("a training step", allowed=accepted) if step else nullcontext()

    module = build(name, torch.Generator().manual_seed(1))
    there = train(module, x, "cuda", region)
    assert not left_behind(module)
    assert there == pytest.approx(here, rel=1e-4)
    assert name != "expander" or there == here  # the same operators: the same bits
    used = {f"{place.partition(':')[0]}:{place.partition(' ')[2].partition(': ')[0]}" for place in card.waits}
    assert accepted <= used  # what is not needed any more is taken off the list
    assert max(after - before for before, after in pairwise(waited[1:])) <= 12


def left_behind(module: nn.Module) -> list[str]:
    """Tensors that a module on the card holds on the processor. One of a single number breaks nothing there, but no
    checkpoint holds it."""
    return [
        f"{path or type(module).__name__}.{name}"
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if any(isinstance(leaf, Tensor) and not leaf.is_cuda for leaf in tree_leaves(value))
    ]


class Tiny(nn.Module):
    """A dense SAE with a place for a fault."""

    def __init__(self) -> None:
        super().__init__()
        self.d_in, self.d_sae = D_IN, D_SAE
        self.W = nn.Parameter(torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(0)) / 4)
        self.register_buffer("scale", torch.ones(D_IN))

    def encode(self, x: Tensor) -> SparseCodes:
        return SparseCodes.from_dense((x @ self.W.T).relu())

    def decode(self, codes: SparseCodes) -> Tensor:
        return codes.to_dense() @ self.W

    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        x_hat = ((batch.x / self.scale) @ self.W.T).relu() @ self.W
        return LossTerms((batch.target - x_hat).square().sum(1), {}, None, x_hat)


class ConstantInKernel(Tiny):
    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        terms = super().training_loss(batch, step)
        return LossTerms(terms.reconstruction * torch.tensor(1.0), {}, None, terms.x_hat)


class ItemInLoop(Tiny):
    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        terms = super().training_loss(batch, step)
        return LossTerms(terms.reconstruction, {}, None, terms.x_hat, {"size": batch.x.norm().item()})


class LeftBehind(Tiny):
    def __init__(self) -> None:
        super().__init__()
        del self.scale
        self.scale = torch.ones(D_IN)  # no buffer: `to` does not take it along


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        (ConstantInKernel, HostWait, "ConstantInKernel.training_loss: a tensor is made on the processor"),
        (ItemInLoop, HostWait, "ItemInLoop.training_loss: a value is read"),
        (LeftBehind, RuntimeError, r"at least two devices.*Tiny.training_loss: other of aten.div is on cpu"),
    ],
)
def test_planted_faults_are_found_by_name(module: type[Tiny], error: type[Exception], message: str, card: Card) -> None:
    x = data(torch.Generator().manual_seed(0))
    train(module(), x, "cpu")  # nothing shows on the processor
    train(Tiny(), x, "cuda", lambda step: card.hot("a training step", allowed=ALWAYS))
    with pytest.raises(error, match=message):
        train(module(), x, "cuda", lambda step: card.hot("a training step", allowed=ALWAYS))


def test_a_number_that_is_left_behind_is_named(card: Card) -> None:
    number = Tiny()
    number.size = torch.tensor(1.0)
    assert left_behind(number.to("cuda")) == ["Tiny.size"]
