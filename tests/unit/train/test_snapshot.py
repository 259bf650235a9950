"""A killed pass goes on from its snapshots and ends bit for bit as if it had not been killed."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import saebench.train.snapshot as snapshot_module
from saebench.api import MachineError
from saebench.cells.cell import ArchitectureUse
from saebench.host import load_catalog
from saebench.train import Watch, save_outcome, train_pass

D_SAE = 64
CONFIGS = {
    "topk": {"d_sae": D_SAE, "k": 3, "dead_window": 0.05},
    "batch-topk": {"d_sae": D_SAE, "k": 3, "dead_window": 0.05},
    "jumprelu": {"d_sae": D_SAE, "target_l0": 4.0},
    "relu-l1": {"d_sae": D_SAE, "resample_at": (0.5, 0.6, 0.8), "l1_coefficient": 1.5},
    "expander": {"d_sae": D_SAE, "k": 3, "degree": 4, "reaim_every": 0.2, "reaim_below": 3, "reaim_most": 1.0},
}


class Killed(BaseException):
    """As abrupt as a kill: nothing catches it."""


class Killer(Watch):
    """Kills the pass after a number of steps of all cells together; notes what it hears."""

    def __init__(self, after=None):
        self.after, self.steps, self.resumptions, self.lines = after, 0, {}, []

    def advanced(self, tokens):
        self.steps += 1
        if self.steps == self.after:
            raise Killed

    def resumed(self, cell, tokens):
        self.resumptions[cell.cell_id] = tokens

    def say(self, line):
        self.lines.append(line)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """No waiting for the disk: no test here pulls the plug."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.fixture(scope="module")
def catalog():
    return load_catalog()


def real_cell(kit, catalog, name, **changes):
    config = dataclasses.asdict(catalog.architecture(name).spec.config(**CONFIGS[name]))
    return kit.cell(name, config=config, d_sae=D_SAE, **{"tokens": 64 * 40, **changes})


def run(cells, kit, catalog, folder=None, watch=None, parents=None):
    source = kit.source(n=1024)
    outcomes = {}
    jobs = [(cell, source) for cell in cells]
    for cell, outcome in train_pass(
        jobs, catalog, device=kit.device, progress=watch, snapshots=folder, snapshot_every_s=0.0, parents=parents
    ):
        outcomes[cell.cell_id] = outcome
    return outcomes


def test_every_architecture_of_a_killed_pass_ends_bitwise_equal(kit, catalog, tmp_path):
    cells = [real_cell(kit, catalog, name) for name in CONFIGS]
    parent = kit.cell("topk", config=cells[0].part.config, d_sae=D_SAE, tokens=640)
    save_outcome(run([parent], kit, catalog)[parent.cell_id], parent, tmp_path / "parent")
    base = ArchitectureUse("topk", parent.part.version, parent.part.config)
    child = {"config": {"tilt": 1.0}, "base": base, "d_sae": D_SAE, "parent": parent.cell_id, "tokens": 64 * 30}
    cells.append(kit.cell("ssae", **child))
    parents = {parent.cell_id: tmp_path / "parent"}
    whole = run(cells, kit, catalog, parents=parents)
    assert {outcome.status for outcome in whole.values()} == {"ok"}, {o.status: o.error for o in whole.values()}
    folder = tmp_path / "snapshots"
    for after in (100, 27, 60):  # killed three times, twice in the middle of a batch
        with pytest.raises(Killed):
            run(cells, kit, catalog, folder, Killer(after), parents)
    watch = Killer()
    ended = run(cells, kit, catalog, folder, watch, parents)
    assert set(watch.resumptions) == {cell.cell_id for cell in cells}
    assert min(watch.resumptions.values()) > 64 * 25
    assert not watch.lines
    for cell in cells:
        assert kit.equal(whole[cell.cell_id], ended[cell.cell_id]), cell.part.architecture
    assert list(folder.iterdir()) == []


def test_the_cases_do_what_they_are_there_for(kit, catalog):
    """AuxK has dead latents, resampling and re-aiming happen: else the test above would test nothing of them."""
    quiet = {"topk": {"aux_coefficient": 0.0}, "relu-l1": {"resample_at": ()}, "expander": {"reaim_every": None}}
    for name, change in quiet.items():
        cell = real_cell(kit, catalog, name)
        other = kit.replace(cell, part=kit.replace(cell.part, config={**cell.part.config, **change}))
        one, two = run([cell], kit, catalog)[cell.cell_id], run([other], kit, catalog)[other.cell_id]
        assert not kit.equal(one, two), name


def test_cells_restored_at_different_batches_catch_up(kit, catalog, tmp_path, monkeypatch):
    cells = [kit.cell(init_seed=seed, tokens=64 * 20) for seed in range(3)]
    whole = run(cells, kit, kit.catalog)
    write, calls = snapshot_module.write_snapshot, []

    def dying(*arguments):
        calls.append(arguments)
        if len(calls) == 3 * 7 + 2:
            raise Killed  # in the middle of the eighth round: one cell is a batch ahead of the others
        write(*arguments)

    monkeypatch.setattr(snapshot_module, "write_snapshot", dying)
    with pytest.raises(Killed):
        run(cells, kit, kit.catalog, tmp_path)
    monkeypatch.setattr(snapshot_module, "write_snapshot", write)
    watch = Killer()
    newcomer = kit.cell(init_seed=9)  # and one that the killed pass did not have
    ended = run([*cells, newcomer], kit, kit.catalog, tmp_path, watch)
    assert [watch.resumptions[cell.cell_id] for cell in cells] == [64 * 8, 64 * 7, 64 * 7]
    assert all(kit.equal(whole[cell.cell_id], ended[cell.cell_id]) for cell in cells)
    assert kit.equal(ended[newcomer.cell_id], run([newcomer], kit, kit.catalog)[newcomer.cell_id])


