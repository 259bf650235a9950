"""Noise of the training seed and noise of the evaluation seed, told apart where a suite has two or more of each."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saebench.leaderboard.read.records import CellRecord
from saebench.leaderboard.tables.statistics import mean


@dataclass(frozen=True)
class Noise:
    """Standard deviations that make up the spread of one score of one SAE, in the metric's units.

    Attributes:
        training: Between trainings.
        shared: Between evaluation seeds, alike for all trainings: it cancels in a difference of two contenders.
        own: What is left: an evaluation seed that suits one training and not another.
        share: Of training in the sum of the three variances; None where that is 0.
        trainings, evaluations: How many seeds of each this rests on.
    """

    training: float
    shared: float
    own: float
    share: float | None
    trainings: int
    evaluations: int


def split(table: Mapping[int, Mapping[int, float]]) -> Noise | None:
    """Components of the variance of a crossed table without repeats: `table[init seed][evaluation seed]`.

    The expected mean squares of rows, columns and rest are solved for the three variances (Searle, Casella and
    McCulloch, "Variance Components", 1992, chapter 4); one that comes out negative is 0. Init seeds that lack an
    evaluation seed are left out. None with fewer than two of either.
    """
    seeds = sorted({seed for row in table.values() for seed in row})
    rows = [[row[seed] for seed in seeds] for _, row in sorted(table.items()) if len(row) == len(seeds)]
    n, m = len(rows), len(seeds)
    if n < 2 or m < 2:
        return None
    of_row, of_column = [mean(row) for row in rows], [mean(column) for column in zip(*rows, strict=True)]
    centre = mean(of_row)
    between_rows = m * math.fsum((value - centre) ** 2 for value in of_row) / (n - 1)
    between_columns = n * math.fsum((value - centre) ** 2 for value in of_column) / (m - 1)
    rest = math.fsum(
        (value - of_row[i] - of_column[j] + centre) ** 2 for i, row in enumerate(rows) for j, value in enumerate(row)
    ) / ((n - 1) * (m - 1))
    training, shared = max(0.0, (between_rows - rest) / m), max(0.0, (between_columns - rest) / n)
    total = math.fsum((training, shared, rest))
    share = training / total if total > 0 else None
    return Noise(math.sqrt(training), math.sqrt(shared), math.sqrt(rest), share, n, m)


def noise_of(cells: Sequence[CellRecord]) -> dict[str, Noise]:
    """By metric, on the dataset that its value is of; metrics without two evaluation seeds are not in it."""
    tables: dict[str, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for cell in cells:
        for name, metric in cell.metrics.items():
            for part in metric.get("parts") or []:
                seed, value = part.get("seed"), part.get("value")
                whole = part.get("slice") in (None, "", "all") and part.get("dataset") == metric.get("on")
                if whole and seed is not None and value is not None:
                    tables[name][int(cell.facts["init_seed"])][int(seed)] = float(value)
    found = {name: split(table) for name, table in sorted(tables.items())}
    return {name: noise for name, noise in found.items() if noise is not None}
