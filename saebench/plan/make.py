"""A suite and a catalog to a plan: everything is checked, shared out and named before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saebench.api.errors import SuiteError
from saebench.base.near import hint
from saebench.cells.cell import Cell, DatasetUse
from saebench.cells.plan import ActivationUse, Plan
from saebench.config import Problems, Suite
from saebench.host import Catalog
from saebench.plan.contenders.controls import control_arms
from saebench.plan.contenders.datasets import DatasetBook
from saebench.plan.contenders.entries import expand
from saebench.plan.contenders.metrics import MetricChoice, choose_metrics
from saebench.plan.contenders.points import Arm
from saebench.plan.contenders.refusals import Refusals
from saebench.plan.contenders.sites import lone_model, model_sites
from saebench.plan.forecast.estimate import Estimator
from saebench.plan.forecast.rates import Measure, Rates
from saebench.plan.grouping.cells import CellMaker
from saebench.plan.grouping.cohorts import order_cells
from saebench.plan.grouping.groups import form_groups
from saebench.plan.sharing.budget import share_out
from saebench.plan.sharing.device_seconds import Calibration, calibrated, resumed

if TYPE_CHECKING:
    from saebench.lm.book import ModelBook


def make_plan(
    suite: Suite,
    catalog: Catalog,
    *,
    facts: ModelBook,
    only: str | None = None,
    rates: Measure | None = None,
    calibrate: Measure | None = None,
    calibration: Mapping[str, Any] | None = None,
    memory_limit_bytes: int | None = None,
) -> Plan:
    """Expands a suite into cells, cohorts and groups.

    Args:
        suite: From `saebench.config.load_suite`.
        catalog: Installed plugins.
        facts: Answers what the planner asks of language models.
        only: Keep this entry's cells and their ancestors; shares and ids stay those of the whole plan.
        rates: Measures this machine for the estimate; None: the estimate rests on an assumption.
        calibrate: Measures this machine for a budget of device seconds.
        calibration: `budget.calibration` of an earlier plan of this suite: where it knows every arm, its seconds are taken as they are.
        memory_limit_bytes: What cells that are trained together may take here, for the estimate.

    Raises:
        SuiteError: Everything wrong with the suite, one line a problem; or no entry is left whose data can be had. A refused
            entry beside others that can run is listed in the plan's `refused`.
        PluginError: A needed plugin is broken.
    """
    problems = Problems(suite.where)
    book = DatasetBook(suite, catalog, problems)
    sites = model_sites(suite, facts, problems)
    metrics = choose_metrics(suite, catalog, problems)
    refusals = Refusals(suite.where)
    if (lone := lone_model(suite, facts)) is not None:
        book.make_with(lone)
    arms = expand(suite, catalog, book, sites, problems, refusals)
    datasets = _evaluation_datasets(suite, book, problems, refusals)
    evaluation = {arm: datasets if arm.site.model is not None else (arm.dataset.name,) for arm in arms}
    measured: Rates | None = None
    calibrating: Calibration | None = None
    if suite.config.budget.primary == "device_seconds":
        refusals.stop(problems)  # nothing is measured for a suite that cannot be planned
        arms = refusals.usable(arms, evaluation, book)
        probes = _probes(suite, book, metrics, arms, evaluation)
        calibrating = resumed(calibration, probes) if calibration is not None else None
        if calibrating is None and calibrate is not None:
            measured = calibrate(list(probes.values()), _datasets(book, list(probes.items())))
            calibrating = calibrated(measured, probes)
    shares = share_out(suite, arms, book, problems, calibrating)
    refusals.stop(problems)
    arms = refusals.usable(arms, evaluation, book)

    tokens = dict(shares.tokens)
    warnings = list(shares.warnings)
    if suite.config.controls:
        controls, remarks = control_arms(suite, catalog, arms)
        warnings += remarks
        tokens |= {control: tokens[reference] for control, reference in controls}
        evaluation |= {control: evaluation[reference] for control, reference in controls}
        arms = [*arms, *(control for control, _ in controls)]
    made = CellMaker(suite, book, metrics, problems).make(arms, tokens, evaluation)
    problems.stop()
    cells, cohorts = order_cells([cell for _, cell in made], _activations(suite))
    groups = form_groups(cells, metrics)
    used = _datasets(book, made)
    read = {entry.dataset for entry in suite.config.entries} | set(datasets)
    idle = Problems(suite.where)
    for path, what in book.idle_faults(read):
        idle.add(path, f"{what} No entry reads it.")
    warnings += idle.lines()
    warnings += _remarks(suite, arms)
    warnings += [remark for name in used for remark in book.findings(name).remarks]
    warnings += _short_evaluation(made)
    if measured is None:
        measured = rates(cells, used) if rates is not None else Rates()
    warnings += measured.remarks
    estimator = Estimator(catalog, facts, measured)
    plan = Plan(
        suite=suite.config.name,
        source=suite.source,
        suite_digest=suite.digest,
        budget=shares.budget,
        cells=tuple(cells),
        cohorts=tuple(cohorts),
        groups=tuple(groups),
        estimate=estimator.estimate(cells, cohorts, groups, memory_limit_bytes=memory_limit_bytes),
        warnings=tuple(warnings),
        datasets=used,
        refused=refusals.listed(),
    )
    if only is None:
        return plan
    plan = _narrowed(plan, only, suite)
    return replace(
        plan,
        estimate=estimator.estimate(plan.cells, plan.cohorts, plan.groups, memory_limit_bytes=memory_limit_bytes),
    )


def _probes(
    suite: Suite,
    book: DatasetBook,
    metrics: MetricChoice,
    arms: Sequence[Arm],
    evaluation: Mapping[Arm, tuple[str, ...]],
) -> dict[Arm, Cell]:
    """A cell of each arm with a share of one batch: what a calibration runs steps of, before shares are known."""
    silent = Problems(suite.where)  # cells that are equal but for their share are told when shares are known
    tokens = {arm: arm.train.batch for arm in arms}
    cells: dict[Arm, Cell] = {}
    for arm, cell in CellMaker(suite, book, metrics, silent).make(arms, tokens, evaluation):
        cells.setdefault(arm, cell)
    return cells


def _evaluation_datasets(suite: Suite, book: DatasetBook, problems: Problems, refusals: Refusals) -> tuple[str, ...]:
    """Datasets that cells on a language model are scored on; cells on activations are scored on their own."""
    named = suite.config.evaluation.datasets
    on_model = any(model.hookpoints for model in suite.config.models)
    if named is None:
        first = next(
            (
                entry.dataset
                for entry in suite.config.entries
                if entry.name not in refusals and (plan := book.get(entry.dataset)) is not None and plan.on_model
            ),
            None,
        )
        return (first,) if first is not None else ()
    for i, name in enumerate(named):
        plan = book.get(name)
        if plan is not None and not plan.on_model:
            problems.add(
                ("evaluation", "datasets", i),
                f"{name!r} is {plan.kind}: its entries are scored on it of their own. List text or generated datasets here.",
            )
        elif plan is not None and not on_model:
            problems.add(
                ("evaluation", "datasets", i),
                f"{name!r} is {plan.kind} and needs a language model, but the suite has none. Leave `datasets` out or add `models:`.",
            )
    return named


def _datasets(book: DatasetBook, made: Sequence[tuple[Arm, Cell]]) -> dict[str, DatasetUse]:
    """Every dataset that some cell reads, and what those read, by name. Where content depends on the model: the first model's."""
    uses: dict[str, DatasetUse] = {}

    def add(name: str, arm: Arm) -> None:
        uses.setdefault(name, book.use(name, arm.site.facts, arm.site.context))
        for base in book.bases(name):
            add(base, arm)

    for arm, cell in made:
        for name in (cell.dataset.name, *cell.evaluation.datasets):
            add(name, arm)
    return uses


