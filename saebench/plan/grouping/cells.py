"""Arms crossed with seeds: cells with their ids.

`cell_id` digests exactly what decides the weights; `score_id` adds what decides the score. Names, package versions, device and
host are recorded elsewhere and stand in neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from saebench.base.canonical import digest
from saebench.cells.cell import (
    ENGINE_VERSION,
    ArchitectureUse,
    Cell,
    DatasetUse,
    EvaluationSettings,
    ModelUse,
    TrainSettings,
    Tune,
)
from saebench.config import Problems, Suite
from saebench.host import Registered
from saebench.plan.contenders.datasets import DatasetBook
from saebench.plan.contenders.metrics import MetricChoice
from saebench.plan.contenders.points import Arm
from saebench.plan.contenders.searches import Search

PARAMETER_DTYPE = "float32"
INFERENCE: Mapping[str, Any] = {}
"""Inference options: none yet; a checkpoint has one inference form."""


def cell_identity(
    *,
    part: ArchitectureUse,
    base: ArchitectureUse | None,
    tokens: int,
    train: TrainSettings,
    model: ModelUse | None,
    recipe: str,
    parent: str | None,
    init_seed: int | None,
    data_seed: int,
) -> dict[str, Any]:
    """All that decides the weights, as JSON. `init_seed=None` (and a parent's group key) gives the identity of a group."""
    return {
        "engine": ENGINE_VERSION,
        "architecture": asdict(part),
        "base": asdict(base) if base is not None else None,
        "tokens": tokens,
        "train": asdict(train),
        "parameter_dtype": PARAMETER_DTYPE,
        "model": {"digest": model.digest, "hookpoint": model.hookpoint, "context": model.context}
        if model is not None
        else None,
        "dataset": recipe,
        "parent": parent,
        "init_seed": init_seed,
        "data_seed": data_seed,
    }


def score_identity(
    cell_id: str,
    evaluation: EvaluationSettings,
    recipes: Sequence[str],
    metrics: Mapping[str, str],
    search: str | None = None,
) -> dict[str, Any]:
    """All that decides a score, as JSON: names of datasets do not matter, their recipes do. `search`: of a candidate, its search."""
    tuning = {"part": evaluation.part, "search": search}
    return {
        **{name: value for name, value in tuning.items() if value is not None},
        "cell": cell_id,
        "tokens": evaluation.tokens,
        "loss_tokens": evaluation.loss_tokens,
        "density_tokens": evaluation.density_tokens,
        "seeds": list(evaluation.seeds),
        "datasets": list(recipes),
        "metrics": dict(metrics),
        "inference": dict(INFERENCE),
    }


def cohort_key(model: ModelUse | None, recipe: str, data_seed: int, train: TrainSettings) -> str:
    """Digest of all that decides which activations come in which batches."""
    return digest(
        {
            "model": {"digest": model.digest, "hookpoint": model.hookpoint, "context": model.context}
            if model is not None
            else None,
            "dataset": recipe,
            "data_seed": data_seed,
            "batch": train.batch,
            "dtype": train.dtype,
            "shuffle": train.shuffle,
            "normalise": train.normalise,
        }
    )


@dataclass(frozen=True)
class CellMaker:
    """Makes cells of arms that come parents first."""

    suite: Suite
    book: DatasetBook
    metrics: MetricChoice
    problems: Problems

    def make(
        self, arms: Sequence[Arm], tokens: Mapping[Arm, int], evaluation: Mapping[Arm, tuple[str, ...]]
    ) -> list[tuple[Arm, Cell]]:
        """Every arm at every seed; controls at the first. Equal cells under two names are a problem."""
        made: dict[tuple[Arm, int, int], Cell] = {}
        seen: dict[str, Cell] = {}
        seeds = self.suite.config.seeds
        for arm in arms:
            for data_seed in seeds.data[:1] if arm.control else seeds.data:
                for init_seed in seeds.init[:1] if arm.control else seeds.init:
                    parent = made[arm.parent, data_seed, init_seed] if arm.parent is not None else None
                    cell = self._cell(arm, tokens[arm], evaluation[arm], init_seed, data_seed, parent)
                    twin = seen.setdefault(cell.cell_id, cell)
                    if twin is not cell:
                        names = f"{twin.label} and {cell.label}"
                        self.problems.line(
                            f"{cell.where} {names}: both are the same training run (equal architecture, config, data, seed). Keep one of them."
                        )
                    made[arm, data_seed, init_seed] = cell
        self._join_searches(made)
        return [(arm, cell) for (arm, _, _), cell in made.items()]

    def _join_searches(self, made: dict[tuple[Arm, int, int], Cell]) -> None:
        """Tells every candidate its search, whose key holds all candidates: with others among them it is another search."""
        members: dict[tuple[Search, int], set[str]] = {}
        for (arm, data_seed, _), cell in made.items():
            if arm.search is not None:
                members.setdefault((arm.search, data_seed), set()).add(cell.group)
        for key, cell in made.items():
            arm, data_seed, _ = key
            if (search := arm.search) is not None:
                code = digest(
                    {
                        "suite": cell.suite,
                        "entry": cell.entry,
                        "metric": search.metric,
                        "spec": search.spec,
                        "version": search.version,
                        "candidates": sorted(members[search, data_seed]),
                    }
                )
                tune = Tune(group=code, values=dict(arm.tuned), **vars(search))
                made[key] = replace(cell, tune=tune, score_id=self._score_id(cell, code))

    def _score_id(self, cell: Cell, search: str | None = None) -> str:
        recipes = [use.recipe for use in cell.evaluation_datasets]
        return digest(score_identity(cell.cell_id, cell.evaluation, recipes, self.metrics.cell_versions, search))

    def _cell(
        self, arm: Arm, tokens: int, datasets: tuple[str, ...], init_seed: int, data_seed: int, parent: Cell | None
    ) -> Cell:
        config = self.suite.config
        facts, model = arm.site.facts, arm.site.model
        dataset = self.book.use(arm.dataset.name, facts, arm.site.context)
        uses = tuple(self.book.use(name, facts, arm.site.context) for name in datasets)
        settings = EvaluationSettings(
            datasets,
            config.evaluation.tokens,
            config.evaluation.loss_tokens,
            config.evaluation.density_tokens,
            config.seeds.evaluation,
            "test" if any(entry.tune is not None for entry in config.entries) else None,
        )
        same: dict[str, Any] = {
            "part": arm.part,
            "base": arm.base,
            "tokens": tokens,
            "train": arm.train,
            "model": model,
            "recipe": dataset.recipe,
        }
        cell_id = digest(
            cell_identity(
                **same, data_seed=data_seed, init_seed=init_seed, parent=parent.cell_id if parent is not None else None
            )
        )
        group = digest(
            cell_identity(
                **same, data_seed=data_seed, init_seed=None, parent=parent.group if parent is not None else None
            )
        )
        cell = Cell(
            cell_id=cell_id,
            score_id="",
            suite=config.name,
            entry=arm.entry,
            point=arm.point,
            sweep=dict(arm.sweep),
            where=arm.where,
            part=arm.part,
            base=arm.base,
            d_in=arm.site.site.d_in,
            d_out=arm.site.site.d_out,
            d_sae=arm.d_sae,
            tags=arm.tags,
            model=model,
            dataset=dataset,
            evaluation=settings,
            evaluation_datasets=uses,
            init_seed=init_seed,
            data_seed=data_seed,
            parent=parent.cell_id if parent is not None else None,
            train=arm.train,
            tokens=tokens,
            control=arm.control,
            expected_l0=arm.cost.expected_l0,
            cohort=cohort_key(model, dataset.recipe, data_seed, arm.train),
            group=group,
            metrics=self.metrics.cell_versions,
            plugins=self._plugins(arm, uses),
        )
        return replace(cell, score_id=self._score_id(cell))

    def _plugins(self, arm: Arm, uses: Sequence[DatasetUse]) -> dict[str, dict[str, str]]:
        plugins: dict[str, Registered[Any]] = {f"architecture/{arm.registered.spec.name}": arm.registered}
        if arm.base_registered is not None:
            plugins[f"architecture/{arm.base_registered.spec.name}"] = arm.base_registered
        for name in (arm.dataset.name, *(use.name for use in uses)):
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
