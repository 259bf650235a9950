"""A suite and a catalog to a plan: everything is checked, shared out and named before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from saebench.config import Problems, Suite
from saebench.config.near import hint
from saebench.host import Catalog
from saebench.plan.arms import Arm
from saebench.plan.budget import share_out
from saebench.plan.cells import CellMaker
from saebench.plan.cohorts import form_groups, order_cells
from saebench.plan.controls import control_arms
from saebench.plan.datasets import DatasetBook
from saebench.plan.estimate import estimate
from saebench.plan.expand import expand
from saebench.plan.facts import ModelFactsSource
from saebench.plan.metrics import choose_metrics
from saebench.plan.model import Cell, Cohort, DatasetUse, Estimate, Plan
from saebench.plan.sites import model_sites


def make_plan(suite: Suite, catalog: Catalog, *, facts: ModelFactsSource, only: str | None = None) -> Plan:
    """Expands a suite into cells, cohorts and groups.

    Args:
        suite: From `saebench.config.load_suite`.
        catalog: Installed plugins.
        facts: Answers what the planner asks of language models.
        only: Keep this entry's cells and their ancestors; shares and ids stay those of the whole plan.

    Raises:
        SuiteError: Everything wrong with the suite, one line a problem.
        PluginError: A needed plugin is broken.
    """
    problems = Problems(suite.where)
    book = DatasetBook(suite, catalog, problems)
    sites = model_sites(suite, facts, problems)
    metrics = choose_metrics(suite, catalog, problems)
    arms = expand(suite, catalog, book, sites, problems)
    datasets = _evaluation_datasets(suite, book, problems)
    shares = share_out(suite, arms, book, problems)
    problems.stop()

    tokens = dict(shares.tokens)
    warnings = list(shares.warnings)
    if suite.config.controls:
        controls, remarks = control_arms(suite, catalog, arms)
        warnings += remarks
        tokens |= {control: tokens[reference] for control, reference in controls}
        arms = [*arms, *(control for control, _ in controls)]
    evaluation = {arm: datasets if arm.site.model is not None else (arm.dataset.name,) for arm in arms}
    made = CellMaker(suite, book, metrics, problems).make(arms, tokens, evaluation)
    problems.stop()
    cells, cohorts = order_cells([cell for _, cell in made])
    arm_of = {cell.cell_id: arm for arm, cell in made}
    warnings += _remarks(suite, arms)
    plan = Plan(
        suite=suite.config.name,
        source=suite.source,
        suite_digest=suite.digest,
        budget=shares.budget,
        cells=tuple(cells),
        cohorts=tuple(cohorts),
        groups=tuple(form_groups(cells, metrics)),
        estimate=_estimate(cells, cohorts, arm_of, book),
        warnings=tuple(warnings),
        datasets=_datasets(book, cells, arm_of),
    )
    return plan if only is None else _narrowed(plan, only, suite, arm_of, book)


def _evaluation_datasets(suite: Suite, book: DatasetBook, problems: Problems) -> tuple[str, ...]:
    """Datasets that cells on a language model are scored on; cells on activations are scored on their own."""
    named = suite.config.evaluation.datasets
    on_model = any(model.hookpoints for model in suite.config.models)
    if named is None:
        first = next(
            (
                entry.dataset
                for entry in suite.config.entries
                if (plan := book.get(entry.dataset)) is not None and plan.on_model
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


def _datasets(book: DatasetBook, cells: Sequence[Cell], arm_of: Mapping[str, Arm]) -> dict[str, DatasetUse]:
    """Every dataset that some cell reads, and what those read, by name. Where content depends on the model: the first model's."""
    uses: dict[str, DatasetUse] = {}

    def add(name: str, arm: Arm) -> None:
        uses.setdefault(name, book.use(name, arm.site.facts, arm.site.context))
        for base in book.bases(name):
            add(base, arm)

    for cell in cells:
        for name in (cell.dataset.name, *cell.evaluation.datasets):
            add(name, arm_of[cell.cell_id])
    return uses


def _remarks(suite: Suite, arms: Sequence[Arm]) -> list[str]:
    remarks = []
    encoders = dict.fromkeys(
        arm.site.model.id
        for arm in arms
        if arm.site.model is not None and arm.site.facts is not None and not arm.site.facts.causal
    )
    remarks += [f"{name} is no causal language model: metrics of its loss are null there." for name in encoders]
    if len(suite.config.seeds.init) < 2:
        remarks.append(
            "one init seed: no intervals, and stability metrics are null. Give `seeds: {init: [0, 1, 2]}` for both."
        )
    return remarks


def _estimate(
    cells: Sequence[Cell], cohorts: Sequence[Cohort], arm_of: Mapping[str, Arm], book: DatasetBook
) -> Estimate:
    data_tokens = {cohort.dataset.name: book.made_tokens(cohort.dataset.name) for cohort in cohorts}
    return estimate(cells, cohorts, arm_of, data_tokens)


def _narrowed(plan: Plan, only: str, suite: Suite, arm_of: Mapping[str, Arm], book: DatasetBook) -> Plan:
    """The plan with the cells of one entry and all they start from."""
    names = list(dict.fromkeys(cell.entry for cell in plan.cells))
    if only not in names:
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
    return replace(plan, cells=cells, cohorts=cohorts, groups=groups, estimate=_estimate(cells, cohorts, arm_of, book))
