"""The core metrics as the harness drives them."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from saebench.api import (
    ActivationBatch,
    CellMetricSpec,
    MetricContext,
    MetricResult,
    ScoredBatch,
    ScoringFacts,
    SparseCodes,
    SplicedLosses,
    TrainingFacts,
)
from saebench.api.specs import resolve
from saebench.metrics.catalogue import INFO
from saebench_plugins.core_metrics.plugin import METRICS, saebench_metrics

D_IN, D_SAE, N_TRUE = 16, 24, 20


class Sae(torch.nn.Module):
    """Reads and writes random directions, keeps the 4 largest."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.d_in, self.d_sae = D_IN, D_SAE
        rows = torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(seed))
        self.W_dec = torch.nn.Parameter(rows / rows.norm(dim=1, keepdim=True))
        self.W_enc = torch.nn.Parameter(self.W_dec.detach().clone())

    def encode(self, x: torch.Tensor) -> SparseCodes:
        values, latents = (x @ self.W_enc.T).topk(4)
        return SparseCodes.from_topk(values, latents, D_SAE)

    def decode(self, codes: SparseCodes) -> torch.Tensor:
        return codes.to_dense() @ self.W_dec


def context(sae: Sae, **changes: object) -> MetricContext:
    base = MetricContext(
        sae=sae,  # type: ignore[arg-type]
        d_in=D_IN,
        d_sae=D_SAE,
        tags=frozenset(),
        streams=frozenset({"eval", "density", "loss"}),
        absent={"random-tokens": "the data has no tokens", "self-sampled": "the data has no tokens"},
        training=TrainingFacts(1000, 10_000, 0, 1.0, 1 << 20),
        scoring=ScoringFacts(100, 0.1),
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def scored(sae: Sae, n: int = 256, seed: int = 0, dictionary: torch.Tensor | None = None) -> ScoredBatch:
    rng = torch.Generator().manual_seed(seed)
    truth = None
    x = torch.randn(n, D_IN, generator=rng)
    if dictionary is not None:
        present = torch.where(torch.rand(n, N_TRUE, generator=rng) < 0.1, torch.rand(n, N_TRUE, generator=rng), 0.0)
        x, truth = present @ dictionary, SparseCodes.from_dense(present)
    ids = torch.arange(n)
    batch = ActivationBatch(x, x, ids + 5, ids % 32, ids // 32 + 1000 * seed, truth)
    with torch.no_grad():
        codes = sae.encode(x)
        x_hat = sae.decode(codes)
    ones = torch.ones(n)
    return ScoredBatch(
        batch,
        codes,
        x_hat,
        SplicedLosses(2 * ones, 2.5 * ones, 8 * ones, 7 * ones, 0.5 * ones, 6 * ones),
        x_hat.bfloat16().float(),
    )


def run(name: str, ctx: MetricContext, batches: list[ScoredBatch]) -> MetricResult:
    spec = next(spec for spec in METRICS if spec.name == name)
    assert isinstance(spec, CellMetricSpec)
    metric = resolve(spec.make)(ctx)
    for stream in spec.streams:
        if stream in ctx.streams:
            for batch in batches:
                metric.update(stream, batch)
    result: MetricResult = metric.compute()
    assert list(result.values) == [info.id for info in spec.provides]
    json.dumps([value.to_json() for value in result.values.values()], allow_nan=False)
    json.dumps(dict(result.details), allow_nan=False)
    return result


CELL_SPECS = [spec.name for spec in METRICS if isinstance(spec, CellMetricSpec)]


def test_numbers_without_a_standard_error_are_those_that_the_readme_names() -> None:
    import saebench_plugins.core_metrics

    text = (Path(saebench_plugins.core_metrics.__file__).parent / "README.md").read_text("utf-8")
    section = text.split("### Numbers without a standard error\n")[1].split("\n#")[0]
    named = set(re.findall(r"`([a-z0-9-]+)`", section))
    sae, dictionary = Sae(), torch.nn.functional.normalize(torch.randn(N_TRUE, D_IN), dim=1)
    batches = [scored(sae, seed=seed, dictionary=dictionary) for seed in range(3)]
    results = [run(name, context(sae, dictionary=dictionary), batches) for name in CELL_SPECS]
    values = {id: value for result in results for id, value in result.values.items() if value.value is not None}
    assert len(values) > 30
    assert {id for id, value in values.items() if value.stderr is None} == named & values.keys()


def test_specs_cover_every_core_id_once() -> None:
    specs = saebench_metrics()
    assert sorted(info.id for spec in specs for info in spec.provides) == sorted(INFO)
    assert all(spec.core for spec in specs)
    assert {spec.name: spec.version for spec in specs if spec.version != "1"} == {
        "stability": "3",
        "losses": "3",
        "reconstruction": "3",
        "sparsity": "3",
        "density": "2",
        "truth": "3",
        "agreement": "2",
        "cost": "2",
    }


def test_plugin_loads_no_torch() -> None:
    check = "import sys, saebench_plugins.core_metrics.plugin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.mark.parametrize("name", CELL_SPECS)
def test_values_for_a_plain_sae(name: str) -> None:
    sae = Sae()
    result = run(name, context(sae), [scored(sae, seed=seed) for seed in range(3)])
    for id, value in result.values.items():
        if name == "truth" or id == "ultralow-fraction":
            assert value.value is None
        else:
            assert value.value is not None, (id, value.reason)


@pytest.mark.parametrize("name", CELL_SPECS)
def test_absent_and_empty_streams_give_null_with_the_reason(name: str) -> None:
    sae = Sae()
    absent = run(
        name, context(sae, streams=frozenset(), absent=dict.fromkeys(("eval", "density", "loss"), "nothing here")), []
    )
    empty = run(name, context(sae), [])
    if name not in ("cost", "latent-shares"):  # read no stream; have no ids
        reasons = {value.reason for value in absent.values.values()}
        assert reasons == (
            {"the true features are not known: the dataset is not synthetic"} if name == "truth" else {"nothing here"}
        )
        assert all(value.value is None and value.reason for value in empty.values.values())


def test_density_gives_histogram_contexts_and_array() -> None:
    sae = Sae()
    result = run("density", context(sae), [scored(sae, seed=seed) for seed in range(3)])
    assert result.arrays["density"].shape == (D_SAE,)
    assert result.arrays["density"].mean().item() == pytest.approx(4 / D_SAE)
    histogram = result.details["density-histogram"]
    assert sum(histogram["counts"]) + histogram["zero"] == D_SAE
    contexts = result.details["strongest-contexts"]
    assert len(contexts) == 20
    assert all(row["contexts"][0]["peak"] == max(c["peak"] for c in row["contexts"]) for row in contexts)


def test_truth_is_perfect_for_the_true_dictionary() -> None:
    dictionary = torch.linalg.qr(torch.randn(D_IN, D_IN, generator=torch.Generator().manual_seed(0))).Q
    dictionary = torch.cat([dictionary, dictionary[: N_TRUE - D_IN] + dictionary[1 : 1 + N_TRUE - D_IN]])
    dictionary /= dictionary.norm(dim=1, keepdim=True)
    sae = Sae()
    with torch.no_grad():
        sae.W_dec[:N_TRUE] = -dictionary  # the published form does not look at the sign
    result = run("truth", context(sae, dictionary=dictionary), [scored(sae, dictionary=dictionary)])
    assert result.values["truth-mcc"].value == pytest.approx(1)
    assert result.values["truth-uniqueness"].value == pytest.approx(N_TRUE / D_SAE)
    assert 0 < (result.values["truth-f1"].value or 0) < 1


def test_a_shuffled_decoder_has_no_score_that_does_not_see_the_order() -> None:
    dictionary = torch.randn(N_TRUE, D_IN, generator=torch.Generator().manual_seed(0))
    sae = Sae()
    shuffled = context(sae, dictionary=dictionary, tags=frozenset({"control", "shuffled_decoder"}))
    values = run("truth", shuffled, [scored(sae, dictionary=dictionary)]).values
    assert values["truth-mcc"].value is values["truth-uniqueness"].value is None
    assert "does not see an order" in str(values["truth-mcc"].reason)
    assert values["truth-f1"].value is not None
