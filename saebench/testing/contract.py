"""What every architecture must do, as checks that a plugin author runs in one line:

from saebench.testing import check_architecture
def test_contract():
    assert not [check for check in check_architecture(SPEC, CONFIG) if check.failed]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from saebench.api import ArchitectureSpec
from saebench.testing.architecture import building, coding, learning, measuring, storing
from saebench.testing.architecture.case import Case
from saebench.testing.check import Check, run_rules

if TYPE_CHECKING:
    import torch

RULES = (*building.RULES, *coding.RULES, *learning.RULES, *measuring.RULES, *storing.RULES)


def check_architecture(
    spec: ArchitectureSpec,
    config: Any,
    *,
    d_in: int = 16,
    base: Callable[[], torch.nn.Module] | None = None,
    other_process: bool = True,
) -> Sequence[Check]:
    """Runs every check on one architecture.

    Args:
        spec: The architecture.
        config: An instance of `spec.config` with a small `d_sae` (32 or so).
        d_in: Width of the example activations.
        base: For wrappers: makes the module that is wrapped, afresh at each call.
        other_process: Also load a checkpoint in a new process, which takes some seconds.

    Returns:
        One `Check` per rule; none of them failed when the contract holds.
    """
    return run_rules(RULES, Case(spec, config, d_in, base, other_process=other_process))
