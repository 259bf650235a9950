"""The main jobs, as the command line and Python call them: plan, run, load an SAE, write a starter suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench.api.errors import MachineError, SuiteError
from saebench.artifacts import iter_records, write_json
from saebench.execute import provenance
from saebench.execute.folder import locked, move_aside

if TYPE_CHECKING:
    import torch

    from saebench.host import Catalog
    from saebench.plan.model import Cell, Plan

CELLS_FAILED = 4


@dataclass(frozen=True)
class RunResult:
    """What a run left behind."""

    folder: Path
    leaderboard: Path
    statuses: dict[str, str]
    table: str

    @property
    def exit_status(self) -> int:
        """0 when all cells are ok, 4 when some are not (their records say why)."""
        return 0 if all(status == "ok" for status in self.statuses.values()) else CELLS_FAILED


def _plan(suite: str | Path, catalog: Catalog) -> Plan:
    from saebench.config import load_suite
    from saebench.data import ModelBook
    from saebench.plan import make_plan

    return make_plan(load_suite(suite), catalog, facts=ModelBook(catalog))


def plan_suite(suite: str | Path, *, plugins: Sequence[Path] = ()) -> Plan:
    """The plan of a suite (file or built-in name); trains nothing.

    Raises:
        SuiteError: The suite, a model or a dataset cannot be used.
        PluginError: A needed plugin is broken.
    """
    from saebench.host import load_catalog

    return _plan(suite, load_catalog(plugins))


def starter(model: str, text: str, *, hookpoint: str | None = None, plugins: Sequence[Path] = ()) -> str:
    """The YAML text of a suite for somebody's own model and text; both are looked at first.

    Raises:
        SuiteError: The model, the hookpoint or the text cannot be used.
    """
    from saebench.data import describe_model
    from saebench.host import load_catalog
    from saebench.plan import starter_suite

    catalog = load_catalog(plugins)
    facts = describe_model(model, None, catalog=catalog)
    if not Path(text).exists():
        raise SuiteError(
            f"--text {text}: no such file or folder. Give a txt, jsonl, jsonl.gz or parquet file, or a folder of them."
        )
    name = hookpoint or f"layers.{facts.n_layers // 2}"
    point = facts.hookpoint(name)
    return starter_suite(
        model, text, hookpoint=name, d_in=point.d, context=min(128, facts.context_limit or 128), causal=facts.causal
    )


@contextmanager
def _numerics() -> Iterator[None]:
    """Threads and deterministic operators for the time of a run; the caller's settings come back afterwards."""
    import torch

    threads, deterministic, warn = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.set_num_threads(provenance.n_threads())
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn)
        torch.set_num_threads(threads)


def check_device(device: str) -> None:
    """Refuses a device that is not there.

    Raises:
        MachineError: Names what is there.
        SuiteError: Not a device at all.
    """
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise SuiteError(f"--device {device}: not a device. Use cpu, cuda or cuda:N.") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise MachineError(f"--device {device}: no CUDA device is visible here. Use --device cpu.")


def run_suite(
    suite: str | Path,
    *,
    out: Path | None = None,
    device: str = "cpu",
    only: str | None = None,
    retry_failed: bool = False,
    fresh: bool = False,
    plugins: Sequence[Path] = (),
    say: Callable[[str], None] = lambda line: None,
    debug: bool = False,
) -> RunResult:
    """Plans, trains, scores, writes records and the leaderboard; goes on where an earlier run stopped.

    Raises:
        SuiteError: The suite, a model or a dataset cannot be used.
        PluginError: A needed plugin is broken.
        MachineError: The disk is full, or the folder cannot be written.
    """
    from tqdm import tqdm

    from saebench.execute.pipeline import Pipeline
    from saebench.host import load_catalog
    from saebench.leaderboard import build, summary

    say(f"planning {suite}")
    catalog = load_catalog(plugins)
    check_device(device)
    plan = _plan(suite, catalog)
    cells = _wanted(plan, only)
    folder = Path(out) if out else Path("runs") / plan.suite
    if fresh and (moved := move_aside(folder)):
        say(f"the older run stands in {moved} now")
    for warning in plan.warnings:
        say(f"warning: {warning}")
    with locked(folder) as run, _numerics():
        write_json(run.plan, plan.to_json())
        for line in catalog.observe("saebench_plan_ready", plan=plan.to_json()):
            say(line)
        cohorts = len({cell.cohort for cell in cells})
        say(f"{plan.suite}: {len(cells)} cells in {cohorts} cohort{'s' * (cohorts > 1)}, into {folder}")
        with tqdm(total=len(cells), unit="cell", desc=plan.suite, dynamic_ncols=True) as bar:
            pipeline = Pipeline(plan, run, catalog, device=device, say=_above(bar, say), bar=bar, debug=debug)
            statuses = pipeline.execute(cells, retry_failed=retry_failed)
            bar.set_postfix_str("")
        build([run.root], run.leaderboard)
        for line in catalog.observe("saebench_leaderboard_written", folder=run.leaderboard):
            say(line)
        table = summary([run.root])
    return RunResult(folder, run.leaderboard, statuses, table)


def _above(bar: Any, say: Callable[[str], None]) -> Callable[[str], None]:
    """`say` in a way that leaves the progress bar whole."""

    def speak(line: str) -> None:
        with bar.external_write_mode():
            say(line)

    return speak


def _wanted(plan: Plan, only: str | None) -> list[Cell]:
    """The cells of one entry and of all that they start from; all cells without `only`."""
    if only is None:
        return list(plan.cells)
    entries = sorted({cell.entry for cell in plan.cells})
    if only not in entries:
        raise SuiteError(f"--only {only}: the suite has no such entry. Entries are: {', '.join(entries)}.")
    by_id = {cell.cell_id: cell for cell in plan.cells}
    keep: set[str] = set()
    stack = [cell.cell_id for cell in plan.cells if cell.entry == only]
    while stack:
        cell_id = stack.pop()
        if cell_id not in keep:
            keep.add(cell_id)
            if parent := by_id[cell_id].parent:
                stack.append(parent)
    return [cell for cell in plan.cells if cell.cell_id in keep]


def run(
    suite: str | Path = "quickstart", *, out: str | Path | None = None, device: str = "cpu", **options: Any
) -> list[dict[str, Any]]:
    """Runs a suite and gives its records.

    Args:
        suite: File or built-in name.
        out: Run folder; default `runs/<suite>`.
        device: `cpu`, `cuda`, ...
        options: `only`, `retry_failed`, `fresh`, `plugins`, `say`, as `run_suite`.
    """
    result = run_suite(suite, out=Path(out) if out else None, device=device, **options)
    return [record for _, record in iter_records(result.folder) if record["cell_id"] in result.statuses]


def load_sae(folder: str | Path, *, plugins: Sequence[Path] = ()) -> torch.nn.Module:
    """An SAE in inference form, with `encode` and `decode`, from a checkpoint folder.

    Raises:
        SuiteError: No checkpoint stands there, or it is damaged.
        PluginError: The architecture's plugin is missing or broken.
    """
    from saebench.host import load_catalog
    from saebench.host.build import load_sae as load

    return load(Path(folder), load_catalog(plugins))
