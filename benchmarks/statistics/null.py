"""What chance reaches for stability: the table of docs/matching.md, from a finished run of one TopK entry.

    saebench run benchmarks/statistics/null.yaml --out RUN
    python benchmarks/statistics/null.py RUN

Values are SFR, matched cosine and MMCS of two dictionaries of as many latents as the run's SAEs. Those of trained SAEs
are means over pairs of seeds, the others over five draws with their standard deviation.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from saebench.activations.store import ActivationStore
from saebench.matching.agreement.chance import null_scores
from saebench.matching.agreement.cosines import THRESHOLD, compare, n_shared
from saebench.matching.agreement.data_chance import DRAWS, DataSample, data_null_scores

Floats = NDArray[np.float32]
SCORES = ("sfr", "matched-cosine", "mmcs")
KMEANS_ROUNDS = 20


def training_rows(run: Path) -> dict[int, Floats]:
    """Activations of the run's training stores, their mean taken out, by width."""
    found = {}
    for manifest in sorted(run.glob("activations/*/manifest.json")):
        facts = json.loads(manifest.read_text(encoding="utf-8"))
        if facts["key"].get("split") != "train" or "hookpoint" not in facts["key"]:
            continue
        store = ActivationStore.open(manifest.parent, facts["key"])
        if store is not None:
            found[store.d] = DataSample.of(store.slice(0, store.n_rows).x.numpy()).rows
    return found


def of_draws(draw: Callable[[np.random.Generator], tuple[Floats, Floats]]) -> list[str]:
    """Mean and standard deviation over draws, by score."""
    values = []
    for seed in range(DRAWS):
        a, b = draw(np.random.default_rng(seed))
        found = compare(a, b, np.ones(len(a), dtype=bool), np.ones(len(b), dtype=bool))
        n = min(len(a), len(b))
        values.append((n_shared(found.matching, THRESHOLD) / n, found.matching.total / n, found.mmcs))
    return [f"{mean:.3f} ± {sd:.3f}" for mean, sd in zip(np.mean(values, 0), np.std(values, 0, ddof=1), strict=True)]


def halves(rows: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Disjoint random halves."""
    order = rng.permutation(len(rows))
    return rows[order[: len(rows) // 2]], rows[order[len(rows) // 2 :]]


def kmeans(rows: Floats, n: int, rng: np.random.Generator) -> Floats:
    """Spherical k-means: `n` unit centres; an empty one keeps its place."""
    x = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    centres = x[rng.permutation(len(x))[:n]].copy()
    for _ in range(KMEANS_ROUNDS):
        nearest = np.concatenate([(part @ centres.T).argmax(1) for part in np.array_split(x, 1 + len(x) // 8192)])
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, x)
        norms = np.linalg.norm(sums, axis=1)
        centres[norms > 0] = sums[norms > 0] / norms[norms > 0, None]
    return centres


def table(rows: Floats, n: int) -> Iterator[list[str]]:
    """The kinds of chance for two dictionaries of n latents."""
    d = rows.shape[1]
    root = np.linalg.cholesky(np.cov(rows, rowvar=False) + 1e-6 * np.eye(d)).T

    def covariance(rng: np.random.Generator) -> tuple[Floats, Floats]:
        a, b = ((rng.standard_normal((n, d)) @ root).astype(np.float32) for _ in range(2))
        return a, b

    def clustered(rng: np.random.Generator) -> tuple[Floats, Floats]:
        left, right = halves(rows, rng)
        return kmeans(left, n, rng), kmeans(right, n, rng)

    sample = DataSample(rows, "rows of this run")
    for name, null in (
        ("isotropic Gaussian", null_scores(n, n, d)),
        ("untrained: centred activations", data_null_scores(sample, sample, n, n)),
    ):
        yield [name, *(f"{null.levels[id].value:.3f} ± {null.levels[id].sd:.3f}" for id in SCORES)]
    yield ["Gaussian, the activations' covariance", *of_draws(covariance)]
    yield ["spherical k-means, disjoint halves", *of_draws(clustered)]


def main() -> None:
    """Prints one table a site of the run."""
    run = Path(sys.argv[1])
    groups: list[dict[str, Any]] = [
        json.loads(path.read_text(encoding="utf-8"))["facts"] for path in sorted(run.glob("groups/*/*/*.json"))
    ]
    for d, rows in training_rows(run).items():
        here = [group for group in groups if group["d_in"] == d and group["vary"] == "init_seed"]
        for n in sorted({group["d_sae"] for group in here}):
            lines = list(table(rows, n))
            for group in here:
                if group["d_sae"] == n:
                    values = [group["metrics"][id]["value"] for id in SCORES]
                    lines.append([f"trained {group['entry']} {group['point']}", *(f"{value:.3f}" for value in values)])
            print(f"\n{n} latents in {d} dimensions, {len(rows):,} training tokens")
            print(tabulate(lines, headers=["", "SFR", "matched cosine", "MMCS"], tablefmt="github"))


if __name__ == "__main__":
    main()
