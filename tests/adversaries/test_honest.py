from __future__ import annotations

from typing import Any


def test_an_honest_contender_passes(attack: Any) -> None:
    """The cheats differ from it in what their names say, so that whatever stops them is about that."""
    found = attack("honest_topk")
    assert set(found.statuses.values()) == {"ok"}, found.error
    assert found.value("l0") <= 4
    assert found.value("variance-explained") < 0.9
