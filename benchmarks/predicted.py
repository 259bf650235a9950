"""What a run's plan predicted beside what its records measured.

    python benchmarks/predicted.py SUITE --out DIR     measure the machine, run the suite into a new folder, compare
    python benchmarks/predicted.py DIR                 compare a run that is there

A quiet machine, please: what runs beside it slows both down, but not by the same factor.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from tabulate import tabulate

from saebench.artifacts import RunFolder, iter_groups, iter_records

GOAL = 0.30
MEASURED_TOGETHER = {
    "data_s": ("reading", "sampling", "activations"),
    "training_s": ("training",),
    "scoring_s": ("held-out", "scoring", "groups"),
}
"""Phases of the prediction that records measure as one."""


def measured(folder: Path) -> dict[str, float]:
    """Seconds and bytes of a finished run."""
    records = [record for _, record in iter_records(folder)]
    times = [record["measured"]["times"] for record in records]
    # making data is shared by the cells of a pass, and each of them is told the whole of it
    data = {
        (record["facts"]["dataset"]["name"], round(time["data_s"], 6))
        for record, time in zip(records, times, strict=True)
    }
    groups = sum(group["measured"]["times"]["score_s"] for _, group in iter_groups(folder))
    run = RunFolder(folder)

    def size(name: str, pattern: str) -> int:
        return sum(path.stat().st_size for path in (run.root / name).rglob(pattern) if path.is_file())

    peaks = [record["measured"]["metrics"].get("peak-memory-bytes", {}).get("value") for record in records]
    return {
        "data_s": sum(seconds for _, seconds in data),
        "training_s": sum(time["train_s"] for time in times),
        "scoring_s": sum(time.get("score_s", 0.0) for time in times) + groups,
        "disk_bytes": sum(
            size(name, "*") for name in ("activations", "checkpoints", "records", "groups", "arrays", "leaderboard")
        ),
        "store_bytes": size("activations", "*"),
        "checkpoint_bytes": size("checkpoints", "*.safetensors"),
        "memory_bytes": max((peak for peak in peaks if peak), default=0),
        "train_tokens": sum(
            record["facts"]["spent"]["train"]["tokens"] for record in records if not record["facts"]["control"]
        ),
        "train_flops": sum(
            record["facts"]["spent"]["train"]["flops"] for record in records if not record["facts"]["control"]
        ),
    }


def compare(predicted: dict[str, Any], real: dict[str, float]) -> str:
    """A table, rows in the order of `real`."""
    rows = []
    phases = predicted["phases"]
    predicted |= {name: sum(phases[kind] for kind in kinds) for name, kinds in MEASURED_TOGETHER.items()}
    for name, value in real.items():
        ratio = predicted[name] / value if value else float("nan")
        near = "yes" if 1 - GOAL <= ratio <= 1 + GOAL else "no"
        rows.append([name, f"{predicted[name]:,.4g}", f"{value:,.4g}", f"{ratio:.2f}", near])
    return tabulate(rows, ["", "predicted", "measured", "ratio", "within 30 %"], disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", help="a suite to run, or the folder of a finished run")
    parser.add_argument("--out", type=Path, help="new folder of the run")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    folder = Path(arguments.suite)
    if arguments.out is None:
        plan = json.loads(RunFolder(folder).plan.read_text("utf-8"))
        print(compare(plan["estimate"], measured(folder)))
        print(f"seconds predicted from: {plan['estimate']['basis']}")
        return
    from saebench.jobs import plan_suite, run_suite

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    if arguments.out.exists():
        raise SystemExit(f"{arguments.out} is there already: its work would not be timed. Name a new folder.")
    began = time.perf_counter()
    estimate = plan_suite(
        arguments.suite, out=arguments.out, device=arguments.device, measure=True, fresh=True, say=say
    ).estimate
    planned = time.perf_counter() - began
    began = time.perf_counter()
    run_suite(arguments.suite, out=arguments.out, device=arguments.device, say=say)
    whole = time.perf_counter() - began
    predicted = {name: getattr(estimate, name) for name in estimate.__dataclass_fields__}
    print(compare(predicted, {"seconds": whole, **measured(arguments.out)}))
    print(f"measuring and planning took {planned:.1f} s; seconds predicted from: {estimate.basis}")


if __name__ == "__main__":
    main()
