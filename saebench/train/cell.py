"""One cell of a pass, from its first weight to its inference form. Its errors end the cell, not the pass."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saebench.api import (
    ActivationBatch,
    CellError,
    Diverged,
    LossTerms,
    MachineError,
    OverBudget,
    PluginError,
    StepInfo,
)
from saebench.api.errors import DIVERGED_ADVICE, contained, recorded, said
from saebench.artifacts.atomic import refuse
from saebench.base.random import generator as seeded
from saebench.cells.cell import Cell
from saebench.host import Catalog
from saebench.host.build import build_module, cell_cost, load_module
from saebench.metrics.reconstruction import DIVERGED_FVU
from saebench.nn.kernels.surplus import surplus
from saebench.train.audit import Spending, Work, check_sizes, checked_steps
from saebench.train.feed import FINALIZE_TOKENS, Feed, SharedBatch, scaled
from saebench.train.meter import Meter, refuse_if_too_big
from saebench.train.monitor import Monitor
from saebench.train.outcome import TrainOutcome, numerics, weights_digest
from saebench.train.step import Trainer
from saebench.train.watch import Watch


@dataclass
class Prepared:
    """What a cell has once its module is built.

    Attributes:
        module: On its device.
        scale: Inputs are divided by it.
        meter: Counts its tokens and FLOPs.
        spending: Counts its hooks, and holds steps to their declared cost.
        trainer, monitor: Take and note its steps; None for a cell that is fitted, or (controls) only built.
    """

    module: Any
    scale: float
    meter: Meter
    spending: Spending
    trainer: Trainer | None = None
    monitor: Monitor | None = None


class CellRun:
    """One cell. What is known of it so far is in `outcome`, also after an error.

    Its bits depend on the cell and the source alone: generator, meter, optimiser and monitor are its own, and what it
    shares (batch, sample, first tokens) is only read. Random numbers come from generators seeded by
    `derive_seed(init_seed, role)`: role `init` for build and `init_from_data`, `train` for `after_step`, `fit` for
    `fit`.

    Attributes:
        outcome: See `TrainOutcome`.
        prepared: None before `prepare`, after an error in it, and after `close`.
        out_of_memory: True when it ended because memory could not be had.
        seconds: Of its own work so far: no waiting for data, none of its neighbours' work.
    """

    def __init__(self, cell: Cell, feed: Feed, catalog: Catalog, device: torch.device, watch: Watch) -> None:
        self.cell, self.feed, self.catalog, self.device, self.watch = cell, feed, catalog, device, watch
        self.label = f"{cell.label} ({cell.part.architecture})"
        self.outcome = TrainOutcome(cell.cell_id)
        self.prepared: Prepared | None = None
        self.out_of_memory = False
        self.seconds = 0.0
        self._checked: frozenset[int] = frozenset()
        self._work: Work | None = None

    # ---- an error ends this cell, not the pass -----------------------------------------------------------------------

    @contextmanager
    def attempt(self, *, wait: bool = False) -> Iterator[None]:
        """Does the block on this cell's clock; what the block raises ends the cell and is noted in the outcome.

        Args:
            wait: Wait for the device, so that work it still has to do is not counted as the next cell's.

        Raises:
            MachineError: The disk is full, or the like, which ends the run.
        """
        started = time.perf_counter()
        try:
            with contained():
                yield
            if wait and self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        except MachineError:
            raise
        except CellError as error:
            self._fail(error.status, error)
        except Exception as error:
            if refusal := refuse(error):
                raise refusal from error
            self.out_of_memory = _is_out_of_memory(error)
            self._fail(OverBudget.status if self.out_of_memory else CellError.status, error)
        self.seconds += time.perf_counter() - started
        if len(self.outcome.trajectory_s) < len(self.outcome.trajectory):
            self.outcome.trajectory_s.append(self.seconds)

    def _fail(self, status: str, error: BaseException) -> None:
        outcome = self.outcome
        outcome.status = status
        outcome.error = recorded(error)
        outcome.traceback = traceback.format_exc()

    def skip(self, message: str) -> None:
        """The cell cannot begin."""
        self.outcome.status, self.outcome.error = "skipped", {"type": "CellError", "message": message}

    # ---- the work ----------------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Number of the batch that it takes next."""
        return self.outcome.steps

    @property
    def has_steps_left(self) -> bool:
        """True for a cell that is trained by steps, is well, and has not used up its share."""
        prepared = self.prepared
        if prepared is None or prepared.trainer is None:
            return False
        return self.outcome.ok and not prepared.meter.exhausted

    def prepare(self, parent_folder: Path | None, memory_share_bytes: int | None) -> None:
        """Builds the module and all that trains it."""
        cell, outcome = self.cell, self.outcome
        cost = cell_cost(cell, self.catalog)
        outcome.device_s = 0.0
        generator = seeded(cell.init_seed, "init")
        parent, parent_scale = None, None
        meter, n_steps = Meter(max(1, cell.tokens), cost, cell.d_sae), math.ceil(cell.tokens / self.feed.batch)
        spending = Spending(self.label, meter, d_in=cell.d_in, d_sae=cell.d_sae, n_steps=n_steps, enforced=cell.trains)
        outcome.hooks = spending.record
        spending.free_to_build(cost.n_parameters, self.feed.sample.numel())
        if parent_folder is not None:
            parent, meta = load_module(parent_folder, self.catalog)
            parent_scale = float(meta["input_scale"])
            outcome.inherit(meta)
        source = self.feed.source
        outcome.pay_data(cell.dataset.recipe, source.data_cost, source.data_s)
        if cell.trains:
            refuse_if_too_big(cost, self.feed.batch, memory_share_bytes, self.label)
        # divided by a scale and multiplied again, x is no longer x
        raw = "raw_units" in cell.tags or cell.train.normalise != "rms"
        # a child's weights mean what they meant in its parent's units
        scale = parent_scale if parent_scale is not None else 1.0 if raw else self.feed.scale
        outcome.input_scale = scale
        with spending.hook("build"):
            module: Any = build_module(
                cell.part, cell.base, site=cell.site, generator=generator, catalog=self.catalog, parent=parent
            )
            module = module.to(self.device).train()
        if module.d_sae != cell.d_sae and cell.trains:  # a control may have fewer: PCA has at most d_in
            raise PluginError(f"{self.label}: the module's d_sae is {module.d_sae}, the plan says {cell.d_sae}")
        if parent is None and hasattr(module, "init_from_data"):
            sample = (self.feed.sample / scale).to(self.device)
            with torch.no_grad(), spending.hook("init_from_data"):
                module.init_from_data(sample, generator)
        if cell.trains:
            check_sizes(module, cost, self.label)
        prepared = Prepared(module, scale, meter, spending)
        if cell.trains and not hasattr(module, "fit"):
            with spending.hook("param_groups"):
                prepared.trainer = Trainer(
                    module, cell.train, seeded(cell.init_seed, "train"), self.label, spending.hook
                )
            self._checked = checked_steps(cell.cell_id, n_steps)
            progress = partial(self.watch.progress, cell) if self.watch.wants_progress else None
            quality = partial(self.watch.quality, cell)
            prepared.monitor = Monitor(
                self.label, module, meter, self.feed.batch, progress, quality, spending.check_encode
            )
            outcome.trajectory = prepared.monitor.trajectory
            outcome.numerics = numerics(self.device, cell.train.dtype)
        self.prepared = prepared

    def step(self, shared: SharedBatch) -> None:
        """One step on one batch."""
        prepared = self.prepared
        assert prepared is not None and prepared.trainer is not None
        trainer, meter = prepared.trainer, prepared.meter
        info = StepInfo(trainer.steps, meter.progress, meter.tokens, meter.allotted)
        prepared.spending.free_in_steps(trainer.steps + 1)
        self._work = Work() if trainer.steps in self._checked else None
        try:
            trainer.step(shared.scaled(prepared.scale), info, self._observe, self._work)
        finally:
            self.outcome.steps = trainer.steps
        shared.check(prepared.scale, self.label)

    def _observe(self, batch: ActivationBatch, terms: LossTerms, loss: float) -> None:
        """Charges a step and notes it, before it is taken."""
        assert self.prepared is not None and self.prepared.monitor is not None
        charged = self.prepared.meter.charge_step(batch.n_tokens, terms.codes, terms.flops)
        if self._work is not None:
            self.prepared.spending.check_step(self._work.dense, charged)
        self.prepared.monitor.check_loss(loss, terms)
        self.prepared.monitor.observe(batch, terms)

    def finish(self) -> None:
        """Fits what has no gradient, and makes the inference form."""
        prepared, cell = self.prepared, self.cell
        assert prepared is not None
        module, meter = prepared.module, prepared.meter
        if prepared.trainer is not None:
            prepared.trainer = None  # frees the moments
            for parameter in module.parameters():
                parameter.grad = None
        elif hasattr(module, "fit"):
            # one pass: what has no gradient gains nothing from seeing a vector twice
            most = cell.tokens if cell.trains else FINALIZE_TOKENS
            inputs = self._inputs("fit", min(most, self.feed.source.n_tokens))
            with torch.no_grad(), prepared.spending.hook("fit"):
                module.fit(inputs, seeded(cell.init_seed, "fit"))
            self.outcome.fitted = True
        n_tokens = min(FINALIZE_TOKENS, max(meter.tokens, self.feed.batch))
        with torch.no_grad(), prepared.spending.hook("finalize"):
            module.eval()
            if hasattr(module, "finalize"):
                module.finalize(self._inputs("finalize", n_tokens))
            else:
                prepared.spending.free_to_finish("finalize", 0, meter.cost.n_parameters)
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise Diverged(
                    f"{self.label}: '{name}' {list(tensor.shape)} holds values that are not finite after training. "
                    f"{DIVERGED_ADVICE}"
                )
        trajectory = self.outcome.trajectory
        if trajectory and (trajectory[-1]["fvu"] or 0.0) > DIVERGED_FVU:
            raise Diverged(
                f"{self.label}: the FVU of the last training batch is {trajectory[-1]['fvu']:.4g}, "
                f"over {DIVERGED_FVU:g}. {DIVERGED_ADVICE}"
            )

    def _inputs(self, hook: str, n_tokens: int) -> Iterator[Tensor]:
        """Training inputs in the module's units, about `n_tokens` of them, each batch charged when it is taken."""
        prepared = self.prepared
        assert prepared is not None
        meter, read = prepared.meter, 0
        prepared.spending.free_to_finish(hook, 0, meter.cost.n_parameters)
        batches = iter(self.feed.first(n_tokens))
        while True:
            with surplus():  # reading is no work of the hook: a live source runs the model here
                if (batch := next(batches, None)) is None:
                    return
                x = scaled(batch, prepared.scale, self.device).x
            (meter.charge_fit if hook == "fit" else meter.charge_encode)(batch.n_tokens)
            read += batch.n_tokens
            prepared.spending.free_to_finish(hook, read, meter.cost.n_parameters)
            yield x

    def close(self) -> TrainOutcome:
        """The outcome, complete; frees everything that only training needs."""
        outcome, prepared = self.outcome, self.prepared
        if outcome.device_s is not None:
            outcome.device_s = self.seconds
        if prepared is not None:
            if outcome.ok:
                outcome.module = prepared.module.requires_grad_(False)
                outcome.weights_digest = weights_digest(outcome.module)
            if prepared.monitor is not None:
                outcome.facts, outcome.dead_fraction = prepared.monitor.facts(), prepared.monitor.dead_fraction()
            meter = prepared.meter
            outcome.tokens, outcome.flops, outcome.hooks = meter.tokens, meter.flops, prepared.spending.to_json()
            outcome.over_spent = meter.over_spent if self.cell.trains else 0
            outcome.forward_flops = meter.tokens * self.feed.source.forward_flops_per_token
            outcome.waited_s += self.feed.source.forward_s
            outcome.epochs = meter.tokens / max(1, self.feed.source.n_tokens)
        self.prepared = None
        return outcome


def _is_out_of_memory(error: BaseException) -> bool:
    # torch's CPU allocator raises a plain RuntimeError
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in said(error)
    )
