"""Scoring batches on the simulated card: every cell metric, with the processor's values, waiting for what is listed."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from simulated_device import Card, simulated_cuda

from saebench.api import (
    ActivationBatch,
    CellMetricSpec,
    GroupMetricSpec,
    MetricContext,
    MetricInfo,
    MetricResult,
    ScoringFacts,
    Site,
    SparseCodes,
    TrainingFacts,
)
from saebench.cells.cell import ArchitectureUse
from saebench.host import load_catalog
from saebench.host.build import build_module
from saebench.nn.kernels import backends
from saebench.score.isolate import Accumulator, measure_group
from saebench.score.one_pass import Firing, run_pass
from saebench.score.probes import Sample
from saebench.score.runner import Runner

D_IN, D_SAE, BATCH = 12, 32, 64
STREAMS = frozenset({"eval", "density", "random-tokens", "self-sampled"})
ACCEPTED = {
    "saebench/host/sae_contract.py:normalise_codes",  # codes keep their contract
    "saebench/score/canonical.py:canonical",  # no zero, ascending
    "saebench/score/runner.py:Runner.decode",  # reconstructions are finite
    "saebench/score/one_pass.py:_same",  # eval and density share their batches
    "saebench/nn/kernels/dense_topk.py:_with_edge",  # ties
    "saebench/nn/kernels/dense_topk.py:_decided",  # near ties
    "saebench/metrics/clusters.py:BlockCounts.add",
    "saebench/metrics/density.py:DensityAccumulator.add",  # who is active
    "saebench/metrics/contexts.py:ContextCollector.update",  # the first tokens alone, kept on the processor
    "saebench/metrics/sparsity.py:SparsityAccumulator.add",  # once: the norms move to the card
    "saebench/metrics/variance_share.py:VarianceShareAccumulator.add",
    "saebench/metrics/variance_share.py:VarianceShareAccumulator._is_linear",
    "saebench/metrics/variance_share.py:VarianceShareAccumulator._take",
    "saebench/metrics/truth.py:FiringF1Accumulator._firings",  # pairs are counted on the processor
    "saebench/metrics/clusters.py:ClusterRows.__call__",
    "saebench/api/codes.py:SparseCodes.nonzero",
}
"""What a batch may wait for, a function each."""


@pytest.fixture
def card():
    with simulated_cuda() as card:
        yield card


class Source:
    """Tokens on the device, with true codes; `eval` and `density` begin alike."""

    streams, content = STREAMS, "digest"

    def __init__(self, device: str) -> None:
        draws = torch.Generator().manual_seed(0)
        self.truth = torch.randn(4 * BATCH, 24, generator=draws) * (torch.rand(4 * BATCH, 24, generator=draws) < 0.1)
        self.dictionary = torch.nn.functional.normalize(torch.randn(24, D_IN, generator=draws), dim=1)
        self._batches = []
        for rows in torch.arange(4 * BATCH).split(BATCH):
            x = (self.truth[rows] @ self.dictionary + 0.01).to(device)
            ids = [part.to(device) for part in (rows % 7, rows % 10, rows // 10)]
            codes = SparseCodes.from_dense(self.truth[rows]).to(device)
            self._batches.append(ActivationBatch(x, x, *ids, codes))

    def stream(self, name: str, batch: int) -> Iterator[ActivationBatch]:
        for made in self._batches if name != "random-tokens" else self._batches[:2]:
            yield replace(made, x=made.x.clone()) if name == "density" else made


def parts_on(device: str) -> tuple[Runner, Source, list[Accumulator]]:
    catalog = load_catalog()
    part = ArchitectureUse("topk", "1", {"d_sae": D_SAE, "k": 4})
    draws = torch.Generator().manual_seed(1)
    sae: Any = build_module(part, None, site=Site(D_IN, D_IN), generator=draws, catalog=catalog).to(device).eval()
    decoder = deepcopy(sae)
    facts = ScoringFacts()
    source = Source(device)
    absent = {"loss": "no model"}
    context = MetricContext(
        sae, D_IN, D_SAE, frozenset(), STREAMS, absent, TrainingFacts(1, 1, 0), facts, source.dictionary
    )
    metrics = [Accumulator(found.spec, context) for found in catalog.cell_metrics()]
    return Runner(sae, D_IN, facts, "cell", decoder=decoder, side={}), source, metrics


def values_of(metrics: list[Accumulator]) -> dict[str, Any]:
    found = {id: value for metric in metrics for id, value in metric.compute().values.items()}
    return {id: value for id, value in found.items() if id != "encode-tokens-per-s"}


@torch.no_grad()
def test_batches_wait_for_nothing_but_what_is_listed_and_give_the_processors_values(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    with backends.force("plain"):
        runner, source, metrics = parts_on("cpu")
        run_pass(runner, source, metrics, firing=Firing())
        here = values_of(metrics)
    runner, source, metrics = parts_on("cuda")
    monkeypatch.setattr(runner, "probe", lambda sample: None)  # once a stream
    monkeypatch.setattr(Sample, "take", lambda *_: None)  # four batches a stream
    card.waits.clear()
    with card.hot("scoring batches", allowed=ACCEPTED):
        run_pass(runner, source, metrics, firing=Firing())
    used = {f"{place.partition(':')[0]}:{place.partition(' ')[2].partition(': ')[0]}" for place in card.waits}
    assert used == ACCEPTED  # what is not needed any more is taken off the list
    there = values_of(metrics)
    assert here.keys() == there.keys()
    for id, value in here.items():
        assert (there[id].reason, there[id].n) == (value.reason, value.n), id
        for mine, its in ((there[id].value, value.value), (there[id].stderr, value.stderr)):
            assert mine == (None if its is None else pytest.approx(its, rel=1e-6)), id
    assert sum(value.value is not None for value in here.values()) > 20


class Greedy:
    """A metric that wants more memory than there is."""

    def __init__(self, context: Any) -> None: ...

    def update(self, stream: str, scored: Any) -> None:
        self.kept = scored.batch.x.new_zeros(1 << 20)

    def compute(self) -> MetricResult:
        return MetricResult({})


def test_memory_that_ends_while_scoring_ends_the_cell_and_is_no_null_score(card: Card) -> None:
    greedy = CellMetricSpec(
        "greedy", "1", (MetricInfo("greedy", "", "lower", "test", ""),), Greedy, ("eval",), ("codes",)
    )
    runner, source, _ = parts_on("cuda")
    card.limit_bytes = card.held_bytes + (1 << 20)
    with pytest.raises(torch.OutOfMemoryError), torch.no_grad():
        run_pass(runner, source, [Accumulator(greedy, None)])
    card.limit_bytes = card.held_bytes
    with pytest.raises(torch.OutOfMemoryError), torch.no_grad():
        runner.encode(next(source.stream("eval", BATCH)).x)


def test_a_group_that_finds_no_memory_fails_and_says_so(card: Card) -> None:
    class Wide:
        def measure(self, members: Any) -> MetricResult:
            return MetricResult({}, arrays={"all": torch.zeros(1 << 20, device="cuda")})

    spec = GroupMetricSpec("wide", "1", (MetricInfo("wide", "", "lower", "test", ""),), Wide)
    card.limit_bytes = 1 << 20
    answer = measure_group(spec, [])
    assert answer.failure is not None and "CUDA out of memory" in answer.failure
    assert answer.result.values["wide"].value is None
