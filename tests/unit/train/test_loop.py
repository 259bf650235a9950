from __future__ import annotations

import itertools
import math

import pytest
import torch

from saebench.api import Cost, MachineError, NonNegative, SuiteError
from saebench.artifacts import read_meta
from saebench.train import read_outcome, rms_scale, save_outcome, train_cell, train_cohort


def train(kit, cell=None, source=None, **more):
    return train_cell(cell or kit.cell(), source or kit.source(), kit.catalog, **more)


def equal(a, b):
    left, right = a.module.state_dict(), b.module.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_two_runs_are_equal_bit_for_bit(kit):
    a, b = train(kit), train(kit)
    assert a.ok
    assert equal(a, b)
    assert a.to_json() == b.to_json()
    other = train(kit, kit.cell(init_seed=1))
    assert not equal(a, other)


def test_alone_or_after_others_is_the_same(kit):
    cells = [kit.cell(config=kit.config(k=4)), kit.cell(init_seed=7), kit.cell()]
    source = kit.source()
    in_cohort = {
        cell.cell_id + str(cell.init_seed): outcome for cell, outcome in train_cohort(cells, source, kit.catalog)
    }
    assert equal(in_cohort[cells[2].cell_id + "0"], train(kit))
    # every cell read the same batches
    assert source.asked == [(64, 5)] * 3


def test_it_learns_and_stops_on_its_share(kit):
    outcome = train(kit, kit.cell(tokens=64 * 60))
    assert outcome.trajectory[-1]["fvu"] < 0.5 * outcome.trajectory[0]["fvu"]
    assert outcome.steps == 60
    assert outcome.tokens == 64 * 60
    assert outcome.epochs == pytest.approx(6.0)
    assert outcome.forward == {"tokens": 64 * 60, "flops": 7 * 64 * 60}


def test_over_spend_is_less_than_a_batch_and_recorded(kit):
    outcome = train(kit, kit.cell(tokens=650))
    assert outcome.tokens == 704
    assert outcome.steps == 11
    assert outcome.spent["tokens"] == 704


def test_flops_count_the_batch_s_own_l0(kit):
    codes = []

    class Counting(kit.Tiny):
        def training_loss(self, batch, step):
            terms = super().training_loss(batch, step)
            codes.append(int((terms.codes.values != 0).sum()))
            return terms

    kit.add("counting", Counting)
    outcome = train(kit, kit.cell("counting"))
    assert outcome.flops == 640 * 100 + sum(codes) * 10 + 10 * 1000


def test_trajectory_has_twelve_log_spaced_points(kit):
    outcome = train(kit, kit.cell(tokens=64 * 100))
    tokens = [point["tokens"] for point in outcome.trajectory]
    assert len(tokens) == 12
    assert tokens[0] == 64
    assert tokens[-1] == 6400
    ratios = [b / a for a, b in itertools.pairwise(tokens[4:])]
    assert max(ratios) / min(ratios) < 1.3
    assert all(
        math.isfinite(point["fvu"]) and 0 < point["l0"] <= 2 and point["flops"] > 0 for point in outcome.trajectory
    )


def test_progress_is_told_at_most_twenty_times_and_changes_nothing(kit):
    calls = []
    outcome = train(kit, kit.cell(tokens=64 * 100), progress=lambda *told: calls.append(told))
    assert len(calls) == 20
    assert calls[-1][:2] == (6400, 6400)
    assert equal(outcome, train(kit, kit.cell(tokens=64 * 100)))


def test_inputs_are_scaled_to_unit_rms(kit):
    source = kit.source(scale=50.0)
    outcome = train(kit, source=source)
    assert outcome.input_scale == pytest.approx(float(source.x.double().square().mean().sqrt()))
    name, n, mean_square = outcome.module.seen[0]
    assert (name, n) == ("init", 640)
    assert mean_square == pytest.approx(kit.d_in, rel=1e-5)
    plain = train(kit, kit.cell(train=kit.replace(kit.settings, normalise="none")), source)
    assert plain.input_scale == 1.0
    assert rms_scale(torch.zeros(3, 2)) == 1.0


def test_steps_say_where_training_stands(kit):
    outcome = train(kit)
    steps = outcome.module.seen[1:]
    assert [step.index for step in steps] == list(range(10))
    assert steps[3].tokens_seen == 192
    assert steps[3].progress == pytest.approx(0.3)
    assert steps[3].tokens_allotted == 640


def test_unit_rows_hold_and_gradients_stay_tangent(kit):
    norms = []

    class Watching(kit.Tiny):
        def training_loss(self, batch, step):
            norms.append(self.W_dec.detach().norm(dim=1))
            return super().training_loss(batch, step)

        def after_step(self, context):
            with torch.no_grad():
                self.W_dec[0] *= 5  # re-aimed rows obey the constraint too

    kit.add("watching", Watching)
    outcome = train(kit, kit.cell("watching"))
    torch.testing.assert_close(torch.stack(norms), torch.ones(10, kit.d_sae), atol=1e-6, rtol=0)
    torch.testing.assert_close(outcome.module.W_dec.norm(dim=1), torch.ones(kit.d_sae), atol=1e-6, rtol=0)


