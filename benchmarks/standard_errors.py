"""Whether the standard errors of scores are as large as scores differ between evaluation sets.

    python benchmarks/standard_errors.py SUITE OUT [--sets 20] [--partitions 10]

Runs the suite into OUT (what is there is not run again). Deals the held-out documents of its first evaluation dataset
into disjoint sets, and scores each SAE on each set as the harness does. Beside the standard deviation of a score over
the sets stand the errors that the sets state, in root mean square: by document, and by window as a comparison.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

import saebench
from saebench.activations.sources.held_out.streams import HeldOut
from saebench.activations.sources.run_data import RunData
from saebench.api import ActivationBatch, MetricValue, ScoredBatch, SplicedLosses
from saebench.artifacts import RunFolder
from saebench.cells.cell import Cell
from saebench.host import load_catalog
from saebench.jobs import plan_suite
from saebench.matching import decoder_directions
from saebench.metrics.accumulator import StreamAccumulator
from saebench.metrics.density import DensityAccumulator
from saebench.metrics.losses import LossAccumulator
from saebench.metrics.reconstruction import ReconstructionAccumulator
from saebench.metrics.sparsity import SparsityAccumulator

ROWS = 32_768
"""Tokens encoded at a time."""
Scores = dict[str, MetricValue]


def scored_batches(sae: Any, source: HeldOut) -> Iterator[tuple[str, ScoredBatch]]:
    """What metrics see on streams `eval` and `loss`; the density metrics read `eval` here, which is longer."""
    for batch in source.stream("eval", ROWS):
        codes = sae.encode(batch.x)
        scored = ScoredBatch(batch, codes, sae.decode(codes))
        yield "eval", scored
        yield "density", replace(scored, x_hat=None)
    for losses in source.loss_batches():
        yield "loss", ScoredBatch(losses.batch, losses=losses.splice(sae.decode(sae.encode(losses.x))))


def rows_of(scored: ScoredBatch, rows: torch.Tensor, *, by_window: bool) -> ScoredBatch:
    """Some tokens of a batch; `by_window`: without their documents, so that windows are the unit."""
    batch, losses = scored.batch, scored.losses
    x = batch.x[rows]
    index = {name: getattr(batch, name)[rows] for name in ("token_ids", "positions", "sequence_ids", "document_ids")}
    if by_window:
        index["document_ids"] = None
    return ScoredBatch(
        ActivationBatch(x, x, **index),
        None if scored.codes is None else scored.codes.select(rows),
        None if scored.x_hat is None else scored.x_hat[rows],
        None if losses is None else SplicedLosses(**{name: loss[rows] for name, loss in vars(losses).items()}),
    )


def accumulators(sae: Any) -> list[StreamAccumulator]:
    """The metrics of one set."""
    norms = torch.from_numpy(np.linalg.norm(decoder_directions(sae), axis=1))
    return [
        ReconstructionAccumulator(),
        SparsityAccumulator(norms),
        LossAccumulator(),
        DensityAccumulator(int(sae.d_sae)),
    ]


def scores(
    sae: Any, seen: Sequence[tuple[str, ScoredBatch]], set_of: torch.Tensor, n_sets: int, *, by_window: bool
) -> list[Scores]:
    """Every metric on every set."""
    makers = [accumulators(sae) for _ in range(n_sets)]
    for stream, scored in seen:
        assert scored.batch.document_ids is not None
        member = set_of[scored.batch.document_ids]
        for number, mine in enumerate(makers):
            rows = (member == number).nonzero()[:, 0]
            if len(rows):
                part = rows_of(scored, rows, by_window=by_window)
                for accumulator in mine:
                    accumulator.update(stream, part)
    return [{id: value for one in mine for id, value in one.compute().values.items()} for mine in makers]


def table(found: Sequence[Sequence[Scores]], by_window: Sequence[Scores]) -> list[list[str]]:
    """One row a metric: mean, spread over sets, stated errors by document and by window, each over the spread."""
    spread, values, stated, windows = (defaultdict[str, list[float]](list) for _ in range(4))
    for partition in found:
        for id in partition[0]:
            known = [one[id] for one in partition if one[id].value is not None]
            if len(known) == len(partition):
                values[id] += [one.value or 0.0 for one in known]
                spread[id].append(float(np.var([one.value for one in known], ddof=1)))
                stated[id] += [one.stderr or 0.0 for one in known]
    for one in by_window:
        for id, value in one.items():
            windows[id].append(value.stderr or 0.0)
    rows = []
    for id in values:
        sd = float(np.sqrt(np.mean(spread[id])))
        document, window = (float(np.sqrt(np.mean(np.square(errors[id])))) for errors in (stated, windows))
        ratios = [f"{error / sd:.2f}" if sd else "-" for error in (document, window)]
        rows.append([id, f"{np.mean(values[id]):.4g}", f"{sd:.3g}", f"{document:.3g}", *ratios])
    return rows


def sources(suite: Path, out: Path) -> tuple[Sequence[Cell], Callable[[Cell], HeldOut]]:
    """Cells of the suite, and the held-out data of one."""
    saebench.run(suite, out=out)
    plan = plan_suite(suite, out=out)
    data = RunData(plan.datasets, run=RunFolder(out), catalog=load_catalog())

    def held_out(cell: Cell) -> HeldOut:
        use, seed = cell.evaluation_datasets[0], cell.evaluation.seeds[0]
        return data.held_out(use, cell.model, cell.evaluation, seed, training=None)

    return [cell for cell in plan.cells if not cell.control], held_out


def main() -> None:
    """Prints a table for each cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--partitions", type=int, default=10)
    given = parser.parse_args()
    cells, held_out = sources(given.suite, given.out)
    for cell in cells:
        source, sae = held_out(cell), saebench.load_sae(RunFolder(given.out).checkpoint(cell.cell_id))
        n_documents = 1 + max(int(batch.document_ids.max()) for batch in source.stream("eval", ROWS))
        rng = np.random.default_rng(0)
        parts = [torch.from_numpy(rng.permutation(n_documents) % given.sets) for _ in range(given.partitions)]
        with torch.no_grad():
            seen = list(scored_batches(sae, source))
        found = [scores(sae, seen, part, given.sets, by_window=False) for part in parts]
        window = scores(sae, seen, parts[0], given.sets, by_window=True)
        print(
            f"\n{cell.label}: {source.n_tokens:,} tokens ({source.n_loss_tokens:,} with losses) of {n_documents:,} "
            f"documents, in {given.sets} sets, {given.partitions} times"
        )
        headers = ["metric", "mean", "sd over sets", "stated", "stated / sd", "by window / sd"]
        print(tabulate(table(found, window), headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
