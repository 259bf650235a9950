"""What a plan predicted beside what its run measured.

    python benchmarks/predicted.py all --out DIR       six suites of different kinds, each in processes of its own
    python benchmarks/predicted.py SUITE --out DIR     one suite, into a new folder
    python benchmarks/predicted.py DIR                 a run that is there, by phases

A quiet machine, please: what runs beside it slows both down, but not by the same factor.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tabulate import tabulate

from saebench.artifacts import RunFolder, iter_groups, iter_records
from saebench.execute.status import read_status

SUITES = Path(__file__).parent / "predicted"
MODEL = {"d_model": 512, "n_layers": 8}
"""Sizes of the model that stands for a larger one, with random weights: `MODEL` in a suite."""
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
    trained = [record for record in records if not record["facts"]["control"] or record["facts"].get("continued")]
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

    memory = read_status(folder).memory
    return {
        "data_s": sum(seconds for _, seconds in data),
        "training_s": sum(time["train_s"] for time in times),
        "scoring_s": sum(time.get("score_s", 0.0) for time in times) + groups,
        "disk_bytes": sum(
            size(name, "*") for name in ("activations", "checkpoints", "records", "groups", "arrays", "leaderboard")
        ),
        "store_bytes": size("activations", "*"),
        "checkpoint_bytes": size("checkpoints", "*.safetensors"),
        "memory_bytes": memory.peak if memory is not None else 0,
        "train_tokens": sum(record["facts"]["spent"]["train"]["tokens"] for record in trained),
        "train_flops": sum(record["facts"]["spent"]["train"]["flops"] for record in trained),
    }


def compare(predicted: dict[str, Any], real: dict[str, float]) -> str:
    """A table, rows in the order of `real`."""
    phases = predicted["phases"]
    # what is mapped is in the memory of the process as long as memory is free
    memory = predicted["memory_bytes"] + predicted["memory_parts"]["stores"]
    known = {name: sum(phases[kind] for kind in kinds) for name, kinds in MEASURED_TOGETHER.items()}
    known |= {name: predicted[name] for name in real if name not in known} | {"memory_bytes": memory}
    known["disk_bytes"] -= predicted["snapshot_bytes"]  # they are gone when a run has ended
    rows = [[name, *_beside(known[name], value)] for name, value in real.items()]
    return tabulate(rows, ["", "predicted", "measured", "ratio", "within 30 %"], disable_numparse=True)


def _beside(predicted: float, value: float) -> list[str]:
    ratio = predicted / value if value else float("nan")
    return [
        f"{predicted:,.4g}",
        f"{value:,.4g}",
        f"{ratio:.2f}",
        "yes" if 1 - GOAL <= ratio <= 1 + GOAL else "no",
    ]


def run(suite: Path, out: Path, device: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Measures the machine, then runs a suite into a new folder: its estimate, and what it came to."""
    if out.exists():
        raise SystemExit(f"{out} is there already: its work would not be timed. Name a new folder.")
    saebench = [sys.executable, "-m", "saebench"]
    where = [str(suite), "--device", device, "--out", str(out)]
    plan = subprocess.run(
        [*saebench, "plan", *where, "--measure", "--fresh", "--json"], stdout=subprocess.PIPE, check=True
    )
    began = time.perf_counter()
    subprocess.run([*saebench, "run", *where], stdout=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - began
    return json.loads(plan.stdout)["estimate"], {"seconds": seconds, **measured(out)}


def run_all(out: Path, device: str) -> str:
    """All of `SUITES`; a row of the table each."""
    from saebench.testing import make_model

    out.mkdir(parents=True)
    rows = []
    for path in sorted(SUITES.glob("*.yaml")):
        text = path.read_text("utf-8")
        if "MODEL" in text:
            text = text.replace("MODEL", str(make_model(out / "model", **MODEL).resolve()))
        suite = out / path.name
        suite.write_text(text, "utf-8")
        estimate, real = run(suite, out / path.stem, device)
        print(f"{path.stem}\n{compare(estimate, real)}\n", file=sys.stderr)
        memory = estimate["memory_bytes"] + estimate["memory_parts"]["stores"]
        time_row = _beside(estimate["seconds"], real["seconds"])[:3]
        memory_row = _beside(memory / 1e9, real["memory_bytes"] / 1e9)[:3]
        rows.append([path.stem, *time_row, *memory_row])
    headers = ["suite", "s predicted", "s measured", "ratio", "GB predicted", "GB measured", "ratio"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", help="`all`, a suite to run, or the folder of a finished run")
    parser.add_argument("--out", type=Path, help="new folder of the run")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.out is None:
        plan = json.loads(RunFolder(Path(arguments.suite)).plan.read_text("utf-8"))
        print(compare(plan["estimate"], measured(Path(arguments.suite))))
        print(f"seconds predicted from: {plan['estimate']['basis']}")
    elif arguments.suite == "all":
        print(run_all(arguments.out, arguments.device))
    else:
        estimate, real = run(Path(arguments.suite), arguments.out, arguments.device)
        print(compare(estimate, real))
        print(f"seconds predicted from: {estimate['basis']}")


if __name__ == "__main__":
    main()