def test_non_negative_clamps_to_its_floor(kit):
    class Floored(kit.Tiny):
        def constraints(self):
            return {"b_dec": NonNegative(0.25)}

    kit.add("floored", Floored)
    assert float(train(kit, kit.cell("floored")).module.b_dec.min()) >= 0.25


def test_a_cell_that_diverges_hurts_nobody(kit):
    cells = [kit.cell(config=kit.config(break_at=3)), kit.cell(config=kit.config(raise_at=2)), kit.cell()]
    outcomes = [outcome for _, outcome in train_cohort(cells, kit.source(), kit.catalog)]
    assert [outcome.status for outcome in outcomes] == ["diverged", "failed", "ok"]
    assert outcomes[0].error["type"] == "Diverged"
    assert "nan after 256 of 640 tokens" in outcomes[0].error["message"]
    assert outcomes[0].module is None
    assert outcomes[0].steps == 3
    assert outcomes[0].trajectory  # what it did before stands in the record
    assert outcomes[1].error == {"type": "TypeError", "message": "a slip in the plugin"}
    assert "Traceback" in outcomes[1].traceback
    assert equal(outcomes[2], train(kit))


def test_weights_that_stop_being_finite_diverge(kit):
    class Broken(kit.Tiny):
        def finalize(self, batches):
            self.b_dec.data[0] = float("inf")

    kit.add("broken", Broken)
    outcome = train(kit, kit.cell("broken"))
    assert outcome.status == "diverged"
    assert "'b_dec' [8]" in outcome.error["message"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reconstruction": torch.zeros(())}, r"LossTerms.reconstruction must be \[64\]"),
        ({"x_hat": torch.zeros(2, 2)}, r"LossTerms.x_hat must be \[64, 8\]"),
        ({"penalties": {"l1": torch.zeros(3)}}, "penalty 'l1' must be a scalar tensor"),
    ],
)
def test_a_broken_contract_names_the_cell_and_what_came(kit, change, message):
    class Wrong(kit.Tiny):
        def training_loss(self, batch, step):
            return kit.replace(super().training_loss(batch, step), **change)

    kit.add("wrong", Wrong)
    outcome = train(kit, kit.cell("wrong"))
    assert outcome.status == "failed"
    assert outcome.error["type"] == "PluginError"
    with pytest.raises(ValueError, match=message):
        raise ValueError(outcome.error["message"])


def test_token_weights_replace_the_mean(kit):
    class Worst(kit.Tiny):
        def token_weights(self, losses, step):
            assert not losses.requires_grad
            weights = torch.zeros_like(losses)
            weights[losses.argmax()] = 1.0
            return weights

    class Uniform(kit.Tiny):
        def token_weights(self, losses, step):
            return torch.full_like(losses, 1 / losses.numel())

    class Unnormalised(kit.Tiny):
        def token_weights(self, losses, step):
            return torch.ones_like(losses)

    for module in (Worst, Uniform, Unnormalised):
        kit.add(module.__name__.lower(), module)
    plain, worst, uniform = train(kit), train(kit, kit.cell("worst")), train(kit, kit.cell("uniform"))
    assert worst.facts["effective_sample_size"]["mean"] == 1.0
    assert uniform.facts["effective_sample_size"]["mean"] == pytest.approx(64)
    assert not torch.allclose(plain.module.W_enc, worst.module.W_enc, atol=1e-3)
    torch.testing.assert_close(plain.module.W_enc, uniform.module.W_enc, atol=1e-3, rtol=0)
    assert "must sum to 1, got 64" in train(kit, kit.cell("unnormalised")).error["message"]


def test_facts_of_the_steps_are_summarised(kit):
    assert train(kit).facts["step"] == {"mean": 4.5, "min": 0.0, "max": 9.0, "last": 9.0, "n": 10}


def test_dead_fraction_is_of_the_last_fifth(kit):
    class HalfSilent(kit.Tiny):
        def encode(self, x):
            values, latents = torch.topk(((x - self.b_dec) @ self.W_enc.T).abs(), self.config.k)
            codes = super().encode(x)
            return kit.replace(codes, values=values.reshape(-1) + 1, latents=latents.reshape(-1) % 4)

    kit.add("halfsilent", HalfSilent)
    assert train(kit, kit.cell("halfsilent", config=kit.config(k=1))).dead_fraction == 12 / 16


def test_finalize_reads_training_batches_and_is_charged(kit):
    class Finalizing(kit.Tiny):
        def finalize(self, batches):
            batches = list(batches)
            self.seen.append([tuple(batch.shape) for batch in batches])
            assert not torch.is_grad_enabled()

    kit.add("finalizing", Finalizing)
    outcome, plain = train(kit, kit.cell("finalizing")), train(kit)
    assert outcome.module.seen[-1] == [(64, kit.d_in)] * 10
    assert outcome.tokens == plain.tokens
    assert outcome.flops == plain.flops + 640 * 50


