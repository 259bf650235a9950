"""A plan as a page of 80 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any

from tabulate import tabulate

from saebench.cells.cell import Cell
from saebench.cells.plan import Cohort, Estimate, Plan

WIDTH = 80
_MANY = {"data_seed": "data seeds", "dataset": "datasets", "entry": "entries", "hookpoint": "hookpoints"}


def print_plan(plan: Plan) -> str:
    """The plan for a reader: entries, cohorts in order, shares, predicted totals, remarks."""
    n_controls = sum(cell.control for cell in plan.cells)
    number = {cohort.key: i + 1 for i, cohort in enumerate(plan.cohorts)}
    cohorts = "cohort" if len(plan.cohorts) == 1 else "cohorts"
    lines = [
        f"{plan.suite}: {len(plan.cells)} cells ({n_controls} of them controls), {len(plan.cohorts)} {cohorts}, "
        f"{_groups(plan)}",
        "",
    ]
    rows = [
        _entry_row(name, [cell for cell in plan.cells if cell.entry == name], number)
        for name in dict.fromkeys(cell.entry for cell in sorted(plan.cells, key=lambda cell: cell.control))
    ]
    lines += [
        _table(rows, ["entry", "architecture", "points", "cells", "tokens", "cohort"], [16, 14, 14, 7, 11, 8]),
        "",
    ]
    lines.append("Cohorts, in order (cells that read the same activations in the same batches)")
    rows = [
        [
            number[cohort.key],
            f"{cohort.model.id} {cohort.model.hookpoint_name}" if cohort.model else "-",
            cohort.dataset.name,
            cohort.data_seed,
            cohort.batch,
            len(cohort.cells),
            ", ".join(str(number[key]) for key in cohort.after) or "-",
        ]
        for cohort in plan.cohorts
    ]
    lines += [
        _table(
            rows, ["cohort", "model, hookpoint", "dataset", "seed", "batch", "cells", "after"], [8, 18, 14, 6, 7, 7, 7]
        ),
        "",
    ]
    lines += [
        *_budget(plan),
        *_epochs(plan),
        *_searches(plan),
        "",
        *_totals(plan),
        "",
        *_each(plan),
        "",
        *_all_in(plan),
    ]
    if plan.warnings:
        lines += ["", "Please note"]
        for warning in plan.warnings:
            lines += wrap(warning, WIDTH, initial_indent="  ! ", subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(lines)


def _groups(plan: Plan) -> str:
    """`14 groups`; `14 groups (2 across datasets)`."""
    across = Counter(" and ".join(_MANY[name] for name in group.vary if name in _MANY) for group in plan.groups)
    counts = [f"{n} across {names}" for names, n in across.items() if names]
    return f"{len(plan.groups)} groups" + (f" ({', '.join(counts)})" if counts else "")


def _entry_row(name: str, cells: list[Cell], number: dict[str, int]) -> list[Any]:
    first = cells[0]
    architecture = first.part.architecture + (f" over {first.base.architecture}" if first.base else "")
    points = ", ".join(dict.fromkeys(cell.tune.point if cell.tune else cell.point for cell in cells))
    if first.tune is not None:
        points += f" (x {first.tune.n_candidates})"
    tokens = ", ".join(_short(tokens) for tokens in sorted({cell.tokens for cell in cells})) if first.trains else "-"
    return [name, architecture, points, len(cells), tokens, _ranges(number[cell.cohort] for cell in cells)]


def _budget(plan: Plan) -> list[str]:
    budget = plan.budget
    unit = str(budget["primary"]).replace("_", " ")
    tuned = any(cell.tune for cell in plan.cells)
    kind = (
        f"one pool of {_short(budget['total'])} {unit} shared by {budget['entries']} entries: "
        if budget["pool"]
        else ""
    )
    counts = "data and parents count" if budget["counts"] == "all" else "what a cell itself trains counts"
    share = f"{_short(budget['share'])} {unit} {'a cell or search' if tuned else 'a cell'}"
    text = f"Budget: {kind}{share}, the same for every entry, point and seed; {counts}."
    if budget["memory_gb"] is not None:
        text += f" Memory: at most {budget['memory_gb']:g} GB a cell."
    if (calibration := budget.get("calibration")) is not None:
        text += f" Seconds became tokens by a calibration of {format_machine(calibration)}; the plan keeps it."
    return wrap(text, WIDTH)


def _epochs(plan: Plan) -> list[str]:
    """Of each training dataset whose size is known: how often the longest training on it reads it."""
    longest: dict[str, Cohort] = {}
    for cohort in plan.cohorts:
        if cohort.dataset.holds.get("train") and any(plan.cell(cell).trains for cell in cohort.cells):
            name = cohort.dataset.name
            longest[name] = max(
                longest.get(name, cohort), cohort, key=lambda one: one.tokens / one.dataset.holds["train"]
            )
    lines = []
    for name, cohort in longest.items():
        there = cohort.dataset.holds["train"]
        what = f"about {there:,} training tokens" if cohort.model is not None else f"{there:,} training vectors"
        lines += wrap(f"Data: {name} holds {what}; {cohort.tokens:,} are {cohort.tokens / there:.2g} epochs.", WIDTH)
    return lines


def _searches(plan: Plan) -> list[str]:
    """Of each tuned entry: what is tried, what decides, and what each candidate gets."""
    lines: list[str] = []
    for name in dict.fromkeys(cell.entry for cell in plan.cells if cell.tune):
        tunes = [(cell.tune, cell.tokens) for cell in plan.cells if cell.entry == name and cell.tune]
        first, points = tunes[0][0], dict.fromkeys(tune.point for tune, _ in tunes)
        tried = [
            f"{key} {', '.join(dict.fromkeys(str(tune.values[key]) for tune, _ in tunes))}" for key in first.values
        ]
        at = "" if len(points) == 1 else f" at each of {len(points)} points"
        each = ", ".join(_short(tokens) for tokens in sorted({tokens for _, tokens in tunes}))
        lines += wrap(
            f"Search: {name} tries {first.n_candidates} candidates{at} ({'; '.join(tried)}) and takes the "
            f"{'lowest' if first.direction == 'lower' else 'highest'} "
            f"{first.metric} on validation data. They divide one share: {each} tokens a candidate and seed.",
            WIDTH,
            subsequent_indent="  ",
            break_on_hyphens=False,
        )
    if lines:
        lines += wrap(
            "Every entry is scored on the other three quarters of the held-out data, which no search sees.",
            WIDTH,
            subsequent_indent="  ",
        )
    return lines


def _totals(plan: Plan) -> list[str]:
    predicted = plan.estimate
    rows = [
        ["training tokens", f"{predicted.train_tokens:,}"],
        ["training FLOPs", f"{predicted.train_flops:.3g}"],
        ["language model FLOPs", f"{predicted.forward_flops:.3g}"],
        ["time", f"about {format_time(predicted)}"],
        ["", format_basis(predicted)],
        ["disk", f"{format_bytes(predicted.disk_bytes)} ({format_disk(predicted)})"],
        ["memory", f"about {format_bytes(predicted.memory_bytes)} ({format_memory(predicted)}), "
         f"of it on the device {format_bytes(predicted.device_memory_bytes)}"],
    ]  # fmt: skip
    cells = [[name, "\n".join(wrap(text, WIDTH - 22))] for name, text in rows]
    return ["Predicted", tabulate(cells, tablefmt="plain", disable_numparse=True)]


def _each(plan: Plan) -> list[str]:
    """What a cell of each entry takes by itself; the least and the most where they differ."""
    rows = []
    for entry in dict.fromkeys(cell.entry for cell in plan.cells if cell.trains):
        each = [plan.estimate.cells[cell.cell_id] for cell in plan.cells if cell.entry == entry]
        rows.append(
            [
                entry,
                _span([cell.training_s for cell in each], _time),
                _span([cell.scoring_s for cell in each], _time),
                _span([cell.device_bytes for cell in each], format_bytes),
                _span([cell.disk_bytes for cell in each], format_bytes),
            ]
        )
    headers = ["entry", "training", "scoring", "memory to train", "disk"]
    return ["A cell by itself (data, model and groups are shared)", _table(rows, headers, [16, 15, 15, 18, 18])]


def _all_in(plan: Plan) -> list[str]:
    """What it takes to have a cell's SAE alone, for each entry; the least and the most where they differ."""
    rows = []
    for entry in dict.fromkeys(cell.entry for cell in plan.cells if cell.trains):
        each = [plan.estimate.cells[cell.cell_id] for cell in plan.cells if cell.entry == entry]
        rows.append(
            [
                entry,
                _span([cell.all_tokens for cell in each], _short),
                _span([cell.all_flops for cell in each], lambda flops: f"{flops:.3g}"),
                _span([cell.all_s for cell in each], _time),
            ]
        )
    return [
        "All-in: a cell alone, with its data, the model's forwards and its parent",
        _table(rows, ["entry", "tokens", "FLOPs", "time"], [16, 20, 24, 20]),
    ]


