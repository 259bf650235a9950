"""Leaderboards of ten equal contenders: one entry under ten names, each trained with init seeds of its own.

    python benchmarks/statistics/equal.py --out DIR     ten suites of three seeds (300 trainings, minutes)

None of the ten may be separated from another in nine suites of ten.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from unittest.mock import patch

from tabulate import tabulate

import saebench.leaderboard
from saebench.jobs import run_suite
from saebench.leaderboard.read.merge import merged_records
from saebench.leaderboard.tables.board import make_board

SUITE = """
schema: 1
name: equal
datasets:
  truth: {{plugin: synthetic, d_in: 32, n_features: 96}}
entries:
  - {{name: {name}, architecture: {architecture}, dataset: truth, config: {config}}}
seeds: {{init: {seeds}}}
train: {{batch: 256}}
evaluation: {{tokens: 4_096, density_tokens: 4_096}}
budget: {{tokens: 16_384}}
"""
KINDS = (("topk", "{d_sae: 128, k: 6}"), ("batch-topk", "{d_sae: 128, k: 6}"))
CONTENDERS = 10


def run(out: Path, suite: int, n_seeds: int) -> list[Path]:
    """The folders of one suite's ten contenders, each with seeds that no other has."""
    architecture, config = KINDS[suite % len(KINDS)]
    folders = []
    for index in range(CONTENDERS):
        first = (suite * CONTENDERS + index) * n_seeds
        path = out / f"{suite}-{index}.yaml"
        seeds = list(range(first, first + n_seeds))
        text = SUITE.format(name=f"c{index}", architecture=architecture, config=config, seeds=seeds)
        path.write_text(text, "utf-8")
        folders.append(out / f"{suite}-{index}")
        run_suite(path, out=folders[-1])
    return folders


def told(folders: list[Path]) -> dict[str, tuple[int, int]]:
    """By metric: pairs that are separated, and pairs that were compared."""
    (site,) = make_board(merged_records(folders)).suites[0].sites
    found: dict[str, tuple[int, int]] = {}
    for level in site.levels:
        for id, ranking in level.metrics.items():
            verdicts = [pair.verdict for pair in ranking.pairs if pair.verdict != "cannot tell"]
            found[id] = (verdicts.count("separated"), len(verdicts))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="new folder of the runs")
    parser.add_argument("--suites", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    rows = []
    with (
        patch.object(saebench.leaderboard, "build", lambda *args, **kwargs: None),
        patch.object(saebench.leaderboard, "summary", lambda folders: ""),
    ):
        for suite in range(arguments.suites):
            found = told(run(arguments.out, suite, arguments.seeds))
            rows.append([suite, KINDS[suite % len(KINDS)][0], *(f"{some} of {all_}" for some, all_ in found.values())])
    print(tabulate(rows, ["suite", "architecture", *found], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
