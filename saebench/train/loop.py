"""The one training loop. A plugin supplies losses; order, optimiser, clock and stop are here."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saebench.api import (
    ActivationBatch,
    AfterStep,
    CellError,
    Diverged,
    OverBudget,
    PluginError,
    SaebenchError,
    Site,
    StepInfo,
)
from saebench.artifacts import has_checkpoint
from saebench.artifacts.atomic import refuse
from saebench.data.seeds import generator as seeded
from saebench.host import Catalog
from saebench.host.build import build_module, load_module, part_cost
from saebench.plan.model import Cell
from saebench.train.meter import Meter, PeakMemory, refuse_if_too_big
from saebench.train.monitor import Monitor, Progress
from saebench.train.optimiser import Optimiser
from saebench.train.outcome import TrainOutcome
from saebench.train.source import BatchSource, rms_scale, scaled
from saebench.train.terms import check_terms, reduce_terms

INIT_SAMPLE = 32_768
"""Most tokens that scale and data-dependent initialisation look at."""
FINALIZE_TOKENS = 131_072
"""Most training tokens that `finalize` may read."""
CONTROL_BATCH = 1024


class _CellRun:
    """One cell from its first weight to its inference form. What it learned so far stands in `outcome`, also after an error."""

    def __init__(
        self, cell: Cell, source: BatchSource, catalog: Catalog, device: torch.device, progress: Progress | None
    ) -> None:
        self.cell, self.source, self.catalog, self.device, self.progress = cell, source, catalog, device, progress
        self.label = f"{cell.label} ({cell.part.architecture})"
        self.outcome = TrainOutcome(cell.cell_id)
        place = cell.model.hookpoint if cell.model else cell.dataset.name
        self.site = Site(cell.d_in, cell.d_out, place, place)
        self.cost = part_cost(cell.part, cell.base, self.site, catalog)
        self.meter = Meter(max(1, cell.tokens), self.cost, cell.d_sae)
        self.scale = 1.0
        self.batch = cell.train.batch if cell.train is not None else CONTROL_BATCH

    def run(self, parent_folder: Path | None, memory_share_bytes: int | None) -> None:
        cell = self.cell
        generator = seeded(cell.init_seed, "init")
        parent, parent_scale = None, None
        if parent_folder is not None:
            parent, meta = load_module(parent_folder, self.catalog)
            parent_scale = float(meta["input_scale"])
            self.outcome.ancestors = dict(meta["training"]["total_spent"])
        if not cell.control:
            refuse_if_too_big(self.cost, self.batch, memory_share_bytes, self.label)
        sample = self.source.init_sample(INIT_SAMPLE).to(torch.float32)
        normalise = cell.train.normalise if cell.train is not None else "rms"
        # a child's weights mean what they meant in its parent's units
        self.scale = parent_scale if parent_scale is not None else rms_scale(sample) if normalise == "rms" else 1.0
        self.outcome.input_scale = self.scale
        module: Any = build_module(
            cell.part, cell.base, site=self.site, generator=generator, catalog=self.catalog, parent=parent
        )
        module = module.to(self.device).train()
        if module.d_sae != cell.d_sae and not cell.control:  # a control may have fewer: PCA has at most d_in
            raise PluginError(f"{self.label}: the module's d_sae is {module.d_sae}, the plan says {cell.d_sae}")
        if parent is None and hasattr(module, "init_from_data"):
            with torch.no_grad():
                module.init_from_data((sample / self.scale).to(self.device), generator)
        del sample, parent
        if hasattr(module, "fit"):
            self._fit(module)
        elif not cell.control:
            self._train(module)
        module.eval()
        if hasattr(module, "finalize"):
            with torch.no_grad():
                module.finalize(
                    self._inputs(min(FINALIZE_TOKENS, max(self.meter.tokens, self.batch)), self.meter.charge_encode)
                )
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise Diverged(
                    f"{self.label}: '{name}' {list(tensor.shape)} holds values that are not finite after training. Lower train.lr."
                )
        self.outcome.module = module.requires_grad_(False)

    def _inputs(self, n_tokens: int, charge: Any) -> Iterator[Tensor]:
        """Training inputs in the module's units, about `n_tokens` of them, each batch charged when it is taken."""
        n_batches = math.ceil(n_tokens / self.batch)
        for batch in islice(self.source.batches(self.batch, self.cell.data_seed), n_batches):
            charge(batch.n_tokens)
            yield scaled(batch, self.scale, self.device).x

    def _fit(self, module: Any) -> None:
        # one pass: what has no gradient gains nothing from seeing a vector twice
        n_tokens = self.source.n_tokens if self.cell.control else min(self.cell.tokens, self.source.n_tokens)
        with torch.no_grad():
            module.fit(self._inputs(n_tokens, self.meter.charge_fit), seeded(self.cell.init_seed, "fit"))
        self.outcome.fitted = True

    def _train(self, module: Any) -> None:
        cell, meter, settings = self.cell, self.meter, self.cell.train
        optimiser = Optimiser(
            module, lr=settings.lr, betas=settings.betas, eps=settings.eps, clip=settings.clip, warmup=settings.warmup, decay=settings.decay, label=self.label
        )  # fmt: skip
        monitor = Monitor(self.label, module, meter, self.batch, self.progress)
        self.outcome.trajectory = monitor.trajectory
        generator = seeded(cell.init_seed, "train")
        batches = self.source.batches(self.batch, cell.data_seed)
        try:
            while not meter.exhausted:
                raw = next(batches, None)
                if raw is None:
                    raise CellError(
                        f"{self.label}: the data ended after {meter.tokens:,} of {cell.tokens:,} tokens. Training batches must not end."
                    )
                self._step(module, scaled(raw, self.scale, self.device), optimiser, monitor, generator)
        finally:
            self.outcome.facts = monitor.facts()
            self.outcome.dead_fraction = monitor.dead_fraction()

    def _step(
        self, module: Any, batch: ActivationBatch, optimiser: Optimiser, monitor: Monitor, generator: torch.Generator
    ) -> None:
        meter = self.meter
        step = StepInfo(self.outcome.steps, meter.progress, meter.tokens, meter.allotted)
        terms = module.training_loss(batch, step)
        check_terms(terms, batch, self.label, d_sae=module.d_sae if step.index == 0 else None)
        loss = reduce_terms(module, terms, step, monitor.note_fact, self.label)
        meter.charge_step(batch.n_tokens, terms.codes)
        monitor.check_loss(float(loss.detach()), terms)
        monitor.observe(batch, terms)
        optimiser.step(loss, step.progress, meter.progress)
        self.outcome.steps += 1
        if hasattr(module, "after_step"):
            with torch.no_grad():
                module.after_step(AfterStep(batch, terms, step, generator, optimiser.reset_moments))
            optimiser.constraints.enforce()  # re-aimed rows obey them too


