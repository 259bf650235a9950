"""What a contract check finds, and how a list of rules is run over one plugin."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from saebench.api.errors import contained, describe, said

Case = TypeVar("Case")


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: The rule, as a sentence that holds for a sound plugin.
        status: `pass`, `fail` or `skip`.
        message: What was found where it failed, or why it was skipped.
        hint: What to do about a failure.
    """

    name: str
    status: str
    message: str = ""
    hint: str = ""

    @property
    def failed(self) -> bool:
        """True when the contract is broken."""
        return self.status == "fail"


class Skip(Exception):
    """Raised by a rule that does not apply; its text is the reason."""


@dataclass(frozen=True)
class Rule(Generic[Case]):
    """One rule of a contract.

    Attributes:
        name: A sentence that holds for a sound plugin.
        holds: `holds(case)` returns; it raises AssertionError with what was found where the rule is broken.
        hint: What to do about a failure.
        needs: Rules without which this one says nothing: where one of them failed, it is skipped. So one fault is one
            failure.
    """

    name: str
    holds: Callable[[Case], None]
    hint: str
    needs: tuple[Callable[[Case], None], ...] = ()


def run_rules(rules: Sequence[Rule[Case]], case: Case) -> tuple[Check, ...]:
    """One `Check` for each rule, in their order; whatever a plugin raises is a failure of the rule that met it."""
    found: list[Check] = []
    broken: dict[Callable[[Case], None], str] = {}
    for rule in rules:
        if missing := next((broken[needed] for needed in rule.needs if needed in broken), None):
            broken[rule.holds] = missing
            found.append(Check(rule.name, "skip", f"it needs the rule '{missing}', which is broken"))
            continue
        try:
            with contained():
                rule.holds(case)
        except Skip as reason:
            found.append(Check(rule.name, "skip", str(reason)))
        except Exception as error:  # noqa: BLE001 - a plugin's own code
            broken[rule.holds] = rule.name
            message = said(error) if isinstance(error, AssertionError) else describe(error)
            found.append(Check(rule.name, "fail", message, rule.hint))
        else:
            found.append(Check(rule.name, "pass"))
    return tuple(found)


@contextmanager
def global_random_untouched(what: str) -> Iterator[None]:
    """Around a call into a plugin: asserts that no process-wide generator was drawn from or seeded.

    The generators are in a state that no seeding leaves, and are as they were afterwards.
    """
    import numpy as np
    import torch

    def states() -> dict[str, tuple[object, ...]]:
        kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - read, never drawn from
        return {
            "torch's": (torch.random.get_rng_state().numpy().tobytes(),),
            "numpy's": (kind, np.asarray(keys).tobytes(), *rest),
            "Python's": (random.getstate(),),
        }

    ours, theirs = random.getstate(), np.random.get_state(legacy=True)  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.rand(3)
        np.random.random_sample(3)  # noqa: NPY002
        random.random()
        before = states()
        try:
            yield
            after = states()
        finally:
            random.setstate(ours)
            np.random.set_state(theirs)  # noqa: NPY002
    for whose, state in after.items():
        assert state == before[whose], f"{what} used {whose} global random generator"
