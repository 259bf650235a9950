"""Scoring one cell: every cell metric, on every evaluation dataset, under every evaluation seed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saebench.activations.sources.held_out.streams import HeldOut
from saebench.api import CellMetricSpec, MetricResult, ScoringFacts, TrainingFacts
from saebench.api.errors import DIVERGED_ADVICE, Diverged, contained, describe
from saebench.base.text import without_folders
from saebench.cells.cell import Cell, DatasetUse
from saebench.host import Catalog
from saebench.host.build import cell_cost
from saebench.metrics.reconstruction import DIVERGED_FVU
from saebench.score.combine import DatasetValue, combine, info_json
from saebench.score.isolate import Accumulator, decode_tokens, plain_details
from saebench.score.one_pass import Firing, metric_context, run_pass
from saebench.score.runner import make_runner
from saebench.score.validation import validate


@dataclass
class ScoreOutcome:
    """What a record needs of one scoring.

    Attributes:
        metrics, measured_metrics: `metrics[id]` of the record; those that differ between equal runs are kept apart.
        metric_info, metric_versions: What each id is; version by spec.
        details: JSON-ready extras of the first dataset under the first seed.
        arrays: Per-latent arrays of that same pass; `density` is there wherever stream `density` is.
        evaluation: The record's `evaluation`.
        sae_facts: What the SAE says of itself.
        batch_coupled: How the codes of a token depend on its batch, where the architecture says that they may.
        spent: Tokens and FLOPs of scoring at its stand-alone cost: encoding, and the model's forwards behind the
            streams.
        seconds: Measured, all of it.
        validation: Of a candidate of a search: what the search goes by.
    """

    metrics: dict[str, Any]
    measured_metrics: dict[str, Any]
    metric_info: dict[str, Any]
    metric_versions: dict[str, str]
    details: dict[str, Any]
    arrays: dict[str, Tensor]
    evaluation: dict[str, Any]
    sae_facts: dict[str, Any]
    spent: dict[str, int]
    batch_coupled: str | None = None
    seconds: float = 0.0
    validation: dict[str, Any] | None = None


def score_cell(
    cell: Cell,
    sae: Any,
    sources: Sequence[tuple[DatasetUse, int, HeldOut]],
    catalog: Catalog,
    training: TrainingFacts,
    *,
    decoder: Any,
    validation: Sequence[tuple[DatasetUse, int, HeldOut]] = (),
) -> ScoreOutcome:
    """One held-out pass a source, feeding all metrics that the cell is scored by.

    Args:
        cell: Its `metrics` name the specs.
        sae: A `saebench.api.SparseAutoencoder` in inference form, in the units of the activations.
        sources: (dataset, evaluation seed, streams); the first one's dataset gives the headline values.
        catalog: Installed plugins.
        training: What training cost, for the cost metrics.
        decoder: The same SAE, loaded anew: `sae` encodes, this one decodes and has never seen x.
        validation: Of a candidate of a search: validation data, by evaluation seed.

    Raises:
        PluginError: The SAE itself breaks its contract: decode gets more than codes, say. A metric that raises only
            empties its own ids.
        Diverged: What it gives is not finite, or its FVU is over `DIVERGED_FVU` (controls, which learn nothing, may
            have any).
    """
    started = time.perf_counter()
    label = f"{cell.label} ({cell.part.architecture})"
    specs = [catalog.cell_metric(name).spec for name in sorted(cell.metrics)]
    facts = ScoringFacts()
    runner = make_runner(cell, sae, decoder, catalog, facts)
    values: dict[str, list[DatasetValue]] = {}
    details: dict[str, Any] = {}
    arrays: dict[str, Tensor] = {}
    thresholds: dict[str, Any] = {}
    forward_flops = 0

    def take(result: MetricResult, dataset: str | None, seed: int | None) -> None:
        for id, value in result.values.items():
            values.setdefault(id, []).append(DatasetValue(dataset, seed, value))

    def keep(result: MetricResult, texts: Any) -> None:
        found = plain_details(decode_tokens(dict(result.details), texts))
        # a metric with a threshold names it under this detail; it belongs to what was evaluated
        thresholds.update(found.pop("thresholds", {}))
        details.update(found)
        arrays.update({name: array.detach().cpu() for name, array in result.arrays.items()})

    with torch.no_grad():
        for index, (use, seed, source) in enumerate(sources):
            context = metric_context(cell, sae, source, training, facts)
            metrics = [Accumulator(spec, context) for spec in specs if spec.streams]
            firing = Firing() if index == 0 else None
            read = run_pass(runner, source, metrics, firing=firing)
            forward_flops += source.cost(read)["flops"]
            for metric in metrics:
                result = metric.compute()
                take(result, use.name, seed)
                if index == 0:
                    keep(result, source.token_texts)
            if firing is not None and (density := firing.density()) is not None:
                arrays.setdefault("density", density.cpu())
        if sources:
            # last, so that what scoring cost is complete; once, for it is no matter of datasets and seeds
            context = metric_context(cell, sae, sources[0][2], training, facts)
            for spec in specs:
                if not spec.streams:
                    result = Accumulator(spec, context).compute()
                    take(result, None, None)
                    keep(result, sources[0][2].token_texts)

    judged = validate(cell, sae, validation, catalog, training, decoder=decoder) if validation else None
    encoded = facts.encoded_tokens + (judged.encoded_tokens if judged is not None else 0)
    forward_flops += judged.forward_flops if judged is not None else 0
    provided = [info for spec in specs for info in spec.provides if info.id in values]
    entries = {info.id: combine(info, values[info.id]) for info in provided}
    _check_fvu(cell, entries.get("fvu"), label)
    measured = {info.id for info in provided if info.measured}
    return ScoreOutcome(
        metrics={id: entry for id, entry in entries.items() if id not in measured},
        measured_metrics={id: entry for id, entry in entries.items() if id in measured},
        metric_info=info_json(provided),
        metric_versions=_versions(specs),
        details={**details, **runner.findings.details()},
        arrays=arrays,
        evaluation={**_evaluation(cell, sources), "thresholds": thresholds},
        sae_facts=_sae_facts(sae),
        spent={
            "tokens": encoded,
            "flops": encoded * cell_cost(cell, catalog).encode_flops_per_token + forward_flops,
        },
        batch_coupled=runner.findings.coupled,
        seconds=time.perf_counter() - started,
        validation=judged.value if judged is not None else None,
    )


def _versions(specs: Sequence[CellMetricSpec]) -> dict[str, str]:
    return {spec.name: spec.version for spec in specs}


def _evaluation(cell: Cell, sources: Sequence[tuple[DatasetUse, int, HeldOut]]) -> dict[str, Any]:
    settings = cell.evaluation
    datasets: dict[str, dict[str, Any]] = {}
    for use, _, source in sources:
        # all seeds of a dataset read the same number of tokens; the content is that of the first
        if use.name not in datasets:
            datasets[use.name] = {
                "name": use.name,
                "recipe": use.recipe,
                "content": source.content,
                "n_tokens": source.n_tokens,
                "n_loss_tokens": source.n_loss_tokens,
                "n_density_tokens": source.n_density_tokens,
                "overlap": source.overlap(),
                "splice": source.splice(),
            }
    return {
        "datasets": list(datasets.values()),
        "seeds": list(settings.seeds),
        "tokens": settings.tokens,
        "loss_tokens": settings.loss_tokens,
        "density_tokens": settings.density_tokens,
        **({"part": settings.part} if settings.part is not None else {}),
    }


def _check_fvu(cell: Cell, fvu: Mapping[str, Any] | None, label: str) -> None:
    """Raises Diverged where a cell that was trained reconstructs nothing. A permuted decoder may be as far off."""
    if not cell.trains or fvu is None or fvu["value"] is None or fvu["value"] <= DIVERGED_FVU:
        return
    raise Diverged(f"{label}: the FVU on held-out data is {fvu['value']:.4g}, over {DIVERGED_FVU:g}. {DIVERGED_ADVICE}")


def _sae_facts(sae: Any) -> dict[str, Any]:
    tell = getattr(sae, "facts", None)
    if not callable(tell):
        return {}
    try:
        with contained():
            facts: Mapping[str, Any] = tell()
            return plain_details(dict(facts))
    except Exception as error:  # noqa: BLE001 - a plugin's own code
        return {"error": without_folders(describe(error))}
