"""The table of metric ids."""

from __future__ import annotations

import subprocess
import sys

from saebench.api import MetricContext, ScoringFacts, TrainingFacts
from saebench.metrics.accumulator import absence, nulls
from saebench.metrics.catalogue import (
    AGREEMENT,
    COST,
    DENSITY,
    INFO,
    LOSSES,
    RECONSTRUCTION,
    ROUNDED,
    SPARSITY,
    STABILITY,
    TRUTH,
)

IDS = {
    RECONSTRUCTION + LOSSES: (
        "fvu variance-explained mse fvu-median-token cosine l2-ratio relative-bias ce-clean ce-spliced "
        "ce-zero ce-mean ce-recovered-zero ce-recovered-mean kl kl-recovered"
    ),
    ROUNDED: ("fvu-16bit"),
    SPARSITY: ("l0 l0-p5 l0-p95 l1 values-per-token bits-per-token"),
    DENSITY: ("dead-fraction ultralow-fraction dense-fraction-1pct dense-fraction-10pct dense-mass-10pct"),
    STABILITY: (
        "sfr sfr-alive strict-shared matched-cosine matched-cosine-null mmcs subspace-agreement sfr-null "
        "sfr-alive-null strict-shared-null mmcs-null sfr-data-null sfr-alive-data-null strict-shared-data-null "
        "matched-cosine-data-null mmcs-data-null sfr-corrected sfr-alive-corrected strict-shared-corrected "
        "matched-cosine-corrected mmcs-corrected matched-correlation matched-correlation-null "
        "matched-correlation-corrected sfr-activation block-agreement distinct-latents idealised-dictionary-size"
    ),
    AGREEMENT: (
        "sfr-across-seeds sfr-across-datasets sfr-across-both sfr-alive-across-seeds sfr-alive-across-datasets "
        "sfr-alive-across-both matched-cosine-across-seeds matched-cosine-across-datasets "
        "matched-cosine-across-both mmcs-across-seeds mmcs-across-datasets mmcs-across-both dataset-over-seed"
    ),
    TRUTH: ("truth-mcc truth-f1 truth-uniqueness"),
    COST: (
        "train-tokens train-flops train-device-s peak-memory-bytes data-cost-tokens stored-bytes learned-values "
        "encode-tokens-per-s"
    ),
}


def test_ids_are_the_fixed_ones() -> None:
    for metrics, ids in IDS.items():
        assert [info.id for info in metrics] == ids.split()
    assert len(INFO) == sum(len(metrics) for metrics in IDS)
    assert {info.id for info in INFO.values() if info.measured} == {
        "train-device-s",
        "peak-memory-bytes",
        "encode-tokens-per-s",
    }


def test_nulls_and_absence() -> None:
    assert all(value.value is None and value.reason == "why" for value in nulls(TRUTH, "why").values())
    facts = TrainingFacts(0, 0, 0), ScoringFacts()
    context = MetricContext(object(), 1, 1, frozenset(), frozenset({"eval"}), {"loss": "no language model"}, *facts)  # type: ignore[arg-type]
    assert absence(context, "eval") is None
    assert absence(context, "loss") == "no language model"
    assert "self-sampled" in (absence(context, "self-sampled") or "")


def test_the_catalogue_loads_no_torch() -> None:
    check = "import sys, saebench.metrics, saebench.metrics.catalogue; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
