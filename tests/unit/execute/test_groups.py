from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from saebench.artifacts import RunFolder, read_record, save_arrays, write_record
from saebench.cells.cell import ArchitectureUse, Cell, DatasetUse, EvaluationSettings, ModelUse
from saebench.cells.plan import Group
from saebench.execute.groups import GroupRunner, group_record, member_facts
from saebench.execute.resume import FolderState


def cell(entry, seed, **changes):
    use = DatasetUse(f"{entry}-text", "docs", "1", "text", {}, f"recipe-{entry}")
    made = Cell(
        cell_id=f"{entry}{seed}", score_id=f"score-{entry}{seed}", suite="t", entry=entry, point="k4", sweep={},
        where="", part=ArchitectureUse("topk", "1", {}),
        base=None, d_in=4, d_out=4, d_sae=8, tags=(), model=None, dataset=use,
        evaluation=EvaluationSettings(("docs",), 10, 1, 10, (3, 4)),
        evaluation_datasets=(use,), init_seed=seed, data_seed=0, parent=None, train=None, tokens=0, control=False,
        expected_l0=None, cohort="", group="",
    )  # fmt: skip
    return replace(made, **changes)


CELLS = [cell("a", 0), cell("a", 1), cell("b", 0)]
GROUP = Group(
    "key", "t", "a + b", "k4", "topk-k4-12345678", tuple(c.cell_id for c in CELLS), {"m": "2"}, ("dataset", "init_seed")
)
OK = {c.cell_id: "ok" for c in CELLS}


def outcome(*arrays):
    return SimpleNamespace(
        status="ok", metrics={}, metric_info={}, metric_versions={"m": "2"}, details={}, arrays=dict.fromkeys(arrays),
        times={}, error=None
    )  # fmt: skip


@pytest.fixture
def due(tmp_path):
    """`due(group, cells, statuses)` in a folder where `due.write(*arrays)` wrote the record of GROUP."""
    said: list[str] = []
    run = RunFolder(tmp_path)
    state = FolderState(run, said.append)
    runner = GroupRunner(run, None, None, "cpu", state)  # type: ignore[arg-type]
    path = run.group_record("t", "across-dataset", GROUP.name)

    def ask(group=GROUP, cells=CELLS, statuses=OK):
        return runner.is_due(group, cells, statuses)

    def write(**arrays):
        record = group_record(GROUP, CELLS, OK, outcome(*arrays), environment={}, plugins={})
        arrays_path = run.group_arrays(record["group_id"])
        if arrays:
            record["arrays_sha256"] = save_arrays(arrays_path, arrays)
        write_record(path, record)
        return arrays_path

    for one in CELLS:
        state.trained(one)
    ask.write, ask.path, ask.said, ask.state = write, path, said, state
    return ask


def test_a_group_is_due_until_its_record_stands(due):
    assert due()
    due.write()
    assert not due()
    assert due.said == []


def test_other_members_statuses_or_versions_make_it_due(due):
    due.write()
    assert due(cells=[replace(CELLS[0], score_id="other"), *CELLS[1:]])
    assert due(cells=CELLS[:2], group=replace(GROUP, cells=GROUP.cells[:2]))
    assert due(statuses=OK | {"a1": "diverged"})
    assert due(group=replace(GROUP, metrics={"m": "3"}))
    assert not due()


def test_arrays_that_are_not_the_records_make_it_due(due):
    arrays = due.write(x=torch.ones(3))
    assert not due()
    content = bytearray(arrays.read_bytes())
    content[-1] ^= 1
    arrays.write_bytes(content)
    assert due()
    arrays.unlink()
    assert due()
    assert due.said == [
        f"{arrays}: damaged (its sha256 is not the one that was written down). The group is scored again",
        f"{arrays}: missing. The group is scored again",
    ]


def test_a_damaged_record_is_told_and_made_anew(due):
    due.write()
    due.path.write_text("{")
    assert due()
    assert due.said[0].startswith(str(due.path)) and due.said[0].endswith("The group is scored again")


def test_arrays_that_a_person_removed_with_the_weights_stay_away(due):
    due.write(x=torch.ones(3)).unlink()
    due.state._checkpoints.clear()
    assert not due()
    assert due.said == []


def test_a_record_of_another_group_is_not_this_ones(due):
    due.write()
    record = read_record(due.path, "group")
    write_record(due.path, record | {"group_id": "other"})
    assert due()
    assert due.said == []
    write_record(due.path, record | {"facts": record["facts"] | {"point": "k8"}})
    assert due()
    assert due.said == [f"{due.path}: damaged (it is the record of another group). The group is scored again"]


def test_the_record_names_all_that_differs():
    record = group_record(GROUP, CELLS, OK | {"b0": "failed"}, outcome("z", "y"), environment={"host": 1}, plugins={})
    facts = record["facts"]
    assert (facts["vary"], facts["entry"], facts["datasets"]) == ("dataset+init_seed", "a + b", ["a-text", "b-text"])
    assert [member["label"] for member in facts["members"]] == ["a-text s0", "a-text s1", "b-text s0"]
    assert [member["status"] for member in facts["members"]] == ["ok", "ok", "failed"]
    assert facts["arrays"] == ["y", "z"]
    plain = group_record(replace(GROUP, vary=("init_seed",)), CELLS[:2], OK, outcome(), environment={}, plugins={})
    assert plain["facts"]["vary"] == "init_seed"
    assert [member["label"] for member in plain["facts"]["members"]] == ["s0", "s1"]


def test_members_are_told_apart_by_their_facts():
    model = ModelUse("m", None, "digest", "blocks.2", "layers.2", 32)
    assert member_facts(cell("a", 1, model=model)) == {
        "entry": "a", "point": "k4", "dataset": "a-text", "hookpoint": "layers.2", "init_seed": 1, "data_seed": 0,
        "cell_id": "a1", "score_id": "score-a1",
    }  # fmt: skip


def test_codes_come_from_the_first_dataset_and_seed_and_one_model_is_held_at_a_time(tmp_path):
    asked, released = [], []

    class Sources:
        def held_out(self, use, model, settings, seed, *, training):
            asked.append((use.name, model and model.digest, settings.tokens, seed, training))

        def release(self):
            released.append(len(asked))

    run = RunFolder(tmp_path)
    runner = GroupRunner(run, None, Sources(), "cpu", FolderState(run, print))  # type: ignore[arg-type]
    runner.use_model(ModelUse("m", None, "one", "h", "h", 32))
    for digest in (None, "one", "one", "two", "two", None, "one"):
        model = ModelUse("m", None, digest, "h", "h", 32) if digest else None
        runner._held_out(cell("a", 0, model=model))
    assert asked[0] == ("a-text", None, 10, 3, None)
    assert [model for _, model, *_ in asked] == [None, "one", "one", "two", "two", None, "one"]
    assert released == [3, 6]


def test_a_group_that_failed_is_due_again(due):
    record = group_record(GROUP, CELLS, OK, outcome(), environment={}, plugins={})
    record["facts"]["status"] = "failed"
    write_record(due.path, record)
    assert due()
