"""Short measurements of speed: some real training steps and some real scoring of a cell."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from saebench.activations.sources.held_out.loss_windows import LossSet
from saebench.api import TrainingFacts
from saebench.api.errors import contained
from saebench.api.metrics import STREAMS
from saebench.artifacts import RunFolder
from saebench.cells.cell import Cell
from saebench.host import Catalog
from saebench.measure.data import Vectors, loss_set
from saebench.measure.stand_ins import ROWS, StandInRows, StandInStreams, disturb, random_rows, timed, wait
from saebench.plan.forecast.rates import TrainingRate
from saebench.train import save_outcome, train_pass

if TYPE_CHECKING:
    from torch import Tensor

    from saebench.lm.model import LanguageModel

STEPS = (24, 48)
"""Fewest and most steps: the first half warms up, and holds most of the points at which a trajectory is noted."""
STEPS_S = 0.4
"""Steps are taken for about this long where they are short."""
SCORING_TOKENS = (4096, 12_288)
"""Tokens of the two scoring passes from which a whole one is extrapolated."""


# ---- training --------------------------------------------------------------------------------------------------------


def measure_training(
    cell: Cell,
    assumed_step_s: float,
    run: RunFolder,
    catalog: Catalog,
    device: torch.device,
    rows: Tensor | None = None,
    neighbours_bytes: int = 0,
) -> TrainingRate | None:
    """Trains a cell for some steps in the real loop and keeps its checkpoint in `run`, for children and for scoring.

    Args:
        cell: Its parent's checkpoint is in `run`.
        assumed_step_s: To choose how many steps.
        rows: `[R, d]` to train on; random ones by default.
        neighbours_bytes: Memory of the cells that will train in turn with it.

    Returns:
        None where the cell did not end well: it will not either in a run, and its record will say why.
    """
    low, high = STEPS
    steps = int(min(high, max(low, STEPS_S / max(assumed_step_s, 1e-6))))
    between = disturb(neighbours_bytes) if device.type == "cpu" else lambda: None
    source = StandInRows(random_rows(ROWS, cell.d_in) if rows is None else rows, device, between)
    short = replace(cell, tokens=steps * cell.train.batch)
    parents = {cell.parent: run.checkpoint(cell.parent)} if cell.parent is not None else {}
    started = time.perf_counter()
    (outcome,) = (outcome for _, outcome in train_pass([(short, source)], catalog, parents=parents, device=device))
    wait(device)
    ended = time.perf_counter()
    if not outcome.ok:
        return None
    save_outcome(outcome, short, run.checkpoint(cell.cell_id))
    if outcome.fitted:  # no steps: what it takes grows with the tokens that it reads
        return TrainingRate(0.0, (ended - started) / steps)
    times = source.steps[0]  # the loop asks for no batch behind the last, so that one has no end here
    seconds = [stop - start for start, stop in times]
    step_s = statistics.median(seconds[len(seconds) // 2 :])
    finish_s = max(0.0, ended - times[-1][1] - step_s)
    return TrainingRate(max(0.0, times[0][0] - started), step_s, finish_s / short.tokens)


# ---- scoring ---------------------------------------------------------------------------------------------------------


def measure_scoring(
    cell: Cell,
    streams: Callable[[float], tuple[StandInStreams, float]],
    run: RunFolder,
    catalog: Catalog,
    device: torch.device,
) -> float:
    """Seconds of one whole scoring pass of a cell, extrapolated from two short ones.

    Args:
        cell: Its checkpoint is in `run`.
        streams: `streams(tokens)` -> the suite's streams cut to that many tokens at most, and the share of the whole
            that they are.
    """
    from saebench.host.build import load_sae
    from saebench.score import score_cell

    sae, decoder = (load_sae(run.checkpoint(cell.cell_id), catalog).to(device) for _ in range(2))
    use = cell.evaluation_datasets[0]
    facts = TrainingFacts(cell.tokens, 0, 0, None, None)

    def once(source: StandInStreams) -> float:
        return timed(lambda: score_cell(cell, sae, [(use, 0, source)], catalog, facts, decoder=decoder), device)

    small, part = streams(SCORING_TOKENS[0])
    once(small)  # warms up
    small_s = once(small)
    if part >= 1.0:
        return small_s
    large, most = streams(SCORING_TOKENS[1])
    large_s = once(large)
    slope = max(0.0, (large_s - small_s) / (most - part))
    return max(large_s, small_s + slope * (1.0 - part))


class SiteStreams:
    """Streams of one site at any size.

    Args:
        cell: Some cell of the site.
        names: Streams that metrics read.
        lm: The language model, or None.
        vectors: Rows with true codes and dictionary of a site without a model.
    """

    def __init__(
        self,
        cell: Cell,
        names: frozenset[str],
        device: torch.device,
        lm: LanguageModel | None,
        vectors: Vectors | None,
    ) -> None:
        self._cell, self._device, self._lm = cell, device, lm
        evaluation = cell.evaluation
        sizes = {"eval": evaluation.tokens, "density": evaluation.density_tokens}
        if lm is not None:
            sizes |= dict.fromkeys(("random-tokens", *sorted(names - set(STREAMS))), evaluation.density_tokens)
            if lm.causal:
                sizes |= {"self-sampled": evaluation.density_tokens, "loss": evaluation.loss_tokens}
        self._sizes = {name: size for name, size in sizes.items() if name in names or name == "density"}
        self._rows, self._truth, self._dictionary = vectors or (random_rows(SCORING_TOKENS[0], cell.d_in), None, None)
        self._losses: dict[int, LossSet] = {}

    def streams(self, tokens: float) -> tuple[StandInStreams, float]:
        """The streams, the longest of them cut to `tokens`, and which share of the whole they are."""
        share = min(1.0, tokens / max(self._sizes.values()))
        sizes = {name: max(1, round(share * size)) for name, size in self._sizes.items()}
        lm, model = self._lm, self._cell.model
        losses = None
        if lm is not None and model is not None and "loss" in sizes:
            count = sizes["loss"]
            if count not in self._losses:
                self._losses[count] = loss_set(lm, model.hookpoint, count, model.context, self._cell.d_in)
                for _ in self._losses[count].batches():
                    pass  # clean, zero and mean are shared: made before any cell is timed
            losses = self._losses[count]
        context = model.context if model is not None else 128
        source = StandInStreams(
            self._rows,
            sizes,
            device=self._device,
            lm=lm,
            losses=losses,
            context=context,
            truth=self._truth,
            dictionary=self._dictionary,
        )
        return source, share


def quietly(call: Callable[[], Any]) -> Any | None:
    """What a measurement gives; None where a plugin fails at it: the run will meet the same failure and record it."""
    try:
        with contained():
            return call()
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a plugin's own code
        return None
