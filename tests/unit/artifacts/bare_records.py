"""The least that a record of a cell or a group holds."""

from __future__ import annotations

from typing import Any

_NAMES = {"suite": "s", "entry": "e", "point": "k8"}


def bare_cell(cell_id: str = "a", score_id: str = "b", status: str = "ok", **facts: Any) -> dict[str, Any]:
    """A cell's record without a metric."""
    nothing = dict.fromkeys(("spent", "budget", "evaluation", "model", "error"))
    plain = {"architecture": "topk", "control": False, "init_seed": 0, "data_seed": 0}
    empty: dict[str, Any] = {"config": {}, "dataset": {}, "metrics": {}}
    return {
        "kind": "cell",
        "cell_id": cell_id,
        "score_id": score_id,
        "arrays_sha256": None,
        "facts": {"status": status, **_NAMES, **plain, **empty, **nothing, **facts},
        "measured": {},
    }


def bare_group(group_id: str = "g", status: str = "ok", **facts: Any) -> dict[str, Any]:
    """A group's record without members."""
    return {
        "kind": "group",
        "group_id": group_id,
        "arrays_sha256": None,
        "facts": {"status": status, **_NAMES, "members": [], "metrics": {}, **facts},
        "measured": {},
    }
