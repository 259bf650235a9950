"""Which cells have to be made again, by what of an earlier run can be believed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from saebench.api.errors import Damaged
from saebench.artifacts import RunFolder, save_arrays, save_checkpoint
from saebench.cells.cell import ArchitectureUse, Cell, DatasetUse, EvaluationSettings
from saebench.execute.resume import FolderState, changed_facts


def cell(name, parent=None):
    use = DatasetUse("text", "docs", "1", "text", {}, "recipe")
    return Cell(
        cell_id=name * 16, score_id=f"score-{name}", suite="t", entry=name, point="k4", sweep={}, where="",
        part=ArchitectureUse("topk", "1", {}), base=None,
        d_in=4, d_out=4, d_sae=8, tags=(), model=None, dataset=use,
        evaluation=EvaluationSettings(("docs",), 10, 1, 10, (3,)),
        evaluation_datasets=(use,), init_seed=0, data_seed=0, parent=parent and parent.cell_id, train=None, tokens=0,
        control=False, expected_l0=None, cohort="", group="",
    )  # fmt: skip


PARENT = cell("a")
CHILD = cell("b", PARENT)
OTHER = cell("c")
CELLS = [PARENT, CHILD, OTHER]
ARRAYS = "9733a702cfc8b41a01292189a76d9abdd9509a180dc6d755a5dab55b6f2574c8"


class Run(FolderState):
    """Three finished cells; `statuses` are those of the records (None: no record, an error: a damaged one)."""

    def __init__(self, root):
        self.folder, self.said = RunFolder(root), []
        super().__init__(self.folder, self.said.append)
        self.statuses = {c.cell_id: "ok" for c in CELLS}

    def weights(self, c):
        return self.folder.checkpoint(c.cell_id)

    def record(self, c):
        status = self.statuses[c.cell_id]
        if isinstance(status, Damaged):
            raise status
        return status and {
            "facts": {"status": status},
            "arrays_sha256": ARRAYS if status == "ok" else None,
        }

    def left(self, *needed, retry_failed=False):
        """Names of the cells to do, where a due group needs these cells."""
        groups = [SimpleNamespace(cells=tuple(c.cell_id for c in needed))]
        todo = self.to_do(CELLS, groups, retry_failed=retry_failed, is_due=lambda group: bool(group.cells))
        return "".join(sorted(c.entry for c in CELLS if c.cell_id in todo))


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path)
    for c in CELLS:
        save_checkpoint(folder.checkpoint(c.cell_id), {"W": torch.ones(2)}, {"cell_id": c.cell_id})
        assert save_arrays(folder.arrays(c.cell_id), {"density": torch.ones(2)}) == ARRAYS
    return Run(tmp_path)


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def test_a_finished_run_has_nothing_to_do_and_says_nothing(run):
    assert run.left(*CELLS) == ""
    assert run.said == []


def test_cells_without_a_believed_record_are_made(run):
    run.statuses[PARENT.cell_id], run.statuses[OTHER.cell_id] = None, Damaged("record: damaged (x)")
    assert run.left() == "ac"
    assert run.said == ["record: damaged (x). The cell is scored again"]


def test_a_damaged_record_of_a_cell_without_weights_is_trained_again(run):
    run.statuses[OTHER.cell_id] = Damaged("record: damaged (x)")
    shutil.rmtree(run.weights(OTHER))
    assert run.left() == "c"
    assert run.said == ["record: damaged (x). The cell is trained again"]


def test_records_that_are_not_ok_are_final_unless_asked_for(run):
    run.statuses[OTHER.cell_id] = "diverged"
    assert run.left() == ""
    assert run.left(retry_failed=True) == "c"


def test_damaged_weights_and_arrays_are_made_again(run):
    flip(run.weights(PARENT) / "sae.json")
    flip(run.folder.arrays(CHILD.cell_id))
    run.folder.arrays(OTHER.cell_id).unlink()
    assert run.left() == "abc"
    assert [line.rpartition(". ")[2] for line in run.said] == [
        "The cell is trained again", "The cell is scored again", "The cell is scored again",
    ]  # fmt: skip


def test_weights_that_are_gone_are_made_when_a_group_or_a_child_needs_them(run):
    shutil.rmtree(run.weights(PARENT))
    shutil.rmtree(run.weights(OTHER))
    assert run.left() == ""
    (line,) = run.said
    assert line.startswith(f"{run.weights(PARENT)} and 1 more: missing. Nothing needs these weights now")
    assert run.left(OTHER) == "c"
    run.statuses[CHILD.cell_id] = None
    run.scored(CHILD)
    assert run.left() == "b"  # its own weights are there: it is scored, and needs no parent
    shutil.rmtree(run.weights(CHILD))
    later = Run(run.folder.root)
    later.statuses[CHILD.cell_id] = None
    assert later.left() == "ab"
    assert later.said[0] == f"{run.weights(PARENT)}: missing, and needed. The cell is trained again"


def test_a_skipped_child_is_tried_when_its_parent_has_a_score(run):
    run.statuses[CHILD.cell_id] = "skipped"
    assert run.left() == "b"
    run.statuses[PARENT.cell_id] = "failed"
    run.scored(PARENT)
    assert run.left() == ""
    run.statuses[OTHER.cell_id] = "skipped"
    run.scored(OTHER)
    assert run.left() == ""


def test_what_was_proven_is_not_read_again(run, monkeypatch):
    run.left()
    for c in CELLS:
        shutil.rmtree(run.weights(c))
    assert run.left() == ""
    run.trained(PARENT)
    assert run.checkpoint(PARENT) == "whole"


def test_a_record_of_another_cell_is_not_believed(tmp_path, monkeypatch):
    state = FolderState(RunFolder(tmp_path), print)
    path = RunFolder(tmp_path).record("t", "a", PARENT.record_name)
    path.parent.mkdir(parents=True)
    path.touch()
    record = {"cell_id": PARENT.cell_id, "score_id": PARENT.score_id, "facts": {"status": "ok"}, "arrays_sha256": None}
    monkeypatch.setattr("saebench.execute.resume.read_record", lambda _path: record)
    assert state.record(PARENT) == record
    for other in (replace(PARENT, cell_id="x"), replace(PARENT, score_id=f"{PARENT.score_id[:8]}-other")):
        monkeypatch.setattr(Cell, "record_name", PARENT.record_name)
        with pytest.raises(Damaged, match="the record of another cell or score"):
            state.record(other)


def test_facts_that_changed_are_named():
    assert changed_facts({"a": 1, "b": [1], "c": {}}, {"a": 1, "b": (1,), "c": {"x": 0}, "d": None}) == ["c"]


def test_a_suite_with_a_new_entry_changes_no_fact_of_the_older_ones():
    assert changed_facts({"a": 1, "suite_digest": "x"}, {"a": 1, "suite_digest": "y"}) == []
