"""`diff`: do two folders hold the same facts? What is measured (times, memory, host, versions) is not compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saebench.base.canonical import digest
from saebench.leaderboard.read.merge import dotted, unequal
from saebench.leaderboard.read.records import CellRecord, GroupRecord, Record, read_cells, read_groups

_CORPUS = "corpus differs"
_ORDER = {_CORPUS: 0, "only in a": 1, "only in b": 2, "differs": 3}


@dataclass(frozen=True)
class Difference:
    """One difference.

    Attributes:
        kind: `corpus differs`, `only in a`, `only in b` or `differs`.
        where: The record (`topk/k16-s0`), the group, or the dataset.
        key: Dotted key inside the facts; empty for a record that only one side has.
        a, b: What each side holds.
    """

    kind: str
    where: str
    key: str
    a: Any
    b: Any

    def __str__(self) -> str:
        if self.kind == _CORPUS:
            return (
                f"corpus differs: {self.where}: {_short(self.a)} against {_short(self.b)}. Scores on it cannot be "
                "equal; the facts below follow from it."
            )
        if self.kind != "differs":
            return f"{self.where}: {self.kind}"
        return f"{self.where}: {self.key}: {_short(self.a)} against {_short(self.b)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def diff(a: Path, b: Path) -> list[Difference]:
    """Differences between the facts of two folders that hold records/ (and groups/); empty when equal.

    Cells are matched by what a suite calls them (suite, model, hookpoint, entry, point, seeds), so that a changed
    config shows as the key that changed. Datasets whose content digest differs come first, once each.

    Raises:
        SuiteError: A folder does not exist or holds no records, or a record is damaged.
    """
    pairs = read_pairs(a, b)
    found = [*corpora(pairs), *(difference for pair in pairs for difference in _compare(pair))]
    return in_order(found)


def in_order(differences: Iterable[Difference]) -> list[Difference]:
    """As they are shown: other corpora first, as what follows may follow from them."""
    return sorted(differences, key=lambda item: (_ORDER[item.kind], item.where, item.key))


@dataclass(frozen=True)
class Pair:
    """One score in two folders; None where a folder has none.

    Attributes:
        where: What a suite calls it.
        a, b: The records.
    """

    where: str
    a: Record | None
    b: Record | None


def read_pairs(a: Path, b: Path) -> list[Pair]:
    """The records of two folders, cells then groups, each with its counterpart.

    Raises:
        SuiteError: As `diff`.
    """
    found = []
    for left, right in (
        (_identified(read_cells(Path(a))), _identified(read_cells(Path(b)))),
        (_named_groups(Path(a)), _named_groups(Path(b))),
    ):
        found += [Pair(where, left.get(where), right.get(where)) for where in sorted({*left, *right})]
    return found


def _named_groups(folder: Path) -> dict[str, GroupRecord]:
    return {_group_name(group.path, group.facts): group for group in read_groups(folder)}


def _group_name(path: str, facts: Mapping[str, Any]) -> str:
    return f"group {path.removeprefix('groups/').removesuffix('.json')} ({facts['entry']} {facts['point']})"


def _identified(cells: Sequence[CellRecord]) -> dict[str, CellRecord]:
    """Records by a name that does not change with a config; several scores of one cell are told apart by score_id."""
    named: dict[str, list[CellRecord]] = {}
    for cell in cells:
        facts = cell.facts
        model = facts["model"]
        place = (
            f"{model.get('id')} {model.get('hookpoint_name') or model.get('hookpoint')}"
            if model
            else str(facts["dataset"].get("name"))
        )
        data_seed = f" d{facts['data_seed']}" if facts["data_seed"] else ""
        named.setdefault(
            f"{facts['suite']}: {facts['entry']} {facts['point']} s{facts['init_seed']}{data_seed} ({place})", []
        ).append(cell)
    unique: dict[str, CellRecord] = {}
    for name, found in named.items():
        # a copy of a record under another name, or in another folder, tells nothing new
        same = list({(cell.score_id, digest(cell.facts)): cell for cell in found}.values())
        for cell in same:
            unique[name if len(same) == 1 else f"{name} score {cell.score_id[:8]}"] = cell
    return unique


def _compare(pair: Pair) -> Iterator[Difference]:
    yield from unlike_identities(pair)
    if pair.a is not None and pair.b is not None:
        for path, left, right in unequal(pair.a.facts, pair.b.facts):
            yield Difference("differs", pair.where, dotted(path), left, right)


def unlike_identities(pair: Pair) -> Iterator[Difference]:
    """That one side has no such record, or the ids of another one."""
    if pair.a is None or pair.b is None:
        there, kind = (pair.b, "only in b") if pair.a is None else (pair.a, "only in a")
        status = None if there is None else there.facts["status"]
        yield Difference(kind, pair.where, "", *((None, status) if pair.a is None else (status, None)))
        return
    for name in ("cell_id", "score_id", "group_id"):
        if pair.a.record.get(name) != pair.b.record.get(name):
            yield Difference("differs", pair.where, name, pair.a.record.get(name), pair.b.record.get(name))


def corpora(pairs: Sequence[Pair]) -> Iterator[Difference]:
    """Datasets that turned out to hold something else, once each."""
    left, right = (
        _contents([cell for cell in side if isinstance(cell, CellRecord)])
        for side in ([pair.a for pair in pairs], [pair.b for pair in pairs])
    )
    for name, recipe in sorted(left.keys() & right.keys()):
        if left[name, recipe] != right[name, recipe]:
            yield Difference(_CORPUS, name, "content", left[name, recipe], right[name, recipe])


def _contents(cells: Sequence[CellRecord]) -> dict[tuple[str, str], str]:
    """Content digest by (dataset name, recipe): what the datasets turned out to hold."""
    contents = {}
    for cell in cells:
        datasets = [cell.facts["dataset"], *((cell.facts["evaluation"] or {}).get("datasets") or [])]
        for index, dataset in enumerate(datasets):
            if dataset.get("content"):
                part = "training part" if index == 0 else "held-out part"
                contents[(f"{dataset.get('name')} ({part})", str(dataset.get("recipe")))] = str(dataset["content"])
    return contents
