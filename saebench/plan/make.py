"""A suite and a catalog to a plan: everything is checked, shared out and named before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saebench.cells.cell import Cell, DatasetUse
from saebench.cells.plan import ActivationUse, Plan
from saebench.config import Problems, Suite
from saebench.host import Catalog
from saebench.plan.contenders.contender import Contender
from saebench.plan.contenders.controls import control_contenders
from saebench.plan.contenders.datasets import DatasetBook
from saebench.plan.contenders.entries import Expansion
from saebench.plan.contenders.metrics import MetricChoice, choose_metrics
from saebench.plan.contenders.refusals import Refusals
from saebench.plan.contenders.sites import lone_model, model_sites
from saebench.plan.forecast.estimate import gather, predict
from saebench.plan.forecast.rates import Measure, Rates
from saebench.plan.grouping.cells import CellMaker
from saebench.plan.grouping.cohorts import order_cells
from saebench.plan.grouping.groups import form_groups
from saebench.plan.sharing.budget import share_out
from saebench.plan.sharing.continued import continued_contenders
from saebench.plan.sharing.device_seconds import Calibration, calibrated, resumed

if TYPE_CHECKING:
    from saebench.lm.book import ModelBook


def make_plan(
    suite: Suite,
    catalog: Catalog,
    *,
    facts: ModelBook,
    rates: Measure | None = None,
    calibrate: Measure | None = None,
    calibration: Mapping[str, Any] | None = None,
    free_bytes: int | None = None,
    compiles: bool = False,
) -> Plan:
    """Expands a suite into cells, cohorts and groups.

    Args:
        suite: From `saebench.config.load_suite`.
        catalog: Installed plugins.
        facts: Answers what the planner asks of language models.
        rates: Measures this machine for the estimate; None: the estimate rests on an assumption.
        calibrate: Measures this machine for a budget of device seconds.
        calibration: `budget.calibration` of an earlier plan of this suite: where it knows every contender, its seconds
            are taken as they are.
        free_bytes, compiles: Of the device, for the estimate (see `gather`).

    Raises:
        SuiteError: Everything wrong with the suite, one line a problem; or no entry is left whose data can be had. A
            refused entry beside others that can run is listed in the plan's `refused`.
        PluginError: A needed plugin is broken.
    """
    problems = Problems(suite.where)
    book = DatasetBook(suite, catalog, problems)
    sites = model_sites(suite, facts, problems)
    metrics = choose_metrics(suite, catalog, problems)
    refusals = Refusals(suite.where)
    if (lone := lone_model(suite, facts)) is not None:
        book.make_with(lone)
    contenders = Expansion(suite, catalog, book, sites, problems, refusals).contenders()
    datasets = _evaluation_datasets(suite, book, problems, refusals)
    evaluation = {
        contender: datasets if contender.site.model is not None else (contender.dataset.name,)
        for contender in contenders
    }
    measured: Rates | None = None
    calibrating: Calibration | None = None
    if suite.config.budget.primary == "device_seconds":
        refusals.stop(problems)  # nothing is measured for a suite that cannot be planned
        contenders = refusals.usable(contenders, evaluation, book)
        to_measure = _cells_to_measure(suite, book, metrics, contenders, evaluation)
        calibrating = resumed(calibration, to_measure) if calibration is not None else None
        if calibrating is None and calibrate is not None:
            measured = calibrate(list(to_measure.values()), _datasets(book, list(to_measure.items())))
            calibrating = calibrated(measured, to_measure)
    shares = share_out(suite, contenders, book, problems, calibrating)
    refusals.stop(problems)
    contenders = refusals.usable(contenders, evaluation, book)

    tokens = dict(shares.tokens)
    warnings = list(shares.warnings)
    children = contenders if suite.config.child_controls else []
    continued, remarks = continued_contenders(children, tokens, suite.config.budget.primary)
    warnings += remarks
    if suite.config.controls:
        controls, remarks = control_contenders(suite, catalog, contenders)
        warnings += remarks
        tokens |= {control: tokens[reference] for control, reference in controls}
        evaluation |= {control: evaluation[reference] for control, reference in controls}
        contenders = [*contenders, *(control for control, _ in controls)]
    tokens |= {control: allotted for control, (_, allotted) in continued.items()}
    evaluation |= {control: evaluation[child] for control, (child, _) in continued.items()}
    contenders = [*contenders, *continued]
    made = CellMaker(suite, book, metrics, problems).make(contenders, tokens, evaluation)
    problems.stop()
    cells, cohorts = order_cells([cell for _, cell in made], _activations(suite))
    groups = form_groups(cells, metrics)
    used = _datasets(book, made)
    read = {entry.dataset for entry in suite.config.entries} | set(datasets)
    idle = Problems(suite.where)
    for path, what in book.idle_faults(read):
        idle.add(path, f"{what} No entry reads it.")
    warnings += idle.lines()
    warnings += _remarks(suite, contenders)
    warnings += [remark for name in used for remark in book.findings(name).remarks]
    warnings += _short_evaluation(made)
    if measured is None:
        measured = rates(cells, used) if rates is not None else Rates()
    warnings += measured.remarks
    return Plan(
        suite=suite.config.name,
        source=suite.source,
        suite_digest=suite.digest,
        budget=shares.budget,
        cells=tuple(cells),
        cohorts=tuple(cohorts),
        groups=tuple(groups),
        estimate=predict(
            gather(
                cells,
                cohorts,
                groups,
                catalog=catalog,
                facts=facts,
                free_bytes=free_bytes,
                memory_gb=suite.config.budget.memory_gb,
                compiles=compiles,
            ),
            measured,
        ),
        warnings=tuple(warnings),
        datasets=used,
        refused=refusals.listed(),
    )


def _cells_to_measure(
    suite: Suite,
    book: DatasetBook,
    metrics: MetricChoice,
    contenders: Sequence[Contender],
    evaluation: Mapping[Contender, tuple[str, ...]],
) -> dict[Contender, Cell]:
    """A cell of each contender with a share of one batch: what a calibration runs steps of, before shares are known."""
    silent = Problems(suite.where)  # cells that are equal but for their share are reported when shares are known
    tokens = {contender: contender.train.batch for contender in contenders}
    cells: dict[Contender, Cell] = {}
    for contender, cell in CellMaker(suite, book, metrics, silent).make(contenders, tokens, evaluation):
        cells.setdefault(contender, cell)
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
                f"{name!r} is {plan.kind}: its entries are scored on it of their own. List text or generated datasets "
                "here.",
            )
        elif plan is not None and not on_model:
            problems.add(
                ("evaluation", "datasets", i),
                f"{name!r} is {plan.kind} and needs a language model, but the suite has none. Leave `datasets` out or "
                "add `models:`.",
            )
    return named


def _datasets(book: DatasetBook, made: Sequence[tuple[Contender, Cell]]) -> dict[str, DatasetUse]:
    """Every dataset that some cell reads, and what those read, by name. Where a model decides content: the first's."""
    uses: dict[str, DatasetUse] = {}

    def add(name: str, contender: Contender) -> None:
        uses.setdefault(name, book.use(name, contender.site.facts, contender.site.context))
        for base in book.bases(name):
            add(base, contender)

    for contender, cell in made:
        for name in (cell.dataset.name, *cell.evaluation.datasets):
            add(name, contender)
    return uses


