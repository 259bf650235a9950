"""Each broken architecture fails one rule: the one that names its fault."""

from __future__ import annotations

import broken_architectures as broken
import pytest

from saebench.api import ArchitectureSpec
from saebench.testing import check_architecture
from saebench.testing.contract import RULES


def failures(spec: ArchitectureSpec, *, other_process: bool = False) -> list[str]:
    checks = check_architecture(spec, spec.config(), other_process=other_process)
    assert [check.name for check in checks] == [rule.name for rule in RULES]
    assert all(check.message and check.hint for check in checks if check.failed)
    return [check.name for check in checks if check.failed]


def test_a_sound_one_passes_every_rule() -> None:
    for cost in (None, broken.priced()):
        spec = ArchitectureSpec("sound", "1", broken.Config, broken.Sound, cost)
        assert failures(spec) == []


@pytest.mark.parametrize("name", broken.BROKEN)
def test_each_fault_is_found_by_its_rule_alone(name: str) -> None:
    spec, rule = broken.BROKEN[name]
    assert failures(spec, other_process=rule == "another process loads it") == [rule]


def test_every_rule_has_a_plugin_that_breaks_it() -> None:
    assert {rule for _, rule in broken.BROKEN.values()} == {rule.name for rule in RULES}