def _span(values: Sequence[float], show: Callable[[Any], str]) -> str:
    """`12 s`; `12 s to 3 min`."""
    low, high = show(min(values)), show(max(values))
    return low if low == high else f"{low} to {high}"


def format_disk(predicted: Estimate) -> str:
    """`activations 1.2 GB, checkpoints 40 MB, ...`: all that `disk_bytes` sums."""
    sizes = {
        "activations": predicted.store_bytes,
        "checkpoints": predicted.checkpoint_bytes,
        "records": predicted.record_bytes,
        "pages": predicted.page_bytes,
        "snapshots": predicted.snapshot_bytes,
    }
    return ", ".join(f"{name} {format_bytes(size)}" for name, size in sizes.items())


def format_memory(predicted: Estimate) -> str:
    """`interpreter 450 MB, model 14 MB, scoring 300 MB`: of the phases, the one that takes most."""
    parts = predicted.memory_parts
    most = max(("activations", "training", "scoring", "groups"), key=lambda name: parts[name])
    return ", ".join(
        f"{name} {format_bytes(parts[name])}" for name in ("interpreter", "kernels", "model", most) if parts[name]
    )


def format_time(predicted: Estimate) -> str:
    """`3 min (reading 41 s, training 50 s, scoring 74 s)`: phases of half a second and more."""
    phases = [f"{kind} {_time(seconds)}" for kind, seconds in predicted.phases.items() if seconds >= 0.5]
    return f"{_time(predicted.seconds)} ({', '.join(phases)})" if phases else _time(predicted.seconds)


