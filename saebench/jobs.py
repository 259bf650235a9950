"""The main jobs, as the command line and Python call them: plan, run, load an SAE, match two, write a starter suite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench import console
from saebench.api.errors import MachineError, SuiteError
from saebench.artifacts import RunFolder, iter_records, write_plan
from saebench.execute.folder import Owner, check_folder, locked
from saebench.execute.forecast import LONG_S, Forecast, memory_short
from saebench.execute.resume import written_calibration
from saebench.measure.machine import n_threads, run_numerics

if TYPE_CHECKING:
    import torch

    from saebench.cells.plan import Plan
    from saebench.compare.pair import Comparison
    from saebench.measure.place import Place
    from saebench.plan.forecast.rates import Measure

CELLS_FAILED = 4


@dataclass(frozen=True)
class RunResult:
    """What a run left behind."""

    folder: Path
    leaderboard: Path
    statuses: dict[str, str]
    table: str
    failed_groups: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    """Entries that were left out, each with file, line and reason."""

    @property
    def exit_status(self) -> int:
        """0 when all cells are ok, no group failed and no entry was refused, else 4 (records and plan.json say why)."""
        ok = all(status == "ok" for status in self.statuses.values()) and not self.failed_groups and not self.refused
        return 0 if ok else CELLS_FAILED


class _Opened:
    """A suite that was read, and what a plan of it is made with."""

    def __init__(
        self,
        suite: str | Path,
        out: Path | None,
        place: Place,
        fresh: bool,
        plugins: Sequence[Path],
        say: Callable[[str], None],
        *,
        config_alone: bool = False,
    ) -> None:
        from saebench.config import load_suite
        from saebench.host import load_catalog
        from saebench.lm.book import ModelBook

        self.catalog = load_catalog(plugins, say)
        self.suite = load_suite(suite)
        self.facts = ModelBook(self.catalog, config_alone=config_alone, device=place.device)
        self.folder = Path("runs") / self.suite.config.name if out is None else Path(out)
        self.place, self.room, self._fresh, self._say = place, place.room(), fresh, say

    @cached_property
    def measure(self) -> Measure:
        """Measures this machine when it is called."""
        from saebench.measure.calibrate import measure

        assumed = self.place.assumed().assumed
        return measure(self.catalog, device=self.place.device, say=self._say, assumed=assumed, fresh=self._fresh)

    @property
    def _unmeasured(self) -> Measure:
        """What is known of the place without measuring it."""
        from saebench.measure.needed import measured_elsewhere

        if self.place.here:
            return self.place.assumed
        return measured_elsewhere(self.catalog, self.place.is_it, self.place.assumed().assumed)

    def plan(self, *, rates: Measure | None = None, calibrate: Measure | None = None) -> Plan:
        """The plan, with the calibration that an earlier run of the same suite made in the folder.

        Args:
            rates: For the estimate; None: it rests on an assumption.
            calibrate: For a budget of device seconds that has no calibration yet.
        """
        from saebench.plan import make_plan

        budget = self.suite.config.budget
        keeps = budget.primary == "device_seconds" and not self._fresh
        calibration = written_calibration(RunFolder(self.folder), self.suite.digest) if keeps else None
        if budget.primary == "device_seconds" and calibration is None:
            self.place.refuse_seconds()
        return make_plan(
            self.suite,
            self.catalog,
            facts=self.facts,
            rates=rates or self._unmeasured,
            calibrate=calibrate,
            calibration=calibration,
            free_bytes=self.room.free,
            compiles=self.room.compiles,
        )


def plan_suite(
    suite: str | Path,
    *,
    out: Path | None = None,
    device: str = "cpu",
    measure: bool | None = False,
    fresh: bool = False,
    plugins: Sequence[Path] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Plan:
    """The plan of a suite (file or built-in name); trains nothing. Of a language model its config is enough.

    Args:
        suite: File or built-in name.
        out: Run folder: a calibration of device seconds that it holds is kept. Default `runs/<suite>`.
        device: Where it would run: a device of this machine, or a card by its name (`h100`).
        measure: Measure this machine for the estimate, which takes half a minute the first time. False: the estimate
            rests on an assumption. None: measure where the assumption says that the run takes more than five minutes,
            as `run_suite` does. A budget of device seconds must measure unless `out` holds its calibration. A card that
            is elsewhere is never measured.
        fresh: Measure again what was measured before, and calibrate anew.
        plugins: Local plugin files.
        say: Prints one line for people.

    Raises:
        SuiteError: The suite, a model or a dataset cannot be used.
        PluginError: A needed plugin is broken.
        MachineError: The device is not in this machine, or its memory cannot hold what the plan needs.
    """
    from saebench.measure.place import place_to_plan

    place = place_to_plan(device)
    if place.remark:
        say(place.remark)
    if measure:
        place.refuse_measuring()
    opened = _Opened(suite, out, place, fresh, plugins, say, config_alone=True)
    rates = None if measure is False or not place.here else opened.measure
    with console.phase("planning", str(suite)):
        plan = opened.plan(calibrate=rates)
        if rates is not None and (measure or plan.estimate.seconds > LONG_S):
            plan = opened.plan(rates=rates, calibrate=rates)
        short = memory_short(plan, opened.room, opened.catalog, opened.facts)
    if short is not None:
        if short.hopeless:
            raise MachineError(short.message)
        say(f"warning: {short.message}")
    return plan


def starter(model: str, text: str, *, hookpoint: str | None = None, plugins: Sequence[Path] = ()) -> str:
    """The YAML text of a suite for a model and a text of your own; both are checked first.

    Raises:
        SuiteError: The model, the hookpoint or the text cannot be used.
    """
    from saebench.host import load_catalog
    from saebench.lm.facts import describe_model
    from saebench.plan import check_text, starter_suite

    if not Path(text).exists():
        raise SuiteError(
            f"--text {text}: no such file or folder. Give a txt, jsonl, jsonl.gz or parquet file, or a folder of them."
        )
    catalog = load_catalog(plugins, console.say)
    check_text(text, catalog, say=console.say)
    facts = describe_model(model, None, catalog=catalog)
    facts.check_loading()
    name = hookpoint or facts.default_hookpoint
    point = facts.hookpoint(name)
    return starter_suite(
        model, text, hookpoint=name, d_in=point.d, context=min(128, facts.context_limit or 128), causal=facts.causal
    )


def run_suite(
    suite: str | Path,
    *,
    out: Path | None = None,
    device: str = "cpu",
    only: str | None = None,
    retry_failed: bool = False,
    fresh: bool = False,
    force_folder: bool = False,
    plugins: Sequence[Path] = (),
    say: Callable[[str], None] = lambda line: None,
    debug: bool = False,
) -> RunResult:
    """Plans, trains, scores, writes records and the leaderboard; continues where an earlier run stopped.

    Raises:
        SuiteError: The suite, a model or a dataset cannot be used.
        PluginError: A needed plugin is broken.
        MachineError: The disk is full, or the folder cannot be written.
    """
    here = console.current()
    with console.phase("planning", str(suite)):
        from saebench.execute.pipeline import Pipeline  # these imports take seconds
        from saebench.leaderboard import build, check_pages, summary
        from saebench.measure.place import place_to_run

        opened = _Opened(suite, out, place_to_run(device), fresh, plugins, say)
        folder, catalog = opened.folder, opened.catalog
        # before anything is spent
        own = check_folder(folder, fresh=fresh, force=force_folder).owner in (Owner.EMPTY, Owner.OURS)
        if not own:
            check_pages(RunFolder(folder).leaderboard)
        plan = opened.plan(calibrate=opened.measure)
    cells = list(plan.cells) if only is None else plan.cells_of(only)
    for warning in plan.warnings:
        say(f"warning: {warning}")
    refused = tuple(refused.reason for refused in plan.refused if only is None)
    for reason in refused:
        say(f"refused: {reason}")
    with (
        locked(folder, fresh=fresh, force=force_folder) as (run, moved),
        here.kept(run.progress),
        run_numerics(n_threads()),
    ):
        if moved:
            say(f"the older run is now in {moved}")
        with console.phase("planning", str(suite)):
            forecast = Forecast(plan, run, catalog, opened.facts, opened.place, opened.measure)
        plan = forecast.plan
        if not forecast.is_written(say):
            write_plan(run, plan.to_json())
        for line in catalog.observe("saebench_plan_ready", plan=plan.to_json()):
            say(line)
        cohorts = len({cell.cohort for cell in cells})
        say(f"{plan.suite}: {len(cells)} cells in {cohorts} cohort{'s' * (cohorts > 1)}, into {folder}")
        for line in forecast.lines(cells, retry_failed):
            say(line)
        pipeline = Pipeline(
            plan, run, catalog, device=device, say=say, predicted=forecast.seconds(cells, retry_failed), debug=debug
        )
        statuses = pipeline.execute(cells, retry_failed=retry_failed)
        with console.phase("leaderboard", amount=1):
            build([run.root], run.leaderboard, aside=say if own else None, say=say)
            for line in catalog.observe("saebench_leaderboard_written", folder=run.leaderboard):
                say(line)
            table = summary([run.root])
    return RunResult(folder, run.leaderboard, statuses, table, tuple(pipeline.failed_groups), refused)


def run(
    suite: str | Path = "quickstart", *, out: str | Path | None = None, device: str = "cpu", **options: Any
) -> list[dict[str, Any]]:
    """Runs a suite and gives its records.

    Args:
        suite: File or built-in name.
        out: Run folder; default `runs/<suite>`.
        device: `cpu`, `cuda`, ...
        options: `only`, `retry_failed`, `fresh`, `force_folder`, `plugins`, `say`, as `run_suite`.
    """
    if out is not None and not str(out).strip():
        raise SuiteError("out: the name is empty. Give a folder, or leave it out for runs/<suite>.")
    with console.showing(outputs=False):
        result = run_suite(suite, out=None if out is None else Path(out), device=device, **options)
    return [record for _, record in iter_records(result.folder) if record["cell_id"] in result.statuses]


def load_sae(folder: str | Path, *, plugins: Sequence[Path] = (), **options: Any) -> torch.nn.Module:
    """Any finished SAE in inference form, with `encode` and `decode`; see `saebench.compare.finished.load`.

    Raises:
        SuiteError: Nothing there, or an SAE that cannot be read rightly.
        PluginError: The architecture's plugin is missing or broken.
    """
    from saebench.compare.finished import load
    from saebench.host import load_catalog

    return load(Path(folder), load_catalog(plugins), **options)[0]


def match_folders(a: str | Path, b: str | Path, **options: Any) -> Comparison:
    """Matches the latents of two SAEs, ours or other libraries', one to one; see `saebench.compare.pair.match_folders`.

    Raises:
        SuiteError: A side cannot be read, lacks the directions, or the widths differ.
        PluginError: The plugin of one of our checkpoints is missing or broken.
    """
    from saebench.compare.pair import match_folders as job

    return job(a, b, **options)
