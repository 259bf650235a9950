"""Many cells in one pass: every batch is read once, and a cell's bits depend on no other cell."""

from __future__ import annotations

import pytest
import torch

from saebench.api import MachineError, SuiteError
from saebench.api.errors import Damaged
from saebench.train import Watch, save_outcome, train_pass


def run(kit, cells, source=None, **more):
    """Outcomes by cell_id."""
    source = source or kit.source()
    return {
        cell.cell_id: outcome
        for cell, outcome in train_pass([(c, source) for c in cells], kit.catalog, device=kit.device, **more)
    }


def test_alone_or_beside_others_is_the_same_bit_for_bit(kit):
    slow = kit.replace(kit.settings, lr=0.003, clip=None, warmup=0.0)
    cells = [
        kit.cell(config=kit.config(k=4)),
        kit.cell(init_seed=7, tokens=900),
        kit.cell(train=slow, tokens=200),
        kit.cell(),
    ]
    together = run(kit, cells)
    assert [together[cell.cell_id].steps for cell in cells] == [10, 15, 4, 10]
    for cell in cells:
        assert kit.equal(together[cell.cell_id], kit.train(cell)), cell.label
    turned_round = run(kit, cells[::-1])
    assert all(kit.equal(together[cell.cell_id], turned_round[cell.cell_id]) for cell in cells)


def test_every_batch_is_read_once_for_all_cells(kit):
    source = kit.source()
    run(kit, [kit.cell(init_seed=seed) for seed in range(5)], source)
    assert source.asked == [(64, 5, 0)]
    assert source.read == 10


def test_cells_end_when_their_own_share_is_used_up(kit):
    cells = [kit.cell(tokens=tokens) for tokens in (640, 64, 320)]
    source = kit.source()
    ended = [cell.tokens for cell, _ in train_pass([(cell, source) for cell in cells], kit.catalog, device=kit.device)]
    assert ended == [64, 320, 640]


def test_several_sources_go_side_by_side(kit):
    """Two hookpoints: one batch of each for every index, so that one forward can make both."""
    order = []

    class Noting(kit.source):
        def __init__(self, name, **more):
            super().__init__(**more)
            self.name = name

        def batches(self, batch, seed, start=0):
            for index, made in enumerate(super().batches(batch, seed, start), start):
                order.append((self.name, index))
                yield made

    one, two = Noting("one"), Noting("two", seed=1)
    cells = [kit.cell(), kit.cell(init_seed=1), kit.cell(tokens=320, init_seed=2)]
    outcomes = {
        cell.cell_id: outcome
        for cell, outcome in train_pass(list(zip(cells, (one, two, two), strict=True)), kit.catalog, device=kit.device)
    }
    assert order[:4] == [("one", 0), ("two", 0), ("one", 1), ("two", 1)]
    assert len(order) == 20
    assert kit.equal(outcomes[cells[1].cell_id], kit.train(cells[1], kit.source(seed=1)))


def test_a_cell_that_diverges_hurts_nobody(kit):
    cells = [kit.cell(config=kit.config(break_at=3)), kit.cell(config=kit.config(raise_at=2)), kit.cell()]
    outcomes = [run(kit, cells)[cell.cell_id] for cell in cells]
    assert [outcome.status for outcome in outcomes] == ["diverged", "failed", "ok"]
    assert outcomes[0].error["type"] == "Diverged"
    assert "nan after 256 of 640 tokens" in outcomes[0].error["message"]
    assert outcomes[0].module is None
    assert outcomes[0].steps == 3
    assert outcomes[0].trajectory  # what it did before is in the record
    assert outcomes[0].dead_fraction is None
    assert outcomes[1].error["type"] == "TypeError"
    assert outcomes[1].error["message"].startswith("a slip in the plugin (conftest.py, line ")
    assert "Traceback" in outcomes[1].traceback
    assert kit.equal(outcomes[2], kit.train())


