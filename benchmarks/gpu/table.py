"""The table at the end, and what the run's exit status is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OK, FAILED, CUT = 0, 1, 3
WIDTH = 120


def exit_status(result: Mapping[str, Any]) -> int:
    """1 where something failed; 3 where nothing failed but a section was cut: then not all was checked; else 0."""
    statuses = [section["status"] for section in result["sections"].values()]
    return FAILED if "failed" in statuses else CUT if "cut" in statuses else OK


def _value(figure: Mapping[str, Any]) -> str:
    value = figure["value"]
    if value is None:
        return ""
    if isinstance(value, int) or abs(value) >= 1e5:
        return f"{value:,.0f} {figure['unit']}".strip()
    return f"{value:.4g} {figure['unit']}".strip()


def _row(figure: Mapping[str, Any]) -> str:
    bound = "" if figure["bound"] is None else f"≤ {figure['bound']:.4g}"
    verdict = {None: "", True: "yes", False: "NO"}[figure["ok"]]
    return f"  {figure['name'][:72]:<72} {_value(figure):>22} {bound:>12} {verdict:>4}"


def table(result: Mapping[str, Any]) -> str:
    """The whole result as lines of text, from the JSON alone."""
    machine = result["machine"]
    lines = [
        f"saebench {machine.get('saebench')} on {machine.get('gpu') or machine.get('processor')}"
        f"{', short form' if result['short'] else ''}, --device {result['device']}",
        ", ".join(f"{name} {machine[name]}" for name in ("python", "torch", "cuda", "driver") if machine.get(name)),
    ]
    for name, section in result["sections"].items():
        head = f"{name}: {section['status']}, {section['seconds']:.1f} of {section['limit_s']:.0f} s"
        lines += ["", f"{head} - {section['title']}"]
        lines += [_row(figure) for figure in section["figures"]]
        if cut := section["facts"].get("cut"):
            lines.append(f"  CUT {cut}")
        lines += [f"  FAILED {failure}" for failure in section["failures"]]
    status = exit_status(result)
    said = {
        OK: "everything was checked and holds",
        FAILED: "something failed, see FAILED above",
        CUT: "nothing failed, but not everything was checked: see CUT above",
    }[status]
    return "\n".join([*lines, "", f"{result['seconds']:.0f} s; {said} (exit status {status})"])
