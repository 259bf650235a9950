"""Contenders crossed with seeds: cells with their ids.

`cell_id` digests exactly what decides the weights; `score_id` adds what decides the score. Names, package versions,
device and host are recorded elsewhere and are in neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from saebench.base.canonical import digest
from saebench.cells.cell import (
    DATA_VERSION,
    ENGINE_VERSION,
    Cell,
    DatasetUse,
    EvaluationSettings,
)
from saebench.config import Problems, Suite
from saebench.host import Registered
from saebench.plan.contenders.contender import Contender
from saebench.plan.contenders.datasets import DatasetBook
from saebench.plan.contenders.metrics import MetricChoice

PARAMETER_DTYPE = "float32"


def cell_identity(cell: Cell) -> dict[str, Any]:
    """All that decides the weights, as JSON."""
    return {
        "engine": ENGINE_VERSION,
        **_data_version(),
        "architecture": asdict(cell.part),
        "base": asdict(cell.base) if cell.base is not None else None,
        "tokens": cell.tokens,
        "train": asdict(cell.train),
        "parameter_dtype": PARAMETER_DTYPE,
        "model": _place(cell),
        "dataset": cell.dataset.recipe,
        "parent": cell.parent,
        "init_seed": cell.init_seed,
        "data_seed": cell.data_seed,
    }


def score_identity(cell: Cell) -> dict[str, Any]:
    """All that decides a score, as JSON: recipes of datasets, not their names; of a candidate, its search."""
    evaluation = cell.evaluation
    tuning = {"part": evaluation.part, "search": cell.tune.group if cell.tune is not None else None}
    return {
        **{name: value for name, value in tuning.items() if value is not None},
        "cell": cell.cell_id,
        "tokens": evaluation.tokens,
        "loss_tokens": evaluation.loss_tokens,
        "density_tokens": evaluation.density_tokens,
        "seeds": list(evaluation.seeds),
        "datasets": [use.recipe for use in cell.evaluation_datasets],
        "metrics": dict(cell.metrics),
        "inference": {},  # options of a checkpoint's inference form: there are none yet
    }


def cohort_key(cell: Cell) -> str:
    """Digest of all that decides which activations come in which batches."""
    train = cell.train
    return digest(
        {
            "model": _place(cell),
            "dataset": cell.dataset.recipe,
            "data_seed": cell.data_seed,
            "batch": train.batch,
            "dtype": train.dtype,
            "shuffle": train.shuffle,
            "normalise": train.normalise,
            **_data_version(),
        }
    )


def _place(cell: Cell) -> dict[str, Any] | None:
    model = cell.model
    if model is None:
        return None
    return {"digest": model.digest, "hookpoint": model.hookpoint, "context": model.context}


def _data_version() -> dict[str, int]:
    """The version of how tokens and activations are made, from the second on: ids of the first were made without it."""
    return {"data": DATA_VERSION} if DATA_VERSION > 1 else {}


@dataclass(frozen=True)
class CellMaker:
    """Makes cells of contenders that come parents first."""

    suite: Suite
    book: DatasetBook
    metrics: MetricChoice
    problems: Problems

    def make(
        self,
        contenders: Sequence[Contender],
        tokens: Mapping[Contender, int],
        evaluation: Mapping[Contender, tuple[str, ...]],
    ) -> list[tuple[Contender, Cell]]:
        """Every contender at every seed, floor and ceiling rows at the first. Equal cells of two names are refused."""
        made: dict[tuple[Contender, int, int], Cell] = {}
        seeds = self.suite.config.seeds
        for contender in contenders:
            once = contender.control and not contender.continued
            for data_seed in seeds.data[:1] if once else seeds.data:
                for init_seed in seeds.init[:1] if once else seeds.init:
                    parent = made[contender.parent, data_seed, init_seed] if contender.parent is not None else None
                    cell = self._cell(contender, tokens[contender], evaluation[contender], init_seed, data_seed, parent)
                    made[contender, data_seed, init_seed] = cell
        cells = labelled(self._in_searches(list(made), list(made.values())))
        seen: dict[str, Cell] = {}
        for cell in cells:
            twin = seen.setdefault(cell.cell_id, cell)
            if twin is not cell:
                self.problems.line(
                    f"{cell.where} {twin.label} and {cell.label}: both are the same training run "
                    "(equal architecture, config, data, seed). Keep one of them."
                )
        return [(contender, cell) for (contender, _, _), cell in zip(made, cells, strict=True)]

    def _in_searches(self, keys: Sequence[tuple[Contender, int, int]], cells: Sequence[Cell]) -> list[Cell]:
        """With score ids, and every candidate with its search, whose key holds all candidates that it is among."""
        searches = [
            (one.entry, one.site, one.parent, one.tune.point, data_seed) if one.tune is not None else None
            for one, data_seed, _ in keys
        ]
        members: dict[object, set[str]] = {}
        for search, cell in zip(searches, cells, strict=True):
            members.setdefault(search, set()).add(cell.group)
        found = []
        for (contender, _, _), search, cell in zip(keys, searches, cells, strict=True):
            if (tune := contender.tune) is not None:
                code = digest(
                    {
                        "suite": cell.suite,
                        "entry": cell.entry,
                        "metric": tune.metric,
                        "spec": tune.spec,
                        "version": tune.version,
                        "candidates": sorted(members[search]),
                    }
                )
                cell = replace(cell, tune=replace(tune, group=code))
            found.append(replace(cell, score_id=digest(score_identity(cell))))
        return found

    def _cell(
        self,
        contender: Contender,
        tokens: int,
        datasets: tuple[str, ...],
        init_seed: int,
        data_seed: int,
        parent: Cell | None,
    ) -> Cell:
        config = self.suite.config
        site, architecture = contender.site, contender.architecture
        base = architecture.base.use if architecture.base is not None else None
        dataset = self.book.use(contender.dataset.name, site.facts, site.context)
        uses = tuple(self.book.use(name, site.facts, site.context) for name in datasets)
        settings = EvaluationSettings(
            datasets,
            config.evaluation.tokens,
            config.evaluation.loss_tokens,
            config.evaluation.density_tokens,
            config.seeds.evaluation,
            "test" if any(entry.tune is not None for entry in config.entries) else None,
        )
        cell = Cell(
            cell_id="",
            score_id="",
            suite=config.name,
            entry=contender.entry,
            point=contender.point,
            sweep=dict(contender.sweep),
            where=contender.where,
            part=architecture.use,
            base=base,
            d_in=site.site.d_in,
            d_out=site.site.d_out,
            d_sae=architecture.d_sae,
            tags=tuple(sorted(architecture.tags)),
            model=site.model,
            dataset=dataset,
            evaluation=settings,
            evaluation_datasets=uses,
            init_seed=init_seed,
            data_seed=data_seed,
            parent=parent.cell_id if parent is not None else None,
            train=contender.train,
            tokens=tokens,
            control=contender.control,
            continued=contender.continued,
            expected_l0=architecture.cost.expected_l0,
            cohort="",
            group="",
            metrics=self.metrics.cell_versions,
            plugins=self._plugins(contender, uses),
        )
        identity = cell_identity(cell)
        # seeds of one group differ in the init seed alone, and so do their parents
        group = digest(identity | {"init_seed": None, "parent": parent.group if parent is not None else None})
        return replace(cell, cell_id=digest(identity), cohort=cohort_key(cell), group=group)

    def _plugins(self, contender: Contender, uses: Sequence[DatasetUse]) -> dict[str, dict[str, str]]:
        plugins: dict[str, Registered[Any]] = {}
        for one in filter(None, (contender.architecture, contender.architecture.base)):
            plugins[f"architecture/{one.use.architecture}"] = one.registered
        for name in (contender.dataset.name, *(use.name for use in uses)):
            self._dataset_plugins(name, plugins)
        plugins |= {f"metric/{registered.spec.name}": registered for registered in self.metrics.cell}
        return {
            name: {"distribution": registered.distribution, "version": registered.version}
            for name, registered in sorted(plugins.items())
        }

    def _dataset_plugins(self, name: str, plugins: dict[str, Registered[Any]]) -> None:
        plan = self.book.get(name)
        if plan is not None:
            plugins[f"dataset/{plan.registered.spec.name}"] = plan.registered
            for base in self.book.bases(name):
                self._dataset_plugins(base, plugins)


def labelled(cells: Sequence[Cell]) -> list[Cell]:
    """The same cells with labels that differ: those of one entry, point and init seed name what else they differ in."""
    alike: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in cells:
        alike.setdefault((cell.entry, cell.point, cell.init_seed), []).append(cell)
    found = []
    for cell in cells:
        others = alike[cell.entry, cell.point, cell.init_seed]
        varied = [len(set(values)) > 1 for values in zip(*map(_places, others), strict=True)]
        named = [value for value, varies in zip(_places(cell), varied, strict=True) if varies and value]
        if sum(_places(other) == _places(cell) for other in others) > 1:
            named.append(cell.cell_id[:8])
        found.append(replace(cell, variant=" ".join(named)))
    return found


def _places(cell: Cell) -> tuple[str, str, str]:
    """Model, hookpoint (without a model the dataset) and data seed."""
    model = cell.model
    place = ("", cell.dataset.name) if model is None else (Path(model.id).name, model.hookpoint_name)
    return (*place, f"d{cell.data_seed}")