def _short_evaluation(made: Sequence[tuple[Arm, Cell]]) -> list[str]:
    """Evaluation never repeats anything: it uses what there is."""
    short: dict[str, None] = {}
    for _, cell in made:
        asked = cell.evaluation.tokens
        for use in cell.evaluation_datasets:
            there = use.holds.get("held-out")
            if there is not None and there < asked:
                found = f"{there:,} vectors" if cell.model is None else f"about {there:,} tokens"
                short[
                    f"dataset '{use.name}': {found} are held out, evaluation.tokens asks for {asked:,}. All of them are used; records say how many."
                ] = None
    return list(short)


def _activations(suite: Suite) -> ActivationUse:
    block = suite.config.activations
    prefetch = None if block.prefetch == "auto" else block.prefetch
    return ActivationUse(block.source, block.build, prefetch, block.quota_gb)


def _remarks(suite: Suite, arms: Sequence[Arm]) -> list[str]:
    remarks = []
    encoders = dict.fromkeys(
        arm.site.model.id
        for arm in arms
        if arm.site.model is not None and arm.site.facts is not None and not arm.site.facts.causal
    )
    remarks += [
        f"{model.id}: {note}"
        for model in dict.fromkeys(arm.site.model for arm in arms if arm.site.model is not None)
        for note in model.notes
    ]
    remarks += [f"{name} is no causal language model: metrics of its loss are null there." for name in encoders]
    if len(suite.config.seeds.init) < 2:
        remarks.append(
            "one init seed: no intervals, and stability metrics are null. Give `seeds: {init: [0, 1, 2]}` for both."
        )
    return remarks


def _narrowed(plan: Plan, only: str, suite: Suite) -> Plan:
    """The plan with the cells of one entry and all they start from."""
    names = list(dict.fromkeys(cell.entry for cell in plan.cells))
    if only not in names:
        if refused := [refused.reason for refused in plan.refused if refused.entry == only]:
            raise SuiteError("\n".join(refused))
        suite_error = Problems(suite.where)
        suite_error.line(f"--only {only}: no entry of this name. {hint(only, names)}")
        suite_error.stop()
    by_id = {cell.cell_id: cell for cell in plan.cells}
    kept: set[str] = set()
    for cell in plan.cells:
        here: Cell | None = cell if cell.entry == only else None
        while here is not None:
            kept.add(here.cell_id)
            here = by_id[here.parent] if here.parent is not None else None
    cells = tuple(cell for cell in plan.cells if cell.cell_id in kept)
    cohorts = tuple(
        replace(cohort, cells=tuple(cell for cell in cohort.cells if cell in kept)) for cohort in plan.cohorts
    )
    cohorts = tuple(cohort for cohort in cohorts if cohort.cells)
    there = {cohort.key for cohort in cohorts}
    cohorts = tuple(replace(cohort, after=tuple(key for key in cohort.after if key in there)) for cohort in cohorts)
    groups = tuple(group for group in plan.groups if set(group.cells) <= kept)
    return replace(plan, cells=cells, cohorts=cohorts, groups=groups)
