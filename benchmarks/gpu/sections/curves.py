"""Six architectures trained from one seed on the CPU and on the device: loss, FVU and L0 along the way.

Both sides run on the back end `plain`, the one that a card takes, so that they differ in the rounding of sums alone.
With `--device cpu` the inputs of the second side are moved by one rounding of float32 instead: what grows out of that
is what may grow out of a card's other order of sums.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from material import ARCHITECTURES, PARENT, Sizes, activations, cell_of
from notes import Notes
from torch import Tensor

from saebench.api import ActivationBatch, LossTerms, StepInfo
from saebench.base.random import generator
from saebench.cells.cell import Cell
from saebench.host import Catalog, load_catalog
from saebench.host.build import build_module
from saebench.measure.machine import n_threads, run_numerics
from saebench.nn.kernels import backends
from saebench.train.monitor import batch_fvu, l0_of, own_codes
from saebench.train.step import Trainer
from sections import Setting

BEGINNING = 20
"""Steps over which rounding has not yet grown."""
BEGINNING_BOUND = 1e-4
LOSS_BOUND, FVU_BOUND, L0_BOUND = 0.03, 0.02, 0.02
"""Largest relative distance: of the losses of one step, of FVU and of L0 at the same point. See README.md."""
EVERY = 20


@dataclass(frozen=True)
class Curve:
    """What one training went through."""

    losses: list[float]
    fvus: list[float]
    l0s: list[float]
    module: Any


def trained(cell: Cell, x: Tensor, catalog: Catalog, device: torch.device, parent: Any = None) -> Curve:
    """The cell's steps on these rows `[n, d_in]`, by the trainer of the harness."""
    draws = generator(cell.init_seed, "init")
    module: Any = build_module(
        cell.part, cell.base, site=cell.site, generator=draws, catalog=catalog, parent=copy.deepcopy(parent)
    )
    module, x = module.to(device).train(), x.to(device)
    if parent is None and hasattr(module, "init_from_data"):
        with torch.no_grad():
            module.init_from_data(x, draws)
    trainer = Trainer(module, cell.train, generator(cell.init_seed, "train"), cell.entry)
    batch, curve = cell.train.batch, Curve([], [], [], module)

    def observe(seen: ActivationBatch, terms: LossTerms, loss: float) -> None:
        curve.losses.append(loss)
        if len(curve.losses) % EVERY == 0:
            codes = own_codes(module, seen, cell.entry)
            fvu, l0 = batch_fvu(seen.target, module.decode(codes)), l0_of(codes)
            curve.fvus.append(float("nan") if fvu is None else fvu)
            curve.l0s.append(l0)

    for index in range(cell.tokens // batch):
        start = index * batch % (len(x) - batch + 1)
        rows = x[start : start + batch]
        info = StepInfo(index, index * batch / cell.tokens, index * batch, cell.tokens)
        trainer.step(ActivationBatch(rows, rows), info, observe)
    return curve


def nudged(x: Tensor) -> Tensor:
    """Every value moved up or down by one part in 2^23, at random."""
    up = torch.rand(x.shape, generator=generator("gpu-check", "nudged")) < 0.5
    return x * (1 + torch.where(up, 2.0**-23, -(2.0**-23)))


def distance(some: Sequence[float], others: Sequence[float]) -> float:
    """Largest relative distance of two curves; infinite where they cannot be compared."""
    if len(some) != len(others) or not some:
        return float("inf")
    apart = [abs(a - b) / max(abs(b), 1e-12) for a, b in zip(some, others, strict=True)]
    return max(apart) if all(value == value for value in apart) else float("inf")


def run(notes: Notes, setting: Setting) -> None:
    catalog = load_catalog()
    sizes = Sizes(32, 256, 8, 128, 40) if setting.short else Sizes(64, 512, 8, 256, 200)
    notes.fact("sizes", sizes.__dict__)
    x = activations(8 * sizes.batch + 77, sizes.d_in, torch.device("cpu"))
    parent_cell = cell_of(PARENT, sizes, catalog)
    with run_numerics(n_threads()):
        parent: Any = None
        for name in ARCHITECTURES:
            cell = cell_of(name, sizes, catalog, parent=parent_cell if name == "ssae" else None)
            begins = parent if name == "ssae" else None
            with backends.force("plain"):
                here = trained(cell, x, catalog, torch.device("cpu"), begins)
                there = trained(cell, x if setting.is_cuda else nudged(x), catalog, setting.place, begins)
            if name == PARENT:
                parent = here.module
            beginning = distance(there.losses[:BEGINNING], here.losses[:BEGINNING])
            notes.figure(f"{name}: loss, first {BEGINNING} steps", beginning, most=BEGINNING_BOUND)
            notes.figure(
                f"{name}: loss, all {len(here.losses)} steps", distance(there.losses, here.losses), most=LOSS_BOUND
            )
            notes.figure(f"{name}: FVU", distance(there.fvus, here.fvus), most=FVU_BOUND)
            notes.figure(f"{name}: L0", distance(there.l0s, here.l0s), most=L0_BOUND)
            notes.fact(f"{name}: last FVU, L0", [there.fvus[-1], there.l0s[-1]])
            notes.check(
                f"{name}: it learns", there.fvus[-1] < there.fvus[0], f"FVU {there.fvus[0]} to {there.fvus[-1]}"
            )
