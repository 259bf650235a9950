"""A whole run in which one cell finds no memory and one is over its share: both end `over_budget`, neighbours unharmed.

The run is that of `saebench run`, from the suite file to the records. Pages are left out: they need no card, and their
packages would be half of what must be carried.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

from notes import Notes

from sections import Setting

PLUGIN = Path(__file__).resolve().parents[1] / "glutton.py"
MEMORY_GB = 0.25
NEIGHBOURS = """
schema: 1
name: memory
datasets:
  truth: {{plugin: synthetic, d_in: 64, n_features: 256}}
entries:
  - {{name: topk, architecture: topk, dataset: truth, config: {{d_sae: 256, k: 8}}}}
  - {{name: jumprelu, architecture: jumprelu, dataset: truth, config: {{d_sae: 256, target_l0: 8}}}}
{more}train: {{batch: 512}}
evaluation: {{tokens: 2_048, loss_tokens: 512, density_tokens: 2_048}}
budget: {{primary: tokens, tokens: 4_096, memory_gb: {memory_gb}}}
seeds: {{init: [0]}}
"""
GREEDY = """  - {name: greedy, architecture: glutton, dataset: truth, config: {d_sae: 64}}
  - {name: too-big, architecture: topk, dataset: truth, config: {d_sae: 131_072, k: 8}}
"""


def without_pages() -> None:
    """Puts an empty page writer in place of the leaderboard's."""
    none: Any = types.ModuleType("saebench.leaderboard")
    none.build = none.check_pages = lambda *_, **__: None
    none.summary = lambda *_, **__: ""
    sys.modules["saebench.leaderboard"] = none


def records(folder: Path, more: str, device: str, lines: list[str]) -> dict[str, dict[str, Any]]:
    """What a run of the suite left, by entry."""
    from saebench.artifacts import iter_records
    from saebench.jobs import run_suite

    folder.mkdir()
    suite = folder / "memory.yaml"
    suite.write_text(NEIGHBOURS.format(more=more, memory_gb=MEMORY_GB), "utf-8")
    run_suite(suite, out=folder / "run", device=device, plugins=[PLUGIN], say=lines.append)
    found = {}
    for _, record in iter_records(folder / "run"):
        found[record["facts"]["entry"]] = record
    return found


def run(notes: Notes, setting: Setting) -> None:
    without_pages()
    lines: list[str] = []
    alone = records(setting.scratch / "alone", "", setting.device, lines)
    beside = records(setting.scratch / "beside", GREEDY, setting.device, lines)
    notes.fact("lines", [line for line in lines if "warning" in line])
    notes.check("neighbours alone are ok", {record["facts"]["status"] for record in alone.values()} == {"ok"})
    for name, record in beside.items():
        facts = record["facts"]
        if name in alone:
            before = alone[name]["facts"]
            keys = (facts.keys() | before.keys()) - {"suite_digest"}  # the suites are two
            other = sorted(key for key in keys if facts.get(key) != before.get(key))
            notes.check(f"{name}: facts as without greedy neighbours", not other, ", ".join(other))
            continue
        error = facts.get("error") or {}
        notes.fact(name, error)
        notes.check(f"{name}: over_budget", facts["status"] == "over_budget", f"{facts['status']}: {error}")
        reason = "its memory share is" if name.startswith("too-big") else "memory"
        notes.check(f"{name}: says why", reason in error.get("message", ""), str(error))
    notes.check("all cells have a record", len(beside) == len(alone) + 2, f"found {sorted(beside)}")
