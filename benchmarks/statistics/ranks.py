"""What the leaderboard's ranks promise, by simulation on the code that ranks.

    python benchmarks/statistics/ranks.py                 the table of docs/statistics.md (minutes)
    python benchmarks/statistics/ranks.py --boards 200    fewer boards, wider errors

Seeds are normal on the scale. `h`: standard deviations of contenders are exp(u), u uniform in [-h, h].
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from saebench.base.student import t_quantile
from saebench.leaderboard.tables.ranking.curves import Curve
from saebench.leaderboard.tables.ranks import Ranking, ranking

SEEDS, CONTENDERS, SPREADS = (3, 5), (5, 10, 20), (0, 1, 2)
BETTER = 3.0
"""How much one contender is better where power is asked: root mean squares of the standard deviations of a board."""


@dataclass(frozen=True)
class Told:
    """Shares of boards, or of pairs.

    Attributes:
        false: Boards of equal contenders on which some two are separated.
        power: Pairs with the one better contender that are separated.
        coverage: Intervals of one contender's mean that hold the truth.
        contradicted: Boards on which the order by value leaves some rank interval.
        ranks_hold: Boards (one contender better) on which every rank interval holds the true ranks.
    """

    false: float
    power: float
    coverage: float
    contradicted: float
    ranks_hold: float


def boards(
    n: int, seeds: int, contenders: int, h: float, generator: np.random.Generator, better: float = 0.0
) -> Iterator[dict[str, Curve]]:
    """Boards at one price; the first contender of each is better where `better` says so."""
    for _ in range(n):
        sd = np.exp(generator.uniform(-h, h, contenders))
        values = sd[:, None] * generator.standard_normal((contenders, seeds))
        values[0] += better * math.sqrt(float(np.mean(sd**2)))
        yield {
            f"c{index}": Curve({seed: ((8.0, float(value)),) for seed, value in enumerate(row)}, seeds)
            for index, row in enumerate(values)
        }


def separated(found: Ranking) -> list[bool]:
    return [pair.verdict == "separated" for pair in found.pairs]


def contradicted(found: Ranking) -> bool:
    """Whether some contender's place by value lies outside its rank interval."""
    order = sorted(found.contenders, key=lambda name: -(found.contenders[name].value or 0.0))
    for place, name in enumerate(order, 1):
        standing = found.contenders[name].standing
        if standing.best is None or standing.worst is None or not standing.best <= place <= standing.worst:
            return True
    return False


def ranks_hold(found: Ranking) -> bool:
    """Whether the intervals hold all true ranks: 1 of the better contender, 2 to the last of the others, which are
    equal."""
    last = len(found.contenders)
    for name, item in found.contenders.items():
        best, worst = item.standing.best or 0, item.standing.worst or 0
        true = (1, 1) if name == "c0" else (2, last)
        if best > true[0] or worst < true[1]:
            return False
    return True


def covers(found: Ranking) -> list[bool]:
    return [abs(item.value or 0.0) <= (item.half or 0.0) for item in found.contenders.values()]


def study(n: int, seeds: int, contenders: int, h: float, generator: np.random.Generator) -> Told:
    """`n` boards of equal contenders and `n` with one that is better."""
    equal = [ranking(board, 8.0, "higher") for board in boards(n, seeds, contenders, h, generator)]
    other = [ranking(board, 8.0, "higher") for board in boards(n, seeds, contenders, h, generator, BETTER)]
    found = [
        ok for item in other for pair, ok in zip(item.pairs, separated(item), strict=True) if "c0" in (pair.a, pair.b)
    ]
    return Told(
        float(np.mean([any(separated(item)) for item in equal])),
        float(np.mean(found)),
        float(np.mean([ok for item in equal for ok in covers(item)])),
        float(np.mean([contradicted(item) for item in [*equal, *other]])),
        float(np.mean([ranks_hold(item) for item in other])),
    )


def log_normal_coverage(n: int, generator: np.random.Generator, sigma: float = 1.0) -> tuple[float, float]:
    """How often mean ± t s / sqrt(3) holds the mean of log-normal values, and on the log scale the mean of the logs."""
    logs = sigma * generator.standard_normal((n, 3))
    covered = []
    for values, true in ((np.exp(logs), math.exp(sigma**2 / 2)), (logs, 0.0)):
        half = t_quantile(2) * values.std(1, ddof=1) / math.sqrt(3)
        covered.append(float(np.mean(np.abs(values.mean(1) - true) <= half)))
    return covered[0], covered[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boards", type=int, default=2_000, help="of each kind (of 20 contenders a quarter)")
    n = parser.parse_args().boards
    generator = np.random.default_rng(0)
    rows = []
    for seeds in SEEDS:
        for contenders in CONTENDERS:
            for h in SPREADS:
                told = study(n if contenders < 20 else n // 4, seeds, contenders, h, generator)
                figures = (told.false, told.power, told.coverage, told.contradicted, told.ranks_hold)
                rows.append([seeds, contenders, h, *(f"{value:.3f}" for value in figures)])
    headers = ["seeds", "contenders", "h", "false", "power", "coverage", "contradicted", "ranks hold"]
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    plain, log = log_normal_coverage(20_000, generator)
    print(f"\nlog-normal values, 3 seeds: mean ± t s / sqrt(3) covers {plain:.3f}; on the log scale {log:.3f}")


if __name__ == "__main__":
    main()