def format_basis(predicted: Estimate) -> str:
    """Where the seconds come from."""
    basis = predicted.basis
    if basis.get("source") == "measured":
        return f"from {format_machine(basis)}"
    if "data_sheet" in basis:
        return (
            f"assumed from the data sheet of {basis['gpu']} ({basis['float32_flops_per_s'] / 1e12:.4g} TFLOP/s in "
            f"float32, {basis['half_flops_per_s'] / 1e12:.4g} in bfloat16, {basis['bytes_per_s'] / 1e12:.4g} TB/s); "
            "no card was measured"
        )
    return f"assuming {basis['flops_per_s']:.0e} FLOP/s sustained; nothing was measured"


def format_machine(machine: Mapping[str, Any]) -> str:
    """`steps measured 2026-11-20 on cpu, 2 threads (Some Processor)`."""
    threads = machine.get("threads")
    place = f"{machine.get('device', 'cpu')}, {threads} thread{'s' * (threads != 1)} ({machine.get('cpu')})"
    return f"steps measured {machine.get('date', 'before')} on {place}"


def _table(rows: list[list[Any]], headers: list[str], widths: list[int]) -> str:
    # wrapped here, not by tabulate's maxcolwidths: that takes "1,000" for a number and stumbles over its comma
    cells = [["\n".join(wrap(str(cell), width)) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return tabulate(cells, headers, tablefmt="simple", disable_numparse=True)


def _ranges(numbers: Iterable[int]) -> str:
    """`1-3, 5`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _short(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}" if value < 1e9 else f"{value:.4g}"
    return f"{value:,.6g}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def format_bytes(count: int) -> str:
    """`1.5 GB`."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