def _short_evaluation(made: Sequence[tuple[Contender, Cell]]) -> list[str]:
    """Evaluation never repeats anything: it uses what there is."""
    short: dict[str, None] = {}
    for _, cell in made:
        asked = cell.evaluation.tokens
        for use in cell.evaluation_datasets:
            there = use.holds.get("held-out")
            if there is not None and there < asked:
                found = f"{there:,} vectors" if cell.model is None else f"about {there:,} tokens"
                short[
                    f"dataset '{use.name}': {found} are held out, evaluation.tokens asks for {asked:,}. All of them "
                    "are used; records say how many."
                ] = None
    return list(short)


def _activations(suite: Suite) -> ActivationUse:
    block = suite.config.activations
    prefetch = None if block.prefetch == "auto" else block.prefetch
    return ActivationUse(block.source, block.build, prefetch, block.quota_gb)


def _remarks(suite: Suite, contenders: Sequence[Contender]) -> list[str]:
    encoders = dict.fromkeys(
        contender.site.model.id
        for contender in contenders
        if contender.site.model is not None and contender.site.facts is not None and not contender.site.facts.causal
    )
    models = [contender.site.model for contender in contenders if contender.site.model is not None]
    remarks = list(dict.fromkeys(f"{model.id}: {note}" for model in models for note in model.notes))
    remarks += [f"{name} is no causal language model: metrics of its loss are null there." for name in encoders]
    if len(suite.config.seeds.init) < 2:
        remarks.append(
            "one init seed: no intervals, and stability metrics are null. Give `seeds: {init: [0, 1, 2]}` for both."
        )
    return remarks