@pytest.mark.parametrize("normalise", ["rms", "none"])
def test_a_module_that_writes_into_the_shared_batch_fails_and_the_next_one_gets_it_whole(kit, normalise):
    class Greedy(kit.Tiny):
        def after_step(self, context):
            context.batch.x.mul_(2)

    kit.add("greedy", Greedy)
    settings = kit.replace(kit.settings, normalise=normalise)
    greedy, good = kit.cell("greedy", train=settings), kit.cell(train=settings)
    outcomes = run(kit, [greedy, good])
    assert "changed the batch" in outcomes[greedy.cell_id].error["message"]
    assert kit.equal(outcomes[good.cell_id], kit.train(good))


def test_a_cell_that_finds_no_memory_beside_others_is_trained_alone(kit):
    held = []

    class Big(kit.Tiny):
        def training_loss(self, batch, step):
            if held and step.index == 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().training_loss(batch, step)

    class Neighbour(kit.Tiny):
        def training_loss(self, batch, step):
            held[:] = [True]
            return super().training_loss(batch, step)

        def finalize(self, batches):
            held.clear()

    class Huge(kit.Tiny):
        def training_loss(self, batch, step):
            raise MemoryError("far too much")

    for module in (Big, Neighbour, Huge):
        kit.add(module.__name__.lower(), module)
    big, neighbour, huge = kit.cell("big"), kit.cell("neighbour"), kit.cell("huge")
    outcomes = run(kit, [neighbour, big, huge])
    assert outcomes[big.cell_id].ok
    assert outcomes[big.cell_id].steps == 10
    assert outcomes[huge.cell_id].status == "over_budget"
    assert outcomes[neighbour.cell_id].ok
    alone = run(kit, [big])
    assert kit.equal(outcomes[big.cell_id], alone[big.cell_id])


def test_finalize_inputs_are_read_once_and_shared(kit, monkeypatch):
    monkeypatch.setattr("saebench.train.feed.FINALIZE_TOKENS", 256)
    monkeypatch.setattr("saebench.train.cell.FINALIZE_TOKENS", 256)
    seen = []

    class Finalizing(kit.Tiny):
        def finalize(self, batches):
            seen.append(torch.cat(list(batches)))

    kit.add("finalizing", Finalizing)
    source = kit.source()
    run(kit, [kit.cell("finalizing", init_seed=seed) for seed in range(3)], source)
    assert [tuple(x.shape) for x in seen] == [(256, kit.d_in)] * 3
    assert all(torch.equal(seen[0], x) for x in seen)
    assert source.read == 10 + 4


def test_a_fit_with_a_large_share_reads_all_of_it(kit, monkeypatch):
    monkeypatch.setattr("saebench.train.feed.FINALIZE_TOKENS", 128)
    monkeypatch.setattr("saebench.train.cell.FINALIZE_TOKENS", 128)
    seen = []

    class Fitted(kit.Tiny):
        def fit(self, batches, generator):
            seen.append(torch.cat(list(batches)))

    kit.add("fitted", Fitted)
    budgeted, control = kit.cell("fitted", tokens=512), kit.cell("fitted", control=True, tokens=0)
    outcomes = run(kit, [budgeted, control])
    assert [len(x) for x in seen] == [512, 128]
    assert torch.equal(seen[0][:128], seen[1])
    assert outcomes[budgeted.cell_id].tokens == 512


def test_a_child_whose_parent_has_no_checkpoint_is_skipped(kit, tmp_path):
    parent = kit.cell()
    child = kit.cell(parent=parent.cell_id, init_seed=3)
    outcomes = run(kit, [child, kit.cell(init_seed=4)])
    assert [outcome.status for outcome in outcomes.values()] == ["skipped", "ok"]
    (made,) = run(kit, [parent]).values()
    save_outcome(made, parent, tmp_path / "p")
    (outcome,) = run(kit, [child], parents={parent.cell_id: tmp_path / "p"}).values()
    assert outcome.ok
    assert outcome.ancestors == {"tokens": 640, "flops": made.flops + made.forward_flops}
    assert outcome.ancestors_s == made.device_s + made.waited_s