def test_a_control_is_fitted_once_through_without_a_budget(kit):
    class Fitted(kit.Tiny):
        def fit(self, batches, generator):
            self.seen.append(sum(batch.shape[0] for batch in batches))

    kit.add("fitted", Fitted)
    outcome = train(kit, kit.cell("fitted", control=True, train=None, tokens=0), kit.source(n=4096))
    assert outcome.ok
    assert outcome.module.seen[-1] == 4096
    assert outcome.training() == {"steps": 0, "trajectory": [], "dead_fraction": None, "facts": {}}
    only_built = train(kit, kit.cell(control=True, train=None, tokens=0), memory_share_bytes=1)
    assert only_built.ok
    assert only_built.training() is None
    assert only_built.spent == {"tokens": 0, "flops": 0}
    assert only_built.module.seen[0][0] == "init"


def test_only_a_control_may_have_fewer_latents_than_planned(kit, tmp_path):
    outcome = train(kit, kit.cell(d_sae=20))
    assert "the module's d_sae is 16, the plan says 20" in outcome.error["message"]
    control = kit.cell(d_sae=20, control=True, tokens=0)
    outcome = train(kit, control)
    save_outcome(outcome, control, tmp_path / "c")
    assert read_meta(tmp_path / "c")["d_sae"] == 16


def test_what_a_checkpoint_keeps_of_training_comes_back(kit, tmp_path):
    outcome, cell = train(kit), kit.cell()
    save_outcome(outcome, cell, tmp_path / "c")
    back = read_outcome(tmp_path / "c")
    assert back.to_json() == outcome.to_json()
    assert back.measured() == outcome.measured()
    assert back.training_facts(7).data_tokens == 7
    assert back.module is None
    with pytest.raises(ValueError, match="no weights to save"):
        save_outcome(back, cell, tmp_path / "d")


def test_a_cell_over_its_memory_share_is_refused_before_it_starts(kit):
    source = kit.source()
    outcome = train(kit, source=source, memory_share_bytes=1000)
    assert outcome.status == "over_budget"
    # 264 values with gradient and two moments, 64 tokens of 64 bytes
    assert "8,320 bytes" in outcome.error["message"]
    assert "1,000 bytes" in outcome.error["message"]
    assert not source.asked
    assert Cost(264, 0, 0, 0, 0, 0, 64).training_memory_bytes(64) == 8320


def test_a_child_inherits_weights_and_scale_and_adds_up_the_cost(kit, tmp_path):
    class Child(kit.Tiny):
        pass

    def build(config, *, site, generator, init_from=None, base=None):
        module = Child(config, site, generator)
        module.load_state_dict(init_from.state_dict())
        return module

    kit.add("child", Child)
    offer = kit.catalog.architectures["child"]
    kit.catalog.architectures["child"] = kit.replace(offer, spec=kit.replace(offer.spec, build=build))
    parent_cell = kit.cell()
    child_cell = kit.cell("child", parent=parent_cell.cell_id, dataset=kit.replace(parent_cell.dataset, name="near"))
    missing = train(kit, child_cell, parent_folder=tmp_path / "p")
    assert missing.status == "skipped"
    assert "has no checkpoint" in missing.error["message"]
    parent = train(kit, parent_cell, kit.source(scale=2.0))
    save_outcome(parent, parent_cell, tmp_path / "p")
    child = train(kit, child_cell, kit.source(scale=9.0), parent_folder=tmp_path / "p")
    assert child.ok
    assert child.input_scale == parent.input_scale
    assert child.module.seen[0].index == 0  # no init from data over the parent's weights
    assert child.total_spent == {"tokens": 1280, "flops": parent.flops + child.flops}
    assert (tmp_path / "p" / "sae.json").is_file()


def test_a_cohort_finds_parents_saved_while_it_runs(kit, tmp_path):
    parent, child = kit.cell(), kit.cell(parent=kit.cell().cell_id, init_seed=3)
    statuses = []
    for cell, outcome in train_cohort(
        [parent, child], kit.source(), kit.catalog, parents={parent.cell_id: tmp_path / "p"}
    ):
        statuses.append(outcome.status)
        if cell is parent:
            save_outcome(outcome, cell, tmp_path / "p")
    assert statuses == ["ok", "ok"]


def test_what_is_everybody_s_trouble_is_raised(kit):
    class NoSpace(kit.Tiny):
        def training_loss(self, batch, step):
            raise OSError(28, "No space left on device", "store")

    kit.add("nospace", NoSpace)
    with pytest.raises(MachineError, match=r"store.*no space"):
        train(kit, kit.cell("nospace"))
    with pytest.raises(SuiteError, match="no architecture named"):
        train(kit, kit.cell("nobody"))


def test_data_that_end_are_an_error_of_the_cell(kit):
    source = kit.source()
    source.batches = lambda batch, seed: iter(())
    assert "the data ended after 0 of 640 tokens" in train(kit, source=source).error["message"]


def test_measured_values_are_there(kit):
    measured = train(kit).measured()
    assert measured["device_s"] > 0
    assert measured["peak_memory_bytes"] > 10_000_000
    assert "process" in measured["peak_memory_scope"]
