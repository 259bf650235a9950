"""Entries whose data cannot be had: they are left out and named, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from saebench.api.errors import SaebenchError, first_line
from saebench.api.splits import Split
from saebench.cells.plan import Refused
from saebench.config import Problems
from saebench.config.problems import Path
from saebench.plan.contenders.contender import Contender
from saebench.plan.contenders.datasets import DatasetBook


class Refusals:
    """Collects them. What is wrong with the suite itself is a problem (`Problems`) and stops everything; this is not.

    Args:
        where: File and line of a path of the suite.
    """

    def __init__(self, where: Callable[..., str]) -> None:
        self._where = where
        self._found: dict[str, Problems] = {}

    def __contains__(self, entry: str) -> bool:
        return entry in self._found

    def add(self, entry: str, path: Path, message: str) -> None:
        """Why an entry, or its part at one place, is left out."""
        self._found.setdefault(entry, Problems(self._where)).add(path, message)

    def listed(self) -> tuple[Refused, ...]:
        """All of them, in the order found."""
        return tuple(Refused(entry, line) for entry, problems in self._found.items() for line in problems.lines())

    def stop(self, problems: Problems) -> None:
        """Raises where the suite has problems, and names with them what is refused.

        Raises:
            SuiteError: One line a problem and a refusal.
        """
        if problems:
            for refused in self.listed():
                problems.line(refused.reason)
        problems.stop()

    def usable(
        self, contenders: Sequence[Contender], evaluation: Mapping[Contender, Sequence[str]], book: DatasetBook
    ) -> list[Contender]:
        """The contenders, parents first, whose data is there; for the others it is said why.

        Raises:
            SuiteError: None is left.
        """
        kept: list[Contender] = []
        for contender in contenders:
            missing = list(_missing(contender, evaluation[contender], book))
            if not missing and contender.parent is not None and contender.parent not in kept:
                missing = [(("entries", contender.index or 0, "init_from"), _orphan(contender.parent.entry))]
            for path, reason in missing:
                self.add(contender.entry, path, reason)
            if not missing:
                kept.append(contender)
        if not kept:
            everything = Problems(self._where)
            for refused in self.listed():
                everything.line(refused.reason)
            everything.stop()
        return kept

    def orphan(self, entry: str, path: Path, parent: str) -> None:
        """An entry whose parent is refused."""
        self.add(entry, path, _orphan(parent))


def _orphan(parent: str) -> str:
    return f"it starts from {parent!r}, which is refused. Mend that first."


def _missing(contender: Contender, evaluation: Sequence[str], book: DatasetBook) -> list[tuple[Path, str]]:
    """What is wrong with a contender's data: faults, empty splits, evaluation data that its model cannot make."""
    needed: list[tuple[str, Split]] = [(contender.dataset.name, "train"), *((name, "held-out") for name in evaluation)]
    found: list[tuple[Path, str]] = []
    for name, split in needed:
        if faults := book.faults(name):
            found += faults
            continue
        try:
            reason = book.empty(name, split)
        except SaebenchError as error:
            reason = first_line(error)
        if reason is not None:
            found.append((("datasets", name), reason))
    model, facts = contender.site.model, contender.site.facts
    if model is not None and facts is not None and not facts.causal:
        found += [
            (
                ("evaluation", "datasets"),
                f"{name!r} samples the model, but {model.id} is no causal language model. Name a text dataset.",
            )
            for name in evaluation
            if (plan := book.get(name)) is not None and plan.kind == "generated"
        ]
    return found