def test_errors_of_one_cell_s_material_are_its_own(kit):
    class Unfit(kit.Tiny):
        def __init__(self, *arguments):
            raise SuiteError("init_from: the parent does not fit")

    kit.add("unfit", Unfit)
    cells = [kit.cell("unfit"), kit.cell("unknown"), kit.cell()]
    outcomes = run(kit, cells)
    assert "does not fit" in outcomes[cells[0].cell_id].error["message"]
    assert "no architecture named" in outcomes[cells[1].cell_id].error["message"]
    assert kit.equal(outcomes[cells[2].cell_id], kit.train())


def test_what_is_everybody_s_trouble_is_raised(kit):
    class NoSpace(kit.Tiny):
        def training_loss(self, batch, step):
            raise OSError(28, "No space left on device", "store")

    kit.add("nospace", NoSpace)
    with pytest.raises(MachineError, match=r"store.*no space"):
        run(kit, [kit.cell("nospace"), kit.cell()])


class Failing:
    """A source that breaks off with an error."""

    def __init__(self, inner, error, after):
        self.inner, self.error, self.after = inner, error, after
        self.n_tokens, self.forward_flops_per_token = inner.n_tokens, 0
        self.data_cost, self.data_s, self.forward_s = inner.data_cost, inner.data_s, inner.forward_s
        self.init_sample = inner.init_sample
        self.closed = False

    def batches(self, batch, seed, start=0):
        try:
            for index, made in enumerate(self.inner.batches(batch, seed, start), start):
                if index == self.after:
                    raise self.error
                yield made
        finally:
            self.closed = True


def test_a_source_s_slip_fails_the_cells_that_read_it(kit):
    broken = Failing(kit.source(), KeyError("row"), 3)
    readers, other = [kit.cell(), kit.cell(init_seed=1)], kit.cell(init_seed=2)
    jobs = [(cell, broken) for cell in readers] + [(other, kit.source())]
    outcomes = {cell.cell_id: outcome for cell, outcome in train_pass(jobs, kit.catalog, device=kit.device)}
    assert [outcomes[cell.cell_id].status for cell in readers] == ["failed", "failed"]
    assert outcomes[readers[0].cell_id].steps == 3
    assert outcomes[other.cell_id].ok


def test_data_that_cannot_be_read_on_fail_the_cells_that_read_them(kit):
    (outcome,) = run(kit, [kit.cell()], Failing(kit.source(), SuiteError("row 7 is no vector"), 3)).values()
    assert outcome.status == "failed"
    assert outcome.error == {"type": "SuiteError", "message": "row 7 is no vector"}


def test_damaged_data_are_raised_and_an_interrupt_closes_the_source(kit):
    with pytest.raises(Damaged, match="flipped"):
        run(kit, [kit.cell()], Failing(kit.source(), Damaged("x.bin: flipped"), 3))

    class Impatient(Watch):
        def advanced(self, tokens):
            raise KeyboardInterrupt

    source = Failing(kit.source(), None, -1)
    with pytest.raises(KeyboardInterrupt):
        run(kit, [kit.cell()], source, progress=Impatient())
    assert source.closed


def test_the_watch_hears_of_every_token(kit):
    class Counting(Watch):
        def __init__(self):
            self.tokens, self.cells = 0, []

        def started(self, cell):
            self.cells.append(cell)

        def advanced(self, tokens):
            self.tokens += tokens

    watch = Counting()
    cells = [kit.cell(tokens=650), kit.cell(config=kit.config(break_at=3)), kit.cell(control=True, tokens=0)]
    run(kit, cells, progress=watch)
    assert watch.cells == cells
    assert watch.tokens == 650 + 640  # a cell that ended early leaves nothing open