def test_a_cell_that_ended_leaves_no_snapshot(kit, tmp_path):
    cells = [kit.cell(tokens=128), kit.cell()]
    source = kit.source()
    going = train_pass(
        [(c, source) for c in cells], kit.catalog, device=kit.device, snapshots=tmp_path, snapshot_every_s=0.0
    )
    assert next(going)[0] is cells[0]
    assert (tmp_path / cells[0].cell_id[:16]).exists()  # until whoever saves it asks for the next one
    assert next(going)[0] is cells[1]
    assert not (tmp_path / cells[0].cell_id[:16]).exists()
    going.close()
    assert (tmp_path / cells[1].cell_id[:16]).exists()


@pytest.mark.parametrize(
    "damage", ["tensors", "json", "missing", "version", "engine", "other cell", "threads", "torch"]
)
def test_a_damaged_or_foreign_snapshot_is_ignored_with_a_line(kit, tmp_path, damage, monkeypatch):
    cell = kit.cell()
    with pytest.raises(Killed):
        run([cell], kit, kit.catalog, tmp_path, Killer(5))
    (folder,) = tmp_path.iterdir()
    tensors, numbers = folder / "state.safetensors", folder / "state.json"
    if damage == "tensors":
        data = bytearray(tensors.read_bytes())
        data[-1] ^= 1
        tensors.write_bytes(data)
    elif damage == "json":
        numbers.write_text(numbers.read_text()[:40])
    elif damage == "missing":
        tensors.unlink()
    elif damage == "version":
        numbers.write_text(numbers.read_text().replace('"version":3', '"version":99'))
    elif damage == "engine":
        monkeypatch.setattr(snapshot_module, "ENGINE_VERSION", "another")
    elif damage == "threads":
        threads = torch.get_num_threads() + 1
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    elif damage == "torch":
        monkeypatch.setattr(torch, "__version__", "another")
    else:
        numbers.write_text(numbers.read_text().replace(cell.cell_id, "f" * 64))
    watch = Killer()
    ended = run([cell], kit, kit.catalog, tmp_path, watch)
    assert len(watch.lines) == 1
    assert "this snapshot is not used and the cell begins anew" in watch.lines[0]
    if damage in ("engine", "threads", "torch"):
        assert f"it was written under {damage} " in watch.lines[0]
    assert not watch.resumptions
    assert kit.equal(ended[cell.cell_id], run([cell], kit, kit.catalog)[cell.cell_id])


def test_a_snapshot_of_a_module_with_other_tensors_is_ignored(kit, tmp_path):
    cell = kit.cell()
    with pytest.raises(Killed):
        run([cell], kit, kit.catalog, tmp_path, Killer(5))

    class Wider(kit.Tiny):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.register_buffer("more", torch.zeros(3))

    kit.add("tiny", Wider)
    watch = Killer()
    assert run([cell], kit, kit.catalog, tmp_path, watch)[cell.cell_id].ok
    assert "its tensors are not those of this module" in watch.lines[0]


def test_a_disk_that_refuses_costs_the_snapshot_not_the_training(kit, tmp_path, monkeypatch):
    def full(*arguments):
        raise MachineError("no space is left on the disk")

    monkeypatch.setattr(snapshot_module, "write_snapshot", full)
    cell, watch = kit.cell(), Killer()
    assert run([cell], kit, kit.catalog, tmp_path, watch)[cell.cell_id].ok
    assert "no snapshot was written; training continues: no space" in watch.lines[0]


def test_snapshots_come_less_often_where_they_are_dear(kit, tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(snapshot_module.time, "perf_counter", lambda: clock[0])
    written = []

    def slow(*arguments):
        written.append(clock[0])
        clock[0] += 6.0

    monkeypatch.setattr(snapshot_module, "write_snapshot", slow)

    class Run:
        cell = kit.cell()

    monkeypatch.setattr(snapshot_module, "state_of", lambda run: ({}, {}))
    keeper = snapshot_module.Snapshots(tmp_path, 10.0, torch.device("cpu"), print)
    for second in range(700):
        clock[0] = max(clock[0], float(second))
        keeper.save([Run()])
    assert written == [10.0, 316.0, 622.0]  # 6 seconds are 2 % of 300


def test_tensors_that_share_memory_are_stored(tmp_path):
    base = torch.arange(6.0)
    tensors = {"a": base, "b": base[:3], "c": base.reshape(2, 3).T, "flag": torch.tensor(True)}
    snapshot_module.write_snapshot(tmp_path / "s", {"cell": "x"}, tensors, {"steps": 3})
    found, numbers = snapshot_module.read_snapshot(tmp_path / "s", {"cell": "x"})
    assert numbers == {"steps": 3}
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
