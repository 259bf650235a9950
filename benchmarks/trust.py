"""Share of scoring time that the defences take: canonical codes, the copies, and the probes of a sample.

    python benchmarks/trust.py [--tokens 32768]

One TopK SAE of each size is scored on random vectors, by the core metrics without a language model, in turn with and
without them; medians. With a language model the losses come on top, and the share is smaller.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from copy import deepcopy
from unittest import mock

import torch

from saebench.api import ActivationBatch, MetricContext, ScoringFacts, Site, TrainingFacts
from saebench.cells.cell import ArchitectureUse
from saebench.host import load_catalog
from saebench.host.build import build_module
from saebench.score import one_pass, runner
from saebench.score.isolate import Accumulator

SIZES = ((64, 512, 8), (256, 2048, 16), (768, 8192, 32))
"""d_in, d_sae, k."""
REPEATS = 5
STREAMS = frozenset({"eval", "density"})


class Vectors:
    """Held-out vectors, the same in both streams."""

    streams, content, dictionary = STREAMS, "random", None

    def __init__(self, n: int, d_in: int) -> None:
        self.x = torch.randn(n, d_in, generator=torch.Generator().manual_seed(0))

    def stream(self, name: str, batch: int) -> Iterator[ActivationBatch]:
        """Batches."""
        for start, x in enumerate(self.x.split(batch)):
            ids = torch.arange(start * batch, start * batch + len(x)) // 128
            yield ActivationBatch(x, x, sequence_ids=ids)


def seconds(source: Vectors, d_sae: int, k: int, *, defended: bool) -> float:
    """Of one pass."""
    catalog, d_in = load_catalog(), source.x.shape[1]
    part = ArchitectureUse("topk", "1", {"d_sae": d_sae, "k": k})
    generator = torch.Generator().manual_seed(1)
    sae = build_module(part, None, site=Site(d_in, d_in), generator=generator, catalog=catalog).eval()
    facts, absent = ScoringFacts(), dict.fromkeys(("loss", "random-tokens", "self-sampled"), "no model")
    context = MetricContext(sae, d_in, d_sae, frozenset(), STREAMS, absent, TrainingFacts(1, 1, 0), facts, None)
    metrics = [Accumulator(found.spec, context) for found in catalog.cell_metrics() if found.spec.core]
    run = runner.Runner(sae, d_in, facts, "it", decoder=deepcopy(sae), side={})
    plain = (
        ()
        if defended
        else (
            mock.patch.object(runner, "canonical", lambda codes, *_: codes.nonzero()),
            mock.patch.object(one_pass._Watch, "saw"),
            mock.patch.object(one_pass._Watch, "end"),
            mock.patch.object(torch.Tensor, "clone", lambda x, **_: x),
        )
    )
    for patch in plain:
        patch.start()
    try:
        with torch.no_grad():
            started = time.perf_counter()
            one_pass.run_pass(run, source, metrics, firing=one_pass.Firing())  # type: ignore[arg-type]
            return time.perf_counter() - started
    finally:
        for patch in plain:
            patch.stop()


def main() -> None:
    """Prints a line a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=32_768)
    tokens = parser.parse_args().tokens
    for d_in, d_sae, k in SIZES:
        source = Vectors(tokens, d_in)
        seconds(source, d_sae, k, defended=True)  # warms up
        pairs = [[seconds(source, d_sae, k, defended=on) for on in (True, False)] for _ in range(REPEATS)]
        with_, without = (statistics.median(part) for part in zip(*pairs, strict=True))
        print(f"d_in {d_in}, d_sae {d_sae}, k {k}: {with_:.3f} s, without {without:.3f} s, {with_ / without - 1:+.1%}")


if __name__ == "__main__":
    main()