def _failure(outcome: TrainOutcome, status: str, error: BaseException) -> None:
    outcome.status, outcome.module = status, None
    outcome.error = {"type": type(error).__name__, "message": str(error) or type(error).__name__}
    outcome.traceback = traceback.format_exc()


def train_cell(
    cell: Cell,
    source: BatchSource,
    catalog: Catalog,
    *,
    parent_folder: Path | None = None,
    device: str | torch.device = "cpu",
    memory_share_bytes: int | None = None,
    progress: Progress | None = None,
) -> TrainOutcome:
    """Trains one cell, or fits it, or (a control without `fit`) only builds it.

    The result depends on the cell and the source alone, bit for bit on one device and thread count: never on cells trained before.
    Random numbers come from generators seeded by `derive_seed(init_seed, role)`: role `init` for build and `init_from_data`, `train` for
    `after_step`, `fit` for `fit`.

    Args:
        cell: What to train.
        source: The cohort's activations.
        catalog: Installed plugins.
        parent_folder: Checkpoint of the parent, for a cell that has one.
        device: Where to train.
        memory_share_bytes: Refuse to start when parameters, gradients, moments and workspace need more; None for no limit.
        progress: Told how far the cell is, at most 20 times.

    Returns:
        Always an outcome: whatever goes wrong with this cell is its status and error. Errors of the machine and of the suite
        (disk full, damaged material) are everybody's, and are raised.
    """
    device = torch.device(device)
    outcome = TrainOutcome(cell.cell_id)
    if cell.parent is not None and (parent_folder is None or not has_checkpoint(parent_folder, cell.parent)):
        outcome.status = "skipped"
        outcome.error = {
            "type": "CellError",
            "message": f"{cell.label}: its parent cell {cell.parent[:8]} has no checkpoint, so there is nothing to start from",
        }
        return outcome
    memory = PeakMemory(device)
    started = time.perf_counter()
    run: _CellRun | None = None
    try:
        run = _CellRun(cell, source, catalog, device, progress)
        outcome = run.outcome
        run.run(parent_folder, memory_share_bytes)
    except CellError as error:
        _failure(outcome, error.status, error)
    except (torch.OutOfMemoryError, MemoryError) as error:
        _failure(outcome, OverBudget.status, error)
    except PluginError as error:
        _failure(outcome, CellError.status, error)
    except SaebenchError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and (refusal := refuse(error, Path(error.filename or "a file"))):
            raise refusal from error  # a full disk is everybody's trouble
        _failure(outcome, CellError.status, error)
    if run is not None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        outcome.tokens, outcome.flops = run.meter.tokens, run.meter.flops
        outcome.forward_flops = run.meter.tokens * source.forward_flops_per_token
        outcome.epochs = run.meter.tokens / max(1, source.n_tokens)
        outcome.device_s = time.perf_counter() - started
        outcome.peak_memory_bytes, outcome.peak_memory_scope = memory.read(), memory.scope
    return outcome


def train_cohort(
    cells: Sequence[Cell],
    source: BatchSource,
    catalog: Catalog,
    *,
    parents: Mapping[str, Path] | None = None,
    device: str | torch.device = "cpu",
    memory_share_bytes: int | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Cell, TrainOutcome]]:
    """Trains cells one after another, each on the same batches; one that fails leaves the others alone.

    Yields each outcome as soon as it stands, so that its checkpoint can be saved before a child in the same cohort asks for it.

    Args:
        cells: In an order in which parents come before their children.
        source, catalog, device, memory_share_bytes, progress: As in `train_cell`.
        parents: Checkpoint folder by `cell_id`, looked up when a child begins; a child whose parent has none there is skipped.
    """
    for cell in cells:
        folder = (parents or {}).get(cell.parent) if cell.parent is not None else None
        yield (
            cell,
            train_cell(
                cell,
                source,
                catalog,
                parent_folder=folder,
                device=device,
                memory_share_bytes=memory_share_bytes,
                progress=progress,
            ),
        )
