"""The records of one folder, and what cannot be read of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from saebench.api.errors import Damaged, SuiteError
from saebench.artifacts import RunFolder, digest, read_record
from saebench.artifacts.proof import in_the_way
from saebench.base.text import one_line, without_folders

Json = Mapping[str, Any]
"""A JSON object of a record."""


@dataclass(frozen=True)
class Record:
    """A record. `path` is relative to its folder, with forward slashes."""

    path: str
    record: Json

    @property
    def facts(self) -> Json:
        """The deterministic part."""
        facts: Json = self.record["facts"]
        return facts


@dataclass(frozen=True)
class CellRecord(Record):
    """What is known of one cell."""

    @property
    def measured(self) -> Json:
        """Times, host and versions."""
        return self.record.get("measured") or {}

    @property
    def cell_id(self) -> str:
        """Digest of what decides the weights."""
        return str(self.record["cell_id"])

    @property
    def score_id(self) -> str:
        """Digest of what decides the score."""
        return str(self.record["score_id"])

    @property
    def ok(self) -> bool:
        """Whether it was trained and scored."""
        return bool(self.facts["status"] == "ok")

    @property
    def metrics(self) -> dict[str, Json]:
        """Every metric by id, the measured ones too."""
        return {**self.facts["metrics"], **(self.measured.get("metrics") or {})}

    @property
    def search(self) -> str | None:
        """Key of the search (`tune`) that it is a candidate of, or None."""
        tune = self.facts.get("tune")
        return None if tune is None else str(tune["group"])

    @cached_property
    def variant(self) -> str:
        """Digest of what makes two cells of one name different contenders (config, budget, data, training settings)."""
        facts = self.facts
        keys = ("architecture", "architecture_version", "config", "base", "d_in", "d_sae", "train")
        budget = (facts.get("budget") or {}).get("tokens")
        return digest([[facts.get(key) for key in keys], budget, facts["dataset"].get("recipe")], 16)

    @cached_property
    def place(self) -> tuple[Any, ...]:
        """Where the directions live: model, hookpoint and context, or the activation dataset."""
        model = self.facts["model"]
        if model is None:
            return ("data", self.facts["dataset"].get("name"), self.facts["dataset"].get("recipe"))
        return ("model", model.get("id"), model.get("digest"), model.get("hookpoint"), model.get("context"))

    @cached_property
    def slot(self) -> tuple[Any, ...]:
        """A place in a table that only one score can fill."""
        facts = self.facts
        return (
            facts["suite"],
            self.place,
            facts["entry"],
            facts["point"],
            facts["data_seed"],
            facts["init_seed"],
            self.variant,
        )


@dataclass(frozen=True)
class GroupRecord(Record):
    """What is known of one group."""

    @property
    def details(self) -> Json:
        """What its metrics left besides numbers."""
        return self.facts.get("details") or {}

    @property
    def members(self) -> list[Json]:
        """The members that were scored."""
        return [member for member in self.facts["members"] if member.get("status") == "ok"]

    @property
    def vary(self) -> frozenset[str]:
        """What its members differ in; the record says `init_seed` or `dataset+init_seed`."""
        return frozenset(str(self.facts.get("vary", "init_seed")).split("+"))


@dataclass(frozen=True)
class LeftOut:
    """A record that is in a folder and not in the tables. `kind` is superseded, conflict or unreadable."""

    kind: str
    path: str
    cell: str
    score_id: str
    reason: str


def nothing_left(left_out: Sequence[LeftOut]) -> SuiteError:
    """That no record can be read, with the first of them."""
    first = left_out[0]
    return SuiteError(
        f"{first.path}: {first.reason}. None of {len(left_out)} records can be read. Run the suite again into this "
        "folder, or restore it."
    )


def cell_name(facts: Json) -> str:
    """For people: `topk k16 s0`."""
    return f"{facts['entry']} {facts['point']} s{facts['init_seed']}"


def read_cells(folder: Path, left_out: list[LeftOut] | None = None) -> list[CellRecord]:
    """All cell records of a folder, in path order.

    Args:
        folder: Holds records/.
        left_out: Takes the files that cannot be read; without it the first of them raises.

    Raises:
        SuiteError: The folder does not exist or holds no records; a record is damaged or of an unknown schema version.
    """
    if not folder.is_dir():
        raise SuiteError(f"{folder}: no such folder. Name a run folder, or any folder that holds records/.")
    paths = list(RunFolder(folder).record_paths())
    if not paths:
        found = in_the_way(folder / "records") or f"{folder}: no records below records/"
        raise SuiteError(f"{found}. Run `saebench run` into it first, or name a folder that holds records/.")
    return [CellRecord(name, record) for name, record in _read(folder, paths, "cell", left_out)]


def read_groups(folder: Path, left_out: list[LeftOut] | None = None) -> list[GroupRecord]:
    """All group records of a folder, in path order; else as `read_cells`."""
    if (blocked := in_the_way(folder / "groups")) is not None:
        if left_out is None:
            raise Damaged(blocked)
        left_out.append(unreadable("groups", blocked.removeprefix(f"{folder / 'groups'}: ")))
    paths = RunFolder(folder).group_paths()
    return [GroupRecord(name, record) for name, record in _read(folder, paths, "group", left_out)]


def _read(
    folder: Path, paths: Iterable[Path], kind: Literal["cell", "group"], left_out: list[LeftOut] | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            yield name, read_record(path, kind)
        except Damaged as damage:
            if left_out is None:
                raise
            left_out.append(unreadable(name, damage.found.removeprefix(f"{path}: ")))


def unreadable(path: str, reason: str) -> LeftOut:
    """A file that no table can use; `path` is relative to its folder."""
    name = path.removesuffix(".json").partition("/")[2]
    return LeftOut("unreadable", path, name, "", without_folders(one_line(reason, 300)))
