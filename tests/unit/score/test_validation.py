"""What a search goes by."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from saebench.api import MetricResult
from saebench.cells.cell import Tune
from saebench.metrics.reconstruction import ReconstructionSums
from saebench.score import score_cell
from saebench.score.validation import validate


def fvu(kit):
    class Fvu:
        def __init__(self, context):
            self.sums = ReconstructionSums(context.d_in)

        def update(self, stream, scored):
            self.sums.add(scored.batch.target, scored.x_hat, scored.batch.sequence_ids)

        def compute(self):
            return MetricResult({"fvu": self.sums.fvu(), "variance-explained": self.sums.variance_explained()})

    return kit.metric("judge", "fvu", "variance-explained", fields=("reconstruction",), make=Fvu)


TUNE = Tune("group", "default", "fvu", "lower", "judge", "7", {"lr": 0.1}, 3)


def by_hand(x: torch.Tensor, x_hat: torch.Tensor) -> float:
    x, x_hat = x.double(), x_hat.double()
    return float((x - x_hat).square().sum() / (x - x.mean(0)).square().sum())


def test_the_metric_that_decides_is_the_mean_over_evaluation_seeds(kit):
    cell = kit.cell(fvu(kit), tune=TUNE, metrics={})  # not among the metrics of the suite, and read all the same
    sources = [kit.Source(seed) for seed in (3, 4)]
    sae = kit.Identity(value=1.0)  # writes ones whatever it reads
    validation = [(kit.docs, seed, source) for seed, source in enumerate(sources)]
    found = validate(cell, sae, validation, kit.catalog, kit.training, decoder=kit.Identity(value=1.0))
    expected = [by_hand(source.x[:100], torch.ones(100, kit.d)) for source in sources]
    assert found.value["value"] == pytest.approx(sum(expected) / 2)
    assert [part["value"] for part in found.value["parts"]] == pytest.approx(expected)
    assert (found.value["metric"], found.value["n"], found.value["on"]) == ("fvu", 200, "docs")
    assert found.value["content"] == "digest"
    assert [source.asked for source in sources] == [["eval"], ["eval"]]  # no other stream
    assert (found.encoded_tokens, found.forward_flops) == (200, 2 * 150)


def test_a_candidate_s_scores_are_those_of_any_cell_and_validation_stands_apart(kit):
    spec = fvu(kit)
    plain = score_cell(
        kit.cell(spec), kit.Identity(), [(kit.docs, 0, kit.Source())], kit.catalog, kit.training,
        decoder=kit.Identity(),
    )  # fmt: skip
    cell = kit.cell(spec, tune=TUNE)
    found = score_cell(
        cell, kit.Identity(), [(kit.docs, 0, kit.Source())], kit.catalog, kit.training,
        decoder=kit.Identity(), validation=[(kit.docs, 0, kit.Source(5, n_eval=40))],
    )  # fmt: skip
    assert plain.validation is None
    assert found.metrics == plain.metrics
    assert found.validation is not None
    assert (found.validation["value"], found.validation["n"]) == (0.0, 40)
    assert found.spent["tokens"] == plain.spent["tokens"] + 40
    assert found.spent["flops"] > plain.spent["flops"]


def test_a_metric_that_raises_leaves_a_reason(kit):
    def boom(metric, provided):
        raise ValueError("no luck")

    spec = kit.metric("judge", "fvu", fields=("reconstruction",), compute=boom)
    cell, sources = kit.cell(spec, tune=TUNE), [(kit.docs, 0, kit.Source())]
    found = validate(cell, kit.Identity(), sources, kit.catalog, kit.training, decoder=kit.Identity())
    assert found.value["value"] is None
    assert found.value["reason"] == "ValueError: no luck"


def test_the_part_stands_in_what_was_evaluated(kit):
    spec = fvu(kit)

    def evaluation(**changes):
        cell = kit.cell(spec)
        cell = replace(cell, evaluation=replace(cell.evaluation, **changes))
        sources = [(kit.docs, 0, kit.Source())]
        outcome = score_cell(cell, kit.Identity(), sources, kit.catalog, kit.training, decoder=kit.Identity())
        return outcome.evaluation

    assert evaluation(part="test")["part"] == "test"
    assert "part" not in evaluation()
