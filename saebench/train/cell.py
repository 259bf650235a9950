"""One cell of a pass: from its first weight, step by step, to its inference form. It never raises for its own troubles."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saebench.api import AfterStep, CellError, Diverged, MachineError, OverBudget, PluginError, Site, StepInfo
from saebench.api.errors import DIVERGED_ADVICE, contained, recorded, said
from saebench.artifacts.atomic import refuse
from saebench.base.random import generator as seeded
from saebench.cells.plan import Cell
from saebench.host import Catalog
from saebench.host.build import build_module, load_module, part_cost
from saebench.metrics.reconstruction import DIVERGED_FVU
from saebench.train.feed import FINALIZE_TOKENS, Feed, SharedBatch, scaled
from saebench.train.meter import Meter, refuse_if_too_big
from saebench.train.monitor import Monitor
from saebench.train.numerics import numerics
from saebench.train.optimiser import Optimiser
from saebench.train.outcome import TrainOutcome
from saebench.train.step import step_terms
from saebench.train.watch import Watch

CONTROL_BATCH = 1024


def batch_of(cell: Cell) -> int:
    """Tokens a step."""
    return cell.train.batch if cell.train is not None else CONTROL_BATCH


class CellRun:
    """One cell. What it learned so far stands in `outcome`, also after an error.

    Its bits depend on the cell and the source alone: generator, meter, optimiser and monitor are its own, and what it shares (batch,
    sample, first tokens) is only read. Random numbers come from generators seeded by `derive_seed(init_seed, role)`: role `init` for
    build and `init_from_data`, `train` for `after_step`, `fit` for `fit`.

    Attributes:
        outcome: See `TrainOutcome`.
        out_of_memory: True when it ended because memory could not be had.
        seconds: Of its own work so far: no waiting for data, none of its neighbours' work.
    """

    def __init__(self, cell: Cell, feed: Feed, catalog: Catalog, device: torch.device, watch: Watch) -> None:
        self.cell, self.feed, self.catalog, self.device, self.watch = cell, feed, catalog, device, watch
        self.label = f"{cell.label} ({cell.part.architecture})"
        self.outcome = TrainOutcome(cell.cell_id)
        self.out_of_memory = False
        self.seconds = 0.0
        self.scale = 1.0
        self.module: Any = None
        self.meter: Meter | None = None
        self.monitor: Monitor | None = None
        self.optimiser: Optimiser | None = None
        self.generator = seeded(cell.init_seed, "train")

    # ---- what may go wrong is this cell's own matter -----------------------------------------------------------------

    def attempt(self, action: Callable[[], None], *, wait: bool = False) -> bool:
        """Does a part of the work on this cell's clock; False when it failed, which then stands in the outcome.

        Args:
            action: The part.
            wait: Wait for the device, so that work it still has to do is not counted as the next cell's.

        Raises:
            MachineError: The disk is full, or the like: everybody's trouble.
        """
        started = time.perf_counter()
        try:
            with contained():
                action()
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
        return self.outcome.ok

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
    def trains(self) -> bool:
        """True for a cell that takes steps; others are fitted, or (controls) only built."""
        return self.optimiser is not None

    @property
    def exhausted(self) -> bool:
        """True once its share is used up."""
        return self.meter is not None and self.meter.exhausted

    def prepare(self, parent_folder: Path | None, memory_share_bytes: int | None) -> None:
        """Builds the module and all that trains it."""
        cell, place = self.cell, self.cell.model.hookpoint if self.cell.model else self.cell.dataset.name
        site = Site(cell.d_in, cell.d_out, place, place)
        cost = part_cost(cell.part, cell.base, site, self.catalog)
        self.meter = Meter(max(1, cell.tokens), cost, cell.d_sae)
        generator = seeded(cell.init_seed, "init")
        parent, parent_scale = None, None
        if parent_folder is not None:
            parent, meta = load_module(parent_folder, self.catalog)
            parent_scale = float(meta["input_scale"])
            self.outcome.inherit(meta)
        if not cell.control:
            refuse_if_too_big(cost, self.feed.batch, memory_share_bytes, self.label)
        # divided by a scale and multiplied again, x is no longer x
        raw = "raw_units" in cell.tags or (cell.train is not None and cell.train.normalise != "rms")
        # a child's weights mean what they meant in its parent's units
        self.scale = parent_scale if parent_scale is not None else 1.0 if raw else self.feed.scale
        self.outcome.input_scale = self.scale
        module: Any = build_module(
            cell.part, cell.base, site=site, generator=generator, catalog=self.catalog, parent=parent
        )
        self.module = module = module.to(self.device).train()
        if module.d_sae != cell.d_sae and not cell.control:  # a control may have fewer: PCA has at most d_in
            raise PluginError(f"{self.label}: the module's d_sae is {module.d_sae}, the plan says {cell.d_sae}")
        if parent is None and hasattr(module, "init_from_data"):
            with torch.no_grad():
                module.init_from_data((self.feed.sample / self.scale).to(self.device), generator)
        if cell.control or hasattr(module, "fit"):
            return
        settings = cell.train
        self.optimiser = Optimiser(
            module, lr=settings.lr, betas=settings.betas, eps=settings.eps, clip=settings.clip, warmup=settings.warmup, decay=settings.decay, label=self.label
        )  # fmt: skip
        progress = partial(self.watch.progress, cell) if self.watch.wants_progress else None
        self.monitor = Monitor(
            self.label, module, self.meter, self.feed.batch, progress, partial(self.watch.quality, cell)
        )
        self.outcome.trajectory = self.monitor.trajectory
        self.outcome.numerics = numerics(self.device, settings.dtype)

    def step(self, shared: SharedBatch) -> None:
        """One step on one batch."""
        module, meter, monitor, optimiser = self.module, self.meter, self.monitor, self.optimiser
        assert meter is not None and monitor is not None and optimiser is not None
        batch = shared.scaled(self.scale)
        step = StepInfo(self.outcome.steps, meter.progress, meter.tokens, meter.allotted)
        terms, loss = step_terms(module, batch, step, monitor.note_fact, self.label)
        meter.charge_step(batch.n_tokens, terms.codes, terms.flops)
        monitor.check_loss(loss, terms)
        monitor.observe(batch, terms)
        optimiser.step(step.progress, meter.progress)
        self.outcome.steps += 1
        if hasattr(module, "after_step"):
            with torch.no_grad():
                module.after_step(AfterStep(batch, terms, step, self.generator, optimiser.reset_moments))
            optimiser.constraints.enforce_again()
        shared.check(self.scale, self.label)

    def finish(self) -> None:
        """Fits what has no gradient, and makes the inference form."""
        module, meter, cell = self.module, self.meter, self.cell
        assert meter is not None
        if self.trains:
            self.optimiser = None  # the moments' memory is free for others
            for parameter in module.parameters():
                parameter.grad = None
        elif hasattr(module, "fit"):
            # one pass: what has no gradient gains nothing from seeing a vector twice
            most = FINALIZE_TOKENS if cell.control else cell.tokens
            inputs = self._inputs(min(most, self.feed.source.n_tokens), meter.charge_fit)
            with torch.no_grad():
                module.fit(inputs, seeded(cell.init_seed, "fit"))
            self.outcome.fitted = True
        module.eval()
        if hasattr(module, "finalize"):
            n_tokens = min(FINALIZE_TOKENS, max(meter.tokens, self.feed.batch))
            with torch.no_grad():
                module.finalize(self._inputs(n_tokens, meter.charge_encode))
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise Diverged(
                    f"{self.label}: '{name}' {list(tensor.shape)} holds values that are not finite after training. {DIVERGED_ADVICE}"
                )

        trajectory = self.outcome.trajectory
        if trajectory and (trajectory[-1]["fvu"] or 0.0) > DIVERGED_FVU:
            raise Diverged(
                f"{self.label}: the FVU of the last training batch is {trajectory[-1]['fvu']:.4g}, over {DIVERGED_FVU:g}. {DIVERGED_ADVICE}"
            )

    def _inputs(self, n_tokens: int, charge: Callable[[int], None]) -> Iterator[Tensor]:
        """Training inputs in the module's units, about `n_tokens` of them, each batch charged when it is taken."""
        for batch in self.feed.first(n_tokens):
            charge(batch.n_tokens)
            yield scaled(batch, self.scale, self.device).x

    def close(self) -> TrainOutcome:
        """The outcome, complete; lets go of everything that only training needs."""
        outcome, meter, monitor = self.outcome, self.meter, self.monitor
        if outcome.ok:
            outcome.module = self.module.requires_grad_(False)
        if monitor is not None:
            outcome.facts, outcome.dead_fraction = monitor.facts(), monitor.dead_fraction()
        if meter is not None:
            outcome.tokens, outcome.flops = meter.tokens, meter.flops
            outcome.over_spent = 0 if self.cell.control else meter.over_spent
            outcome.forward_flops = meter.tokens * self.feed.source.forward_flops_per_token
            outcome.epochs = meter.tokens / max(1, self.feed.source.n_tokens)
            outcome.device_s = self.seconds
        self.module = self.monitor = self.optimiser = None
        return outcome

    # ---- snapshots ---------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the rest of its training depends on: tensors and plain numbers."""
        meter, monitor, optimiser = self.meter, self.monitor, self.optimiser
        assert meter is not None and monitor is not None and optimiser is not None
        noted, numbers = monitor.state()
        tensors = {f"module/{name}": tensor for name, tensor in _state_of(self.module).items()}
        tensors |= {f"optimiser/{name}": tensor for name, tensor in optimiser.state().items()}
        tensors |= {f"monitor/{name}": tensor for name, tensor in noted.items()}
        tensors["generator"] = self.generator.get_state()
        return tensors, {
            "steps": self.outcome.steps,
            "meter": meter.state(),
            "monitor": numbers,
            "seconds": self.seconds,
            "trajectory_s": self.outcome.trajectory_s,
            "waited_s": self.outcome.waited_s,
        }

    def load_state(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Takes back what `state` gave, into a run that was prepared.

        Raises:
            ValueError, KeyError: It is not this cell's state. The run is then of no use: prepare a new one.
        """
        meter, monitor, optimiser = self.meter, self.monitor, self.optimiser
        assert meter is not None and monitor is not None and optimiser is not None

        def part(name: str) -> dict[str, Tensor]:
            return {
                key.removeprefix(f"{name}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")
            }

        own, stored = _state_of(self.module), part("module")
        if {name: tensor.shape for name, tensor in own.items()} != {n: t.shape for n, t in stored.items()}:
            raise ValueError("its tensors are not those of this module")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(stored[name])
        optimiser.load_state(part("optimiser"))
        monitor.load_state(part("monitor"), numbers["monitor"], self.device)
        meter.load_state(numbers["meter"])
        self.generator.set_state(tensors["generator"])
        self.outcome.steps, self.seconds = int(numbers["steps"]), float(numbers["seconds"])
        self.outcome.trajectory_s, self.outcome.waited_s = list(numbers["trajectory_s"]), float(numbers["waited_s"])


def _state_of(module: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and all buffers, also those that a checkpoint leaves out."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _is_out_of_memory(error: BaseException) -> bool:
    # torch's CPU allocator raises a plain RuntimeError
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in said(error)
    )
