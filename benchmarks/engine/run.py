"""Times what stands around the training step: loop, cohort, live source, stores. See README.md.

python benchmarks/engine/run.py [--cases harness,cohort] [--rounds 5] [--out DIR]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from report import markdown

ROOT = Path(__file__).resolve().parents[2]
CASES = ("harness", "cohort", "live", "store", "exact")
RESULT, TABLE = "engine.json", "engine.md"


def processor() -> str:
    """Model name, where the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine(threads: int, device: str) -> dict[str, Any]:
    """Where it ran, as busy as it is now."""
    load = f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"
    versions = {name: metadata.version(name) for name in ("torch", "saebench-harness", "transformers", "numpy")}
    if device != "cpu":
        import torch

        device = torch.cuda.get_device_name(device)
    return {
        "processor": processor(), "cores": os.cpu_count(), "threads": threads, "device": device, "load": load,
        "system": platform.platform(),
        "python": platform.python_version(), "versions": versions,
    }  # fmt: skip


def write(path: Path, text: str) -> None:
    """All or nothing."""
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="all", help=f"all, or some of {','.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--small", action="store_true", help="shrunken sizes: does it run? The figures mean nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "engine", help="earlier cases in it are kept")
    arguments = parser.parse_args()
    chosen = list(CASES) if arguments.cases == "all" else arguments.cases.split(",")
    if unknown := [name for name in chosen if name not in CASES]:
        raise SystemExit(f"--cases: no case {', '.join(unknown)}. Use all, or some of {', '.join(CASES)}.")
    if arguments.rounds < 1 or arguments.threads < 1:
        raise SystemExit(
            f"--rounds and --threads are at least 1, got {arguments.rounds} and {arguments.threads}. Use 5 and 2."
        )
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"

    import torch
    from material import Setting
    from transformers.utils import logging

    from saebench.host import load_catalog

    logging.disable_progress_bar()
    torch.set_num_threads(arguments.threads)
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    path = out / RESULT
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cases": {}}
    catalog = load_catalog()
    modules: dict[str, Any] = {name: import_module(f"cases.{name}") for name in chosen}
    gc.freeze()  # what was imported is not looked through again
    for name, case in modules.items():
        print(f"engine: {name}", file=sys.stderr, flush=True)
        told = {
            "title": case.TITLE,
            "started": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "rounds": arguments.rounds,
            "small": arguments.small,
            "machine": machine(arguments.threads, arguments.device),
        }
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            setting = Setting(arguments.rounds, arguments.small, torch.device(arguments.device), Path(scratch), catalog)
            measured = case.measure(setting).to_json(judged=not arguments.small)
            gc.collect()  # maps of stores in the folder that goes now
        result["cases"][name] = {**told, "took_s": time.perf_counter() - started, **measured}
        write(path, json.dumps(result, indent=1) + "\n")
        write(out / TABLE, markdown(result) + "\n")
        print(markdown({"cases": {name: result["cases"][name]}}), flush=True)
    print(f"engine: {out / TABLE} and {RESULT}", file=sys.stderr)


if __name__ == "__main__":
    main()
