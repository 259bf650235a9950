"""What a search goes by: one metric of a candidate on the validation part of the held-out data, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from saebench.activations.sources.held_out.streams import HeldOut
from saebench.api import ScoringFacts, TrainingFacts
from saebench.cells.cell import Cell, DatasetUse
from saebench.host import Catalog
from saebench.score.combine import DatasetValue, combine
from saebench.score.isolate import Accumulator
from saebench.score.one_pass import metric_context, run_pass
from saebench.score.runner import make_runner


@dataclass(frozen=True)
class Validation:
    """A validation score.

    Attributes:
        value: As an entry of `metrics` in a record, with the metric's id and the content digest of what was read.
        encoded_tokens, forward_flops: The work.
    """

    value: dict[str, Any]
    encoded_tokens: int
    forward_flops: int


def validate(
    cell: Cell,
    sae: Any,
    sources: Sequence[tuple[DatasetUse, int, HeldOut]],
    catalog: Catalog,
    training: TrainingFacts,
    *,
    decoder: Any,
) -> Validation:
    """The metric that decides the cell's search: its mean over evaluation seeds.

    Args:
        cell: A candidate of a search.
        sae: In inference form.
        sources: Validation data of the first evaluation dataset, by evaluation seed.
        catalog: Installed plugins.
        training: For the metric's context.
        decoder: The same SAE, loaded anew, which decodes.

    Raises:
        PluginError: The SAE breaks its contract. A metric that raises gives null with what it raised as reason.
    """
    tune = cell.tune
    assert tune is not None
    spec = catalog.cell_metric(tune.spec).spec
    info = next(info for info in spec.provides if info.id == tune.metric)
    facts = ScoringFacts()
    runner = make_runner(cell, sae, decoder, catalog, facts)
    values, flops = [], 0
    with torch.no_grad():
        for use, seed, source in sources:
            context = metric_context(cell, sae, source, training, facts)
            metric = Accumulator(spec, context)
            flops += source.cost(run_pass(runner, source, [metric]))["flops"]
            values.append(DatasetValue(use.name, seed, metric.compute().values[info.id]))
    value = {"metric": tune.metric, **combine(info, values), "content": sources[0][2].content}
    return Validation(value, facts.encoded_tokens, flops)
