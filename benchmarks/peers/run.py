"""Times saebench's training step beside its peers' and beside the bare products, side by side in one run.

See README.md.

python benchmarks/peers/run.py [--cases A1,A2] [--rounds 5] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import environment
from cases import Case, cases
from measure import Figures, How, measure
from report import markdown, summarise

RESULT, TABLE = "peers.json", "peers.md"


def processor() -> str:
    """Model name, where the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def write(path: Path, text: str) -> None:
    """All or nothing."""
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(text)
    os.replace(scratch, path)


def chosen_cases(names: str, contenders: str | None) -> list[Case]:
    """The cases asked for, with the contenders asked for."""
    known = cases()
    chosen = list(known) if names == "all" else names.split(",")
    if unknown := [name for name in chosen if name not in known]:
        raise SystemExit(f"--cases: no case {', '.join(unknown)}. Use all, or some of {', '.join(known)}.")
    made = [known[name] for name in chosen]
    if contenders is None:
        return made
    modules = contenders.split(",")
    return [
        replace(case, entries=entries)
        for case in made
        if (entries := tuple(entry for entry in case.entries if entry.module in modules))
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="all", help=f"all, or some of {','.join(cases())}")
    parser.add_argument("--contenders", help="only these files under contenders/, such as ours,product")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="timed steps a turn; default: the case's own")
    parser.add_argument("--warmup", type=int, help="at most so many untimed steps before the first turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--out", type=Path, default=environment.ROOT / "runs" / "peers", help="earlier cases in it are kept"
    )
    parser.add_argument("--venv", type=Path, default=environment.HERE / ".venv")
    parser.add_argument(
        "--python", type=Path, help="use this Python as it is and install nothing; what cannot be imported is left out"
    )
    arguments = parser.parse_args()
    chosen = chosen_cases(arguments.cases, arguments.contenders)
    if arguments.python is not None:
        python = arguments.python
        found = environment.versions(python)
    else:
        python = environment.ensure(arguments.venv.resolve())
        found = environment.check(python)
    out: Path = arguments.out.resolve()
    (out / "logs").mkdir(parents=True, exist_ok=True)
    path = out / RESULT
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"cases": {}}
    known = cases()
    for name, kept in result["cases"].items():
        if name in known:
            kept.update(summarise(known[name], kept["rows"]))  # bars may have moved since
    with tempfile.TemporaryDirectory() as scratch:
        how = How(
            python, arguments.threads, arguments.device, arguments.rounds, arguments.steps, arguments.warmup,
            Path(scratch), out / "logs"
        )  # fmt: skip
        for case in chosen:
            load = f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"
            started = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
            figures: list[Figures] = measure(case, how)
            rows = [each.to_json() for each in figures]
            result["cases"][case.name] = {
                "title": case.title, "started": started, "rounds": how.rounds, "steps": how.steps or case.steps,
                "machine": {
                    "processor": processor(), "cores": os.cpu_count(), "threads": how.threads, "device": how.device,
                    "load": load, "system": platform.platform(),
                    "versions": {name: found[name] for name in environment.SHOWN if name in found},
                },
                "apart": case.apart, "packages": found, "rows": rows, **summarise(case, rows),
            }  # fmt: skip
            write(path, json.dumps(result, indent=1) + "\n")
            write(out / TABLE, markdown(result) + "\n")
            print(markdown({"cases": {case.name: result["cases"][case.name]}}), flush=True)
    print(f"peers: {out / TABLE} and {RESULT}", file=sys.stderr)


if __name__ == "__main__":
    main()
